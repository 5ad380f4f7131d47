//! The background threads of the package: one runtime per process, started on first use.
//!
//! Rule: after a fork the child has none of its parent's threads. Objects from before the fork would wait for those
//! threads forever, so using them is an error. New objects get threads of the child's own.

use std::sync::{Mutex, PoisonError};

use pyo3::{exceptions::PyRuntimeError, prelude::*};
use tokio::runtime::{Builder, Handle, Runtime};

/// The runtime, and the ID of its process. It is never dropped: its threads end with the process.
static RUNTIME: Mutex<Option<(u32, &'static Runtime)>> = Mutex::new(None);

/// The process that an object was created in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process(u32);

impl Process {
    pub(crate) fn current() -> Self {
        Self(std::process::id())
    }

    pub(crate) fn is_current(self) -> bool {
        self == Self::current()
    }

    /// Checks that this is still the same process.
    ///
    /// # Errors
    /// This is a fork of that process.
    pub(crate) fn check(self, what: &str) -> PyResult<()> {
        if self.is_current() {
            return Ok(());
        }
        Err(PyRuntimeError::new_err(format!(
            "this {what} was made before the process forked, and does not work in the child: make a new one there"
        )))
    }
}

/// Returns the runtime of this process.
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
    // One thread is enough: it mostly waits and moves bytes.
    let started = Builder::new_multi_thread().worker_threads(1).thread_name("mcp-gangway").enable_all().build();
    let started: &'static Runtime = Box::leak(Box::new(started.map_err(|error| {
        PyRuntimeError::new_err(format!("mcp_gangway cannot start its background thread: {error}"))
    })?));
    *runtime = Some((process, started));
    Ok(started.handle().clone())
}
