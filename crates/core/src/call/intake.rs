//! Starts an exchange for each client message, in order and within limits.
//!
//! Reading stdin never waits for HTTP: each message gets its own task, which waits for its turn. Messages in progress
//! share a memory budget. When it is used up, stdin is not read, and the client waits. Messages that get no response
//! also have a limit in number. When it is reached, the client waits for a limited time; then such messages are
//! dropped, so that a server that accepts none of them does not hold up requests.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::timeout,
};

use crate::{
    call::{Bridge, call_table::Pending, exchange, lane::Lane, permits::PermitKind, shutdown},
    client::{hidden_tools, stdin::Incoming},
    error::Error,
    gate::Gate,
    memory::{self, Budget, Taken},
    wire::{
        id::Id,
        message::{Kind, Message},
    },
};

/// The most messages without a response (notifications and responses) in progress at once.
const MAX_UNANSWERED: usize = 1024;
/// How long the next such message waits for a place. After that, such messages are dropped until the server accepts
/// one.
const INTAKE_WAIT_TIME: Duration = Duration::from_secs(5);
/// Starts the exchanges of the client's messages.
pub(crate) struct Intake {
    bridge: Arc<Bridge>,
    pub(crate) exchanges: JoinSet<()>,
    room: Budget,
    /// Places for messages without a response, in addition to `room`.
    unanswered: Arc<Semaphore>,
    /// The server accepts no messages without a response.
    is_clogged: bool,
    /// The gate that the next message waits for (R12): the response to `initialize`, then the receipt of `initialized`
    /// and a short wait for the push stream.
    gate: Option<Gate>,
    /// The client has begun a session, as legacy clients do.
    shook_hands: bool,
}

/// A message's share of the intake, given back at the end of its exchange.
#[derive(Debug)]
pub(crate) struct Room {
    #[expect(dead_code, reason = "given back when it is dropped")]
    bytes: Taken,
    /// The place among messages without a response.
    place: Option<OwnedSemaphorePermit>,
}

/// True if no one waits for this message. Later messages wait for `initialized`, although it has no response.
fn is_unanswered(message: &Message) -> bool {
    message.kind() != Kind::Request && message.method() != "notifications/initialized"
}

impl Intake {
    pub(crate) fn new(bridge: Arc<Bridge>) -> Self {
        Self {
            bridge,
            exchanges: JoinSet::new(),
            room: Budget::new(memory::REQUESTS),
            unanswered: Arc::new(Semaphore::new(MAX_UNANSWERED)),
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
                timeout(INTAKE_WAIT_TIME, place).await.ok().and_then(Result::ok)
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
                let error = invalid.error();
                tracing::warn!(%error, "a line from the client is no message");
                self.refuse(invalid.id.as_ref(), &error, room);
            }
        }
    }

    /// Answers a request that is no longer accepted.
    pub(crate) fn refuse_late_request(&self, message: &Message) {
        if message.kind() == Kind::Request {
            self.bridge
                .client
                .output
                .send_now(self.bridge.client.error_reply(message.id(), &shutdown().with_may_have_run(false)));
        }
    }

    /// Sends an error response for a message that must not be sent.
    fn refuse(&mut self, id: Option<&Id>, error: &Error, room: Room) {
        let reply = self.bridge.client.error_reply(id, error);
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
            tracing::warn!(%error, "a tool call of the client is not sent");
            if message.id().is_some() {
                self.refuse(message.id(), &error, room);
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
        // Boxed because the runtime moves a future several times while it spawns the task.
        self.exchanges.spawn(Box::pin(async move {
            exchange::run(&bridge, message, &pending, lane).await;
            drop(room);
        }));
    }

    /// Returns the order and the limit of a message, or `None` if it need not be sent.
    fn lane(&mut self, message: &Message) -> Option<Lane> {
        self.gate.take_if(|gate| gate.is_open());
        let gate = self.gate.clone();
        Some(match (message.kind(), message.method()) {
            // The server may need the response before it answers the others (R27), so it passes the gate.
            (Kind::Response, _) => Lane { share: PermitKind::Responses, ..Lane::default() },
            (Kind::Notification, "notifications/cancelled") => match self.cancelled(message) {
                // No cancellation is sent for a request that was not sent, or that is cancelled by ending its exchange
                // (R69).
                Some(target) if !target.cancel() || self.bridge.cancels_by_closing(&target) => return None,
                Some(target) => {
                    let follows = Some(Arc::clone(&target.delivery));
                    Lane { follows, share: PermitKind::Responses, ..Lane::default() }
                }
                // Without a session there is no one to tell.
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
