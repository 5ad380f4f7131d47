//! The session (R12, R23-R25, R27, R28, R41, R42, R47): the effects of `initialize`, the headers that follow from it,
//! requests of the server to the client, and the end.

use mcp_gangway_core::End;

use crate::support::{Client, INITIALIZED, Server, VERSION, call, dialogue, notification, progress, request, response};

#[tokio::test]
async fn r12_a_pipelined_handshake_keeps_its_order() {
    let (mut server, mut client) = dialogue().await;
    let initialize =
        request("0", "initialize", r#"{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{}}"#);
    let list = request("1", "tools/list", "{}");
    client.send(format!("{initialize}\n{INITIALIZED}\n{list}\n{}", call("2"))).await;
    let post = server.post().await;
    assert_eq!(post.text(), initialize);
    client.expect_all_read().await;
    server.expect_no_more();
    let answer = post.initialized(Some("session-1"), VERSION).await;
    client.expect(answer).await;

    let initialized = server.post().await;
    assert_eq!(initialized.text(), INITIALIZED);
    client.expect_all_read().await;
    server.expect_no_more();
    initialized.accepted().await;

    for (id, sent) in [("1", list), ("2", call("2"))] {
        let post = server.post_of(id).await;
        assert_eq!(post.text(), sent);
        assert_eq!(post.header("mcp-session-id"), Some("session-1"));
        assert_eq!(post.header("mcp-protocol-version"), Some(VERSION));
        let answer = post.answer("{}").await;
        client.expect(answer).await;
    }
    client.close_stdin();
    assert_eq!(server.next("the DELETE").await.verb, "DELETE");
}

#[tokio::test]
async fn r12_messages_are_sent_while_the_stream_of_initialize_is_open() {
    let (mut server, mut client) = dialogue().await;
    client.initialize().await;
    client.send(INITIALIZED).await;
    client.send(call("1")).await;
    let mut stream = server.post().await;
    let headers = [("Content-Type", "text/event-stream"), ("Mcp-Session-Id", "session-1")];
    stream.head(200, &headers).await;
    stream.event(&response(r#""init""#, &format!(r#"{{"protocolVersion":"{VERSION}"}}"#))).await;
    client.expect(response(r#""init""#, &format!(r#"{{"protocolVersion":"{VERSION}"}}"#))).await;
    // The answer has arrived, so the other messages continue.
    let initialized = server.post().await;
    assert_eq!(initialized.header("mcp-session-id"), Some("session-1"));
    initialized.accepted().await;
    let post = server.post().await;
    assert_eq!(post.header("mcp-session-id"), Some("session-1"));
    let answer = post.answer("{}").await;
    client.expect(answer).await;
    stream.end().await;
    client.close_stdin();
    assert_eq!(server.next("the DELETE").await.verb, "DELETE");
}

#[tokio::test]
async fn r12_a_failed_initialize_does_not_block_later_messages() {
    for status in [400, 401, 500] {
        let (mut server, mut client) = dialogue().await;
        client.initialize().await;
        client.send(INITIALIZED).await;
        client.send(call("1")).await;
        server.post().await.respond(status, &[], "").await;
        client.expect_error(r#""init""#).await;
        let initialized = server.post().await;
        assert_eq!(initialized.text(), INITIALIZED);
        initialized.respond(status, &[], "").await;
        let post = server.post().await;
        assert_eq!((post.header("mcp-session-id"), post.text()), (None, call("1").as_str()));
        let answer = post.answer("{}").await;
        client.expect(answer).await;
        client.finish(&mut server).await;
    }
}

#[tokio::test]
async fn r25_the_version_header_has_the_negotiated_version() {
    let (mut server, mut client) = dialogue().await;
    client.initialize().await;
    let answer = server.initialize(Some("session-1"), "2025-06-18").await;
    client.expect(answer).await;
    client.send(INITIALIZED).await;
    client.send(call("1")).await;
    for _ in 0..2 {
        let post = server.post().await;
        assert_eq!(post.header("mcp-protocol-version"), Some("2025-06-18"));
        assert_eq!(post.header("mcp-session-id"), Some("session-1"));
        if post.id().is_some() {
            let answer = post.answer("{}").await;
            client.expect(answer).await;
        } else {
            post.accepted().await;
        }
    }
    client.close_stdin();
    let delete = server.next("the DELETE").await;
    assert_eq!((delete.verb.as_str(), delete.header("mcp-protocol-version")), ("DELETE", Some("2025-06-18")));
}

#[tokio::test]
async fn r23_r25_initialize_has_no_session_header_and_no_version_header() {
    let (mut server, mut client) = dialogue().await;
    client.initialize().await;
    let post = server.post().await;
    assert_eq!((post.header("mcp-session-id"), post.header("mcp-protocol-version")), (None, None));
    post.initialized(None, VERSION).await;
    client.line("the answer").await;
    // Without a session: only the version header, and no DELETE at the end.
    client.send(call("1")).await;
    let post = server.post().await;
    assert_eq!((post.header("mcp-session-id"), post.header("mcp-protocol-version")), (None, Some(VERSION)));
    let answer = post.answer("{}").await;
    client.expect(answer).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r42_the_result_of_initialize_passes_unchanged() {
    let (mut server, mut client) = dialogue().await;
    let answer = r#"{"result":{"serverInfo":{"version":1.0,"name":"\ud800"},"_meta":{"a":12345678901234567890},
        "capabilities":{"experimental":{"x":[1e400]},"unknown":null},"protocolVersion":"2025-11-25"},"id":"init","jsonrpc":"2.0"}"#;
    let sent = client.initialize().await;
    let post = server.post().await;
    assert_eq!(post.text(), sent);
    post.respond(200, &[("Content-Type", "application/json"), ("MCP-SESSION-ID", "s")], answer).await;
    client.expect(answer.replace('\n', " ")).await;
    client.send(call("1")).await;
    let post = server.post().await;
    assert_eq!((post.header("mcp-session-id"), post.header("mcp-protocol-version")), (Some("s"), Some(VERSION)));
    let answer = post.answer("{}").await;
    client.expect(answer).await;
    client.close_stdin();
    assert_eq!(server.next("the DELETE").await.header("mcp-session-id"), Some("s"));
}

#[tokio::test]
async fn r24_an_invalid_session_id_is_not_sent() {
    for session in ["two words", "tab\there", "caf\u{e9}", ""] {
        let (mut server, mut client) = dialogue().await;
        client.initialize().await;
        server.initialize(Some(session), VERSION).await;
        // The handshake must be answered; its result is not specified.
        client.line("the answer").await;
        client.send(call("1")).await;
        let post = server.post().await;
        assert_eq!(post.header("mcp-session-id"), None, "{session:?}");
        let answer = post.answer("{}").await;
        client.expect(answer).await;
        client.finish(&mut server).await;
    }
}

#[tokio::test]
async fn r24_a_session_id_may_have_any_visible_ascii_character() {
    let session: String = ('!'..='~').collect();
    let (mut server, mut client) = dialogue().await;
    client.handshake(&mut server, Some(&session)).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r23_the_session_id_is_taken_only_from_the_initialize_response() {
    let (mut server, mut client) = dialogue().await;
    client.handshake(&mut server, Some("session-1")).await;
    client.send(call("1")).await;
    let headers = [("Content-Type", "application/json"), ("Mcp-Session-Id", "another")];
    server.post().await.respond(200, &headers, response("1", "{}")).await;
    client.expect(response("1", "{}")).await;
    client.send(call("2")).await;
    let post = server.post().await;
    assert_eq!(post.header("mcp-session-id"), Some("session-1"));
    let answer = post.answer("{}").await;
    client.expect(answer).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r23_a_second_initialize_starts_a_new_session() {
    let (mut server, mut client) = dialogue().await;
    client.handshake(&mut server, Some("session-1")).await;
    // `handshake` checks that the new `initialize` has no header of the old session, and later messages have all of the
    // new one's.
    client.handshake(&mut server, Some("session-2")).await;
    client.send(call("1")).await;
    let post = server.post().await;
    assert_eq!(post.header("mcp-session-id"), Some("session-2"));
    let answer = post.answer("{}").await;
    client.expect(answer).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r27_server_requests_within_a_call_work_with_a_concurrency_of_one() {
    let mut server = Server::start().await;
    let mut config = server.config();
    config.limits.concurrency = 1;
    let mut client = Client::start(config);
    client.handshake(&mut server, Some("session-1")).await;
    client.send(call("1")).await;
    let mut stream = server.post().await;
    stream.sse().await;
    for (id, method) in
        [("0", "sampling/createMessage"), ("\"e\"", "elicitation/create"), ("7", "roots/list"), ("8", "ping")]
    {
        let asked = request(id, method, r#"{"x":1e400}"#);
        stream.event(&asked).await;
        client.expect(&asked).await;
        let answer = response(id, r#"{"action":"accept","content":{"n":12345678901234567890}}"#);
        client.send(&answer).await;
        let post = server.post().await;
        assert_eq!(post.text(), answer);
        assert_eq!(post.header("mcp-session-id"), Some("session-1"));
        assert_eq!(post.header("mcp-protocol-version"), Some(VERSION));
        post.accepted().await;
    }
    stream.event(&response("1", "{}")).await;
    client.expect(response("1", "{}")).await;
    stream.end().await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r27_a_ping_within_initialize_is_answered() {
    let (mut server, mut client) = dialogue().await;
    client.initialize().await;
    let mut stream = server.post().await;
    stream.head(200, &[("Content-Type", "text/event-stream"), ("Mcp-Session-Id", "session-1")]).await;
    stream.event(&request("0", "ping", "{}")).await;
    client.expect(request("0", "ping", "{}")).await;
    client.send(response("0", "{}")).await;
    let pong = server.post().await;
    assert_eq!(pong.text(), response("0", "{}"));
    pong.accepted().await;
    let answer = response(r#""init""#, &format!(r#"{{"protocolVersion":"{VERSION}"}}"#));
    stream.event(&answer).await;
    client.expect(answer).await;
    stream.end().await;
    client.close_stdin();
    assert_eq!(server.next("the DELETE").await.header("mcp-session-id"), Some("session-1"));
}

#[tokio::test]
async fn r28_client_and_server_may_use_the_same_request_id() {
    let (mut server, mut client) = dialogue().await;
    client.send(call("1")).await;
    let mut stream = server.post().await;
    stream.sse().await;
    stream.event(&request("1", "sampling/createMessage", "{}")).await;
    client.expect(request("1", "sampling/createMessage", "{}")).await;
    // A line with an id and no method is the client's response: the bridge forwards it and never answers it.
    for answer in [response("1", "{}"), r#"{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"no"}}"#.to_owned()] {
        for status in [202, 500] {
            client.send(&answer).await;
            let post = server.post().await;
            assert_eq!(post.text(), answer);
            post.respond(status, &[], "").await;
            client.expect_nothing(&mut server).await;
        }
    }
    stream.event(&progress("1", 1)).await;
    client.expect(progress("1", 1)).await;
    stream.event(&response("1", "\"mine\"")).await;
    client.expect(response("1", "\"mine\"")).await;
    stream.end().await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r41_the_bridge_exits_after_any_status_of_the_delete() {
    for status in [200, 202, 204, 400, 404, 405, 500] {
        let (mut server, mut client) = dialogue().await;
        client.handshake(&mut server, Some("session-1")).await;
        client.close_stdin();
        let delete = server.next("the DELETE").await;
        assert_eq!((delete.verb.as_str(), delete.target.as_str()), ("DELETE", "/mcp"));
        assert_eq!(delete.header("mcp-session-id"), Some("session-1"));
        delete.respond(status, &[], "").await;
        assert!(matches!(client.end().await, End::InputClosed));
        client.expect_end_of_output().await;
    }
}

#[tokio::test]
async fn r41_a_hanging_delete_does_not_prevent_the_exit() {
    let (mut server, mut client) = dialogue().await;
    client.handshake(&mut server, Some("session-1")).await;
    client.close_stdin();
    let delete = server.next("the DELETE").await;
    assert!(matches!(client.end().await, End::InputClosed));
    client.expect_end_of_output().await;
    drop(delete);
}

#[tokio::test]
async fn r41_a_broken_delete_does_not_prevent_the_exit() {
    let (mut server, mut client) = dialogue().await;
    client.handshake(&mut server, Some("session-1")).await;
    client.close_stdin();
    server.next("the DELETE").await.reset();
    assert!(matches!(client.end().await, End::InputClosed));
    client.expect_end_of_output().await;
}

#[tokio::test]
async fn r47_configured_headers_are_on_every_request() {
    let mut server = Server::start().await;
    let mut config = server.config();
    config.set_authorization("Bearer t").unwrap();
    config.set_header("X-Key", "v").unwrap();
    let mut client = Client::start(config);
    client.initialize().await;
    client.send(INITIALIZED).await;
    client.send(call("1")).await;
    client.send(notification("x", "{}")).await;
    client.send(response("9", "{}")).await;
    for _ in 0..5 {
        let post = server.post().await;
        assert_eq!((post.header("authorization"), post.header("x-key")), (Some("Bearer t"), Some("v")));
        match post.rpc_method().as_str() {
            "initialize" => _ = post.initialized(Some("session-1"), VERSION).await,
            "tools/call" => _ = post.answer("{}").await,
            _ => post.accepted().await,
        }
    }
    client.line("the answer to initialize").await;
    client.line("the answer to the call").await;
    client.close_stdin();
    let delete = server.next("the DELETE").await;
    assert_eq!(delete.verb, "DELETE");
    assert_eq!((delete.header("authorization"), delete.header("x-key")), (Some("Bearer t"), Some("v")));
}
