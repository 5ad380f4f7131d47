//! A gate that opens when its guard is dropped, so no failure can leave it shut.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// Opens when its [`GateGuard`] is dropped. Waiting tasks pass in the order in which they came.
#[derive(Clone, Debug)]
pub(crate) struct Gate(Arc<Semaphore>);

/// Keeps its [`Gate`] shut until it, or a copy of it, is dropped.
#[derive(Clone, Debug)]
pub(crate) struct GateGuard(Arc<Semaphore>);

impl Gate {
    pub(crate) fn new() -> (GateGuard, Self) {
        let closed = Arc::new(Semaphore::new(0));
        (GateGuard(Arc::clone(&closed)), Self(closed))
    }

    pub(crate) async fn opened(self) {
        // The semaphore never has a permit: `acquire` returns only when it is closed.
        let _ = self.0.acquire().await;
    }

    pub(crate) fn is_open(&self) -> bool {
        self.0.is_closed()
    }
}

impl Drop for GateGuard {
    fn drop(&mut self) {
        self.0.close();
    }
}
