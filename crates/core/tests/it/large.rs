//! Messages that are too large for memory: they pass through a file, unchanged, and do not delay other messages (R3,
//! R15).

use crate::support::{Client, Server, call, dialogue, notification, request, response};

/// More than the bridge keeps in memory of one message.
const LARGE: usize = 3 << 20;

fn text() -> String {
    "0123456789é\\u2028\\ud800 ".repeat(LARGE / 20)
}

#[tokio::test]
async fn r3_a_large_response_passes_unchanged_except_for_its_id() {
    for content_type in ["application/json", "text/event-stream", "application/x-ndjson"] {
        let (mut server, mut client) = dialogue().await;
        client.send(call("7")).await;
        // The server spells the id differently; the client receives its own spelling.
        let body = |id: &str| response(id, &format!(r#"{{"x":1e400, "text":"{}"}}"#, text()));
        let mut post = server.post().await;
        post.head(200, &[("Content-Type", content_type)]).await;
        let framed = crate::support::framed(content_type, &body("7.0"));
        for chunk in framed.as_bytes().chunks(50_000) {
            post.chunk(chunk).await;
        }
        post.end().await;
        client.expect(body("7")).await;
        client.finish(&mut server).await;
    }
}

#[tokio::test]
async fn r2_a_large_pretty_printed_answer_is_one_line() {
    let (mut server, mut client) = dialogue().await;
    client.send(call("1")).await;
    let mut post = server.post().await;
    post.head(200, &[("Content-Type", "application/json")]).await;
    let body = format!("{{\n \"jsonrpc\":\"2.0\",\"id\": 1,\r\n \"result\": {{\n\"text\":\"{}\"\n}} }}\n", text());
    for chunk in body.as_bytes().chunks(100_000) {
        post.chunk(chunk).await;
    }
    post.end().await;
    client.expect(body.trim_end().replace(['\r', '\n'], " ")).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r11_others_do_not_wait_for_a_large_answer() {
    for content_type in ["application/json", "text/event-stream", "application/x-ndjson"] {
        let (mut server, mut client) = dialogue().await;
        client.send(call("1")).await;
        let mut large = server.post().await;
        large.head(200, &[("Content-Type", content_type)]).await;
        let body = response("1", &format!(r#""{}""#, text()));
        let framed = crate::support::framed(content_type, &body);
        let (first, rest) = framed.as_bytes().split_at(2 << 20);
        for chunk in first.chunks(100_000) {
            large.chunk(chunk).await;
        }
        client.send(call("2")).await;
        let answer = server.post().await.answer("{}").await;
        client.expect(answer).await;
        for chunk in rest.chunks(100_000) {
            large.chunk(chunk).await;
        }
        large.end().await;
        client.expect(body).await;
        client.finish(&mut server).await;
    }
}

#[tokio::test]
async fn r13_messages_of_any_size_on_one_stream_keep_their_order() {
    for content_type in ["text/event-stream", "application/x-ndjson"] {
        let (mut server, mut client) = dialogue().await;
        client.send(call("1")).await;
        let mut post = server.post().await;
        post.head(200, &[("Content-Type", content_type)]).await;
        let text = text();
        let messages: Vec<_> = [&text[..10], &text[..], &text[..500_000], &text[..], &text[..100]]
            .iter()
            .map(|text| notification("x", &format!(r#"{{"text":"{text}"}}"#)))
            .chain([response("1", "{}")])
            .collect();
        let framed: String = messages.iter().map(|message| crate::support::framed(content_type, message)).collect();
        let sending = async {
            for chunk in framed.as_bytes().chunks(300_000) {
                post.chunk(chunk).await;
            }
            post.end().await;
        };
        let reading = async {
            for message in &messages {
                client.expect(message).await;
            }
        };
        tokio::join!(sending, reading);
        client.finish(&mut server).await;
    }
}

#[tokio::test]
async fn an_unusable_spool_folder_fails_only_the_request_with_a_large_response() {
    let mut server = Server::start().await;
    let mut config = server.config();
    config.spool_folder = "/no/such/folder".into();
    let mut client = Client::start(config);
    for content_type in ["application/json", "text/event-stream"] {
        client.send(call("1")).await;
        let mut post = server.post().await;
        post.head(200, &[("Content-Type", content_type)]).await;
        let framed = crate::support::framed(content_type, &response("1", &format!(r#""{}""#, text())));
        for chunk in framed.as_bytes().chunks(100_000) {
            post.chunk(chunk).await;
        }
        post.end().await;
        let failure = client.expect_error("1").await;
        assert_eq!(failure.kind(), "storage");
        assert!(failure.may_have_run());
        client.send(request("2", "tools/list", "{}")).await;
        let answer = server.post().await.answer("{}").await;
        client.expect(answer).await;
    }
    client.finish(&mut server).await;
}
