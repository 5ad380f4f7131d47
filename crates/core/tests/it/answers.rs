//! Server responses (R1, R5-R7, R20-R22, R26, R34, R36, R43, R46): status codes, content types, event streams, and the
//! messages in them.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::support::{Client, Server, call, dialogue, framed, notification, progress, request, response};

const HTML: &str = "<!DOCTYPE html>\n<html><body>502 Bad Gateway</body></html>";

#[tokio::test]
async fn r20_one_post_per_message_on_kept_connections() {
    let (mut server, mut client) = dialogue().await;
    let mut last = 0;
    for id in 0..10 {
        client.send(call(&id.to_string())).await;
        let post = server.post().await;
        assert_eq!(post.target, "/mcp");
        assert_eq!(post.text(), call(&id.to_string()));
        assert_eq!(post.header("content-length"), Some(post.body.len().to_string().as_str()));
        last = post.connection;
        let answer = post.answer("{}").await;
        client.expect(answer).await;
        client.send(notification("x", "{}")).await;
        server.post().await.accepted().await;
    }
    // A notification and the next call may overlap, so two connections must be enough.
    assert!(last <= 2, "20 messages took {} connections", last + 1);
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r20_a_connection_that_the_server_closes_is_not_used_again() {
    let (mut server, mut client) = dialogue().await;
    let mut connections = Vec::new();
    for id in ["1", "2", "3"] {
        client.send(call(id)).await;
        let mut post = server.post().await;
        connections.push(post.connection);
        let answer = response(id, "{}");
        post.head_until_close(200, &[("Content-Type", "application/json")]).await;
        post.write(answer.as_bytes()).await;
        post.fin().await;
        client.expect(answer).await;
    }
    assert_eq!(connections, [0, 1, 2]);
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r20_a_connection_that_closes_while_idle_is_not_used_again() {
    let (mut server, mut client) = dialogue().await;
    for id in ["1", "2", "3"] {
        client.send(call(id)).await;
        let mut post = server.post().await;
        let answer = response(id, "{}");
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", answer.len());
        post.write((head + &answer).as_bytes()).await;
        client.expect(answer).await;
        post.shut_down().await;
        post.closed_by_peer("the bridge to see that the idle connection ended").await;
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r21_messages_are_read_from_each_supported_content_type() {
    let (mut server, mut client) = dialogue().await;
    let messages = [progress("1", 1), notification("x", "[]"), response("1", r#"{"n":1e400}"#)];
    let json = messages[2].clone();
    let lines = messages.join("\n");
    let events = messages.each_ref().map(|message| framed("text/event-stream", message)).concat();
    for (content_type, body, count) in [
        ("application/json", &json, 1),
        ("application/json; charset=utf-8", &json, 1),
        ("Application/JSON ;charset=\"UTF-8\"", &json, 1),
        ("text/event-stream", &events, 3),
        ("text/event-stream;charset=UTF-8", &events, 3),
        ("Text/Event-Stream; x=y", &events, 3),
        ("application/x-ndjson", &lines, 3),
        ("application/x-ndjson; charset=utf-8", &lines, 3),
        ("application/ndjson", &lines, 3),
        ("application/ndjson", &format!("{lines}\n"), 3),
        ("application/x-ndjson", &format!("\r\n{}\r\n\n", lines.replace('\n', "\r\n")), 3),
        ("text/plain", &json, 1),
        ("text/plain", &lines, 3),
        ("text/plain; charset=utf-8", &format!("{lines}\n"), 3),
        ("application/octet-stream", &json, 1),
        ("", &json, 1),
        ("", &lines, 3),
    ] {
        client.send(call("1")).await;
        server.post().await.respond_as(200, content_type, body).await;
        for message in &messages[3 - count..] {
            client.expect(message).await;
        }
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r1_a_body_that_is_not_json_rpc_never_reaches_stdout() {
    let (mut server, mut client) = dialogue().await;
    for (content_type, body) in [
        ("text/html", HTML),
        ("application/json", HTML),
        ("text/plain", HTML),
        ("", HTML),
        ("text/plain", "Accepted"),
        ("", "OK"),
        ("application/json", "Accepted"),
        ("application/json", r#"{"jsonrpc":"2.0","id":1,"result":{"#),
        ("application/json", r#"{"jsonrpc":"2.0","id":1,"result":{}}}"#),
        ("application/json", r#"{"jsonrpc":"2.0","id":1,"result":{}} trailing"#),
        ("application/json", r#"{"status":"ok"}"#),
        ("application/json", "{}"),
        ("application/json", "42"),
        ("application/json", "\"text\""),
        ("text/plain", "null"),
        ("application/x-ndjson", HTML),
        ("text/event-stream", HTML),
        ("text/event-stream", "data: Accepted\n\n"),
        ("text/event-stream", "data: {\"jsonrpc\":\"2.0\",\"id\":1,\n\n"),
        ("text/event-stream", "data: {\"status\":\"ok\"}\n\n"),
    ] {
        client.send(call("1")).await;
        server.post().await.respond_as(200, content_type, body).await;
        let failure = client.expect_error("1").await;
        assert!(matches!(failure.kind(), "invalid_answer" | "no_answer"), "{content_type}: {body}: {failure:?}");
        client.expect_nothing(&mut server).await;
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r5_garbage_within_a_stream_is_left_out() {
    let (mut server, mut client) = dialogue().await;
    client.send(call("1")).await;
    let mut stream = server.post().await;
    stream.sse().await;
    stream.event(&progress("1", 1)).await;
    client.expect(progress("1", 1)).await;
    stream.event("Accepted").await;
    stream.event("[DONE]").await;
    stream.event(&response("1", "{}")).await;
    client.expect(response("1", "{}")).await;
    stream.end().await;

    client.send(call("2")).await;
    let body = format!("{}\ngarbage\n{}\n", progress("2", 1), response("2", "{}"));
    server.post().await.respond_as(200, "application/x-ndjson", body).await;
    client.expect(progress("2", 1)).await;
    client.expect(response("2", "{}")).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r5_each_http_failure_becomes_one_error() {
    let (mut server, mut client) = dialogue().await;
    // The bridge retries after 429 and 503: see `faults`.
    let statuses = [400, 401, 402, 403, 404, 405, 406, 408, 409, 410, 411, 413, 414, 415, 422, 426, 431];
    for status in statuses.into_iter().chain([500, 501, 502, 504, 505, 511, 599]) {
        for (content_type, body) in [
            ("text/html", HTML),
            ("text/plain", ""),
            ("application/json", r#"{"detail":"Not for you"}"#),
            ("application/json", ""),
            ("application/json", "["),
        ] {
            client.send(call("7")).await;
            server.post().await.respond_as(status, content_type, body).await;
            let failure = client.expect_error("7").await;
            assert_eq!(failure.kind(), "http_status", "{status} {body}");
            assert_eq!(failure.status(), Some(u64::from(status)));
            if body.contains("Not for you") {
                assert!(failure.data["detail"].as_str().unwrap_or_default().contains("Not for you"), "{failure:?}");
            }
        }
    }
    client.expect_nothing(&mut server).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r7_the_servers_own_error_passes_under_any_status() {
    let (mut server, mut client) = dialogue().await;
    let error = r#"{"code":-32001 ,"message":"no \ud800","data":{"b":1e400,"a":12345678901234567890}}"#;
    for status in [200, 400, 401, 403, 404, 405, 409, 422, 429, 500, 502, 503, 504] {
        for (id, sent) in [("7", "7"), ("7", "null"), ("\"7\"", "null")] {
            client.send(call(id)).await;
            let body = |id| format!(r#"{{"error":{error}, "id" : {id} ,"x":[],"jsonrpc":"2.0"}}"#);
            server.post().await.respond_as(status, "application/json", body(sent)).await;
            client.expect(body(id)).await;
        }
    }
    // A foreign id, for example from a proxy with a fixed error body. With a failure status it can only mean this
    // request.
    for (id, sent) in [("7", "\"server-error\""), ("7", "0"), ("7", "\"7\""), ("\"7\"", "7")] {
        client.send(call(id)).await;
        let body = |id| format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#);
        server.post().await.respond_as(404, "application/json", body(sent)).await;
        client.expect(body(id)).await;
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r7_an_error_without_an_id_gets_the_id_of_the_request() {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Line<'a> {
        jsonrpc: &'a str,
        #[serde(borrow)]
        id: &'a RawValue,
        #[serde(borrow)]
        error: &'a RawValue,
    }
    let (mut server, mut client) = dialogue().await;
    let error = r#"{"code":-32600, "message":"Bad Request: \"id\"", "data":{"id":1e400}}"#;
    for status in [200, 400, 403, 404, 500] {
        for id in ["7", "\"\"", "0"] {
            for body in [
                format!(r#"{{"jsonrpc":"2.0","error":{error}}}"#),
                format!(r#"{{ "error" : {error} , "jsonrpc" : "2.0" }}"#),
                format!("{{\n  \"jsonrpc\": \"2.0\",\n  \"error\": {error}\n}}\n"),
            ] {
                client.send(call(id)).await;
                server.post().await.respond_as(status, "application/json", body).await;
                let line = client.line("the error").await;
                let line: Line = serde_json::from_slice(&line).unwrap();
                assert_eq!((line.jsonrpc, line.id.get(), line.error.get()), ("2.0", id, error), "{status}");
            }
        }
    }

    // The same on a stream, which also answers this request.
    client.send(call("7")).await;
    let mut stream = server.post().await;
    stream.sse().await;
    stream.event(&format!(r#"{{"jsonrpc":"2.0","id":null,"error":{error}}}"#)).await;
    client.expect(format!(r#"{{"jsonrpc":"2.0","id":7,"error":{error}}}"#)).await;
    stream.end().await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r5_retry_after_reaches_the_client() {
    let (mut server, mut client) = dialogue().await;
    for status in [429, 503] {
        client.send(call("1")).await;
        server.post().await.respond(status, &[("Retry-After", "3600"), ("Content-Type", "text/html")], HTML).await;
        let failure = client.expect_error("1").await;
        assert_eq!(failure.data["retryAfter"].as_f64(), Some(3600.0), "{failure:?}");
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r5_a_success_status_without_a_response_fails_the_request() {
    let (mut server, mut client) = dialogue().await;
    for (status, content_type, body) in [
        (202, "", ""),
        (204, "", ""),
        (200, "", ""),
        (200, "application/json", ""),
        (200, "application/json", " \n"),
        (200, "application/x-ndjson", ""),
        (200, "application/x-ndjson", "\n\n"),
        (200, "text/event-stream", ""),
        (200, "text/event-stream", ": nothing\n\n"),
        (200, "text/event-stream", "id: 1\ndata: \n\n"),
        (200, "text/plain", ""),
    ] {
        client.send(call("1")).await;
        server.post().await.respond_as(status, content_type, body).await;
        let failure = client.expect_error("1").await;
        assert_eq!(failure.kind(), "no_answer", "{status} {content_type} {body:?}");
    }
    client.send(call("1")).await;
    server.post().await.respond_as(202, "text/plain", "Accepted").await;
    let failure = client.expect_error("1").await;
    assert!(matches!(failure.kind(), "no_answer" | "invalid_answer"), "{failure:?}");
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r5_a_stream_that_ends_without_the_answer() {
    let (mut server, mut client) = dialogue().await;
    client.send(call("1")).await;
    let mut stream = server.post().await;
    stream.sse().await;
    stream.event(&progress("1", 1)).await;
    client.expect(progress("1", 1)).await;
    stream.end().await;
    let failure = client.expect_error("1").await;
    assert_eq!(failure.kind(), "no_answer");
    assert!(failure.may_have_run(), "{failure:?}");

    // A body that ends with the connection is equally regular.
    client.send(call("2")).await;
    let mut stream = server.post().await;
    stream.head_until_close(200, &[("Content-Type", "text/event-stream")]).await;
    stream.write(format!("data: {}\n\n", progress("2", 1)).as_bytes()).await;
    client.expect(progress("2", 1)).await;
    stream.fin().await;
    assert_eq!(client.expect_error("2").await.kind(), "no_answer");

    client.send(call("3")).await;
    server.post().await.json(notification("x", "{}")).await;
    client.expect(notification("x", "{}")).await;
    assert_eq!(client.expect_error("3").await.kind(), "no_answer");
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r5_a_response_with_a_foreign_id_does_not_answer_the_request() {
    let (mut server, mut client) = dialogue().await;
    client.send(call("1")).await;
    let mut stream = server.post().await;
    stream.sse().await;
    stream.event(&response("2", "{}")).await;
    stream.event(&response("\"1\"", "{}")).await;
    stream.event(&response("1", "{}")).await;
    client.expect(response("1", "{}")).await;
    stream.end().await;

    client.send(call("1")).await;
    server.post().await.json(response("2", "{}")).await;
    client.expect_error("1").await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r6_r26_a_notification_or_response_gets_no_answer_and_no_error() {
    let (mut server, mut client) = dialogue().await;
    let reply = response("5", r#"{"roots":[]}"#);
    for message in [notification("notifications/roots/list_changed", "{}"), reply] {
        for (status, content_type, body) in [
            (202, "", ""),
            (202, "text/plain", "Accepted"),
            (200, "", ""),
            (200, "application/json", ""),
            (200, "application/json", "null"),
            (200, "application/json", r#"{"status":"ok"}"#),
            (200, "application/json", r#"{"jsonrpc":"2.0","id":null,"result":{}}"#),
            (200, "text/html", HTML),
            (200, "text/event-stream", ""),
            (204, "", ""),
            (400, "application/json", r#"{"jsonrpc":"2.0","error":{"code":-32600,"message":"no"}}"#),
            (400, "application/json", r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"no"}}"#),
            (404, "text/html", HTML),
            (405, "", ""),
            (422, "", ""),
            (500, "text/html", HTML),
            (502, "", ""),
        ] {
            client.send(&message).await;
            let post = server.post().await;
            assert_eq!(post.text(), message);
            post.respond_as(status, content_type, body).await;
            client.expect_nothing(&mut server).await;
        }
        client.send(&message).await;
        server.post().await.reset();
        client.expect_nothing(&mut server).await;
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r22_progress_leaves_before_the_result() {
    let (mut server, mut client) = dialogue().await;
    for content_type in ["text/event-stream", "application/x-ndjson"] {
        client.send(call("1")).await;
        let mut stream = server.post().await;
        stream.head(200, &[("Content-Type", content_type)]).await;
        for step in 0..3 {
            stream.chunk(framed(content_type, &progress("1", step))).await;
            client.expect(progress("1", step)).await;
        }
        stream.chunk(framed(content_type, &response("1", "{}"))).await;
        client.expect(response("1", "{}")).await;
        stream.end().await;
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r22_an_event_is_forwarded_as_soon_as_its_last_byte_arrives() {
    let (mut server, mut client) = dialogue().await;
    client.send(call("1")).await;
    let mut stream = server.post().await;
    stream.sse().await;
    for (step, end) in ["\n\n", "\r\r", "\n\r", "\r\n\r", "\r\n\n"].into_iter().enumerate() {
        stream.chunk(format!("data: {}", progress("1", step))).await;
        stream.chunk(end).await;
        client.expect(progress("1", step)).await;
        if end.ends_with('\r') {
            // This LF completes the CRLF of the chunk before; it is not a line of its own.
            stream.chunk("\n").await;
        }
    }
    stream.event(&response("1", "{}")).await;
    client.expect(response("1", "{}")).await;
    stream.end().await;
    client.finish(&mut server).await;
}

/// Event streams, and the expected messages (`A` and `B`), in order.
const STREAMS: &[(&str, &[&str])] = &[
    ("data: A\n\ndata: B\n\n", &["A", "B"]),
    ("data:A\r\rdata:B\r\r", &["A", "B"]),
    ("data: A\r\n\r\ndata: B\r\n\r\n", &["A", "B"]),
    ("\u{feff}data: A\n\n", &["A"]),
    ("\u{feff}data: A\n\n\u{feff}data: B\n\n", &["A"]),
    ("\n\n\r\n\r\rdata: A\n\n", &["A"]),
    (": comment\n\n:\n\n:data: B\n\ndata: A\n: comment\n\n", &["A"]),
    ("event: message\ndata: A\n\n", &["A"]),
    ("event: ping\ndata: B\n\ndata: A\n\n", &["A"]),
    ("data: B\nevent: endpoint\n\ndata: A\n\n", &["A"]),
    ("event: error\n\ndata: A\n\n", &["A"]),
    ("event: ping\nevent:\ndata: A\n\n", &["A"]),
    ("event\ndata: A\n\n", &["A"]),
    ("Event: ping\nDATA: B\ndata: A\n\n", &["A"]),
    ("id: 1\ndata: \n\ndata: A\n\n", &["A"]),
    ("id: 1\ndata:\n\ndata\n\nid\n\nretry: 10\n\n", &[]),
    ("id: 1\ndata: A\n\nid: 1\ndata: B\n\n", &["A", "B"]),
    ("id: a\u{0}b\ndata: A\n\n", &["A"]),
    ("retry: soon\nretry: 99999999999999999999\ndata: A\n\n", &["A"]),
    ("unknown: x\nno colon\n\u{e9}: x\ndata: A\n\n", &["A"]),
    (" data: B\ndata : B\ndata: A\n\n", &["A"]),
    ("data: A\nid: 1\nevent: message\nretry: 10\n\n", &["A"]),
];

#[tokio::test]
async fn r34_r46_sse_events_are_parsed_when_sent_byte_by_byte() {
    let (mut server, mut client) = dialogue().await;
    let message = |name: &str| notification(name, "\"é日本🦀\u{2028}\u{85}\"");
    for (stream, names) in STREAMS {
        let text = stream.replace(" A", &format!(" {}", message("a"))).replace(":A", &format!(":{}", message("a")));
        let text = text.replace(" B", &format!(" {}", message("b"))).replace(":B", &format!(":{}", message("b")));
        client.send(call("1")).await;
        let mut post = server.post().await;
        post.sse().await;
        for byte in format!("{text}data: {}\n\n", response("1", "{}")).bytes() {
            post.chunk([byte]).await;
            tokio::task::yield_now().await;
        }
        for name in *names {
            client.expect(message(&name.to_lowercase())).await;
        }
        client.expect(response("1", "{}")).await;
        post.end().await;
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r46_an_event_with_several_data_lines_is_joined() {
    let (mut server, mut client) = dialogue().await;
    client.send(call("1")).await;
    let events =
        "data: {\"jsonrpc\":\"2.0\",\r\ndata:\"id\":1,\r\n: comment\r\ndata\r\ndata:  \"result\":\r\ndata: {}}\r\n\r\n";
    server.post().await.respond_as(200, "text/event-stream", events).await;
    client.expect(r#"{"jsonrpc":"2.0", "id":1,   "result": {}}"#).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r46_an_unterminated_last_event_is_delivered_if_its_message_is_complete() {
    let (mut server, mut client) = dialogue().await;
    // At the clean end of a body, a whole message counts. Otherwise the request would lose its answer.
    for end in ["", "\n", "\r\n", "\r", "\nid: 1\n"] {
        client.send(call("1")).await;
        let mut stream = server.post().await;
        stream.sse().await;
        stream.chunk(format!("data: {}{end}", response("1", "{}"))).await;
        stream.end().await;
        client.expect(response("1", "{}")).await;
    }
    // A partial message does not.
    client.send(call("1")).await;
    let mut stream = server.post().await;
    stream.sse().await;
    stream.chunk(r#"data: {"jsonrpc":"2.0","id":1,"#).await;
    stream.end().await;
    assert!(matches!(client.expect_error("1").await.kind(), "no_answer" | "invalid_answer"));
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r36_a_second_answer_is_dropped() {
    let (mut server, mut client) = dialogue().await;
    client.send(call("1")).await;
    let mut stream = server.post().await;
    stream.sse().await;
    stream.event(&response("1", "1")).await;
    client.expect(response("1", "1")).await;
    stream.event(&response("1", "2")).await;
    stream.event(r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"late"}}"#).await;
    stream.event(r#"{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":"late"}}"#).await;
    // Drops progress for finished requests, which confuses clients. Forwards all other notifications.
    stream.event(&progress("1", 9)).await;
    stream.event(&notification("notifications/tools/list_changed", "{}")).await;
    client.expect(notification("notifications/tools/list_changed", "{}")).await;
    stream.end().await;
    client.expect_nothing(&mut server).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r5_a_connection_lost_after_the_response_causes_no_error() {
    let (mut server, mut client) = dialogue().await;
    for id in ["1", "2"] {
        client.send(call(id)).await;
        let mut stream = server.post().await;
        stream.sse().await;
        stream.event(&response(id, "{}")).await;
        client.expect(response(id, "{}")).await;
        if id == "1" {
            stream.reset();
        } else {
            stream.fin().await;
        }
        client.expect_nothing(&mut server).await;
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r43_unknown_methods_are_forwarded_unchanged() {
    let (mut server, mut client) = dialogue().await;
    let asked = request("1", "foo/bar", r#"{"experimental":[{"x":1e400}]}"#);
    client.send(&asked).await;
    let mut stream = server.post().await;
    assert_eq!(stream.text(), asked);
    stream.sse().await;
    for message in [notification("foo/told", "[1]"), request("\"s\"", "foo/ask", "{}")] {
        stream.event(&message).await;
        client.expect(&message).await;
    }
    let told = notification("foo/heard", "null");
    client.send(&told).await;
    let post = server.post().await;
    assert_eq!(post.text(), told);
    post.accepted().await;
    let answer = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"Method not found: foo/bar"}}"#;
    stream.event(answer).await;
    client.expect(answer).await;
    stream.end().await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r15_a_response_over_the_limit_becomes_a_too_large_error() {
    let mut server = Server::start().await;
    let mut config = server.config();
    config.limits.incoming = 10_000;
    let mut client = Client::start(config);
    let (fits, large) = ("x".repeat(9_000), "x".repeat(11_000));
    for content_type in ["application/json", "text/event-stream", "application/x-ndjson"] {
        for (text, passes) in [(&fits, true), (&large, false), (&fits, true)] {
            client.send(call("1")).await;
            let answer = response("1", &format!("\"{text}\""));
            let body = framed(content_type, &answer);
            server.post().await.respond_as(200, content_type, body).await;
            if passes {
                client.expect(answer).await;
            } else {
                let failure = client.expect_error("1").await;
                assert_eq!(failure.kind(), "too_large", "{content_type}");
            }
        }
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r15_a_request_over_the_limit_gets_a_too_large_error() {
    let mut server = Server::start().await;
    let mut config = server.config();
    config.limits.outgoing = 10_000;
    let mut client = Client::start(config);
    client.send(request("7", "tools/call", &format!("\"{}\"", "x".repeat(100_000)))).await;
    assert_eq!(client.expect_error("7").await.kind(), "too_large");
    client.send(request("8", "tools/call", &format!("\"{}\"", "x".repeat(9_000)))).await;
    let answer = server.post().await.answer("{}").await;
    client.expect(answer).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn the_pages_of_a_list_are_merged_on_request() {
    let mut server = Server::start().await;
    let mut config = server.config();
    config.merge_pages = true;
    let mut client = Client::start(config);
    let list = |id: &str, cursor: &str| request(id, "tools/list", &format!(r#"{{"x":1e400{cursor}}}"#));
    client.send(list("1", "")).await;
    server.post().await.answer(r#"{"tools":[{"a":1.0}],"y":1e400,"nextCursor":"2"}"#).await;
    for (cursor, page) in
        [("\"2\"", r#"{"tools":[{"b":2},{"c":3}],"nextCursor":3}"#), ("3", r#"{"tools":[],"nextCursor":null}"#)]
    {
        let post = server.post().await;
        assert!(post.text().contains(&format!(r#""params":{{"cursor":{cursor},"x":1e400}}"#)), "{}", post.text());
        post.answer(page).await;
    }
    client.expect(response("1", r#"{"tools":[{"a":1.0},{"b":2},{"c":3}],"y":1e400}"#)).await;
    // A page that is refused is left out, and the client can ask for it.
    client.send(list("2", "")).await;
    server.post().await.answer(r#"{"tools":[1],"nextCursor":"2"}"#).await;
    server.post().await.refuse(200, -32_602).await;
    client.expect(response("2", r#"{"tools":[1],"nextCursor":"2"}"#)).await;
    // A client that pages itself gets what it asks for.
    client.send(list("3", r#","cursor":"2""#)).await;
    let answer = server.post().await.answer(r#"{"tools":[2],"nextCursor":"3"}"#).await;
    client.expect(answer).await;
    // The end of stdin answers a list whose pages do not come.
    client.send(list("4", "")).await;
    server.post().await.answer(r#"{"tools":[1],"nextCursor":"2"}"#).await;
    let held = server.post().await;
    client.stop();
    assert_eq!(client.expect_error("4").await.kind(), "shutdown");
    client.end().await;
    drop(held);
}
