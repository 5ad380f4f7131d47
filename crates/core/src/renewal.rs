//! A new session in the place of a lost one, without the client's knowledge (R38, R39, R53).
//!
//! However many requests find the session gone, one of them sets up the next: the client's own `initialize`, then
//! `initialized`, the log level and the subscriptions. All others wait for that, and new messages wait with them.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;

use crate::{
    bridge::Bridge,
    error::{Error, Kind as Fault},
    exchange,
    intake::{Gate, Lane},
    message::{Id, Message, initialized},
    retry,
};

/// Who sets up a session, and how often that failed.
#[derive(Debug, Default)]
pub(crate) struct Renewal {
    turn: Mutex<()>,
    failures: AtomicU64,
    calls: AtomicU64,
}

impl Renewal {
    /// Waits while a session is being set up.
    pub(crate) async fn over(&self) {
        drop(self.turn.lock().await);
    }
}

impl Bridge {
    /// Sees that the session of `epoch`, which is lost, has a successor.
    ///
    /// # Errors
    /// There is none: the server refused, or it offers less than the client was promised.
    pub(crate) async fn renew(&self, epoch: u64) -> Result<(), Error> {
        let failures = self.renewal.failures.load(Ordering::Acquire);
        let _turn = self.renewal.turn.lock().await;
        if self.session().epoch() != epoch {
            return Ok(());
        }
        if self.renewal.failures.load(Ordering::Acquire) != failures {
            // It failed while this one waited; to try for each in turn would keep the last one waiting for long.
            return Err(Error::new(Fault::SessionLost, "the server has lost the session, and a new one failed"));
        }
        self.set_up().await.inspect_err(|_| {
            self.renewal.failures.fetch_add(1, Ordering::AcqRel);
        })
    }

    async fn set_up(&self) -> Result<(), Error> {
        let Some(initialize) = self.session().initialize().cloned() else {
            return Err(Error::new(Fault::SessionLost, "the server has lost the session"));
        };
        tracing::info!("the server has lost the session; a new one is set up");
        let replay = self.session().replay();
        let answer = self.call(&initialize).await?;
        let failed = |why: &str| {
            let summary = format!("the server has lost the session, and its new one cannot take its place: {why}");
            Err(Error::new(Fault::SessionLost, summary))
        };
        match (answer.offer(), answer.error()) {
            (Some(offer), _) => {
                let renewed = self.session().renewed(&offer);
                if let Err(why) = renewed {
                    return failed(&why);
                }
            }
            (None, Some((_, why))) => return failed(&why),
            (None, None) => return failed("the answer to initialize is no result"),
        }
        let (hold, gate) = Gate::new();
        self.tell(initialized(), Lane { hold: Some(hold), ..Lane::default() }).await;
        gate.opened().await;
        for request in replay {
            if let Err(error) = self.call(&request).await {
                tracing::warn!(method = request.method(), error = %error, "the new session was not told");
            }
        }
        Ok(())
    }

    /// Sends a request of the bridge's own and gives its answer.
    ///
    /// # Errors
    /// As a request of the client's would get them.
    async fn call(&self, request: &Message) -> Result<Message, Error> {
        let number = self.renewal.calls.fetch_add(1, Ordering::Relaxed);
        let request = request.with_id(&own_id(number));
        let (pending, mut answer) = self.table.insert_own(&request);
        // The reply's stream may go on after the answer; that is of no interest here.
        let early = tokio::select! {
            biased;
            answer = &mut answer => Some(answer),
            () = exchange::run_boxed(self, request, &pending, Lane::default()) => None,
        };
        let answer = match early {
            Some(answer) => answer,
            None => answer.await,
        };
        answer
            .unwrap_or_else(|_| Err(Error::new(Fault::NoAnswer, "the server did not answer the bridge's own request")))
    }

    /// Sends a notification of the bridge's own.
    async fn tell(&self, notification: Message, lane: Lane) {
        let (pending, _) = self.table.insert_own(&notification);
        exchange::run_boxed(self, notification, &pending, lane).await;
    }
}

/// An id that no client uses: it differs from process to process.
fn own_id(number: u64) -> Id {
    use std::sync::OnceLock;
    static PROCESS: OnceLock<u64> = OnceLock::new();
    let process = PROCESS.get_or_init(|| retry::random().to_bits());
    Id::own(&format!("mcp-gangway-{process:x}-{number}"))
}
