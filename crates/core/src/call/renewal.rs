//! Replaces a lost session with a new one, without the client's knowledge (R38, R39, R53).
//!
//! If several requests find the session gone, one of them sets up the next: it sends the client's own `initialize`,
//! then `initialized`, the log level and the subscriptions. The others wait for it, and so do new messages. If the
//! server has become a modern one, the translator for legacy clients replaces the session.

use crate::{
    call::{Bridge, attachment, incoming, lane::Lane, legacy_subscription, own_requests, purpose::Purpose},
    error::{Error, ErrorKind},
    gate::Gate,
    server::protocol,
    translate::legacy_to_modern::LegacyClient,
    wire::message::{Message, initialized},
};
use http::HeaderMap;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::{
    sync::{Mutex, MutexGuard},
    time::timeout,
};

/// The lock for setting up a session, and the number of failures.
#[derive(Debug, Default)]
pub(crate) struct Renewal {
    turn: Mutex<()>,
    failures: AtomicU64,
}

impl Renewal {
    /// True while a session is being set up.
    pub(crate) fn is_under_way(&self) -> bool {
        self.turn.try_lock().is_err()
    }

    /// Waits while a session is being set up.
    pub(crate) async fn over(&self) {
        drop(self.turn().await);
    }

    /// Returns how often setting up a session has failed.
    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Acquire)
    }

    /// Counts a failure.
    pub(crate) fn failed(&self) {
        self.failures.fetch_add(1, Ordering::AcqRel);
    }

    /// Takes the turn to set up a session; all others wait while it is held.
    pub(crate) async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }
}

/// Replaces the lost session of `epoch`, unless that is done.
///
/// # Errors
/// The server refused, or it offers less than the client was promised.
pub(crate) async fn renew(bridge: &Arc<Bridge>, epoch: u64) -> Result<(), Error> {
    // Other requests need the session even if the one that found the loss is cancelled.
    let renewed = bridge.calls.run_to_completion({
        let bridge = Arc::clone(bridge);
        async move { renew_in_turn(&bridge, epoch).await }
    });
    renewed.await?
}

async fn renew_in_turn(bridge: &Arc<Bridge>, epoch: u64) -> Result<(), Error> {
    let failures = bridge.calls.renewal.failures();
    let is_provisional = bridge.server.session().is_provisional();
    let _turn = bridge.calls.renewal.turn().await;
    {
        let session = bridge.server.session();
        if session.epoch() != epoch || session.is_provisional() != is_provisional {
            return Ok(());
        }
    }
    if bridge.calls.renewal.failures() != failures && !is_provisional {
        // It failed while this one waited. An attempt for each in turn would delay the last one for too long.
        return Err(Error::new(ErrorKind::SessionLost, "the server has lost the session, and a new one failed"));
    }
    set_up_session(bridge).await.inspect_err(|_| bridge.calls.renewal.failed())?;
    if is_provisional {
        attachment::attached(bridge);
    } else {
        attachment::came_back(bridge);
    }
    Ok(())
}

async fn set_up_session(bridge: &Arc<Bridge>) -> Result<(), Error> {
    let Some(initialize) = bridge.server.session().initialize().cloned() else {
        return Err(Error::new(ErrorKind::SessionLost, "the server has lost the session"));
    };
    let is_provisional = bridge.server.session().is_provisional();
    if !is_provisional {
        tracing::info!("the server has lost the session; a new one is set up");
    }
    let replay = bridge.server.session().replay();
    let answer = own_requests::call(bridge, &initialize, Purpose::session()).await?;
    let failed = |why: &str| {
        if is_provisional {
            return Err(attachment::refused(why));
        }
        let summary = format!("the server has lost the session, and the new one cannot replace it: {why}");
        Err(Error::new(ErrorKind::SessionLost, summary))
    };
    match (answer.offer(), answer.error()) {
        (Some(offer), _) => {
            let renewed = bridge.server.session().renewed(&offer);
            if let Err(why) = renewed {
                return failed(&why);
            }
            incoming::keep(bridge, &initialize, &answer);
        }
        (None, Some((code, why))) => {
            if protocol::refuses_legacy(code) {
                if bridge.server.session().is_for_modern() {
                    switch_to_modern(bridge);
                } else if change_era(bridge, &initialize, &replay).await? {
                    return Ok(());
                }
            }
            return failed(&why);
        }
        (None, None) => return failed("the answer to initialize is no result"),
    }
    begin_session(bridge).await;
    // One time limit for all of these: other messages wait for the session, and the server may be silent to each.
    let told = async {
        for request in replay {
            if let Err(error) = own_requests::call(bridge, &request, Purpose::session()).await {
                tracing::warn!(method = request.method(), error = %error, "setting not restored in the new session");
            }
        }
    };
    if timeout(bridge.timeouts.idle, told).await.is_err() {
        tracing::warn!("not all settings are restored in the new session, as the server takes too long");
    }
    Ok(())
}

/// Records that the server of modern clients is a modern one now, without sessions.
pub(crate) fn switch_to_modern(bridge: &Bridge) {
    tracing::info!("the server speaks 2026-07-28 now");
    {
        let mut protocol = bridge.server.protocol();
        protocol.set_legacy(false);
        protocol.set_modern(true);
        protocol.legacy_server = None;
    }
    bridge.server.push_stream.close();
    bridge.server.session().close();
}

/// Checks whether a server that refuses the handshake has become a modern one. If so, the client's messages are
/// translated from now on, with the log level and subscriptions of the session. Returns false if not.
async fn change_era(bridge: &Arc<Bridge>, initialize: &Message, replay: &[Message]) -> Result<bool, Error> {
    let mut client = LegacyClient::new(initialize);
    let discovered = own_requests::call(bridge, &client.discover(), Purpose::legacy_client()).await?;
    let Some(offer) = client.initialized(initialize, &discovered).ok().and_then(|answer| answer.offer()) else {
        return Ok(false);
    };
    let ended = bridge.server.session().end_for_modern(&offer);
    if let Err(why) = ended {
        let summary = format!("the server has become a modern one that cannot replace the old one: {why}");
        return Err(Error::new(ErrorKind::SessionLost, summary));
    }
    for request in replay {
        client.take(request);
    }
    bridge.server.push_stream.close();
    bridge.server.protocol().set_legacy(false);
    bridge.shake_hands(client);
    legacy_subscription::begin(bridge);
    Ok(true)
}

/// Sends `initialized`, and waits a moment for the push stream.
pub(crate) async fn begin_session(bridge: &Arc<Bridge>) {
    let (hold, gate) = Gate::new();
    own_requests::tell(bridge, initialized(), Purpose::session(), Lane { hold: Some(hold), ..Lane::default() }).await;
    gate.opened().await;
}

/// Ends the session that the bridge has set up for modern clients, because the client begins one of its own.
pub(crate) fn leave_session_for_modern(bridge: &Arc<Bridge>) {
    let mut headers = HeaderMap::new();
    {
        let session = bridge.server.session();
        if !session.is_for_modern() || !session.is_open() || !bridge.calls.table.held().is_empty() {
            return;
        }
        session.apply(&mut headers);
    }
    bridge.calls.spawn({
        let bridge = Arc::clone(bridge);
        async move {
            if let Err(error) = bridge.server.requests.delete(|all| all.extend(headers)).await {
                tracing::debug!(error = %error, "the end of the bridge's own session did not reach the server");
            }
        }
    });
}
