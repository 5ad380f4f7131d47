//! Memory and disk use while peers send more than anyone reads. The figures are the system's own (`/proc`). Their
//! limits are generous, because the faults that they detect hold everything that is sent.

use std::{
    fs,
    io::{self, BufRead, BufReader, PipeReader, Read, Write, pipe},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::{LIMIT, Request, command, exit_within, read_request, request};

/// How long a peer may accept no data before it counts as stuck.
const STALL: Duration = Duration::from_millis(500);
const MIB: usize = 1 << 20;

/// A server whose answer to a call depends on the method's name. See [`reply`].
struct Server {
    url: String,
    /// The number of bytes of endless replies that were accepted.
    taken: Arc<AtomicUsize>,
    /// The bodies of requests, in order of arrival.
    seen: Receiver<Value>,
}

impl Server {
    fn start() -> Self {
        Self::of(|stream, request, taken| reply(stream, &request.body, taken))
    }

    /// Starts a server that answers with `reply`. The number is the count of accepted bytes of endless replies.
    fn of(reply: impl Fn(&mut TcpStream, &Request, &AtomicUsize) -> io::Result<()> + Send + Sync + 'static) -> Self {
        let reply = Arc::new(reply);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        let taken = Arc::new(AtomicUsize::new(0));
        let (saw, seen) = channel();
        let counter = Arc::clone(&taken);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (saw, taken, mut stream) = (saw.clone(), Arc::clone(&counter), stream.unwrap());
                let reply = Arc::clone(&reply);
                thread::spawn(move || {
                    let mut reader = BufReader::new(stream.try_clone().unwrap());
                    while let Some(request) = read_request(&mut reader) {
                        let _ = saw.send(request.body.clone());
                        if reply(&mut stream, &request, &taken).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { url, taken, seen }
    }

    /// Waits for a message with this method.
    fn wait_for(&self, method: &str) -> Value {
        loop {
            let body = self.seen.recv_timeout(LIMIT).unwrap_or_else(|_| panic!("no {method}"));
            if body["method"] == method {
                return body;
            }
        }
    }

    /// Waits until no more of an endless reply is accepted, and returns the number of accepted bytes.
    fn wait_for_stall(&self) -> usize {
        let mut last = (0, Instant::now());
        loop {
            let taken = self.taken.load(Ordering::Acquire);
            if taken != last.0 || taken == 0 {
                last = (taken, Instant::now());
            } else if last.1.elapsed() > STALL {
                return taken;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

fn notification(length: usize) -> String {
    json!({"jsonrpc": "2.0", "method": "notifications/message", "params": "x".repeat(length)}).to_string()
}

fn answer(id: &Value, length: usize) -> String {
    json!({"jsonrpc": "2.0", "id": id, "result": "x".repeat(length)}).to_string()
}

fn reply(stream: &mut TcpStream, message: &Value, taken: &AtomicUsize) -> io::Result<()> {
    let id = &message["id"];
    let mut endless = |content_type: &str, block: String, most: usize| {
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nConnection: close\r\n\r\n")?;
        let mut sent = 0;
        while sent < most {
            let count = stream.write(&block.as_bytes()[sent % block.len()..])?;
            sent += count;
            taken.fetch_add(count, Ordering::AcqRel);
        }
        Ok(())
    };
    match message["method"].as_str().unwrap_or_default() {
        "events" => endless("text/event-stream", format!("data: {}\n\n", notification(1000)), usize::MAX),
        "large events" => endless("text/event-stream", format!("data: {}\n\n", notification(3 * MIB)), usize::MAX),
        "lines" => endless("application/x-ndjson", format!("{}\n", notification(1000)), usize::MAX),
        // Each small event arrives in a large chunk.
        "sparse events" => {
            let comment = format!(":{}\n", "x".repeat(MIB));
            let block = format!("{comment}data: {}\n\n", notification(1));
            let most = 200 * block.len();
            endless("text/event-stream", block, most)?;
            Err(io::ErrorKind::ConnectionAborted.into())
        }
        method => {
            // The number in the method's name is the length of the answer.
            let length = method.rsplit(' ').next().and_then(|length| length.parse().ok()).unwrap_or(2);
            let body = match (id.is_null(), method.starts_with("pretty")) {
                (true, _) => String::new(),
                (_, true) => format!("{{\n  \"id\": {id},\n  \"result\":\n  \"{}\" }}", "x".repeat(length)),
                _ => answer(id, length),
            };
            let status = if body.is_empty() { 202 } else { 200 };
            write!(
                stream,
                "HTTP/1.1 {status} Whatever\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
        }
    }
}

/// The command. Its stdout is read only when the test does so.
struct Bridge {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<PipeReader>,
    /// Its memory after the first request, in bytes.
    idle: usize,
    /// Ends the process after [`LIFE`], unless dropped before.
    _watch: Sender<()>,
}

/// Longer than any of these tests takes. After that, the process is killed and waits fail.
const LIFE: Duration = Duration::from_mins(5);

impl Bridge {
    fn start(server: &Server, options: &[&str]) -> Self {
        Self::spawn(command([&[server.url.as_str()], options].concat()))
    }

    fn spawn(mut command: Command) -> Self {
        let (reader, writer) = pipe().unwrap();
        let mut child = command.stdout(writer).stderr(Stdio::null()).spawn().unwrap();
        drop(command);
        let (watch, dropped) = channel();
        let pid = Pid::from_child(&child);
        thread::spawn(move || {
            if dropped.recv_timeout(LIFE) == Err(RecvTimeoutError::Timeout) {
                let _ = kill_process(pid, Signal::KILL);
            }
        });
        let mut bridge =
            Self { stdin: child.stdin.take(), child, stdout: BufReader::new(reader), idle: 0, _watch: watch };
        bridge.send(&request(0, "first"));
        assert_eq!(bridge.answer()["id"], 0);
        bridge.idle = bridge.peak();
        bridge
    }

    fn send(&mut self, line: &str) {
        self.stdin.as_mut().unwrap().write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line
    }

    fn answer(&mut self) -> Value {
        serde_json::from_str(&self.line()).unwrap()
    }

    /// Returns the peak of resident memory, in bytes.
    fn peak(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
    }

    /// Asserts that memory grew by less than this since it was idle.
    #[track_caller]
    fn expect_less_than(&self, bytes: usize) {
        let grown = self.peak() - self.idle;
        assert!(grown < bytes, "{} KiB more than when idle", grown >> 10);
    }

    /// Returns its open files without a name: their links in `/proc` and their permissions.
    fn nameless_files(&self) -> Vec<(String, u32)> {
        let links = fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap();
        let path = |link: io::Result<fs::DirEntry>| {
            let link = link.unwrap().path();
            // It may have been closed in between.
            let target = fs::read_link(&link).ok()?.to_str()?.to_owned();
            Some((target, fs::metadata(link).ok()?.permissions().mode() & 0o777))
        };
        links.filter_map(path).filter(|(target, _)| target.ends_with(" (deleted)")).collect()
    }

    fn end(mut self, limit: Duration) {
        exit_within(&mut self.child, limit);
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        // Fails harmlessly if the process has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn r15_stalled_stdout_reader_pauses_only_the_flooding_response() {
    for (flood, bound) in [("events", 16 * MIB), ("lines", 16 * MIB), ("large events", 128 * MIB)] {
        let server = Server::start();
        let mut bridge = Bridge::start(&server, &[]);
        bridge.send(&request(1, flood));
        let taken = server.wait_for_stall();
        assert!(taken < bound, "{flood}: {taken} unread bytes were accepted");
        // Everything else goes on: calls, pending answers, cancellations.
        bridge.send(&request(2, "other"));
        server.wait_for("other");
        bridge.send(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#);
        assert_eq!(server.wait_for("notifications/cancelled")["params"]["requestId"], 1);
        bridge.expect_less_than(24 * MIB);
        // A reader that resumes, slowly at first, finds all lines intact, including the other answer.
        let mut first = [0; 100];
        for _ in 0..10 {
            bridge.stdout.read_exact(&mut first).unwrap();
        }
        bridge.line();
        let mut found = false;
        for _ in 0..20_000 {
            found = bridge.answer()["id"] == 2;
            if found {
                break;
            }
        }
        assert!(found, "{flood}: the other answer is lost");
        bridge.expect_less_than(24 * MIB);
    }
}

#[test]
fn r8_stalled_stdout_reader_does_not_delay_the_shutdown() {
    for flood in ["events", "large events", "long 8000000"] {
        for by_signal in [false, true] {
            let server = Server::start();
            let mut bridge = Bridge::start(&server, &["--drain-timeout", "0.2"]);
            bridge.send(&request(1, flood));
            if flood.starts_with("long") {
                // Its first byte shows that it is being written.
                bridge.stdout.read_exact(&mut [0]).unwrap();
            } else {
                server.wait_for_stall();
            }
            bridge.send(&request(2, "other"));
            server.wait_for("other");
            if by_signal {
                kill_process(Pid::from_child(&bridge.child), Signal::TERM).unwrap();
            } else {
                bridge.stdin = None;
            }
            bridge.end(LIMIT);
        }
    }
}

#[test]
fn r15_sparse_events_waiting_for_stdout_use_bounded_memory() {
    let server = Server::start();
    let mut bridge = Bridge::start(&server, &[]);
    // More than the pipe holds, so that the events wait behind it.
    bridge.send(&request(1, "long 200000"));
    bridge.stdout.read_exact(&mut [0]).unwrap();
    bridge.send(&request(2, "sparse events"));
    server.wait_for_stall();
    bridge.expect_less_than(24 * MIB);
}

#[test]
fn r15_many_concurrent_1_mb_responses_use_bounded_memory() {
    for (count, method, bound) in
        // The rest is what HTTP reads ahead on each connection.
        [(64, "answer 1000000", 64 * MIB), (256, "answer 1000000", 224 * MIB), (64, "pretty 1000000", 64 * MIB)]
    {
        let server = Server::start();
        let mut bridge = Bridge::start(&server, &["--concurrency", "256"]);
        for id in 1..=count {
            bridge.send(&request(id, method));
        }
        for _ in 0..count {
            server.wait_for(method);
        }
        thread::sleep(STALL);
        bridge.expect_less_than(bound);
        for _ in 0..count {
            let answer = bridge.answer();
            assert_eq!(answer["result"].as_str().map(str::len), Some(1_000_000), "{}", answer["id"]);
        }
        bridge.expect_less_than(bound);
    }
}

#[test]
fn pending_large_responses_hold_few_spool_files() {
    const COUNT: u32 = 60;
    let server = Server::start();
    let mut bridge = Bridge::start(&server, &["--concurrency", "16"]);
    for id in 1..=COUNT {
        bridge.send(&request(id, "large 2000000"));
    }
    for _ in 0..24 {
        server.wait_for("large 2000000");
    }
    thread::sleep(STALL);
    let files = bridge.nameless_files().len();
    assert!((2..=40).contains(&files), "{files}");
    for _ in 0..COUNT {
        assert_eq!(bridge.answer()["result"].as_str().map(str::len), Some(2_000_000));
    }
    bridge.send(&request(1000, "other"));
    assert_eq!(bridge.answer()["id"], 1000);
    // The temporary files are gone.
    assert_eq!(bridge.nameless_files(), []);
    bridge.expect_less_than(24 * MIB);
}

#[test]
fn spool_files_are_unnamed_and_readable_only_by_their_owner() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start();
    let mut command = command([&server.url]);
    command.env("TMPDIR", folder.path());
    let mut bridge = Bridge::spawn(command);
    bridge.send(&request(1, "large 8000000"));
    bridge.stdout.read_exact(&mut [0]).unwrap();
    let files = bridge.nameless_files();
    let [(path, mode)] = files.as_slice() else { panic!("{files:?}") };
    assert!(path.starts_with(folder.path().to_str().unwrap()), "{path}");
    assert_eq!(mode & 0o177, 0, "{mode:o}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "it has no name");
    bridge.line();
    bridge.send(&request(2, "other"));
    assert_eq!(bridge.answer()["id"], 2);
    assert_eq!(bridge.nameless_files(), []);
}

/// A file that reaches a size limit, like a quota or a full disk.
#[test]
fn spool_file_size_limit_fails_only_the_affected_request() {
    let server = Server::start();
    let bridge = command([&server.url]);
    // In blocks of 512 or 1024 bytes: at most 4 MiB.
    let mut limited = Command::new("/bin/sh");
    limited.args(["-c", r#"ulimit -f 4096; exec "$0" "$1""#]).arg(bridge.get_program()).args(bridge.get_args());
    limited.env_clear().stdin(Stdio::piped());
    let mut bridge = Bridge::spawn(limited);
    for _ in 0..2 {
        bridge.send(&request(1, "large 8000000"));
        let failure = bridge.answer();
        assert_eq!((&failure["id"], &failure["error"]["data"]["kind"]), (&1.into(), &"storage".into()), "{failure}");
        bridge.send(&request(2, "other"));
        assert_eq!(bridge.answer()["id"], 2);
        assert_eq!(bridge.nameless_files(), []);
    }
}

#[test]
fn r3_large_request_is_held_in_memory_only_once() {
    const LENGTH: usize = 48 * MIB;
    let server = Server::start();
    let mut bridge = Bridge::start(&server, &[]);
    let line = json!({"jsonrpc": "2.0", "id": 1, "method": "large", "params": "x".repeat(LENGTH)}).to_string();
    bridge.send(&line);
    assert_eq!(server.wait_for("large")["params"].as_str().map(str::len), Some(LENGTH));
    assert_eq!(bridge.answer()["id"], 1);
    // Its buffer doubles as it grows.
    bridge.expect_less_than(LENGTH * 23 / 10);
}

#[test]
fn max_message_size_and_max_request_size_are_enforced() {
    let server = Server::start();
    let mut bridge = Bridge::start(&server, &["--max-message-size", "1M", "--max-request-size", "4k"]);
    for (line, id, option) in [
        (request(1, "large 1048576"), 1, "--max-message-size"),
        (json!({"method": "x", "params": "x".repeat(5000), "id": 2}).to_string(), 2, "--max-request-size"),
    ] {
        bridge.send(&line);
        let failure = bridge.answer();
        assert_eq!((&failure["id"], &failure["error"]["data"]["kind"]), (&id.into(), &"too_large".into()), "{failure}");
        assert!(failure["error"]["message"].as_str().unwrap().contains(option), "{failure}");
    }
    bridge.send(&request(3, "large 1000000"));
    assert_eq!(bridge.answer()["result"].as_str().map(str::len), Some(1_000_000));
}

// Attacks by peers. Each one sends far more than the limit.

/// The limit of memory growth beyond the idle state, in bytes.
const MOST: usize = 64 * MIB;

/// Sends a whole reply.
fn respond(stream: &mut TcpStream, status: u16, headers: &str, body: &[u8]) -> io::Result<()> {
    let length = body.len();
    write!(stream, "HTTP/1.1 {status} Whatever\r\nContent-Length: {length}\r\n{headers}\r\n")?;
    stream.write_all(body)
}

fn respond_json(stream: &mut TcpStream, body: &str) -> io::Result<()> {
    respond(stream, 200, "Content-Type: application/json\r\n", body.as_bytes())
}

/// Sends a result with a text of this length, without holding it in memory.
fn long_result(stream: &mut TcpStream, id: &Value, length: usize) -> io::Result<()> {
    let (head, tail) =
        (format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"content":[{{"type":"text","text":""#), r#""}]}}"#);
    let length = length + head.len() + tail.len();
    let headers = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(headers.as_bytes())?;
    stream.write_all(head.as_bytes())?;
    let block = vec![b'x'; 64 << 10];
    for start in (0..length - head.len() - tail.len()).step_by(block.len()) {
        stream.write_all(&block[..block.len().min(length - head.len() - tail.len() - start)])?;
    }
    stream.write_all(tail.as_bytes())
}

impl Bridge {
    /// Asserts that the bridge still answers, and holds little more memory than before.
    #[track_caller]
    fn expect_well(&mut self) {
        self.send(&request(999_999, "after"));
        loop {
            let answer = self.answer();
            if answer["id"] == 999_999 {
                assert!(answer["result"].is_string(), "{answer}");
                break;
            }
        }
        self.expect_less_than(MOST);
    }
}

#[test]
fn decompression_bombs_use_bounded_memory() {
    let zeros = vec![0; 40 * MIB];
    let brotli = {
        let mut encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 24);
        encoder.write_all(&zeros).unwrap();
        encoder.into_inner()
    };
    let zstd = {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(23).unwrap();
        encoder.write_all(&zeros).unwrap();
        encoder.finish().unwrap()
    };
    // A non-standard form of brotli with windows of up to 1 GiB.
    let large_window = [&[0x11, 0x1e][..], &brotli[1..]].concat();
    for (coding, body, count) in [("br", brotli, 32), ("zstd", zstd, 64), ("br", large_window, 1)] {
        let server = Server::of(move |stream, request, taken| {
            if request.body["method"] != "bomb" {
                return reply(stream, &request.body, taken);
            }
            // Keep the reply open, so that the decoder stays allocated.
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: {coding}\r\n\r\n")?;
            stream.write_all(&body)?;
            stream.read_exact(&mut [0])
        });
        let mut bridge = Bridge::start(&server, &[]);
        for id in 1..=count {
            bridge.send(&request(id, "bomb"));
            server.wait_for("bomb");
        }
        thread::sleep(STALL);
        println!("{count} of {coding}: {} KiB", (bridge.peak() - bridge.idle) >> 10);
        bridge.expect_less_than(MOST);
    }
}

#[test]
fn large_batches_use_bounded_memory() {
    const COUNT: usize = 10_000;
    let server = Server::start();
    let mut bridge = Bridge::start(&server, &[]);
    let one = json!({"jsonrpc": "2.0", "method": "x", "params": {"x": "y".repeat(700)}}).to_string();
    bridge.send(&format!("[{}]", vec![one.as_str(); COUNT].join(",")));
    for _ in 0..COUNT {
        server.wait_for("x");
    }
    bridge.expect_well();
}

#[test]
fn long_error_pages_for_notifications_use_bounded_memory() {
    let page = "x".repeat(MIB);
    let server = Server::of(move |stream, request, taken| {
        if request.body["id"].is_null() {
            respond(stream, 500, "Content-Type: text/html\r\n", page.as_bytes())
        } else {
            reply(stream, &request.body, taken)
        }
    });
    let mut bridge = Bridge::start(&server, &[]);
    for _ in 0..400 {
        bridge.send(r#"{"jsonrpc":"2.0","method":"x"}"#);
    }
    bridge.expect_well();
}

#[test]
fn long_error_pages_for_requests_use_bounded_memory() {
    let server = Server::of(move |stream, request, taken| {
        if request.body["method"] == "page" {
            let page = answer(&request.body["id"], MIB - 100);
            respond(stream, 500, "Content-Type: application/json\r\n", page.as_bytes())
        } else {
            reply(stream, &request.body, taken)
        }
    });
    let mut bridge = Bridge::start(&server, &[]);
    for id in 1..=200 {
        bridge.send(&request(id, "page"));
    }
    thread::sleep(STALL);
    bridge.expect_well();
}

/// Answers like a server of 2026-07-28 whose calls have long results.
fn modern(stream: &mut TcpStream, request: &Request) -> io::Result<()> {
    let id = &request.body["id"];
    match request.body["method"].as_str().unwrap_or_default() {
        "initialize" => {
            let error = json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32022, "message": "no", "data": {"supported": ["2026-07-28"]}}});
            respond(stream, 400, "Content-Type: application/json\r\n", error.to_string().as_bytes())
        }
        "server/discover" => respond_json(
            stream,
            &json!({"jsonrpc": "2.0", "id": id, "result": {"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}}).to_string(),
        ),
        "tools/list" => respond_json(stream, &json!({"jsonrpc": "2.0", "id": id, "result": {"tools": []}}).to_string()),
        "tools/call" => long_result(stream, id, 50 * MIB),
        _ if id.is_null() => respond(stream, 202, "", b""),
        _ => respond_json(stream, &answer(id, 2)),
    }
}

#[test]
fn large_translated_tool_results_use_bounded_memory() {
    let server = Server::of(|stream, request, _| modern(stream, request));
    let mut bridge = Bridge::start(&server, &[]);
    bridge.send(crate::support::INITIALIZE);
    assert!(bridge.answer()["result"].is_object());
    bridge.send(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
    for id in 1..=8 {
        bridge.send(&json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": "t"}}).to_string());
    }
    for _ in 0..8 {
        server.wait_for("tools/call");
    }
    for _ in 0..8 {
        let answer = bridge.answer();
        assert_eq!(answer["result"]["content"][0]["text"].as_str().map(str::len), Some(50 * MIB));
    }
    bridge.expect_less_than(MOST);
}

/// Answers like a server of 2025-11-25 that repeats `event` on its GET stream until `most` bytes are sent.
fn legacy(stream: &mut TcpStream, request: &Request, event: &str, most: usize) -> io::Result<()> {
    let id = &request.body["id"];
    if request.method == "GET" {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")?;
        let mut sent = 0;
        while sent < most {
            stream.write_all(event.as_bytes())?;
            sent += event.len();
        }
        return stream.read_exact(&mut [0]);
    }
    match request.body["method"].as_str() {
        Some("server/discover") => {
            let error = json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "Method not found"}});
            respond(stream, 404, "Content-Type: application/json\r\n", error.to_string().as_bytes())
        }
        Some("initialize") => {
            let result = json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {"listChanged": true}}, "serverInfo": {"name": "s", "version": "1"}});
            let body = json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string();
            respond(stream, 200, "Content-Type: application/json\r\nMcp-Session-Id: s\r\n", body.as_bytes())
        }
        Some(_) if !id.is_null() => respond_json(stream, &answer(id, 2)),
        _ => respond(stream, 202, "", b""),
    }
}

const META: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;

#[test]
fn pings_of_a_legacy_server_do_not_block_a_modern_client() {
    let ping = "data: {\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}\n\n";
    let server = Server::of(move |stream, request, _| legacy(stream, request, ping, 5 * MIB));
    let mut bridge = Bridge::start(&server, &["--era", "modern"]);
    bridge.send(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"server/discover","params":{{{META}}}}}"#));
    assert_eq!(bridge.answer()["id"], 1);
    // Pongs are being sent, and block nothing.
    for _ in 0..1000 {
        while server.seen.recv_timeout(LIMIT).unwrap()["result"] != json!({}) {}
    }
    bridge.send(&format!(r#"{{"jsonrpc":"2.0","id":2,"method":"tools/list","params":{{{META}}}}}"#));
    assert_eq!(bridge.answer()["id"], 2);
    let descriptors = fs::read_dir(format!("/proc/{}/fd", bridge.child.id())).unwrap().count();
    assert!(descriptors < 64, "{descriptors} descriptors");
    bridge.expect_less_than(MOST);
}

#[test]
fn large_notification_to_many_subscriptions_uses_bounded_memory() {
    const SUBSCRIPTIONS: usize = 25;
    let params = format!(r#"{{"x":"{}"}}"#, "y".repeat(20 * MIB));
    let event = format!(
        "data: {{\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\",\"params\":{params}}}\n\n"
    );
    let go = Arc::new(AtomicUsize::new(0));
    let gate = Arc::clone(&go);
    let server = Server::of(move |stream, request, _| {
        while request.method == "GET" && gate.load(Ordering::Acquire) == 0 {
            thread::sleep(Duration::from_millis(10));
        }
        legacy(stream, request, &event, 1)
    });
    let mut bridge = Bridge::start(&server, &["--era", "modern"]);
    bridge.send(&format!(r#"{{"jsonrpc":"2.0","id":"d","method":"server/discover","params":{{{META}}}}}"#));
    assert_eq!(bridge.answer()["id"], "d");
    for id in 0..SUBSCRIPTIONS {
        let params = format!(r#"{{"notifications":{{"toolsListChanged":true}},{META}}}"#);
        bridge.send(&format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"subscriptions/listen","params":{params}}}"#));
    }
    for _ in 0..SUBSCRIPTIONS {
        let acknowledged = bridge.answer();
        assert_eq!(acknowledged["method"], "notifications/subscriptions/acknowledged", "{acknowledged}");
    }
    go.store(1, Ordering::Release);
    for id in 0..SUBSCRIPTIONS {
        let event = bridge.answer();
        assert_eq!(event["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], id);
        assert_eq!(event["params"]["x"].as_str().map(str::len), Some(20 * MIB));
    }
    bridge.expect_less_than(MOST);
}

/// With few descriptors the bridge goes on. An operation that needs one more reports that.
#[test]
fn low_descriptor_limit_is_survived_or_named_in_errors() {
    let server = Server::start();
    let bridge = command([&server.url]);
    let mut limited = Command::new("/bin/sh");
    limited.args(["-c", r#"ulimit -n 256; exec "$0" "$1""#]).arg(bridge.get_program()).args(bridge.get_args());
    limited.env_clear().stdin(Stdio::piped());
    let mut bridge = Bridge::spawn(limited);
    for id in 1..=1500 {
        bridge.send(r#"{"jsonrpc":"2.0","method":"x"}"#);
        bridge.send(&request(id, "ping"));
    }
    bridge.expect_well();

    let bridge = command([&server.url]);
    let mut limited = Command::new("/bin/sh");
    limited.args(["-c", r#"ulimit -n 20; exec "$0" "$1""#]).arg(bridge.get_program()).args(bridge.get_args());
    limited.env_clear().stdin(Stdio::piped()).stderr(Stdio::null());
    let mut child = limited.stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for id in 1..=20 {
        writeln!(stdin, "{}", request(id, "hang on 3000000")).unwrap();
    }
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let named = lines.by_ref().take(20).any(|line| line.unwrap().contains("ulimit -n"));
    let _ = child.kill();
    let _ = child.wait();
    assert!(named, "no error says that there are too few descriptors");
}
