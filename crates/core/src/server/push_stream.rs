//! Opens the server's event stream by GET and keeps it open.
//!
//! Over Streamable HTTP the stream carries messages that the server pushes (R29–R31); a server may have no such
//! stream. Over HTTP+SSE (2024-11-05) it carries all messages of the server and names the endpoint for the client's
//! messages. That session ends with its stream (R50–R53). A stream that ends is always opened again, after the wait
//! that the server asks for or a growing one.

use std::{
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    config::Timeouts,
    error::{Error, ErrorKind},
    gate::GateGuard,
    http::ServerUrl,
    random::random,
    secrets::Concealed,
    server::{
        Server,
        credentials::UserHeaders,
        refusals::RefusalBody,
        reply::Reply,
        retry::{self, Reopening},
    },
    wire::{body::LostResponse, message::Message},
};

/// Receives the messages of the stream, and renews a session that the stream shows to be lost.
pub(crate) trait Audience: Send + Sync + 'static {
    /// Returns the server that the stream comes from.
    fn server(&self) -> &Server;

    /// Returns the timeouts from the settings.
    fn timeouts(&self) -> &Timeouts;

    /// Receives one message.
    fn receive(self: &Arc<Self>, message: Message) -> impl Future<Output = ()> + Send;

    /// Receives the report that a message could not be kept.
    fn receive_lost(&self, lost: LostResponse) -> impl Future<Output = ()> + Send;

    /// Sets up a session that replaces the one of `epoch`.
    fn renew_session(self: &Arc<Self>, epoch: u64) -> impl Future<Output = Result<(), Error>> + Send;
}

/// How long the client's messages wait for the push stream at the start of a session. A server without an event store
/// loses messages that it pushes before the stream is open. Some servers answer the GET only when they have a message.
const PUSH_STREAM_WAIT: Duration = Duration::from_millis(250);

/// The state of the stream, for the rest of the bridge to read and to set.
#[derive(Debug)]
pub(crate) struct PushStream {
    wanted: watch::Sender<WantedStream>,
    stream: watch::Sender<SseStream>,
    /// A request waits for the endpoint, so the next try starts at once.
    hurry: Notify,
    /// Holds the client's messages back until the push stream is open.
    hold: Mutex<Option<GateGuard>>,
    last_traffic: Mutex<Instant>,
    /// Counts the HTTP+SSE streams. Each stream has its own number in this process.
    streams: AtomicU64,
    /// True while the push stream is open.
    pushes: watch::Sender<bool>,
    /// The server once took longer than `PUSH_STREAM_WAIT` to open the push stream. Messages do not wait for it again.
    is_slow: AtomicBool,
}

/// The stream to keep open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WantedStream {
    Nothing,
    /// The push stream of the session with this epoch.
    Push(u64),
    /// The HTTP+SSE stream.
    Sse,
}

/// The state of the HTTP+SSE stream.
#[derive(Clone, Debug)]
enum SseStream {
    /// Not open, or open without an endpoint yet.
    Opening,
    /// Messages go to the endpoint. The number identifies the stream.
    Open {
        endpoint: ServerUrl,
        number: u64,
        #[expect(dead_code, reason = "conceals the session in the endpoint's query")]
        concealed: Concealed,
    },
    /// It could not be opened.
    Down(Error),
}

impl PushStream {
    pub(crate) fn new() -> Self {
        Self {
            wanted: watch::Sender::new(WantedStream::Nothing),
            stream: watch::Sender::new(SseStream::Opening),
            hurry: Notify::new(),
            hold: Mutex::default(),
            last_traffic: Mutex::new(Instant::now()),
            streams: AtomicU64::new(0),
            pushes: watch::Sender::new(false),
            is_slow: AtomicBool::new(false),
        }
    }

    /// Starts the push stream of a new session. `hold` is dropped when the server has answered the GET or `PUSH_STREAM_WAIT`
    /// has passed, and at once if there is no GET.
    pub(crate) fn push(&self, epoch: u64, hold: Option<GateGuard>) {
        self.wanted.send_if_modified(|wanted| {
            let new = WantedStream::Push(epoch);
            let is_new = *wanted != WantedStream::Sse && std::mem::replace(wanted, new) != new;
            if is_new && !self.is_slow.load(Ordering::Relaxed) {
                *lock(&self.hold) = hold;
            }
            is_new
        });
    }

    /// Returns the endpoint for messages over HTTP+SSE and the number of the stream. Opens the stream if it is not
    /// open, and waits for it up to `patience`.
    ///
    /// # Errors
    /// The server has no such stream, cannot be reached, or names no endpoint in time.
    pub(crate) async fn endpoint(&self, patience: Duration) -> Result<(ServerUrl, u64), Error> {
        let mut stream = self.stream.subscribe();
        let newly =
            self.wanted.send_if_modified(|wanted| std::mem::replace(wanted, WantedStream::Sse) != WantedStream::Sse);
        if newly || matches!(*stream.borrow(), SseStream::Down(_)) {
            self.stream.send_replace(SseStream::Opening);
            self.hurry.notify_one();
        }
        let opened = timeout(patience, stream.wait_for(|stream| !matches!(stream, SseStream::Opening))).await;
        match opened {
            Ok(Ok(stream)) => match &*stream {
                SseStream::Open { endpoint, number, .. } => Ok((endpoint.clone(), *number)),
                SseStream::Down(why) => Err(why.clone()),
                SseStream::Opening => Err(late()),
            },
            // A timeout. The channel does not close, because `self` owns the sender.
            Ok(Err(_)) | Err(_) => Err(late()),
        }
    }

    /// Stops HTTP+SSE, because the server does not speak it.
    pub(crate) fn close(&self) {
        self.wanted.send_replace(WantedStream::Nothing);
    }

    /// True if the push stream is open.
    pub(crate) fn is_pushing(&self) -> bool {
        *self.pushes.borrow()
    }

    /// Waits until the HTTP+SSE stream with this number is no longer in use. Without a number, waits until the push
    /// stream is closed.
    pub(crate) async fn ended(&self, stream: Option<u64>) {
        // Cannot fail, because `self` owns the senders.
        if let Some(mine) = stream {
            let gone = |stream: &SseStream| !matches!(stream, SseStream::Open { number, .. } if *number == mine);
            let _ = self.stream.subscribe().wait_for(gone).await;
        } else {
            let _ = self.pushes.subscribe().wait_for(|pushes| !pushes).await;
        }
    }

    /// Returns when the stream last brought anything.
    pub(crate) fn last_traffic(&self) -> Instant {
        *lock(&self.last_traffic)
    }

    fn traffic(&self) {
        *lock(&self.last_traffic) = Instant::now();
    }
}

/// Keeps the wanted stream open until this task is stopped.
pub(crate) async fn run(audience: Arc<impl Audience>) {
    let mut wanted = audience.server().push_stream.wanted.subscribe();
    let mut renewals = JoinSet::new();
    loop {
        while renewals.try_join_next().is_some() {}
        let now = *wanted.borrow_and_update();
        let hold = lock(&audience.server().push_stream.hold).take();
        let listen = async {
            match now {
                WantedStream::Nothing => drop(hold),
                WantedStream::Push(epoch) => {
                    if push(&audience, hold).await == PushOutcome::SessionLost {
                        // The new session asks for its own stream, which drops this future.
                        let audience = Arc::clone(&audience);
                        renewals.spawn(async move { audience.renew_session(epoch).await });
                    }
                }
                WantedStream::Sse => {
                    drop(hold);
                    http_sse(&audience).await;
                }
            }
            // Waits until another stream is wanted.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return },
            () = listen => {}
        }
    }
}

/// How a stream, or the attempt to open it, ended.
enum StreamEnd {
    /// The stream was open.
    Closed,
    /// The server answered with this status code and body. A success without a stream counts as 405.
    Refused(StatusCode, RefusalBody),
    /// The server refuses these credentials, and the stream is not worth asking the user for others.
    Unauthorized(Arc<UserHeaders>),
    /// There are no credentials that the server accepts.
    Denied(Error),
    /// No answer came.
    Failed(Error),
}

/// Why the push stream is not opened again.
#[derive(PartialEq, Eq)]
enum PushOutcome {
    /// The server pushes nothing.
    Silent,
    /// The server no longer knows the session.
    SessionLost,
}

/// Marks the push stream as open until dropped.
struct PushGuard<'a>(&'a watch::Sender<bool>);

impl<'a> PushGuard<'a> {
    fn new(pushes: &'a watch::Sender<bool>) -> Self {
        pushes.send_replace(true);
        Self(pushes)
    }
}

impl Drop for PushGuard<'_> {
    fn drop(&mut self) {
        self.0.send_replace(false);
    }
}

/// Keeps the push stream of this session open, until the server has nothing to push or the session is lost.
async fn push(audience: &Arc<impl Audience>, mut hold: Option<GateGuard>) -> PushOutcome {
    let mut cursor = Cursor::new(audience.timeouts());
    let mut was_open = false;
    let mut failures = 0;
    loop {
        let end = match open_ahead(&**audience, cursor.id.as_ref(), hold.take()).await {
            Ok(reply) => {
                was_open = true;
                failures = 0;
                let _open = PushGuard::new(&audience.server().push_stream.pushes);
                read(audience, reply, &mut cursor, |_| true).await;
                StreamEnd::Closed
            }
            Err(end) => end,
        };
        match end {
            StreamEnd::Refused(status, page)
                if audience.server().session().is_lost(status, &page, false) && was_open =>
            {
                return PushOutcome::SessionLost;
            }
            StreamEnd::Refused(status, _) if !is_transient_status(status) => {
                tracing::debug!(status = status.as_u16(), "the server pushes nothing");
                return PushOutcome::Silent;
            }
            StreamEnd::Unauthorized(sent) => {
                tracing::debug!("no push stream until there are other credentials");
                audience.server().requests.credentials.change(&sent).await;
                continue;
            }
            StreamEnd::Closed => {}
            StreamEnd::Refused(status, _) => tracing::debug!(status = status.as_u16(), "no push stream for now"),
            StreamEnd::Denied(error) | StreamEnd::Failed(error) => {
                tracing::debug!(error = %error, "no push stream for now");
            }
        }
        sleep(cursor.wait(failures, audience.timeouts())).await;
        failures += 1;
    }
}

/// Keeps the HTTP+SSE stream open, unless the server has none.
async fn http_sse(audience: &Arc<impl Audience>) {
    let listener = &audience.server().push_stream;
    let mut cursor = Cursor::new(audience.timeouts());
    let mut failures = 0;
    loop {
        let down = match open(&**audience, true, None).await {
            Ok(reply) => {
                failures = 0;
                let number = listener.streams.fetch_add(1, Ordering::Relaxed) + 1;
                let reading = read(audience, reply, &mut cursor, |text| {
                    let endpoint = endpoint(&audience.server().requests.url(), text);
                    let stream = match endpoint {
                        Ok(endpoint) => {
                            SseStream::Open { concealed: Concealed::url(endpoint.as_url()), endpoint, number }
                        }
                        Err(why) => SseStream::Down(Error::new(ErrorKind::InvalidAnswer, why)),
                    };
                    let usable = matches!(stream, SseStream::Open { .. });
                    listener.stream.send_replace(stream);
                    usable
                });
                let epoch = audience.server().session().epoch();
                let renewing = async {
                    // Renews a session that ended with its stream at once, because the server may push messages.
                    if audience.server().session().stream().is_some() {
                        let _ = audience.renew_session(epoch).await;
                    }
                    std::future::pending::<()>().await;
                };
                // A stream that names no endpoint in time may stay open for ever, but is of no use.
                let unnamed = async {
                    sleep(audience.timeouts().idle).await;
                    if !matches!(*listener.stream.borrow(), SseStream::Opening) {
                        std::future::pending::<()>().await;
                    }
                };
                tokio::select! {
                    () = reading => {}
                    () = renewing => {}
                    () = unnamed => {}
                }
                if matches!(*listener.stream.borrow(), SseStream::Down(_)) {
                    listener.close();
                    return;
                }
                SseStream::Opening
            }
            Err(StreamEnd::Refused(status, _)) if !is_transient_status(status) => {
                let why = format!("the server has no event stream there (HTTP {})", status.as_u16());
                listener.stream.send_replace(SseStream::Down(Error::new(ErrorKind::InvalidAnswer, why)));
                listener.close();
                return;
            }
            Err(StreamEnd::Denied(error)) => {
                listener.stream.send_replace(SseStream::Down(error));
                listener.close();
                return;
            }
            Err(StreamEnd::Refused(status, _)) => {
                let why = format!("the event stream cannot be opened (HTTP {})", status.as_u16());
                SseStream::Down(Error::new(ErrorKind::Connect, why))
            }
            Err(StreamEnd::Failed(error)) => {
                SseStream::Down(Error::new(ErrorKind::Connect, error.to_string()).with_source(error))
            }
            // `open` never returns these if the stream is asked for.
            Err(StreamEnd::Closed | StreamEnd::Unauthorized(_)) => SseStream::Opening,
        };
        listener.stream.send_replace(down);
        tokio::select! {
            () = sleep(cursor.wait(failures, audience.timeouts())) => {}
            () = listener.hurry.notified() => {}
        }
        failures += 1;
    }
}

/// Opens a stream. Drops `hold` when the server has answered or `PUSH_STREAM_WAIT` has passed.
async fn open_ahead(
    audience: &impl Audience,
    last_event_id: Option<&Bytes>,
    hold: Option<GateGuard>,
) -> Result<Reply, StreamEnd> {
    let mut opening = pin!(open(audience, false, last_event_id));
    if let Ok(opened) = timeout(PUSH_STREAM_WAIT, &mut opening).await {
        return opened;
    }
    audience.server().push_stream.is_slow.store(true, Ordering::Relaxed);
    drop(hold);
    opening.await
}

/// Opens a stream.
async fn open(audience: &impl Audience, is_asked_for: bool, last_event_id: Option<&Bytes>) -> Result<Reply, StreamEnd> {
    let session = |headers: &mut HeaderMap| audience.server().session().apply(headers);
    let get = audience.server().requests.get(is_asked_for, session, last_event_id);
    let mut reply = match timeout(audience.timeouts().idle, get).await {
        Ok(reply) => reply.map_err(StreamEnd::Failed)?,
        Err(_) => {
            return Err(StreamEnd::Failed(Error::new(
                ErrorKind::Timeout,
                "the server did not open the stream in time",
            )));
        }
    };
    if reply.status().is_success() && timeout(audience.timeouts().idle, reply.is_events()).await.unwrap_or_default() {
        return Ok(reply);
    }
    let failure = reply.failure(b"");
    if failure.status().is_none() {
        return Err(StreamEnd::Denied(failure));
    }
    if !is_asked_for && reply.status() == StatusCode::UNAUTHORIZED {
        return Err(StreamEnd::Unauthorized(reply.into_sent()));
    }
    let status = if reply.status().is_success() { StatusCode::METHOD_NOT_ALLOWED } else { reply.status() };
    Err(StreamEnd::Refused(status, reply.page(&audience.server().storage, false).await))
}

/// Passes on the messages of a stream until it ends. Calls `endpoint` for an event of that name; stops if it returns
/// false.
async fn read(
    audience: &Arc<impl Audience>,
    mut reply: Reply,
    cursor: &mut Cursor,
    mut endpoint: impl FnMut(&[u8]) -> bool,
) {
    let mut decoder = audience.server().decoder(reply.content_type());
    let mut brought = false;
    while let Ok(Some(chunk)) = reply.chunk().await {
        audience.server().push_stream.traffic();
        if decoder.feed_async(chunk).await.is_err() {
            break;
        }
        while let Some(message) = decoder.next_valid() {
            brought = true;
            audience.receive(message).await;
        }
        for lost in decoder.take_lost_responses() {
            audience.receive_lost(lost).await;
        }
        if let Some(text) = decoder.take_endpoint()
            && !endpoint(&text)
        {
            break;
        }
    }
    cursor.reopening.ended(decoder.retry(), brought);
    cursor.id = decoder.last_event_id().cloned().or(cursor.id.take());
}

/// Where and when a stream is resumed.
struct Cursor {
    id: Option<Bytes>,
    reopening: Reopening,
}

impl Cursor {
    fn new(timeouts: &Timeouts) -> Self {
        Self { id: None, reopening: Reopening::new(timeouts.reconnect) }
    }

    fn wait(&self, failures: u32, timeouts: &Timeouts) -> Duration {
        let wait = self.reopening.wait();
        match failures {
            0 => wait,
            _ => wait.max(retry::backoff(timeouts.retry, failures + 2, random())),
        }
    }
}

/// Returns the endpoint that the server names, which must be at the server's origin (R51).
fn endpoint(base: &ServerUrl, text: &[u8]) -> Result<ServerUrl, &'static str> {
    let text = std::str::from_utf8(text).map_err(|_| "the server's endpoint for messages is not text")?;
    let endpoint = base.join(text.trim()).ok_or("the server's endpoint for messages is not a URL")?;
    let endpoint = endpoint.secured_as(base).unwrap_or(endpoint);
    if base.is_origin_of(&endpoint) {
        Ok(endpoint)
    } else {
        Err("the server wants messages to be sent to another origin; refused")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn late() -> Error {
    Error::new(ErrorKind::Timeout, "the server named no endpoint for messages (HTTP+SSE) in time")
}

/// True if a later try may succeed after this status code.
fn is_transient_status(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429 | 500..=599) && status != StatusCode::NOT_IMPLEMENTED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r50_r51_sse_endpoint_must_have_the_server_origin() {
        let base = ServerUrl::parse("http://localhost:8080/a/sse?x=1").unwrap();
        for (text, expected) in [
            ("/messages?session=1", Some("http://localhost:8080/messages?session=1")),
            ("messages", Some("http://localhost:8080/a/messages")),
            ("?s=1", Some("http://localhost:8080/a/sse?s=1")),
            ("http://localhost:8080/m", Some("http://localhost:8080/m")),
            ("http://evil/", None),
            ("//evil/m", None),
            ("https://localhost:8080/m", None),
            ("http://localhost:8081/m", None),
            ("http://[", None),
        ] {
            let endpoint = endpoint(&base, text.as_bytes()).ok();
            assert_eq!(endpoint.map(|url| url.as_url().to_string()).as_deref(), expected, "{text}");
        }
        for (base, text, expected) in [
            ("https://a.example/sse", "http://a.example/m?s=1", Some("https://a.example/m?s=1")),
            ("https://a.example:8443/sse", "http://a.example:8443/m", Some("https://a.example:8443/m")),
            ("https://a.example/sse", "http://a.example:8000/m", None),
            ("https://a.example/sse", "http://b.example/m", None),
        ] {
            let endpoint = endpoint(&ServerUrl::parse(base).unwrap(), text.as_bytes()).ok();
            assert_eq!(endpoint.map(|url| url.as_url().to_string()).as_deref(), expected, "{base} {text}");
        }
    }

    #[test]
    fn r30_r33_reconnect_wait_follows_retry_hint_and_failures() {
        let timeouts = Timeouts::default();
        let mut cursor = Cursor::new(&timeouts);
        assert_eq!(cursor.wait(0, &timeouts), timeouts.reconnect);
        cursor.reopening.ended(Some(Duration::from_millis(170)), true);
        assert_eq!(cursor.wait(0, &timeouts), Duration::from_millis(170));
        assert!(cursor.wait(3, &timeouts) > Duration::from_secs(1), "failures make the wait longer");
    }
}
