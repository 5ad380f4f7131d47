//! A modern client's call at a legacy server while the server asks something in the middle of it: the server's request
//! becomes a result that asks for input, and the client's next request goes on with the call that was left open.
//!
//! Rule: an open call is waited for a limited time only; then, or when the client gives it up, the server is told so. A
//! state that does not stand for such a call, or no longer, is refused.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::{mpsc, oneshot};

use crate::{
    bridge::Bridge,
    era::modern_to_legacy,
    error::Error,
    intake::Lane,
    message::{Id, Message, cancellation},
    own::Task,
    pending::Origin,
    retry,
};

/// The most questions that one call can have waiting.
const MOST_QUESTIONS: usize = 16;
/// The most calls that can wait for input at once.
const MOST_PARKED: usize = 1000;

/// What those who read the server's streams know of an open call.
#[derive(Debug)]
pub(crate) struct Held {
    /// The client's request that waits for the answer now, or waited last.
    request: Mutex<Message>,
    questions: mpsc::Sender<Message>,
    /// No request waits: the client was asked for input.
    parked: AtomicBool,
    /// Another request waits than the one that the call was made for.
    resumed: AtomicBool,
}

impl Held {
    /// The client's request that waits for the answer now, or waited last.
    pub(crate) fn request(&self) -> Message {
        lock(&self.request).clone()
    }

    /// A notification that belongs to the call, as the request that waits now knows it.
    pub(crate) fn translated(&self, notification: Message) -> Option<Message> {
        if self.resumed.load(Ordering::Acquire) {
            modern_to_legacy::taken_over(notification, &lock(&self.request))
        } else {
            Some(notification)
        }
    }

    /// What the request that waits wants to have logged.
    pub(crate) fn log_level(&self) -> Option<String> {
        modern_to_legacy::log_level(&lock(&self.request))
    }

    pub(crate) fn is_parked(&self) -> bool {
        self.parked.load(Ordering::Acquire)
    }

    /// The client's next request goes on with the call.
    fn resume(&self, request: &Message) {
        *lock(&self.request) = request.clone();
        self.resumed.store(true, Ordering::Release);
        self.parked.store(false, Ordering::Release);
    }

    /// Puts a request of the server's to the client. False if too many wait already.
    pub(crate) fn ask(&self, question: Message) -> bool {
        self.questions.try_send(question).is_ok()
    }
}

/// An open call, held by the request that waits for its answer. When it is dropped before the answer has come, the server
/// is told that nobody waits any more.
#[derive(Debug)]
pub(crate) struct Call {
    bridge: Arc<Bridge>,
    pub(crate) held: Arc<Held>,
    pub(crate) questions: mpsc::Receiver<Message>,
    pub(crate) answer: oneshot::Receiver<Result<Message, Error>>,
    /// What the client was asked and has not answered.
    pub(crate) asked: Vec<Message>,
    id: Id,
    finished: bool,
    _task: Task,
}

impl Call {
    /// Sends `message`, which stands for the client's `request`.
    pub(crate) fn start(bridge: &Arc<Bridge>, request: &Message, message: &Message) -> Self {
        let (sender, questions) = mpsc::channel(MOST_QUESTIONS);
        let held = Arc::new(Held {
            request: Mutex::new(request.clone()),
            questions: sender,
            parked: AtomicBool::new(false),
            resumed: AtomicBool::new(false),
        });
        let (answered, answer) = oneshot::channel();
        let (id, call) = bridge.prepare(message, Origin::ForModernClient(Arc::clone(&held)));
        let task = bridge.spawn(async move {
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
#[derive(Debug, Default)]
pub(crate) struct Parked(Mutex<HashMap<String, Waiting>>);

/// What the client's next request goes on with.
#[derive(Debug)]
pub(crate) enum Waiting {
    /// An open call.
    Call(Call, #[expect(dead_code, reason = "ends the wait when it is dropped")] Task),
    /// A call that the server has refused until something is done elsewhere; it is made again.
    Again,
}

impl Parked {
    /// Leaves an open call to the client's next request. Gives the state that stands for it; `None` if too many wait.
    pub(crate) fn park(&self, call: Call) -> Option<String> {
        call.held.parked.store(true, Ordering::Release);
        let state = new_state();
        let (bridge, patience) = (Arc::clone(&call.bridge), call.bridge.timeouts.idle);
        let expiry = Task(call.bridge.spawn({
            let state = state.clone();
            async move {
                tokio::time::sleep(patience).await;
                if bridge.parked.take(&state).is_some() {
                    tracing::info!(?patience, "the client brought no input; the call is given up");
                }
            }
        }));
        self.insert(state, Waiting::Call(call, expiry))
    }

    /// Lets the client's next request be sent as a new one.
    pub(crate) fn again(&self) -> Option<String> {
        self.insert(new_state(), Waiting::Again)
    }

    /// What this state stands for; once.
    pub(crate) fn take(&self, state: &str) -> Option<Waiting> {
        lock(&self.0).remove(state)
    }

    /// Gives up all that waits.
    pub(crate) fn clear(&self) {
        let all = std::mem::take(&mut *lock(&self.0));
        drop(all);
    }

    fn insert(&self, state: String, waiting: Waiting) -> Option<String> {
        let mut all = lock(&self.0);
        if all.len() >= MOST_PARKED {
            // Dropped outside of the lock, as that has consequences.
            drop(all);
            return None;
        }
        all.insert(state.clone(), waiting);
        Some(state)
    }
}

impl Call {
    /// The client's next request goes on with this call.
    pub(crate) fn resume(&mut self, request: &Message) -> Vec<Message> {
        self.held.resume(request);
        std::mem::take(&mut self.asked)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let bridge = Arc::clone(&self.bridge);
        let cancel = cancellation(&self.id, "the client no longer waits for it");
        self.bridge.spawn(async move {
            if let Some(cancel) = Message::one(cancel) {
                bridge.tell(cancel, Origin::Session, Lane::default()).await;
            }
        });
    }
}

/// A state that nobody can guess.
fn new_state() -> String {
    format!("{:x}{:x}", retry::random().to_bits(), retry::random().to_bits())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
