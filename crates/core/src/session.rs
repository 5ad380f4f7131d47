//! The session with the server as a pure state machine: which headers it puts on a request, and what it learns from
//! the answer to `initialize` (legacy protocol, 2025-03-26 to 2025-11-25; R23–R25, R41).

use http::{HeaderMap, HeaderValue};

use crate::headers;

/// What the server has settled with this client.
#[derive(Debug, Default)]
pub(crate) struct Session {
    id: Option<HeaderValue>,
    version: Option<HeaderValue>,
}

impl Session {
    /// The server has accepted an `initialize`: its session, or the lack of one, replaces what was.
    /// An id must be visible ASCII (R24); one that is not cannot be sent back, and is not used.
    pub(crate) fn open(&mut self, id: Option<&HeaderValue>) {
        self.version = None;
        self.id = id.filter(|id| !id.is_empty() && id.as_bytes().iter().all(u8::is_ascii_graphic)).cloned();
        if let Some(id) = &mut self.id {
            id.set_sensitive(true);
        } else if id.is_some() {
            tracing::warn!("the server's session id has characters that no header may carry; not used");
        }
    }

    /// The version in the result of `initialize`: what both sides speak from now on (R25), whatever was asked for.
    pub(crate) fn negotiated(&mut self, version: &str) {
        self.version = HeaderValue::from_str(version).ok();
    }

    /// Puts the session on a request; never on `initialize`.
    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        if let Some(id) = &self.id {
            headers.insert(headers::SESSION_ID, id.clone());
        }
        if let Some(version) = &self.version {
            headers.insert(headers::PROTOCOL_VERSION, version.clone());
        }
    }

    /// Whether there is a session to end (R41).
    pub(crate) fn is_open(&self) -> bool {
        self.id.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(session: &Session) -> Vec<(String, String)> {
        let mut headers = HeaderMap::new();
        session.apply(&mut headers);
        headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect()
    }

    #[test]
    fn r23_r25_nothing_before_initialize_and_both_after() {
        let mut session = Session::default();
        assert!(headers(&session).is_empty() && !session.is_open());
        session.open(Some(&HeaderValue::from_static("s-1")));
        session.negotiated("2025-03-26");
        assert_eq!(
            headers(&session),
            [("mcp-session-id".into(), "s-1".into()), ("mcp-protocol-version".into(), "2025-03-26".into())]
        );
        session.open(None);
        assert!(headers(&session).is_empty(), "a new initialize forgets the old session");
    }

    #[test]
    fn r24_only_visible_ascii_ids() {
        for bad in [&b""[..], b"a b", b"a\tb", b"\xe9"] {
            let mut session = Session::default();
            session.open(Some(&HeaderValue::from_bytes(bad).unwrap()));
            assert!(!session.is_open(), "{bad:?}");
        }
    }

    #[test]
    fn r24_the_id_is_not_shown() {
        let mut session = Session::default();
        session.open(Some(&HeaderValue::from_static("hunter2")));
        assert!(!format!("{session:?}").contains("hunter2"));
    }
}
