//! Passes results from the background to a waiting thread, for programs without an event loop.
//!
//! Rule: a waiting thread does not hold the interpreter lock, and checks for signals, so that Ctrl-C ends any wait.

use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

use pyo3::{exceptions::PyRuntimeError, intern, prelude::*, sync::PyOnceLock};

use crate::{
    completions::{Outcome, lock},
    http::seconds,
};

/// How often the main thread checks for signals while it waits.
const SIGNAL_CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// How often other threads do, which get no signals.
const REST: Duration = Duration::from_secs(10);

/// An operation that one thread waits for.
#[pyclass(frozen, module = "mcp_gangway._native")]
pub(crate) struct Call {
    pub(crate) slot: Arc<Slot>,
}

/// The place for the outcome.
#[derive(Default)]
pub(crate) struct Slot {
    outcome: Mutex<Option<Outcome>>,
    is_filled: Condvar,
}

#[pymethods]
impl Call {
    #[new]
    fn new() -> Self {
        Self { slot: Arc::default() }
    }

    /// Waits until there is an outcome, at most for this many seconds. Returns true if there is one. Raises the
    /// exception of a signal handler.
    fn wait(&self, py: Python<'_>, limit: Option<f64>) -> PyResult<bool> {
        let until = seconds(limit)?.and_then(|limit| Instant::now().checked_add(limit));
        let mut look = SIGNAL_CHECK_INTERVAL;
        loop {
            let left = until.map_or(look, |until| until.saturating_duration_since(Instant::now()));
            if py.detach(|| self.slot.wait(left.min(look))) {
                return Ok(true);
            }
            py.check_signals()?;
            if until.is_some_and(|until| until <= Instant::now()) {
                return Ok(false);
            }
            if look == SIGNAL_CHECK_INTERVAL && !is_main_thread(py)? {
                look = REST;
            }
        }
    }

    /// Returns the outcome, once there is one.
    fn result(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let outcome = lock(&self.slot.outcome).take();
        let outcome = outcome.ok_or_else(|| PyRuntimeError::new_err("there is no outcome, or it was taken already"))?;
        outcome.map_err(|failure| failure.into_exception(py)).and_then(|finish| finish(py))
    }
}

impl Slot {
    pub(crate) fn put(&self, outcome: Outcome) {
        *lock(&self.outcome) = Some(outcome);
        self.is_filled.notify_all();
    }

    /// Waits at most for `limit`. Returns true if it is filled.
    fn wait(&self, limit: Duration) -> bool {
        let outcome = lock(&self.outcome);
        let waited = self.is_filled.wait_timeout_while(outcome, limit, |outcome| outcome.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.is_some()
    }
}

/// Returns true on the main thread, the only one that runs signal handlers.
fn is_main_thread(py: Python<'_>) -> PyResult<bool> {
    static MAIN: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static OWN: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let main = MAIN.import(py, "threading", "main_thread")?.call0()?.getattr(intern!(py, "ident"))?;
    main.eq(OWN.import(py, "threading", "get_ident")?.call0()?)
}
