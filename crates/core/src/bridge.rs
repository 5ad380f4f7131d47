//! Runs the bridge, from the first line of stdin to the last line on stdout.

use crate::{
    call::{Bridge, Calls, call_table::AwaitedReply, intake::Intake, keep_alive, shutdown},
    client::{
        Client,
        stdin::Input,
        stdio::{self, Output, Progress, Stdout},
    },
    config::Config,
    error::{Error, ErrorKind},
    server::{Server, push_stream},
};
use std::{io, pin::Pin, sync::Arc, time::Duration};

use tokio::{
    io::AsyncRead,
    task::JoinSet,
    time::{Instant, sleep_until, timeout, timeout_at},
};

/// How long a stopped bridge waits for pending answers.
const STOP_TIME: Duration = Duration::from_millis(500);
/// How long a bridge that ends waits for the receipts of notifications, which no client waits for.
const RECEIPT_TIME: Duration = Duration::from_millis(400);
/// How long the end of the session and the last lines on stdout may take together.
const SESSION_END_TIME: Duration = Duration::from_secs(1);
/// Minimum time for the last lines on stdout.
const LAST_WRITE: Duration = Duration::from_millis(100);

/// Why the bridge ended without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// The client closed stdin. Its requests were answered.
    InputClosed,
    /// The bridge was told to stop. Pending requests were answered, with errors where necessary.
    Stopped,
    /// The reader of stdout is gone.
    OutputClosed,
}

/// Connects a client, which writes JSON-RPC lines to `input` and reads them from `output`, to the server in `config`,
/// until `input` ends or `stop` resolves. Sends nothing before the client's first message.
///
/// # Errors
/// The settings cannot be used, `input` cannot be read, or `output` is not read, so that lines are lost at the end of
/// `input`. A failure between client and server is not an error here: the client gets it as an answer.
pub fn run(
    config: Config,
    input: impl AsyncRead + Send + Unpin + 'static,
    output: impl Into<Stdout>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Pin<Box<dyn Future<Output = Result<End, Error>> + Send>> {
    run_boxed(config, Box::new(input), output.into(), Box::pin(stop))
}

/// Like `run`, for one set of types. An `async fn`, with all that it calls, is compiled again in every crate that
/// awaits it; boxing avoids that.
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
    let (lines, queue) = Output::new(config.escape_separators);
    let bridge = Arc::new(Bridge {
        server: Server::new(&config)?,
        client: Client::new(lines, &config),
        calls: Calls::new(config.limits.concurrency),
        timeouts: config.timeouts,
    });
    let mut writer = JoinSet::new();
    writer.spawn(stdio::write(output, queue));
    let mut input = Input::new(input, config.limits.outgoing);
    let mut intake = Intake::new(Arc::clone(&bridge));
    let mut listener = JoinSet::new();
    listener.spawn(push_stream::run(Arc::clone(&bridge)));

    if let Some(every) = bridge.timeouts.keep_alive {
        bridge.calls.spawn(keep_alive::run(Arc::clone(&bridge), every));
    }

    // A message that was read and waits for room.
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
    tracing::debug!(?end, "the bridge is ending");
    bridge.client.end_input();

    if end != End::OutputClosed {
        let all = drained(&bridge, end);
        tokio::select! {
            () = all => {}
            () = async { if end == End::InputClosed { stop.await } else { std::future::pending().await } } => {
                let _ = timeout(STOP_TIME, drained(&bridge, End::Stopped)).await;
            }
            _ = writer.join_next() => {}
        }
    }
    // Once no exchange runs, the table holds exactly the requests without an answer.
    end_subscriptions(&bridge);
    intake.exchanges.shutdown().await;
    listener.shutdown().await;
    bridge.calls.parked.clear();
    bridge.calls.legacy_subscription.clear();
    let mut tasks = std::mem::take(&mut *bridge.calls.tasks());
    tasks.shutdown().await;
    answer_remaining(&bridge);
    for message in held.into_iter().chain(std::iter::from_fn(|| input.next_read())).flatten() {
        intake.refuse_late_request(&message);
    }
    // Stdout is written while the session is ended; both share the time.
    let deadline = Instant::now() + SESSION_END_TIME;
    let last = async { tokio::join!(bridge.server.end_session(), bridge.server.kept.write()) };
    let _ = timeout_at(deadline, last).await;
    let patience = (end == End::InputClosed).then_some(bridge.timeouts.drain);
    let progress = bridge.client.output.progress();
    drop(intake);
    drop(bridge);
    let is_written = is_written(&mut writer, &progress, deadline.max(Instant::now() + LAST_WRITE), patience).await;
    let summary = "stdout was not read in time; its last lines are lost";
    match end {
        End::InputClosed if !is_written => Err(Error::new(ErrorKind::Stdio, summary)),
        End::Stopped if !is_written => {
            tracing::warn!("{summary}");
            Ok(end)
        }
        end => Ok(end),
    }
}

/// Waits at least until `until` for all lines to be written. A slow reader gets more time, as long as it takes
/// something every `patience`. Returns false if some lines were not written.
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

/// Waits for pending messages: for requests as long as `end` allows, for messages without an answer up to `RECEIPT_TIME`,
/// for cancelled requests not at all.
async fn drained(bridge: &Bridge, end: End) {
    let now = Instant::now();
    let farewell = now + RECEIPT_TIME;
    let progress = bridge.client.output.progress();
    let patience = if end == End::Stopped { STOP_TIME } else { bridge.timeouts.drain };
    // A slow reader gets more time while lines wait for it.
    let since = || if end == End::Stopped { now } else { progress.last().map_or(now, |last| last.max(now)) };
    loop {
        let removal = bridge.calls.table.next_removal();
        let limit = since().checked_add(patience);
        let (until, is_final) = match bridge.calls.table.most_urgent_wait() {
            None => return,
            Some(AwaitedReply::Receipt) => (Some(limit.map_or(farewell, |limit| limit.min(farewell))), true),
            Some(AwaitedReply::Answer) => (limit, false),
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

fn end_subscriptions(bridge: &Bridge) {
    for ended in bridge.calls.subscriptions.end() {
        bridge.client.output.send_now(ended.into_line());
    }
}

fn answer_remaining(bridge: &Bridge) {
    for pending in bridge.calls.table.unanswered() {
        let error = shutdown().with_may_have_run(pending.may_have_run());
        bridge.client.output.send_now(bridge.client.error_reply(pending.id(), &error));
    }
}

fn stdin_failed(error: io::Error) -> Error {
    Error::new(ErrorKind::Stdio, "stdin cannot be read").with_source(error)
}
