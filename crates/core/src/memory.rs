//! What peers can make this process hold, in bytes: one place for all limits, and what counts against them.
//!
//! Rule: whatever a peer's bytes can make grow is taken from one of these budgets before it grows, and given back when it is
//! dropped. Where one is used up, whoever wants more waits (and with it the peer, whose bytes are not read), or the one
//! message gets an error. No budget is shared by what waits for each other: answers never wait for room that requests hold.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The client's messages that are under way, with [`OVERHEAD`] for each.
pub(crate) const REQUESTS: usize = 64 << 20;
/// What a message under way costs beside its bytes: its task, and its request on a connection.
pub(crate) const OVERHEAD: usize = 16 << 10;
/// Payloads of a reply between 64 KiB and 1 MiB, while they are gathered and until they leave. Smaller ones are one for each
/// open reply, larger ones are in files.
pub(crate) const PAYLOADS: usize = 8 << 20;
/// What decompresses replies, for one HTTP client.
pub(crate) const EXPANDING: usize = 24 << 20;
/// Messages that are read back from their files to be changed.
pub(crate) const LOANS: usize = 16 << 20;
/// Calls of modern clients that wait for input, and what a legacy server has asked in them.
pub(crate) const PARKED: usize = 8 << 20;
/// Lines that wait for stdout.
pub(crate) const OUTPUT: usize = 1 << 20;

/// So many bytes, of which some are taken.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    left: Arc<Semaphore>,
    size: usize,
}

/// Bytes of a budget; given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    budget: Budget,
    /// `None` while it is nothing.
    permit: Option<OwnedSemaphorePermit>,
    bytes: usize,
}

impl Budget {
    /// All of these bytes are left.
    pub(crate) fn new(size: usize) -> Self {
        Self { left: Arc::new(Semaphore::new(size)), size }
    }

    /// Nothing of it, which can grow.
    pub(crate) fn nothing(&self) -> Taken {
        Taken { budget: self.clone(), permit: None, bytes: 0 }
    }

    /// Takes bytes when there are so many, first come, first served. What is larger than the whole budget takes all of it.
    pub(crate) async fn take(&self, bytes: usize) -> Taken {
        let mut taken = self.nothing();
        taken.grow(bytes).await;
        taken
    }

    /// Takes bytes if there are so many.
    pub(crate) fn try_take(&self, bytes: usize) -> Option<Taken> {
        let mut taken = self.nothing();
        taken.try_grow(bytes).then_some(taken)
    }
}

impl Taken {
    /// Makes it this large, if it is not yet; waits for what is missing.
    pub(crate) async fn grow(&mut self, bytes: usize) {
        // Budgets are smaller than this, and are never closed.
        let Ok(more) = u32::try_from(bytes.min(self.budget.size).saturating_sub(self.bytes)) else { return };
        if let Ok(permit) = Arc::clone(&self.budget.left).acquire_many_owned(more).await {
            self.add(permit);
        }
    }

    /// Makes it this large, if it is not yet. False, and nothing is changed, if there is not so much.
    pub(crate) fn try_grow(&mut self, bytes: usize) -> bool {
        if bytes <= self.bytes {
            return true;
        }
        let Ok(more) = u32::try_from(bytes - self.bytes) else { return false };
        let permit = Arc::clone(&self.budget.left).try_acquire_many_owned(more);
        permit.map(|permit| self.add(permit)).is_ok()
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
    async fn what_is_taken_is_given_back() {
        let budget = Budget::new(10);
        let mut one = budget.take(4).await;
        let two = budget.try_take(6).unwrap();
        assert!(budget.try_take(1).is_none());
        drop(two);
        one.grow(7).await;
        assert!(budget.try_take(4).is_none() && budget.try_take(3).is_some());
        assert!(!one.try_grow(11) && one.try_grow(8) && one.try_grow(1));
        assert!(budget.try_take(3).is_none() && budget.try_take(2).is_some());
        drop(one);
        assert!(budget.try_take(10).is_some());
    }

    #[tokio::test]
    async fn what_is_larger_than_all_takes_all() {
        let budget = Budget::new(10);
        let all = budget.take(100).await;
        assert!(budget.try_take(1).is_none());
        drop(all);
        assert!(budget.try_take(10).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_first_is_served_first() {
        let budget = Budget::new(10);
        let held = budget.take(8).await;
        let waiting = tokio::spawn({
            let budget = budget.clone();
            async move { budget.take(5).await }
        });
        tokio::task::yield_now().await;
        // What would fit does not overtake.
        assert!(tokio::time::timeout(std::time::Duration::from_secs(1), budget.take(1)).await.is_err());
        drop(held);
        assert_eq!(waiting.await.unwrap().bytes, 5);
    }
}
