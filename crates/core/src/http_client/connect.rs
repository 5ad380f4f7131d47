//! Connections: from a URI to a stream that HTTP can be spoken on, by way of names, TCP, proxies and TLS.
//!
//! Rule: an error says at which party the way ended (`Failure`), as only this code knows which one it was about.

use std::{
    error::Error as StdError,
    io::{self, IoSlice},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Uri, uri::Scheme};
use hyper_util::{
    client::legacy::{
        Error as ClientError,
        connect::{
            Connected, Connection, HttpConnector,
            dns::{GaiResolver, Name},
        },
    },
    rt::TokioIo,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::client::TlsStream;
use tower_service::Service;

use super::{
    HttpSettings, HttpVersion,
    proxy::{Proxies, Way},
    reach::Trace,
    tls::{Identity, Tls, Trust},
};
use crate::{config::Proxy, error::Error};

/// A peer that is gone without a word is found out within a minute: by TCP's own probes after 30 s of silence, by data
/// that nobody acknowledges, and with HTTP/2 by pings while requests are open (`HttpSettings::ping`), as a proxy may keep
/// up its half.
const PROBE_AFTER: Duration = Duration::from_secs(30);
const PROBE_EVERY: Duration = Duration::from_secs(10);
const PROBES: u32 = 3;
#[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
const UNACKNOWLEDGED: Duration = Duration::from_mins(1);

/// The name of HTTP/2 in ALPN.
const H2: &[u8] = b"h2";

pub(super) type BoxError = Box<dyn StdError + Send + Sync>;
type Connecting<E> = Pin<Box<dyn Future<Output = Result<TokioIo<Stream>, E>> + Send>>;

/// Where the way to a server ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("it took too long")]
    TimedOut,
    #[error("the proxy is not reached")]
    NoProxy(#[source] BoxError),
    #[error("the proxy wants credentials, or others")]
    Credentials,
    #[error("the proxy makes no connection")]
    Refused(#[source] BoxError),
    #[error("the server is not reached")]
    NoServer(#[source] BoxError),
}

/// The name of a host has no address.
#[derive(Debug, thiserror::Error)]
#[error("no address")]
pub(super) struct NoAddress(#[from] io::Error);

/// Connects to servers, directly or through proxies.
#[derive(Clone)]
pub(super) struct Connector(Arc<Means>);

struct Means {
    to_server: Direct,
    to_proxy: Direct,
    proxies: Proxies,
    identity: Arc<Identity>,
    limit: Duration,
}

impl Connector {
    /// # Errors
    /// Certificates or keys that cannot be used.
    pub(super) fn new(settings: &HttpSettings) -> Result<Self, Error> {
        let identity = Identity::read(&settings.tls)?;
        let trust = Trust::read(&settings.tls)?;
        let tls = Tls::new(
            &trust,
            &identity,
            match settings.version {
                HttpVersion::Auto => &[H2, b"http/1.1"],
                HttpVersion::Http1 => &[b"http/1.1"],
                HttpVersion::Http2 => &[H2],
            },
        );
        // A proxy is another party than the server: it does not see who the user is there.
        let tls_to_proxy = Tls::new(&trust, &Identity::none(), &[]);

        let mut tcp = HttpConnector::new_with_resolver(Names::new());
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        // Shared out among the addresses of a host, so that one that is dead leaves time for the others.
        tcp.set_connect_timeout(Some(settings.connect));
        tcp.set_keepalive(Some(PROBE_AFTER));
        tcp.set_keepalive_interval(Some(PROBE_EVERY));
        tcp.set_keepalive_retries(Some(PROBES));
        #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
        tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED));

        Ok(Self(Arc::new(Means {
            to_server: Direct { tcp: tcp.clone(), tls },
            to_proxy: Direct { tcp, tls: tls_to_proxy },
            proxies: Proxies::new(&settings.proxy),
            identity,
            limit: settings.connect,
        })))
    }

    /// The same with other proxies.
    pub(super) fn with_proxies(&self, proxy: &Proxy) -> Self {
        let Means { to_server, to_proxy, identity, limit, .. } = &*self.0;
        Self(Arc::new(Means {
            to_server: to_server.clone(),
            to_proxy: to_proxy.clone(),
            proxies: Proxies::new(proxy),
            identity: Arc::clone(identity),
            limit: *limit,
        }))
    }

    pub(super) fn proxies(&self) -> &Proxies {
        &self.0.proxies
    }

    /// What it means that a request to this URI failed.
    pub(super) fn explain(&self, error: ClientError, uri: &Uri) -> Error {
        let proxy = self.0.proxies.between(uri).map(|way| way.proxy());
        Trace { uri, proxy, asked: self.0.identity.asked() }.explain(error)
    }

    async fn connect(&self, target: &Uri) -> Result<Stream, Failure> {
        let Means { to_server, to_proxy, proxies, .. } = &*self.0;
        let Some(way) = proxies.between(target) else {
            return to_server.connect(target).await.map_err(Failure::NoServer);
        };
        let stream = way.connect(to_proxy.clone(), target).await?;
        if matches!(way, Way::Forward(_)) {
            return Ok(Stream { is_forwarded: true, ..stream });
        }
        to_server.secure(stream, target).await.map_err(Failure::NoServer)
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = Failure;
    type Future = Connecting<Failure>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let connected = timeout(this.0.limit, this.connect(&target)).await;
            connected.unwrap_or(Err(Failure::TimedOut)).map(TokioIo::new)
        })
    }
}

/// Connects to where a URI points: by TCP, and with TLS if it is `https`.
#[derive(Clone)]
pub(super) struct Direct {
    tcp: HttpConnector<Names>,
    tls: Arc<Tls>,
}

impl std::fmt::Debug for Direct {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Direct").finish_non_exhaustive()
    }
}

impl Direct {
    /// A connection with where `target` points.
    pub(super) async fn connect(&self, target: &Uri) -> Result<Stream, BoxError> {
        let stream = self.tcp.clone().call(target.clone()).await?.into_inner();
        self.secure(Stream { layer: Layer::Tcp(stream), is_forwarded: false }, target).await
    }

    /// Puts TLS on a stream to `target` if that is `https`.
    async fn secure(&self, stream: Stream, target: &Uri) -> Result<Stream, BoxError> {
        if target.scheme() != Some(&Scheme::HTTPS) {
            return Ok(stream);
        }
        let stream = self.tls.secure(bare_host(target), stream).await?;
        Ok(Stream { layer: Layer::Tls(Box::new(stream)), is_forwarded: false })
    }
}

impl Service<Uri> for Direct {
    type Response = TokioIo<Stream>;
    type Error = BoxError;
    type Future = Connecting<BoxError>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move { this.connect(&target).await.map(TokioIo::new) })
    }
}

/// The addresses of names.
#[derive(Clone, Debug)]
pub(super) struct Names(GaiResolver);

impl Names {
    pub(super) fn new() -> Self {
        Self(GaiResolver::new())
    }
}

impl Service<Name> for Names {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = NoAddress;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, NoAddress>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), NoAddress>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        // By definition (RFC 6761), and not all name services know that it has both (R94).
        if name.as_str().eq_ignore_ascii_case("localhost") {
            let both = vec![(Ipv4Addr::LOCALHOST, 0).into(), (Ipv6Addr::LOCALHOST, 0).into()];
            return Box::pin(std::future::ready(Ok(both.into_iter())));
        }
        let addresses = self.0.call(name);
        Box::pin(async { Ok(addresses.await?.collect::<Vec<_>>().into_iter()) })
    }
}

/// The host of a URI, without the brackets of an IPv6 address.
pub(super) fn bare_host(uri: &Uri) -> &str {
    let host = uri.host().unwrap_or_default();
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// A connection: TCP, with TLS on it once or, behind a proxy that wants TLS too, twice.
pub(super) struct Stream {
    layer: Layer,
    /// The peer is a proxy that sends requests on.
    is_forwarded: bool,
}

enum Layer {
    Tcp(TcpStream),
    Tls(Box<TlsStream<Stream>>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        let connected = Connected::new().proxy(self.is_forwarded);
        match &self.layer {
            Layer::Tls(stream) if stream.get_ref().1.alpn_protocol() == Some(H2) => connected.negotiated_h2(),
            _ => connected,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.layer {
            Layer::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Layer::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.layer {
            Layer::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Layer::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.layer {
            Layer::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Layer::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.layer {
            Layer::Tcp(stream) => stream.is_write_vectored(),
            Layer::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.layer {
            Layer::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Layer::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.layer {
            Layer::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Layer::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
