//! A modern client's call at a legacy server while the server asks something in the middle of it: the server's request
//! becomes a result that asks for input, and the client's next request goes on with the call that was left open.
//!
//! Rule: an open call is waited for a limited time only; then, or when the client gives it up, the server is told so. A
//! state that does not stand for such a call, or no longer, is refused.

use crate::{
    call::{Bridge, own_requests, purpose::Purpose},
    error::Error,
    json::splice::Object,
    memory::{self, Budget, Taken},
    random::random,
    server::delivery::Delivery,
    task::Task,
    translate::modern_to_legacy,
    wire::{id::Id, message::Message, reply::cancellation},
};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

/// The most questions that one call can have waiting.
const MOST_QUESTIONS: usize = 16;
/// How soon it is looked again whether the server still waits for the client.
const A_MOMENT: Duration = Duration::from_millis(10);
/// The most calls that can wait for input at once: each has a connection.
const MOST_PARKED: usize = 64;

/// What those who read the server's streams know of an open call.
#[derive(Debug)]
pub(crate) struct OpenCall {
    /// The client's request that waits for the answer now, or waited last.
    request: Mutex<Message>,
    questions: mpsc::Sender<CallQuestion>,
    /// No request waits: the client was asked for input.
    parked: AtomicBool,
    /// When another request came to wait than the one that the call was made for.
    resumed: Mutex<Option<Instant>>,
    /// By what the server knows the call's progress, in JSON.
    token: Option<serde_json::Value>,
}

impl OpenCall {
    /// The client's request that waits for the answer now, or waited last.
    pub(crate) fn request(&self) -> Message {
        lock(&self.request).clone()
    }

    /// A notification that belongs to the call, as the request that waits now knows it. `None` if none waits, or if it has
    /// no use for this one.
    pub(crate) fn notification(&self, notification: Message) -> Option<Message> {
        if self.is_parked() {
            return None;
        }
        let request = self.request();
        let level = modern_to_legacy::log_level(&request);
        let notification = modern_to_legacy::notification(notification, level.as_deref())?;
        if lock(&self.resumed).is_some() {
            modern_to_legacy::taken_over(notification, &request)
        } else {
            Some(notification)
        }
    }

    /// Whether this is progress of the call.
    pub(crate) fn is_progress(&self, notification: &Message) -> bool {
        self.token.is_some() && self.token == token(notification.params())
    }

    /// Whether the client can be asked this in the answer to the request that waits.
    pub(crate) fn can_ask(&self, question: &Message) -> bool {
        modern_to_legacy::is_question(&lock(&self.request), question)
    }

    /// Until when the server waited for the client, if it did.
    pub(crate) fn client_took_until(&self) -> Option<Instant> {
        if self.is_parked() { Instant::now().checked_add(A_MOMENT) } else { *lock(&self.resumed) }
    }

    pub(crate) fn is_parked(&self) -> bool {
        self.parked.load(Ordering::Acquire)
    }

    /// The client's next request goes on with the call.
    fn resume(&self, request: &Message) {
        *lock(&self.request) = request.clone();
        *lock(&self.resumed) = Some(Instant::now());
        self.parked.store(false, Ordering::Release);
    }

    /// Puts a request of the server's to the client. False if too many wait already.
    pub(crate) fn ask(&self, question: CallQuestion) -> bool {
        self.questions.try_send(question).is_ok()
    }
}

/// A request of the server's in the course of a call.
#[derive(Clone, Debug)]
pub(crate) struct CallQuestion {
    pub(crate) request: Message,
    /// What it takes in memory.
    #[expect(dead_code, reason = "given back when the last copy is dropped")]
    pub(crate) room: Arc<Taken>,
}

/// An open call, held by the request that waits for its answer. When it is dropped before the answer has come, the server
/// is told that nobody waits any more.
#[derive(Debug)]
pub(crate) struct CallHandle {
    bridge: Arc<Bridge>,
    pub(crate) held: Arc<OpenCall>,
    pub(crate) questions: mpsc::Receiver<CallQuestion>,
    pub(crate) answer: oneshot::Receiver<Result<Message, Error>>,
    /// What the client was asked and has not answered.
    pub(crate) asked: Vec<CallQuestion>,
    id: Id,
    finished: bool,
    _task: Task,
}

impl CallHandle {
    /// Sends `message`, which stands for the client's `request`. `delivery` is told how far it has come.
    pub(crate) fn start(bridge: &Arc<Bridge>, request: &Message, message: &Message, delivery: &Arc<Delivery>) -> Self {
        let (sender, questions) = mpsc::channel(MOST_QUESTIONS);
        let held = Arc::new(OpenCall {
            request: Mutex::new(request.clone()),
            questions: sender,
            parked: AtomicBool::new(false),
            resumed: Mutex::default(),
            token: token(message.meta()),
        });
        let (answered, answer) = oneshot::channel();
        let (id, call) =
            own_requests::prepare(bridge, message, Purpose::modern_call(Arc::clone(&held)), Arc::clone(delivery));
        let task = bridge.calls.spawn(async move {
            let _ = answered.send(call.await);
        });
        Self {
            bridge: Arc::clone(bridge),
            held,
            questions,
            answer,
            asked: Vec::new(),
            id,
            finished: false,
            _task: Task(task),
        }
    }

    /// The answer has come.
    pub(crate) fn finish(&mut self) {
        self.finished = true;
    }
}

/// The calls that wait for the client's input, by the state that the client brings back.
#[derive(Debug)]
pub(crate) struct ParkedCalls {
    waiting: Mutex<HashMap<String, ParkedRequest>>,
    /// For what waits, and what is asked.
    pub(crate) room: Budget,
}

/// What the client's next request goes on with.
#[derive(Debug)]
pub(crate) enum ParkedRequest {
    /// An open call.
    Call(CallHandle, #[expect(dead_code, reason = "it lapses when this is dropped")] Wait),
    /// A request that the server has refused until something is done elsewhere; it is made again.
    Again(Message, #[expect(dead_code, reason = "it lapses when this is dropped")] Wait),
}

/// What keeps something waiting: its time, and the memory that it takes.
type Wait = (Task, Taken);

impl ParkedRequest {
    fn is_of(&self, method: &str) -> bool {
        match self {
            Self::Call(call, _) => lock(&call.held.request).method() == method,
            Self::Again(request, _) => request.method() == method,
        }
    }
}

impl Default for ParkedCalls {
    fn default() -> Self {
        Self { waiting: Mutex::default(), room: Budget::new(memory::PARKED) }
    }
}

impl ParkedCalls {
    /// Leaves an open call to the client's next request. Gives the state that stands for it; `None` if too many wait.
    pub(crate) fn park(&self, call: CallHandle) -> Option<String> {
        let room = room_for(&call.bridge, &lock(&call.held.request))?;
        call.held.parked.store(true, Ordering::Release);
        let (state, expiry) = expiring(&call.bridge);
        self.insert(state, ParkedRequest::Call(call, (expiry, room)))
    }

    /// Lets the client's next request of this kind be sent as a new one.
    pub(crate) fn again(&self, bridge: &Arc<Bridge>, request: &Message) -> Option<String> {
        let room = room_for(bridge, request)?;
        let (state, expiry) = expiring(bridge);
        self.insert(state, ParkedRequest::Again(request.clone(), (expiry, room)))
    }

    /// What this state stands for, if that is a request of this method; once.
    pub(crate) fn take(&self, state: &str, method: &str) -> Option<ParkedRequest> {
        let mut all = lock(&self.waiting);
        all.get(state).filter(|waiting| waiting.is_of(method))?;
        all.remove(state)
    }

    /// Gives one up.
    fn lapse(&self, state: &str) {
        let lapsed = lock(&self.waiting).remove(state);
        if lapsed.is_some() {
            tracing::info!("the client brought no input in time; the call is given up");
        }
    }

    /// Gives up all that waits.
    pub(crate) fn clear(&self) {
        let all = std::mem::take(&mut *lock(&self.waiting));
        drop(all);
    }

    fn insert(&self, state: String, waiting: ParkedRequest) -> Option<String> {
        let mut all = lock(&self.waiting);
        if all.len() >= MOST_PARKED {
            // Dropped outside of the lock, as that has consequences.
            drop(all);
            return None;
        }
        all.insert(state.clone(), waiting);
        Some(state)
    }
}

impl CallHandle {
    /// The client's next request goes on with this call.
    pub(crate) fn resume(&mut self, request: &Message) -> Vec<CallQuestion> {
        self.held.resume(request);
        std::mem::take(&mut self.asked)
    }
}

impl Drop for CallHandle {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        if let Some(cancel) = Message::one(cancellation(&self.id, "the client no longer waits for it")) {
            own_requests::tell_if_there_is_room(&self.bridge, cancel, Purpose::session());
        }
    }
}

/// Room for a request that waits; none if others have it.
fn room_for(bridge: &Bridge, request: &Message) -> Option<Taken> {
    bridge.calls.parked.room.try_take(request.bytes().len() + memory::OVERHEAD)
}

/// A new state, and what makes it lapse when the client's time is over.
fn expiring(bridge: &Arc<Bridge>) -> (String, Task) {
    let state = new_state();
    let expiry = bridge.calls.spawn({
        let (bridge, state) = (Arc::clone(bridge), state.clone());
        async move {
            tokio::time::sleep(bridge.timeouts.idle).await;
            bridge.calls.parked.lapse(&state);
        }
    });
    (state, Task(expiry))
}

/// A progress token, which stands in the `_meta` of a request and in the parameters of a notification.
fn token(object: Option<Object<'_>>) -> Option<serde_json::Value> {
    serde_json::from_str(object?.get("progressToken")?).ok()
}

/// A state that nobody can guess.
fn new_state() -> String {
    format!("{:x}{:x}", random().to_bits(), random().to_bits())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
