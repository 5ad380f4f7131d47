//! Ordering, concurrency limits and cancellation (R11, R12, R13, R37). Rules: the limit counts only requests, and a
//! cancellation follows its request.

use std::{sync::Arc, time::Duration};

use tokio::{io::AsyncReadExt, net::TcpListener};
use tokio_rustls::TlsAcceptor;

use crate::support::{
    Authority, Client, Server, call, cancel, dialogue, framed, notification, progress, request, response, within,
};

/// Starts a client whose bridge keeps at most `count` requests open at the server.
async fn limited_to(count: usize) -> (Server, Client) {
    let server = Server::start().await;
    let mut config = server.config();
    config.limits.concurrency = count;
    (server, Client::start(config))
}

#[tokio::test]
async fn r11_a_ping_passes_while_twenty_slow_calls_are_open() {
    let (mut server, mut client) = dialogue().await;
    let mut calls = Vec::new();
    for id in 0..20 {
        client.send(call(&id.to_string())).await;
    }
    for id in 0..20 {
        calls.push(server.post_of(&id.to_string()).await);
    }
    client.expect_nothing(&mut server).await;
    let mut answers = Vec::new();
    for call in calls.into_iter().rev() {
        answers.push(call.answer("{}").await);
    }
    client.expect_all(answers).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r11_the_concurrency_limit_holds_and_each_finished_request_frees_a_slot() {
    let (mut server, mut client) = limited_to(2).await;
    for id in 1..=6 {
        client.send(call(&id.to_string())).await;
    }
    let (first, second) = (server.post_of("1").await, server.post_of("2").await);
    // A ping passes, and the third call does not.
    client.expect_nothing(&mut server).await;

    // An answer, a server failure, a broken connection and an empty stream each free a place.
    let answer = first.answer("{}").await;
    client.expect(answer).await;
    let third = server.post_of("3").await;
    client.expect_nothing(&mut server).await;
    second.respond(500, &[], "").await;
    client.expect_error("2").await;
    let fourth = server.post_of("4").await;
    client.expect_nothing(&mut server).await;
    third.reset();
    client.expect_error("3").await;
    let fifth = server.post_of("5").await;
    client.expect_nothing(&mut server).await;
    fourth.accepted().await;
    client.expect_error("4").await;
    let sixth = server.post_of("6").await;
    let answers = [fifth.answer("{}").await, sixth.answer("{}").await];
    client.expect_all(answers).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r11_an_answered_request_frees_its_slot_while_its_stream_is_open() {
    let (mut server, mut client) = limited_to(1).await;
    client.send(call("1")).await;
    let mut stream = server.post().await;
    stream.sse().await;
    stream.event(&response("1", "{}")).await;
    client.expect(response("1", "{}")).await;
    // The stream of the first request is still open.
    client.send(call("2")).await;
    let answer = server.post().await.answer("{}").await;
    client.expect(answer).await;
    stream.event(&notification("notifications/tools/list_changed", "{}")).await;
    client.expect(notification("notifications/tools/list_changed", "{}")).await;
    stream.end().await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r11_notifications_responses_and_cancels_pass_when_no_slot_is_free() {
    let (mut server, mut client) = limited_to(1).await;
    client.send(call("1")).await;
    let held = server.post().await;
    client.send(call("2")).await;
    for message in [notification("notifications/roots/list_changed", "{}"), response("9", "{}"), cancel("1")] {
        client.send(&message).await;
        let post = server.post().await;
        assert_eq!(post.text(), message);
        // Dropping it sends no response: the next message must not wait for one.
        drop(post);
    }
    client.expect_nothing(&mut server).await;
    let answer = held.answer("{}").await;
    client.expect(answer).await;
    let answer = server.post_of("2").await.answer("{}").await;
    client.expect(answer).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r11_slow_notifications_hold_nothing_up() {
    let (mut server, mut client) = limited_to(1).await;
    let mut slow = Vec::new();
    for step in 0..20 {
        client.send(progress("\"p\"", step)).await;
    }
    for _ in 0..20 {
        slow.push(server.post().await);
    }
    client.expect_nothing(&mut server).await;
    client.send(call("1")).await;
    let answer = server.post().await.answer("{}").await;
    client.expect(answer).await;
    for post in slow {
        post.accepted().await;
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r73_an_open_subscription_does_not_count_toward_the_limit() {
    let (mut server, mut client) = limited_to(1).await;
    client.send(request("\"s\"", "subscriptions/listen", "{}")).await;
    let mut stream = server.post().await;
    stream.sse().await;
    client.send(call("1")).await;
    let answer = server.post().await.answer("{}").await;
    client.expect(answer).await;
    stream.event(&notification("notifications/tools/list_changed", "{}")).await;
    client.expect(notification("notifications/tools/list_changed", "{}")).await;
    stream.event(&response("\"s\"", "{}")).await;
    client.expect(response("\"s\"", "{}")).await;
    stream.end().await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r13_messages_of_each_concurrent_stream_keep_their_order() {
    let (mut server, mut client) = dialogue().await;
    client.send(call("1")).await;
    client.send(call("2")).await;
    let (mut first, mut second) = (server.post_of("1").await, server.post_of("2").await);
    first.sse().await;
    second.sse().await;
    // The first arrives in a single chunk, the second event by event, at the same time.
    let messages = (0..100).map(|step| progress("1", step)).chain([response("1", "{}")]);
    let events: Vec<String> = messages.map(|message| framed("text/event-stream", &message)).collect();
    first.chunk(events.concat()).await;
    for step in 0..100 {
        second.event(&progress("2", step)).await;
    }
    second.event(&response("2", "{}")).await;
    first.end().await;
    second.end().await;

    let mut lines = (Vec::new(), Vec::new());
    for _ in 0..202 {
        let line = String::from_utf8(client.line("an event").await).unwrap();
        let is_first = line.contains(r#""progressToken":1,"#) || line.contains(r#""id":1,"#);
        if is_first { &mut lines.0 } else { &mut lines.1 }.push(line);
    }
    let wanted =
        |id: &str| -> Vec<String> { (0..100).map(|step| progress(id, step)).chain([response(id, "{}")]).collect() };
    assert_eq!(lines, (wanted("1"), wanted("2")));
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r37_a_cancel_is_posted_and_the_stream_is_still_forwarded() {
    let (mut server, mut client) = dialogue().await;
    client.send(call("1")).await;
    let mut stream = server.post().await;
    stream.sse().await;
    stream.event(&progress("1", 1)).await;
    client.expect(progress("1", 1)).await;
    client.send(cancel("1")).await;
    let post = server.post().await;
    assert_eq!(post.text(), cancel("1"));
    post.accepted().await;
    // The client receives all further messages (R45 for these versions).
    stream.event(&progress("1", 2)).await;
    client.expect(progress("1", 2)).await;
    stream.event(&response("1", "{}")).await;
    client.expect(response("1", "{}")).await;
    stream.end().await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r37_a_cancelled_request_gets_no_error_from_the_bridge() {
    let mut server = Server::start().await;
    let mut config = server.config();
    config.timeouts.idle = Duration::from_millis(500);
    let mut client = Client::start(config);
    for way in 0..6 {
        client.send(call("1")).await;
        let mut post = server.post().await;
        if way == 2 {
            post.sse().await;
        }
        client.send(cancel("1")).await;
        let told = server.post().await;
        assert_eq!(told.text(), cancel("1"));
        told.accepted().await;
        match way {
            0 => post.reset(),
            1 => post.fin().await,
            2 => post.end().await,
            3 => post.accepted().await,
            4 => post.respond(500, &[], "").await,
            // Silence until the bridge gives up. It sends nothing to either side.
            _ => post.closed_by_peer("the bridge to give up the cancelled request").await,
        }
        client.expect_nothing(&mut server).await;
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r37_a_request_cancelled_in_the_queue_is_never_sent_nor_its_cancel() {
    let (mut server, mut client) = limited_to(1).await;
    client.send(call("1")).await;
    let held = server.post().await;
    client.send(call("2")).await;
    client.send(call("3")).await;
    client.send(cancel("2")).await;
    client.expect_nothing(&mut server).await;
    let answer = held.answer("{}").await;
    client.expect(answer).await;
    let answer = server.post_of("3").await.answer("{}").await;
    client.expect(answer).await;
    client.expect_nothing(&mut server).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r4_r37_a_cancel_of_a_string_id_does_not_cancel_the_number_id() {
    let (mut server, mut client) = limited_to(1).await;
    client.send(call("1")).await;
    let held = server.post().await;
    client.send(call("2")).await;
    client.send(cancel("\"2\"")).await;
    let answer = held.answer("{}").await;
    client.expect(answer).await;
    let answer = server.post_of("2").await.answer("{}").await;
    client.expect(answer).await;
    client.close_stdin();
    client.end().await;
    client.expect_end_of_output().await;
    // The bridge may or may not forward a cancellation without effect.
    server.forget_notifications();
}

#[tokio::test]
async fn r12_a_cancel_never_overtakes_its_request() {
    let (mut server, mut client) = dialogue().await;
    for turn in 0..20 {
        let id = turn.to_string();
        // Large enough to be still in flight when the bridge reads the cancel.
        let large = request(&id, "tools/call", &format!("\"{}\"", "x".repeat(turn * 50_000)));
        client.send(large).await;
        for _ in 0..turn {
            tokio::task::yield_now().await;
        }
        client.send(cancel(&id)).await;
        client.send(call("\"after\"")).await;
        let mut seen = Vec::new();
        let mut open = Vec::new();
        while !seen.contains(&"after") {
            let post = server.post().await;
            if post.cancelled_id().is_some_and(|cancelled| cancelled == id) {
                assert!(seen.contains(&"request"), "the cancel came first");
                seen.push("cancel");
                post.accepted().await;
            } else if post.id().as_deref() == Some(&id) {
                seen.push("request");
                open.push(post);
            } else {
                seen.push("after");
                let answer = post.answer("{}").await;
                client.expect(answer).await;
            }
        }
        if seen.contains(&"request") && !seen.contains(&"cancel") {
            let post = server.post().await;
            assert_eq!(post.cancelled_id(), Some(id));
            post.accepted().await;
        }
        for post in open {
            post.accepted().await;
        }
    }
    client.expect_nothing(&mut server).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r12_a_cancel_waits_while_its_request_has_no_connection() {
    let authority = Authority::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(authority.server_config("localhost")));
    let url = format!("https://localhost:{}/mcp", listener.local_addr().unwrap().port());
    let mut config = mcp_gangway_core::Config::new(&url).unwrap();
    config.proxy = mcp_gangway_core::Proxy::None;
    config.tls.ca_certificates = vec![authority.pem()];
    let mut client = Client::start(config);
    client.send(call("1")).await;
    // The connection is open, but TLS is not ready.
    let (stream, _) = within("a connection", listener.accept()).await.unwrap();
    client.send(cancel("1")).await;
    let early = tokio::time::timeout(Duration::from_millis(300), listener.accept()).await;
    assert!(early.is_err(), "a message left before the request that it cancels");

    let mut stream = within("TLS", acceptor.accept(stream)).await.unwrap();
    let mut server = Server::on(listener, Some(acceptor));
    let told = server.post().await;
    assert_eq!(told.text(), cancel("1"));
    let mut sent = Vec::new();
    while !sent.ends_with(call("1").as_bytes()) {
        let read = within("the request", stream.read_buf(&mut sent)).await.unwrap();
        assert!(read > 0, "the request did not arrive");
    }
    told.accepted().await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r12_a_cancel_waits_for_the_last_byte_of_its_request() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = Client::to(&format!("http://{}/mcp", listener.local_addr().unwrap()));
    let line = request("1", "tools/call", &format!("\"{}\"", "x".repeat(32 << 20)));
    client.send(line).await;
    // A server that reads only the head of the request, and so cannot know its id.
    let (mut stream, _) = within("a connection", listener.accept()).await.unwrap();
    let mut server = Server::on(listener, None);
    let mut head = [0; 20];
    within("the head", stream.read_exact(&mut head)).await.unwrap();
    client.send(cancel("1")).await;
    client.expect_all_read().await;
    server.expect_no_more();
    let mut rest = vec![0; 1 << 20];
    let cancelled = loop {
        tokio::select! {
            _ = stream.read(&mut rest) => {}
            cancelled = server.post() => break cancelled,
        }
    };
    assert_eq!(cancelled.text(), cancel("1"));
}

#[tokio::test]
async fn a_silent_server_is_covered_by_progress_until_it_sends_its_own() {
    let mut server = Server::start().await;
    let mut config = server.config();
    config.timeouts.heartbeat = Some(Duration::from_millis(50));
    let mut client = Client::start(config);
    for id in ["1", "2"] {
        client.send(request(id, "tools/call", &format!(r#"{{"name":"t","_meta":{{"progressToken":"t{id}"}}}}"#))).await;
    }
    client.send(call("3")).await;
    let (mut one, two) = (server.post_of("1").await, server.post_of("2").await);
    let three = server.post_of("3").await;
    let mut last = [0.0, 0.0];
    while last[0] < 3e-6 {
        let line = client.value("progress of the bridge").await;
        let token = usize::from(line["params"]["progressToken"] == "t2");
        assert!(token == 1 || line["params"]["progressToken"] == "t1", "{line}");
        let value = line["params"]["progress"].as_f64().unwrap();
        assert!(value > last[token] && value < 0.001, "{line}");
        last[token] = value;
    }
    // The server's own progress ends that of the bridge, for this request only.
    one.sse().await;
    one.event(&progress(r#""t1""#, 1)).await;
    let own = serde_json::from_str::<serde_json::Value>(&progress(r#""t1""#, 1)).unwrap();
    let mut others = None;
    while others.is_none_or(|count| count < 5) {
        let line = client.value("progress").await;
        match (line == own, others) {
            (true, None) => others = Some(0),
            (false, Some(count)) => {
                assert_eq!(line["params"]["progressToken"], "t2", "{line}");
                others = Some(count + 1);
            }
            (false, None) => {}
            (true, Some(_)) => panic!("twice: {line}"),
        }
    }
    // Nothing follows a response.
    let answer = two.answer("{}").await;
    while client.line("the answer").await != answer.as_bytes() {}
    one.answer_on_stream().await;
    client.expect(response("1", "{}")).await;
    let answer = three.answer("{}").await;
    client.expect(answer).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn an_idle_server_is_pinged_in_its_session() {
    let mut server = Server::start().await;
    let mut config = server.config();
    config.timeouts.keep_alive = Some(Duration::from_millis(50));
    let mut client = Client::start(config);
    client.handshake(&mut server, Some("session-1")).await;
    for _ in 0..3 {
        let ping = server.post().await;
        assert_eq!((ping.rpc_method().as_str(), ping.header("mcp-session-id")), ("ping", Some("session-1")));
        ping.answer("{}").await;
    }
    // A session that is lost is replaced before the client needs it.
    server.post().await.respond(404, &[], "").await;
    assert_eq!(server.post().await.rpc_method(), "initialize");
}
