//! The end of the process (R8): the end of stdin, signals, a closed stdout, the death of the parent.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use rustix::process::Signal;

use crate::support::{Bridge, GRACE, INITIALIZE, LIMIT, Server, command, lines, request};

#[test]
fn r8_the_end_of_stdin_ends_the_process() {
    let server = Server::start();
    assert!(Bridge::start([server.url("/mcp")]).finish().status.success(), "before the first message");

    let mut bridge = Bridge::start([server.url("/mcp")]);
    bridge.ask(INITIALIZE);
    bridge.close_stdin();
    let ended = bridge.end(GRACE);
    assert_eq!(ended.status.code(), Some(0));
    assert!(ended.stdout.is_empty() && ended.stderr.is_empty(), "{ended:?}");
    server.wait_for(|request| request.method == "DELETE" && request.header("mcp-session-id") == Some("abc"));
}

#[test]
fn r8_signal_fails_pending_requests_and_ends_the_process() {
    for signal in [Signal::TERM, Signal::INT] {
        let server = Server::start();
        let mut bridge = Bridge::start([server.url("/mcp")]);
        bridge.ask(INITIALIZE);
        bridge.send(&request(7, "hang"));
        server.wait_for(|request| request.calls("hang"));
        bridge.signal(signal);
        let ended = bridge.end(GRACE);
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        let [line] = ended.stdout.try_into().expect("one answer");
        let answer: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&7.into(), &(-32603).into()), "{answer}");
        let data = &answer["error"]["data"];
        assert_eq!((&data["source"], &data["kind"]), (&"mcp-gangway".into(), &"shutdown".into()), "{answer}");
        assert_eq!(data["mayHaveRun"], true, "{answer}");
    }
}

#[test]
fn r8_signal_cuts_the_drain_short() {
    let server = Server::start();
    let mut bridge = Bridge::start([&server.url("/mcp"), "--drain-timeout", "600"]);
    bridge.send(&request(7, "hang"));
    server.wait_for(|request| request.calls("hang"));
    bridge.close_stdin();
    bridge.signal(Signal::TERM);
    assert_eq!(bridge.answer()["error"]["data"]["kind"], "shutdown");
    assert_eq!(bridge.end(LIMIT).status.code(), Some(0));
}

#[test]
fn second_signal_ends_the_process_with_the_signal_status() {
    for (first, second, status) in [(Signal::INT, Signal::TERM, 143), (Signal::TERM, Signal::INT, 130)] {
        let server = Server::start();
        let mut bridge = Bridge::start([&server.url("/mcp"), "--log-level", "info"]);
        bridge.ask(INITIALIZE);
        bridge.send(&request(7, "hang"));
        server.wait_for(|request| request.calls("hang"));
        bridge.signal(first);
        bridge.wait_for_log("asks the bridge to end");
        bridge.signal(second);
        assert_eq!(bridge.end(LIMIT).status.code(), Some(status));
    }
}

/// A launcher passes on a signal that the terminal has sent to the bridge too.
#[test]
fn copy_of_a_signal_is_not_a_second_signal() {
    let server = Server::start();
    let mut bridge = Bridge::start([&server.url("/mcp"), "--log-level", "info"]);
    bridge.ask(INITIALIZE);
    bridge.send(&request(7, "hang"));
    server.wait_for(|request| request.calls("hang"));
    bridge.signal(Signal::INT);
    bridge.wait_for_log("asks the bridge to end");
    bridge.signal(Signal::INT);
    assert_eq!(bridge.end(GRACE).status.code(), Some(0));
}

#[test]
fn r8_closed_stdout_ends_the_process() {
    let server = Server::start();
    let (reader, writer) = std::io::pipe().unwrap();
    let mut bridge = Bridge::spawn(command([server.url("/mcp")]).stdout(writer));
    bridge.send(INITIALIZE);
    let mut reader = BufReader::new(reader);
    reader.read_line(&mut String::new()).unwrap();
    drop(reader);
    bridge.send(&request(1, "ping"));
    let ended = bridge.end(LIMIT);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    server.wait_for(|request| request.method == "DELETE");
}

/// A killed client sends no signal, and here its child's stdin stays open in this process.
#[test]
fn r8_parent_death_ends_the_process() {
    let server = Server::start();
    let bridge = command([server.url("/mcp")]);
    // A shell is the parent. It passes its stdin and stdout to the bridge, and waits.
    let mut parent = Command::new("/bin/sh")
        .args(["-c", r#"exec 3<&0; "$0" "$1" <&3 & exec 3<&-; wait"#])
        .arg(bridge.get_program())
        .args(bridge.get_args())
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = parent.stdin.take().unwrap();
    let stdout = lines(parent.stdout.take().unwrap());
    std::io::Write::write_all(&mut stdin, format!("{INITIALIZE}\n").as_bytes()).unwrap();
    stdout.recv_timeout(LIMIT).expect("the bridge answers");

    parent.kill().unwrap();
    parent.wait().unwrap();
    let end = stdout.recv_timeout(LIMIT);
    assert_eq!(end, Err(std::sync::mpsc::RecvTimeoutError::Disconnected), "the bridge has closed its stdout");
    server.wait_for(|request| request.method == "DELETE");
    drop(stdin);
}
