//! Opens connections: from a URI to a stream for HTTP, through name resolution, TCP, proxies and TLS.
//!
//! Rule: an error names the party at which the attempt failed (`ConnectFailure`), because only this code knows it.

use std::{
    error::Error as StdError,
    io::{self, IoSlice},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Uri, uri::Scheme};
use hyper_util::{
    client::legacy::connect::{
        HttpConnector,
        dns::{GaiResolver, Name},
    },
    rt::TokioIo,
};
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::client::TlsStream;
use tower_service::Service;

use super::{
    HttpSettings, HttpVersion, UnixSocket,
    connect_error::RouteContext,
    proxy::{Proxies, ProxyRoute},
    ssrf_guard::{AddressScope, Addresses, is_localhost},
    tls::{Identity, TlsSetup, Trust},
};
use crate::{error::Error, http::Proxy};

/// A peer that disappears is detected within a minute: by TCP keep-alive probes after 30 s of silence, by
/// unacknowledged data, and with HTTP/2 by pings while requests are open (`HttpSettings::ping`), because a proxy may
/// keep its side of the connection open.
const PROBE_AFTER: Duration = Duration::from_secs(30);
const PROBE_EVERY: Duration = Duration::from_secs(10);
const PROBES: u32 = 3;
#[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
const TCP_USER_TIMEOUT: Duration = Duration::from_mins(1);

/// The name of HTTP/2 in ALPN.
const H2: &[u8] = b"h2";

pub(super) type BoxError = Box<dyn StdError + Send + Sync>;

/// At which party an attempt to connect failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectFailure {
    #[error("timed out")]
    TimedOut,
    #[error("cannot reach the proxy")]
    NoProxy(#[source] BoxError),
    #[error("the proxy wants credentials, or others")]
    Credentials,
    #[error("the proxy refuses to connect")]
    Refused(#[source] BoxError),
    #[error("cannot reach the server")]
    NoServer(#[source] BoxError),
}

/// Why a request got no response.
#[derive(Debug)]
pub(super) enum RequestFailure {
    /// There was no connection.
    Unreached(ConnectFailure),
    /// The connection broke, or the peer does not speak HTTP. `is_unsent`: no byte of the request was written.
    Broken { error: hyper::Error, is_unsent: bool },
}

impl From<ConnectFailure> for RequestFailure {
    fn from(failure: ConnectFailure) -> Self {
        Self::Unreached(failure)
    }
}

/// A host has no address to connect to.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAddress {
    #[error("no address")]
    Unknown(#[from] io::Error),
    /// The settings allow none of its addresses. This is one of them.
    #[error("{0} is {1}")]
    Forbidden(IpAddr, AddressScope),
}

/// Connects to servers, directly or through proxies.
#[derive(Clone)]
pub(super) struct Connector(Arc<ConnectorInner>);

struct ConnectorInner {
    to_server: Direct,
    to_proxy: Direct,
    proxies: Proxies,
    identity: Arc<Identity>,
    names: Names,
    unix_socket: Option<UnixSocket>,
    limit: Duration,
}

impl Connector {
    /// # Errors
    /// A certificate or key cannot be used.
    pub(super) fn new(settings: &HttpSettings) -> Result<Self, Error> {
        let identity = Identity::read(&settings.tls)?;
        let trust = Trust::read(&settings.tls)?;
        let tls = TlsSetup::new(
            &trust,
            &identity,
            match settings.version {
                HttpVersion::Auto => &[H2, b"http/1.1"],
                HttpVersion::Http1 => &[b"http/1.1"],
                HttpVersion::Http2 => &[H2],
            },
        );
        // A proxy is not the server, so it never sees the user's client certificate.
        let tls_to_proxy = TlsSetup::new(&trust, &Identity::none(), &[]);

        let names = Names::within(settings.addresses.clone());
        // The user has chosen the proxy, so it may have any address.
        let tcp = |names| Self::tcp(names, settings.connect);
        Ok(Self(Arc::new(ConnectorInner {
            to_server: Direct { tcp: tcp(names.clone()), tls },
            to_proxy: Direct { tcp: tcp(Names::new()), tls: tls_to_proxy },
            proxies: Proxies::new(&settings.proxy),
            identity,
            names,
            unix_socket: settings.unix_socket.clone(),
            limit: settings.connect,
        })))
    }

    fn tcp(names: Names, limit: Duration) -> HttpConnector<Names> {
        let mut tcp = HttpConnector::new_with_resolver(names);
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        // Divided among the addresses of a host, so that a dead address leaves time for the others.
        tcp.set_connect_timeout(Some(limit));
        tcp.set_keepalive(Some(PROBE_AFTER));
        tcp.set_keepalive_interval(Some(PROBE_EVERY));
        tcp.set_keepalive_retries(Some(PROBES));
        #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
        tcp.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT));
        tcp
    }

    /// Returns the same connector with other proxies.
    pub(super) fn with_proxies(&self, proxy: &Proxy) -> Self {
        let ConnectorInner { to_server, to_proxy, identity, names, unix_socket, limit, .. } = &*self.0;
        Self(Arc::new(ConnectorInner {
            to_server: to_server.clone(),
            to_proxy: to_proxy.clone(),
            proxies: Proxies::new(proxy),
            identity: Arc::clone(identity),
            names: names.clone(),
            unix_socket: unix_socket.clone(),
            limit: *limit,
        }))
    }

    /// Returns the route through a proxy to this URI, if there is a proxy.
    pub(super) fn way(&self, uri: &Uri) -> Option<ProxyRoute> {
        if self.socket(uri).is_some() { None } else { self.0.proxies.between(uri) }
    }

    /// Returns the Unix socket for this URI, if it has one.
    fn socket(&self, uri: &Uri) -> Option<&UnixSocket> {
        self.0.unix_socket.as_ref().filter(|socket| socket.is_for(uri))
    }

    /// Returns the error for a request to this URI that got no response.
    pub(super) fn explain(&self, error: RequestFailure, uri: &Uri) -> Error {
        self.trace(uri).explain(error)
    }

    /// Checks that the host of a URI may be connected to. Behind a proxy, the address of a name is unknown and is not
    /// checked.
    #[cfg(feature = "oauth")]
    pub(super) async fn judge(&self, target: &Uri) -> Result<(), Error> {
        let ConnectorInner { names, .. } = &*self.0;
        let judged = match names.check_literal_address(bare_host(target)).await {
            Ok(()) if self.way(target).is_none() => names.allowed(bare_host(target)).await.map(drop),
            judged => judged,
        };
        judged.map_err(|forbidden| self.trace(target).route_error(&ConnectFailure::NoServer(forbidden.into())))
    }

    fn trace<'a>(&'a self, uri: &'a Uri) -> RouteContext<'a> {
        let proxy = self.way(uri).map(|way| way.proxy());
        let socket = self.socket(uri).map(UnixSocket::path);
        RouteContext { uri, proxy, socket, asked: self.0.identity.asked() }
    }

    /// Connects to `target`, or to the proxy that forwards requests to it.
    ///
    /// # Errors
    /// At which party the attempt failed.
    pub(super) async fn connect(&self, target: &Uri) -> Result<NetworkStream, ConnectFailure> {
        timeout(self.0.limit, self.open_stream(target)).await.unwrap_or(Err(ConnectFailure::TimedOut))
    }

    async fn open_stream(&self, target: &Uri) -> Result<NetworkStream, ConnectFailure> {
        let ConnectorInner { to_server, to_proxy, names, .. } = &*self.0;
        if let Some(socket) = self.socket(target) {
            let stream = socket.connect().await.map_err(|error| ConnectFailure::NoServer(error.into()))?;
            return to_server.secure(stream, target).await.map_err(ConnectFailure::NoServer);
        }
        let judged = names.check_literal_address(bare_host(target)).await;
        judged.map_err(|forbidden| ConnectFailure::NoServer(forbidden.into()))?;
        let Some(way) = self.way(target) else {
            return to_server.connect(target).await.map_err(ConnectFailure::NoServer);
        };
        let stream = way.connect(to_proxy.clone(), target).await?;
        if matches!(way, ProxyRoute::Forward(_)) {
            return Ok(NetworkStream { is_forwarded: true, ..stream });
        }
        to_server.secure(stream, target).await.map_err(ConnectFailure::NoServer)
    }
}

/// Connects directly to a URI: with TCP, and with TLS if it is `https`.
#[derive(Clone)]
pub(super) struct Direct {
    tcp: HttpConnector<Names>,
    tls: Arc<TlsSetup>,
}

impl std::fmt::Debug for Direct {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Direct").finish_non_exhaustive()
    }
}

impl Direct {
    /// Connects to `target`.
    pub(super) async fn connect(&self, target: &Uri) -> Result<NetworkStream, BoxError> {
        #[cfg(any(test, feature = "internals"))]
        if let Some(wire) = super::in_memory::connect(target) {
            return self.secure(NetworkStream { layer: Layer::Memory(wire?), is_forwarded: false }, target).await;
        }
        let stream = self.tcp.clone().call(target.clone()).await?.into_inner();
        self.secure(NetworkStream { layer: Layer::Tcp(stream), is_forwarded: false }, target).await
    }

    /// Adds TLS to a stream to `target` if its scheme is `https`.
    async fn secure(&self, stream: NetworkStream, target: &Uri) -> Result<NetworkStream, BoxError> {
        if target.scheme() != Some(&Scheme::HTTPS) {
            return Ok(stream);
        }
        let stream = self.tls.secure(bare_host(target), stream).await?;
        Ok(NetworkStream { layer: Layer::Tls(Box::new(stream)), is_forwarded: false })
    }
}

impl Service<Uri> for Direct {
    type Response = TokioIo<NetworkStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move { this.connect(&target).await.map(TokioIo::new) })
    }
}

/// Resolves names, and returns only addresses that may be connected to.
#[derive(Clone, Debug)]
pub(super) struct Names {
    resolver: GaiResolver,
    allowed: Addresses,
}

impl Names {
    pub(super) fn new() -> Self {
        Self::within(Addresses::Any)
    }

    /// Returns only allowed addresses.
    pub(super) fn within(allowed: Addresses) -> Self {
        Self { resolver: GaiResolver::new(), allowed }
    }

    /// Checks that a host may be connected to, if its address is known without a lookup. An address that is not
    /// allowed is not requested from a proxy either.
    async fn check_literal_address(&self, host: &str) -> Result<(), NoAddress> {
        match literal(host) {
            Some(addresses) => self.permitted(addresses).await.map(drop),
            None => Ok(()),
        }
    }

    /// Returns the addresses of a host that may be connected to.
    async fn allowed(&self, host: &str) -> Result<Vec<SocketAddr>, NoAddress> {
        let found = self.find(host).await?;
        self.permitted(found).await
    }

    /// Keeps the addresses that may be connected to, and ignores the others.
    async fn permitted(&self, mut addresses: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, NoAddress> {
        let Addresses::Like(host) = &self.allowed else { return Ok(addresses) };
        let is_for_all = |address: &SocketAddr| AddressScope::of(address.ip()) == AddressScope::Everybody;
        let forbidden = addresses.iter().find(|address| !is_for_all(address)).map(SocketAddr::ip);
        let Some(forbidden) = forbidden else { return Ok(addresses) };
        // If the server's host has no address here (only a proxy may know it), only public addresses are allowed. The
        // same holds if it also has a public address: the owner of its name can add any other address to it.
        let at = self.find(host).await.unwrap_or_default();
        let at = if at.iter().any(is_for_all) { Vec::new() } else { at };
        addresses.retain(|address| {
            let reach = AddressScope::of(address.ip());
            let is_there =
                reach != AddressScope::Nobody && at.iter().any(|other| AddressScope::of(other.ip()) == reach);
            reach == AddressScope::Everybody || is_there
        });
        if addresses.is_empty() {
            Err(NoAddress::Forbidden(forbidden, AddressScope::of(forbidden)))
        } else {
            Ok(addresses)
        }
    }

    /// Returns all addresses of a host.
    async fn find(&self, host: &str) -> Result<Vec<SocketAddr>, NoAddress> {
        if let Some(addresses) = literal(host) {
            return Ok(addresses);
        }
        let name = host.parse::<Name>().map_err(io::Error::other)?;
        Ok(self.resolver.clone().call(name).await?.collect())
    }
}

/// Returns the addresses of a host that needs no lookup.
fn literal(host: &str) -> Option<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Some(vec![(address, 0).into()]);
    }
    // RFC 6761, 6.3, defines these addresses. Some name services do not return both (R94), or return addresses of
    // other hosts.
    is_localhost(host).then(|| vec![(Ipv4Addr::LOCALHOST, 0).into(), (Ipv6Addr::LOCALHOST, 0).into()])
}

impl Service<Name> for Names {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = NoAddress;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, NoAddress>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), NoAddress>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let this = self.clone();
        Box::pin(async move { Ok(this.allowed(name.as_str()).await?.into_iter()) })
    }
}

/// Returns the host of a URI, without the brackets of an IPv6 address.
pub(super) fn bare_host(uri: &Uri) -> &str {
    let host = uri.host().unwrap_or_default();
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

impl UnixSocket {
    #[cfg(unix)]
    async fn connect(&self) -> io::Result<NetworkStream> {
        let stream = UnixStream::connect(self.path()).await?;
        Ok(NetworkStream { layer: Layer::Unix(stream), is_forwarded: false })
    }

    #[cfg(not(unix))]
    async fn connect(&self) -> io::Result<NetworkStream> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "there are no Unix sockets on this system"))
    }
}

/// A connection: TCP or a Unix socket, plus one layer of TLS, or two if the proxy uses TLS as well.
pub(super) struct NetworkStream {
    layer: Layer,
    /// True if the peer is a proxy that forwards requests.
    is_forwarded: bool,
}

enum Layer {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
    Tls(Box<TlsStream<NetworkStream>>),
    #[cfg(any(test, feature = "internals"))]
    Memory(Box<dyn super::in_memory::Wire>),
}

impl NetworkStream {
    /// True if the peer is a proxy that forwards requests.
    pub(super) fn is_forwarded(&self) -> bool {
        self.is_forwarded
    }

    /// True if the TLS handshake chose HTTP/2.
    pub(super) fn chose_http2(&self) -> bool {
        matches!(&self.layer, Layer::Tls(stream) if stream.get_ref().1.alpn_protocol() == Some(H2))
    }
}

impl AsyncRead for NetworkStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.layer {
            Layer::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            #[cfg(unix)]
            Layer::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
            Layer::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
            #[cfg(any(test, feature = "internals"))]
            Layer::Memory(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for NetworkStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.layer {
            Layer::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            #[cfg(unix)]
            Layer::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
            Layer::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
            #[cfg(any(test, feature = "internals"))]
            Layer::Memory(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.layer {
            Layer::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            #[cfg(unix)]
            Layer::Unix(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Layer::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            #[cfg(any(test, feature = "internals"))]
            Layer::Memory(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.layer {
            Layer::Tcp(stream) => stream.is_write_vectored(),
            #[cfg(unix)]
            Layer::Unix(stream) => stream.is_write_vectored(),
            Layer::Tls(stream) => stream.is_write_vectored(),
            #[cfg(any(test, feature = "internals"))]
            Layer::Memory(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.layer {
            Layer::Tcp(stream) => Pin::new(stream).poll_flush(context),
            #[cfg(unix)]
            Layer::Unix(stream) => Pin::new(stream).poll_flush(context),
            Layer::Tls(stream) => Pin::new(stream).poll_flush(context),
            #[cfg(any(test, feature = "internals"))]
            Layer::Memory(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.layer {
            Layer::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            #[cfg(unix)]
            Layer::Unix(stream) => Pin::new(stream).poll_shutdown(context),
            Layer::Tls(stream) => Pin::new(stream).poll_shutdown(context),
            #[cfg(any(test, feature = "internals"))]
            Layer::Memory(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn resolved_addresses_outside_the_servers_reach_are_dropped() {
        for (server, given, left) in [
            ("93.184.216.34", "8.8.8.8 10.0.0.1 127.0.0.1 fec0::1", "8.8.8.8"),
            ("93.184.216.34", "10.0.0.1 ::1", ""),
            ("10.1.1.1", "8.8.8.8 10.0.0.1 127.0.0.1 0.0.0.0", "8.8.8.8 10.0.0.1"),
            ("localhost", "127.0.0.1 10.0.0.1 ::1 ::ffff:127.0.0.1", "127.0.0.1 ::1 ::ffff:127.0.0.1"),
            ("0.0.0.0", "0.0.0.0 240.0.0.1", ""),
        ] {
            let addresses = |text: &str| -> Vec<SocketAddr> {
                text.split_whitespace().map(|address| (address.parse::<IpAddr>().unwrap(), 0).into()).collect()
            };
            let permitted = Names::within(Addresses::Like(server.to_owned())).permitted(addresses(given)).await;
            assert_eq!(permitted.unwrap_or_default(), addresses(left), "{server}: {given}");
        }
    }

    #[test]
    fn localhost_names_resolve_to_loopback() {
        for name in ["localhost", "LocalHost", "localhost.", "a.localhost", "a.b.localhost."] {
            assert!(literal(name).is_some_and(|all| all.iter().all(|address| address.ip().is_loopback())), "{name}");
        }
        for name in ["localhost.example", "mylocalhost", "localhost..", "", "."] {
            assert!(literal(name).is_none(), "{name}");
        }
    }
}
