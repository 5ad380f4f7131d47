//! A modern request at a modern server: everything that a legacy session would know is in its headers (R60-R78).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{HeaderMap, StatusCode};
use tokio::time::{Instant, sleep, timeout};

use super::{Exchange, Remedy, Step, no_answer};
use crate::{
    bridge::Bridge,
    call::call_table::Origin,
    error::{Error, Fate, Kind as Fault},
    json::splice,
    server::{requests::Reply, retry},
    translate::eras,
    wire::{
        headers,
        message::{Kind, Message},
    },
};

/// The code of the error that says that headers and body differ.
const HEADER_MISMATCH: i64 = -32_020;
/// The most pages of a list of tools.
const MOST_PAGES: usize = 1000;
/// How long the server may take for a list that the bridge wants for itself. A call goes on without it then.
const LISTING_TIME: Duration = Duration::from_secs(10);

/// What was known of the server when a request was sent.
#[derive(Clone, Copy)]
struct Known {
    /// How often its tools had been listed.
    listings: u64,
    /// It takes modern requests.
    is_modern: bool,
}

impl Exchange<'_> {
    pub(super) async fn attempt_modern(&mut self) -> Result<Step, Error> {
        let bridge = self.bridge;
        let is_blind = self.is_tool_call() && !bridge.eras().tools.know(&self.message);
        if is_blind && !bridge.listing.is_done() {
            // The client may know the tool from its cache, or from elsewhere (R64).
            bridge.list_tools(&self.message, bridge.listing.tries()).await;
            if !self.is_direct() {
                // The list has shown a legacy server, so the call need not.
                return Ok(Step::Again);
            }
        }
        let known = Known { listings: bridge.listing.tries(), is_modern: bridge.eras().is_modern() };
        let reply = self.post(bridge.transport.url()).await?;
        if !reply.status().is_success() {
            return self.refused_modern(reply, known).await;
        }
        self.received();
        if self.message.method() == "subscriptions/listen" {
            return self.follow_events(reply).await;
        }
        if self.message.kind() == Kind::Request {
            self.follow(reply).await?;
        } else {
            self.hear_out(reply).await;
        }
        Ok(self.step())
    }

    /// The headers of this request.
    pub(super) fn modern_headers(&self, headers: &mut HeaderMap) {
        let params = if self.is_tool_call() { self.bridge.eras().tools.params(&self.message) } else { Vec::new() };
        headers::modern(&self.message, params, headers);
    }

    /// A reply whose status says no: an answer (R67), headers that the server knows better, or an older server.
    async fn refused_modern(&mut self, mut reply: Reply, known: Known) -> Result<Step, Error> {
        let bridge = self.bridge;
        let status = reply.status();
        let page = reply.page(&bridge.storage, self.message.kind() == Kind::Request).await;
        let error = reply.failure(&page.text);
        let (answer, may_go_again) = self.answer_in(status, &page);
        if let Some(step) = self.reauthorize(reply.refusal(), may_go_again).await? {
            return Ok(step);
        }
        let fault = answer.as_ref().and_then(Message::error);
        if fault.as_ref().is_some_and(|(code, _)| *code == HEADER_MISMATCH)
            && may_go_again
            && self.is_tool_call()
            && self.first(Remedy::NewList)
        {
            bridge.list_tools(&self.message, known.listings).await;
            return Ok(Step::Again);
        }
        if self.message.kind() == Kind::Request {
            let taken = bridge.eras().judge(self.message.method(), status, fault.as_ref());
            if let Some(taken) = taken.filter(|_| !self.has_tried(Remedy::OtherProtocol)) {
                bridge.eras().modern_is(taken);
            }
            // A modern server has let it in, so what a gateway says instead of an answer may be about what ran.
            let may_have_run =
                known.is_modern && fault.is_none() && !self.is_harmless() && retry::judge(status.as_u16(), None).1;
            if taken == Some(false)
                && may_go_again
                && !may_have_run
                && !self.has_tried(Remedy::OtherProtocol)
                && !self.pending.is_own()
            {
                self.refusal = answer;
                return Ok(Step::Again);
            }
        }
        if let Some(answer) = answer {
            bridge.answer(self.pending, answer).await;
            return Ok(Step::Done);
        }
        Err(error)
    }

    /// Hands on what a subscription brings. Its stream is opened again when it breaks off, with what may have happened
    /// meanwhile put in the place of what did (R73, R74).
    async fn follow_events(&mut self, mut reply: Reply) -> Result<Step, Error> {
        let bridge = self.bridge;
        // How long the client has believed what no server stands for.
        let mut lost = Instant::now();
        loop {
            let status = reply.status();
            let mut decoder = bridge.decoder(reply.content_type());
            let mut is_live = false;
            let broken = loop {
                // It may be silent for as long as nothing happens (R73), once the server has said that it stands.
                let chunk = if is_live { reply.chunk().await } else { self.in_time_since(lost, reply.chunk()).await? };
                match chunk {
                    Ok(Some(chunk)) => decoder.take_in(chunk).await?,
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
                while let Some(message) = decoder.next_valid() {
                    is_live |= self.hand_on_event(message).await;
                }
                for lost in decoder.take_lost() {
                    if let Some(error) = bridge.hand_on_lost(lost, Some(self.pending)).await {
                        return Err(error);
                    }
                }
            };
            decoder.end(broken.is_none()).await;
            while let Some(message) = decoder.next_valid() {
                is_live |= self.hand_on_event(message).await;
            }
            if self.pending.is_answered() || self.refusal.is_some() {
                return Ok(self.step());
            }
            let failure =
                broken.or_else(|| decoder.take_rejected()).unwrap_or_else(|| no_answer(status, decoder.is_sse()));
            if self.acknowledged.is_none() {
                // It never was what it should be.
                return Err(failure.with_fate(Fate::Final));
            }
            tracing::debug!(error = %failure, "a subscription broke off; it is opened again");
            if is_live {
                lost = Instant::now();
            }
            reply = match Box::pin(self.open_again(failure, lost)).await? {
                Ok(reply) => reply,
                // To open it again runs nothing.
                Err(refusal) => {
                    return self.refused_modern(refusal, Known { listings: 0, is_modern: false }).await;
                }
            };
        }
    }

    /// Hands on one message of a subscription's stream. True if it is the acknowledgement.
    async fn hand_on_event(&mut self, message: Message) -> bool {
        let bridge = self.bridge;
        if self.speaks_another_era(StatusCode::OK, &message) {
            self.refusal = Some(message);
            return false;
        }
        if message.method() != "notifications/subscriptions/acknowledged" {
            bridge.hand_on(message, Some(self.pending)).await;
            return false;
        }
        bridge.eras().modern_is(true);
        let before = self.acknowledged.replace(message.clone());
        if before.as_ref().is_none_or(|before| before.bytes() != message.bytes()) {
            bridge.hand_on(message.clone(), Some(self.pending)).await;
        }
        if before.is_some() {
            for event in missed(&message) {
                bridge.hand_on(event, Some(self.pending)).await;
            }
        }
        true
    }

    /// Opens the stream of a subscription again, as soon as the server lets that happen, which may last as long as a server
    /// may be silent since it was `lost`. Gives its refusal if it does not.
    async fn open_again(&mut self, failure: Error, lost: Instant) -> Result<Result<Reply, Reply>, Error> {
        let bridge = self.bridge;
        let mut failure = Some(failure);
        for failures in 0.. {
            if lost.elapsed() > bridge.timeouts.idle {
                break;
            }
            let wait = match failures {
                0 => bridge.timeouts.reconnect,
                _ => retry::backoff(bridge.timeouts.retry, failures + 2, retry::random()),
            };
            sleep(wait).await;
            match self.post(bridge.transport.url()).await {
                Ok(reply) if reply.status().is_success() => return Ok(Ok(reply)),
                Ok(mut reply) if matches!(reply.status().as_u16(), 408 | 425 | 429 | 500 | 502..=504) => {
                    failure = Some(reply.failure(b""));
                }
                Ok(reply) => return Ok(Err(reply)),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure
            .unwrap_or_else(|| Error::new(Fault::Broken, "the subscription's stream cannot be opened again"))
            .with_fate(Fate::Final))
    }

    fn is_tool_call(&self) -> bool {
        self.message.kind() == Kind::Request && self.message.method() == "tools/call"
    }
}

/// How often the bridge has listed the tools of a modern server by itself. However many calls need that, one does it.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    turn: tokio::sync::Mutex<()>,
    tries: AtomicU64,
    is_done: AtomicBool,
}

impl Listing {
    /// How many of its lists have come to an end, be it a bad one.
    fn tries(&self) -> u64 {
        self.tries.load(Ordering::Acquire)
    }

    /// Whether another one is of no use: one was complete, or the server takes too long for it.
    fn is_done(&self) -> bool {
        self.is_done.load(Ordering::Acquire)
    }
}

impl Bridge {
    /// Lists the server's tools, as the client of this request would, unless that was tried more often than `seen`.
    async fn list_tools(self: &Arc<Self>, like: &Message, seen: u64) {
        let _turn = self.listing.turn.lock().await;
        if self.listing.tries() > seen {
            return;
        }
        match timeout(LISTING_TIME, self.list_pages(like)).await {
            Ok(Ok(())) => self.listing.is_done.store(true, Ordering::Release),
            Ok(Err(error)) => tracing::debug!(error = %error, "the server's tools cannot be listed"),
            Err(_) => {
                tracing::warn!(
                    "the server takes too long to list its tools; calls go on without what they want in headers"
                );
                // It would keep each call waiting.
                self.listing.is_done.store(true, Ordering::Release);
            }
        }
        self.listing.tries.fetch_add(1, Ordering::AcqRel);
    }

    async fn list_pages(self: &Arc<Self>, like: &Message) -> Result<(), Error> {
        let mut cursor = None;
        for _ in 0..MOST_PAGES {
            // What comes back is learnt on its way to here.
            let page = self.call(&list_request(like, cursor.as_deref()), Origin::Listing).await?;
            cursor = page.result().and_then(|result| result.get("nextCursor")).map(str::to_owned);
            if cursor.as_deref().is_none_or(|cursor| cursor == "null") {
                break;
            }
        }
        Ok(())
    }
}

/// A `tools/list` of the client that sent `like`; `cursor` as the last page spelled it.
fn list_request(like: &Message, cursor: Option<&str>) -> Message {
    let members = [eras::PROTOCOL_VERSION, eras::CLIENT_CAPABILITIES, eras::CLIENT_INFO];
    let meta = like.meta();
    let meta: Vec<_> = members
        .iter()
        .filter_map(|name| Some(format!("{}:{}", serde_json::Value::from(*name), meta?.get(name)?)))
        .collect();
    let cursor = cursor.map(|cursor| format!(",\"cursor\":{cursor}")).unwrap_or_default();
    let meta = meta.join(",");
    let text = format!(r#"{{"jsonrpc":"2.0","id":0,"method":"tools/list","params":{{"_meta":{{{meta}}}{cursor}}}}}"#);
    Message::one(text).unwrap_or_else(|| like.clone())
}

/// Notifications of all that a subscription with this acknowledgement may have missed (R74).
pub(super) fn missed(acknowledged: &Message) -> Vec<Message> {
    let params = acknowledged.params();
    let granted = params.and_then(|params| params.object("notifications"));
    let mark = params.and_then(|params| params.object("_meta")?.get(eras::SUBSCRIPTION_ID)).unwrap_or("null");
    let mark = format!(r#""_meta":{{"{}":{mark}}}"#, eras::SUBSCRIPTION_ID);
    let mut missed = Vec::new();
    for member in granted.into_iter().flat_map(splice::Object::members) {
        let method = match member.name().as_str() {
            "toolsListChanged" => "notifications/tools/list_changed",
            "promptsListChanged" => "notifications/prompts/list_changed",
            "resourcesListChanged" => "notifications/resources/list_changed",
            "resourceSubscriptions" => "notifications/resources/updated",
            _ => continue,
        };
        if member.value == "true" {
            missed.push(format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{{{mark}}}}}"#));
        }
        for uri in splice::elements(member.value) {
            missed.push(format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{{"uri":{uri},{mark}}}}}"#));
        }
    }
    missed.into_iter().filter_map(Message::one).collect()
}
