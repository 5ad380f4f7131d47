//! The fault table: for each way in which a request can die, how often the bridge sends it, how often the server runs
//! it, and what the client receives (R5, R95, R96). Rule: a request that may have run is repeated only if it only
//! reads.

use std::{
    net::SocketAddr,
    ops::RangeInclusive,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, SystemTime},
};

use mcp_gangway_core::Config;
use serde_json::Value;
use tokio::{
    sync::Mutex,
    task::LocalSet,
    time::{Instant, sleep},
};

use crate::support::{
    Authority, Client, Exchange, Fate, RawH2, Server, call, cancel, closed_port, dialogue, request, response,
    wait_for_no_server, within,
};

use Fault::{
    CloseAfterHead, CloseBeforeHead, CloseInBody, Date, GoAwayProcessed, GoAwayUnprocessed, H2Status, Moved, Past,
    Refused, RefusedStream, ResetAfterHead, ResetBeforeHead, ResetInBody, ResetStream, Seconds, Silent, Status,
    StreamCut, StreamEnds,
};
use Hears::{Answer, Error};
use Strikes::{Always, Once};

/// The fault that a request meets.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The address refuses connections.
    Refused,
    /// The address refuses connections at first, and accepts them soon.
    Moved,
    ResetBeforeHead,
    CloseBeforeHead,
    ResetAfterHead,
    CloseAfterHead,
    ResetInBody,
    CloseInBody,
    /// An event stream without ids breaks.
    StreamCut,
    /// An event stream ends regularly, without the answer.
    StreamEnds,
    /// HTTP/2: the server sends GOAWAY and says that it has not processed the request.
    GoAwayUnprocessed,
    /// HTTP/2: the server sends GOAWAY in the middle of the request.
    GoAwayProcessed,
    /// HTTP/2: the server says that it has not processed the request.
    RefusedStream,
    /// HTTP/2: the server resets the stream.
    ResetStream,
    /// HTTP/2: a status, optionally with `Retry-After` in seconds.
    H2Status(u16, Option<u64>),
    /// The server never responds.
    Silent,
    Status(u16),
    /// A status with `Retry-After` as seconds.
    Seconds(u16, u64),
    /// A status with `Retry-After` as a date this many seconds from now.
    Date(u16, u64),
    /// A status with `Retry-After` as a date in the past.
    Past(u16),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Strikes {
    /// Only the first attempt fails.
    Once,
    /// Every attempt fails.
    Always,
}

/// What the client receives, exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hears {
    /// The server's answer.
    Answer,
    /// The bridge's error: its kind, and whether the request may have run.
    Error(&'static str, bool),
}

type Row = (Fault, Strikes, &'static str, RangeInclusive<usize>, usize, Hears);

const CALL: &str = "tools/call";
const LIST: &str = "tools/list";
/// Repeated, as often as the time allows.
const SOME: RangeInclusive<usize> = 2..=20;

#[rustfmt::skip]
const TABLE: &[Row] = &[
    // what happens             each time  to     POSTs  runs  the client hears
    (Refused,                   Always,    CALL,  0..=0, 0,    Error("connect", false)),
    (Refused,                   Always,    LIST,  0..=0, 0,    Error("connect", false)),
    (Moved,                     Once,      CALL,  1..=1, 1,    Answer),
    (Moved,                     Once,      LIST,  1..=1, 1,    Answer),
    (ResetBeforeHead,           Once,      CALL,  1..=1, 1,    Error("connection_lost", true)),
    (ResetBeforeHead,           Once,      LIST,  2..=2, 2,    Answer),
    (ResetBeforeHead,           Always,    LIST,  SOME,  0,    Error("connection_lost", true)),
    (CloseBeforeHead,           Once,      CALL,  1..=1, 1,    Error("connection_lost", true)),
    (CloseBeforeHead,           Once,      LIST,  2..=2, 2,    Answer),
    (ResetAfterHead,            Once,      CALL,  1..=1, 1,    Error("connection_lost", true)),
    (ResetAfterHead,            Once,      LIST,  2..=2, 2,    Answer),
    (CloseAfterHead,            Once,      CALL,  1..=1, 1,    Error("connection_lost", true)),
    (CloseAfterHead,            Once,      LIST,  2..=2, 2,    Answer),
    (ResetInBody,               Once,      CALL,  1..=1, 1,    Error("connection_lost", true)),
    (ResetInBody,               Once,      LIST,  2..=2, 2,    Answer),
    (CloseInBody,               Once,      CALL,  1..=1, 1,    Error("connection_lost", true)),
    (CloseInBody,               Once,      LIST,  2..=2, 2,    Answer),
    (CloseInBody,               Always,    LIST,  SOME,  0,    Error("connection_lost", true)),
    (StreamCut,                 Once,      CALL,  1..=1, 1,    Error("connection_lost", true)),
    (StreamCut,                 Once,      LIST,  2..=2, 2,    Answer),
    (StreamEnds,                Once,      CALL,  1..=1, 1,    Error("no_answer", true)),
    (StreamEnds,                Once,      LIST,  2..=2, 2,    Answer),
    (StreamEnds,                Always,    LIST,  SOME,  0,    Error("no_answer", true)),
    (GoAwayUnprocessed,         Once,      CALL,  2..=2, 1,    Answer),
    (GoAwayUnprocessed,         Once,      LIST,  2..=2, 1,    Answer),
    (GoAwayProcessed,           Once,      CALL,  1..=1, 1,    Error("connection_lost", true)),
    (GoAwayProcessed,           Once,      LIST,  2..=2, 2,    Answer),
    (RefusedStream,             Once,      CALL,  2..=2, 1,    Answer),
    (RefusedStream,             Once,      LIST,  2..=2, 1,    Answer),
    (ResetStream,               Once,      CALL,  1..=1, 1,    Error("connection_lost", true)),
    (ResetStream,               Once,      LIST,  2..=2, 2,    Answer),
    (Silent,                    Once,      CALL,  1..=1, 1,    Error("timeout", true)),
    (Silent,                    Once,      LIST,  1..=1, 1,    Error("timeout", true)),
    (Status(408),               Once,      CALL,  1..=1, 1,    Error("http_status", true)),
    (Status(408),               Once,      LIST,  2..=2, 2,    Answer),
    (Status(429),               Once,      CALL,  2..=2, 1,    Answer),
    (Status(429),               Once,      LIST,  2..=2, 1,    Answer),
    (Status(429),               Always,    CALL,  SOME,  0,    Error("http_status", false)),
    (Status(500),               Once,      CALL,  1..=1, 1,    Error("http_status", true)),
    (Status(500),               Once,      LIST,  1..=1, 1,    Error("http_status", true)),
    (Status(502),               Once,      CALL,  1..=1, 1,    Error("http_status", true)),
    (Status(502),               Once,      LIST,  2..=2, 2,    Answer),
    (Status(502),               Always,    LIST,  SOME,  0,    Error("http_status", true)),
    // A gateway that has forwarded the request may also send this.
    (Status(503),               Once,      CALL,  1..=1, 1,    Error("http_status", true)),
    (Status(503),               Once,      LIST,  2..=2, 2,    Answer),
    (Status(503),               Always,    CALL,  1..=1, 0,    Error("http_status", true)),
    (Status(503),               Always,    LIST,  2..=6, 0,    Error("http_status", true)),
    (Status(501),               Once,      CALL,  1..=1, 1,    Error("http_status", true)),
    (Status(505),               Once,      CALL,  1..=1, 1,    Error("http_status", true)),
    (Status(520),               Once,      CALL,  1..=1, 1,    Error("http_status", true)),
    (Status(499),               Once,      CALL,  1..=1, 1,    Error("http_status", true)),
    (Status(400),               Once,      CALL,  1..=1, 1,    Error("http_status", true)),
    (Status(413),               Always,    CALL,  1..=1, 0,    Error("http_status", false)),
    (Status(504),               Once,      CALL,  1..=1, 1,    Error("http_status", true)),
    (Status(504),               Once,      LIST,  2..=2, 2,    Answer),
    (Seconds(429, 1),           Once,      CALL,  2..=2, 1,    Answer),
    (Seconds(429, 1),           Once,      LIST,  2..=2, 1,    Answer),
    (Seconds(503, 0),           Once,      CALL,  1..=1, 1,    Error("http_status", true)),
    (Seconds(503, 0),           Always,    CALL,  1..=1, 0,    Error("http_status", true)),
    (Seconds(503, 0),           Always,    LIST,  2..=6, 0,    Error("http_status", true)),
    (Seconds(429, 0),           Once,      CALL,  2..=2, 1,    Answer),
    (Seconds(429, 0),           Always,    CALL,  2..=6, 0,    Error("http_status", false)),
    (Seconds(429, 0),           Always,    LIST,  2..=6, 0,    Error("http_status", false)),
    (Seconds(429, 1),           Always,    CALL,  2..=6, 0,    Error("http_status", false)),
    (Seconds(503, 1),           Always,    CALL,  2..=6, 0,    Error("http_status", false)),
    (Past(503),                 Once,      CALL,  1..=1, 1,    Error("http_status", true)),
    (Past(503),                 Always,    LIST,  2..=6, 0,    Error("http_status", true)),
    (Past(429),                 Always,    CALL,  2..=6, 0,    Error("http_status", false)),
    (Seconds(503, 1),           Once,      CALL,  2..=2, 1,    Answer),
    (Seconds(503, 4),           Once,      CALL,  2..=2, 1,    Answer),
    (Seconds(503, 1),           Once,      LIST,  2..=2, 1,    Answer),
    (Date(429, 2),              Once,      CALL,  2..=2, 1,    Answer),
    (Date(503, 6),              Once,      CALL,  2..=2, 1,    Answer),
    (Date(503, 2),              Once,      LIST,  2..=2, 1,    Answer),
    (Seconds(429, 31),          Once,      CALL,  1..=1, 0,    Error("http_status", false)),
    (Seconds(429, 31),          Once,      LIST,  1..=1, 0,    Error("http_status", false)),
    (Seconds(503, u64::MAX),    Once,      CALL,  1..=1, 0,    Error("http_status", false)),
    (Seconds(503, 3600),        Once,      LIST,  1..=1, 0,    Error("http_status", false)),
    (Date(503, 3600),           Once,      CALL,  1..=1, 0,    Error("http_status", false)),
    (Date(503, 3600),           Once,      LIST,  1..=1, 0,    Error("http_status", false)),
    (H2Status(503, None),       Once,      CALL,  1..=1, 1,    Error("http_status", true)),
    (H2Status(503, None),       Once,      LIST,  2..=2, 2,    Answer),
    (H2Status(503, Some(0)),    Always,    CALL,  1..=1, 0,    Error("http_status", true)),
    (H2Status(503, Some(1)),    Once,      CALL,  2..=2, 1,    Answer),
    (H2Status(429, Some(0)),    Always,    CALL,  2..=6, 0,    Error("http_status", false)),
    (H2Status(500, Some(1)),    Once,      CALL,  1..=1, 1,    Error("http_status", true)),
    (H2Status(408, None),       Once,      CALL,  1..=1, 1,    Error("http_status", true)),
    // With this status, the server says that it has failed, not that it is busy.
    (Seconds(500, 1),           Once,      CALL,  1..=1, 1,    Error("http_status", true)),
    (Seconds(502, 1),           Once,      CALL,  1..=1, 1,    Error("http_status", true)),
];

impl Fault {
    /// True if a server with this fault may have executed the request, as seen from outside.
    fn runs(self) -> bool {
        !matches!(
            self,
            Refused
                | Moved
                | GoAwayUnprocessed
                | RefusedStream
                | Status(429)
                | Seconds(429, _)
                | Seconds(503, 1..)
                | Date(..)
                | Past(429)
                | H2Status(429, _)
                | H2Status(503, Some(1..))
        )
    }

    /// Returns the minimum pause between the first attempt and the second.
    fn pause(self) -> Duration {
        match self {
            Seconds(_, seconds) | H2Status(_, Some(seconds)) => Duration::from_secs(seconds),
            // A date has no fractions of a second.
            Date(_, seconds) => Duration::from_secs(seconds - 1),
            _ => Duration::ZERO,
        }
    }

    async fn strike(self, mut post: Exchange) {
        const CHUNKED: &[(&str, &str)] = &[("Content-Type", "application/json")];
        match self {
            ResetBeforeHead => post.reset(),
            CloseBeforeHead => post.fin().await,
            ResetAfterHead => {
                post.head(200, CHUNKED).await;
                post.reset();
            }
            CloseAfterHead => {
                post.head(200, CHUNKED).await;
                post.fin().await;
            }
            ResetInBody => {
                post.head(200, CHUNKED).await;
                post.chunk(r#"{"jsonrpc":"2.0","#).await;
                post.reset();
            }
            CloseInBody => {
                post.head(200, CHUNKED).await;
                post.chunk(r#"{"jsonrpc":"2.0","#).await;
                post.fin().await;
            }
            StreamCut => {
                post.sse().await;
                post.chunk(": working\n\ndata: {").await;
                post.fin().await;
            }
            StreamEnds => {
                post.sse().await;
                post.chunk(": working\n\n").await;
                post.end().await;
            }
            Silent => post.closed_by_peer("the bridge to give up").await,
            Status(status) => post.respond(status, &[], "").await,
            Seconds(status, seconds) => post.respond(status, &[("Retry-After", &seconds.to_string())], "").await,
            Date(status, seconds) => {
                let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(seconds));
                post.respond(status, &[("Retry-After", &date)], "").await;
            }
            Past(status) => {
                let date = httpdate::fmt_http_date(SystemTime::now() - Duration::from_mins(1));
                post.respond(status, &[("Retry-After", &date)], "").await;
            }
            Refused | Moved | GoAwayUnprocessed | GoAwayProcessed | RefusedStream | ResetStream | H2Status(..) => {
                unreachable!("not a fault of this server")
            }
        }
    }
}

/// Request 1 as the server saw it.
#[derive(Default)]
struct Seen {
    posts: AtomicUsize,
    runs: AtomicUsize,
    tries: Mutex<Vec<Instant>>,
}

impl Seen {
    /// Counts an attempt. True if the fault affects it.
    async fn one_more(&self, fault: Fault, strikes: Strikes) -> bool {
        self.tries.lock().await.push(Instant::now());
        let first = self.posts.fetch_add(1, Ordering::Relaxed) == 0;
        let struck = (first || strikes == Always) && !matches!(fault, Moved);
        // If every attempt fails, the table counts no run: none completed.
        if !struck || (fault.runs() && strikes == Once) {
            self.runs.fetch_add(1, Ordering::Relaxed);
        }
        struck
    }

    /// Serves for ever, with this fault.
    async fn serve(&self, server: &mut Server, fault: Fault, strikes: Strikes) {
        loop {
            let post = server.next("a request").await;
            match post.id().as_deref() {
                Some("1") if self.one_more(fault, strikes).await => fault.strike(post).await,
                Some(_) => _ = post.answer("{}").await,
                None => post.accepted().await,
            }
        }
    }
}

/// Sends request 1. Returns the number of answers and the first one. The rest of the session must be regular.
async fn ask(mut client: Client, method: &str, up: bool) -> (usize, Value) {
    client.send(request("1", method, r#"{"name":"t"}"#)).await;
    let first = client.line("the answer").await;
    let mut answers = 1;
    if up {
        client.send(request("2", "ping", "{}")).await;
        while client.line("the answer to a ping").await != response("2", "{}").into_bytes() {
            answers += 1;
        }
    }
    client.close_stdin();
    client.end().await;
    client.expect_end_of_output().await;
    (answers, serde_json::from_slice(&first).expect("JSON"))
}

/// Runs one row. The error lists the differences from the table.
async fn play(row: &Row) -> Result<(), String> {
    let &(fault, strikes, method, ref expected, runs, hears) = row;
    let seen = Seen::default();
    let (answers, answer) = match fault {
        Refused => {
            let (_port, address) = closed_port();
            ask(Client::start(config(address, fault)), method, false).await
        }
        Moved => {
            let (port, address) = closed_port();
            let up_soon = async {
                sleep(Duration::from_millis(300)).await;
                let mut server = Server::on(port.listen(100).expect("the same port"), None);
                seen.serve(&mut server, fault, strikes).await;
            };
            tokio::select! {
                answers = ask(Client::start(config(address, fault)), method, true) => answers,
                () = up_soon => unreachable!("it serves for ever"),
            }
        }
        GoAwayUnprocessed | GoAwayProcessed | RefusedStream | ResetStream | H2Status(..) => {
            let authority = Authority::new();
            let server = RawH2::start(authority.server_config("localhost")).await;
            let mut config = Config::new(&server.url()).expect("a URL");
            config.proxy = mcp_gangway_core::Proxy::None;
            wait_for_no_server(&mut config);
            config.tls.ca_certificates = vec![authority.pem()];
            let serve = server.serve(async |body: &Value| {
                if body["id"] != 1 || !seen.one_more(fault, strikes).await {
                    return Fate::Answer(response(&body["id"].to_string(), "{}"));
                }
                match fault {
                    GoAwayUnprocessed => Fate::GoAway { processed: false },
                    GoAwayProcessed => Fate::GoAway { processed: true },
                    RefusedStream => Fate::Reset(h2::Reason::REFUSED_STREAM),
                    H2Status(status, seconds) => Fate::Status(status, seconds),
                    _ => Fate::Reset(h2::Reason::INTERNAL_ERROR),
                }
            });
            tokio::select! {
                answers = ask(Client::start(config), method, true) => answers,
                () = serve => unreachable!("it serves for ever"),
            }
        }
        _ => {
            let mut server = Server::start().await;
            let address = server.address();
            tokio::select! {
                answers = ask(Client::start(config(address, fault)), method, true) => answers,
                () = seen.serve(&mut server, fault, strikes) => unreachable!("it serves for ever"),
            }
        }
    };

    let error = &answer["error"]["data"];
    let as_told = match hears {
        Answer => answer["result"].is_object(),
        Error(kind, may_have_run) => error["kind"] == kind && error["mayHaveRun"] == may_have_run,
    };
    let (got_posts, got_runs) = (seen.posts.load(Ordering::Relaxed), seen.runs.load(Ordering::Relaxed));
    let mut wrong = Vec::new();
    if answers != 1 || !as_told {
        wrong.push(format!("{answers} answers, {answer}"));
    }
    if !expected.contains(&got_posts) || got_runs != runs {
        wrong.push(format!("{got_posts} POSTs, {got_runs} runs"));
    }
    // Checks the number of attempts that the error reports, if there was more than one. Where connections are refused,
    // only the bridge can count them.
    let attempts = error["attempts"].as_u64();
    let said = match fault {
        Refused => attempts.is_some_and(|attempts| attempts > 1),
        _ if hears == Answer || got_posts == 1 => attempts.is_none(),
        _ => attempts == u64::try_from(got_posts).ok(),
    };
    if !said {
        wrong.push(format!("attempts: {attempts:?} after {got_posts} POSTs"));
    }
    let tries = seen.tries.into_inner();
    if let [first, second, ..] = tries[..]
        && second - first < fault.pause()
    {
        wrong.push(format!("the second try came after {:?}", second - first));
    }
    if let (Seconds(_, seconds @ 31..) | Date(_, seconds), Error(..)) = (fault, hears) {
        let told = error["retryAfter"].as_u64().unwrap_or_default();
        if !(seconds.saturating_sub(60)..=seconds).contains(&told) || told == 0 {
            wrong.push(format!("retryAfter {told}"));
        }
    }
    let outcome =
        format!("{fault:?} {strikes:?} {method}: {got_posts} POSTs, {got_runs} runs, {answers} answers, {hears:?}");
    println!("{outcome}");
    if wrong.is_empty() { Ok(()) } else { Err(format!("{outcome}\n        but {}", wrong.join("; "))) }
}

fn config(address: SocketAddr, fault: Fault) -> Config {
    let mut config = Config::new(&format!("http://{address}/mcp")).expect("a URL");
    config.proxy = mcp_gangway_core::Proxy::None;
    wait_for_no_server(&mut config);
    if matches!(fault, Silent) {
        config.timeouts.idle = Duration::from_secs(3);
    }
    config
}

#[tokio::test]
async fn r96_the_fault_table() {
    let all = LocalSet::new();
    let plays: Vec<_> = TABLE.iter().map(|row| all.spawn_local(play(row))).collect();
    all.await;
    let mut wrong = Vec::new();
    for (play, row) in plays.into_iter().zip(TABLE) {
        let played = play.await;
        wrong.extend(played.unwrap_or_else(|fault| Err(format!("{row:?}: {fault}"))).err());
    }
    assert!(wrong.is_empty(), "{} of {} rows differ:\n{}", wrong.len(), TABLE.len(), wrong.join("\n"));
}

/// Responds with 503 and this `Retry-After`.
async fn busy(post: Exchange, seconds: &str) {
    post.respond(503, &[("Retry-After", seconds)], "").await;
}

#[tokio::test]
async fn r11_a_request_waiting_for_its_retry_frees_its_slot() {
    let mut server = Server::start().await;
    let mut config = server.config();
    config.limits.concurrency = 1;
    let mut client = Client::start(config);
    client.send(call("1")).await;
    client.send(call("2")).await;
    busy(server.post_of("1").await, "1").await;
    let second = server.post().await;
    assert_eq!(second.id().as_deref(), Some("2"));
    // Now the first request waits for the place.
    let third = tokio::time::timeout(Duration::from_millis(1500), server.post()).await;
    assert!(third.is_err(), "the server received two requests at once");
    let answer = second.answer("{}").await;
    client.expect(answer).await;
    let answer = server.post_of("1").await.answer("{}").await;
    client.expect(answer).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r95_a_retry_sends_the_same_body_and_headers() {
    let (mut server, mut client) = dialogue().await;
    client.handshake(&mut server, Some("session-1")).await;
    client.send(call("1")).await;
    let first = server.post().await;
    let (text, headers) = (first.text().to_owned(), first.headers.clone());
    busy(first, "1").await;
    let second = server.post().await;
    assert_eq!((second.text(), &second.headers), (text.as_str(), &headers));
    let answer = second.answer("{}").await;
    client.expect(answer).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r95_notifications_and_responses_are_retried_and_never_answered() {
    let (mut server, mut client) = dialogue().await;
    for message in [r#"{"jsonrpc":"2.0","method":"x"}"#.to_owned(), response("7", "{}")] {
        client.send(&message).await;
        busy(server.post().await, "1").await;
        let again = server.post().await;
        assert_eq!(again.text(), message);
        again.accepted().await;
    }
    client.expect_nothing(&mut server).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r37_a_cancelled_request_is_not_tried_again() {
    let (mut server, mut client) = dialogue().await;
    client.send(call("1")).await;
    busy(server.post().await, "1").await;
    // The request may be in its second attempt or still waiting for it. Either way the cancellation comes first.
    client.send(cancel("1")).await;
    client.send(call("2")).await;
    busy(server.post_of("2").await, "2").await;
    let answer = server.post_of("2").await.answer("{}").await;
    client.expect(answer).await;
    server.forget_notifications();
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r44_the_total_timeout_includes_retries() {
    let mut server = Server::start().await;
    let mut config = server.config();
    config.timeouts.total = Some(Duration::from_millis(500));
    let mut client = Client::start(config);
    client.send(call("1")).await;
    busy(server.post().await, "20").await;
    let failure = client.expect_error("1").await;
    assert!(matches!(failure.kind(), "timeout" | "http_status"), "{failure:?}");
    assert!(!failure.may_have_run(), "{failure:?}");
    client.expect_nothing(&mut server).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r8_a_request_waiting_for_its_retry_does_not_delay_shutdown() {
    for by_stop in [false, true] {
        let mut server = Server::start().await;
        let mut config = server.config();
        config.timeouts.drain = Duration::from_millis(300);
        let mut client = Client::start(config);
        client.send(call("1")).await;
        busy(server.post().await, "20").await;
        if by_stop {
            client.stop();
        } else {
            client.close_stdin();
        }
        let failure = client.expect_error("1").await;
        assert_eq!((failure.kind(), failure.may_have_run()), ("shutdown", false), "{failure:?}");
        within("the end", client.end()).await;
        client.expect_end_of_output().await;
        server.expect_no_more();
    }
}

#[tokio::test]
async fn r96_only_read_only_methods_are_repeated() {
    #[rustfmt::skip]
    let methods = [
        ("tools/list", true), ("prompts/list", true), ("resources/list", true), ("resources/templates/list", true),
        ("tasks/list", true), ("prompts/get", true), ("tasks/get", true), ("resources/read", true), ("ping", true),
        ("initialize", true), ("server/discover", true), ("completion/complete", true),
        ("tools/call", false), ("logging/setLevel", false), ("resources/subscribe", false),
        ("resources/unsubscribe", false), ("tasks/cancel", false), ("tasks/result", false), ("foo/bar", false),
        ("tools/lists", false), ("list", false), ("get", false), ("PING", false),
    ];
    let (mut server, mut client) = dialogue().await;
    for (method, reads) in methods {
        client.send(request("1", method, "{}")).await;
        server.post().await.reset();
        if reads {
            // An older server sends an empty result here.
            let result = if method == "server/discover" { r#"{"supportedVersions":[]}"# } else { "{}" };
            let answer = server.post().await.answer(result).await;
            client.expect(answer).await;
        } else {
            let failure = client.expect_error("1").await;
            assert!(failure.may_have_run(), "{method}: {failure:?}");
        }
        client.expect_nothing(&mut server).await;
    }
    client.finish(&mut server).await;
}
