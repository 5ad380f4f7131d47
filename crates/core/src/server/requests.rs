//! The way to the server: one POST per message, GET for its streams, DELETE at the end.
//!
//! Rules: a redirect keeps method and body, nothing of the user's goes to another origin or to where another origin sends
//! it (R92), and nothing that was sent by `https` is sent in clear; what is known about a request's delivery is recorded as
//! it happens, for whoever must say whether it may have run.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant, SystemTime},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::{Frame, SizeHint};
use tokio::{sync::SetOnce, time::timeout};

use crate::{
    config::Config,
    error::{Error, Kind as Fault},
    http::{Body, HttpClient, HttpSettings, ServerUrl},
    secrets::Concealed,
    server::{
        cookies::Cookies,
        credentials::{Credentials, Refusal, UserHeaders},
    },
    wire::{
        body::{self, Decoder},
        error_text, headers,
        message::{Kind, Message},
        spool::Storage,
    },
};

const MOST_REDIRECTS: usize = 5;
/// The longest error page that is looked at for a JSON-RPC error, in bytes.
const LONGEST_PAGE: u64 = 1 << 20;
/// How long it may take to arrive.
const PAGE_TIME: Duration = Duration::from_secs(2);
/// How much of a page is kept as text, and read at all where nobody waits for an answer, in bytes.
const BEGINNING: usize = 4096;
/// How long that may take to arrive.
const BEGINNING_TIME: Duration = Duration::from_millis(250);

/// A machine that was away for less than this finds its connections as they were.
const SHORT_SLEEP: Duration = Duration::from_secs(20);

/// The way to the server.
#[derive(Debug)]
pub(crate) struct Transport {
    clients: Mutex<Arc<Clients>>,
    cookies: Cookies,
    last_used: Mutex<(Instant, SystemTime)>,
    url: ServerUrl,
    pub(crate) credentials: Credentials,
    #[expect(dead_code, reason = "what is secret in the settings is concealed for as long as they are used")]
    concealed: Concealed,
}

impl Transport {
    /// Sets up the client; nothing is sent yet.
    ///
    /// # Errors
    /// TLS settings that cannot be used.
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        Ok(Self {
            clients: Mutex::new(Arc::new(Clients::new(config)?)),
            cookies: Cookies::new(config.url.clone()),
            last_used: Mutex::new((Instant::now(), SystemTime::now())),
            url: config.url.clone(),
            credentials: Credentials::new(config),
            concealed: Concealed::settings(config),
        })
    }

    /// Where the server listens.
    pub(crate) fn url(&self) -> &ServerUrl {
        &self.url
    }

    /// Posts one message to `target`. `session` adds the headers of the session; `delivery` learns when the body goes out. What is not repeatable
    /// goes on no connection that the server may be about to close.
    ///
    /// # Errors
    /// Whatever kept an HTTP response from coming; a response of any status is none.
    pub(crate) async fn post(
        &self,
        target: &ServerUrl,
        body: Bytes,
        is_repeatable: bool,
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
        let body = || Watched { rest: Some(body.clone()), delivery: Some(Arc::clone(delivery)) };
        self.follow(Method::POST, target, is_repeatable, user, headers, body).await
    }

    /// Opens a stream of events: the server's own, or with `last_event_id` the rest of one that broke (R29, R32). Asks for
    /// new credentials once if the server refuses those it got; unless a request needs the stream (`is_asked_for`), only for
    /// such as bother nobody.
    ///
    /// # Errors
    /// As for `post`.
    pub(crate) async fn get(
        &self,
        is_asked_for: bool,
        session: impl Fn(&mut HeaderMap),
        last_event_id: Option<&Bytes>,
    ) -> Result<Reply, Error> {
        let mut reply = self.get_once(&session, last_event_id).await?;
        if self.credentials.most_tries(reply.refusal()) > 0 {
            let renewed = if is_asked_for {
                self.credentials.renew(reply.refusal(), None).await
            } else {
                self.credentials.renew_quietly(reply.refusal()).await
            };
            match renewed {
                Ok(true) => return self.get_once(&session, last_event_id).await,
                Ok(false) => {}
                Err(error) if is_asked_for => reply.why = Some(error),
                Err(error) => tracing::debug!(error = %error, "no new credentials for the stream"),
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
        self.follow(Method::GET, &self.url, true, user, headers, Watched::default).await
    }

    /// Ends the session (R41). Any status will do: 405 means that the server does not let clients end sessions.
    ///
    /// # Errors
    /// No response came.
    pub(crate) async fn delete(&self, session: impl FnOnce(&mut HeaderMap)) -> Result<StatusCode, Error> {
        let user = self.credentials.current().await?;
        let mut headers = user.headers.clone();
        session(&mut headers);
        let mut request = Request::new(Watched::default());
        *request.method_mut() = Method::DELETE;
        *request.headers_mut() = headers;
        Ok(self.send(&self.clients(), &self.url, true, request, Some(&user)).await?.status())
    }

    /// Gives up all connections that are open: the next request opens a new one. What is under way goes on.
    pub(crate) fn distrust_connections(&self) {
        let mut clients = lock(&self.clients);
        *clients = Arc::new(clients.renewed());
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
        target: &ServerUrl,
        is_repeatable: bool,
        user: Arc<UserHeaders>,
        headers: impl Fn(Option<&UserHeaders>) -> HeaderMap,
        body: impl Fn() -> Watched,
    ) -> Result<Reply, Error> {
        let clients = self.clients();
        let mut url = target.clone();
        // Once another origin has had a say, the way is a stranger's, wherever it leads.
        let mut is_home = self.url.is_origin_of(&url);
        for _ in 0..=MOST_REDIRECTS {
            let known = is_home.then_some(&*user);
            let mut request = Request::new(body());
            *request.method_mut() = method.clone();
            *request.headers_mut() = headers(known);
            let response = self.send(&clients, &url, is_repeatable, request, known).await?;
            match next_hop(&response, &url)? {
                None => return Ok(Reply { response, user, why: None, begun: None }),
                Some(target) => {
                    tracing::debug!(status = response.status().as_u16(), "redirected");
                    url = target;
                    is_home &= self.url.is_origin_of(&url);
                }
            }
        }
        Err(Error::new(Fault::Status, format!("{} redirects in circles; check the URL", self.url)))
    }

    /// Sends one request. `user` is who the server knows us as; none if that is not to be shown there.
    async fn send(
        &self,
        clients: &Clients,
        url: &ServerUrl,
        is_repeatable: bool,
        mut request: Request<Watched>,
        user: Option<&UserHeaders>,
    ) -> Result<Response<Body>, Error> {
        *request.uri_mut() = url.as_uri().clone();
        // A `Cookie` header of the user's own is left alone.
        let takes_cookies = user.is_some_and(|user| !user.headers.contains_key(header::COOKIE));
        if let Some(cookies) = self.cookies.header(url).filter(|_| takes_cookies) {
            request.headers_mut().insert(header::COOKIE, cookies);
        }
        let client = if user.is_some() { &clients.here } else { &clients.elsewhere };
        let response = if is_repeatable { client.send(request).await } else { client.send_once(request).await }?;
        if user.is_some() {
            self.cookies.learn(response.headers(), url);
        }
        // What a proxy says of itself in the server's place.
        if response.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED
            && let Some(refusal) = client.refused_by_proxy(url.as_uri())
        {
            return Err(refusal.with_status(response.status()));
        }
        Ok(response)
    }
}

/// The HTTP client, and its like for other origins, which never learn who the user is: TLS does not tell the one who
/// picks a certificate which host asks.
#[derive(Debug)]
struct Clients {
    here: HttpClient<Watched>,
    elsewhere: HttpClient<Watched>,
}

impl Clients {
    fn new(config: &Config) -> Result<Self, Error> {
        let mut settings = HttpSettings {
            unix_socket: config.socket(),
            tls: config.tls.clone(),
            proxy: config.proxy.clone(),
            connect: config.timeouts.connect,
            ping: config.timeouts.ping,
            idle_for: config.idle_for,
            idle_connections: config.idle_connections,
            version: config.http_version,
            ..HttpSettings::default()
        };
        let here = HttpClient::new(settings.clone())?;
        // Two pools of connections only where there is something to hide.
        let elsewhere = match settings.tls.client.take() {
            Some(_) => HttpClient::new(settings)?,
            None => here.clone(),
        };
        Ok(Self { here, elsewhere })
    }

    fn renewed(&self) -> Self {
        Self { here: self.here.renewed(), elsewhere: self.elsewhere.renewed() }
    }
}

/// The response to a request: status and headers are here, the body is on its way.
#[derive(Debug)]
pub(crate) struct Reply {
    response: Response<Body>,
    /// The headers that were sent, which a 401 refuses.
    user: Arc<UserHeaders>,
    /// Why there are no credentials that the server takes.
    why: Option<Error>,
    /// What of the body was read to look at it.
    begun: Option<Bytes>,
}

/// The body of a refusal.
#[derive(Debug)]
pub(crate) struct Page {
    /// Its beginning.
    pub(crate) text: Bytes,
    /// The JSON-RPC response that it is, if it is one.
    pub(crate) response: Option<Message>,
    /// Whether all of it came, so that it is known what it is not.
    pub(crate) is_whole: bool,
}

impl Reply {
    /// What this refusal means to who made the request: why there are no credentials that the server takes, which has no status,
    /// or the status, with what the server says in this text.
    pub(crate) fn failure(&mut self, text: &[u8]) -> Error {
        match self.why.take() {
            Some(why) => why,
            None => status_error(self.status(), &String::from_utf8_lossy(text)).with_retry_after(self.retry_after()),
        }
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

    /// The body of a refusal, as far as it can be had: if it breaks off, stalls or is too long, its beginning. Where nobody
    /// waits for an answer (`is_wanted` is false), that is little.
    pub(crate) async fn page(&mut self, storage: &Arc<Storage>, is_wanted: bool) -> Page {
        let (limit, time) = if is_wanted { (LONGEST_PAGE, PAGE_TIME) } else { (BEGINNING as u64, BEGINNING_TIME) };
        let mut text = Vec::new();
        let mut decoder = Decoder::new(self.content_type(), limit, storage);
        let mut response = None;
        let gather = async {
            while let Some(chunk) = self.chunk().await? {
                text.extend(chunk.iter().take(BEGINNING - text.len()));
                decoder.take_in(chunk).await?;
                response = response_in(&mut decoder);
                if response.is_some() {
                    break;
                }
            }
            Ok::<_, Error>(())
        };
        let is_whole = matches!(timeout(time, gather).await, Ok(Ok(())));
        if response.is_none() {
            decoder.end(is_whole).await;
            response = response_in(&mut decoder);
        }
        let is_whole = is_whole && !decoder.take_lost().into_iter().any(|lost| lost.error.is_too_large());
        Page { text: text.into(), response, is_whole }
    }

    /// Whether the body is a stream of events, be it by its label or by its first bytes, for which this waits.
    pub(crate) async fn is_events(&mut self) -> bool {
        if body::is_event_stream(self.content_type()) {
            return true;
        }
        let mut begun = BytesMut::new();
        let is_events = loop {
            match self.chunk().await {
                Ok(Some(chunk)) => begun.extend_from_slice(&chunk),
                Ok(None) | Err(_) => break false,
            }
            if let Some(is_events) = body::begins_event_stream(&begun) {
                break is_events;
            }
        };
        self.begun = Some(begun.freeze()).filter(|begun| !begun.is_empty());
        is_events
    }

    /// Whether all of the body has come.
    pub(crate) fn is_over(&self) -> bool {
        self.response.body().is_over()
    }

    /// The headers that it answers to.
    pub(crate) fn into_sent(self) -> Arc<UserHeaders> {
        self.user
    }

    /// What it says to the headers that were sent, should it be a refusal.
    pub(crate) fn refusal(&self) -> Refusal<'_> {
        Refusal { sent: &self.user, status: self.status(), headers: self.response.headers() }
    }

    /// The next bytes of the body, decompressed; `None` at its end.
    ///
    /// # Errors
    /// The body broke off, or cannot be decompressed.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        if let Some(begun) = self.begun.take() {
            return Ok(Some(begun));
        }
        self.response.body_mut().chunk().await
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
#[derive(Default)]
struct Watched {
    rest: Option<Bytes>,
    delivery: Option<Arc<Delivery>>,
}

/// What a connection takes of a body at once, so that a long one is not called written when it has just begun.
const PIECE: usize = 64 << 10;

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let rest = self.rest.take();
        let Some(delivery) = &self.delivery else { return Poll::Ready(None) };
        delivery.begun.store(true, Ordering::Release);
        let Some(mut piece) = rest else { return Poll::Ready(None) };
        if piece.len() > PIECE {
            self.rest = Some(piece.split_off(PIECE));
        } else {
            let _ = delivery.whole.set(true);
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

/// The first response of what a decoder has, if there is one.
fn response_in(decoder: &mut Decoder) -> Option<Message> {
    std::iter::from_fn(|| decoder.next_valid()).find(|message| message.kind() == Kind::Response)
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

/// What a refusal is told as; `text` is its body, or the beginning of that.
fn status_error(status: StatusCode, text: &str) -> Error {
    let hint = match status.as_u16() {
        300..=399 => "the redirect cannot be followed; use the final URL",
        401 | 407 => "give credentials with --auth or --header",
        403 => "check that the credentials may use this server",
        404 | 405 | 406 | 410 => "check that the URL is the server's MCP endpoint",
        408 | 425 | 429 | 503 => "try again later",
        413 => "the message is larger than the server takes",
        400..=499 => "the server does not take this message",
        _ => "the failure is the server's or of a proxy before it",
    };
    let reason = status.canonical_reason().map(|reason| format!(" {reason}")).unwrap_or_default();
    let said = error_text::of(text).map(|said| format!(": {said}")).unwrap_or_default();
    Error::new(Fault::Status, format!("the server answered HTTP {}{reason}{said}; {hint}", status.as_u16()))
        .with_status(status)
        .with_detail(text)
}

/// Where to repeat the POST, for the redirects that may keep it (R92); 303 asks for a GET, which would be no MCP.
///
/// # Errors
/// What was sent by `https` would be sent in clear, and the host gives no other way.
fn next_hop(response: &Response<Body>, from: &ServerUrl) -> Result<Option<ServerUrl>, Error> {
    let keeps = matches!(
        response.status(),
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    );
    let location = response.headers().get(header::LOCATION).filter(|_| keeps);
    let Some(next) = location.and_then(|location| from.join(location.to_str().ok()?)) else { return Ok(None) };
    if next.is_secure() || !from.is_secure() {
        return Ok(Some(next));
    }
    let secured = next.secured_as(from).filter(|secured| secured != from);
    secured.map(Some).ok_or_else(|| {
        let summary =
            format!("{from} redirects to {next}, where the message would be sent in clear; use the final https URL");
        Error::new(Fault::Status, summary).with_status(response.status())
    })
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
