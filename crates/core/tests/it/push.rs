//! Server pushes over the GET stream (R29–R31), and streams that break and resume (R32–R36).

use std::time::Duration;

use crate::support::{Client, Exchange, INITIALIZED, Server, VERSION, call, notification, progress, request, response};

const CHANGED: &str = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;

/// Starts a bridge whose server answers GETs, and completes the handshake.
pub(crate) async fn listening(session: Option<&str>) -> (Server, Client) {
    let mut server = Server::start().await;
    server.expect_get();
    let mut client = Client::of(&server);
    client.handshake(&mut server, session).await;
    (server, client)
}

/// Answers the next GET with an open stream.
async fn stream(server: &mut Server) -> Exchange {
    let mut get = server.get().await;
    get.sse().await;
    get
}

#[tokio::test]
async fn r29_messages_on_the_push_stream_reach_the_client() {
    let (mut server, mut client) = listening(Some("s")).await;
    let mut get = server.get().await;
    assert_eq!(get.header("mcp-session-id"), Some("s"));
    assert_eq!(get.header("mcp-protocol-version"), Some(VERSION));
    assert_eq!(get.header("last-event-id"), None);
    get.sse().await;
    let log = notification("notifications/message", r#"{"level":"info","data":1e400}"#);
    let updated = notification("notifications/resources/updated", r#"{"uri":"a:b"}"#);
    for message in [CHANGED, &log, &updated] {
        get.event(message).await;
        client.expect(message).await;
    }
    // A request from the server, outside of any call, and its response (R27).
    let roots = request("0", "roots/list", "{}");
    get.event(&roots).await;
    client.expect(&roots).await;
    let answer = response("0", r#"{"roots":[]}"#);
    client.send(&answer).await;
    let post = server.post().await;
    assert_eq!(post.text(), answer);
    post.accepted().await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r29_no_push_stream_is_requested_before_initialized() {
    let mut server = Server::start().await;
    server.expect_get();
    let mut client = Client::of(&server);
    client.initialize().await;
    let answer = server.initialize(Some("s"), VERSION).await;
    client.expect(answer).await;
    client.expect_nothing(&mut server).await;
    server.expect_no_more();
    client.send(INITIALIZED).await;
    server.post().await.accepted().await;
    server.get().await.respond(405, &[], "").await;
}

#[tokio::test]
async fn r29_requests_wait_for_the_response_to_the_get() {
    for status in [200, 405, 503] {
        let (mut server, mut client) = listening(None).await;
        client.send(call("1")).await;
        // If the bridge did not hold the request back, both would be in flight now.
        let mut get = server.next("the GET before the call").await;
        assert_eq!(get.verb, "GET", "{}", get.text());
        server.expect_no_more();
        let held = if status == 200 {
            get.sse().await;
            Some(get)
        } else {
            get.respond(status, &[], "").await;
            None
        };
        let post = server.post().await;
        assert_eq!(post.id().as_deref(), Some("1"));
        // Requests that the call triggers now reach the client on the stream.
        if let Some(mut get) = held {
            let elicitation = request("0", "elicitation/create", "{}");
            get.event(&elicitation).await;
            client.expect(&elicitation).await;
        }
        let answer = post.answer("{}").await;
        client.expect(answer).await;
    }
}

#[tokio::test]
async fn r29_an_unanswered_get_delays_requests_only_for_a_limited_time() {
    let (mut server, mut client) = listening(None).await;
    client.send(call("1")).await;
    let mut get = server.next("the GET before the call").await;
    assert_eq!(get.verb, "GET");
    // The client's responses and cancellations do not wait.
    client.send(response("7", "{}")).await;
    let post = server.post().await;
    assert_eq!(post.text(), response("7", "{}"));
    post.accepted().await;
    let answer = server.post().await.answer("{}").await;
    client.expect(answer).await;
    // The GET is sent once per session.
    client.expect_nothing(&mut server).await;
    get.sse().await;
    get.event(CHANGED).await;
    client.expect(CHANGED).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r29_r39_a_renewed_session_opens_its_push_stream_before_requests() {
    let (mut server, mut client) = listening(Some("old")).await;
    server.get().await.respond(405, &[], "").await;
    client.send(call("1")).await;
    server.post().await.respond(404, &[], "").await;
    server.post().await.initialized(Some("new"), VERSION).await;
    server.post().await.accepted().await;
    let mut get = server.next("the GET before the call").await;
    assert_eq!((get.verb.as_str(), get.header("mcp-session-id")), ("GET", Some("new")));
    server.expect_no_more();
    get.sse().await;
    let answer = server.post().await.answer("{}").await;
    client.expect(answer).await;
}

#[tokio::test]
async fn r39_a_session_loss_found_by_the_push_stream_restores_the_log_level() {
    let (mut server, mut client) = listening(Some("old")).await;
    let mut get = stream(&mut server).await;
    let level = request("1", "logging/setLevel", r#"{"level":"debug"}"#);
    client.send(&level).await;
    let answer = server.post().await.answer("{}").await;
    client.expect(answer).await;
    get.chunk("retry: 10\n\n").await;
    get.end().await;
    server.get().await.respond(404, &[], "").await;
    server.post().await.initialized(Some("new"), VERSION).await;
    server.post().await.accepted().await;
    let mut get = stream(&mut server).await;
    let again = server.post().await;
    assert_eq!((again.rpc_method().as_str(), again.header("mcp-session-id")), ("logging/setLevel", Some("new")));
    again.answer("{}").await;
    get.event(CHANGED).await;
    client.expect(CHANGED).await;
    client.expect_nothing(&mut server).await;
}

#[tokio::test]
async fn r30_a_refused_push_stream_is_not_requested_again() {
    for (status, content_type, body) in
        [(405, "", ""), (404, "", ""), (400, "text/plain", "no"), (200, "text/html", "<html>")]
    {
        let (mut server, mut client) = listening(None).await;
        server.get().await.respond_as(status, content_type, body).await;
        for _ in 0..3 {
            client.expect_nothing(&mut server).await;
        }
        client.finish(&mut server).await;
    }
}

#[tokio::test]
async fn r30_the_push_stream_is_retried_after_a_5xx_status() {
    let (mut server, mut client) = listening(None).await;
    for status in [500, 503] {
        server.get().await.respond_as(status, "text/plain", "not now").await;
    }
    let mut get = stream(&mut server).await;
    get.event(CHANGED).await;
    client.expect(CHANGED).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r31_an_ended_push_stream_is_resumed_after_its_last_event() {
    let (mut server, mut client) = listening(None).await;
    let mut get = stream(&mut server).await;
    get.chunk(format!("retry: 10\nid: e1\ndata: {CHANGED}\n\n")).await;
    client.expect(CHANGED).await;
    get.end().await;
    for (reset, id) in [(true, "e1"), (false, "e2")] {
        let mut get = server.get().await;
        assert_eq!(get.header("last-event-id"), Some(id));
        get.sse().await;
        get.chunk(format!("id: e2\ndata: {CHANGED}\n\n")).await;
        client.expect(CHANGED).await;
        if reset { get.reset() } else { get.end().await }
    }
    let mut get = server.get().await;
    get.sse().await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r32_r35_each_broken_stream_is_resumed_from_its_own_event_id() {
    let (mut server, mut client) = listening(Some("s")).await;
    server.get().await.respond(405, &[], "").await;
    let mut streams = Vec::new();
    for id in ["1", "2"] {
        client.send(call(id)).await;
        let mut post = server.post_of(id).await;
        post.sse().await;
        // The priming event (R34).
        post.chunk(format!("retry: 10\nid: start-{id}\ndata: \n\n")).await;
        post.chunk(format!("id: mid-{id}\ndata: {}\n\n", progress(id, 1))).await;
        client.expect(progress(id, 1)).await;
        streams.push(post);
    }
    streams.pop().unwrap().reset();
    let mut second = server.get().await;
    assert_eq!(second.header("last-event-id"), Some("mid-2"));
    assert_eq!(second.header("mcp-session-id"), Some("s"));
    streams.pop().unwrap().end().await;
    let mut first = server.get().await;
    assert_eq!(first.header("last-event-id"), Some("mid-1"));
    for (stream, id) in [(&mut first, "1"), (&mut second, "2")] {
        stream.sse().await;
        stream.event(&progress(id, 2)).await;
        stream.event(&response(id, "{}")).await;
        client.expect(progress(id, 2)).await;
        client.expect(response(id, "{}")).await;
    }
    first.end().await;
    second.end().await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r32_a_call_stream_is_resumed_after_every_break() {
    let (mut server, mut client) = listening(None).await;
    server.get().await.respond(405, &[], "").await;
    client.send(call("1")).await;
    let mut stream = server.post().await;
    stream.sse().await;
    stream.chunk("retry: 5\nid: 0\ndata:\n\n").await;
    stream.end().await;
    for step in 1..6 {
        let mut stream = server.get().await;
        assert_eq!(stream.header("last-event-id"), Some((step - 1).to_string().as_str()));
        stream.sse().await;
        stream.chunk(format!("retry: 5\nid: {step}\ndata: {}\n\n", progress("1", step))).await;
        client.expect(progress("1", step)).await;
        if step % 2 == 0 { stream.reset() } else { stream.end().await }
    }
    // Without an event in between, the cursor stays the same. The bridge retries after a temporary failure.
    server.get().await.respond(503, &[], "").await;
    let mut stream = server.get().await;
    assert_eq!(stream.header("last-event-id"), Some("5"));
    stream.sse().await;
    stream.event(&response("1", "{}")).await;
    client.expect(response("1", "{}")).await;
    stream.end().await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r33_the_servers_retry_time_applies_to_the_resumed_streams() {
    let mut server = Server::start().await;
    let mut config = server.config();
    // The test would never see the end of the bridge's own backoff.
    config.timeouts.reconnect = Duration::from_hours(1);
    let mut client = Client::start(config);
    client.send(call("1")).await;
    let mut stream = server.post().await;
    server.expect_get();
    stream.sse().await;
    stream.chunk("retry: 1\nid: 0\ndata:\n\n").await;
    for step in 1..=3 {
        stream.end().await;
        stream = server.get().await;
        assert_eq!(stream.header("last-event-id"), Some((step - 1).to_string().as_str()));
        stream.sse().await;
        stream.chunk(format!("id: {step}\ndata: {}\n\n", progress("1", step))).await;
        client.expect(progress("1", step)).await;
    }
    stream.event(&response("1", "{}")).await;
    client.expect(response("1", "{}")).await;
    stream.end().await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r44_a_stream_resumed_without_any_event_times_out() {
    let mut server = Server::start().await;
    let mut config = server.config();
    config.timeouts.idle = Duration::from_millis(300);
    let mut client = Client::start(config);
    client.send(call("1")).await;
    let mut post = server.post().await;
    server.expect_get();
    post.sse().await;
    post.chunk("retry: 5\nid: 0\ndata:\n\n").await;
    post.end().await;
    // A server that only accepts the attempts shows no sign of life.
    let in_vain = async {
        loop {
            let mut get = server.get().await;
            get.sse().await;
            get.end().await;
        }
    };
    let failure = tokio::select! {
        failure = client.expect_error("1") => failure,
        () = in_vain => unreachable!("it never ends"),
    };
    assert_eq!((failure.kind(), failure.may_have_run()), ("timeout", true), "{failure:?}");
    let told = server.post().await;
    assert_eq!(told.cancelled_id().as_deref(), Some("1"));
    told.accepted().await;
    client.expect_nothing(&mut server).await;
    // One more GET may have been in flight.
    server.forget_notifications();
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r36_a_repeated_response_reaches_the_client_once() {
    let (mut server, mut client) = listening(None).await;
    let mut push = stream(&mut server).await;
    client.send(call("1")).await;
    let mut post = server.post().await;
    post.sse().await;
    post.chunk("retry: 5\nid: 0\ndata:\n\n").await;
    post.end().await;
    let mut rest = server.get().await;
    rest.sse().await;
    for _ in 0..3 {
        rest.event(&response("1", "{}")).await;
    }
    push.event(&response("1", "{}")).await;
    client.expect(response("1", "{}")).await;
    push.event(CHANGED).await;
    client.expect(CHANGED).await;
    client.expect_nothing(&mut server).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn a_response_on_the_push_stream_answers_an_open_request() {
    let (mut server, mut client) = listening(None).await;
    let mut push = stream(&mut server).await;
    client.send(call("1")).await;
    let mut post = server.post().await;
    post.sse().await;
    push.event(&response("1", "{}")).await;
    client.expect(response("1", "{}")).await;
    post.end().await;
    client.expect_nothing(&mut server).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r32_a_call_gets_an_error_if_its_stream_cannot_be_resumed() {
    for status in [405, 404, 400] {
        let (mut server, mut client) = listening(None).await;
        server.get().await.respond(405, &[], "").await;
        client.send(call("1")).await;
        let mut post = server.post().await;
        post.sse().await;
        post.chunk("retry: 5\nid: 0\ndata:\n\n").await;
        post.reset();
        server.get().await.respond(status, &[], "").await;
        let failure = client.expect_error("1").await;
        assert_eq!(failure.kind(), "connection_lost");
        assert!(failure.may_have_run());
        client.finish(&mut server).await;
    }
}

#[tokio::test]
async fn r37_the_stream_of_a_cancelled_request_is_not_resumed() {
    let (mut server, mut client) = listening(None).await;
    server.get().await.respond(405, &[], "").await;
    client.send(call("1")).await;
    let mut post = server.post().await;
    post.sse().await;
    post.chunk("retry: 5\nid: 0\ndata:\n\n").await;
    client.send(crate::support::cancel("1")).await;
    let cancel = server.post().await;
    assert_eq!(cancel.cancelled_id().as_deref(), Some("1"));
    cancel.accepted().await;
    post.end().await;
    client.expect_nothing(&mut server).await;
    client.finish(&mut server).await;
}
