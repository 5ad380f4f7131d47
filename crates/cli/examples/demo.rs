//! `cargo demo`: shows the whole path of messages in five seconds, without any setup.
//!
//! One program with three real parts: an MCP server (rmcp) on a free local port, the bridge as a child process (this
//! program again, with a marker as its first argument), and an MCP client that runs a session on the child's stdin
//! and stdout. Every line is shown with its time. The exit status says whether everything went as expected.

#![allow(clippy::print_stdout, reason = "a demo prints to stdout")]
#![allow(clippy::indexing_slicing, reason = "a missing member of a JSON value reads as null")]

use std::{
    collections::HashSet,
    env,
    error::Error,
    io::{self, BufRead, BufReader, IsTerminal, Write},
    process::{Child, ChildStdin, Command, ExitCode, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The first argument that turns this program into the bridge.
const BRIDGE: &str = "--be-the-bridge";

/// The time limit for each step.
const PATIENCE: Duration = Duration::from_secs(10);

/// The number of characters shown of each message.
const WIDTH: usize = 118;

fn main() -> ExitCode {
    let mut args = env::args_os();
    if env::args_os().nth(1).is_some_and(|marker| marker == BRIDGE) {
        let program = args.next();
        return mcp_gangway::run(program.into_iter().chain(args.skip(1)));
    }
    match play() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("\nFailed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn play() -> Result<()> {
    let url = server::start()?;
    let mut client = Client::launch(&url)?;
    client.say(&format!("A real MCP server listens on {url}; mcp-gangway runs as a child process in front of it."));

    client.say("The handshake: lines on stdin and stdout, HTTP to the server.");
    client.request(
        0,
        "initialize",
        r#"{"protocolVersion":"2025-11-25","capabilities":{"elicitation":{}},"clientInfo":{"name":"demo","version":"1"}}"#,
    )?;
    let answer = client.answer(0)?;
    let first_answer = client.started.elapsed();
    expect(answer["result"]["serverInfo"]["name"] == "demo-server", "the server introduces itself")?;
    client.send(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#)?;
    client.request(1, "tools/list", "{}")?;
    let tools = client.answer(1)?;
    expect(tools["result"]["tools"].as_array().map(Vec::len) == Some(3), "three tools are listed")?;

    client.say("Three concurrent calls: each answer arrives when it is ready, not in the order of the requests.");
    client.call(2, "countdown", r#"{"from":4}"#)?;
    client.call(3, "countdown", r#"{"from":2}"#)?;
    client.call(4, "echo", r#"{"text":"naïve café"}"#)?;
    let order: Vec<_> = client.answers(&[2, 3, 4])?.iter().map(|answer| answer["id"].clone()).collect();
    expect(order == [4, 3, 2], "the quickest is answered first")?;

    client.say("A stream of progress events: each one is forwarded when the server sends it.");
    client.request(5, "tools/call", r#"{"name":"countdown","arguments":{"from":6},"_meta":{"progressToken":"p"}}"#)?;
    let answer = client.answer(5)?;
    expect(answer["result"]["content"][0]["text"] == "lift-off", "the countdown ends")?;
    expect(client.progress == 6, "six progress events came before the answer")?;
    expect(client.longest_burst() < 3, "progress arrived during the call, not at its end")?;

    client.say("The server sends a request during a call; the client's reply reaches it while the call is open.");
    client.call(6, "ask", "{}")?;
    let question = client.next(|message| message["method"] == "elicitation/create")?;
    let reply = r#"{"action":"accept","content":{"name":"Ada"}}"#;
    client.send(&format!(r#"{{"jsonrpc":"2.0","id":{},"result":{reply}}}"#, question["id"]))?;
    let answer = client.answer(6)?;
    expect(answer["result"]["content"][0]["text"] == "Hello, Ada!", "the call goes on with the reply")?;

    client.say("Errors: the server's own for an unknown tool, the bridge's for a line that is not JSON.");
    client.call(7, "no-such-tool", "{}")?;
    let answer = client.answer(7)?;
    expect(answer["error"]["code"].is_i64(), "an unknown tool is an error")?;
    client.send("this is not JSON")?;
    let answer = client.next(|message| message["error"]["code"] == -32700)?;
    expect(answer["id"].is_null(), "a line without an id gets an error without an id")?;
    client.call(8, "echo", r#"{"text":"still here"}"#)?;
    client.answer(8)?;

    client.say("The client closes stdin: the session and the process end.");
    let (requests, answers, progress) = (client.requests, client.answered.len(), client.progress);
    expect(client.close()?, "the exit status is 0")?;
    expect(requests == answers, "every request got one answer")?;
    println!(
        "\n{requests} requests, {answers} answers, {progress} progress events; \
         {:.1} ms from the start of the process to its first answer.",
        first_answer.as_secs_f64() * 1e3
    );
    Ok(())
}

fn expect(holds: bool, what: &str) -> Result<()> {
    if holds { Ok(()) } else { Err(format!("not true: {what}").into()) }
}

/// A minimal MCP client, and its record of what the bridge sends.
struct Client {
    bridge: Child,
    stdin: ChildStdin,
    lines: Receiver<(Instant, String)>,
    started: Instant,
    colour: bool,
    requests: usize,
    answered: HashSet<String>,
    progress: usize,
    progress_times: Vec<Instant>,
}

impl Client {
    fn launch(url: &str) -> Result<Self> {
        let started = Instant::now();
        let mut bridge = Command::new(env::current_exe()?)
            .args([BRIDGE, url, "--log-level", "error"])
            .env("NO_PROXY", "127.0.0.1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = bridge.stdin.take().ok_or("no stdin")?;
        let stdout = bridge.stdout.take().ok_or("no stdout")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(io::Result::ok) {
                if sender.send((Instant::now(), line)).is_err() {
                    break;
                }
            }
        });
        Ok(Self {
            bridge,
            stdin,
            lines,
            started,
            colour: io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
            requests: 0,
            answered: HashSet::new(),
            progress: 0,
            progress_times: Vec::new(),
        })
    }

    /// Prints a heading between steps.
    fn say(&self, text: &str) {
        let (on, off) = if self.colour { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        println!("\n{on}{text}{off}");
    }

    fn show(&self, at: Instant, who: &str, line: &str) {
        let colour = if who.starts_with("client") { "\x1b[36m" } else { "\x1b[32m" };
        let (on, off) = if self.colour { (colour, "\x1b[0m") } else { ("", "") };
        let mut shown: String = line.chars().take(WIDTH).collect();
        if shown.len() < line.len() {
            shown.push('…');
        }
        println!("{:7.3} s  {on}{who} →{off}  {shown}", at.duration_since(self.started).as_secs_f64());
    }

    fn send(&mut self, line: &str) -> Result<()> {
        self.show(Instant::now(), "client", line);
        Ok(self.stdin.write_all(format!("{line}\n").as_bytes())?)
    }

    fn request(&mut self, id: u32, method: &str, params: &str) -> Result<()> {
        self.requests += 1;
        self.send(&format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#))
    }

    fn call(&mut self, id: u32, tool: &str, arguments: &str) -> Result<()> {
        self.request(id, "tools/call", &format!(r#"{{"name":"{tool}","arguments":{arguments}}}"#))
    }

    /// Waits for the next message that is `wanted`. Shows and counts all messages before it as well.
    fn next(&mut self, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        loop {
            let (at, line) = self.lines.recv_timeout(PATIENCE).map_err(|_| "the bridge sent nothing more")?;
            self.show(at, "server", &line);
            let message: Value = serde_json::from_str(&line)?;
            if message["method"] == "notifications/progress" {
                self.progress += 1;
                self.progress_times.push(at);
            } else if message["method"].is_null() && !message["id"].is_null() {
                expect(self.answered.insert(message["id"].to_string()), "no request is answered twice")?;
            }
            if wanted(&message) {
                return Ok(message);
            }
        }
    }

    fn answer(&mut self, id: u32) -> Result<Value> {
        self.next(|message| message["id"] == id && message["method"].is_null())
    }

    /// Waits for the answers to all of `ids` and returns them in order of arrival.
    fn answers(&mut self, ids: &[u32]) -> Result<Vec<Value>> {
        let mut answers = Vec::new();
        for _ in ids {
            answers.push(self.next(|message| ids.iter().any(|id| message["id"] == *id))?);
        }
        Ok(answers)
    }

    /// Returns the highest number of progress events within half of the time between two countdown steps.
    fn longest_burst(&self) -> usize {
        let together = |from: &Instant| {
            let window = *from..*from + server::STEP / 2;
            self.progress_times.iter().filter(|at| window.contains(*at)).count()
        };
        self.progress_times.iter().map(together).max().unwrap_or_default()
    }

    /// Closes stdin and waits for the process to end. Returns true if the exit status is 0.
    fn close(mut self) -> Result<bool> {
        let closed = Instant::now();
        drop(self.stdin);
        while closed.elapsed() < PATIENCE {
            if let Some(status) = self.bridge.try_wait()? {
                println!("{:7.3} s  {status}", self.started.elapsed().as_secs_f64());
                return Ok(status.success());
            }
            thread::sleep(Duration::from_millis(1));
        }
        self.bridge.kill()?;
        Err("the process did not end".into())
    }
}

/// A real MCP server, like one on another machine.
mod server {
    use std::{net::TcpListener, sync::Arc, thread, time::Duration};

    use axum::serve::ListenerExt;
    use rmcp::{
        ErrorData, Peer, RoleServer, ServerHandler,
        handler::server::wrapper::Parameters,
        model::{ProgressNotificationParam, RequestMetaObject},
        schemars::{self, JsonSchema},
        tool, tool_handler, tool_router,
        transport::streamable_http_server::{
            StreamableHttpServerConfig, StreamableHttpService, session::local::LocalSessionManager,
        },
    };
    use serde::Deserialize;
    use tokio::runtime;

    /// The time between two numbers of the countdown.
    pub(super) const STEP: Duration = Duration::from_millis(150);

    /// Starts the server on its own thread, and returns its URL.
    pub(super) fn start() -> super::Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let url = format!("http://{}/mcp", listener.local_addr()?);
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        thread::spawn(move || {
            runtime.block_on(async {
                let sessions = Arc::new(LocalSessionManager::default());
                let service = StreamableHttpService::new(|| Ok(Tools), sessions, StreamableHttpServerConfig::default());
                let app = axum::Router::new().route_service("/mcp", service);
                // Disable Nagle's algorithm: each event is a small packet.
                let listener = tokio::net::TcpListener::from_std(listener)?.tap_io(|connection| {
                    let _ = connection.set_nodelay(true);
                });
                axum::serve(listener, app).await
            })
        });
        Ok(url)
    }

    struct Tools;

    #[derive(Deserialize, JsonSchema)]
    struct Echo {
        text: String,
    }

    #[derive(Deserialize, JsonSchema)]
    struct Countdown {
        from: u32,
    }

    /// The answer requested from the user.
    #[derive(Deserialize, JsonSchema)]
    struct Person {
        name: String,
    }

    rmcp::elicit_safe!(Person);

    #[tool_router]
    impl Tools {
        #[tool(description = "Returns its input")]
        async fn echo(&self, Parameters(echo): Parameters<Echo>) -> String {
            echo.text
        }

        #[tool(description = "Counts down to lift-off and reports progress")]
        async fn countdown(
            &self,
            Parameters(countdown): Parameters<Countdown>,
            meta: RequestMetaObject,
            client: Peer<RoleServer>,
        ) -> String {
            let token = meta.get_progress_token();
            for step in 0..countdown.from {
                if let Some(token) = token.clone() {
                    let progress = ProgressNotificationParam::new(token, step.into())
                        .with_total(countdown.from.into())
                        .with_message((countdown.from - step).to_string());
                    // The client may have disconnected.
                    let _ = client.notify_progress(progress).await;
                }
                tokio::time::sleep(STEP).await;
            }
            "lift-off".to_owned()
        }

        #[tool(description = "Asks the user for a name and returns a greeting")]
        async fn ask(&self, client: Peer<RoleServer>) -> Result<String, ErrorData> {
            let person = client
                .elicit::<Person>("What is your name?")
                .await
                .map_err(|error| ErrorData::internal_error(error.to_string(), None))?;
            Ok(person.map_or_else(|| "Hello, stranger!".to_owned(), |person| format!("Hello, {}!", person.name)))
        }
    }

    #[tool_handler(name = "demo-server")]
    impl ServerHandler for Tools {}
}
