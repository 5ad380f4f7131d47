//! Memory budgets, in bytes: all limits on the memory that peers can make this process use.
//!
//! Rule: memory that grows with a peer's bytes is taken from one of these budgets first, and given back when it is
//! dropped. If a budget is used up, the task that wants more waits, and the peer with it, as its bytes are not read.
//! Otherwise that one message gets an error. Messages that wait for each other share no budget: answers never wait for
//! room that requests hold.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The client's messages in flight, with [`OVERHEAD`] for each.
pub(crate) const REQUESTS: usize = 64 << 20;
/// The cost of a message in flight in addition to its bytes: its task, and its request on a connection.
pub(crate) const OVERHEAD: usize = 16 << 10;
/// Payloads of replies between 64 KiB and 1 MiB, from their first byte until they leave. There is one smaller payload
/// per open reply; larger ones are in files.
pub(crate) const PAYLOADS: usize = 8 << 20;
/// The decompressors of replies, per HTTP client.
pub(crate) const DECOMPRESSION: usize = 24 << 20;
/// Messages that are read back from their files to be changed.
pub(crate) const LOANS: usize = 16 << 20;
/// Calls of modern clients that wait for input, and a legacy server's questions in them.
pub(crate) const PARKED: usize = 8 << 20;
/// Lines that wait for stdout.
pub(crate) const OUTPUT: usize = 1 << 20;

/// A memory budget.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    left: Arc<Semaphore>,
    size: usize,
}

/// Bytes taken from a budget; given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    budget: Budget,
    /// `None` while no bytes are taken.
    permit: Option<OwnedSemaphorePermit>,
    bytes: usize,
}

impl Budget {
    /// Creates a budget of `size` bytes.
    pub(crate) fn new(size: usize) -> Self {
        Self { left: Arc::new(Semaphore::new(size)), size }
    }

    /// Takes no bytes yet; the result can grow.
    pub(crate) fn nothing(&self) -> Taken {
        Taken { budget: self.clone(), permit: None, bytes: 0 }
    }

    /// Takes bytes; waits until enough are free, first come, first served. A request larger than the budget takes all
    /// of it.
    pub(crate) async fn take(&self, bytes: usize) -> Taken {
        let mut taken = self.nothing();
        taken.grow(bytes).await;
        taken
    }

    /// Takes bytes if enough are free.
    pub(crate) fn try_take(&self, bytes: usize) -> Option<Taken> {
        let mut taken = self.nothing();
        taken.try_grow(bytes).then_some(taken)
    }
}

impl Taken {
    /// Grows to `bytes`, if smaller. Waits until the missing bytes are free.
    pub(crate) async fn grow(&mut self, bytes: usize) {
        // A budget fits into a `u32`, and its semaphore is never closed.
        let Ok(more) = u32::try_from(bytes.min(self.budget.size).saturating_sub(self.bytes)) else { return };
        if let Ok(permit) = Arc::clone(&self.budget.left).acquire_many_owned(more).await {
            self.add(permit);
        }
    }

    /// Grows to `bytes`, if smaller. Returns false and changes nothing if too few bytes are free.
    pub(crate) fn try_grow(&mut self, bytes: usize) -> bool {
        if bytes <= self.bytes {
            return true;
        }
        let Ok(more) = u32::try_from(bytes - self.bytes) else { return false };
        let permit = Arc::clone(&self.budget.left).try_acquire_many_owned(more);
        permit.map(|permit| self.add(permit)).is_ok()
    }

    /// Shrinks to `bytes`, if larger.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        let less = self.bytes.saturating_sub(bytes);
        if let Some(all) = &mut self.permit {
            drop(all.split(less));
            self.bytes -= less;
        }
    }

    fn add(&mut self, permit: OwnedSemaphorePermit) {
        self.bytes += permit.num_permits();
        match &mut self.permit {
            Some(all) => all.merge(permit),
            none => *none = Some(permit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn budget_shares_grow_shrink_and_return_when_dropped() {
        let budget = Budget::new(10);
        let mut one = budget.take(4).await;
        let two = budget.try_take(6).unwrap();
        assert!(budget.try_take(1).is_none());
        drop(two);
        one.grow(7).await;
        assert!(budget.try_take(4).is_none() && budget.try_take(3).is_some());
        assert!(!one.try_grow(11) && one.try_grow(8) && one.try_grow(1));
        assert!(budget.try_take(3).is_none() && budget.try_take(2).is_some());
        one.shrink(3);
        one.shrink(5);
        assert!(budget.try_take(8).is_none() && budget.try_take(7).is_some());
        drop(one);
        assert!(budget.try_take(10).is_some());
    }

    #[tokio::test]
    async fn request_larger_than_the_budget_takes_all_of_it() {
        let budget = Budget::new(10);
        let all = budget.take(100).await;
        assert!(budget.try_take(1).is_none());
        drop(all);
        assert!(budget.try_take(10).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn budget_waiters_are_served_in_order() {
        let budget = Budget::new(10);
        let held = budget.take(8).await;
        let waiting = tokio::spawn({
            let budget = budget.clone();
            async move { budget.take(5).await }
        });
        tokio::task::yield_now().await;
        // A small request that would fit does not overtake.
        assert!(tokio::time::timeout(std::time::Duration::from_secs(1), budget.take(1)).await.is_err());
        drop(held);
        assert_eq!(waiting.await.unwrap().bytes, 5);
    }
}
