//! Only valid JSON-RPC reaches the client. Client libraries drop everything else, and the call would hang.

use crate::{
    strangers::listening,
    support::{call, dialogue, framed, response},
};

const JSON: &str = "application/json";
const LINES: &str = "application/x-ndjson";
const SSE: &str = "text/event-stream";

#[tokio::test]
async fn errors_of_gateways_and_clouds_keep_their_message() {
    for (body, words) in [
        (
            r#"{"error":{"code":403,"message":"Caller lacks run.invoke","status":"PERMISSION_DENIED"}}"#,
            "Caller lacks run.invoke",
        ),
        (r#"[{"error":{"code":429,"message":"Quota exceeded","status":"RESOURCE_EXHAUSTED"}}]"#, "Quota exceeded"),
        (r#"{"error":{"code":"DeploymentNotFound","message":"No such deployment"}}"#, "No such deployment"),
        (r#"{"error":{"message":"Rate limit","type":"requests","param":null,"code":null}}"#, "Rate limit"),
        (r#"{"error":{"message":"no code at all"}}"#, "no code at all"),
        (r#"{"jsonrpc":"2.0","id":1,"error":{"code":"E42","message":"a code of letters"}}"#, "a code of letters"),
        (r#"{"jsonrpc":"2.0","id":1,"error":"just a text"}"#, "just a text"),
        (r#"{"jsonrpc":"1.1","id":1,"error":{"code":1,"message":"an old version"}}"#, "an old version"),
        (r#"{"error":"invalid_request","error_description":"no tenant"}"#, "invalid_request: no tenant"),
    ] {
        for content_type in [JSON, LINES, SSE] {
            let (mut server, mut client) = dialogue().await;
            client.send(call("1")).await;
            let mut post = server.post().await;
            post.head(200, &[("Content-Type", content_type)]).await;
            post.chunk(framed(content_type, body)).await;
            let failure = if content_type == JSON {
                post.end().await;
                client.expect_error("1").await
            } else {
                // The error comes before the end of the stream.
                let failure = client.expect_error("1").await;
                drop(post);
                failure
            };
            assert!(failure.message.contains(words), "{content_type} {body}: {failure:?}");
            assert_eq!((failure.code, failure.kind(), failure.may_have_run()), (-32_603, "invalid_answer", true));
        }
        for status in [400, 403, 404, 500, 503] {
            let (mut server, mut client) = dialogue().await;
            client.send(call("1")).await;
            server.post().await.respond_as(status, JSON, body).await;
            let failure = client.expect_error("1").await;
            assert!(failure.message.contains(words), "{status} {body}: {failure:?}");
            assert_eq!((failure.code, failure.status()), (-32_603, Some(u64::from(status))), "{failure:?}");
        }
    }
}

#[tokio::test]
async fn malformed_responses_are_repaired() {
    let right = response("1", r#"{"content":[]}"#);
    for (body, mended) in [
        (r#"{"id":1,"result":{"content":[]}}"#, right.as_str()),
        (r#"{"jsonrpc":null,"id":1,"result":{"content":[]}}"#, &right),
        (r#"{"jsonrpc":"2.0","id":1,"result":{"content":[]},"error":null}"#, &right),
        (r#"{"jsonrpc":"2.0","error":null,"id":1,"result":{"content":[]}}"#, &right),
        (r#"{"jsonrpc":"2.0","id":"1","result":{"content":[]}}"#, &right),
        (
            r#"{"jsonrpc":"2.0","id":1,"result":null,"error":{"code":-32602,"message":"No such tool"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"No such tool"}}"#,
        ),
        (
            r#"{"id":1,"error":{"code":-32602,"message":"No such tool"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"No such tool"}}"#,
        ),
    ] {
        for (status, content_type) in [(200, JSON), (200, LINES), (200, SSE), (400, JSON), (404, JSON), (500, JSON)] {
            let (mut server, mut client) = dialogue().await;
            client.send(call("1")).await;
            server.post().await.respond_as(status, content_type, framed(content_type, body)).await;
            client.expect(mended).await;
            client.finish(&mut server).await;
        }
    }
}

#[tokio::test]
async fn malformed_responses_on_the_push_stream_are_repaired_or_become_errors() {
    let (mut server, mut client, mut push) = listening().await;
    for (body, is_answer) in [
        (r#"{"id":1,"result":{}}"#, true),
        (r#"{"jsonrpc":"2.0","id":1,"result":{},"error":null}"#, true),
        (r#"{"id":1,"error":{"code":"E","message":"in letters"}}"#, false),
        (r#"{"jsonrpc":"2.0","id":1,"error":"in letters"}"#, false),
    ] {
        client.send(call("1")).await;
        let mut post = server.post().await;
        post.sse().await;
        push.event(body).await;
        if is_answer {
            client.expect(response("1", "{}")).await;
        } else {
            assert!(client.expect_error("1").await.message.contains("in letters"));
        }
        post.end().await;
    }
    client.expect_nothing(&mut server).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn an_id_changed_to_a_string_does_not_answer_another_request() {
    let (mut server, mut client) = dialogue().await;
    client.send(call("1")).await;
    let mut first = server.post().await;
    first.sse().await;
    client.send(call(r#""1""#)).await;
    let mut second = server.post().await;
    second.sse().await;
    first.event(&response(r#""1""#, r#"{"of":"the second"}"#)).await;
    client.expect(response(r#""1""#, r#"{"of":"the second"}"#)).await;
    first.event(&response(r#""1""#, r#"{"of":"the first"}"#)).await;
    client.expect(response("1", r#"{"of":"the first"}"#)).await;
    first.end().await;
    second.end().await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn valid_responses_pass_unchanged() {
    for body in [
        r#"{ "result" : {"error":null,"jsonrpc":null} , "id":1, "jsonrpc" : "2.0" }"#,
        r#"{"jsonrpc":"2.0","id":1,"result":null}"#,
        r#"{"jsonrpc":"2.0","id":1,"error":{"message":"","code":-1,"data":{"code":"x"},"more":1}}"#,
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":1.0e2,"message":"m"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{},"_more":{"error":{"code":"x"}}}"#,
    ] {
        let (mut server, mut client) = dialogue().await;
        client.send(call("1")).await;
        server.post().await.json(body).await;
        client.expect(body).await;
        client.finish(&mut server).await;
    }
}
