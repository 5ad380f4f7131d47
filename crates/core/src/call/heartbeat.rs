//! Progress from the bridge while the server is silent about a request, because many clients give up after 60 s without
//! progress.
//!
//! Rules: only a request with a progress token gets any. The values grow by a millionth, so that the server's own are
//! greater. With the first of these, and with the response, the bridge's progress ends.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    call::{Bridge, call_table::Pending},
    task::Task,
    wire::message::Message,
};

/// By how much the values grow.
const STEP: f64 = 1e-6;

/// The requests that get progress from the bridge.
#[derive(Debug, Default)]
pub(crate) struct Heartbeats(Mutex<Vec<Beat>>);

#[derive(Debug)]
struct Beat {
    token: Value,
    /// The server has sent progress of its own.
    is_over: Arc<AtomicBool>,
}

/// Ends the progress of a request when it is dropped.
#[derive(Debug)]
pub(crate) struct Heartbeat {
    bridge: Arc<Bridge>,
    is_over: Arc<AtomicBool>,
    _task: Task,
}

impl Heartbeats {
    /// Ends the bridge's progress if this notification is the server's own, on its way to the client.
    pub(crate) fn see(&self, notification: &Message) {
        let beats = self.lock();
        if beats.is_empty() || notification.method() != "notifications/progress" {
            return;
        }
        let token = notification.params().and_then(|params| serde_json::from_str(params.get("progressToken")?).ok());
        for beat in beats.iter().filter(|beat| Some(&beat.token) == token.as_ref()) {
            beat.is_over.store(true, Ordering::Release);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Beat>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Heartbeat {
    /// Starts the progress of a request, if it asks for progress. One is sent after each silence of length `every`.
    pub(crate) fn start(
        bridge: &Arc<Bridge>,
        pending: &Arc<Pending>,
        request: &Message,
        every: Duration,
    ) -> Option<Self> {
        let token: Value = serde_json::from_str(request.meta()?.get("progressToken")?).ok()?;
        let is_over = Arc::new(AtomicBool::new(false));
        bridge.calls.heartbeats.lock().push(Beat { token: token.clone(), is_over: Arc::clone(&is_over) });
        let task = bridge.calls.spawn({
            let (bridge, pending, is_over) = (Arc::clone(bridge), Arc::clone(pending), Arc::clone(&is_over));
            async move {
                let mut progress = 0.0;
                loop {
                    sleep(every).await;
                    if is_over.load(Ordering::Acquire) || pending.is_answered() {
                        return;
                    }
                    progress += STEP;
                    let params =
                        json!({"progressToken": token, "progress": progress, "message": "waiting for the server"});
                    let told = json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params});
                    // Without a wait, so that the response cannot come before it.
                    bridge.client.output.send_now(bytes::Bytes::from(told.to_string()));
                }
            }
        });
        Some(Self { bridge: Arc::clone(bridge), is_over, _task: Task(task) })
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.bridge.calls.heartbeats.lock().retain(|beat| !Arc::ptr_eq(&beat.is_over, &self.is_over));
    }
}
