//! How many messages may be at the server at once, and with them how many connections and descriptors the bridge has open.
//!
//! Rule: what may not wait for calls has a limit of its own, and none of these limits waits for another: the client's
//! answer to a server's question gets through however many calls wait for it (R27), and a cancellation however many
//! notifications a server leaves lying.

use std::sync::Arc;

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::error::{Error, ErrorKind};

const NOTIFICATIONS: usize = 32;
const RESPONSES: usize = 16;
const PINGS: usize = 8;
const SUBSCRIPTIONS: usize = 64;
/// What the bridge tells the server by itself; who may not wait drops what is more.
const BESIDE: usize = 256;
/// Replies that say nothing any more, but whose connection can be used again if they end soon.
const REMAINS: usize = 8;

/// With whom a message shares a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum PermitKind {
    /// Requests, as many as the user allows (`--concurrency`).
    Calls,
    Pings,
    Notifications,
    /// Answers to the server's own requests, and cancellations.
    Responses,
    /// Streams of events that stand for as long as the client wants them.
    Subscriptions,
    /// It is made for another message, which has a permit, or is one of a kind.
    #[default]
    Nobody,
}

/// The permits of all kinds.
#[derive(Debug)]
pub(crate) struct Permits {
    calls: Semaphore,
    pings: Semaphore,
    notifications: Semaphore,
    responses: Semaphore,
    subscriptions: Semaphore,
    beside: Arc<Semaphore>,
    remains: Semaphore,
}

impl Permits {
    /// For so many calls.
    pub(crate) fn new(calls: usize) -> Self {
        Self {
            calls: Semaphore::new(calls),
            pings: Semaphore::new(PINGS),
            notifications: Semaphore::new(NOTIFICATIONS),
            responses: Semaphore::new(RESPONSES),
            subscriptions: Semaphore::new(SUBSCRIPTIONS),
            beside: Arc::new(Semaphore::new(BESIDE)),
            remains: Semaphore::new(REMAINS),
        }
    }

    /// Waits for a permit; none where none is needed.
    ///
    /// # Errors
    /// There are so many subscriptions that another one could wait for ever.
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
        // It is never closed.
        Ok(semaphore.acquire().await.ok())
    }

    /// The places of what the bridge tells the server by itself.
    pub(crate) fn beside(&self) -> Arc<Semaphore> {
        Arc::clone(&self.beside)
    }

    /// A permit to read what a reply still has, if there is one.
    pub(crate) fn for_remains(&self) -> Option<SemaphorePermit<'_>> {
        self.remains.try_acquire().ok()
    }
}
