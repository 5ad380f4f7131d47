//! An exchange: one message, from its turn to be sent until it is finished.
//!
//! ```text
//!  waiting ── turn and permit ──> attempting ── reply ──> following ── response ──> done
//!     │                             ▲    │                 │    ▲ │
//!     │ cancelled                   │    │ failure, refusal│    └─┘ stream broke: resume
//!     ▼                             │    ▼                 │
//!    done              a remedy, or a wait for a retry <───┘
//!                                        │ nothing helps
//!                                        ▼
//!                                      failed: an error response
//! ```
//!
//! A request is finished when it has its response, any other message when the server has accepted it. The life of an
//! exchange ([`run`]):
//!
//! 1. Wait for the message's turn ([`Lane`]): for earlier messages that must come first, then for a permit. A message
//!    that is cancelled while it waits is never sent.
//! 2. Make an attempt. A message in the server's protocol is sent as it is (`streamable_http`, `http_sse`, `modern`).
//!    Any other message is translated (`to_modern`, `to_legacy`).
//! 3. Follow the reply. `incoming` hands on each message in it, and answers the request when its response arrives. A
//!    legacy stream that broke is resumed (R32).
//! 4. Make another attempt if that can help (`refusals`):
//!    - in a new session, if the server has lost the old one (R38);
//!    - with new credentials, if the server refuses the old ones;
//!    - in the other protocol or over the other transport, if the server turns out to speak that (R54);
//!    - after a wait, if the message cannot have run or does no harm (R96).
//! 5. Conclude. A failed request gets an error response; any other failure becomes a line in the log.
//!
//! Rules: Each request gets exactly one response, if need be an error from the bridge (R5). A silent server delays it
//! for a limited time only (R44, `deadlines`).

mod attach;
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
    call::{Bridge, call_table::Pending, heartbeat::Heartbeat, incoming, lane::Lane},
    config::ClientEra,
    error::{Error, ErrorKind, Fate},
    random::random,
    server::{
        protocol::TranslationRoute,
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

/// Time limit for sending the cancellation of a request that timed out.
const CANCELLATION_TIME: Duration = Duration::from_secs(5);
/// The part of a request's time that is reserved for the error response of the bridge.
const ANSWER_TIME: Duration = Duration::from_millis(500);
/// Time limit for `server/discover`, the client's probe for the modern protocol.
const PROBE_TIME: Duration = Duration::from_secs(4);
/// The most times one message is sent again at once. Each remedy helps once, but other messages may set up new
/// sessions meanwhile.
const MAX_IMMEDIATE_RETRIES: u32 = 16;

/// Runs an exchange from start to end. `pending` is the message's entry in the call table; this function removes it.
pub(crate) async fn run(bridge: &Arc<Bridge>, message: Message, pending: &Arc<Pending>, lane: Lane) {
    let total = match message.method() {
        // A client that sends `server/discover` falls back to `initialize`, so answer quickly (R79).
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
        unreached_since: None,
    };
    let heartbeat = bridge.timeouts.heartbeat.filter(|_| !pending.is_own());
    let _heartbeat = heartbeat.and_then(|every| Heartbeat::start(bridge, pending, &exchange.message, every));
    let guard = Guard { bridge, pending };
    let outcome = exchange.carry().await;
    exchange.conclude(outcome).await;
    drop(guard);
}

/// Answers the request if the exchange panics.
struct Guard<'a> {
    bridge: &'a Arc<Bridge>,
    pending: &'a Arc<Pending>,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let error = Error::new(ErrorKind::Internal, "the bridge failed internally on this request; please report it");
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

/// Like [`run`], for a message of the bridge. Boxed, because an exchange may itself wait for such a message.
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
    /// An earlier attempt may have made the server act.
    may_have_run: bool,
    /// When the reply last brought any bytes.
    heard: Instant,
    /// The remedies tried so far. Each helps once or not at all.
    remedies: Vec<Remedy>,
    /// The last acknowledgement of a subscription. The client has seen it (R74).
    acknowledged: Option<Message>,
    /// The response that showed that the server speaks the other protocol. The client gets it if the server turns out
    /// not to.
    refusal: Option<Message>,
    /// The reply was the event stream of HTTP+SSE, and has named the endpoint (R50).
    names_endpoint: bool,
    /// The epoch of the session in which the message was last sent.
    sent_in: u64,
    /// The reply says that this session is gone.
    lost_session: bool,
    /// When the server could not be reached for the first time.
    unreached_since: Option<Instant>,
}

/// A remedy for a refusal, tried before the message is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Remedy {
    NewSession,
    NewCredentials,
    /// Credentials with more scopes.
    MoreScope,
    /// A new list of the server's tools (R64).
    NewList,
    OtherProtocol,
}

/// The outcome of an attempt that did not fail.
enum Next {
    /// The exchange is finished.
    Done,
    /// The obstacle is gone: send the message again at once.
    Again,
}

impl Exchange<'_> {
    async fn carry(&mut self) -> Result<(), Error> {
        #[cfg(feature = "oauth")]
        if !self.sign_in_is_over().await? {
            return Ok(());
        }
        if !self.wait_for_turn().await? {
            return Ok(());
        }
        let (bridge, pending) = (self.bridge, self.pending);
        let ends_when_cancelled = self.ends_when_cancelled();
        let delivery = async {
            match self.message.method() {
                "initialize" | "server/discover" if !pending.is_own() => Box::pin(self.deliver_handshake()).await,
                "notifications/initialized" if !pending.is_own() && bridge.calls.attachment.takes_initialized() => {
                    #[cfg(feature = "oauth")]
                    sign_in_prompt::show(bridge);
                    Ok(())
                }
                _ => self.deliver().await,
            }
        };
        tokio::select! {
            biased;
            // In the modern protocol, ending the exchange cancels the request (R69).
            () = pending.withdrawn(), if ends_when_cancelled => Ok(()),
            outcome = delivery => outcome,
        }
    }

    async fn deliver(&mut self) -> Result<(), Error> {
        let mut again = 0;
        loop {
            let error = match self.attempt().await {
                Ok(Next::Done) => return Ok(()),
                Ok(Next::Again) if again < MAX_IMMEDIATE_RETRIES => {
                    again += 1;
                    continue;
                }
                Ok(Next::Again) => {
                    let summary = "the server refuses the message again and again, each time for another reason";
                    return Err(Error::new(ErrorKind::InvalidAnswer, summary));
                }
                Err(error) => error,
            };
            let written = self.pending.delivery.may_have_arrived();
            if error.is_timeout() && written {
                // HTTP/2 requests share connections: keep the next one off a connection that does not respond.
                self.bridge.server.requests.discard_connections();
            }
            let error = if written || error.fate() == Fate::Final { error } else { error.with_fate(Fate::Unread) };
            // An error of a request made for this one already says whether it may have run.
            if written && error.may_have_run().is_none() && may_have_acted(&error) {
                self.may_have_run = true;
            }
            let method = self.message.method();
            let is_unreached = error.is_connect();
            if error.is_unreached() {
                self.bridge.calls.attachment.lost_sight();
                self.unreached_since.get_or_insert_with(Instant::now);
            }
            let usual = self.tries.next_wait(&error, method, random());
            let wait = usual.or_else(|| self.held_pause(&error)).filter(|wait| self.has_time_for(*wait));
            // A `tools/list` for a call is not retried here: the call retries and lists again.
            let is_anothers = is_unreached && !self.pending.purpose.is_retried;
            let is_wanted = self.message.kind() == Kind::Request || error.fate() == Fate::Unread;
            let Some(wait) = wait.filter(|_| is_wanted && !is_anothers) else {
                return Err(self.after_hold(error));
            };
            tracing::debug!(method = self.message.method(), error = %error, ?wait, "tried again");
            self.permit = None;
            if is_unreached && self.message.kind() != Kind::Request {
                // Later messages meet the same failure, and need not wait for this one.
                self.lane.hold = None;
            }
            if !self.may_have_run {
                // If the bridge ends now, it can report that nothing has run.
                self.pending.delivery.begin();
            }
            tokio::select! {
                biased;
                // Nothing is in flight, so there is nothing to cancel.
                () = self.pending.withdrawn() => return Ok(()),
                () = self.bridge.client.input_over(), if is_unreached => return Err(error),
                () = sleep(wait) => {}
            }
            self.permit = self.with_deadline(self.bridge.calls.permits.acquire(self.lane.share)).await??;
        }
    }

    /// Waits until the message may be sent. Returns false if it need not be sent any more.
    async fn wait_for_turn(&mut self) -> Result<bool, Error> {
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
        let (wanted, permit) = self.with_deadline(turn).await??;
        self.permit = permit;
        Ok(self.pending.start() && wanted)
    }

    /// Makes one attempt: sends the message and follows the reply.
    async fn attempt(&mut self) -> Result<Next, Error> {
        let bridge = self.bridge;
        let translation_route =
            if self.pending.is_own() { TranslationRoute::Direct } else { bridge.translation_route(&self.message) };
        if self.is_refused_probe(translation_route) {
            incoming::answer(bridge, self.pending, modern_to_legacy::no_discovery(&self.message)).await;
            return Ok(Next::Done);
        }
        match translation_route {
            TranslationRoute::Direct if self.is_provisional_list() => {
                return Box::pin(self.attempt_modern_list()).await;
            }
            TranslationRoute::Direct if self.era() == Era::Modern => return self.attempt_modern().await,
            TranslationRoute::Direct => {}
            TranslationRoute::ToModern => return self.attempt_to_modern().await,
            TranslationRoute::ToLegacy => {
                return match self.attempt_to_legacy().await {
                    // The session is gone because the server has become a modern one (R56).
                    Err(error) if error.is_session_lost() && !self.may_have_run && self.is_direct() => Ok(Next::Again),
                    outcome => outcome,
                };
            }
        }
        if self.pending.purpose.waits_for_session && !self.is_initialize() {
            if bridge.server.session().is_provisional() {
                return Box::pin(self.attempt_provisionally()).await;
            }
            if bridge.calls.renewal.is_under_way() {
                self.with_deadline(bridge.calls.renewal.over()).await?;
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

    /// Returns the outcome of an attempt after its reply has ended.
    fn step(&self) -> Next {
        if self.is_refused() { Next::Again } else { Next::Done }
    }

    /// True if the reply makes another attempt necessary, so the rest of it does not matter.
    fn needs_another_attempt(&self) -> bool {
        self.is_refused() || self.lost_session || self.names_endpoint
    }

    /// True if the response leads to the other protocol.
    fn is_refused(&self) -> bool {
        self.refusal.is_some() && !self.has_tried(Remedy::OtherProtocol) && !self.pending.is_answered()
    }

    /// Ends the exchange. An error becomes the request's response, or a line in the log.
    async fn conclude(mut self, outcome: Result<(), Error>) {
        self.pending.delivery.close();
        let unwanted = self.pending.is_answered() || self.pending.is_cancelled();
        let mut expired = false;
        match (outcome, self.pending.id()) {
            (Err(error), Some(id)) if !unwanted && self.pending.claim_answer() => {
                expired = error.is_timeout() && self.may_have_run;
                // If a request made for this one failed, its attempts count.
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
        // Dropping the sender tells a caller that no response will come.
        drop(self.pending.take_caller());
        // `initialize` must not be cancelled, and ending a modern request's exchange cancels it (R69). An open call is
        // cancelled by its `CallHandle`.
        let ends_unsaid = self.is_initialize() || self.bridge.cancels_by_closing(self.pending);
        let is_told = expired && !ends_unsaid && self.pending.held().is_none();
        let cancellation = is_told.then(|| self.bridge.calls.table.insert_receipt());
        self.bridge.calls.table.remove(self.pending);
        self.release();
        if let Some(cancellation) = cancellation {
            Box::pin(self.cancel_upstream(&cancellation)).await;
            self.bridge.calls.table.remove(&cancellation);
        }
    }

    /// Gives up the permit and the hold, so that waiting messages can go on.
    fn release(&mut self) {
        self.permit = None;
        self.lane.hold = None;
    }

    /// Sends the server a cancellation of this request, which timed out.
    async fn cancel_upstream(&self, pending: &Pending) {
        let (bridge, Some(id)) = (self.bridge, self.pending.id()) else { return };
        let cancel = async {
            let target = match bridge.server.transport.current() {
                Transport::Http => None,
                Transport::Sse => Some(bridge.server.push_stream.endpoint(CANCELLATION_TIME).await?.0),
            };
            let session = |headers: &mut HeaderMap| bridge.server.session().apply(headers);
            bridge
                .server
                .requests
                .post(target.as_ref(), cancellation(id, "timed out"), false, session, &pending.delivery)
                .await
        };
        if !matches!(timeout(CANCELLATION_TIME, cancel).await, Ok(Ok(_))) {
            tracing::debug!(id = ?id, "the cancellation of a request that timed out was not accepted");
        }
    }

    /// True if ending the exchange cancels the request, without a notification.
    fn ends_when_cancelled(&self) -> bool {
        !self.pending.is_own() && self.message.kind() == Kind::Request && self.bridge.cancels_by_closing(self.pending)
    }

    /// True if this is a client's probe for the modern protocol that should fail because the server speaks the legacy
    /// one. The client then speaks it too, and loses no features in translation. A client that has used the modern
    /// protocol keeps it.
    fn is_refused_probe(&self, translation_route: TranslationRoute) -> bool {
        let is_probe = !self.pending.is_own() && self.message.method() == "server/discover";
        is_probe
            && match self.bridge.client.era {
                ClientEra::Auto => {
                    translation_route == TranslationRoute::ToLegacy && !self.bridge.server.session().is_for_modern()
                }
                ClientEra::Legacy => true,
                ClientEra::Modern => false,
            }
    }

    /// Marks a remedy as tried. Returns true if it was not tried before.
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

    /// True if the message would now be sent untranslated.
    fn is_direct(&self) -> bool {
        self.bridge.translation_route(&self.message) == TranslationRoute::Direct
    }

    /// True if the server has become a modern one since this legacy message was read.
    fn is_behind(&self) -> bool {
        !self.pending.is_own() && self.bridge.translation_route(&self.message) == TranslationRoute::ToModern
    }

    /// Returns the protocol that the message is sent in. A notification does not name its protocol, so the purpose can
    /// set it.
    fn era(&self) -> Era {
        if self.pending.purpose.is_modern { Era::Modern } else { self.message.era() }
    }

    fn is_initialize(&self) -> bool {
        self.message.kind() == Kind::Request && self.message.method() == "initialize"
    }
}

/// True if the server may have acted on the request that failed with this error.
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
