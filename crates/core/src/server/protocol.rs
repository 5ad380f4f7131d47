//! Records which eras of MCP the server speaks: "legacy" up to 2025-11-25, with a handshake and sessions, and "modern"
//! from 2026-07-28 on, where each request stands alone.
//!
//! Rule: the eras are learnt from the server's replies, without an extra round trip (R81). No I/O.

use http::StatusCode;

use super::refusals::is_about_session;
use crate::{
    translate::{modern_to_legacy::LegacyServer, tool_headers::Tools},
    wire::{
        message::Message,
        method::only_reads,
        revision::{Era, MODERN_VERSION},
    },
};

/// What is known about the server. It holds for the life of the process, unless the server shows the contrary.
#[derive(Debug, Default)]
pub(crate) struct Protocol {
    /// Whether the server accepts modern requests, and whether it accepts the legacy handshake. It may accept both.
    /// `None` means unknown.
    modern: Option<bool>,
    legacy: Option<bool>,
    /// The arguments that a modern server's tools want in HTTP headers.
    pub(crate) tools: Tools,
    /// The legacy server, once its handshake is complete.
    pub(crate) legacy_server: Option<LegacyServer>,
}

/// How a message of the client is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TranslationRoute {
    /// Unchanged.
    Direct,
    /// Translated from a legacy client to a modern server.
    ToModern,
    /// Translated from a modern client to a legacy server.
    ToLegacy,
}

impl Protocol {
    /// Returns how a request or notification of the client is sent. `is_translated` returns true if a legacy client
    /// has completed a handshake with the modern server.
    pub(crate) fn translation_route(
        &self,
        message: &Message,
        is_translated: impl FnOnce() -> bool,
    ) -> TranslationRoute {
        match message.era() {
            Era::Modern if self.modern == Some(false) => TranslationRoute::ToLegacy,
            Era::Legacy if self.legacy == Some(false) && (message.method() == "initialize" || is_translated()) => {
                TranslationRoute::ToModern
            }
            _ => TranslationRoute::Direct,
        }
    }

    /// True if it is unknown whether the server accepts modern requests.
    pub(crate) fn is_modern_open(&self) -> bool {
        self.modern.is_none()
    }

    /// True if the server has shown that it accepts modern requests.
    pub(crate) fn is_modern(&self) -> bool {
        self.modern == Some(true)
    }

    /// Returns what a reply to a modern request shows about the server, as [`takes_modern`] does. If the server was
    /// modern before, only a refusal in the style of a legacy server shows the contrary: one without JSON-RPC, or one
    /// that asks for a session. All other errors are answers (R67, R68), with any code.
    pub(crate) fn judge(&self, method: &str, status: StatusCode, error: Option<&(i64, String)>) -> Option<bool> {
        let is_legacys = || match error {
            None => true,
            Some((code, text)) => matches!(code, -32_600 | -32_002..=-32_000) && is_about_session(text),
        };
        let taken = takes_modern(method, status, error.map(|(code, _)| *code))?;
        let is_doubtful = !taken && self.is_modern() && !(status.is_client_error() && is_legacys());
        (!is_doubtful).then_some(taken)
    }

    /// Records whether the server accepts modern requests.
    pub(crate) fn set_modern(&mut self, taken: bool) {
        if self.modern.replace(taken) != Some(taken) {
            tracing::debug!(taken, "modern requests (2026-07-28)");
        }
    }

    /// Records whether the server accepts the legacy handshake.
    pub(crate) fn set_legacy(&mut self, taken: bool) {
        if self.legacy.replace(taken) != Some(taken) {
            tracing::debug!(taken, "the legacy handshake");
        }
    }
}

/// Returns whether the server accepts modern requests, as the reply to one shows, or `None` if the reply does not show
/// it. `error` is the code of the JSON-RPC error in the body, if there is one.
pub(crate) fn takes_modern(method: &str, status: StatusCode, error: Option<i64>) -> Option<bool> {
    match (status.as_u16(), error) {
        // Only the modern protocol uses these codes.
        (400..=499, Some(-32_022..=-32_020)) => Some(true),
        (404, Some(-32_601)) => Some(method != "server/discover"),
        // Other status codes are about the caller, the rate or the size, not about the protocol.
        (200..=299, Some(-32_601 | -32_600 | -32_002..=-32_000)) | (400 | 404..=406 | 410 | 415 | 422, _) => {
            Some(false)
        }
        // A gateway may have forwarded the request.
        (501, _) if only_reads(method) => Some(false),
        // Some legacy servers fail with 500 on a request outside a session. Only a probe is judged by that, so that no
        // tool runs twice.
        (500, _) if method == "server/discover" => Some(false),
        _ => None,
    }
}

/// Returns whether this result of a modern request comes from a modern server. Returns `None` if the result does not
/// show it, or if it is too late to act because something has run.
pub(crate) fn is_modern_result(request: &Message, answer: &Message) -> Option<bool> {
    let has = |member: &str| answer.result().is_some_and(|result| result.get(member).is_some());
    match request.method() {
        "server/discover" => Some(has("supportedVersions")),
        _ if has("resultType") => Some(true),
        // Legacy servers that accept requests without a session ignore the version.
        method if only_reads(method) => Some(false),
        _ => None,
    }
}

/// True if the answer to `initialize` offers the modern protocol to a client that did not ask for it. The client would
/// refuse that.
pub(crate) fn ignores_handshake(initialize: &Message, answer: &Message) -> bool {
    let offered = answer.result().and_then(|result| result.string("protocolVersion"));
    let asked = initialize.params().and_then(|params| params.string("protocolVersion"));
    offered.as_deref() == Some(MODERN_VERSION) && asked != offered
}

/// True if the protocol itself refuses requests with this error code, before anything has run.
pub(crate) fn is_reserved(error: i64) -> bool {
    matches!(error, -32_022..=-32_020)
}

/// True if a server without the legacy handshake answers `initialize` with this error code. Some of the codes have
/// other meanings too, so the server must then prove that it is modern.
pub(crate) fn refuses_legacy(error: i64) -> bool {
    matches!(error, -32_022..=-32_020 | -32_602 | -32_601)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r54_r68_era_is_inferred_from_status_and_error_code() {
        for (method, status, error, expected) in [
            ("tools/call", 400, Some(-32_020), Some(true)),
            ("server/discover", 400, Some(-32_022), Some(true)),
            ("tools/list", 400, Some(-32_021), Some(true)),
            ("foo/bar", 404, Some(-32_601), Some(true)),
            ("server/discover", 404, Some(-32_601), Some(false)),
            ("server/discover", 200, Some(-32_601), Some(false)),
            ("server/discover", 400, Some(-32_000), Some(false)),
            ("tools/call", 400, None, Some(false)),
            ("tools/call", 404, None, Some(false)),
            ("tools/call", 405, None, Some(false)),
            ("tools/call", 401, None, None),
            ("tools/call", 403, Some(-32_000), None),
            ("tools/call", 429, None, None),
            ("tools/call", 413, None, None),
            ("tools/call", 409, Some(1), None),
            ("tools/call", 200, Some(-32_602), None),
            ("tools/call", 200, Some(1), None),
            ("tools/call", 500, None, None),
            ("server/discover", 500, None, Some(false)),
            ("server/discover", 503, None, None),
            ("server/discover", 501, None, Some(false)),
            ("tools/call", 501, None, None),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(takes_modern(method, status, error), expected, "{method} {status} {error:?}");
        }
    }

    #[test]
    fn r54_era_is_inferred_from_results() {
        for (method, result, expected) in [
            ("server/discover", r#"{"supportedVersions":[]}"#, Some(true)),
            ("server/discover", "{}", Some(false)),
            ("tools/list", r#"{"tools":[],"resultType":"complete"}"#, Some(true)),
            ("tools/list", r#"{"tools":[]}"#, Some(false)),
            ("tools/call", r#"{"content":[],"resultType":"complete"}"#, Some(true)),
            ("tools/call", r#"{"content":[]}"#, None),
        ] {
            let request = message(&format!(r#"{{"id":1,"method":"{method}"}}"#));
            let answer = message(&format!(r#"{{"id":1,"result":{result}}}"#));
            assert_eq!(is_modern_result(&request, &answer), expected, "{method} {result}");
        }
        for (asked, offered, ignores) in [
            ("2025-11-25", "2026-07-28", true),
            ("2026-07-28", "2026-07-28", false),
            ("2025-11-25", "2025-06-18", false),
        ] {
            let request =
                message(&format!(r#"{{"id":1,"method":"initialize","params":{{"protocolVersion":"{asked}"}}}}"#));
            let answer = message(&format!(r#"{{"id":1,"result":{{"protocolVersion":"{offered}"}}}}"#));
            assert_eq!(ignores_handshake(&request, &answer), ignores, "{asked} {offered}");
        }
    }

    #[test]
    fn r56_r68_modern_server_becomes_legacy_only_on_clear_legacy_refusals() {
        let mut protocol = Protocol::default();
        let judge_text = |protocol: &Protocol, status, error: Option<i64>, text: &str| {
            let error = error.map(|code| (code, text.to_owned()));
            protocol.judge("server/discover", StatusCode::from_u16(status).unwrap(), error.as_ref())
        };
        let judge = |protocol: &Protocol, status, error| {
            judge_text(protocol, status, error, "Bad Request: Server not initialized")
        };
        let doubtful = [(400, Some(-32_602)), (404, Some(-32_601)), (400, Some(1)), (200, Some(-32_601)), (500, None)];
        let legacy = [(400, Some(-32_000)), (400, Some(-32_600)), (404, None), (405, None)];
        assert_eq!(doubtful.map(|(status, error)| judge(&protocol, status, error))[1], Some(false));
        protocol.set_modern(true);
        assert_eq!(doubtful.map(|(status, error)| judge(&protocol, status, error)), [None; 5]);
        assert_eq!(legacy.map(|(status, error)| judge(&protocol, status, error)), [Some(false); 4]);
        assert_eq!(judge_text(&protocol, 400, Some(-32_002), "Resource not found"), None);
        assert_eq!(judge(&protocol, 400, Some(-32_022)), Some(true));
    }

    fn message(text: &str) -> Message {
        Message::one(text.to_owned()).unwrap()
    }

    #[test]
    fn r81_translation_depends_on_message_and_server_era() {
        let initialize = message(r#"{"id":1,"method":"initialize","params":{"capabilities":{}}}"#);
        let list = message(r#"{"id":2,"method":"tools/list"}"#);
        let discover = message(r#"{"id":3,"method":"server/discover"}"#);
        let mut protocol = Protocol::default();
        let roads = |protocol: &Protocol, is_translated: bool| {
            [&initialize, &list, &discover].map(|message| protocol.translation_route(message, || is_translated))
        };
        assert_eq!(roads(&protocol, false), [TranslationRoute::Direct; 3]);
        protocol.set_modern(false);
        assert_eq!(
            roads(&protocol, false),
            [TranslationRoute::Direct, TranslationRoute::Direct, TranslationRoute::ToLegacy]
        );
        protocol.set_modern(true);
        protocol.set_legacy(false);
        assert_eq!(
            roads(&protocol, false),
            [TranslationRoute::ToModern, TranslationRoute::Direct, TranslationRoute::Direct],
            "without a handshake there is no translation"
        );
        assert_eq!(
            roads(&protocol, true),
            [TranslationRoute::ToModern, TranslationRoute::ToModern, TranslationRoute::Direct]
        );
        protocol.set_legacy(true);
        assert_eq!(roads(&protocol, false), [TranslationRoute::Direct; 3]);
    }
}
