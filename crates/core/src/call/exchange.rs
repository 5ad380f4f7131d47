//! One message: wait for its turn, send it, follow the reply wherever it leads, and see that a request is answered exactly
//! once, be it by an error of our own (R5), and in bounded time while the server says nothing (R44).
//!
//! What leads on: a new session where the old one is lost (R38), new credentials where the old ones are refused, another
//! try where the message cannot have run or does no harm (R96), the rest of a stream that broke (R32), and the other
//! transport where the server is an old one (R54).

mod deadlines;
mod http_sse;
mod modern;
mod refusals;
#[cfg(feature = "oauth")]
mod sign_in;
mod streamable_http;
mod to_legacy;
mod to_modern;

use std::{pin::Pin, sync::Arc, time::Duration};

use http::{HeaderMap, StatusCode};
use tokio::{
    sync::SemaphorePermit,
    time::{Instant, sleep, timeout},
};

#[cfg(feature = "oauth")]
use crate::call::sign_in_prompt;
use crate::{
    call::{Bridge, call_table::Pending, incoming, lane::Lane, renewal},
    config::ClientEra,
    error::{Error, ErrorKind, Fate},
    random::random,
    server::{
        protocol::Road,
        retry::{self, Tries},
        transport_choice::Transport,
    },
    translate::modern_to_legacy,
    wire::{
        message::{Kind, Message},
        reply::cancellation,
        revision::Era,
    },
};

/// How long the server may take to accept the cancellation of a request that timed out.
const CANCELLATION_TIME: Duration = Duration::from_secs(5);
/// What is kept of a request's time for the answer that the bridge gives itself.
const ANSWER_TIME: Duration = Duration::from_millis(500);
/// How long a client's probe for the modern protocol may take.
const PROBE_TIME: Duration = Duration::from_secs(4);
/// How often one message is sent again because what stood in its way is gone. Each remedy helps once, but others may find
/// new sessions meanwhile.
const MOST_AGAIN: u32 = 16;
/// Carries one message to its end. `pending` is its entry in the bridge's table, which this removes.
pub(crate) async fn run(bridge: &Arc<Bridge>, message: Message, pending: &Arc<Pending>, lane: Lane) {
    let total = match message.method() {
        // Whoever asks that tries the other protocol next, and should not have to wait for it (R79).
        "server/discover" if !pending.is_own() => Some(PROBE_TIME.min(bridge.timeouts.total.unwrap_or(PROBE_TIME))),
        "subscriptions/listen" => None,
        _ => bridge.timeouts.total,
    };
    let deadline = total.and_then(|total| Instant::now().checked_add(total));
    let mut exchange = Exchange {
        bridge,
        message,
        pending,
        lane,
        permit: None,
        deadline,
        tries: Tries::new(bridge.timeouts.retry),
        may_have_run: false,
        heard: Instant::now(),
        remedies: Vec::new(),
        acknowledged: None,
        refusal: None,
        names_endpoint: false,
        sent_in: 0,
        lost_session: false,
    };
    let guard = Guard { bridge, pending };
    let outcome = exchange.carry().await;
    exchange.conclude(outcome).await;
    drop(guard);
}

/// Answers a request that a fault of ours would leave without an answer.
struct Guard<'a> {
    bridge: &'a Arc<Bridge>,
    pending: &'a Arc<Pending>,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let error = Error::new(ErrorKind::Internal, "the bridge has failed at this request; please report it");
        let error = error.with_may_have_run(self.pending.may_have_run());
        if let Some(id) = self.pending.id().filter(|_| self.pending.claim_answer()) {
            match self.pending.take_caller() {
                Some(caller) => drop(caller.send(Err(error))),
                None => self.bridge.client.output.send_now(self.bridge.client.error_reply(Some(id), &error)),
            }
        }
        self.bridge.calls.table.remove(self.pending);
    }
}

/// The same for a message of the bridge's own, which an exchange may have to wait for.
pub(crate) fn run_boxed<'a>(
    bridge: &'a Arc<Bridge>,
    message: Message,
    pending: &'a Arc<Pending>,
    lane: Lane,
) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
    Box::pin(run(bridge, message, pending, lane))
}

struct Exchange<'a> {
    bridge: &'a Arc<Bridge>,
    message: Message,
    pending: &'a Arc<Pending>,
    lane: Lane,
    permit: Option<SemaphorePermit<'a>>,
    deadline: Option<Instant>,
    tries: Tries,
    /// A try before this one may have made the server act.
    may_have_run: bool,
    /// When the server's reply last brought anything.
    heard: Instant,
    /// What was tried for it; each helps once or not at all.
    remedies: Vec<Remedy>,
    /// What the server granted to a subscription; its client has seen it (R74).
    acknowledged: Option<Message>,
    /// The answer that showed that the server speaks the other protocol; the client's if it turns out not to.
    refusal: Option<Message>,
    /// The reply was the stream of HTTP+SSE, whose endpoint it has named (R50).
    names_endpoint: bool,
    /// The session in which the message was last sent, and whether the reply says that it is gone.
    sent_in: u64,
    lost_session: bool,
}

/// What can be done about a refusal, before the message is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Remedy {
    NewSession,
    NewCredentials,
    /// Those that are good for more.
    MoreScope,
    /// The server's tools are listed anew (R64).
    NewList,
    OtherProtocol,
}

/// What one try comes to, if it does not fail.
enum Next {
    /// The message has come to its end.
    Done,
    /// Whatever stood in the way is gone; send it again at once.
    Again,
}

impl Exchange<'_> {
    async fn carry(&mut self) -> Result<(), Error> {
        #[cfg(feature = "oauth")]
        if !self.sign_in_is_over().await? {
            return Ok(());
        }
        if !self.turn_comes().await? {
            return Ok(());
        }
        let pending = self.pending;
        tokio::select! {
            biased;
            // Where the two protocols differ in it, an exchange that ends is the cancellation (R69).
            () = pending.withdrawn(), if self.ends_when_cancelled() => Ok(()),
            outcome = self.deliver() => outcome,
        }
    }

    async fn deliver(&mut self) -> Result<(), Error> {
        let mut again = 0;
        loop {
            let error = match self.attempt().await {
                Ok(Next::Done) => return Ok(()),
                Ok(Next::Again) if again < MOST_AGAIN => {
                    again += 1;
                    continue;
                }
                Ok(Next::Again) => {
                    let summary = "the server refuses the message again and again, each time in another way";
                    return Err(Error::new(ErrorKind::InvalidAnswer, summary));
                }
                Err(error) => error,
            };
            let written = self.pending.delivery.may_have_arrived();
            if error.is_timeout() && written {
                // Where HTTP/2 shares a connection, the next request would ask the same deaf one.
                self.bridge.server.requests.distrust_connections();
            }
            let error = if written || error.fate() == Fate::Final { error } else { error.with_fate(Fate::Unread) };
            // An error that was passed on knows that better.
            if written && error.may_have_run().is_none() && may_have_acted(&error) {
                self.may_have_run = true;
            }
            let method = self.message.method();
            let wait = self.tries.next_wait(&error, method, random()).filter(|wait| self.has_time_for(*wait));
            let is_unreached = error.is_connect();
            // Who needs a list for a call tries again for that.
            let is_anothers = is_unreached && !self.pending.purpose.is_retried;
            let is_wanted = self.message.kind() == Kind::Request || error.fate() == Fate::Unread;
            let Some(wait) = wait.filter(|_| is_wanted && !is_anothers) else { return Err(error) };
            tracing::debug!(method, error = %error, ?wait, "tried again");
            self.permit = None;
            if is_unreached && self.message.kind() != Kind::Request {
                // What comes after it meets the same, and need not wait for this.
                self.lane.hold = None;
            }
            if !self.may_have_run {
                // Should the bridge end now, it can say that nothing has run.
                self.pending.delivery.begin();
            }
            tokio::select! {
                biased;
                // Nothing of it is under way, so there is nothing to cancel.
                () = self.pending.withdrawn() => return Ok(()),
                () = self.bridge.client.input_over(), if is_unreached => return Err(error),
                () = sleep(wait) => {}
            }
            self.permit = self.in_time_left(self.bridge.calls.permits.acquire(self.lane.share)).await??;
        }
    }

    /// Waits until the message may be sent. False if there is no need to any more.
    async fn turn_comes(&mut self) -> Result<bool, Error> {
        let Lane { gate, follows, share, .. } = &mut self.lane;
        let (gate, follows, share) = (gate.take(), follows.take(), *share);
        let turn = async {
            if let Some(gate) = gate {
                gate.opened().await;
            }
            if let Some(target) = follows
                && !target.decided().await
            {
                return Ok((false, None));
            }
            Ok((true, self.bridge.calls.permits.acquire(share).await?))
        };
        let turn = async {
            tokio::select! {
                biased;
                () = self.pending.withdrawn() => Ok((false, None)),
                turn = turn => turn,
            }
        };
        let (wanted, permit) = self.in_time_left(turn).await??;
        self.permit = permit;
        Ok(self.pending.start() && wanted)
    }

    /// Sends the message once, and follows what comes of it.
    async fn attempt(&mut self) -> Result<Next, Error> {
        let bridge = self.bridge;
        let road = if self.pending.is_own() { Road::Direct } else { bridge.road(&self.message) };
        if self.is_refused_probe(road) {
            incoming::answer(bridge, self.pending, modern_to_legacy::no_discovery(&self.message)).await;
            return Ok(Next::Done);
        }
        match road {
            Road::Direct if self.era() == Era::Modern => return self.attempt_modern().await,
            Road::Direct => {}
            Road::ToModern => return self.attempt_to_modern().await,
            Road::ToLegacy => {
                return match self.attempt_to_legacy().await {
                    // In the place of the session that is lost the server has become a modern one (R56).
                    Err(error) if error.is_session_lost() && !self.may_have_run && self.is_direct() => Ok(Next::Again),
                    outcome => outcome,
                };
            }
        }
        if self.pending.purpose.waits_for_session && !self.is_initialize() {
            if bridge.server.session().is_provisional() {
                return self.attempt_handshake().await;
            }
            if bridge.calls.renewal.is_under_way() {
                self.in_time_left(bridge.calls.renewal.over()).await?;
            }
            if self.is_behind() {
                return Ok(Next::Again);
            }
        }
        match bridge.server.transport.current() {
            Transport::Http => self.attempt_http().await,
            Transport::Sse => Box::pin(self.attempt_sse()).await,
        }
    }

    /// The client has a session that the server knows nothing of. A request needs a real one; the rest has no addressee.
    async fn attempt_handshake(&mut self) -> Result<Next, Error> {
        if self.message.kind() != Kind::Request {
            #[cfg(feature = "oauth")]
            sign_in_prompt::show(self.bridge);
            return Ok(Next::Done);
        }
        let epoch = self.bridge.server.session().epoch();
        self.in_time_left(renewal::renew(self.bridge, epoch)).await?.map_err(|error| error.with_may_have_run(false))?;
        Ok(Next::Again)
    }

    /// What follows a reply that has come to its end.
    fn step(&self) -> Next {
        if self.is_refused() { Next::Again } else { Next::Done }
    }

    /// What came of the reply sends the message somewhere else, so that nothing more of it matters.
    fn leads_elsewhere(&self) -> bool {
        self.is_refused() || self.lost_session || self.names_endpoint
    }

    /// The answer was one that leads to the other protocol.
    fn is_refused(&self) -> bool {
        self.refusal.is_some() && !self.has_tried(Remedy::OtherProtocol) && !self.pending.is_answered()
    }

    /// The end: what went wrong becomes the request's answer, or a line in the log.
    async fn conclude(mut self, outcome: Result<(), Error>) {
        self.pending.delivery.close();
        let unwanted = self.pending.is_answered() || self.pending.is_cancelled();
        let mut expired = false;
        match (outcome, self.pending.id()) {
            (Err(error), Some(id)) if !unwanted && self.pending.claim_answer() => {
                expired = error.is_timeout() && self.may_have_run;
                // Of a request that was made for this one, its own tries count.
                let attempts = self.tries.attempts().max(error.attempts().unwrap_or_default());
                let error = error.with_may_have_run(self.may_have_run).with_attempts(attempts);
                let method = self.message.method();
                tracing::info!(method, error = %error, detail = error.detail(), "request failed");
                if let Some(caller) = self.pending.take_caller() {
                    let _ = caller.send(Err(error));
                } else {
                    #[cfg(feature = "oauth")]
                    let question = self.question_for(&error);
                    #[cfg(not(feature = "oauth"))]
                    let question = None::<Message>;
                    let answer = question
                        .map_or_else(|| self.bridge.client.error_reply(Some(id), &error).into(), Message::into_line);
                    self.bridge.client.output.send(answer).await;
                }
            }
            (Err(error), None) => {
                let method = self.message.method();
                tracing::warn!(method, error = %error, detail = error.detail(), "the server did not take a message");
            }
            _ => {}
        }
        // Whoever waits for it in vain must learn so.
        drop(self.pending.take_caller());
        // Where the end of the exchange is the cancellation, that is all (R69).
        // A call that can be held open is given up by the one who holds it.
        let ends_unsaid = self.is_initialize() || self.bridge.closes_to_cancel(self.pending);
        let is_told = expired && !ends_unsaid && self.pending.held().is_none();
        let cancellation = is_told.then(|| self.bridge.calls.table.insert_receipt());
        self.bridge.calls.table.remove(self.pending);
        self.release();
        if let Some(cancellation) = cancellation {
            Box::pin(self.cancel_upstream(&cancellation)).await;
            self.bridge.calls.table.remove(&cancellation);
        }
    }

    /// Lets those go on who waited for this exchange.
    fn release(&mut self) {
        self.permit = None;
        self.lane.hold = None;
    }

    /// Tells the server that nobody waits for this request any more.
    async fn cancel_upstream(&self, pending: &Pending) {
        let (bridge, Some(id)) = (self.bridge, self.pending.id()) else { return };
        let cancel = async {
            let target = match bridge.server.transport.current() {
                Transport::Http => bridge.server.requests.url().clone(),
                Transport::Sse => bridge.server.push_stream.endpoint(CANCELLATION_TIME).await?.0,
            };
            let session = |headers: &mut HeaderMap| bridge.server.session().apply(headers);
            bridge.server.requests.post(&target, cancellation(id, "timed out"), false, session, &pending.delivery).await
        };
        if !matches!(timeout(CANCELLATION_TIME, cancel).await, Ok(Ok(_))) {
            tracing::debug!(id = ?id, "the cancellation of a request that timed out was not accepted");
        }
    }

    /// Whether the end of the exchange is what cancels the request, in place of a notification.
    fn ends_when_cancelled(&self) -> bool {
        !self.pending.is_own() && self.message.kind() == Kind::Request && self.bridge.closes_to_cancel(self.pending)
    }

    /// Whether the client asks for the modern protocol and is to speak the other one, as its server does: so nothing is lost
    /// that the modern one does not have. Who has spoken it already stays with it.
    fn is_refused_probe(&self, road: Road) -> bool {
        let is_probe = !self.pending.is_own() && self.message.method() == "server/discover";
        is_probe
            && match self.bridge.client.era {
                ClientEra::Auto => road == Road::ToLegacy && !self.bridge.server.session().is_for_modern(),
                ClientEra::Legacy => true,
                ClientEra::Modern => false,
            }
    }

    /// Whether this remedy was not tried yet; now it is.
    fn first(&mut self, remedy: Remedy) -> bool {
        let first = !self.has_tried(remedy);
        if first {
            self.remedies.push(remedy);
        }
        first
    }

    fn has_tried(&self, remedy: Remedy) -> bool {
        self.remedies.contains(&remedy)
    }

    /// Whether the message would now go to the server as it is.
    fn is_direct(&self) -> bool {
        self.bridge.road(&self.message) == Road::Direct
    }

    /// The server has become a modern one since this legacy message set out.
    fn is_behind(&self) -> bool {
        !self.pending.is_own() && self.bridge.road(&self.message) == Road::ToModern
    }

    /// The protocol that the message is sent in; a notification does not say it itself.
    fn era(&self) -> Era {
        if self.pending.purpose.is_modern { Era::Modern } else { self.message.era() }
    }

    fn is_initialize(&self) -> bool {
        self.message.kind() == Kind::Request && self.message.method() == "initialize"
    }
}

/// Whether the server may have acted on the request that it had.
fn may_have_acted(error: &Error) -> bool {
    let is_certain = error.fate() == Fate::Unread || error.is_session_lost() || error.is_before_http();
    !is_certain && error.status().is_none_or(|status| retry::judge(status, error.retry_after()).1)
}

pub(super) fn no_answer(status: StatusCode, ended_early: bool) -> Error {
    let status = status.as_u16();
    let error = Error::new(
        ErrorKind::NoAnswer,
        format!("the server ended its reply (HTTP {status}) without answering the request"),
    );
    if ended_early { error.with_fate(Fate::Interrupted) } else { error }
}
