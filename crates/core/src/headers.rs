//! The HTTP headers of MCP: what a request carries beside the user's own, and what a response says in them.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// The session's id: in the answer to `initialize`, then in every request (R23).
pub(crate) const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
/// The negotiated protocol version, in every request after `initialize` (R25).
pub(crate) const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");

/// The user's headers and those of every POST (R20).
pub(crate) fn post(user: &HeaderMap) -> HeaderMap {
    let mut headers = user.clone();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
    headers
}

/// The user's headers and those of a GET that opens a stream (R29), or goes on with one after an event (R32).
pub(crate) fn get(user: &HeaderMap, last_event_id: Option<&[u8]>) -> HeaderMap {
    let mut headers = user.clone();
    headers.insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
    // An id that no header can carry came with line breaks or the like: then the stream starts anew.
    if let Some(id) = last_event_id.and_then(|id| HeaderValue::from_bytes(id).ok()) {
        headers.insert("last-event-id", id);
    }
    headers
}

/// The content type, as text.
pub(crate) fn content_type(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::CONTENT_TYPE)?.to_str().ok()
}

/// How long the server asks to wait: seconds, or a date (RFC 9110, 10.2.3).
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_in_both_forms() {
        let wait = |value: &str| {
            retry_after(&HeaderMap::from_iter([(header::RETRY_AFTER, HeaderValue::from_str(value).unwrap())]))
        };
        assert_eq!(wait("90"), Some(Duration::from_secs(90)));
        assert_eq!(wait("Fri, 31 Dec 1999 23:59:59 GMT"), Some(Duration::ZERO));
        let soon = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(1000));
        assert!(wait(&soon).is_some_and(|wait| (990..=1000).contains(&wait.as_secs())));
        assert_eq!(wait("soon"), None);
    }
}
