//! The threads behind the package: one runtime for the process, started when it is first needed.
//!
//! Rule: after a fork the child has none of its parent's threads. What was made before, and would wait for them for ever,
//! is refused with an error; what is made afterwards gets threads of the child's own.

use std::sync::{Mutex, PoisonError};

use pyo3::{exceptions::PyRuntimeError, prelude::*};
use tokio::runtime::{Builder, Handle, Runtime};

/// The runtime of the process with this number. It is never dropped: its threads end with the process.
static RUNTIME: Mutex<Option<(u32, &'static Runtime)>> = Mutex::new(None);

/// The process that something was made in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process(u32);

impl Process {
    pub(crate) fn current() -> Self {
        Self(std::process::id())
    }

    pub(crate) fn is_current(self) -> bool {
        self == Self::current()
    }

    /// # Errors
    /// This is another process, a fork of that one.
    pub(crate) fn check(self, what: &str) -> PyResult<()> {
        if self.is_current() {
            return Ok(());
        }
        Err(PyRuntimeError::new_err(format!(
            "this {what} was made before the process forked, and does not work in the child: make a new one there"
        )))
    }
}

/// The runtime of this process.
///
/// # Errors
/// No thread can be started.
pub(crate) fn handle() -> PyResult<Handle> {
    let mut runtime = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    let Process(process) = Process::current();
    if let Some((owner, runtime)) = *runtime
        && owner == process
    {
        return Ok(runtime.handle().clone());
    }
    mcp_gangway::report_panics();
    // One thread: what it does is waiting, and moving bytes.
    let started = Builder::new_multi_thread().worker_threads(1).thread_name("mcp-gangway").enable_all().build();
    let started: &'static Runtime = Box::leak(Box::new(started.map_err(|error| {
        PyRuntimeError::new_err(format!("mcp_gangway cannot start its background thread: {error}"))
    })?));
    *runtime = Some((process, started));
    Ok(started.handle().clone())
}
