//! Serves a legacy client at a modern server: each request becomes one or more modern requests of the bridge (3.2).

use crate::{
    call::{incoming, lane::Lane, legacy_subscription, own_requests, purpose::Purpose},
    error::{Error, ErrorKind, Fate},
    random::random,
    server::retry,
    translate::legacy_to_modern::{FromLegacy, LegacyClient, Round, Translated},
    wire::{
        large_message::OpenedMessage,
        message::{Kind, Message},
    },
};
use std::sync::Arc;

use tokio::time::{Instant, sleep};

use super::{Exchange, Next, Remedy};

/// The most times a server may ask for more input within one request.
const MAX_ROUNDS: u32 = 100;

impl Exchange<'_> {
    pub(super) async fn attempt_to_modern(&mut self) -> Result<Next, Error> {
        // Each round takes its own permit.
        self.permit = None;
        let outcome = if self.is_initialize() {
            self.greet_modern().await
        } else {
            self.translate_to_modern().await.map(|()| Next::Done)
        };
        outcome.map_err(|error| self.passed_on(error))
    }

    /// Turns the error of a request made for this one into the error of this one. It is final, because that request
    /// has made all retries.
    pub(super) fn passed_on(&mut self, error: Error) -> Error {
        self.may_have_run |= error.may_have_run().unwrap_or_default();
        error.with_fate(Fate::Final)
    }

    /// Answers the handshake with what the server says in `server/discover`.
    async fn greet_modern(&mut self) -> Result<Next, Error> {
        let bridge = self.bridge;
        self.first(Remedy::OtherProtocol);
        let mut client = LegacyClient::new(&self.message);
        let discovered = own_requests::call(bridge, &client.discover(), Purpose::legacy_client()).await;
        let answer = match (discovered.map(|answer| client.initialized(&self.message, &answer)), self.refusal.take()) {
            (Ok(Ok(answer)), _) => {
                bridge.shake_hands(client);
                // Closes a session that a response to the handshake may have begun, and the subscription of an earlier
                // client.
                bridge.server.session().close();
                bridge.calls.legacy_subscription.clear();
                answer
            }
            // The server does not describe itself as a modern one, so its refusal of the handshake is the response.
            (_, Some(refusal)) => {
                bridge.record_handshake_accepted();
                refusal
            }
            // The server was a modern one; it may accept the handshake now.
            (Ok(Err(_)), None) => {
                bridge.record_handshake_accepted();
                return Ok(Next::Again);
            }
            (Err(error), None) => return Err(error),
        };
        incoming::answer(bridge, self.pending, answer).await;
        Ok(Next::Done)
    }

    async fn translate_to_modern(&mut self) -> Result<(), Error> {
        let bridge = self.bridge;
        // One change at a time: each opens a stream that replaces the last one.
        let is_change = matches!(self.message.method(), "resources/subscribe" | "resources/unsubscribe");
        let _turn = if is_change {
            Some(self.with_deadline(bridge.calls.legacy_subscription.turn.lock()).await?)
        } else {
            None
        };
        let translated = bridge.client.legacy().as_mut().map(|client| client.take(&self.message));
        match translated {
            None => return Err(Error::new(ErrorKind::SessionLost, "the client has not sent initialize")),
            Some(FromLegacy::Answer(answer)) => incoming::answer(bridge, self.pending, answer).await,
            Some(FromLegacy::Listen(answer)) => {
                if let Err(error) = legacy_subscription::renew(bridge).await {
                    if let Some(client) = &mut *bridge.client.legacy() {
                        client.forget(&self.message);
                    }
                    return Err(error);
                }
                incoming::answer(bridge, self.pending, answer).await;
            }
            Some(FromLegacy::Nothing) => {
                if self.message.method() == "notifications/initialized" {
                    legacy_subscription::begin(bridge);
                }
            }
            Some(FromLegacy::Send(message)) if message.kind() == Kind::Request => {
                return self.run_rounds(message).await;
            }
            Some(FromLegacy::Send(message)) => {
                own_requests::tell(bridge, message, Purpose::legacy_client(), Lane::default()).await;
            }
        }
        Ok(())
    }

    /// Sends a request, again for each time the server asks for more input.
    async fn run_rounds(&mut self, mut message: Message) -> Result<(), Error> {
        let bridge = self.bridge;
        for round in 0..MAX_ROUNDS {
            let purpose = Purpose::round(self.lane.share);
            // Sharing the delivery record tells the client's request how far this one has come.
            let (_, call) = own_requests::prepare(bridge, &message, purpose, Arc::clone(&self.pending.delivery));
            let answer = self.with_deadline(call).await??;
            let opened = self.open(answer).await?;
            let answer = opened.message.clone();
            let answer = match &mut *bridge.client.legacy() {
                // A response that cannot be opened passes unchanged. It only says more than the client knows.
                Some(client) if opened.is_open() => client.answer(&self.message, answer),
                _ => Translated::Final(answer),
            };
            match answer {
                Translated::Final(answer) => {
                    let answer = opened.close(answer).await;
                    incoming::answer(bridge, self.pending, answer).await;
                    return Ok(());
                }
                // No further round could use the client's input.
                Translated::InputRequired(_) if round + 1 == MAX_ROUNDS => break,
                Translated::InputRequired(needed) => {
                    self.may_have_run = true;
                    self.pending.record_side_effects();
                    message = self.input(&message, &needed, round).await?;
                }
            }
        }
        let summary = format!("the server asked for input {MAX_ROUNDS} times without answering the request");
        Err(Error::new(ErrorKind::InvalidAnswer, summary))
    }

    /// Opens a response to be read and changed. Loads all of it if its schemas or questions are needed.
    async fn open(&self, answer: Message) -> Result<OpenedMessage, Error> {
        if self.message.method() == "tools/list" {
            return self
                .with_deadline(OpenedMessage::whole(answer, &self.bridge.calls.loans, &self.bridge.server.storage))
                .await;
        }
        let opened = OpenedMessage::new(answer.clone());
        if !LegacyClient::is_question(&opened.message) || opened.message.bytes().as_ptr() == answer.bytes().as_ptr() {
            return Ok(opened);
        }
        let whole = self
            .with_deadline(OpenedMessage::whole(answer, &self.bridge.calls.loans, &self.bridge.server.storage))
            .await?;
        if whole.is_open() {
            return Ok(whole);
        }
        Err(Error::new(ErrorKind::InvalidAnswer, "the server asks for more input than can be handed on"))
    }

    /// Asks the client for the input that the server needs. Returns the next request, which carries it.
    async fn input(&mut self, sent: &Message, needed: &Round, round: u32) -> Result<Message, Error> {
        let bridge = self.bridge;
        let questions = needed.questions();
        if questions.is_empty() {
            // The server only wants to be asked again. That may go on for the idle timeout.
            if self.heard.elapsed() > bridge.timeouts.idle {
                return Err(self.deadline_error());
            }
            self.with_deadline(sleep(retry::backoff(bridge.timeouts.retry, round, random()))).await?;
            return needed.retry(sent, &[]);
        }
        self.heard = Instant::now();
        let requests: Vec<_> = questions.iter().map(|question| question.request.clone()).collect();
        let responses = self.with_deadline(bridge.client.questions.ask(&requests, &bridge.client.output)).await?;
        let responses: Vec<_> = questions.iter().map(|question| question.key.clone()).zip(responses).collect();
        needed.retry(sent, &responses)
    }
}
