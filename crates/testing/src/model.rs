//! A small MCP server that follows the protocol without a script: sessions, tools, event streams with and without ids,
//! and resumption. It counts how often each call ran, also across restarts, so that a test that breaks connections can
//! check the outcome of a call.
//!
//! A call names in `params.name` the form of its answer (see [`FORMS`]). `params.arguments` has its `key`, under which
//! it is counted, and optionally its duration in milliseconds (`wait`).

use std::{
    collections::{HashMap, HashSet},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinSet,
};

/// A JSON body; an event stream without ids; an event stream with ids, which can be resumed; one that ends after its
/// first event, and so must be resumed.
pub const FORMS: [&str; 4] = ["json", "stream", "resumable", "polled"];

/// The server's memory. It outlives the listener.
#[derive(Clone, Default)]
pub struct Model(Arc<Mutex<Memory>>);

#[derive(Default)]
struct Memory {
    /// How often each call ran, by its key.
    runs: HashMap<String, usize>,
    sessions: HashSet<String>,
    /// The number of sessions ever created.
    begun: usize,
    /// The events of each stream that can be resumed.
    streams: Vec<Vec<String>>,
    /// True if a GET without a cursor gets an event stream.
    pushes: bool,
    /// Notified of each GET without a cursor.
    listened: Arc<Notify>,
    /// Responses that replace the regular ones, last one first.
    moods: Vec<ResponseOverride>,
}

/// Replaces the server's regular treatment of one request.
#[derive(Clone, Copy, Debug)]
pub struct ResponseOverride {
    pub status: u16,
    /// The header `Retry-After`, in seconds.
    pub retry_after: Option<u32>,
    /// True if the request is executed nevertheless.
    pub runs: bool,
    pub page: Page,
}

/// The body of such a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    Nothing,
    /// The request, with all of its headers.
    Echo,
    /// A tool's own error, whose text mentions a session.
    ToolError,
    /// An error with id null: the session is not known.
    NoSession,
}

impl Page {
    /// Returns the body for the request with this id and key.
    fn text(self, request: &Request, id: &Value, key: &str) -> String {
        match self {
            Self::Nothing => String::new(),
            Self::Echo => {
                let headers = request.headers.iter().map(|(name, value)| format!("{name}: {value}\n"));
                format!(
                    "<h1>The request was</h1>{}{}",
                    headers.collect::<String>(),
                    String::from_utf8_lossy(&request.body)
                )
            }
            Self::ToolError => {
                let error =
                    json!({"code": -32_000, "message": "the browser session 7 has ended", "data": {"key": key}});
                json!({"jsonrpc": "2.0", "id": id, "error": error}).to_string()
            }
            Self::NoSession => {
                let error = json!({"code": -32_000, "message": "Bad Request: No valid session ID provided"});
                json!({"jsonrpc": "2.0", "id": null, "error": error}).to_string()
            }
        }
    }
}

/// The relevant parts of a request.
struct Request {
    verb: String,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

impl Model {
    /// Serves this listener until the future is dropped, which ends all of its connections.
    pub async fn serve(self, listener: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => if let Ok((socket, _)) = accepted {
                    let model = self.clone();
                    connections.spawn(async move {
                        // Tests break connections on purpose, so ignore the error.
                        let _ = model.converse(socket).await;
                    });
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }

    /// Returns how often the call with this key ran.
    pub fn runs(&self, key: &str) -> usize {
        self.memory().runs.get(key).copied().unwrap_or_default()
    }

    /// Returns how many calls ran, and how many ran more than once.
    pub fn run_counts(&self) -> (usize, usize) {
        let memory = self.memory();
        (memory.runs.len(), memory.runs.values().filter(|&&runs| runs > 1).count())
    }

    /// Returns how many sessions were created.
    pub fn sessions(&self) -> usize {
        self.memory().begun
    }

    /// Forgets sessions and streams, as a server does that keeps them in memory and restarts.
    pub fn forget(&self) {
        let mut memory = self.memory();
        memory.sessions.clear();
        memory.streams.iter_mut().for_each(Vec::clear);
    }

    /// From now on, answers a GET without a cursor with an event stream.
    pub fn push(&self) {
        self.memory().pushes = true;
    }

    /// Waits for the next GET without a cursor, unless there was one already.
    pub async fn listened(&self) {
        let listened = Arc::clone(&self.memory().listened);
        listened.notified().await;
    }

    /// Treats one of the next tool calls in this way.
    pub fn be(&self, mood: ResponseOverride) {
        self.memory().moods.push(mood);
    }

    /// From now on, treats all calls regularly.
    pub fn behave_normally(&self) {
        self.memory().moods.clear();
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn converse(&self, mut socket: TcpStream) -> io::Result<()> {
        socket.set_nodelay(true)?;
        let mut read = Vec::new();
        while let Some(request) = next_request(&mut socket, &mut read).await? {
            match request.verb.as_str() {
                "POST" => self.post(&mut socket, &request).await?,
                "GET" => self.get(&mut socket, &request).await?,
                "DELETE" => {
                    let known = request.header("mcp-session-id").is_some_and(|id| self.memory().sessions.remove(id));
                    reply(&mut socket, if known { 204 } else { 404 }, "", "").await?;
                }
                _ => reply(&mut socket, 405, "", "").await?,
            }
        }
        Ok(())
    }

    fn is_known(&self, request: &Request) -> bool {
        request.header("mcp-session-id").is_some_and(|id| self.memory().sessions.contains(id))
    }

    async fn post(&self, socket: &mut TcpStream, request: &Request) -> io::Result<()> {
        let Ok(message) = serde_json::from_slice::<Value>(&request.body) else {
            return reply(socket, 400, "", "this is no JSON").await;
        };
        let (method, id) = (message["method"].as_str().unwrap_or_default(), &message["id"]);
        if method == "initialize" {
            let session = {
                let mut memory = self.memory();
                memory.begun += 1;
                let session = format!("session-{:08}", memory.begun);
                memory.sessions.insert(session.clone());
                session
            };
            let version = &message["params"]["protocolVersion"];
            let info = json!({"name": "model", "version": "1"});
            let result = json!({"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info});
            return reply(socket, 200, &format!("Mcp-Session-Id: {session}\r\n"), &result_line(id, &result)).await;
        }
        if !self.is_known(request) {
            return reply(socket, 404, "", "").await;
        }
        match method {
            _ if id.is_null() || method.is_empty() => reply(socket, 202, "", "").await,
            "tools/call" => self.call(socket, request, id, &message["params"]).await,
            "tools/list" => {
                let tools: Vec<_> = FORMS.iter().map(|form| json!({"name": form, "inputSchema": {}})).collect();
                reply(socket, 200, "", &result_line(id, &json!({"tools": tools}))).await
            }
            _ => reply(socket, 200, "", &result_line(id, &json!({}))).await,
        }
    }

    async fn call(&self, socket: &mut TcpStream, request: &Request, id: &Value, params: &Value) -> io::Result<()> {
        let arguments = &params["arguments"];
        let key = arguments["key"].as_str().unwrap_or_default().to_owned();
        let mood = {
            let mut memory = self.memory();
            let mood = memory.moods.pop();
            if mood.is_none_or(|mood| mood.runs) {
                *memory.runs.entry(key.clone()).or_default() += 1;
            }
            mood
        };
        if let Some(wait) = arguments["wait"].as_u64() {
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
        if let Some(ResponseOverride { status, retry_after, page, .. }) = mood {
            let mut headers = retry_after.map(|seconds| format!("Retry-After: {seconds}\r\n")).unwrap_or_default();
            match status {
                300..=399 => headers.push_str("Location: /moved\r\n"),
                401 => headers.push_str("WWW-Authenticate: Bearer\r\n"),
                _ => {}
            }
            return reply(socket, status, &headers, &page.text(request, id, &key)).await;
        }
        let form = params["name"].as_str().unwrap_or_default();
        let answer = result_line(id, &json!({"content": [{"type": "text", "text": key}]}));
        if form == "json" {
            return reply(socket, 200, "", &answer).await;
        }
        let progress = |step: u32| {
            let params = json!({"progressToken": key, "progress": step});
            json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}).to_string()
        };
        let messages = [progress(1), progress(2), answer];
        write(socket, STREAM).await?;
        if form == "stream" {
            for message in messages {
                write_chunk(socket, &format!("data: {message}\n\n")).await?;
            }
            return write(socket, LAST_CHUNK).await;
        }
        let (stream, count) = {
            let mut memory = self.memory();
            let stream = memory.streams.len();
            let first = format!("retry: 10\nid: {stream:08}-0\ndata: \n\n");
            let others = messages.iter().enumerate();
            let others = others.map(|(at, message)| format!("id: {stream:08}-{}\ndata: {message}\n\n", at + 1));
            memory.streams.push(std::iter::once(first).chain(others).collect());
            (stream, if form == "polled" { 1 } else { 4 })
        };
        self.replay(socket, stream, 0, count).await
    }

    /// Sends at most `count` events of a stream, starting at number `from`.
    async fn replay(&self, socket: &mut TcpStream, stream: usize, from: usize, count: usize) -> io::Result<()> {
        let events: Vec<_> = {
            let memory = self.memory();
            let events = memory.streams.get(stream).map(Vec::as_slice).unwrap_or_default();
            events.iter().skip(from).take(count).cloned().collect()
        };
        for event in events {
            write_chunk(socket, &event).await?;
        }
        write(socket, LAST_CHUNK).await
    }

    async fn get(&self, socket: &mut TcpStream, request: &Request) -> io::Result<()> {
        if !self.is_known(request) {
            return reply(socket, 404, "", "").await;
        }
        if let Some(cursor) = request.header("last-event-id") {
            let place = cursor.split_once('-').and_then(|(stream, event)| Some((number(stream)?, number(event)?)));
            let Some((stream, event)) = place else { return reply(socket, 400, "", "no such event").await };
            write(socket, STREAM).await?;
            return self.replay(socket, stream, event + 1, usize::MAX).await;
        }
        self.memory().listened.notify_one();
        if !self.memory().pushes {
            return reply(socket, 405, "", "").await;
        }
        write(socket, STREAM).await?;
        write_chunk(socket, ": nothing to say\n\n").await?;
        // A GET has no body, so the next read returns at the peer's end.
        let mut end = [0];
        socket.read(&mut end).await.map(|_| ())
    }
}

const STREAM: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
const LAST_CHUNK: &str = "0\r\n\r\n";

fn number(text: &str) -> Option<usize> {
    text.parse().ok()
}

fn result_line(id: &Value, result: &Value) -> String {
    json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string()
}

async fn reply(socket: &mut TcpStream, status: u16, headers: &str, body: &str) -> io::Result<()> {
    let kind = if body.starts_with('{') { "application/json" } else { "text/plain" };
    // RFC 9110, 8.6: no length with 204.
    let length = if status == 204 { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    write(socket, &format!("HTTP/1.1 {status} Model\r\nContent-Type: {kind}\r\n{length}{headers}\r\n{body}")).await
}

async fn write_chunk(socket: &mut TcpStream, text: &str) -> io::Result<()> {
    write(socket, &format!("{:x}\r\n{text}\r\n", text.len())).await
}

async fn write(socket: &mut TcpStream, text: &str) -> io::Result<()> {
    socket.write_all(text.as_bytes()).await
}

/// Reads one whole request; `None` if the peer closed before its end. `read` keeps the bytes after it.
async fn next_request(socket: &mut TcpStream, read: &mut Vec<u8>) -> io::Result<Option<Request>> {
    let end = loop {
        if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        if socket.read_buf(read).await? == 0 {
            return Ok(None);
        }
    };
    let head: Vec<u8> = read.drain(..end + 4).collect();
    let head = String::from_utf8_lossy(&head);
    let mut lines = head.lines();
    let verb = lines.next().and_then(|line| line.split(' ').next()).unwrap_or_default().to_owned();
    let fields = lines.filter_map(|line| line.split_once(':'));
    let headers: HashMap<_, _> =
        fields.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
    let length = headers.get("content-length").and_then(|length| number(length)).unwrap_or_default();
    while read.len() < length {
        if socket.read_buf(read).await? == 0 {
            return Ok(None);
        }
    }
    let body = read.drain(..length).collect();
    Ok(Some(Request { verb, headers, body }))
}
