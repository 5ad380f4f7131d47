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
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use crate::{
    codec::{Lines, TooLong},
    config::{Config, Limits, Timeouts},
    error::{Error, Kind as Fault},
    exchange,
    message::{Id, Invalid, Kind, Message, Parsed, error_reply},
    pending::{Pending, Table},
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
/// How long the bridge waits, at its end, for what no client waits for: receipts of notifications, the rest of stdout.
const FAREWELL: Duration = Duration::from_millis(400);
/// How long the server may take to end the session.
const SESSION_END_TIME: Duration = Duration::from_secs(1);

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

    let end = loop {
        let next_line = async {
            let line = input.next().await?;
            let room = intake.room_for(line.as_ref()).await;
            Ok::<_, io::Error>(line.map(|line| (line, room)))
        };
        tokio::select! {
            line = next_line => match line.map_err(stdin_failed)? {
                Some((line, room)) => intake.take(line, room),
                None => break End::InputClosed,
            },
            () = &mut stop => break End::Stopped,
            _ = writer.join_next() => break End::OutputClosed,
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
    bridge.end_session().await;
    drop(intake);
    drop(bridge);
    let _ = timeout(FAREWELL, writer.join_next()).await;
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

    /// Waits until nothing is pending: for requests as long as the end's kind allows, for the rest a moment.
    async fn drained(&self, end: End) {
        let now = Instant::now();
        let farewell = now + FAREWELL;
        let limit = if end == End::Stopped { now + STOP_TIME } else { now + self.timeouts.drain };
        loop {
            let removal = self.table.next_removal();
            if self.table.is_empty() {
                return;
            }
            let until = if self.table.unanswered().is_empty() { farewell.min(limit) } else { limit };
            tokio::select! {
                () = removal => {}
                () = sleep_until(until) => return,
            }
        }
    }

    fn answer_the_rest(&self) {
        for pending in self.table.unanswered() {
            let error = Error::new(Fault::Shutdown, "the bridge ends before the answer came")
                .with_may_have_run(pending.delivery.may_have_arrived());
            self.output.send_now(error_reply(pending.id(), &error));
        }
    }

    /// Tells the server that the session is over (R41).
    async fn end_session(&self) {
        if !self.session().is_open() {
            return;
        }
        match timeout(SESSION_END_TIME, self.transport.delete(|headers| self.session().apply(headers))).await {
            Ok(Ok(status)) => tracing::debug!(status = status.as_u16(), "session ended"),
            Ok(Err(error)) => tracing::debug!(error = %error, "the session's end did not reach the server"),
            Err(_) => tracing::debug!("the server did not confirm the session's end in time"),
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

/// Opens when the [`Hold`] that it came with is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Gate(watch::Receiver<()>);

/// See [`Gate`].
#[derive(Debug)]
pub(crate) struct Hold {
    _sender: watch::Sender<()>,
}

impl Gate {
    fn new() -> (Hold, Self) {
        let (sender, receiver) = watch::channel(());
        (Hold { _sender: sender }, Self(receiver))
    }

    pub(crate) async fn opened(mut self) {
        // Nothing is ever sent: the only change is that the sender is gone.
        let _ = self.0.changed().await;
    }

    fn is_open(&self) -> bool {
        self.0.has_changed().is_err()
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
    async fn room_for(&self, line: Option<&Result<Bytes, TooLong>>) -> Room {
        let length = line.and_then(|line| line.as_ref().ok()).map_or(0, Bytes::len);
        let cost = u32::try_from((length + INTAKE_OVERHEAD).min(INTAKE)).unwrap_or(u32::MAX);
        Arc::clone(&self.room).acquire_many_owned(cost).await.ok().map(Arc::new)
    }

    fn take(&mut self, line: Result<Bytes, TooLong>, room: Room) {
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
            Err(error) => {
                let error = Error::new(Fault::TooLarge, format!("the client's message is {error}"));
                self.refuse(&Invalid { error, id: None }, room);
            }
        }
    }

    /// Answers what is no message (R14).
    fn refuse(&mut self, invalid: &Invalid, room: Room) {
        tracing::warn!(error = %invalid.error, "a line from the client is no message");
        let reply = error_reply(invalid.id.as_ref(), &invalid.error);
        let output = self.bridge.output.clone();
        self.exchanges.spawn(async move {
            output.send(reply).await;
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
    async fn next(&mut self) -> io::Result<Option<Result<Bytes, TooLong>>> {
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
}

fn stdin_failed(error: io::Error) -> Error {
    Error::new(Fault::Stdio, "stdin cannot be read").with_source(error)
}
