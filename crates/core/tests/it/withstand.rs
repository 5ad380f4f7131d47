//! Hostile peers: they cannot end or block the bridge, make a tool run twice, or receive the user's secrets.

use std::time::{Duration, Instant};

use crate::support::{
    Authority, Client, INITIALIZED, Server, VERSION, call, dialogue, framed, notification, progress, refusal, request,
    response,
};

/// More levels than fit on any stack.
const DEEP: usize = 100_000;

/// Returns texts that could make a parser recurse deeply or read the text repeatedly.
fn deep() -> Vec<String> {
    let open = |text: &str| text.repeat(DEEP);
    vec![
        open("["),
        format!("{}{}", open("["), open("]")),
        format!("[{}{}]", open("["), open("]")),
        format!("[{}]", vec![format!("{}{}", "[".repeat(300), "]".repeat(300)); 300].join(",")),
        open(r#"{"a":"#),
        format!("[{}", open(r#"{"id":1,"result":["#)),
        open(r#"[{"id":1,"error":"#),
    ]
}

#[tokio::test]
async fn deeply_nested_input_lines_get_an_error() {
    let (mut server, mut client) = dialogue().await;
    for text in deep() {
        client.send(&text).await;
        // One error for each element of a batch, and one for a line that is not JSON.
        let elements = serde_json::from_str::<Vec<&serde_json::value::RawValue>>(&text).map_or(1, |all| all.len());
        for _ in 0..elements {
            let failure = client.expect_error("null").await;
            assert!(matches!(failure.code, -32_700 | -32_600), "{failure:?}");
        }
    }
    client.expect_nothing(&mut server).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn deeply_nested_responses_get_an_error() {
    for (status, content_type) in [
        (200, "application/json"),
        (200, "text/event-stream"),
        (200, "application/x-ndjson"),
        (200, "text/plain"),
        (202, "application/json"),
        (400, "application/json"),
        (404, "application/json"),
        (500, "application/json"),
    ] {
        let (mut server, mut client) = dialogue().await;
        client.handshake(&mut server, None).await;
        for text in deep() {
            client.send(call("1")).await;
            server.post().await.respond_as(status, content_type, framed(content_type, &text)).await;
            client.expect_error("1").await;
        }
        client.expect_nothing(&mut server).await;
        client.finish(&mut server).await;
    }
}

#[tokio::test]
async fn deeply_nested_handshake_replies_and_push_events_do_no_harm() {
    let mut server = Server::start().await;
    server.expect_get();
    let mut client = Client::of(&server);
    for text in deep() {
        client.initialize().await;
        let post = server.post().await;
        post.respond_as(400, "application/json", &text).await;
        // The server may be an older one.
        server.get().await.respond_as(405, "application/json", &text).await;
        client.expect_error(r#""init""#).await;
    }
    client.initialize().await;
    let answer = server.initialize(None, VERSION).await;
    client.expect(answer).await;
    client.send(INITIALIZED).await;
    server.post().await.accepted().await;
    let mut stream = server.get().await;
    stream.sse().await;
    for text in deep() {
        stream.event(&text).await;
    }
    stream.event(&notification("x", "{}")).await;
    client.expect(notification("x", "{}")).await;
    client.close_stdin();
    client.end().await;
}

#[tokio::test]
async fn r96_an_error_of_a_tool_is_passed_on_whatever_its_text_says() {
    for (status, code, text) in [
        (400, -32_000, "the browser session 7 has ended"),
        (400, -32_000, "device not initialized"),
        (404, -32_000, "order not found"),
        (404, -32_001, "session 7 of the browser was not found"),
        (404, -32_602, "invalid session"),
        (404, -32_001, "Session not found"),
        (400, -32_600, "Bad Request: No valid session ID provided"),
        (401, -32_001, "the user's account needs authentication"),
        (403, -32_003, "insufficient_scope"),
        (409, -32_000, "conflict"),
        (410, -32_000, "session gone"),
        (429, -32_000, "try again later"),
        (500, -32_603, "session lost"),
        (503, -32_000, "the tool is busy"),
        (503, -32_603, "upstream session reset"),
    ] {
        let mut server = Server::start().await;
        let mut config = server.config();
        config.set_header("X-Key", "secret").unwrap();
        let mut client = Client::start(config);
        client.handshake(&mut server, Some("session-1")).await;
        client.send(call("1")).await;
        let answer = format!(r#"{{"jsonrpc":"2.0","id":1,"error":{{"code":{code},"message":"{text}"}}}}"#);
        server.post().await.respond_as(status, "application/json", &answer).await;
        client.expect(&answer).await;
        // The call was sent once. The session may be a new one from now on.
        client.send(call("2")).await;
        loop {
            let post = server.post().await;
            assert_ne!(post.id().as_deref(), Some("1"), "{status} {text}");
            match post.rpc_method().as_str() {
                "initialize" => drop(post.initialized(Some("session-2"), VERSION).await),
                "tools/call" => {
                    client.expect(post.answer("{}").await).await;
                    break;
                }
                _ => post.accepted().await,
            }
        }
    }
}

#[tokio::test]
async fn r96_a_read_only_request_is_repeated_in_a_new_session() {
    let mut server = Server::start().await;
    let mut client = Client::of(&server);
    client.handshake(&mut server, Some("old")).await;
    client.send(request("1", "tools/list", "{}")).await;
    let lost = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32001,"message":"Session not found"}}"#;
    server.post().await.respond_as(404, "application/json", lost).await;
    server.post().await.initialized(Some("new"), VERSION).await;
    server.post().await.accepted().await;
    // If that fails too, the server's answer reaches the client.
    server.post_of("1").await.respond_as(404, "application/json", lost).await;
    client.expect(lost).await;
}

#[tokio::test]
async fn r44_a_call_is_sent_at_most_twice_if_every_session_is_lost() {
    let mut server = Server::start().await;
    let mut client = Client::of(&server);
    client.handshake(&mut server, Some("old")).await;
    client.send(call("1")).await;
    let mut posts = 0;
    let serve = async {
        loop {
            let post = server.next("a request").await;
            match (post.verb.as_str(), post.rpc_method().as_str()) {
                ("DELETE", _) => post.respond(204, &[], "").await,
                (_, "initialize") => drop(post.initialized(Some("new"), VERSION).await),
                (_, "tools/call") => {
                    posts += 1;
                    post.respond(404, &[], "").await;
                }
                _ => post.accepted().await,
            }
        }
    };
    tokio::select! {
        failure = client.expect_error("1") => assert_eq!(failure.kind(), "session_lost"),
        () = serve => unreachable!("it serves for ever"),
    }
    assert_eq!(posts, 2);
    server.forget_notifications();
}

#[tokio::test]
async fn r33_a_stream_that_keeps_ending_is_reopened_with_a_delay() {
    // The resumption of a call's stream, and the push stream.
    for pushes in [false, true] {
        let mut server = Server::start().await;
        server.expect_get();
        let mut client = Client::of(&server);
        if pushes {
            client.initialize().await;
            let answer = server.initialize(Some("s"), VERSION).await;
            client.expect(answer).await;
            client.send(INITIALIZED).await;
            server.post().await.accepted().await;
        } else {
            client.send(call("1")).await;
            server.post().await.ends_to_be_resumed().await;
        }
        let start = Instant::now();
        for _ in 0..7 {
            server.get().await.ends_to_be_resumed().await;
        }
        // The first attempt may come at once; the others wait at least 100 ms each.
        assert!(start.elapsed() >= Duration::from_millis(500), "{pushes} {:?}", start.elapsed());
        drop(client);
        // Another GET may have arrived meanwhile.
        std::mem::forget(server);
    }
}

#[tokio::test]
async fn r6_endless_replies_to_notifications_do_not_block_a_call() {
    for (status, content_type) in
        [(200, "text/event-stream"), (200, "application/json"), (202, "text/plain"), (400, "text/html")]
    {
        let (mut server, mut client) = dialogue().await;
        let mut endless = Vec::new();
        for step in 0..100 {
            client.send(progress("\"p\"", step)).await;
            let mut post = server.post().await;
            post.head(status, &[("Content-Type", content_type)]).await;
            post.chunk(": and so on\n").await;
            endless.push(post);
        }
        client.send(call("1")).await;
        let answer = server.post_of("1").await.answer("{}").await;
        client.expect(answer).await;
        drop(endless);
        client.finish(&mut server).await;
    }
}

#[tokio::test]
async fn notifications_pings_and_responses_use_few_connections() {
    for (kind, most) in [("notifications", 32), ("pings", 8), ("responses", 16)] {
        let (mut server, mut client) = dialogue().await;
        let line = |number: usize| match kind {
            "notifications" => progress("\"p\"", number),
            "pings" => request(&number.to_string(), "ping", "{}"),
            _ => response(&number.to_string(), "{}"),
        };
        let count = 300;
        let send = async {
            for number in 0..count {
                client.send(line(number)).await;
            }
        };
        let serve = async {
            let mut connections = 0;
            let mut seen = 0;
            while seen < count {
                // Holds all requests open until no more arrive.
                let mut open = vec![server.post().await];
                while let Ok(post) = tokio::time::timeout(Duration::from_millis(100), server.post()).await {
                    open.push(post);
                }
                seen += open.len();
                for post in open {
                    connections = connections.max(post.connection + 1);
                    match kind {
                        "pings" => drop(post.answer("{}").await),
                        _ => post.accepted().await,
                    }
                }
            }
            connections
        };
        let ((), connections) = tokio::join!(send, serve);
        assert!((1..=most).contains(&connections), "{connections} connections for {kind}");
        if kind == "pings" {
            for _ in 0..count {
                client.line("the answer to a ping").await;
            }
        }
        client.expect_nothing(&mut server).await;
        client.finish(&mut server).await;
    }
}

#[tokio::test]
async fn r92_a_redirect_back_from_another_origin_carries_no_credentials() {
    for (first, second) in [(307, 307), (308, 302), (301, 308)] {
        let (mut home, mut stranger) = (Server::start().await, Server::start().await);
        let mut config = home.config();
        config.set_authorization("Bearer hunter2").unwrap();
        let mut client = Client::start(config);
        client.send(call("1")).await;
        let away = format!("{}/away", stranger.origin());
        home.post().await.respond(first, &[("Location", &away), ("Set-Cookie", "a=b; Path=/")], "").await;
        let back = format!("{}/back", home.origin());
        let post = stranger.post().await;
        assert_eq!(post.header("authorization"), None);
        post.respond(second, &[("Location", &back)], "").await;
        let post = home.post().await;
        assert_eq!((post.header("authorization"), post.header("cookie")), (None, None), "{first} {second}");
        client.expect(post.answer("{}").await).await;
        // A request that goes to the user's own URL directly carries the headers.
        client.send(call("2")).await;
        let post = home.post().await;
        assert_eq!((post.header("authorization"), post.header("cookie")), (Some("Bearer hunter2"), Some("a=b")));
        client.expect(post.answer("{}").await).await;
        client.finish(&mut home).await;
        stranger.expect_no_more();
    }
}

#[tokio::test]
async fn r92_credentials_are_not_sent_over_plain_http_after_a_redirect() {
    let authority = Authority::new();
    let mut server = Server::start_tls(authority.server_config("localhost")).await;
    let mut plain = Server::start().await;
    let mut config = server.config();
    config.tls.ca_certificates = vec![authority.pem()];
    config.set_authorization("Bearer hunter2").unwrap();
    let mut client = Client::start(config);
    // The same host and port: the server does not know that its clients use https.
    client.send(call("1")).await;
    let location = format!("http://localhost:{}/other", server.port());
    server.post().await.respond(308, &[("Location", &location)], "").await;
    let post = server.post().await;
    assert_eq!((post.target.as_str(), post.header("authorization")), ("/other", Some("Bearer hunter2")));
    client.expect(post.answer("{}").await).await;
    // The same URL, which would be a loop, and another host.
    let same = format!("http://localhost:{}/mcp", server.port());
    for location in [same, format!("{}/mcp", plain.origin())] {
        client.send(call("2")).await;
        server.post().await.respond(307, &[("Location", &location)], "").await;
        let failure = client.expect_error("2").await;
        assert_eq!((failure.kind(), failure.status(), failure.may_have_run()), ("http_status", Some(307), false));
        assert!(failure.message.contains(&location) && failure.message.contains("in clear"), "{failure:?}");
    }
    client.finish(&mut server).await;
    plain.expect_no_more();
}

#[tokio::test]
async fn r67_a_protocol_error_code_starts_a_new_session() {
    // Codes of the protocol itself lead to a new session, even under the request's own id.
    let mut server = Server::start().await;
    let mut client = Client::of(&server);
    client.handshake(&mut server, Some("old")).await;
    client.send(call("1")).await;
    server.post().await.respond_as(400, "application/json", refusal("1", -32_020)).await;
    let initialize = server.post().await;
    assert_eq!(initialize.rpc_method(), "initialize");
    initialize.initialized(Some("new"), VERSION).await;
    server.post().await.accepted().await;
    let answer = server.post_of("1").await.answer("{}").await;
    client.expect(answer).await;
}
