//! Notifications for the events that a subscription of 2026-07-28 may have missed while its stream was closed (R74).

use super::{message::Message, revision::SUBSCRIPTION_ID};
use crate::json::splice;

/// Returns a notification for everything that a subscription with this acknowledgement may have missed (R74).
pub(crate) fn missed(acknowledged: &Message) -> Vec<Message> {
    let params = acknowledged.params();
    let granted = params.and_then(|params| params.object("notifications"));
    let mark = params.and_then(|params| params.object("_meta")?.get(SUBSCRIPTION_ID)).unwrap_or("null");
    let mark = format!(r#""_meta":{{"{SUBSCRIPTION_ID}":{mark}}}"#);
    let mut missed = Vec::new();
    for member in granted.into_iter().flat_map(splice::Object::members) {
        let method = match member.name().as_str() {
            "toolsListChanged" => "notifications/tools/list_changed",
            "promptsListChanged" => "notifications/prompts/list_changed",
            "resourcesListChanged" => "notifications/resources/list_changed",
            "resourceSubscriptions" => "notifications/resources/updated",
            _ => continue,
        };
        if member.value == "true" {
            missed.push(format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{{{mark}}}}}"#));
        }
        for uri in splice::elements(member.value) {
            missed.push(format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{{"uri":{uri},{mark}}}}}"#));
        }
    }
    missed.into_iter().filter_map(Message::one).collect()
}
