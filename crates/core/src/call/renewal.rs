//! A new session in the place of a lost one, without the client's knowledge (R38, R39, R53).
//!
//! However many requests find the session gone, one of them sets up the next: the client's own `initialize`, then
//! `initialized`, the log level and the subscriptions. All others wait for that, and new messages wait with them. Where the
//! server turns out to be a modern one by now, the translator for legacy clients takes the session's place.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::{
    sync::{Mutex, MutexGuard},
    time::timeout,
};

use crate::{
    bridge::Bridge,
    call::{
        call_table::Origin,
        intake::{Gate, Lane},
    },
    error::{Error, Kind as Fault},
    translate::{eras, legacy_to_modern::LegacyClient},
    wire::message::{Message, initialized},
};

/// Who sets up a session, and how often that failed.
#[derive(Debug, Default)]
pub(crate) struct Renewal {
    turn: Mutex<()>,
    failures: AtomicU64,
}

impl Renewal {
    /// Whether a session is being set up.
    pub(crate) fn is_under_way(&self) -> bool {
        self.turn.try_lock().is_err()
    }

    /// Waits while a session is being set up.
    pub(crate) async fn over(&self) {
        drop(self.turn().await);
    }

    /// How often it failed to set up a session.
    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Acquire)
    }

    /// It has failed once more.
    pub(crate) fn failed(&self) {
        self.failures.fetch_add(1, Ordering::AcqRel);
    }

    /// The turn to set up a session; all others wait while it is held.
    pub(crate) async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }
}

impl Bridge {
    /// Sees that the session of `epoch`, which is lost, has a successor.
    ///
    /// # Errors
    /// There is none: the server refused, or it offers less than the client was promised.
    pub(crate) async fn renew(self: &Arc<Self>, epoch: u64) -> Result<(), Error> {
        let bridge = Arc::clone(self);
        // Others count on it, should the one who found the loss be cancelled.
        self.see_through(async move { bridge.renew_in_turn(epoch).await }).await?
    }

    async fn renew_in_turn(self: &Arc<Self>, epoch: u64) -> Result<(), Error> {
        let failures = self.renewal.failures();
        let _turn = self.renewal.turn().await;
        if self.session().epoch() != epoch {
            return Ok(());
        }
        let is_provisional = self.session().is_provisional();
        if self.renewal.failures() != failures && !is_provisional {
            // It failed while this one waited; to try for each in turn would keep the last one waiting for long.
            return Err(Error::new(Fault::SessionLost, "the server has lost the session, and a new one failed"));
        }
        self.set_up().await.inspect_err(|_| self.renewal.failed())?;
        #[cfg(feature = "oauth")]
        if is_provisional {
            self.tell_of_changed_lists().await;
        }
        Ok(())
    }

    async fn set_up(self: &Arc<Self>) -> Result<(), Error> {
        let Some(initialize) = self.session().initialize().cloned() else {
            return Err(Error::new(Fault::SessionLost, "the server has lost the session"));
        };
        if !self.session().is_provisional() {
            tracing::info!("the server has lost the session; a new one is set up");
        }
        let replay = self.session().replay();
        let answer = self.call(&initialize, Origin::Session).await?;
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
            (None, Some((code, why))) => {
                if eras::refuses_legacy(code) {
                    if self.session().is_for_modern() {
                        self.turn_modern();
                    } else if self.change_era(&initialize, &replay).await? {
                        return Ok(());
                    }
                }
                return failed(&why);
            }
            (None, None) => return failed("the answer to initialize is no result"),
        }
        self.begin_session().await;
        // Those who wait for the session must not wait for a server that is silent to each of these.
        let told = async {
            for request in replay {
                if let Err(error) = self.call(&request, Origin::Session).await {
                    tracing::warn!(method = request.method(), error = %error, "the new session was not told");
                }
            }
        };
        if timeout(self.timeouts.idle, told).await.is_err() {
            tracing::warn!("the new session was not told all that the client had set, as the server takes too long");
        }
        Ok(())
    }

    /// The server has no sessions any more: it has become a modern one, as its clients are.
    pub(crate) fn turn_modern(&self) {
        tracing::info!("the server speaks 2026-07-28 now");
        let mut eras = self.eras();
        eras.legacy_is(false);
        eras.modern_is(true);
        eras.server = None;
        drop(eras);
        self.listener.close();
        self.session().close();
    }

    /// A server that refuses the handshake may have become a modern one: then what the client says is translated from now
    /// on, with all that the session knew of it. False if it has not.
    async fn change_era(self: &Arc<Self>, initialize: &Message, replay: &[Message]) -> Result<bool, Error> {
        let mut client = LegacyClient::new(initialize);
        let discovered = self.call(&client.discover(), Origin::ForLegacyClient).await?;
        let Some(offer) = client.initialized(initialize, &discovered).ok().and_then(|answer| answer.offer()) else {
            return Ok(false);
        };
        let ended = self.session().ended_by(&offer);
        if let Err(why) = ended {
            let summary = format!("the server is replaced by one that cannot take its place: {why}");
            return Err(Error::new(Fault::SessionLost, summary));
        }
        for request in replay {
            client.take(request);
        }
        self.listener.close();
        {
            let mut eras = self.eras();
            eras.legacy_is(false);
            eras.shake_hands(client);
        }
        self.begin_to_listen();
        Ok(true)
    }

    /// Tells the server that the handshake is over, and waits a moment for the push stream.
    pub(crate) async fn begin_session(self: &Arc<Self>) {
        let (hold, gate) = Gate::new();
        self.tell(initialized(), Origin::Session, Lane { hold: Some(hold), ..Lane::default() }).await;
        gate.opened().await;
    }
}
