//! Sends messages over HTTP+SSE (2024-11-05): a POST to the endpoint, and the response on the standing stream.

use super::{Exchange, Next};
use crate::{
    call::exchange::refusals::StateWhenSent,
    error::{Error, ErrorKind},
    server::transport_choice::Transport,
    wire::message::Kind,
};
use tokio::time::Instant;

impl Exchange<'_> {
    /// Sends the message by POST to the endpoint. The response comes on the standing stream (R52).
    pub(super) async fn attempt_sse(&mut self) -> Result<Next, Error> {
        let bridge = self.bridge;
        let (endpoint, stream) =
            match self.with_deadline(bridge.server.push_stream.endpoint(bridge.timeouts.idle)).await? {
                Ok(endpoint) => endpoint,
                // The server does not speak HTTP+SSE, or has stopped (R56): use Streamable HTTP.
                Err(error) if error.is_refusal() && bridge.server.transport.give_up_sse() => return Ok(Next::Again),
                Err(error) => return Err(error),
            };
        bridge.server.transport.decide(Transport::Sse);
        let epoch = bridge.server.session().epoch();
        if self.is_initialize() {
            bridge.server.session().open(None, Some(stream));
        } else if self.pending.purpose.waits_for_session
            && bridge.server.session().stream().is_some_and(|own| own != stream)
        {
            return self.renew(epoch).await;
        }
        let since = Instant::now();
        let reply = self.post(Some(&endpoint)).await?;
        if !reply.status().is_success() {
            return self.refused(reply, StateWhenSent::in_session(epoch)).await;
        }
        self.received();
        if self.message.kind() != Kind::Request {
            self.drain_reply(reply).await;
            return Ok(Next::Done);
        }
        let remains = async {
            self.drain_reply(reply).await;
            std::future::pending::<()>().await;
        };
        let is_answered = tokio::select! {
            biased;
            is_answered = self.is_answered_elsewhere(since, Some(stream)) => is_answered?,
            () = remains => false,
        };
        if is_answered {
            return Ok(Next::Done);
        }
        Err(Error::new(ErrorKind::Broken, "the server's event stream ended before the answer came"))
    }

    /// Waits until the response comes on the standing stream. Returns true if it did, or if the request was cancelled;
    /// false if the stream ended first. `stream` is the number of the stream over HTTP+SSE.
    pub(super) async fn is_answered_elsewhere(&self, since: Instant, stream: Option<u64>) -> Result<bool, Error> {
        let listener = &self.bridge.server.push_stream;
        loop {
            let quiet_since = listener.last_traffic().max(since);
            let answered = async {
                tokio::select! {
                    biased;
                    () = self.pending.settled() => true,
                    () = listener.ended(stream) => self.pending.is_answered() || self.pending.is_cancelled(),
                }
            };
            match self.with_idle_timeout_since(quiet_since, answered).await {
                Ok(answered) => return Ok(answered),
                Err(_) if listener.last_traffic() > quiet_since => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Tries HTTP+SSE. Returns the error if the server does not speak it.
    pub(super) async fn try_sse(&self) -> Result<Option<Error>, Error> {
        let bridge = self.bridge;
        let opened = self.with_deadline(bridge.server.push_stream.endpoint(bridge.timeouts.idle)).await?;
        match opened {
            Ok(_) => {
                tracing::info!("the server speaks HTTP+SSE (2024-11-05)");
                bridge.server.transport.decide(Transport::Sse);
                Ok(None)
            }
            Err(error) => {
                tracing::debug!(error = %error, "no HTTP+SSE either");
                bridge.server.push_stream.close();
                Ok(Some(error))
            }
        }
    }
}
