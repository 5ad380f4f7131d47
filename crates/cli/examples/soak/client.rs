//! The client: starts the bridge, sends requests, and records the outcome of each in its ledger.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::{Instant, timeout, timeout_at},
};

use crate::{
    Random, Result,
    model::{FORMS, Model},
};

/// The bridge's idle timeout for a request, in seconds.
const IDLE: &str = "2";
/// Longer than any request takes once the faults have stopped: a few retries, `Retry-After` waits, one idle timeout.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest duration of a call at the server, in milliseconds.
const MAX_WAIT: u64 = 400;

/// The bridge's credentials: a new value each time the command runs. It must not appear in any line of stdout.
const CREDENTIALS: &str = "date '+Bearer soak-secret-%s%N'";
const SECRET: &str = "soak-secret";

/// The bridge as a child process. Dropping this kills it.
pub(crate) struct Client {
    pub(crate) ledger: Ledger,
    bridge: Child,
    stdin: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
    random: Random,
}

impl Client {
    /// Starts the bridge for the server at this address.
    pub(crate) fn launch(command: &Path, server: SocketAddr, random: Random) -> Result<Self> {
        let mut bridge = Command::new(command)
            .args([&format!("http://{server}/mcp"), "--timeout", IDLE, "--log-level", "error"])
            .args(["--auth-command", CREDENTIALS])
            .env("NO_PROXY", "127.0.0.1")
            .env("MCP_NO_CACHE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdin = bridge.stdin.take();
        let lines = BufReader::new(bridge.stdout.take().ok_or("no stdout")?).lines();
        Ok(Self { ledger: Ledger::default(), bridge, stdin, lines, random })
    }

    /// Returns the process ID.
    pub(crate) fn process(&self) -> Result<u32> {
        self.bridge.id().ok_or_else(|| "the command has ended".into())
    }

    /// Starts the session, before the faults start.
    pub(crate) async fn shake_hands(&mut self) -> Result<()> {
        let params = r#"{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"soak","version":"1"}}"#;
        self.send(&format!(r#"{{"jsonrpc":"2.0","id":"init","method":"initialize","params":{params}}}"#)).await?;
        let answer: Value = serde_json::from_str(&timeout(PATIENCE, self.line()).await??)?;
        if !answer["result"]["protocolVersion"].is_string() {
            return Err(format!("the handshake failed: {answer}").into());
        }
        self.send(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await
    }

    /// Keeps `calls` requests outstanding.
    pub(crate) async fn storm(&mut self, until: Instant, calls: usize) -> Result<()> {
        while Instant::now() < until {
            while self.ledger.outstanding() < calls {
                let request = self.ledger.ask(&mut self.random);
                self.send(&request).await?;
            }
            match timeout_at(until, self.line()).await {
                Ok(line) => self.ledger.hear(&line?),
                Err(_) => break,
            }
        }
        Ok(())
    }

    /// Waits for all answers until the time limit. Requests that are still outstanding then are lost.
    pub(crate) async fn settle(&mut self) -> Result<()> {
        let limit = Instant::now() + PATIENCE;
        while self.ledger.outstanding() > 0 {
            match timeout_at(limit, self.line()).await {
                Ok(line) => self.ledger.hear(&line?),
                Err(_) => break,
            }
        }
        Ok(())
    }

    /// Closes stdin and reads stdout to its end. Returns the exit status if the process ends in time.
    pub(crate) async fn close(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        self.stdin = None;
        let end = async {
            while let Some(line) = self.lines.next_line().await? {
                self.ledger.hear(&line);
            }
            self.bridge.wait().await
        };
        Ok(timeout(limit, end).await.ok().transpose()?)
    }

    async fn send(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().ok_or("stdin is closed")?;
        let written = timeout(PATIENCE, stdin.write_all(format!("{line}\n").as_bytes())).await;
        Ok(written.map_err(|_| "the bridge does not read stdin")??)
    }

    async fn line(&mut self) -> Result<String> {
        Ok(self.lines.next_line().await?.ok_or("the bridge's output ended")?)
    }
}

/// All requests and their outcomes.
#[derive(Default)]
pub(crate) struct Ledger {
    /// By id.
    asked: Vec<SentRequest>,
    answered: usize,
    pub(crate) results: usize,
    /// Errors from tools.
    pub(crate) tool_errors: usize,
    /// Errors from the bridge, by kind.
    pub(crate) errors: BTreeMap<String, usize>,
    /// Progress notifications.
    pub(crate) progress: usize,
    pub(crate) duplicates: usize,
    pub(crate) strangers: usize,
    /// Notifications that the tools may have changed, as they may while the server is away.
    pub(crate) changes: usize,
    /// Descriptions of invalid lines.
    odd: Vec<String>,
}

struct SentRequest {
    is_call: bool,
    /// The last step of its progress that arrived.
    step: u64,
    told: Option<Told>,
}

/// What the client learned about a request from its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Ran,
    MayHaveRun,
    NotRun,
}

impl Ledger {
    pub(crate) fn sent(&self) -> usize {
        self.asked.len()
    }

    /// Returns the number of requests without an answer.
    pub(crate) fn outstanding(&self) -> usize {
        self.asked.len() - self.answered
    }

    /// Creates the next request: mostly a call, which may take some time.
    fn ask(&mut self, random: &mut Random) -> String {
        let id = self.asked.len();
        let is_call = random.below(8) > 0;
        let (method, params) = if is_call {
            let form = FORMS[id % FORMS.len()];
            let mut arguments = json!({"key": id.to_string()});
            if random.below(2) == 0 {
                arguments["wait"] = random.below(MAX_WAIT).into();
            }
            let meta = json!({"progressToken": id.to_string()});
            ("tools/call", json!({"name": form, "arguments": arguments, "_meta": meta}))
        } else {
            ("tools/list", json!({}))
        };
        self.asked.push(SentRequest { is_call, step: 0, told: None });
        json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string()
    }

    fn hear(&mut self, line: &str) {
        if line.contains(SECRET) {
            self.odd.push(format!("a line contains the secret: {line}"));
        }
        match serde_json::from_str::<Value>(line) {
            Ok(message) if message["method"] == "notifications/progress" => self.hear_progress(&message),
            Ok(message) if message["method"] == "notifications/tools/list_changed" => self.changes += 1,
            Ok(message) if message["method"].is_null() => self.hear_answer(&message),
            _ => self.odd.push(format!("an unexpected line: {line}")),
        }
    }

    fn hear_progress(&mut self, message: &Value) {
        let (token, step) = (&message["params"]["progressToken"], message["params"]["progress"].as_u64());
        let asked = token.as_str().and_then(|token| self.asked.get_mut(token.parse::<usize>().ok()?));
        match (asked, step) {
            (Some(asked), Some(step)) if asked.told.is_none() && asked.step < step => asked.step = step,
            _ => self.odd.push(format!("progress that does not match: {message}")),
        }
        self.progress += 1;
    }

    fn hear_answer(&mut self, message: &Value) {
        let id = message["id"].as_u64().and_then(|id| usize::try_from(id).ok());
        let Some((id, asked)) = id.and_then(|id| Some((id, self.asked.get_mut(id)?))) else {
            self.strangers += 1;
            return;
        };
        if asked.told.is_some() {
            self.duplicates += 1;
            return;
        }
        self.answered += 1;
        let (result, error) = (&message["result"], &message["error"]["data"]);
        asked.told = Some(match error["mayHaveRun"].as_bool() {
            Some(true) => Told::MayHaveRun,
            Some(false) => Told::NotRun,
            None => Told::Ran,
        });
        let fits = if asked.is_call {
            result["content"][0]["text"].as_str().is_some_and(|text| text == id.to_string())
        } else {
            result["tools"].is_array()
        };
        if fits {
            self.results += 1;
        } else if error["key"].as_str().is_some_and(|key| asked.is_call && key == id.to_string()) {
            self.tool_errors += 1;
        } else if error["source"] == "mcp-gangway" && error["mayHaveRun"].is_boolean() {
            let kind = error["kind"].as_str().unwrap_or_default();
            let status = error["httpStatus"].as_u64().map(|status| format!(" {status}")).unwrap_or_default();
            *self.errors.entry(format!("{kind}{status}")).or_default() += 1;
        } else {
            self.odd.push(format!("an answer that does not match: {message}"));
        }
    }

    /// Returns the answers that do not match the actual runs.
    pub(crate) fn mistakes(&self, model: &Model) -> Vec<String> {
        let mut mistakes = self.odd.clone();
        for (id, asked) in self.asked.iter().enumerate().filter(|(_, asked)| asked.is_call) {
            let runs = model.runs(&id.to_string());
            match asked.told {
                Some(Told::Ran) if runs == 0 => mistakes.push(format!("call {id} has a result, but did not run")),
                Some(Told::NotRun) if runs > 0 => {
                    mistakes.push(format!("call {id} ran, but its error says that it did not"));
                }
                _ => {}
            }
        }
        mistakes
    }
}
