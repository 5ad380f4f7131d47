//! Lines in and lines out (R1-R4, R14-R17): valid lines, unchanged bytes, and the ownership of ids.

use serde_json::Value;

use crate::support::{call, dialogue, framed, notification, progress, request, response};

/// JSON values that a parser could change.
const DELICATE: &[&str] = &[
    "12345678901234567890",
    "9007199254740993",
    "-0",
    "1.0",
    "1e400",
    "1E+2",
    "0.1000000000000000055511151231257827",
    r#"{"a":1,"a":2}"#,
    r#"{"z":1,"a":{"y":2,"b":3}}"#,
    r#"{"_meta":{"x.y/z":null},"unknown":[[],{}]}"#,
    r#""\ud800""#,
    r#""\udc00 \ud83d x""#,
    r#""\u2028\/\u00e9\u0000\b""#,
    "\"\u{2028}\u{2029}\u{85}\u{7f}\"",
    "\"é日本🦀\u{feff}\"",
    "[ 1 ,\t2 ]",
    r#"{ "":"" , "jsonrpc" : "1.0", "id":[7], "method":null }"#,
];

/// Returns 100,000 nested arrays.
fn deep() -> String {
    const DEPTH: usize = 100_000;
    "[".repeat(DEPTH) + &"]".repeat(DEPTH)
}

#[tokio::test]
async fn r3_a_request_reaches_the_server_unchanged() {
    let (mut server, mut client) = dialogue().await;
    for (id, value) in DELICATE.iter().enumerate() {
        let line = request(&id.to_string(), "tools/call", value);
        client.send(&line).await;
        let post = server.post().await;
        assert_eq!(post.text(), line);
        let response = post.answer("{}").await;
        client.expect(response).await;
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r3_a_response_reaches_the_client_unchanged() {
    let (mut server, mut client) = dialogue().await;
    for value in DELICATE {
        let answer = response("1", value);
        for content_type in ["application/json", "text/event-stream", "application/x-ndjson"] {
            client.send(call("1")).await;
            let body = framed(content_type, &answer);
            server.post().await.respond_as(200, content_type, body).await;
            client.expect(&answer).await;
        }
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r3_the_members_of_a_message_keep_their_order_and_spaces() {
    let (mut server, mut client) = dialogue().await;
    let line = "  {\t\"params\" : { } , \"x\":1,\"method\" :\"a/b\", \"id\" : 1 , \"jsonrpc\":\"2.0\"}";
    let answer = r#"{ "result" : { "id" : 2 } , "extra": null, "id" : 1 , "jsonrpc" : "2.0" }"#;
    client.send(line).await;
    let post = server.post().await;
    assert_eq!(post.text().trim(), line.trim());
    post.json(answer).await;
    client.expect(answer).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r2_a_pretty_printed_answer_becomes_one_line() {
    let (mut server, mut client) = dialogue().await;
    for end in ["\n", "\r\n", "\r"] {
        let pretty = r#"{|  "jsonrpc": "2.0",|  "id": 1,||  "result": {| "text": "a\nb\r\u000a" }|}"#.replace('|', end);
        let one_line = pretty.replace(['\r', '\n'], " ");
        client.send(call("1")).await;
        server.post().await.json(&pretty).await;
        client.expect(&one_line).await;

        // In an event, each line has its own field, and each line end becomes one LF.
        let event = format!("data: {}{end}{end}", pretty.replace(end, &format!("{end}data: ")));
        client.send(call("1")).await;
        server.post().await.respond_as(200, "text/event-stream", event).await;
        client.expect(pretty.replace(end, " ")).await;
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r2_white_space_around_a_response_makes_no_extra_line() {
    let (mut server, mut client) = dialogue().await;
    for (before, after) in [("", "\n"), ("\r\n", "\r\n\r\n"), ("  \n", "\t"), ("\u{feff}", "")] {
        client.send(call("1")).await;
        let answer = response("1", "{}");
        server.post().await.json(format!("{before}{answer}{after}")).await;
        let line = client.line("the answer").await;
        assert_eq!(String::from_utf8(line).unwrap().trim(), answer);
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r4_each_id_gets_its_own_response_with_the_same_type() {
    const IDS: &[&str] =
        &["0", r#""""#, r#""1""#, "1", "-5", "1152921504606846976", "1.5", r#""0""#, r#""\u0061""#, r#""é""#];
    let (mut server, mut client) = dialogue().await;
    for id in IDS {
        client.send(call(id)).await;
    }
    // All requests are open together, and the answers come in reverse order.
    let mut answers = Vec::new();
    for id in IDS.iter().rev() {
        let post = server.post_of(id).await;
        answers.push(post.answer(&format!("[{id}]")).await);
    }
    client.expect_all(answers).await;

    for id in IDS {
        client.send(call(id)).await;
        server.post_of(id).await.respond(500, &[], "").await;
        client.expect_error(id).await;
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r4_an_id_of_null_is_answered_with_null() {
    let (mut server, mut client) = dialogue().await;
    client.send(call("null")).await;
    server.post().await.json(response("null", "{}")).await;
    client.expect(response("null", "{}")).await;

    client.send(call("null")).await;
    server.post().await.respond(500, &[], "").await;
    client.expect_error("null").await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r4_a_respelled_response_id_is_restored_to_the_clients_spelling() {
    let (mut server, mut client) = dialogue().await;
    for (asked, answered) in [
        ("1.0", "1"),
        ("1", "1.0"),
        ("1e2", "100"),
        ("-0", "0"),
        ("9007199254740993", "9007199254740992"),
        ("12345678901234567890", "12345678901234567000"),
        ("12345678901234567890", "1.2345678901234567e19"),
    ] {
        for streamed in [false, true] {
            client.send(call(asked)).await;
            let post = server.post().await;
            let answer = format!(r#"{{"result":{{"n":1e400}}, "id" : {answered} ,"jsonrpc":"2.0"}}"#);
            if streamed {
                post.respond_as(200, "text/event-stream", format!("data: {answer}\n\n")).await;
            } else {
                post.json(answer).await;
            }
            client.expect(format!(r#"{{"result":{{"n":1e400}}, "id" : {asked} ,"jsonrpc":"2.0"}}"#)).await;
        }
    }

    // Both spellings of a string are the same id.
    client.send(call(r#""\u0061\/""#)).await;
    server.post().await.json(response(r#""a/""#, "{}")).await;
    let line: Value = serde_json::from_slice(&client.line("the answer").await).unwrap();
    assert_eq!((line["id"].as_str(), &line["result"]), (Some("a/"), &serde_json::json!({})));
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r4_a_string_response_id_matches_a_number_but_not_vice_versa() {
    let (mut server, mut client) = dialogue().await;
    // Exception: a string is accepted in the response to the request's own POST, because some servers turn every id
    // into a string, and the SDKs accept that.
    client.send(call("7")).await;
    server.post().await.json(response(r#""7""#, "{}")).await;
    client.expect(response("7", "{}")).await;
    for (asked, answered) in [("1", r#""2""#), (r#""1""#, "1"), (r#""""#, "0"), ("0", "false")] {
        client.send(call(asked)).await;
        server.post().await.json(response(answered, "{}")).await;
        let failure = client.expect_error(asked).await;
        assert!(matches!(failure.kind(), "no_answer" | "invalid_answer"), "{failure:?}");
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r14_garbage_between_two_requests_gets_a_parse_error() {
    let (mut server, mut client) = dialogue().await;
    for garbage in [
        "garbage",
        "{",
        r#"{"jsonrpc":"2.0","method":"x","id"}"#,
        r#"{"jsonrpc":"2.0","method":"x"}}"#,
        "Content-Length: 52",
        "[1,",
        "{'a':1}",
        "\0\0",
        "nul",
        "\u{1b}[2J",
    ] {
        client.send(call("1")).await;
        let first = server.post().await;
        client.send(garbage).await;
        let failure = client.expect_error("null").await;
        assert_eq!((failure.code, failure.kind()), (-32700, "parse"));
        client.send(call("2")).await;
        let second = server.post().await;
        let answers = [first.answer("1").await, second.answer("2").await];
        client.expect_all(answers).await;
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r14_json_that_is_not_a_message_gets_an_invalid_message_error() {
    let (mut server, mut client) = dialogue().await;
    for (line, id) in [
        ("42", "null"),
        (r#""text""#, "null"),
        ("null", "null"),
        ("true", "null"),
        ("{}", "null"),
        (r#"{"id":5}"#, "5"),
        (r#"{"jsonrpc":"2.0","id":""}"#, r#""""#),
        (r#"{"jsonrpc":"2.0","id":"a","method":7}"#, r#""a""#),
        (r#"{"jsonrpc":"2.0","id":0,"method":null}"#, "0"),
        (r#"{"jsonrpc":"2.0","id":[1],"method":"tools/list"}"#, "null"),
        (r#"{"jsonrpc":"2.0","id":{},"method":"tools/list"}"#, "null"),
        (r#"{"jsonrpc":"2.0","id":true,"method":"tools/list"}"#, "null"),
    ] {
        client.send(line).await;
        let failure = client.expect_error(id).await;
        assert_eq!((failure.code, failure.kind()), (-32600, "invalid_message"), "{line}");
        client.expect_nothing(&mut server).await;
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r14_invalid_utf8_from_the_client_gets_a_parse_error() {
    let (mut server, mut client) = dialogue().await;
    let cases: &[(&[u8], &str)] = &[
        (b"{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"a\",\"params\":\"\xff\"}", "3"),
        (b"{\"jsonrpc\":\"2.0\",\"params\":\"\xc3\x28\",\"method\":\"a\",\"id\":\"x\"}", "\"x\""),
        (b"{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"a\",\"params\":\"\xed\xa0\x80\"}", "0"),
        (b"\xff\xfe", "null"),
        (b"caf\xe9", "null"),
    ];
    for (line, id) in cases {
        client.send(line).await;
        let failure = client.expect_error(id).await;
        assert_eq!(failure.code, -32700);
        client.expect_nothing(&mut server).await;
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r1_invalid_utf8_from_the_server_is_replaced() {
    let (mut server, mut client) = dialogue().await;
    let sent = b"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":\"a\xffb\xe6\x97c\"}";
    let heard = response("1", "\"a\u{fffd}b\u{fffd}c\"");
    client.send(call("1")).await;
    server.post().await.json(sent).await;
    client.expect(&heard).await;

    client.send(call("1")).await;
    let mut stream = server.post().await;
    stream.sse().await;
    stream.chunk([b"data: ", sent.as_slice(), b"\n\n"].concat()).await;
    client.expect(&heard).await;
    stream.end().await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r15_a_bom_before_the_first_line_is_removed() {
    let (mut server, mut client) = dialogue().await;
    client.send(format!("\u{feff}{}", call("1"))).await;
    let post = server.post().await;
    assert_eq!(post.text(), call("1"));
    let answer = post.answer("{}").await;
    client.expect(answer).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r15_blank_lines_are_ignored() {
    let (mut server, mut client) = dialogue().await;
    client.send_bytes("\n\r\n  \n\t\r\n\n").await;
    client.expect_nothing(&mut server).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r15_lines_may_end_in_crlf() {
    let (mut server, mut client) = dialogue().await;
    client.send_bytes(format!("{}\r\n{}\r\n", call("1"), call("2"))).await;
    for id in ["1", "2"] {
        let post = server.post_of(id).await;
        assert_eq!(post.text(), call(id));
        let answer = post.answer("{}").await;
        client.expect(answer).await;
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r15_a_last_line_without_a_newline_is_sent() {
    let (mut server, mut client) = dialogue().await;
    client.send_bytes(call("1")).await;
    client.close_stdin();
    let answer = server.post().await.answer("{}").await;
    client.expect(answer).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r14_a_truncated_last_line_gets_a_parse_error() {
    let (mut server, mut client) = dialogue().await;
    client.send_bytes(r#"{"jsonrpc":"2.0","id":1,"met"#).await;
    client.close_stdin();
    assert_eq!(client.expect_error("null").await.kind(), "parse");
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r14_an_invalid_last_line_gets_an_error_before_the_exit() {
    for (line, id, code) in [("garbage\n", "null", -32700), ("{\"id\":5}", "5", -32600), ("[]\n", "null", -32600)] {
        let (mut server, mut client) = dialogue().await;
        client.send_bytes(line).await;
        client.close_stdin();
        assert_eq!(client.expect_error(id).await.code, code);
        client.finish(&mut server).await;
    }
}

#[tokio::test]
async fn r4_a_request_with_two_id_members_gets_one_response() {
    let (mut server, mut client) = dialogue().await;
    let line = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","id":2,"params":{"a":1,"a":2}}"#;
    client.send(line).await;
    let post = server.post().await;
    assert_eq!(post.text(), line);
    post.respond(500, &[], "").await;
    let answer = String::from_utf8(client.line("the error").await).unwrap();
    assert!(answer.contains("\"id\":1,") || answer.contains("\"id\":2,"), "{answer}");
    client.expect_nothing(&mut server).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r5_two_open_requests_with_the_same_id_get_two_answers() {
    let (mut server, mut client) = dialogue().await;
    client.send(call("1")).await;
    let first = server.post().await;
    client.send(call("1")).await;
    let second = server.post().await;
    let answers = [second.answer("\"second\"").await, first.answer("\"first\"").await];
    client.expect_all(answers).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r15_a_line_read_byte_by_byte_is_sent_unchanged() {
    let (mut server, mut client) = dialogue().await;
    let line = request("1", "tools/call", "\"é日本🦀\"");
    for byte in format!("{line}\n").bytes() {
        client.send_bytes([byte]).await;
        tokio::task::yield_now().await;
    }
    let post = server.post().await;
    assert_eq!(post.text(), line);
    let answer = post.answer("\"é日本🦀\"").await;
    client.expect(answer).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r15_a_response_received_byte_by_byte_arrives_unchanged() {
    let (mut server, mut client) = dialogue().await;
    for content_type in ["application/json", "application/x-ndjson"] {
        client.send(call("1")).await;
        let mut post = server.post().await;
        let answer = response("1", "\"é日本🦀\u{2028}\"");
        post.head(200, &[("Content-Type", content_type)]).await;
        for byte in answer.bytes() {
            post.chunk([byte]).await;
            tokio::task::yield_now().await;
        }
        post.end().await;
        client.expect(answer).await;
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r15_a_request_of_32_mib_is_sent_unchanged() {
    let (mut server, mut client) = dialogue().await;
    let line = request("1", "tools/call", &format!("\"{}\"", "é".repeat(16 << 20)));
    client.send(&line).await;
    let post = server.post().await;
    assert!(post.body == line.as_bytes(), "{} of {} bytes arrived, or changed", post.body.len(), line.len());
    let answer = post.answer("{}").await;
    client.expect(answer).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r15_a_response_of_32_mib_arrives_unchanged() {
    let (mut server, mut client) = dialogue().await;
    let answer = response("1", &format!("\"{}\"", "é".repeat(16 << 20)));
    for content_type in ["application/json", "text/event-stream", "application/x-ndjson"] {
        client.send(call("1")).await;
        let post = server.post().await;
        let body = framed(content_type, &answer);
        tokio::join!(post.respond_as(200, content_type, body), client.expect(&answer));
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r15_json_nested_100000_levels_deep_passes_unchanged() {
    let (mut server, mut client) = dialogue().await;
    let line = request("1", "tools/call", &deep());
    client.send(&line).await;
    let post = server.post().await;
    assert!(post.body == line.as_bytes());
    let answer = post.answer(&deep()).await;
    client.expect(answer).await;

    client.send(call("2")).await;
    let mut stream = server.post().await;
    stream.sse().await;
    let answer = response("2", &deep());
    stream.event(&answer).await;
    client.expect(answer).await;
    stream.end().await;

    // Without the closing half it is not JSON.
    client.send("[".repeat(100_000)).await;
    assert_eq!(client.expect_error("null").await.code, -32700);
    client.expect_nothing(&mut server).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r16_r17_a_batch_is_split_into_posts() {
    let (mut server, mut client) = dialogue().await;
    let (first, told) = (request("1", "tools/call", "12345678901234567890"), notification("x", "{}"));
    let (second, reply) = (request(r#""2""#, "tools/list", "{ }"), response("9", r#"{"roots":[]}"#));
    client.send(format!("[ {first} ,{told},\t{second}, {reply} ]")).await;
    let mut bodies = Vec::new();
    let mut answers = Vec::new();
    for _ in 0..4 {
        let post = server.post().await;
        bodies.push(post.text().to_owned());
        if post.id().is_some() && !post.rpc_method().is_empty() {
            answers.push(post.answer("{}").await);
        } else {
            post.accepted().await;
        }
    }
    let mut wanted = [first, told, second, reply];
    bodies.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(bodies, wanted);
    client.expect_all(answers).await;
    client.expect_nothing(&mut server).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r16_an_empty_batch_and_invalid_batch_elements_get_errors() {
    let (mut server, mut client) = dialogue().await;
    client.send(format!("[{}]", notification("x", "{}"))).await;
    server.post().await.accepted().await;
    client.expect_nothing(&mut server).await;

    client.send("[]").await;
    assert_eq!(client.expect_error("null").await.code, -32600);
    client.expect_nothing(&mut server).await;

    // Invalid elements get errors, and the bridge forwards the rest.
    client.send(format!("[1,{},{{\"id\":5}}]", call("2"))).await;
    let post = server.post().await;
    assert_eq!(post.text(), call("2"));
    for failure in client.expect_errors(&["null", "5"]).await {
        assert_eq!(failure.code, -32600);
    }
    let answer = post.answer("{}").await;
    client.expect(answer).await;
    client.expect_nothing(&mut server).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r16_a_json_array_from_the_server_becomes_one_line_per_message() {
    let (mut server, mut client) = dialogue().await;
    let messages = [progress("1", 1), notification("x", "[1, [2]]"), response("1", "12345678901234567890")];
    let array = format!("[ {} ]", messages.join(" ,\n"));
    for content_type in ["application/json", "application/json; charset=utf-8", "text/plain"] {
        client.send(call("1")).await;
        server.post().await.respond_as(200, content_type, &array).await;
        for message in &messages {
            client.expect(message).await;
        }
    }

    client.send(call("1")).await;
    let mut stream = server.post().await;
    stream.sse().await;
    stream.event(&array.replace('\n', "\ndata:")).await;
    for message in &messages {
        client.expect(message).await;
    }
    stream.end().await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn line_separators_are_escaped_on_request_in_lines_of_any_size() {
    let mut server = crate::support::Server::start().await;
    for escapes in [false, true] {
        let mut config = server.config();
        config.escape_separators = escapes;
        let mut client = crate::support::Client::start(config);
        for length in [1, 100_000, 3 << 20] {
            client.send(call("1")).await;
            let text = "a\u{2028}b\u{2029}".repeat(length / 8 + 1);
            let answer = server.post().await.answer(&format!("{{\"text\":\"{text}\"}}")).await;
            let escaped = answer.replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029");
            client.expect(if escapes { escaped } else { answer }).await;
        }
        client.finish(&mut server).await;
    }
}
