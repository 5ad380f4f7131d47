//! Streamable HTTP: one POST, the stream of its reply, and the rest of a stream that broke.

use super::{Exchange, Next};
use crate::{
    call::{
        exchange::{no_answer, refusals::AtSending},
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

/// How long the end of a body may take to come that is one JSON document.
const REST_TIME: Duration = Duration::from_millis(250);
/// What is read of a reply that says nothing any more, in bytes, so that its connection can be used again.
const REMAINS: usize = 64 << 10;
/// How long that may take to arrive.
const REMAINS_TIME: Duration = Duration::from_millis(500);

impl Exchange<'_> {
    /// Streamable HTTP: the reply to the POST holds the answer.
    pub(super) async fn attempt_http(&mut self) -> Result<Next, Error> {
        let bridge = self.bridge;
        let epoch = bridge.server.session().epoch();
        if self.pending.purpose.waits_for_session && !self.is_initialize() && bridge.server.session().stream().is_some()
        {
            // The session lived on a stream that the server does not offer any more (R56).
            return self.renew(epoch).await;
        }
        self.sent_in = epoch;
        let reply = self.post(bridge.server.requests.url()).await?;
        if !reply.status().is_success() {
            return self.refused(reply, AtSending::in_session(epoch)).await;
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
            self.hear_out(reply).await;
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
        // It has opened the stream of HTTP+SSE, whatever it was asked, and has not looked at the request.
        let summary = "the server answered with the stream of HTTP+SSE (2024-11-05)";
        match self.speak_sse().await? {
            None => Ok(Next::Again),
            Some(other) => Err(Error::new(ErrorKind::InvalidAnswer, summary).with_other_way("and then", &other)),
        }
    }

    pub(super) async fn post(&self, target: &ServerUrl) -> Result<Reply, Error> {
        let bridge = self.bridge;
        let bare = self.is_initialize();
        let session = |headers: &mut HeaderMap| match self.era() {
            Era::Modern => self.modern_headers(headers),
            Era::Legacy if bare => {}
            Era::Legacy => bridge.server.session().apply(headers),
        };
        let body = self.message.bytes().clone();
        let is_repeatable = only_reads(self.message.method());
        // Pinned here, as a future that is handed on takes its room twice, and each request has this one's.
        let post = pin!(bridge.server.requests.post(target, body, is_repeatable, session, &self.pending.delivery));
        let reply = self.in_time(post).await??;
        tracing::debug!(method = self.message.method(), status = reply.status().as_u16(), "reply");
        Ok(reply)
    }

    /// The server has taken the message.
    pub(super) fn received(&mut self) {
        if self.message.kind() == Kind::Request {
            return;
        }
        // What must come after it may go.
        let hold = self.lane.hold.take();
        if self.message.method() == "notifications/initialized" {
            let epoch = self.bridge.server.session().epoch();
            self.bridge.server.push_stream.push(epoch, hold);
        }
    }

    /// Hands on what the reply to a message that wants none has at once, and gives it up then: it may have no end. Its
    /// message has arrived, and makes room for the next.
    pub(super) async fn hear_out(&mut self, mut reply: Reply) {
        self.permit = None;
        let bridge = self.bridge;
        let Some(_permit) = bridge.calls.permits.for_remains().filter(|_| !reply.is_over()) else { return };
        let mut decoder = bridge.server.decoder(reply.content_type());
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
    pub(super) async fn read_remains(&self, mut reply: Reply) {
        let Some(_permit) = self.bridge.calls.permits.for_remains().filter(|_| !reply.is_over()) else { return };
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
    pub(super) async fn follow(&mut self, mut reply: Reply) -> Result<(), Error> {
        let status = reply.status();
        let mut decoder = self.bridge.server.decoder(reply.content_type());
        let mut cursor = None;
        let mut reopening = Reopening::new(self.bridge.timeouts.reconnect);
        self.heard = Instant::now();
        loop {
            let (broken, brought) = self.read(&mut reply, &mut decoder).await?;
            let is_over = self.pending.is_answered() || self.pending.is_cancelled() || self.leads_elsewhere();
            if self.message.kind() != Kind::Request || is_over {
                return Ok(());
            }
            if status == StatusCode::ACCEPTED
                && self.era() == Era::Legacy
                && self.bridge.server.push_stream.is_pushing()
            {
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
            decoder = self.bridge.server.decoder(reply.content_type());
        }
    }

    /// Reads a body to its end. Gives the error that broke it off, if one did, and says whether it brought any message.
    pub(super) async fn read(
        &mut self,
        reply: &mut Reply,
        decoder: &mut Decoder,
    ) -> Result<(Option<Error>, bool), Error> {
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
                decoder.take_endpoint().is_some() && self.is_initialize() && self.bridge.server.transport.is_open();
            if self.leads_elsewhere() {
                return Ok((None, brought));
            }
        };
        decoder.end(broken.is_none()).await;
        brought |= self.hand_on(decoder).await?;
        Ok((broken, brought))
    }

    /// The next bytes of a reply, for which the server may take its idle time.
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
            match self.silence_ends(since).into_iter().chain(self.deadline()).min() {
                Some(end) if end > Instant::now() => timer.as_mut().reset(end),
                Some(_) => return Err(self.out_of_time()),
                None => return Ok(chunk.await),
            }
        }
    }

    /// Hands on what the decoder has, and says whether that was anything. An answer that could not be kept is an error.
    pub(super) async fn hand_on(&mut self, decoder: &mut Decoder) -> Result<bool, Error> {
        let mut any = false;
        while let Some(message) = decoder.next_valid() {
            any = true;
            if self.speaks_another_era(StatusCode::OK, &message) {
                self.refusal = Some(message);
            } else if self.sees_session_lost(&message) {
                self.lost_session = true;
            } else {
                incoming::hand_on(self.bridge, message, Some(self.pending)).await;
            }
        }
        for lost in decoder.take_lost() {
            let error = incoming::hand_on_lost(self.bridge, lost, Some(self.pending)).await;
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

    /// The rest of a stream that broke, after the event with this id (R32, R33, R35). The network may be away for as long
    /// as the server may be silent. Gives the server's refusal if it does not take the stream up again.
    pub(super) async fn resume(&self, last_event_id: &Bytes, wait: Duration) -> Result<Result<Reply, Error>, Error> {
        let bridge = self.bridge;
        // A stream that is opened and brings nothing is no sign of life.
        let since = self.heard;
        let mut pause = wait;
        for failures in 0.. {
            self.in_time_since(since, sleep(pause)).await?;
            let session = |headers: &mut HeaderMap| bridge.server.session().apply(headers);
            let get = pin!(bridge.server.requests.get(true, session, Some(last_event_id)));
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
            let backoff = retry::backoff(bridge.timeouts.retry, failures, random());
            pause = backoff.max(wait).max(error.retry_after().unwrap_or_default());
        }
        Err(self.out_of_time())
    }
}
