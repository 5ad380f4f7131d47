//! JSON (RFC 8259) and JSON-RPC 2.0: the client receives it unchanged, except for line breaks between tokens.

use super::FOREIGN;
use crate::support::{call, dialogue, framed, notification, request, response};

const JSON: &str = "application/json";
const SSE: &str = "text/event-stream";

/// Expects that a call with this response body yields this line, and runs once.
async fn becomes(status: u16, content_type: &str, body: &str, line: &str) {
    println!("{status} {content_type}: {body}");
    let (mut server, mut client) = dialogue().await;
    client.send(call("1")).await;
    server.post().await.respond_as(status, content_type, framed(content_type, body)).await;
    client.expect(line).await;
    client.expect_nothing(&mut server).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn valid_responses_pass_byte_for_byte() {
    let deep = |open: &str, close: &str, levels| response("1", &(open.repeat(levels) + &close.repeat(levels)));
    for text in [
        // White space and order.
        "{ \"id\" : 1 ,\t\"result\" :{ } , \"jsonrpc\"\t:\"2.0\" }",
        r#"{"result":{"id":9,"jsonrpc":"1.0","method":"x","error":{"code":1,"message":"m"}},"id":1,"jsonrpc":"2.0"}"#,
        // Results of any type.
        &response("1", "null"),
        &response("1", "false"),
        &response("1", "0"),
        &response("1", r#""""#),
        &response("1", "[]"),
        &response("1", r#"[{"jsonrpc":"2.0","id":1,"result":{}}]"#),
        // Unknown members.
        r#"{"jsonrpc":"2.0","":0,"id":1,"result":{},"x":{"id":2},"params":{"id":3},"_meta":null,"Error":1}"#,
        // Duplicate names: the last one counts.
        r#"{"jsonrpc":"2.0","id":7,"result":1,"result":{"a":1,"a":2},"id":1}"#,
        r#"{"jsonrpc":"1.0","jsonrpc":"2.0","id":1,"result":{}}"#,
        // Names and values with escapes.
        r#"{"\u006Asonrpc":"2.0","\u0069\u0064":1,"r\u0065sult":{"\u0069d":"\/\b\f\n\r\t\"\\\u0000"}}"#,
        r#"{"jsonrpc":"2\u002e0","id":1,"result":{}}"#,
        r#"{"jsonrpc":"\u0032.0","id":1,"\u0065rror":{"c\u006fde":1,"mess\u0061ge":"m"}}"#,
        // Characters.
        &response("1", &format!(r#""{FOREIGN} {} \ud83e\udd80""#, '\u{7f}')),
        &response("1", "{\"\u{ffff}\u{10ffff}\u{202e}\u{0301}\":\"\u{fffd}\"}"),
        &response("1", r#"["\ud800","\udfff\ud800",{"\udead":1}]"#),
        // Numbers.
        &response(
            "1",
            "[-0,0.0,1E400,-1e-400,1e+2,0.1E-10,12345678901234567890123,1.0000000000000000000001,9007199254740993]",
        ),
        // Depth.
        &deep("[", "]", 100),
        &deep(r#"{"a":["#, "]}", 5000),
        // Errors.
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":0,"message":""}}"#,
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":-2147483648,"message":"x","data":null}}"#,
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":9007199254740991,"message":"x","data":[1e400,"\ud800"]}}"#,
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32603.0,"message":"x","data":"text"}}"#,
        r#"{"error":{"data":{"code":"E"},"x":{"code":null},"message":"x","code":-3.2602e4},"y":[],"id":1,"jsonrpc":"2.0"}"#,
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"code":2,"message":"a","message":"b"}}"#,
        // Tools that failed.
        &response("1", r#"{"content":[{"type":"text","text":"error: no"}],"isError":true}"#),
        &response(
            "1",
            r#"{"content":[],"isError":false,"structuredContent":{"error":{"code":-32001,"message":"no"}}}"#,
        ),
    ] {
        for content_type in [JSON, SSE] {
            becomes(200, content_type, text, text).await;
        }
    }
}

#[tokio::test]
async fn white_space_is_trimmed_and_line_breaks_become_spaces() {
    let answer = response("1", r#"{"text":"\r\n"}"#);
    let pretty = "{\n  \"jsonrpc\": \"2.0\",\n\t\"id\": 1,\n  \"result\": [\n    1,\n    {}\n  ]\n}";
    // Each line break becomes a space.
    let blank = |text: &str| text.replace(['\r', '\n'], " ");
    for (body, line) in [
        (format!("\u{feff}{answer}"), answer.clone()),
        (format!("\u{feff} \r\n{answer}"), answer.clone()),
        (format!(" \t\r\n\n{answer}\r\n\r\n \t\n"), answer.clone()),
        (format!("{}{answer}{}", "\n".repeat(5000), " ".repeat(5000)), answer.clone()),
        (pretty.to_owned(), blank(pretty)),
        (format!("{pretty}\n"), blank(pretty)),
        (pretty.replace('\n', "\r"), blank(pretty)),
        (pretty.replace('\n', "\r\n"), blank(&pretty.replace('\n', "\r\n"))),
    ] {
        for content_type in [JSON, "text/plain", ""] {
            becomes(200, content_type, &body, &line).await;
        }
    }
}

#[tokio::test]
async fn batches_and_concatenated_messages_are_split() {
    let (answer, news) = (response("1", r#"{"a":[1]}"#), notification("notifications/message", "{}"));
    let (question, other) = (request("1", "ping", "{}"), response("99", "{}"));
    for (body, lines) in [
        (format!("[{answer}]"), &[&answer][..]),
        (format!("\u{feff}\n[ {answer}\n,\n{news} ]\n"), &[&answer, &news]),
        (format!("[{news},{answer}]"), &[&news, &answer]),
        (format!("[{question},{answer}]"), &[&question, &answer]),
        (format!("[{news},{answer},{answer},{other}]"), &[&news, &answer]),
        (format!("[{other},{news},1,{{}},{answer}]"), &[&news, &answer]),
        (format!("{news}\n{answer}\n"), &[&news, &answer]),
        (format!("{answer}{news}"), &[&answer, &news]),
        (format!("{news}\r\n\r\n{answer}\r\n{answer}"), &[&news, &answer]),
    ] {
        println!("{body}");
        let (mut server, mut client) = dialogue().await;
        client.send(call("1")).await;
        server.post().await.json(body).await;
        for line in lines {
            client.expect(line).await;
        }
        client.expect_nothing(&mut server).await;
        client.finish(&mut server).await;
    }
}

#[tokio::test]
async fn a_response_id_matches_in_any_spelling() {
    let long = format!("\"{}\"", "x".repeat(2000));
    let (mut server, mut client) = dialogue().await;
    for (id, theirs) in [
        ("0", "0"),
        ("0", "-0"),
        ("1", "1.0"),
        ("1", "1e0"),
        ("1", "10E-1"),
        ("1", "0.1e+1"),
        ("1.0", "1"),
        ("100", "1E2"),
        ("-7", "-7"),
        ("-7", "-7.0"),
        ("1.5", "15e-1"),
        ("9007199254740993", "9007199254740993"),
        ("9007199254740993", "9007199254740992"),
        ("9007199254740993", "9.007199254740992e15"),
        ("18446744073709551617", "18446744073709551616"),
        ("12345678901234567890123", "12345678901234567890123"),
        ("12345678901234567890123", "1.2345678901234568e22"),
        (r#""""#, r#""""#),
        (r#"" ""#, r#"" ""#),
        (r#""a""#, r#""\u0061""#),
        (r#""\u0061\/b""#, r#""a/b""#),
        (r#""a\"\\b""#, r#""a\u0022\u005Cb""#),
        (r#""é🦀""#, r#""\u00e9\uD83E\udd80""#),
        (r#""\u00e9🦀""#, r#""é🦀""#),
        (r#""1""#, r#""1""#),
        (r#""null""#, r#""null""#),
        (&long, &long),
    ] {
        for content_type in [JSON, SSE] {
            println!("{id} {theirs} {content_type}");
            client.send(call(id)).await;
            let post = server.post().await;
            assert_eq!(post.text(), call(id));
            post.respond_as(200, content_type, framed(content_type, &response(theirs, r#"{"id":"1"}"#))).await;
            client.expect(response(id, r#"{"id":"1"}"#)).await;
        }
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn responses_are_delivered_under_any_http_status() {
    let error = |code: &str, message: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":1,"error":{{"code":{code},"message":"{message}","data":[1.0]}}}}"#)
    };
    for (status, body) in [
        (200, error("-32000", "rate limit of the provider reached")),
        (200, error("-32001", "request timed out")),
        (200, error("-32603", "upstream: 401 Unauthorized")),
        (201, error("404", "no such order")),
        (400, error("1", "invalid")),
        (400, error("-32602", "Unknown tool: x")),
        (400, error("-32000", "bad amount")),
        (400, error("99999999", "")),
        (401, error("-32001", "the tool needs a login")),
        (403, error("-32603", "forbidden by policy")),
        (404, error("-32601", "Method not found")),
        (404, error("-32002", "Resource not found")),
        (405, error("-32601", "no such method")),
        (409, error("-32000", "conflict")),
        (413, error("-32600", "too large")),
        (422, error("-32602", "unprocessable")),
        (429, error("-32029", "slow down")),
        (500, error("-32603", "Internal error")),
        (501, error("-32601", "not implemented")),
        (502, error("-32000", "bad upstream")),
        (503, error("-32000", "overloaded")),
        (504, error("-32000", "too late")),
        (400, response("1", "{}")),
        (401, response("1", "null")),
        (404, response("1", r#"{"content":[],"isError":true}"#)),
        (422, response("1", "[]")),
        (500, response("1", r#"{"content":[],"isError":true}"#)),
        (503, response("1", "{}")),
    ] {
        becomes(status, JSON, &body, &body).await;
        becomes(status, JSON, &format!("[{body}]"), &body).await;
        becomes(status, "", &format!("\u{feff}\n{body}\n"), &body).await;
        becomes(status, SSE, &body, &body).await;
    }
}

#[tokio::test]
async fn requests_of_the_server_are_forwarded_in_any_form() {
    let (mut server, mut client) = dialogue().await;
    client.send(call("1")).await;
    let mut post = server.post().await;
    post.sse().await;
    for question in [
        request("1", "ping", "{}"),
        request("\"1\"", "roots/list", "[]"),
        request("1.0e0", "sampling/createMessage", r#"{"x":1e400,"\ud800":"\udfff"}"#),
        r#"{"id":0,"method":"p\u0069ng","jsonrpc":"2.0"}"#.to_owned(),
        r#"{"jsonrpc":"2.0","method":"vendor/anything","id":"","params":null,"more":1}"#.to_owned(),
        r#"{"jsonrpc":"2.0","method":""}"#.to_owned(),
    ] {
        post.event(&question).await;
        client.expect(&question).await;
    }
    post.event(&response("1", "{}")).await;
    client.expect(response("1", "{}")).await;
    post.end().await;
    client.finish(&mut server).await;
}
