//! The messages that are not finished yet: who still waits for an answer, and what may be cancelled.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU8, Ordering},
};

use tokio::sync::{Notify, oneshot};

use crate::{
    call::{parked_calls::Held, permits::Share},
    error::Error,
    server::delivery::Delivery,
    wire::{
        id::Id,
        message::{Kind, Message},
        revision::Era,
    },
};

/// One message, from its line on stdin (or its making, if it is the bridge's own) to its end: for a request the answer,
/// for the others the server's receipt.
#[derive(Debug)]
pub(crate) struct Pending {
    /// A request, which is to be answered.
    request: Option<Message>,
    pub(crate) delivery: Arc<Delivery>,
    /// Who waits for the answer, if it is not the client.
    caller: Mutex<Option<Caller>>,
    pub(crate) origin: Origin,
    withdrawn: Notify,
    settled: Notify,
    flags: AtomicU8,
}

/// On whose behalf a message is sent. It decides what becomes of all that comes with its answer.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    /// It is the client's own.
    Client,
    /// It sets up a session or belongs to one, and is lost with it.
    Session,
    /// It tells a legacy server what modern clients want, in whatever session there is.
    Wish,
    /// It stands for a legacy client's message at a modern server.
    ForLegacyClient,
    /// It finds out what the tools of a modern server want. Nothing of it is the client's.
    Listing,
    /// It is one round of a legacy client's request at a modern server, with which it shares its limit.
    Round(Share),
    /// It is the subscription of a legacy client at a modern server. Told when the server has acknowledged it.
    Events(Arc<Notify>),
    /// It stands for a modern client's request at a legacy server.
    ForModernClient(Arc<Held>),
}

/// Where the answer to a request of the bridge's own goes.
type Caller = oneshot::Sender<Result<Message, Error>>;

const STARTED: u8 = 1;
const CANCELLED: u8 = 2;
const ANSWERED: u8 = 4;
const ACTED: u8 = 8;

impl Pending {
    /// The id of a request.
    pub(crate) fn id(&self) -> Option<&Id> {
        self.request.as_ref().and_then(Message::id)
    }

    pub(crate) fn request(&self) -> Option<&Message> {
        self.request.as_ref()
    }

    /// Whether the bridge has made it; the client knows nothing of it.
    pub(crate) fn is_own(&self) -> bool {
        !matches!(self.origin, Origin::Client)
    }

    /// Whether it belongs to one session, and must not wait for the next.
    pub(crate) fn is_of_session(&self) -> bool {
        matches!(self.origin, Origin::Session)
    }

    /// Whether it goes to a modern server in the place of what a legacy client has said.
    pub(crate) fn is_for_legacy_client(&self) -> bool {
        matches!(self.origin, Origin::ForLegacyClient | Origin::Round(_) | Origin::Events(_))
    }

    /// Whether the server may have acted on it.
    pub(crate) fn may_have_run(&self) -> bool {
        self.delivery.may_have_arrived() || self.flags.load(Ordering::Acquire) & ACTED != 0
    }

    /// The server has acted on it, although it has not answered it.
    pub(crate) fn has_acted(&self) {
        self.raise(ACTED);
    }

    /// The call of a modern client's that it stands for.
    pub(crate) fn held(&self) -> Option<&Arc<Held>> {
        match &self.origin {
            Origin::ForModernClient(held) => Some(held),
            _ => None,
        }
    }

    /// The protocol that it is sent in.
    pub(crate) fn era(&self) -> Era {
        self.request.as_ref().map_or(Era::Legacy, Message::era)
    }

    pub(crate) fn take_caller(&self) -> Option<Caller> {
        self.caller.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether it stands for as long as the client wants it, and ends without an answer when the client goes.
    fn is_subscription(&self) -> bool {
        self.request.as_ref().is_some_and(|request| request.method() == "subscriptions/listen")
    }

    /// Its turn has come. False if it was cancelled before: then it must not be sent.
    pub(crate) fn start(&self) -> bool {
        self.raise(STARTED) & CANCELLED == 0
    }

    /// The client does not want the answer any more. True if the server must be told, as the request was started;
    /// otherwise it is withdrawn, and neither it nor the cancellation goes out.
    pub(crate) fn cancel(&self) -> bool {
        let started = self.raise(CANCELLED) & STARTED != 0;
        self.withdrawn.notify_one();
        started
    }

    /// Waits for a cancellation.
    pub(crate) async fn withdrawn(&self) {
        self.withdrawn.notified().await;
    }

    /// True for the first caller only, who then must put the answer out (R5, R36).
    pub(crate) fn claim_answer(&self) -> bool {
        let first = self.raise(ANSWERED) & ANSWERED == 0;
        self.settled.notify_one();
        first
    }

    /// Waits until the answer has come, on whatever stream.
    pub(crate) async fn settled(&self) {
        while !self.is_answered() {
            self.settled.notified().await;
        }
    }

    pub(crate) fn is_answered(&self) -> bool {
        self.flags.load(Ordering::Acquire) & ANSWERED != 0
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.flags.load(Ordering::Acquire) & CANCELLED != 0
    }

    fn raise(&self, flag: u8) -> u8 {
        self.flags.fetch_or(flag, Ordering::AcqRel)
    }
}

/// What is still to come for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wanted {
    /// The server's word that it has a notification or response.
    Receipt,
    /// The answer to a request.
    Answer,
}

/// All that is pending.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pending: Mutex<Vec<Arc<Pending>>>,
    removed: Notify,
}

impl Table {
    /// Adds a message of the client's.
    pub(crate) fn insert(&self, message: &Message) -> Arc<Pending> {
        self.add((message.kind() == Kind::Request).then(|| message.clone()), None, Origin::Client, Arc::default())
    }

    /// Adds something that the client waits for without having asked the server.
    pub(crate) fn insert_receipt(&self) -> Arc<Pending> {
        self.add(None, None, Origin::Client, Arc::default())
    }

    /// Adds a message of the bridge's own, and gives what its answer comes from.
    pub(crate) fn insert_own(
        &self,
        message: &Message,
        origin: Origin,
        delivery: Arc<Delivery>,
    ) -> (Arc<Pending>, oneshot::Receiver<Result<Message, Error>>) {
        let (caller, answer) = oneshot::channel();
        let request = (message.kind() == Kind::Request).then(|| message.clone());
        (self.add(request, Some(caller), origin, delivery), answer)
    }

    fn add(
        &self,
        request: Option<Message>,
        caller: Option<Caller>,
        origin: Origin,
        delivery: Arc<Delivery>,
    ) -> Arc<Pending> {
        let pending = Arc::new(Pending {
            request,
            delivery,
            caller: Mutex::new(caller),
            origin,
            withdrawn: Notify::new(),
            settled: Notify::new(),
            flags: AtomicU8::new(0),
        });
        self.lock().push(Arc::clone(&pending));
        pending
    }

    pub(crate) fn remove(&self, pending: &Arc<Pending>) {
        let mut all = self.lock();
        if let Some(at) = all.iter().position(|one| Arc::ptr_eq(one, pending)) {
            // What came last stays last.
            all.remove(at);
            self.removed.notify_waiters();
        }
    }

    /// The open request with this id, compared by value.
    pub(crate) fn find(&self, id: &Id) -> Option<Arc<Pending>> {
        self.lock().iter().find(|one| one.id().is_some_and(|own| own.same(id))).cloned()
    }

    /// The client's open request with this id.
    pub(crate) fn find_of_client(&self, id: &Id) -> Option<Arc<Pending>> {
        self.lock().iter().find(|one| !one.is_own() && one.id().is_some_and(|own| own.same(id))).cloned()
    }

    /// The open calls of modern clients at a legacy server, the newest first.
    pub(crate) fn held(&self) -> Vec<Arc<Held>> {
        self.lock().iter().rev().filter_map(|one| one.held().cloned()).collect()
    }

    /// The most that the client still waits for; cancelled requests are waited for by nobody.
    pub(crate) fn most_wanted(&self) -> Option<Wanted> {
        let wanted = |one: &Arc<Pending>| match (one.id(), one.is_cancelled()) {
            _ if one.is_own() || one.is_subscription() => None,
            (Some(_), true) => None,
            (Some(_), false) => Some(Wanted::Answer),
            (None, _) => Some(Wanted::Receipt),
        };
        self.lock().iter().filter_map(wanted).max()
    }

    /// The requests whose client still waits for an answer.
    pub(crate) fn unanswered(&self) -> Vec<Arc<Pending>> {
        self.lock()
            .iter()
            .filter(|one| {
                let ends_unsaid = one.is_own() || one.is_cancelled() || one.is_subscription();
                one.id().is_some() && !ends_unsaid
            })
            .cloned()
            .collect()
    }

    /// Waits for the next removal. Make the future before looking at the table, so that none is missed.
    pub(crate) fn next_removal(&self) -> impl Future<Output = ()> {
        self.removed.notified()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Pending>>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
