//! Headers that are read again when the server refuses them.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use mcp_gangway_core::{Config, Error, HeaderSource, LoadedHeaders};

use crate::support::{Client, Server, call};

/// Returns settings whose source gives `Bearer 1`, then `Bearer 2` …, and a counter of the reads.
fn config(server: &Server, before_first: bool) -> (Config, Arc<AtomicUsize>) {
    let mut config = server.config();
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let load = move || {
        let value = format!("Bearer {}", counter.fetch_add(1, Ordering::SeqCst) + 1);
        let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(&value).unwrap())]);
        Box::pin(async { Ok(headers) }) as LoadedHeaders
    };
    config.header_source = Some(HeaderSource::new(load, before_first));
    (config, asked)
}

#[tokio::test]
async fn refused_credentials_are_read_anew_and_the_request_is_repeated() {
    let mut server = Server::start().await;
    let (mut config, asked) = config(&server, false);
    config.set_authorization("Bearer 0").unwrap();
    let mut client = Client::start(config);
    // Two concurrent requests: one read serves both.
    client.send(call("1")).await;
    client.send(call("2")).await;
    let (one, two) = (server.post().await, server.post().await);
    for post in [one, two] {
        assert_eq!(post.header("authorization"), Some("Bearer 0"));
        post.respond(401, &[], "").await;
    }
    let mut answers = Vec::new();
    for _ in 0..2 {
        let again = server.post().await;
        assert_eq!(again.header("authorization"), Some("Bearer 1"));
        answers.push(again.answer("{}").await);
    }
    client.expect_all(answers).await;
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    client.expect_nothing(&mut server).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn a_request_is_repeated_with_new_credentials_once() {
    let mut server = Server::start().await;
    let (config, asked) = config(&server, true);
    let mut client = Client::start(config);
    client.send(call("1")).await;
    for token in ["Bearer 1", "Bearer 2"] {
        let post = server.post().await;
        assert_eq!(post.header("authorization"), Some(token));
        post.respond(401, &[], "").await;
    }
    let failure = client.expect_error("1").await;
    assert_eq!(failure.status(), Some(401));
    assert!(!failure.may_have_run());
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    client.finish(&mut server).await;
}

/// A call with a result has run, even if a gateway changes the status. A challenge takes precedence over an error under
/// the request's id.
#[tokio::test]
async fn a_401_with_a_result_is_forwarded_and_one_with_error_and_challenge_is_retried() {
    const CHALLENGE: (&str, &str) = ("WWW-Authenticate", "Bearer error=\"invalid_token\"");
    let body = |member: &str| format!(r#"{{"jsonrpc":"2.0","id":1,{member}}}"#);
    for (headers, member, is_answer) in [
        (&[CHALLENGE][..], r#""result":{"content":[]}"#, true),
        (&[], r#""result":{"content":[]}"#, true),
        (&[CHALLENGE], r#""error":{"code":-32001,"message":"Unauthorized"}"#, false),
        (&[], r#""error":{"code":-32001,"message":"upstream: 401"}"#, true),
    ] {
        let mut server = Server::start().await;
        let (config, _) = config(&server, true);
        let mut client = Client::start(config);
        client.send(call("1")).await;
        server.post().await.respond(401, headers, &body(member)).await;
        let answer = if is_answer { body(member) } else { server.post().await.answer("{}").await };
        client.expect_all(vec![answer]).await;
        client.expect_nothing(&mut server).await;
        client.finish(&mut server).await;
    }
}

#[tokio::test]
async fn a_stream_is_resumed_with_new_credentials() {
    let mut server = Server::start().await;
    let (config, asked) = config(&server, true);
    let mut client = Client::start(config);
    client.send(call("1")).await;
    let mut post = server.post().await;
    assert_eq!(post.header("authorization"), Some("Bearer 1"));
    server.expect_get();
    post.sse().await;
    post.chunk("retry: 5\nid: 0\ndata:\n\n").await;
    post.end().await;
    // Credentials may expire several times while a tool runs.
    for (old, new) in [("Bearer 1", "Bearer 2"), ("Bearer 2", "Bearer 3")] {
        let get = server.get().await;
        assert_eq!((get.header("authorization"), get.header("last-event-id")), (Some(old), Some("0")));
        get.respond(401, &[], "").await;
        let mut get = server.get().await;
        assert_eq!((get.header("authorization"), get.header("last-event-id")), (Some(new), Some("0")));
        get.sse().await;
        get.end().await;
    }
    // If the server also refuses new credentials, the bridge gives up.
    for token in ["Bearer 3", "Bearer 4"] {
        let get = server.get().await;
        assert_eq!(get.header("authorization"), Some(token));
        get.respond(401, &[], "").await;
    }
    let failure = client.expect_error("1").await;
    assert_eq!(failure.kind(), "no_answer", "{failure:?}");
    assert_eq!(asked.load(Ordering::SeqCst), 4);
    client.finish(&mut server).await;
}

#[tokio::test]
async fn a_failing_header_source_fails_the_request_but_not_the_bridge() {
    let mut server = Server::start().await;
    let mut config = server.config();
    let works = Arc::new(AtomicUsize::new(0));
    let turn = Arc::clone(&works);
    let load = move || {
        let outcome = match turn.fetch_add(1, Ordering::SeqCst) {
            0 => Err(Error::config("the command failed")),
            _ => Ok(HeaderMap::new()),
        };
        Box::pin(async { outcome }) as LoadedHeaders
    };
    config.header_source = Some(HeaderSource::new(load, true));
    let mut client = Client::start(config);
    client.send(call("1")).await;
    let failure = client.expect_error("1").await;
    assert!(failure.message.contains("the command failed"), "{failure:?}");
    client.send(call("2")).await;
    let answer = server.post().await.answer("{}").await;
    client.expect(answer).await;
    client.finish(&mut server).await;
}
