//! A handle that aborts its task when it is dropped.

use tokio::task::AbortHandle;

/// Aborts a task when it is dropped.
#[derive(Debug)]
pub(crate) struct Task(pub(crate) AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}
