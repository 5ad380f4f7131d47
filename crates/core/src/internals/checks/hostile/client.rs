//! The client: its messages and their order, and a ledger of its requests and their responses.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, value::RawValue};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream},
    sync::Notify,
    task::JoinHandle,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{
    super::members::Members,
    IDLE, PATIENCE, Promise, SECRET, Settings, lock,
    script::Script,
    server::{Server, key_in},
};

/// The most steps of a client.
const MAX_STEPS: u8 = 24;
/// The longest time that the bridge may leave stdin unread.
const READ_TIME: Duration = Duration::from_mins(5);
/// The `_meta` of a client of 2026-07-28.
const META: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{"elicitation":{}},"io.modelcontextprotocol/clientInfo":{"name":"c","version":"1"}}"#;

/// One action of the client.
pub(super) struct Step {
    wait: Duration,
    what: What,
}

enum What {
    Line(Vec<u8>),
    /// Cancels the request that was made this many requests ago.
    Cancel(usize),
    /// Answers a question of the server.
    Answer,
}

/// Reads the client's steps.
pub(super) fn steps(script: &mut Script, settings: &Settings) -> Vec<Step> {
    let count = script.below(MAX_STEPS);
    let mut maker = StepGenerator { requests: 0 };
    let mut steps = Vec::new();
    if settings.shakes_hands {
        let hello = [maker.initialize(), INITIALIZED.to_owned()];
        steps.extend(hello.map(|line| Step { wait: Duration::ZERO, what: What::Line(line.into()) }));
    }
    for _ in 0..count {
        let what = maker.step(script);
        steps.push(Step { wait: script.wait(), what });
    }
    steps
}

/// Returns the deadline for the responses to these steps: [`PATIENCE`] once, and again for each handshake, as later
/// messages wait for it. Each request may also wait for all before it, if as many are open as may be.
pub(super) fn patience(steps: &[Step], settings: &Settings) -> Duration {
    let lines = steps.iter().filter_map(|step| match &step.what {
        What::Line(line) => Some(line.as_slice()),
        What::Cancel(_) | What::Answer => None,
    });
    let count = |line: &[u8], name: &str| memchr::memmem::find_iter(line, name).count();
    let (mut handshakes, mut requests) = (0, 0);
    for line in lines {
        handshakes += count(line, "\"initialize\"") + count(line, "notifications/initialized");
        requests += count(line, "\"id\":");
    }
    let times = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    PATIENCE * times(1 + handshakes) + IDLE * times(requests / settings.concurrency)
}

const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

/// Makes lines. Each call has a number, by which the server recognises it.
struct StepGenerator {
    requests: usize,
}

impl StepGenerator {
    fn step(&mut self, script: &mut Script) -> What {
        let line = match script.below(16) {
            0..=3 => self.call(script),
            4 => self.other(script),
            5 => match script.below(4) {
                0 => INITIALIZED.to_owned(),
                1 => r#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#.to_owned(),
                _ => self.initialize(),
            },
            6 => return What::Cancel(script.byte().into()),
            7 => return What::Answer,
            8 => {
                let elements: Vec<_> = (0..script.below(5)).map(|_| self.call(script)).collect();
                let odd = script.pick(&["", "[[]],", "1,", "{},", "[[[{\"id\":1,\"method\":\"ping\"}]]],"]);
                format!("[{odd}{}]", elements.join(","))
            }
            9 => self.modern(script),
            10 => return What::Line(script.text()),
            11 => {
                let (open, close) =
                    script.pick(&[("[", "]"), (r#"{"a":"#, "}"), (r#"[{"id":1,"method":"a","params":"#, "}]")]);
                let depth = script.pick(&[2, 100, 3_000, 20_000]);
                let close = if script.yes() { close } else { "" };
                format!("{}1{}", open.repeat(depth), close.repeat(depth))
            }
            12 => {
                let id = self.id(script);
                // The server of this check and the bridge each hold the message, of which there may be two dozen.
                let pad = "x".repeat(script.pick(&[1_000, 70_000, 1 << 19]));
                format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"prompts/get","params":{{"name":"{pad}"}}}}"#)
            }
            13 => {
                let element = script.pick(&["{}", "[]", r#"{"method":"a"}"#, "1"]);
                format!("[{}{element}]", format!("{element},").repeat(script.pick(&[10, 300, 2_000, 10_000])))
            }
            14 => {
                let count = script.pick(&[1, 30, 300]);
                vec![r#"{"jsonrpc":"2.0","method":"notifications/x"}"#; count].join("\n")
            }
            _ => {
                let id = self.id(script);
                format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#)
            }
        };
        What::Line(line.into())
    }

    /// Returns the number of the next request.
    fn number(&mut self) -> usize {
        self.requests += 1;
        self.requests
    }

    fn id(&mut self, script: &mut Script) -> String {
        let number = self.number();
        match script.below(8) {
            0..=3 => number.to_string(),
            4 => format!("\"r{number}\""),
            5 => format!("{number}.0"),
            6 => (9_007_199_254_740_993 + number).to_string(),
            _ => format!("{number}e0"),
        }
    }

    /// Makes a request that the server must not receive twice.
    fn call(&mut self, script: &mut Script) -> String {
        let id = self.id(script);
        let key = self.requests;
        let method = script.pick(&["tools/call", "tools/call", "tools/call", "x/do"]);
        let meta = if script.yes() { format!(",{META}") } else { String::new() };
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{"name":"t","arguments":{{"key":"k{key}"}}{meta}}}}}"#
        )
    }

    fn other(&mut self, script: &mut Script) -> String {
        let id = self.id(script);
        let (method, params) = script.pick(&[
            ("tools/list", ""),
            ("ping", ""),
            ("resources/read", r#""uri":"a://b""#),
            ("prompts/get", r#""name":"p""#),
            ("logging/setLevel", r#""level":"debug""#),
            ("resources/subscribe", r#""uri":"a://b""#),
            ("resources/unsubscribe", r#""uri":"a://b""#),
            ("completion/complete", r#""ref":{"type":"ref/prompt","name":"p"},"argument":{"name":"a","value":"b"}"#),
        ]);
        format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{{params}}}}}"#)
    }

    fn modern(&mut self, script: &mut Script) -> String {
        let id = self.id(script);
        let (method, params) = script.pick(&[
            ("server/discover", ""),
            ("tools/list", ""),
            ("prompts/get", r#""name":"p","#),
            ("subscriptions/listen", r#""notifications":{"toolsListChanged":true,"resourceSubscriptions":["a://b"]},"#),
            ("resources/read", r#""uri":"a://b","#),
        ]);
        format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{{params}{META}}}}}"#)
    }

    fn initialize(&mut self) -> String {
        let id = self.number();
        let params = r#"{"protocolVersion":"2025-11-25","capabilities":{"elicitation":{},"roots":{},"sampling":{}},"clientInfo":{"name":"c","version":"1"}}"#;
        format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"initialize","params":{params}}}"#)
    }
}

/// The client's side of the pipes.
pub(super) struct Client {
    stdin: Option<DuplexStream>,
    reading: JoinHandle<()>,
    ledger: Arc<Ledger>,
    promise: Arc<Promise>,
}

impl Client {
    pub(super) fn new(stdin: DuplexStream, stdout: DuplexStream, server: Arc<Server>, promise: Arc<Promise>) -> Self {
        let entries = Mutex::new(Entries::default());
        let ledger = Arc::new(Ledger { entries, changed: Notify::new(), server, promise: Arc::clone(&promise) });
        let reading = tokio::spawn(read(stdout, Arc::clone(&ledger)));
        Self { stdin: Some(stdin), reading, ledger, promise }
    }

    pub(super) async fn take(&mut self, step: Step) {
        if !step.wait.is_zero() {
            sleep(step.wait).await;
        }
        let line = match step.what {
            What::Line(line) => line,
            What::Cancel(back) => match self.ledger.cancel(back) {
                Some(line) => line.into(),
                None => return,
            },
            What::Answer => match self.ledger.question() {
                Some(id) => {
                    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"action":"accept","content":{{}}}}}}"#).into()
                }
                None => return,
            },
        };
        self.say(&line).await;
    }

    /// Refuses the open questions, and waits for the responses that must come.
    pub(super) async fn settle(&mut self, patience: Duration) {
        let limit = Instant::now() + patience;
        loop {
            while let Some(id) = self.ledger.question() {
                self.say(format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-1,"message":"no"}}}}"#).as_bytes())
                    .await;
            }
            let changed = self.ledger.changed.notified();
            if self.ledger.first_unanswered().is_none() {
                return;
            }
            if timeout_at(limit, changed).await.is_err() {
                break;
            }
        }
        if let Some(id) = self.ledger.first_unanswered() {
            self.promise.breaks(format!("request {id} was not answered within {patience:?}"));
        }
    }

    pub(super) fn close(&mut self) {
        self.stdin = None;
    }

    /// Reads the rest of stdout after the bridge ended.
    pub(super) async fn end(mut self) {
        self.close();
        if (&mut self.reading).await.is_err() {
            self.promise.breaks("stdout could not be read");
        }
        if let Some(id) = self.ledger.first_unanswered() {
            self.promise.breaks(format!("request {id} was never answered"));
        }
    }

    async fn say(&mut self, line: &[u8]) {
        let Some(stdin) = &mut self.stdin else { return };
        for line in line.split(|byte| *byte == b'\n') {
            self.ledger.enter(line);
        }
        let line = [line, b"\n"].concat();
        match timeout(READ_TIME, stdin.write_all(&line)).await {
            Ok(Ok(())) => {}
            // The bridge has ended. Another check reports that.
            Ok(Err(_)) => self.stdin = None,
            Err(_) => self.promise.breaks("the bridge stopped reading stdin"),
        }
    }
}

/// The client's requests and their responses.
struct Ledger {
    entries: Mutex<Entries>,
    changed: Notify,
    server: Arc<Server>,
    promise: Arc<Promise>,
}

#[derive(Default)]
struct Entries {
    asked: Vec<SentRequest>,
    /// The lines and batch elements that were not messages. Each gets an error, with an id if it has one.
    odd: usize,
    /// The ids of the server's questions.
    questions: Vec<String>,
}

struct SentRequest {
    id: String,
    key: Option<usize>,
    /// It stays open until the client cancels it.
    is_subscription: bool,
    is_cancelled: bool,
    is_answered: bool,
}

impl SentRequest {
    fn must_be_answered(&self) -> bool {
        !self.is_answered && !self.is_cancelled && !self.is_subscription
    }
}

impl Ledger {
    /// Records the messages of a line, parsed in the simplest way.
    fn enter(&self, line: &[u8]) {
        let entries = &mut *lock(&self.entries);
        let text = std::str::from_utf8(line).unwrap_or("\0");
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if text.trim_matches([' ', '\t', '\r', '\n']).is_empty() {
            return;
        }
        match serde_json::from_str::<Vec<&RawValue>>(text) {
            Ok(elements) if elements.is_empty() || elements.len() > crate::wire::message::MAX_BATCH_LENGTH => {
                entries.odd += 1;
            }
            Ok(elements) => elements.into_iter().for_each(|element| {
                self.server.hears();
                entries.enter(element.get());
            }),
            Err(_) => {
                self.server.hears();
                entries.enter(text);
            }
        }
    }

    /// Returns the first request that must still be answered.
    fn first_unanswered(&self) -> Option<String> {
        lock(&self.entries).asked.iter().find(|asked| asked.must_be_answered()).map(|asked| asked.id.clone())
    }

    /// Takes a question of the server that has no response yet.
    fn question(&self) -> Option<String> {
        lock(&self.entries).questions.pop()
    }

    fn cancel(&self, back: usize) -> Option<String> {
        let entries = lock(&self.entries);
        let at = entries.asked.len().checked_sub(1 + back % entries.asked.len().max(1))?;
        let id = &entries.asked.get(at)?.id;
        Some(format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id}}}}}"#))
    }

    /// Handles a line of stdout.
    fn hear(&self, line: &[u8]) {
        if memchr::memmem::find(line, SECRET.as_bytes()).is_some() {
            return self.promise.breaks(format!("stdout has the secret: {}", shown(line)));
        }
        let Some(message) = std::str::from_utf8(line).ok().and_then(Members::of) else {
            return self.promise.breaks(format!("stdout has a line that is not an object: {}", shown(line)));
        };
        let id = message.get("id");
        if message.get("method").is_some() {
            if let Some(id) = id {
                lock(&self.entries).questions.push(id.to_owned());
                self.changed.notify_one();
            }
            return;
        }
        if message.get("result").or(message.get("error")).is_none() || id.is_none() {
            return self.promise.breaks(format!("stdout has a line that is not a message: {}", shown(line)));
        }
        let broken = lock(&self.entries).answered(id.unwrap_or_default(), line, &self.server);
        self.changed.notify_one();
        if let Some(broken) = broken {
            self.promise.breaks(broken);
        }
    }
}

impl Entries {
    fn enter(&mut self, text: &str) {
        let Some(message) = Members::of(text) else {
            self.odd += 1;
            return;
        };
        let method: Option<String> = message.get("method").and_then(|method| serde_json::from_str(method).ok());
        let is_valid = |id: &&str| id.starts_with(['"', '-']) || id.starts_with(|c: char| c.is_ascii_digit());
        match (method, message.get("id")) {
            (Some(method), None) => {
                if method == "notifications/cancelled" {
                    self.cancelled(text);
                }
            }
            (Some(method), Some(id)) if is_valid(&id) && id.len().max(method.len()) < 100 => {
                self.asked.push(SentRequest {
                    id: id.to_owned(),
                    key: key_in(text.as_bytes()),
                    is_subscription: method == "subscriptions/listen",
                    is_cancelled: false,
                    is_answered: false,
                });
            }
            _ if message.get("result").or(message.get("error")).is_some() && message.get("method").is_none() => {}
            _ => self.odd += 1,
        }
    }

    fn cancelled(&mut self, text: &str) {
        let Ok(cancel) = serde_json::from_str::<Value>(text) else { return };
        let id = &cancel["params"]["requestId"];
        for asked in &mut self.asked {
            let own: Value = serde_json::from_str(&asked.id).unwrap_or_default();
            asked.is_cancelled |= own == *id || (own.is_number() && own.as_f64() == id.as_f64());
        }
    }

    /// Records a response. Returns the promise that it breaks, if any.
    fn answered(&mut self, id: &str, line: &[u8], server: &Server) -> Option<String> {
        let same = self.asked.iter().filter(|asked| asked.id == id).count();
        let mut open: Vec<_> = self.asked.iter_mut().filter(|asked| asked.id == id && !asked.is_answered).collect();
        // If several requests have this id, prefer one that must be answered.
        open.sort_by_key(|asked| !asked.must_be_answered());
        let Some(asked) = open.into_iter().next() else {
            if self.odd > 0 {
                self.odd -= 1;
                return None;
            }
            return Some(format!("a response without an open request: {}", shown(line)));
        };
        asked.is_answered = true;
        let answer: Value = serde_json::from_slice(line).unwrap_or_default();
        let data = &answer["error"]["data"];
        let says_not = data["source"] == "mcp-gangway" && data["mayHaveRun"] == false;
        let is_wrong = asked.key.is_some_and(|key| says_not && same == 1 && server.may_have_run(key));
        is_wrong.then(|| format!("an error denies that a call ran, but it may have run: {}", shown(line)))
    }
}

/// Reads stdout to its end.
async fn read(stdout: DuplexStream, ledger: Arc<Ledger>) {
    let mut lines = BufReader::new(stdout);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).await.is_ok_and(|count| count > 0) {
        if line.pop() != Some(b'\n') {
            return ledger.promise.breaks("stdout ends within a line");
        }
        ledger.hear(&line);
        line.clear();
    }
}

fn shown(line: &[u8]) -> String {
    line.get(..300).unwrap_or(line).escape_ascii().to_string()
}
