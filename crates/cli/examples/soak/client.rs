//! The client: it starts the bridge, asks, and enters into its ledger what came of each request.

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

/// Silence after which the bridge gives a request up, in seconds.
const IDLE: &str = "2";
/// Longer than a request takes when nothing goes wrong any more: some tries, waits that the server asks for, a silence.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest that a call takes at the server, in milliseconds.
const LONGEST_WAIT: u64 = 400;

/// What the bridge proves to be: each time that it asks, something new. It stands in no line of stdout.
const CREDENTIALS: &str = "date '+Bearer soak-secret-%s%N'";
const SECRET: &str = "soak-secret";

/// The bridge as a child process. It is killed if this is dropped.
pub(crate) struct Client {
    pub(crate) ledger: Ledger,
    bridge: Child,
    stdin: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
    random: Random,
}

impl Client {
    /// Starts the bridge, to the server at this address.
    pub(crate) fn launch(command: &Path, server: SocketAddr, random: Random) -> Result<Self> {
        let mut bridge = Command::new(command)
            .args([&format!("http://{server}/mcp"), "--timeout", IDLE, "--log-level", "error"])
            .args(["--auth-command", CREDENTIALS])
            .env("NO_PROXY", "127.0.0.1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdin = bridge.stdin.take();
        let lines = BufReader::new(bridge.stdout.take().ok_or("no stdout")?).lines();
        Ok(Self { ledger: Ledger::default(), bridge, stdin, lines, random })
    }

    /// The number of the process.
    pub(crate) fn process(&self) -> Result<u32> {
        self.bridge.id().ok_or_else(|| "the command has ended".into())
    }

    /// Begins the session, before anything goes wrong.
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

    /// Waits for all answers, for as long as can be. What is still outstanding then is lost.
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

    /// Closes stdin and reads on to the end. Gives the exit status, if it came in time.
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

/// All requests and what was said to them.
#[derive(Default)]
pub(crate) struct Ledger {
    /// By id.
    asked: Vec<Asked>,
    answered: usize,
    pub(crate) results: usize,
    /// The errors that tools made.
    pub(crate) tool_errors: usize,
    /// The errors that the bridge made, by kind.
    pub(crate) errors: BTreeMap<String, usize>,
    /// Notifications of progress.
    pub(crate) progress: usize,
    pub(crate) duplicates: usize,
    pub(crate) strangers: usize,
    /// Lines that should not be.
    odd: Vec<String>,
}

struct Asked {
    is_call: bool,
    /// The last step of its progress that came.
    step: u64,
    told: Option<Told>,
}

/// What the client knows of a request that was answered.
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

    /// How many requests have no answer yet.
    pub(crate) fn outstanding(&self) -> usize {
        self.asked.len() - self.answered
    }

    /// Makes the next request: mostly a call, which may take its time.
    fn ask(&mut self, random: &mut Random) -> String {
        let id = self.asked.len();
        let is_call = random.below(8) > 0;
        let (method, params) = if is_call {
            let form = FORMS[id % FORMS.len()];
            let mut arguments = json!({"key": id.to_string()});
            if random.below(2) == 0 {
                arguments["wait"] = random.below(LONGEST_WAIT).into();
            }
            let meta = json!({"progressToken": id.to_string()});
            ("tools/call", json!({"name": form, "arguments": arguments, "_meta": meta}))
        } else {
            ("tools/list", json!({}))
        };
        self.asked.push(Asked { is_call, step: 0, told: None });
        json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string()
    }

    fn hear(&mut self, line: &str) {
        if line.contains(SECRET) {
            self.odd.push(format!("a line that tells the secret: {line}"));
        }
        match serde_json::from_str::<Value>(line) {
            Ok(message) if message["method"] == "notifications/progress" => self.hear_progress(&message),
            Ok(message) if message["method"].is_null() => self.hear_answer(&message),
            _ => self.odd.push(format!("an odd line: {line}")),
        }
    }

    fn hear_progress(&mut self, message: &Value) {
        let (token, step) = (&message["params"]["progressToken"], message["params"]["progress"].as_u64());
        let asked = token.as_str().and_then(|token| self.asked.get_mut(token.parse::<usize>().ok()?));
        match (asked, step) {
            (Some(asked), Some(step)) if asked.told.is_none() && asked.step < step => asked.step = step,
            _ => self.odd.push(format!("progress that does not fit: {message}")),
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
            self.odd.push(format!("an answer that does not fit: {message}"));
        }
    }

    /// What the client was told that is not so, now that all runs are known.
    pub(crate) fn mistakes(&self, model: &Model) -> Vec<String> {
        let mut mistakes = self.odd.clone();
        for (id, asked) in self.asked.iter().enumerate().filter(|(_, asked)| asked.is_call) {
            let runs = model.runs(&id.to_string());
            match asked.told {
                Some(Told::Ran) if runs == 0 => mistakes.push(format!("call {id} has a result, but did not run")),
                Some(Told::NotRun) if runs > 0 => {
                    mistakes.push(format!("call {id} ran, but the client is told that it did not"));
                }
                _ => {}
            }
        }
        mistakes
    }
}
