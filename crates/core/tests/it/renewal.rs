//! A session that the server has lost is replaced without the client's knowledge (R38–R40).

use crate::support::{Client, Exchange, INITIALIZED, Server, VERSION, call, cancel, dialogue, request, response};

/// Responses of servers to a session that they do not know.
const LOST: &[(u16, &str, &str)] = &[
    (404, "", ""),
    (404, "text/html", "<html>Not Found</html>"),
    (404, "application/json", r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32001,"message":"Session not found"}}"#),
    (
        404,
        "application/json",
        r#"{"jsonrpc":"2.0","id":"server-error","error":{"code":-32600,"message":"Session not found"}}"#,
    ),
    (
        400,
        "application/json",
        r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"Bad Request: No valid session ID provided"}}"#,
    ),
    (400, "application/json", r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32602,"message":"Invalid session ID"}}"#),
    (400, "text/plain", "Unknown session"),
    (400, "application/json", r#"{"detail":"Mcp-Session-Id header is missing"}"#),
    (401, "text/plain", "Unauthorized: Session not found"),
    (403, "application/json", r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32002,"message":"The session is gone"}}"#),
    (409, "application/json", r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"Initialize first"}}"#),
    (410, "", ""),
    (410, "application/json", r#"{"jsonrpc":"2.0","id":"x","error":{"code":-32000,"message":"over"}}"#),
    (500, "application/json", r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32001,"message":"unknown session"}}"#),
    (200, "application/json", r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"Session not found"}}"#),
    (
        200,
        "text/event-stream",
        "data: {\"jsonrpc\":\"2.0\",\"id\":\"server-error\",\"error\":{\"code\":-32602,\"message\":\"Received request before initialization was complete\"}}\n\n",
    ),
];

/// Answers the bridge's own `initialize` with a new session, and accepts its `initialized`.
async fn renewed(server: &mut Server, session: &str) {
    let initialize = server.post().await;
    assert_own_initialize(&initialize);
    initialize.initialized(Some(session), VERSION).await;
    let initialized = server.post().await;
    assert_eq!(initialized.text(), INITIALIZED);
    assert_eq!(initialized.header("mcp-session-id"), Some(session));
    initialized.accepted().await;
}

fn assert_own_initialize(initialize: &Exchange) {
    assert_eq!(initialize.rpc_method(), "initialize", "{}", initialize.text());
    assert_eq!(initialize.header("mcp-session-id"), None);
    assert_eq!(initialize.header("mcp-protocol-version"), None);
    assert!(initialize.id().unwrap().starts_with("\"mcp-gangway-"), "an id of its own");
    assert!(initialize.text().contains(r#""clientInfo":{"name":"c","version":"1"}"#), "the client's own parameters");
}

#[tokio::test]
async fn r38_r40_a_lost_session_is_renewed_and_the_request_sent_again() {
    for &(status, content_type, body) in LOST {
        let mut server = Server::start().await;
        let mut client = Client::of(&server);
        client.handshake(&mut server, Some("old")).await;
        client.send(call("1")).await;
        let lost = server.post().await;
        assert_eq!(lost.header("mcp-session-id"), Some("old"));
        lost.respond_as(status, content_type, body).await;
        renewed(&mut server, "new").await;
        let again = server.post().await;
        assert_eq!(again.text(), call("1"), "{status} {body}");
        assert_eq!(again.header("mcp-session-id"), Some("new"));
        let answer = again.answer("{}").await;
        client.expect(answer).await;
        client.expect_nothing(&mut server).await;
    }
}

#[tokio::test]
async fn r39_many_calls_in_a_lost_session_renew_it_once() {
    const CALLS: usize = 10;
    let (mut server, mut client) = dialogue().await;
    client.handshake(&mut server, Some("old")).await;
    let ids: Vec<String> = (0..CALLS).map(|id| id.to_string()).collect();
    for id in &ids {
        client.send(call(id)).await;
    }
    let mut lost = Vec::new();
    for _ in 0..CALLS {
        lost.push(server.post().await);
    }
    for post in lost {
        post.respond(404, &[], "").await;
    }
    renewed(&mut server, "new").await;
    let mut answers = Vec::new();
    for _ in 0..CALLS {
        let again = server.post().await;
        assert_eq!(again.header("mcp-session-id"), Some("new"), "{}", again.text());
        answers.push(again.answer("{}").await);
    }
    client.expect_all(answers).await;
    client.expect_nothing(&mut server).await;
}

#[tokio::test]
async fn r39_log_level_and_subscriptions_are_restored_in_a_new_session() {
    let mut server = Server::start().await;
    let mut client = Client::of(&server);
    client.handshake(&mut server, Some("old")).await;
    let set = [
        request("1", "logging/setLevel", r#"{"level":"debug"}"#),
        request("2", "resources/subscribe", r#"{"uri":"a:b"}"#),
    ];
    for message in &set {
        client.send(message).await;
        let answer = server.post().await.answer("{}").await;
        client.expect(answer).await;
    }
    client.send(call("3")).await;
    server.post().await.respond(404, &[], "").await;
    renewed(&mut server, "new").await;
    for message in &set {
        let again = server.post().await;
        let own = again.id().unwrap();
        assert!(own.starts_with("\"mcp-gangway-"), "{own}");
        let (_, after_id) = message.split_once(r#","method""#).unwrap();
        assert!(again.text().ends_with(after_id), "{}", again.text());
        again.answer("{}").await;
    }
    let answer = server.post_of("3").await.answer("{}").await;
    client.expect(answer).await;
    client.expect_nothing(&mut server).await;
}

#[tokio::test]
async fn r39_a_renewed_session_with_an_older_version_is_an_error() {
    let mut server = Server::start().await;
    let mut client = Client::of(&server);
    client.handshake(&mut server, Some("old")).await;
    client.send(call("1")).await;
    server.post().await.respond(404, &[], "").await;
    let initialize = server.post().await;
    initialize.initialized(Some("new"), "2024-11-05").await;
    let failure = client.expect_error("1").await;
    assert_eq!(failure.kind(), "session_lost");
    assert!(failure.message.contains("2024-11-05"), "{failure:?}");
    assert!(!failure.may_have_run());
}

#[tokio::test]
async fn r39_calls_get_errors_if_the_session_renewal_fails() {
    let mut server = Server::start().await;
    let mut client = Client::of(&server);
    client.handshake(&mut server, Some("old")).await;
    client.send(call("1")).await;
    client.send(call("2")).await;
    let (one, two) = (server.post().await, server.post().await);
    one.respond(404, &[], "").await;
    two.respond(404, &[], "").await;
    server.post().await.respond_as(500, "text/plain", "no").await;
    client.expect_errors(&["1", "2"]).await;
    // The next request tries again.
    client.send(call("3")).await;
    server.post().await.respond(404, &[], "").await;
    renewed(&mut server, "new").await;
    let answer = server.post().await.answer("{}").await;
    client.expect(answer).await;
}

#[tokio::test]
async fn r40_without_a_session_a_404_is_an_error() {
    let (mut server, mut client) = dialogue().await;
    for &(status, content_type, body) in LOST.iter().filter(|(status, ..)| *status != 200) {
        client.send(call("1")).await;
        server.post().await.respond_as(status, content_type, body).await;
        if body.starts_with(r#"{"jsonrpc"#) {
            client.line("the server's own error").await;
        } else {
            assert_eq!(client.expect_error("1").await.status(), Some(u64::from(status)));
        }
    }
    client.expect_nothing(&mut server).await;
}

#[tokio::test]
async fn r38_a_call_is_not_repeated_after_a_second_session_loss() {
    let mut server = Server::start().await;
    let mut client = Client::of(&server);
    client.handshake(&mut server, Some("old")).await;
    client.send(call("1")).await;
    server.post().await.respond(404, &[], "").await;
    renewed(&mut server, "new").await;
    server.post().await.respond(404, &[], "").await;
    assert_eq!(client.expect_error("1").await.kind(), "session_lost");
    server.expect_no_more();
}

#[tokio::test]
async fn r38_notifications_are_resent_in_a_new_session_but_responses_are_not() {
    let mut server = Server::start().await;
    let mut client = Client::of(&server);
    client.handshake(&mut server, Some("old")).await;
    client.send(response("0", "{}")).await;
    server.post().await.respond(404, &[], "").await;
    let changed = r#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#;
    client.send(changed).await;
    server.post().await.respond(404, &[], "").await;
    renewed(&mut server, "new").await;
    let again = server.post().await;
    assert_eq!(again.text(), changed);
    again.accepted().await;
    client.send(cancel("9")).await;
    server.post().await.accepted().await;
    client.expect_nothing(&mut server).await;
}

#[tokio::test]
async fn r38_r96_a_call_that_may_have_run_is_not_repeated_in_a_new_session() {
    // A gateway's page, and the request's own errors.
    for (status, body, is_answer) in [
        (500, "Session not found", false),
        (502, "upstream: unknown session", false),
        (200, r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32001,"message":"Session not found"}}"#, true),
        (401, r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32001,"message":"Session not found"}}"#, true),
        (500, r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32001,"message":"Session not found"}}"#, true),
    ] {
        let mut server = Server::start().await;
        let mut client = Client::of(&server);
        client.handshake(&mut server, Some("old")).await;
        client.send(call("1")).await;
        server.post().await.respond_as(status, "application/json", body).await;
        if is_answer {
            client.expect(body).await;
        } else {
            assert!(client.expect_error("1").await.may_have_run(), "{status} {body}");
        }
        renewed(&mut server, "new").await;
        client.has_session("new");
        client.send(call("2")).await;
        let next = server.post().await;
        assert_eq!((next.id().as_deref(), next.header("mcp-session-id")), (Some("2"), Some("new")), "{status} {body}");
        let answer = next.answer("{}").await;
        client.expect(answer).await;
        client.finish(&mut server).await;
    }
}

#[tokio::test]
async fn r38_an_error_that_only_mentions_a_session_does_not_end_it() {
    for (status, code, text) in [
        (200, -32_000, "the browser session 7 has ended"),
        (200, -32_603, "Session not found"),
        (200, 404, "session not found"),
        (403, -32_000, "this session may not call admin tools"),
        (500, -32_000, "the tool's session pool is empty"),
    ] {
        let mut server = Server::start().await;
        let mut client = Client::of(&server);
        client.handshake(&mut server, Some("s")).await;
        client.send(call("1")).await;
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"error":{{"code":{code},"message":"{text}"}}}}"#);
        server.post().await.respond_as(status, "application/json", &body).await;
        client.expect(&body).await;
        client.send(call("2")).await;
        let next = server.post().await;
        assert_eq!(next.id().as_deref(), Some("2"), "{status} {text}");
        let answer = next.answer("{}").await;
        client.expect(answer).await;
        client.finish(&mut server).await;
    }
}
