//! The messages that are not finished yet: who still waits for an answer, and what may be cancelled.

use crate::{
    call::{
        parked_calls::OpenCall,
        purpose::{Beside, Purpose},
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

/// One message, from its line on stdin (or its making, if it is the bridge's own) to its end: for a request the answer,
/// for the others the server's receipt.
#[derive(Debug)]
pub(crate) struct Pending {
    /// A request, which is to be answered.
    request: Option<Message>,
    pub(crate) delivery: Arc<Delivery>,
    /// Who waits for the answer, if it is not the client.
    caller: Mutex<Option<Caller>>,
    pub(crate) purpose: Purpose,
    withdrawn: Notify,
    settled: Notify,
    flags: AtomicU8,
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
        self.purpose.is_own
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
    pub(crate) fn held(&self) -> Option<&Arc<OpenCall>> {
        match &self.purpose.beside {
            Beside::Call(call) => Some(call),
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
pub(crate) enum Awaited {
    /// The server's word that it has a notification or response.
    Receipt,
    /// The answer to a request.
    Answer,
}

/// All that is pending.
#[derive(Debug, Default)]
pub(crate) struct CallTable {
    pending: Mutex<Vec<Arc<Pending>>>,
    removed: Notify,
}

impl CallTable {
    /// Adds a message of the client's.
    pub(crate) fn insert(&self, message: &Message) -> Arc<Pending> {
        self.add((message.kind() == Kind::Request).then(|| message.clone()), None, Purpose::client(), Arc::default())
    }

    /// Adds something that the client waits for without having asked the server.
    pub(crate) fn insert_receipt(&self) -> Arc<Pending> {
        self.add(None, None, Purpose::client(), Arc::default())
    }

    /// Adds a message of the bridge's own, and gives what its answer comes from.
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
    pub(crate) fn held(&self) -> Vec<Arc<OpenCall>> {
        self.lock().iter().rev().filter_map(|one| one.held().cloned()).collect()
    }

    /// The most that the client still waits for; cancelled requests are waited for by nobody.
    pub(crate) fn most_wanted(&self) -> Option<Awaited> {
        let wanted = |one: &Arc<Pending>| match (one.id(), one.is_cancelled()) {
            _ if one.is_own() || one.is_subscription() => None,
            (Some(_), true) => None,
            (Some(_), false) => Some(Awaited::Answer),
            (None, _) => Some(Awaited::Receipt),
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
