//! Ids that match no request, arrive late, arrive twice, or imitate the bridge's own (R36, R45).

use serde_json::Value;

use crate::support::{
    Client, Exchange, INITIALIZED, Server, VERSION, call, cancel, dialogue, notification, progress, request, response,
};

const CHANGED: &str = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;

/// Starts a bridge with a session and a push stream.
pub(crate) async fn listening() -> (Server, Client, Exchange) {
    let mut server = Server::start().await;
    server.expect_get();
    let mut client = Client::of(&server);
    client.handshake(&mut server, Some("session-0")).await;
    let mut push = server.get().await;
    push.sse().await;
    (server, client, push)
}

/// Answers the bridge's own handshake. Returns the id that it chose.
async fn renewed(server: &mut Server, session: &str) -> String {
    let initialize = server.post().await;
    assert_eq!(initialize.rpc_method(), "initialize", "{}", initialize.text());
    let id = initialize.id().unwrap();
    initialize.initialized(Some(session), VERSION).await;
    let initialized = server.post().await;
    assert_eq!(initialized.text(), INITIALIZED);
    initialized.accepted().await;
    id
}

/// Returns the bridge's next id, assuming that it counts.
fn successor(id: &str) -> String {
    let id: String = serde_json::from_str(id).unwrap();
    let (stem, number) = id.rsplit_once('-').expect("an id that ends in a number");
    format!("\"{stem}-{}\"", number.parse::<u64>().unwrap() + 1)
}

#[tokio::test]
async fn r45_a_late_response_to_a_cancelled_request_is_passed_on_once() {
    for same_stream in [true, false] {
        let (mut server, mut client, mut push) = listening().await;
        client.send(call("1")).await;
        let mut stream = server.post().await;
        stream.sse().await;
        client.send(cancel("1")).await;
        server.post().await.accepted().await;
        client.expect_nothing(&mut server).await;
        for text in ["\"late\"", "\"later\"", "\"last\""] {
            let answer = response("1", text);
            if same_stream { stream.event(&answer).await } else { push.event(&answer).await }
        }
        client.expect(response("1", "\"late\"")).await;
        push.event(CHANGED).await;
        client.expect(CHANGED).await;
        stream.end().await;
        client.expect_nothing(&mut server).await;
        client.finish(&mut server).await;
    }
}

#[tokio::test]
async fn r36_responses_to_finished_or_unknown_requests_are_dropped() {
    let (mut server, mut client, mut push) = listening().await;
    client.send(call("1")).await;
    let answer = server.post().await.answer("{}").await;
    client.expect(answer).await;
    client.send(call("2")).await;
    let mut stream = server.post().await;
    stream.sse().await;
    // Finished, unknown, of another type, of no valid type, and the same as errors.
    for id in ["1", "3", "\"1\"", "\"2\"", "2.5", "-2", "\"\"", "\"mcp-gangway\"", "\"mcp-gangway-1\""] {
        let error = format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32603,"message":"stray"}}}}"#);
        for message in [response(id, "\"stray\""), error] {
            if id != "\"2\"" {
                stream.event(&message).await;
            }
            push.event(&message).await;
        }
    }
    push.event(&response("null", "\"stray\"")).await;
    push.event(CHANGED).await;
    client.expect(CHANGED).await;
    stream.event(&progress("2", 1)).await;
    client.expect(progress("2", 1)).await;
    stream.event(&response("2", "\"mine\"")).await;
    client.expect(response("2", "\"mine\"")).await;
    stream.end().await;
    client.expect_nothing(&mut server).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r45_a_response_on_the_stream_of_another_request_is_delivered_once() {
    let (mut server, mut client) = dialogue().await;
    client.send(call("1")).await;
    client.send(call("2")).await;
    let (mut first, mut second) = (server.post_of("1").await, server.post_of("2").await);
    first.sse().await;
    second.sse().await;
    first.event(&response("2", "\"across\"")).await;
    client.expect(response("2", "\"across\"")).await;
    second.event(&response("1", "\"across\"")).await;
    client.expect(response("1", "\"across\"")).await;
    // Each stream's own answer comes second, so the bridge drops it.
    first.event(&response("1", "\"own\"")).await;
    second.event(&response("2", "\"own\"")).await;
    first.end().await;
    second.end().await;
    client.expect_nothing(&mut server).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r39_client_requests_with_ids_like_the_bridges_get_their_own_responses() {
    let (mut server, mut client) = dialogue().await;
    client.handshake(&mut server, Some("session-0")).await;
    client.send(call("1")).await;
    server.post().await.respond(404, &[], "").await;
    let seen = renewed(&mut server, "session-1").await;
    let answer = server.post_of("1").await.answer("{}").await;
    client.expect(answer).await;

    // The client has an open request under the id that the bridge uses next, and under ids around it.
    let next = successor(&seen);
    let after = successor(&next);
    let mut open = Vec::new();
    for id in [&seen, &next, &after] {
        client.send(call(id)).await;
        let post = server.post_of(id).await;
        assert_eq!(post.text(), call(id));
        open.push(post);
    }
    client.send(request("2", "tools/list", "{}")).await;
    server.post_of("2").await.respond(404, &[], "").await;
    renewed(&mut server, "session-2").await;
    let answer = server.post_of("2").await.answer("{}").await;
    // The bridge's own answer does not reach the client, only that of the list.
    client.expect(answer).await;
    client.expect_nothing(&mut server).await;
    for post in open {
        let answer = post.answer("\"for the client\"").await;
        client.expect(answer).await;
    }
    client.expect_nothing(&mut server).await;
    // The client's cancellation of such an id applies to its own request.
    client.send(call(&next)).await;
    let post = server.post_of(&next).await;
    client.send(cancel(&next)).await;
    let told = server.post().await;
    assert_eq!(told.cancelled_id().as_deref(), Some(next.as_str()));
    told.accepted().await;
    let answer = post.answer("{}").await;
    client.expect(answer).await;
    client.expect_nothing(&mut server).await;
}

#[tokio::test]
async fn r39_repeated_responses_to_the_bridges_initialize_reach_no_client() {
    let (mut server, mut client, mut push) = listening().await;
    client.send(call("1")).await;
    server.post().await.respond(404, &[], "").await;
    let initialize = server.post().await;
    let own = initialize.id().unwrap();
    // The server sends the answer on several streams, repeatedly. It never reaches the client.
    let info = r#"{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"evil","version":"1"}}"#;
    initialize.initialized(Some("session-1"), VERSION).await;
    server.post().await.accepted().await;
    let again = server.post_of("1").await;
    for _ in 0..3 {
        push.event(&response(&own, info)).await;
        push.event(&response(&successor(&own), info)).await;
    }
    // The bridge may or may not still read the stream of the lost session. It opens a new one.
    let mut push = server.get().await;
    push.sse().await;
    push.event(&response(&own, info)).await;
    push.event(&response(&successor(&own), info)).await;
    push.event(CHANGED).await;
    client.expect(CHANGED).await;
    let answer = again.answer("{}").await;
    client.expect(answer).await;
    // The session is the one that the server assigned, not one from the extra answers.
    client.expect_nothing(&mut server).await;
    client.send(call("2")).await;
    let post = server.post().await;
    assert_eq!(post.header("mcp-session-id"), Some("session-1"));
    let answer = post.answer("{}").await;
    client.expect(answer).await;
}

#[tokio::test]
async fn r28_server_requests_with_ids_like_the_bridges_reach_the_client() {
    let (mut server, mut client) = dialogue().await;
    client.handshake(&mut server, Some("session-0")).await;
    client.send(call("1")).await;
    server.post().await.respond(404, &[], "").await;
    let own = renewed(&mut server, "session-1").await;
    let mut stream = server.post_of("1").await;
    stream.sse().await;
    for id in [own.clone(), successor(&own), "\"mcp-gangway-0\"".to_owned()] {
        // With any id, a question goes to the client, and its response to the server.
        let question = request(&id, "elicitation/create", "{}");
        stream.event(&question).await;
        client.expect(&question).await;
        let answer = response(&id, r#"{"action":"decline"}"#);
        client.send(&answer).await;
        let post = server.post().await;
        assert_eq!(post.text(), answer);
        post.accepted().await;
        // A cancellation of the question by the server goes to the client as well.
        stream.event(&cancel(&id)).await;
        client.expect(cancel(&id)).await;
    }
    stream.event(&response("1", "{}")).await;
    client.expect(response("1", "{}")).await;
    client.expect_nothing(&mut server).await;
}

#[tokio::test]
async fn r13_a_flood_of_notifications_does_not_delay_other_responses() {
    const FLOOD: usize = 100_000;
    // More than the bridge and the pipes may buffer between the server and a client that reads.
    const HELD: usize = 24 << 20;
    for pushed in [false, true] {
        let (mut server, mut client, mut push) = listening().await;
        client.send(call("\"flooded\"")).await;
        let mut stream = server.post().await;
        stream.sse().await;
        let text = "x".repeat(200);
        let event = notification("notifications/message", &format!(r#"{{"level":"info","data":"{text}"}}"#));
        let source = if pushed { &mut push } else { &mut stream };
        let written = std::cell::Cell::new(0);
        let flood = async {
            for _ in 0..FLOOD / 10 {
                source.chunk(format!("data: {event}\n\n").repeat(10)).await;
                written.set(written.get() + 10);
            }
        };
        // After the first notifications the client makes another call. Its answer must arrive before the flood ends.
        let mut answered_after = None;
        let reading = async {
            let mut read = 0;
            let mut asked = None;
            while read < FLOOD {
                let line = client.line("a notification").await;
                if line == event.as_bytes() {
                    read += 1;
                    let held = (written.get() - read.min(written.get())) * event.len();
                    assert!(held < HELD, "{held} bytes are between the server and a client that reads");
                } else {
                    let answer: Value = serde_json::from_slice(&line).unwrap();
                    assert_eq!(answer["id"], "quick", "{answer}");
                    assert_eq!(answered_after.replace(read), None, "a second answer");
                }
                if read == 1000 && asked.is_none() {
                    client.send(call("\"quick\"")).await;
                    asked = Some(read);
                }
            }
        };
        let answering = async { server.post_of("\"quick\"").await.answer("{}").await };
        let ((), (), _) = tokio::join!(flood, reading, answering);
        let after = answered_after.expect("the quick call is answered before the flood ends");
        assert!(after < FLOOD, "the answer came only after the flood");
        stream.event(&response("\"flooded\"", "{}")).await;
        client.expect(response("\"flooded\"", "{}")).await;
        client.expect_nothing(&mut server).await;
    }
}
