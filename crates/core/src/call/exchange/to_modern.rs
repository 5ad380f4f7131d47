//! A legacy client's message at a modern server: each request becomes one or more modern requests of the bridge's own (3.2).

use std::{pin::pin, sync::Arc};

use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, sleep, timeout},
};

use super::{Exchange, Remedy, Step, modern::missed};
use crate::{
    bridge::{Bridge, shutdown},
    call::{call_table::Origin, intake::Lane, own_requests::Task},
    error::{Error, Fate, Kind as Fault},
    server::retry,
    translate::legacy_to_modern::{Answer, LegacyClient, Round, Step as Translated},
    wire::{
        large_message::Opened,
        message::{Kind, Message},
    },
};

/// How often a server may ask for more input within one request.
const MOST_ROUNDS: u32 = 100;

impl Exchange<'_> {
    pub(super) async fn attempt_to_modern(&mut self) -> Result<Step, Error> {
        // Each round takes a permit of its own.
        self.permit = None;
        let outcome = if self.is_initialize() {
            self.greet_modern().await
        } else {
            self.translate_to_modern().await.map(|()| Step::Done)
        };
        outcome.map_err(|error| self.passed_on(error))
    }

    /// An error of a request that was made for this one, as this one's: whatever could be tried again was.
    pub(super) fn passed_on(&mut self, error: Error) -> Error {
        self.may_have_run |= error.may_have_run().unwrap_or_default();
        error.with_fate(Fate::Final)
    }

    /// The handshake, with what the server says of itself.
    async fn greet_modern(&mut self) -> Result<Step, Error> {
        let bridge = self.bridge;
        self.first(Remedy::OtherProtocol);
        let mut client = LegacyClient::new(&self.message);
        let discovered = bridge.call(&client.discover(), Origin::ForLegacyClient).await;
        let answer = match (discovered.map(|answer| client.initialized(&self.message, &answer)), self.refusal.take()) {
            (Ok(Ok(answer)), _) => {
                bridge.eras().shake_hands(client);
                // What an answer to the handshake may have begun, and what another client listened to.
                bridge.session().close();
                bridge.events.clear();
                answer
            }
            // Then its refusal of the handshake is what it has to say.
            (_, Some(refusal)) => {
                bridge.eras().legacy_is(true);
                refusal
            }
            // It was modern once; now it may know the handshake.
            (Ok(Err(_)), None) => {
                bridge.eras().legacy_is(true);
                return Ok(Step::Again);
            }
            (Err(error), None) => return Err(error),
        };
        bridge.answer(self.pending, answer).await;
        Ok(Step::Done)
    }

    async fn translate_to_modern(&mut self) -> Result<(), Error> {
        let bridge = self.bridge;
        // One change after the other: each opens a stream in the place of the last one.
        let is_change = matches!(self.message.method(), "resources/subscribe" | "resources/unsubscribe");
        let _turn = if is_change { Some(self.in_time_left(bridge.events.turn.lock()).await?) } else { None };
        let translated = bridge.eras().client.as_mut().map(|client| client.take(&self.message));
        match translated {
            None => return Err(Error::new(Fault::SessionLost, "the client has not shaken hands")),
            Some(Translated::Answer(answer)) => bridge.answer(self.pending, answer).await,
            Some(Translated::Listen(answer)) => {
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
                    bridge.begin_to_listen();
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
            let origin = Origin::Round(self.lane.share);
            // It goes the way of the client's request, which can thus say how far that came.
            let (_, call) = bridge.prepare(&message, origin, Arc::clone(&self.pending.delivery));
            let answer = self.in_time_left(call).await??;
            let opened = self.open(answer).await?;
            let answer = opened.message.clone();
            let answer = match &mut bridge.eras().client {
                // What cannot be opened passes as it is: it only says more than the client knows.
                Some(client) if opened.is_open() => client.answer(&self.message, answer),
                _ => Answer::Final(answer),
            };
            match answer {
                Answer::Final(answer) => {
                    let answer = opened.close(answer).await;
                    bridge.answer(self.pending, answer).await;
                    return Ok(());
                }
                // The client is not bothered in vain.
                Answer::InputRequired(_) if round + 1 == MOST_ROUNDS => break,
                Answer::InputRequired(needed) => {
                    self.may_have_run = true;
                    self.pending.has_acted();
                    message = self.input(&message, &needed, round).await?;
                }
            }
        }
        let summary = format!("the server asked for input {MOST_ROUNDS} times without coming to an end");
        Err(Error::new(Fault::InvalidAnswer, summary))
    }

    /// An answer, to be read and changed: all of it where the schemas in it matter, or the questions.
    async fn open(&self, answer: Message) -> Result<Opened, Error> {
        if self.message.method() == "tools/list" {
            return self.in_time_left(self.bridge.open_whole(answer)).await;
        }
        let opened = Opened::new(answer.clone());
        if !LegacyClient::is_question(&opened.message) || opened.message.bytes().as_ptr() == answer.bytes().as_ptr() {
            return Ok(opened);
        }
        let whole = self.in_time_left(self.bridge.open_whole(answer)).await?;
        if whole.is_open() {
            return Ok(whole);
        }
        Err(Error::new(Fault::InvalidAnswer, "the server asks for more input than can be handed on"))
    }

    /// Asks the client for what the server needs, and gives the request that has it.
    async fn input(&mut self, sent: &Message, needed: &Round, round: u32) -> Result<Message, Error> {
        let bridge = self.bridge;
        let questions = needed.questions();
        if questions.is_empty() {
            // The server only wants to be asked again, which may take as long as it may be silent.
            if self.heard.elapsed() > bridge.timeouts.idle {
                return Err(self.out_of_time());
            }
            self.in_time_left(sleep(retry::backoff(bridge.timeouts.retry, round, retry::random()))).await?;
            return needed.retry(sent, &[]);
        }
        self.heard = Instant::now();
        let requests: Vec<_> = questions.iter().map(|question| question.request.clone()).collect();
        let responses = self.in_time_left(bridge.questions.ask(&requests, &bridge.output)).await?;
        let responses: Vec<_> = questions.iter().map(|question| question.key.clone()).zip(responses).collect();
        needed.retry(sent, &responses)
    }
}

/// The subscription of a legacy client at a modern server.
#[derive(Debug, Default)]
pub(crate) struct Events {
    turn: Arc<tokio::sync::Mutex<()>>,
    open: std::sync::Mutex<Option<Task>>,
}

impl Bridge {
    /// Opens the first subscription, beside all else: only other subscriptions have to wait for it.
    pub(crate) fn begin_to_listen(self: &Arc<Self>) {
        let bridge = Arc::clone(self);
        // Taken at once, so that what the client asks for next comes after it.
        let mut first = Arc::clone(&self.events.turn).try_lock_owned().ok();
        self.spawn(async move {
            for failures in 0.. {
                let turn = match first.take() {
                    Some(turn) => turn,
                    None => Arc::clone(&bridge.events.turn).lock_owned().await,
                };
                if failures > 0 && bridge.events.is_open() {
                    return;
                }
                match bridge.listen_anew().await {
                    Ok(()) => return,
                    Err(error) if error.fate() == Fate::Final => {
                        tracing::debug!(error = %error, "the server has no subscriptions");
                        return;
                    }
                    Err(error) => tracing::debug!(error = %error, "the server cannot be listened to now"),
                }
                drop(turn);
                sleep(retry::backoff(bridge.timeouts.reconnect, failures, retry::random())).await;
            }
        });
    }

    /// Opens a subscription to what the client wants now, then ends the one before.
    ///
    /// # Errors
    /// The server does not accept it.
    async fn listen_anew(self: &Arc<Self>) -> Result<(), Error> {
        let Some(listen) = self.eras().client.as_ref().and_then(LegacyClient::listen) else {
            self.events.replace(None);
            return Ok(());
        };
        let (accepted, outcome) = oneshot::channel();
        let bridge = Arc::clone(self);
        let task = Task(self.spawn(async move { bridge.listen(&listen, accepted).await }));
        match timeout(self.timeouts.idle, outcome).await {
            Ok(Ok(accepted)) => accepted?,
            // The bridge ends.
            Ok(Err(_)) => return Err(shutdown()),
            Err(_) => return Err(Error::new(Fault::Timeout, "the server did not acknowledge the subscription")),
        }
        self.events.replace(Some(task));
        Ok(())
    }

    /// Keeps a subscription open, once the server has accepted it; the first outcome is told.
    async fn listen(self: &Arc<Self>, listen: &Message, accepted: oneshot::Sender<Result<(), Error>>) {
        let mut first = Some(accepted);
        let mut failures = 0;
        loop {
            let acknowledged = Arc::new(Notify::new());
            let mut call = pin!(self.call(listen, Origin::Events(Arc::clone(&acknowledged))));
            let early = tokio::select! {
                biased;
                () = acknowledged.notified() => None,
                ended = &mut call => Some(ended),
            };
            let ended = match (early, first.take()) {
                (Some(ended), Some(first)) => {
                    let _ = first.send(Err(refused(ended)));
                    return;
                }
                (Some(ended), None) => {
                    failures += 1;
                    ended
                }
                (None, first) => {
                    failures = 0;
                    match first {
                        Some(first) => drop(first.send(Ok(()))),
                        // Nobody knows what has happened meanwhile (R74).
                        None => {
                            for event in missed(listen).into_iter().filter_map(LegacyClient::event) {
                                self.output.send(event.into_line()).await;
                            }
                        }
                    }
                    call.await
                }
            };
            match ended {
                Ok(answer) if answer.error().is_some() => {
                    let (code, why) = answer.error().unwrap_or_default();
                    tracing::warn!(code, why, "the server does not take the subscription any more");
                    return;
                }
                Ok(_) => tracing::debug!("the server has ended the subscription; it is opened again"),
                Err(error) => tracing::debug!(error = %error, "the subscription is lost; it is opened again"),
            }
            sleep(retry::backoff(self.timeouts.reconnect, failures, retry::random())).await;
        }
    }
}

/// Why the server has no such subscription.
fn refused(ended: Result<Message, Error>) -> Error {
    let error = Error::new(Fault::InvalidAnswer, "the server refuses the subscription");
    match ended {
        Err(error) => error,
        Ok(answer) => match answer.error() {
            Some((code, why)) => error.with_detail(&format!("{code}: {why}")),
            None => error,
        },
    }
}

impl Events {
    /// Puts this subscription in the place of the last one.
    fn replace(&self, task: Option<Task>) {
        let mut open = self.open.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        drop(std::mem::replace(&mut *open, task));
    }

    fn is_open(&self) -> bool {
        self.open.lock().unwrap_or_else(std::sync::PoisonError::into_inner).is_some()
    }

    /// Ends the subscription.
    pub(crate) fn clear(&self) {
        self.replace(None);
    }
}
