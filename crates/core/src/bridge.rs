//! The bridge itself: lines in, exchanges in flight, lines out; order, lanes, and the end.
//!
//! The reader of stdin never waits for HTTP: each message gets a task of its own, which waits for its turn. The tasks'
//! lines are bounded in bytes; when that is used up, stdin is not read, and its writer waits.

use std::{
    io,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{Instant, sleep_until, timeout, timeout_at},
};

use crate::{
    codec::{Lines, LongLine},
    config::{Config, Limits, Timeouts},
    error::{Error, Kind as Fault},
    exchange,
    message::{self, Id, Invalid, Kind, Message, Parsed, error_reply},
    pending::{Pending, Table, Wanted},
    session::Session,
    stdio::{self, Output},
    transport::{Delivery, Transport},
};

/// Bytes of the client's messages that may be under way at once.
const INTAKE: usize = 64 << 20;
/// What a message costs of that beside its bytes: its task and its request.
const INTAKE_OVERHEAD: usize = 16 << 10;
const READ_SIZE: usize = 16 << 10;
/// How long a stopped bridge waits for the answers that are nearly there.
const STOP_TIME: Duration = Duration::from_millis(500);
/// How long the bridge waits, at its end, for what no client waits for: the receipts of notifications.
const FAREWELL: Duration = Duration::from_millis(400);
/// How long the session's end and the last lines on stdout may take.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// What stdout gets of that at least.
const LAST_WRITE: Duration = Duration::from_millis(100);

/// Why the bridge ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client closed stdin; what it had asked was answered.
    InputClosed,
    /// It was told to stop; what was pending was answered, with errors where need be.
    Stopped,
    /// Nobody reads stdout any more.
    OutputClosed,
}

/// Connects a client, which writes JSON-RPC lines to `input` and reads them from `output`, to the server in `config`,
/// until `input` ends or `stop` resolves. Nothing is sent before the client's first message.
///
/// # Errors
/// Settings that cannot be used, or an `input` that cannot be read. What happens between client and server is no error
/// here: it is answered to the client.
pub async fn run<R, W>(config: Config, input: R, output: W, stop: impl Future<Output = ()>) -> Result<End, Error>
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    let (lines, queue) = Output::new();
    let bridge = Arc::new(Bridge {
        transport: Transport::new(&config)?,
        session: Mutex::default(),
        output: lines,
        table: Table::default(),
        permits: Semaphore::new(config.limits.concurrency),
        timeouts: config.timeouts,
        limits: config.limits,
    });
    let mut writer = JoinSet::new();
    writer.spawn(stdio::write(output, queue));
    let mut stop = pin!(stop);
    let mut input = Input::new(input, config.limits.outgoing);
    let mut intake = Intake {
        bridge: Arc::clone(&bridge),
        exchanges: JoinSet::new(),
        room: Arc::new(Semaphore::new(INTAKE)),
        gate: None,
    };

    // A line that was read, until there is room for it.
    let mut held = None;
    let end = loop {
        let next = async {
            if held.is_none() {
                held = input.next().await?;
            }
            Ok::<_, io::Error>(match &held {
                Some(line) => Some(intake.room_for(line).await),
                None => None,
            })
        };
        let room = tokio::select! {
            room = next => room.map_err(stdin_failed)?,
            () = &mut stop => break End::Stopped,
            _ = writer.join_next() => break End::OutputClosed,
        };
        match (held.take(), room) {
            (Some(line), Some(room)) => intake.take(line, room),
            _ => break End::InputClosed,
        }
    };
    tracing::debug!(?end, "the end begins");

    if end != End::OutputClosed {
        let drained = bridge.drained(end);
        tokio::select! {
            () = drained => {}
            () = async { if end == End::InputClosed { stop.await } else { std::future::pending().await } } => {
                let _ = timeout(STOP_TIME, bridge.drained(End::Stopped)).await;
            }
            _ = writer.join_next() => {}
        }
    }
    // Once no exchange runs, the table holds exactly those whose answer is not out.
    intake.exchanges.shutdown().await;
    bridge.answer_the_rest();
    for line in held.into_iter().chain(input.already_read()).flatten() {
        intake.turn_away(&line);
    }
    // Stdout is written while the server is told; both share the time.
    let deadline = Instant::now() + LAST_WORDS;
    let _ = timeout_at(deadline, bridge.end_session()).await;
    drop(intake);
    drop(bridge);
    let _ = timeout_at(deadline.max(Instant::now() + LAST_WRITE), writer.join_next()).await;
    Ok(end)
}

/// What all exchanges share.
#[derive(Debug)]
pub(crate) struct Bridge {
    pub(crate) transport: Transport,
    session: Mutex<Session>,
    pub(crate) output: Output,
    pub(crate) table: Table,
    /// The requests that may be open at the server at once.
    pub(crate) permits: Semaphore,
    pub(crate) timeouts: Timeouts,
    pub(crate) limits: Limits,
}

impl Bridge {
    pub(crate) fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for what is pending: for requests as long as the end's kind allows, for what has no answer a moment, for
    /// cancelled requests not at all.
    async fn drained(&self, end: End) {
        let now = Instant::now();
        let farewell = now + FAREWELL;
        let limit = if end == End::Stopped { now + STOP_TIME } else { now + self.timeouts.drain };
        loop {
            let removal = self.table.next_removal();
            let until = match self.table.most_wanted() {
                None => return,
                Some(Wanted::Receipt) => farewell.min(limit),
                Some(Wanted::Answer) => limit,
            };
            tokio::select! {
                () = removal => {}
                () = sleep_until(until) => return,
            }
        }
    }

    fn answer_the_rest(&self) {
        for pending in self.table.unanswered() {
            let may_have_run = pending.delivery.may_have_arrived();
            self.output.send_now(error_reply(pending.id(), &shutdown().with_may_have_run(may_have_run)));
        }
    }

    /// Tells the server that the session is over (R41).
    async fn end_session(&self) {
        if !self.session().is_open() {
            return;
        }
        match self.transport.delete(|headers| self.session().apply(headers)).await {
            Ok(status) => tracing::debug!(status = status.as_u16(), "session ended"),
            Err(error) => tracing::debug!(error = %error, "the session's end did not reach the server"),
        }
    }
}

/// How a message is ordered among the others.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    /// What must have happened before it may be sent.
    pub(crate) gate: Option<Gate>,
    /// Keeps later messages waiting, until it is dropped.
    pub(crate) hold: Option<Hold>,
    /// It takes one of the permits for requests.
    pub(crate) counts: bool,
    /// It goes out only after the request it is about, and not at all if that one never does.
    pub(crate) follows: Option<Arc<Delivery>>,
}

/// Opens when the [`Hold`] that it came with is dropped; those who wait pass in the order in which they came.
#[derive(Clone, Debug)]
pub(crate) struct Gate(Arc<Semaphore>);

/// See [`Gate`].
#[derive(Debug)]
pub(crate) struct Hold(Arc<Semaphore>);

impl Gate {
    fn new() -> (Hold, Self) {
        let closed = Arc::new(Semaphore::new(0));
        (Hold(Arc::clone(&closed)), Self(closed))
    }

    pub(crate) async fn opened(self) {
        // There is never a permit: the only way on is the semaphore's end.
        let _ = self.0.acquire().await;
    }

    fn is_open(&self) -> bool {
        self.0.is_closed()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Where the client's lines become exchanges.
struct Intake {
    bridge: Arc<Bridge>,
    exchanges: JoinSet<()>,
    room: Arc<Semaphore>,
    /// What the next message must wait for (R12): the answer to `initialize`, then the receipt of `initialized`.
    gate: Option<Gate>,
}

/// A line's share of the intake; given back at the end of its exchange.
type Room = Option<Arc<OwnedSemaphorePermit>>;

impl Intake {
    async fn room_for(&self, line: &Result<Bytes, LongLine>) -> Room {
        let length = line.as_ref().map_or(0, Bytes::len);
        let cost = u32::try_from((length + INTAKE_OVERHEAD).min(INTAKE)).unwrap_or(u32::MAX);
        Arc::clone(&self.room).acquire_many_owned(cost).await.ok().map(Arc::new)
    }

    fn take(&mut self, line: Result<Bytes, LongLine>, room: Room) {
        while self.exchanges.try_join_next().is_some() {}
        match line {
            Ok(line) if line.trim_ascii().is_empty() => {}
            Ok(line) => match Message::parse(&line) {
                Ok(Parsed::One(message)) => self.start(message, room),
                // One POST each: only 2025-03-26 knows batches, and single messages are always right (R16, R17).
                Ok(Parsed::Batch(elements)) => {
                    for element in elements {
                        match element {
                            Ok(message) => self.start(message, room.clone()),
                            Err(invalid) => self.refuse(&invalid, room.clone()),
                        }
                    }
                }
                Err(invalid) => self.refuse(&invalid, room),
            },
            Err(LongLine { error, head }) => {
                let error = Error::new(Fault::TooLarge, format!("the client's message is {error}"));
                self.refuse(&Invalid { error, id: message::id_at_the_front(&head) }, room);
            }
        }
    }

    /// Answers the requests of a line that is not taken any more.
    fn turn_away(&self, line: &Bytes) {
        let messages = match Message::parse(line) {
            Ok(Parsed::One(message)) => vec![Ok(message)],
            Ok(Parsed::Batch(elements)) => elements,
            Err(_) => return,
        };
        for message in messages.into_iter().flatten().filter(|message| message.kind() == Kind::Request) {
            self.bridge.output.send_now(error_reply(message.id(), &shutdown().with_may_have_run(false)));
        }
    }

    /// Answers what is no message (R14).
    fn refuse(&mut self, invalid: &Invalid, room: Room) {
        tracing::warn!(error = %invalid.error, "a line from the client is no message");
        let reply = error_reply(invalid.id.as_ref(), &invalid.error);
        let pending = self.bridge.table.insert(None);
        let bridge = Arc::clone(&self.bridge);
        self.exchanges.spawn(async move {
            bridge.output.send(reply).await;
            bridge.table.remove(&pending);
            drop(room);
        });
    }

    fn start(&mut self, message: Message, room: Room) {
        let Some(lane) = self.lane(&message) else { return };
        let id = if message.kind() == Kind::Request { message.id().cloned() } else { None };
        let pending = self.bridge.table.insert(id);
        let bridge = Arc::clone(&self.bridge);
        self.exchanges.spawn(async move {
            exchange::run(&bridge, message, &pending, lane).await;
            drop(room);
        });
    }

    /// Where the message stands among the others; `None` if it need not be sent at all.
    fn lane(&mut self, message: &Message) -> Option<Lane> {
        self.gate.take_if(|gate| gate.is_open());
        let gate = self.gate.clone();
        Some(match (message.kind(), message.method()) {
            // The server may wait for it before it goes on with what the others wait for (R27).
            (Kind::Response, _) => Lane::default(),
            (Kind::Notification, "notifications/cancelled") => match self.cancelled(message) {
                Some(target) if !target.cancel() => return None,
                Some(target) => Lane { follows: Some(Arc::clone(&target.delivery)), ..Lane::default() },
                None => Lane { gate, ..Lane::default() },
            },
            (Kind::Request, "initialize") | (Kind::Notification, "notifications/initialized") => {
                let (hold, next) = Gate::new();
                self.gate = Some(next);
                Lane { gate, hold: Some(hold), ..Lane::default() }
            }
            (Kind::Notification, _) | (Kind::Request, "ping" | "subscriptions/listen") => {
                Lane { gate, ..Lane::default() }
            }
            (Kind::Request, _) => Lane { gate, counts: true, ..Lane::default() },
        })
    }

    fn cancelled(&self, message: &Message) -> Option<Arc<Pending>> {
        let id: Id = message.cancelled_id()?;
        self.bridge.table.find(&id)
    }
}

/// Stdin, line by line.
struct Input<R> {
    reader: R,
    buffer: BytesMut,
    lines: Lines,
    ended: bool,
}

impl<R: AsyncRead + Unpin> Input<R> {
    fn new(reader: R, limit: usize) -> Self {
        Self { reader, buffer: BytesMut::new(), lines: Lines::new(limit), ended: false }
    }

    /// The next line; `None` at the end. Can be dropped and called again without loss.
    async fn next(&mut self) -> io::Result<Option<Result<Bytes, LongLine>>> {
        loop {
            if let Some(line) = self.lines.next() {
                return Ok(Some(line));
            }
            if self.ended {
                return Ok(None);
            }
            self.buffer.reserve(READ_SIZE);
            if self.reader.read_buf(&mut self.buffer).await? == 0 {
                self.ended = true;
                // A last line without its end is still meant.
                return Ok(self.lines.finish().map(Ok));
            }
            self.lines.feed(self.buffer.split().freeze());
        }
    }

    /// The complete lines that were read and not taken.
    fn already_read(&mut self) -> impl Iterator<Item = Result<Bytes, LongLine>> {
        std::iter::from_fn(|| self.lines.next())
    }
}

fn shutdown() -> Error {
    Error::new(Fault::Shutdown, "the bridge ends before the answer came")
}

fn stdin_failed(error: io::Error) -> Error {
    Error::new(Fault::Stdio, "stdin cannot be read").with_source(error)
}
