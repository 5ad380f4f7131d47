//! Refusals: what a status that says no, or an error in the place of an answer, leads to.

use super::{Exchange, Next, Remedy};
#[cfg(feature = "oauth")]
use crate::call::sign_in_prompt;
use crate::{
    call::{incoming, renewal},
    error::{Error, ErrorKind},
    server::{credentials::HeaderRefusal, protocol, refusals::RefusalBody, reply::Reply},
    wire::{
        message::{Kind, Message},
        method::only_reads,
        revision::Era,
    },
};
use http::{StatusCode, header};
use std::{sync::Arc, time::Duration};

impl Exchange<'_> {
    /// A reply whose status says no: a lost session, stale credentials, an old server, or an answer (R7, R67).
    pub(super) async fn refused(&mut self, mut reply: Reply, epoch: u64) -> Result<Next, Error> {
        let bridge = self.bridge;
        let status = reply.status();
        let page = reply.page(&bridge.server.storage, self.message.kind() == Kind::Request).await;
        let error = reply.failure(&page.text);
        let (answer, may_go_again) = self.answer_in(status, &page);
        let is_own = page.response.as_ref().is_some_and(|response| self.is_named_by(response));
        let is_of_session = !self.is_initialize() && self.pending.purpose.waits_for_session;
        let is_lost = is_of_session && bridge.server.session().is_lost(status, &page, !may_go_again);
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
                return Ok(Next::Again);
            }
            if bridge.server.transport.fallback(status, &page).is_some() {
                return match self.speak_sse().await? {
                    None => Ok(Next::Again),
                    #[cfg(feature = "oauth")]
                    Some(other) if other.is_about_tokens() => Err(other.with_may_have_run(false)),
                    Some(_) if let Some(answer) = answer => {
                        incoming::answer(bridge, self.pending, answer).await;
                        Ok(Next::Done)
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
            return Ok(Next::Again);
        }
        if let Some(answer) = answer {
            incoming::answer(bridge, self.pending, answer).await;
            return Ok(Next::Done);
        }
        Err(error)
    }

    /// Asks for new credentials where the reply refuses those that were sent, as often as that may help. Gives what
    /// follows if there are some.
    pub(super) async fn reauthorize(
        &mut self,
        refusal: HeaderRefusal<'_>,
        may_go_again: bool,
    ) -> Result<Option<Next>, Error> {
        let credentials = &self.bridge.server.requests.credentials;
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
        sign_in_prompt::show(self.bridge);
        let renewed = tokio::select! {
            biased;
            // The server has turned the request away, so there is nothing to cancel.
            () = self.pending.withdrawn() => return Ok(Some(Next::Done)),
            renewed = credentials.renew(refusal, self.time_left()) => renewed,
        };
        let renewed = match renewed {
            #[cfg(feature = "oauth")]
            Err(error) if error.is_sign_in() && self.answer_provisionally().await => return Ok(Some(Next::Done)),
            renewed => renewed.map_err(|error| error.with_may_have_run(self.may_have_run))?,
        };
        self.permit = self.in_time_left(self.bridge.calls.permits.acquire(self.lane.share)).await??;
        Ok(renewed.then_some(Next::Again))
    }

    /// The answer to the request in the body of a refusal, if it holds one: whatever id the server has put there, it can
    /// only mean this request. Says whether the request may be sent again, once what stood in its way is gone: not if the
    /// answer has the request's own id, and so may be that of what ran (see the table in `retry.rs`).
    pub(super) fn answer_in(&self, status: StatusCode, page: &RefusalBody) -> (Option<Message>, bool) {
        let (Some(answer), Some(id)) = (&page.response, self.pending.id()) else {
            // What broke off may have been an answer as well.
            let is_about_credentials = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
            let is_known = (page.is_whole || is_about_credentials) && !status.is_server_error();
            return (None, is_known || self.is_harmless());
        };
        let is_own = self.is_named_by(answer);
        let is_protocols =
            status == StatusCode::BAD_REQUEST && answer.error().is_some_and(|(code, _)| protocol::is_reserved(code));
        (Some(answer.with_id(id)), !is_own || is_protocols || self.is_harmless())
    }

    /// Whether the message may be sent twice: it only reads, or asks to be told what happens.
    pub(super) fn is_harmless(&self) -> bool {
        only_reads(self.message.method()) || self.message.method() == "subscriptions/listen"
    }

    /// The session that the message was sent in is gone; it was not looked at, and goes into the next one.
    pub(super) async fn renew(&mut self, epoch: u64) -> Result<Next, Error> {
        if self.message.kind() == Kind::Response {
            // It answers a question of the session that is gone.
            return Ok(Next::Done);
        }
        if !self.may_renew(epoch) {
            let summary = "the server does not know the session, and neither the one that was set up in its place";
            return Err(Error::new(ErrorKind::SessionLost, summary));
        }
        self.first(Remedy::NewSession);
        self.in_time_left(renewal::renew(self.bridge, epoch)).await??;
        Ok(Next::Again)
    }

    /// The session of `epoch` is gone, but the message must not be sent again: the next one finds another.
    pub(super) fn renew_for_others(&self, epoch: u64) {
        let bridge = Arc::clone(self.bridge);
        self.bridge.calls.spawn(async move { drop(renewal::renew(&bridge, epoch).await) });
    }

    /// Whether another session than that of `epoch` may help: there is one, or none was set up for this message yet.
    pub(super) fn may_renew(&self, epoch: u64) -> bool {
        self.bridge.server.session().epoch() != epoch || !self.has_tried(Remedy::NewSession)
    }

    /// Sees to the session where an error that came as a success says that it is gone. True if the message must be sent again in
    /// another one: the error came in nobody's name. One in the request's own name is its answer, and the next message finds
    /// another session.
    pub(super) fn sees_session_lost(&self, message: &Message) -> bool {
        // Nearly all that comes is no error.
        if message.answer().is_none()
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

    /// Whether a response has the id of this request.
    pub(super) fn is_named_by(&self, response: &Message) -> bool {
        response.id().zip(self.pending.id()).is_some_and(|(theirs, own)| theirs.means(own))
    }

    /// Whether a response to this message shows that the server speaks the other protocol, as far as that can still matter.
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
                // What comes under the request's id may be the answer of what ran, unless all that does is read.
                let taken = taken.filter(|taken| *taken || !status.is_success() || only_reads(self.message.method()));
                if let Some(taken) = taken {
                    protocol.modern_is(taken);
                }
                taken == Some(false)
            }
            Era::Legacy if self.is_initialize() => {
                let refused = match response.error() {
                    Some((code, _)) => protocol::refuses_legacy(code),
                    None => protocol::ignores_handshake(&self.message, response),
                };
                if refused {
                    protocol.legacy_is(false);
                }
                refused
            }
            _ => false,
        }
    }
}
