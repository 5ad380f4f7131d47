//! A modern client's request at a legacy server: it runs in a session that the bridge has set up, and what the server asks
//! meanwhile becomes a result that asks for input (3.3).

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;

use super::{Exchange, Remedy, Step};
use crate::{
    bridge::Bridge,
    era::{
        self,
        modern_to_legacy::{self, Answered, LegacyServer, Step as Translated, Subscription},
    },
    error::{Error, Kind as Fault},
    held::{Call, Waiting},
    intake::Lane,
    message::{Id, Message},
    pending::Origin,
};

/// What the server asks within so much time goes to the client in one result.
const GATHERING: Duration = Duration::from_millis(20);

impl Exchange<'_> {
    pub(super) async fn attempt_to_legacy(&mut self) -> Result<Step, Error> {
        let outcome = self.translate_to_legacy().await;
        outcome.map_err(|error| self.passed_on(error))
    }

    async fn translate_to_legacy(&mut self) -> Result<Step, Error> {
        let bridge = self.bridge;
        if let Some(objection) = modern_to_legacy::objection(&self.message) {
            bridge.answer(self.pending, objection).await;
            return Ok(Step::Done);
        }
        if let Some(step) = self.greet_legacy().await? {
            return Ok(step);
        }
        let translated = bridge.eras().server.as_ref().map(|server| server.take(&self.message));
        match translated {
            // Another message has found that the server is modern after all.
            None => return Ok(Step::Again),
            Some(Translated::Answer(answer)) => bridge.answer(self.pending, answer).await,
            Some(Translated::Listen(subscription)) => self.subscribe(subscription).await,
            Some(Translated::Retry { state, responses }) => self.go_on(&state, &responses).await?,
            Some(Translated::Send(message)) => {
                self.set_level().await;
                self.attend(Call::start(bridge, &self.message, &message)).await?;
            }
        }
        Ok(Step::Done)
    }

    /// Sees that there is a session. If the server has none to offer, its answer is the client's.
    async fn greet_legacy(&mut self) -> Result<Option<Step>, Error> {
        let bridge = self.bridge;
        self.first(Remedy::OtherProtocol);
        let _turn = bridge.renewal.turn().await;
        if bridge.eras().server.is_some() && bridge.session().initialize().is_some() {
            return Ok(None);
        }
        let initialize = modern_to_legacy::initialize(&self.message);
        let answer = bridge.call(&initialize, Origin::Session).await?;
        if let (Some(server), Some(offer)) = (LegacyServer::new(&answer), answer.offer()) {
            tracing::info!("the server speaks an older protocol; the client's 2026-07-28 is translated");
            bridge.session().negotiated_for_modern(&initialize, offer);
            bridge.eras().server = Some(server);
            bridge.begin_session().await;
            return Ok(None);
        }
        let Some((code, _)) = answer.error() else {
            return Err(Error::new(Fault::InvalidAnswer, "the server's answer to initialize is no result"));
        };
        if era::refuses_legacy(code) {
            // It is modern after all, and what it said at first was meant.
            bridge.eras().legacy_is(false);
            bridge.eras().modern_is(true);
            let Some(refusal) = self.refusal.take() else { return Ok(Some(Step::Again)) };
            bridge.answer(self.pending, refusal).await;
        } else {
            bridge.answer(self.pending, answer).await;
        }
        Ok(Some(Step::Done))
    }

    /// Waits for the answer to a call, or for a question of the server's in the middle of it.
    async fn attend(&mut self, mut call: Call) -> Result<(), Error> {
        let bridge = self.bridge;
        let answer = tokio::select! {
            biased;
            Some(question) = call.questions.recv() => return self.park(call, question).await,
            answer = &mut call.answer => answer,
        };
        call.finish();
        let answer = answer.unwrap_or_else(|_| Err(crate::bridge::shutdown()))?;
        let answered = match &bridge.eras().server {
            Some(server) => server.answer(&self.message, answer),
            None => Answered::Final(answer),
        };
        let answer = match answered {
            Answered::Final(answer) => answer,
            Answered::InputRequired(questions) => {
                let state = bridge.parked.again().ok_or_else(too_many)?;
                modern_to_legacy::input_required(&self.message, &state, &questions)
            }
        };
        bridge.answer(self.pending, answer).await;
        Ok(())
    }

    /// Leaves a call to the client's next request, as the server needs input for it.
    async fn park(&mut self, mut call: Call, question: Message) -> Result<(), Error> {
        call.asked.push(question);
        while let Ok(Some(question)) = timeout(GATHERING, call.questions.recv()).await {
            call.asked.push(question);
        }
        let questions = call.asked.clone();
        let state = self.bridge.parked.park(call).ok_or_else(too_many)?;
        let answer = modern_to_legacy::input_required(&self.message, &state, &questions);
        self.bridge.answer(self.pending, answer).await;
        Ok(())
    }

    /// Goes on with what the client brings the input for.
    async fn go_on(&mut self, state: &str, responses: &[(String, String)]) -> Result<(), Error> {
        let bridge = self.bridge;
        let mut call = match bridge.parked.take(state) {
            Some(Waiting::Call(call, _)) if call.held.request().method() == self.message.method() => call,
            Some(Waiting::Again) => {
                if let Some(answer) = modern_to_legacy::declined(&self.message, responses) {
                    bridge.answer(self.pending, answer).await;
                    return Ok(());
                }
                let message = modern_to_legacy::forwarded(&self.message);
                return self.attend(Call::start(bridge, &self.message, &message)).await;
            }
            Some(Waiting::Call(..)) | None => {
                bridge.answer(self.pending, unknown_state(&self.message)).await;
                return Ok(());
            }
        };
        let mut open = Vec::new();
        for (number, question) in call.resume(&self.message).into_iter().enumerate() {
            match responses.iter().find(|(key, _)| *key == format!("r{number}")) {
                Some((_, input)) => {
                    let response = modern_to_legacy::response(&question, input);
                    bridge.tell(response, Origin::Session, Lane::default()).await;
                }
                None => open.push(question),
            }
        }
        if let Some(question) = open.pop() {
            // The client has not brought all of it.
            call.asked = open;
            return self.park(call, question).await;
        }
        self.attend(call).await
    }

    /// Sees that the server logs at the level that this request wants.
    async fn set_level(&self) {
        let bridge = self.bridge;
        let can_log = bridge.eras().server.as_ref().is_some_and(LegacyServer::can_log);
        let Some(level) = modern_to_legacy::log_level(&self.message).filter(|_| can_log) else { return };
        let mut current = bridge.log_level.lock().await;
        if current.as_ref() == Some(&level) {
            return;
        }
        let request = modern_to_legacy::set_level(&level);
        match bridge.call(&request, Origin::Session).await {
            Ok(answer) if answer.error().is_none() => {
                bridge.session().answered(&request);
                *current = Some(level);
            }
            failed => tracing::debug!(?failed, "the server's log level cannot be set"),
        }
    }

    /// Serves a subscription until the client gives it up.
    async fn subscribe(&mut self, subscription: Subscription) {
        let bridge = self.bridge;
        let watched = subscription.uris().to_vec();
        let newly = bridge.subscriptions.watch(&watched);
        let mut guard = Subscribed { bridge, number: None, watched };
        for uri in newly {
            let request = modern_to_legacy::subscribe(&uri);
            match bridge.call(&request, Origin::Session).await {
                Ok(answer) if answer.error().is_none() => bridge.session().answered(&request),
                failed => tracing::debug!(?failed, "the server does not watch a resource"),
            }
        }
        // Nothing may come before the acknowledgement, and nothing be lost after it: no wait between the two.
        bridge.output.send_now(subscription.acknowledged().into_line());
        guard.number = Some(bridge.subscriptions.add(subscription));
        self.release();
        std::future::pending::<()>().await;
    }
}

/// An open subscription, which is ended when this is dropped.
struct Subscribed<'a> {
    bridge: &'a Arc<Bridge>,
    number: Option<u64>,
    watched: Vec<String>,
}

impl Drop for Subscribed<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.bridge.subscriptions.remove(number);
        }
        let gone = self.bridge.subscriptions.unwatch(&self.watched);
        let bridge = Arc::clone(self.bridge);
        self.bridge.spawn(async move {
            for uri in gone {
                let request = modern_to_legacy::unsubscribe(&uri);
                bridge.session().answered(&request);
                if let Err(error) = bridge.call(&request, Origin::Session).await {
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
    Error::new(Fault::TooLarge, "too many calls wait for input already")
}
