//! The server: its connections, the requests that it reads, and the fate of each call.
//!
//! Rule: the fate of a call is decided and recorded before a byte of the reply is written.

use std::{
    collections::BTreeMap,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Uri, uri::Scheme};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf, duplex},
    sync::mpsc,
    time::{Instant, timeout},
};

use super::{
    super::members::Members,
    Promise, SECRET, Settings, lock,
    replies::{Act, Ending, Plan},
    script::Script,
};
use crate::http::in_memory::Wire;

/// The capacity of a connection in one direction.
const ROOM: usize = 64 << 10;
/// How often a stream may be opened: at once, for each message of the client (each of its tries looks for the stream of
/// HTTP+SSE), and in a second.
const MAX_BURST: u64 = 60;
const MAX_PER_MESSAGE: u64 = 12;
const MAX_PER_SECOND: u64 = 25;

pub(super) struct Server {
    state: Mutex<State>,
    promise: Arc<Promise>,
}

pub(super) struct State {
    pub(super) script: Script,
    /// No more delays from now on.
    pub(super) is_calm: bool,
    pub(super) kind: Kind,
    /// The number of sessions, and how many of them ended.
    pub(super) sessions: usize,
    pub(super) sessions_over: usize,
    /// For each event stream, the id of the request that it answers.
    pub(super) streams: Vec<String>,
    /// The source of events for the stream of HTTP+SSE.
    pub(super) pushes: Option<mpsc::UnboundedSender<Bytes>>,
    /// The number of messages that the client wrote.
    told: u64,
    /// What the server sent, by its cost in bytes.
    pub(super) sent: usize,
    began: Instant,
    opened: BTreeMap<Option<usize>, u64>,
    calls: BTreeMap<usize, Fate>,
}

/// The protocols that the server speaks.
#[derive(Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is one question to the script")]
pub(super) struct Kind {
    pub(super) takes_modern: bool,
    pub(super) takes_legacy: bool,
    pub(super) has_sessions: bool,
    pub(super) is_old: bool,
}

/// The fate of a call that the server read completely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It did not run, and the reply shows that: it may be sent again.
    Refused,
    /// It was refused finally.
    Declined,
    /// It ran, or the reply leaves that open.
    MayHaveRun,
}

/// One request.
pub(super) struct Request {
    pub(super) verb: String,
    pub(super) path: String,
    head: String,
    pub(super) body: String,
    /// From its message.
    pub(super) method: String,
    pub(super) id: Option<String>,
}

impl Request {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(':'));
        fields.into_iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// Returns the stream that it resumes.
    pub(super) fn cursor(&self) -> Option<usize> {
        self.header("last-event-id")?.split('-').next()?.parse().ok()
    }

    /// Returns the request's text, as a careless server echoes it.
    pub(super) fn echo(&self) -> String {
        format!("{}{}", self.head, self.body)
    }

    /// True if it is a request of 2026-07-28.
    pub(super) fn is_modern(&self) -> bool {
        let is_new = matches!(self.method.as_str(), "server/discover" | "subscriptions/listen");
        is_new || self.body.contains("io.modelcontextprotocol/protocolVersion")
    }

    pub(super) fn is_in_session(&self) -> bool {
        self.head.contains("\r\nmcp-session-id: ")
    }

    /// Returns its number, if it is a call that must not be sent twice.
    fn key(&self) -> Option<usize> {
        key_in(self.body.as_bytes()).filter(|_| matches!(self.method.as_str(), "tools/call" | "x/do"))
    }
}

/// Returns the number of the call in this message.
pub(super) fn key_in(message: &[u8]) -> Option<usize> {
    let start = memchr::memmem::find(message, br#""key":"k"#)? + 8;
    let digits = message[start..].iter().take_while(|byte| byte.is_ascii_digit());
    digits.map(|digit| usize::from(digit - b'0')).reduce(|number, digit| number * 10 + digit)
}

impl Server {
    pub(super) fn new(script: Script, settings: &Settings, promise: Arc<Promise>) -> Arc<Self> {
        let state = Mutex::new(State {
            script,
            is_calm: false,
            kind: settings.server,
            sessions: 0,
            sessions_over: 0,
            streams: Vec::new(),
            pushes: None,
            told: 0,
            sent: 0,
            began: Instant::now(),
            opened: BTreeMap::new(),
            calls: BTreeMap::new(),
        });
        Arc::new(Self { state, promise })
    }

    /// Connects to the server.
    ///
    /// # Errors
    /// No server listens at this address.
    pub(super) fn connect(self: &Arc<Self>, target: &Uri) -> io::Result<Box<dyn Wire>> {
        if target.scheme() == Some(&Scheme::HTTPS) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (near, far) = duplex(ROOM);
        let is_reset = Arc::new(AtomicBool::new(false));
        let (server, reset) = (Arc::clone(self), Arc::clone(&is_reset));
        tokio::spawn(async move {
            // The bridge may close the connection.
            if let Ok(Ending::Reset) = server.converse(far).await {
                reset.store(true, Ordering::Relaxed);
            }
        });
        Ok(Box::new(End { stream: near, is_reset }))
    }

    /// Removes all delays from now on, and closes silent connections.
    pub(super) fn remove_delays(&self) {
        lock(&self.state).is_calm = true;
    }

    /// Counts one more message of the client.
    pub(super) fn hears(&self) {
        lock(&self.state).told += 1;
    }

    /// True if the call with this number may have run, as far as its replies show.
    pub(super) fn may_have_run(&self, key: usize) -> bool {
        lock(&self.state).calls.get(&key) == Some(&Fate::MayHaveRun)
    }

    async fn converse(&self, mut wire: DuplexStream) -> io::Result<Ending> {
        let mut read = Vec::new();
        loop {
            let Some((head, length)) = next_head(&mut wire, &mut read).await? else { return Ok(Ending::Close) };
            let hangs_up = Plan::hangs_up(&mut lock(&self.state));
            if let Some(ending) = hangs_up {
                return Ok(ending);
            }
            while read.len() < length {
                if wire.read_buf(&mut read).await? == 0 {
                    return Ok(Ending::Close);
                }
            }
            let body: Vec<u8> = read.drain(..length).collect();
            let Some(request) = self.understood(head, body) else { return Ok(Ending::Close) };
            let Plan { acts, ending } = self.answer(&request);
            for act in acts {
                match act {
                    // A plan can be large, so it does not outlive its connection.
                    Act::Wait(time) => {
                        if let Ok(read) = timeout(time, wire.read_buf(&mut read)).await
                            && read? == 0
                        {
                            return Ok(Ending::Close);
                        }
                    }
                    Act::Send(bytes) => wire.write_all(&bytes).await?,
                    Act::Pushes(mut events) => {
                        while let Some(event) = events.recv().await {
                            wire.write_all(&event).await?;
                        }
                    }
                }
            }
            match ending {
                Ending::Keep => {}
                Ending::Stall => {
                    // Wait until the bridge closes the connection.
                    while wire.read_buf(&mut read).await? > 0 {}
                    return Ok(Ending::Close);
                }
                ending => return Ok(ending),
            }
        }
    }

    /// Reads a request. Breaks the promise if it is not a valid one.
    fn understood(&self, head: String, body: Vec<u8>) -> Option<Request> {
        let is_home = head.lines().any(|line| line.eq_ignore_ascii_case("host: server.test"));
        if !is_home && head.contains(SECRET) {
            self.promise.breaks(format!("another origin got the secret: {head:.200}"));
        }
        let mut words = head.split(' ').map(str::to_owned);
        let (verb, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let Ok(body) = String::from_utf8(body) else {
            self.promise.breaks("the server got a body that is not text");
            return None;
        };
        let mut request = Request { verb, path, head, body, method: String::new(), id: None };
        if request.verb != "POST" {
            return Some(request);
        }
        let Some(message) = Members::of(&request.body) else {
            self.promise.breaks(format!("the server got a body that is not a message: {:.200}", request.body));
            return None;
        };
        request.id = message.get("id").map(str::to_owned);
        request.method = message.get("method").and_then(|method| serde_json::from_str(method).ok()).unwrap_or_default();
        Some(request)
    }

    /// Decides the reply to a request, and records the fate of its call.
    fn answer(&self, request: &Request) -> Plan {
        let state = &mut *lock(&self.state);
        let key = request.key();
        if let Some(key) = key
            && let Some(fate @ (Fate::MayHaveRun | Fate::Declined)) = state.calls.get(&key)
        {
            self.promise.breaks(format!("call {key} was sent again: {fate:?}"));
        }
        if request.verb == "GET" {
            let stream = request.cursor();
            let opened = state.opened.entry(stream).or_default();
            *opened += 1;
            if *opened > MAX_BURST + MAX_PER_MESSAGE * state.told + MAX_PER_SECOND * state.began.elapsed().as_secs() {
                self.promise
                    .breaks(format!("stream {stream:?} was opened {opened} times in {:?}", state.began.elapsed()));
            }
        }
        let (plan, fate) = Plan::after(request, state);
        state.sent += plan.cost();
        if let Some(key) = key {
            state.calls.insert(key, fate);
        }
        plan
    }
}

/// Reads the head of a request. Returns it with the length of its body, or `None` if the peer closed.
pub(in super::super) async fn next_head(
    wire: &mut DuplexStream,
    read: &mut Vec<u8>,
) -> io::Result<Option<(String, usize)>> {
    let end = loop {
        if let Some(end) = memchr::memmem::find(read, b"\r\n\r\n") {
            break end + 4;
        }
        if wire.read_buf(read).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&read.drain(..end).collect::<Vec<_>>()).into_owned();
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    let length = fields.into_iter().find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|(_, length)| length.trim().parse().ok()).unwrap_or_default();
    Ok(Some((head, length)))
}

/// The bridge's side of a connection.
struct End {
    stream: DuplexStream,
    is_reset: Arc<AtomicBool>,
}

impl AsyncRead for End {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        let is_over = matches!(polled, Poll::Ready(Ok(()))) && buffer.filled().len() == before;
        if is_over && self.is_reset.load(Ordering::Relaxed) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        polled
    }
}

impl AsyncWrite for End {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
