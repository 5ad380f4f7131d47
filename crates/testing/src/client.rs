//! The client's side: runs the bridge between two in-memory pipes, writes lines to it and reads lines from it.
//!
//! It reads the bridge's output only when the test asks for it, so a test can also play a client that does not read.

use mcp_gangway_core::{Config, End, Error};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, value::RawValue};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream},
    sync::oneshot,
    task::JoinHandle,
};

use super::{INITIALIZED, STALL, Server, VERSION, request, shown, within};

/// Size of the pipes: a typical size in an operating system.
const PIPE: usize = 64 << 10;

/// A client with its bridge. See the module.
pub struct Client {
    input: Option<DuplexStream>,
    output: Option<BufReader<DuplexStream>>,
    stop: Option<oneshot::Sender<()>>,
    bridge: JoinHandle<Result<End, Error>>,
    /// The session that the handshake created.
    session: Option<String>,
    pings: usize,
}

/// An error from the bridge, checked for its form.
#[derive(Debug)]
pub struct Failure {
    pub code: i64,
    pub message: String,
    pub data: Value,
}

impl Failure {
    /// Returns the stage that failed and the party at fault.
    pub fn kind(&self) -> &str {
        self.data["kind"].as_str().unwrap_or_default()
    }

    /// Returns the HTTP status, if a status is the failure.
    pub fn status(&self) -> Option<u64> {
        self.data["httpStatus"].as_u64()
    }

    /// True if the bridge says that the server may have executed the request.
    pub fn may_have_run(&self) -> bool {
        self.data["mayHaveRun"] == true
    }
}

impl Client {
    /// Starts a bridge with these settings.
    pub fn start(config: Config) -> Self {
        let (input, stdin) = tokio::io::duplex(PIPE);
        let (stdout, output) = tokio::io::duplex(PIPE);
        let (stop, stopped) = oneshot::channel();
        let bridge = tokio::spawn(mcp_gangway_core::run(config, stdin, stdout, async {
            if stopped.await.is_err() {
                std::future::pending::<()>().await;
            }
        }));
        let (input, output, stop) = (Some(input), Some(BufReader::new(output)), Some(stop));
        Self { input, output, stop, bridge, session: None, pings: 0 }
    }

    /// Starts a bridge to a server, with its default settings.
    pub fn of(server: &Server) -> Self {
        Self::start(server.config())
    }

    /// Starts a bridge to a URL; no scripted server needs to listen there.
    pub fn to(url: &str) -> Self {
        Self::start(super::server::config(url))
    }

    /// Like [`Self::to`]. The bridge never answers a handshake provisionally.
    pub fn to_without_promises(url: &str) -> Self {
        let mut config = super::server::config(url);
        config.timeouts.attach = None;
        Self::start(config)
    }

    // Sending.

    /// Writes one line.
    pub async fn send(&mut self, line: impl AsRef<[u8]>) {
        self.send_bytes(line).await;
        self.send_bytes("\n").await;
    }

    /// Writes bytes unchanged.
    pub async fn send_bytes(&mut self, bytes: impl AsRef<[u8]>) {
        let input = self.input.as_mut().expect("stdin is open");
        within("the bridge to read stdin", input.write_all(bytes.as_ref())).await.expect("the bridge reads stdin");
    }

    /// Writes `line` repeatedly until the bridge stops reading or `most` bytes are written. Returns the number of
    /// bytes.
    pub async fn flood(&mut self, line: &str, most: usize) -> usize {
        let line = format!("{line}\n");
        let input = self.input.as_mut().expect("stdin is open");
        let mut taken = 0;
        while taken < most {
            // Only the last line can be cut, because nothing is written after it.
            match tokio::time::timeout(STALL, input.write_all(line.as_bytes())).await {
                Ok(written) => written.expect("the bridge reads stdin"),
                Err(_) => return taken,
            }
            taken += line.len();
        }
        taken
    }

    /// Sends `initialize` with id "init" and returns the line.
    pub async fn initialize(&mut self) -> String {
        let params = format!(
            r#"{{"protocolVersion":"{VERSION}","capabilities":{{}},"clientInfo":{{"name":"c","version":"1"}}}}"#
        );
        let line = request(r#""init""#, "initialize", &params);
        self.send(&line).await;
        line
    }

    /// Completes the handshake with the server, which assigns this session.
    pub async fn handshake(&mut self, server: &mut Server, session: Option<&str>) {
        self.initialize().await;
        let response = server.initialize(session, VERSION).await;
        self.expect(&response).await;
        self.send(INITIALIZED).await;
        let initialized = server.post().await;
        assert_eq!(initialized.rpc_method(), "notifications/initialized");
        assert_eq!(initialized.header("mcp-session-id"), session);
        assert_eq!(initialized.header("mcp-protocol-version"), Some(VERSION));
        initialized.accepted().await;
        self.session = session.map(str::to_owned);
    }

    /// Records that the bridge has created this session itself and must end it.
    pub fn has_session(&mut self, session: &str) {
        self.session = Some(session.to_owned());
    }

    /// Closes stdin.
    pub fn close_stdin(&mut self) {
        self.input = None;
    }

    /// Closes the reading end of stdout.
    pub fn close_stdout(&mut self) {
        self.output = None;
    }

    /// Tells the bridge to stop, as a signal would.
    pub fn stop(&mut self) {
        self.stop.take().expect("not stopped yet").send(()).expect("the bridge runs");
    }

    // Receiving.

    /// Returns the next line on stdout, without its line end.
    pub async fn line(&mut self, awaited: &str) -> Vec<u8> {
        let output = self.output.as_mut().expect("stdout is open");
        let mut line = Vec::new();
        within(awaited, output.read_until(b'\n', &mut line)).await.expect("a pipe");
        assert_eq!(line.pop(), Some(b'\n'), "stdout ended while the test waited for {awaited}: {}", shown(&line));
        assert!(!line.contains(&b'\r'), "a carriage return on stdout (R2): {}", shown(&line));
        let json = serde_json::from_slice::<IgnoredAny>(&line);
        assert!(json.is_ok(), "not JSON on stdout (R1): {}", shown(&line));
        line
    }

    /// Expects this line next, byte for byte.
    pub async fn expect(&mut self, line: impl AsRef<[u8]>) {
        let line = line.as_ref();
        let got = self.line(&format!("the line {}", shown(line))).await;
        assert!(got == line, "expected on stdout: {}\n                got: {}", shown(line), shown(&got));
    }

    /// Returns the next line, parsed.
    pub async fn value(&mut self, awaited: &str) -> Value {
        serde_json::from_slice(&self.line(awaited).await).expect("JSON")
    }

    /// Expects these lines next, in any order.
    pub async fn expect_all<L: AsRef<[u8]>>(&mut self, lines: impl IntoIterator<Item = L>) {
        let mut wanted: Vec<Vec<u8>> = lines.into_iter().map(|line| line.as_ref().to_vec()).collect();
        while let Some(first) = wanted.first() {
            let got = self.line(&format!("one of {} lines, like {}", wanted.len(), shown(first))).await;
            let place = wanted.iter().position(|line| *line == got);
            wanted.swap_remove(place.unwrap_or_else(|| panic!("an unexpected line: {}", shown(&got))));
        }
    }

    /// Expects an error from the bridge next, for the request with this id (written as JSON).
    pub async fn expect_error(&mut self, id: &str) -> Failure {
        let line = self.line(&format!("an error for id {id}")).await;
        let (got, failure) = failure(&line);
        assert_eq!(got, id, "an error with another id: {}", shown(&line));
        failure
    }

    /// Expects errors from the bridge next, for these ids in any order.
    pub async fn expect_errors(&mut self, ids: &[&str]) -> Vec<Failure> {
        let mut failures = Vec::new();
        let mut seen = Vec::new();
        for _ in ids {
            let (id, failure) = failure(&self.line(&format!("one error each for {ids:?}")).await);
            seen.push(id);
            failures.push(failure);
        }
        let mut wanted: Vec<String> = ids.iter().map(|&id| id.to_owned()).collect();
        wanted.sort_unstable();
        seen.sort_unstable();
        assert_eq!(seen, wanted);
        failures
    }

    /// Expects that nothing is in flight in either direction: sends a ping and requires it and its response to come
    /// next.
    pub async fn expect_nothing(&mut self, server: &mut Server) {
        self.pings += 1;
        self.send(format!(r#"{{"jsonrpc":"2.0","id":"ping {}","method":"ping"}}"#, self.pings)).await;
        let ping = server.post().await;
        assert_eq!(ping.rpc_method(), "ping", "an unexpected POST: {}", ping.text());
        let answer = ping.answer("{}").await;
        self.expect(answer).await;
    }

    /// Expects that the bridge has read all lines up to now: sends a line that it refuses at once, and requires the refusal.
    pub async fn expect_all_read(&mut self) {
        self.send("?").await;
        let refusal = self.value("the refusal of a line").await;
        assert_eq!(refusal["error"]["code"], -32_700, "{refusal}");
    }

    /// Expects the end of stdout.
    pub async fn expect_end_of_output(&mut self) {
        let mut rest = Vec::new();
        let output = self.output.as_mut().expect("stdout is open");
        within("the end of stdout", output.read_to_end(&mut rest)).await.expect("a pipe");
        assert!(rest.is_empty(), "more on stdout than expected: {}", shown(&rest));
    }

    /// Returns how the bridge ended.
    pub async fn end(&mut self) -> End {
        self.outcome().await.expect("a regular end")
    }

    /// Returns how the bridge ended, or the error if the end was irregular.
    pub async fn outcome(&mut self) -> Result<End, Error> {
        within("the end of the bridge", &mut self.bridge).await.expect("no panic")
    }

    /// Closes stdin, then expects the end of the session (if there is one), the end of the bridge, and nothing more on
    /// either side.
    pub async fn finish(mut self, server: &mut Server) {
        self.close_stdin();
        if let Some(session) = self.session.take() {
            let delete = server.next("the DELETE of the session").await;
            assert_eq!(delete.verb, "DELETE");
            assert_eq!(delete.header("mcp-session-id"), Some(session.as_str()));
            assert_eq!(delete.header("mcp-protocol-version"), Some(VERSION));
            delete.respond(204, &[], "").await;
        }
        assert!(matches!(self.end().await, End::InputClosed));
        self.expect_end_of_output().await;
        server.expect_no_more();
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.bridge.abort();
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ErrorLine<'a> {
    jsonrpc: &'a str,
    #[serde(borrow)]
    id: &'a RawValue,
    error: ErrorObject,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ErrorObject {
    code: i64,
    message: String,
    data: Value,
}

/// Returns the id and the content of an error from the bridge, after checking that its form is the documented one.
fn failure(line: &[u8]) -> (String, Failure) {
    const FIELDS: &[&str] = &["source", "kind", "httpStatus", "retryAfter", "mayHaveRun", "attempts", "url", "detail"];
    let line: ErrorLine = serde_json::from_slice(line)
        .unwrap_or_else(|error| panic!("not an error of the bridge ({error}): {}", shown(line)));
    let ErrorObject { code, message, data } = line.error;
    let failure = Failure { code, message, data };
    assert_eq!(line.jsonrpc, "2.0");
    assert_eq!(failure.data["source"], "mcp-gangway", "{failure:?}");
    assert!(!failure.message.trim().is_empty() && !failure.message.contains('\n'), "{failure:?}");
    for (field, value) in failure.data.as_object().expect("data is an object") {
        assert!(FIELDS.contains(&field.as_str()) && !value.is_null(), "the field {field} of {failure:?}");
    }
    assert!(failure.data["detail"].as_str().is_none_or(|detail| detail.len() <= 512), "{failure:?}");
    let code = match failure.kind() {
        "parse" => -32700,
        "invalid_message" => -32600,
        _ => -32603,
    };
    assert_eq!(failure.code, code, "{failure:?}");
    (line.id.get().to_owned(), failure)
}
