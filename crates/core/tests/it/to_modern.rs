//! A legacy client at a modern server (3.2): the handshake, each kind of message in both directions, rounds of input,
//! subscriptions, and failures.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use mcp_gangway_core::{Config, HeaderSource, LoadedHeaders};
use serde_json::{Value, json};

use crate::support::{
    Client, Exchange, INITIALIZED, Server, VERSION, call, cancel, closed_port, dialogue, notification, progress,
    refusal, request, response,
};

/// The capabilities of a client that can answer every question.
const ABLE: &str = r#"{"roots":{},"sampling":{},"elicitation":{}}"#;
/// The request of these tests that needs input: a prompt, because the bridge would first list the tools for a tool call
/// (R64).
const GET: &str = r#"{"name":"p"}"#;
const FORM: &str = r#"{"mode":"form","message":"Really?","requestedSchema":{"type":"object","properties":{}}}"#;
const ALL_LISTS: &str = r#"{"tools":{"listChanged":true},"prompts":{"listChanged":true},"resources":{"listChanged":true,"subscribe":true}}"#;
const WATCHED: &str = r#"{"resources":{"subscribe":true}}"#;

/// Returns a client and a modern server after the handshake.
async fn connected(own: &str, offered: &str) -> (Server, Client) {
    connected_with(own, offered, |_| {}).await
}

async fn connected_with(own: &str, offered: &str, set: impl FnOnce(&mut Config)) -> (Server, Client) {
    let mut server = Server::start().await;
    let mut config = server.config();
    set(&mut config);
    let mut client = Client::start(config);
    client.handshake_with_modern(&mut server, own, offered).await;
    (server, client)
}

/// Returns the URIs that a subscription asks for.
fn uris(listen: &Exchange) -> Value {
    listen.wanted()["resourceSubscriptions"].clone()
}

/// Returns a `resources/subscribe` or `unsubscribe` request.
fn watch(id: &str, verb: &str, uri: &str) -> String {
    request(id, &format!("resources/{verb}"), &format!(r#"{{"uri":"{uri}"}}"#))
}

/// Subscribes to the first resource. Returns the stream.
async fn watching(server: &mut Server, client: &mut Client, uri: &str) -> Exchange {
    client.send(watch("\"w\"", "subscribe", uri)).await;
    let mut stream = server.modern("subscriptions/listen").await;
    stream.acknowledge().await;
    client.expect(response("\"w\"", "{}")).await;
    stream
}

// The handshake.

#[tokio::test]
async fn a_refused_initialize_is_answered_from_server_discover() {
    for (status, code, is_stream) in [
        (400, -32_020, false),
        (400, -32_022, false),
        (400, -32_602, false),
        (404, -32_601, false),
        (200, -32_020, false),
        (200, -32_022, false),
        (200, -32_602, false),
        (200, -32_601, false),
        (200, -32_020, true),
        (200, -32_022, true),
        (200, -32_602, true),
        (200, -32_601, true),
    ] {
        let (mut server, mut client) = dialogue().await;
        client.initialize_as("7", ABLE).await;
        let mut initialize = server.post().await;
        assert_eq!((initialize.rpc_method().as_str(), initialize.id().as_deref()), ("initialize", Some("7")));
        assert_eq!(initialize.header("mcp-protocol-version"), None);
        // A stream that stays open after the refusal delays nothing.
        let _open = if is_stream {
            initialize.sse().await;
            initialize.event(&refusal("7", code)).await;
            Some(initialize)
        } else {
            initialize.refuse(status, code).await;
            None
        };
        let discover = server.modern("server/discover").await;
        assert_eq!(
            discover.meta(),
            json!({
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientCapabilities": {"roots": {}, "sampling": {}, "elicitation": {}},
                "io.modelcontextprotocol/clientInfo": {"name": "c", "version": "1"},
            })
        );
        discover.discovered("{}").await;
        let answer = client.value("a message").await;
        assert_eq!(answer["id"], 7, "{status} {code}");
        assert_eq!(answer["result"]["protocolVersion"], VERSION);
        client.finish(&mut server).await;
    }
}

#[tokio::test]
async fn the_discover_result_becomes_the_initialize_result() {
    let (mut server, mut client) = dialogue().await;
    client.initialize_as("\"a\"", "{}").await;
    server.post().await.refuse(400, -32_022).await;
    let discover = server.modern("server/discover").await;
    discover
        .answer(
            r#"{"resultType":"complete","ttlMs":5,"cacheScope":"public","supportedVersions":["2026-07-28"],
            "capabilities":{"tools":{"listChanged":true},"x":1e400,"extensions":{"a/b":{}},"tasks":{}},"instructions":"Be kind.",
            "_meta":{"io.modelcontextprotocol/serverInfo":{"name":"s","version":"2","title":"S"},"a/b":9007199254740993}}"#,
        )
        .await;
    let line = client.line("the answer to initialize").await;
    let text = std::str::from_utf8(&line).unwrap();
    assert!(text.contains(r#""tools":{"listChanged":true},"x":1e400"#), "{text}");
    assert!(text.contains(r#""a/b":9007199254740993"#), "{text}");
    let answer: Value = serde_json::from_str(&text.replace("1e400", "1")).unwrap();
    assert_eq!(answer["id"], "a");
    assert_eq!(
        answer["result"],
        json!({
            "protocolVersion": VERSION,
            "capabilities": {"tools": {"listChanged": true}, "x": 1},
            "serverInfo": {"name": "s", "version": "2", "title": "S"},
            "instructions": "Be kind.",
            "_meta": {"a/b": 9_007_199_254_740_993_u64},
        })
    );
    client.finish(&mut server).await;
}

#[tokio::test]
async fn a_legacy_server_that_refuses_initialize_is_not_treated_as_modern() {
    for (status, code, fails) in
        [(200, -32_602, (200, -32_601)), (400, -32_602, (400, -32_000)), (404, -32_601, (404, -32_601))]
    {
        let (mut server, mut client) = dialogue().await;
        // The second attempt gives the same result.
        for id in ["1", "\"2\""] {
            client.initialize_as(id, "{}").await;
            let initialize = server.post().await;
            assert_eq!(initialize.rpc_method(), "initialize");
            let refused = initialize.refuse(status, code).await;
            server.modern("server/discover").await.refuse(fails.0, fails.1).await;
            client.expect(refused).await;
        }
        // A server that fails to answer `server/discover` has not shown its era.
        client.initialize_as("3", "{}").await;
        let refused = server.post().await.refuse(status, code).await;
        server.modern("server/discover").await.respond_as(500, "text/plain", "no").await;
        client.expect(refused).await;
        client.expect_nothing(&mut server).await;
        client.finish(&mut server).await;
    }
}

#[tokio::test]
async fn r81_a_legacy_client_and_server_need_no_extra_request() {
    let (mut server, mut client) = dialogue().await;
    client.handshake(&mut server, None).await;
    client.send(request("1", "tools/list", "{}")).await;
    let list = server.post().await;
    assert_eq!(list.text(), request("1", "tools/list", "{}"));
    let answer = list.answer(r#"{"tools":[]}"#).await;
    client.expect(answer).await;
    client.send(call("2")).await;
    let answer = server.post_of("2").await.answer("{}").await;
    client.expect(answer).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r12_a_pipelined_handshake_with_a_modern_server_keeps_its_order() {
    let (mut server, mut client) = dialogue().await;
    let initialize = request("1", "initialize", &format!(r#"{{"protocolVersion":"{VERSION}","capabilities":{{}}}}"#));
    let list = request("2", "tools/list", "{}");
    client.send_bytes(format!("{initialize}\n{INITIALIZED}\n{list}\n")).await;
    server.post().await.refuse(400, -32_020).await;
    let discover = server.modern("server/discover").await;
    server.expect_no_more();
    discover.discovered("{}").await;
    assert_eq!(client.value("a message").await["id"], 1);
    let answer = server.modern("tools/list").await.complete("2", r#""tools":[]"#).await;
    client.expect(answer).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r9_a_handshake_succeeds_once_the_server_is_up() {
    let (socket, address) = closed_port();
    let mut client = Client::to_without_promises(&format!("http://{address}/mcp"));
    client.initialize_as("1", "{}").await;
    assert_eq!(client.expect_error("1").await.kind(), "connect");
    let mut server = Server::on(socket.listen(16).unwrap(), None);
    client.handshake_with_modern(&mut server, "{}", "{}").await;
    client.expect_quiet(&mut server).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn a_second_initialize_replaces_the_client_and_ends_its_subscription() {
    let (mut server, mut client) = connected("{}", WATCHED).await;
    let old = watching(&mut server, &mut client, "a:b").await;
    // The bridge does not ask again about what it knows of the server.
    client.initialize_as("2", ABLE).await;
    let discover = server.modern("server/discover").await;
    assert_eq!(discover.meta()["io.modelcontextprotocol/clientCapabilities"]["roots"], json!({}));
    discover.discovered("{}").await;
    assert_eq!(client.value("a message").await["id"], 2);
    client.send(INITIALIZED).await;
    old.closed_by_peer("the end of the first client's subscription").await;
    client.send(request("3", "prompts/get", GET)).await;
    let get = server.modern("prompts/get").await;
    assert_eq!(get.meta()["io.modelcontextprotocol/clientCapabilities"]["roots"], json!({}));
    let answer = get.complete("3", r#""messages":[]"#).await;
    client.expect(answer).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn a_second_initialize_recognizes_a_server_that_became_legacy() {
    let (mut server, mut client) = connected("{}", "{}").await;
    client.initialize_as("2", "{}").await;
    server.modern("server/discover").await.refuse(400, -32_000).await;
    let initialize = server.post().await;
    assert_eq!(initialize.rpc_method(), "initialize");
    let answer = initialize.initialized(None, VERSION).await;
    client.expect(answer).await;
    client.send(request("3", "tools/list", "{}")).await;
    let list = server.post().await;
    assert_eq!(list.text(), request("3", "tools/list", "{}"));
    let answer = list.answer(r#"{"tools":[]}"#).await;
    client.expect(answer).await;
    client.finish(&mut server).await;
}

// Requests.

#[tokio::test]
async fn r60_r62_requests_carry_client_info_and_capabilities_and_mcp_name() {
    let (mut server, mut client) = connected(ABLE, "{}").await;
    for (method, params, name) in [
        ("resources/read", r#"{"uri":"a:日本"}"#, Some("=?base64?YTrml6XmnKw=?=")),
        ("prompts/get", r#"{"_meta":{"progressToken":"p7","x":1.0},"name":"p"}"#, Some("p")),
        ("prompts/list", "{}", None),
        ("vendor/own", "{}", None),
    ] {
        client.send(request("1", method, params)).await;
        let post = server.modern(method).await;
        assert_eq!(post.header("mcp-name"), name);
        let meta = post.meta();
        assert_eq!(meta["io.modelcontextprotocol/clientInfo"], json!({"name": "c", "version": "1"}));
        assert_eq!(meta["io.modelcontextprotocol/clientCapabilities"], serde_json::from_str::<Value>(ABLE).unwrap());
        if method == "prompts/get" {
            assert_eq!(meta["progressToken"], "p7");
            assert!(post.text().contains(r#""x":1.0"#), "{}", post.text());
        }
        let answer = post.complete("1", r#""x":[]"#).await;
        client.expect(answer).await;
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r4_every_response_id_is_spelled_as_in_the_request() {
    const IDS: [&str; 9] = [
        "0",
        "\"0\"",
        "\"\"",
        "1e2",
        "9007199254740993",
        "123456789012345678901234567890",
        "-1",
        "\"\\u0061\\ud800\"",
        "\"mcp-gangway-0\"",
    ];
    let (mut server, mut client) = connected("{}", "{}").await;
    for id in IDS {
        client.send(request(id, "prompts/get", GET)).await;
    }
    let mut posts = Vec::new();
    let mut own = Vec::new();
    for _ in IDS {
        let post = server.modern("prompts/get").await;
        own.push(post.id().unwrap());
        posts.push(post);
    }
    own.sort_unstable();
    own.dedup();
    assert_eq!(own.len(), IDS.len());
    for post in posts {
        post.complete("", "").await;
    }
    client.expect_all(IDS.map(|id| response(id, "{}"))).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r67_errors_of_the_server_are_passed_to_the_client() {
    let (mut server, mut client) = connected("{}", "{}").await;
    for (status, code) in [(200, -32_602), (400, -32_602), (404, -32_601), (400, -32_020), (200, 7)] {
        client.send(request("1", "prompts/get", GET)).await;
        let own = server.modern("prompts/get").await;
        let id = own.id().unwrap();
        let refused = own.refuse(status, code).await;
        client.expect(refused.replace(&id, "1")).await;
    }
    client.send(request("1", "prompts/get", GET)).await;
    let own = server.modern("prompts/get").await;
    let missing = r#""error":{"code":-32021,"message":"no","data":{"requiredCapabilities":{"sampling":{}}}}"#;
    let body = format!(r#"{{"jsonrpc":"2.0","id":{},{missing}}}"#, own.id().unwrap());
    own.respond_as(400, "application/json", body).await;
    let answer = client.value("a message").await;
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(1), &json!(-32603)));
    assert!(answer["error"]["message"].as_str().unwrap().contains("sampling"), "{answer}");
    client.expect_quiet(&mut server).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r13_progress_precedes_the_response_and_server_requests_are_dropped() {
    let (mut server, mut client) = connected(ABLE, "{}").await;
    client.send(request("1", "prompts/get", r#"{"name":"p","_meta":{"progressToken":1e2}}"#)).await;
    let mut post = server.modern("prompts/get").await;
    assert!(post.text().contains(r#""progressToken":1e2"#), "{}", post.text());
    post.sse().await;
    let log = notification("notifications/message", r#"{"level":"info","data":1e400}"#);
    post.event(&log).await;
    client.expect(&log).await;
    for step in 0..3 {
        post.event(&progress("1e2", step)).await;
    }
    // R76: a modern server sends no requests.
    post.event(&request("0", "roots/list", "{}")).await;
    let own = post.id().unwrap();
    post.event(&response(&own, r#"{"resultType":"complete"}"#)).await;
    post.event(&progress("1e2", 3)).await;
    for step in 0..3 {
        client.expect(progress("1e2", step)).await;
    }
    client.expect(response("1", "{}")).await;
    client.expect_quiet(&mut server).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r63_r65_tool_parameter_headers_are_learned_from_the_tools_list() {
    const TOOL: &str =
        r#"{"name":"t","inputSchema":{"type":"object","properties":{"env":{"type":"string","x-mcp-header":"Env"}}}}"#;
    const BAD: &str =
        r#"{"name":"bad","inputSchema":{"type":"object","properties":{"a":{"type":"string","x-mcp-header":"a b"}}}}"#;
    let (mut server, mut client) = connected("{}", r#"{"tools":{}}"#).await;
    client.send(request("1", "tools/list", "{}")).await;
    server.modern("tools/list").await.complete("1", &format!(r#""ttlMs":5,"tools":[{TOOL},{BAD}]"#)).await;
    client.expect(response("1", &format!(r#"{{"tools":[{TOOL}]}}"#))).await;
    client.send(request("2", "tools/call", r#"{"name":"t","arguments":{"env":"prod"}}"#)).await;
    let post = server.modern("tools/call").await;
    assert_eq!((post.header("mcp-name"), post.header("mcp-param-env")), (Some("t"), Some("prod")));
    let answer = post.complete("2", r#""content":[]"#).await;
    client.expect(answer).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r64_an_unlisted_tool_is_looked_up_without_showing_the_client() {
    let (mut server, mut client) = connected("{}", r#"{"tools":{}}"#).await;
    client.send(call("1")).await;
    let list = server.modern("tools/list").await;
    assert_eq!(list.meta()["io.modelcontextprotocol/clientInfo"]["name"], "c");
    list.complete("", r#""tools":[]"#).await;
    let answer = server.modern("tools/call").await.complete("1", r#""content":[]"#).await;
    client.expect(answer).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r64_tool_headers_that_the_server_refuses_are_looked_up_once() {
    let tool = |header: &str| {
        let schema =
            format!(r#"{{"type":"object","properties":{{"env":{{"type":"string","x-mcp-header":"{header}"}}}}}}"#);
        format!(r#""tools":[{{"name":"t","inputSchema":{schema}}}]"#)
    };
    let (mut server, mut client) = connected("{}", r#"{"tools":{}}"#).await;
    client.send(request("1", "tools/list", "{}")).await;
    let answer = server.modern("tools/list").await.complete("1", &tool("Old")).await;
    client.expect(answer).await;
    for id in ["2", "3"] {
        client.send(request(id, "tools/call", r#"{"name":"t","arguments":{"env":"prod"}}"#)).await;
        if id == "2" {
            let post = server.modern("tools/call").await;
            assert_eq!(post.header("mcp-param-old"), Some("prod"));
            post.refuse(400, -32_020).await;
            server.modern("tools/list").await.complete("", &tool("New")).await;
        }
        let post = server.modern("tools/call").await;
        assert_eq!((post.header("mcp-param-old"), post.header("mcp-param-new")), (None, Some("prod")));
        let answer = post.complete(id, r#""content":[]"#).await;
        client.expect(answer).await;
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn legacy_messages_unknown_to_a_modern_server_are_answered_or_dropped() {
    let (mut server, mut client) = connected("{}", r#"{"logging":{}}"#).await;
    client.expect_pong().await;
    client.send(notification("notifications/roots/list_changed", "{}")).await;
    client.send(notification("notifications/progress", r#"{"progressToken":1,"progress":1}"#)).await;
    client.send(response("99", "{}")).await;
    for method in ["tasks/list", "tasks/get", "resources/subscribe"] {
        client.send(request("1", method, r#"{"taskId":"t","uri":"a:b"}"#)).await;
        let answer = client.value("a message").await;
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(1), &json!(-32601)), "{method}");
        assert_eq!(answer["error"]["data"]["source"], "mcp-gangway");
    }
    client.send(request("2", "logging/setLevel", r#"{"level":"loud"}"#)).await;
    assert_eq!(client.value("a message").await["error"]["code"], -32602);
    client.send(request("3", "logging/setLevel", r#"{"level":"warning"}"#)).await;
    client.expect(response("3", "{}")).await;
    client.send(request("4", "prompts/get", GET)).await;
    let get = server.modern("prompts/get").await;
    assert_eq!(get.meta()["io.modelcontextprotocol/logLevel"], "warning");
    let answer = get.complete("4", "").await;
    client.expect(answer).await;
    // A task of 2025-11-25 becomes an ordinary call.
    client.send(request("5", "tools/call", r#"{"name":"t","task":{"ttl":1},"arguments":{}}"#)).await;
    server.modern("tools/list").await.complete("", r#""tools":[]"#).await;
    let post = server.modern("tools/call").await;
    assert_eq!(post.value()["params"].get("task"), None);
    let answer = post.complete("5", "").await;
    client.expect(answer).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r61_an_unknown_notification_is_sent_with_modern_headers() {
    let (mut server, mut client) = connected("{}", "{}").await;
    let own = notification("notifications/vendor", r#"{"x":1e400}"#);
    client.send(&own).await;
    let post = server.modern("notifications/vendor").await;
    assert_eq!(post.text(), own);
    post.accepted().await;
    // R6: nothing reports a refusal of a notification.
    client.send(&own).await;
    server.modern("notifications/vendor").await.respond_as(400, "application/json", refusal("null", -32_600)).await;
    client.expect_quiet(&mut server).await;
    client.finish(&mut server).await;
}

// Rounds of input.

#[tokio::test]
async fn r75_each_kind_of_input_request_is_answered_in_one_round() {
    let (mut server, mut client) = connected(ABLE, "{}").await;
    for (method, params, answer) in [
        ("elicitation/create", FORM, r#"{"action":"accept","content":{"n":9007199254740993,"x":1e400}}"#),
        (
            "sampling/createMessage",
            r#"{"messages":[],"maxTokens":1.0}"#,
            r#"{"role":"assistant","content":{"type":"text","text":"\ud800"}}"#,
        ),
        ("roots/list", "{}", r#"{"roots":[{"uri":"file:///a"}]}"#),
    ] {
        client.send(request("7", "prompts/get", GET)).await;
        let first = server.modern("prompts/get").await;
        let id = first.id().unwrap();
        first
            .ask(&format!(
                r#""requestState":"q\u00e9 ","inputRequests":{{"k\u0065y":{{"method":"{method}","params":{params}}}}}"#
            ))
            .await;
        let question = client.asked(method, params).await;
        server.expect_no_more();
        client.send(response(&question, answer)).await;
        let second = server.modern("prompts/get").await;
        assert_ne!(second.id().unwrap(), id, "each round has its own id");
        assert_eq!(second.header("mcp-name"), Some("p"));
        assert!(second.text().contains(&format!(r#""inputResponses":{{"k\u0065y":{answer}}}"#)), "{}", second.text());
        assert!(second.text().contains(r#""requestState":"q\u00e9 ""#), "{}", second.text());
        let answer = second.complete("7", r#""messages":[]"#).await;
        client.expect(answer).await;
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r75_each_round_sends_back_the_last_request_state() {
    let (mut server, mut client) = connected(ABLE, "{}").await;
    client.send(call("0")).await;
    server.modern("tools/list").await.complete("", r#""tools":[]"#).await;
    let mut ids = Vec::new();
    for state in ["\"s1\"", "\"s2\"", ""] {
        let post = server.modern("tools/call").await;
        ids.push(post.id().unwrap());
        let params = post.value()["params"].clone();
        assert_eq!(params["arguments"], json!({}));
        match ids.len() {
            1 => assert_eq!((params.get("requestState"), params.get("inputResponses")), (None, None)),
            round => {
                assert_eq!(params["requestState"], format!("s{}", round - 1));
                assert_eq!(params["inputResponses"], json!({"a": {"roots": []}}));
            }
        }
        let state = if state.is_empty() { String::new() } else { format!(r#""requestState":{state},"#) };
        post.ask(&format!(r#"{state}"inputRequests":{{"a":{{"method":"roots/list"}}}}"#)).await;
        let question = client.value("a message").await;
        assert_eq!((&question["method"], question.get("params")), (&json!("roots/list"), None));
        client.send(response(&question["id"].to_string(), r#"{"roots":[]}"#)).await;
    }
    let last = server.modern("tools/call").await;
    assert_eq!(last.value()["params"].get("requestState"), None, "the last result had no state");
    ids.push(last.id().unwrap());
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 4);
    let answer = last.complete("0", r#""content":[]"#).await;
    client.expect(answer).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn two_input_requests_may_be_answered_in_any_order() {
    let (mut server, mut client) = connected(ABLE, "{}").await;
    client.send(request("1", "prompts/get", GET)).await;
    let mut post = server.modern("prompts/get").await;
    let own = post.id().unwrap();
    post.sse().await;
    let asked = format!(
        r#"{{"z":{{"method":"elicitation/create","params":{FORM}}},"a":{{"method":"roots/list","params":{{}}}}}}"#
    );
    post.event(&response(&own, &format!(r#"{{"resultType":"input_required","inputRequests":{asked}}}"#))).await;
    let form = client.asked("elicitation/create", FORM).await;
    let roots = client.asked("roots/list", "{}").await;
    client.send(response(&roots, r#"{"roots":[]}"#)).await;
    // The second response to the same question is dropped.
    client.send(response(&roots, r#"{"roots":[1]}"#)).await;
    client.expect_pong().await;
    server.expect_no_more();
    client.send(response(&form, r#"{"action":"decline"}"#)).await;
    let second = server.modern("prompts/get").await;
    assert!(
        second.text().contains(r#""inputResponses":{"z":{"action":"decline"},"a":{"roots":[]}}"#),
        "{}",
        second.text()
    );
    let answer = second.complete("1", "").await;
    client.expect(answer).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn a_result_with_only_a_request_state_repeats_the_request() {
    let (mut server, mut client) = connected("{}", "{}").await;
    client.send(request("1", "prompts/get", GET)).await;
    server.modern("prompts/get").await.ask(r#""requestState":"a""#).await;
    let second = server.modern("prompts/get").await;
    assert_eq!(second.value()["params"]["requestState"], "a");
    second.ask(r#""requestState":"b","inputRequests":{}"#).await;
    let third = server.modern("prompts/get").await;
    let params = third.value()["params"].clone();
    assert_eq!((&params["requestState"], params.get("inputResponses")), (&json!("b"), None));
    let answer = third.complete("1", "").await;
    client.expect(answer).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn a_refused_elicitation_becomes_a_cancel_and_other_refusals_an_error() {
    let (mut server, mut client) = connected(ABLE, "{}").await;
    let refused =
        |id: &str| format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-1,"message":"rejected by user"}}}}"#);
    client.send(request("1", "prompts/get", GET)).await;
    let post = server.modern("prompts/get").await;
    post.ask(&format!(r#""inputRequests":{{"a":{{"method":"elicitation/create","params":{FORM}}}}}"#)).await;
    let question = client.asked("elicitation/create", FORM).await;
    client.send(refused(&question)).await;
    let second = server.modern("prompts/get").await;
    assert_eq!(second.value()["params"]["inputResponses"], json!({"a": {"action": "cancel"}}));
    // The other questions have no such answer, so the request fails.
    second.ask(r#""inputRequests":{"a":{"method":"roots/list","params":{}}}"#).await;
    let question = client.asked("roots/list", "{}").await;
    client.send(refused(&question)).await;
    let failure = client.expect_error("1").await;
    assert_eq!(failure.kind(), "input_refused");
    assert!(failure.may_have_run(), "the server has read it: {failure:?}");
    assert!(failure.data["detail"].as_str().unwrap().contains("rejected by user"), "{failure:?}");
    client.expect_quiet(&mut server).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r45_cancelling_a_call_cancels_its_open_question() {
    let (mut server, mut client) = connected(ABLE, "{}").await;
    client.send(request("1", "prompts/get", GET)).await;
    let post = server.modern("prompts/get").await;
    post.ask(r#""inputRequests":{"a":{"method":"roots/list","params":{}},"b":{"method":"roots/list","params":{}}}"#)
        .await;
    let answered = client.asked("roots/list", "{}").await;
    let open = client.asked("roots/list", "{}").await;
    client.send(response(&answered, r#"{"roots":[]}"#)).await;
    client.send(cancel("1")).await;
    let told = client.value("a message").await;
    assert_eq!(told["method"], "notifications/cancelled");
    assert_eq!(told["params"]["requestId"].to_string(), open);
    assert_eq!(told.get("id"), None);
    // Too late.
    client.send(response(&open, r#"{"roots":[]}"#)).await;
    client.expect_quiet(&mut server).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r11_other_requests_run_while_the_user_answers_a_question() {
    let (mut server, mut client) = connected_with(ABLE, "{}", |config| config.limits.concurrency = 1).await;
    client.send(request("1", "prompts/get", GET)).await;
    client.send(request("2", "prompts/get", GET)).await;
    let post = server.modern("prompts/get").await;
    client.expect_pong().await;
    server.expect_no_more();
    post.ask(r#""inputRequests":{"a":{"method":"roots/list","params":{}}}"#).await;
    let question = client.asked("roots/list", "{}").await;
    let other = server.modern("prompts/get").await;
    // The limit also applies to the next round.
    client.send(response(&question, r#"{"roots":[]}"#)).await;
    client.expect_pong().await;
    server.expect_no_more();
    let answer = other.complete("2", "").await;
    client.expect(answer).await;
    let second = server.modern("prompts/get").await;
    assert_eq!(second.value()["params"]["inputResponses"], json!({"a": {"roots": []}}));
    let answer = second.complete("1", "").await;
    client.expect(answer).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r8_a_call_with_an_open_question_gets_an_error_at_the_end_of_stdin() {
    let set = |config: &mut Config| config.timeouts.drain = Duration::from_millis(100);
    let (mut server, mut client) = connected_with(ABLE, "{}", set).await;
    client.send(request("1", "prompts/get", GET)).await;
    server.modern("prompts/get").await.ask(r#""inputRequests":{"a":{"method":"roots/list","params":{}}}"#).await;
    let open = client.asked("roots/list", "{}").await;
    client.close_stdin();
    let told = client.value("a message").await;
    assert_eq!(told["params"]["requestId"].to_string(), open);
    let failure = client.expect_error("1").await;
    assert_eq!(failure.kind(), "shutdown");
    assert!(failure.may_have_run(), "{failure:?}");
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r44_the_total_timeout_includes_the_time_of_an_open_question() {
    let set = |config: &mut Config| config.timeouts.total = Some(Duration::from_millis(300));
    let (mut server, mut client) = connected_with(ABLE, "{}", set).await;
    client.send(request("1", "prompts/get", GET)).await;
    server.modern("prompts/get").await.ask(r#""inputRequests":{"a":{"method":"roots/list","params":{}}}"#).await;
    let open = client.asked("roots/list", "{}").await;
    let told = client.value("a message").await;
    assert_eq!(told["method"], "notifications/cancelled");
    assert_eq!(told["params"]["requestId"].to_string(), open);
    let failure = client.expect_error("1").await;
    assert_eq!(failure.kind(), "timeout");
    assert!(failure.may_have_run(), "{failure:?}");
    client.expect_quiet(&mut server).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r5_endless_input_requests_end_with_an_error() {
    let (mut server, mut client) = connected(ABLE, "{}").await;
    client.send(request("1", "prompts/get", GET)).await;
    let mut rounds = 0;
    let failure = loop {
        server.modern("prompts/get").await.ask(r#""inputRequests":{"a":{"method":"roots/list","params":{}}}"#).await;
        rounds += 1;
        assert!(rounds <= 1000, "the rounds never end");
        let line = client.line("a question or the end").await;
        let message: Value = serde_json::from_slice(&line).unwrap();
        if message.get("error").is_some() {
            break message;
        }
        client.send(response(&message["id"].to_string(), r#"{"roots":[]}"#)).await;
    };
    assert_eq!((&failure["id"], &failure["error"]["code"]), (&json!(1), &json!(-32603)));
    assert_eq!(failure["error"]["data"]["mayHaveRun"], true);
    client.expect_quiet(&mut server).await;
    client.finish(&mut server).await;
}

// Cancellation.

#[tokio::test]
async fn r69_cancelling_a_request_closes_its_connection_without_a_notification() {
    let (mut server, mut client) = connected("{}", "{}").await;
    client.send(request("1", "prompts/get", GET)).await;
    client.send(request("2", "prompts/get", GET)).await;
    let (whole, mut streamed) = (server.modern("prompts/get").await, server.modern("prompts/get").await);
    streamed.sse().await;
    streamed.event(&progress("1", 1)).await;
    client.expect(progress("1", 1)).await;
    client.send(cancel("1")).await;
    client.send(cancel("2")).await;
    whole.closed_by_peer("the end of a cancelled request").await;
    streamed.closed_by_peer("the end of a cancelled stream").await;
    client.send(cancel("3")).await;
    client.expect_quiet(&mut server).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r69_a_timed_out_request_closes_its_connection_without_a_notification() {
    for is_silent in [true, false] {
        let set = |config: &mut Config| {
            let limit = Duration::from_millis(200);
            if is_silent {
                config.timeouts.idle = limit;
            } else {
                config.timeouts.total = Some(limit);
            }
        };
        let (mut server, mut client) = connected_with("{}", "{}", set).await;
        client.send(request("1", "prompts/get", GET)).await;
        let post = server.modern("prompts/get").await;
        let failure = client.expect_error("1").await;
        assert_eq!(failure.kind(), "timeout");
        assert!(failure.may_have_run(), "{failure:?}");
        post.closed_by_peer("the end of a request that took too long").await;
        client.expect_quiet(&mut server).await;
        client.finish(&mut server).await;
    }
}

// Subscriptions.

#[tokio::test]
async fn the_bridge_subscribes_to_the_list_changes_that_the_server_offers() {
    let (mut server, mut client) = connected("{}", ALL_LISTS).await;
    let mut listen = server.modern("subscriptions/listen").await;
    assert_eq!(
        listen.wanted(),
        json!({"toolsListChanged": true, "promptsListChanged": true, "resourcesListChanged": true})
    );
    listen.acknowledge().await;
    for list in ["tools", "prompts", "resources"] {
        let method = format!("notifications/{list}/list_changed");
        listen.tell(&method, "").await;
        client.expect(notification(&method, "{}")).await;
    }
    listen.tell("notifications/resources/updated", r#""uri":"a:b","x":1e400"#).await;
    client.expect(notification("notifications/resources/updated", r#"{"uri":"a:b","x":1e400}"#)).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn no_subscription_is_opened_if_the_server_offers_no_list_changes() {
    for offered in ["{}", r#"{"tools":{},"prompts":{"listChanged":false}}"#, WATCHED] {
        let (mut server, mut client) = connected("{}", offered).await;
        client.expect_quiet(&mut server).await;
        client.finish(&mut server).await;
    }
}

#[tokio::test]
async fn a_refused_subscription_does_not_affect_other_requests() {
    let (mut server, mut client) = connected("{}", ALL_LISTS).await;
    server.modern("subscriptions/listen").await.refuse(404, -32_601).await;
    client.expect_quiet(&mut server).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn a_subscription_is_retried_while_the_server_is_busy() {
    let (mut server, mut client) = connected("{}", WATCHED.replace("subscribe", "listChanged").as_str()).await;
    // More attempts than one request gets.
    for _ in 0..8 {
        server.modern("subscriptions/listen").await.respond(503, &[], "").await;
    }
    let mut listen = server.modern("subscriptions/listen").await;
    listen.acknowledge().await;
    listen.tell("notifications/resources/list_changed", "").await;
    client.expect(notification("notifications/resources/list_changed", "{}")).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn a_new_subscription_is_acknowledged_before_the_old_one_ends() {
    let (mut server, mut client) = connected("{}", WATCHED).await;
    client.send(watch("1", "subscribe", "a:1")).await;
    let mut first = server.modern("subscriptions/listen").await;
    assert_eq!(first.wanted(), json!({"resourceSubscriptions": ["a:1"]}));
    // The bridge answers only after the server has acknowledged.
    client.expect_pong().await;
    first.acknowledge().await;
    client.expect(response("1", "{}")).await;

    client.send(watch("2", "subscribe", "a:2")).await;
    let mut second = server.modern("subscriptions/listen").await;
    assert_eq!(uris(&second), json!(["a:1", "a:2"]));
    first.tell("notifications/resources/updated", r#""uri":"a:1""#).await;
    client.expect(notification("notifications/resources/updated", r#"{"uri":"a:1"}"#)).await;
    second.acknowledge().await;
    client.expect(response("2", "{}")).await;
    first.closed_by_peer("the end of the first subscription").await;

    client.send(watch("3", "unsubscribe", "a:1")).await;
    let mut third = server.modern("subscriptions/listen").await;
    assert_eq!(uris(&third), json!(["a:2"]));
    third.acknowledge().await;
    client.expect(response("3", "{}")).await;
    second.closed_by_peer("the end of the second subscription").await;
    third.tell("notifications/resources/updated", r#""uri":"a:2""#).await;
    client.expect(notification("notifications/resources/updated", r#"{"uri":"a:2"}"#)).await;

    // No subscription is left.
    client.send(watch("4", "unsubscribe", "a:2")).await;
    client.expect(response("4", "{}")).await;
    third.closed_by_peer("the end of the last subscription").await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn a_refused_subscription_is_left_out_of_the_next_listen_request() {
    let (mut server, mut client) = connected("{}", WATCHED).await;
    let first = watching(&mut server, &mut client, "a:1").await;
    client.send(watch("1", "subscribe", "bad:")).await;
    client.send(watch("2", "subscribe", "a:2")).await;
    let refused = server.modern("subscriptions/listen").await;
    assert_eq!(uris(&refused), json!(["a:1", "bad:"]), "one subscription at a time");
    refused.refuse(400, -32_602).await;
    let failure = client.expect_error("1").await;
    assert!(failure.data["detail"].as_str().unwrap().contains("-32602"), "{failure:?}");
    let mut next = server.modern("subscriptions/listen").await;
    assert_eq!(uris(&next), json!(["a:1", "a:2"]));
    next.acknowledge().await;
    client.expect(response("2", "{}")).await;
    first.closed_by_peer("the end of the first subscription").await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r74_an_ended_subscription_is_reopened_and_the_client_notified_once() {
    let (mut server, mut client) =
        connected("{}", r#"{"tools":{"listChanged":true},"resources":{"subscribe":true}}"#).await;
    let mut first = server.modern("subscriptions/listen").await;
    first.acknowledge().await;
    let mut listen = watching(&mut server, &mut client, "a:1").await;
    first.closed_by_peer("the end of the first subscription").await;
    // The connection breaks, the stream ends without a response, or the server ends it regularly.
    for way in 0..3 {
        match way {
            0 => listen.reset(),
            1 => listen.end().await,
            _ => {
                let own = listen.id().unwrap();
                listen.event(&response(&own, r#"{"resultType":"complete"}"#)).await;
                listen.end().await;
            }
        }
        listen = server.modern("subscriptions/listen").await;
        assert_eq!(listen.wanted(), json!({"toolsListChanged": true, "resourceSubscriptions": ["a:1"]}));
        listen.acknowledge().await;
        client
            .expect_all([
                notification("notifications/tools/list_changed", "{}"),
                notification("notifications/resources/updated", r#"{"uri":"a:1"}"#),
            ])
            .await;
        listen.tell("notifications/tools/list_changed", "").await;
        client.expect(notification("notifications/tools/list_changed", "{}")).await;
        client.expect_pong().await;
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r11_r70_a_subscription_does_not_count_as_a_request_or_delay_the_exit() {
    let set = |config: &mut Config| config.limits.concurrency = 1;
    let (mut server, mut client) = connected_with("{}", ALL_LISTS, set).await;
    let mut listen = server.modern("subscriptions/listen").await;
    client.expect_quiet(&mut server).await;
    listen.acknowledge().await;
    client.expect_quiet(&mut server).await;
    client.finish(&mut server).await;
    listen.closed_by_peer("the end of the subscription").await;
}

// Failures.

#[tokio::test]
async fn r71_a_tool_call_is_not_repeated_after_its_stream_breaks() {
    let (mut server, mut client) = connected("{}", "{}").await;
    client.send(request("\"list\"", "tools/list", "{}")).await;
    let answer = server.modern("tools/list").await.complete("\"list\"", r#""tools":[{"name":"t"}]"#).await;
    client.expect(answer).await;
    for way in 0..5 {
        client.send(call("1")).await;
        let mut post = server.modern("tools/call").await;
        match way {
            0 => post.reset(),
            1 => post.respond_as(200, "text/event-stream", "id: 1\ndata:\n\n").await,
            2 => {
                post.sse().await;
                post.event(&progress("1", 1)).await;
                client.expect(progress("1", 1)).await;
                post.reset();
            }
            3 => post.respond(202, &[], "").await,
            _ => post.respond(502, &[], "").await,
        }
        let failure = client.expect_error("1").await;
        assert!(failure.may_have_run(), "{way}: {failure:?}");
        client.expect_quiet(&mut server).await;
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r96_an_unreachable_server_is_tried_six_times_per_request() {
    let (socket, address) = closed_port();
    let mut client = Client::to(&format!("http://{address}/mcp"));
    let mut server = Server::on(socket.listen(16).unwrap(), None);
    client.handshake_with_modern(&mut server, "{}", "{}").await;
    client.send(request("0", "prompts/get", GET)).await;
    let last = server.modern("prompts/get").await;
    let answer = response(&last.id().unwrap(), r#"{"resultType":"complete"}"#);
    last.respond(200, &[("Content-Type", "application/json"), ("Connection", "close")], answer).await;
    client.expect(response("0", "{}")).await;
    drop(server);
    client.send(request("1", "prompts/get", GET)).await;
    let failure = client.expect_error("1").await;
    assert_eq!(failure.kind(), "connect", "{failure:?}");
    assert!(!failure.may_have_run(), "{failure:?}");
    // The attempts of one request, not of each of the bridge's own requests.
    assert_eq!(failure.data["attempts"], 6, "{failure:?}");
}

#[tokio::test]
async fn r95_a_busy_server_is_retried_while_other_requests_run() {
    let set = |config: &mut Config| config.limits.concurrency = 1;
    let (mut server, mut client) = connected_with("{}", "{}", set).await;
    client.send(call("1")).await;
    server.modern("tools/list").await.complete("", r#""tools":[]"#).await;
    let busy = server.modern("tools/call").await;
    let id = busy.id().unwrap();
    busy.respond(429, &[("Retry-After", "1")], "").await;
    client.expect_quiet(&mut server).await;
    let again = server.modern("tools/call").await;
    assert_eq!(again.id().unwrap(), id);
    let answer = again.complete("1", r#""content":[]"#).await;
    client.expect(answer).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn refused_credentials_are_loaded_again_from_the_header_source() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let load = move || {
        let value = format!("Bearer {}", counter.fetch_add(1, Ordering::SeqCst) + 1);
        let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(&value).unwrap())]);
        Box::pin(async { Ok(headers) }) as LoadedHeaders
    };
    let set = |config: &mut Config| config.header_source = Some(HeaderSource::new(load, true));
    let (mut server, mut client) = connected_with("{}", ALL_LISTS, set).await;
    let listen = server.modern("subscriptions/listen").await;
    assert_eq!(listen.header("authorization"), Some("Bearer 1"));
    listen.respond(401, &[], "").await;
    let mut listen = server.modern("subscriptions/listen").await;
    assert_eq!(listen.header("authorization"), Some("Bearer 2"));
    listen.acknowledge().await;
    client.send(request("1", "prompts/get", GET)).await;
    let post = server.modern("prompts/get").await;
    assert_eq!(post.header("authorization"), Some("Bearer 2"));
    post.respond(401, &[], "").await;
    let post = server.modern("prompts/get").await;
    assert_eq!(post.header("authorization"), Some("Bearer 3"));
    post.respond(401, &[], "").await;
    assert_eq!(client.expect_error("1").await.status(), Some(401));
    assert_eq!(asked.load(Ordering::SeqCst), 3);
    client.finish(&mut server).await;
}

// The server changes its era.

#[tokio::test]
async fn r38_r39_a_legacy_session_continues_at_a_modern_server() {
    for (status, code) in [(400, -32_020), (400, -32_022), (404, -32_001)] {
        let (mut server, mut client) = dialogue().await;
        client.initialize().await;
        let initialize = server.post().await;
        let result = r#"{"protocolVersion":"2025-06-18","capabilities":{"logging":{},"resources":{"subscribe":true}},"serverInfo":{"name":"s","version":"1"}}"#;
        let answer = response(&initialize.id().unwrap(), result);
        initialize.respond(200, &[("Content-Type", "application/json"), ("Mcp-Session-Id", "old")], &answer).await;
        client.expect(answer).await;
        client.send(INITIALIZED).await;
        server.post().await.accepted().await;
        for message in [request("1", "logging/setLevel", r#"{"level":"error"}"#), watch("2", "subscribe", "a:1")] {
            client.send(message).await;
            let answer = server.post().await.answer("{}").await;
            client.expect(answer).await;
        }
        client.send(request("3", "prompts/get", GET)).await;
        server.post_of("3").await.refuse(status, code).await;
        let initialize = server.post().await;
        assert_eq!(initialize.rpc_method(), "initialize");
        initialize.refuse(400, -32_022).await;
        server.modern("server/discover").await.discovered(r#"{"resources":{"subscribe":true},"logging":{}}"#).await;
        // Both requests arrive, in any order.
        let (first, second) = (server.post().await, server.post().await);
        let (mut listen, get) = if first.rpc_method() == "prompts/get" { (second, first) } else { (first, second) };
        assert_eq!(uris(&listen), json!(["a:1"]));
        listen.acknowledge().await;
        assert_eq!(get.meta()["io.modelcontextprotocol/logLevel"], "error");
        assert_eq!(get.header("mcp-session-id"), None);
        let answer = get.complete("3", "").await;
        client.expect(answer).await;
        listen.tell("notifications/resources/updated", r#""uri":"a:1""#).await;
        client.expect(notification("notifications/resources/updated", r#"{"uri":"a:1"}"#)).await;
        client.expect_quiet(&mut server).await;
        // There is no session left to end.
        client.finish(&mut server).await;
    }
}

#[tokio::test]
async fn r39_many_refused_calls_cause_one_check_for_a_modern_server() {
    let (mut server, mut client) = dialogue().await;
    client.initialize().await;
    let answer = server.initialize(Some("old"), VERSION).await;
    client.expect(answer).await;
    client.send(INITIALIZED).await;
    server.post().await.accepted().await;
    for id in 0..5 {
        client.send(request(&id.to_string(), "prompts/get", GET)).await;
    }
    let mut posts = Vec::new();
    for _ in 0..5 {
        posts.push(server.post().await);
    }
    let slow = posts.pop().unwrap();
    for post in posts {
        post.refuse(400, -32_022).await;
    }
    let initialize = server.post().await;
    assert_eq!(initialize.rpc_method(), "initialize");
    initialize.refuse(400, -32_022).await;
    server.modern("server/discover").await.discovered("{}").await;
    for _ in 0..4 {
        server.modern("prompts/get").await.complete("", "").await;
    }
    // One response arrives after all others.
    let late: Value = serde_json::from_str(&slow.id().unwrap()).unwrap();
    client.expect_all((0..5).filter(|id| *id != late).map(|id| response(&id.to_string(), "{}"))).await;
    slow.refuse(400, -32_022).await;
    let answer = server.modern("prompts/get").await.complete(&late.to_string(), "").await;
    client.expect(answer).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r38_a_refused_push_stream_reveals_a_modern_server() {
    let mut server = Server::start().await;
    server.expect_get();
    let mut client = Client::of(&server);
    client.initialize().await;
    let answer = server.initialize(Some("old"), VERSION).await;
    client.expect(answer).await;
    client.send(INITIALIZED).await;
    server.post().await.accepted().await;
    let mut stream = server.get().await;
    stream.sse().await;
    stream.reset();
    server.get().await.respond_as(400, "application/json", refusal("null", -32_022)).await;
    server.post().await.refuse(400, -32_022).await;
    server.modern("server/discover").await.discovered("{}").await;
    client.expect_quiet(&mut server).await;
    // The bridge does not request the stream again either.
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r39_a_modern_server_without_the_agreed_capabilities_is_an_error() {
    let (mut server, mut client) = dialogue().await;
    client.initialize().await;
    let initialize = server.post().await;
    let result = format!(
        r#"{{"protocolVersion":"{VERSION}","capabilities":{{"tools":{{}}}},"serverInfo":{{"name":"s","version":"1"}}}}"#
    );
    let answer = initialize.answer(&result).await;
    client.expect(answer).await;
    client.send(INITIALIZED).await;
    server.post().await.accepted().await;
    client.send(call("1")).await;
    server.post().await.refuse(400, -32_022).await;
    server.post().await.refuse(400, -32_022).await;
    server.modern("server/discover").await.discovered("{}").await;
    let failure = client.expect_error("1").await;
    assert_eq!(failure.kind(), "session_lost");
    assert!(failure.message.contains("tools") && !failure.may_have_run(), "{failure:?}");
    client.finish(&mut server).await;
}

// Bytes.

#[tokio::test]
async fn r2_r3_json_values_keep_their_spelling_in_both_directions() {
    let (mut server, mut client) = connected("{}", "{}").await;
    for value in
        ["1e400", "9007199254740993", "1.0", "-0", r#""\ud800\u2028/\/""#, r#"{"b":1,"a":{"\u0061":[ ]},"b":2}"#]
    {
        client.send(format!(r#" {{ "params" : {{"arguments":{value},"uri":"a:b","z":{value}}},"method":"resources\/read","x":{value},"id":1 }} "#)).await;
        let post = server.modern("resources/read").await;
        let text = post.text();
        assert!(text.contains(&format!(r#""arguments":{value},"uri":"a:b","z":{value}"#)), "{text}");
        assert!(text.contains(&format!(r#""x":{value}"#)), "{text}");
        let own = post.id().unwrap();
        post.json(format!(
            "{{\r\n  \"result\": {{\n \"contents\" : {value},\r\n\"resultType\":\"complete\", \"ttlMs\": 5,\n\"own\":{value} }},\n \"id\" : {own}, \"y\":{value}, \"jsonrpc\":\"2.0\" }}\n"
        ))
        .await;
        let line = client.line("the answer").await;
        let got = String::from_utf8(line).unwrap();
        assert!(got.contains(&format!(r#""contents" : {value}"#)), "{got}");
        assert!(got.contains(&format!(r#""own":{value}"#)), "{got}");
        assert!(got.contains(&format!(r#""id" : 1, "y":{value}"#)), "{got}");
        assert!(!got.contains("resultType") && !got.contains("ttlMs"), "{got}");
    }
    client.finish(&mut server).await;
}
