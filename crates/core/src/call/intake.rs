//! Where the client's messages become exchanges: their order, and how many are under way.
//!
//! Reading never waits for HTTP: each message gets a task of its own, which waits for its turn. The tasks' messages are
//! bounded in bytes; when that is used up, stdin is not read, and its writer waits. What has no answer is bounded in number
//! beside that: its writer waits for a while, too, but a server that takes none of it keeps no request from being read.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::timeout,
};

use crate::{
    call::{Bridge, call_table::Pending, exchange, lane::Lane, permits::PermitKind, shutdown},
    client::{hidden_tools, stdin::Incoming},
    gate::Gate,
    memory::{self, Budget, Taken},
    wire::{
        id::Id,
        message::{Invalid, Kind, Message},
    },
};

/// The most messages without an answer that may be under way at once.
const MOST_UNANSWERED: usize = 1024;
/// How long the next one waits for one of them to get through. Then the server takes none, and they are dropped until it does.
const CLOGGED_TIME: Duration = Duration::from_secs(5);
/// Where the client's messages become exchanges.
pub(crate) struct Intake {
    bridge: Arc<Bridge>,
    pub(crate) exchanges: JoinSet<()>,
    room: Budget,
    /// Room for what has no answer, beside that.
    unanswered: Arc<Semaphore>,
    /// The server takes nothing of that.
    is_clogged: bool,
    /// What the next message must wait for (R12): the answer to `initialize`, then the receipt of `initialized` and a
    /// moment for the push stream.
    gate: Option<Gate>,
    /// The client has begun a session, as legacy clients do.
    shook_hands: bool,
}

/// A message's share of the intake; given back at the end of its exchange.
#[derive(Debug)]
pub(crate) struct Room {
    #[expect(dead_code, reason = "given back when it is dropped")]
    bytes: Taken,
    /// Its place among those without an answer.
    place: Option<OwnedSemaphorePermit>,
}

/// Whether nobody waits for the message; the end of the handshake has all others wait.
fn is_unanswered(message: &Message) -> bool {
    message.kind() != Kind::Request && message.method() != "notifications/initialized"
}

impl Intake {
    pub(crate) fn new(bridge: Arc<Bridge>) -> Self {
        Self {
            bridge,
            exchanges: JoinSet::new(),
            room: Budget::new(memory::REQUESTS),
            unanswered: Arc::new(Semaphore::new(MOST_UNANSWERED)),
            is_clogged: false,
            gate: None,
            shook_hands: false,
        }
    }

    /// Waits until there is room for a message.
    pub(crate) async fn room_for(&self, message: &Incoming) -> Room {
        let length = message.as_ref().map_or(0, |message| message.bytes().len());
        let bytes = self.room.take(length.saturating_add(memory::OVERHEAD)).await;
        if !message.as_ref().is_ok_and(is_unanswered) {
            return Room { bytes, place: None };
        }
        let place = match Arc::clone(&self.unanswered).try_acquire_owned() {
            Err(_) if !self.is_clogged => {
                let place = Arc::clone(&self.unanswered).acquire_owned();
                timeout(CLOGGED_TIME, place).await.ok().and_then(Result::ok)
            }
            place => place.ok(),
        };
        Room { bytes, place }
    }

    pub(crate) fn take(&mut self, message: Incoming, room: Room) {
        while self.exchanges.try_join_next().is_some() {}
        match message {
            Ok(message) => self.start(message, room),
            Err(invalid) => {
                tracing::warn!(error = %invalid.error, "a line from the client is no message");
                self.refuse(&invalid, room);
            }
        }
    }

    /// Answers a request that is not taken any more.
    pub(crate) fn turn_away(&self, message: &Message) {
        if message.kind() == Kind::Request {
            self.bridge
                .client
                .output
                .send_now(self.bridge.client.error_reply(message.id(), &shutdown().with_may_have_run(false)));
        }
    }

    /// Answers what is not to be sent.
    fn refuse(&mut self, invalid: &Invalid, room: Room) {
        let reply = self.bridge.client.error_reply(invalid.id.as_ref(), &invalid.error);
        let pending = self.bridge.calls.table.insert_receipt();
        let bridge = Arc::clone(&self.bridge);
        self.exchanges.spawn(async move {
            bridge.client.output.send(reply).await;
            bridge.calls.table.remove(&pending);
            drop(room);
        });
    }

    fn start(&mut self, message: Message, room: Room) {
        if message.kind() == Kind::Response && self.bridge.client.questions.take(&message) {
            return;
        }
        if let Some(error) = hidden_tools::objection(&self.bridge.client.tools, &message) {
            tracing::warn!(%error, "a call of the client's is not sent");
            if let Some(id) = message.id().cloned() {
                self.refuse(&Invalid { error, id: Some(id) }, room);
            }
            return;
        }
        if is_unanswered(&message) {
            self.is_clogged = room.place.is_none();
            if self.is_clogged {
                tracing::warn!(method = message.method(), "the server takes no notifications or responses; dropped");
                return;
            }
        }
        let Some(lane) = self.lane(&message) else { return };
        let pending = self.bridge.calls.table.insert(&message);
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
            (Kind::Response, _) => Lane { share: PermitKind::Responses, ..Lane::default() },
            (Kind::Notification, "notifications/cancelled") => match self.cancelled(message) {
                // A request that was not sent, and one whose end is its cancellation, need no more than that (R69).
                Some(target) if !target.cancel() || self.bridge.closes_to_cancel(&target) => return None,
                Some(target) => {
                    let follows = Some(Arc::clone(&target.delivery));
                    Lane { follows, share: PermitKind::Responses, ..Lane::default() }
                }
                // Without a session there is nobody to tell.
                None if !self.shook_hands => return None,
                None => Lane { gate, share: PermitKind::Notifications, ..Lane::default() },
            },
            (Kind::Request, "initialize") | (Kind::Notification, "notifications/initialized") => {
                self.shook_hands = true;
                let (hold, next) = Gate::new();
                self.gate = Some(next);
                Lane { gate, hold: Some(hold), ..Lane::default() }
            }
            (Kind::Notification, _) => Lane { gate, share: PermitKind::Notifications, ..Lane::default() },
            (Kind::Request, "ping") => Lane { gate, share: PermitKind::Pings, ..Lane::default() },
            (Kind::Request, "subscriptions/listen") => {
                Lane { gate, share: PermitKind::Subscriptions, ..Lane::default() }
            }
            (Kind::Request, _) => Lane { gate, share: PermitKind::Calls, ..Lane::default() },
        })
    }

    fn cancelled(&self, message: &Message) -> Option<Arc<Pending>> {
        let id: Id = message.cancelled_id()?;
        self.bridge.calls.table.find_of_client(&id)
    }
}
