//! Judges by its text whether a refusal of the server is about the session or about HTTP itself.

use bytes::Bytes;

use crate::wire::message::Message;

/// The JSON-RPC error code for an unknown method.
const METHOD_NOT_FOUND: i64 = -32_601;

/// The body of a refusal.
#[derive(Debug)]
pub(crate) struct RefusalBody {
    /// The beginning of the body.
    pub(crate) text: Bytes,
    /// The JSON-RPC response in the body, if there is one.
    pub(crate) response: Option<Message>,
    /// True if the whole body arrived. Only then does a missing `response` mean that the server sent none.
    pub(crate) is_whole: bool,
}

/// True if an error is about the HTTP method or path. Web frameworks send such errors, some of them as JSON-RPC.
pub(super) fn is_about_http(response: &Message) -> bool {
    const WORDS: [&str; 6] = ["method not allowed", "not allowed", "cannot post", "path", "route", "endpoint"];
    let Some((code, text)) = response.error() else { return false };
    let text = text.to_ascii_lowercase();
    let is_about_nothing = text.trim_end_matches('.').trim() == "not found";
    code != METHOD_NOT_FOUND && (is_about_nothing || WORDS.iter().any(|words| text.contains(words)))
}

/// True if an error's text says that the request lacks a session.
pub(super) fn is_about_session(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    text.contains("session") || lacks_initialization(&text)
}

/// True if a text says, in any wording, that a session is unknown, over or missing, or that the client must initialize
/// first.
pub(super) fn speaks_of_lost_session(text: &str) -> bool {
    const SESSION_ENDED_WORDS: [&str; 24] = [
        "not found",
        "unknown",
        "expired",
        "invalid",
        "missing",
        "no such",
        "not exist",
        "n't exist",
        "terminated",
        "closed",
        "required",
        "no longer",
        "lost",
        "no valid",
        "not valid",
        "recogni",
        "inactive",
        "timed out",
        "gone",
        "ended",
        "stale",
        "no active",
        "no session",
        "without",
    ];
    let text = text.to_ascii_lowercase();
    text.contains("session") && SESSION_ENDED_WORDS.iter().any(|word| text.contains(word))
        || lacks_initialization(&text)
}

/// True if a text in lower case says that the handshake is missing.
fn lacks_initialization(text: &str) -> bool {
    const MISSING: [&str; 7] = [
        "not initialized",
        "not been initialized",
        "uninitialized",
        "before initializ",
        "initialize first",
        "initialization required",
        "must be initialized",
    ];
    MISSING.iter().any(|words| text.contains(words))
}

/// True if a text says, in the usual wording of servers, that the session does not exist.
pub(super) fn names_lost_session(text: &str) -> bool {
    const LOST: [&str; 16] = [
        "session not found",
        "session does not exist",
        "session has expired",
        "session expired",
        "session terminated",
        "session has been terminated",
        "unknown session",
        "invalid session",
        "invalid or expired session",
        "no valid session",
        "no such session",
        "missing session",
        "session is required",
        "session header is required",
        "server not initialized",
        "before initialization was complete",
    ];
    let text = text.to_ascii_lowercase().replace(['-', '_'], " ").replace("session id", "session");
    LOST.iter().any(|words| text.contains(words))
}
