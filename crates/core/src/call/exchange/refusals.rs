//! Decides what follows a refusal: an error status, or a JSON-RPC error that stands for a lost session or another
//! protocol.

use super::{Exchange, Next, Remedy};
#[cfg(feature = "oauth")]
use crate::call::sign_in_prompt;
use crate::{
    call::{incoming, renewal, tool_list},
    error::{Error, ErrorKind},
    server::{credentials::HeaderRefusal, protocol, refusals::RefusalBody, reply::Reply, retry},
    wire::{
        message::{Kind, Message},
        method::only_reads,
        revision::Era,
    },
};
use http::{StatusCode, header};
use std::{sync::Arc, time::Duration};

/// The error code for headers that do not match the body.
const HEADER_MISMATCH: i64 = -32_020;

/// The state when a message was sent, by which its refusal is judged.
#[derive(Clone, Copy)]
pub(super) struct StateWhenSent {
    /// The session's epoch.
    pub(super) epoch: u64,
    /// How often the server's tools had been listed.
    pub(super) listings: u64,
    /// The server had shown that it accepts modern requests.
    pub(super) to_modern_server: bool,
}

impl StateWhenSent {
    /// Returns the state for a legacy message in this session.
    pub(super) fn in_session(epoch: u64) -> Self {
        Self { epoch, listings: 0, to_modern_server: false }
    }
}

/// A refusal, as far as it concerns this message.
struct Refused {
    status: StatusCode,
    page: RefusalBody,
    /// The response in its body, if any. It belongs to this request, even if the server has put another id there.
    answer: Option<Message>,
    /// The response has the request's own id.
    is_own: bool,
    /// The response is a result with that id, so the request has run.
    is_result: bool,
    /// The message may be sent again after a remedy. Not if the response has the request's own id, as the request may
    /// then have run (see the table in `retry.rs`).
    may_go_again: bool,
}

impl Exchange<'_> {
    /// Handles a reply with an error status. The cause is stale credentials, a lost session, a server of another era
    /// or transport, or the reply holds the response (R7, R67).
    pub(super) async fn refused(&mut self, mut reply: Reply, sent: StateWhenSent) -> Result<Next, Error> {
        let bridge = self.bridge;
        let page = reply.page(&bridge.server.storage, self.message.kind() == Kind::Request).await;
        let error = reply.failure(&page.text);
        let mut refused = self.read_refusal(reply.status(), page);
        let is_in_session =
            self.era() == Era::Legacy && !self.is_initialize() && self.pending.purpose.waits_for_session;
        let is_lost =
            is_in_session && bridge.server.session().is_lost(refused.status, &refused.page, !refused.may_go_again);
        // New credentials do not help if the session is missing.
        if !(is_lost && self.may_renew(sent.epoch))
            && let Some(next) = self.reauthorize(reply.refusal(), &refused).await?
        {
            return Ok(next);
        }
        let next = match self.era() {
            Era::Modern => self.refused_as_modern(&mut refused, sent).await,
            Era::Legacy if self.is_initialize() => self.refused_as_handshake(&mut refused, &error).await?,
            Era::Legacy => self.refused_in_session(&refused, is_lost, sent.epoch).await?,
        };
        if let Some(next) = next {
            return Ok(next);
        }
        let Some(answer) = refused.answer else { return Err(error) };
        incoming::answer(bridge, self.pending, answer).await;
        Ok(Next::Done)
    }

    /// Handles the refusal of a modern request: missing or wrong headers (R64), or an older server.
    async fn refused_as_modern(&mut self, refused: &mut Refused, sent: StateWhenSent) -> Option<Next> {
        let bridge = self.bridge;
        let (status, error) = (refused.status, refused.answer.as_ref().and_then(Message::error));
        if error.as_ref().is_some_and(|(code, _)| *code == HEADER_MISMATCH)
            && refused.may_go_again
            && self.is_tool_call()
            && self.first(Remedy::NewList)
        {
            tool_list::list(bridge, &self.message, sent.listings).await;
            return Some(Next::Again);
        }
        if self.message.kind() != Kind::Request {
            return None;
        }
        let taken = bridge.server.protocol().judge(self.message.method(), status, error.as_ref());
        if let Some(taken) = taken.filter(|_| !self.has_tried(Remedy::OtherProtocol)) {
            bridge.server.protocol().set_modern(taken);
        }
        // The server is a modern one, so this may be a gateway's error page for a request that ran.
        let may_have_run =
            sent.to_modern_server && error.is_none() && !self.is_harmless() && retry::judge(status.as_u16(), None).1;
        let is_older = taken == Some(false)
            && refused.may_go_again
            && !may_have_run
            && !self.has_tried(Remedy::OtherProtocol)
            && !self.pending.is_own();
        if is_older {
            self.refusal = refused.answer.take();
        }
        is_older.then_some(Next::Again)
    }

    /// Handles the refusal of a legacy handshake: a modern server, or one that speaks HTTP+SSE (R54).
    async fn refused_as_handshake(&mut self, refused: &mut Refused, error: &Error) -> Result<Option<Next>, Error> {
        let is_about_http = refused.status == StatusCode::METHOD_NOT_ALLOWED;
        let speaks_another_era = |answer: &Message| !is_about_http && self.speaks_another_era(refused.status, answer);
        if refused.answer.as_ref().is_some_and(speaks_another_era) {
            self.refusal = refused.answer.take();
            return Ok(Some(Next::Again));
        }
        if self.bridge.server.transport.fallback(refused.status, &refused.page).is_none() {
            return Ok(None);
        }
        match self.try_sse().await? {
            None => Ok(Some(Next::Again)),
            #[cfg(feature = "oauth")]
            Some(other) if other.is_about_tokens() => Err(other.with_may_have_run(false)),
            Some(_) if refused.answer.is_some() => Ok(None),
            Some(other) => Err(error.clone().with_other_way("and as a server of 2024-11-05 (HTTP+SSE)", &other)),
        }
    }

    /// Handles the refusal of any other legacy message: a lost session, or a server that has become a modern one.
    async fn refused_in_session(
        &mut self,
        refused: &Refused,
        is_lost: bool,
        epoch: u64,
    ) -> Result<Option<Next>, Error> {
        let says_little = matches!(refused.status, StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST);
        if is_lost && !refused.may_go_again {
            self.renew_for_others(epoch);
        } else if is_lost && (!refused.is_own || self.may_renew(epoch)) {
            return self.renew(epoch).await.map(Some);
        } else if !is_lost && refused.may_go_again && says_little && self.is_behind() {
            return Ok(Some(Next::Again));
        }
        Ok(None)
    }

    /// Reads a refusal: its response, and whether this message may be sent again.
    fn read_refusal(&self, status: StatusCode, page: RefusalBody) -> Refused {
        let (Some(answer), Some(id)) = (&page.response, self.pending.id()) else {
            // A body that broke off may have been a response.
            let is_about_credentials = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
            let is_known = (page.is_whole || is_about_credentials) && !status.is_server_error();
            let may_go_again = is_known || self.is_harmless();
            return Refused { status, page, answer: None, is_own: false, is_result: false, may_go_again };
        };
        let is_own = self.is_named_by(answer);
        let error = answer.error();
        let is_protocols =
            status == StatusCode::BAD_REQUEST && error.as_ref().is_some_and(|(code, _)| protocol::is_reserved(*code));
        Refused {
            status,
            answer: Some(answer.with_id(id)),
            is_own,
            is_result: is_own && answer.outline().is_none(),
            may_go_again: !is_own || is_protocols || self.is_harmless(),
            page,
        }
    }

    /// Gets new credentials if the reply refuses the ones that were sent, within a limit of attempts. Returns the
    /// outcome of this attempt, or `None` if the refusal stands.
    async fn reauthorize(&mut self, refusal: HeaderRefusal<'_>, refused: &Refused) -> Result<Option<Next>, Error> {
        let credentials = &self.bridge.server.requests.credentials;
        let remedy = if refusal.status == StatusCode::FORBIDDEN { Remedy::MoreScope } else { Remedy::NewCredentials };
        let tries = self.remedies.iter().filter(|tried| **tried == remedy).count();
        if tries >= credentials.max_resends(refusal) {
            return Ok(None);
        }
        self.remedies.push(remedy);
        // A server that challenges for credentials has not run the message, unless the body holds its result.
        let is_turned_away = refusal.headers.contains_key(header::WWW_AUTHENTICATE) && !refused.is_result;
        if !refused.may_go_again && !is_turned_away {
            if let Err(error) = credentials.renew(refusal, Some(Duration::ZERO)).await {
                tracing::debug!(error = %error, "no new credentials for the next message");
            }
            return Ok(None);
        }
        // The user may need long to sign in.
        self.permit = None;
        #[cfg(feature = "oauth")]
        sign_in_prompt::show(self.bridge);
        let renewed = tokio::select! {
            biased;
            // The server refused the request, so there is nothing to cancel.
            () = self.pending.withdrawn() => return Ok(Some(Next::Done)),
            renewed = credentials.renew(refusal, self.time_left()) => renewed,
        };
        let renewed = renewed.map_err(|error| error.with_may_have_run(self.may_have_run))?;
        self.permit = self.with_deadline(self.bridge.calls.permits.acquire(self.lane.share)).await??;
        Ok(renewed.then_some(Next::Again))
    }

    /// True if the message may be sent twice: it only reads, or it opens a subscription.
    pub(super) fn is_harmless(&self) -> bool {
        only_reads(self.message.method()) || self.message.method() == "subscriptions/listen"
    }

    /// Replaces the session that the message was sent in, because it is gone. The server did not look at the message,
    /// so it is sent again in the new session.
    pub(super) async fn renew(&mut self, epoch: u64) -> Result<Next, Error> {
        if self.message.kind() == Kind::Response {
            // The response answers a request of the lost session.
            return Ok(Next::Done);
        }
        if !self.may_renew(epoch) {
            let summary = "the server knows neither the session nor the new one that replaced it";
            return Err(Error::new(ErrorKind::SessionLost, summary));
        }
        self.first(Remedy::NewSession);
        self.with_deadline(renewal::renew(self.bridge, epoch)).await??;
        Ok(Next::Again)
    }

    /// Replaces the lost session of `epoch` for later messages. This one must not be sent again.
    pub(super) fn renew_for_others(&self, epoch: u64) {
        let bridge = Arc::clone(self.bridge);
        self.bridge.calls.spawn(async move { drop(renewal::renew(&bridge, epoch).await) });
    }

    /// True if a session other than that of `epoch` may help: there is one already, or none was set up for this
    /// message yet.
    pub(super) fn may_renew(&self, epoch: u64) -> bool {
        self.bridge.server.session().epoch() != epoch || !self.has_tried(Remedy::NewSession)
    }

    /// Handles an error in a successful reply that says that the session is gone. Returns true if the message must be
    /// sent again in a new session, because the error does not have the request's id. An error with that id is the
    /// response; then the session is replaced for later messages.
    pub(super) fn handle_session_loss(&self, message: &Message) -> bool {
        // Almost no message is an error.
        if message.outline().is_none()
            || self.era() == Era::Modern
            || self.is_initialize()
            || !self.pending.purpose.waits_for_session
            || self.pending.is_answered()
        {
            return false;
        }
        let Some(error) = message.error() else { return false };
        let is_own = self.is_named_by(message);
        let is_anothers = !is_own && message.id().is_some_and(|id| self.bridge.calls.table.find(id).is_some());
        if is_anothers || !self.bridge.server.session().is_lost_by(&error, is_own) {
            return false;
        }
        if is_own {
            self.renew_for_others(self.sent_in);
        }
        !is_own && self.may_renew(self.sent_in)
    }

    /// True if a response has the id of this request.
    pub(super) fn is_named_by(&self, response: &Message) -> bool {
        response.id().zip(self.pending.id()).is_some_and(|(theirs, own)| theirs.means(own))
    }

    /// True if a response shows that the server speaks the other protocol, and this message can still change to it.
    pub(super) fn speaks_another_era(&self, status: StatusCode, response: &Message) -> bool {
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
        let mut protocol = self.bridge.server.protocol();
        match self.message.era() {
            Era::Modern if protocol.is_modern_open() || !status.is_success() => {
                let taken = match response.error() {
                    Some(error) => protocol.judge(self.message.method(), status, Some(&error)),
                    None => protocol::is_modern_result(&self.message, response),
                };
                // A response with the request's id may mean that the request ran. That does no harm if it only reads.
                let taken = taken.filter(|taken| *taken || !status.is_success() || only_reads(self.message.method()));
                if let Some(taken) = taken {
                    protocol.set_modern(taken);
                }
                taken == Some(false)
            }
            Era::Legacy if self.is_initialize() => {
                let refused = match response.error() {
                    Some((code, _)) => protocol::refuses_legacy(code),
                    None => protocol::ignores_handshake(&self.message, response),
                };
                if refused {
                    protocol.set_legacy(false);
                }
                refused
            }
            _ => false,
        }
    }
}
