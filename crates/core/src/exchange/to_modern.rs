//! A legacy client's message at a modern server: each request becomes one or more modern requests of the bridge's own (3.2).

use std::sync::Arc;

use tokio::{sync::Notify, time::sleep};

use super::{Exchange, Remedy, Step};
use crate::{
    bridge::Bridge,
    era::legacy_to_modern::{Answer, LegacyClient, Round, Step as Translated},
    error::{Error, Fate, Kind as Fault},
    intake::Lane,
    message::{Kind, Message},
    own::Task,
    pending::Origin,
    retry,
};

/// How often a server may ask for more input within one request.
const MOST_ROUNDS: u32 = 100;

impl Exchange<'_> {
    pub(super) async fn attempt_to_modern(&mut self) -> Result<Step, Error> {
        let outcome = if self.is_initialize() { self.greet_modern().await } else { self.translate_to_modern().await };
        outcome.map(|()| Step::Done).map_err(|error| self.passed_on(error))
    }

    /// An error of a request that was made for this one, as this one's: whatever could be tried again was.
    pub(super) fn passed_on(&mut self, error: Error) -> Error {
        self.may_have_run |= error.may_have_run().unwrap_or_default();
        error.with_fate(Fate::Final)
    }

    /// The handshake, with what the server says of itself.
    async fn greet_modern(&mut self) -> Result<(), Error> {
        let bridge = self.bridge;
        self.first(Remedy::OtherProtocol);
        let mut client = LegacyClient::new(&self.message);
        let discovered = bridge.call(&client.discover(), Origin::ForLegacyClient).await;
        let answer = match discovered.map(|discovered| client.initialized(&self.message, &discovered)) {
            Ok(Ok(answer)) => {
                tracing::info!("the server speaks 2026-07-28 only; the client's older protocol is translated");
                let mut eras = bridge.eras();
                eras.modern_is(true);
                eras.client = Some(client);
                // What an answer to the handshake may have begun.
                bridge.session().close();
                answer
            }
            // Then its refusal of the handshake is what it has to say.
            failed => {
                bridge.eras().legacy_is(true);
                match (self.refusal.take(), failed) {
                    (Some(refusal), _) | (None, Ok(Err(refusal))) => refusal,
                    (None, Err(error)) => return Err(error),
                    (None, Ok(Ok(answer))) => answer,
                }
            }
        };
        bridge.answer(self.pending, answer).await;
        Ok(())
    }

    async fn translate_to_modern(&mut self) -> Result<(), Error> {
        let bridge = self.bridge;
        let translated = bridge.eras().client.as_mut().map(|client| client.take(&self.message));
        match translated {
            None => return Err(Error::new(Fault::SessionLost, "the client has not shaken hands")),
            Some(Translated::Answer(answer)) => bridge.answer(self.pending, answer).await,
            Some(Translated::Listen(answer)) => {
                // One change after the other: each opens a stream in the place of the last one.
                let _turn = bridge.events.turn.lock().await;
                if let Err(error) = bridge.listen_anew().await {
                    if let Some(client) = &mut bridge.eras().client {
                        client.forget(&self.message);
                    }
                    return Err(error);
                }
                bridge.answer(self.pending, answer).await;
            }
            Some(Translated::Nothing) => {
                if self.message.method() == "notifications/initialized" {
                    let bridge = Arc::clone(bridge);
                    self.bridge.spawn(async move {
                        let _turn = bridge.events.turn.lock().await;
                        if let Err(error) = bridge.listen_anew().await {
                            tracing::debug!(error = %error, "the server has no subscriptions");
                        }
                    });
                }
            }
            Some(Translated::Send(message)) if message.kind() == Kind::Request => return self.go_rounds(message).await,
            Some(Translated::Send(message)) => bridge.tell(message, Origin::ForLegacyClient, Lane::default()).await,
        }
        Ok(())
    }

    /// Sends a request as often as the server needs more input for it.
    async fn go_rounds(&mut self, mut message: Message) -> Result<(), Error> {
        let bridge = self.bridge;
        for round in 0..MOST_ROUNDS {
            let answer = bridge.call(&message, Origin::ForLegacyClient).await?;
            let answer = match &mut bridge.eras().client {
                Some(client) => client.answer(&self.message, answer),
                None => Answer::Final(answer),
            };
            match answer {
                Answer::Final(answer) => {
                    bridge.answer(self.pending, answer).await;
                    return Ok(());
                }
                Answer::InputRequired(needed) => message = self.input(&message, &needed, round).await?,
            }
        }
        let summary = format!("the server asked for input {MOST_ROUNDS} times without coming to an end");
        Err(Error::new(Fault::InvalidAnswer, summary))
    }

    /// Asks the client for what the server needs, and gives the request that has it.
    async fn input(&mut self, sent: &Message, needed: &Round, round: u32) -> Result<Message, Error> {
        let bridge = self.bridge;
        let questions = needed.questions();
        if questions.is_empty() {
            // The server only wants to be asked again.
            sleep(retry::backoff(bridge.timeouts.retry, round, retry::random())).await;
            return needed.retry(sent, &[]);
        }
        // Others may run while the client's user thinks.
        self.permit = None;
        let requests: Vec<_> = questions.iter().map(|question| question.request.clone()).collect();
        let responses = self.in_time_left(bridge.questions.ask(&requests, &bridge.output)).await?;
        let responses: Vec<_> = questions.iter().map(|question| question.key.clone()).zip(responses).collect();
        if self.lane.counts {
            self.permit = self.in_time_left(bridge.permits.acquire()).await?.ok();
        }
        needed.retry(sent, &responses)
    }
}

/// The subscription of a legacy client at a modern server.
#[derive(Debug, Default)]
pub(crate) struct Events {
    turn: tokio::sync::Mutex<()>,
    open: std::sync::Mutex<Option<Task>>,
}

impl Bridge {
    /// Opens a subscription to what the client wants now, then ends the one before.
    ///
    /// # Errors
    /// The server does not accept it.
    async fn listen_anew(self: &Arc<Self>) -> Result<(), Error> {
        let Some(listen) = self.eras().client.as_ref().and_then(LegacyClient::listen) else {
            self.events.replace(None);
            return Ok(());
        };
        let acknowledged = Arc::new(Notify::new());
        let (refused, refusal) = tokio::sync::oneshot::channel();
        let task = Task(self.spawn({
            let (bridge, acknowledged) = (Arc::clone(self), Arc::clone(&acknowledged));
            async move {
                let mut refused = Some(refused);
                for failures in 0.. {
                    let ended = bridge.call(&listen, Origin::Events(Arc::clone(&acknowledged))).await;
                    tracing::debug!(?ended, "the subscription has ended");
                    let is_final = match &ended {
                        Ok(answer) => answer.error().is_some(),
                        Err(_) => false,
                    };
                    if let Some(refused) = refused.take() {
                        let _ = refused.send(ended);
                    }
                    if is_final {
                        return;
                    }
                    sleep(retry::backoff(bridge.timeouts.reconnect, failures, retry::random())).await;
                }
            }
        }));
        let refusal = tokio::select! {
            biased;
            () = acknowledged.notified() => None,
            refusal = refusal => refusal.ok(),
            () = sleep(self.timeouts.idle) => Some(Err(Error::new(Fault::Timeout, "the server did not acknowledge it"))),
        };
        match refusal {
            None => {
                self.events.replace(Some(task));
                Ok(())
            }
            Some(Err(error)) => Err(error),
            Some(Ok(answer)) => {
                let why = answer.error().map(|(_, why)| why).unwrap_or_default();
                Err(Error::new(Fault::InvalidAnswer, "the server refuses the subscription").with_detail(&why))
            }
        }
    }
}

impl Events {
    /// Puts this subscription in the place of the last one.
    fn replace(&self, task: Option<Task>) {
        let mut open = self.open.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        drop(std::mem::replace(&mut *open, task));
    }

    /// Ends the subscription.
    pub(crate) fn clear(&self) {
        self.replace(None);
    }
}
