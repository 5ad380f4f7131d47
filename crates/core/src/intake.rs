//! Where the client's lines become exchanges: their order, and how many are under way.
//!
//! Reading never waits for HTTP: each message gets a task of its own, which waits for its turn. The tasks' lines are
//! bounded in bytes; when that is used up, stdin is not read, and its writer waits.

use std::{io, sync::Arc};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};

use crate::{
    bridge::{Bridge, shutdown},
    codec::Lines,
    error::{Error, Kind as Fault},
    exchange,
    message::{Id, Invalid, Kind, Message, Parsed, error_reply},
    payload::{Gathered, Gatherer, GivenUp, Unkept},
    pending::Pending,
    transport::Delivery,
};

/// Bytes of the client's messages that may be under way at once.
const INTAKE: usize = 64 << 20;
/// What a message costs of that beside its bytes: its task and its request.
const INTAKE_OVERHEAD: usize = 16 << 10;
/// What is read at once; messages that come together share one such block.
const READ_SIZE: usize = 16 << 10;
/// With less room than this in the block, the next read begins another.
const LEAST_READ: usize = 2 << 10;

/// Where the client's lines become exchanges.
pub(crate) struct Intake {
    bridge: Arc<Bridge>,
    pub(crate) exchanges: JoinSet<()>,
    room: Arc<Semaphore>,
    /// What the next message must wait for (R12): the answer to `initialize`, then the receipt of `initialized` and a
    /// moment for the push stream.
    gate: Option<Gate>,
    /// The client has begun a session, as legacy clients do.
    shook_hands: bool,
}

/// A line's share of the intake; given back at the end of its exchange.
pub(crate) type Room = Option<Arc<OwnedSemaphorePermit>>;

impl Intake {
    pub(crate) fn new(bridge: Arc<Bridge>) -> Self {
        Self {
            bridge,
            exchanges: JoinSet::new(),
            room: Arc::new(Semaphore::new(INTAKE)),
            gate: None,
            shook_hands: false,
        }
    }

    pub(crate) async fn room_for(&self, line: &Result<Gathered, GivenUp>) -> Room {
        let length = line.as_ref().map_or(0, |line| usize::try_from(line.length()).unwrap_or(usize::MAX));
        let cost = u32::try_from(length.saturating_add(INTAKE_OVERHEAD).min(INTAKE)).unwrap_or(u32::MAX);
        Arc::clone(&self.room).acquire_many_owned(cost).await.ok().map(Arc::new)
    }

    pub(crate) fn take(&mut self, line: Result<Gathered, GivenUp>, room: Room) {
        while self.exchanges.try_join_next().is_some() {}
        match line {
            Ok(line) if line.is_blank() => {}
            Ok(line) => match Message::read(&line) {
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
            Err(GivenUp { error, id, .. }) => {
                let hint =
                    if matches!(error, Unkept::TooLong { .. }) { "; --max-request-size sets this limit" } else { "" };
                let error = Error::new(Fault::TooLarge, format!("the client's message is {error}{hint}"));
                self.refuse(&Invalid { error, id: id.and_then(Id::read) }, room);
            }
        }
    }

    /// Answers the requests of a line that is not taken any more.
    pub(crate) fn turn_away(&self, line: &Gathered) {
        let messages = match Message::read(line) {
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
        let pending = self.bridge.table.insert_receipt();
        let bridge = Arc::clone(&self.bridge);
        self.exchanges.spawn(async move {
            bridge.output.send(reply).await;
            bridge.table.remove(&pending);
            drop(room);
        });
    }

    fn start(&mut self, message: Message, room: Room) {
        if message.kind() == Kind::Response && self.bridge.questions.take(&message) {
            return;
        }
        let Some(lane) = self.lane(&message) else { return };
        let pending = self.bridge.table.insert(&message);
        let bridge = Arc::clone(&self.bridge);
        // In a box of its own, for the runtime moves a task several times while it is set up.
        self.exchanges.spawn(Box::pin(async move {
            exchange::run(&bridge, message, &pending, lane).await;
            drop(room);
        }));
    }

    /// Where the message stands among the others; `None` if it need not be sent at all.
    fn lane(&mut self, message: &Message) -> Option<Lane> {
        self.gate.take_if(|gate| gate.is_open());
        let gate = self.gate.clone();
        Some(match (message.kind(), message.method()) {
            // The server may wait for it before it goes on with what the others wait for (R27).
            (Kind::Response, _) => Lane::default(),
            (Kind::Notification, "notifications/cancelled") => match self.cancelled(message) {
                // A request that was not sent, and one whose end is its cancellation, need no more than that (R69).
                Some(target) if !target.cancel() || self.bridge.closes_to_cancel(&target) => return None,
                Some(target) => Lane { follows: Some(Arc::clone(&target.delivery)), ..Lane::default() },
                // Without a session there is nobody to tell.
                None if !self.shook_hands => return None,
                None => Lane { gate, ..Lane::default() },
            },
            (Kind::Request, "initialize") | (Kind::Notification, "notifications/initialized") => {
                self.shook_hands = true;
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
        self.bridge.table.find_of_client(&id)
    }
}

/// Stdin, line by line.
pub(crate) struct Input<R> {
    reader: R,
    buffer: BytesMut,
    lines: Lines<Gatherer>,
    ended: bool,
}

impl<R: AsyncRead + Unpin> Input<R> {
    pub(crate) fn new(reader: R, limit: u64) -> Self {
        Self { reader, buffer: BytesMut::new(), lines: Lines::new(Gatherer::in_memory(limit)), ended: false }
    }

    /// The next line; `None` at the end. Can be dropped and called again without loss.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Result<Gathered, GivenUp>>> {
        loop {
            if let Some(line) = self.lines.next() {
                return Ok(Some(line));
            }
            if self.ended {
                return Ok(None);
            }
            if self.buffer.capacity() - self.buffer.len() < LEAST_READ {
                self.buffer.reserve(READ_SIZE);
            }
            if self.reader.read_buf(&mut self.buffer).await? == 0 {
                self.ended = true;
                // A last line without its end is still meant.
                return Ok(self.lines.finish());
            }
            self.lines.feed(self.buffer.split().freeze());
        }
    }

    /// The complete lines that were read and not taken.
    pub(crate) fn already_read(&mut self) -> impl Iterator<Item = Result<Gathered, GivenUp>> {
        std::iter::from_fn(|| self.lines.next())
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
    pub(crate) fn new() -> (Hold, Self) {
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
