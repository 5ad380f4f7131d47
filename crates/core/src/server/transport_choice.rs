//! Chooses between MCP's two HTTP transports (R54–R56).

use std::sync::{Mutex, PoisonError};

use http::StatusCode;

use crate::{
    config::TransportMode,
    server::refusals::{RefusalBody, is_about_http},
};

/// The configured transport mode, and the transport that the server speaks, once it is known.
#[derive(Debug)]
pub(crate) struct TransportChoice {
    mode: TransportMode,
    decided: Mutex<Option<Transport>>,
}

/// An HTTP transport of MCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// Streamable HTTP.
    Http,
    /// HTTP+SSE.
    Sse,
}

impl TransportChoice {
    pub(crate) fn new(mode: TransportMode) -> Self {
        let decided = match mode {
            TransportMode::Http => Some(Transport::Http),
            TransportMode::Sse => Some(Transport::Sse),
            TransportMode::Auto | TransportMode::SseFirst => None,
        };
        Self { mode, decided: Mutex::new(decided) }
    }

    /// Returns the transport to send a message over now.
    pub(crate) fn current(&self) -> Transport {
        let undecided = if self.mode == TransportMode::SseFirst { Transport::Sse } else { Transport::Http };
        self.decided().unwrap_or(undecided)
    }

    /// Records that the server speaks this transport, unless one is already decided.
    pub(crate) fn decide(&self, transport: Transport) {
        self.lock().get_or_insert(transport);
    }

    /// Gives HTTP+SSE up, because the server does not speak it, or no longer (R56). Streamable HTTP is tried next.
    /// Returns false if the transport is forced.
    pub(crate) fn give_up_sse(&self) -> bool {
        match self.mode {
            TransportMode::Auto => *self.lock() = None,
            TransportMode::SseFirst => *self.lock() = Some(Transport::Http),
            TransportMode::Http | TransportMode::Sse => return false,
        }
        true
    }

    /// Returns HTTP+SSE if this refusal of an `initialize` over Streamable HTTP means that the server is older (R54).
    /// That holds for 405. It also holds for 501 and any 4xx that is neither about credentials (R55) nor about load,
    /// unless the body is a JSON-RPC answer that is not about the HTTP method or path.
    pub(crate) fn fallback(&self, status: StatusCode, page: &RefusalBody) -> Option<Transport> {
        let about_itself = matches!(status.as_u16(), 401 | 403 | 407 | 408 | 425 | 429);
        let is_older = status == StatusCode::METHOD_NOT_ALLOWED
            || (status.is_client_error() || status == StatusCode::NOT_IMPLEMENTED)
                && !about_itself
                && page.response.as_ref().is_none_or(is_about_http);
        (is_older && self.is_open()).then_some(Transport::Sse)
    }

    /// True if the server's transport is unknown and may be detected.
    pub(crate) fn is_open(&self) -> bool {
        self.mode == TransportMode::Auto && self.decided().is_none()
    }

    fn decided(&self) -> Option<Transport> {
        *self.lock()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Transport>> {
        self.decided.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::message::Message;

    fn page(body: &'static str) -> RefusalBody {
        RefusalBody { text: body.into(), response: Message::one(body), is_whole: true }
    }

    #[test]
    fn r54_r55_refusals_that_cause_the_sse_fallback() {
        let fallback = |mode, status, body: &'static str| {
            let route = TransportChoice::new(mode);
            route.fallback(StatusCode::from_u16(status).unwrap(), &page(body)).is_some()
        };
        for (status, body, old) in [
            (405, "Method Not Allowed", true),
            (404, "Cannot POST /sse", true),
            (400, "", true),
            (415, r#"{"detail":"x"}"#, true),
            (400, r#"{"id":null,"error":{"code":-32022,"message":"x"}}"#, false),
            (404, r#"{"id":1,"error":{"code":-32601,"message":"x"}}"#, false),
            (404, r#"{"id":1,"error":{"code":-32601,"message":"Method not found: the path"}}"#, false),
            (405, r#"{"id":null,"error":{"code":-32000,"message":"Method not allowed."}}"#, true),
            (405, r#"{"id":1,"error":{"code":-32601,"message":"x"}}"#, true),
            (404, r#"{"id":null,"error":{"code":-32600,"message":"Not Found"}}"#, true),
            (404, r#"{"id":null,"error":{"code":-32000,"message":"Cannot POST /sse"}}"#, true),
            (404, r#"{"id":null,"error":{"code":-32001,"message":"Session not found"}}"#, false),
            (400, r#"{"id":null,"error":{"code":-32000,"message":"Bad Request: Unsupported version"}}"#, false),
            (501, "Unsupported method ('POST')", true),
            (501, r#"{"id":1,"error":{"code":-32603,"message":"no"}}"#, false),
            (410, "Gone", true),
            (401, "", false),
            (403, "", false),
            (429, "", false),
            (500, "", false),
            (302, "", false),
        ] {
            assert_eq!(fallback(TransportMode::Auto, status, body), old, "{status} {body}");
            assert!(!fallback(TransportMode::Http, status, body), "forced");
        }
    }

    #[test]
    fn r56_transport_choice_is_kept_until_it_fails() {
        let route = TransportChoice::new(TransportMode::Auto);
        route.decide(Transport::Http);
        route.decide(Transport::Sse);
        assert_eq!(route.current(), Transport::Http);
        assert!(route.fallback(StatusCode::NOT_FOUND, &page("")).is_none());
        let route = TransportChoice::new(TransportMode::Auto);
        route.decide(Transport::Sse);
        assert!(route.give_up_sse());
        assert_eq!(route.current(), Transport::Http);
        assert!(route.fallback(StatusCode::NOT_FOUND, &page("")).is_some());
        let route = TransportChoice::new(TransportMode::SseFirst);
        assert!(route.current() == Transport::Sse && route.give_up_sse() && route.current() == Transport::Http);
        let forced = TransportChoice::new(TransportMode::Sse);
        assert!(!forced.give_up_sse() && forced.current() == Transport::Sse);
    }
}
