//! One message from the client: wait for its turn, send it, follow the reply, and see that a request is answered
//! exactly once, be it by an error of our own (R5).

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::StatusCode;
use tokio::{
    sync::SemaphorePermit,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    bridge::{Bridge, Lane},
    codec::Decoder,
    error::{Error, Kind as Fault},
    message::{Kind, Message, Parsed, cancellation, error_reply},
    pending::Pending,
    transport::{Delivery, Reply},
};

/// The longest error page that is looked at for a JSON-RPC error.
const LONGEST_ERROR_BODY: usize = 1 << 20;
/// How long it may take to arrive.
const ERROR_BODY_TIME: Duration = Duration::from_secs(2);
/// How long the server may take to accept the cancellation of a request that timed out.
const CANCELLATION_TIME: Duration = Duration::from_secs(5);

/// Carries one message to its end. `pending` is its entry in the bridge's table, which this removes.
pub(crate) async fn run(bridge: &Bridge, message: Message, pending: &Arc<Pending>, lane: Lane) {
    let deadline = bridge.timeouts.total.and_then(|total| Instant::now().checked_add(total));
    let mut exchange = Exchange { bridge, message, pending, lane, permit: None, deadline };
    let outcome = exchange.carry().await;
    exchange.conclude(outcome).await;
}

struct Exchange<'a> {
    bridge: &'a Bridge,
    message: Message,
    pending: &'a Arc<Pending>,
    lane: Lane,
    permit: Option<SemaphorePermit<'a>>,
    deadline: Option<Instant>,
}

impl Exchange<'_> {
    async fn carry(&mut self) -> Result<(), Error> {
        if !self.turn_comes().await? {
            return Ok(());
        }
        let is_initialize = self.is_initialize();
        let bridge = self.bridge;
        let session = |headers: &mut _| {
            if !is_initialize {
                bridge.session().apply(headers);
            }
        };
        let post = bridge.transport.post(self.message.bytes().clone(), session, &self.pending.delivery);
        let reply = self.in_time(post).await??;
        tracing::debug!(method = self.message.method(), status = reply.status().as_u16(), "reply");
        if !reply.status().is_success() {
            return self.refused(reply).await;
        }
        if is_initialize {
            bridge.session().open(reply.session_id());
        } else if self.message.kind() != Kind::Request {
            // The server has it: what must come after it may go.
            self.lane.hold = None;
        }
        self.follow(reply).await
    }

    /// Waits until the message may be sent. False if there is no need to any more.
    async fn turn_comes(&mut self) -> Result<bool, Error> {
        let Lane { gate, follows, counts, .. } = &mut self.lane;
        let (gate, follows, counts) = (gate.take(), follows.take(), *counts);
        let turn = async {
            if let Some(gate) = gate {
                gate.opened().await;
            }
            if let Some(target) = follows
                && !target.decided().await
            {
                return (false, None);
            }
            // The semaphore is never closed.
            let permit = if counts { self.bridge.permits.acquire().await.ok() } else { None };
            (true, permit)
        };
        let turn = async {
            tokio::select! {
                biased;
                () = self.pending.withdrawn() => (false, None),
                turn = turn => turn,
            }
        };
        let (wanted, permit) = match self.deadline {
            None => turn.await,
            Some(deadline) => timeout_at(deadline, turn).await.map_err(|_| self.out_of_time())?,
        };
        self.permit = permit;
        Ok(self.pending.start() && wanted)
    }

    /// Hands on the messages of a successful reply as they come.
    async fn follow(&mut self, mut reply: Reply) -> Result<(), Error> {
        let status = reply.status();
        let mut decoder = Decoder::new(reply.content_type(), self.bridge.limits.incoming);
        let mut broken = None;
        loop {
            match self.in_time(reply.chunk()).await? {
                Ok(Some(chunk)) => decoder.feed(chunk)?,
                Ok(None) => break,
                Err(error) => {
                    broken = Some(error);
                    break;
                }
            }
            self.deliver(&mut decoder).await;
        }
        decoder.finish(broken.is_none());
        self.deliver(&mut decoder).await;
        if self.message.kind() != Kind::Request || self.pending.is_answered() {
            return Ok(());
        }
        Err(broken.or_else(|| decoder.take_rejected()).unwrap_or_else(|| no_answer(status)))
    }

    /// A reply whose status says no: a JSON-RPC error in it is the server's answer (R7, R67).
    async fn refused(&mut self, mut reply: Reply) -> Result<(), Error> {
        let status = reply.status();
        let error = status_error(status).with_retry_after(reply.retry_after());
        let body = Self::error_body(&mut reply).await;
        if let (Some(id), Ok(Parsed::One(answer))) = (self.pending.id(), Message::parse(&body))
            && answer.kind() == Kind::Response
        {
            // Whatever id the server has put there, it can only mean this request.
            let own = answer.id().is_some_and(|theirs| theirs.identical(id));
            let answer = if own { answer } else { answer.with_id(id) };
            self.answer(self.pending, answer).await;
            return Ok(());
        }
        Err(error.with_detail(&String::from_utf8_lossy(&body)))
    }

    /// What can be had of an error's body: if it breaks off, stalls or is too long, its beginning.
    async fn error_body(reply: &mut Reply) -> Bytes {
        let mut body = Vec::new();
        let gather = async {
            while body.len() < LONGEST_ERROR_BODY
                && let Ok(Some(chunk)) = reply.chunk().await
            {
                body.extend_from_slice(&chunk);
            }
        };
        let _ = timeout(ERROR_BODY_TIME, gather).await;
        body.into()
    }

    /// Hands on what the decoder has.
    async fn deliver(&mut self, decoder: &mut Decoder) {
        while let Some(message) = decoder.next() {
            self.hand_on(message).await;
        }
        if self.pending.is_answered() {
            // The stream may go on for long; nobody has to wait for that.
            self.release();
        }
    }

    /// One message from the server.
    async fn hand_on(&self, message: Message) {
        if message.kind() != Kind::Response {
            // Progress after the answer upsets clients: its token is no longer known to them.
            if !(self.pending.is_answered() && message.method() == "notifications/progress") {
                self.bridge.output.send(message.into_line()).await;
            }
            return;
        }
        let theirs = message.id().filter(|id| !id.is_null());
        let target = match (self.pending.id(), theirs) {
            (Some(own), Some(theirs)) if own.same(theirs) || own.same_when_rounded(theirs) => {
                Some(self.pending.clone())
            }
            // An error without an id belongs to the request whose reply it stands in (R7).
            (Some(_), None) => Some(self.pending.clone()),
            (_, Some(theirs)) => self.bridge.table.find(theirs),
            (None, None) => None,
        };
        let Some((target, id)) = target.as_ref().and_then(|target| Some((target, target.id()?))) else {
            tracing::debug!(id = ?message.id(), "an answer that nobody waits for; dropped");
            return;
        };
        let own = message.id().is_some_and(|theirs| theirs.identical(id));
        self.answer(target, if own { message } else { message.with_id(id) }).await;
    }

    /// Puts the answer to a request out, unless it had one (R36).
    async fn answer(&self, target: &Arc<Pending>, answer: Message) {
        if !target.claim_answer() {
            tracing::debug!(id = ?target.id(), "a second answer to the same request; dropped");
            return;
        }
        if self.is_initialize()
            && let Some(version) = answer.protocol_version()
        {
            self.bridge.session().negotiated(&version);
        }
        self.bridge.output.send(answer.into_line()).await;
        self.bridge.table.remove(target);
    }

    /// The end: what went wrong becomes the request's answer, or a line in the log.
    async fn conclude(mut self, outcome: Result<(), Error>) {
        self.pending.delivery.close();
        let unwanted = self.pending.is_answered() || self.pending.is_cancelled();
        let mut expired = false;
        match (outcome, self.pending.id()) {
            (Err(error), Some(id)) if !unwanted && self.pending.claim_answer() => {
                expired = error.is_timeout() && self.pending.delivery.may_have_arrived();
                let may_have_run = may_have_run(&error, &self.pending.delivery);
                let error = error.with_may_have_run(may_have_run);
                let method = self.message.method();
                tracing::info!(method, error = %error, detail = error.detail(), "request failed");
                self.bridge.output.send(error_reply(Some(id), &error)).await;
            }
            (Err(error), None) => {
                let method = self.message.method();
                tracing::warn!(method, error = %error, detail = error.detail(), "the server did not take a message");
            }
            _ => {}
        }
        let cancellation = (expired && !self.is_initialize()).then(|| self.bridge.table.insert(None));
        self.bridge.table.remove(self.pending);
        self.release();
        if let Some(cancellation) = cancellation {
            self.cancel_upstream(&cancellation).await;
            self.bridge.table.remove(&cancellation);
        }
    }

    /// Lets those go on who waited for this exchange.
    fn release(&mut self) {
        self.permit = None;
        self.lane.hold = None;
    }

    /// Tells the server that nobody waits for this request any more.
    async fn cancel_upstream(&self, pending: &Pending) {
        let Some(id) = self.pending.id() else { return };
        let session = |headers: &mut _| self.bridge.session().apply(headers);
        let post = self.bridge.transport.post(cancellation(id, "timed out"), session, &pending.delivery);
        if !matches!(timeout(CANCELLATION_TIME, post).await, Ok(Ok(_))) {
            tracing::debug!(id = ?id, "the cancellation of a request that timed out was not accepted");
        }
    }

    fn is_initialize(&self) -> bool {
        self.message.kind() == Kind::Request && self.message.method() == "initialize"
    }

    /// Waits for the server, at most for the idle time and not beyond the request's deadline.
    async fn in_time<F: Future>(&self, future: F) -> Result<F::Output, Error> {
        let silence = Instant::now().checked_add(self.bridge.timeouts.idle);
        let limit = match (silence, self.deadline) {
            (Some(silence), Some(deadline)) => silence.min(deadline),
            (Some(limit), None) | (None, Some(limit)) => limit,
            (None, None) => return Ok(future.await),
        };
        timeout_at(limit, future).await.map_err(|_| self.out_of_time())
    }

    fn out_of_time(&self) -> Error {
        let timeouts = &self.bridge.timeouts;
        let summary = match self.deadline {
            Some(deadline) if deadline <= Instant::now() => {
                let seconds = timeouts.total.unwrap_or_default().as_secs_f64();
                format!("no answer within {seconds} s; --max-time sets this limit")
            }
            _ => {
                let seconds = timeouts.idle.as_secs_f64();
                format!("the server was silent for {seconds} s; --timeout sets this limit")
            }
        };
        Error::new(Fault::Timeout, summary)
    }
}

/// Whether the server may have acted on a request that failed: not if it was never written, nor if the status says that
/// it was turned away before that.
fn may_have_run(error: &Error, delivery: &Delivery) -> bool {
    let turned_away = error.status().is_some_and(|status| {
        matches!(status, 300..=399 | 501 | 503 | 505) || (matches!(status, 400..=499) && status != 408)
    });
    delivery.may_have_arrived() && !turned_away
}

fn no_answer(status: StatusCode) -> Error {
    let status = status.as_u16();
    Error::new(Fault::NoAnswer, format!("the server ended its reply (HTTP {status}) without answering the request"))
}

fn status_error(status: StatusCode) -> Error {
    let hint = match status.as_u16() {
        300..=399 => "the redirect cannot be followed; use the final URL",
        401 | 407 => "give credentials with --auth or --header",
        403 => "check that the credentials may use this server",
        404 | 405 | 406 | 410 => "check that the URL is the server's MCP endpoint",
        408 | 425 | 429 | 503 => "try again later",
        413 => "the message is larger than the server takes",
        400..=499 => "the server does not take this message",
        _ => "the failure is the server's or of a proxy before it",
    };
    let reason = status.canonical_reason().map(|reason| format!(" {reason}")).unwrap_or_default();
    Error::new(Fault::Status, format!("the server answered HTTP {}{reason}; {hint}", status.as_u16()))
        .with_status(status)
}
