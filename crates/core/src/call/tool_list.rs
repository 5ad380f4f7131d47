//! Lists a modern server's tools when a call needs to know which headers its tool wants (R64).

use crate::{
    call::{Bridge, own_requests, purpose::Purpose},
    error::Error,
    wire::{message::Message, revision},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::timeout;
/// The most pages of a list of tools.
const MAX_PAGES: usize = 1000;
/// Time limit for a list that the bridge needs itself. After that, a call goes on without it.
const LISTING_TIME: Duration = Duration::from_secs(10);

/// The state of the bridge's own listings of a modern server's tools. One listing serves all calls that wait for it.
#[derive(Debug, Default)]
pub(crate) struct ToolList {
    turn: tokio::sync::Mutex<()>,
    tries: AtomicU64,
    is_done: AtomicBool,
}

impl ToolList {
    /// Returns how many listings have ended, including failed ones.
    pub(crate) fn tries(&self) -> u64 {
        self.tries.load(Ordering::Acquire)
    }

    /// True if another listing is of no use: one was complete, or the server takes too long.
    pub(crate) fn is_done(&self) -> bool {
        self.is_done.load(Ordering::Acquire)
    }
}

/// Lists the server's tools with the client data of the request `like`, unless more than `seen` listings have ended.
pub(crate) async fn list(bridge: &Arc<Bridge>, like: &Message, seen: u64) {
    let _turn = bridge.calls.tool_list.turn.lock().await;
    if bridge.calls.tool_list.tries() > seen {
        return;
    }
    match timeout(LISTING_TIME, list_pages(bridge, like)).await {
        Ok(Ok(())) => bridge.calls.tool_list.is_done.store(true, Ordering::Release),
        Ok(Err(error)) => tracing::debug!(error = %error, "the server's tools cannot be listed"),
        Err(_) => {
            tracing::warn!(
                "the server takes too long to list its tools; calls go on without what they want in headers"
            );
            // Another listing would delay each call.
            bridge.calls.tool_list.is_done.store(true, Ordering::Release);
        }
    }
    bridge.calls.tool_list.tries.fetch_add(1, Ordering::AcqRel);
}

async fn list_pages(bridge: &Arc<Bridge>, like: &Message) -> Result<(), Error> {
    let mut cursor = None;
    for _ in 0..MAX_PAGES {
        // `incoming::answer` records the tools in each page.
        let page = own_requests::call(bridge, &list_request(like, cursor.as_deref()), Purpose::tool_list()).await?;
        cursor = page.result().and_then(|result| result.get("nextCursor")).map(str::to_owned);
        if cursor.as_deref().is_none_or(|cursor| cursor == "null") {
            break;
        }
    }
    Ok(())
}

/// Returns a `tools/list` with the client data of `like`. `cursor` is spelled as on the last page.
fn list_request(like: &Message, cursor: Option<&str>) -> Message {
    let members = [revision::PROTOCOL_VERSION, revision::CLIENT_CAPABILITIES, revision::CLIENT_INFO];
    let meta = like.meta();
    let meta: Vec<_> = members
        .iter()
        .filter_map(|name| Some(format!("{}:{}", serde_json::Value::from(*name), meta?.get(name)?)))
        .collect();
    let cursor = cursor.map(|cursor| format!(",\"cursor\":{cursor}")).unwrap_or_default();
    let meta = meta.join(",");
    let text = format!(r#"{{"jsonrpc":"2.0","id":0,"method":"tools/list","params":{{"_meta":{{{meta}}}{cursor}}}}}"#);
    Message::one(text).unwrap_or_else(|| like.clone())
}
