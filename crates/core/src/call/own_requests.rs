//! Sends messages of the bridge itself: requests, notifications and responses.
//!
//! Each has an exchange, like a client message. Only the response goes to a caller instead of stdout.

use crate::{
    call::{Bridge, call_table::Pending, exchange, lane::Lane, permits::PermitKind, purpose::Purpose},
    error::{Error, ErrorKind},
    server::delivery::Delivery,
    wire::{
        id::{Id, own_id},
        message::Message,
    },
};
use std::{sync::Arc, time::Duration};

use tokio::{sync::OwnedSemaphorePermit, time::timeout};

/// Time limit for a message that is sent in the background.
const BACKGROUND_SEND_TIME: Duration = Duration::from_secs(30);

/// Sends a request of the bridge under a new id, and returns the response. Dropping the future cancels the request by
/// closing its connection.
///
/// # Errors
/// The same as for a client request.
pub(crate) async fn call(bridge: &Arc<Bridge>, request: &Message, purpose: Purpose) -> Result<Message, Error> {
    let (_, call) = prepare(bridge, request, purpose, Arc::default());
    call.await
}

/// Like [`call`], but also returns the request's id at once. `delivery` records how far the request has come.
pub(crate) fn prepare(
    bridge: &Arc<Bridge>,
    request: &Message,
    purpose: Purpose,
    delivery: Arc<Delivery>,
) -> (Id, impl Future<Output = Result<Message, Error>> + Send + use<>) {
    let id = own_id();
    let request = request.with_id(&id);
    let lane = Lane { share: purpose.permit, ..Lane::default() };
    let (pending, mut answer) = bridge.calls.table.insert_own(&request, purpose, delivery);
    let entry = Entry { bridge: Arc::clone(bridge), pending };
    let call = async move {
        // The reply's stream may go on after the response; the rest is not needed here.
        let early = tokio::select! {
            biased;
            answer = &mut answer => Some(answer),
            () = exchange::run_boxed(&entry.bridge, request, &entry.pending, lane) => None,
        };
        let answer = match early {
            Some(answer) => answer,
            None => answer.await,
        };
        answer.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::NoAnswer, "the server did not answer the bridge's own request"))
        })
    };
    (id, call)
}

/// Sends a notification or a response of the bridge.
pub(crate) async fn tell(bridge: &Arc<Bridge>, message: Message, purpose: Purpose, lane: Lane) {
    let (pending, _) = bridge.calls.table.insert_own(&message, purpose, Arc::default());
    let entry = Entry { bridge: Arc::clone(bridge), pending };
    exchange::run_boxed(bridge, message, &entry.pending, lane).await;
}

/// Sends a message in the background, once there is a place for it. If the server accepts messages slowly, the caller
/// waits. Sending has a time limit.
pub(crate) async fn send_in_background(bridge: &Arc<Bridge>, message: Message, purpose: Purpose) {
    let place = bridge.calls.permits.background().acquire_owned().await;
    spawn_send(bridge, message, purpose, place.ok());
}

/// Like [`send_in_background`], but does not wait. If there is no place, the message is dropped.
pub(crate) fn try_send_in_background(bridge: &Arc<Bridge>, message: Message, purpose: Purpose) {
    if let Ok(place) = bridge.calls.permits.background().try_acquire_owned() {
        spawn_send(bridge, message, purpose, Some(place));
    } else {
        tracing::warn!(method = message.method(), "the server takes no notifications; dropped");
    }
}

fn spawn_send(bridge: &Arc<Bridge>, message: Message, purpose: Purpose, place: Option<OwnedSemaphorePermit>) {
    bridge.calls.spawn({
        let bridge = Arc::clone(bridge);
        async move {
            let lane = Lane { share: PermitKind::Responses, ..Lane::default() };
            if timeout(BACKGROUND_SEND_TIME, tell(&bridge, message, purpose, lane)).await.is_err() {
                tracing::debug!("the server did not accept a message of the bridge in time");
            }
            drop(place);
        }
    });
}

/// An entry in the call table, removed on drop.
struct Entry {
    bridge: Arc<Bridge>,
    pending: Arc<Pending>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.bridge.calls.table.remove(&self.pending);
    }
}
