//! The server's reply to one request: the correct one, or the script's choice.

use std::{sync::LazyLock, time::Duration};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{
    super::compressed,
    server::{Fate, Request, State},
};

/// The server's actions for one request, and the end of its connection.
pub(super) struct Plan {
    pub(super) acts: Vec<Act>,
    pub(super) ending: Ending,
}

pub(super) enum Act {
    Wait(Duration),
    Send(Bytes),
    /// Forwards events from elsewhere on this stream while there are any.
    Pushes(mpsc::UnboundedReceiver<Bytes>),
}

/// What happens to the connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Keep,
    Close,
    Reset,
    /// Keeps the connection open and silent.
    Stall,
}

const ENDINGS: &[Ending] = &[Ending::Keep, Ending::Close, Ending::Reset, Ending::Stall];

/// A reply before it is written.
struct Reply {
    status: u16,
    content_type: &'static str,
    headers: String,
    body: Bytes,
    fate: Fate,
}

const DISCOVERED: &str = r#"{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{"listChanged":true},"resources":{"subscribe":true},"logging":{},"prompts":{},"completions":{}}}"#;
const INITIALIZED: &str = r#"{"protocolVersion":"2025-11-25","capabilities":{"tools":{"listChanged":true},"resources":{"subscribe":true},"logging":{},"prompts":{},"completions":{}},"serverInfo":{"name":"s","version":"1"}}"#;
/// The members that any request may want in its result.
const RESULT: &str = r#""content":[],"tools":[{"name":"t","inputSchema":{"type":"object","properties":{"key":{"type":"string","x-mcp-header":"Key"}}}}],"contents":[],"messages":[],"completion":{"values":[]}"#;
const WANTS_INPUT: &str = r#"{"resultType":"input_required","requestState":"s","inputRequests":{"a":{"method":"elicitation/create","params":{"mode":"form","message":"?","requestedSchema":{"type":"object","properties":{}}}}}}"#;

/// How much the server sends before it has only short replies for messages without an id, in bytes.
const MAX_SENT: usize = 8 << 20;

/// A mebibyte.
static PAD: LazyLock<Bytes> = LazyLock::new(|| vec![b'x'; 1 << 20].into());

impl Plan {
    /// Decides if the server closes the connection before it reads the request's body, and how.
    pub(super) fn hangs_up(state: &mut State) -> Option<Ending> {
        let way = state.script.byte();
        let stalls = if state.is_calm { Ending::Close } else { Ending::Stall };
        match way {
            253 => Some(Ending::Close),
            254 => Some(Ending::Reset),
            255 => Some(stalls),
            _ => None,
        }
    }

    /// Returns the number of bytes that it sends, with as many again as take the time of a request.
    pub(super) fn cost(&self) -> usize {
        const REQUEST: usize = 16 << 10;
        REQUEST + self.acts.iter().map(|act| if let Act::Send(bytes) = act { bytes.len() } else { 0 }).sum::<usize>()
    }

    /// Decides the reply to this request, and the fate of the call if it is one.
    pub(super) fn after(request: &Request, state: &mut State) -> (Self, Fate) {
        let mut kind = state.script.below(20);
        if state.sent > MAX_SENT && (request.id.is_none() || request.method.is_empty()) {
            // A client may send thousands of notifications, and a response may lead to another ping without end. Both
            // cost the bridge no more than the server.
            kind = 0;
        }
        if state.is_calm && (request.verb == "GET" || request.method.is_empty()) {
            // Otherwise each resumed stream could lead to another, and each response to two more questions.
            kind = 0;
        }
        let wait = state.script.wait();
        let (mut plan, fate) = match kind {
            4..=6 => refusal(request, state).written(),
            7 => (Self { acts: Vec::new(), ending: state.script.pick(&ENDINGS[1..]) }, Fate::MayHaveRun),
            8 => {
                let (plan, _) = right(request, state);
                (cut(plan, state), Fate::MayHaveRun)
            }
            9 => redirect(state).written(),
            10..=12 => stream(request, state),
            13 => {
                let start = state.script.pick(&[
                    "",
                    "HTTP/1.1 ",
                    "HTTP/1.1 200 OK\r\n",
                    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n",
                ]);
                let text = [start.as_bytes(), &state.script.text()].concat();
                (Self { acts: vec![Act::Send(text.into())], ending: state.script.pick(ENDINGS) }, Fate::MayHaveRun)
            }
            14 | 15 => odd(request, state).written(),
            16 => {
                let (plan, fate) = right(request, state);
                (slowly(plan, state), fate)
            }
            17 => endless(state),
            19 => windows(request, state),
            18 => {
                state.sessions_over = state.sessions;
                right(request, state)
            }
            _ => right(request, state),
        };
        plan.acts.insert(0, Act::Wait(wait));
        if state.is_calm {
            plan.acts.retain(|act| !matches!(act, Act::Wait(_)));
            // A subscription stays open until the client ends it.
            if plan.ending == Ending::Stall && request.method != "subscriptions/listen" {
                plan.ending = Ending::Close;
            }
        }
        (plan, fate)
    }
}

impl Reply {
    fn new(status: u16, body: impl Into<Bytes>, fate: Fate) -> Self {
        Self { status, content_type: "application/json", headers: String::new(), body: body.into(), fate }
    }

    fn result(request: &Request, result: &str) -> Self {
        Self::new(200, answer(request, result), Fate::MayHaveRun)
    }

    fn written(self) -> (Plan, Fate) {
        let Self { status, content_type, headers, body, fate } = self;
        let length = if status == 204 { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let kind = if content_type.is_empty() { String::new() } else { format!("Content-Type: {content_type}\r\n") };
        let head = format!("HTTP/1.1 {status} Status\r\n{kind}{length}{headers}\r\n");
        (Plan { acts: vec![Act::Send(head.into()), Act::Send(body)], ending: Ending::Keep }, fate)
    }
}

/// The reply of a correct server.
fn right(request: &Request, state: &mut State) -> (Plan, Fate) {
    let is_modern = request.is_modern();
    let session = request.header("mcp-session-id").and_then(|id| id.strip_prefix("s-")?.parse::<usize>().ok());
    let is_known = session.is_some_and(|session| session > state.sessions_over) || !state.kind.has_sessions;
    let kind = state.kind;
    let refused = |status, id: &str, code, why: &str| {
        let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":"{why}"}}}}"#);
        Reply::new(status, body, Fate::Refused).written()
    };
    let id = request.id.as_deref().unwrap_or("null");
    match (request.verb.as_str(), request.method.as_str()) {
        ("DELETE", _) => Reply::new(200, "", Fate::Refused).written(),
        ("GET", _) => right_stream(request, state),
        _ if kind.is_old && request.path.starts_with("/mcp") => Reply::new(405, "", Fate::Refused).written(),
        (_, "subscriptions/listen") if kind.takes_modern => {
            let id = request.id.as_deref().unwrap_or("null");
            let params = format!(
                r#"{{"notifications":{{"toolsListChanged":true}},"_meta":{{"io.modelcontextprotocol/subscriptionId":{id}}}}}"#
            );
            let granted =
                format!(r#"{{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{params}}}"#);
            let acts = vec![Act::Send(EVENTS.into()), Act::Send(event(None, &granted))];
            (Plan { acts, ending: Ending::Stall }, Fate::MayHaveRun)
        }
        (_, "server/discover") if kind.takes_modern => Reply::result(request, DISCOVERED).written(),
        _ if is_modern && kind.takes_modern => {
            Reply::result(request, &format!(r#"{{"resultType":"complete",{RESULT}}}"#)).written()
        }
        _ if is_modern => refused(400, "null", -32_000, "Bad Request: Server not initialized"),
        _ if !kind.takes_legacy => refused(400, id, -32_022, "Unsupported protocol version"),
        (_, "initialize") => {
            let mut reply = Reply::result(request, INITIALIZED);
            if kind.has_sessions {
                state.sessions += 1;
                reply.headers = format!("Mcp-Session-Id: s-{}\r\n", state.sessions);
            }
            posted(reply, state)
        }
        _ if !is_known && !kind.is_old => refused(404, "null", -32_001, "Session not found"),
        _ if request.id.is_none() || request.method.is_empty() => Reply::new(202, "", Fate::MayHaveRun).written(),
        _ => posted(Reply::result(request, &format!("{{{RESULT}}}")), state),
    }
}

/// Sends a POST's reply, as an event over HTTP+SSE.
fn posted(reply: Reply, state: &State) -> (Plan, Fate) {
    let Some(pushes) = state.pushes.as_ref().filter(|_| state.kind.is_old) else { return reply.written() };
    let _ = pushes.send(event(None, &String::from_utf8_lossy(&reply.body)));
    Reply { status: 202, body: Bytes::new(), headers: String::new(), ..reply }.written()
}

/// The stream that a GET asks for.
fn right_stream(request: &Request, state: &mut State) -> (Plan, Fate) {
    let cursor = request.cursor();
    if let Some(id) = cursor.and_then(|stream| state.streams.get(stream)).filter(|_| !state.is_calm) {
        let answer = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{{RESULT}}}}}"#);
        let acts = [EVENTS.into(), event(None, &answer), LAST_CHUNK.into()].map(Act::Send).into();
        return (Plan { acts, ending: Ending::Keep }, Fate::MayHaveRun);
    }
    if !state.kind.is_old || cursor.is_some() {
        return Reply::new(405, "", Fate::Refused).written();
    }
    let (pushes, events) = mpsc::unbounded_channel();
    state.pushes = Some(pushes);
    let endpoint = chunk("event: endpoint\ndata: /messages\n\n");
    let acts = vec![Act::Send(EVENTS.into()), Act::Send(endpoint), Act::Pushes(events)];
    (Plan { acts, ending: Ending::Close }, Fate::MayHaveRun)
}

/// An error status, with any header and body.
fn refusal(request: &Request, state: &mut State) -> Reply {
    let script = &mut state.script;
    let status = script.pick(&[
        503, 429, 404, 400, 401, 403, 500, 502, 504, 408, 405, 409, 410, 413, 422, 425, 501, 505, 507, 202, 204, 206,
        304,
    ]);
    let (hint, is_hinted) = script.pick(&[
        ("", false),
        ("0", false),
        ("1", true),
        ("7", true),
        ("29", true),
        ("31", true),
        ("86400", true),
        ("Thu, 01 Jan 1970 00:00:00 GMT", false),
        ("Fri, 31 Dec 2100 23:59:59 GMT", true),
        ("-1", false),
        ("18446744073709551615", true),
        ("soon", false),
    ]);
    let is_challenged = script.yes();
    let id = request.id.as_deref().unwrap_or("null");
    let error = |id: &str, code: i32, why: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":"{why}"}}}}"#)
    };
    // `is_own` is true for the request's own response, as a tool can give it.
    let (body, is_own) = match script.below(12) {
        0 => (String::new(), false),
        1 => ("<h1>The session was not initialized</h1>".to_owned(), false),
        2 => (request.echo(), false),
        3 => (error(id, -32_000, "the browser session 7 has ended"), true),
        4 => (error(id, -32_602, "device not initialized"), true),
        5 => (error(id, -32_601, "order not found"), true),
        6 => (error("null", -32_000, "Bad Request: No valid session ID provided"), false),
        7 => (error(id, -32_022, "Unsupported protocol version"), false),
        8 => (answer(request, "{}"), true),
        9 => ("[".repeat(20_000), false),
        10 => (r#"{"error":"invalid_token"}"#.to_owned(), false),
        // No tool uses these words.
        _ => (error(id, -32_001, "Session not found"), !matches!(status, 400 | 404)),
    };
    let (body, is_own) = if matches!(status, 204 | 304) { (String::new(), false) } else { (body, is_own) };
    let is_lost = status == 410 || body.contains("No valid session") || body.contains("session was not");
    let fate = match status {
        // A server that asks for credentials has not run the call, but a result means that it ran.
        401 | 403 if is_own && is_challenged && body.contains("\"error\"") => Fate::Refused,
        _ if is_own => Fate::MayHaveRun,
        503 if is_hinted => Fate::Refused,
        // A tool's own error has its call's id.
        400..=499 if is_lost && request.is_in_session() => Fate::Refused,
        // A gateway's error page can hide a lost response, but this is JSON-RPC without an id.
        500.. | ..=299 if body.contains("No valid session") && !is_own && request.is_in_session() => Fate::Refused,
        403 if is_challenged => Fate::Refused,
        // Includes lost sessions, and replies of older or newer servers that do not know the request.
        300..=401 | 404..=406 | 415 | 429 => Fate::Refused,
        410 | 422 if request.is_modern() => Fate::Refused,
        408..=410 | 422 | 500.. | ..=299 => Fate::MayHaveRun,
        _ => Fate::Declined,
    };
    let mut headers = if hint.is_empty() { String::new() } else { format!("Retry-After: {hint}\r\n") };
    if is_challenged {
        headers.push_str("WWW-Authenticate: Bearer error=\"insufficient_scope\", scope=\"a b\"\r\n");
    }
    let content_type = script.pick(&["application/json", "text/html", "text/event-stream", ""]);
    Reply { content_type, headers, ..Reply::new(status, body, fate) }
}

fn redirect(state: &mut State) -> Reply {
    let status = state.script.pick(&[307, 308, 301, 302, 303, 300]);
    let target = state.script.pick(&[
        "/mcp",
        "/other",
        "http://server.test/mcp?n=1",
        "http://elsewhere.test/mcp",
        "https://server.test/mcp",
        "https://elsewhere.test/",
        "http://server.test:99999/",
        "//",
        "ftp://server.test/",
        "http://[::1]/",
    ]);
    let headers = format!("Location: {target}\r\nSet-Cookie: a=b\r\n");
    Reply { headers, ..Reply::new(status, "", Fate::Refused) }
}

/// A success with a wrong body.
fn odd(request: &Request, state: &mut State) -> Reply {
    let script = &mut state.script;
    let mut reply = Reply::new(200, "", Fate::MayHaveRun);
    reply.content_type = script.pick(&[
        "application/json",
        "text/event-stream",
        "application/x-ndjson",
        "text/html",
        "",
        "application/json; x=y",
    ]);
    let depth = script.pick(&[100, 3_000, 20_000]);
    let text = match script.below(12) {
        0 => "[".repeat(depth),
        1 => answer(request, &format!("{}1{}", "[".repeat(depth), "]".repeat(depth))),
        2 => answer(request, &format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth))),
        3 => format!("{}{}", r#"[{"id":1,"result":"#.repeat(depth), "}]".repeat(depth)),
        4 => String::from_utf8_lossy(&script.text()).into_owned(),
        5 => answer(request, "{}").repeat(2),
        6 => format!("[{}{}]", r#"{"jsonrpc":"2.0","method":"notifications/x"},"#.repeat(depth), answer(request, "{}")),
        7 => "\n{]\n".repeat(depth),
        // A client can send hundreds of notifications, and these pages are the check's own memory.
        8 => {
            let length = if request.id.is_some() { PAD.len() } else { 100_000 };
            answer(request, &format!("\"{}\"", "x".repeat(length)))
        }
        9 => {
            reply.fate = Fate::Refused;
            answer(request, WANTS_INPUT)
        }
        10 => r#"{"jsonrpc":"2.0","id":12345,"result":{}}"#.to_owned(),
        _ => r#"{"jsonrpc":"2.0","id":null,"error":{"code":-1,"message":"no"}}"#.to_owned(),
    };
    reply.body =
        if reply.content_type == "text/event-stream" { format!("data: {text}\n\n").into() } else { text.into() };
    reply
}

/// An event stream.
fn stream(request: &Request, state: &mut State) -> (Plan, Fate) {
    let number = request.cursor().filter(|stream| *stream < state.streams.len()).unwrap_or_else(|| {
        state.streams.push(request.id.clone().unwrap_or_else(|| "null".to_owned()));
        state.streams.len() - 1
    });
    let mut acts = vec![Act::Send(EVENTS.into())];
    let mut fate = Fate::MayHaveRun;
    for at in 0..state.script.below(6) {
        let wait = state.script.wait();
        let id = state.script.yes().then(|| format!("{number}-{at}"));
        let notification =
            r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"p","progress":1}}"#;
        let data = match state.script.below(14) {
            0 => answer(request, &format!("{{{RESULT}}}")),
            1 => notification.to_owned(),
            2 => format!(r#"{{"jsonrpc":"2.0","id":"p{number}","method":"ping"}}"#),
            3 => {
                format!(r#"{{"jsonrpc":"2.0","id":{number},"method":"elicitation/create","params":{{"message":"?"}}}}"#)
            }
            4 => String::new(),
            5 => {
                let other = usize::from(state.script.byte()) % state.streams.len();
                format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{}}}}"#, state.streams[other])
            }
            6 => String::from_utf8_lossy(&state.script.text()).replace(['\r', '\n'], " "),
            7 => "[".repeat(state.script.pick(&[100, 3_000, 20_000])),
            8 => format!("[{notification},{},[[]]]", answer(request, "{}")),
            9 => format!(r#"{{"jsonrpc":"2.0","method":"x","params":{{"x":"{}"}}}}"#, "x".repeat(100_000)),
            10 => {
                fate = Fate::Refused;
                answer(request, WANTS_INPUT)
            }
            11 => {
                let retry = state.script.pick(&["0", "1", "10", "100000", "99999999999999999999"]);
                acts.push(Act::Send(chunk(&format!("retry: {retry}\n\n"))));
                continue;
            }
            12 => {
                acts.push(Act::Send(chunk("event: endpoint\ndata: /messages\n\n")));
                continue;
            }
            _ => {
                acts.push(Act::Send(chunk(": nothing\n\n")));
                continue;
            }
        };
        acts.extend([Act::Wait(wait), Act::Send(event(id.as_deref(), &data))]);
    }
    let ending = state.script.pick(ENDINGS);
    if ending == Ending::Keep {
        acts.push(Act::Send(LAST_CHUNK.into()));
    }
    (Plan { acts, ending }, fate)
}

/// A body that does not end.
fn endless(state: &mut State) -> (Plan, Fate) {
    let status = state.script.pick(&[500, 200, 202, 404]);
    let head =
        format!("HTTP/1.1 {status} Status\r\nContent-Type: text/event-stream\r\nContent-Length: 99999999999\r\n\r\n");
    let mut acts = vec![Act::Send(head.into())];
    for _ in 0..state.script.below(4) {
        acts.extend([Act::Send(PAD.clone()), Act::Wait(state.script.wait())]);
    }
    (Plan { acts, ending: state.script.pick(&ENDINGS[1..]) }, Fate::MayHaveRun)
}

/// A short body that needs a large window to decompress and stays open long.
fn windows(request: &Request, state: &mut State) -> (Plan, Fate) {
    let text = format!("data: {}\n\n", answer(request, "{}"));
    let text = if state.script.yes() { text } else { ": nothing\n\n".to_owned() };
    let (coding, body) = match state.script.below(2) {
        0 => ("br", compressed::brotli(state.script.pick(&[24, 22, 30, 16]), text.as_bytes())),
        _ => ("zstd", compressed::zstd(state.script.pick(&[0x68, 0x58, 0x70, 0xff]), text.as_bytes())),
    };
    // Cut off the end.
    let body = body.get(..body.len() - state.script.pick(&[0, 1, 3])).unwrap_or_default();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: {coding}\r\n\r\n");
    let acts = vec![Act::Send([head.as_bytes(), body].concat().into())];
    (Plan { acts, ending: state.script.pick(&ENDINGS[1..]) }, Fate::MayHaveRun)
}

/// The same, cut at some byte.
fn cut(plan: Plan, state: &mut State) -> Plan {
    let bytes = plan_bytes(plan);
    let end = bytes.len() * usize::from(state.script.byte()) / 256;
    Plan { acts: vec![Act::Send(bytes.slice(..end))], ending: state.script.pick(&ENDINGS[1..]) }
}

/// The same in small pieces.
fn slowly(plan: Plan, state: &mut State) -> Plan {
    let ending = plan.ending;
    let bytes = plan_bytes(plan);
    let size = bytes.len() / (1 + usize::from(state.script.below(8))) + 1;
    let pieces = bytes.chunks(size).map(|piece| Act::Send(bytes.slice_ref(piece)));
    let acts = pieces.flat_map(|piece| [piece, Act::Wait(state.script.wait())]).collect();
    Plan { acts, ending }
}

/// Returns the bytes that a plan sends.
fn plan_bytes(plan: Plan) -> Bytes {
    let sent = plan.acts.into_iter().filter_map(|act| match act {
        Act::Send(bytes) => Some(bytes),
        Act::Wait(_) | Act::Pushes(_) => None,
    });
    sent.collect::<Vec<_>>().concat().into()
}

fn answer(request: &Request, result: &str) -> String {
    let id = request.id.as_deref().unwrap_or("null");
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
}

const EVENTS: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
const LAST_CHUNK: &str = "0\r\n\r\n";

fn event(id: Option<&str>, data: &str) -> Bytes {
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    chunk(&format!("{id}data: {data}\n\n"))
}

fn chunk(text: &str) -> Bytes {
    format!("{:x}\r\n{text}\r\n", text.len()).into()
}
