//! Servers that are not there when the client starts: the handshake is answered all the same, lists come from the last
//! time or are empty, and other requests wait. Each request gets one answer, and no call runs that the client was told
//! has failed.

use std::{path::Path, time::Duration};

use mcp_gangway_core::Config;
use serde_json::{Value, json};
use tokio::net::TcpSocket;

use crate::support::{
    Client, INITIALIZED, SOON, Server, VERSION, call, cancel, closed_port, dialogue, modern, modern_call, request,
    response, within,
};

/// A time that no test waits for.
const LONG: Duration = Duration::from_secs(50);

/// Settings for a server at this address, with these limits.
fn config(address: impl std::fmt::Display, attach: Duration, hold: Duration) -> Config {
    let mut config = Config::new(&format!("http://{address}/mcp")).unwrap();
    config.proxy = mcp_gangway_core::Proxy::None;
    config.timeouts.retry = SOON;
    config.timeouts.reconnect = SOON;
    config.timeouts.attach = Some(attach);
    config.timeouts.hold = hold;
    config
}

/// Starts a server on the port that was closed.
fn comes_up(socket: TcpSocket) -> Server {
    Server::on(socket.listen(16).unwrap(), None)
}

/// Takes a provisional answer to the handshake.
async fn promised(client: &mut Client) -> Value {
    client.initialize().await;
    let promised = client.value("a provisional answer").await;
    assert_eq!(promised["id"], "init", "{promised}");
    client.send(INITIALIZED).await;
    promised["result"].clone()
}

/// Answers the handshake that the bridge makes, with these capabilities, and its `initialized`.
async fn attached(server: &mut Server, capabilities: &str) {
    let initialize = server.post().await;
    assert_eq!(initialize.rpc_method(), "initialize", "{}", initialize.text());
    answer_handshake(initialize, capabilities).await;
    let begun = server.post().await;
    assert_eq!((begun.rpc_method().as_str(), begun.header("mcp-session-id")), ("notifications/initialized", Some("s")));
    begun.accepted().await;
}

async fn answer_handshake(initialize: crate::support::Exchange, capabilities: &str) -> String {
    let result = format!(
        r#"{{"protocolVersion":"{VERSION}","capabilities":{capabilities},"serverInfo":{{"name":"s","version":"1"}}}}"#
    );
    let answer = response(&initialize.id().unwrap(), &result);
    initialize.respond(200, &[("Content-Type", "application/json"), ("Mcp-Session-Id", "s")], &answer).await;
    answer
}

/// Returns the notifications that all lists have changed.
fn all_changed() -> Vec<String> {
    let told = |list| format!(r#"{{"jsonrpc":"2.0","method":"notifications/{list}/list_changed"}}"#);
    ["tools", "resources", "prompts"].map(told).to_vec()
}

#[tokio::test]
async fn a_client_that_starts_before_its_server_is_attached_when_the_server_comes() {
    let (socket, address) = closed_port();
    let mut client = Client::start(config(address, Duration::from_millis(50), LONG));
    let promised = promised(&mut client).await;
    assert_eq!(promised["protocolVersion"], VERSION);
    assert_eq!(promised["capabilities"]["tools"], json!({"listChanged": true}));
    assert_eq!(promised["serverInfo"]["name"], "mcp-gangway");
    client.send(request("1", "ping", "{}")).await;
    client.expect(response("1", "{}")).await;
    client.send(request("2", "tools/list", "{}")).await;
    client.expect(response("2", r#"{"tools":[]}"#)).await;
    // A call waits, and reaches the server once.
    client.send(call("3")).await;
    let mut server = comes_up(socket);
    attached(&mut server, r#"{"tools":{}}"#).await;
    let post = server.post_of("3").await;
    assert_eq!((post.text(), post.header("mcp-session-id")), (call("3").as_str(), Some("s")));
    let answer = post.answer("{}").await;
    client.expect_all(all_changed().into_iter().chain([answer])).await;
    client.send(request("4", "tools/list", "{}")).await;
    let answer = server.post().await.answer(r#"{"tools":[{"name":"t"}]}"#).await;
    client.expect(answer).await;
    client.has_session("s");
    client.finish(&mut server).await;
}

#[tokio::test]
async fn a_held_call_fails_with_what_it_waited_for_and_did_not_run() {
    let (_socket, address) = closed_port();
    let mut client = Client::start(config(address, LONG, Duration::from_millis(200)));
    promised(&mut client).await;
    client.send(call("1")).await;
    let failure = client.expect_error("1").await;
    assert_eq!(failure.kind(), "connect");
    let waited = "waited 0 s for the server, which is not there yet: cannot connect to http://127.0.0.1";
    assert!(failure.message.starts_with(waited), "{failure:?}");
    assert_eq!(failure.data["mayHaveRun"], false);
}

#[tokio::test]
async fn a_held_call_that_is_cancelled_is_never_sent() {
    let (socket, address) = closed_port();
    let mut client = Client::start(config(address, Duration::ZERO, LONG));
    promised(&mut client).await;
    client.send(call("1")).await;
    client.send(call("2")).await;
    client.send(cancel("1")).await;
    client.expect_all_read().await;
    let mut server = comes_up(socket);
    attached(&mut server, "{}").await;
    let post = server.post().await;
    assert_eq!(post.text(), call("2"));
    let answer = post.answer("{}").await;
    client.expect_all(all_changed().into_iter().chain([answer])).await;
    client.has_session("s");
    client.finish(&mut server).await;
}

#[tokio::test]
async fn a_slow_answer_to_the_handshake_is_used_when_it_comes() {
    let mut server = Server::start().await;
    let mut client = Client::start(config(server.address(), Duration::from_millis(100), LONG));
    client.initialize().await;
    let initialize = server.post().await;
    assert_eq!(initialize.id().as_deref(), Some("\"init\""), "the client's own handshake goes on");
    let promised = client.value("a provisional answer").await;
    assert_eq!(promised["result"]["serverInfo"]["name"], "mcp-gangway");
    client.send(INITIALIZED).await;
    client.send(call("1")).await;
    client.expect_all_read().await;
    answer_handshake(initialize, "{}").await;
    let begun = server.post().await;
    assert_eq!(begun.rpc_method(), "notifications/initialized", "the server sees one handshake");
    begun.accepted().await;
    let answer = server.post_of("1").await.answer("{}").await;
    client.expect_all(all_changed().into_iter().chain([answer])).await;
    client.has_session("s");
    client.finish(&mut server).await;
}

#[tokio::test]
async fn gateways_without_a_server_behind_them_count_as_away() {
    for (status, is_away) in
        [(502, true), (503, true), (504, true), (522, true), (404, false), (401, false), (403, false), (500, false)]
    {
        let mut server = Server::start().await;
        let mut client = Client::start(config(server.address(), LONG, LONG));
        client.initialize().await;
        if !is_away {
            server.post().await.respond(status, &[], "no").await;
            if status == 404 {
                // Perhaps it is a server of HTTP+SSE.
                client.expect_error("\"init\"").await;
            } else {
                assert_eq!(client.expect_error("\"init\"").await.status(), Some(status.into()), "told at once");
            }
            server.expect_no_more();
            continue;
        }
        let promised = loop {
            tokio::select! {
                post = server.post() => post.respond(status, &[], "no").await,
                promised = client.value("a provisional answer") => break promised,
            }
        };
        assert_eq!(promised["result"]["serverInfo"]["name"], "mcp-gangway", "{status}");
        client.send(call("1")).await;
        loop {
            let post = server.post().await;
            if post.header("x").is_none() && post.id().as_deref() != Some("\"init\"") {
                answer_handshake(post, "{}").await;
                break;
            }
            post.respond(status, &[], "no").await;
        }
        server.post().await.accepted().await;
        server.post_of("1").await.answer("{}").await;
    }
}

#[tokio::test]
async fn a_refusal_after_the_provisional_answer_fails_the_calls_that_wait() {
    let (socket, address) = closed_port();
    let mut client = Client::start(config(address, Duration::ZERO, LONG));
    promised(&mut client).await;
    client.send(call("1")).await;
    let mut server = comes_up(socket);
    server.post().await.respond(403, &[], "no").await;
    let failure = client.expect_error("1").await;
    assert_eq!((failure.status(), failure.may_have_run()), (Some(403), false), "{failure:?}");
    // The next call makes another attempt, and sees an answer of the protocol.
    client.send(call("2")).await;
    server.post().await.refuse(200, -32_603).await;
    let failure = client.expect_error("2").await;
    assert!(failure.message.contains("the server refuses the client's handshake: no"), "{failure:?}");
    client.send(call("3")).await;
    attached(&mut server, "{}").await;
    server.post_of("3").await.answer("{}").await;
}

#[tokio::test]
async fn without_the_setting_a_server_that_is_away_is_an_error() {
    let (_socket, address) = closed_port();
    let mut settings = config(address, LONG, Duration::ZERO);
    settings.timeouts.attach = None;
    let mut client = Client::start(settings);
    client.initialize().await;
    assert_eq!(client.expect_error("\"init\"").await.kind(), "connect");
    client.send(modern("2", "server/discover", "")).await;
    assert_eq!(client.expect_error("2").await.kind(), "connect");
}

#[tokio::test]
async fn requests_of_a_provisional_session_are_answered_when_the_client_leaves() {
    let (_socket, address) = closed_port();
    let mut client = Client::start(config(address, LONG, LONG));
    promised(&mut client).await;
    client.send(call("1")).await;
    client.close_stdin();
    assert_eq!(client.expect_error("1").await.kind(), "connect");
    assert!(matches!(client.end().await, mcp_gangway_core::End::InputClosed));
    client.expect_end_of_output().await;
}

#[tokio::test]
async fn a_call_in_a_session_waits_for_a_server_that_went_away() {
    let (socket, address) = closed_port();
    let mut client = Client::start(config(address, LONG, LONG));
    client.send(call("1")).await;
    client.expect_all_read().await;
    // Longer than the usual retries take.
    tokio::time::sleep(Duration::from_millis(400)).await;
    let mut server = comes_up(socket);
    let answer = server.post_of("1").await.answer("{}").await;
    client.expect(answer).await;
    client.finish(&mut server).await;
}

/// The settings of a bridge that keeps what the server says.
fn keeping(address: impl std::fmt::Display, folder: &Path) -> Config {
    let mut config = config(address, Duration::from_millis(50), LONG);
    config.state_folder = Some(folder.to_owned());
    config
}

/// Takes the port of a server that has just ended. Its socket is closed a moment later.
async fn closed_again(address: std::net::SocketAddr) -> TcpSocket {
    loop {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        if socket.bind(address).is_ok() {
            return socket;
        }
        tokio::task::yield_now().await;
    }
}

/// Makes a bridge learn what the server offers, and returns the closed port of the server.
async fn known_server(folder: &Path) -> (TcpSocket, std::net::SocketAddr) {
    let (socket, address) = closed_port();
    socket.set_reuseaddr(true).unwrap();
    let mut server = comes_up(socket);
    let mut client = Client::start(keeping(address, folder));
    client.initialize().await;
    let capabilities = r#"{"tools":{},"logging":{}}"#;
    let answer = answer_handshake(server.post().await, capabilities).await;
    client.expect(answer).await;
    client.send(INITIALIZED).await;
    server.post().await.accepted().await;
    for (id, params, result) in [
        ("1", "{}", r#"{"tools":[{"name":"a","x":1e400}],"nextCursor":"2"}"#),
        ("2", r#"{"cursor":"2"}"#, r#"{"tools":[{"name":"b"}],"_meta":{"at":1}}"#),
    ] {
        client.send(request(id, "tools/list", params)).await;
        let answer = server.post().await.answer(result).await;
        client.expect(answer).await;
    }
    client.has_session("s");
    client.finish(&mut server).await;
    drop(server);
    (closed_again(address).await, address)
}

#[tokio::test]
async fn what_the_server_said_last_time_is_offered_until_it_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let (socket, address) = known_server(folder.path()).await;
    let mut client = Client::start(keeping(address, folder.path()));
    let promised = promised(&mut client).await;
    assert_eq!(promised["capabilities"], json!({"tools": {"listChanged": true}, "logging": {}}));
    assert_eq!(promised["serverInfo"]["name"], "s");
    client.send(request("1", "tools/list", "{}")).await;
    client.expect(response("1", r#"{"tools":[{"name":"a","x":1e400}],"nextCursor":"2"}"#)).await;
    client.send(request("2", "tools/list", r#"{"cursor":"2"}"#)).await;
    client.expect(response("2", r#"{"tools":[{"name":"b"}]}"#)).await;

    // The server comes with the same tools: the client is told nothing.
    let mut server = comes_up(socket);
    attached(&mut server, r#"{"tools":{},"logging":{}}"#).await;
    for result in [r#"{"tools":[{"name":"a","x":1e400}],"nextCursor":"2"}"#, r#"{"tools":[{"name":"b"}]}"#] {
        let list = server.post().await;
        assert_eq!(list.rpc_method(), "tools/list");
        list.answer(result).await;
    }
    client.expect_nothing(&mut server).await;
    client.has_session("s");
    client.finish(&mut server).await;
}

#[tokio::test]
async fn a_server_that_comes_back_with_other_tools_is_announced() {
    let folder = tempfile::tempdir().unwrap();
    let (socket, address) = known_server(folder.path()).await;
    let mut client = Client::start(keeping(address, folder.path()));
    promised(&mut client).await;
    client.send(request("1", "tools/list", "{}")).await;
    client.line("the list of last time").await;
    // A call of a tool that the server no longer has gets the server's own error.
    client.send(call("2")).await;
    let mut server = comes_up(socket);
    attached(&mut server, r#"{"tools":{}}"#).await;
    for _ in 0..2 {
        let post = server.post().await;
        match post.rpc_method().as_str() {
            "tools/list" => drop(post.answer(r#"{"tools":[{"name":"c"}]}"#).await),
            _ => drop(post.refuse(200, -32_602).await),
        }
    }
    let changed = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#.to_owned();
    client.expect_all([changed, crate::support::refusal("2", -32_602)]).await;
    client.has_session("s");
    client.finish(&mut server).await;

    // The new list is the one of last time now.
    drop(server);
    let mut client = Client::start(keeping(address, folder.path()));
    promised(&mut client).await;
    client.send(request("1", "tools/list", "{}")).await;
    client.expect(response("1", r#"{"tools":[{"name":"c"}]}"#)).await;
}

#[tokio::test]
async fn a_server_that_restarts_with_other_tools_during_a_session_is_announced() {
    for (keeps, tool, is_other) in [(true, "b", true), (true, "a", false), (false, "a", true)] {
        let folder = tempfile::tempdir().unwrap();
        let mut server = Server::start().await;
        let address = server.address();
        let mut settings = config(address, LONG, LONG);
        settings.state_folder = keeps.then(|| folder.path().to_owned());
        let mut client = Client::start(settings);
        client.handshake(&mut server, Some("old")).await;
        client.send(request("1", "tools/list", "{}")).await;
        let answer = server.post().await.answer(r#"{"tools":[{"name":"a"}]}"#).await;
        client.expect(answer).await;
        drop(server);
        let socket = closed_again(address).await;
        client.send(request("2", "prompts/get", "{}")).await;
        client.expect_all_read().await;
        // The connection is refused at least once.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut server = comes_up(socket);
        server.post().await.respond(404, &[], "").await;
        attached(&mut server, "{}").await;
        let mut lines = Vec::new();
        let count = if keeps { 2 } else { 1 };
        for _ in 0..count {
            let post = server.post().await;
            if post.rpc_method() == "tools/list" {
                post.answer(&format!(r#"{{"tools":[{{"name":"{tool}"}}]}}"#)).await;
            } else {
                lines.push(post.answer("{}").await);
            }
        }
        lines.extend(is_other.then(|| r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#.to_owned()));
        client.expect_all(lines).await;
        client.expect_nothing(&mut server).await;
        client.has_session("s");
        client.finish(&mut server).await;
    }
}

#[tokio::test]
async fn hidden_tools_are_hidden_in_the_list_of_last_time_too() {
    let folder = tempfile::tempdir().unwrap();
    let (_socket, address) = known_server(folder.path()).await;
    let mut settings = keeping(address, folder.path());
    settings.tools = mcp_gangway_core::ToolFilter::new(&[] as &[&str], &["a"]);
    let mut client = Client::start(settings);
    promised(&mut client).await;
    client.send(request("1", "tools/list", "{}")).await;
    client.expect(response("1", r#"{"tools":[],"nextCursor":"2"}"#)).await;
}

#[tokio::test]
async fn other_credentials_and_broken_files_get_nothing_of_what_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (_socket, address) = known_server(folder.path()).await;
    let mut settings = keeping(address, folder.path());
    settings.set_header("x-user", "another").unwrap();
    let mut client = Client::start(settings);
    assert_eq!(promised(&mut client).await["serverInfo"]["name"], "mcp-gangway");

    let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path()).collect();
    let [file] = &files[..] else { panic!("one file: {files:?}") };
    for text in ["", "{", "\n\n[]\n", "{\"jsonrpc\":\"2.0\",\"id\":\"legacy initialize\",\"result\":7}\n", "\u{0}"] {
        std::fs::write(file, text).unwrap();
        let mut client = Client::start(keeping(address, folder.path()));
        let promised = promised(&mut client).await;
        assert_eq!(promised["protocolVersion"], VERSION, "{text}");
        client.send(request("1", "tools/list", "{}")).await;
        client.expect(response("1", r#"{"tools":[]}"#)).await;
    }
}

#[tokio::test]
async fn a_list_that_repeats_a_secret_is_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start().await;
    let mut settings = keeping(server.address(), folder.path());
    settings.set_authorization("Bearer hunter2hunter2").unwrap();
    let mut client = Client::start(settings);
    for (id, tool) in [("1", "a"), ("2", "hunter2hunter2"), ("3", "a")] {
        client.send(request(id, "tools/list", "{}")).await;
        let answer = server.post().await.answer(&format!(r#"{{"tools":[{{"name":"{tool}"}}]}}"#)).await;
        client.expect(answer).await;
    }
    client.finish(&mut server).await;
    let file = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap();
    assert!(!file.file_name().to_str().unwrap().contains("127.0.0.1"));
    let text = std::fs::read_to_string(file.path()).unwrap();
    assert_eq!(text, "{\"jsonrpc\":\"2.0\",\"id\":\"legacy tools/list\",\"result\":{\"tools\":[{\"name\":\"a\"}]}}\n");
}

#[tokio::test]
async fn a_modern_client_is_attached_to_a_server_that_comes_later() {
    let (socket, address) = closed_port();
    let mut client = Client::start(config(address, LONG, LONG));
    client.send(modern("1", "server/discover", "")).await;
    let promised = client.value("a provisional answer").await;
    assert_eq!(promised["result"]["supportedVersions"], json!(["2026-07-28"]));
    assert_eq!(promised["result"]["ttlMs"], 0);
    client.send(modern("2", "tools/list", "")).await;
    let list = client.value("an empty list").await;
    assert_eq!(list["result"], json!({"tools": [], "resultType": "complete", "ttlMs": 0, "cacheScope": "private"}));
    client.send(modern("3", "subscriptions/listen", r#""notifications":{"toolsListChanged":true}"#)).await;
    client.send(modern_call("4", "{}")).await;
    client.expect_all_read().await;
    let mut server = comes_up(socket);
    server.expect_get();
    let (mut is_told, mut is_called) = (false, false);
    while !(is_told && is_called) {
        let mut post = server.modern_post().await;
        match post.rpc_method().as_str() {
            "tools/list" => drop(post.answer(r#"{"resultType":"complete","tools":[]}"#).await),
            "tools/call" => {
                let answer = post.answer(r#"{"resultType":"complete","content":[]}"#).await;
                client.expect(answer).await;
                is_called = true;
            }
            _ => {
                post.sse().await;
                let acknowledged = r#"{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{"notifications":{"toolsListChanged":true},"_meta":{"io.modelcontextprotocol/subscriptionId":3}}}"#;
                post.event(acknowledged).await;
                client.expect(acknowledged).await;
                let changed = client.value("the change that it may have missed").await;
                assert_eq!(changed["method"], "notifications/tools/list_changed", "{changed}");
                is_told = true;
            }
        }
    }
}

#[tokio::test]
async fn the_probe_of_a_server_that_was_a_legacy_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (_socket, address) = known_server(folder.path()).await;
    let mut client = Client::start(keeping(address, folder.path()));
    client.send(modern("1", "server/discover", "")).await;
    assert_eq!(client.value("a refusal").await["error"]["code"], -32_601);
    assert_eq!(promised(&mut client).await["serverInfo"]["name"], "s");
}

#[tokio::test]
async fn a_server_that_is_up_is_used_as_before() {
    let folder = tempfile::tempdir().unwrap();
    let (mut server, _) = dialogue().await;
    let mut client = Client::start(keeping(server.address(), folder.path()));
    client.handshake(&mut server, Some("session-1")).await;
    client.send(call("1")).await;
    let answer = server.post().await.answer("{}").await;
    client.expect(answer).await;
    within("the end", client.finish(&mut server)).await;
}

#[tokio::test]
async fn a_legacy_client_is_attached_to_a_modern_server_that_comes_later() {
    let (socket, address) = closed_port();
    let mut client = Client::start(config(address, LONG, LONG));
    promised(&mut client).await;
    client.send(request("1", "prompts/get", r#"{"name":"p"}"#)).await;
    client.expect_all_read().await;
    let mut server = comes_up(socket);
    server.expect_get();
    let initialize = server.post().await;
    assert_eq!(initialize.rpc_method(), "initialize");
    initialize.refuse(400, -32_022).await;
    server.modern("server/discover").await.discovered(r#"{"prompts":{}}"#).await;
    let answer = server.modern("prompts/get").await.complete("1", r#""messages":[]"#).await;
    client.expect_all(all_changed().into_iter().chain([answer])).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn a_slow_modern_server_is_translated_when_its_description_comes() {
    let mut server = Server::start().await;
    server.expect_get();
    let mut client = Client::start(config(server.address(), Duration::from_millis(100), LONG));
    client.initialize().await;
    server.post().await.refuse(400, -32_022).await;
    let discover = server.modern("server/discover").await;
    assert_eq!(client.value("a provisional answer").await["id"], "init");
    client.send(INITIALIZED).await;
    client.send(request("1", "prompts/get", r#"{"name":"p"}"#)).await;
    client.expect_all_read().await;
    discover.discovered(r#"{"prompts":{}}"#).await;
    let answer = server.modern("prompts/get").await.complete("1", r#""messages":[]"#).await;
    client.expect_all(all_changed().into_iter().chain([answer])).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn a_server_that_closes_each_connection_counts_as_away() {
    // A port that a container's proxy has opened before the server in it listens.
    let mut server = Server::start().await;
    let mut client = Client::start(config(server.address(), LONG, LONG));
    client.initialize().await;
    let promised = loop {
        tokio::select! {
            post = server.post() => post.reset(),
            promised = client.value("a provisional answer") => break promised,
        }
    };
    assert_eq!(promised["result"]["serverInfo"]["name"], "mcp-gangway");
    client.send(INITIALIZED).await;
    client.send(call("1")).await;
    loop {
        let post = server.post().await;
        assert_eq!(post.rpc_method(), "initialize", "only the handshake is tried");
        if post.id().as_deref() != Some("\"init\"") {
            answer_handshake(post, "{}").await;
            break;
        }
        post.reset();
    }
    server.post().await.accepted().await;
    let answer = server.post_of("1").await.answer("{}").await;
    client.expect_all(all_changed().into_iter().chain([answer])).await;
    client.has_session("s");
    client.finish(&mut server).await;
}

#[tokio::test]
async fn messages_without_an_answer_do_not_wait_for_the_server() {
    let (socket, address) = closed_port();
    let mut client = Client::start(config(address, LONG, LONG));
    promised(&mut client).await;
    for _ in 0..40 {
        client.send(crate::support::notification("notifications/roots/list_changed", "{}")).await;
    }
    client.send(call("1")).await;
    let mut server = comes_up(socket);
    attached(&mut server, "{}").await;
    let answer = server.post().await.answer("{}").await;
    client.expect_all(all_changed().into_iter().chain([answer])).await;
    client.has_session("s");
    client.finish(&mut server).await;
}

#[tokio::test]
async fn a_server_that_moves_is_found_at_its_new_address() {
    let (one, two) = (Server::start().await, Server::start().await);
    let written = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let load = {
        let written = std::sync::Arc::clone(&written);
        move || -> mcp_gangway_core::LoadedUrl {
            let text = written.lock().unwrap().clone();
            Box::pin(
                async move { if text.is_empty() { Err(mcp_gangway_core::Error::config("no file")) } else { Ok(text) } },
            )
        }
    };
    let mut settings = config("127.0.0.1:1", LONG, LONG);
    settings.url_source = Some(mcp_gangway_core::UrlSource::new("test".to_owned(), load, true));
    let mut client = Client::start(settings);
    let promised = promised(&mut client).await;
    assert_eq!(promised["serverInfo"]["name"], "mcp-gangway", "nothing is sent to the placeholder");
    client.send(call("1")).await;
    client.expect_all_read().await;
    *written.lock().unwrap() = format!("{}/mcp", one.origin());
    let mut one = one;
    attached(&mut one, "{}").await;
    let answer = one.post_of("1").await.answer("{}").await;
    client.expect_all(all_changed().into_iter().chain([answer])).await;
    drop(one);

    // Its connections are gone, and nothing listens there.
    *written.lock().unwrap() = format!("{}/elsewhere", two.origin());
    let mut two = two;
    let list = request("2", "tools/list", "{}");
    client.send(&list).await;
    let post = two.post().await;
    assert_eq!((post.target.as_str(), post.text()), ("/elsewhere", list.as_str()));
    // It does not know the session of its predecessor.
    post.respond(404, &[], "").await;
    attached(&mut two, "{}").await;
    let post = two.post_of("2").await;
    assert_eq!(post.target, "/elsewhere");
    let answer = post.answer("{}").await;
    client.expect(answer).await;
    client.has_session("s");
    client.finish(&mut two).await;
}
