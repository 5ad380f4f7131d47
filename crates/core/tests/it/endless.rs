//! Endless messages, lines, events and expanding bodies. Rule: a limit applies, the affected request fails at once, and
//! no other request does (R5, R15, R90).

use std::io::Write;

use mcp_gangway_core::{Config, Proxy, TransportMode};

use crate::support::{
    Authority, Client, Fate, RawH2, Server, call, dialogue, framed, notification, progress, request, response, within,
};
use crate::transport::Encoder;

/// The message size limit of these tests.
const LIMIT: usize = 256 << 10;

async fn limited() -> (Server, Client) {
    let server = Server::start().await;
    let mut config = server.config();
    config.limits.incoming = LIMIT as u64;
    config.limits.outgoing = LIMIT as u64;
    let client = Client::start(config);
    (server, client)
}

/// Expects that the request with id 1 fails because of a message over the limit, and that the error names the option.
async fn expect_too_large(client: &mut Client) {
    let failure = client.expect_error("1").await;
    assert_eq!(failure.kind(), "too_large", "{failure:?}");
    assert!(failure.message.contains("256 KiB; the settings have this limit"), "{failure:?}");
    assert!(failure.may_have_run(), "{failure:?}");
}

#[tokio::test]
async fn r5_an_endless_response_is_refused_at_the_limit() {
    const JSON: &str = "application/json";
    const SSE: &str = "text/event-stream";
    const LINES: &str = "application/x-ndjson";
    let (mut server, mut client) = limited().await;
    client.send(call("2")).await;
    let other = server.post().await;
    for (content_type, beginning, again) in [
        (JSON, r#"{"id":1,"result":""#, "x"),
        (JSON, r#"{"result":""#, "x"),
        (JSON, r#"{"id":1,"result":["#, "[],"),
        (JSON, r#"{""#, "x"),
        (JSON, r#"{"id":""#, "x"),
        (JSON, "", " "),
        ("text/html", "<p>", "x"),
        (LINES, r#"{"id":1,"result":""#, "x"),
        (LINES, r#"{"result":""#, "x"),
        (LINES, "", " "),
        (SSE, r#"data: {"id":1,"result":""#, "x"),
        (SSE, r#"data: {"result":""#, "x"),
        (SSE, "data: {\"id\":1,\"result\":[\n", "data: [],\n"),
        (SSE, "data: {\n", "data\n"),
        (SSE, "id: 7\ndata: {\n", "event: message\ndata: [],\n"),
    ] {
        client.send(call("1")).await;
        let mut post = server.post().await;
        post.head(200, &[("Content-Type", content_type)]).await;
        post.chunk(format!("{beginning}{}", again.repeat(100))).await;
        let block = again.repeat((100_000 / again.len()).max(1));
        let mut sent = 0;
        let flood = async {
            while sent < 8 * LIMIT {
                post.chunk(&block).await;
                sent += block.len();
            }
        };
        tokio::join!(flood, expect_too_large(&mut client));
        post.closed_by_peer("the connection of an endless answer to be closed").await;
    }
    client.expect_nothing(&mut server).await;
    let answer = other.answer("{}").await;
    client.expect(answer).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r15_stream_data_without_a_message_may_exceed_the_limit() {
    let (mut server, mut client) = limited().await;
    for (content_type, again) in [
        ("text/event-stream", ":\n"),
        ("text/event-stream", "\n"),
        ("text/event-stream", "\r"),
        ("text/event-stream", "id: 7\n\n"),
        ("text/event-stream", "event: x\nid: 7\nretry: 5\n"),
        ("text/event-stream", "x"),
        ("text/event-stream", ":"),
        ("text/event-stream", "event: ping\ndata: 1\n\n"),
        ("application/x-ndjson", "\n"),
        ("application/x-ndjson", " \r\n"),
    ] {
        client.send(call("1")).await;
        let mut post = server.post().await;
        post.head(200, &[("Content-Type", content_type)]).await;
        let block = again.repeat(100_000 / again.len());
        for _ in 0..10 {
            post.chunk(&block).await;
        }
        client.expect_nothing(&mut server).await;
        post.chunk(format!("\n\n{}", framed(content_type, &response("1", "{}")))).await;
        client.expect(response("1", "{}")).await;
        post.end().await;
    }
    // An endless line, in each field.
    for field in ["", "id", "event", "retry", "other"] {
        client.send(call("1")).await;
        let mut post = server.post().await;
        post.sse().await;
        post.chunk(format!("{field}: ")).await;
        for _ in 0..10 {
            post.chunk(vec![b'7'; 100_000]).await;
        }
        client.expect_nothing(&mut server).await;
        post.chunk("\n\n").await;
        post.event(&response("1", "{}")).await;
        client.expect(response("1", "{}")).await;
        post.end().await;
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r5_a_too_large_message_that_is_no_response_fails_no_request() {
    let (mut server, mut client) = limited().await;
    let text = "x".repeat(2 * LIMIT);
    for content_type in ["text/event-stream", "application/x-ndjson"] {
        client.send(call("1")).await;
        client.send(call("2")).await;
        let mut stream = server.post_of("1").await;
        let other = server.post_of("2").await;
        stream.head(200, &[("Content-Type", content_type)]).await;
        stream.chunk(framed(content_type, &notification("x", &format!("\"{text}\"")))).await;
        stream.chunk(framed(content_type, &request("1", "x", &format!("\"{text}\"")))).await;
        // An oversized answer to another request fails that request.
        stream.chunk(framed(content_type, &response("2", &format!("\"{text}\"")))).await;
        let failure = client.expect_error("2").await;
        assert_eq!(failure.kind(), "too_large", "{failure:?}");
        other.answer("{}").await;
        stream.chunk(framed(content_type, &progress("1", 1))).await;
        client.expect(progress("1", 1)).await;
        stream.chunk(framed(content_type, &response("1", "{}"))).await;
        client.expect(response("1", "{}")).await;
        stream.end().await;
        client.expect_nothing(&mut server).await;
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r5_a_too_large_response_on_the_shared_stream_fails_only_its_request() {
    let mut server = Server::start().await;
    server.expect_get();
    let mut config = server.config();
    config.limits.incoming = LIMIT as u64;
    config.transport = TransportMode::Sse;
    let mut client = Client::start(config);
    client.initialize().await;
    let mut stream = server.get().await;
    stream.sse().await;
    stream.chunk("event: endpoint\ndata: /messages\n\n").await;
    server.post().await.accepted().await;
    let answer = response(r#""init""#, r#"{"protocolVersion":"2024-11-05","capabilities":{}}"#);
    stream.event(&answer).await;
    client.expect(answer).await;
    for id in ["1", "2"] {
        client.send(call(id)).await;
        server.post().await.accepted().await;
    }
    // The event never ends. The stream is shared, so it continues.
    stream.chunk(format!(r#"data: {{"id":1,"result":"{}"#, "x".repeat(2 * LIMIT))).await;
    expect_too_large(&mut client).await;
    stream.chunk("\n\n").await;
    stream.event(&response("2", "{}")).await;
    client.expect(response("2", "{}")).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn endless_trailers_do_not_prevent_the_response() {
    let (mut server, mut client) = limited().await;
    for content_type in ["application/json", "text/event-stream"] {
        client.send(call("1")).await;
        let mut post = server.post().await;
        post.head(200, &[("Content-Type", content_type)]).await;
        post.chunk(framed(content_type, &response("1", "{}"))).await;
        post.write(b"0\r\n").await;
        for _ in 0..20 {
            post.write("X: 1\r\n".repeat(10_000).as_bytes()).await;
        }
        client.expect(response("1", "{}")).await;
        post.closed_by_peer("the connection with endless trailers to be closed").await;
        client.expect_nothing(&mut server).await;
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn endless_http2_headers_fail_only_their_request() {
    let authority = Authority::new();
    let server = RawH2::start(authority.server_config("localhost")).await;
    let mut config = Config::new(&server.url()).unwrap();
    config.tls.ca_certificates.push(authority.pem());
    config.proxy = Proxy::None;
    let mut client = Client::start(config);
    let serving = server.serve(async |message| match message["id"].as_u64() {
        Some(1) => Fate::EndlessHeaders,
        id => Fate::Answer(response(&id.unwrap_or_default().to_string(), "{}")),
    });
    let asking = async {
        client.send(call("1")).await;
        let failure = client.expect_error("1").await;
        assert!(["invalid_answer", "connection_lost"].contains(&failure.kind()), "{failure:?}");
        client.send(call("2")).await;
        client.expect(response("2", "{}")).await;
    };
    tokio::select! {
        () = asking => {}
        () = serving => {}
    }
}

#[tokio::test]
async fn r15_long_member_names_pass_and_long_ids_and_methods_are_refused() {
    let (mut server, mut client) = dialogue().await;
    let long = "x".repeat(LIMIT);
    // From the server: in members that the bridge reads, and in members that it does not.
    for answer in [
        format!(r#"{{"jsonrpc":"2.0","id":1,"{long}":1,"result":{{}}}}"#),
        response("1", &format!(r#"{{"{long}":{{}}}}"#)),
    ] {
        client.send(call("1")).await;
        server.post().await.json(&answer).await;
        client.expect(answer).await;
    }
    for answer in [response(&format!("\"{long}\""), "{}"), response(&"1".repeat(LIMIT), "{}")] {
        client.send(call("1")).await;
        server.post().await.json(answer).await;
        let failure = client.expect_error("1").await;
        assert_eq!(failure.kind(), "invalid_answer", "{failure:?}");
    }
    // From the client: the error does not repeat an id of this length.
    for line in [call(&format!("\"{long}\"")), call(&"1".repeat(LIMIT))] {
        client.send(line).await;
        let failure = client.expect_error("null").await;
        assert_eq!(failure.kind(), "invalid_message", "{failure:?}");
    }
    client.send(request("1", &long, "{}")).await;
    let failure = client.expect_error("1").await;
    assert_eq!(failure.kind(), "invalid_message", "{failure:?}");
    client.expect_nothing(&mut server).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r5_a_request_over_the_limit_gets_an_error_with_its_id() {
    let (mut server, mut client) = limited().await;
    let text = "x".repeat(2 * LIMIT);
    for (line, id) in [
        (request("1", "tools/call", &format!("\"{text}\"")), "1"),
        (format!(r#"{{"id":"a","method":"x","params":"{text}"}}"#), r#""a""#),
        // The id comes after the part that the bridge reads.
        (format!(r#"{{"method":"x","params":"{text}","id":3}}"#), "3"),
        (format!(r#"{{"x":"{text}"#), "null"),
    ] {
        client.send(line).await;
        let failure = client.expect_error(id).await;
        assert_eq!(failure.kind(), "too_large", "{failure:?}");
        assert!(failure.message.contains("256 KiB; the settings have this limit"), "{failure:?}");
        assert!(!failure.may_have_run(), "{failure:?}");
        client.expect_nothing(&mut server).await;
    }
    let whole = request("1", "x", &format!("\"{}\"", "x".repeat(LIMIT / 2)));
    client.send(&whole).await;
    let post = server.post().await;
    assert_eq!(post.text(), whole);
    let answer = post.answer("{}").await;
    client.expect(answer).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r90_a_decompression_bomb_is_refused_at_the_limit() {
    const EXPANDED: usize = 8 << 20;
    let zeros = " ".repeat(1 << 20);
    for content_type in ["application/json", "text/event-stream", "application/x-ndjson"] {
        let (mut server, mut client) = limited().await;
        client.send(call("2")).await;
        let other = server.post().await;
        for (name, mut encoder) in Encoder::all() {
            let mut bomb = encoder.flushed(if content_type.ends_with("stream") { "data: " } else { "" });
            for _ in 0..EXPANDED >> 20 {
                bomb.extend(encoder.flushed(&zeros));
            }
            client.send(call("1")).await;
            let mut post = server.post().await;
            post.head(200, &[("Content-Type", content_type), ("Content-Encoding", name)]).await;
            assert!(bomb.len() < EXPANDED / 50, "{name} compresses to {} bytes", bomb.len());
            post.chunk(bomb).await;
            expect_too_large(&mut client).await;
            post.closed_by_peer("the connection of a bomb to be closed").await;
        }
        client.expect_nothing(&mut server).await;
        let answer = other.answer("{}").await;
        client.expect(answer).await;
        client.finish(&mut server).await;
    }
}

#[tokio::test]
async fn r90_a_zstd_body_with_too_large_a_window_is_refused() {
    let (mut server, mut client) = dialogue().await;
    let answer = response("1", &format!("\"{}\"", "x".repeat(10 << 20)));
    for (window, is_taken) in [(23, true), (24, false)] {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(window).unwrap();
        encoder.write_all(answer.as_bytes()).unwrap();
        let body = encoder.finish().unwrap();
        client.send(call("1")).await;
        let headers = [("Content-Type", "application/json"), ("Content-Encoding", "zstd")];
        server.post().await.respond(200, &headers, body).await;
        if is_taken {
            client.expect(&answer).await;
        } else {
            let failure = client.expect_error("1").await;
            assert!(failure.message.contains("decompressed") && failure.may_have_run(), "{failure:?}");
        }
    }
    // Several frames are one body. A truncated frame is an error.
    let frames: Vec<u8> = ["{\"jsonrpc\":\"2.0\",\"id\":1,", "\"result\":{}}"]
        .iter()
        .flat_map(|text| zstd::encode_all(text.as_bytes(), 1).unwrap())
        .collect();
    for (body, is_taken) in [(&frames[..], true), (&frames[..frames.len() - 3], false)] {
        client.send(call("1")).await;
        let headers = [("Content-Type", "application/json"), ("Content-Encoding", "zstd")];
        server.post().await.respond(200, &headers, body).await;
        if is_taken {
            client.expect(response("1", "{}")).await;
        } else {
            client.expect_error("1").await;
        }
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r11_other_requests_do_not_wait_while_a_body_is_decompressed() {
    // Within the limits: a large answer that only keeps the bridge busy for a while.
    const EXPANDED: usize = 16 << 20;
    let mut server = Server::start().await;
    let mut client = Client::of(&server);
    let (name, mut encoder) = Encoder::all().into_iter().next().unwrap();
    let mut body = encoder.flushed(r#"{"jsonrpc":"2.0","id":1,"result":""#);
    let spaces = " ".repeat(1 << 20);
    for _ in 0..EXPANDED >> 20 {
        body.extend(encoder.flushed(&spaces));
    }
    body.extend(encoder.flushed("\"}"));
    body.extend(encoder.end());
    client.send(call("1")).await;
    let post = server.post().await;
    client.send(call("2")).await;
    let quick = server.post().await;
    let headers = [("Content-Type", "application/json"), ("Content-Encoding", name)];
    post.respond(200, &headers, body).await;
    let answer = quick.answer("{}").await;
    client.expect(answer).await;
    let line = within("the large answer", client.line("the large answer")).await;
    assert!(line.len() > EXPANDED, "{} bytes", line.len());
    client.finish(&mut server).await;
}
