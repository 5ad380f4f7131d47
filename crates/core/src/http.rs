//! The HTTP client: sends requests on pooled HTTP/1.1 and HTTP/2 connections, and decompresses response bodies.
//!
//! It adds the parts that hyper leaves out: connecting (names, proxies, TLS), the connection pool, decompression, and
//! errors that name the party at fault and the setting that helps. The caller handles redirects, cookies and retries.
//!
//! Rule: a request is sent once. It is sent again only if its connection turns out to be closed before a byte of the
//! request was written.

mod connect;
mod connect_error;
mod decompress;
mod http1;
#[cfg(any(test, feature = "internals"))]
pub(crate) mod in_memory;
mod pool;
mod proxy;
mod proxy_exceptions;
mod server_url;
mod settings;
mod ssrf_guard;
mod system_proxy;
mod tls;

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, Uri, header, uri::Authority};
use http_body::{Body as _, Frame};
use hyper::{body::Incoming, client::conn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

pub(crate) use self::server_url::{UriWithoutQuery, socket_url};
#[cfg(feature = "oauth")]
pub(crate) use self::ssrf_guard::is_localhost;
use self::{
    connect::{BoxError, ConnectFailure, Connector, RequestFailure},
    decompress::BodyDecompressor,
    http1::{ErasedConnection, Http1},
    pool::{Connection, Pool, PoolKey},
};
pub use self::{
    server_url::{ServerUrl, normalized_url},
    settings::{ClientIdentity, HttpSettings, HttpVersion, Proxy, ProxyUrl, Tls, UnixSocket},
    ssrf_guard::Addresses,
};
use crate::{
    error::{Error, ErrorKind},
    memory::Budget,
};

/// The default `User-Agent` header.
const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("mcp-gangway/", env!("CARGO_PKG_VERSION")));
/// The default `Accept-Encoding` header.
const ENCODINGS: HeaderValue = HeaderValue::from_static("zstd,gzip,deflate,br");
/// The longest wait for the answer to a ping.
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// The longest interval between two pings. A larger one could overflow the clock.
const MAX_PING_INTERVAL: Duration = Duration::from_hours(24);
/// The limit for the headers of one response, in bytes.
const MAX_HEADERS: u32 = 64 << 10;
/// The limit on the number of headers over HTTP/1.1. hyper reserves room for as many each time.
const MAX_HEADER_COUNT: usize = 256;
/// How many headers most requests have in addition to the user's: those of HTTP and of a session.
const OTHER_HEADERS: usize = 6;
/// The largest read buffer of an HTTP/1.1 connection, and so the memory that each open response may hold. A larger
/// buffer is no faster. It must have room for the headers.
const READ_BUFFER: usize = MAX_HEADERS as usize;

/// The body of a request.
pub trait RequestBody: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + Unpin + 'static {}

impl<B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + Unpin + 'static> RequestBody for B {}

/// An HTTP client for requests with bodies of type `B`. Clones share its connections.
pub struct HttpClient<B>(Arc<ClientInner<B>>);

struct ClientInner<B> {
    pool: Arc<Pool<B>>,
    connector: Connector,
    http1: conn::http1::Builder,
    http2: conn::http2::Builder<TokioExecutor>,
    settings: HttpSettings,
}

impl<B> Clone for HttpClient<B> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<B> std::fmt::Debug for HttpClient<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpClient").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}

impl<B: RequestBody> HttpClient<B> {
    /// Creates a client. It connects when there is a request to send.
    ///
    /// # Errors
    /// A certificate or key cannot be used.
    pub fn new(settings: HttpSettings) -> Result<Self, Error> {
        let connector = Connector::new(&settings)?;
        Ok(Self::with(connector, settings))
    }

    /// Returns the same client with an empty connection pool. Old connections close when their requests end. Looks up
    /// the system's proxies again, because the machine may be in another network now.
    #[must_use]
    pub fn renewed(&self) -> Self {
        let ClientInner { connector, settings, .. } = &*self.0;
        Self::with(connector.with_proxies(&settings.proxy), settings.clone())
    }

    fn with(connector: Connector, settings: HttpSettings) -> Self {
        let mut http1 = conn::http1::Builder::new();
        // Allow header values on several lines: servers must no longer send them, but clients must still read them
        // (RFC 9112, 5.2).
        http1
            .max_buf_size(READ_BUFFER)
            .max_headers(MAX_HEADER_COUNT)
            .allow_obsolete_multiline_headers_in_responses(true);
        let mut http2 = conn::http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .keep_alive_interval(settings.ping.min(MAX_PING_INTERVAL))
            .keep_alive_timeout(settings.ping.min(PING_TIMEOUT))
            .max_header_list_size(MAX_HEADERS);
        let pool = Pool::new(settings.idle_for, settings.idle_connections);
        Self(Arc::new(ClientInner { pool, connector, http1, http2, settings }))
    }

    /// Sends a request to its absolute `http` or `https` URI. Returns the head of the response, with any status.
    ///
    /// # Errors
    /// There is no response. [`Error::is_connect`] is true if nothing was sent.
    pub fn send(&self, request: Request<B>) -> impl Future<Output = Result<Response<Body>, Error>> + Send + use<B> {
        self.send_with_callback(request, || ())
    }

    /// Like [`Self::send`], but also calls `connected` as soon as there is a connection for the request.
    ///
    /// # Errors
    /// As for `send`.
    // Not an `async fn`: that would be compiled again in every crate that awaits it, together with all of HTTP.
    pub fn send_with_callback<T: FnOnce() + Send>(
        &self,
        request: Request<B>,
        connected: T,
    ) -> impl Future<Output = Result<Response<Body>, Error>> + Send + use<B, T> {
        self.begin(request, true, connected)
    }

    /// Sends a request that must not be repeated. Uses a new connection, or an idle one that the server certainly
    /// keeps open.
    ///
    /// # Errors
    /// As for `send`.
    pub(crate) fn send_once(
        &self,
        request: Request<B>,
    ) -> impl Future<Output = Result<Response<Body>, Error>> + Send + use<B> {
        self.begin(request, false, || ())
    }

    fn begin<T: FnOnce() + Send>(
        &self,
        mut request: Request<B>,
        is_repeatable: bool,
        connected: T,
    ) -> impl Future<Output = Result<Response<Body>, Error>> + Send + use<B, T> {
        add_defaults(request.headers_mut());
        if let Some(way) = self.0.connector.way(request.uri())
            && let Some(credentials) = way.credentials()
        {
            request.headers_mut().entry(header::PROXY_AUTHORIZATION).or_insert_with(|| credentials.clone());
        }
        Arc::clone(&self.0).exchange(request, is_repeatable, connected)
    }

    /// Checks that the settings allow requests to this URI, without sending one.
    #[cfg(feature = "oauth")]
    pub(crate) async fn may_reach(&self, uri: &Uri) -> Result<(), Error> {
        self.0.connector.judge(uri).await
    }

    /// Returns the error for a response with status 407, if a proxy may have sent it instead of the server.
    pub(crate) fn refused_by_proxy(&self, uri: &Uri) -> Option<Error> {
        let way = self.0.connector.way(uri)?;
        Some(connect_error::wants_credentials(&way.proxy()))
    }
}

/// Prepares headers that are copied for many requests: adds the client's defaults, and reserves room for the headers
/// that each request adds.
pub(crate) fn with_defaults(mut headers: HeaderMap) -> HeaderMap {
    add_defaults(&mut headers);
    headers.reserve(OTHER_HEADERS);
    headers
}

fn add_defaults(headers: &mut HeaderMap) {
    headers.entry(header::USER_AGENT).or_insert(USER_AGENT);
    headers.entry(header::ACCEPT_ENCODING).or_insert(ENCODINGS);
}

/// Moves a `Host` header into the URI, which becomes `:authority` in HTTP/2 (RFC 9113, 8.3.1).
fn move_host<B>(request: &mut Request<B>) {
    let Some(host) = request.headers_mut().remove(header::HOST) else { return };
    let mut parts = request.uri().clone().into_parts();
    if let Ok(authority) = Authority::try_from(host.as_bytes()) {
        parts.authority = Some(authority);
    }
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
}

impl<B: RequestBody> ClientInner<B> {
    async fn exchange(
        self: Arc<Self>,
        mut request: Request<B>,
        is_repeatable: bool,
        connected: impl FnOnce(),
    ) -> Result<Response<Body>, Error> {
        let uri = request.uri().clone();
        let host = request.headers().get(header::HOST).cloned();
        let mut connected = Some(connected);
        loop {
            let connection = self.connection(&uri, is_repeatable).await;
            let (connection, is_new) = connection.map_err(|error| self.connector.explain(error, &uri))?;
            if let Some(connected) = connected.take() {
                connected();
            }
            let sent = match connection {
                Connection::Http1(mut http1) => {
                    let sent = http1.send(request).await;
                    sent.map(|response| Body::of(response, Some(http1), &self.settings.expanding))
                }
                Connection::Http2(mut sender) => {
                    move_host(&mut request);
                    let sent = sender.try_send_request(request).await;
                    sent.map(|response| Body::of(response, None, &self.settings.expanding))
                }
            };
            let mut error = match sent {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            match error.take_message() {
                // The server closed the connection while it was idle.
                Some(unsent) if !is_new => {
                    request = unsent;
                    *request.uri_mut() = uri.clone();
                    if let Some(host) = &host {
                        request.headers_mut().insert(header::HOST, host.clone());
                    }
                }
                unsent => {
                    let error = RequestFailure::Broken { error: error.into_error(), is_unsent: unsent.is_some() };
                    return Err(self.connector.explain(error, &uri));
                }
            }
        }
    }

    /// Returns a connection, and true if it is a new one. Takes another connection that becomes free while this one
    /// connects.
    async fn connection(
        self: &Arc<Self>,
        uri: &Uri,
        is_repeatable: bool,
    ) -> Result<(Connection<B>, bool), RequestFailure> {
        let Some(origin) = PoolKey::of(uri) else {
            return Err(ConnectFailure::NoServer("the URL is not absolute".into()).into());
        };
        if let Some(kept) = self.pool.take(&origin, is_repeatable) {
            return Ok((kept, false));
        }
        let added = self.pool.added(&origin);
        let inner = Arc::clone(self);
        let mut connecting = Box::pin(inner.connect(uri.clone(), origin.clone()));
        loop {
            tokio::select! {
                biased;
                connected = &mut connecting => return connected,
                () = added.notified() => {}
            }
            let Some(kept) = self.pool.take(&origin, is_repeatable) else { continue };
            if matches!(kept, Connection::Http2(_)) {
                // An HTTP/2 connection serves all waiting requests.
                added.notify_one();
            }
            let pool = Arc::clone(&self.pool);
            tokio::spawn(async move {
                if let Ok((Connection::Http1(connection), _)) = connecting.await {
                    pool.put(connection);
                }
            });
            return Ok((kept, false));
        }
    }

    /// Opens a connection, or takes the HTTP/2 connection that another request opened meanwhile. Returns true if it
    /// is a new one.
    async fn connect(self: Arc<Self>, uri: Uri, origin: PoolKey) -> Result<(Connection<B>, bool), RequestFailure> {
        let broken = |error| RequestFailure::Broken { error, is_unsent: true };
        let stream = self.connector.connect(&uri).await?;
        if !stream.chose_http2() && self.settings.version != HttpVersion::Http2 {
            let http1 = Http1::new(stream, &self.http1, &uri, origin, &self.pool).await;
            return http1.map(|http1| (Connection::Http1(http1), true)).map_err(broken);
        }
        // One HTTP/2 connection serves all requests.
        if let Some(kept) = self.pool.take(&origin, false) {
            return Ok((kept, false));
        }
        let (mut sender, connection) = self.http2.handshake(TokioIo::new(stream)).await.map_err(broken)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection broke");
            }
        });
        sender.ready().await.map_err(broken)?;
        self.pool.share(&origin, sender.clone());
        Ok((Connection::Http2(sender), true))
    }
}

/// The body of a response, read chunk by chunk. Bytes that one method has read are not returned by the other.
#[derive(Debug)]
pub struct Body {
    raw: Incoming,
    /// The connection, if this body has it for itself (HTTP/1.1).
    connection: Option<Box<dyn ErasedConnection>>,
    /// The decompressor, if the body is compressed with a known coding.
    expander: Option<Box<BodyDecompressor>>,
}

impl Body {
    fn of(
        response: Response<Incoming>,
        connection: Option<Box<dyn ErasedConnection>>,
        expanding: &Budget,
    ) -> Response<Self> {
        let expander = BodyDecompressor::of(response.headers(), expanding).map(Box::new);
        response.map(|raw| Self { raw, connection, expander })
    }

    /// Returns the next decompressed bytes, or `None` at the end. The headers of the response still name the coding.
    ///
    /// # Errors
    /// The body broke off, or cannot be decompressed.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if let Some(expander) = &mut self.expander
                && let Some(expanded) = expander.next().await.map_err(decompression_error)?
            {
                // A small body may expand for a long time without waiting, so yield to other tasks.
                tokio::task::coop::consume_budget().await;
                return Ok(Some(expanded));
            }
            match (self.raw_chunk().await?, &mut self.expander) {
                (chunk, None) => return Ok(chunk),
                (Some(chunk), Some(expander)) => expander.feed(chunk),
                (None, Some(expander)) => return expander.finish().map(|()| None).map_err(decompression_error),
            }
        }
    }

    /// True if the whole body has been received.
    pub(crate) fn is_over(&self) -> bool {
        self.raw.is_end_stream()
    }

    /// Returns the next bytes as received, or `None` at the end.
    ///
    /// # Errors
    /// The body broke off.
    pub async fn raw_chunk(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let frame = poll_fn(|context| self.poll_frame(context)).await;
            let Some(frame) = frame.transpose().map_err(broke_off)? else {
                self.release();
                return Ok(None);
            };
            // Ignore trailers.
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
    }

    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let frame = Pin::new(&mut self.raw).poll_frame(context);
        let Some(connection) = self.connection.as_mut().filter(|_| frame.is_pending()) else { return frame };
        // The body reports the end of the connection.
        let _ = connection.drive(context);
        Pin::new(&mut self.raw).poll_frame(context)
    }

    /// Returns the connection to the pool.
    fn release(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.release();
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        // A body that is dropped unread may be complete, for example if it is empty. Then its connection can be
        // reused.
        let is_over = |frame| matches!(frame, Poll::Ready(None));
        if self.connection.is_some() && is_over(self.poll_frame(&mut Context::from_waker(Waker::noop()))) {
            self.release();
        }
    }
}

fn broke_off(error: hyper::Error) -> Error {
    Error::new(ErrorKind::Broken, "the server's reply broke off").with_source(error)
}

fn decompression_error(error: std::io::Error) -> Error {
    if error.kind() == std::io::ErrorKind::Unsupported {
        return Error::new(ErrorKind::InvalidAnswer, format!("the server's reply has {error}")).with_source(error);
    }
    Error::new(ErrorKind::Broken, "the server's reply cannot be decompressed").with_source(error)
}
