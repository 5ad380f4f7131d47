//! Sends modern requests to a modern server. The headers of each request replace a session (R60-R78).

use crate::{
    call::{exchange::refusals::StateWhenSent, incoming, tool_list},
    error::{Error, ErrorKind, Fate},
    random::random,
    server::{reply::Reply, retry},
    wire::{
        headers,
        message::{Kind, Message},
        missed_events::missed,
    },
};

use http::{HeaderMap, StatusCode};
use tokio::time::{Instant, sleep};

use super::{Exchange, Next, no_answer};

impl Exchange<'_> {
    pub(super) async fn attempt_modern(&mut self) -> Result<Next, Error> {
        let bridge = self.bridge;
        let is_blind = self.is_tool_call() && !bridge.server.protocol().tools.know(&self.message);
        if is_blind && !bridge.calls.tool_list.is_done() {
            // The client may know a tool that the bridge has not seen listed, for example from its cache (R64).
            tool_list::list(bridge, &self.message, bridge.calls.tool_list.tries()).await;
            if !self.is_direct() {
                // The listing revealed a legacy server, so the call need not find that out.
                return Ok(Next::Again);
            }
        }
        let sent = StateWhenSent {
            epoch: bridge.server.session().epoch(),
            listings: bridge.calls.tool_list.tries(),
            to_modern_server: bridge.server.protocol().is_modern(),
        };
        let reply = self.post(None).await?;
        if !reply.status().is_success() {
            return self.refused(reply, sent).await;
        }
        bridge.calls.attachment.has_answered_modern();
        self.received();
        if self.message.method() == "subscriptions/listen" {
            return self.follow_events(reply).await;
        }
        if self.message.kind() == Kind::Request {
            self.follow(reply).await?;
        } else {
            self.forward_and_drain(reply).await;
        }
        Ok(self.step())
    }

    /// Adds the headers of this request.
    pub(super) fn modern_headers(&self, headers: &mut HeaderMap) {
        let params =
            if self.is_tool_call() { self.bridge.server.protocol().tools.params(&self.message) } else { Vec::new() };
        headers::modern(&self.message, params, headers);
    }

    /// Hands on the events of a subscription. If the stream breaks, reopens it and notifies the client of every change
    /// that it may have missed (R73, R74).
    async fn follow_events(&mut self, mut reply: Reply) -> Result<Next, Error> {
        let bridge = self.bridge;
        // When the last live stream broke; at first, the start.
        let mut lost = Instant::now();
        loop {
            let status = reply.status();
            let mut decoder = bridge.server.decoder(reply.content_type());
            let mut is_live = false;
            let broken = loop {
                // An acknowledged subscription may be silent without limit (R73).
                let chunk = if is_live {
                    reply.chunk().await
                } else {
                    self.with_idle_timeout_since(lost, reply.chunk()).await?
                };
                match chunk {
                    Ok(Some(chunk)) => decoder.feed_async(chunk).await?,
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
                while let Some(message) = decoder.next_valid() {
                    is_live |= self.forward_event(message).await;
                }
                for lost in decoder.take_lost_responses() {
                    if let Some(error) = incoming::fail_lost_call(bridge, lost, Some(self.pending)).await {
                        return Err(error);
                    }
                }
            };
            decoder.end(broken.is_none()).await;
            while let Some(message) = decoder.next_valid() {
                is_live |= self.forward_event(message).await;
            }
            if self.pending.is_answered() || self.refusal.is_some() {
                return Ok(self.step());
            }
            let failure =
                broken.or_else(|| decoder.take_rejected()).unwrap_or_else(|| no_answer(status, decoder.is_sse()));
            if self.acknowledged.is_none() {
                // The server never acknowledged the subscription.
                return Err(failure.with_fate(Fate::Final));
            }
            tracing::debug!(error = %failure, "a subscription broke off; it is opened again");
            if is_live {
                lost = Instant::now();
            }
            reply = match Box::pin(self.open_again(failure, lost)).await? {
                Ok(reply) => reply,
                // Reopening a subscription runs nothing at the server.
                Err(refusal) => {
                    let sent =
                        StateWhenSent { epoch: bridge.server.session().epoch(), listings: 0, to_modern_server: false };
                    return self.refused(refusal, sent).await;
                }
            };
        }
    }

    /// Hands on one message of a subscription's stream. Returns true for the acknowledgement.
    async fn forward_event(&mut self, message: Message) -> bool {
        let bridge = self.bridge;
        if self.speaks_another_era(StatusCode::OK, &message) {
            self.refusal = Some(message);
            return false;
        }
        if message.method() != "notifications/subscriptions/acknowledged" {
            incoming::forward_message(bridge, message, Some(self.pending)).await;
            return false;
        }
        bridge.server.protocol().set_modern(true);
        let before = self.acknowledged.replace(message.clone());
        if before.as_ref().is_none_or(|before| before.bytes() != message.bytes()) {
            incoming::forward_message(bridge, message.clone(), Some(self.pending)).await;
        }
        // The lists may have changed while the server was away.
        let was_away = self.unreached_since.is_some() | bridge.calls.attachment.takes_owed_changes();
        if before.is_some() || was_away {
            for event in missed(&message) {
                incoming::forward_message(bridge, event, Some(self.pending)).await;
            }
        }
        true
    }

    /// Reopens the stream of a subscription. Keeps trying until the idle timeout since `lost` is over. Returns the
    /// reply of a server that refuses as the inner error.
    async fn open_again(&mut self, failure: Error, lost: Instant) -> Result<Result<Reply, Reply>, Error> {
        let bridge = self.bridge;
        let mut failure = Some(failure);
        for failures in 0.. {
            if lost.elapsed() > bridge.timeouts.idle {
                break;
            }
            let wait = match failures {
                0 => bridge.timeouts.reconnect,
                _ => retry::backoff(bridge.timeouts.retry, failures + 2, random()),
            };
            sleep(wait).await;
            match self.post(None).await {
                Ok(reply) if reply.status().is_success() => return Ok(Ok(reply)),
                Ok(mut reply) if matches!(reply.status().as_u16(), 408 | 425 | 429 | 500 | 502..=504) => {
                    failure = Some(reply.failure(b""));
                }
                Ok(reply) => return Ok(Err(reply)),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure
            .unwrap_or_else(|| Error::new(ErrorKind::Broken, "the subscription's stream cannot be opened again"))
            .with_fate(Fate::Final))
    }

    pub(super) fn is_tool_call(&self) -> bool {
        self.message.kind() == Kind::Request && self.message.method() == "tools/call"
    }
}
