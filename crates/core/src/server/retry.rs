//! Decides when a failed message is sent again, and whether its error says that it may have run. No clock, no I/O.
//!
//! Rule: no tool runs twice (R95, R96). A message that the server did not read is always sent again. A message that
//! the server may have acted on is sent again only if it just reads. An error says that nothing has run only if that
//! is certain.
//!
//! | what happened to the message | if it only reads | any other message | may have run |
//! |---|---|---|---|
//! | not written to a connection, or refused unread by HTTP/2 (`REFUSED_STREAM`, `GOAWAY`) | retry | retry | no |
//! | 429; 503 with a `Retry-After` above zero | retry | retry | no |
//! | 408, 502, any other 503, 504 | retry | fail | yes |
//! | any other 5xx | fail | fail | yes |
//! | the connection or stream broke | retry | fail | yes |
//! | 401, or 403 that asks for more scope, with a challenge or unaddressed | retry with new credentials | retry with new credentials | no |
//! | the session is lost, unaddressed | retry in a new session | retry in a new session | no |
//! | 400, 404, 405, 406, 410, 415 or 422, unaddressed, to a modern request while the server's protocol is unknown | retry in the older protocol | retry in the older protocol | no |
//! | the protocol's own refusals (-32020 to -32022 with status 400) | retry as the refusal asks | retry as the refusal asks | no |
//! | a JSON-RPC result or error with the request's own id and any status, except an error with a challenge | as above, then the answer | the answer | |
//! | 3xx, 401, 403, 405, 406, 407, 411, 413, 414, 415, 417, 421, 425, 426, 428, 431 | fail | fail | no |
//! | any other 4xx | fail | fail | yes |
//!
//! "Unaddressed": the body has no JSON-RPC error, or one without an id or with another id. Except under 401 and 403,
//! the whole body must have arrived, because a truncated one may have been an answer. Under 5xx the body must have
//! such an error, because a page may come from a gateway that lost the answer. A tool that ran answers with the
//! request's id, so a response with that id is the answer, regardless of its text and of the status code that a gateway
//! sets.

use std::time::Duration;

use crate::{
    error::{Error, Fate},
    wire::method::only_reads,
};

/// Maximum number of repeats of a message. The waits start at 100 ms and double, about 3 s in all: long enough for a
/// server to start, and short enough that a client that probes for it gets its error in time (R79).
const MAX_RETRIES: u32 = 5;
/// Maximum total wait of a message, whatever the server asks for. Most clients give up after 60 s.
const MAX_TOTAL_WAIT: Duration = Duration::from_secs(30);
/// Status codes by which a server or a gateway refuses a message, without running it, for its credentials, method,
/// size or form. Other status codes may come from a tool that ran.
const REJECTED_BEFORE_RUNNING: &[u16] = &[401, 403, 405, 406, 407, 411, 413, 414, 415, 417, 421, 425, 426, 428, 431];

/// Returns the fate of a message that was refused with this status code, and true if the server may have acted on it.
/// `hint` is the wait that the server asks for.
pub(crate) fn judge(status: u16, hint: Option<Duration>) -> (Fate, bool) {
    match status {
        429 => (Fate::Unread, false),
        // Without a hint, a gateway may have forwarded the message and lost the answer.
        503 if hint.is_some_and(|hint| !hint.is_zero()) => (Fate::Unread, false),
        408 | 502..=504 => (Fate::Interrupted, true),
        300..=399 => (Fate::Final, false),
        status => (Fate::Final, !REJECTED_BEFORE_RUNNING.contains(&status)),
    }
}

/// Counts the tries of one message.
#[derive(Debug)]
pub(crate) struct Tries {
    first_wait: Duration,
    repeats: u32,
    waited: Duration,
}

impl Tries {
    /// Starts with no tries. `first_wait` is the wait before the first repeat.
    pub(crate) fn new(first_wait: Duration) -> Self {
        Self { first_wait, repeats: 0, waited: Duration::ZERO }
    }

    /// Returns how long to wait before the message is sent again after this failure, or `None` if it must not be sent
    /// again or has used up its tries. `random`, from 0 to 1, spreads the waits so that many clients do not retry at
    /// once.
    pub(crate) fn next_wait(&mut self, error: &Error, method: &str, random: f64) -> Option<Duration> {
        match error.fate() {
            Fate::Unread => {}
            Fate::Interrupted if only_reads(method) => {}
            Fate::Interrupted | Fate::Final => return None,
        }
        let wait = backoff(self.first_wait, self.repeats, random).max(error.retry_after().unwrap_or_default());
        let waited = self.waited.checked_add(wait).filter(|waited| *waited <= MAX_TOTAL_WAIT)?;
        if self.repeats >= MAX_RETRIES {
            return None;
        }
        self.repeats += 1;
        self.waited = waited;
        Some(wait)
    }

    /// Returns how many times the message was sent.
    pub(crate) fn attempts(&self) -> u32 {
        self.repeats + 1
    }
}

/// Returns the wait before repeat number `repeat`, counted from 0. The full wait doubles each time; `random`, from 0
/// to 1, selects a value between half of it and all of it.
pub(crate) fn backoff(first: Duration, repeat: u32, random: f64) -> Duration {
    let half = first.saturating_mul(1 << repeat.min(8)) / 2;
    half.saturating_add(half.mul_f64(random.clamp(0.0, 1.0)))
}

/// Computes the waits before a stream that has ended is opened again (R31, R33).
///
/// The server sets the wait, down to a minimum. While its streams bring nothing, the waits grow.
#[derive(Debug)]
pub(crate) struct Reopening {
    usual: Duration,
    asked: Option<Duration>,
    /// How many streams in a row brought nothing.
    in_vain: u32,
}

/// The shortest wait that a server can ask for.
const MIN_REOPEN_DELAY: Duration = Duration::from_millis(100);
/// The limit up to which waits grow.
const MAX_REOPEN_DELAY: Duration = Duration::from_secs(5);
/// A wait of at least this length that the server asked for does not grow: the server wants to be polled at that rate.
const MIN_POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How many streams in a row may bring nothing before the waits grow.
const PATIENCE: u32 = 4;

impl Reopening {
    /// Waits `usual` until the server asks for another wait.
    pub(crate) fn new(usual: Duration) -> Self {
        Self { usual, asked: None, in_vain: 0 }
    }

    /// Records the end of a stream. `asked` is the wait that the server asked for on it; `brought` is true if it had a
    /// message.
    pub(crate) fn ended(&mut self, asked: Option<Duration>, brought: bool) {
        self.asked = asked.map(|asked| asked.max(MIN_REOPEN_DELAY)).or(self.asked);
        self.in_vain = if brought { 0 } else { self.in_vain.saturating_add(1) };
    }

    /// Returns how long to wait before the next stream is opened.
    pub(crate) fn wait(&self) -> Duration {
        let wait = self.asked.unwrap_or(self.usual);
        match self.in_vain.saturating_sub(PATIENCE) {
            0 => wait,
            _ if self.asked.is_some_and(|asked| asked >= MIN_POLL_INTERVAL) => wait,
            more => wait.max(wait.saturating_mul(1 << more.min(16)).min(MAX_REOPEN_DELAY)),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::error::ErrorKind;

    const FIRST: Duration = Duration::from_millis(100);

    fn status(code: u16) -> Error {
        hinted(code, None)
    }

    fn hinted(code: u16, seconds: impl Into<Option<u64>>) -> Error {
        let wait = seconds.into().map(Duration::from_secs);
        let error = Error::new(ErrorKind::Status, "no").with_status(StatusCode::from_u16(code).unwrap());
        error.with_retry_after(wait).with_fate(judge(code, wait).0)
    }

    #[test]
    fn r96_interrupted_requests_are_retried_only_if_read_only() {
        let unread =
            [Error::new(ErrorKind::Connect, "x"), Error::new(ErrorKind::Dns, "x"), status(429), hinted(503, 1)];
        let interrupted = [
            Error::new(ErrorKind::Broken, "x"),
            Error::new(ErrorKind::NoAnswer, "x").with_fate(Fate::Interrupted),
            status(408),
            status(502),
            status(503),
            hinted(503, 0),
            status(504),
        ];
        let ended = [ErrorKind::Timeout, ErrorKind::Tls, ErrorKind::NoAnswer].map(|kind| Error::new(kind, "x"));
        let ended =
            ended.into_iter().chain([status(500), hinted(500, 1), status(400), status(401)]).collect::<Vec<_>>();
        for (errors, tool, list) in [(&unread[..], true, true), (&interrupted, false, true), (&ended, false, false)] {
            for error in errors {
                assert_eq!(Tries::new(FIRST).next_wait(error, "tools/call", 0.5).is_some(), tool, "{error:?}");
                assert_eq!(Tries::new(FIRST).next_wait(error, "tools/list", 0.5).is_some(), list, "{error:?}");
            }
        }
        for method in ["prompts/get", "resources/templates/list", "resources/read", "ping", "server/discover"] {
            assert!(only_reads(method), "{method}");
        }
        for method in ["tools/call", "resources/subscribe", "logging/setLevel", "tasks/cancel", ""] {
            assert!(!only_reads(method), "{method}");
        }
    }

    #[test]
    fn r96_only_certain_statuses_report_that_nothing_has_run() {
        let certain: Vec<_> = (100..600).filter(|status| !judge(*status, None).1).collect();
        let expected: Vec<u16> = (300..400).chain(REJECTED_BEFORE_RUNNING.iter().copied()).chain([429]).collect();
        assert!(
            certain.iter().all(|status| expected.contains(status)) && certain.len() == expected.len(),
            "{certain:?}"
        );
        assert!(!judge(503, Some(Duration::from_secs(1))).1 && judge(503, Some(Duration::ZERO)).1);
    }

    #[test]
    fn retry_table_matches_the_documentation() {
        let rows = |text: &str, before: &str| -> Vec<String> {
            let rows = text.lines().filter_map(|line| line.strip_prefix(before)).filter(|line| line.starts_with("| "));
            let rows = rows.skip_while(|row| !row.starts_with("| what happened to the message"));
            rows.map(str::to_owned).collect()
        };
        let ours = rows(include_str!("retry.rs"), "//! ");
        assert!(ours.len() > 10, "{ours:?}");
        assert_eq!(ours, rows(include_str!("../../../../docs/limits.md"), ""));
    }

    #[test]
    fn retry_waits_double_until_attempts_run_out() {
        let mut tries = Tries::new(FIRST);
        let error = Error::new(ErrorKind::Connect, "x");
        let waits: Vec<_> =
            std::iter::from_fn(|| tries.next_wait(&error, "x", 1.0)).map(|wait| wait.as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600]);
        assert_eq!(tries.attempts(), 6);
        assert_eq!(backoff(FIRST, 3, 0.0), Duration::from_millis(400));
        assert_eq!(backoff(FIRST, u32::MAX, 1.0), Duration::from_millis(25600));
    }

    #[test]
    fn r95_retry_after_hints_are_followed_up_to_a_limit() {
        assert_eq!(Tries::new(FIRST).next_wait(&hinted(503, 7), "tools/call", 0.0), Some(Duration::from_secs(7)));
        assert_eq!(Tries::new(FIRST).next_wait(&hinted(503, 31), "tools/call", 0.0), None);
        assert_eq!(Tries::new(FIRST).next_wait(&hinted(503, u64::MAX), "tools/call", 0.0), None);
        assert_eq!(Tries::new(FIRST).next_wait(&hinted(429, 0), "tools/call", 0.0), Some(Duration::from_millis(50)));
        // Tries and waits are limited, whatever the hints.
        for seconds in 0..=30 {
            let mut tries = Tries::new(FIRST);
            let waits: Vec<_> =
                std::iter::from_fn(|| tries.next_wait(&hinted(429, seconds), "tools/call", 1.0)).take(100).collect();
            assert!(waits.len() <= 5 && waits.iter().sum::<Duration>() <= MAX_TOTAL_WAIT, "{seconds}: {waits:?}");
        }
    }

    #[test]
    fn r33_reopening_wait_grows_for_streams_without_messages() {
        let mut reopening = Reopening::new(Duration::from_secs(1));
        assert_eq!(reopening.wait(), Duration::from_secs(1));
        reopening.ended(Some(Duration::ZERO), true);
        assert_eq!(reopening.wait(), MIN_REOPEN_DELAY);
        for _ in 0..PATIENCE {
            reopening.ended(None, false);
            assert_eq!(reopening.wait(), MIN_REOPEN_DELAY);
        }
        let next = || {
            reopening.ended(Some(Duration::ZERO), false);
            reopening.wait()
        };
        let waits: Vec<_> = std::iter::repeat_with(next).take(100).collect();
        assert!(waits.is_sorted() && waits[..3] == [2, 4, 8].map(|n| MIN_REOPEN_DELAY * n), "{waits:?}");
        assert_eq!(waits[99], MAX_REOPEN_DELAY);
        reopening.ended(Some(Duration::from_hours(1)), false);
        assert_eq!(reopening.wait(), Duration::from_hours(1), "the wait that the server asks for is kept");
        reopening.ended(Some(Duration::from_millis(500)), true);
        assert_eq!(reopening.wait(), Duration::from_millis(500));
    }
}
