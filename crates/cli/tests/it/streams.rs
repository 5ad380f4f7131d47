//! Stdin and stdout in all forms that clients use, and the flags of shared descriptors.

use std::{
    fs::File,
    io::{Read, Seek, Write, pipe},
    net::Shutdown,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::Stdio,
};

use rustix::{
    fs::{Mode, OFlags, fcntl_getfl},
    process::Signal,
};

use crate::support::{Bridge, GRACE, INITIALIZE, LIMIT, Server, command, lines, request};

fn is_nonblocking(descriptor: impl AsFd) -> bool {
    fcntl_getfl(descriptor).unwrap().contains(OFlags::NONBLOCK)
}

/// Node.js gives a child one end of a socket pair for each of its streams.
#[test]
fn socket_pairs_work_as_stdin_and_stdout_and_stay_blocking() {
    let server = Server::start();
    let (mut stdin, childs_stdin) = UnixStream::pair().unwrap();
    let (stdout, childs_stdout) = UnixStream::pair().unwrap();
    let shared = [childs_stdin.try_clone().unwrap(), childs_stdout.try_clone().unwrap()];
    let bridge = Bridge::spawn(
        command([server.url("/mcp")]).stdin(OwnedFd::from(childs_stdin)).stdout(OwnedFd::from(childs_stdout)),
    );
    stdin.write_all(format!("{INITIALIZE}\n{}\n", request(1, "ping")).as_bytes()).unwrap();
    let answers = lines(stdout);
    for _ in 0..2 {
        answers.recv_timeout(LIMIT).expect("an answer");
    }
    for descriptor in &shared {
        assert!(!is_nonblocking(descriptor));
    }
    stdin.shutdown(Shutdown::Write).unwrap();
    assert!(bridge.end(LIMIT).status.success());
}

/// One socket for both directions, as some launchers use it.
#[test]
fn one_socket_works_as_both_stdin_and_stdout() {
    let server = Server::start();
    let (mut client, childs) = UnixStream::pair().unwrap();
    let bridge = Bridge::spawn(
        command([server.url("/mcp")]).stdin(OwnedFd::from(childs.try_clone().unwrap())).stdout(OwnedFd::from(childs)),
    );
    client.write_all(format!("{INITIALIZE}\n").as_bytes()).unwrap();
    let answers = lines(client.try_clone().unwrap());
    answers.recv_timeout(LIMIT).expect("an answer");
    client.shutdown(Shutdown::Write).unwrap();
    assert!(bridge.end(LIMIT).status.success());
}

#[test]
fn files() {
    let server = Server::start();
    let mut input = tempfile::tempfile().unwrap();
    input.write_all(format!("{INITIALIZE}\n{}", request(1, "ping")).as_bytes()).unwrap();
    input.rewind().unwrap();
    let mut output = tempfile::tempfile().unwrap();
    let bridge = Bridge::spawn(command([server.url("/mcp")]).stdin(input).stdout(output.try_clone().unwrap()));
    let ended = bridge.end(LIMIT);
    assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
    let mut text = String::new();
    output.rewind().unwrap();
    output.read_to_string(&mut text).unwrap();
    assert_eq!(text.lines().count(), 2, "{text}");
}

#[test]
fn r8_dev_null_as_stdin_or_stdout_ends_the_process_cleanly() {
    let ended =
        Bridge::spawn(command(["http://localhost:1/mcp"]).stdin(Stdio::null()).stdout(Stdio::null())).end(GRACE);
    assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
    let full = File::options().write(true).open("/dev/null").unwrap();
    assert!(Bridge::spawn(command(["http://localhost:1/mcp"]).stdout(full)).finish().status.success());
}

/// A thread that reads the terminal cannot be woken. It must not delay the exit.
#[test]
fn r8_signal_ends_a_process_that_reads_a_terminal() {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    let server = Server::start();
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap();
    let mut terminal = File::from(terminal);
    let stdin = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
    let bridge = Bridge::spawn(command([server.url("/mcp")]).stdin(stdin));
    terminal.write_all(format!("{INITIALIZE}\n").as_bytes()).unwrap();
    assert_eq!(bridge.answer()["id"], 0);
    bridge.signal(Signal::TERM);
    assert_eq!(bridge.end(GRACE).status.code(), Some(0));
}

/// `O_NONBLOCK` belongs to the open file description, which processes share: setting it breaks other processes'
/// writes.
#[test]
fn shared_pipes_stay_in_blocking_mode() {
    let server = Server::start();
    let (childs_stdin, stdin) = pipe().unwrap();
    let (output, childs_output) = pipe().unwrap();
    let shared = [OwnedFd::from(childs_stdin.try_clone().unwrap()), childs_output.try_clone().unwrap().into()];
    let check = || {
        for descriptor in &shared {
            assert!(!is_nonblocking(descriptor));
        }
        assert!(!is_nonblocking(&stdin) && !is_nonblocking(&output));
    };
    check();
    let mut bridge = command([&server.url("/mcp"), "--log-level", "debug"]);
    let bridge = bridge.stdin(childs_stdin).stdout(childs_output.try_clone().unwrap()).stderr(childs_output);
    let bridge = Bridge::spawn(bridge);
    let said = lines(output.try_clone().unwrap());
    (&stdin).write_all(format!("{INITIALIZE}\n").as_bytes()).unwrap();
    while !said.recv_timeout(LIMIT).expect("an answer").contains("serverInfo") {}
    check();
    drop(stdin);
    assert!(bridge.end(LIMIT).status.success());
    for descriptor in &shared {
        assert!(!is_nonblocking(descriptor));
    }
}
