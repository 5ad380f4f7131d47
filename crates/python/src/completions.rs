//! From the background to whoever waits: an event loop, or a thread (`threads`). What is complete waits in a queue until the
//! loop takes it and sets its futures.
//!
//! Rule: the background only puts values into the queue and makes a pipe readable, once for all that waits. What a value
//! is in Python is made on the loop's own thread.

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

/// Makes a result's Python object.
pub(crate) type Finish = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;
/// What comes of an operation.
pub(crate) type Outcome = Result<Finish, Failure>;

/// Who waits for an operation. A loop has a future set; a thread has none, so its future is None.
#[derive(FromPyObject)]
pub(crate) enum Waiter<'py> {
    Loop(Bound<'py, Completions>),
    Thread(Bound<'py, Call>),
}

/// What is complete for one event loop.
#[pyclass(frozen, module = "mcp_gangway._native")]
pub(crate) struct Completions {
    queue: Arc<Queue>,
    /// The futures of what is not complete.
    waiting: Mutex<HashMap<u64, Py<PyAny>>>,
    process: Process,
}

struct Queue {
    complete: Mutex<Vec<(u64, Outcome)>>,
    /// The signal is given and not taken.
    is_signalled: AtomicBool,
    /// Both ends are here, for a write to a pipe that nobody can read from could end the process.
    signal: (PipeReader, PipeWriter),
    next: AtomicU64,
}

/// Something in the background whose end somebody waits for.
#[pyclass(frozen, module = "mcp_gangway._native")]
pub(crate) struct Operation {
    /// The loop and the number of its future, if it is a loop that waits.
    awaited: Option<(Py<Completions>, u64)>,
    task: Option<AbortHandle>,
    process: Process,
}

/// The one who says that an operation is complete. It says so when it is dropped, at the latest.
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
    #[new]
    fn new() -> PyResult<Self> {
        let queue = Queue {
            complete: Mutex::default(),
            is_signalled: AtomicBool::new(false),
            signal: pipe()?,
            next: AtomicU64::new(0),
        };
        Ok(Self { queue: Arc::new(queue), waiting: Mutex::default(), process: Process::current() })
    }

    /// The descriptor that is readable when `take_signal` will not block.
    #[cfg(unix)]
    fn fileno(&self) -> i32 {
        std::os::fd::AsRawFd::as_raw_fd(&self.queue.signal.0)
    }

    /// Waits until something is complete.
    fn take_signal(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| {
            (&self.queue.signal.0).read_exact(&mut [0])?;
            self.queue.is_signalled.store(false, Ordering::Release);
            Ok(())
        })
    }

    /// Sets the futures of what is complete. Only on the event loop's thread.
    fn deliver(&self, py: Python<'_>) -> PyResult<()> {
        let complete = std::mem::take(&mut *lock(&self.queue.complete));
        for (token, outcome) in complete {
            // Whoever was cancelled is not there any more.
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
    /// Promises to set `future`, or to wake the thread. Who does not wait any more is to cancel the operation.
    ///
    /// # Errors
    /// This is a fork of the process that the event loop belongs to.
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
    /// As for `promise`, and no thread can be started.
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
    /// Nobody waits for it any more: it is ended, if it has not ended.
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
        if !self.is_signalled.swap(true, Ordering::AcqRel) {
            let _ = (&self.signal.1).write_all(&[0]);
        }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
