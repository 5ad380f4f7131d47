//! Messages that the bridge writes: errors to the client, cancellations to the server.

use crate::error::{Error, HintWords};
use bytes::Bytes;
use serde::Serialize;

use super::id::Id;

/// Returns the error reply to the request with this id (`null` if the id is unknown), as one line (R5, R14). `words`
/// turns the error's hint into text.
pub(crate) fn error_reply(id: Option<&Id>, error: &Error, words: HintWords) -> Bytes {
    #[derive(Serialize)]
    struct Body<'a> {
        code: i32,
        message: String,
        data: Data<'a>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Data<'a> {
        source: &'a str,
        kind: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        http_status: Option<u16>,
        /// Seconds, as in the HTTP header.
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        may_have_run: Option<bool>,
        #[serde(skip_serializing_if = "Option::is_none")]
        attempts: Option<u32>,
        #[serde(skip_serializing_if = "Option::is_none")]
        url: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
    }
    let body = Body {
        code: error.code(),
        message: error.worded(words),
        data: Data {
            source: "mcp-gangway",
            kind: error.kind(),
            http_status: error.status(),
            retry_after: error.retry_after().map(|wait| wait.as_secs()),
            may_have_run: error.may_have_run(),
            attempts: error.attempts(),
            url: error.url(),
            detail: error.detail(),
        },
    };
    // Numbers and strings only, so this cannot fail. An empty object would still be a valid error reply.
    let body = serde_json::to_string(&body).unwrap_or_else(|_| "{}".to_owned());
    let id = id.map_or("null", Id::as_str);
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{body}}}"#).into()
}

/// Returns the notification that cancels the request with this id at the server.
pub(crate) fn cancellation(id: &Id, reason: &str) -> Bytes {
    let reason = serde_json::Value::from(reason);
    let id = id.as_str();
    format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id},"reason":{reason}}}}}"#)
        .into()
}
