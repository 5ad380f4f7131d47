//! The session with the server, as a state machine without I/O: it adds headers to requests, learns from answers,
//! detects that it is lost, and keeps what sets up the next session (legacy protocol, 2024-11-05 to 2025-11-25;
//! R23–R25, R38–R41).

use http::{HeaderMap, HeaderValue, StatusCode};

use crate::{
    secrets::Concealed,
    server::refusals::{RefusalBody, is_about_session, names_lost_session, speaks_of_lost_session},
    wire::{
        headers,
        message::{Message, ServerOffer},
    },
};

/// Limits on the resource subscriptions that are kept for a new session: their number, and the bytes of one request.
const MAX_SUBSCRIPTIONS: usize = 1000;
const MAX_SUBSCRIPTION_BYTES: usize = 16 << 10;

/// The codes of errors about sessions.
const SESSION_CODES: [i64; 5] = [-32_000, -32_001, -32_002, -32_600, -32_602];

/// What the server and the client have agreed on.
#[derive(Debug, Default)]
pub(crate) struct Session {
    id: Option<HeaderValue>,
    concealed: Concealed,
    version: Option<HeaderValue>,
    /// The HTTP+SSE stream that the session ends with (R53). `None` over Streamable HTTP.
    stream: Option<u64>,
    /// Counts the sessions, so that a request that failed in an old session does not renew the current one.
    epoch: u64,
    /// The bridge set the session up for modern clients, which do not know of it.
    for_modern: bool,
    /// The client's own `initialize`, once it was answered. Without it there is nothing to renew.
    initialize: Option<Message>,
    /// What the server offered in its answer.
    offer: Option<ServerOffer>,
    log_level: Option<Message>,
    subscriptions: Vec<(String, Message)>,
}

impl Session {
    /// Replaces the session after the server has accepted an `initialize`, with or without a session id. An id must be
    /// visible ASCII (R24). Any other id is ignored, because it cannot be sent back.
    pub(crate) fn open(&mut self, id: Option<&HeaderValue>, stream: Option<u64>) {
        self.epoch += 1;
        self.stream = stream;
        self.version = None;
        self.id = id.filter(|id| !id.is_empty() && id.as_bytes().iter().all(u8::is_ascii_graphic)).cloned();
        self.concealed = Concealed::new(&self.id);
        if let Some(id) = &mut self.id {
            id.set_sensitive(true);
        } else if id.is_some() {
            tracing::warn!("the server's session id has characters that no header may carry; not used");
        }
    }

    /// Drops the session, because the server no longer has sessions.
    pub(crate) fn close(&mut self) {
        let epoch = self.epoch;
        *self = Self { epoch: epoch + 1, ..Self::default() };
    }

    /// Records that the bridge answered the client's `initialize` instead of the server, which may not know of it yet.
    /// A session that was opened after `epoch` belongs to this `initialize`.
    pub(crate) fn promised(&mut self, initialize: &Message, epoch: u64) {
        if self.epoch == epoch {
            self.close();
        }
        self.initialize = Some(initialize.clone());
        self.offer = None;
    }

    /// True if the client has a session that the server does not know of.
    pub(crate) fn is_provisional(&self) -> bool {
        self.initialize.is_some() && self.offer.is_none()
    }

    /// Records that the server answered the client's `initialize` with this offer. Both sides speak its version from
    /// now on (R25).
    pub(crate) fn negotiated(&mut self, initialize: &Message, offer: ServerOffer) {
        self.for_modern = false;
        self.speak(&offer);
        self.initialize = Some(initialize.clone());
        self.offer = Some(offer);
        self.log_level = None;
        self.subscriptions.clear();
    }

    /// Like `negotiated`, for an `initialize` that the bridge sends for modern clients.
    pub(crate) fn negotiated_for_modern(&mut self, initialize: &Message, offer: ServerOffer) {
        self.negotiated(initialize, offer);
        self.for_modern = true;
    }

    /// Records that such an `initialize` is being sent. From now on the server's messages are for modern clients.
    pub(crate) fn begin_for_modern(&mut self) {
        self.for_modern = true;
    }

    /// True if the bridge set the session up for modern clients.
    pub(crate) fn is_for_modern(&self) -> bool {
        self.for_modern
    }

    /// Records that the server set up a renewed session with this offer.
    ///
    /// # Errors
    /// The offer lacks something that the client was granted (R39).
    pub(crate) fn renewed(&mut self, offer: &ServerOffer) -> Result<(), String> {
        self.speak(offer);
        match &self.offer {
            Some(old) if offer.version != old.version => {
                Err(format!("it speaks protocol {}, not {}", offer.version, old.version))
            }
            Some(_) => self.grants(offer),
            // Nothing was granted to the client so far.
            None => {
                self.offer = Some(offer.clone());
                Ok(())
            }
        }
    }

    /// Ends the session, because a modern server with this offer has replaced the legacy one. The client's next
    /// messages are translated, in the same way for all versions.
    ///
    /// # Errors
    /// The offer lacks something that the client was granted (R39).
    pub(crate) fn end_for_modern(&mut self, offer: &ServerOffer) -> Result<(), String> {
        self.grants(offer)?;
        self.close();
        Ok(())
    }

    fn grants(&self, offer: &ServerOffer) -> Result<(), String> {
        let granted = self.offer.iter().flat_map(|old| &old.capabilities);
        match granted.into_iter().find(|name| !offer.capabilities.contains(name)) {
            Some(name) => Err(format!("it no longer offers {name}")),
            None => Ok(()),
        }
    }

    fn speak(&mut self, offer: &ServerOffer) {
        self.version = HeaderValue::from_str(&offer.version).ok();
    }

    /// Remembers a request of the client that got a result, if it must be repeated in a new session (R39).
    pub(crate) fn answered(&mut self, request: &Message) {
        match request.method() {
            "logging/setLevel" => self.log_level = Some(request.clone()),
            "resources/subscribe" => {
                if let Some(uri) = request.uri() {
                    self.subscriptions.retain(|(known, _)| *known != uri);
                    if self.subscriptions.len() < MAX_SUBSCRIPTIONS && request.bytes().len() <= MAX_SUBSCRIPTION_BYTES {
                        self.subscriptions.push((uri, request.clone()));
                    } else {
                        tracing::warn!("a subscription is over the limits; a new session will not have it");
                    }
                }
            }
            "resources/unsubscribe" => {
                if let Some(uri) = request.uri() {
                    self.subscriptions.retain(|(known, _)| *known != uri);
                }
            }
            _ => {}
        }
    }

    /// True if the server logs at the level that this `logging/setLevel` sets.
    pub(crate) fn has_log_level_of(&self, set_level: &Message) -> bool {
        self.log_level.as_ref().is_some_and(|known| known.bytes() == set_level.bytes())
    }

    /// Adds the headers of the session to a request. Not for `initialize`.
    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        if let Some(id) = &self.id {
            headers.insert(headers::SESSION_ID, id.clone());
        }
        if let Some(version) = &self.version {
            headers.insert(headers::PROTOCOL_VERSION, version.clone());
        }
    }

    /// True if there is a session to end (R41).
    pub(crate) fn is_open(&self) -> bool {
        self.id.is_some()
    }

    /// Returns the HTTP+SSE stream that the session ends with.
    pub(crate) fn stream(&self) -> Option<u64> {
        self.stream
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Returns the client's `initialize`, if its session can be renewed.
    pub(crate) fn initialize(&self) -> Option<&Message> {
        self.initialize.as_ref()
    }

    /// Returns the requests to send in a new session after `initialized`.
    pub(crate) fn replay(&self) -> Vec<Message> {
        self.log_level.iter().chain(self.subscriptions.iter().map(|(_, request)| request)).cloned().collect()
    }

    /// True if a refusal says that the session is gone: by 404, as in the specification (R38), by 410, or by other
    /// status codes and texts that servers use instead (R40). Without a session only the handshake can be lost: a
    /// server that now asks for what only modern requests have does not know of it.
    ///
    /// `may_be_answer` is true if the refusal may come from a tool that ran. A tool can report that another session,
    /// or anything else, is not found, so the refusal must clearly name this session.
    pub(crate) fn is_lost(&self, status: StatusCode, page: &RefusalBody, may_be_answer: bool) -> bool {
        match (status.as_u16(), page.response.as_ref().and_then(Message::error)) {
            (400 | 404, Some((-32_022..=-32_020, _))) => self.initialize.is_some() && !self.for_modern,
            _ if self.id.is_none() => false,
            // A result, whatever its text.
            (500..=599, None) if page.response.as_ref().is_some_and(|response| response.outline().is_none()) => false,
            (_, Some((code, text))) if may_be_answer => SESSION_CODES.contains(&code) && names_lost_session(&text),
            // Comes from a gateway, not from a tool. Whether something ran is decided elsewhere.
            (500..=599, None) => names_lost_session(&String::from_utf8_lossy(&page.text)),
            (_, None) if may_be_answer => false,
            // An unknown method (R68).
            (404 | 410, Some((code, _))) => code != -32_601,
            (404 | 410, None) => true,
            (400, Some((code, text))) => SESSION_CODES.contains(&code) && is_about_session(&text),
            (_, Some((code, text))) => SESSION_CODES.contains(&code) && speaks_of_lost_session(&text),
            (_, None) => speaks_of_lost_session(&String::from_utf8_lossy(&page.text)),
        }
    }

    /// Like `is_lost`, for an error in a reply with a success status. `may_be_answer` is true if the error has the
    /// request's own id, so that it may come from a tool that ran.
    pub(crate) fn is_lost_by(&self, error: &(i64, String), may_be_answer: bool) -> bool {
        let (code, text) = error;
        let speaks = if may_be_answer { names_lost_session } else { speaks_of_lost_session };
        self.id.is_some() && SESSION_CODES.contains(code) && speaks(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &'static str) -> Message {
        Message::one(text).unwrap()
    }

    fn headers(session: &Session) -> Vec<(String, String)> {
        let mut headers = HeaderMap::new();
        session.apply(&mut headers);
        headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect()
    }

    fn offer(version: &str, capabilities: &[&str]) -> ServerOffer {
        ServerOffer { version: version.into(), capabilities: capabilities.iter().map(|&name| name.into()).collect() }
    }

    fn initialized(version: &str, capabilities: &[&str]) -> Session {
        let mut session = Session::default();
        session.open(Some(&HeaderValue::from_static("s-1")), None);
        session.negotiated(&message(r#"{"id":1,"method":"initialize"}"#), offer(version, capabilities));
        session
    }

    #[test]
    fn r23_r25_session_and_version_headers_start_after_initialize() {
        assert!(headers(&Session::default()).is_empty() && !Session::default().is_open());
        let mut session = initialized("2025-03-26", &[]);
        assert_eq!(
            headers(&session),
            [("mcp-session-id".into(), "s-1".into()), ("mcp-protocol-version".into(), "2025-03-26".into())]
        );
        session.open(None, None);
        assert!(headers(&session).is_empty(), "a new initialize forgets the old session");
    }

    #[test]
    fn r24_session_ids_must_be_visible_ascii() {
        for bad in [&b""[..], b"a b", b"a\tb", b"\xe9"] {
            let mut session = Session::default();
            session.open(Some(&HeaderValue::from_bytes(bad).unwrap()), None);
            assert!(!session.is_open(), "{bad:?}");
        }
    }

    #[test]
    fn r24_session_id_is_not_in_debug_output() {
        let mut session = Session::default();
        session.open(Some(&HeaderValue::from_static("hunter2")), None);
        assert!(!format!("{session:?}").contains("hunter2"));
    }

    #[test]
    fn r38_r40_responses_that_mean_a_lost_session() {
        let session = initialized("2025-06-18", &[]);
        for (status, body, lost) in [
            (404, "", true),
            (404, "<html>", true),
            (404, r#"{"id":null,"error":{"code":-32001,"message":"Session not found"}}"#, true),
            (404, r#"{"id":1,"error":{"code":-32601,"message":"Method not found"}}"#, false),
            (400, r#"{"id":null,"error":{"code":-32000,"message":"Bad Request: No valid session ID provided"}}"#, true),
            (400, r#"{"id":null,"error":{"code":-32000,"message":"Bad Request: Server not initialized"}}"#, true),
            (400, r#"{"id":null,"error":{"code":-32602,"message":"Invalid session"}}"#, true),
            (400, r#"{"id":null,"error":{"code":-32602,"message":"Invalid params"}}"#, false),
            (400, r#"{"id":null,"error":{"code":-32020,"message":"Header mismatch"}}"#, true),
            (400, r#"{"id":1,"error":{"code":-32022,"message":"Unsupported protocol version"}}"#, true),
            (500, r#"{"id":1,"error":{"code":-32022,"message":"Unsupported protocol version"}}"#, false),
            (400, "unknown Session", true),
            (400, "bad", false),
            (500, "session", false),
            (500, r#"{"jsonrpc":"2.0","id":1,"result":{"isError":true,"content":"Session not found"}}"#, false),
            (500, "Session not found", true),
            (
                500,
                r#"{"id":null,"error":{"code":-32000,"message":"no session with that id is active: unknown"}}"#,
                true,
            ),
            (410, "", true),
            (401, "Unauthorized: Session not found", true),
            (401, "Your token is not valid", false),
            (403, r#"{"id":null,"error":{"code":-32002,"message":"The session is gone"}}"#, true),
            (409, r#"{"id":null,"error":{"code":-32600,"message":"Client must initialize first"}}"#, true),
            (409, r#"{"id":null,"error":{"code":-32603,"message":"Session not found"}}"#, false),
            (400, r#"{"detail":"Mcp-Session-Id header is missing"}"#, true),
            (403, "Host not allowed", false),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let page = RefusalBody { text: body.into(), response: Message::one(body), is_whole: true };
            assert_eq!(session.is_lost(status, &page, false), lost, "{status} {body}");
            assert!(!Session::default().is_lost(status, &page, false), "R40: nothing to lose");
        }
    }

    #[test]
    fn r38_refusals_that_may_be_tool_errors_must_name_the_session() {
        let session = initialized("2025-06-18", &[]);
        for (status, code, text, lost) in [
            (404, -32_001, "Session not found", true),
            (404, -32_000, "Invalid session ID", true),
            (400, -32_000, "Bad Request: No valid session ID provided", true),
            (400, -32_000, "Bad Request: Server not initialized", true),
            (400, -32_022, "Unsupported protocol version", true),
            (404, -32_000, "order not found", false),
            (404, -32_001, "the browser session 7 has ended", false),
            (400, -32_000, "the browser session 7 has ended", false),
            (400, -32_000, "device not initialized", false),
            (404, 1, "Session not found", false),
            (404, -32_601, "Method not found", false),
        ] {
            let text = format!(r#"{{"id":1,"error":{{"code":{code},"message":"{text}"}}}}"#);
            let page = RefusalBody { text: text.clone().into(), response: Message::one(text.clone()), is_whole: true };
            assert_eq!(session.is_lost(StatusCode::from_u16(status).unwrap(), &page, true), lost, "{status} {text}");
        }
    }

    #[test]
    fn r39_a_renewed_session_must_not_offer_less() {
        let mut session = initialized("2025-06-18", &["tools", "resources", "resources.subscribe"]);
        let more = offer("2025-06-18", &["logging", "resources", "resources.subscribe", "tools"]);
        assert!(session.renewed(&more).is_ok());
        let less = offer("2025-06-18", &["tools", "resources"]);
        assert!(session.renewed(&less).unwrap_err().contains("resources.subscribe"));
        assert!(session.renewed(&offer("2025-03-26", &[])).unwrap_err().contains("2025-03-26"));
    }

    #[test]
    fn r39_legacy_session_ends_only_if_the_modern_server_offers_as_much() {
        let mut session = initialized("2025-03-26", &["tools"]);
        let epoch = session.epoch();
        assert!(session.end_for_modern(&offer("2025-11-25", &["prompts"])).unwrap_err().contains("tools"));
        assert!(session.is_open());
        assert!(session.end_for_modern(&offer("2025-11-25", &["prompts", "tools"])).is_ok());
        assert!(!session.is_open() && headers(&session).is_empty() && session.epoch() > epoch);
    }

    #[test]
    fn r39_log_level_and_subscriptions_are_replayed_in_a_new_session() {
        let mut session = initialized("2025-06-18", &[]);
        for request in [
            r#"{"id":1,"method":"logging/setLevel","params":{"level":"info"}}"#,
            r#"{"id":2,"method":"logging/setLevel","params":{"level":"debug"}}"#,
            r#"{"id":3,"method":"resources/subscribe","params":{"uri":"a"}}"#,
            r#"{"id":4,"method":"resources/subscribe","params":{"uri":"b"}}"#,
            r#"{"id":5,"method":"resources/subscribe","params":{"uri":"b"}}"#,
            r#"{"id":6,"method":"resources/unsubscribe","params":{"uri":"a"}}"#,
            r#"{"id":7,"method":"tools/list"}"#,
        ] {
            session.answered(&message(request));
        }
        let ids: Vec<_> = session.replay().iter().map(|request| request.id().unwrap().as_str().to_owned()).collect();
        assert_eq!(ids, ["2", "5"]);
        session.negotiated(&message(r#"{"id":8,"method":"initialize"}"#), ServerOffer::default());
        assert!(session.replay().is_empty(), "the client starts over");
    }
}
