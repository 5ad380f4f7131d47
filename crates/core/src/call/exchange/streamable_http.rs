//! Sends messages over Streamable HTTP: one POST, the stream of its reply, and GETs that resume a stream that broke.

use super::{Exchange, Next};
use crate::{
    call::{
        exchange::{no_answer, refusals::StateWhenSent},
        incoming, renewal,
    },
    error::{Error, ErrorKind, Fate},
    http::ServerUrl,
    random::random,
    server::{
        reply::Reply,
        retry::{self, Reopening},
        transport_choice::Transport,
    },
    wire::{body::Decoder, message::Kind, method::only_reads, revision::Era},
};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use std::{
    pin::{Pin, pin},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep, timeout};

/// How long to wait for the end of a body that holds one complete JSON document.
const BODY_END_TIME: Duration = Duration::from_millis(250);
/// The most bytes that are read of a finished reply so that its connection can be used again.
const DRAIN_LIMIT: usize = 64 << 10;
/// Time limit for reading these bytes.
const DRAIN_TIME: Duration = Duration::from_millis(500);

impl Exchange<'_> {
    /// Sends the message by POST. The reply holds the response.
    pub(super) async fn attempt_http(&mut self) -> Result<Next, Error> {
        let bridge = self.bridge;
        let epoch = bridge.server.session().epoch();
        if self.pending.purpose.waits_for_session && !self.is_initialize() && bridge.server.session().stream().is_some()
        {
            // The session belongs to an HTTP+SSE stream that the server no longer offers (R56).
            return self.renew(epoch).await;
        }
        self.sent_in = epoch;
        let reply = self.post(None).await?;
        if !reply.status().is_success() {
            return self.refused(reply, StateWhenSent::in_session(epoch)).await;
        }
        if self.is_initialize() {
            if !self.pending.is_own() {
                renewal::leave_session_for_modern(bridge);
            }
            bridge.server.session().open(reply.session_id(), None);
        } else {
            bridge.server.transport.decide(Transport::Http);
        }
        self.received();
        if self.message.kind() != Kind::Request {
            self.forward_and_drain(reply).await;
            return Ok(self.step());
        }
        self.follow(reply).await?;
        if std::mem::take(&mut self.lost_session) {
            return self.renew(epoch).await;
        }
        if !self.names_endpoint {
            bridge.server.transport.decide(Transport::Http);
            return Ok(self.step());
        }
        // The server opened its HTTP+SSE stream without looking at the request.
        let summary = "the server answered with the stream of HTTP+SSE (2024-11-05)";
        match self.try_sse().await? {
            None => Ok(Next::Again),
            Some(other) => Err(Error::new(ErrorKind::InvalidAnswer, summary).with_other_way("and then", &other)),
        }
    }

    pub(super) async fn post(&self, target: Option<&ServerUrl>) -> Result<Reply, Error> {
        let bridge = self.bridge;
        let bare = self.is_initialize();
        let session = |headers: &mut HeaderMap| match self.era() {
            Era::Modern => self.modern_headers(headers),
            Era::Legacy if bare => {}
            Era::Legacy => bridge.server.session().apply(headers),
        };
        let body = self.message.bytes().clone();
        let is_repeatable = only_reads(self.message.method());
        // Passing a future by value stores it twice in the caller's state machine, so pin it where it is made.
        let post = pin!(bridge.server.requests.post(target, body, is_repeatable, session, &self.pending.delivery));
        let reply = self.with_idle_timeout(post).await??;
        tracing::debug!(method = self.message.method(), status = reply.status().as_u16(), "reply");
        Ok(reply)
    }

    /// Records that the server has accepted the message. After `initialized`, opens the push stream.
    pub(super) fn received(&mut self) {
        if self.message.kind() == Kind::Request {
            return;
        }
        // Later messages wait for this hold.
        let hold = self.lane.hold.take();
        if self.message.method() == "notifications/initialized" {
            let epoch = self.bridge.server.session().epoch();
            self.bridge.server.push_stream.push(epoch, hold);
        }
    }

    /// Hands on the messages in the reply to a notification or response. Reads at most [`DRAIN_LIMIT`] bytes for
    /// [`DRAIN_TIME`], as the reply may never end. Releases the permit first, as the server has the message.
    pub(super) async fn forward_and_drain(&mut self, mut reply: Reply) {
        self.permit = None;
        let bridge = self.bridge;
        let Some(_permit) = bridge.calls.permits.drain_permit().filter(|_| !reply.is_over()) else { return };
        let mut decoder = bridge.server.decoder(reply.content_type());
        let mut left = DRAIN_LIMIT;
        let read = async {
            while let Some(chunk) = reply.chunk().await? {
                left = left.saturating_sub(chunk.len());
                decoder.feed_async(chunk).await?;
                self.forward_message(&mut decoder).await?;
                if left == 0 {
                    return Ok(());
                }
            }
            decoder.end(true).await;
            self.forward_message(&mut decoder).await.map(drop)
        };
        let read: Result<Result<(), Error>, _> = timeout(DRAIN_TIME, read).await;
        tracing::debug!(?read, "finished reading the reply to a notification or response");
    }

    /// Reads the rest of a reply without messages, within the same limits, so that its connection can be used again.
    pub(super) async fn drain_reply(&self, mut reply: Reply) {
        let Some(_permit) = self.bridge.calls.permits.drain_permit().filter(|_| !reply.is_over()) else { return };
        let mut left = DRAIN_LIMIT;
        let read = async {
            while left > 0
                && let Ok(Some(chunk)) = reply.chunk().await
            {
                left = left.saturating_sub(chunk.len());
            }
        };
        let _ = timeout(DRAIN_TIME, read).await;
    }

    /// Hands on the messages of a successful reply as they arrive. Resumes the stream if it breaks before the
    /// response.
    pub(super) async fn follow(&mut self, mut reply: Reply) -> Result<(), Error> {
        let status = reply.status();
        let mut decoder = self.bridge.server.decoder(reply.content_type());
        let mut cursor = None;
        let mut reopening = Reopening::new(self.bridge.timeouts.reconnect);
        self.heard = Instant::now();
        loop {
            let (broken, brought) = self.read(&mut reply, &mut decoder).await?;
            let is_over = self.pending.is_answered() || self.pending.is_cancelled() || self.needs_another_attempt();
            if self.message.kind() != Kind::Request || is_over {
                return Ok(());
            }
            if status == StatusCode::ACCEPTED
                && self.era() == Era::Legacy
                && self.bridge.server.push_stream.is_pushing()
            {
                // The response comes on the push stream.
                if self.is_answered_elsewhere(self.heard, None).await? {
                    return Ok(());
                }
            }
            cursor = decoder.last_event_id().cloned().or(cursor);
            let failure =
                broken.or_else(|| decoder.take_rejected()).unwrap_or_else(|| no_answer(status, decoder.is_sse()));
            if self.era() == Era::Modern {
                // A modern request is lost with its stream; only the client may repeat it (R71).
                return Err(failure.with_fate(Fate::Final));
            }
            let Some(last_event_id) = &cursor else { return Err(failure) };
            // A wait that the server asked for also applies to the streams that follow (R33).
            reopening.ended(decoder.retry(), brought);
            let wait = reopening.wait();
            tracing::debug!(method = self.message.method(), ?wait, "the stream broke; it is resumed");
            match Box::pin(self.resume(last_event_id, wait)).await? {
                Ok(rest) => reply = rest,
                Err(refusal) => return Err(failure.with_source(refusal)),
            }
            decoder = self.bridge.server.decoder(reply.content_type());
        }
    }

    /// Reads a body to its end. Returns the error that broke it off, if any, and whether it brought a message.
    pub(super) async fn read(
        &mut self,
        reply: &mut Reply,
        decoder: &mut Decoder,
    ) -> Result<(Option<Error>, bool), Error> {
        let mut brought = false;
        // One timer for all chunks: one for each would add 5% to the cost of a 1 KiB chunk.
        let mut timer = pin!(sleep(Duration::ZERO));
        let broken = loop {
            let chunk = if decoder.is_whole() && !reply.is_over() {
                // Some servers do not end a complete reply.
                match timeout(BODY_END_TIME, self.chunk(reply, timer.as_mut())).await {
                    Ok(chunk) => chunk?,
                    Err(_) => break None,
                }
            } else {
                self.chunk(reply, timer.as_mut()).await?
            };
            match chunk {
                Ok(Some(chunk)) => decoder.feed_async(chunk).await?,
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
            self.heard = Instant::now();
            brought |= self.forward_message(decoder).await?;
            self.names_endpoint =
                decoder.take_endpoint().is_some() && self.is_initialize() && self.bridge.server.transport.is_open();
            if self.needs_another_attempt() {
                return Ok((None, brought));
            }
        };
        decoder.end(broken.is_none()).await;
        brought |= self.forward_message(decoder).await?;
        Ok((broken, brought))
    }

    /// Returns the next bytes of a reply, within the idle timeout and the request's deadline.
    pub(super) async fn chunk(
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
            match self.idle_deadline(since).into_iter().chain(self.deadline()).min() {
                Some(end) if end > Instant::now() => timer.as_mut().reset(end),
                Some(_) => return Err(self.deadline_error()),
                None => return Ok(chunk.await),
            }
        }
    }

    /// Hands on all messages that the decoder has. Returns true if there were any. A response that could not be stored
    /// is an error.
    pub(super) async fn forward_message(&mut self, decoder: &mut Decoder) -> Result<bool, Error> {
        let mut any = false;
        while let Some(message) = decoder.next_valid() {
            any = true;
            if self.speaks_another_era(StatusCode::OK, &message) {
                self.refusal = Some(message);
            } else if self.handle_session_loss(&message) {
                self.lost_session = true;
            } else {
                incoming::forward_message(self.bridge, message, Some(self.pending)).await;
            }
        }
        for lost in decoder.take_lost_responses() {
            let error = incoming::fail_lost_call(self.bridge, lost, Some(self.pending)).await;
            if let Some(error) = error.filter(|_| !self.pending.is_answered()) {
                return Err(error);
            }
        }
        if self.pending.is_answered() {
            // The stream may stay open long after the response; other messages need not wait for that.
            self.release();
        }
        Ok(any)
    }

    /// Resumes a broken stream by GET, after the event with this id (R32, R33, R35). Keeps trying until the idle
    /// timeout is over. Returns the refusal of a server that does not resume it as the inner error.
    pub(super) async fn resume(&self, last_event_id: &Bytes, wait: Duration) -> Result<Result<Reply, Error>, Error> {
        let bridge = self.bridge;
        // A stream that opens and brings nothing does not reset the idle timeout.
        let since = self.heard;
        let mut pause = wait;
        for failures in 0.. {
            self.with_idle_timeout_since(since, sleep(pause)).await?;
            let session = |headers: &mut HeaderMap| bridge.server.session().apply(headers);
            let get = pin!(bridge.server.requests.get(true, session, Some(last_event_id)));
            let error = match self.with_idle_timeout_since(since, get).await? {
                Ok(reply) if reply.status().is_success() => return Ok(Ok(reply)),
                Ok(mut reply) => {
                    let error = reply.failure(b"");
                    if error.status().is_none() {
                        // There are no credentials for the request; another attempt would not change that.
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
            let backoff = retry::backoff(bridge.timeouts.retry, failures, random());
            pause = backoff.max(wait).max(error.retry_after().unwrap_or_default());
        }
        Err(self.deadline_error())
    }
}
