//! The log: what it contains, what it must never contain, and that nothing depends on it.

use serde_json::Value;

use crate::support::{Bridge, EVENTS, INITIALIZE, JSON, Server, command, reply, request, scripted};

/// Runs a session that logs everything, with a secret in every possible place, and returns the log.
fn talk(server: &Server, args: &[&str]) -> Vec<String> {
    let url = server.url("/mcp?key=hunter2").replace("//", "//user:hunter2@");
    let args =
        [&[url.as_str(), "--header", "X-Key: ${KEY}", "--timeout", "0.2", "--log-level", "trace"], args].concat();
    let mut bridge = Bridge::spawn(command(args).env("MCP_AUTH", "Bearer hunter2").env("KEY", "hunter2"));
    bridge.ask(INITIALIZE);
    bridge.send(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
    bridge.ask(&request(1, "tools/list"));
    bridge.ask(&request(2, "hang"));
    let ended = bridge.finish();
    assert!(ended.status.success());
    ended.stderr
}

#[test]
fn r10_trace_log_contains_no_secrets_in_text_or_json() {
    let server = Server::start();
    for args in [&[][..], &["--log-format", "json"], &["--proxy", &server.url("").replace("//", "//u:hunter2@")]] {
        let log = talk(&server, args);
        assert!(log.len() > 5, "trace logs something: {log:?}");
        for line in log {
            assert!(!line.contains("hunter2"), "{line}");
            assert!(!line.contains('\x1b'), "colour: {line}");
        }
    }
    assert_eq!(server.wait_for(|request| request.method == "POST").header("x-key"), Some("hunter2"));
}

#[test]
fn r10_connect_errors_and_log_contain_no_secrets() {
    let url = "http://user:hunter2@localhost:1/mcp?key=hunter2";
    let mut bridge = Bridge::start([url, "--auth", "Bearer hunter2", "--log-level", "trace"]);
    let answer = bridge.ask(&request(1, "tools/list")).to_string();
    assert!(answer.contains("localhost:1") && !answer.contains("hunter2"), "{answer}");
    let log = bridge.finish().stderr.join("\n");
    assert!(!log.is_empty() && !log.contains("hunter2"), "{log}");
}

#[test]
fn json_log_lines_are_valid_json() {
    for line in talk(&Server::start(), &["--log-format", "json"]) {
        let event: Value = serde_json::from_str(&line).unwrap();
        assert!(event["level"].is_string() && event["target"].is_string(), "{line}");
    }
}

#[test]
fn log_is_empty_by_default_and_follows_the_log_level() {
    let server = Server::start();
    let log = |command: &mut std::process::Command| {
        let mut bridge = Bridge::spawn(command);
        bridge.ask(INITIALIZE);
        bridge.finish().stderr
    };
    let url = server.url("/mcp");
    assert!(log(&mut command([&url])).is_empty());
    // A token without a scheme causes a warning.
    let no_scheme = || {
        let mut command = command([&url]);
        command.env("MCP_AUTH", "hunter2");
        command
    };
    let [line] = log(&mut no_scheme()).try_into().unwrap();
    assert!(line.contains("WARN") && line.contains("Bearer TOKEN") && !line.contains("hunter2"), "{line}");
    for name in ["off", "None", "DISABLE", "false", "0", "ERROR", "critical"] {
        assert!(log(no_scheme().env("MCP_WRAPPER_LOG_LEVEL", name)).is_empty(), "{name}");
        assert!(log(no_scheme().env("LOG_LEVEL", name)).is_empty(), "{name}");
    }
    assert!(log(no_scheme().args(["--log-level", ""])).is_empty());
    let info = log(no_scheme().args(["--log-level", "nonsense"])).join("\n");
    assert!(info.contains("INFO") && !info.contains("DEBUG"), "{info}");
}

#[test]
fn r93_plain_http_to_another_host_causes_a_logged_warning() {
    let log = |url: &str| Bridge::start([url]).finish().stderr.join("\n");
    assert!(log("http://example.com/mcp").contains("use https"));
    assert_eq!(log("https://example.com/mcp"), "");
    assert_eq!(log("http://localhost/mcp"), "");
}

#[test]
fn ignored_forge_content_type_variable_causes_a_warning() {
    let log = |kind| {
        Bridge::spawn(command(["http://localhost/mcp"]).env("FORGE_CONTENT_TYPE", kind)).finish().stderr.join("\n")
    };
    assert!(log("application/x-www-form-urlencoded").contains("FORGE_CONTENT_TYPE is ignored"));
    assert_eq!(log("application/json"), "");
    assert_eq!(log(""), "");
}

#[test]
fn log_file_is_appended_to_and_has_mode_0600() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let server = Server::start();
    assert!(talk(&server, &["--log-file", path.to_str().unwrap()]).is_empty());
    let first = std::fs::read_to_string(&path).unwrap();
    assert!(first.lines().count() > 5 && !first.contains("hunter2"));
    #[cfg(unix)]
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions()) & 0o777, 0o600);

    let mut bridge = Bridge::spawn(command([server.url("/mcp")]).env("MCP_LOG_FILE", &path).env("LOG_LEVEL", "info"));
    bridge.ask(INITIALIZE);
    assert!(bridge.finish().stderr.is_empty());
    let both = std::fs::read_to_string(&path).unwrap();
    assert!(both.starts_with(&first) && both.len() > first.len());
}

/// Server events that are not messages, or that no request waits for.
const BAD: [(&str, &[u8]); 4] = [
    ("utf8", b"{\"method\":\"\xff is invalid: the client receives a replacement character instead, in each event\"}"),
    ("json", b"{{{ not JSON, like an HTML page that a gateway sends instead of an answer"),
    ("ids", br#"{"jsonrpc":"2.0","id":"nobody","result":{}}"#),
    ("requests", br#"{"jsonrpc":"2.0","id":7,"method":"sampling/createMessage"}"#),
];

/// Returns how many of these events make 18 MB.
fn many(bad: &[u8]) -> usize {
    18_000_000 / (bad.len() + b"data: \n\n".len())
}

/// The limit of the log during a flood, in bytes: a few lines and a count.
const MAX_BYTES: usize = 64 << 10;

/// Asserts that the log is short, and that the logged and counted lines add up to `total`.
fn is_bounded(what: &str, log: &[String], part: &str, total: Option<u64>) {
    let bytes: usize = log.iter().map(|line| line.len() + 1).sum();
    assert!(bytes < MAX_BYTES, "{what}: {bytes} bytes");
    let told: Vec<_> = log.iter().filter(|line| line.contains(part)).collect();
    assert!(!told.is_empty(), "{what}: {log:#?}");
    let Some(total) = total else { return };
    let count = |line: &&String| {
        let (before, _) = line.split_once(" more like it")?;
        before.rsplit(|c: char| !c.is_ascii_digit()).next()?.parse::<u64>().ok()
    };
    let counted: u64 = told.iter().filter_map(count).sum();
    let said = told.iter().filter(|line| count(line).is_none()).count() as u64;
    assert_eq!(counted + said, total, "{what}: {told:#?}");
    assert!(said >= 1, "{what}: the first is logged");
}

#[test]
fn invalid_server_events_do_not_flood_the_log() {
    let origin = scripted(|request| match request.body["method"].as_str() {
        Some(kind) => {
            let (_, bad) = BAD.iter().find(|(name, _)| *name == kind).unwrap();
            let event = |data: &[u8]| [b"data: ", data, b"\n\n"].concat();
            let answer = serde_json::json!({"jsonrpc": "2.0", "id": request.body["id"], "result": {}}).to_string();
            reply("200 OK", EVENTS, [event(bad).repeat(many(bad)), event(answer.as_bytes())].concat())
        }
        None => reply("405 No", "", ""),
    });
    for ((kind, bad), form) in BAD.into_iter().zip(["text", "text", "json", "json"]) {
        let mut bridge = Bridge::start([&format!("{origin}/mcp"), "--log-level", "info", "--log-format", form]);
        let meta = r#"{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}"#;
        let params = if kind == "requests" { meta } else { "{}" };
        bridge.send(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{kind}","params":{params}}}"#));
        // A legacy server's messages reach the client, repaired if need be.
        while bridge.answer()["id"] != 1 {}
        let log = bridge.finish().stderr;
        let total = Some(many(bad) as u64);
        match kind {
            "utf8" => is_bounded(kind, &log, "not UTF-8", total),
            "requests" => is_bounded(kind, &log, "sent a request", total),
            // Logged only at lower levels.
            _ => is_bounded(kind, &log, "ended", None),
        }
    }
}

#[test]
fn invalid_client_lines_do_not_flood_the_log() {
    const LINES: usize = 100_000;

    let server = Server::start();
    let mut bridge = Bridge::start([server.url("/mcp")]);
    let mut sent = 0;
    for number in 0..LINES {
        // Lines that differ, and lines that repeat.
        let line = if number % 2 == 0 { format!("{{\"id\":{number},\"x{number}\":{number}}}") } else { "x".repeat(90) };
        sent += line.len() + 1;
        bridge.send(&line);
        assert!(bridge.answer()["error"].is_object());
    }
    assert!(sent > 5_000_000, "{sent}");
    is_bounded("lines", &bridge.finish().stderr, "no message", Some(LINES as u64));
}

#[test]
fn failed_notifications_do_not_flood_the_log() {
    const MESSAGES: u64 = 2_000;

    let padding = "x".repeat(3000);
    let page = format!("{padding}, the end of every page");
    let origin = scripted(move |request| match request.body["method"].as_str() {
        Some("ping") => reply("200 OK", JSON, serde_json::json!({"jsonrpc": "2.0", "id": 1, "result": {}}).to_string()),
        _ => reply("500 No", "", &page),
    });
    let mut bridge = Bridge::start([&format!("{origin}/mcp")]);
    for number in 0..MESSAGES {
        bridge.send(&format!(r#"{{"jsonrpc":"2.0","method":"notifications/{number}{padding}"}}"#));
        if number % 20 == 0 {
            bridge.ask(&request(1, "ping"));
        }
    }
    let log = bridge.finish().stderr;
    is_bounded("messages", &log, "did not take a message", None);
    assert!(log.iter().all(|line| line.len() < 4096), "each field has a limit: {log:#?}");
    assert!(log[0].contains('…'), "and says so: {}", log[0]);
}

#[test]
fn repeated_log_lines_do_not_hide_a_new_one() {
    let server = Server::start();
    let mut bridge = Bridge::start([server.url("/mcp")]);
    for line in ["x"; 500].into_iter().chain(["{}"]).chain(["x"; 500]) {
        bridge.send(line);
        bridge.answer();
    }
    let log = bridge.finish().stderr;
    let [first, new, count] = log.as_slice() else { panic!("{log:#?}") };
    assert!(
        first.contains("no JSON:") && new.contains("no JSON-RPC message") && count.contains("999 more like it"),
        "{log:#?}"
    );
}

/// Some clients never read their child's stderr. With many log lines its pipe fills up.
#[cfg(target_os = "linux")]
#[test]
fn unread_stderr_does_not_block_the_bridge() {
    const WARNINGS: u32 = 200;

    let server = Server::start();
    let (reader, writer) = std::io::pipe().unwrap();
    rustix::pipe::fcntl_setpipe_size(&writer, 4096).unwrap();
    let mut bridge = Bridge::spawn(command([&server.url("/mcp"), "--log-level", "debug"]).stderr(writer));
    for id in 0..WARNINGS {
        bridge.send("no JSON");
        assert_eq!(bridge.answer()["error"]["code"], -32700);
        bridge.ask(&request(id, "ping"));
    }
    assert!(bridge.finish().status.success());
    let log = std::io::read_to_string(reader).unwrap();
    assert!((1..WARNINGS as usize).contains(&log.lines().count()), "the pipe was full: {log}");
}

#[cfg(unix)]
#[test]
fn bridge_continues_when_its_log_cannot_be_written() {
    let server = Server::start();
    let (reader, closed) = std::io::pipe().unwrap();
    drop(reader);
    let args = [server.url("/mcp"), "--log-level".into(), "trace".into()];
    let mut bridge = Bridge::spawn(command(&args).stderr(closed));
    bridge.ask(INITIALIZE);
    bridge.ask(&request(1, "ping"));
    assert!(bridge.finish().status.success());

    if std::path::Path::new("/dev/full").exists() {
        let mut bridge = Bridge::spawn(command(&args).env("MCP_LOG_FILE", "/dev/full"));
        bridge.ask(INITIALIZE);
        bridge.ask(&request(1, "ping"));
        let ended = bridge.finish();
        assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
    }
}
