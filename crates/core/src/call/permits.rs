//! Limits how many messages are at the server at once, and so how many connections and descriptors the bridge has
//! open.
//!
//! Rule: messages that may not wait for calls have a limit of their own, and no limit waits for another. The client's
//! response to a server request gets through however many calls wait for it (R27), and a cancellation however many
//! notifications the server has not accepted.

use std::sync::Arc;

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::error::{Error, ErrorKind};

const NOTIFICATIONS: usize = 32;
const RESPONSES: usize = 16;
const PINGS: usize = 8;
const SUBSCRIPTIONS: usize = 64;
/// Notifications and responses of the bridge. Senders that cannot wait drop what is over this limit.
const MAX_BACKGROUND_MESSAGES: usize = 256;
/// Finished replies that are read to their end so that their connections can be used again.
const DRAIN_LIMIT: usize = 8;

/// The limit that a message counts against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum PermitKind {
    /// Requests, as many as the user allows (`--concurrency`).
    Calls,
    Pings,
    Notifications,
    /// Responses to the server's requests, and cancellations.
    Responses,
    /// Event streams that stay open as long as the client wants them.
    Subscriptions,
    /// No limit: the message is sent for another one that has a permit, or it is the only one of its kind.
    #[default]
    Nobody,
}

/// Limits on messages in flight, one per kind.
#[derive(Debug)]
pub(crate) struct Permits {
    calls: Semaphore,
    pings: Semaphore,
    notifications: Semaphore,
    responses: Semaphore,
    subscriptions: Semaphore,
    background: Arc<Semaphore>,
    remains: Semaphore,
}

impl Permits {
    /// Creates the limits, with room for this many calls.
    pub(crate) fn new(calls: usize) -> Self {
        Self {
            calls: Semaphore::new(calls),
            pings: Semaphore::new(PINGS),
            notifications: Semaphore::new(NOTIFICATIONS),
            responses: Semaphore::new(RESPONSES),
            subscriptions: Semaphore::new(SUBSCRIPTIONS),
            background: Arc::new(Semaphore::new(MAX_BACKGROUND_MESSAGES)),
            remains: Semaphore::new(DRAIN_LIMIT),
        }
    }

    /// Waits for a permit. Returns `None` if the kind has no limit.
    ///
    /// # Errors
    /// All places for subscriptions are taken, and waiting for one could take forever.
    pub(crate) async fn acquire(&self, share: PermitKind) -> Result<Option<SemaphorePermit<'_>>, Error> {
        let semaphore = match share {
            PermitKind::Calls => &self.calls,
            PermitKind::Pings => &self.pings,
            PermitKind::Notifications => &self.notifications,
            PermitKind::Responses => &self.responses,
            PermitKind::Subscriptions => {
                let permit = self.subscriptions.try_acquire().map(Some);
                return permit.map_err(|_| {
                    let summary =
                        format!("there are {SUBSCRIPTIONS} subscriptions already, which is the most; end one first");
                    Error::new(ErrorKind::TooLarge, summary)
                });
            }
            PermitKind::Nobody => return Ok(None),
        };
        // The semaphore is never closed.
        Ok(semaphore.acquire().await.ok())
    }

    /// Returns the limit on notifications and responses of the bridge.
    pub(crate) fn background(&self) -> Arc<Semaphore> {
        Arc::clone(&self.background)
    }

    /// Returns a permit to read the rest of a reply, if there is one.
    pub(crate) fn drain_permit(&self) -> Option<SemaphorePermit<'_>> {
        self.remains.try_acquire().ok()
    }
}
