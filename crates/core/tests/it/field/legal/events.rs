//! Streams of events (HTML, 9.2; R46). In the streams, `A` is the answer and `N` a notification.

use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};

use super::FOREIGN;
use crate::{
    push,
    support::{call, dialogue, notification, progress, request, response},
};

/// Returns the answer and a notification.
fn messages() -> (String, String) {
    let text = format!(r#"{{"text":"{FOREIGN}"}}"#);
    (response("1", &text), notification("notifications/message", &text))
}

/// Each stream, and the messages that the client receives from it.
const STREAMS: &[(&str, &str)] = &[
    // Line ends.
    ("data: A\n\n", "A"),
    ("data: A\r\n\r\n", "A"),
    ("data: A\r\r", "A"),
    ("data: N\n\r\ndata: A\r\n\n", "NA"),
    ("data: N\r\n\rdata: A\n\r", "NA"),
    ("\n\r\n\r\r\n\n\ndata: A\r\r\n\n", "A"),
    // A byte order mark at the start.
    ("\u{feff}data: A\n\n", "A"),
    ("\u{feff}\n\ndata: A\n\n", "A"),
    ("\u{feff}: comment\r\rdata: A\r\r", "A"),
    // A second one is part of an unknown field's name.
    ("\u{feff}\u{feff}data: N\n\ndata: A\n\n", "A"),
    // Comments.
    (": first\n\n:\n\n: ping - 2026-01-01 00:00:00+00:00\r\n\r\ndata: A\n\n", "A"),
    (":N\n:data: N\ndata: A\n: between\n\n", "A"),
    // Spaces.
    ("data:A\n\n", "A"),
    ("data:  A\n\n", "A"),
    ("data:\tA \n\n", "A"),
    // Lines of data.
    ("data\ndata: A\n\n", "A"),
    ("data:\ndata:\ndata: A\ndata\ndata: \n\n", "A"),
    // Empty data.
    ("data\n\ndata:\n\ndata: \n\ndata: \ndata\n\ndata: A\n\n", "A"),
    ("id: 1\ndata:\n\nid: 2\nretry: 5\ndata: A\n\n", "A"),
    // Ids.
    ("id: 7\n\ndata: A\n\n", "A"),
    ("id\n\nid:\n\nid: \ndata: A\n\n", "A"),
    ("id: a\0b\ndata: A\n\n", "A"),
    ("id: \u{e9} 1/2 {\"3\"}\ndata: A\nid: 1\nid: 2\n\n", "A"),
    // Retry times.
    ("retry: 1\n\ndata: A\n\n", "A"),
    ("retry\nretry:\nretry: soon\nretry: -1\nretry: 1.5\nretry: 99999999999999999999999999\ndata: A\n\n", "A"),
    // Event names.
    ("event:\ndata: A\n\n", "A"),
    ("event\ndata: A\n\n", "A"),
    ("event: message\ndata: N\n\nevent:message\ndata: A\n\n", "NA"),
    ("data: A\nevent: message\n\n", "A"),
    ("event: other\nevent: message\ndata: A\n\n", "A"),
    ("event: other\nevent\ndata: A\n\n", "A"),
    ("event: other\n\ndata: A\n\n", "A"),
    ("event: ping\ndata: {}\n\nevent: ping\ndata\n\nevent: keepalive\ndata: N\n\ndata: A\n\n", "A"),
    ("event: Message\ndata: N\n\nevent: message \ndata: N\n\nevent:  message\ndata: N\n\ndata: A\n\n", "A"),
    // Unknown fields.
    ("x: 1\nX\n=\ndaTa: N\nDaTa: N\n data: N\ndata : N\ndatas: N\ndata: A\nlast: 1\n\n", "A"),
    ("\u{e9}: 1\n\0\ndata: A\n\n", "A"),
    // Further messages besides the answer.
    ("data: N\n\ndata: N\n\ndata: A\n\n", "NNA"),
    ("data: A\n\ndata: N\n\n: ping\n\ndata: N\n\n", "ANN"),
    ("data: A\n\ndata: A\n\n", "A"),
    ("data: A\n\ndata: A\n\ndata: N\n\ndata: A\n\n", "AN"),
    // Arrays, as in 2025-03-26.
    ("data: [A]\n\n", "A"),
    ("data: [N,N , A]\n\n", "NNA"),
    ("data: [A,N]\n\n", "AN"),
    ("data: [N]\n\ndata: [\ndata:A\ndata:]\n\n", "NA"),
    // A last event without its blank line, which the rules would drop but the server intended.
    ("data: N\n\ndata: A", "NA"),
    ("data: A\n", "A"),
    // Data that is not a message is dropped.
    ("data: hello\n\ndata: {}\n\ndata: 1\n\ndata: []\n\ndata: A\n\n", "A"),
];

#[tokio::test]
async fn sse_syntax_variants_around_a_response_are_parsed() {
    let (answer, news) = messages();
    let (mut server, mut client) = dialogue().await;
    for (stream, messages) in STREAMS {
        let bytes = stream.replace('A', &answer).replace('N', &news).into_bytes();
        for size in [usize::MAX, 1] {
            println!("{stream:?} in pieces of {size}");
            client.send(call("1")).await;
            let mut post = server.post().await;
            post.head(200, &[("content-type", "Text/Event-Stream;charset=UTF-8")]).await;
            for piece in bytes.chunks(size) {
                post.chunk(piece).await;
            }
            post.end().await;
            for message in messages.chars() {
                client.expect(if message == 'A' { &answer } else { &news }).await;
            }
            client.expect_nothing(&mut server).await;
        }
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn a_response_split_over_several_data_lines_is_joined() {
    let (mut server, mut client) = dialogue().await;
    for (stream, line) in [
        (
            "data: {\ndata: \"jsonrpc\": \"2.0\",\ndata: \"id\": 1,\ndata: \"result\": {}\ndata: }\n\n",
            r#"{ "jsonrpc": "2.0", "id": 1, "result": {} }"#,
        ),
        (
            "data:{\"jsonrpc\":\"2.0\"\rid: 1\rdata:,\"id\":1,\r: x\rdata\rdata:\"result\":{}}\r\r",
            r#"{"jsonrpc":"2.0" ,"id":1,  "result":{}}"#,
        ),
        (
            "data: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":\r\ndata:   {}}\r\n\r\n",
            r#"{"jsonrpc":"2.0","id":1,"result":   {}}"#,
        ),
    ] {
        for size in [usize::MAX, 1] {
            client.send(call("1")).await;
            let mut post = server.post().await;
            post.sse().await;
            for piece in stream.as_bytes().chunks(size) {
                post.chunk(piece).await;
            }
            post.end().await;
            client.expect(line).await;
        }
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn sse_syntax_variants_of_the_push_stream_are_parsed() {
    let (_, news) = messages();
    let gzip = |text: &str| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.flush().unwrap();
        encoder.get_ref().clone()
    };
    for (stream, count) in [
        ("data: N\n\n", 1),
        ("\u{feff}: hello\r\rdata:N\r\revent: message\r\ndata: N\r\n\r\n", 2),
        ("id: 1\ndata:\n\nretry: 5\n\nid\ndata: [N, N]\n\n: ping\n\n", 2),
        ("event: endpoint\ndata: /messages\n\nevent: ping\ndata: {}\n\ndata\ndata: N\ndata\n\n", 1),
        ("data: hello\n\ndata: {}\n\ndata: N\n\n", 1),
    ] {
        let stream = stream.replace('N', &news);
        for (coding, bytes) in [("identity", stream.clone().into_bytes()), ("gzip", gzip(&stream))] {
            for size in [usize::MAX, 1] {
                println!("{stream:?} as {coding} in pieces of {size}");
                let (mut server, mut client) = push::listening(Some("s")).await;
                let mut push = server.get().await;
                push.head(200, &[("Content-type", "text/event-stream ; x=y"), ("content-encoding", coding)]).await;
                for piece in bytes.chunks(size) {
                    push.chunk(piece).await;
                }
                for _ in 0..count {
                    client.expect(&news).await;
                }
                client.expect_nothing(&mut server).await;
                client.finish(&mut server).await;
            }
        }
    }
}

#[tokio::test]
async fn a_stream_with_long_fields_requests_progress_and_notifications_is_read() {
    let (mut server, mut client) = dialogue().await;
    client.send(call("1")).await;
    let mut stream = server.post().await;
    stream.sse().await;
    // A comment, an id and an event name, each longer than any buffer.
    let long = "x".repeat(100_000);
    stream.chunk(format!(":{long}\n\nid: {long}\nevent: {long}\nunknown: {long}\ndata: {{}}\n\nid: 1\n\n")).await;
    for id in ["1", "\"a\"", "-1"] {
        let ping = request(id, "ping", "{}");
        stream.event(&ping).await;
        client.expect(&ping).await;
        client.send(response(id, "{}")).await;
        let post = server.post().await;
        assert_eq!(post.text(), response(id, "{}"));
        post.accepted().await;
    }
    stream.event(&progress("1", 1)).await;
    client.expect(progress("1", 1)).await;
    stream.event(&response("1", "{}")).await;
    client.expect(response("1", "{}")).await;
    // The stream stays open for further messages.
    let changed = notification("notifications/tools/list_changed", "{}");
    for _ in 0..2 {
        stream.chunk(": ping\n\n").await;
        stream.event(&changed).await;
        client.expect(&changed).await;
        client.expect_nothing(&mut server).await;
    }
    stream.end().await;
    client.finish(&mut server).await;
}
