//! Servers of 2024-11-05, with the various ways in which they refuse unknown requests.

use std::time::Duration;

use mcp_gangway_core::TransportMode;

use crate::{
    http_sse::{bridge, handshake, stream, taken},
    support::{INITIALIZED, Server, call, response},
};

#[tokio::test]
async fn an_sse_server_is_recognised_by_each_way_it_refuses_a_post() {
    for (status, body) in [
        (405, ""),
        (405, r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"Method not allowed."}}"#),
        (405, r#"{"jsonrpc":"2.0","id":"init","error":{"code":-32601,"message":"Method not found"}}"#),
        (404, r#"{"jsonrpc":"2.0","id":"server-error","error":{"code":-32600,"message":"Not Found"}}"#),
        (404, r#"{"error":{"code":404,"message":"no route"}}"#),
        (404, r#"{"detail":"Not Found"}"#),
        (400, "session_id is required"),
        (406, "Not Acceptable"),
        (409, ""),
        (410, "Gone"),
        (415, r#"{"detail":"Unsupported Media Type"}"#),
        (422, r#"{"detail":[{"loc":["query","session_id"],"msg":"field required"}]}"#),
        (501, "Unsupported method ('POST')"),
    ] {
        let mut server = Server::start().await;
        let mut client = bridge(&server, TransportMode::Auto);
        client.initialize().await;
        server.post().await.respond_as(status, "application/json", body).await;
        let mut stream = stream(&mut server, "/m").await;
        handshake(&mut server, &mut client, &mut stream, "/m").await;
        client.finish(&mut server).await;
    }
}

#[tokio::test]
async fn an_sse_server_that_answers_a_post_with_its_stream_is_recognised() {
    let mut server = Server::start().await;
    let mut client = bridge(&server, TransportMode::Auto);
    client.initialize().await;
    let mut reply = server.post().await;
    reply.sse().await;
    reply.chunk("event: endpoint\ndata: /m?session=of-the-post\n\n").await;
    let mut stream = stream(&mut server, "/m").await;
    handshake(&mut server, &mut client, &mut stream, "/m").await;
    client.send(call("1")).await;
    assert_eq!(taken(&mut server, "/m").await, call("1"));
    stream.event(&response("1", "{}")).await;
    client.expect(response("1", "{}")).await;
    drop(reply);
    client.finish(&mut server).await;
}

#[tokio::test]
async fn when_both_transports_fail_the_error_names_both_failures() {
    let mut server = Server::start().await;
    let mut client = bridge(&server, TransportMode::Auto);
    client.initialize().await;
    server.post().await.respond_as(404, "text/plain", "nothing to post to").await;
    server.get().await.respond_as(410, "text/plain", "nor to get").await;
    let failure = client.expect_error(r#""init""#).await;
    assert_eq!(failure.status(), Some(404));
    assert!(failure.message.contains("nothing to post to") && failure.message.contains("410"), "{failure:?}");
    client.finish(&mut server).await;
}

#[tokio::test]
async fn an_old_server_may_be_slow_to_name_its_endpoint() {
    let mut server = Server::start().await;
    let mut client = bridge(&server, TransportMode::Auto);
    client.initialize().await;
    server.post().await.respond(405, &[], "").await;
    let mut stream = server.get().await;
    stream.sse().await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    stream.chunk("event: endpoint\ndata: /m\n\n").await;
    handshake(&mut server, &mut client, &mut stream, "/m").await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn the_idle_timeout_limits_the_wait_for_the_sse_endpoint() {
    let mut server = Server::start().await;
    let mut config = server.config();
    config.timeouts.idle = Duration::from_millis(300);
    server.expect_get();
    let mut client = crate::support::Client::start(config);
    client.initialize().await;
    server.post().await.respond(405, &[], "").await;
    let mut stream = server.get().await;
    stream.sse().await;
    let failure = client.expect_error(r#""init""#).await;
    assert!(failure.message.contains("405") && failure.message.contains("no endpoint"), "{failure:?}");
    drop(client);
}

#[tokio::test]
async fn no_request_comes_before_the_handshake_on_a_new_stream() {
    let mut server = Server::start().await;
    let mut client = bridge(&server, TransportMode::Auto);
    client.initialize().await;
    server.post().await.respond(405, &[], "").await;
    let mut first = stream(&mut server, "/one").await;
    handshake(&mut server, &mut client, &mut first, "/one").await;
    // The server restarts: at first it has no stream, and then it does not know the session.
    first.end().await;
    server.get().await.respond(404, &[], "").await;
    client.send(call("1")).await;
    let mut second = None;
    loop {
        let exchange = server.next("what follows").await;
        match (exchange.verb.as_str(), exchange.rpc_method().as_str()) {
            ("GET", _) => {
                let mut get = exchange;
                get.sse().await;
                get.chunk("event: endpoint\ndata: /two\n\n").await;
                second = Some(get);
            }
            ("POST", "initialize") if exchange.target == "/two" => {
                let id = exchange.id().unwrap();
                exchange.accepted().await;
                let result = r#"{"protocolVersion":"2024-11-05","capabilities":{}}"#;
                second.as_mut().unwrap().event(&response(&id, result)).await;
            }
            ("POST", "initialize") => exchange.respond(405, &[], "").await,
            ("POST", "notifications/initialized") => {
                assert_eq!(exchange.text(), INITIALIZED);
                exchange.accepted().await;
                break;
            }
            (verb, method) => panic!("{verb} {method} at {} before the handshake", exchange.target),
        }
    }
    assert_eq!(taken(&mut server, "/two").await, call("1"));
    second.unwrap().event(&response("1", "{}")).await;
    client.expect(response("1", "{}")).await;
    drop(client);
}
