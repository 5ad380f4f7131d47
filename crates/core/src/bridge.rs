//! The bridge itself: what all messages share, from the first line of stdin to the last one on stdout.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::HeaderMap;
use tokio::{
    io::AsyncRead,
    sync::SetOnce,
    task::JoinSet,
    time::{Instant, sleep_until, timeout, timeout_at},
};

use crate::{
    call::{
        call_table::{Origin, Pending, Table, Wanted},
        exchange::{Events, Listing},
        intake::{Input, Intake},
        parked_calls::{Held, Parked, Question},
        permits::Permits,
        push_stream::{self, Listener},
        renewal::Renewal,
        subscriptions::Subscriptions,
    },
    client::{
        questions::Questions,
        stdio::{self, Output, Progress, Stdout},
        tool_filter::ToolFilter,
    },
    config::{ClientEra, Config, Limits, Timeouts},
    error::{Error, Kind as Fault},
    memory::{self, Budget},
    server::{requests::Transport, session::Session, transport_choice::Route},
    translate::{
        eras::{Era, Eras},
        legacy_to_modern::LegacyClient,
        modern_to_legacy::{self, LegacyServer},
    },
    wire::{
        body::{Decoder, Lost},
        large_message::Opened,
        message::{Kind, Message, error_reply},
        spool::{Spooled, Storage},
    },
};

/// How long a stopped bridge waits for the answers that are nearly there.
const STOP_TIME: Duration = Duration::from_millis(500);
/// How long the bridge waits, at its end, for what no client waits for: the receipts of notifications.
const FAREWELL: Duration = Duration::from_millis(400);
/// How long the session's end and the last lines on stdout may take.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// What stdout gets of that at least.
const LAST_WRITE: Duration = Duration::from_millis(100);

/// Why the bridge ended, if all was written that there was to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client closed stdin; what it had asked was answered.
    InputClosed,
    /// It was told to stop; what was pending was answered, with errors where need be.
    Stopped,
    /// Nobody reads stdout any more.
    OutputClosed,
}

/// Connects a client, which writes JSON-RPC lines to `input` and reads them from `output`, to the server in `config`,
/// until `input` ends or `stop` resolves. Nothing is sent before the client's first message.
///
/// # Errors
/// Settings that cannot be used, an `input` that cannot be read, or an `output` that is not read, so that lines are lost at the
/// end of the `input`. What happens between client and server is no error here: it is answered to the client.
pub fn run(
    config: Config,
    input: impl AsyncRead + Send + Unpin + 'static,
    output: impl Into<Stdout>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Pin<Box<dyn Future<Output = Result<End, Error>> + Send>> {
    run_boxed(config, Box::new(input), output.into(), Box::pin(stop))
}

/// The same for one set of types, and no `async fn`: of one, and all that it calls, the code is made anew in each crate that
/// awaits it.
fn run_boxed(
    config: Config,
    input: Box<dyn AsyncRead + Send + Unpin>,
    output: Stdout,
    stop: Pin<Box<dyn Future<Output = ()> + Send>>,
) -> Pin<Box<dyn Future<Output = Result<End, Error>> + Send>> {
    Box::pin(connect(config, input, output, stop))
}

async fn connect(
    config: Config,
    input: Box<dyn AsyncRead + Send + Unpin>,
    output: Stdout,
    mut stop: Pin<Box<dyn Future<Output = ()> + Send>>,
) -> Result<End, Error> {
    let (lines, queue) = Output::new();
    let bridge = Arc::new(Bridge {
        transport: Transport::new(&config)?,
        session: Mutex::default(),
        route: Route::new(config.transport),
        listener: Listener::new(),
        renewal: Renewal::default(),
        eras: Mutex::default(),
        listing: Listing::default(),
        questions: Questions::default(),
        #[cfg(feature = "oauth")]
        asked: crate::call::sign_in_prompt::Asked::default(),
        events: Events::default(),
        parked: Parked::default(),
        subscriptions: Subscriptions::default(),
        log_level: tokio::sync::Mutex::default(),
        tasks: Mutex::default(),
        storage: Storage::new(config.spool_folder),
        loans: Budget::new(memory::LOANS),
        parked_bytes: Budget::new(memory::PARKED),
        input_over: SetOnce::new(),
        output: lines,
        table: Table::default(),
        permits: Permits::new(config.limits.concurrency),
        timeouts: config.timeouts,
        limits: config.limits,
        tools: config.tools,
        client_era: config.client_era,
    });
    let mut writer = JoinSet::new();
    writer.spawn(stdio::write(output, queue));
    let mut input = Input::new(input, config.limits.outgoing);
    let mut intake = Intake::new(Arc::clone(&bridge));
    let mut listener = JoinSet::new();
    listener.spawn(push_stream::run(Arc::clone(&bridge)));

    // A message that was read, until there is room for it.
    let mut held = None;
    let end = loop {
        let next = async {
            if held.is_none() {
                held = input.next().await?;
            }
            Ok::<_, io::Error>(match &held {
                Some(message) => Some(intake.room_for(message).await),
                None => None,
            })
        };
        let room = tokio::select! {
            room = next => room.map_err(stdin_failed)?,
            () = &mut stop => break End::Stopped,
            _ = writer.join_next() => break End::OutputClosed,
        };
        match (held.take(), room) {
            (Some(message), Some(room)) => intake.take(message, room),
            _ => break End::InputClosed,
        }
    };
    tracing::debug!(?end, "the end begins");
    let _ = bridge.input_over.set(());

    if end != End::OutputClosed {
        let drained = bridge.drained(end);
        tokio::select! {
            () = drained => {}
            () = async { if end == End::InputClosed { stop.await } else { std::future::pending().await } } => {
                let _ = timeout(STOP_TIME, bridge.drained(End::Stopped)).await;
            }
            _ = writer.join_next() => {}
        }
    }
    // Once no exchange runs, the table holds exactly those whose answer is not out.
    bridge.end_subscriptions();
    intake.exchanges.shutdown().await;
    listener.shutdown().await;
    bridge.parked.clear();
    bridge.events.clear();
    let mut tasks = std::mem::take(&mut *bridge.tasks());
    tasks.shutdown().await;
    bridge.answer_the_rest();
    for message in held.into_iter().chain(std::iter::from_fn(|| input.next_read())).flatten() {
        intake.turn_away(&message);
    }
    // Stdout is written while the server is told; both share the time.
    let deadline = Instant::now() + LAST_WORDS;
    let _ = timeout_at(deadline, bridge.end_session()).await;
    let patience = (end == End::InputClosed).then_some(bridge.timeouts.drain);
    let progress = bridge.output.progress();
    drop(intake);
    drop(bridge);
    let is_written = is_written(&mut writer, &progress, deadline.max(Instant::now() + LAST_WRITE), patience).await;
    let summary = "stdout was not read in time; what it was to say last is lost";
    match end {
        End::InputClosed if !is_written => Err(Error::new(Fault::Stdio, summary)),
        End::Stopped if !is_written => {
            tracing::warn!("{summary}");
            Ok(end)
        }
        end => Ok(end),
    }
}

/// Waits until all is written, at least until then; a slow reader gets the time that it needs, with so much of `patience` from one
/// piece to the next. False if something was not.
async fn is_written(
    writer: &mut JoinSet<io::Result<()>>,
    progress: &Progress,
    mut until: Instant,
    patience: Option<Duration>,
) -> bool {
    loop {
        if let Ok(written) = timeout_at(until, writer.join_next()).await {
            return matches!(written, None | Some(Ok(Ok(()))));
        }
        match progress.last().zip(patience).and_then(|(last, patience)| last.checked_add(patience)) {
            Some(later) if later > until => until = later,
            _ => return false,
        }
    }
}

/// What all exchanges share.
#[derive(Debug)]
pub(crate) struct Bridge {
    pub(crate) transport: Transport,
    session: Mutex<Session>,
    pub(crate) route: Route,
    pub(crate) listener: Listener,
    pub(crate) renewal: Renewal,
    eras: Mutex<Eras>,
    pub(crate) listing: Listing,
    pub(crate) questions: Questions,
    #[cfg(feature = "oauth")]
    pub(crate) asked: crate::call::sign_in_prompt::Asked,
    pub(crate) events: Events,
    pub(crate) parked: Parked,
    pub(crate) subscriptions: Subscriptions,
    /// What a legacy server did not want to log for modern clients, and the session in which it was asked. Held while it is
    /// asked.
    pub(crate) log_level: tokio::sync::Mutex<Option<(u64, String)>>,
    tasks: Mutex<JoinSet<()>>,
    pub(crate) storage: Arc<Storage>,
    /// For messages that are read back from their files to be changed.
    pub(crate) loans: Budget,
    /// For calls that wait for their client's input, and what it is asked.
    pub(crate) parked_bytes: Budget,
    /// Set once the client says no more: nobody will be there when a server comes back that cannot be reached.
    input_over: SetOnce<()>,
    pub(crate) output: Output,
    pub(crate) table: Table,
    pub(crate) permits: Permits,
    pub(crate) timeouts: Timeouts,
    pub(crate) limits: Limits,
    pub(crate) tools: ToolFilter,
    pub(crate) client_era: ClientEra,
}

impl Bridge {
    pub(crate) fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn eras(&self) -> MutexGuard<'_, Eras> {
        self.eras.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the client says no more.
    pub(crate) async fn input_over(&self) {
        self.input_over.wait().await;
    }

    pub(crate) fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The decoder for a body of the server's of this content type.
    pub(crate) fn decoder(&self, content_type: Option<&str>) -> Decoder {
        Decoder::new(content_type, self.limits.incoming, &self.storage)
    }

    /// Hands on one message from the server. `own` is the request in whose reply it came, if it came in one.
    pub(crate) async fn hand_on(self: &Arc<Self>, message: Message, own: Option<&Arc<Pending>>) {
        match message.kind() {
            Kind::Response => {}
            Kind::Notification => return self.hand_on_notification(message, own).await,
            Kind::Request => return self.hand_on_request(message, own).await,
        }
        let theirs = message.id().filter(|id| !id.is_null());
        let target = match (own.and_then(|own| own.id()), theirs) {
            (Some(id), Some(theirs)) if id.same(theirs) || id.same_when_rounded(theirs) => own.cloned(),
            // An error without an id belongs to the request whose reply it stands in (R7).
            (Some(_), None) => own.cloned(),
            // Some servers make every id a text.
            (Some(id), Some(theirs)) => {
                self.table.find(theirs).or_else(|| own.filter(|_| theirs.is_text_of(id)).cloned())
            }
            (None, Some(theirs)) => self.table.find(theirs),
            (None, None) => None,
        };
        if let Some(target) = target {
            self.answer(&target, message).await;
        } else {
            tracing::debug!(id = ?message.id(), "an answer that nobody waits for; dropped");
        }
    }

    /// What may have been an answer could not be kept: its request gets an error in its place. Gives the error back if that is
    /// `own`, or may be.
    pub(crate) async fn hand_on_lost(&self, lost: Lost, own: Option<&Arc<Pending>>) -> Option<Error> {
        let Lost { error, id } = lost;
        let theirs = id.filter(|id| !id.is_null());
        let target = match (own.and_then(|own| own.id()), theirs) {
            (Some(id), Some(theirs)) if id.same(&theirs) || id.same_when_rounded(&theirs) => return Some(error),
            (Some(_), None) => return Some(error),
            (_, Some(theirs)) => self.table.find(&theirs),
            (None, None) => None,
        };
        match target {
            Some(target) if target.claim_answer() => self.fail(&target, error).await,
            _ => tracing::warn!(error = %error, "the server sent something that nobody waits for; dropped"),
        }
        None
    }

    /// Tells whoever waits for this answer, which was claimed, that it is lost.
    async fn fail(&self, target: &Arc<Pending>, error: Error) {
        let error = error.with_may_have_run(true);
        tracing::info!(error = %error, detail = error.detail(), "request failed");
        if let Some(caller) = target.take_caller() {
            // Fails if the caller has given up.
            let _ = caller.send(Err(error));
        } else {
            self.output.send(error_reply(target.id(), &error)).await;
        }
        self.table.remove(target);
    }

    async fn hand_on_notification(self: &Arc<Self>, message: Message, own: Option<&Arc<Pending>>) {
        // Progress after the answer upsets clients: its token is no longer known to them.
        if own.is_some_and(|own| own.is_answered()) && message.method() == "notifications/progress" {
            return;
        }
        match own.map(|own| &own.origin) {
            Some(Origin::Events(acknowledged)) => {
                if message.method() == "notifications/subscriptions/acknowledged" {
                    acknowledged.notify_one();
                }
                let opened = Opened::new(message);
                if let Some(event) = LegacyClient::event(opened.message.clone()) {
                    self.output.send(opened.close(event).await.into_line()).await;
                }
            }
            Some(Origin::ForModernClient(held)) => self.hand_on_to_modern(message, Some(held)).await,
            Some(Origin::Listing) => tracing::debug!(method = message.method(), "nobody asked for it; dropped"),
            Some(Origin::Session | Origin::Wish) | None if self.session().is_for_modern() => {
                self.hand_on_to_modern(message, None).await;
            }
            _ => self.output.send(message.into_line()).await,
        }
    }

    /// Hands on a notification of a legacy server to a modern client: to the request that it belongs to, or to those who
    /// listen.
    async fn hand_on_to_modern(&self, message: Message, held: Option<&Arc<Held>>) {
        let opened = Opened::new(message);
        let message = opened.message.clone();
        if !opened.is_open() {
            return self.output.send(message.into_line()).await;
        }
        // One copy at a time.
        let mut last = 0;
        while let Some((number, event)) = self.subscriptions.event_after(last, &message) {
            last = number;
            self.output.send(opened.close(event).await.into_line()).await;
        }
        let translated = match held {
            Some(held) => held.notification(message),
            // It belongs to one of the calls, as servers may say on this stream what they should on that.
            None => self.table.held().iter().find_map(|held| {
                let is_its = message.method() != "notifications/progress" || held.is_progress(&message);
                is_its.then(|| held.notification(message.clone())).flatten()
            }),
        };
        if let Some(notification) = translated {
            self.output.send(opened.close(notification).await.into_line()).await;
        }
    }

    /// Hands on a request of the server's, as far as the client's protocol has such a thing (R76).
    async fn hand_on_request(self: &Arc<Self>, message: Message, own: Option<&Arc<Pending>>) {
        let held = match own.map(|own| (own.era(), &own.origin)) {
            Some((Era::Modern, _)) => {
                tracing::warn!(method = message.method(), "a modern server sent a request; dropped");
                return;
            }
            Some((_, Origin::ForModernClient(held))) => Some(Arc::clone(held)).filter(|held| held.can_ask(&message)),
            Some((_, Origin::Session | Origin::Wish)) | None if self.session().is_for_modern() => {
                let mut open = self.table.held();
                open.retain(|held| held.can_ask(&message));
                open.iter().find(|held| !held.is_parked()).or(open.first()).cloned()
            }
            _ => return self.output.send(message.into_line()).await,
        };
        let reply = if message.method() == "ping" {
            modern_to_legacy::pong(&message)
        } else {
            // It waits for the client for as long as that takes.
            let length = message.spooled().map_or(message.bytes().len() as u64, Spooled::length);
            let room =
                usize::try_from(length).ok().and_then(|length| self.parked_bytes.try_take(length + memory::OVERHEAD));
            if let (Some(held), Some(room)) = (held, room) {
                let question = Question { request: message.clone().loaded(), room: Arc::new(room) };
                if !question.request.is_spooled() && held.ask(question) {
                    return;
                }
            }
            modern_to_legacy::refusal(&message)
        };
        self.tell_beside(reply, Origin::Session).await;
    }

    /// Puts the answer to a request out, unless it had one (R36). Whatever its id looks like, it gets the request's.
    pub(crate) async fn answer(&self, target: &Arc<Pending>, answer: Message) {
        let Some((request, id)) = target.request().and_then(|request| Some((request, request.id()?))) else { return };
        if !target.claim_answer() {
            tracing::debug!(id = ?id, "a second answer to the same request; dropped");
            return;
        }
        let answer = if request.era() == Era::Modern && request.method() == "tools/list" {
            let opened = self.open_whole(answer.clone()).await;
            let learnt =
                if opened.is_open() { self.eras().tools.learn(opened.message.clone()) } else { answer.clone() };
            // Mostly nothing is taken away.
            if learnt.bytes().as_ptr() == opened.message.bytes().as_ptr() { answer } else { opened.close(learnt).await }
        } else {
            answer
        };
        if target.is_own() {
            if let Some(caller) = target.take_caller() {
                // Fails if the caller has given up.
                let _ = caller.send(Ok(answer));
            }
        } else {
            self.learn(request, &answer);
            let answer = if self.tools.is_empty() || request.method() != "tools/list" {
                answer
            } else {
                match self.without_hidden_tools(answer).await {
                    Ok(answer) => answer,
                    Err(error) => {
                        self.output.send(error_reply(Some(id), &error)).await;
                        return self.table.remove(target);
                    }
                }
            };
            let spelled_alike = answer.id().is_some_and(|theirs| theirs.identical(id));
            let answer = if spelled_alike { answer } else { answer.with_id(id) };
            self.output.send(answer.into_line()).await;
        }
        self.table.remove(target);
    }

    async fn without_hidden_tools(&self, answer: Message) -> Result<Message, Error> {
        let opened = self.open_whole(answer.clone()).await;
        if !opened.is_open() {
            let summary = "the list of tools is too large to take out what the settings hide";
            return Err(Error::new(Fault::TooLarge, summary));
        }
        Ok(match self.tools.filtered(&opened.message) {
            Some(filtered) => opened.close(filtered).await,
            None => answer,
        })
    }

    /// What the session learns from an answer, before the client can act on it.
    fn learn(&self, request: &Message, answer: &Message) {
        match request.method() {
            "initialize" => {
                let offer = answer.offer().filter(|_| self.eras().client.is_none());
                if let Some(offer) = offer {
                    self.session().negotiated(request, offer);
                    let mut eras = self.eras();
                    eras.legacy_is(true);
                    eras.server = LegacyServer::new(answer);
                }
            }
            "logging/setLevel" | "resources/subscribe" | "resources/unsubscribe" if answer.error().is_none() => {
                self.session().answered(request);
            }
            _ => {}
        }
    }

    /// Waits for what is pending: for requests as long as the end's kind allows, for what has no answer a moment, for
    /// cancelled requests not at all.
    async fn drained(&self, end: End) {
        let now = Instant::now();
        let farewell = now + FAREWELL;
        let progress = self.output.progress();
        let patience = if end == End::Stopped { STOP_TIME } else { self.timeouts.drain };
        // A slow reader gets the time that it needs, as long as there is something for it.
        let since = || if end == End::Stopped { now } else { progress.last().map_or(now, |last| last.max(now)) };
        loop {
            let removal = self.table.next_removal();
            let limit = since().checked_add(patience);
            let (until, is_final) = match self.table.most_wanted() {
                None => return,
                Some(Wanted::Receipt) => (Some(limit.map_or(farewell, |limit| limit.min(farewell))), true),
                Some(Wanted::Answer) => (limit, false),
            };
            let time_is_up = async {
                match until {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = removal => {}
                () = time_is_up => {
                    if is_final || since().checked_add(patience) <= until {
                        return;
                    }
                }
            }
        }
    }

    /// A client that was served as a modern one begins a session of its own, which takes the place of the bridge's.
    pub(crate) fn leave_session_for_modern(self: &Arc<Self>) {
        let mut headers = HeaderMap::new();
        {
            let session = self.session();
            if !session.is_for_modern() || !session.is_open() || !self.table.held().is_empty() {
                return;
            }
            session.apply(&mut headers);
        }
        let bridge = Arc::clone(self);
        self.spawn(async move {
            if let Err(error) = bridge.transport.delete(|all| all.extend(headers)).await {
                tracing::debug!(error = %error, "the end of the bridge's own session did not reach the server");
            }
        });
    }

    fn end_subscriptions(&self) {
        for ended in self.subscriptions.end() {
            self.output.send_now(ended.into_line());
        }
    }

    fn answer_the_rest(&self) {
        for pending in self.table.unanswered() {
            let error = shutdown().with_may_have_run(pending.may_have_run());
            self.output.send_now(error_reply(pending.id(), &error));
        }
    }

    /// Tells the server that the session is over (R41).
    async fn end_session(&self) {
        if !self.session().is_open() {
            return;
        }
        match self.transport.delete(|headers| self.session().apply(headers)).await {
            Ok(status) => tracing::debug!(status = status.as_u16(), "session ended"),
            Err(error) => tracing::debug!(error = %error, "the session's end did not reach the server"),
        }
    }
}

/// What a request is told that the bridge's end leaves unanswered.
pub(crate) fn shutdown() -> Error {
    Error::new(Fault::Shutdown, "the bridge ends before the answer came")
}

fn stdin_failed(error: io::Error) -> Error {
    Error::new(Fault::Stdio, "stdin cannot be read").with_source(error)
}
