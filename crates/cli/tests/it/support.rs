//! The two ends of the tests: [`Server`], which records its requests, and [`Bridge`], the command as a child process.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{
        Arc, Condvar, Mutex,
        mpsc::{self, Receiver},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// The time limit of a wait: longer than any working step takes on the slowest machine.
pub(crate) const LIMIT: Duration = Duration::from_mins(1);

/// How long clients wait after they close a server's stdin before they kill it (R8).
#[cfg(unix)]
pub(crate) const GRACE: Duration = Duration::from_secs(2);

pub(crate) const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}"#;

pub(crate) fn request(id: u32, method: &str) -> String {
    json!({"jsonrpc": "2.0", "id": id, "method": method}).to_string()
}

/// A request that reached the server.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    headers: Vec<(String, String)>,
    pub(crate) body: Value,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Returns all headers as received, except for the case of their names.
    pub(crate) fn head(&self) -> String {
        let lines = self.headers.iter().map(|(name, value)| format!("{name}: {value}\n"));
        lines.collect::<Vec<_>>().concat()
    }

    pub(crate) fn calls(&self, method: &str) -> bool {
        self.body["method"] == method
    }
}

/// A minimal HTTP server. It answers every JSON-RPC request except those of the method `hang`, and refuses the
/// authorization "Bearer stale".
pub(crate) struct Server {
    address: SocketAddr,
    seen: Arc<(Mutex<Vec<Request>>, Condvar)>,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap())
    }

    pub(crate) fn start_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let server = Self { address: listener.local_addr().unwrap(), seen: Arc::default() };
        let seen = Arc::clone(&server.seen);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let seen = Arc::clone(&seen);
                thread::spawn(move || serve(stream.unwrap(), &seen));
            }
        });
        server
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Asserts that no request has arrived.
    #[cfg(unix)]
    pub(crate) fn expect_nothing(&self) {
        let seen = self.seen.0.lock().unwrap();
        assert!(seen.is_empty(), "{seen:#?}");
    }

    /// Waits for the first request that is `wanted`.
    pub(crate) fn wait_for(&self, wanted: impl Fn(&Request) -> bool) -> Request {
        let (seen, news) = &*self.seen;
        let (seen, _) = news.wait_timeout_while(seen.lock().unwrap(), LIMIT, |seen| !seen.iter().any(&wanted)).unwrap();
        seen.iter().find(|request| wanted(request)).unwrap_or_else(|| panic!("no such request in {seen:#?}")).clone()
    }
}

/// Starts a server that answers each request with the bytes of `reply` and closes the connection. Returns its origin.
pub(crate) fn scripted(reply: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let reply = Arc::new(reply);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, reply) = (stream.unwrap(), Arc::clone(&reply));
            thread::spawn(move || {
                let request = read_request(&mut BufReader::new(stream.try_clone().unwrap()));
                // The client may close the connection first.
                let _ = request.map(|request| stream.write_all(&reply(&request)));
            });
        }
    });
    origin
}

/// Returns a reply whose end is the end of its connection.
pub(crate) fn reply(status: &str, headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}\r\n");
    [head.as_bytes(), body.as_ref()].concat()
}

pub(crate) const EVENTS: &str = "Content-Type: text/event-stream\r\n";
pub(crate) const JSON: &str = "Content-Type: application/json\r\n";

/// Serves one connection until the client closes it.
fn serve(stream: TcpStream, seen: &(Mutex<Vec<Request>>, Condvar)) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    stream.set_nodelay(true).unwrap();
    while let Some(request) = read_request(&mut reader) {
        let (method, body) = (request.method.clone(), request.body.clone());
        let is_stale = request.header("authorization") == Some("Bearer stale");
        seen.0.lock().unwrap().push(request);
        seen.1.notify_all();
        let (status, headers, answer) = match (method.as_str(), &body["method"], &body["id"]) {
            _ if is_stale => (401, "", String::new()),
            ("POST", Value::String(name), _) if name == "hang" => {
                let _ = reader.read(&mut [0]);
                return;
            }
            ("POST", Value::String(name), id) if !id.is_null() => {
                let headers = if name == "initialize" { "Mcp-Session-Id: abc\r\n" } else { "" };
                let result = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": name}});
                (200, headers, json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string())
            }
            ("POST", ..) => (202, "", String::new()),
            ("DELETE", ..) => (200, "", String::new()),
            _ => (405, "", String::new()),
        };
        let length = answer.len();
        let reply = format!(
            "HTTP/1.1 {status} Whatever\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{headers}\r\n{answer}"
        );
        if stream.write_all(reply.as_bytes()).is_err() {
            return;
        }
    }
}

/// Reads the next request of a connection.
pub(crate) fn read_request(reader: &mut impl BufRead) -> Option<Request> {
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
        Some(line.trim_end().to_owned())
    };
    let first = line()?;
    let mut words = first.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let line = line()?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length =
        headers.iter().find(|(name, _)| name == "content-length").map_or(0, |(_, value)| value.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    // A body that is not JSON becomes a string.
    let text = || Value::from(String::from_utf8_lossy(&body));
    let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap_or_else(|_| text()) };
    Some(Request { method, target, headers, body })
}

/// Returns the command with `args` and an empty environment.
pub(crate) fn command(args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-gangway"));
    command.env_clear().args(args);
    // Sockets on Windows need it.
    if let Some(root) = std::env::var_os("SYSTEMROOT") {
        command.env("SYSTEMROOT", root);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The running command. Dropping this kills it.
pub(crate) struct Bridge {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Option<Receiver<String>>,
    stderr: Option<Receiver<String>>,
}

/// The exit status, and the unread output.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<String>,
    pub(crate) stderr: Vec<String>,
}

impl Bridge {
    pub(crate) fn start(args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        Self::spawn(&mut command(args))
    }

    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take().map(lines);
        let stderr = child.stderr.take().map(lines);
        Self { stdin: child.stdin.take(), stdout, stderr, child }
    }

    pub(crate) fn send(&mut self, line: &str) {
        self.stdin.as_mut().unwrap().write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// Waits for the next line of stdout.
    pub(crate) fn answer(&self) -> Value {
        let line = self.stdout.as_ref().unwrap().recv_timeout(LIMIT).expect("a line on stdout");
        serde_json::from_str(&line).unwrap()
    }

    /// Sends a request and returns its answer, which must be the next line.
    pub(crate) fn ask(&mut self, line: &str) -> Value {
        self.send(line);
        let answer = self.answer();
        assert_eq!(answer["id"], serde_json::from_str::<Value>(line).unwrap()["id"]);
        answer
    }

    /// Reads stderr up to a line that contains `part`.
    #[cfg(unix)]
    pub(crate) fn wait_for_log(&self, part: &str) {
        self.log_line(part);
    }

    /// Reads stderr up to a line that contains `part`, and returns that line.
    pub(crate) fn log_line(&self, part: &str) -> String {
        self.log_until(part).pop().unwrap()
    }

    /// Reads stderr up to a line that contains `part`, and returns all lines.
    pub(crate) fn log_until(&self, part: &str) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        while lines.last().is_none_or(|line| !line.contains(part)) {
            lines.push(self.stderr.as_ref().unwrap().recv_timeout(LIMIT).expect("the line in the log"));
        }
        lines
    }

    pub(crate) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    #[cfg(unix)]
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for the end of the process, which must come within `limit`.
    pub(crate) fn end(mut self, limit: Duration) -> Ended {
        let status = exit_within(&mut self.child, limit);
        let rest = |lines: Option<Receiver<String>>| lines.map(|lines| lines.iter().collect()).unwrap_or_default();
        Ended { status, stdout: rest(self.stdout.take()), stderr: rest(self.stderr.take()) }
    }

    /// Closes stdin and waits for the end of the process.
    pub(crate) fn finish(mut self) -> Ended {
        self.close_stdin();
        self.end(LIMIT)
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        // Fails harmlessly if the process has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until the condition is true.
#[cfg(all(target_os = "linux", feature = "oauth"))]
pub(crate) fn until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < LIMIT, "waited {LIMIT:?} for {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) fn exit_within(child: &mut Child, limit: Duration) -> ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(start.elapsed() < limit, "still running after {limit:?}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Reads lines on a thread, so that a test can wait for one with a limit.
pub(crate) fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    let _: JoinHandle<()> = thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            // Without a receiver, end this thread, which closes the stream.
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}
