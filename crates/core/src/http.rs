//! The HTTP client: requests on pooled connections, HTTP/1.1 and HTTP/2, and bodies with or without what compresses them.
//!
//! It adds to hyper what that leaves to others: how a server is reached (names, proxies, TLS), which connections are kept,
//! what expands a body, and errors that say who is at fault and what helps. Redirects, cookies and retries are the caller's.
//!
//! Rule: a request is sent once. It is sent again only if its connection turned out to be closed before a byte of the
//! request was written.

mod connect;
mod connect_error;
mod decompress;
mod http1;
#[cfg(any(test, feature = "internals"))]
pub(crate) mod in_memory;
mod pool;
mod proxy;
mod server_url;
mod settings;
mod ssrf_guard;
mod tls;

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, Uri, header};
use http_body::{Body as _, Frame};
use hyper::{body::Incoming, client::conn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

pub(crate) use self::server_url::{Shown, socket_url};
#[cfg(feature = "oauth")]
pub(crate) use self::ssrf_guard::is_localhost;
use self::{
    connect::{BoxError, ConnectFailure, Connector, Unanswered},
    decompress::BodyDecompressor,
    http1::{Http1, Responding},
    pool::{Connection, Pool, PoolKey},
};
pub use self::{
    server_url::ServerUrl,
    settings::{ClientIdentity, HttpSettings, HttpVersion, Proxy, ProxyUrl, Tls, UnixSocket},
    ssrf_guard::Addresses,
};
use crate::{
    error::{Error, ErrorKind},
    memory::Budget,
};

/// What a request says of its sender if it says nothing itself.
const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("mcp-gangway/", env!("CARGO_PKG_VERSION")));
/// What a body may be compressed with, unless the request says something itself.
const ENCODINGS: HeaderValue = HeaderValue::from_static("zstd,gzip,deflate,br");
/// The longest that the answer to a ping may take.
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// The longest time between two pings: no clock goes on for ever.
const LONGEST_PING: Duration = Duration::from_hours(24);
/// The most that the headers of one reply may hold, in bytes; with HTTP/1.1 it is also 100 headers.
const MOST_HEADERS: u32 = 64 << 10;
/// The headers that most requests have beside the user's: those of HTTP and of a session.
const OTHER_HEADERS: usize = 6;
/// What an HTTP/1.1 connection reads at once, at most, and each open reply may hold in memory: a larger buffer is no
/// quicker. It must take the headers.
const READ_BUFFER: usize = MOST_HEADERS as usize;

/// What a request can carry.
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
    /// Sets up a client; it connects when there is something to send.
    ///
    /// # Errors
    /// Certificates or keys that cannot be used.
    pub fn new(settings: HttpSettings) -> Result<Self, Error> {
        let connector = Connector::new(&settings)?;
        Ok(Self::with(connector, settings))
    }

    /// The same client without its connections, which only those keep that have a request under way. The system's proxies
    /// are found anew: the machine may be in another network now.
    #[must_use]
    pub fn renewed(&self) -> Self {
        let ClientInner { connector, settings, .. } = &*self.0;
        Self::with(connector.with_proxies(&settings.proxy), settings.clone())
    }

    fn with(connector: Connector, settings: HttpSettings) -> Self {
        let mut http1 = conn::http1::Builder::new();
        // Values on several lines, which nobody must send any more and a client must still read (RFC 9112, 5.2).
        http1.max_buf_size(READ_BUFFER).allow_obsolete_multiline_headers_in_responses(true);
        let mut http2 = conn::http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .keep_alive_interval(settings.ping.min(LONGEST_PING))
            .keep_alive_timeout(settings.ping.min(PING_TIMEOUT))
            .max_header_list_size(MOST_HEADERS);
        let pool = Pool::new(settings.idle_for, settings.idle_connections);
        Self(Arc::new(ClientInner { pool, connector, http1, http2, settings }))
    }

    /// Sends a request to its absolute `http` or `https` URI, and gives the head of the response, whatever its status.
    ///
    /// # Errors
    /// Whatever kept a response from coming. [`Error::is_connect`] tells that nothing was sent.
    pub fn send(&self, request: Request<B>) -> impl Future<Output = Result<Response<Body>, Error>> + Send + use<B> {
        self.send_and_tell(request, || ())
    }

    /// The same, and tells when there is a connection to send the request on.
    ///
    /// # Errors
    /// As for `send`.
    // No `async fn`: the code of one is made anew in each crate that awaits it, and with this all of HTTP.
    pub fn send_and_tell<T: FnOnce() + Send>(
        &self,
        request: Request<B>,
        connected: T,
    ) -> impl Future<Output = Result<Response<Body>, Error>> + Send + use<B, T> {
        self.begin(request, true, connected)
    }

    /// Sends a request that must not get lost, as it cannot be repeated: on a connection that the server keeps for certain, if
    /// that is not a new one.
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

    /// Finds out whether the settings let a request be sent there, without sending one.
    #[cfg(feature = "oauth")]
    pub(crate) async fn may_reach(&self, uri: &Uri) -> Result<(), Error> {
        self.0.connector.judge(uri).await
    }

    /// The error that a response with status 407 stands for, if it can be a proxy that speaks in the server's place.
    pub(crate) fn refused_by_proxy(&self, uri: &Uri) -> Option<Error> {
        let way = self.0.connector.way(uri)?;
        Some(connect_error::wants_credentials(&way.proxy()))
    }
}

/// Headers to be copied for many requests, which get others besides: with what the client would add to each, and an index
/// that need not grow.
pub(crate) fn with_defaults(mut headers: HeaderMap) -> HeaderMap {
    add_defaults(&mut headers);
    headers.reserve(OTHER_HEADERS);
    headers
}

fn add_defaults(headers: &mut HeaderMap) {
    headers.entry(header::USER_AGENT).or_insert(USER_AGENT);
    headers.entry(header::ACCEPT_ENCODING).or_insert(ENCODINGS);
}

impl<B: RequestBody> ClientInner<B> {
    async fn exchange(
        self: Arc<Self>,
        mut request: Request<B>,
        is_repeatable: bool,
        connected: impl FnOnce(),
    ) -> Result<Response<Body>, Error> {
        let uri = request.uri().clone();
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
                    let sent = sender.try_send_request(request).await;
                    sent.map(|response| Body::of(response, None, &self.settings.expanding))
                }
            };
            let mut error = match sent {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            match error.take_message() {
                // The connection was closed while it was idle.
                Some(unsent) if !is_new => {
                    request = unsent;
                    *request.uri_mut() = uri.clone();
                }
                unsent => {
                    let error = Unanswered::Broken { error: error.into_error(), is_unsent: unsent.is_some() };
                    return Err(self.connector.explain(error, &uri));
                }
            }
        }
    }

    /// A connection, and whether it is a new one. While one is being made, another that gets free will do as well.
    async fn connection(self: &Arc<Self>, uri: &Uri, is_repeatable: bool) -> Result<(Connection<B>, bool), Unanswered> {
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
                // There is enough of it for all.
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

    /// A new connection, or one that another request made meanwhile, and which of the two it is.
    async fn connect(self: Arc<Self>, uri: Uri, origin: PoolKey) -> Result<(Connection<B>, bool), Unanswered> {
        let broken = |error| Unanswered::Broken { error, is_unsent: true };
        let stream = self.connector.connect(&uri).await?;
        if !stream.chose_http2() && self.settings.version != HttpVersion::Http2 {
            let http1 = Http1::new(stream, &self.http1, &uri, origin, &self.pool).await;
            return http1.map(|http1| (Connection::Http1(http1), true)).map_err(broken);
        }
        // One will do for all.
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

/// The body of a response, piece by piece. What was read in one way is not there for the other.
#[derive(Debug)]
pub struct Body {
    raw: Incoming,
    /// The connection that it comes on, if that is this body's alone.
    connection: Option<Box<dyn Responding>>,
    /// What expands it, if it is compressed in a way that is known.
    expander: Option<Box<BodyDecompressor>>,
}

impl Body {
    fn of(response: Response<Incoming>, connection: Option<Box<dyn Responding>>, expanding: &Budget) -> Response<Self> {
        let expander = BodyDecompressor::of(response.headers(), expanding).map(Box::new);
        response.map(|raw| Self { raw, connection, expander })
    }

    /// The next bytes, decompressed; `None` at the end. The response's headers still say how it was compressed.
    ///
    /// # Errors
    /// The body broke off, or cannot be decompressed.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if let Some(expander) = &mut self.expander
                && let Some(expanded) = expander.next().await.map_err(not_expanded)?
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

    /// Whether all of it has come.
    pub(crate) fn is_over(&self) -> bool {
        self.raw.is_end_stream()
    }

    /// The next bytes as they came; `None` at the end.
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
            // Trailers say nothing to anyone here.
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
    }

    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let frame = Pin::new(&mut self.raw).poll_frame(context);
        let Some(connection) = self.connection.as_mut().filter(|_| frame.is_pending()) else { return frame };
        // Whether it has ended is told by the body.
        let _ = connection.drive(context);
        Pin::new(&mut self.raw).poll_frame(context)
    }

    /// The connection is there for others.
    fn release(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.release();
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        // What nobody wanted to read may have come to its end, as where it is empty.
        let is_over = |frame| matches!(frame, Poll::Ready(None));
        if self.connection.is_some() && is_over(self.poll_frame(&mut Context::from_waker(Waker::noop()))) {
            self.release();
        }
    }
}

fn broke_off(error: hyper::Error) -> Error {
    Error::new(ErrorKind::Broken, "the server's reply broke off").with_source(error)
}

fn not_expanded(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Broken, "the server's reply cannot be decompressed").with_source(error)
}
