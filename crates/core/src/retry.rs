//! When a message that failed is sent again, as arithmetic: no clock, no I/O.
//!
//! Rule: no tool runs twice (R95, R96). What the server cannot have read is repeated whatever it is; what it may have
//! acted on is repeated only if all it does is read.

use std::time::Duration;

use crate::error::{Error, Fate};

/// Methods that only read, so that a second time does no harm.
const READING: &[&str] = &["ping", "initialize", "server/discover", "resources/read", "completion/complete"];
/// With waits that begin at 100 ms and are doubled each time, about three seconds in all: a server that starts is found, and a client that probes
/// for it gets its error in time (R79).
const MOST_REPEATS: u32 = 5;
/// The longest single wait that a server can ask for.
const LONGEST_HINT: Duration = Duration::from_secs(30);
/// The longest waits in all that servers can ask for in the life of one message.
const LONGEST_HINTS: Duration = Duration::from_mins(1);

/// Whether a method only reads.
pub(crate) fn only_reads(method: &str) -> bool {
    READING.contains(&method) || method.ends_with("/list") || method.ends_with("/get")
}

/// The tries of one message.
#[derive(Debug)]
pub(crate) struct Tries {
    first_wait: Duration,
    repeats: u32,
    hinted: Duration,
}

impl Tries {
    /// None yet; the first wait before another one is to be this long.
    pub(crate) fn new(first_wait: Duration) -> Self {
        Self { first_wait, repeats: 0, hinted: Duration::ZERO }
    }

    /// How long to wait before the message is sent again after this failure; `None` if it must not be, or if it has been
    /// tried long enough. `random` from 0 to 1 spreads the waits, so that many clients do not come back at once.
    pub(crate) fn next_wait(&mut self, error: &Error, method: &str, random: f64) -> Option<Duration> {
        match error.fate() {
            Fate::Unread => {}
            Fate::Interrupted if only_reads(method) => {}
            Fate::Interrupted | Fate::Final => return None,
        }
        let wait = backoff(self.first_wait, self.repeats, random);
        let wait = match error.retry_after() {
            Some(hint) if hint <= LONGEST_HINT && self.hinted + hint <= LONGEST_HINTS => {
                self.hinted += hint;
                wait.max(hint)
            }
            None if self.repeats < MOST_REPEATS => wait,
            _ => return None,
        };
        self.repeats += 1;
        Some(wait)
    }

    /// How often the message was sent.
    pub(crate) fn attempts(&self) -> u32 {
        self.repeats + 1
    }
}

/// The wait before repeat number `repeat`, from 0: doubled each time, at least half of it whatever `random` is.
pub(crate) fn backoff(first: Duration, repeat: u32, random: f64) -> Duration {
    let half = first.saturating_mul(1 << repeat.min(8)) / 2;
    half.saturating_add(half.mul_f64(random.clamp(0.0, 1.0)))
}

/// A number from 0 to 1 that differs between processes and calls.
pub(crate) fn random() -> f64 {
    use std::hash::{BuildHasher as _, RandomState};
    let bits = u32::try_from(RandomState::new().hash_one(0) >> 32).unwrap_or_default();
    f64::from(bits) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::error::Kind;

    const FIRST: Duration = Duration::from_millis(100);

    fn status(code: u16) -> Error {
        Error::new(Kind::Status, "no").with_status(StatusCode::from_u16(code).unwrap())
    }

    #[test]
    fn r96_what_may_have_run_is_repeated_only_if_it_reads() {
        let unread = [Error::new(Kind::Connect, "x"), Error::new(Kind::Dns, "x"), status(429), status(503)];
        let interrupted = [
            Error::new(Kind::Broken, "x"),
            Error::new(Kind::NoAnswer, "x").with_fate(Fate::Interrupted),
            status(408),
            status(502),
            status(504),
        ];
        let ended = [Kind::Timeout, Kind::Tls, Kind::NoAnswer].map(|kind| Error::new(kind, "x"));
        let ended = ended.into_iter().chain([status(500), status(400), status(401)]).collect::<Vec<_>>();
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
    fn waits_double_and_end() {
        let mut tries = Tries::new(FIRST);
        let error = Error::new(Kind::Connect, "x");
        let waits: Vec<_> =
            std::iter::from_fn(|| tries.next_wait(&error, "x", 1.0)).map(|wait| wait.as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600]);
        assert_eq!(tries.attempts(), 6);
        assert_eq!(backoff(FIRST, 3, 0.0), Duration::from_millis(400));
        assert_eq!(backoff(FIRST, u32::MAX, 1.0), Duration::from_millis(25600));
    }

    #[test]
    fn r95_hints_are_followed_up_to_a_limit() {
        let hinted = |seconds| status(503).with_retry_after(Some(Duration::from_secs(seconds)));
        assert_eq!(Tries::new(FIRST).next_wait(&hinted(7), "tools/call", 0.0), Some(Duration::from_secs(7)));
        assert_eq!(Tries::new(FIRST).next_wait(&hinted(31), "tools/call", 0.0), None);
        assert_eq!(Tries::new(FIRST).next_wait(&hinted(0), "tools/call", 0.0), Some(Duration::from_millis(50)));
        let mut tries = Tries::new(FIRST);
        let waits = std::iter::from_fn(|| tries.next_wait(&hinted(25), "tools/call", 0.0)).count();
        assert_eq!(waits, 2, "a minute in all");
    }

    #[test]
    fn random_is_a_fraction() {
        assert!((0..100).all(|_| (0.0..=1.0).contains(&random())));
    }
}
