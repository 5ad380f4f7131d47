//! HTTP responses without an answer: to notifications and responses (R26), to a GET (R29, R30) and to a DELETE (R41).

use mcp_gangway_core::End;

use super::sized;
use crate::{
    push,
    support::{INITIALIZED, VERSION, call, dialogue, notification, refusal, response},
};

/// A gzip file without content.
const NOTHING: &[u8] = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00";

const ACCEPTED: &str = "HTTP/1.1 202 Accepted";
const OK: &str = "HTTP/1.1 200 OK";
const JSON: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json";
const EVENTS: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream";
/// Headers and an empty chunked body.
const NO_CHUNKS: &str = "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n";

/// Returns this whole HTTP response unchanged.
fn plain(reply: impl Into<Vec<u8>>) -> Vec<u8> {
    reply.into()
}

/// Returns whole HTTP responses that only acknowledge the message.
fn receipts() -> Vec<Vec<u8>> {
    vec![
        sized(ACCEPTED, ""),
        sized("HTTP/1.1 202", ""),
        sized("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 Accepted", ""),
        sized("HTTP/1.0 202 Accepted\r\nConnection: keep-alive", ""),
        sized(&format!("{ACCEPTED}\r\nContent-Type: application/json"), ""),
        sized(&format!("{ACCEPTED}\r\nContent-Type: text/event-stream"), ""),
        sized(&format!("{ACCEPTED}\r\nContent-Encoding: gzip"), ""),
        sized(&format!("{ACCEPTED}\r\nContent-Encoding: gzip"), NOTHING),
        sized(ACCEPTED, "Accepted"),
        sized(&format!("{ACCEPTED}\r\nContent-Type: application/json"), "{}"),
        plain(format!("{ACCEPTED}\r\n{NO_CHUNKS}")),
        plain(format!("{ACCEPTED}\r\nTrailer: X\r\nTransfer-Encoding: chunked\r\n\r\n0;x\r\nX: y\r\n\r\n")),
        sized(OK, ""),
        sized(JSON, "null"),
        sized(JSON, "[]"),
        sized(JSON, "\"\""),
        sized(JSON, "\r\n\r\n"),
        sized(EVENTS, ": ok\n\nid: 1\ndata:\n\n"),
        plain(format!("{EVENTS}\r\n{NO_CHUNKS}")),
        plain("HTTP/1.1 204 No Content\r\n\r\n"),
        plain("HTTP/1.1 204 No Content\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\n\r\n"),
        sized("HTTP/1.1 205 Reset Content", ""),
    ]
}

#[tokio::test]
async fn replies_to_notifications_and_responses_produce_no_output() {
    for message in [notification("notifications/roots/list_changed", "{}"), response("5", r#"{"roots":[]}"#)] {
        let (mut server, mut client) = dialogue().await;
        for receipt in receipts() {
            println!("{}", String::from_utf8_lossy(&receipt));
            client.send(&message).await;
            server.post().await.raw(receipt).await;
            client.expect_nothing(&mut server).await;
        }
        client.finish(&mut server).await;
    }
}

#[tokio::test]
async fn any_reply_to_the_initialized_notification_completes_the_handshake() {
    for receipt in receipts() {
        println!("{}", String::from_utf8_lossy(&receipt));
        let (mut server, mut client) = dialogue().await;
        client.initialize().await;
        client.expect(server.initialize(None, VERSION).await).await;
        client.send(INITIALIZED).await;
        client.send(call("1")).await;
        let initialized = server.post().await;
        assert_eq!(initialized.text(), INITIALIZED);
        initialized.raw(receipt).await;
        let call = server.post().await;
        client.expect(call.answer("{}").await).await;
        client.finish(&mut server).await;
    }
}

#[tokio::test]
async fn notifications_in_the_reply_to_a_notification_are_forwarded() {
    let news = notification("notifications/message", "{}");
    let (mut server, mut client) = dialogue().await;
    for (content_type, body) in [
        ("application/json", news.clone()),
        ("application/json", format!("[{news}]")),
        ("text/event-stream", format!(": hello\n\ndata: {news}\n\n")),
        ("", format!("\u{feff}event: message\r\ndata: {news}\r\n\r\n")),
    ] {
        for status in [200, 202] {
            client.send(notification("notifications/progress", "{}")).await;
            server.post().await.respond_as(status, content_type, &body).await;
            client.expect(&news).await;
            client.expect_nothing(&mut server).await;
        }
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn a_server_without_a_push_stream_is_not_asked_again() {
    for reply in [
        sized("HTTP/1.1 405 Method Not Allowed\r\nAllow: POST, DELETE", ""),
        sized("HTTP/1.1 405 Method Not Allowed\r\nContent-Type: application/json", refusal("null", -32_000)),
        plain(format!("HTTP/1.1 405 \r\n{NO_CHUNKS}")),
        sized("HTTP/1.1 404 Not Found\r\nContent-Type: text/html", "<html>"),
        sized("HTTP/1.1 400 Bad Request", ""),
        sized("HTTP/1.1 406 Not Acceptable", "SSE is not supported"),
        sized("HTTP/1.1 415 Unsupported Media Type", ""),
        sized("HTTP/1.1 501 Not Implemented", ""),
        plain("HTTP/1.1 204 No Content\r\n\r\n"),
        sized(OK, ""),
        sized(JSON, r#"{"status":"ok"}"#),
        plain(format!("{OK}\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n<html>\r\n0\r\n\r\n")),
    ] {
        println!("{}", String::from_utf8_lossy(&reply));
        let (mut server, mut client) = push::listening(Some("s")).await;
        server.get().await.raw(reply).await;
        for _ in 0..2 {
            client.expect_nothing(&mut server).await;
        }
        client.finish(&mut server).await;
    }
}

#[tokio::test]
async fn a_push_stream_that_ends_without_a_message_is_reopened() {
    let news = notification("notifications/message", "{}");
    for reply in [
        sized(EVENTS, ""),
        sized(EVENTS, ": hello\n\n"),
        sized(EVENTS, "\u{feff}retry: 1\r\rdata:\r\r"),
        plain(format!("{EVENTS}\r\n{NO_CHUNKS}")),
    ] {
        println!("{}", String::from_utf8_lossy(&reply));
        let (mut server, mut client) = push::listening(Some("s")).await;
        server.get().await.raw(reply).await;
        let mut again = server.get().await;
        again.sse().await;
        again.event(&news).await;
        client.expect(&news).await;
        client.expect_nothing(&mut server).await;
        client.finish(&mut server).await;
    }
}

#[tokio::test]
async fn any_reply_to_the_session_delete_ends_the_bridge_cleanly() {
    for reply in [
        sized(OK, ""),
        sized(JSON, r#"{"status":"ok"}"#),
        plain(format!("{ACCEPTED}\r\n{NO_CHUNKS}")),
        plain("HTTP/1.1 204 No Content\r\nMcp-Session-Id: s\r\n\r\n"),
        sized("HTTP/1.1 404 Not Found\r\nContent-Type: application/json", refusal("null", -32_001)),
        sized("HTTP/1.1 405 Method Not Allowed\r\nAllow: GET, POST", ""),
        sized("HTTP/1.1 501 Not Implemented\r\nConnection: close", "no"),
    ] {
        println!("{}", String::from_utf8_lossy(&reply));
        let (mut server, mut client) = dialogue().await;
        client.handshake(&mut server, Some("s")).await;
        client.close_stdin();
        let delete = server.next("the DELETE").await;
        assert_eq!((delete.verb.as_str(), delete.header("mcp-session-id")), ("DELETE", Some("s")));
        delete.raw(reply).await;
        assert!(matches!(client.end().await, End::InputClosed));
        client.expect_end_of_output().await;
        server.expect_no_more();
    }
}
