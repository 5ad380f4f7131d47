//! Pings the server while nothing else is sent, so that neither it nor a load balancer on the way ends the session
//! (R44). Only legacy sessions have pings; a modern server keeps nothing between requests.

use std::{sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};

use crate::{
    call::{Bridge, own_requests, purpose::Purpose},
    wire::message::Message,
};

/// Pings each time the server was sent nothing for `every`. A ping that finds the session lost renews it.
pub(crate) async fn run(bridge: Arc<Bridge>, every: Duration) {
    loop {
        let left = every.saturating_sub(bridge.server.requests.idle_time());
        if !left.is_zero() {
            sleep(left).await;
            continue;
        }
        let is_in_session = {
            let session = bridge.server.session();
            session.initialize().is_some() && !session.is_provisional()
        };
        let ping = Message::one(r#"{"jsonrpc":"2.0","id":0,"method":"ping"}"#).filter(|_| is_in_session);
        let Some(ping) = ping else {
            sleep(every).await;
            continue;
        };
        let pinged = timeout(every, own_requests::call(&bridge, &ping, Purpose::recheck())).await;
        tracing::debug!(?pinged, "pinged the server");
        if !matches!(pinged, Ok(Ok(_))) {
            sleep(every).await;
        }
    }
}
