//! Answers for a server that is not there: the handshake and lists provisionally, and holds other requests until the
//! server is there ([`crate::call::attachment`]).
//!
//! Rule: a held request was not sent, so it holds no permit, and its error says that it has not run.

use std::{pin::pin, time::Duration};

use tokio::time::{Instant, sleep_until, timeout};

use super::{Exchange, Next, PROBE_TIME};
#[cfg(feature = "oauth")]
use crate::call::sign_in_prompt;
use crate::{
    call::{
        Bridge, attachment, incoming,
        provisional::{self, Absence},
    },
    error::{Error, ErrorKind, Fate},
    server::kept,
    wire::{
        message::{Kind, Message},
        revision::Era,
    },
};

/// The pause between two attempts to send a held request.
const HELD_PAUSE: Duration = Duration::from_secs(1);

impl Exchange<'_> {
    /// Delivers a client's handshake. If the server is not there in time, the client gets a provisional answer; the
    /// handshake goes on, and the bridge uses the server's answer when it comes.
    pub(super) async fn deliver_handshake(&mut self) -> Result<(), Error> {
        let (bridge, pending, request) = (self.bridge, self.pending, self.message.clone());
        let epoch = bridge.server.session().epoch();
        // Later messages wait until the client has an answer, not until the server's has come.
        let hold = self.lane.hold.clone();
        let wait = bridge.timeouts.attach.map(|wait| if self.is_initialize() { wait } else { wait.min(PROBE_TIME) });
        let outcome = {
            let mut delivery = pin!(self.deliver());
            let in_time = match wait {
                Some(wait) => timeout(wait, &mut delivery).await.ok(),
                None => Some((&mut delivery).await),
            };
            if let Some(outcome) = in_time {
                outcome
            } else {
                // A server that is silent to a probe usually speaks the older protocol. The probe then fails, and the
                // client falls back.
                let is_silent = request.method() == "server/discover" && pending.delivery.may_have_arrived();
                if !is_silent && attachment::promise(bridge, &request, pending, epoch, absence_now(bridge)).await {
                    drop(hold);
                }
                delivery.await
            }
        };
        let error = match outcome {
            Err(error) if pending.is_promised() || self.can_wait(&error) => error,
            Ok(()) if pending.is_promised() && !pending.is_answered() => attachment::refused("no answer came"),
            outcome => return outcome,
        };
        let is_promised =
            pending.is_promised() || attachment::promise(bridge, &request, pending, epoch, absence(&error)).await;
        if !is_promised {
            return Err(error);
        }
        if self.is_initialize() && !pending.is_answered() {
            attachment::keep_trying(bridge, Some(error));
        }
        Ok(())
    }

    /// Handles a message of a client with a provisional session, which the server does not know.
    pub(super) async fn attempt_provisionally(&mut self) -> Result<Next, Error> {
        let bridge = self.bridge;
        if self.message.kind() != Kind::Request {
            // It has no receiver, and no one waits for its receipt.
            #[cfg(feature = "oauth")]
            sign_in_prompt::show(bridge);
            return Ok(Next::Done);
        }
        if let Some(pong) = provisional::pong(&self.message) {
            incoming::answer_provisionally(bridge, self.pending, pong).await;
            return Ok(Next::Done);
        }
        if kept::list_member(self.message.method()).is_none() {
            return self.hold(bridge.timeouts.hold).await;
        }
        if bridge.server.kept.result(&self.message).is_none() {
            // Nothing is known; the server may come in time.
            match self.hold(bridge.timeouts.attach.unwrap_or_default().min(bridge.timeouts.hold)).await {
                Err(error) if error.is_absence() || is_sign_in(&error) => {}
                next => return next,
            }
        }
        self.give_list().await;
        Ok(Next::Done)
    }

    /// Sends a modern client's request for a list, once. If the server is not there, answers with the list of last time.
    pub(super) async fn attempt_modern_list(&mut self) -> Result<Next, Error> {
        let wait = self.bridge.timeouts.attach.unwrap_or_default();
        match timeout(wait, Box::pin(self.attempt_modern())).await {
            Ok(Err(error)) if error.is_absence() || is_sign_in(&error) => {}
            Ok(next) => return next,
            Err(_) => {}
        }
        self.give_list().await;
        Ok(Next::Done)
    }

    /// True if this asks for a list while a modern client has only a provisional answer.
    pub(super) fn is_provisional_list(&self) -> bool {
        self.bridge.calls.attachment.is_promised_to_modern()
            && !self.pending.is_own()
            && self.message.era() == Era::Modern
            && kept::list_member(self.message.method()).is_some()
    }

    /// Returns the pause before another attempt to reach the server, once the usual ones are used up. `None` if the
    /// request does not wait any longer.
    pub(super) fn held_pause(&mut self, error: &Error) -> Option<Duration> {
        if !self.is_held() || !error.is_unreached() {
            return None;
        }
        let is_endless =
            self.message.method() == "subscriptions/listen" && self.bridge.calls.attachment.is_promised_to_modern();
        let until = self.unreached_since.get_or_insert_with(Instant::now).checked_add(self.bridge.timeouts.hold);
        let has_time = is_endless || until.is_none_or(|until| Instant::now() + HELD_PAUSE < until);
        has_time.then_some(HELD_PAUSE)
    }

    /// Returns the error of a request that has failed for good. It says how long the request waited for the server.
    pub(super) fn after_hold(&self, error: Error) -> Error {
        match self.unreached_since.filter(|_| self.is_held() && error.is_unreached() && error.fate() != Fate::Final) {
            Some(since) => error.after_waiting(since.elapsed()),
            None => error,
        }
    }

    /// True if the request waits for a server that cannot be reached, longer than the usual retries take.
    fn is_held(&self) -> bool {
        let is_waiting = self.pending.purpose.is_held && !self.bridge.timeouts.hold.is_zero();
        is_waiting && self.message.kind() == Kind::Request && !is_handshake(&self.message)
    }

    /// Answers with the list of last time, or an empty one.
    async fn give_list(&self) {
        let bridge = self.bridge;
        let last = bridge.server.kept.result(&self.message);
        bridge.calls.attachment.gave(&self.message, last.is_some());
        if let Some(list) = provisional::list(&self.message, last.as_deref()) {
            incoming::answer_provisionally(bridge, self.pending, list).await;
        }
    }

    /// Holds the request until the server is there, up to `patience`.
    ///
    /// # Errors
    /// The server is still away, it refuses the client's handshake, or the user must sign in first.
    async fn hold(&mut self, patience: Duration) -> Result<Next, Error> {
        let bridge = self.bridge;
        self.permit = None;
        let since = *self.unreached_since.get_or_insert_with(Instant::now);
        let outcome = self.with_deadline(self.server_is_there(since, patience)).await?;
        if !outcome.map_err(|error| error.with_may_have_run(false))? {
            return Ok(Next::Done);
        }
        self.permit = self.with_deadline(bridge.calls.permits.acquire(self.lane.share)).await??;
        Ok(Next::Again)
    }

    /// Returns true when the server is there, or false if the request was cancelled before.
    async fn server_is_there(&self, since: Instant, patience: Duration) -> Result<bool, Error> {
        let bridge = self.bridge;
        let mut outcome = bridge.calls.attachment.hurry();
        let until = since.checked_add(patience).unwrap_or(since);
        let mut why = outcome.borrow_and_update().clone();
        while bridge.server.session().is_provisional() {
            tokio::select! {
                biased;
                () = self.pending.withdrawn() => return Ok(false),
                changed = outcome.changed() => {
                    let error = outcome.borrow_and_update().clone().filter(|_| changed.is_ok());
                    match error {
                        Some(error) if !error.is_absence() => return Err(error),
                        error => why = error.or(why),
                    }
                }
                () = bridge.client.input_over() => return Err(not_there(why, since)),
                () = sleep_until(until) => return Err(not_there(why, since)),
            }
        }
        Ok(true)
    }

    /// True if the client of a handshake that failed like this should get a provisional answer.
    fn can_wait(&self, error: &Error) -> bool {
        let attaches = self.bridge.timeouts.attach.is_some() && !self.bridge.client.has_ended_input();
        let is_silent = !self.is_initialize() && error.is_timeout();
        is_sign_in(error) || attaches && error.is_absence() && !is_silent
    }
}

/// True for the message with which a client of either era begins.
fn is_handshake(message: &Message) -> bool {
    matches!(message.method(), "initialize" | "server/discover") && message.kind() == Kind::Request
}

#[cfg(feature = "oauth")]
fn is_sign_in(error: &Error) -> bool {
    error.is_sign_in()
}

#[cfg(not(feature = "oauth"))]
fn is_sign_in(_: &Error) -> bool {
    false
}

/// Returns why the server does not answer, by the error of an attempt.
fn absence(error: &Error) -> Absence {
    if is_sign_in(error) { Absence::SignIn } else { Absence::Away }
}

/// Returns why the server does not answer, while an attempt is under way.
fn absence_now(bridge: &Bridge) -> Absence {
    #[cfg(feature = "oauth")]
    if bridge.server.requests.credentials.sign_in().is_some_and(|sign_in| sign_in.shown().is_some()) {
        return Absence::SignIn;
    }
    let _ = bridge;
    Absence::Away
}

/// Returns the error of a request that has waited for the server in vain.
fn not_there(why: Option<Error>, since: Instant) -> Error {
    let silent = || Error::new(ErrorKind::Timeout, "it has not answered the client's handshake");
    let why = why.unwrap_or_else(silent);
    // The time for other attempts is over.
    why.after_waiting(since.elapsed()).with_fate(Fate::Final)
}
