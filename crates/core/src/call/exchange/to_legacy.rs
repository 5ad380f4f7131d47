//! A modern client's request at a legacy server: it runs in a session that the bridge has set up, and what the server asks
//! meanwhile becomes a result that asks for input (3.3).

use crate::{
    call::{
        Bridge, incoming,
        lane::Lane,
        own_requests,
        parked_calls::{CallHandle, ParkedRequest},
        purpose::Purpose,
        renewal, shutdown,
    },
    error::{Error, ErrorKind},
    json::splice::{Object, elements},
    server::protocol::{self, Road},
    translate::modern_to_legacy::{self, Answered, FromModern, LegacyServer, Subscription},
    wire::{
        id::Id,
        large_message::OpenedMessage,
        message::{Kind, Message},
        revision,
    },
};
use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::time::timeout;

use super::{Exchange, Next, Remedy};

/// What the server asks within so much time goes to the client in one result.
const GATHERING: Duration = Duration::from_millis(20);

impl Exchange<'_> {
    pub(super) async fn attempt_to_legacy(&mut self) -> Result<Next, Error> {
        // What was sent before, as a modern request, was refused.
        self.pending.delivery.begin();
        let outcome = self.translate_to_legacy().await;
        outcome.map_err(|error| {
            // From here on the error says whether it may have run.
            self.pending.delivery.begin();
            self.passed_on(error)
        })
    }

    async fn translate_to_legacy(&mut self) -> Result<Next, Error> {
        let bridge = self.bridge;
        if self.message.kind() != Kind::Request {
            if bridge.server.session().is_for_modern() {
                own_requests::tell(
                    bridge,
                    modern_to_legacy::forwarded(&self.message),
                    Purpose::modern_clients(),
                    Lane::default(),
                )
                .await;
            }
            return Ok(Next::Done);
        }
        if let Some(objection) = modern_to_legacy::objection(&self.message) {
            incoming::answer(bridge, self.pending, objection).await;
            return Ok(Next::Done);
        }
        if let Some(step) = self.greet_legacy().await? {
            return Ok(step);
        }
        let translated = bridge.server.protocol().legacy_server.as_ref().map(|server| server.take(&self.message));
        match translated {
            // Another message has found that the server is modern after all.
            None => return Ok(Next::Again),
            Some(FromModern::Answer(answer)) => incoming::answer(bridge, self.pending, answer).await,
            Some(FromModern::Listen(subscription)) => self.subscribe(subscription).await,
            Some(FromModern::Retry { state, responses }) => return self.go_on(&state, &responses).await,
            Some(FromModern::Send(message)) => return self.make(&message).await,
        }
        Ok(Next::Done)
    }

    /// Sees that there is a session. If the server has none to offer, its answer is the client's.
    async fn greet_legacy(&mut self) -> Result<Option<Next>, Error> {
        let bridge = self.bridge;
        self.first(Remedy::OtherProtocol);
        let greeting = {
            let (bridge, request) = (Arc::clone(bridge), self.message.clone());
            // The session is everybody's, should this request be cancelled or run out of time.
            self.bridge.calls.see_through(async move { greet(&bridge, &request).await })
        };
        Ok(match self.in_time_left(greeting).await??? {
            Greeting::Session => None,
            Greeting::Refused(answer) => {
                incoming::answer(bridge, self.pending, answer).await;
                Some(Next::Done)
            }
            // What it said at first was meant.
            Greeting::Modern => match self.refusal.take() {
                Some(refusal) => {
                    incoming::answer(bridge, self.pending, refusal).await;
                    Some(Next::Done)
                }
                None => Some(Next::Again),
            },
        })
    }

    /// Sends a request in its legacy form.
    async fn make(&mut self, message: &Message) -> Result<Next, Error> {
        self.set_level().await;
        self.attend(CallHandle::start(self.bridge, &self.message, message, &self.pending.delivery)).await
    }

    /// Waits for the answer to a call, or for a question of the server's in the middle of it.
    async fn attend(&mut self, mut call: CallHandle) -> Result<Next, Error> {
        let bridge = self.bridge;
        let answer = tokio::select! {
            biased;
            answer = &mut call.answer => answer,
            // The client has not answered all that it was asked.
            () = std::future::ready(()), if !call.asked.is_empty() => return self.park(call).await,
            Some(question) = call.questions.recv() => {
                call.asked.push(question);
                return self.park(call).await;
            }
        };
        let answer = answer.unwrap_or_else(|_| Err(shutdown()));
        // A server that was silent for too long is told that nobody waits any more.
        if !answer.as_ref().is_err_and(Error::is_timeout) {
            call.finish();
        }
        let answer = match answer {
            Ok(answer) if shows_modern_server(&answer) => {
                renewal::turn_modern(bridge);
                return Ok(Next::Again);
            }
            Ok(answer) => answer,
            Err(error) => return Err(error),
        };
        let opened = OpenedMessage::new(answer);
        let answer = opened.message.clone();
        let answered = match &bridge.server.protocol().legacy_server {
            // What cannot be opened passes as it is; clients take a result without a type for a complete one.
            Some(server) if opened.is_open() => server.answer(&self.message, answer),
            _ => Answered::Final(answer),
        };
        let answer = match answered {
            Answered::Final(answer) => opened.close(answer).await,
            Answered::InputRequired(questions) => {
                let state = bridge.calls.parked.again(bridge, &self.message).ok_or_else(too_many)?;
                modern_to_legacy::input_required(&self.message, &state, &questions)
            }
        };
        incoming::answer(bridge, self.pending, answer).await;
        Ok(Next::Done)
    }

    /// Leaves a call to the client's next request, as the server needs input for it.
    async fn park(&mut self, mut call: CallHandle) -> Result<Next, Error> {
        while let Ok(Some(question)) = timeout(GATHERING, call.questions.recv()).await {
            call.asked.push(question);
        }
        let questions: Vec<_> = call.asked.iter().map(|question| question.request.clone()).collect();
        let state = self.bridge.calls.parked.park(call).ok_or_else(too_many)?;
        let answer = modern_to_legacy::input_required(&self.message, &state, &questions);
        incoming::answer(self.bridge, self.pending, answer).await;
        Ok(Next::Done)
    }

    /// Goes on with what the client brings the input for.
    async fn go_on(&mut self, state: &str, responses: &[(String, String)]) -> Result<Next, Error> {
        let bridge = self.bridge;
        let mut call = match bridge.calls.parked.take(state, self.message.method()) {
            Some(ParkedRequest::Call(call, _)) => call,
            Some(ParkedRequest::Again(..)) => {
                if let Some(answer) = modern_to_legacy::declined(&self.message, responses) {
                    incoming::answer(bridge, self.pending, answer).await;
                    return Ok(Next::Done);
                }
                return self.make(&modern_to_legacy::forwarded(&self.message)).await;
            }
            None => {
                incoming::answer(bridge, self.pending, unknown_state(&self.message)).await;
                return Ok(Next::Done);
            }
        };
        self.pending.delivery.arrived();
        for (number, question) in call.resume(&self.message).into_iter().enumerate() {
            match responses.iter().find(|(key, _)| *key == format!("r{number}")) {
                Some((_, input)) => {
                    let response = modern_to_legacy::response(&question.request, input);
                    // The server may have more to ask, or the answer to give, before it has done with this.
                    own_requests::tell_beside(bridge, response, Purpose::session()).await;
                }
                None => call.asked.push(question),
            }
        }
        self.attend(call).await
    }

    /// Sees that the server logs at the level that this request wants.
    async fn set_level(&self) {
        let bridge = self.bridge;
        let Some(level) = modern_to_legacy::log_level(&self.message) else { return };
        let request = modern_to_legacy::set_level(&level);
        let mut refused = bridge.calls.log_level.lock().await;
        let epoch = bridge.server.session().epoch();
        let is_refused = refused.as_ref().is_some_and(|(at, other)| *at == epoch && *other == level);
        if is_refused || bridge.server.session().logs_like(&request) {
            return;
        }
        // Some servers know levels and do not say so.
        match own_requests::call(bridge, &request, Purpose::modern_clients()).await {
            Ok(answer) if answer.error().is_none() => bridge.server.session().answered(&request),
            failed => {
                tracing::debug!(?failed, "the server's log level cannot be set");
                *refused = Some((epoch, level));
            }
        }
    }

    /// Serves a subscription until the client gives it up.
    async fn subscribe(&mut self, mut subscription: Subscription) {
        let bridge = self.bridge;
        let turn = bridge.calls.subscriptions.turn.lock().await;
        let watched = subscription.uris().to_vec();
        let newly = bridge.calls.subscriptions.watch(&watched);
        let mut guard = Subscribed { bridge, number: None, watched };
        let mut newly = newly.into_iter();
        let mut unwatched = HashSet::new();
        for uri in newly.by_ref() {
            let request = modern_to_legacy::subscribe(&uri);
            let failed = match own_requests::call(bridge, &request, Purpose::modern_clients()).await {
                Ok(answer) if answer.error().is_none() => {
                    bridge.server.session().answered(&request);
                    continue;
                }
                failed => failed,
            };
            tracing::debug!(?failed, "the server does not watch a resource");
            unwatched.insert(uri);
            if failed.is_ok_and(|answer| modern_to_legacy::has_no_such_method(&answer)) {
                break;
            }
        }
        unwatched.extend(newly);
        guard.leave_out(&unwatched);
        subscription.leave_out(&unwatched);
        drop(turn);
        // Nothing may come before the acknowledgement, and nothing be lost after it: no wait between the two.
        bridge.client.output.send_now(subscription.acknowledged().into_line());
        guard.number = Some(bridge.calls.subscriptions.add(subscription));
        self.release();
        std::future::pending::<()>().await;
    }
}

/// What a handshake with the server has come to.
enum Greeting {
    /// There is a session.
    Session,
    /// The server has none to offer, and says why.
    Refused(Message),
    /// The server is a modern one after all.
    Modern,
}

/// Sees that there is a session, which is set up with what this request says of its client.
async fn greet(bridge: &Arc<Bridge>, request: &Message) -> Result<Greeting, Error> {
    let failures = bridge.calls.renewal.failures();
    let _turn = bridge.calls.renewal.turn().await;
    if bridge.road(request) == Road::Direct {
        return Ok(Greeting::Modern);
    }
    if bridge.server.protocol().legacy_server.is_some() && bridge.server.session().initialize().is_some() {
        return Ok(Greeting::Session);
    }
    if bridge.calls.renewal.failures() != failures {
        // To try for each in turn would keep the last one waiting for long.
        return Err(Error::new(ErrorKind::NoAnswer, "no session could be set up with the server just now"));
    }
    bridge.server.session().begin_for_modern();
    let initialize = modern_to_legacy::initialize(request);
    let answer = own_requests::call(bridge, &initialize, Purpose::session())
        .await
        .inspect_err(|_| bridge.calls.renewal.failed())?;
    if let (Some(server), Some(offer)) = (LegacyServer::new(&answer), answer.offer()) {
        tracing::info!("the server speaks an older protocol; the client's 2026-07-28 is translated");
        bridge.server.session().negotiated_for_modern(&initialize, offer);
        bridge.server.protocol().legacy_server = Some(server);
        renewal::begin_session(bridge).await;
        return Ok(Greeting::Session);
    }
    match answer.error() {
        None => Err(Error::new(ErrorKind::InvalidAnswer, "the server's answer to initialize is no result")),
        Some((code, _)) if protocol::refuses_legacy(code) => {
            renewal::turn_modern(bridge);
            Ok(Greeting::Modern)
        }
        Some(_) => Ok(Greeting::Refused(answer)),
    }
}

/// Whether only a modern server answers like this: it knows no version but its own, and has not looked at the request.
fn shows_modern_server(answer: &Message) -> bool {
    let supported = || Object::of(answer.text())?.object("error")?.object("data")?.get("supported");
    let is_modern = |version: &str| version.trim_matches('"') == revision::MODERN_VERSION;
    answer.error().is_some_and(|(code, _)| code == -32_022)
        && supported().is_some_and(|supported| elements(supported).any(is_modern))
}

/// An open subscription, which is ended when this is dropped.
struct Subscribed<'a> {
    bridge: &'a Arc<Bridge>,
    number: Option<u64>,
    watched: Vec<String>,
}

impl Subscribed<'_> {
    /// The server does not watch these resources, for nobody.
    fn leave_out(&mut self, unwatched: &HashSet<String>) {
        let (gone, watched) = std::mem::take(&mut self.watched).into_iter().partition(|uri| unwatched.contains(uri));
        self.watched = watched;
        let gone: Vec<String> = gone;
        self.bridge.calls.subscriptions.unwatch(&gone);
    }
}

impl Drop for Subscribed<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.bridge.calls.subscriptions.remove(number);
        }
        let gone = self.bridge.calls.subscriptions.unwatch(&self.watched);
        let bridge = Arc::clone(self.bridge);
        self.bridge.calls.spawn(async move {
            let _turn = bridge.calls.subscriptions.turn.lock().await;
            for uri in gone.iter().filter(|uri| bridge.calls.subscriptions.is_unwatched(uri)) {
                let request = modern_to_legacy::unsubscribe(uri);
                bridge.server.session().answered(&request);
                if let Err(error) = own_requests::call(&bridge, &request, Purpose::session()).await {
                    tracing::debug!(error = %error, "the server goes on watching a resource");
                }
            }
        });
    }
}

/// The answer to a request that goes on with a call which is not there.
fn unknown_state(request: &Message) -> Message {
    let id = request.id().map_or("null", Id::as_str);
    let text = "requestState stands for no open call: it is not of this process, was used before, or came too late";
    let error = format!(r#"{{"code":-32602,"message":"{text}","data":{{"source":"mcp-gangway"}}}}"#);
    Message::one(format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#)).unwrap_or_else(|| request.clone())
}

fn too_many() -> Error {
    Error::new(ErrorKind::TooLarge, "too many calls wait for input already")
}
