//! `mcp-gangway doctor URL`: finds out at which stage a server fails, and says what to do.
//!
//! The name and the connection are tried directly. For the rest, a bridge with the user's settings talks to the server
//! in memory, so that the verdict is about what a client would meet. It ends at the first stage that fails.
//!
//! Rules: it calls no tool, opens no browser and stores nothing. Text of the server is made safe to show. The exit
//! status names the stage.

use std::{
    ffi::OsString,
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use mcp_gangway_core::{Config, text::shown};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream, duplex},
    net::{TcpStream, lookup_host},
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, timeout},
};
use url::Url;

use crate::{Failure, settings::Settings};

/// The longest time for one answer.
const ANSWER_TIME: Duration = Duration::from_secs(30);
/// The most addresses of a name that are tried.
const MAX_ADDRESSES: usize = 8;
/// The size of the pipes to the bridge.
const PIPE: usize = 64 << 10;
/// The lists, each with its capability.
const LISTS: [&str; 3] = ["tools", "resources", "prompts"];

/// The subcommand, with its own options.
pub(crate) struct Doctor {
    is_json: bool,
}

/// The stages, in the order in which they are examined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Settings,
    Proxy,
    Name,
    Connect,
    Tls,
    Http,
    SignIn,
    Handshake,
    Lists,
    Ping,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::Settings => "settings",
            Self::Proxy => "proxy",
            Self::Name => "name",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Http => "http",
            Self::SignIn => "sign-in",
            Self::Handshake => "handshake",
            Self::Lists => "lists",
            Self::Ping => "ping",
        }
    }

    /// Returns the exit status if this stage fails. 1 and 2 are those of the command.
    fn status(self) -> u8 {
        match self {
            Self::Settings => 2,
            Self::Proxy => 10,
            Self::Name => 11,
            Self::Connect => 12,
            Self::Tls => 13,
            Self::Http => 14,
            Self::SignIn => 15,
            Self::Handshake => 16,
            Self::Lists => 17,
            Self::Ping => 18,
        }
    }

    /// Returns the stage at which a request failed, by the `data` of its error.
    fn of(data: &Value) -> Self {
        match (at(data, "/kind").as_str().unwrap_or_default(), at(data, "/httpStatus").as_u64()) {
            ("config", _) => Self::Settings,
            ("proxy", _) => Self::Proxy,
            ("dns" | "forbidden_address", _) => Self::Name,
            ("connect", _) => Self::Connect,
            ("tls", _) => Self::Tls,
            ("sign_in" | "sign_in_failed" | "no_sign_in" | "other_issuer", _) | ("http_status", Some(401 | 403)) => {
                Self::SignIn
            }
            ("http_status" | "connection_lost" | "timeout", _) => Self::Http,
            _ => Self::Handshake,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Good,
    /// It works, but the user may want to know.
    Remark,
    Bad,
}

/// The verdict on one stage.
struct Finding {
    stage: Stage,
    verdict: Verdict,
    text: String,
    took: Option<Duration>,
}

/// The findings so far.
#[derive(Default)]
struct Report(Vec<Finding>);

/// The error of a request, as the bridge words it for a client.
struct RequestError {
    stage: Stage,
    text: String,
}

impl Doctor {
    /// Removes the subcommand and its options from the arguments, if it directly follows the program's name.
    pub(crate) fn take(args: &mut Vec<OsString>) -> Option<Self> {
        if args.get(1)? != "doctor" {
            return None;
        }
        args.remove(1);
        let count = args.len();
        args.retain(|arg| arg != "--json");
        Some(Self { is_json: args.len() < count })
    }

    /// Examines the server and prints the report. Returns the exit status.
    ///
    /// # Errors
    /// The report cannot be printed.
    pub(crate) async fn run(self, settings: Settings) -> Result<u8, Failure> {
        let url = settings.config.url.to_string();
        let report = examine(settings).await;
        let page = if self.is_json {
            report.as_json(&url)
        } else {
            report.as_text(io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        };
        match io::stdout().write_all(page.as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(Failure::system("cannot write to stdout", &error))
            }
            _ => Ok(report.failed().map_or(0, Stage::status)),
        }
    }
}

async fn examine(settings: Settings) -> Report {
    let mut report = Report::default();
    let Settings { mut config, warnings, .. } = settings;
    config.timeouts.attach = None;
    config.timeouts.hold = Duration::ZERO;
    config.state_folder = None;
    let headers: Vec<_> = config.headers().keys().map(ToString::to_string).collect();
    let headers = if headers.is_empty() { "no headers".to_owned() } else { format!("headers {}", headers.join(", ")) };
    report.add(Stage::Settings, Verdict::Good, format!("{}, transport {:?}, {headers}", config.url, config.transport));
    for warning in warnings {
        report.add(Stage::Settings, Verdict::Remark, warning);
    }
    let proxy = config.proxy.on_the_way_to(&config.url).filter(|_| config.unix_socket.is_none());
    match (&config.unix_socket, proxy) {
        (Some(socket), _) => report.add(Stage::Proxy, Verdict::Good, format!("none: the socket {}", socket.display())),
        (None, Some(proxy)) => report.add(Stage::Proxy, Verdict::Good, format!("{proxy}, which looks up the name")),
        (None, None) => {
            report.add(Stage::Proxy, Verdict::Good, "none".to_owned());
            reach(&config, &mut report).await;
        }
    }
    if report.failed().is_none() {
        let is_secure = config.url.to_string().starts_with("https:");
        #[cfg(feature = "oauth")]
        forget_sign_in_without_token(&mut config).await;
        let mut dialogue = Dialogue::start(config);
        let outcome = dialogue.examine(is_secure, &mut report).await;
        if let Err(RequestError { stage, text }) = outcome {
            report.add(stage, Verdict::Bad, text);
        }
        dialogue.end().await;
    }
    report
}

/// Looks up the name of the server and connects to its addresses.
async fn reach(config: &Config, report: &mut Report) {
    let Ok(url) = Url::parse(&config.url.to_string()) else { return };
    let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else { return };
    let host = host.trim_matches(['[', ']']);
    let since = Instant::now();
    let found = timeout(config.timeouts.connect, lookup_host((host, port))).await;
    let addresses: Vec<_> = match found {
        Ok(Ok(found)) => found.take(MAX_ADDRESSES).collect(),
        Ok(Err(error)) => {
            let text = format!("{host} has no address ({error}); check the URL, the network and the VPN");
            return report.add(Stage::Name, Verdict::Bad, text);
        }
        Err(_) => return report.add(Stage::Name, Verdict::Bad, format!("the name server is silent about {host}")),
    };
    let names: Vec<_> = addresses.iter().map(|address| address.ip().to_string()).collect();
    report.took(Stage::Name, format!("{host} is {}", names.join(", ")), since.elapsed());
    let mut failures = Vec::new();
    let mut is_reached = false;
    for address in addresses {
        let since = Instant::now();
        let why = match timeout(config.timeouts.connect, TcpStream::connect(address)).await {
            Ok(Ok(_)) => {
                is_reached = true;
                report.took(Stage::Connect, address.to_string(), since.elapsed());
                continue;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer in {} s", config.timeouts.connect.as_secs()),
        };
        failures.push(format!("{address}: {why}"));
    }
    for failure in failures {
        let (verdict, advice) = if is_reached {
            (Verdict::Remark, "; the other address is used")
        } else {
            (Verdict::Bad, "; check that the server runs, the port, and whether a firewall or a proxy is in between")
        };
        report.add(Stage::Connect, verdict, failure + advice);
    }
}

/// Turns sign-in off if there is no token yet, so that nothing is registered and no one is asked. The server's refusal
/// then says what it wants.
#[cfg(feature = "oauth")]
async fn forget_sign_in_without_token(config: &mut Config) {
    let Some(account) = config.account() else { return };
    let has_token = account.status().await.is_ok_and(|all| all.iter().any(|one| one.is_signed_in));
    match &mut config.oauth {
        Some(oauth) if has_token => oauth.login_wait = Duration::from_secs(5),
        oauth => *oauth = None,
    }
}

/// A bridge in memory, with the doctor as its client.
struct Dialogue {
    input: DuplexStream,
    output: BufReader<DuplexStream>,
    bridge: JoinHandle<Result<mcp_gangway_core::End, mcp_gangway_core::Error>>,
    /// Keeps the bridge from stopping.
    _stop: oneshot::Sender<()>,
    asked: u64,
}

impl Dialogue {
    fn start(config: Config) -> Self {
        let (input, stdin) = duplex(PIPE);
        let (stdout, output) = duplex(PIPE);
        let (stop, stopped) = oneshot::channel::<()>();
        let bridge = tokio::spawn(mcp_gangway_core::run(config, stdin, stdout, async {
            let _ = stopped.await;
        }));
        Self { input, output: BufReader::new(output), bridge, _stop: stop, asked: 0 }
    }

    async fn examine(&mut self, is_secure: bool, report: &mut Report) -> Result<(), RequestError> {
        let client = json!({"name": "mcp-gangway-doctor", "version": env!("CARGO_PKG_VERSION")});
        let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client});
        let since = Instant::now();
        let greeted = self.ask("initialize", params).await;
        let took = since.elapsed();
        let reached = greeted.as_ref().map_or_else(|error| error.stage, |_| Stage::Handshake);
        if is_secure && reached > Stage::Tls {
            report.add(Stage::Tls, Verdict::Good, "the server's certificate is trusted".to_owned());
        }
        if reached > Stage::Http {
            report.add(Stage::Http, Verdict::Good, "the server answers at this path".to_owned());
        }
        let greeted = greeted?;
        let text = |path: &str| at(&greeted, path).as_str().unwrap_or("?").to_owned();
        let offered = at(&greeted, "/capabilities").as_object().cloned().unwrap_or_default();
        let names: Vec<_> = offered.keys().cloned().collect();
        let names = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
        let said = format!(
            "{} {}, protocol {}, offers {names}",
            text("/serverInfo/name"),
            text("/serverInfo/version"),
            text("/protocolVersion")
        );
        report.took(Stage::Handshake, said, took);
        self.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await;
        for list in LISTS.into_iter().filter(|list| offered.contains_key(*list)) {
            let since = Instant::now();
            let answer = self.ask(&format!("{list}/list"), json!({})).await;
            let answer = answer.map_err(|error| RequestError { stage: Stage::Lists, ..error })?;
            let count = answer.get(list).and_then(Value::as_array).map_or(0, Vec::len);
            let more = if at(&answer, "/nextCursor").is_null() { "" } else { " on the first page" };
            report.took(Stage::Lists, format!("{count} {list}{more}"), since.elapsed());
        }
        let since = Instant::now();
        let pinged = self.ask("ping", json!({})).await;
        pinged.map_err(|error| RequestError { stage: Stage::Ping, ..error })?;
        report.took(Stage::Ping, "the server answers".to_owned(), since.elapsed());
        Ok(())
    }

    /// Sends a request and returns its result.
    async fn ask(&mut self, method: &str, params: Value) -> Result<Value, RequestError> {
        self.asked += 1;
        let id = self.asked;
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})).await;
        let silent = |what: &str| RequestError { stage: Stage::Http, text: format!("{method}: {what}") };
        let answer = async {
            loop {
                let mut line = Vec::new();
                if self.output.read_until(b'\n', &mut line).await.unwrap_or(0) == 0 {
                    return Err(silent("the bridge has ended"));
                }
                // Anything else is not for the doctor.
                let message: Value = serde_json::from_slice(&line).unwrap_or_default();
                if *at(&message, "/id") == id && at(&message, "/method").is_null() {
                    return Ok(message);
                }
            }
        };
        let answer = timeout(ANSWER_TIME, answer)
            .await
            .unwrap_or_else(|_| Err(silent(&format!("no answer in {} s", ANSWER_TIME.as_secs()))))?;
        match at(&answer, "/error") {
            Value::Null => Ok(at(&answer, "/result").clone()),
            error => Err(RequestError::of(error)),
        }
    }

    async fn send(&mut self, message: &Value) {
        // If the bridge has ended, the answer says so.
        let _ = self.input.write_all(format!("{message}\n").as_bytes()).await;
    }

    /// Ends the session at the server.
    async fn end(self) {
        let Self { input, output, bridge, _stop, .. } = self;
        drop(input);
        drop(output);
        let _ = timeout(Duration::from_secs(2), bridge).await;
    }
}

/// Returns the value at a path like `/error/data`, or null.
fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    value.pointer(path).unwrap_or(&Value::Null)
}

impl RequestError {
    fn of(error: &Value) -> Self {
        let stage =
            if *at(error, "/data/source") == "mcp-gangway" { Stage::of(at(error, "/data")) } else { Stage::Handshake };
        let message = at(error, "/message").as_str().unwrap_or("an error without a message");
        let detail = at(error, "/data/detail").as_str().filter(|detail| !message.contains(detail));
        let text = detail.map_or_else(|| message.to_owned(), |detail| format!("{message} ({detail})"));
        Self { stage, text }
    }
}

impl Report {
    fn add(&mut self, stage: Stage, verdict: Verdict, text: String) {
        self.0.push(Finding { stage, verdict, text: shown(text).into_owned(), took: None });
    }

    fn took(&mut self, stage: Stage, text: String, took: Duration) {
        self.0.push(Finding { stage, verdict: Verdict::Good, text: shown(text).into_owned(), took: Some(took) });
    }

    fn failed(&self) -> Option<Stage> {
        self.0.iter().find(|finding| finding.verdict == Verdict::Bad).map(|finding| finding.stage)
    }

    /// Returns one line for each finding.
    fn as_text(&self, is_coloured: bool) -> String {
        let line = |finding: &Finding| {
            let (mark, colour) = match finding.verdict {
                Verdict::Good => ("✓", "32"),
                Verdict::Remark => ("!", "33"),
                Verdict::Bad => ("✗", "31"),
            };
            let mark = if is_coloured { format!("\u{1b}[{colour}m{mark}\u{1b}[0m") } else { mark.to_owned() };
            let took = finding.took.map(|took| format!(" ({} ms)", took.as_millis())).unwrap_or_default();
            format!("{mark} {:<9}  {}{took}\n", finding.stage.name(), finding.text)
        };
        self.0.iter().map(line).collect()
    }

    /// Returns the findings as one JSON object on one line.
    fn as_json(&self, url: &str) -> String {
        let finding = |finding: &Finding| {
            let verdict = match finding.verdict {
                Verdict::Good => "ok",
                Verdict::Remark => "remark",
                Verdict::Bad => "failed",
            };
            let took = finding.took.map(|took| took.as_secs_f64() * 1000.0);
            json!({"stage": finding.stage.name(), "verdict": verdict, "text": finding.text, "ms": took})
        };
        let stages: Vec<_> = self.0.iter().map(finding).collect();
        let failed = self.failed().map(Stage::name);
        format!("{}\n", json!({"url": url, "failed": failed, "stages": stages}))
    }
}
