//! Options and variables take effect: at the server, or in the answers.

use std::{net::TcpListener, time::Duration};

use crate::support::{Bridge, INITIALIZE, LIMIT, Server, command, request};

/// Runs a session with one request, and returns the first POST that the server received.
fn first_post(server: &Server, command: &mut std::process::Command) -> crate::support::Request {
    let mut bridge = Bridge::spawn(command);
    assert_eq!(bridge.ask(INITIALIZE)["result"]["serverInfo"]["name"], "initialize");
    assert!(bridge.finish().status.success());
    server.wait_for(|request| request.calls("initialize"))
}

#[test]
fn upstream_url_and_auth_options_reach_the_server() {
    let server = Server::start();
    let post = first_post(&server, &mut command(["--url", &server.url("/mcp?key=a%20b"), "--auth", "Bearer a.b-c=="]));
    assert_eq!(post.target, "/mcp?key=a%20b");
    assert_eq!(post.header("authorization"), Some("Bearer a.b-c=="));
}

#[test]
fn upstream_url_and_auth_variables_reach_the_server() {
    let server = Server::start();
    let post = first_post(
        &server,
        command([] as [&str; 0])
            .env("MCP_SERVER_URL", server.url("/x/mcp/"))
            .env("MCP_AUTH", "Custom  verbatim, please"),
    );
    assert_eq!(post.target, "/x/mcp/");
    assert_eq!(post.header("authorization"), Some("Custom  verbatim, please"));
}

#[test]
fn r97_configured_headers_are_sent_to_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("headers");
    std::fs::write(&file, "# for all\nX-File: from ${PLACE}\n").unwrap();
    let server = Server::start();
    let url = server.url("/mcp");
    let post = first_post(
        &server,
        command([
            &url,
            "--header",
            "X-Key:${KEY}!",
            "--header",
            "X-Other: café",
            "--header-file",
            file.to_str().unwrap(),
        ])
        .env("KEY", "0123")
        .env("PLACE", "a file")
        .env("MCP_HEADERS", "X-Variable: v\nX-Key: replaced"),
    );
    for (name, value) in [("x-key", "0123!"), ("x-other", "café"), ("x-file", "from a file"), ("x-variable", "v")] {
        assert_eq!(post.header(name), Some(value), "{name}");
    }
    // All requests of a session carry them, including its DELETE.
    assert_eq!(server.wait_for(|request| request.method == "DELETE").header("x-key"), Some("0123!"));
}

#[cfg(unix)]
#[test]
fn auth_command_output_is_sent_as_authorization_header() {
    let server = Server::start();
    let url = server.url("/mcp");
    let args =
        [&url, "--auth-command", "/bin/echo '  Custom  \"a b\"' ", "--header", "X-Key: k", "--log-level", "trace"];
    let mut bridge = Bridge::spawn(command(args).env("MCP_AUTH", "Bearer hunter2"));
    assert_eq!(bridge.ask(INITIALIZE)["result"]["serverInfo"]["name"], "initialize");
    let ended = bridge.finish();
    assert!(!ended.stderr.iter().any(|line| line.contains("a b") || line.contains("hunter2")), "{ended:?}");
    for method in ["POST", "DELETE"] {
        let request = server.wait_for(|request| request.method == method);
        assert_eq!(request.header("authorization"), Some("Custom  \"a b\""), "{method}");
        assert_eq!(request.header("x-key"), Some("k"), "{method}");
    }

    // From the second run on, it prints another value.
    let folder = tempfile::tempdir().unwrap();
    let count = folder.path().join("count");
    let script = "echo >>$0; if [ $(wc -l <$0) = 1 ]; then echo Bearer stale; else echo Bearer fresh; fi";
    let text = format!("/bin/sh -c '{script}' {}", count.display());
    let mut bridge = Bridge::spawn(command([&url]).env("MCP_AUTH_COMMAND", text).env("PATH", "/usr/bin:/bin"));
    assert_eq!(bridge.ask(INITIALIZE)["result"]["serverInfo"]["name"], "initialize");
    assert!(bridge.ask(&request(1, "x"))["result"].is_object());
    bridge.finish();
    assert_eq!(std::fs::read_to_string(count).unwrap(), "\n\n", "run before the first request, and on the 401");
}

#[cfg(unix)]
#[test]
fn failing_auth_command_is_reported_and_no_request_is_sent() {
    let server = Server::start();
    let url = server.url("/mcp");
    for (text, part) in [
        ("/bin/sh -c 'echo hunter2; echo hunter2 >&2; exit 3'", "--auth-command: the command failed (exit status: 3)"),
        ("/hunter2/does/not/exist", "--auth-command: the command cannot be started"),
        ("true", "--auth-command: the command printed nothing"),
        ("echo Bearer", "--auth-command: "),
    ] {
        let arguments = [&url, "--auth-command", text, "--log-level", "trace"];
        let mut bridge = Bridge::spawn(command(arguments).env("PATH", "/usr/bin:/bin"));
        let answer = bridge.ask(INITIALIZE);
        assert!(answer["error"]["message"].as_str().unwrap().starts_with(part), "{answer}");
        assert_eq!(answer["error"]["data"]["mayHaveRun"], false, "{answer}");
        let ended = bridge.finish();
        assert!(!format!("{answer} {ended:?}").contains("hunter2"), "{answer} {ended:?}");
    }
    server.expect_nothing();
}

#[test]
fn header_file_is_reread_after_a_401_response() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("headers");
    std::fs::write(&file, "Authorization: Bearer stale\n").unwrap();
    let server = Server::start();
    let mut bridge = Bridge::start([&server.url("/mcp"), "--header-file", file.to_str().unwrap()]);
    // If the file did not change, the request is not sent again.
    let refused = bridge.ask(INITIALIZE);
    assert_eq!(refused["error"]["data"]["httpStatus"], 401, "{refused}");
    std::fs::write(&file, "Authorization: Bearer fresh\nX-Key: k\n").unwrap();
    assert_eq!(bridge.ask(INITIALIZE)["result"]["serverInfo"]["name"], "initialize");
    assert!(bridge.finish().status.success());
    let request = server.wait_for(|request| request.method == "DELETE");
    assert_eq!((request.header("authorization"), request.header("x-key")), (Some("Bearer fresh"), Some("k")));
}

#[test]
fn requests_to_contextforge_urls_use_the_mcp_path() {
    const ID: &str = "0b6e4a1c-9f5d-4c2e-8a7b-3d1f5e9c8a70";
    for (given, reached) in [
        (format!("/servers/{ID}"), format!("/servers/{ID}/mcp")),
        (format!("/servers/{ID}/"), format!("/servers/{ID}/mcp")),
        (format!("/gateway/servers/{ID}/sse?a=b"), format!("/gateway/servers/{ID}/mcp?a=b")),
        (format!("/servers/{ID}/mcp"), format!("/servers/{ID}/mcp")),
        ("/servers/mine/sse".into(), "/servers/mine/sse".into()),
        ("/sse".into(), "/sse".into()),
        (String::new(), "/".into()),
    ] {
        let server = Server::start();
        assert_eq!(first_post(&server, &mut command([server.url(&given)])).target, reached);
    }
}

#[test]
fn request_timeout_options_take_effect() {
    let server = Server::start();
    let url = server.url("/mcp");
    for (args, variable) in
        [(&["--timeout", "0.3"][..], ""), (&["--max-time", "0.3"], ""), (&[], "0.3"), (&["--timeout", "0.3"], "900")]
    {
        let mut bridge =
            Bridge::spawn(command([&[url.as_str()], args].concat()).env("MCP_TOOL_CALL_TIMEOUT", variable));
        let error = &bridge.ask(&request(7, "hang"))["error"];
        assert_eq!((&error["data"]["kind"], &error["data"]["source"]), (&"timeout".into(), &"mcp-gangway".into()));
    }
}

#[test]
fn the_concurrency_limit_takes_effect() {
    let server = Server::start();
    let url = server.url("/mcp");
    for (args, variable, first) in [(&["--concurrency", "1"][..], "8", 1), (&[], "1", 1), (&[], "", 2)] {
        let args = [&[url.as_str(), "--timeout", "0.5"], args].concat();
        let mut bridge = Bridge::spawn(command(args).env("CONCURRENCY", variable));
        bridge.send(&request(1, "hang"));
        bridge.send(&request(2, "echo"));
        assert_eq!(bridge.answer()["id"], first, "with {variable:?}");
    }
}

#[test]
fn r93_proxy_is_used_except_for_no_proxy_hosts() {
    let proxy = Server::start();
    let url = "http://server.invalid/mcp";
    let post = first_post(&proxy, &mut command([url, "--proxy", &proxy.url(""), "--log-level", "off"]));
    assert_eq!(post.target, url);
    let proxy = Server::start();
    let post = first_post(&proxy, command([url]).env("http_proxy", proxy.url("")));
    assert_eq!(post.target, url);

    let (proxy, server) = (Server::start(), Server::start());
    let args = [server.url("/mcp"), "--proxy".into(), proxy.url("")];
    let post = first_post(&server, command(args).env("NO_PROXY", "example.com,127.0.0.1"));
    assert_eq!(post.target, "/mcp");
}

#[test]
fn r9_requests_fail_while_the_server_is_down_and_work_once_it_starts() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{free}/mcp");
    let mut bridge = Bridge::start([&url, "--attach-wait", "0", "--hold", "0"]);
    for line in [INITIALIZE, &request(1, "tools/list"), &request(2, "tools/call")] {
        let error = &bridge.ask(line)["error"];
        assert_eq!((&error["code"], &error["data"]["kind"]), (&(-32603).into(), &"connect".into()), "{error}");
    }
    let _server = Server::start_at(free);
    assert!(bridge.ask(INITIALIZE)["result"].is_object());
    assert!(bridge.ask(&request(1, "tools/list"))["result"].is_object());
    assert!(bridge.finish().status.success());
}

#[test]
fn a_bridge_that_starts_before_its_server_is_attached_when_the_server_comes() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (url, folder) = (format!("http://{free}/mcp"), tempfile::tempdir().unwrap());
    let args = [&url, "--attach-wait", "0.2", "--state-folder", folder.path().to_str().unwrap()];
    let name_of = |answer: &serde_json::Value| answer["result"]["serverInfo"]["name"].clone();
    let mut bridge = Bridge::start(args);
    assert_eq!(name_of(&bridge.ask(INITIALIZE)), "mcp-gangway");
    assert_eq!(bridge.ask(&request(1, "tools/list"))["result"]["tools"], serde_json::json!([]));
    // The call waits for the server.
    bridge.send(&request(2, "tools/call"));
    let _server = Server::start_at(free);
    let answer = loop {
        let line = bridge.answer();
        if line["method"].is_null() {
            break line;
        }
        assert!(line["method"].as_str().unwrap().ends_with("/list_changed"), "{line}");
    };
    assert!(answer["id"] == 2 && answer["result"].is_object(), "{answer}");
    assert!(bridge.ask(&request(3, "tools/list"))["result"].is_object());
    assert!(bridge.finish().status.success());
    let kept = || std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(kept(), 1, "what the server said is kept for the next start");
    std::fs::remove_dir_all(folder.path()).unwrap();
    std::fs::create_dir(folder.path()).unwrap();
    let mut bridge = Bridge::start(args.into_iter().chain(["--no-cache"]));
    assert_eq!(name_of(&bridge.ask(INITIALIZE)), "initialize");
    assert!(bridge.finish().status.success());
    assert_eq!(kept(), 0);
}

#[test]
fn a_server_that_writes_down_its_port_is_found_again_at_another_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("port");
    let mut bridge = Bridge::start(["--url-file", file.to_str().unwrap(), "--attach-wait", "0.2"]);
    // There is no such file yet.
    bridge.send(INITIALIZE);
    assert_eq!(bridge.answer()["result"]["serverInfo"]["name"], "mcp-gangway");
    let one = Server::start();
    std::fs::write(&file, one.url("/mcp").rsplit_once(':').unwrap().1.trim_end_matches("/mcp")).unwrap();
    bridge.send(&request(1, "tools/call"));
    one.wait_for(|request| request.calls("tools/call"));
    assert!(bridge.finish().status.success());
}

#[test]
fn r8_pending_requests_are_drained_after_stdin_ends() {
    let server = Server::start();
    let mut bridge = Bridge::start([server.url("/mcp")]);
    bridge.send(INITIALIZE);
    bridge.send(&request(1, "tools/list"));
    let ended = bridge.finish();
    assert!(ended.status.success());
    assert_eq!(ended.stdout.len(), 2, "{ended:?}");

    let mut bridge = Bridge::start([server.url("/mcp"), "--drain-timeout".into(), "0.2".into()]);
    bridge.send(&request(1, "hang"));
    bridge.close_stdin();
    let error = &bridge.answer()["error"];
    assert_eq!(error["data"]["kind"], "shutdown");
    assert!(bridge.end(LIMIT.min(Duration::from_secs(4))).status.success());
}

#[test]
fn proxy_comes_from_option_or_variables_and_no_proxy_bypasses_it() {
    // The server answers every request, as the proxy of a host that does not exist.
    const ELSEWHERE: &str = "http://mcp.invalid/mcp";
    let proxy = Server::start();
    let with_user = proxy.url("").replace("http://", "http://user:p%40ss@");
    for (args, variable) in [
        (&[ELSEWHERE, "--proxy", &with_user][..], None),
        (&[ELSEWHERE], Some("HTTP_PROXY")),
        (&[ELSEWHERE], Some("all_proxy")),
    ] {
        let mut command = command(args);
        if let Some(name) = variable {
            command.env(name, &with_user);
        }
        let post = first_post(&proxy, &mut command);
        assert_eq!(post.target, ELSEWHERE, "{variable:?}");
        assert_eq!(post.header("proxy-authorization"), Some("Basic dXNlcjpwQHNz"), "{variable:?}");
    }
    // Bypasses the proxy, which does not exist.
    let server = Server::start();
    for (args, name, value) in [
        (&["--proxy", "http://hunter2@localhost:1"][..], "NO_PROXY", "example.com, 127.0.0.0/8"),
        (&[], "HTTP_PROXY", ""),
    ] {
        let url = server.url("/mcp");
        let post = first_post(&server, command([&[url.as_str()], args].concat()).env(name, value));
        assert_eq!((post.target.as_str(), post.header("proxy-authorization")), ("/mcp", None));
    }
}

#[test]
fn proxy_connect_error_names_the_proxy_without_credentials() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let proxy = format!("http://user:hunter2@{closed}");
    for url in ["http://mcp.invalid/mcp", "https://mcp.invalid/mcp"] {
        let mut bridge =
            Bridge::spawn(&mut command([url, "--log-level", "trace", "--proxy", &proxy, "--attach-wait", "0"]));
        let error = bridge.ask(INITIALIZE)["error"].clone();
        assert_eq!(error["data"]["kind"], "connect", "{error}");
        assert!(error["message"].as_str().unwrap().contains(&format!("the proxy http://{closed}")), "{error}");
        let ended = bridge.finish();
        let all = format!("{error} {ended:?}");
        assert!(!all.contains("hunter2") && ended.stderr.iter().any(|line| line.contains("the proxy")), "{all}");
    }
}
