//! Connections that are refused, cut, reset or silent (R5, R9, R44). Each request gets one error that says how far the
//! request came.

use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::support::{Client, Server, call, closed_port, dialogue, progress, request, response};

#[tokio::test]
async fn r5_a_connection_lost_before_the_reply_fails_the_call() {
    for by_reset in [true, false] {
        let (mut server, mut client) = dialogue().await;
        client.send(call("1")).await;
        let post = server.post().await;
        if by_reset {
            post.reset();
        } else {
            post.fin().await;
        }
        let failure = client.expect_error("1").await;
        assert_eq!(failure.kind(), "connection_lost");
        assert!(failure.may_have_run(), "{failure:?}");
        // The bridge never repeats a tool call on its own initiative (R96).
        client.expect_nothing(&mut server).await;
        client.finish(&mut server).await;
    }
}

#[tokio::test]
async fn r96_a_tool_call_is_not_repeated_when_its_kept_connection_is_reset() {
    let (mut server, mut client) = dialogue().await;
    client.expect_nothing(&mut server).await;
    client.send(call("1")).await;
    let post = server.post().await;
    post.reset();
    assert!(client.expect_error("1").await.may_have_run());
    client.expect_nothing(&mut server).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r5_a_truncated_or_invalid_response_head_fails_the_request() {
    let (mut server, mut client) = dialogue().await;
    for head in ["HTTP/1.1 200 OK\r\nContent-Ty", "HTTP/1.1 2", "HELO\r\n\r\n", "220 smtp ready\r\n"] {
        client.send(call("1")).await;
        let mut post = server.post().await;
        post.write(head.as_bytes()).await;
        post.fin().await;
        let failure = client.expect_error("1").await;
        assert!(matches!(failure.kind(), "connection_lost" | "invalid_answer"), "{head:?}: {failure:?}");
        client.expect_nothing(&mut server).await;
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r5_a_body_cut_off_by_a_lost_connection_fails_the_request() {
    let (mut server, mut client) = dialogue().await;
    let half = r#"{"jsonrpc":"2.0","id":1,"result":{"te"#;
    let lines = format!("{}\n{half}", progress("1", 1));
    let events = format!("data: {}\n\ndata: {half}", progress("1", 1));
    for (content_type, body, passes) in [
        ("application/json", half, false),
        ("application/json", "", false),
        ("application/x-ndjson", lines.as_str(), true),
        ("text/event-stream", events.as_str(), true),
        ("text/event-stream", "", false),
        ("text/plain", half, false),
    ] {
        for by_reset in [true, false] {
            for chunked in [true, false] {
                client.send(call("1")).await;
                let mut post = server.post().await;
                if chunked {
                    post.head(200, &[("Content-Type", content_type)]).await;
                    if !body.is_empty() {
                        post.chunk(body).await;
                    }
                } else {
                    let head =
                        format!("HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: 5000\r\n\r\n");
                    post.write(head.as_bytes()).await;
                    post.write(body.as_bytes()).await;
                }
                if passes {
                    client.expect(progress("1", 1)).await;
                }
                if by_reset {
                    post.reset();
                } else {
                    post.fin().await;
                }
                let failure = client.expect_error("1").await;
                assert_eq!(failure.kind(), "connection_lost", "{content_type} {body:?} chunked: {chunked}");
                assert!(failure.may_have_run(), "{failure:?}");
            }
        }
    }
    client.expect_nothing(&mut server).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r5_a_failure_status_is_reported_without_waiting_for_its_body() {
    let (mut server, mut client) = dialogue().await;
    client.send(call("1")).await;
    let mut post = server.post().await;
    post.head(502, &[("Content-Type", "text/html")]).await;
    // The status is enough for the error. The bridge does not wait for a slow body.
    let drip = async {
        loop {
            post.chunk("x").await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let failure = tokio::select! {
        failure = client.expect_error("1") => failure,
        () = drip => unreachable!(),
    };
    assert_eq!((failure.kind(), failure.status()), ("http_status", Some(502)));
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r5_a_truncated_json_body_fails_the_request() {
    let (mut server, mut client) = dialogue().await;
    client.send(call("1")).await;
    let mut post = server.post().await;
    post.head_until_close(200, &[("Content-Type", "application/json")]).await;
    post.write(br#"{"jsonrpc":"2.0","id":1,"result":{"#).await;
    post.fin().await;
    assert!(matches!(client.expect_error("1").await.kind(), "connection_lost" | "invalid_answer"));
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r5_a_complete_response_in_a_truncated_body_is_delivered() {
    let (mut server, mut client) = dialogue().await;
    for by_reset in [true, false] {
        client.send(call("1")).await;
        let mut post = server.post().await;
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n";
        post.write(format!("{head}{}", response("1", "{}")).as_bytes()).await;
        if by_reset {
            // A reset may overtake the bytes written just before it, so give the bridge time to read them.
            tokio::time::sleep(Duration::from_millis(200)).await;
            post.reset();
        } else {
            post.fin().await;
        }
        client.expect(response("1", "{}")).await;

        client.send(call("2")).await;
        let mut post = server.post().await;
        post.head(200, &[("Content-Type", "application/json")]).await;
        post.chunk(response("2", "{}")).await;
        post.fin().await;
        client.expect(response("2", "{}")).await;
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r46_an_incomplete_event_at_a_lost_connection_is_dropped() {
    let (mut server, mut client) = dialogue().await;
    client.send(call("1")).await;
    let mut stream = server.post().await;
    stream.sse().await;
    stream.chunk(format!("data: {}\n", progress("1", 1))).await;
    stream.fin().await;
    assert_eq!(client.expect_error("1").await.kind(), "connection_lost");
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r9_requests_fail_while_the_server_is_down_and_work_once_it_is_up() {
    let (port, address) = closed_port();
    let mut client = Client::to(&format!("http://{address}/mcp"));
    for id in ["1", "\"\"", "0"] {
        client.send(call(id)).await;
        let failure = client.expect_error(id).await;
        assert_eq!(failure.kind(), "connect");
        assert!(!failure.may_have_run(), "{failure:?}");
    }
    // A notification gets no answer, so no error either.
    client.send(r#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#).await;

    let mut server = Server::on(port.listen(100).unwrap(), None);
    client.send(call("2")).await;
    // The notification may still have arrived.
    let answer = server.post_of("2").await.answer("{}").await;
    client.expect(answer).await;
    client.close_stdin();
    client.end().await;
    client.expect_end_of_output().await;
    server.forget_notifications();
}

#[tokio::test]
async fn r9_the_client_can_repeat_a_failed_initialize() {
    let (port, address) = closed_port();
    let mut client = Client::to_without_promises(&format!("http://{address}/mcp"));
    client.initialize().await;
    assert_eq!(client.expect_error(r#""init""#).await.kind(), "connect");
    let mut server = Server::on(port.listen(100).unwrap(), None);
    client.handshake(&mut server, Some("session-1")).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r5_an_unresolvable_host_is_a_dns_error() {
    let mut client = Client::to("http://no-such-host.invalid/mcp");
    client.send(call("1")).await;
    let failure = client.expect_error("1").await;
    assert_eq!(failure.kind(), "dns");
    assert!(!failure.may_have_run(), "{failure:?}");
}

#[tokio::test]
async fn r44_a_connection_that_is_not_accepted_fails_the_request() {
    // A listener with a full queue leaves further connections unanswered.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
        waiting.push(stream.unwrap());
        assert!(waiting.len() < 100, "the queue does not fill");
    }
    let mut config = Server::start().await.config();
    config.url = mcp_gangway_core::ServerUrl::parse(&format!("http://{address}/mcp")).unwrap();
    config.timeouts.connect = Duration::from_millis(300);
    let mut client = Client::start(config);
    client.send(call("1")).await;
    let failure = client.expect_error("1").await;
    assert!(matches!(failure.kind(), "connect" | "timeout"), "{failure:?}");
    assert!(!failure.may_have_run(), "{failure:?}");
}

#[tokio::test]
async fn r44_a_tls_handshake_without_a_reply_fails_the_request() {
    // The kernel accepts the connection, and no server speaks.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = Server::start().await.config();
    let url = format!("https://{}/mcp", listener.local_addr().unwrap());
    config.url = mcp_gangway_core::ServerUrl::parse(&url).unwrap();
    config.timeouts.connect = Duration::from_millis(300);
    let mut client = Client::start(config);
    client.send(call("1")).await;
    let failure = client.expect_error("1").await;
    assert!(matches!(failure.kind(), "connect" | "tls" | "timeout"), "{failure:?}");
    assert!(!failure.may_have_run(), "{failure:?}");
}

#[tokio::test]
async fn r44_silence_before_the_reply_times_out_and_cancels_the_request() {
    let mut server = Server::start().await;
    let mut config = server.config();
    config.timeouts.idle = Duration::from_millis(300);
    let mut client = Client::start(config);
    for id in ["1", "\"1\""] {
        client.send(call(id)).await;
        let post = server.post().await;
        let failure = client.expect_error(id).await;
        assert_eq!(failure.kind(), "timeout");
        assert!(failure.may_have_run(), "{failure:?}");
        let told = server.post().await;
        assert_eq!(told.rpc_method(), "notifications/cancelled");
        assert_eq!(told.cancelled_id().as_deref(), Some(id));
        told.accepted().await;
        post.closed_by_peer("the bridge to give up the silent request").await;
    }
    client.expect_nothing(&mut server).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r44_silence_within_a_body_times_out_and_cancels_the_request() {
    let mut server = Server::start().await;
    let mut config = server.config();
    config.timeouts.idle = Duration::from_millis(300);
    let mut client = Client::start(config);
    for content_type in ["text/event-stream", "application/json"] {
        client.send(call("1")).await;
        let mut stream = server.post().await;
        stream.head(200, &[("Content-Type", content_type)]).await;
        stream.chunk(if content_type.starts_with("text") { ": alive\n\n" } else { "{" }).await;
        let failure = client.expect_error("1").await;
        assert_eq!(failure.kind(), "timeout");
        assert!(failure.may_have_run(), "{failure:?}");
        let told = server.post().await;
        assert_eq!(told.cancelled_id().as_deref(), Some("1"));
        told.accepted().await;
        stream.closed_by_peer("the bridge to give up the silent stream").await;
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r44_any_traffic_resets_the_idle_timeout() {
    let mut server = Server::start().await;
    let mut config = server.config();
    config.timeouts.idle = Duration::from_secs(2);
    let mut client = Client::start(config);
    client.send(call("1")).await;
    let mut stream = server.post().await;
    stream.sse().await;
    for step in 0..6 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        if step % 2 == 0 {
            stream.chunk(": alive\n").await;
        } else {
            stream.event(&progress("1", step)).await;
            client.expect(progress("1", step)).await;
        }
    }
    stream.event(&response("1", "{}")).await;
    client.expect(response("1", "{}")).await;
    stream.end().await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r44_initialize_is_never_cancelled() {
    let mut server = Server::start().await;
    let mut config = server.config();
    config.timeouts.idle = Duration::from_millis(300);
    config.timeouts.attach = None;
    let mut client = Client::start(config);
    client.initialize().await;
    let post = server.post().await;
    assert_eq!(client.expect_error(r#""init""#).await.kind(), "timeout");
    client.expect_nothing(&mut server).await;
    drop(post);
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r44_traffic_does_not_extend_the_total_timeout() {
    let mut server = Server::start().await;
    let mut config = server.config();
    config.timeouts.total = Some(Duration::from_millis(500));
    let mut client = Client::start(config);
    client.send(call("1")).await;
    let mut stream = server.post().await;
    stream.sse().await;
    // Traffic does not extend the deadline.
    let talk = async {
        loop {
            stream.chunk(": alive\n\n").await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let failure = tokio::select! {
        failure = client.expect_error("1") => failure,
        () = talk => unreachable!(),
    };
    assert_eq!(failure.kind(), "timeout");
    let told = server.post().await;
    assert_eq!(told.cancelled_id().as_deref(), Some("1"));
    told.accepted().await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r44_the_total_timeout_includes_the_wait_for_a_free_slot() {
    let mut server = Server::start().await;
    let mut config = server.config();
    config.timeouts.total = Some(Duration::from_millis(500));
    config.limits.concurrency = 1;
    let mut client = Client::start(config);
    client.send(call("1")).await;
    let _held = server.post().await;
    client.send(request("2", "tools/list", "{}")).await;
    let failures = client.expect_errors(&["1", "2"]).await;
    assert!(failures.iter().all(|failure| failure.kind() == "timeout"), "{failures:?}");
    // The second request gets the first one's place only if the first gives it up within the deadline of the second.
    // Only a request that was sent can be cancelled.
    let mut left = failures.iter().filter(|failure| failure.may_have_run()).count();
    assert!(left > 0, "{failures:?}");
    let mut held = Vec::new();
    while left > 0 {
        let post = server.post().await;
        if post.cancelled_id().is_some() {
            post.accepted().await;
            left -= 1;
        } else {
            assert_eq!(post.id().as_deref(), Some("2"));
            held.push(post);
        }
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r44_the_idle_timeout_applies_while_the_bridge_drains() {
    let mut server = Server::start().await;
    let mut config = server.config();
    config.timeouts.idle = Duration::from_millis(300);
    let mut client = Client::start(config);
    client.send(call("1")).await;
    let _silent = server.post().await;
    client.close_stdin();
    assert_eq!(client.expect_error("1").await.kind(), "timeout");
    let told = server.post().await;
    assert_eq!(told.cancelled_id().as_deref(), Some("1"));
    told.accepted().await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn an_oauth_error_body_becomes_an_http_status_error() {
    let (mut server, mut client) = dialogue().await;
    client.send(call("1")).await;
    let post = server.post().await;
    post.respond_as(403, "application/json", r#"{"error":"insufficient_scope","error_description":"no"}"#).await;
    let failure = client.expect_error("1").await;
    assert_eq!(failure.status(), Some(403));
    assert!(failure.data["detail"].as_str().unwrap().contains("insufficient_scope"));
    client.finish(&mut server).await;
}
