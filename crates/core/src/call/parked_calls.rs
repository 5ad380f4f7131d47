//! Parks a modern client's call while a legacy server waits for input in the middle of it. The server's request
//! becomes a result that asks for input, and the client's next request resumes the open call.
//!
//! Rule: a call is parked for a limited time. After that, or when the client drops it, it is cancelled at the server.
//! A `requestState` that names no parked call is refused.

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

/// The most server requests that can wait in one call.
const MAX_QUESTIONS: usize = 16;
/// How often to check whether the server still waits for the client.
const PARKED_CHECK_INTERVAL: Duration = Duration::from_millis(10);
/// The most calls that can wait for input at once. Each has a connection.
const MAX_PARKED: usize = 64;

/// The part of an open call that readers of the server's streams share.
#[derive(Debug)]
pub(crate) struct OpenCall {
    /// The client's request that waits for the response, or the last one that did.
    request: Mutex<Message>,
    questions: mpsc::Sender<CallQuestion>,
    /// No request waits, because the client was asked for input.
    parked: AtomicBool,
    /// When another request than the first last resumed the call.
    resumed: Mutex<Option<Instant>>,
    /// The call's progress token at the server, in JSON.
    token: Option<serde_json::Value>,
}

impl OpenCall {
    /// Returns the client's request that waits for the response, or the last one that did.
    pub(crate) fn request(&self) -> Message {
        lock(&self.request).clone()
    }

    /// Translates a notification of the call for the request that waits now. Returns `None` if none waits, or if that
    /// one does not want it.
    pub(crate) fn notification(&self, notification: Message) -> Option<Message> {
        if self.is_parked() {
            return None;
        }
        let request = self.request();
        let level = modern_to_legacy::log_level(&request);
        let notification = modern_to_legacy::notification(notification, level.as_deref())?;
        if lock(&self.resumed).is_some() {
            modern_to_legacy::adapt_notification(notification, &request)
        } else {
            Some(notification)
        }
    }

    /// True if this is progress of the call.
    pub(crate) fn is_progress(&self, notification: &Message) -> bool {
        self.token.is_some() && self.token == token(notification.params())
    }

    /// True if the client can be asked this in the response to the request that waits.
    pub(crate) fn can_ask(&self, question: &Message) -> bool {
        modern_to_legacy::is_question(&lock(&self.request), question)
    }

    /// Returns the time until which the server waited for the client, if it did.
    pub(crate) fn client_took_until(&self) -> Option<Instant> {
        if self.is_parked() { Instant::now().checked_add(PARKED_CHECK_INTERVAL) } else { *lock(&self.resumed) }
    }

    pub(crate) fn is_parked(&self) -> bool {
        self.parked.load(Ordering::Acquire)
    }

    /// Makes the client's next request the one that waits.
    fn resume(&self, request: &Message) {
        *lock(&self.request) = request.clone();
        *lock(&self.resumed) = Some(Instant::now());
        self.parked.store(false, Ordering::Release);
    }

    /// Queues a server request for the client. Returns false if too many wait already.
    pub(crate) fn ask(&self, question: CallQuestion) -> bool {
        self.questions.try_send(question).is_ok()
    }
}

/// A request that the server sends during a call.
#[derive(Clone, Debug)]
pub(crate) struct CallQuestion {
    pub(crate) request: Message,
    /// The memory that it takes.
    #[expect(dead_code, reason = "given back when the last copy is dropped")]
    pub(crate) room: Arc<Taken>,
}

/// An open call, held by the request that waits for its response. Dropping it before the response has come cancels the
/// call at the server.
#[derive(Debug)]
pub(crate) struct CallHandle {
    bridge: Arc<Bridge>,
    pub(crate) held: Arc<OpenCall>,
    pub(crate) questions: mpsc::Receiver<CallQuestion>,
    pub(crate) answer: oneshot::Receiver<Result<Message, Error>>,
    /// Questions that the client has not answered.
    pub(crate) asked: Vec<CallQuestion>,
    id: Id,
    finished: bool,
    _task: Task,
}

impl CallHandle {
    /// Sends `message`, which stands for the client's `request`. `delivery` records how far it has come.
    pub(crate) fn start(bridge: &Arc<Bridge>, request: &Message, message: &Message, delivery: &Arc<Delivery>) -> Self {
        let (sender, questions) = mpsc::channel(MAX_QUESTIONS);
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

    /// Marks the call as finished, so that dropping it cancels nothing.
    pub(crate) fn finish(&mut self) {
        self.finished = true;
    }
}

/// Calls that wait for the client's input, by the `requestState` that the client brings back.
#[derive(Debug)]
pub(crate) struct ParkedCalls {
    waiting: Mutex<HashMap<String, ParkedRequest>>,
    /// Memory budget for parked requests and server requests.
    pub(crate) room: Budget,
}

/// What the client's next request resumes.
#[derive(Debug)]
pub(crate) enum ParkedRequest {
    /// An open call.
    Call(CallHandle, #[expect(dead_code, reason = "dropping it stops the timer and frees the memory")] Wait),
    /// A request that the server refuses until the user has done something elsewhere. It is sent again.
    Again(Message, #[expect(dead_code, reason = "dropping it stops the timer and frees the memory")] Wait),
}

/// The timer and the memory of a parked request.
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
    /// Parks an open call until the client's next request. Returns the state that stands for it, or `None` if too many
    /// wait.
    pub(crate) fn park(&self, call: CallHandle) -> Option<String> {
        let room = room_for(&call.bridge, &lock(&call.held.request))?;
        call.held.parked.store(true, Ordering::Release);
        let (state, expiry) = expiring(&call.bridge);
        self.insert(state, ParkedRequest::Call(call, (expiry, room)))
    }

    /// Parks a request that is to be sent again. Returns the state that stands for it, or `None` if too many wait.
    pub(crate) fn again(&self, bridge: &Arc<Bridge>, request: &Message) -> Option<String> {
        let room = room_for(bridge, request)?;
        let (state, expiry) = expiring(bridge);
        self.insert(state, ParkedRequest::Again(request.clone(), (expiry, room)))
    }

    /// Removes and returns what this state stands for, if that is a request of this method.
    pub(crate) fn take(&self, state: &str, method: &str) -> Option<ParkedRequest> {
        let mut all = lock(&self.waiting);
        all.get(state).filter(|waiting| waiting.is_of(method))?;
        all.remove(state)
    }

    /// Drops a parked request whose time is over.
    fn lapse(&self, state: &str) {
        let lapsed = lock(&self.waiting).remove(state);
        if lapsed.is_some() {
            tracing::info!("the client sent no input in time; the call is dropped");
        }
    }

    /// Drops all parked requests.
    pub(crate) fn clear(&self) {
        let all = std::mem::take(&mut *lock(&self.waiting));
        drop(all);
    }

    fn insert(&self, state: String, waiting: ParkedRequest) -> Option<String> {
        let mut all = lock(&self.waiting);
        if all.len() >= MAX_PARKED {
            // Unlock first: dropping `waiting` can cancel a call.
            drop(all);
            return None;
        }
        all.insert(state.clone(), waiting);
        Some(state)
    }
}

impl CallHandle {
    /// Makes the client's next request the one that waits. Returns the questions that it should answer.
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
            own_requests::try_send_in_background(&self.bridge, cancel, Purpose::session());
        }
    }
}

/// Takes memory for a parked request. Returns `None` if there is not enough.
fn room_for(bridge: &Bridge, request: &Message) -> Option<Taken> {
    bridge.calls.parked.room.try_take(request.bytes().len() + memory::OVERHEAD)
}

/// Returns a new state, and the timer that drops its request after the idle timeout.
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

/// Reads the progress token from the `_meta` of a request or the parameters of a notification.
fn token(object: Option<Object<'_>>) -> Option<serde_json::Value> {
    serde_json::from_str(object?.get("progressToken")?).ok()
}

/// Returns a state that cannot be guessed.
fn new_state() -> String {
    format!("{:x}{:x}", random().to_bits(), random().to_bits())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
