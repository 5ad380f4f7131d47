//! HTTP: the only place that names the HTTP client. One POST per message on pooled connections, DELETE at the end.
//!
//! Rules: a redirect keeps method and body, and nothing of the user's goes to another origin (R92); what is known about
//! a request's delivery is recorded as it happens, for whoever must say whether it may have run.

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, Ipv6Addr},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant, SystemTime},
};

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body::{Frame, SizeHint};
use tokio::{sync::SetOnce, time::timeout};
use url::Url;
use zstd::{
    stream::raw::{Decoder, Operation as _},
    zstd_safe::DParameter,
};

use crate::{
    config::{Config, Proxy, ServerUrl},
    cookies::Cookies,
    credentials::{Credentials, UserHeaders},
    error::{Error, Fate, Kind as Fault},
    headers,
    proxy::Proxies,
    reach::{self, Way},
    tls::{self, Identity},
};

const MOST_REDIRECTS: usize = 5;
/// The longest error page that is looked at for a JSON-RPC error.
const LONGEST_ERROR_BODY: usize = 1 << 20;
/// How long it may take to arrive.
const ERROR_BODY_TIME: Duration = Duration::from_secs(2);
/// A proxy or load balancer that closes idle connections mostly does so after a minute or more.
const KEEP_IDLE: Duration = Duration::from_secs(50);
/// A peer that is gone without a word is found out within a minute: by TCP's own probes after 30 s of silence, by data
/// that nobody acknowledges, and with HTTP/2 by pings while requests are open (`Timeouts::ping`), as a proxy may keep up
/// its half.
const PROBE_AFTER: Duration = Duration::from_secs(30);
const PROBE_EVERY: Duration = Duration::from_secs(10);
const PROBES: u32 = 3;
#[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
const UNACKNOWLEDGED: Duration = Duration::from_mins(1);
/// The longest that the answer to a ping may take.
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// The most that the headers of one HTTP/2 reply may hold, in bytes. With HTTP/1.1 it is the client's own limit: 100
/// headers and 400 KiB.
const MOST_HEADERS: u32 = 64 << 10;

/// What a body may be compressed with. All but zstd is the HTTP client's business.
const ENCODINGS: HeaderValue = HeaderValue::from_static("zstd,gzip,deflate,br");
/// How far back a body in zstd may refer, as a power of 2: the 8 MiB that RFC 9659 allows. The library would take 128 MiB, and
/// each open reply would hold as much.
const ZSTD_WINDOW: u32 = 23;

/// A machine that was away for less than this finds its connections as they were.
const SHORT_SLEEP: Duration = Duration::from_secs(20);

/// The way to the server.
#[derive(Debug)]
pub(crate) struct Transport {
    clients: Mutex<Arc<Clients>>,
    cookies: Cookies,
    config: Config,
    last_used: Mutex<(Instant, SystemTime)>,
    url: ServerUrl,
    proxies: Proxies,
    pub(crate) credentials: Credentials,
}

impl Transport {
    /// Sets up the client; nothing is sent yet.
    ///
    /// # Errors
    /// TLS or proxy settings that cannot be used.
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        Ok(Self {
            clients: Mutex::new(Arc::new(Clients::new(config)?)),
            cookies: Cookies::new(config.url.clone()),
            config: config.clone(),
            last_used: Mutex::new((Instant::now(), SystemTime::now())),
            url: config.url.clone(),
            proxies: Proxies::new(&config.proxy),
            credentials: Credentials::new(config),
        })
    }

    /// Where the server listens.
    pub(crate) fn url(&self) -> &Url {
        self.url.as_url()
    }

    /// Posts one message to `target`. `session` adds the headers of the session; `delivery` learns when the body goes out.
    ///
    /// # Errors
    /// Whatever kept an HTTP response from coming; a response of any status is none.
    pub(crate) async fn post(
        &self,
        target: &Url,
        body: Bytes,
        session: impl Fn(&mut HeaderMap),
        delivery: &Arc<Delivery>,
    ) -> Result<Reply, Error> {
        let user = self.credentials.current().await?;
        delivery.begin();
        let headers = |user: Option<&UserHeaders>| {
            let Some(user) = user else { return headers::post(&HeaderMap::new()) };
            let mut headers = user.post.clone();
            session(&mut headers);
            headers
        };
        let body = || {
            let body = Watched { rest: Some(body.clone()), delivery: Arc::clone(delivery) };
            Some(reqwest::Body::wrap(body))
        };
        self.follow(Method::POST, target, user, headers, body).await
    }

    /// Opens a stream of events: the server's own, or with `last_event_id` the rest of one that broke (R29, R32). Asks for
    /// new credentials once if the server refuses those it got.
    ///
    /// # Errors
    /// As for `post`.
    pub(crate) async fn get(
        &self,
        session: impl Fn(&mut HeaderMap),
        last_event_id: Option<&Bytes>,
    ) -> Result<Reply, Error> {
        let reply = self.get_once(&session, last_event_id).await?;
        if reply.status() == StatusCode::UNAUTHORIZED {
            match self.credentials.renew(reply.user()).await {
                Ok(true) => return self.get_once(&session, last_event_id).await,
                Ok(false) => {}
                Err(error) => tracing::warn!(error = %error, "no new credentials for the stream"),
            }
        }
        Ok(reply)
    }

    async fn get_once(&self, session: impl Fn(&mut HeaderMap), last_event_id: Option<&Bytes>) -> Result<Reply, Error> {
        let user = self.credentials.current().await?;
        let headers = |user: Option<&UserHeaders>| {
            let Some(user) = user else { return headers::get(&HeaderMap::new(), None) };
            let mut headers = headers::get(&user.headers, last_event_id.map(Bytes::as_ref));
            session(&mut headers);
            headers
        };
        self.follow(Method::GET, self.url(), user, headers, || None).await
    }

    /// Ends the session (R41). Any status will do: 405 means that the server does not let clients end sessions.
    ///
    /// # Errors
    /// No response came.
    pub(crate) async fn delete(&self, session: impl FnOnce(&mut HeaderMap)) -> Result<StatusCode, Error> {
        let user = self.credentials.current().await?;
        let mut headers = user.headers.clone();
        session(&mut headers);
        let mut request = reqwest::Request::new(Method::DELETE, self.url().clone());
        *request.headers_mut() = headers;
        Ok(self.send(&self.clients(), request, &user).await?.status())
    }

    /// Gives up all connections that are open: the next request opens a new one. What is under way goes on.
    pub(crate) fn distrust_connections(&self) {
        match Clients::new(&self.config) {
            Ok(clients) => *lock(&self.clients) = Arc::new(clients),
            // It was made once from the same settings; if a file is gone now, the old one is still good.
            Err(error) => tracing::debug!(error = %error, "the connections are kept"),
        }
    }

    /// The client to send with. After a sleep of the machine it is one without connections, as theirs have died unseen.
    fn clients(&self) -> Arc<Clients> {
        let now = (Instant::now(), SystemTime::now());
        let last = std::mem::replace(&mut *lock(&self.last_used), now);
        if has_slept(last, now) {
            tracing::debug!("the clock has jumped; connections are made anew");
            self.distrust_connections();
        }
        Arc::clone(&lock(&self.clients))
    }

    /// Sends a request to a URL and where redirects lead. `headers` gives those that go to the user's
    /// server, or without the user's to any other.
    async fn follow(
        &self,
        method: Method,
        target: &Url,
        user: Arc<UserHeaders>,
        headers: impl Fn(Option<&UserHeaders>) -> HeaderMap,
        body: impl Fn() -> Option<reqwest::Body>,
    ) -> Result<Reply, Error> {
        let clients = self.clients();
        let mut url = target.clone();
        for _ in 0..=MOST_REDIRECTS {
            let is_home = self.url.is_origin_of(&url);
            let mut request = reqwest::Request::new(method.clone(), url);
            *request.headers_mut() = headers(is_home.then_some(&user));
            *request.body_mut() = body();
            let response = self.send(&clients, request, &user).await?;
            self.check_proxy(&response)?;
            match next_hop(&response) {
                None => return Reply::new(response, user),
                Some(target) => {
                    tracing::debug!(status = response.status().as_u16(), "redirected");
                    url = target;
                }
            }
        }
        Err(Error::new(Fault::Status, format!("{} redirects in circles; check the URL", self.url)))
    }

    async fn send(
        &self,
        clients: &Clients,
        mut request: reqwest::Request,
        user: &UserHeaders,
    ) -> Result<reqwest::Response, Error> {
        // A `Cookie` header of the user's own is left alone.
        let cookies = self.cookies.header(request.url()).filter(|_| !user.headers.contains_key(header::COOKIE));
        if let Some(cookies) = cookies {
            request.headers_mut().insert(header::COOKIE, cookies);
        }
        request.headers_mut().entry(header::ACCEPT_ENCODING).or_insert(ENCODINGS);
        let sent = clients.of(request.url()).http.execute(request);
        let response = sent.await.map_err(|error| self.failure(error))?;
        self.cookies.learn(response.headers(), response.url());
        Ok(response)
    }

    /// Says who failed: the name service, a proxy, the way to the server, TLS, or the connection in use.
    fn failure(&self, error: reqwest::Error) -> Error {
        let url = error.url().map_or_else(|| self.url.clone(), ServerUrl::of);
        let error = error.without_url();
        let proxy = self.proxies.between(url.as_url());
        let asked = self.clients().of(url.as_url()).identity.asked();
        let fate = reach::was_refused_unread(&error).then_some(Fate::Unread);
        let (fault, summary) = Way { url: &url, proxy, asked }.judge(&error);
        let failure = Error::new(fault, summary).with_source(error);
        if let Some(fate) = fate { failure.with_fate(fate) } else { failure }
    }

    /// Refuses what a proxy says of itself in the server's place.
    fn check_proxy(&self, response: &reqwest::Response) -> Result<(), Error> {
        if response.status() != StatusCode::PROXY_AUTHENTICATION_REQUIRED {
            return Ok(());
        }
        let Some(proxy) = self.proxies.between(response.url()) else { return Ok(()) };
        let (fault, summary) = reach::wants_credentials(&proxy);
        Err(Error::new(fault, summary).with_status(response.status()))
    }
}

/// The HTTP client, and its like for other origins, which never learn who the user is.
#[derive(Debug)]
struct Clients {
    home: ServerUrl,
    here: Client,
    elsewhere: Client,
}

#[derive(Clone, Debug)]
struct Client {
    http: reqwest::Client,
    identity: Arc<Identity>,
}

impl Clients {
    fn new(config: &Config) -> Result<Self, Error> {
        let client = |identity| Ok(Client { http: client(config, &identity)?, identity });
        let here = client(Identity::read(&config.tls)?)?;
        // Two pools of connections only where there is something to hide.
        let elsewhere = if here.identity.exists() { client(Identity::none())? } else { here.clone() };
        Ok(Self { home: config.url.clone(), here, elsewhere })
    }

    fn of(&self, url: &Url) -> &Client {
        if self.home.is_origin_of(url) { &self.here } else { &self.elsewhere }
    }
}

fn client(config: &Config, identity: &Arc<Identity>) -> Result<reqwest::Client, Error> {
    let builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls::client_config(&config.tls, identity)?)
        .user_agent(concat!("mcp-gangway/", env!("CARGO_PKG_VERSION")))
        // By definition (RFC 6761), and not all name services know that it has both (R94).
        .resolve_to_addrs("localhost", &[(Ipv4Addr::LOCALHOST, 0).into(), (Ipv6Addr::LOCALHOST, 0).into()])
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(config.timeouts.connect)
        .pool_idle_timeout(KEEP_IDLE)
        .tcp_keepalive(PROBE_AFTER)
        .tcp_keepalive_interval(PROBE_EVERY)
        .tcp_keepalive_retries(PROBES)
        .http2_keep_alive_interval(config.timeouts.ping)
        .http2_keep_alive_timeout(config.timeouts.ping.min(PING_TIMEOUT))
        .http2_max_header_list_size(MOST_HEADERS);
    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
    let builder = builder.tcp_user_timeout(UNACKNOWLEDGED);
    let builder = match &config.proxy {
        Proxy::System => builder,
        Proxy::None => builder.no_proxy(),
        Proxy::Url { url, except } => {
            let proxy = reqwest::Proxy::all(url.as_url().clone())
                .map_err(|error| Error::config("the proxy cannot be used").with_source(error.without_url()))?;
            builder.proxy(proxy.no_proxy(except.as_deref().and_then(reqwest::NoProxy::from_string)))
        }
    };
    builder.build().map_err(|error| Error::config("HTTP cannot be set up").with_source(error))
}

/// The response to a request: status and headers are here, the body is on its way.
#[derive(Debug)]
pub(crate) struct Reply {
    response: reqwest::Response,
    /// The headers that were sent, which a 401 refuses.
    user: Arc<UserHeaders>,
    /// What expands the body, if it is in zstd.
    zstd: Option<Zstd>,
}

impl Reply {
    fn new(response: reqwest::Response, user: Arc<UserHeaders>) -> Result<Self, Error> {
        let encoding = response.headers().get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes);
        let is_zstd = encoding.is_some_and(|encoding| encoding.trim_ascii().eq_ignore_ascii_case(b"zstd"));
        let zstd = if is_zstd { Some(Zstd::new().map_err(not_expanded)?) } else { None };
        Ok(Self { response, user, zstd })
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(crate) fn content_type(&self) -> Option<&str> {
        headers::content_type(self.response.headers())
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        headers::retry_after(self.response.headers())
    }

    pub(crate) fn session_id(&self) -> Option<&HeaderValue> {
        self.response.headers().get(headers::SESSION_ID)
    }

    /// The body of a refusal, as far as it can be had: if it breaks off, stalls or is too long, its beginning.
    pub(crate) async fn error_body(mut self) -> Bytes {
        let mut body = Vec::new();
        let gather = async {
            while body.len() < LONGEST_ERROR_BODY
                && let Ok(Some(chunk)) = self.chunk().await
            {
                body.extend_from_slice(&chunk);
            }
        };
        let _ = timeout(ERROR_BODY_TIME, gather).await;
        body.into()
    }

    /// The user's headers that were sent.
    pub(crate) fn user(&self) -> &UserHeaders {
        &self.user
    }

    /// The next bytes of the body, decompressed; `None` at its end.
    ///
    /// # Errors
    /// The body broke off, or cannot be decompressed.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        // A small body may expand for long without a wait, and others want their turn.
        tokio::task::coop::consume_budget().await;
        loop {
            if let Some(zstd) = &mut self.zstd
                && let Some(expanded) = zstd.next().map_err(not_expanded)?
            {
                return Ok(Some(expanded));
            }
            let chunk = self.response.chunk().await.map_err(|error| {
                Error::new(Fault::Broken, "the server's reply broke off").with_source(error.without_url())
            })?;
            match (&mut self.zstd, chunk) {
                (None, chunk) => return Ok(chunk),
                (Some(zstd), Some(chunk)) => zstd.input = chunk,
                (Some(zstd), None) if zstd.is_whole => return Ok(None),
                (Some(_), None) => return Err(not_expanded(io::ErrorKind::UnexpectedEof.into())),
            }
        }
    }
}

fn not_expanded(error: io::Error) -> Error {
    Error::new(Fault::Broken, "the server's reply cannot be decompressed").with_source(error)
}

/// A body in zstd, piece by piece.
struct Zstd {
    decoder: Decoder<'static>,
    input: Bytes,
    /// The decoder may hold more than it had room for.
    is_full: bool,
    /// No frame is unfinished.
    is_whole: bool,
}

impl std::fmt::Debug for Zstd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Zstd").finish_non_exhaustive()
    }
}

impl Zstd {
    /// What is expanded at once.
    const BLOCK: usize = 16 << 10;

    fn new() -> io::Result<Self> {
        let mut decoder = Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW))?;
        Ok(Self { decoder, input: Bytes::new(), is_full: false, is_whole: true })
    }

    /// The next bytes; `None` if they need more input.
    fn next(&mut self) -> io::Result<Option<Bytes>> {
        while !self.input.is_empty() || self.is_full {
            let mut block = BytesMut::zeroed(Self::BLOCK);
            let status = self.decoder.run_on_buffers(&self.input, &mut block)?;
            self.input.advance(status.bytes_read);
            self.is_full = status.bytes_written == block.len();
            self.is_whole = status.remaining == 0;
            if status.bytes_written > 0 {
                block.truncate(status.bytes_written);
                return Ok(Some(block.freeze()));
            }
        }
        Ok(None)
    }
}

/// What is known about a request's way to the server.
#[derive(Debug, Default)]
pub(crate) struct Delivery {
    begun: AtomicBool,
    /// True once all of it is written, false once it is known that it never will be.
    whole: SetOnce<bool>,
}

impl Delivery {
    /// Another try starts, or the last one came to nothing: nothing is written yet.
    pub(crate) fn begin(&self) {
        self.begun.store(false, Ordering::Release);
    }

    /// The server has it already, by another way.
    pub(crate) fn arrived(&self) {
        self.begun.store(true, Ordering::Release);
    }

    /// Whether a connection began to write the request in its last try, so that the server may have it.
    pub(crate) fn may_have_arrived(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    /// Waits until the request has been written, or never will be; says which.
    pub(crate) async fn decided(&self) -> bool {
        *self.whole.wait().await
    }

    /// The request will not be written any more, if it was not yet.
    pub(crate) fn close(&self) {
        let _ = self.whole.set(false);
    }
}

/// A request's body, which records how far a connection has taken it.
struct Watched {
    rest: Option<Bytes>,
    delivery: Arc<Delivery>,
}

/// What a connection takes of a body at once, so that a long one is not called written when it has just begun.
const PIECE: usize = 64 << 10;

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.delivery.begun.store(true, Ordering::Release);
        let Some(mut piece) = self.rest.take() else { return Poll::Ready(None) };
        if piece.len() > PIECE {
            self.rest = Some(piece.split_off(PIECE));
        } else {
            let _ = self.delivery.whole.set(true);
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.as_ref().map_or(0, |rest| rest.len() as u64))
    }
}

/// Whether the machine slept in between: the wall clock went on while the other one stood.
fn has_slept(before: (Instant, SystemTime), now: (Instant, SystemTime)) -> bool {
    let awake = now.0.duration_since(before.0);
    let passed = now.1.duration_since(before.1).unwrap_or_default();
    passed.saturating_sub(awake) > SHORT_SLEEP
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where to repeat the POST, for the redirects that may keep it (R92); 303 asks for a GET, which would be no MCP.
fn next_hop(response: &reqwest::Response) -> Option<Url> {
    let keeps = matches!(
        response.status(),
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    );
    let location = response.headers().get(header::LOCATION).filter(|_| keeps)?;
    let target = response.url().join(location.to_str().ok()?).ok()?;
    matches!(target.scheme(), "http" | "https").then_some(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_of_the_wall_clock_is_a_sleep() {
        let start = (Instant::now(), SystemTime::now());
        let later = |awake, passed| (start.0 + Duration::from_secs(awake), start.1 + Duration::from_secs(passed));
        for (awake, passed, slept) in
            [(0, 0, false), (500, 500, false), (1, 3600, true), (10, 15, false), (30, 0, false)]
        {
            assert_eq!(has_slept(start, later(awake, passed)), slept, "{awake} {passed}");
        }
        assert!(!has_slept(later(0, 3600), later(1, 0)), "a clock that was put back");
    }
}
