//! The HTTP client: requests on pooled connections, HTTP/1.1 and HTTP/2, and bodies with or without what compresses them.
//!
//! It adds to hyper and hyper-util what they leave to others: how a server is reached (names, proxies, TLS), what
//! expands a body, and errors that say who is at fault and what helps. Redirects, cookies and retries are the caller's.
//!
//! Rule: a request is sent once. It is sent again only if its connection turned out to be closed before a byte of the
//! request was written.

mod addresses;
mod connect;
mod expand;
mod proxy;
mod reach;
mod tls;

use std::{future::poll_fn, pin::Pin, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Builder, Client},
    rt::{TokioExecutor, TokioTimer},
};

pub use self::addresses::Addresses;
use self::{
    connect::{BoxError, Connector},
    expand::Expander,
};
use crate::{
    config::{Proxy, Tls},
    error::{Error, Kind as Fault},
};

/// What a request says of its sender if it says nothing itself.
const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("mcp-gangway/", env!("CARGO_PKG_VERSION")));
/// What a body may be compressed with, unless the request says something itself.
const ENCODINGS: HeaderValue = HeaderValue::from_static("zstd,gzip,deflate,br");
/// The longest that the answer to a ping may take.
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// The most that the headers of one reply may hold, in bytes; with HTTP/1.1 it is also 100 headers.
const MOST_HEADERS: u32 = 64 << 10;
/// What an HTTP/1.1 connection reads at once, at most, and each open reply may hold in memory: a larger buffer is no
/// quicker. It must take the headers.
const READ_BUFFER: usize = MOST_HEADERS as usize;

/// How connections are made and kept.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HttpSettings {
    /// How a secure connection is made.
    pub tls: Tls,
    /// The way out of the local network.
    pub proxy: Proxy,
    /// Address, connection, proxy and TLS handshake together (15 s).
    pub connect: Duration,
    /// How long an HTTP/2 connection may be silent while requests are open before it is pinged (30 s). The answer has as
    /// much time, 20 s at most.
    pub ping: Duration,
    /// How long a connection is kept that nobody uses (50 s: a proxy or load balancer that closes idle connections mostly
    /// does so after a minute or more).
    pub idle_for: Duration,
    /// How many such connections are kept for one host (no limit).
    pub idle_connections: usize,
    /// Which version of HTTP is spoken.
    pub version: HttpVersion,
    /// Which addresses are connected to.
    pub addresses: Addresses,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            tls: Tls::default(),
            proxy: Proxy::System,
            connect: Duration::from_secs(15),
            ping: Duration::from_secs(30),
            idle_for: Duration::from_secs(50),
            idle_connections: usize::MAX,
            version: HttpVersion::Auto,
            addresses: Addresses::Any,
        }
    }
}

/// Which version of HTTP to speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HttpVersion {
    /// HTTP/2 where the server offers it in the TLS handshake, HTTP/1.1 otherwise.
    #[default]
    Auto,
    /// HTTP/1.1 only.
    Http1,
    /// HTTP/2 only, without TLS too.
    Http2,
}

/// An HTTP client for requests with bodies of type `B`. Clones share its connections.
pub struct HttpClient<B> {
    client: Client<Connector, B>,
    connector: Connector,
    settings: HttpSettings,
}

impl<B> Clone for HttpClient<B> {
    fn clone(&self) -> Self {
        Self { client: self.client.clone(), connector: self.connector.clone(), settings: self.settings.clone() }
    }
}

impl<B> std::fmt::Debug for HttpClient<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpClient").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl<B> HttpClient<B>
where
    B: http_body::Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    /// Sets up a client; it connects when there is something to send.
    ///
    /// # Errors
    /// Certificates or keys that cannot be used.
    pub fn new(settings: HttpSettings) -> Result<Self, Error> {
        let connector = Connector::new(&settings)?;
        Ok(Self { client: builder(&settings).build(connector.clone()), connector, settings })
    }

    /// The same client without its connections, which only those keep that have a request under way. The system's proxies
    /// are found anew: the machine may be in another network now.
    #[must_use]
    pub fn renewed(&self) -> Self {
        let connector = self.connector.with_proxies(&self.settings.proxy);
        let client = builder(&self.settings).build(connector.clone());
        Self { client, connector, settings: self.settings.clone() }
    }

    /// Sends a request to its absolute `http` or `https` URI, and gives the head of the response, whatever its status.
    ///
    /// # Errors
    /// Whatever kept a response from coming. [`Error::is_connect`] tells that nothing was sent.
    // No `async fn`: the code of one is made anew in each crate that awaits it, and with this all of HTTP.
    pub fn send(&self, mut request: Request<B>) -> impl Future<Output = Result<Response<Body>, Error>> + Send + use<B> {
        let uri = request.uri().clone();
        let headers = request.headers_mut();
        headers.entry(header::USER_AGENT).or_insert(USER_AGENT);
        headers.entry(header::ACCEPT_ENCODING).or_insert(ENCODINGS);
        if let Some(way) = self.connector.proxies().between(&uri)
            && let Some(credentials) = way.credentials()
        {
            headers.entry(header::PROXY_AUTHORIZATION).or_insert_with(|| credentials.clone());
        }
        let (response, connector) = (self.client.request(request), self.connector.clone());
        async move {
            match response.await {
                Ok(response) => Ok(Body::of(response)),
                Err(error) => Err(connector.explain(error, &uri)),
            }
        }
    }

    /// Finds out whether the settings let a request be sent there, without sending one.
    #[cfg(feature = "oauth")]
    pub(crate) async fn may_reach(&self, uri: &Uri) -> Result<(), Error> {
        self.connector.judge(uri).await
    }

    /// The error that a response with status 407 stands for, if it can be a proxy that speaks in the server's place.
    pub(crate) fn refused_by_proxy(&self, uri: &Uri) -> Option<Error> {
        let way = self.connector.proxies().between(uri)?;
        let (fault, summary) = reach::wants_credentials(&way.proxy());
        Some(Error::new(fault, summary))
    }
}

fn builder(settings: &HttpSettings) -> Builder {
    let mut builder = Client::builder(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(settings.idle_for)
        .pool_max_idle_per_host(settings.idle_connections)
        .http1_max_buf_size(READ_BUFFER)
        .http2_only(settings.version == HttpVersion::Http2)
        .http2_keep_alive_interval(settings.ping)
        .http2_keep_alive_timeout(settings.ping.min(PING_TIMEOUT))
        .http2_max_header_list_size(MOST_HEADERS);
    builder
}

/// The body of a response, piece by piece. What was read in one way is not there for the other.
#[derive(Debug)]
pub struct Body {
    raw: Incoming,
    /// What expands it, if it is compressed in a way that is known.
    expander: Option<Expander>,
}

impl Body {
    fn of(response: Response<Incoming>) -> Response<Self> {
        let expander = Expander::of(response.headers());
        response.map(|raw| Self { raw, expander })
    }

    /// The next bytes, decompressed; `None` at the end. The response's headers still say how it was compressed.
    ///
    /// # Errors
    /// The body broke off, or cannot be decompressed.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if let Some(expander) = &mut self.expander
                && let Some(expanded) = expander.next().map_err(not_expanded)?
            {
                // A small body may expand for long without a wait, and others want their turn.
                tokio::task::coop::consume_budget().await;
                return Ok(Some(expanded));
            }
            match (self.raw_chunk().await?, &mut self.expander) {
                (chunk, None) => return Ok(chunk),
                (Some(chunk), Some(expander)) => expander.feed(chunk),
                (None, Some(expander)) => return expander.finish().map(|()| None).map_err(not_expanded),
            }
        }
    }

    /// The next bytes as they came; `None` at the end.
    ///
    /// # Errors
    /// The body broke off.
    pub async fn raw_chunk(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let frame = poll_fn(|context| Pin::new(&mut self.raw).poll_frame(context)).await;
            let Some(frame) = frame.transpose().map_err(broke_off)? else { return Ok(None) };
            // Trailers say nothing to anyone here.
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
    }
}

fn broke_off(error: hyper::Error) -> Error {
    Error::new(Fault::Broken, "the server's reply broke off").with_source(error)
}

fn not_expanded(error: std::io::Error) -> Error {
    Error::new(Fault::Broken, "the server's reply cannot be decompressed").with_source(error)
}
