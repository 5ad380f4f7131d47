//! A modern client at a modern server (R60–R76): the bridge adds headers, and changes nothing else.

use std::time::Duration;

use serde_json::Value;

use crate::support::{
    Client, Exchange, META, Server, cancel, modern, modern_call, modern_dialogue, modern_dialogue_with, notification,
    progress, refusal, request, response,
};

/// A list with the tool `t`, whose argument `region` is sent in a header.
const TOOLS: &str = r#"{"tools":[{"name":"t","inputSchema":{"type":"object","properties":{"region":{"type":"string","x-mcp-header":"Region"}}}}],"resultType":"complete"}"#;
/// The same tool before the server required the header.
const PLAIN_TOOLS: &str = r#"{"tools":[{"name":"t","inputSchema":{"type":"object"}}],"resultType":"complete"}"#;
const REGION: &str = r#"{"region":"eu"}"#;

/// A complete result.
const COMPLETE: &str = r#"{"resultType":"complete","content":[]}"#;

/// Lists the tools on behalf of the client; the server answers with `tools`.
async fn list_tools(server: &mut Server, client: &mut Client, tools: &str) {
    client.send(modern(r#""list""#, "tools/list", "")).await;
    let answer = server.modern_post().await.answer(tools).await;
    client.expect(answer).await;
}

/// Starts a modern dialogue in which the tool `t` is known.
async fn after_list(tools: &str) -> (Server, Client) {
    let (mut server, mut client) = modern_dialogue().await;
    list_tools(&mut server, &mut client, tools).await;
    (server, client)
}

/// Returns the next POST, which must be a list that the bridge requests on its own initiative.
async fn own_list(server: &mut Server) -> Exchange {
    let list = server.modern_post().await;
    assert_eq!(list.rpc_method(), "tools/list", "{}", list.text());
    assert!(list.id().is_some_and(|id| id.contains("mcp-gangway")), "{}", list.text());
    list
}

#[tokio::test]
async fn r60_r61_headers_carry_the_protocol_version_and_method_of_each_request() {
    let (mut server, mut client) = modern_dialogue().await;
    for (id, version, method) in [("1", "2026-07-28", "prompts/list"), ("2", "2027-01-01", "x/y")] {
        let meta = format!(r#"{{"_meta":{{"io.modelcontextprotocol/protocolVersion":"{version}"}}}}"#);
        let line = request(id, method, &meta);
        client.send(&line).await;
        let post = server.modern_post().await;
        assert_eq!(post.text(), line);
        assert_eq!(post.header("mcp-protocol-version"), Some(version));
        assert_eq!(post.header("mcp-method"), Some(method));
        assert_eq!(post.header("mcp-name"), None);
        let answer = post.answer(COMPLETE).await;
        client.expect(answer).await;
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r62_names_that_are_not_valid_header_values_are_sent_in_base64() {
    let (mut server, mut client) = modern_dialogue().await;
    for (method, subject, header) in [
        ("prompts/get", r#""name":"plain name""#, "plain name"),
        ("prompts/get", r#""name":"日本""#, "=?base64?5pel5pys?="),
        ("prompts/get", r#""name":"\u65e5\u672c""#, "=?base64?5pel5pys?="),
        ("prompts/get", r#""name":" x""#, "=?base64?IHg=?="),
        ("prompts/get", r#""name":"=?base64?x?=""#, "=?base64?PT9iYXNlNjQ/eD89?="),
        ("resources/read", r#""uri":"file:///a\nb""#, "=?base64?ZmlsZTovLy9hCmI=?="),
        ("tasks/get", r#""taskId":"7""#, "7"),
    ] {
        let line = modern("1", method, subject);
        client.send(&line).await;
        let post = server.modern_post().await;
        assert_eq!((post.text(), post.header("mcp-name")), (line.as_str(), Some(header)));
        let answer = post.answer(COMPLETE).await;
        client.expect(answer).await;
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r63_arguments_are_sent_in_headers_after_a_two_page_tool_list() {
    let (mut server, mut client) = modern_dialogue().await;
    list_tools(&mut server, &mut client, r#"{"tools":[{"name":"u"}],"nextCursor":"c","resultType":"complete"}"#).await;
    let second = modern("2", "tools/list", r#""cursor":"c""#);
    client.send(&second).await;
    let answer = server.modern_post().await.answer(TOOLS).await;
    client.expect(answer).await;
    for (arguments, header) in [
        (r#"{"region":"eu"}"#, Some("eu")),
        (r#"{"region":"München"}"#, Some("=?base64?TcO8bmNoZW4=?=")),
        (r#"{"region":null}"#, None),
        ("{}", None),
    ] {
        let line = modern_call("3", arguments);
        client.send(&line).await;
        let post = server.modern_post().await;
        assert_eq!((post.text(), post.header("mcp-name")), (line.as_str(), Some("t")));
        assert_eq!(post.header("mcp-param-region"), header);
        let answer = post.answer(COMPLETE).await;
        client.expect(answer).await;
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r64_a_call_before_any_list_fetches_all_pages_of_the_list_once() {
    let (mut server, mut client) = modern_dialogue().await;
    client.send(modern_call("1", REGION)).await;
    let list = own_list(&mut server).await;
    assert!(list.text().contains(META), "the list has the client's `_meta`: {}", list.text());
    list.answer(r#"{"tools":[],"nextCursor":"a\"b"}"#).await;
    let list = own_list(&mut server).await;
    assert!(list.text().contains(r#""cursor":"a\"b""#), "{}", list.text());
    list.answer(TOOLS).await;
    let post = server.modern_post().await;
    assert_eq!((post.id().as_deref(), post.header("mcp-param-region")), (Some("1"), Some("eu")));
    let answer = post.answer(COMPLETE).await;
    client.expect(answer).await;
    // The bridge lists only once, also for a tool that is not in the list.
    for name in ["t", "nobody knows it"] {
        client.send(modern("2", "tools/call", &format!(r#""name":"{name}""#))).await;
        let post = server.modern_post().await;
        assert_eq!(post.header("mcp-name"), Some(name));
        let answer = post.answer(COMPLETE).await;
        client.expect(answer).await;
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r64_concurrent_calls_before_any_list_share_one_list() {
    let (mut server, mut client) = modern_dialogue().await;
    for id in 0..64 {
        client.send(modern_call(&id.to_string(), REGION)).await;
    }
    let list = own_list(&mut server).await;
    client.expect_nothing(&mut server).await;
    list.answer(TOOLS).await;
    let mut answers = Vec::new();
    for _ in 0..64 {
        let post = server.modern_post().await;
        assert_eq!((post.rpc_method().as_str(), post.header("mcp-param-region")), ("tools/call", Some("eu")));
        answers.push(post.answer(COMPLETE).await);
    }
    client.expect_all(answers).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r64_a_list_that_fails_is_not_tried_for_each_waiting_call() {
    let (mut server, mut client) = modern_dialogue().await;
    for id in 0..8 {
        client.send(modern_call(&id.to_string(), REGION)).await;
    }
    own_list(&mut server).await.respond(500, &[], "").await;
    let mut answers = Vec::new();
    for _ in 0..8 {
        let post = server.modern_post().await;
        assert_eq!((post.rpc_method().as_str(), post.header("mcp-param-region")), ("tools/call", None));
        answers.push(post.answer(COMPLETE).await);
    }
    client.expect_all(answers).await;
    // The next call requests the list again, because the server may have recovered.
    client.send(modern_call("8", REGION)).await;
    own_list(&mut server).await.answer(TOOLS).await;
    let post = server.modern_post().await;
    assert_eq!(post.header("mcp-param-region"), Some("eu"));
    let answer = post.answer(COMPLETE).await;
    client.expect(answer).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r64_a_call_of_a_known_tool_does_not_wait_for_a_list() {
    let (mut server, mut client) = modern_dialogue().await;
    list_tools(&mut server, &mut client, TOOLS).await;
    client.send(modern("1", "tools/call", r#""name":"unknown""#)).await;
    let list = own_list(&mut server).await;
    client.send(modern_call("2", REGION)).await;
    let answer = server.modern_post().await.answer(COMPLETE).await;
    client.expect(answer).await;
    list.answer(TOOLS).await;
    let answer = server.modern_post().await.answer(COMPLETE).await;
    client.expect(answer).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r64_a_call_refused_for_missing_headers_is_repeated_after_a_list() {
    let (mut server, mut client) = after_list(PLAIN_TOOLS).await;
    let line = modern_call("1", REGION);
    client.send(&line).await;
    let post = server.modern_post().await;
    assert_eq!(post.header("mcp-param-region"), None);
    post.refuse(400, -32_020).await;
    own_list(&mut server).await.answer(TOOLS).await;
    let post = server.modern_post().await;
    assert_eq!((post.text(), post.header("mcp-param-region")), (line.as_str(), Some("eu")));
    let answer = post.answer(COMPLETE).await;
    client.expect(answer).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r64_a_header_refusal_that_persists_after_a_list_is_forwarded() {
    let (mut server, mut client) = after_list(TOOLS).await;
    for id in ["1", "2"] {
        client.send(modern_call(id, REGION)).await;
        server.modern_post().await.refuse(400, -32_020).await;
        own_list(&mut server).await.answer(TOOLS).await;
        let answer = server.modern_post().await.refuse(400, -32_020).await;
        client.expect(answer).await;
    }
    // Other methods have no such headers.
    client.send(modern("3", "prompts/get", r#""name":"t""#)).await;
    let answer = server.modern_post().await.refuse(400, -32_020).await;
    client.expect(answer).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r64_concurrent_calls_refused_for_their_headers_share_one_list() {
    let (mut server, mut client) = after_list(PLAIN_TOOLS).await;
    for id in 0..64 {
        client.send(modern_call(&id.to_string(), REGION)).await;
    }
    let mut posts = Vec::new();
    for _ in 0..64 {
        posts.push(server.modern_post().await);
    }
    for post in posts {
        post.refuse(400, -32_020).await;
    }
    own_list(&mut server).await.answer(TOOLS).await;
    let mut answers = Vec::new();
    for _ in 0..64 {
        let post = server.modern_post().await;
        assert_eq!((post.rpc_method().as_str(), post.header("mcp-param-region")), ("tools/call", Some("eu")));
        answers.push(post.answer(COMPLETE).await);
    }
    client.expect_all(answers).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r64_a_call_cancelled_during_its_list_is_not_sent() {
    let (mut server, mut client) = modern_dialogue().await;
    client.send(modern_call("1", REGION)).await;
    let list = own_list(&mut server).await;
    client.send(cancel("1")).await;
    list.closed_by_peer("the end of a list that is not needed").await;
    client.expect_nothing(&mut server).await;
    // The next call requests the list again.
    client.send(modern_call("2", REGION)).await;
    own_list(&mut server).await.answer(TOOLS).await;
    let answer = server.modern_post().await.answer(COMPLETE).await;
    client.expect(answer).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r65_invalid_tools_are_removed_and_the_list_is_otherwise_unchanged() {
    let (mut server, mut client) = modern_dialogue().await;
    let invalid = r#"{"name":"bad","inputSchema":{"properties":{"x":{"type":"string","x-mcp-header":"a b"}}}}"#;
    let valid = r#"{ "name" : "t" , "x":1e400, "inputSchema":{"properties":{"x":{"type":"string","x-mcp-header":"X"}}},"y":"\ud800"}"#;
    let around =
        |tools: &str| format!(r#"{{"ttlMs": 1.0,"resultType":"complete","tools":[{tools}] ,"z":9007199254740993}}"#);
    client.send(modern("1", "tools/list", "")).await;
    server.modern_post().await.answer(&around(&format!("{valid},{invalid}"))).await;
    client.expect(response("1", &around(valid))).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r67_r68_json_rpc_errors_of_the_server_are_forwarded() {
    let (mut server, mut client) = after_list(TOOLS).await;
    for (status, code) in [(400, -32_021), (400, -32_022), (400, -32_602), (404, -32_601), (400, 17), (422, -32_603)] {
        for id in ["0", "\"\"", "\"\\u0041\"", "7"] {
            client.send(modern_call(id, REGION)).await;
            let answer = server.modern_post().await.refuse(status, code).await;
            client.expect(answer).await;
        }
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r7_r67_a_refusal_without_an_id_gets_the_id_of_the_request() {
    let (mut server, mut client) = after_list(TOOLS).await;
    client.send(modern(r#""\u0041""#, "prompts/list", "")).await;
    let body = refusal("null", -32_022);
    server.modern_post().await.respond_as(400, "application/json", &body).await;
    client.expect(refusal(r#""\u0041""#, -32_022)).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r69_a_cancellation_closes_the_stream_of_the_request() {
    let (mut server, mut client) = after_list(TOOLS).await;
    for begun in [false, true] {
        client.send(modern_call("1", REGION)).await;
        let mut post = server.modern_post().await;
        if begun {
            post.sse().await;
            post.event(&progress("1", 1)).await;
            client.expect(progress("1", 1)).await;
        }
        client.send(cancel("1")).await;
        post.closed_by_peer("the end of the cancelled request").await;
        client.expect_nothing(&mut server).await;
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r45_r69_no_message_is_forwarded_after_a_cancellation() {
    let (mut server, mut client) = after_list(TOOLS).await;
    client.send(modern_call("1", REGION)).await;
    let mut post = server.modern_post().await;
    post.sse().await;
    post.event(&progress("1", 1)).await;
    client.expect(progress("1", 1)).await;
    // The server's messages cross the cancellation, which the bridge has read first.
    client.send(cancel("1")).await;
    post.event(&progress("1", 2)).await;
    post.event(&response("1", COMPLETE)).await;
    client.expect_nothing(&mut server).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r69_a_request_cancelled_in_the_queue_is_never_sent() {
    let (mut server, mut client) = modern_dialogue_with(|config| config.limits.concurrency = 1).await;
    client.send(modern("1", "prompts/list", "")).await;
    let held = server.modern_post().await;
    client.send(modern("2", "prompts/list", "")).await;
    client.send(modern("3", "prompts/list", "")).await;
    client.send(cancel("2")).await;
    client.expect_nothing(&mut server).await;
    let answer = held.answer(COMPLETE).await;
    client.expect(answer).await;
    let post = server.modern_post().await;
    assert_eq!(post.id().as_deref(), Some("3"));
    let answer = post.answer(COMPLETE).await;
    client.expect(answer).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r69_a_cancellation_without_an_open_request_is_ignored() {
    let (mut server, mut client) = after_list(TOOLS).await;
    for id in ["1", r#""list""#] {
        client.send(cancel(id)).await;
        client.expect_nothing(&mut server).await;
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r69_a_timed_out_request_is_closed_without_a_cancel_notification() {
    let (mut server, mut client) = modern_dialogue_with(|config| config.timeouts.idle = Duration::from_secs(1)).await;
    list_tools(&mut server, &mut client, TOOLS).await;
    client.send(modern_call("1", REGION)).await;
    let post = server.modern_post().await;
    let failure = client.expect_error("1").await;
    assert_eq!((failure.kind(), failure.may_have_run()), ("timeout", true), "{failure:?}");
    post.closed_by_peer("the end of the request").await;
    client.expect_nothing(&mut server).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r70_a_closed_stdin_ends_open_requests_after_the_drain_timeout() {
    let (mut server, mut client) =
        modern_dialogue_with(|config| config.timeouts.drain = Duration::from_millis(300)).await;
    client.send(modern("1", "prompts/list", "")).await;
    let mut post = server.modern_post().await;
    post.sse().await;
    client.close_stdin();
    post.closed_by_peer("the end of what was open").await;
    let failure = client.expect_error("1").await;
    assert_eq!((failure.kind(), failure.may_have_run()), ("shutdown", true));
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r71_a_stream_lost_before_its_response_fails_the_request() {
    let (mut server, mut client) = after_list(TOOLS).await;
    for by_reset in [true, false] {
        for ask in [modern_call("1", REGION), modern("1", "tools/list", "")] {
            client.send(ask).await;
            let mut post = server.modern_post().await;
            post.sse().await;
            // At a modern server, an event with an id does not make the stream resumable.
            post.chunk(format!("retry: 1\nid: e1\ndata: {}\n\n", progress("1", 1))).await;
            client.expect(progress("1", 1)).await;
            if by_reset {
                post.reset();
            } else {
                post.end().await;
            }
            let failure = client.expect_error("1").await;
            assert!(failure.may_have_run(), "{failure:?}");
        }
    }
    client.expect_nothing(&mut server).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r71_a_list_without_a_reply_is_repeated_and_a_tool_call_is_not() {
    let (mut server, mut client) = after_list(TOOLS).await;
    client.send(modern("1", "tools/list", "")).await;
    server.modern_post().await.reset();
    let answer = server.modern_post().await.answer(TOOLS).await;
    client.expect(answer).await;
    client.send(modern_call("2", REGION)).await;
    server.modern_post().await.reset();
    let failure = client.expect_error("2").await;
    assert_eq!((failure.kind(), failure.may_have_run()), ("connection_lost", true), "{failure:?}");
    client.expect_nothing(&mut server).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r72_a_session_id_from_a_modern_server_is_ignored() {
    let (mut server, mut client) = modern_dialogue().await;
    for id in ["1", "2"] {
        client.send(modern(id, "server/discover", "")).await;
        let answer = response(id, r#"{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{}}"#);
        let headers = [("Content-Type", "application/json"), ("Mcp-Session-Id", "s")];
        server.modern_post().await.respond(200, &headers, &answer).await;
        client.expect(answer).await;
    }
    // Checks that neither a GET nor a DELETE arrived.
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r75_input_requests_and_input_responses_pass_unchanged() {
    let (mut server, mut client) = after_list(TOOLS).await;
    client.send(modern_call("1", REGION)).await;
    let needed = r#"{ "resultType":"input_required","requestState":"q\u00e9\/ 9","inputRequests":{"b":{"method":"elicitation/create","params":{"x":1e400}},"a":{"method":"roots/list"}}}"#;
    let answer = server.modern_post().await.answer(needed).await;
    client.expect(answer).await;
    let members = r#""name":"t","inputResponses":{"b":{"action":"accept","content":{"n":1.0}},"a":{"roots":[]}} ,"requestState":"q\u00e9\/ 9""#;
    let line = modern("2", "tools/call", members);
    client.send(&line).await;
    let post = server.modern_post().await;
    assert_eq!(post.text(), line);
    let answer = post.answer(COMPLETE).await;
    client.expect(answer).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r76_r78_a_servers_request_is_dropped() {
    let (mut server, mut client) = after_list(TOOLS).await;
    client.send(modern_call("1", REGION)).await;
    let mut post = server.modern_post().await;
    post.sse().await;
    for method in ["elicitation/create", "ping"] {
        post.event(&request("0", method, "{}")).await;
    }
    post.event(&response("1", COMPLETE)).await;
    client.expect(response("1", COMPLETE)).await;
    post.end().await;
    client.expect_nothing(&mut server).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r78_the_bridge_reports_failures_with_its_own_error_codes() {
    let (mut server, mut client) = after_list(TOOLS).await;
    for (status, kind) in [(500, "http_status"), (200, "invalid_answer"), (401, "http_status"), (413, "http_status")] {
        client.send(modern_call("1", REGION)).await;
        server.modern_post().await.respond_as(status, "text/html", "<html>").await;
        // `expect_error` checks that the code is one of the bridge's own.
        let failure = client.expect_error("1").await;
        assert_eq!(failure.kind(), kind, "{status}");
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r3_modern_messages_pass_as_they_are() {
    let (mut server, mut client) = modern_dialogue().await;
    let odd = r#""z":1e400,"a" : 9007199254740993 ,"b":1.0,"c":"\ud800 \u2028 \/","d":{"":[ ]},"é":"日本 😀""#;
    let line = format!(
        r#"{{"method":"prompts/list", "id":1 ,"params":{{{odd},{META}}},"jsonrpc":"2.0","more":{{"x":-0.0}}}}"#
    );
    client.send(&line).await;
    let mut post = server.modern_post().await;
    assert_eq!(post.text(), line);
    post.sse().await;
    let log = notification("notifications/message", &format!("{{{odd}}}"));
    let answer = format!(r#"{{"more":{{{odd}}},"result":{{{odd},"resultType":"complete"}}, "id":1,"jsonrpc":"2.0"}}"#);
    for message in [log, answer] {
        post.event(&message).await;
        client.expect(&message).await;
    }
    post.end().await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r2_a_multi_line_response_is_written_as_one_line() {
    let (mut server, mut client) = modern_dialogue().await;
    let pretty = "{\r\n  \"jsonrpc\": \"2.0\",\n  \"id\": 1,\n  \"result\": {\n    \"resultType\": \"\", \"x\": [1e400,\n 2]\r\n  }\n}\n";
    let one_line = "{  \"jsonrpc\": \"2.0\",  \"id\": 1,  \"result\": {    \"resultType\": \"\", \"x\": [1e400, 2]  }}";
    let squeezed = |line: &str| line.split_ascii_whitespace().collect::<String>();
    let in_data = pretty.trim().lines().flat_map(|line| ["data: ", line, "\n"]).collect::<String>();
    for (content_type, body) in [("application/json", pretty.to_owned()), ("text/event-stream", format!("{in_data}\n"))]
    {
        client.send(modern("1", "prompts/list", "")).await;
        server.modern_post().await.respond_as(200, content_type, body).await;
        let line = client.line("the answer").await;
        let line = std::str::from_utf8(&line).unwrap();
        assert_eq!(squeezed(line), squeezed(one_line));
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r13_progress_and_result_leave_in_the_order_of_their_stream() {
    let (mut server, mut client) = after_list(TOOLS).await;
    client.send(modern_call("1", REGION)).await;
    let mut post = server.modern_post().await;
    post.sse().await;
    let mut steps: Vec<_> = (0..100).map(|step| progress("1", step)).collect();
    steps.push(response("1", COMPLETE));
    let events = steps.iter().flat_map(|step| [": alive\n\ndata: ", step, "\n\n"]).collect::<String>();
    post.chunk(events).await;
    for step in &steps {
        client.expect(step).await;
    }
    post.end().await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r64_the_bridges_own_list_hides_progress_and_logs_from_the_client() {
    let (mut server, mut client) = modern_dialogue().await;
    let meta = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{"x":1e400},"io.modelcontextprotocol/clientInfo":{"name":"c"},"progressToken":1,"io.modelcontextprotocol/logLevel":"debug"}"#;
    client.send(request("1", "tools/call", &format!(r#"{{"name":"t",{meta}}}"#))).await;
    let mut list = own_list(&mut server).await;
    let body: Value = serde_json::from_str(&list.text().replace("1e400", "1")).unwrap();
    let members: Vec<_> = body["params"]["_meta"].as_object().unwrap().keys().collect();
    // Progress and logs of this list would confuse the client.
    let own = ["clientCapabilities", "clientInfo", "protocolVersion"];
    assert_eq!(members, own.map(|name| format!("io.modelcontextprotocol/{name}")).iter().collect::<Vec<_>>());
    list.sse().await;
    list.event(&notification("notifications/message", "{}")).await;
    let id = list.id().unwrap();
    list.event(&response(&id, TOOLS)).await;
    let answer = server.modern_post().await.answer(COMPLETE).await;
    client.expect(answer).await;
    drop(list);
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r96_a_call_answered_by_an_html_page_is_not_repeated_if_it_may_have_run() {
    // Gateways send such pages. They may have forwarded the call to a server that accepts modern requests.
    for (status, method, goes_again) in [
        (404, "tools/call", false),
        (400, "tools/call", false),
        (410, "tools/call", false),
        (422, "x/do", false),
        (405, "tools/call", true),
        (415, "x/do", true),
        (404, "prompts/list", true),
    ] {
        let (mut server, mut client) = after_list(PLAIN_TOOLS).await;
        client.send(modern("1", method, r#""name":"t""#)).await;
        server.post().await.respond_as(status, "text/html", "<h1>No such page</h1>").await;
        if goes_again {
            assert_eq!(server.post().await.rpc_method(), "initialize", "{status} {method}");
            std::mem::forget(server);
            continue;
        }
        let failure = client.expect_error("1").await;
        assert_eq!((failure.status(), failure.may_have_run()), (Some(u64::from(status)), true), "{status} {method}");
        client.finish(&mut server).await;
    }
}
