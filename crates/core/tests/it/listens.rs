//! A modern client's subscriptions at a modern server (R73, R74): streams that stay open until the client cancels.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use mcp_gangway_core::{End, HeaderSource, LoadedHeaders};

use crate::support::{
    Client, Exchange, Server, cancel, modern, modern_call, modern_dialogue, modern_dialogue_with, notification,
    refusal, request, response,
};

const WANTED: &str =
    r#""notifications":{"toolsListChanged":true,"promptsListChanged":true,"resourceSubscriptions":["a:b","c\u003ad"]}"#;
const GRANTED: &str =
    r#"{"toolsListChanged":true,"promptsListChanged":false,"resourceSubscriptions":["a:b","c\u003ad"]}"#;

/// Returns a subscription's notification, with these members of its parameters.
fn event(id: &str, method: &str, members: &str) -> String {
    let comma = if members.is_empty() { "" } else { "," };
    notification(method, &format!(r#"{{{members}{comma}"_meta":{{"io.modelcontextprotocol/subscriptionId":{id}}}}}"#))
}

fn acknowledged(id: &str, granted: &str) -> String {
    event(id, "notifications/subscriptions/acknowledged", &format!(r#""notifications":{granted}"#))
}

fn changed(id: &str) -> String {
    event(id, "notifications/tools/list_changed", "")
}

fn updated(id: &str, uri: &str) -> String {
    event(id, "notifications/resources/updated", &format!(r#""uri":{uri}"#))
}

/// Returns the notifications that a subscription with [`GRANTED`] may have missed.
fn missed(id: &str) -> [String; 3] {
    [changed(id), updated(id, r#""a:b""#), updated(id, r#""c\u003ad""#)]
}

/// Opens the subscription with this id, with its acknowledgement.
async fn listen(server: &mut Server, client: &mut Client, id: &str) -> Exchange {
    let line = modern(id, "subscriptions/listen", WANTED);
    client.send(&line).await;
    let stream = opened(server, &line).await;
    client.expect(acknowledged(id, GRANTED)).await;
    stream
}

/// Opens the stream of this subscription with its acknowledgement.
async fn opened(server: &mut Server, line: &str) -> Exchange {
    let mut stream = server.modern_post().await;
    assert_eq!(stream.text(), line);
    let id = stream.id().expect("a request");
    stream.sse().await;
    stream.event(&acknowledged(&id, GRANTED)).await;
    stream
}

#[tokio::test]
async fn r73_subscriptions_with_a_number_and_a_string_id_are_kept_apart() {
    let (mut server, mut client) = modern_dialogue().await;
    let mut number = listen(&mut server, &mut client, "1").await;
    let mut string = listen(&mut server, &mut client, r#""1""#).await;
    number.event(&changed("1")).await;
    client.expect(changed("1")).await;
    string.event(&changed(r#""1""#)).await;
    client.expect(changed(r#""1""#)).await;
    client.send(cancel(r#""1""#)).await;
    string.closed_by_peer("the end of the cancelled subscription").await;
    number.event(&response("1", "{}")).await;
    client.expect(response("1", "{}")).await;
    number.end().await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r73_a_quiet_subscription_outlasts_the_idle_timeout() {
    let (mut server, mut client) = modern_dialogue_with(|config| config.timeouts.idle = Duration::from_secs(1)).await;
    let mut stream = listen(&mut server, &mut client, "1").await;
    let mut silent = listen(&mut server, &mut client, "2").await;
    // A request that times out proves that the idle timeout has passed, twice.
    for id in ["3", "4"] {
        client.send(modern(id, "x/y", "")).await;
        let post = server.modern_post().await;
        stream.chunk(": alive\n\n").await;
        assert_eq!(client.expect_error(id).await.kind(), "timeout");
        post.closed_by_peer("the end of a request without an answer").await;
    }
    for (stream, id) in [(&mut stream, "1"), (&mut silent, "2")] {
        stream.event(&changed(id)).await;
        client.expect(changed(id)).await;
    }
    client.expect_nothing(&mut server).await;
    client.close_stdin();
}

#[tokio::test]
async fn r73_modern_subscriptions_do_not_count_toward_the_concurrency_limit() {
    let (mut server, mut client) = modern_dialogue_with(|config| config.limits.concurrency = 1).await;
    let mut first = listen(&mut server, &mut client, "1").await;
    client.send(modern("2", "prompts/list", "")).await;
    let held = server.modern_post().await;
    let second = listen(&mut server, &mut client, "3").await;
    let answer = held.answer("{}").await;
    client.expect(answer).await;
    first.event(&changed("1")).await;
    client.expect(changed("1")).await;
    drop(second);
    client.close_stdin();
    server.forget_subscriptions();
}

#[tokio::test]
async fn r73_a_subscription_that_is_refused_is_answered() {
    let (mut server, mut client) = modern_dialogue().await;
    for (status, code) in [(400, -32_022), (404, -32_601), (400, -32_602), (200, -32_601)] {
        client.send(modern("1", "subscriptions/listen", WANTED)).await;
        let answer = server.modern_post().await.refuse(status, code).await;
        client.expect(answer).await;
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r73_a_subscription_without_an_acknowledgement_times_out() {
    for begun in [false, true] {
        let (mut server, mut client) =
            modern_dialogue_with(|config| config.timeouts.idle = Duration::from_secs(1)).await;
        client.send(modern("1", "subscriptions/listen", WANTED)).await;
        let mut post = server.modern_post().await;
        if begun {
            post.sse().await;
        }
        assert_eq!(client.expect_error("1").await.kind(), "timeout");
        post.closed_by_peer("the end of the subscription").await;
        client.finish(&mut server).await;
    }
}

#[tokio::test]
async fn r74_a_lost_stream_is_reopened_and_possibly_missed_changes_are_announced() {
    let (mut server, mut client) = modern_dialogue().await;
    let line = modern("1", "subscriptions/listen", WANTED);
    let mut stream = listen(&mut server, &mut client, "1").await;
    for by_reset in [true, false, true] {
        if by_reset {
            stream.reset();
        } else {
            stream.end().await;
        }
        // The bridge drops an acknowledgement that equals the first.
        stream = opened(&mut server, &line).await;
        for event in missed("1") {
            client.expect(event).await;
        }
        stream.event(&changed("1")).await;
        client.expect(changed("1")).await;
    }
    client.send(cancel("1")).await;
    stream.closed_by_peer("the end of the cancelled subscription").await;
    client.expect_nothing(&mut server).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r74_a_subscription_quiet_past_the_idle_timeout_is_still_reopened() {
    let (mut server, mut client) = modern_dialogue_with(|config| config.timeouts.idle = Duration::from_secs(1)).await;
    let line = modern("1", "subscriptions/listen", WANTED);
    let stream = listen(&mut server, &mut client, "1").await;
    // A request that times out proves that the idle timeout has passed.
    client.send(modern("2", "x/y", "")).await;
    let post = server.modern_post().await;
    assert_eq!(client.expect_error("2").await.kind(), "timeout");
    post.closed_by_peer("the end of a request without an answer").await;
    stream.reset();
    for _ in 0..2 {
        server.modern_post().await.respond(503, &[], "").await;
    }
    let mut stream = opened(&mut server, &line).await;
    for event in missed("1") {
        client.expect(event).await;
    }
    stream.event(&response("1", "{}")).await;
    client.expect(response("1", "{}")).await;
    stream.end().await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r74_a_changed_acknowledgement_after_reopening_is_forwarded() {
    let (mut server, mut client) = modern_dialogue().await;
    listen(&mut server, &mut client, "1").await.reset();
    let mut stream = server.modern_post().await;
    stream.sse().await;
    let less = acknowledged("1", r#"{"toolsListChanged":true}"#);
    stream.event(&less).await;
    for message in [less, changed("1")] {
        client.expect(message).await;
    }
    stream.event(&response("1", "{}")).await;
    client.expect(response("1", "{}")).await;
    stream.end().await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r74_the_refusal_of_a_reopened_stream_ends_the_subscription() {
    let (mut server, mut client) = modern_dialogue().await;
    for (status, code) in [(400, -32_022), (404, -32_601), (400, -32_602), (200, -32_603)] {
        listen(&mut server, &mut client, "1").await.reset();
        server.modern_post().await.refuse(status, code).await;
        client.expect(refusal("1", code)).await;
    }
    listen(&mut server, &mut client, "1").await.reset();
    server.modern_post().await.respond(403, &[], "").await;
    let failure = client.expect_error("1").await;
    assert_eq!((failure.kind(), failure.status()), ("http_status", Some(403)));
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r74_a_subscription_that_cannot_be_reopened_ends_with_an_error() {
    #[derive(Clone, Copy, Debug)]
    enum Away {
        Busy,
        Silent,
        SilentStream,
        Ended,
    }
    for away in [Away::Busy, Away::Silent, Away::SilentStream, Away::Ended] {
        let (mut server, mut client) =
            modern_dialogue_with(|config| config.timeouts.idle = Duration::from_secs(1)).await;
        listen(&mut server, &mut client, "1").await.reset();
        let mut silent = Vec::new();
        let in_vain = async {
            loop {
                let mut post = server.modern_post().await;
                match away {
                    Away::Busy => post.respond(503, &[], "").await,
                    Away::Silent => silent.push(post),
                    Away::SilentStream => {
                        post.sse().await;
                        silent.push(post);
                    }
                    // A server that only accepts the attempts shows no sign of life.
                    Away::Ended => {
                        post.sse().await;
                        post.end().await;
                    }
                }
            }
        };
        let failure = tokio::select! {
            failure = client.expect_error("1") => failure,
            () = in_vain => unreachable!("it never ends"),
        };
        assert!(["timeout", "http_status", "no_answer"].contains(&failure.kind()), "{away:?} {failure:?}");
        // One more attempt may have been in flight.
        server.forget_subscriptions();
        client.finish(&mut server).await;
    }
}

#[tokio::test]
async fn r74_a_401_on_reopening_is_solved_with_new_credentials() {
    let (mut server, mut client) = modern_dialogue_with(|config| {
        let load = || {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static("Bearer 2"))]);
            Box::pin(async { Ok(headers) }) as LoadedHeaders
        };
        config.header_source = Some(HeaderSource::new(load, false));
    })
    .await;
    let line = modern("1", "subscriptions/listen", WANTED);
    listen(&mut server, &mut client, "1").await.reset();
    server.modern_post().await.respond(401, &[], "").await;
    let mut stream = opened(&mut server, &line).await;
    for event in missed("1") {
        client.expect(event).await;
    }
    stream.event(&response("1", "{}")).await;
    client.expect(response("1", "{}")).await;
    stream.end().await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r69_r74_a_subscription_cancelled_between_streams_is_not_reopened() {
    let (mut server, mut client) =
        modern_dialogue_with(|config| config.timeouts.reconnect = Duration::from_hours(1)).await;
    let mut stream = listen(&mut server, &mut client, "1").await;
    stream.event(&changed("1")).await;
    client.expect(changed("1")).await;
    stream.end().await;
    client.expect_nothing(&mut server).await;
    client.send(cancel("1")).await;
    client.expect_nothing(&mut server).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r8_r70_an_open_subscription_does_not_delay_the_end() {
    let (mut server, mut client) = modern_dialogue_with(|config| config.timeouts.drain = Duration::from_hours(1)).await;
    let stream = listen(&mut server, &mut client, "1").await;
    client.close_stdin();
    assert!(matches!(client.end().await, End::InputClosed));
    stream.closed_by_peer("the end of the subscription").await;
    client.expect_end_of_output().await;
    server.expect_no_more();
}

#[tokio::test]
async fn r76_a_request_on_a_subscriptions_stream_is_dropped() {
    let (mut server, mut client) = modern_dialogue().await;
    let mut stream = listen(&mut server, &mut client, "1").await;
    stream.event(&request("0", "roots/list", "{}")).await;
    stream.event(&changed("1")).await;
    client.expect(changed("1")).await;
    client.send(modern_call("2", "{}")).await;
    server.modern_post().await.answer(r#"{"tools":[]}"#).await;
    let answer = server.modern_post().await.answer("{}").await;
    client.expect(answer).await;
    client.send(cancel("1")).await;
    stream.closed_by_peer("the end of the cancelled subscription").await;
    client.finish(&mut server).await;
}
