//! The table of messages in progress: who waits for a response, and which requests can be cancelled.

use crate::{
    call::{
        parked_calls::OpenCall,
        purpose::{Purpose, SideMessageRecipient},
    },
    error::Error,
    server::delivery::Delivery,
    wire::{
        id::Id,
        message::{Kind, Message},
        revision::Era,
    },
};
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU8, Ordering},
};

use tokio::sync::{Notify, oneshot};

/// One message in progress, from its line on stdin (or its creation by the bridge) until a request has its response,
/// or any other message the server's receipt.
#[derive(Debug)]
pub(crate) struct Pending {
    /// The request to answer; `None` for other messages.
    request: Option<Message>,
    pub(crate) delivery: Arc<Delivery>,
    /// The caller in the bridge that waits for the response, if the client does not.
    caller: Mutex<Option<Caller>>,
    pub(crate) purpose: Purpose,
    withdrawn: Notify,
    settled: Notify,
    flags: AtomicU8,
}

/// Where the response to a request of the bridge goes.
type Caller = oneshot::Sender<Result<Message, Error>>;

const STARTED: u8 = 1;
const CANCELLED: u8 = 2;
const ANSWERED: u8 = 4;
const ACTED: u8 = 8;
const PROMISED: u8 = 16;

impl Pending {
    /// Returns the id of a request.
    pub(crate) fn id(&self) -> Option<&Id> {
        self.request.as_ref().and_then(Message::id)
    }

    pub(crate) fn request(&self) -> Option<&Message> {
        self.request.as_ref()
    }

    /// True if the bridge made the message; the client does not know it.
    pub(crate) fn is_own(&self) -> bool {
        self.purpose.is_own
    }

    /// True if the server may have acted on the message.
    pub(crate) fn may_have_run(&self) -> bool {
        self.delivery.may_have_arrived() || self.flags.load(Ordering::Acquire) & ACTED != 0
    }

    /// Records that the server has acted on the request, although it has not answered it.
    pub(crate) fn record_side_effects(&self) {
        self.raise(ACTED);
    }

    /// Returns the modern client's call that the message stands for.
    pub(crate) fn held(&self) -> Option<&Arc<OpenCall>> {
        match &self.purpose.side_messages {
            SideMessageRecipient::Call(call) => Some(call),
            _ => None,
        }
    }

    /// Returns the protocol that the message is sent in.
    pub(crate) fn era(&self) -> Era {
        self.request.as_ref().map_or(Era::Legacy, Message::era)
    }

    pub(crate) fn take_caller(&self) -> Option<Caller> {
        self.caller.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// True for a subscription, which stays open as long as the client wants it and ends without a response when the
    /// client goes.
    fn is_subscription(&self) -> bool {
        self.request.as_ref().is_some_and(|request| request.method() == "subscriptions/listen")
    }

    /// Marks the message as started. Returns false if it was cancelled before; then it must not be sent.
    pub(crate) fn start(&self) -> bool {
        self.raise(STARTED) & CANCELLED == 0
    }

    /// Cancels the message. Returns true if it was started, so that the server must be told. Otherwise neither the
    /// message nor its cancellation is sent.
    pub(crate) fn cancel(&self) -> bool {
        let started = self.raise(CANCELLED) & STARTED != 0;
        self.withdrawn.notify_one();
        started
    }

    /// Waits until the message is cancelled.
    pub(crate) async fn withdrawn(&self) {
        self.withdrawn.notified().await;
    }

    /// Returns true to the first caller only, which then must send the response (R5, R36). Returns false for a request
    /// with a provisional response, because the client has its one response.
    pub(crate) fn claim_answer(&self) -> bool {
        let first = self.raise_without(ANSWERED, ANSWERED | PROMISED);
        self.settled.notify_one();
        first
    }

    /// Returns true if the caller must send a provisional response, because there is none of any kind. The exchange may
    /// go on, and the server's response is for the bridge.
    pub(crate) fn claim_promise(&self) -> bool {
        self.raise_without(PROMISED, ANSWERED | PROMISED | CANCELLED)
    }

    /// Like [`Self::claim_answer`], for the server's response to a request with a provisional one.
    pub(crate) fn settle_promise(&self) -> bool {
        let first = self.is_promised() && self.raise(ANSWERED) & ANSWERED == 0;
        self.settled.notify_one();
        first
    }

    /// True if the client has a provisional response.
    pub(crate) fn is_promised(&self) -> bool {
        self.flags.load(Ordering::Acquire) & PROMISED != 0
    }

    /// Waits until the response has come, on any stream.
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

    /// Raises a flag unless one of `others` is raised. Returns true if it did.
    fn raise_without(&self, flag: u8, others: u8) -> bool {
        let raised = |flags| (flags & others == 0).then_some(flags | flag);
        self.flags.fetch_update(Ordering::AcqRel, Ordering::Acquire, raised).is_ok()
    }

    fn raise(&self, flag: u8) -> u8 {
        self.flags.fetch_or(flag, Ordering::AcqRel)
    }
}

/// What a message in progress still needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum AwaitedReply {
    /// The server's receipt of a notification or response.
    Receipt,
    /// The response to a request.
    Answer,
}

/// All messages in progress.
#[derive(Debug, Default)]
pub(crate) struct CallTable {
    pending: Mutex<Vec<Arc<Pending>>>,
    removed: Notify,
}

impl CallTable {
    /// Adds a client message.
    pub(crate) fn insert(&self, message: &Message) -> Arc<Pending> {
        self.add((message.kind() == Kind::Request).then(|| message.clone()), None, Purpose::client(), Arc::default())
    }

    /// Adds an entry without a message, for work that the end of the bridge must wait for.
    pub(crate) fn insert_receipt(&self) -> Arc<Pending> {
        self.add(None, None, Purpose::client(), Arc::default())
    }

    /// Adds a message of the bridge. Returns its entry, and the receiver of the response.
    pub(crate) fn insert_own(
        &self,
        message: &Message,
        purpose: Purpose,
        delivery: Arc<Delivery>,
    ) -> (Arc<Pending>, oneshot::Receiver<Result<Message, Error>>) {
        let (caller, answer) = oneshot::channel();
        let request = (message.kind() == Kind::Request).then(|| message.clone());
        (self.add(request, Some(caller), purpose, delivery), answer)
    }

    fn add(
        &self,
        request: Option<Message>,
        caller: Option<Caller>,
        purpose: Purpose,
        delivery: Arc<Delivery>,
    ) -> Arc<Pending> {
        let pending = Arc::new(Pending {
            request,
            delivery,
            caller: Mutex::new(caller),
            purpose,
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
            // Keep the order: the newest stays last.
            all.remove(at);
            self.removed.notify_waiters();
        }
    }

    /// Returns the open request with this id, compared by value.
    pub(crate) fn find(&self, id: &Id) -> Option<Arc<Pending>> {
        self.lock().iter().find(|one| one.id().is_some_and(|own| own.same(id))).cloned()
    }

    /// Returns the client's open request with this id.
    pub(crate) fn find_of_client(&self, id: &Id) -> Option<Arc<Pending>> {
        self.lock().iter().find(|one| !one.is_own() && one.id().is_some_and(|own| own.same(id))).cloned()
    }

    /// Returns the open calls of modern clients at a legacy server, the newest first.
    pub(crate) fn held(&self) -> Vec<Arc<OpenCall>> {
        self.lock().iter().rev().filter_map(|one| one.held().cloned()).collect()
    }

    /// Returns `Answer` if the client waits for any response, else `Receipt` if a receipt is missing. Cancelled
    /// requests do not count.
    pub(crate) fn most_urgent_wait(&self) -> Option<AwaitedReply> {
        let wanted = |one: &Arc<Pending>| match (one.id(), one.is_cancelled()) {
            _ if one.is_own() || one.is_subscription() || one.is_promised() => None,
            (Some(_), true) => None,
            (Some(_), false) => Some(AwaitedReply::Answer),
            (None, _) => Some(AwaitedReply::Receipt),
        };
        self.lock().iter().filter_map(wanted).max()
    }

    /// Returns the requests for which the client still waits for a response.
    pub(crate) fn unanswered(&self) -> Vec<Arc<Pending>> {
        self.lock()
            .iter()
            .filter(|one| {
                let ends_unsaid = one.is_own() || one.is_cancelled() || one.is_subscription() || one.is_promised();
                one.id().is_some() && !ends_unsaid
            })
            .cloned()
            .collect()
    }

    /// Waits for the next removal. Create the future before reading the table, so that no removal is missed.
    pub(crate) fn next_removal(&self) -> impl Future<Output = ()> {
        self.removed.notified()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Pending>>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
