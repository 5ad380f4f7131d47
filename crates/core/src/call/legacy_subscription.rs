//! The subscription of a legacy client at a modern server. There is one for all that the client wants; each change
//! opens a new one (R73, R74).

use crate::{
    call::{Bridge, own_requests, purpose::Purpose, shutdown},
    error::{Error, ErrorKind, Fate},
    random::random,
    server::retry,
    task::Task,
    translate::legacy_to_modern::LegacyClient,
    wire::{message::Message, missed_events::missed},
};
use std::{pin::pin, sync::Arc};
use tokio::{
    sync::{Notify, oneshot},
    time::{sleep, timeout},
};
/// The subscription of a legacy client at a modern server.
#[derive(Debug, Default)]
pub(crate) struct LegacySubscription {
    pub(crate) turn: Arc<tokio::sync::Mutex<()>>,
    open: std::sync::Mutex<Option<Task>>,
}

/// Returns the error for a subscription that the server refused.
fn refused(ended: Result<Message, Error>) -> Error {
    let error = Error::new(ErrorKind::InvalidAnswer, "the server refuses the subscription");
    match ended {
        Err(error) => error,
        Ok(answer) => match answer.error() {
            Some((code, why)) => error.with_detail(&format!("{code}: {why}")),
            None => error,
        },
    }
}

impl LegacySubscription {
    /// Replaces the current subscription with this one.
    fn replace(&self, task: Option<Task>) {
        let mut open = self.open.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        drop(std::mem::replace(&mut *open, task));
    }

    fn is_open(&self) -> bool {
        self.open.lock().unwrap_or_else(std::sync::PoisonError::into_inner).is_some()
    }

    /// Ends the subscription.
    pub(crate) fn clear(&self) {
        self.replace(None);
    }
}

/// Opens the first subscription in the background. Only other subscriptions wait for it.
pub(crate) fn begin(bridge: &Arc<Bridge>) {
    // Take the lock now, so that the client's next subscription comes after this one.
    let mut first = Arc::clone(&bridge.calls.legacy_subscription.turn).try_lock_owned().ok();
    bridge.calls.spawn({
        let bridge = Arc::clone(bridge);
        async move {
            for failures in 0.. {
                let turn = match first.take() {
                    Some(turn) => turn,
                    None => Arc::clone(&bridge.calls.legacy_subscription.turn).lock_owned().await,
                };
                if failures > 0 && bridge.calls.legacy_subscription.is_open() {
                    return;
                }
                match renew(&bridge).await {
                    Ok(()) => return,
                    Err(error) if error.fate() == Fate::Final => {
                        tracing::debug!(error = %error, "the server has no subscriptions");
                        return;
                    }
                    Err(error) => tracing::debug!(error = %error, "the subscription cannot be opened now"),
                }
                drop(turn);
                sleep(retry::backoff(bridge.timeouts.reconnect, failures, random())).await;
            }
        }
    });
}

/// Opens a subscription to what the client wants now, then ends the previous one.
pub(crate) async fn renew(bridge: &Arc<Bridge>) -> Result<(), Error> {
    let Some(wanted) = bridge.client.legacy().as_ref().and_then(LegacyClient::listen) else {
        bridge.calls.legacy_subscription.replace(None);
        return Ok(());
    };
    let (accepted, outcome) = oneshot::channel();
    let task = Task(bridge.calls.spawn({
        let bridge = Arc::clone(bridge);
        async move { listen(&bridge, &wanted, accepted).await }
    }));
    match timeout(bridge.timeouts.idle, outcome).await {
        Ok(Ok(accepted)) => accepted?,
        // The bridge ends.
        Ok(Err(_)) => return Err(shutdown()),
        Err(_) => return Err(Error::new(ErrorKind::Timeout, "the server did not acknowledge the subscription")),
    }
    bridge.calls.legacy_subscription.replace(Some(task));
    Ok(())
}

/// Keeps a subscription open. Reports through `accepted` whether the server accepted it at first.
async fn listen(bridge: &Arc<Bridge>, listen: &Message, accepted: oneshot::Sender<Result<(), Error>>) {
    let mut first = Some(accepted);
    let mut failures = 0;
    loop {
        let acknowledged = Arc::new(Notify::new());
        let mut call = pin!(own_requests::call(bridge, listen, Purpose::subscription(Arc::clone(&acknowledged))));
        let early = tokio::select! {
            biased;
            () = acknowledged.notified() => None,
            ended = &mut call => Some(ended),
        };
        let ended = match (early, first.take()) {
            (Some(ended), Some(first)) => {
                let _ = first.send(Err(refused(ended)));
                return;
            }
            (Some(ended), None) => {
                failures += 1;
                ended
            }
            (None, first) => {
                failures = 0;
                match first {
                    Some(first) => drop(first.send(Ok(()))),
                    // Events may have been missed meanwhile (R74).
                    None => {
                        for event in missed(listen).into_iter().filter_map(LegacyClient::event) {
                            bridge.client.output.send(event.into_line()).await;
                        }
                    }
                }
                call.await
            }
        };
        match ended {
            Ok(answer) if answer.error().is_some() => {
                let (code, why) = answer.error().unwrap_or_default();
                tracing::warn!(code, why, "the server no longer accepts the subscription");
                return;
            }
            Ok(_) => tracing::debug!("the server has ended the subscription; it is opened again"),
            Err(error) => tracing::debug!(error = %error, "the subscription is lost; it is opened again"),
        }
        sleep(retry::backoff(bridge.timeouts.reconnect, failures, random())).await;
    }
}
