//! A modern client at a legacy server (3.3): the handshake on the client's behalf, requests and responses, questions in
//! the middle of a call, subscriptions, and their ends.

use std::{collections::HashSet, time::Duration};

use mcp_gangway_core::{ClientEra, TransportMode};
use serde_json::{Value, json};

use crate::support::{
    Client, Exchange, INITIALIZED, Server, VERSION, call, cancel, closed_port, notification, progress, request,
    response,
};

/// The capabilities of a client that can answer every question.
const ABLE: &str = r#"{"elicitation":{"form":{},"url":{}},"sampling":{},"roots":{}}"#;
const UNSUPPORTED: i64 = -32_022;
const NOT_FOUND: i64 = -32_601;
const INVALID: i64 = -32_602;

/// Returns a request of a client with these capabilities. `more` are further members of its parameters, each after a
/// comma.
fn modern(id: &str, method: &str, capabilities: &str, more: &str) -> String {
    let version = r#""io.modelcontextprotocol/protocolVersion":"2026-07-28""#;
    let client = r#""io.modelcontextprotocol/clientInfo":{"name":"c","version":"1"}"#;
    let capabilities = format!(r#""io.modelcontextprotocol/clientCapabilities":{capabilities}"#);
    request(id, method, &format!(r#"{{"_meta":{{{version},{client},{capabilities}}}{more}}}"#))
}

/// Returns a tool call of a client that can answer every question.
fn ask(id: &str) -> String {
    modern(id, "tools/call", ABLE, r#","name":"t","arguments":{}"#)
}

/// Returns the same call again, with the given state and responses, written as members of an object.
fn again(id: &str, state: &str, responses: &str) -> String {
    let more = format!(r#","name":"t","arguments":{{}},"requestState":"{state}","inputResponses":{{{responses}}}"#);
    modern(id, "tools/call", ABLE, &more)
}

/// Adds another member to `_meta`.
fn with_meta(request: &str, member: &str) -> String {
    request.replacen(r#"{"_meta":{"#, &format!(r#"{{"_meta":{{{member},"#), 1)
}

fn with_level(request: &str, level: &str) -> String {
    with_meta(request, &format!(r#""io.modelcontextprotocol/logLevel":"{level}""#))
}

fn elicitation(id: &str) -> String {
    request(id, "elicitation/create", r#"{"message":"m","requestedSchema":{"type":"object","properties":{}}}"#)
}

fn error(id: &str, code: i64, text: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":"{text}"}}}}"#)
}

/// Answers `initialize` with these capabilities, and accepts `initialized`. Returns the bridge's `initialize`.
async fn shake_hands(server: &mut Server, session: &str, capabilities: &str) -> Value {
    let initialize = server.post().await;
    let made = initialize.value();
    assert_eq!(made["method"], "initialize", "{}", initialize.text());
    offer(initialize, session, capabilities).await;
    initialized(server, session).await;
    made
}

async fn offer(initialize: Exchange, session: &str, capabilities: &str) {
    assert_eq!(initialize.rpc_method(), "initialize", "{}", initialize.text());
    assert_eq!(initialize.header("mcp-session-id"), None);
    let result = format!(
        r#"{{"protocolVersion":"{VERSION}","capabilities":{capabilities},"serverInfo":{{"name":"s","version":"1"}},"instructions":"i"}}"#
    );
    let answer = response(&initialize.id().unwrap(), &result);
    initialize.respond(200, &[("Content-Type", "application/json"), ("Mcp-Session-Id", session)], answer).await;
}

async fn initialized(server: &mut Server, session: &str) {
    let initialized = server.post().await;
    assert_eq!(initialized.rpc_method(), "notifications/initialized", "{}", initialized.text());
    in_session(&initialized, session);
    initialized.accepted().await;
}

fn in_session(exchange: &Exchange, session: &str) {
    assert_eq!(exchange.header("mcp-session-id"), Some(session), "{}", exchange.text());
    assert_eq!(exchange.header("mcp-protocol-version"), Some(VERSION));
    assert_eq!(exchange.header("mcp-method"), None, "a legacy request has no modern headers");
}

/// Starts a client and a server. The bridge treats the client as modern, although its first request is a probe.
async fn dialogue() -> (Server, Client) {
    let server = Server::start().await;
    let client = start(server.config());
    (server, client)
}

fn start(mut config: mcp_gangway_core::Config) -> Client {
    config.client_era = ClientEra::Modern;
    Client::start(config)
}

/// Probes in the session "s" of a server with these capabilities.
async fn discover(server: &mut Server, client: &mut Client, capabilities: &str) {
    client.send(modern(r#""d""#, "server/discover", ABLE, "")).await;
    let probe = server.post().await;
    assert_eq!(probe.rpc_method(), "server/discover");
    probe.respond(400, &[], "").await;
    shake_hands(server, "s", capabilities).await;
    client.has_session("s");
}

/// Takes the answer to the probe.
async fn discovered(client: &mut Client) {
    assert_eq!(client.value("the DiscoverResult").await["id"], "d");
}

/// Returns a client and a legacy server after the client's probe.
async fn served() -> (Server, Client) {
    served_with(|_| ()).await
}

/// Returns the same with these settings of the bridge.
async fn served_with(settings: impl FnOnce(&mut mcp_gangway_core::Config)) -> (Server, Client) {
    let mut server = Server::start().await;
    let mut config = server.config();
    settings(&mut config);
    let mut client = start(config);
    discover(&mut server, &mut client, r#"{"tools":{}}"#).await;
    discovered(&mut client).await;
    (server, client)
}

/// Returns the same with a push stream.
async fn listening(capabilities: &str) -> (Server, Client, Exchange) {
    let mut server = Server::start().await;
    server.expect_get();
    let mut client = start(server.config());
    discover(&mut server, &mut client, capabilities).await;
    let mut get = server.get().await;
    get.sse().await;
    discovered(&mut client).await;
    (server, client, get)
}

/// Takes the client's call, and opens its stream.
async fn stream(server: &mut Server) -> Exchange {
    let mut call = server.post().await;
    assert_eq!(call.rpc_method(), "tools/call", "{}", call.text());
    call.sse().await;
    call
}

/// Expects a result that asks the client for input. Returns the questions and the state.
async fn input_required(client: &mut Client, id: &str) -> (Value, String) {
    let answer = client.value("a result that asks for input").await;
    assert_eq!(answer["id"], serde_json::from_str::<Value>(id).unwrap(), "{answer}");
    let result = &answer["result"];
    assert_eq!(result["resultType"], "input_required", "{answer}");
    (result["inputRequests"].clone(), result["requestState"].as_str().expect("a state").to_owned())
}

/// Makes a call with this id, during which the server asks a question. Returns its stream and the state.
async fn parked(server: &mut Server, client: &mut Client, id: &str) -> (Exchange, String) {
    client.send(ask(id)).await;
    let mut call = stream(server).await;
    call.event(&elicitation("7")).await;
    let (_, state) = input_required(client, id).await;
    (call, state)
}

/// Expects that the server receives this text.
async fn given(server: &mut Server, text: &str) {
    let post = server.post().await;
    assert_eq!(post.text(), text);
    in_session(&post, "s");
    post.accepted().await;
}

/// Expects that the server receives the cancellation of the request with this id.
async fn cancelled(server: &mut Server, id: &str) {
    let post = server.post().await;
    assert_eq!(post.cancelled_id().as_deref(), Some(id), "{}", post.text());
    in_session(&post, "s");
    post.accepted().await;
}

/// Expects an error that the bridge answers itself, as a modern server would.
async fn refused(client: &mut Client, id: &str, code: i64) -> Value {
    let answer = client.value("an error").await;
    assert_eq!(answer["id"], serde_json::from_str::<Value>(id).unwrap(), "{answer}");
    assert_eq!(answer["error"]["code"], code, "{answer}");
    assert_eq!(answer["error"]["data"]["source"], "mcp-gangway", "{answer}");
    answer
}

/// Waits until the bridge has read all lines so far: it answers this request itself, in order.
async fn taken(client: &mut Client) {
    client.send(modern(r#""taken""#, "tools/list", "{}", "").replace("2026-07-28", "2099-01-01")).await;
    refused(client, r#""taken""#, UNSUPPORTED).await;
}

/// Returns the complete result that the bridge makes from these members of an object.
fn complete(id: &str, members: &str) -> String {
    let meta = r#""_meta":{"io.modelcontextprotocol/serverInfo":{"name":"s","version":"1"}}"#;
    response(id, &format!(r#"{{"resultType":"complete",{meta},{members}}}"#))
}

// The first request.

#[tokio::test]
async fn a_refused_first_discover_request_leads_to_a_handshake() {
    let refusals = [
        (200, error(r#""d""#, NOT_FOUND, "Method not found")),
        (400, error("null", -32_000, "Bad Request: Server not initialized")),
        (400, String::new()),
        (404, String::new()),
        (405, String::new()),
        (500, String::new()),
    ];
    for (status, body) in refusals {
        let mut server = Server::start().await;
        server.expect_get();
        let mut client = start(server.config());
        client.send(modern(r#""d""#, "server/discover", r#"{"sampling":{},"x":9007199254740993}"#, "")).await;
        let probe = server.post().await;
        assert_eq!(probe.header("mcp-method"), Some("server/discover"));
        probe.respond_as(status, "application/json", body).await;
        let initialize = shake_hands(&mut server, "s", r#"{"tools":{"listChanged":true},"y":{}}"#).await;
        let params = &initialize["params"];
        assert_eq!(params["protocolVersion"], VERSION);
        assert_eq!(params["clientInfo"], json!({"name":"c","version":"1"}));
        assert_eq!(params["capabilities"], json!({"sampling": {}, "x": 9_007_199_254_740_993_u64}));
        let mut get = server.next("the GET before the answer").await;
        assert_eq!(get.verb, "GET");
        in_session(&get, "s");
        get.sse().await;
        let answer = client.value("the DiscoverResult").await;
        let expected = json!({
            "resultType": "complete", "supportedVersions": ["2026-07-28"], "ttlMs": 0, "cacheScope": "private",
            "capabilities": {"tools": {"listChanged": true}, "y": {}}, "instructions": "i",
            "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "s", "version": "1"}},
        });
        assert_eq!(answer, json!({"jsonrpc": "2.0", "id": "d", "result": expected}));
        // From now on the bridge answers this itself.
        client.send(modern("2", "server/discover", "{}", "")).await;
        assert_eq!(client.value("another DiscoverResult").await["result"], expected);
        client.has_session("s");
        client.finish(&mut server).await;
    }
}

#[tokio::test]
async fn a_first_modern_request_that_is_a_call_leads_to_a_handshake() {
    let (mut server, mut client) = dialogue().await;
    client.send(ask("1")).await;
    let initialize = loop {
        let post = server.post().await;
        if post.rpc_method() == "initialize" {
            break post;
        }
        assert!(post.header("mcp-method").is_some(), "{}", post.text());
        post.respond(400, &[], "").await;
    };
    offer(initialize, "s", "{}").await;
    initialized(&mut server, "s").await;
    let post = server.post().await;
    in_session(&post, "s");
    assert_eq!(post.value()["params"], json!({"name": "t", "arguments": {}}));
    post.answer(r#"{"content":[]}"#).await;
    client.expect(complete("1", r#""content":[]"#)).await;
    client.has_session("s");
    client.finish(&mut server).await;
}

#[tokio::test]
async fn many_first_modern_requests_create_one_session() {
    const COUNT: usize = 64;
    let (mut server, mut client) = dialogue().await;
    for id in 0..COUNT {
        client.send(modern(&id.to_string(), "prompts/list", "{}", "")).await;
    }
    let mut sessions = 0;
    let mut answered = 0;
    while answered < COUNT {
        let post = server.post().await;
        match (post.header("mcp-method"), post.rpc_method().as_str()) {
            (Some(_), _) => post.respond(400, &[], "").await,
            (None, "initialize") => {
                sessions += 1;
                offer(post, "s", "{}").await;
            }
            (None, "notifications/initialized") => post.accepted().await,
            (None, _) => {
                in_session(&post, "s");
                post.answer(r#"{"prompts":[]}"#).await;
                answered += 1;
            }
        }
    }
    assert_eq!(sessions, 1);
    let mut ids = HashSet::new();
    for _ in 0..COUNT {
        let answer = client.value("an answer").await;
        assert_eq!(answer["result"]["prompts"], json!([]));
        ids.insert(answer["id"].as_u64().unwrap());
    }
    assert_eq!(ids.len(), COUNT);
    client.has_session("s");
    client.finish(&mut server).await;
}

#[tokio::test]
async fn modern_requests_are_translated_for_an_http_sse_server() {
    let mut server = Server::start().await;
    server.expect_get();
    let mut config = server.config();
    config.transport = TransportMode::Auto;
    let mut client = start(config);
    client.send(modern(r#""d""#, "server/discover", ABLE, "")).await;
    server.post().await.respond(405, &[], "").await;
    let initialize = server.post().await;
    assert_eq!(initialize.rpc_method(), "initialize");
    initialize.respond(405, &[], "").await;
    let mut events = server.get().await;
    events.sse().await;
    events.chunk("event: endpoint\ndata: /m\n\n").await;
    let initialize = server.post().await;
    assert_eq!((initialize.target.as_str(), initialize.rpc_method().as_str()), ("/m", "initialize"));
    let id = initialize.id().unwrap();
    initialize.accepted().await;
    // A server may send a ping before anything else.
    events.event(&request("9", "ping", "{}")).await;
    let pong = server.post().await;
    assert_eq!(pong.text(), response("9", "{}"));
    pong.accepted().await;
    events.event(&response(&id, r#"{"protocolVersion":"2024-11-05","capabilities":{}}"#)).await;
    let initialized = server.post().await;
    assert_eq!(initialized.text(), INITIALIZED);
    initialized.accepted().await;
    discovered(&mut client).await;

    // All messages arrive on the one stream.
    client.send(with_meta(&ask("1"), r#""progressToken":"a""#)).await;
    let post = server.post().await;
    let id = post.id().unwrap();
    post.accepted().await;
    events.event(&progress(r#""a""#, 1)).await;
    client.expect(progress(r#""a""#, 1)).await;
    events.event(&elicitation("0")).await;
    let (_, state) = input_required(&mut client, "1").await;
    events.event(&progress(r#""a""#, 2)).await;
    events.event(&request("8", "ping", "{}")).await;
    let pong = server.post().await;
    assert_eq!(pong.text(), response("8", "{}"));
    pong.accepted().await;
    client.send(with_meta(&again("2", &state, r#""r0":{"action":"cancel"}"#), r#""progressToken":"b""#)).await;
    let post = server.post().await;
    assert_eq!(post.text(), response("0", r#"{"action":"cancel"}"#));
    post.accepted().await;
    events.event(&progress(r#""a""#, 3)).await;
    client.expect(progress(r#""b""#, 3)).await;
    events.event(&response(&id, r#"{"content":[]}"#)).await;
    client.expect(response("2", r#"{"resultType":"complete","content":[]}"#)).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn a_refused_handshake_is_reported_and_tried_again_at_the_next_request() {
    let (mut server, mut client) = dialogue().await;
    client.send(modern("1", "server/discover", "{}", "")).await;
    server.post().await.respond(400, &[], "").await;
    let initialize = server.post().await;
    let refusal = error(&initialize.id().unwrap(), -32_603, "not today");
    initialize.json(refusal).await;
    client.expect(error("1", -32_603, "not today")).await;
    client.send(modern("2", "prompts/list", "{}", "")).await;
    server.post().await.respond(403, &[], "").await;
    assert_eq!(client.expect_error("2").await.status(), Some(403));
    client.send(modern("3", "prompts/list", "{}", "")).await;
    shake_hands(&mut server, "s", "{}").await;
    server.post().await.answer(r#"{"prompts":[]}"#).await;
    assert_eq!(client.value("an answer").await["id"], 3);
    client.has_session("s");
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r79_a_probe_fails_while_the_server_is_down_and_succeeds_after() {
    let (socket, address) = closed_port();
    let mut config = mcp_gangway_core::Config::new(&format!("http://{address}/mcp")).unwrap();
    config.proxy = mcp_gangway_core::Proxy::None;
    config.timeouts.attach = None;
    let mut client = start(config);
    client.send(modern("1", "server/discover", "{}", "")).await;
    let failure = client.expect_error("1").await;
    assert_eq!(failure.kind(), "connect", "{failure:?}");
    let mut server = Server::on(socket.listen(8).unwrap(), None);
    discover(&mut server, &mut client, "{}").await;
    discovered(&mut client).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r79_a_probe_of_a_silent_server_gets_a_timeout_error() {
    let (mut server, mut client) = dialogue().await;
    client.send(modern("1", "server/discover", "{}", "")).await;
    let probe = server.post().await;
    let failure = client.expect_error("1").await;
    assert_eq!(failure.kind(), "timeout");
    assert!(!failure.message.contains("settings"), "no option sets this limit: {failure:?}");
    probe.closed_by_peer("the end of the probe").await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r79_a_probe_times_out_while_the_handshake_continues() {
    let (mut server, mut client) = dialogue().await;
    client.send(modern("1", "server/discover", "{}", "")).await;
    server.post().await.respond(400, &[], "").await;
    let initialize = server.post().await;
    assert_eq!(client.expect_error("1").await.kind(), "timeout");
    // The handshake continues, and the next request uses it.
    offer(initialize, "s", "{}").await;
    initialized(&mut server, "s").await;
    client.send(modern("2", "server/discover", "{}", "")).await;
    assert_eq!(client.value("the DiscoverResult").await["id"], 2);
    client.has_session("s");
    client.finish(&mut server).await;
}

#[tokio::test]
async fn cancelling_a_request_does_not_stop_its_handshake() {
    let (mut server, mut client) = dialogue().await;
    client.send(modern("1", "prompts/list", "{}", "")).await;
    server.post().await.respond(400, &[], "").await;
    let initialize = server.post().await;
    client.send(cancel("1")).await;
    taken(&mut client).await;
    offer(initialize, "s", "{}").await;
    initialized(&mut server, "s").await;
    client.has_session("s");
    client.expect_nothing(&mut server).await;
    client.send(modern("2", "prompts/list", "{}", "")).await;
    server.post().await.answer(r#"{"prompts":[]}"#).await;
    assert_eq!(client.value("an answer").await["id"], 2);
    client.finish(&mut server).await;
}

// Requests and responses.

#[tokio::test]
async fn r3_r4_modern_members_are_removed_from_requests_and_added_to_results() {
    let (mut server, mut client) = served().await;
    for id in ["0", r#""""#, "1e2", "9007199254740993", r#""0""#] {
        let list =
            with_meta(&modern(id, "tools/list", "{}", r#", "cursor" : "\ud800","n":1e400"#), r#""progressToken":1.0"#);
        client.send(list).await;
        let post = server.post().await;
        in_session(&post, "s");
        let upstream = post.id().unwrap();
        let params = r#"{"_meta":{"progressToken":1.0}, "cursor" : "\ud800","n":1e400}"#;
        assert_eq!(post.text(), request(&upstream, "tools/list", params));
        // Pretty-printed, with values that no JSON library would preserve.
        let result = "{\r\n  \"tools\": [],\n \"nextCursor\":\"\\udfff\", \"x\":[1e400,9007199254740993,1.0] }";
        post.json(format!("{{ \"jsonrpc\":\"2.0\",\n\"result\":{result},\"id\":{upstream}, \"new\":0 }}")).await;
        let line = String::from_utf8(client.line("the answer").await).unwrap();
        assert!(line.contains(&format!(r#""id":{id},"#)), "{line}");
        assert!(line.contains(r#""nextCursor":"\udfff", "x":[1e400,9007199254740993,1.0]"#), "{line}");
        assert!(line.contains(r#""new":0"#), "{line}");
        let hints = r#""resultType":"complete","ttlMs":0,"cacheScope":"private","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"s","version":"1"}}"#;
        assert!(line.contains(hints), "{line}");
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn errors_of_the_server_are_passed_on_with_the_clients_id() {
    let (mut server, mut client) = served().await;
    client.send(modern("1e0", "resources/read", "{}", r#","uri":"a:b""#)).await;
    let post = server.post().await;
    let error = |id: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32002,"message":"gone","data":{{"uri":"a:b","n":1e400}}}}}}"#
        )
    };
    let text = error(&post.id().unwrap());
    post.json(text).await;
    client.expect(error("1e0")).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn an_unsupported_version_is_refused_without_asking_the_server() {
    let (mut server, mut client) = served().await;
    client.send(modern("1", "tools/list", "{}", "").replace("2026-07-28", "2099-01-01")).await;
    let answer = refused(&mut client, "1", UNSUPPORTED).await;
    assert_eq!(answer["error"]["data"]["supported"], json!(["2026-07-28"]));
    assert_eq!(answer["error"]["data"]["requested"], "2099-01-01");
    client.expect_nothing(&mut server).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn log_levels_are_set_once_and_log_messages_filtered() {
    let (mut server, mut client, mut get) = listening(r#"{"logging":{}}"#).await;
    let log = |level: &str| notification("notifications/message", &format!(r#"{{"level":"{level}","data":1e400}}"#));
    client.send(with_level(&ask("1"), "warning")).await;
    let set = server.post().await;
    assert_eq!(set.value()["method"], "logging/setLevel");
    assert_eq!(set.value()["params"], json!({"level": "warning"}));
    set.answer("{}").await;
    let mut first = stream(&mut server).await;
    for level in ["info", "error"] {
        first.event(&log(level)).await;
    }
    client.expect(log("error")).await;
    // A server may also send logs on the push stream.
    for level in ["debug", "warning"] {
        get.event(&log(level)).await;
    }
    client.expect(log("warning")).await;
    // The level is that of each request, not of the last one. The server already knows it.
    client.send(with_level(&ask("2"), "warning")).await;
    let mut second = stream(&mut server).await;
    client.send(ask("3")).await;
    let mut third = stream(&mut server).await;
    third.event(&log("emergency")).await;
    third.event(&response(&third.id().unwrap(), "{}")).await;
    assert_eq!(client.value("an answer without messages before it").await["id"], 3);
    second.event(&log("critical")).await;
    client.expect(log("critical")).await;
    for (call, id) in [(first, 1), (second, 2)] {
        call.answer_on_stream().await;
        assert_eq!(client.value("an answer").await["id"], id);
    }
    client.send(with_level(&ask("4"), "debug")).await;
    let set = server.post().await;
    assert_eq!(set.value()["params"], json!({"level": "debug"}));
    set.answer("{}").await;
    server.post().await.answer("{}").await;
    assert_eq!(client.value("an answer").await["id"], 4);
    client.finish(&mut server).await;
}

// Questions of the server.

#[tokio::test]
async fn server_requests_become_input_requests_and_the_call_stream_continues() {
    let (mut server, mut client) = served().await;
    client.send(ask("11")).await;
    let mut call = stream(&mut server).await;
    let sampling = request(r#""q""#, "sampling/createMessage", r#"{"messages":[],"maxTokens":1e400}"#);
    call.chunk(format!(
        "data: {}\n\ndata: {sampling}\n\ndata: {}\n\n",
        elicitation("0"),
        request("1", "roots/list", "{}")
    ))
    .await;
    let line = String::from_utf8(client.line("a result that asks for input").await).unwrap();
    assert!(line.contains(r#""maxTokens":1e400"#), "{line}");
    let answer: Value = serde_json::from_str(&line.replace("1e400", "0")).unwrap();
    assert_eq!(answer["id"], 11);
    let questions = &answer["result"]["inputRequests"];
    let methods = ["r0", "r1", "r2"].map(|key| questions[key]["method"].as_str().unwrap());
    assert_eq!(methods, ["elicitation/create", "sampling/createMessage", "roots/list"]);
    assert!(questions["r0"].get("id").is_none(), "{questions}");
    let state = answer["result"]["requestState"].as_str().unwrap();

    let responses = r#""r2":{"roots":[]},"r1":{"role":"assistant","x":1e400},"r0":{"action":"accept","content":{}}"#;
    client.send(again(r#""12""#, state, responses)).await;
    let mut given = Vec::new();
    for _ in 0..3 {
        let post = server.post().await;
        in_session(&post, "s");
        given.push(post.text().to_owned());
        post.accepted().await;
    }
    given.sort_unstable();
    let mut expected = [
        response("0", r#"{"action":"accept","content":{}}"#),
        response(r#""q""#, r#"{"role":"assistant","x":1e400}"#),
        response("1", r#"{"roots":[]}"#),
    ];
    expected.sort_unstable();
    assert_eq!(given, expected);

    // A second round.
    call.event(&elicitation("2")).await;
    let (questions, second) = input_required(&mut client, r#""12""#).await;
    assert_eq!(questions["r0"]["params"]["message"], "m");
    assert_ne!(second, state);
    client.send(again("13", &second, r#""r0":{"action":"decline"}"#)).await;
    self::given(&mut server, &response("2", r#"{"action":"decline"}"#)).await;
    let answer = response(&call.id().unwrap(), r#"{"content":[],"n":1e400}"#);
    call.event(&answer).await;
    call.end().await;
    client.expect(complete("13", r#""content":[],"n":1e400"#)).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn a_new_server_request_does_not_wait_for_the_post_of_the_last_response() {
    let (mut server, mut client) = served().await;
    let (mut call, state) = parked(&mut server, &mut client, "1").await;
    client.send(again("2", &state, r#""r0":{"action":"accept"}"#)).await;
    let unfinished = server.post().await;
    assert_eq!(unfinished.text(), response("7", r#"{"action":"accept"}"#));
    call.event(&elicitation("8")).await;
    let (_, state) = input_required(&mut client, "2").await;
    client.send(again("3", &state, r#""r0":{"action":"accept"}"#)).await;
    given(&mut server, &response("8", r#"{"action":"accept"}"#)).await;
    call.answer_on_stream().await;
    assert_eq!(client.value("the answer").await["id"], 3);
    unfinished.accepted().await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn server_requests_on_the_push_stream_need_an_open_call() {
    let (mut server, mut client, mut get) = listening("{}").await;
    // Without a call, there is no client to ask.
    get.event(&elicitation("5")).await;
    let post = server.post().await;
    assert_eq!(post.value()["error"]["code"], NOT_FOUND, "{}", post.text());
    assert_eq!(post.value()["id"], 5);
    post.accepted().await;
    client.send(ask("1")).await;
    let call = stream(&mut server).await;
    // A newer request that cannot carry questions does not prevent the question.
    client.send(modern("2", "completion/complete", ABLE, "")).await;
    let completion = server.post().await;
    get.event(&elicitation("0")).await;
    let (_, state) = input_required(&mut client, "1").await;
    client.send(again("3", &state, r#""r0":{"action":"accept"}"#)).await;
    given(&mut server, &response("0", r#"{"action":"accept"}"#)).await;
    call.answer_on_stream().await;
    assert_eq!(client.value("the answer").await["id"], 3);
    completion.answer("{}").await;
    assert_eq!(client.value("the completion").await["id"], 2);
    client.finish(&mut server).await;
}

#[tokio::test]
async fn server_requests_that_cannot_go_to_the_client_are_refused() {
    let unable = modern("1", "tools/call", r#"{"sampling":{}}"#, r#","name":"t","arguments":{}"#);
    let cases = [
        (unable.clone(), elicitation("0")),
        (unable, request("0", "roots/list", "{}")),
        (modern("1", "completion/complete", ABLE, ""), elicitation("0")),
        (modern("1", "tools/list", ABLE, ""), request("0", "roots/list", "{}")),
        (ask("1"), request("0", "tasks/get", "{}")),
    ];
    let (mut server, mut client) = served().await;
    for (request, question) in cases {
        client.send(request).await;
        let mut call = server.post().await;
        call.sse().await;
        call.event(&question).await;
        let post = server.post().await;
        assert_eq!(post.value()["error"]["code"], NOT_FOUND, "{}", post.text());
        assert_eq!(post.value()["id"], 0);
        in_session(&post, "s");
        post.accepted().await;
        call.answer_on_stream().await;
        assert_eq!(client.value("the answer").await["id"], 1);
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn an_elicitation_during_a_request_of_the_bridge_is_refused() {
    let (mut server, mut client, _get) = listening(r#"{"logging":{}}"#).await;
    client.send(with_level(&ask("1"), "info")).await;
    let mut set = server.post().await;
    set.sse().await;
    set.event(&request("3", "ping", "{}")).await;
    given(&mut server, &response("3", "{}")).await;
    set.event(&elicitation("4")).await;
    let post = server.post().await;
    assert_eq!((&post.value()["id"], &post.value()["error"]["code"]), (&json!(4), &json!(NOT_FOUND)));
    post.accepted().await;
    set.answer_on_stream().await;
    server.post().await.answer("{}").await;
    assert_eq!(client.value("the answer").await["id"], 1);
    client.finish(&mut server).await;
}

#[tokio::test]
async fn a_ping_of_the_server_is_answered_by_the_bridge() {
    let (mut server, mut client, mut get) = listening("{}").await;
    get.event(&request(r#""p""#, "ping", "{}")).await;
    given(&mut server, &response(r#""p""#, "{}")).await;
    client.send(ask("1")).await;
    let mut call = stream(&mut server).await;
    call.event(&request("2", "ping", "{}")).await;
    given(&mut server, &response("2", "{}")).await;
    call.answer_on_stream().await;
    assert_eq!(client.value("the answer").await["id"], 1);
    client.finish(&mut server).await;
}

#[tokio::test]
async fn input_requests_left_open_by_a_retry_are_sent_again() {
    let (mut server, mut client) = served().await;
    client.send(ask("1")).await;
    let mut call = stream(&mut server).await;
    call.chunk(format!("data: {}\n\ndata: {}\n\n", elicitation("0"), request("1", "roots/list", "{}"))).await;
    let (questions, state) = input_required(&mut client, "1").await;
    assert_eq!(questions.as_object().unwrap().len(), 2);
    client.send(again("2", &state, r#""r1":{"roots":[]},"other":{}"#)).await;
    given(&mut server, &response("1", r#"{"roots":[]}"#)).await;
    let (questions, state) = input_required(&mut client, "2").await;
    assert_eq!(questions.as_object().unwrap().len(), 1);
    assert_eq!(questions["r0"]["method"], "elicitation/create");
    client.send(again("3", &state, r#""r0":{"action":"accept"}"#)).await;
    given(&mut server, &response("0", r#"{"action":"accept"}"#)).await;
    call.answer_on_stream().await;
    assert_eq!(client.value("the answer").await["id"], 3);
    client.finish(&mut server).await;
}

#[tokio::test]
async fn an_unknown_or_used_request_state_is_refused() {
    let (mut server, mut client) = served().await;
    client.send(again("1", "foreign", "")).await;
    refused(&mut client, "1", INVALID).await;
    let (call, state) = parked(&mut server, &mut client, "2").await;
    // The state of another method's request is equally unknown. The attempt does not use it up.
    let other = modern("3", "prompts/get", ABLE, &format!(r#","name":"p","requestState":"{state}""#));
    client.send(other).await;
    refused(&mut client, "3", INVALID).await;
    client.send(again("4", &state, r#""r0":{"action":"accept"}"#)).await;
    given(&mut server, &response("7", r#"{"action":"accept"}"#)).await;
    client.send(again("5", &state, r#""r0":{"action":"accept"}"#)).await;
    refused(&mut client, "5", INVALID).await;
    call.answer_on_stream().await;
    assert_eq!(client.value("the answer").await["id"], 4);
    client.expect_nothing(&mut server).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn a_parked_call_is_cancelled_if_no_retry_comes_in_time() {
    let (mut server, mut client) = served_with(|config| config.timeouts.idle = Duration::from_millis(500)).await;
    let (call, state) = parked(&mut server, &mut client, "1").await;
    let id = call.id().unwrap();
    cancelled(&mut server, &id).await;
    call.closed_by_peer("the end of the call").await;
    client.send(again("2", &state, r#""r0":{"action":"accept"}"#)).await;
    refused(&mut client, "2", INVALID).await;
    client.expect_nothing(&mut server).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn progress_of_a_parked_call_is_dropped_until_its_retry() {
    let (mut server, mut client, mut get) = listening(r#"{"logging":{}}"#).await;
    client.send(with_meta(&ask("1"), r#""progressToken":"a""#)).await;
    let mut call = stream(&mut server).await;
    call.event(&progress(r#""a""#, 1)).await;
    client.expect(progress(r#""a""#, 1)).await;
    call.event(&elicitation("0")).await;
    let (_, state) = input_required(&mut client, "1").await;
    // No open request can own these.
    call.event(&progress(r#""a""#, 2)).await;
    get.event(&progress(r#""a""#, 3)).await;
    call.event(&notification("notifications/message", r#"{"level":"error","data":0}"#)).await;
    // The server's pings follow on both streams. Their responses prove that the bridge has read all messages before.
    call.event(&request("8", "ping", "{}")).await;
    given(&mut server, &response("8", "{}")).await;
    get.event(&request("9", "ping", "{}")).await;
    given(&mut server, &response("9", "{}")).await;
    client.send(with_meta(&again("2", &state, r#""r0":{"action":"accept"}"#), r#""progressToken":5"#)).await;
    given(&mut server, &response("0", r#"{"action":"accept"}"#)).await;
    call.event(&progress(r#""a""#, 4)).await;
    client.expect(progress("5", 4)).await;
    get.event(&progress(r#""a""#, 5)).await;
    client.expect(progress("5", 5)).await;
    // It belongs to no request.
    get.event(&progress(r#""b""#, 6)).await;
    get.event(&request("10", "ping", "{}")).await;
    given(&mut server, &response("10", "{}")).await;
    call.answer_on_stream().await;
    assert_eq!(client.value("the answer").await["id"], 2);
    client.finish(&mut server).await;
}

#[tokio::test]
async fn a_parked_call_does_not_count_towards_the_concurrency_limit() {
    let (mut server, mut client) = served_with(|config| config.limits.concurrency = 1).await;
    let (call, state) = parked(&mut server, &mut client, "1").await;
    client.send(ask("2")).await;
    let other = stream(&mut server).await;
    // The retry takes the place that the other call frees.
    client.send(again("3", &state, r#""r0":{"action":"accept"}"#)).await;
    client.expect_nothing(&mut server).await;
    other.answer_on_stream().await;
    assert_eq!(client.value("the other's answer").await["id"], 2);
    given(&mut server, &response("7", r#"{"action":"accept"}"#)).await;
    client.send(ask("4")).await;
    client.expect_nothing(&mut server).await;
    call.answer_on_stream().await;
    assert_eq!(client.value("the answer").await["id"], 3);
    server.post().await.answer("{}").await;
    assert_eq!(client.value("the last answer").await["id"], 4);
    client.finish(&mut server).await;
}

/// The user's time does not count towards any limit of the server.
async fn the_users_time_is_not_the_servers(settings: impl FnOnce(&mut mcp_gangway_core::Config)) {
    // Two of these are longer than the limit; one is not.
    const PAUSE: Duration = Duration::from_millis(1_200);
    let (mut server, mut client) = served_with(settings).await;
    let (call, state) = parked(&mut server, &mut client, "1").await;
    tokio::time::sleep(PAUSE).await;
    client.send(again("2", &state, r#""r0":{"action":"accept"}"#)).await;
    given(&mut server, &response("7", r#"{"action":"accept"}"#)).await;
    tokio::time::sleep(PAUSE).await;
    call.answer_on_stream().await;
    assert_eq!(client.value("the answer").await["result"]["resultType"], "complete");
    client.finish(&mut server).await;
}

#[tokio::test]
async fn the_idle_timeout_of_a_parked_call_starts_again_at_the_retry() {
    the_users_time_is_not_the_servers(|config| config.timeouts.idle = Duration::from_secs(2)).await;
}

#[tokio::test]
async fn the_total_timeout_of_a_parked_call_starts_again_at_the_retry() {
    the_users_time_is_not_the_servers(|config| config.timeouts.total = Some(Duration::from_secs(2))).await;
}

#[tokio::test]
async fn a_call_times_out_if_the_server_is_silent_after_the_retry() {
    let (mut server, mut client) = served_with(|config| config.timeouts.idle = Duration::from_secs(1)).await;
    let (call, state) = parked(&mut server, &mut client, "1").await;
    let id = call.id().unwrap();
    client.send(again("2", &state, r#""r0":{"action":"accept"}"#)).await;
    given(&mut server, &response("7", r#"{"action":"accept"}"#)).await;
    let failure = client.expect_error("2").await;
    assert_eq!(failure.kind(), "timeout");
    assert!(failure.may_have_run(), "{failure:?}");
    cancelled(&mut server, &id).await;
    client.expect_nothing(&mut server).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn a_response_that_arrives_during_an_input_request_is_kept() {
    let (mut server, mut client) = served().await;
    let (mut call, state) = parked(&mut server, &mut client, "1").await;
    call.event(&elicitation("8")).await;
    let answer = response(&call.id().unwrap(), r#"{"content":[]}"#);
    call.event(&answer).await;
    call.end().await;
    client.expect_nothing(&mut server).await;
    client.send(again("2", &state, r#""r0":{"action":"accept"}"#)).await;
    given(&mut server, &response("7", r#"{"action":"accept"}"#)).await;
    client.expect(complete("2", r#""content":[]"#)).await;
    client.expect_nothing(&mut server).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r45_cancelling_a_retry_cancels_the_original_call() {
    let (mut server, mut client) = served().await;
    let (mut call, state) = parked(&mut server, &mut client, "1").await;
    let id = call.id().unwrap();
    client.send(again("2", &state, r#""r0":{"action":"accept"}"#)).await;
    given(&mut server, &response("7", r#"{"action":"accept"}"#)).await;
    client.send(cancel("2")).await;
    cancelled(&mut server, &id).await;
    call.event(&response(&id, "{}")).await;
    client.expect_nothing(&mut server).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r8_a_parked_call_does_not_prevent_the_exit() {
    for signal in [false, true] {
        let (mut server, mut client) = served().await;
        let (_call, _) = parked(&mut server, &mut client, "1").await;
        if signal {
            client.stop();
        } else {
            client.close_stdin();
        }
        let delete = server.next("the DELETE").await;
        assert_eq!(delete.verb, "DELETE");
        in_session(&delete, "s");
        delete.respond(204, &[], "").await;
        client.end().await;
        client.expect_end_of_output().await;
    }
}

#[tokio::test]
async fn r96_a_translated_call_open_at_shutdown_is_reported_as_may_have_run() {
    for is_retry in [false, true] {
        let (mut server, mut client) = served().await;
        let _call = if is_retry {
            let (call, state) = parked(&mut server, &mut client, "1").await;
            client.send(again("2", &state, r#""r0":{"action":"accept"}"#)).await;
            given(&mut server, &response("7", r#"{"action":"accept"}"#)).await;
            call
        } else {
            client.send(ask("2")).await;
            stream(&mut server).await
        };
        client.stop();
        let failure = client.expect_error("2").await;
        assert!(failure.may_have_run(), "{failure:?}");
        loop {
            let last = server.next("the DELETE").await;
            if last.verb == "DELETE" {
                last.respond(204, &[], "").await;
                break;
            }
            // The end of the bridge may leave it time to send this.
            assert!(last.cancelled_id().is_some(), "{}", last.text());
        }
        client.end().await;
    }
}

// URLs that the user must visit first.

#[tokio::test]
async fn a_required_url_becomes_an_input_request_and_the_call_is_sent_again() {
    let (mut server, mut client) = served().await;
    let elicitations = r#"{"elicitations":[{"mode":"url","elicitationId":"e","url":"https://x/","message":"m"}]}"#;
    for (accepts, retry) in [(true, "2"), (false, "3")] {
        client.send(ask("1")).await;
        let call = server.post().await;
        let id = call.id().unwrap();
        call.json(format!(
            r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32042,"message":"u","data":{elicitations}}}}}"#
        ))
        .await;
        let (questions, state) = input_required(&mut client, "1").await;
        assert_eq!(questions["r0"]["method"], "elicitation/create");
        assert_eq!(questions["r0"]["params"]["url"], "https://x/");
        let action = if accepts { r#""r0":{"action":"accept"}"# } else { r#""r0":{"action":"decline"}"# };
        client.send(again(retry, &state, action)).await;
        if accepts {
            let call = server.post().await;
            assert_eq!(call.value()["params"], json!({"name": "t", "arguments": {}}));
            assert_ne!(call.id().unwrap(), id);
            call.answer(r#"{"content":[]}"#).await;
            client.expect(complete(retry, r#""content":[]"#)).await;
        } else {
            refused(&mut client, retry, -32_603).await;
        }
        client.send(again("9", &state, action)).await;
        refused(&mut client, "9", INVALID).await;
    }
    client.expect_nothing(&mut server).await;
    client.finish(&mut server).await;
}

// Subscriptions.

const WATCHING: &str = r#"{"tools":{"listChanged":true},"resources":{"subscribe":true}}"#;
const CHANGED: &str = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;

fn listen(id: &str, wanted: &str) -> String {
    modern(id, "subscriptions/listen", "{}", &format!(r#","notifications":{{{wanted}}}"#))
}

/// Expects the acknowledgement of a subscription. Returns the granted filter.
async fn acknowledged(client: &mut Client, id: &str) -> Value {
    let line = client.value("an acknowledgement").await;
    assert_eq!(line["method"], "notifications/subscriptions/acknowledged", "{line}");
    assert_eq!(mark(&line), serde_json::from_str::<Value>(id).unwrap());
    line["params"]["notifications"].clone()
}

/// Returns the subscription that a message belongs to.
fn mark(message: &Value) -> Value {
    let meta = if message.get("result").is_some() { &message["result"]["_meta"] } else { &message["params"]["_meta"] };
    meta["io.modelcontextprotocol/subscriptionId"].clone()
}

/// Expects that the bridge subscribes to a resource at the server, or unsubscribes.
async fn told(server: &mut Server, method: &str, uri: &str) {
    let post = server.post().await;
    assert_eq!((post.rpc_method().as_str(), &post.value()["params"]["uri"]), (method, &json!(uri)));
    in_session(&post, "s");
    post.answer("{}").await;
}

/// Expects one notification on the next two lines, for the subscriptions 1 and "1".
async fn told_to_both(client: &mut Client, method: &str) {
    let mut marks = Vec::new();
    for _ in 0..2 {
        let line = client.value("a notification").await;
        assert_eq!(line["method"], method, "{line}");
        marks.push(mark(&line));
    }
    marks.sort_by_key(Value::is_string);
    assert_eq!(marks, [json!(1), json!("1")]);
}

#[tokio::test]
async fn each_subscription_gets_the_notifications_that_it_asked_for() {
    let (mut server, mut client, mut get) = listening(WATCHING).await;
    // Without a subscription, the client receives no such notification.
    get.event(CHANGED).await;
    client
        .send(listen("1", r#""toolsListChanged":true,"promptsListChanged":true,"resourceSubscriptions":["a:1","a:2"]"#))
        .await;
    told(&mut server, "resources/subscribe", "a:1").await;
    told(&mut server, "resources/subscribe", "a:2").await;
    let granted = acknowledged(&mut client, "1").await;
    let lists = json!({"toolsListChanged": true, "promptsListChanged": true, "resourceSubscriptions": ["a:1", "a:2"]});
    assert_eq!(granted, lists);
    client.send(listen(r#""1""#, r#""toolsListChanged":true,"resourceSubscriptions":["a:2"]"#)).await;
    acknowledged(&mut client, r#""1""#).await;

    get.event(CHANGED).await;
    told_to_both(&mut client, "notifications/tools/list_changed").await;
    let updated =
        |uri: &str| notification("notifications/resources/updated", &format!(r#"{{"uri":"{uri}","n":1e400}}"#));
    get.event(&updated("a:1")).await;
    let marked = r#"{"_meta":{"io.modelcontextprotocol/subscriptionId":1},"uri":"a:1","n":1e400}"#;
    client.expect(notification("notifications/resources/updated", marked)).await;
    get.event(&updated("a:2")).await;
    let line = client.line("the update").await;
    assert!(String::from_utf8(line).unwrap().contains("1e400"));
    client.line("the update for the other").await;
    get.event(&updated("a:3")).await;

    // The second subscription still needs the resource that both had.
    client.send(cancel("1")).await;
    told(&mut server, "resources/unsubscribe", "a:1").await;
    get.event(CHANGED).await;
    let line = client.value("a notification for the remaining subscription").await;
    assert_eq!(mark(&line), json!("1"));
    client.expect_nothing(&mut server).await;

    client.close_stdin();
    let end = client.value("the end of the subscription").await;
    assert_eq!((&end["id"], &end["result"]["resultType"]), (&json!("1"), &json!("complete")));
    assert_eq!(mark(&end), json!("1"));
    client.finish(&mut server).await;
}

/// `FastMCP` 1.x says that its lists do not change, and nevertheless notifies of changes.
#[tokio::test]
async fn subscriptions_work_whatever_capabilities_the_server_declares() {
    for capabilities in ["{}", r#"{"tools":{"listChanged":false},"resources":{"subscribe":false}}"#] {
        let (mut server, mut client, mut get) = listening(capabilities).await;
        client.send(listen("1", r#""toolsListChanged":true,"resourceSubscriptions":["a:1","a:2"]"#)).await;
        told(&mut server, "resources/subscribe", "a:1").await;
        // The server refuses one of the resources.
        let post = server.post().await;
        assert_eq!(post.value()["params"]["uri"], "a:2");
        post.refuse(200, INVALID).await;
        let granted = acknowledged(&mut client, "1").await;
        assert_eq!(granted, json!({"toolsListChanged": true, "resourceSubscriptions": ["a:1"]}));
        get.event(CHANGED).await;
        assert_eq!(client.value("the change").await["method"], "notifications/tools/list_changed");
        get.event(&notification("notifications/resources/updated", r#"{"uri":"a:1"}"#)).await;
        assert_eq!(client.value("the update").await["method"], "notifications/resources/updated");
        get.event(&notification("notifications/resources/updated", r#"{"uri":"a:2"}"#)).await;

        // The server refuses the method itself, so the bridge does not try the other resources. It also refuses to set
        // a log level.
        client.send(listen("2", r#""resourceSubscriptions":["b:1","b:2","b:3"]"#)).await;
        server.post().await.refuse(200, NOT_FOUND).await;
        assert_eq!(acknowledged(&mut client, "2").await, json!({"resourceSubscriptions": []}));
        client.send(with_level(&ask("3"), "debug")).await;
        let level = server.post().await;
        assert_eq!(level.rpc_method(), "logging/setLevel");
        level.refuse(200, NOT_FOUND).await;
        server.post().await.answer(r#"{"content":[]}"#).await;
        client.line("the answer").await;
        // The bridge does not set the level again.
        client.send(with_level(&ask("4"), "debug")).await;
        let post = server.post().await;
        assert_eq!(post.rpc_method(), "tools/call");
        post.answer(r#"{"content":[]}"#).await;
        client.line("the answer").await;
        client.send(cancel("1")).await;
        told(&mut server, "resources/unsubscribe", "a:1").await;
    }
}

#[tokio::test]
async fn a_new_subscription_waits_for_the_unsubscribe_of_the_old_one() {
    let (mut server, mut client, mut get) = listening(WATCHING).await;
    client.send(listen("1", r#""resourceSubscriptions":["a:1"]"#)).await;
    told(&mut server, "resources/subscribe", "a:1").await;
    acknowledged(&mut client, "1").await;
    client.send(cancel("1")).await;
    let unsubscribe = server.post().await;
    assert_eq!(unsubscribe.rpc_method(), "resources/unsubscribe");
    // The next subscription waits for this response. Otherwise the server could receive both in the wrong order.
    client.send(listen("2", r#""resourceSubscriptions":["a:1"]"#)).await;
    client.expect_nothing(&mut server).await;
    unsubscribe.answer("{}").await;
    told(&mut server, "resources/subscribe", "a:1").await;
    acknowledged(&mut client, "2").await;
    get.event(&notification("notifications/resources/updated", r#"{"uri":"a:1"}"#)).await;
    assert_eq!(mark(&client.value("the update").await), json!(2));
}

#[tokio::test]
async fn r39_subscriptions_are_restored_in_a_new_session() {
    let (mut server, mut client, get) = listening(WATCHING).await;
    client.send(listen("1", r#""toolsListChanged":true,"resourceSubscriptions":["a:1"]"#)).await;
    told(&mut server, "resources/subscribe", "a:1").await;
    acknowledged(&mut client, "1").await;
    client.send(ask("2")).await;
    server.post().await.respond(404, &[], "").await;
    shake_hands(&mut server, "t", WATCHING).await;
    let mut new = server.get().await;
    new.sse().await;
    drop(get);
    let post = server.post().await;
    assert_eq!((post.rpc_method().as_str(), &post.value()["params"]["uri"]), ("resources/subscribe", &json!("a:1")));
    in_session(&post, "t");
    post.answer("{}").await;
    server.post().await.answer("{}").await;
    assert_eq!(client.value("the answer").await["id"], 2);
    new.event(CHANGED).await;
    assert_eq!(mark(&client.value("a notification").await), json!(1));
}

#[tokio::test]
async fn r38_a_resource_subscription_is_repeated_after_a_session_loss() {
    let (mut server, mut client, _get) = listening(r#"{"logging":{},"resources":{"subscribe":true}}"#).await;
    client.send(listen("1", r#""resourceSubscriptions":["a:1"]"#)).await;
    let lost = server.post().await;
    assert_eq!(lost.rpc_method(), "resources/subscribe");
    lost.respond(404, &[], "").await;
    shake_hands(&mut server, "t", r#"{"logging":{},"resources":{"subscribe":true}}"#).await;
    server.get().await.respond(405, &[], "").await;
    let post = server.post().await;
    assert_eq!(post.rpc_method(), "resources/subscribe");
    in_session(&post, "t");
    post.answer("{}").await;
    acknowledged(&mut client, "1").await;
}

// The session.

#[tokio::test]
async fn r38_ten_modern_calls_succeed_after_a_session_loss() {
    let (mut server, mut client) = served().await;
    for id in 0..10 {
        client.send(ask(&id.to_string())).await;
    }
    let mut calls = Vec::new();
    for _ in 0..10 {
        calls.push(server.post().await);
    }
    for call in calls {
        in_session(&call, "s");
        call.respond(404, &[], "").await;
    }
    shake_hands(&mut server, "t", r#"{"tools":{}}"#).await;
    let mut ids = HashSet::new();
    for _ in 0..10 {
        let call = server.post().await;
        assert_eq!(call.rpc_method(), "tools/call");
        in_session(&call, "t");
        call.answer("{}").await;
        let answer = client.value("an answer").await;
        assert_eq!(answer["result"]["resultType"], "complete");
        ids.insert(answer["id"].as_u64().unwrap());
    }
    assert_eq!(ids.len(), 10);
    client.has_session("t");
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r38_cancelling_a_request_does_not_stop_its_session_renewal() {
    let (mut server, mut client) = served().await;
    client.send(ask("1")).await;
    server.post().await.respond(404, &[], "").await;
    let initialize = server.post().await;
    client.send(cancel("1")).await;
    taken(&mut client).await;
    offer(initialize, "t", r#"{"tools":{}}"#).await;
    for method in ["notifications/initialized", "tools/call"] {
        let post = loop {
            let post = server.post().await;
            // The lost session may or may not have received the call.
            if post.cancelled_id().is_none() {
                break post;
            }
            post.accepted().await;
        };
        assert_eq!(post.rpc_method(), method);
        in_session(&post, "t");
        if method == "tools/call" {
            post.answer("{}").await;
        } else {
            post.accepted().await;
            client.send(ask("2")).await;
        }
    }
    assert_eq!(client.value("the answer").await["id"], 2);
    client.has_session("t");
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r96_a_translated_call_is_not_repeated_after_a_broken_connection() {
    let (mut server, mut client) = served().await;
    for id in ["1", "2"] {
        client.send(ask(id)).await;
        let mut call = server.post().await;
        if id == "2" {
            call.sse().await;
        }
        call.reset();
        let failure = client.expect_error(id).await;
        assert!(failure.may_have_run(), "{failure:?}");
        client.expect_nothing(&mut server).await;
    }
    // A request that only reads is sent again.
    client.send(modern("3", "prompts/list", "{}", "")).await;
    server.post().await.reset();
    server.post().await.answer(r#"{"prompts":[]}"#).await;
    assert_eq!(client.value("the answer").await["id"], 3);
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r45_a_translated_call_is_cancelled_under_its_upstream_id() {
    let (mut server, mut client) = served().await;
    client.send(ask("1")).await;
    let mut call = stream(&mut server).await;
    let id = call.id().unwrap();
    assert_ne!(id, "1");
    client.send(cancel("1")).await;
    cancelled(&mut server, &id).await;
    call.event(&response(&id, "{}")).await;
    client.expect_nothing(&mut server).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn a_timed_out_call_is_cancelled_at_the_server_once() {
    let (mut server, mut client) = served_with(|config| config.timeouts.idle = Duration::from_millis(500)).await;
    client.send(ask("1")).await;
    let call = stream(&mut server).await;
    assert_eq!(client.expect_error("1").await.kind(), "timeout");
    cancelled(&mut server, &call.id().unwrap()).await;
    client.expect_nothing(&mut server).await;
    client.finish(&mut server).await;
}

// Both eras on one stdin, and servers that change their era.

#[tokio::test]
async fn r81_a_client_handshake_after_a_probe_replaces_the_bridges_session() {
    let (mut server, mut client, get) = listening("{}").await;
    client.initialize().await;
    let answer = server.initialize(Some("own"), VERSION).await;
    // The session that the bridge had created is no longer needed.
    let delete = server.next("the DELETE of the first session").await;
    assert_eq!(delete.verb, "DELETE");
    in_session(&delete, "s");
    delete.respond(204, &[], "").await;
    client.expect(answer).await;
    client.send(INITIALIZED).await;
    initialized(&mut server, "own").await;
    let mut own = server.get().await;
    in_session(&own, "own");
    own.sse().await;
    drop(get);
    // The server's requests reach the client unchanged.
    for question in [elicitation("0"), request("1", "ping", "{}")] {
        own.event(&question).await;
        client.expect(question).await;
    }
    client.send(response("0", r#"{"action":"accept"}"#)).await;
    let post = server.post().await;
    assert_eq!(post.text(), response("0", r#"{"action":"accept"}"#));
    post.accepted().await;
    client.send(call("2")).await;
    let post = server.post().await;
    in_session(&post, "own");
    let answer = post.answer(r#"{"content":[]}"#).await;
    client.expect(answer).await;
    // A modern request still works, in the client's own session.
    client.send(ask("3")).await;
    let post = server.post().await;
    in_session(&post, "own");
    post.answer(r#"{"content":[]}"#).await;
    client.expect(complete("3", r#""content":[]"#)).await;
    client.has_session("own");
    client.finish(&mut server).await;
}

#[tokio::test]
async fn a_server_that_refuses_initialize_as_unsupported_is_modern() {
    for with_body in [true, false] {
        let (mut server, mut client) = dialogue().await;
        client.send(modern("1", "prompts/list", "{}", "")).await;
        let body = if with_body { error("1", -32_000, "try that again") } else { String::new() };
        server.post().await.respond_as(400, "application/json", &body).await;
        let initialize = server.post().await;
        let refusal = error(&initialize.id().unwrap(), UNSUPPORTED, "unsupported");
        initialize.respond_as(400, "application/json", refusal).await;
        if with_body {
            client.expect(&body).await;
        } else {
            let again = server.post().await;
            assert_eq!(again.header("mcp-method"), Some("prompts/list"));
            let answer = again.answer(r#"{"resultType":"complete","prompts":[]}"#).await;
            client.expect(answer).await;
        }
        client.send(modern("2", "prompts/list", "{}", "")).await;
        let post = server.post().await;
        assert_eq!(post.header("mcp-method"), Some("prompts/list"));
        let answer = post.answer(r#"{"resultType":"complete","prompts":[]}"#).await;
        client.expect(answer).await;
        client.finish(&mut server).await;
    }
}

#[tokio::test]
async fn a_legacy_server_that_becomes_modern_is_recognized() {
    let (mut server, mut client) = served().await;
    // By refusing the protocol version.
    client.send(ask("1")).await;
    let call = server.post().await;
    let data = r#"{"supported":["2026-07-28"],"requested":"2025-11-25"}"#;
    let id = call.id().unwrap();
    let refusal = format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32022,"message":"no","data":{data}}}}}"#);
    call.respond_as(400, "application/json", refusal).await;
    modern_answer(&mut server, &mut client, "1").await;

    // By losing the session.
    let (mut server, mut client) = served().await;
    client.send(ask("2")).await;
    server.post().await.respond(404, &[], "").await;
    let initialize = server.post().await;
    let refusal = error(&initialize.id().unwrap(), UNSUPPORTED, "unsupported");
    initialize.respond_as(400, "application/json", refusal).await;
    modern_answer(&mut server, &mut client, "2").await;

    // And back: a modern server that becomes a legacy one.
    client.send(modern("3", "prompts/list", "{}", "")).await;
    server.post().await.respond(400, &[], "").await;
    shake_hands(&mut server, "t", "{}").await;
    let post = server.post().await;
    in_session(&post, "t");
    post.answer(r#"{"prompts":[]}"#).await;
    assert_eq!(client.value("the answer").await["result"]["resultType"], "complete");
}

/// Expects the tool call as a modern request, perhaps after the list of tools.
async fn modern_answer(server: &mut Server, client: &mut Client, id: &str) {
    loop {
        let post = server.post().await;
        let method = post.rpc_method();
        assert_eq!(post.header("mcp-method"), Some(method.as_str()), "{}", post.text());
        if method == "tools/call" {
            let answer = post.answer(r#"{"resultType":"complete","content":[]}"#).await;
            assert!(answer.contains(&format!(r#""id":{id},"#)), "{answer}");
            client.expect(answer).await;
            return;
        }
        assert_eq!(method, "tools/list");
        post.answer(r#"{"resultType":"complete","tools":[]}"#).await;
    }
}

#[tokio::test]
async fn a_subscription_refused_under_its_own_id_leads_to_initialize() {
    let mut server = Server::start().await;
    server.expect_get();
    let mut client = start(server.config());
    client
        .send(crate::support::modern("1", "subscriptions/listen", r#""notifications":{"toolsListChanged":true}"#))
        .await;
    let refusal = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32000,"message":"Bad Request: no session"}}"#;
    server.post().await.respond_as(400, "application/json", refusal).await;
    assert_eq!(server.post().await.rpc_method(), "initialize", "it only reads, so it may be sent again");
    drop(client);
}
