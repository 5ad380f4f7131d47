//! Time limits of an exchange: the silence of the server (idle timeout) and the whole request (deadline).

use super::{ANSWER_TIME, Exchange, PROBE_TIME};
use crate::error::{Error, ErrorKind, Hint};
use std::{pin::pin, time::Duration};
use tokio::time::{Instant, timeout_at};

impl Exchange<'_> {
    /// Waits for the server, at most for the idle timeout and not beyond the request's deadline.
    pub(super) fn with_idle_timeout<F: Future>(&self, future: F) -> impl Future<Output = Result<F::Output, Error>> {
        self.with_idle_timeout_since(Instant::now(), future)
    }

    /// Like [`Self::with_idle_timeout`], but the idle timeout counts from `since`, when the server was last heard.
    pub(super) fn with_idle_timeout_since<F: Future>(
        &self,
        since: Instant,
        future: F,
    ) -> impl Future<Output = Result<F::Output, Error>> {
        self.until(move || self.idle_deadline(since).into_iter().chain(self.deadline()).min(), future)
    }

    /// Waits for the bridge itself, not beyond the request's deadline.
    pub(super) fn with_deadline<F: Future>(&self, future: F) -> impl Future<Output = Result<F::Output, Error>> {
        self.until(|| self.deadline(), future)
    }

    /// Waits for `future` until `limit`, which may return a later time when it is asked again.
    pub(super) async fn until<F: Future>(
        &self,
        limit: impl Fn() -> Option<Instant>,
        future: F,
    ) -> Result<F::Output, Error> {
        let mut future = pin!(future);
        while let Some(now) = limit() {
            match timeout_at(now, &mut future).await {
                Ok(output) => return Ok(output),
                Err(_) if limit().is_none_or(|later| later > now) => {}
                Err(_) => return Err(self.deadline_error()),
            }
        }
        Ok(future.await)
    }

    /// Returns the end of the idle timeout if the server was last heard at `since`.
    pub(super) fn idle_deadline(&self, since: Instant) -> Option<Instant> {
        let since = self.client_took_until().map_or(since, |until| since.max(until));
        since.checked_add(self.bridge.timeouts.idle)
    }

    /// Returns the time by which the request must be answered, if there is a limit.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let deadline = self.deadline?;
        let later = self.client_took_until().zip(self.bridge.timeouts.total);
        Some(later.and_then(|(until, total)| until.checked_add(total)).map_or(deadline, |later| deadline.max(later)))
    }

    /// Returns the time until which the server waited for the client, if it did. That time does not count against the
    /// server.
    pub(super) fn client_took_until(&self) -> Option<Instant> {
        self.pending.held()?.client_took_until()
    }

    /// Returns the time left for the request, if there is a limit, without [`ANSWER_TIME`].
    pub(super) fn time_left(&self) -> Option<Duration> {
        let left = self.deadline()?.saturating_duration_since(Instant::now());
        Some(left.saturating_sub(ANSWER_TIME))
    }

    pub(super) fn has_time_for(&self, wait: Duration) -> bool {
        self.deadline().is_none_or(|deadline| Instant::now().checked_add(wait).is_some_and(|then| then < deadline))
    }

    pub(super) fn deadline_error(&self) -> Error {
        let timeouts = &self.bridge.timeouts;
        let is_probe = !self.pending.is_own() && self.message.method() == "server/discover";
        let is_probe = is_probe && timeouts.total.is_none_or(|total| total > PROBE_TIME);
        let error = |summary| Error::new(ErrorKind::Timeout, summary);
        match self.deadline() {
            Some(deadline) if deadline <= Instant::now() && is_probe => {
                error(format!("no answer to the probe within {} s", PROBE_TIME.as_secs()))
            }
            Some(deadline) if deadline <= Instant::now() => {
                let seconds = timeouts.total.unwrap_or_default().as_secs_f64();
                error(format!("no answer within {seconds} s")).with_hint(Hint::TotalTime)
            }
            _ => {
                let seconds = timeouts.idle.as_secs_f64();
                error(format!("the server was silent for {seconds} s")).with_hint(Hint::IdleTime)
            }
        }
    }
}
