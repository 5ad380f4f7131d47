//! HTTP+SSE, the transport of 2024-11-05, and its detection (R50–R56).

use std::time::Duration;

use mcp_gangway_core::TransportMode;

use crate::support::{Client, Exchange, INITIALIZED, Server, call, cancel, request, response};

const VERSION: &str = "2024-11-05";

pub(crate) fn bridge(server: &Server, mode: TransportMode) -> Client {
    let mut config = server.config();
    config.transport = mode;
    server.expect_get();
    Client::start(config)
}

/// Answers the next GET with a stream that names this endpoint.
pub(crate) async fn stream(server: &mut Server, endpoint: &str) -> Exchange {
    let mut get = server.get().await;
    get.sse().await;
    get.chunk(format!("event: endpoint\ndata: {endpoint}\n\n")).await;
    get
}

/// Accepts the next POST at the endpoint as old servers do: the answer comes on the stream (R52).
pub(crate) async fn taken(server: &mut Server, target: &str) -> String {
    let post = server.post().await;
    assert_eq!(post.target, target);
    let text = post.text().to_owned();
    post.respond_as(202, "text/plain", "Accepted").await;
    text
}

/// Completes the handshake on an open stream.
pub(crate) async fn handshake(server: &mut Server, client: &mut Client, stream: &mut Exchange, target: &str) {
    assert!(taken(server, target).await.contains("initialize"));
    let answer = response(r#""init""#, &format!(r#"{{"protocolVersion":"{VERSION}","capabilities":{{}}}}"#));
    stream.event(&answer).await;
    client.expect(answer).await;
    client.send(INITIALIZED).await;
    assert_eq!(taken(server, target).await, INITIALIZED);
}

#[tokio::test]
async fn r50_r52_messages_are_posted_to_the_endpoint_and_answered_on_the_stream() {
    for (endpoint, target) in [("/messages?session=1", "/messages?session=1"), ("m", "/m"), ("?s=1", "/mcp?s=1")] {
        let mut server = Server::start().await;
        let mut client = bridge(&server, TransportMode::Sse);
        client.initialize().await;
        let mut stream = stream(&mut server, endpoint).await;
        handshake(&mut server, &mut client, &mut stream, target).await;
        // Two concurrent calls, answered in reverse order, with a request from the server in between.
        for id in ["1", "2"] {
            client.send(call(id)).await;
            assert_eq!(taken(&mut server, target).await, call(id));
        }
        stream.event(&response("2", "{}")).await;
        client.expect(response("2", "{}")).await;
        let roots = request("0", "roots/list", "{}");
        stream.event(&roots).await;
        client.expect(&roots).await;
        client.send(response("0", "{}")).await;
        assert_eq!(taken(&mut server, target).await, response("0", "{}"));
        stream.event(&response("1", "{}")).await;
        client.expect(response("1", "{}")).await;
        client.finish(&mut server).await;
    }
}

#[tokio::test]
async fn r51_an_endpoint_on_another_origin_is_refused() {
    for endpoint in ["http://127.0.0.1:9/m", "//localhost/m", "https://example.com/m"] {
        let mut server = Server::start().await;
        let mut client = bridge(&server, TransportMode::Sse);
        client.initialize().await;
        let _stream = stream(&mut server, endpoint).await;
        let failure = client.expect_error(r#""init""#).await;
        assert!(failure.message.contains("another origin"), "{failure:?}");
        client.finish(&mut server).await;
    }
}

#[tokio::test]
async fn r53_a_lost_stream_fails_open_requests_and_is_reopened() {
    let mut server = Server::start().await;
    let mut client = bridge(&server, TransportMode::Sse);
    client.initialize().await;
    let mut first = stream(&mut server, "/one").await;
    handshake(&mut server, &mut client, &mut first, "/one").await;
    first.chunk("retry: 10\n\n").await;
    client.send(call("1")).await;
    taken(&mut server, "/one").await;
    first.reset();
    let failure = client.expect_error("1").await;
    assert_eq!(failure.kind(), "connection_lost");
    assert!(failure.may_have_run());
    // The bridge creates a new session without the client.
    let mut second = stream(&mut server, "/two").await;
    let initialize = server.post().await;
    assert_eq!(initialize.target, "/two");
    let own = initialize.id().unwrap();
    assert!(own.starts_with("\"mcp-gangway-"), "{own}");
    initialize.respond_as(202, "text/plain", "Accepted").await;
    second.event(&response(&own, &format!(r#"{{"protocolVersion":"{VERSION}","capabilities":{{}}}}"#))).await;
    assert_eq!(taken(&mut server, "/two").await, INITIALIZED);
    client.send(call("2")).await;
    assert_eq!(taken(&mut server, "/two").await, call("2"));
    second.event(&response("2", "{}")).await;
    client.expect(response("2", "{}")).await;
    client.finish(&mut server).await;
}

/// Such a stream may stay open and busy for ever, so it must not be the last one.
#[tokio::test]
async fn r50_a_stream_that_names_no_endpoint_in_time_is_replaced() {
    let mut server = Server::start().await;
    let mut config = server.config();
    config.transport = TransportMode::Sse;
    config.timeouts.idle = Duration::from_millis(500);
    config.timeouts.reconnect = Duration::from_millis(1);
    config.timeouts.attach = None;
    server.expect_get();
    let mut client = Client::start(config);
    client.initialize().await;
    let mut nameless = server.get().await;
    nameless.sse().await;
    nameless.chunk(": hello\n\n").await;
    let failure = client.expect_error(r#""init""#).await;
    assert!(failure.kind() == "timeout" && !failure.may_have_run(), "{failure:?}");
    let mut stream = stream(&mut server, "/m").await;
    client.initialize().await;
    handshake(&mut server, &mut client, &mut stream, "/m").await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r54_auto_mode_falls_back_to_an_sse_server() {
    for (status, content_type, body) in
        [(405, "text/plain", "Method Not Allowed"), (404, "text/html", "<html>"), (400, "", "")]
    {
        let mut server = Server::start().await;
        let mut client = bridge(&server, TransportMode::Auto);
        let line = client.initialize().await;
        let post = server.post().await;
        assert_eq!((post.target.as_str(), post.text()), ("/mcp", line.as_str()));
        post.respond_as(status, content_type, body).await;
        let mut stream = stream(&mut server, "/m").await;
        handshake(&mut server, &mut client, &mut stream, "/m").await;
        client.finish(&mut server).await;
    }
}

#[tokio::test]
async fn r54_r55_other_refusals_cause_no_fallback_to_sse() {
    for (status, body) in [
        (401, ""),
        (403, ""),
        (500, ""),
        (400, r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32022,"message":"Unsupported protocol version"}}"#),
        (404, r#"{"jsonrpc":"2.0","id":"init","error":{"code":-32601,"message":"Method not found"}}"#),
    ] {
        let mut server = Server::start().await;
        let mut client = bridge(&server, TransportMode::Auto);
        client.initialize().await;
        server.post().await.respond_as(status, "application/json", body).await;
        if body.contains("-32") {
            // The error could come from a modern server; this server is not one.
            let discover = server.post().await;
            assert_eq!(discover.rpc_method(), "server/discover");
            discover.respond_as(404, "text/plain", "").await;
        }
        client.line("an error").await;
        client.expect_nothing(&mut server).await;
        client.finish(&mut server).await;
    }
}

#[tokio::test]
async fn r54_auto_mode_reports_a_404_when_both_transports_fail() {
    let mut server = Server::start().await;
    let mut client = bridge(&server, TransportMode::Auto);
    client.initialize().await;
    server.post().await.respond_as(404, "text/plain", "nothing here").await;
    server.get().await.respond_as(404, "text/plain", "nor here").await;
    let failure = client.expect_error(r#""init""#).await;
    assert_eq!(failure.status(), Some(404));
    assert!(failure.data["detail"].as_str().unwrap().contains("nothing here"));
    // The server may appear later, with another transport.
    client.handshake(&mut server, None).await;
    server.get().await.respond(405, &[], "").await;
    client.expect_nothing(&mut server).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn sse_first_falls_back_to_streamable_http() {
    let mut server = Server::start().await;
    let mut client = bridge(&server, TransportMode::SseFirst);
    client.initialize().await;
    server.get().await.respond(405, &[], "").await;
    let answer = server.initialize(Some("s"), "2025-06-18").await;
    client.expect(answer).await;
    client.expect_nothing(&mut server).await;
}

#[tokio::test]
async fn http_only_does_not_look_for_an_old_server() {
    let mut server = Server::start().await;
    let mut client = bridge(&server, TransportMode::Http);
    client.initialize().await;
    server.post().await.respond_as(405, "text/plain", "no").await;
    assert_eq!(client.expect_error(r#""init""#).await.status(), Some(405));
    client.expect_nothing(&mut server).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r56_a_server_upgraded_from_sse_to_streamable_http_is_detected() {
    let mut server = Server::start().await;
    let mut client = bridge(&server, TransportMode::Auto);
    client.initialize().await;
    server.post().await.respond(405, &[], "").await;
    let mut stream = stream(&mut server, "/m").await;
    handshake(&mut server, &mut client, &mut stream, "/m").await;
    stream.chunk("retry: 1\n\n").await;
    stream.end().await;
    // The new server has no stream for a client without a session.
    server.get().await.respond(405, &[], "").await;
    client.send(call("1")).await;
    // A further GET may come before the new handshake.
    let mut next = server.next("a GET, or the new handshake").await;
    while next.verb == "GET" {
        next.respond(405, &[], "").await;
        next = server.next("the new handshake").await;
    }
    assert_eq!(next.rpc_method(), "initialize");
    next.initialized(Some("s"), VERSION).await;
    let initialized = server.post().await;
    assert_eq!(initialized.text(), INITIALIZED);
    initialized.accepted().await;
    let again = server.post_of("1").await;
    assert_eq!(again.header("mcp-session-id"), Some("s"));
    let answer = again.answer("{}").await;
    client.expect(answer).await;
    server.get().await.respond(405, &[], "").await;
}

#[tokio::test]
async fn r37_a_cancel_goes_to_the_endpoint() {
    let mut server = Server::start().await;
    let mut client = bridge(&server, TransportMode::Sse);
    client.initialize().await;
    let mut stream = stream(&mut server, "/m").await;
    handshake(&mut server, &mut client, &mut stream, "/m").await;
    client.send(call("1")).await;
    taken(&mut server, "/m").await;
    client.send(cancel("1")).await;
    assert_eq!(taken(&mut server, "/m").await, cancel("1"));
    client.finish(&mut server).await;
}
