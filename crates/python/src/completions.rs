//! Passes results from the background to an event loop or to a thread (`threads`). A finished operation waits in a
//! queue until the loop takes it and sets its future.
//!
//! Rule: the background only puts values into the queue and makes a pipe readable, once for all waiting results.
//! Python objects are created on the loop's own thread.

use std::{
    collections::HashMap,
    io::{PipeReader, PipeWriter, Read as _, Write as _, pipe},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use pyo3::{intern, prelude::*};
use tokio::task::AbortHandle;

use crate::{
    failure::Failure,
    runtime::{self, Process},
    threads::{Call, Slot},
};

/// Creates the Python object of a result.
pub(crate) type Finish = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;
/// The outcome of an operation.
pub(crate) type Outcome = Result<Finish, Failure>;

/// The waiter of an operation. For a loop a future is set; for a thread there is none, so its future is None.
#[derive(FromPyObject)]
pub(crate) enum Waiter<'py> {
    Loop(Bound<'py, Completions>),
    Thread(Bound<'py, Call>),
}

/// The finished operations of one event loop.
#[pyclass(frozen, module = "mcp_gangway._native")]
pub(crate) struct Completions {
    queue: Arc<Queue>,
    /// The futures of unfinished operations.
    waiting: Mutex<HashMap<u64, Py<PyAny>>>,
    process: Process,
}

struct Queue {
    complete: Mutex<Vec<(u64, Outcome)>>,
    signal: Arc<Signal>,
    next: AtomicU64,
}

/// Tells a loop, or a thread for several loops, that there are results.
struct Signal {
    /// True if it was given and not taken yet.
    is_given: AtomicBool,
    /// Both ends are kept here, because writing to a pipe without a reader could end the process.
    pipe: (PipeReader, PipeWriter),
}

/// An operation in the background.
#[pyclass(frozen, module = "mcp_gangway._native")]
pub(crate) struct Operation {
    /// The loop and the number of its future, if a loop waits.
    awaited: Option<(Py<Completions>, u64)>,
    task: Option<AbortHandle>,
    process: Process,
}

/// Completes an operation. Dropping it completes the operation with a failure.
pub(crate) struct Promise {
    /// None once it is kept.
    recipient: Option<Recipient>,
}

enum Recipient {
    Loop(Arc<Queue>, u64),
    Thread(Arc<Slot>),
}

#[pymethods]
impl Completions {
    /// `beside` gives its signal to the new one too, for loops that cannot wait for a signal of their own.
    #[new]
    #[pyo3(signature = (beside = None))]
    fn new(beside: Option<&Bound<'_, Self>>) -> PyResult<Self> {
        let signal = match beside {
            Some(other) => Arc::clone(&other.get().queue.signal),
            None => Arc::new(Signal { is_given: AtomicBool::new(false), pipe: pipe()? }),
        };
        let queue = Queue { complete: Mutex::default(), signal, next: AtomicU64::new(0) };
        Ok(Self { queue: Arc::new(queue), waiting: Mutex::default(), process: Process::current() })
    }

    /// Returns the descriptor that is readable when `take_signal` will not block.
    #[cfg(unix)]
    fn fileno(&self) -> i32 {
        std::os::fd::AsRawFd::as_raw_fd(&self.queue.signal.pipe.0)
    }

    /// Waits until an operation is finished.
    fn take_signal(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| {
            (&self.queue.signal.pipe.0).read_exact(&mut [0])?;
            self.queue.signal.is_given.store(false, Ordering::Release);
            Ok(())
        })
    }

    /// Returns true if there is something to deliver.
    fn has_complete(&self) -> bool {
        !lock(&self.queue.complete).is_empty()
    }

    /// Sets the futures of finished operations. Call it only on the event loop's thread.
    fn deliver(&self, py: Python<'_>) -> PyResult<()> {
        let complete = std::mem::take(&mut *lock(&self.queue.complete));
        for (token, outcome) in complete {
            // A cancelled operation has no future here.
            let Some(future) = lock(&self.waiting).remove(&token) else { continue };
            let future = future.into_bound(py);
            if future.call_method0(intern!(py, "done"))?.is_truthy()? {
                continue;
            }
            match outcome.map_err(|failure| failure.into_exception(py)).and_then(|finish| finish(py)) {
                Ok(value) => future.call_method1(intern!(py, "set_result"), (value,))?,
                Err(error) => future.call_method1(intern!(py, "set_exception"), (error,))?,
            };
        }
        Ok(())
    }
}

impl Waiter<'_> {
    /// Returns a promise that sets `future` or wakes the thread. Cancel the operation if nothing waits for it any
    /// more.
    ///
    /// # Errors
    /// The event loop was created before this process forked.
    pub(crate) fn promise(self, future: Py<PyAny>) -> PyResult<(Promise, Operation)> {
        let (recipient, awaited) = match self {
            Self::Loop(completions) => {
                let Completions { queue, waiting, process } = completions.get();
                process.check("event loop")?;
                let token = queue.next.fetch_add(1, Ordering::Relaxed);
                lock(waiting).insert(token, future);
                (Recipient::Loop(Arc::clone(queue), token), Some((completions.unbind(), token)))
            }
            Self::Thread(call) => (Recipient::Thread(Arc::clone(&call.get().slot)), None),
        };
        let operation = Operation { awaited, task: None, process: Process::current() };
        Ok((Promise { recipient: Some(recipient) }, operation))
    }

    /// Runs `work` in the background, and keeps the promise when it is done.
    ///
    /// # Errors
    /// As for `promise`, or no thread can be started.
    pub(crate) fn spawn(
        self,
        future: Py<PyAny>,
        work: impl Future<Output = Outcome> + Send + 'static,
    ) -> PyResult<Operation> {
        let runtime = runtime::handle()?;
        let (promise, operation) = self.promise(future)?;
        let task = runtime.spawn(async move {
            let outcome = work.await;
            promise.keep(outcome);
        });
        Ok(Operation { task: Some(task.abort_handle()), ..operation })
    }
}

#[pymethods]
impl Operation {
    /// Ends the operation, if it has not ended.
    fn cancel(&self) {
        if !self.process.is_current() {
            return;
        }
        if let Some((completions, token)) = &self.awaited {
            lock(&completions.get().waiting).remove(token);
        }
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Promise {
    pub(crate) fn keep(mut self, outcome: Outcome) {
        self.tell(outcome);
    }

    fn tell(&mut self, outcome: Outcome) {
        match self.recipient.take() {
            Some(Recipient::Loop(queue, token)) => queue.put(token, outcome),
            Some(Recipient::Thread(slot)) => slot.put(outcome),
            None => {}
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.tell(Err(Failure::closed()));
    }
}

impl Queue {
    fn put(&self, token: u64, outcome: Outcome) {
        lock(&self.complete).push((token, outcome));
        if !self.signal.is_given.swap(true, Ordering::AcqRel) {
            let _ = (&self.signal.pipe.1).write_all(&[0]);
        }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
