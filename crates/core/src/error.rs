//! The error type: one opaque value that says who is at fault, what was tried and what to do.
//!
//! Callers use predicates; nothing matches on text. Display shows this layer only, and `source()` is the cause. Facts
//! that a client can act on (HTTP status, Retry-After, whether the request may have run) are fields. They become the
//! `data` of the JSON-RPC error that the client receives (see [`crate::wire::reply::error_reply`]).

mod hint;

use std::{borrow::Cow, error::Error as StdError, fmt, sync::Arc, time::Duration};

pub use self::hint::{Hint, HintWords};
use crate::text::excerpt;

/// The longest excerpt of a peer's text that an error carries, in bytes.
const DETAIL_LIMIT: usize = 512;
/// The longest summary, in bytes. A summary may quote text that a peer chose.
const SUMMARY_LIMIT: usize = 1024;

/// A failure of the bridge, the client, the server, or the connection between them.
#[derive(Clone)]
pub struct Error(Box<ErrorFields>);

#[derive(Clone, Debug)]
struct ErrorFields {
    kind: ErrorKind,
    summary: Cow<'static, str>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
    status: Option<u16>,
    retry_after: Option<Duration>,
    may_have_run: Option<bool>,
    attempts: Option<u32>,
    /// Overrides the fate that follows from the kind.
    fate: Option<Fate>,
    detail: Option<String>,
    /// A URL where the user can fix the problem.
    url: Option<String>,
    hint: Option<Hint>,
}

pub(crate) type Cause = Box<dyn StdError + Send + Sync>;

/// The party at fault, and the stage. Clients read the name in `data.kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrorKind {
    /// The caller: an unusable setting.
    Config,
    /// The client: a line that is not JSON.
    Parse,
    /// The client: JSON that is not a JSON-RPC message.
    InvalidMessage,
    /// The network: the host name has no address.
    Dns,
    /// The server: it names a host with an address that the bridge must not connect to.
    ForbiddenAddress,
    /// The network: no connection, or it was refused.
    Connect,
    /// The network or the server: no secure connection.
    Tls,
    /// The proxy: it requires other credentials.
    Proxy,
    /// The server was silent for too long.
    Timeout,
    /// The server answered with an HTTP status other than success.
    Status,
    /// The server's answer is not a JSON-RPC response to the request.
    InvalidAnswer,
    /// The server ended its reply without answering the request.
    NoAnswer,
    /// The connection broke during the request or its response.
    Broken,
    /// The server no longer knows the session.
    SessionLost,
    /// A message is larger than the limit.
    TooLarge,
    /// This machine: no place to keep a large message.
    Storage,
    /// The client: it did not answer a question that the server asked during the request.
    InputRefused,
    /// The user: the server requires a sign-in, which is in progress.
    #[cfg(feature = "oauth")]
    SignIn,
    /// The user, or the authorization server: the sign-in failed.
    #[cfg(feature = "oauth")]
    NoToken,
    /// The server: it requires credentials, but offers no sign-in.
    #[cfg(feature = "oauth")]
    NoSignIn,
    /// The server: it names a different authorization server from the one that knows the user's client.
    #[cfg(feature = "oauth")]
    OtherIssuer,
    /// The caller's settings: they hide the called tool.
    HiddenTool,
    /// The bridge stopped before the response arrived.
    Shutdown,
    /// This process's own stdin or stdout failed.
    Stdio,
    /// The bridge itself.
    Internal,
}

/// How far a failed request got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The server did not read the request: it was not reached, or rejected the request unread.
    Unread,
    /// The exchange broke before the response. The server may have acted, and may recover soon.
    Interrupted,
    /// Sending it again would not help.
    Final,
}

impl ErrorKind {
    fn name(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Parse => "parse",
            Self::InvalidMessage => "invalid_message",
            Self::Dns => "dns",
            Self::ForbiddenAddress => "forbidden_address",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Proxy => "proxy",
            Self::Timeout => "timeout",
            Self::Status => "http_status",
            Self::InvalidAnswer => "invalid_answer",
            Self::NoAnswer => "no_answer",
            Self::Broken => "connection_lost",
            Self::SessionLost => "session_lost",
            Self::TooLarge => "too_large",
            Self::Storage => "storage",
            Self::InputRefused => "input_refused",
            #[cfg(feature = "oauth")]
            Self::SignIn => "sign_in",
            #[cfg(feature = "oauth")]
            Self::NoToken => "sign_in_failed",
            #[cfg(feature = "oauth")]
            Self::NoSignIn => "no_sign_in",
            #[cfg(feature = "oauth")]
            Self::OtherIssuer => "other_issuer",
            Self::HiddenTool => "hidden_tool",
            Self::Shutdown => "shutdown",
            Self::Stdio => "stdio",
            Self::Internal => "internal",
        }
    }
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, summary: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(ErrorFields {
            kind,
            summary: match summary.into() {
                ours @ Cow::Borrowed(_) => ours,
                made => excerpt(&made, SUMMARY_LIMIT).into(),
            },
            source: None,
            status: None,
            retry_after: None,
            may_have_run: None,
            attempts: None,
            fate: None,
            detail: None,
            url: None,
            hint: None,
        }))
    }

    /// Returns an error for an unusable setting; `summary` says what to do.
    pub fn config(summary: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Config, summary)
    }

    pub(crate) fn with_source(mut self, source: impl Into<Cause>) -> Self {
        self.0.source = Some(source.into().into());
        self
    }

    pub(crate) fn with_status(mut self, status: http::StatusCode) -> Self {
        self.0.status = Some(status.as_u16());
        self
    }

    pub(crate) fn with_retry_after(mut self, wait: Option<Duration>) -> Self {
        self.0.retry_after = wait;
        self
    }

    pub(crate) fn with_may_have_run(mut self, may: bool) -> Self {
        self.0.may_have_run = Some(may);
        self
    }

    pub(crate) fn with_attempts(mut self, attempts: u32) -> Self {
        self.0.attempts = (attempts > 1).then_some(attempts);
        self
    }

    pub(crate) fn with_fate(mut self, fate: Fate) -> Self {
        self.0.fate = Some(fate);
        self
    }

    /// Keeps the beginning of the peer's text, at most 512 bytes, made safe to show.
    pub(crate) fn with_detail(mut self, text: &str) -> Self {
        let text = text.trim();
        if !text.is_empty() {
            self.0.detail = Some(excerpt(text, DETAIL_LIMIT));
        }
        self
    }

    pub(crate) fn with_hint(mut self, hint: Hint) -> Self {
        self.0.hint = Some(hint);
        self
    }

    /// Adds the error of another way that was tried and failed.
    pub(crate) fn with_other_way(mut self, way: &str, error: &Self) -> Self {
        let Self(other) = error;
        self.0.summary = excerpt(&format!("{}; {way}: {}", self.0.summary, other.summary), SUMMARY_LIMIT).into();
        self.0.hint = self.0.hint.or(other.hint);
        self
    }

    /// Adds a URL where the user can fix the problem.
    #[cfg(feature = "oauth")]
    pub(crate) fn with_url(mut self, url: &str) -> Self {
        self.0.url = Some(crate::text::shown(url).into_owned());
        self
    }

    /// Returns a copy of the error for another caller that waits for the same result.
    #[cfg(feature = "oauth")]
    pub(crate) fn repeated(&self) -> Self {
        let ErrorFields { kind, summary, status, url, hint, .. } = &*self.0;
        let mut other = Self::new(*kind, summary.clone());
        (other.0.status, other.0.url, other.0.detail, other.0.hint) = (*status, url.clone(), self.detail(), *hint);
        other
    }

    /// True if a setting, or a combination of settings, cannot be used.
    pub fn is_config(&self) -> bool {
        self.0.kind == ErrorKind::Config
    }

    /// True if the server could not be reached: no address, no connection, or no secure one. Nothing was sent.
    pub fn is_connect(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Dns | ErrorKind::ForbiddenAddress | ErrorKind::Connect | ErrorKind::Tls)
    }

    /// True if a host has an address that the bridge must not connect to.
    #[cfg(feature = "oauth")]
    pub(crate) fn is_forbidden_address(&self) -> bool {
        self.0.kind == ErrorKind::ForbiddenAddress
    }

    /// True if the server was silent for longer than the limit.
    pub fn is_timeout(&self) -> bool {
        self.0.kind == ErrorKind::Timeout
    }

    /// True if a message was larger than the limit.
    pub fn is_too_large(&self) -> bool {
        self.0.kind == ErrorKind::TooLarge
    }

    /// Returns the HTTP status of the server's answer, if the status is the failure.
    pub fn status(&self) -> Option<u16> {
        self.0.status
    }

    /// Returns the wait that the server asked for before the next try.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Returns whether the server may have acted on the request; `None` if that does not apply.
    pub fn may_have_run(&self) -> Option<bool> {
        self.0.may_have_run
    }

    /// Returns a URL where the user can fix the problem, for example sign in.
    pub fn url(&self) -> Option<&str> {
        self.0.url.as_deref()
    }

    /// Returns the setting that helps, if there is one. Display words it for any program.
    pub fn hint(&self) -> Option<Hint> {
        self.0.hint
    }

    /// Returns the text of Display, with the hint in the words of a program.
    pub fn worded(&self, words: HintWords) -> String {
        match self.0.hint {
            Some(hint) => format!("{}; {}", self.0.summary, words(hint)),
            None => self.0.summary.clone().into_owned(),
        }
    }

    /// True if the server is not there, so that waiting may help. All other failures are certain: a setting or the
    /// server must change.
    pub(crate) fn is_absence(&self) -> bool {
        match self.0.kind {
            ErrorKind::Dns | ErrorKind::Connect | ErrorKind::Broken | ErrorKind::Timeout => true,
            // Gateways say with these that the server behind them is not there. 520 to 530 are those of Cloudflare.
            ErrorKind::Status => {
                self.0.status.is_some_and(|status| matches!(status, 408 | 429 | 502..=504 | 520..=524 | 530))
            }
            _ => false,
        }
    }

    /// True if no connection to the server was made.
    pub(crate) fn is_unreached(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Dns | ErrorKind::Connect)
    }

    /// Says that the request has waited this long for the server, which this error kept away.
    pub(crate) fn after_waiting(mut self, waited: Duration) -> Self {
        let seconds = waited.as_secs();
        let summary = format!("waited {seconds} s for the server, which is not there yet: {}", self.0.summary);
        self.0.summary = excerpt(&summary, SUMMARY_LIMIT).into();
        self
    }

    /// True if there is no token yet because the user has not signed in.
    #[cfg(feature = "oauth")]
    pub(crate) fn is_sign_in(&self) -> bool {
        self.0.kind == ErrorKind::SignIn
    }

    /// True if the server requires credentials, but offers no sign-in.
    #[cfg(feature = "oauth")]
    pub(crate) fn is_no_sign_in(&self) -> bool {
        self.0.kind == ErrorKind::NoSignIn
    }

    /// True if there is no token that the server accepts, or none yet.
    #[cfg(feature = "oauth")]
    pub(crate) fn is_about_tokens(&self) -> bool {
        matches!(self.0.kind, ErrorKind::SignIn | ErrorKind::NoToken | ErrorKind::OtherIssuer)
    }

    /// Returns how often the request was sent, if more than once.
    pub fn attempts(&self) -> Option<u32> {
        self.0.attempts
    }

    /// Returns how far the request got, as far as is known.
    pub(crate) fn fate(&self) -> Fate {
        self.0.fate.unwrap_or(match self.0.kind {
            ErrorKind::Dns | ErrorKind::Connect => Fate::Unread,
            ErrorKind::Broken => Fate::Interrupted,
            _ => Fate::Final,
        })
    }

    /// True if it failed before HTTP: at a certificate, or at a proxy. TLS 1.3 reports this only after the request is
    /// written.
    pub(crate) fn is_before_http(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Tls | ErrorKind::Proxy)
    }

    /// True if the server answered, but does not offer what was requested.
    pub(crate) fn is_refusal(&self) -> bool {
        self.0.kind == ErrorKind::InvalidAnswer
    }

    /// True if the session of the request is lost.
    pub(crate) fn is_session_lost(&self) -> bool {
        self.0.kind == ErrorKind::SessionLost
    }

    /// Returns the stage and the party at fault in one word, as in `data.kind`.
    pub fn kind(&self) -> &'static str {
        self.0.kind.name()
    }

    /// Returns the JSON-RPC error code. The bridge's own codes are only -32700, -32600 and -32603 (R78).
    pub fn code(&self) -> i32 {
        match self.0.kind {
            ErrorKind::Parse => -32700,
            ErrorKind::InvalidMessage => -32600,
            _ => -32603,
        }
    }

    /// Returns the peer's text, or the chain of causes if there is none; at most 512 bytes.
    pub fn detail(&self) -> Option<String> {
        self.0.detail.clone().or_else(|| {
            let mut text = String::new();
            let mut cause = self.source();
            while let Some(error) = cause {
                let layer = error.to_string();
                // Some layers repeat the text of their cause.
                if !text.ends_with(&layer) {
                    if !text.is_empty() {
                        text.push_str(": ");
                    }
                    text.push_str(&layer);
                }
                cause = error.source();
            }
            (!text.is_empty()).then(|| excerpt(&text, DETAIL_LIMIT))
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.worded(Hint::as_str))
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::{hostile, shown};

    #[test]
    fn control_characters_in_error_texts_are_escaped() {
        let hostile = hostile();
        let url = Error::new(ErrorKind::Status, "no");
        #[cfg(feature = "oauth")]
        let url = url.with_url(&hostile);
        for text in [
            Error::new(ErrorKind::Status, hostile.clone()).to_string(),
            Error::new(ErrorKind::Status, "no").with_detail(&hostile).detail().unwrap(),
            Error::new(ErrorKind::Status, "no").with_source(std::io::Error::other(hostile.clone())).detail().unwrap(),
            url.url().unwrap_or_default().to_owned(),
        ] {
            assert_eq!(shown(text.as_str()), text);
        }
    }

    #[test]
    fn error_texts_have_a_length_limit() {
        let long = "é".repeat(5000);
        assert!(Error::new(ErrorKind::Status, long.clone()).to_string().len() <= SUMMARY_LIMIT);
        assert!(Error::new(ErrorKind::Status, "no").with_detail(&long).detail().unwrap().len() <= DETAIL_LIMIT);
        let error = Error::new(ErrorKind::Status, "no").with_source(std::io::Error::other(long));
        assert!(error.detail().unwrap().len() <= DETAIL_LIMIT);
    }

    #[test]
    fn error_detail_omits_repeated_causes() {
        let cause = Error::new(ErrorKind::Connect, "refused").with_source(Error::new(ErrorKind::Connect, "refused"));
        assert_eq!(Error::new(ErrorKind::Connect, "no server").with_source(cause).detail().unwrap(), "refused");
    }
}
