//! A gate that opens when what it waits for is dropped, so that no way of failing can leave it shut.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// Opens when the [`Hold`] that it came with is dropped; those who wait pass in the order in which they came.
#[derive(Clone, Debug)]
pub(crate) struct Gate(Arc<Semaphore>);

/// See [`Gate`].
#[derive(Debug)]
pub(crate) struct Hold(Arc<Semaphore>);

impl Gate {
    pub(crate) fn new() -> (Hold, Self) {
        let closed = Arc::new(Semaphore::new(0));
        (Hold(Arc::clone(&closed)), Self(closed))
    }

    pub(crate) async fn opened(self) {
        // There is never a permit: the only way on is the semaphore's end.
        let _ = self.0.acquire().await;
    }

    pub(crate) fn is_open(&self) -> bool {
        self.0.is_closed()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.close();
    }
}
