//! Wrong or missing content types, as proxies and frameworks send them. Rule: the first bytes decide the type of a
//! body.

use crate::{
    push,
    strangers::listening,
    support::{call, dialogue, notification, response},
};

#[tokio::test]
async fn an_event_stream_with_a_wrong_content_type_is_read_while_open() {
    for label in ["application/json", "text/plain", "application/octet-stream", "application/x-ndjson", ""] {
        for start in ["event: message\n", "", "id: 7\n", "retry: 1000\n", ": hello\n\n", "\n\n", "\u{feff}"] {
            let (mut server, mut client) = dialogue().await;
            client.send(call("1")).await;
            let mut post = server.post().await;
            let headers: &[_] = if label.is_empty() { &[] } else { &[("Content-Type", label)] };
            post.head(200, headers).await;
            post.chunk(format!("{start}data: {}\n\n", response("1", "{}"))).await;
            client.expect(response("1", "{}")).await;
            post.end().await;
            client.finish(&mut server).await;
        }
    }
}

#[tokio::test]
async fn an_event_stream_labelled_text_plain_is_read_byte_by_byte() {
    let (mut server, mut client) = dialogue().await;
    client.send(call("1")).await;
    let mut post = server.post().await;
    post.head(200, &[("Content-Type", "text/plain")]).await;
    for byte in format!("\u{feff}\r\nretry: 5\r\ndata: {}\r\n\r\n", response("1", "{}")).as_bytes() {
        post.chunk([*byte]).await;
    }
    client.expect(response("1", "{}")).await;
    post.end().await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn json_with_a_wrong_content_type_is_read_while_the_body_is_open() {
    for label in ["text/event-stream", "application/json", "text/html", ""] {
        for text in [&response("1", "{}"), "\r\n{\n\"jsonrpc\":\"2.0\",\n\"id\":1,\"result\":{}\n}\n"] {
            let (mut server, mut client) = dialogue().await;
            client.send(call("1")).await;
            let mut post = server.post().await;
            let headers: &[_] = if label.is_empty() { &[] } else { &[("Content-Type", label)] };
            post.head(200, headers).await;
            let (start, rest) = text.split_at(text.len() / 2);
            post.chunk(start).await;
            post.chunk(rest).await;
            client.expect(text.trim().replace('\n', " ")).await;
            client.finish(&mut server).await;
        }
    }
}

#[tokio::test]
async fn a_response_in_an_event_of_another_name_is_delivered() {
    let refusal = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"no such tool"}}"#;
    let nameless = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32602,"message":"no such tool"}}"#;
    let answer = response("1", "{}");
    for (name, data, expected) in [
        ("response", answer.as_str(), answer.as_str()),
        ("result", &answer, &answer),
        ("error", refusal, refusal),
        ("error", nameless, refusal),
    ] {
        let (mut server, mut client) = dialogue().await;
        client.send(call("1")).await;
        let mut post = server.post().await;
        post.sse().await;
        // Events that are not answers are dropped.
        post.chunk(format!("event: ping\ndata: {{}}\n\nevent: debug\ndata: {}\n\n", notification("x", "{}"))).await;
        post.chunk(format!("event: {name}\ndata: {}\n\n", response("99", "{}"))).await;
        post.chunk(format!("event: {name}\ndata: {data}\n\n")).await;
        client.expect(expected).await;
        post.end().await;
        client.finish(&mut server).await;
    }
}

#[tokio::test]
async fn the_text_of_an_sse_error_event_is_in_the_error() {
    let (mut server, mut client) = dialogue().await;
    client.send(call("1")).await;
    let mut post = server.post().await;
    post.sse().await;
    post.chunk("event: error\ndata: {\"error\":\"upstream is gone\"}\n\n").await;
    post.end().await;
    let failure = client.expect_error("1").await;
    assert!(format!("{failure:?}").contains("upstream is gone"), "{failure:?}");
    client.finish(&mut server).await;
}

#[tokio::test]
async fn an_accepted_request_is_answered_on_the_push_stream() {
    let (mut server, mut client, mut push) = listening().await;
    client.send(call("1")).await;
    server.post().await.accepted().await;
    client.send(call("2")).await;
    server.post().await.accepted().await;
    push.event(&notification("x", "{}")).await;
    client.expect(notification("x", "{}")).await;
    push.event(&response("2", "{}")).await;
    client.expect(response("2", "{}")).await;
    push.event(&response("1", "{}")).await;
    client.expect(response("1", "{}")).await;
    // If the stream breaks off before the answer, the call fails.
    client.send(call("3")).await;
    server.post().await.accepted().await;
    push.end().await;
    let failure = client.expect_error("3").await;
    assert_eq!((failure.kind(), failure.may_have_run()), ("no_answer", true), "{failure:?}");
    let _ = server.get().await;
    drop(client);
}

#[tokio::test]
async fn without_a_push_stream_an_accepted_request_fails_with_no_answer() {
    let (mut server, mut client) = dialogue().await;
    client.handshake(&mut server, None).await;
    client.send(call("1")).await;
    server.post().await.accepted().await;
    assert_eq!(client.expect_error("1").await.kind(), "no_answer");
    client.finish(&mut server).await;
}

#[tokio::test]
async fn the_push_stream_needs_no_event_stream_content_type() {
    for label in ["text/plain", "application/json", ""] {
        let (mut server, mut client) = push::listening(Some("s")).await;
        let mut push = server.get().await;
        let headers: &[_] = if label.is_empty() { &[] } else { &[("Content-Type", label)] };
        push.head(200, headers).await;
        push.chunk(": hello\n\n").await;
        push.event(&notification("x", "{}")).await;
        client.expect(notification("x", "{}")).await;
        drop(client);
    }
}

#[tokio::test]
async fn a_gzip_body_with_a_wrong_length_is_still_read() {
    use std::io::Write as _;
    let answer = response("1", &format!(r#"{{"text":"{}"}}"#, "0123456789".repeat(100)));
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(answer.as_bytes()).unwrap();
    let body = encoder.finish().unwrap();
    // The length of the uncompressed body, as some proxies send it, and a gzip trailer with a wrong length.
    let mut trailer = body.clone();
    *trailer.last_mut().unwrap() ^= 1;
    for (body, length) in [(&body, answer.len()), (&trailer, body.len())] {
        let (mut server, mut client) = dialogue().await;
        client.send(call("1")).await;
        let mut post = server.post().await;
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: {length}\r\n\r\n"
        );
        post.write(head.as_bytes()).await;
        post.write(body).await;
        post.fin().await;
        client.expect(&answer).await;
        client.finish(&mut server).await;
    }
}
