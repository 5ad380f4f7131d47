//! One message: wait for its turn, send it, follow the reply wherever it leads, and see that a request is answered exactly
//! once, be it by an error of our own (R5), and in bounded time while the server says nothing (R44).
//!
//! What leads on: a new session where the old one is lost (R38), new credentials where the old ones are refused, another
//! try where the message cannot have run or does no harm (R96), the rest of a stream that broke (R32), and the other
//! transport where the server is an old one (R54).

mod modern;
#[cfg(feature = "oauth")]
mod sign_in;
mod to_legacy;
mod to_modern;

use std::{
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use tokio::{
    sync::SemaphorePermit,
    time::{Instant, Sleep, sleep, timeout, timeout_at},
};

use crate::{
    bridge::Bridge,
    call::{
        call_table::{Origin, Pending},
        intake::Lane,
    },
    config::ClientEra,
    error::{Error, Fate, Kind as Fault},
    http::ServerUrl,
    server::{
        credentials::Refusal,
        requests::{Page, Reply},
        retry::{self, Reopening, Tries, only_reads},
        transport_choice::Transport,
    },
    translate::{
        eras::{self, Era, Road},
        modern_to_legacy,
    },
    wire::{
        body::Decoder,
        message::{Kind, Message, cancellation, error_reply},
    },
};

pub(crate) use self::{modern::Listing, to_modern::Events};

/// How long the server may take to accept the cancellation of a request that timed out.
const CANCELLATION_TIME: Duration = Duration::from_secs(5);
/// What is kept of a request's time for the answer that the bridge gives itself.
const ANSWER_TIME: Duration = Duration::from_millis(500);
/// How long a client's probe for the modern protocol may take.
const PROBE_TIME: Duration = Duration::from_secs(4);
/// How often one message is sent again because what stood in its way is gone. Each remedy helps once, but others may find
/// new sessions meanwhile.
const MOST_AGAIN: u32 = 16;
/// How long the end of a body may take to come that is one JSON document.
const REST_TIME: Duration = Duration::from_millis(250);
/// What is read of a reply that says nothing any more, in bytes, so that its connection can be used again.
const REMAINS: usize = 64 << 10;
/// How long that may take to arrive.
const REMAINS_TIME: Duration = Duration::from_millis(500);

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
        let error = Error::new(Fault::Internal, "the bridge has failed at this request; please report it");
        let error = error.with_may_have_run(self.pending.may_have_run());
        if let Some(id) = self.pending.id().filter(|_| self.pending.claim_answer()) {
            match self.pending.take_caller() {
                Some(caller) => drop(caller.send(Err(error))),
                None => self.bridge.output.send_now(error_reply(Some(id), &error)),
            }
        }
        self.bridge.table.remove(self.pending);
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
enum Step {
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
                Ok(Step::Done) => return Ok(()),
                Ok(Step::Again) if again < MOST_AGAIN => {
                    again += 1;
                    continue;
                }
                Ok(Step::Again) => {
                    let summary = "the server refuses the message again and again, each time in another way";
                    return Err(Error::new(Fault::InvalidAnswer, summary));
                }
                Err(error) => error,
            };
            let written = self.pending.delivery.may_have_arrived();
            if error.is_timeout() && written {
                // Where HTTP/2 shares a connection, the next request would ask the same deaf one.
                self.bridge.transport.distrust_connections();
            }
            let error = if written || error.fate() == Fate::Final { error } else { error.with_fate(Fate::Unread) };
            // An error that was passed on knows that better.
            if written && error.may_have_run().is_none() && may_have_acted(&error) {
                self.may_have_run = true;
            }
            let method = self.message.method();
            let wait = self.tries.next_wait(&error, method, retry::random()).filter(|wait| self.has_time_for(*wait));
            let is_unreached = error.is_connect();
            // Who needs a list for a call tries again for that.
            let is_anothers = is_unreached && matches!(self.pending.origin, Origin::Listing);
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
                () = self.bridge.input_over(), if is_unreached => return Err(error),
                () = sleep(wait) => {}
            }
            self.permit = self.in_time_left(self.bridge.permits.acquire(self.lane.share)).await??;
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
            Ok((true, self.bridge.permits.acquire(share).await?))
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
    async fn attempt(&mut self) -> Result<Step, Error> {
        let bridge = self.bridge;
        let road = if self.pending.is_own() { Road::Direct } else { bridge.eras().road(&self.message) };
        if self.is_refused_probe(road) {
            bridge.answer(self.pending, modern_to_legacy::no_discovery(&self.message)).await;
            return Ok(Step::Done);
        }
        match road {
            Road::Direct if self.era() == Era::Modern => return self.attempt_modern().await,
            Road::Direct => {}
            Road::ToModern => return self.attempt_to_modern().await,
            Road::ToLegacy => {
                return match self.attempt_to_legacy().await {
                    // In the place of the session that is lost the server has become a modern one (R56).
                    Err(error) if error.is_session_lost() && !self.may_have_run && self.is_direct() => Ok(Step::Again),
                    outcome => outcome,
                };
            }
        }
        if !self.pending.is_of_session() && !self.is_initialize() {
            if bridge.session().is_provisional() {
                return self.attempt_handshake().await;
            }
            if bridge.renewal.is_under_way() {
                self.in_time_left(bridge.renewal.over()).await?;
            }
            if self.is_behind() {
                return Ok(Step::Again);
            }
        }
        match bridge.route.current() {
            Transport::Http => self.attempt_http().await,
            Transport::Sse => Box::pin(self.attempt_sse()).await,
        }
    }

    /// The client has a session that the server knows nothing of. A request needs a real one; the rest has no addressee.
    async fn attempt_handshake(&mut self) -> Result<Step, Error> {
        if self.message.kind() != Kind::Request {
            #[cfg(feature = "oauth")]
            self.bridge.show_sign_in();
            return Ok(Step::Done);
        }
        let epoch = self.bridge.session().epoch();
        self.in_time_left(self.bridge.renew(epoch)).await?.map_err(|error| error.with_may_have_run(false))?;
        Ok(Step::Again)
    }

    /// Streamable HTTP: the reply to the POST holds the answer.
    async fn attempt_http(&mut self) -> Result<Step, Error> {
        let bridge = self.bridge;
        let epoch = bridge.session().epoch();
        if !self.pending.is_of_session() && !self.is_initialize() && bridge.session().stream().is_some() {
            // The session lived on a stream that the server does not offer any more (R56).
            return self.renew(epoch).await;
        }
        self.sent_in = epoch;
        let reply = self.post(bridge.transport.url()).await?;
        if !reply.status().is_success() {
            return self.refused(reply, epoch).await;
        }
        if self.is_initialize() {
            if !self.pending.is_own() {
                bridge.leave_session_for_modern();
            }
            bridge.session().open(reply.session_id(), None);
        } else {
            bridge.route.decide(Transport::Http);
        }
        self.received();
        if self.message.kind() != Kind::Request {
            self.hear_out(reply).await;
            return Ok(self.step());
        }
        self.follow(reply).await?;
        if std::mem::take(&mut self.lost_session) {
            return self.renew(epoch).await;
        }
        if !self.names_endpoint {
            bridge.route.decide(Transport::Http);
            return Ok(self.step());
        }
        // It has opened the stream of HTTP+SSE, whatever it was asked, and has not looked at the request.
        let summary = "the server answered with the stream of HTTP+SSE (2024-11-05)";
        match self.speak_sse().await? {
            None => Ok(Step::Again),
            Some(other) => Err(Error::new(Fault::InvalidAnswer, summary).with_other_way("and then", &other)),
        }
    }

    /// What follows a reply that has come to its end.
    fn step(&self) -> Step {
        if self.is_refused() { Step::Again } else { Step::Done }
    }

    /// What came of the reply sends the message somewhere else, so that nothing more of it matters.
    fn leads_elsewhere(&self) -> bool {
        self.is_refused() || self.lost_session || self.names_endpoint
    }

    /// The answer was one that leads to the other protocol.
    fn is_refused(&self) -> bool {
        self.refusal.is_some() && !self.has_tried(Remedy::OtherProtocol) && !self.pending.is_answered()
    }

    /// HTTP+SSE: the answer comes on the standing stream (R52).
    async fn attempt_sse(&mut self) -> Result<Step, Error> {
        let bridge = self.bridge;
        let (endpoint, stream) = match self.in_time_left(bridge.listener.endpoint(bridge.timeouts.idle)).await? {
            Ok(endpoint) => endpoint,
            // The server does not speak it, or no longer (R56): Streamable HTTP is what is left.
            Err(error) if error.is_refusal() && bridge.route.give_up_sse() => return Ok(Step::Again),
            Err(error) => return Err(error),
        };
        bridge.route.decide(Transport::Sse);
        let epoch = bridge.session().epoch();
        if self.is_initialize() {
            bridge.session().open(None, Some(stream));
        } else if !self.pending.is_of_session() && bridge.session().stream().is_some_and(|own| own != stream) {
            return self.renew(epoch).await;
        }
        let since = Instant::now();
        let reply = self.post(&endpoint).await?;
        if !reply.status().is_success() {
            return self.refused(reply, epoch).await;
        }
        self.received();
        if self.message.kind() != Kind::Request {
            self.read_remains(reply).await;
            return Ok(Step::Done);
        }
        let remains = async {
            self.read_remains(reply).await;
            std::future::pending::<()>().await;
        };
        let is_answered = tokio::select! {
            biased;
            is_answered = self.is_answered_elsewhere(since, Some(stream)) => is_answered?,
            () = remains => false,
        };
        if is_answered {
            return Ok(Step::Done);
        }
        Err(Error::new(Fault::Broken, "the server's event stream ended before the answer came"))
    }

    /// Waits until the answer comes on the standing stream; false if that ends before. Nobody waits for the answer of what was
    /// cancelled then. `stream` is its number over HTTP+SSE.
    async fn is_answered_elsewhere(&self, since: Instant, stream: Option<u64>) -> Result<bool, Error> {
        let listener = &self.bridge.listener;
        loop {
            let quiet_since = listener.last_traffic().max(since);
            let answered = async {
                tokio::select! {
                    biased;
                    () = self.pending.settled() => true,
                    () = listener.ended(stream) => self.pending.is_answered() || self.pending.is_cancelled(),
                }
            };
            match self.in_time_since(quiet_since, answered).await {
                Ok(answered) => return Ok(answered),
                Err(_) if listener.last_traffic() > quiet_since => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Tries HTTP+SSE, which the server may speak. Gives the error if it does not.
    async fn speak_sse(&self) -> Result<Option<Error>, Error> {
        let bridge = self.bridge;
        let opened = self.in_time_left(bridge.listener.endpoint(bridge.timeouts.idle)).await?;
        match opened {
            Ok(_) => {
                tracing::info!("the server speaks HTTP+SSE (2024-11-05)");
                bridge.route.decide(Transport::Sse);
                Ok(None)
            }
            Err(error) => {
                tracing::debug!(error = %error, "no HTTP+SSE either");
                bridge.listener.close();
                Ok(Some(error))
            }
        }
    }

    async fn post(&self, target: &ServerUrl) -> Result<Reply, Error> {
        let bridge = self.bridge;
        let bare = self.is_initialize();
        let session = |headers: &mut HeaderMap| match self.era() {
            Era::Modern => self.modern_headers(headers),
            Era::Legacy if bare => {}
            Era::Legacy => bridge.session().apply(headers),
        };
        let body = self.message.bytes().clone();
        let is_repeatable = only_reads(self.message.method());
        // Pinned here, as a future that is handed on takes its room twice, and each request has this one's.
        let post = pin!(bridge.transport.post(target, body, is_repeatable, session, &self.pending.delivery));
        let reply = self.in_time(post).await??;
        tracing::debug!(method = self.message.method(), status = reply.status().as_u16(), "reply");
        Ok(reply)
    }

    /// The server has taken the message.
    fn received(&mut self) {
        if self.message.kind() == Kind::Request {
            return;
        }
        // What must come after it may go.
        let hold = self.lane.hold.take();
        if self.message.method() == "notifications/initialized" {
            let epoch = self.bridge.session().epoch();
            self.bridge.listener.push(epoch, hold);
        }
    }

    /// A reply whose status says no: a lost session, stale credentials, an old server, or an answer (R7, R67).
    async fn refused(&mut self, mut reply: Reply, epoch: u64) -> Result<Step, Error> {
        let bridge = self.bridge;
        let status = reply.status();
        let page = reply.page(&bridge.storage, self.message.kind() == Kind::Request).await;
        let error = reply.failure(&page.text);
        let (answer, may_go_again) = self.answer_in(status, &page);
        let is_own = page.response.as_ref().is_some_and(|response| self.is_named_by(response));
        let is_of_session = !self.is_initialize() && !self.pending.is_of_session();
        let is_lost = is_of_session && bridge.session().is_lost(status, &page, !may_go_again);
        // No credentials help where it is the session that is missing.
        if !(is_lost && self.may_renew(epoch))
            && let Some(step) = self.reauthorize(reply.refusal(), may_go_again).await?
        {
            return Ok(step);
        }
        if self.is_initialize() {
            let is_about_http = status == StatusCode::METHOD_NOT_ALLOWED;
            if answer.as_ref().is_some_and(|answer| !is_about_http && self.speaks_another_era(status, answer)) {
                self.refusal = answer;
                return Ok(Step::Again);
            }
            if bridge.route.fallback(status, &page).is_some() {
                return match self.speak_sse().await? {
                    None => Ok(Step::Again),
                    #[cfg(feature = "oauth")]
                    Some(other) if other.is_about_tokens() => Err(other.with_may_have_run(false)),
                    Some(_) if let Some(answer) = answer => {
                        bridge.answer(self.pending, answer).await;
                        Ok(Step::Done)
                    }
                    Some(other) => Err(error.with_other_way("and as a server of 2024-11-05 (HTTP+SSE)", &other)),
                };
            }
        } else if is_lost {
            if !may_go_again {
                self.renew_for_others(epoch);
            } else if !is_own || self.may_renew(epoch) {
                return self.renew(epoch).await;
            }
        } else if may_go_again && self.is_behind() && matches!(status, StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST)
        {
            return Ok(Step::Again);
        }
        if let Some(answer) = answer {
            bridge.answer(self.pending, answer).await;
            return Ok(Step::Done);
        }
        Err(error)
    }

    /// Asks for new credentials where the reply refuses those that were sent, as often as that may help. Gives what
    /// follows if there are some.
    async fn reauthorize(&mut self, refusal: Refusal<'_>, may_go_again: bool) -> Result<Option<Step>, Error> {
        let credentials = &self.bridge.transport.credentials;
        let remedy = if refusal.status == StatusCode::FORBIDDEN { Remedy::MoreScope } else { Remedy::NewCredentials };
        let tries = self.remedies.iter().filter(|tried| **tried == remedy).count();
        if tries >= credentials.most_tries(refusal) {
            return Ok(None);
        }
        self.remedies.push(remedy);
        // Who asks for credentials by HTTP has not let the message through.
        if !may_go_again && !refusal.headers.contains_key(header::WWW_AUTHENTICATE) {
            if let Err(error) = credentials.renew(refusal, Some(Duration::ZERO)).await {
                tracing::debug!(error = %error, "no new credentials for the next message");
            }
            return Ok(None);
        }
        // The user may take long to sign in.
        self.permit = None;
        #[cfg(feature = "oauth")]
        self.bridge.show_sign_in();
        let renewed = tokio::select! {
            biased;
            // The server has turned the request away, so there is nothing to cancel.
            () = self.pending.withdrawn() => return Ok(Some(Step::Done)),
            renewed = credentials.renew(refusal, self.time_left()) => renewed,
        };
        let renewed = match renewed {
            #[cfg(feature = "oauth")]
            Err(error) if error.is_sign_in() && self.answer_provisionally().await => return Ok(Some(Step::Done)),
            renewed => renewed.map_err(|error| error.with_may_have_run(self.may_have_run))?,
        };
        self.permit = self.in_time_left(self.bridge.permits.acquire(self.lane.share)).await??;
        Ok(renewed.then_some(Step::Again))
    }

    /// The answer to the request in the body of a refusal, if it holds one: whatever id the server has put there, it can
    /// only mean this request. Says whether the request may be sent again, once what stood in its way is gone: not if the
    /// answer has the request's own id, and so may be that of what ran (see the table in `retry.rs`).
    fn answer_in(&self, status: StatusCode, page: &Page) -> (Option<Message>, bool) {
        let (Some(answer), Some(id)) = (&page.response, self.pending.id()) else {
            // What broke off may have been an answer as well.
            let is_about_credentials = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
            let is_known = (page.is_whole || is_about_credentials) && !status.is_server_error();
            return (None, is_known || self.is_harmless());
        };
        let is_own = self.is_named_by(answer);
        let is_protocols =
            status == StatusCode::BAD_REQUEST && answer.error().is_some_and(|(code, _)| eras::is_reserved(code));
        (Some(answer.with_id(id)), !is_own || is_protocols || self.is_harmless())
    }

    /// Whether the message may be sent twice: it only reads, or asks to be told what happens.
    fn is_harmless(&self) -> bool {
        only_reads(self.message.method()) || self.message.method() == "subscriptions/listen"
    }

    /// The session that the message was sent in is gone; it was not looked at, and goes into the next one.
    async fn renew(&mut self, epoch: u64) -> Result<Step, Error> {
        if self.message.kind() == Kind::Response {
            // It answers a question of the session that is gone.
            return Ok(Step::Done);
        }
        if !self.may_renew(epoch) {
            let summary = "the server does not know the session, and neither the one that was set up in its place";
            return Err(Error::new(Fault::SessionLost, summary));
        }
        self.first(Remedy::NewSession);
        self.in_time_left(self.bridge.renew(epoch)).await??;
        Ok(Step::Again)
    }

    /// The session of `epoch` is gone, but the message must not be sent again: the next one finds another.
    fn renew_for_others(&self, epoch: u64) {
        let bridge = Arc::clone(self.bridge);
        self.bridge.spawn(async move { drop(bridge.renew(epoch).await) });
    }

    /// Whether another session than that of `epoch` may help: there is one, or none was set up for this message yet.
    fn may_renew(&self, epoch: u64) -> bool {
        self.bridge.session().epoch() != epoch || !self.has_tried(Remedy::NewSession)
    }

    /// Hands on what the reply to a message that wants none has at once, and gives it up then: it may have no end. Its
    /// message has arrived, and makes room for the next.
    async fn hear_out(&mut self, mut reply: Reply) {
        self.permit = None;
        let bridge = self.bridge;
        let Some(_permit) = bridge.permits.for_remains().filter(|_| !reply.is_over()) else { return };
        let mut decoder = bridge.decoder(reply.content_type());
        let mut left = REMAINS;
        let read = async {
            while let Some(chunk) = reply.chunk().await? {
                left = left.saturating_sub(chunk.len());
                decoder.take_in(chunk).await?;
                self.hand_on(&mut decoder).await?;
                if left == 0 {
                    return Ok(());
                }
            }
            decoder.end(true).await;
            self.hand_on(&mut decoder).await.map(drop)
        };
        let read: Result<Result<(), Error>, _> = timeout(REMAINS_TIME, read).await;
        tracing::debug!(?read, "what came with the receipt of a message is over or given up");
    }

    /// Reads what a reply has that says nothing, as far as it may let its connection be used again.
    async fn read_remains(&self, mut reply: Reply) {
        let Some(_permit) = self.bridge.permits.for_remains().filter(|_| !reply.is_over()) else { return };
        let mut left = REMAINS;
        let read = async {
            while left > 0
                && let Ok(Some(chunk)) = reply.chunk().await
            {
                left = left.saturating_sub(chunk.len());
            }
        };
        let _ = timeout(REMAINS_TIME, read).await;
    }

    /// Hands on the messages of a successful reply as they come, to the answer and beyond.
    async fn follow(&mut self, mut reply: Reply) -> Result<(), Error> {
        let status = reply.status();
        let mut decoder = self.bridge.decoder(reply.content_type());
        let mut cursor = None;
        let mut reopening = Reopening::new(self.bridge.timeouts.reconnect);
        self.heard = Instant::now();
        loop {
            let (broken, brought) = self.read(&mut reply, &mut decoder).await?;
            let is_over = self.pending.is_answered() || self.pending.is_cancelled() || self.leads_elsewhere();
            if self.message.kind() != Kind::Request || is_over {
                return Ok(());
            }
            if status == StatusCode::ACCEPTED && self.era() == Era::Legacy && self.bridge.listener.is_pushing() {
                // The answer comes on the stream on which the server pushes.
                if self.is_answered_elsewhere(self.heard, None).await? {
                    return Ok(());
                }
            }
            cursor = decoder.last_event_id().cloned().or(cursor);
            let failure =
                broken.or_else(|| decoder.take_rejected()).unwrap_or_else(|| no_answer(status, decoder.is_sse()));
            if self.era() == Era::Modern {
                // It is lost with its stream; to repeat it is the client's business (R71).
                return Err(failure.with_fate(Fate::Final));
            }
            let Some(last_event_id) = &cursor else { return Err(failure) };
            // What the server asked for holds for the streams that follow (R33).
            reopening.ended(decoder.retry(), brought);
            let wait = reopening.wait();
            tracing::debug!(method = self.message.method(), ?wait, "the stream broke; it is taken up again");
            match Box::pin(self.resume(last_event_id, wait)).await? {
                Ok(rest) => reply = rest,
                Err(refusal) => return Err(failure.with_source(refusal)),
            }
            decoder = self.bridge.decoder(reply.content_type());
        }
    }

    /// Reads a body to its end. Gives the error that broke it off, if one did, and says whether it brought any message.
    async fn read(&mut self, reply: &mut Reply, decoder: &mut Decoder) -> Result<(Option<Error>, bool), Error> {
        let mut brought = false;
        // It says when to look whether the time is over. One for each chunk would be a twentieth of what a chunk of 1 KiB costs.
        let mut timer = pin!(sleep(Duration::ZERO));
        let broken = loop {
            let chunk = if decoder.is_whole() && !reply.is_over() {
                // Some servers do not end a reply that is whole.
                match timeout(REST_TIME, self.chunk(reply, timer.as_mut())).await {
                    Ok(chunk) => chunk?,
                    Err(_) => break None,
                }
            } else {
                self.chunk(reply, timer.as_mut()).await?
            };
            match chunk {
                Ok(Some(chunk)) => decoder.take_in(chunk).await?,
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
            self.heard = Instant::now();
            brought |= self.hand_on(decoder).await?;
            self.names_endpoint =
                decoder.take_endpoint().is_some() && self.is_initialize() && self.bridge.route.is_open();
            if self.leads_elsewhere() {
                return Ok((None, brought));
            }
        };
        decoder.end(broken.is_none()).await;
        brought |= self.hand_on(decoder).await?;
        Ok((broken, brought))
    }

    /// The next bytes of a reply, for which the server may take its idle time.
    async fn chunk(
        &self,
        reply: &mut Reply,
        mut timer: Pin<&mut Sleep>,
    ) -> Result<Result<Option<Bytes>, Error>, Error> {
        let since = Instant::now();
        let mut chunk = pin!(reply.chunk());
        loop {
            tokio::select! {
                biased;
                chunk = &mut chunk => return Ok(chunk),
                () = &mut timer => {}
            }
            match self.silence_ends(since).into_iter().chain(self.deadline()).min() {
                Some(end) if end > Instant::now() => timer.as_mut().reset(end),
                Some(_) => return Err(self.out_of_time()),
                None => return Ok(chunk.await),
            }
        }
    }

    /// Hands on what the decoder has, and says whether that was anything. An answer that could not be kept is an error.
    async fn hand_on(&mut self, decoder: &mut Decoder) -> Result<bool, Error> {
        let mut any = false;
        while let Some(message) = decoder.next_valid() {
            any = true;
            if self.speaks_another_era(StatusCode::OK, &message) {
                self.refusal = Some(message);
            } else if self.sees_session_lost(&message) {
                self.lost_session = true;
            } else {
                self.bridge.hand_on(message, Some(self.pending)).await;
            }
        }
        for lost in decoder.take_lost() {
            let error = self.bridge.hand_on_lost(lost, Some(self.pending)).await;
            if let Some(error) = error.filter(|_| !self.pending.is_answered()) {
                return Err(error);
            }
        }
        if self.pending.is_answered() {
            // The stream may go on for long; nobody has to wait for that.
            self.release();
        }
        Ok(any)
    }

    /// Sees to the session where an error that came as a success says that it is gone. True if the message must be sent again in
    /// another one: the error came in nobody's name. One in the request's own name is its answer, and the next message finds
    /// another session.
    fn sees_session_lost(&self, message: &Message) -> bool {
        // Nearly all that comes is no error.
        if message.answer().is_none()
            || self.era() == Era::Modern
            || self.is_initialize()
            || self.pending.is_of_session()
            || self.pending.is_answered()
        {
            return false;
        }
        let Some(error) = message.error() else { return false };
        let is_own = self.is_named_by(message);
        let is_anothers = !is_own && message.id().is_some_and(|id| self.bridge.table.find(id).is_some());
        if is_anothers || !self.bridge.session().is_lost_by(&error, is_own) {
            return false;
        }
        if is_own {
            self.renew_for_others(self.sent_in);
        }
        !is_own && self.may_renew(self.sent_in)
    }

    /// Whether a response has the id of this request.
    fn is_named_by(&self, response: &Message) -> bool {
        response.id().zip(self.pending.id()).is_some_and(|(theirs, own)| theirs.means(own))
    }

    /// The rest of a stream that broke, after the event with this id (R32, R33, R35). The network may be away for as long
    /// as the server may be silent. Gives the server's refusal if it does not take the stream up again.
    async fn resume(&self, last_event_id: &Bytes, wait: Duration) -> Result<Result<Reply, Error>, Error> {
        let bridge = self.bridge;
        // A stream that is opened and brings nothing is no sign of life.
        let since = self.heard;
        let mut pause = wait;
        for failures in 0.. {
            self.in_time_since(since, sleep(pause)).await?;
            let session = |headers: &mut HeaderMap| bridge.session().apply(headers);
            let get = pin!(bridge.transport.get(true, session, Some(last_event_id)));
            let error = match self.in_time_since(since, get).await? {
                Ok(reply) if reply.status().is_success() => return Ok(Ok(reply)),
                Ok(mut reply) => {
                    let error = reply.failure(b"");
                    if error.status().is_none() {
                        // There are no credentials for it, which another try does not change.
                        return Ok(Err(error));
                    }
                    error
                }
                Err(error) => error,
            };
            let passes = match error.status() {
                Some(status) => matches!(status, 408 | 429 | 502..=504),
                None => !error.is_timeout(),
            };
            if !passes {
                return Ok(Err(error));
            }
            let backoff = retry::backoff(bridge.timeouts.retry, failures, retry::random());
            pause = backoff.max(wait).max(error.retry_after().unwrap_or_default());
        }
        Err(self.out_of_time())
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
                    let answer = question.map_or_else(|| error_reply(Some(id), &error).into(), Message::into_line);
                    self.bridge.output.send(answer).await;
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
        let cancellation = is_told.then(|| self.bridge.table.insert_receipt());
        self.bridge.table.remove(self.pending);
        self.release();
        if let Some(cancellation) = cancellation {
            Box::pin(self.cancel_upstream(&cancellation)).await;
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
        let (bridge, Some(id)) = (self.bridge, self.pending.id()) else { return };
        let cancel = async {
            let target = match bridge.route.current() {
                Transport::Http => bridge.transport.url().clone(),
                Transport::Sse => bridge.listener.endpoint(CANCELLATION_TIME).await?.0,
            };
            let session = |headers: &mut HeaderMap| bridge.session().apply(headers);
            bridge.transport.post(&target, cancellation(id, "timed out"), false, session, &pending.delivery).await
        };
        if !matches!(timeout(CANCELLATION_TIME, cancel).await, Ok(Ok(_))) {
            tracing::debug!(id = ?id, "the cancellation of a request that timed out was not accepted");
        }
    }

    /// Whether a response to this message shows that the server speaks the other protocol, as far as that can still matter.
    fn speaks_another_era(&self, status: StatusCode, response: &Message) -> bool {
        if response.kind() != Kind::Response
            || response.is_spooled()
            || self.pending.is_own()
            || self.pending.is_answered()
        {
            return false;
        }
        if self.has_tried(Remedy::OtherProtocol) {
            return false;
        }
        let mut eras = self.bridge.eras();
        match self.message.era() {
            Era::Modern if eras.is_modern_open() || !status.is_success() => {
                let taken = match response.error() {
                    Some(error) => eras.judge(self.message.method(), status, Some(&error)),
                    None => eras::is_modern_result(&self.message, response),
                };
                // What comes under the request's id may be the answer of what ran, unless all that does is read.
                let taken = taken.filter(|taken| *taken || !status.is_success() || only_reads(self.message.method()));
                if let Some(taken) = taken {
                    eras.modern_is(taken);
                }
                taken == Some(false)
            }
            Era::Legacy if self.is_initialize() => {
                let refused = match response.error() {
                    Some((code, _)) => eras::refuses_legacy(code),
                    None => eras::ignores_handshake(&self.message, response),
                };
                if refused {
                    eras.legacy_is(false);
                }
                refused
            }
            _ => false,
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
            && match self.bridge.client_era {
                ClientEra::Auto => road == Road::ToLegacy && !self.bridge.session().is_for_modern(),
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
        self.bridge.eras().road(&self.message) == Road::Direct
    }

    /// The server has become a modern one since this legacy message set out.
    fn is_behind(&self) -> bool {
        !self.pending.is_own() && self.bridge.eras().road(&self.message) == Road::ToModern
    }

    /// The protocol that the message is sent in; a notification does not say it itself.
    fn era(&self) -> Era {
        if self.pending.is_for_legacy_client() { Era::Modern } else { self.message.era() }
    }

    fn is_initialize(&self) -> bool {
        self.message.kind() == Kind::Request && self.message.method() == "initialize"
    }

    /// Waits for the server, at most for the idle time and not beyond the request's deadline.
    fn in_time<F: Future>(&self, future: F) -> impl Future<Output = Result<F::Output, Error>> {
        self.in_time_since(Instant::now(), future)
    }

    /// The same, if the server was last heard of at `since`.
    fn in_time_since<F: Future>(&self, since: Instant, future: F) -> impl Future<Output = Result<F::Output, Error>> {
        self.until(move || self.silence_ends(since).into_iter().chain(self.deadline()).min(), future)
    }

    /// Waits for the bridge itself, not beyond the request's deadline.
    fn in_time_left<F: Future>(&self, future: F) -> impl Future<Output = Result<F::Output, Error>> {
        self.until(|| self.deadline(), future)
    }

    /// Waits for at most as long as `limit` says, which may come to say more meanwhile.
    async fn until<F: Future>(&self, limit: impl Fn() -> Option<Instant>, future: F) -> Result<F::Output, Error> {
        let mut future = pin!(future);
        while let Some(now) = limit() {
            match timeout_at(now, &mut future).await {
                Ok(output) => return Ok(output),
                Err(_) if limit().is_none_or(|later| later > now) => {}
                Err(_) => return Err(self.out_of_time()),
            }
        }
        Ok(future.await)
    }

    /// Until when the server may be silent that was last heard of at `since`.
    fn silence_ends(&self, since: Instant) -> Option<Instant> {
        let since = self.client_took_until().map_or(since, |until| since.max(until));
        since.checked_add(self.bridge.timeouts.idle)
    }

    /// When the request must be answered.
    fn deadline(&self) -> Option<Instant> {
        let deadline = self.deadline?;
        let later = self.client_took_until().zip(self.bridge.timeouts.total);
        Some(later.and_then(|(until, total)| until.checked_add(total)).map_or(deadline, |later| deadline.max(later)))
    }

    /// Until when the server waited for the client, if it did. That time is not the server's.
    fn client_took_until(&self) -> Option<Instant> {
        self.pending.held()?.client_took_until()
    }

    /// How long the request may still take, if there is a limit, less a moment for its answer.
    fn time_left(&self) -> Option<Duration> {
        let left = self.deadline()?.saturating_duration_since(Instant::now());
        Some(left.saturating_sub(ANSWER_TIME))
    }

    fn has_time_for(&self, wait: Duration) -> bool {
        self.deadline().is_none_or(|deadline| Instant::now().checked_add(wait).is_some_and(|then| then < deadline))
    }

    fn out_of_time(&self) -> Error {
        let timeouts = &self.bridge.timeouts;
        let is_probe = !self.pending.is_own() && self.message.method() == "server/discover";
        let is_probe = is_probe && timeouts.total.is_none_or(|total| total > PROBE_TIME);
        let summary = match self.deadline() {
            Some(deadline) if deadline <= Instant::now() && is_probe => {
                format!("no answer to the probe within {} s", PROBE_TIME.as_secs())
            }
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

impl Bridge {
    /// Whether a request is cancelled by the end of its exchange, in place of a notification (R69): modern requests, and
    /// those that become such.
    pub(crate) fn closes_to_cancel(&self, pending: &Pending) -> bool {
        pending.era() == Era::Modern || self.eras().client.is_some()
    }
}

/// Whether the server may have acted on the request that it had.
fn may_have_acted(error: &Error) -> bool {
    let is_certain = error.fate() == Fate::Unread || error.is_session_lost() || error.is_before_http();
    !is_certain && error.status().is_none_or(|status| retry::judge(status, error.retry_after()).1)
}

fn no_answer(status: StatusCode, ended_early: bool) -> Error {
    let status = status.as_u16();
    let error = Error::new(
        Fault::NoAnswer,
        format!("the server ended its reply (HTTP {status}) without answering the request"),
    );
    if ended_early { error.with_fate(Fate::Interrupted) } else { error }
}
