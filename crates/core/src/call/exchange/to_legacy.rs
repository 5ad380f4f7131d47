//! Serves a modern client's requests at a legacy server, in a session that the bridge sets up. A request that the
//! server sends during a call becomes a result that asks for input (3.3).

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
    server::protocol::{self, TranslationRoute},
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

/// Server requests that arrive within this time go to the client in one result.
const QUESTION_BATCH_TIME: Duration = Duration::from_millis(20);

impl Exchange<'_> {
    pub(super) async fn attempt_to_legacy(&mut self) -> Result<Next, Error> {
        // The server refused the earlier attempt, which was a modern request.
        self.pending.delivery.begin();
        let outcome = self.translate_to_legacy().await;
        outcome.map_err(|error| {
            // From here on, the error itself says whether the request may have run.
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
            // Another message has found out that the server is a modern one after all.
            None => return Ok(Next::Again),
            Some(FromModern::Answer(answer)) => incoming::answer(bridge, self.pending, answer).await,
            Some(FromModern::Listen(subscription)) => self.subscribe(subscription).await,
            Some(FromModern::Retry { state, responses }) => return self.resume_call(&state, &responses).await,
            Some(FromModern::Send(message)) => return self.make(&message).await,
        }
        Ok(Next::Done)
    }

    /// Sets up a session if there is none. If the server refuses, its response goes to the client.
    async fn greet_legacy(&mut self) -> Result<Option<Next>, Error> {
        let bridge = self.bridge;
        self.first(Remedy::OtherProtocol);
        let greeting = {
            let (bridge, request) = (Arc::clone(bridge), self.message.clone());
            // All requests share the session, so finish even if this one is cancelled or times out.
            self.bridge.calls.run_to_completion(async move { greet(&bridge, &request).await })
        };
        Ok(match self.with_deadline(greeting).await??? {
            HandshakeOutcome::Session => None,
            HandshakeOutcome::Refused(answer) => {
                incoming::answer(bridge, self.pending, answer).await;
                Some(Next::Done)
            }
            // The server is a modern one, so its first refusal is the response.
            HandshakeOutcome::Modern => match self.refusal.take() {
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

    /// Waits for the response to a call, or for a request that the server sends during the call.
    async fn attend(&mut self, mut call: CallHandle) -> Result<Next, Error> {
        let bridge = self.bridge;
        let answer = tokio::select! {
            biased;
            answer = &mut call.answer => answer,
            // The client has not answered all questions yet.
            () = std::future::ready(()), if !call.asked.is_empty() => return self.park(call).await,
            Some(question) = call.questions.recv() => {
                call.asked.push(question);
                return self.park(call).await;
            }
        };
        let answer = answer.unwrap_or_else(|_| Err(shutdown()));
        // After a timeout the call is not finished, so dropping it cancels it at the server.
        if !answer.as_ref().is_err_and(Error::is_timeout) {
            call.finish();
        }
        let answer = match answer {
            Ok(answer) if shows_modern_server(&answer) => {
                renewal::switch_to_modern(bridge);
                return Ok(Next::Again);
            }
            Ok(answer) => answer,
            Err(error) => return Err(error),
        };
        let opened = OpenedMessage::new(answer);
        let answer = opened.message.clone();
        let answered = match &bridge.server.protocol().legacy_server {
            // A response that cannot be opened passes unchanged: clients treat a result without a type as complete.
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

    /// Parks a call that needs input, until the client's next request resumes it.
    async fn park(&mut self, mut call: CallHandle) -> Result<Next, Error> {
        while let Ok(Some(question)) = timeout(QUESTION_BATCH_TIME, call.questions.recv()).await {
            call.asked.push(question);
        }
        let questions: Vec<_> = call.asked.iter().map(|question| question.request.clone()).collect();
        let state = self.bridge.calls.parked.park(call).ok_or_else(too_many)?;
        let answer = modern_to_legacy::input_required(&self.message, &state, &questions);
        incoming::answer(self.bridge, self.pending, answer).await;
        Ok(Next::Done)
    }

    /// Resumes the call for which the client brings input.
    async fn resume_call(&mut self, state: &str, responses: &[(String, String)]) -> Result<Next, Error> {
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
                    // Do not wait for this: the server may ask more or answer the call before it accepts the response.
                    own_requests::send_in_background(bridge, response, Purpose::session()).await;
                }
                None => call.asked.push(question),
            }
        }
        self.attend(call).await
    }

    /// Makes the server log at the level that this request asks for.
    async fn set_level(&self) {
        let bridge = self.bridge;
        let Some(level) = modern_to_legacy::log_level(&self.message) else { return };
        let request = modern_to_legacy::set_level(&level);
        let mut refused = bridge.calls.log_level.lock().await;
        let epoch = bridge.server.session().epoch();
        let is_refused = refused.as_ref().is_some_and(|(at, other)| *at == epoch && *other == level);
        if is_refused || bridge.server.session().has_log_level_of(&request) {
            return;
        }
        // Some servers support log levels without saying so.
        match own_requests::call(bridge, &request, Purpose::modern_clients()).await {
            Ok(answer) if answer.error().is_none() => bridge.server.session().answered(&request),
            failed => {
                tracing::debug!(?failed, "the server's log level cannot be set");
                *refused = Some((epoch, level));
            }
        }
    }

    /// Serves a subscription until the client cancels it.
    async fn subscribe(&mut self, mut subscription: Subscription) {
        let bridge = self.bridge;
        let turn = bridge.calls.subscriptions.turn.lock().await;
        let watched = subscription.uris().to_vec();
        let newly = bridge.calls.subscriptions.watch(&watched);
        let mut guard = SubscriptionGuard { bridge, number: None, watched };
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
        guard.remove_unwatched(&unwatched);
        subscription.remove_unwatched(&unwatched);
        drop(turn);
        // The acknowledgement must come first, and no event after it may be lost: do not await in between.
        bridge.client.output.send_now(subscription.acknowledged().into_line());
        guard.number = Some(bridge.calls.subscriptions.add(subscription));
        self.release();
        std::future::pending::<()>().await;
    }
}

/// The outcome of a handshake with the server.
enum HandshakeOutcome {
    /// There is a session.
    Session,
    /// The server refused one, with this response.
    Refused(Message),
    /// The server is a modern one after all.
    Modern,
}

/// Sets up a session if there is none, with the client data of this request.
async fn greet(bridge: &Arc<Bridge>, request: &Message) -> Result<HandshakeOutcome, Error> {
    let failures = bridge.calls.renewal.failures();
    let _turn = bridge.calls.renewal.turn().await;
    if bridge.translation_route(request) == TranslationRoute::Direct {
        return Ok(HandshakeOutcome::Modern);
    }
    if bridge.server.protocol().legacy_server.is_some() && bridge.server.session().initialize().is_some() {
        return Ok(HandshakeOutcome::Session);
    }
    if bridge.calls.renewal.failures() != failures {
        // An attempt for each request in turn would delay the last one for too long.
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
        return Ok(HandshakeOutcome::Session);
    }
    match answer.error() {
        None => Err(Error::new(ErrorKind::InvalidAnswer, "the server's answer to initialize is not a result")),
        Some((code, _)) if protocol::refuses_legacy(code) => {
            renewal::switch_to_modern(bridge);
            Ok(HandshakeOutcome::Modern)
        }
        Some(_) => Ok(HandshakeOutcome::Refused(answer)),
    }
}

/// True if only a modern server responds like this: it refuses the version and names its own. It has not looked at the
/// request.
fn shows_modern_server(answer: &Message) -> bool {
    let supported = || Object::of(answer.text())?.object("error")?.object("data")?.get("supported");
    let is_modern = |version: &str| version.trim_matches('"') == revision::MODERN_VERSION;
    answer.error().is_some_and(|(code, _)| code == -32_022)
        && supported().is_some_and(|supported| elements(supported).any(is_modern))
}

/// An open subscription. Dropping it ends the subscription.
struct SubscriptionGuard<'a> {
    bridge: &'a Arc<Bridge>,
    number: Option<u64>,
    watched: Vec<String>,
}

impl SubscriptionGuard<'_> {
    /// Removes resources that the server does not watch for anyone.
    fn remove_unwatched(&mut self, unwatched: &HashSet<String>) {
        let (gone, watched) = std::mem::take(&mut self.watched).into_iter().partition(|uri| unwatched.contains(uri));
        self.watched = watched;
        let gone: Vec<String> = gone;
        self.bridge.calls.subscriptions.unwatch(&gone);
    }
}

impl Drop for SubscriptionGuard<'_> {
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
                    tracing::debug!(error = %error, "the server did not stop watching a resource");
                }
            }
        });
    }
}

/// Returns the error for a request whose `requestState` names no parked call.
fn unknown_state(request: &Message) -> Message {
    let id = request.id().map_or("null", Id::as_str);
    let text = "requestState names no open call: it is from another process, was used before, or came too late";
    let error = format!(r#"{{"code":-32602,"message":"{text}","data":{{"source":"mcp-gangway"}}}}"#);
    Message::one(format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#)).unwrap_or_else(|| request.clone())
}

fn too_many() -> Error {
    Error::new(ErrorKind::TooLarge, "too many calls wait for input already")
}
