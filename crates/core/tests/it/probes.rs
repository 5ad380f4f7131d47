//! Detection of the server's era (3.1, R68, R79, R81). Each message shows the client's protocol, and each response may
//! show the server's.

use std::time::Duration;

use mcp_gangway_core::ClientEra;
use serde_json::Value;

use crate::support::{
    Client, INITIALIZED, SOON, Server, VERSION, closed_port, dialogue, modern, modern_call, modern_dialogue,
    modern_dialogue_with, request, response,
};

const DISCOVERED: &str = r#"{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{}}}"#;
const UNKNOWN_METHOD: &str = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"Method not found"}}"#;
const COMPLETE: &str = r#"{"resultType":"complete","prompts":[]}"#;

/// A legacy server's answer to a request outside of a session.
const NO_SESSION: &str =
    r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"Bad Request: Server not initialized"}}"#;

/// The bridge completes the handshake with a legacy server on behalf of its modern client.
async fn handshake(server: &mut Server) {
    server.initialize(None, VERSION).await;
    let initialized = server.post().await;
    assert_eq!(initialized.text(), INITIALIZED);
    initialized.accepted().await;
}

/// The client requests prompts, and the server receives a legacy request.
async fn translated(server: &mut Server, client: &mut Client, id: &str) {
    client.send(modern(id, "prompts/list", "")).await;
    translated_answer(server, client, id).await;
}

async fn translated_answer(server: &mut Server, client: &mut Client, id: &str) {
    let post = server.post().await;
    assert_eq!(post.rpc_method(), "prompts/list", "{}", post.text());
    assert!(!post.text().contains("protocolVersion"), "{}", post.text());
    assert_eq!((post.header("mcp-protocol-version"), post.header("mcp-method")), (Some(VERSION), None));
    post.answer(r#"{"prompts":[]}"#).await;
    let line = client.line("the translated answer").await;
    let line = std::str::from_utf8(&line).unwrap();
    assert!(line.contains(&format!(r#""id":{id}"#)) && line.contains(r#""resultType":"complete""#), "{line}");
}

/// Expects that the bridge refuses this probe with the code after which clients of both eras start a handshake.
async fn refused(client: &mut Client, id: &str) {
    let answer = client.value("the answer to the probe").await;
    assert_eq!((&answer["id"].to_string()[..], &answer["error"]["code"]), (id, &Value::from(-32_601)), "{answer}");
}

/// The client requests prompts, and the server receives the request unchanged.
async fn direct(server: &mut Server, client: &mut Client, id: &str) {
    let line = modern(id, "prompts/list", "");
    client.send(&line).await;
    let post = server.modern_post().await;
    assert_eq!(post.text(), line);
    let answer = post.answer(COMPLETE).await;
    client.expect(answer).await;
}

#[tokio::test]
async fn r54_refusing_a_modern_request_identifies_a_legacy_server() {
    for (status, body) in [
        (400, NO_SESSION),
        (400, "Bad Request"),
        (404, "<html>"),
        (405, ""),
        (406, ""),
        (200, r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"Method not found"}}"#),
    ] {
        let (mut server, mut client) = dialogue().await;
        client.send(modern("1", "prompts/list", "")).await;
        server.modern_post().await.respond_as(status, "application/json", body).await;
        handshake(&mut server).await;
        translated_answer(&mut server, &mut client, "1").await;
        // From now on the bridge knows the server's era.
        translated(&mut server, &mut client, "2").await;
        client.finish(&mut server).await;
    }
}

#[tokio::test]
async fn r54_r96_a_first_call_to_a_legacy_server_is_sent_once() {
    let (mut server, mut client) = dialogue().await;
    client.send(modern_call("1", "{}")).await;
    // The bridge first lists the tools for their headers. The refusal shows the server's era.
    let list = server.modern_post().await;
    assert_eq!(list.rpc_method(), "tools/list");
    list.respond_as(400, "application/json", NO_SESSION).await;
    handshake(&mut server).await;
    let post = server.post().await;
    assert_eq!((post.rpc_method().as_str(), post.header("mcp-method")), ("tools/call", None));
    post.answer(r#"{"content":[]}"#).await;
    client.line("the answer to the call").await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r56_errors_do_not_change_the_era_of_a_known_modern_server() {
    let (mut server, mut client) = modern_dialogue().await;
    direct(&mut server, &mut client, "1").await;
    // From a server that is known to be modern, these are ordinary answers and failures.
    for (status, code) in [(200, -32_601), (200, -32_000), (400, -32_602), (404, -32_601)] {
        client.send(modern("2", "x/y", "")).await;
        let answer = server.modern_post().await.refuse(status, code).await;
        client.expect(answer).await;
    }
    for status in [403, 409, 413, 414, 431, 500, 501] {
        client.send(modern("3", "x/y", "")).await;
        server.modern_post().await.respond(status, &[], "").await;
        assert_eq!(client.expect_error("3").await.status(), Some(u64::from(status)));
    }
    direct(&mut server, &mut client, "4").await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r56_a_modern_server_that_becomes_legacy_gets_translated_requests() {
    let (mut server, mut client) = dialogue().await;
    direct(&mut server, &mut client, "1").await;
    client.send(modern("2", "prompts/list", "")).await;
    server.modern_post().await.respond_as(400, "application/json", NO_SESSION).await;
    handshake(&mut server).await;
    translated_answer(&mut server, &mut client, "2").await;
    translated(&mut server, &mut client, "3").await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r56_a_legacy_server_that_becomes_modern_gets_modern_requests() {
    let (mut server, mut client) = dialogue().await;
    client.send(modern("1", "prompts/list", "")).await;
    server.modern_post().await.respond_as(400, "application/json", NO_SESSION).await;
    server.initialize(Some("s"), VERSION).await;
    server.post().await.accepted().await;
    translated_answer(&mut server, &mut client, "1").await;
    // The session is lost, and the server refuses to create another one.
    let line = modern("2", "prompts/list", "");
    client.send(&line).await;
    server.post().await.respond(404, &[], "").await;
    let initialize = server.post().await;
    assert_eq!(initialize.rpc_method(), "initialize");
    initialize.refuse(400, -32_022).await;
    let post = server.modern_post().await;
    assert_eq!(post.text(), line);
    let answer = post.answer(COMPLETE).await;
    client.expect(answer).await;
    direct(&mut server, &mut client, "3").await;
}

#[tokio::test]
async fn r68_an_ambiguous_refusal_is_checked_with_one_initialize() {
    let (mut server, mut client) = modern_dialogue().await;
    // The era is not yet known, and legacy servers use this code as well.
    client.send(modern("1", "prompts/list", "")).await;
    let answer = server.modern_post().await.refuse(400, -32_602).await;
    let initialize = server.post().await;
    assert_eq!(initialize.rpc_method(), "initialize");
    initialize.refuse(400, -32_022).await;
    client.expect(answer).await;
    client.send(modern("2", "prompts/list", "")).await;
    let answer = server.modern_post().await.refuse(400, -32_602).await;
    client.expect(answer).await;
    direct(&mut server, &mut client, "3").await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r68_a_modern_server_is_recognized_again_after_a_gateways_error_page() {
    let (mut server, mut client) = dialogue().await;
    direct(&mut server, &mut client, "1").await;
    // A gateway in front of the server answers everything.
    client.send(modern("2", "prompts/list", "")).await;
    server.modern_post().await.respond_as(404, "text/html", "<html>").await;
    let initialize = server.post().await;
    assert_eq!(initialize.rpc_method(), "initialize");
    initialize.respond_as(404, "text/html", "<html>").await;
    assert_eq!(client.expect_error("2").await.status(), Some(404));
    // The server is reachable again.
    client.send(modern("3", "prompts/list", "")).await;
    let initialize = server.post().await;
    assert_eq!(initialize.rpc_method(), "initialize");
    initialize.refuse(400, -32_022).await;
    let answer = server.modern_post().await.answer(COMPLETE).await;
    client.expect(answer).await;
    direct(&mut server, &mut client, "4").await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r79_a_probe_of_a_server_that_is_down_gets_an_error() {
    let (_socket, address) = closed_port();
    let mut client = Client::to_without_promises(&format!("http://{address}/mcp"));
    client.send(modern("1", "server/discover", "")).await;
    let failure = client.expect_error("1").await;
    assert_eq!((failure.kind(), failure.may_have_run()), ("connect", false), "{failure:?}");
    assert!((2..=6).contains(&failure.data["attempts"].as_u64().unwrap()), "{failure:?}");
}

#[tokio::test]
async fn r79_a_probe_of_a_silent_server_times_out_before_other_requests() {
    let (mut server, mut client) = modern_dialogue_with(|config| config.timeouts.idle = Duration::from_hours(1)).await;
    client.send(modern("0", "prompts/list", "")).await;
    let held = server.modern_post().await;
    client.send(modern("1", "server/discover", "")).await;
    let post = server.modern_post().await;
    assert_eq!(client.expect_error("1").await.kind(), "timeout");
    post.closed_by_peer("the end of the probe").await;
    let answer = held.answer(COMPLETE).await;
    client.expect(answer).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r79_a_probe_is_retried_until_the_server_is_up() {
    let (socket, address) = closed_port();
    let mut config = mcp_gangway_core::Config::new(&format!("http://{address}/mcp")).unwrap();
    config.proxy = mcp_gangway_core::Proxy::None;
    // The first attempt fails. One of the later attempts succeeds.
    config.timeouts.retry = SOON * 20;
    let mut client = Client::start(config);
    client.send(modern("1", "server/discover", "")).await;
    tokio::task::yield_now().await;
    let mut server = Server::on(socket.listen(16).unwrap(), None);
    let answer = server.modern_post().await.answer(DISCOVERED).await;
    client.expect(answer).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r81_modern_and_legacy_requests_work_on_one_stdin() {
    let (mut server, mut client) = dialogue().await;
    client.send(modern("1", "server/discover", "")).await;
    let answer = server.modern_post().await.answer(DISCOVERED).await;
    client.expect(answer).await;
    direct(&mut server, &mut client, "2").await;
    client.handshake(&mut server, Some("s")).await;
    for id in ["3", "4"] {
        let legacy = request(id, "prompts/list", "{}");
        client.send(&legacy).await;
        let post = server.post().await;
        assert_eq!(post.text(), legacy);
        assert_eq!((post.header("mcp-session-id"), post.header("mcp-protocol-version")), (Some("s"), Some(VERSION)));
        assert_eq!(post.header("mcp-method"), None);
        // Both requests are in flight at the same time, each in its own form.
        direct(&mut server, &mut client, &format!("{id}0")).await;
        post.json(response(id, r#"{"prompts":[]}"#)).await;
        client.expect(response(id, r#"{"prompts":[]}"#)).await;
    }
    // The refusal of a modern request does not affect the legacy session.
    client.send(modern("5", "x/y", "")).await;
    let answer = server.modern_post().await.refuse(404, -32_601).await;
    client.expect(answer).await;
    client.expect_nothing(&mut server).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r81_a_probe_of_a_legacy_server_is_refused_and_a_handshake_works() {
    for (status, body) in [(400, NO_SESSION), (404, ""), (405, ""), (500, ""), (200, UNKNOWN_METHOD)] {
        let (mut server, mut client) = dialogue().await;
        client.send(modern("1", "server/discover", "")).await;
        server.modern_post().await.respond_as(status, "application/json", body).await;
        // After this code, all SDKs that know both eras start a handshake, in the same process or in a new one.
        refused(&mut client, "1").await;
        client.handshake(&mut server, Some("s")).await;
        let legacy = request("2", "ping", "{}");
        client.send(&legacy).await;
        let post = server.post().await;
        assert_eq!((post.text(), post.header("mcp-session-id")), (legacy.as_str(), Some("s")));
        let answer = post.answer("{}").await;
        client.expect(answer).await;
        // The bridge answers a further probe without the server.
        client.send(modern("3", "server/discover", "")).await;
        refused(&mut client, "3").await;
        client.finish(&mut server).await;
    }
}

#[tokio::test]
async fn a_client_that_starts_without_a_probe_stays_a_modern_client() {
    let (mut server, mut client) = dialogue().await;
    client.send(modern("1", "prompts/list", "")).await;
    server.modern_post().await.respond_as(400, "application/json", NO_SESSION).await;
    handshake(&mut server).await;
    server.post().await.answer(r#"{"prompts":[]}"#).await;
    client.line("the answer").await;
    client.send(modern("2", "server/discover", "")).await;
    assert!(client.value("the answer to the probe").await["result"]["supportedVersions"].is_array());
    client.finish(&mut server).await;
}

#[tokio::test]
async fn the_client_era_setting_overrides_the_detection() {
    // Treats a client of both eras as a legacy one, at any server.
    let (mut server, mut client) = modern_dialogue_with(|config| config.client_era = ClientEra::Legacy).await;
    client.send(modern("1", "server/discover", "")).await;
    refused(&mut client, "1").await;
    client.finish(&mut server).await;
    // Treats it as a modern one.
    let (mut server, mut client) = modern_dialogue_with(|config| config.client_era = ClientEra::Modern).await;
    client.send(modern("1", "server/discover", "")).await;
    server.modern_post().await.respond_as(400, "application/json", NO_SESSION).await;
    handshake(&mut server).await;
    server.get().await.respond(405, &[], "").await;
    assert!(client.value("the answer to the probe").await["result"]["supportedVersions"].is_array());
    client.finish(&mut server).await;
}
