//! The end of the bridge (R8, R41), and its behaviour while the client does not read its output (R15).

use std::time::Duration;

use mcp_gangway_core::End;
use tokio::{
    io::{AsyncReadExt as _, DuplexStream},
    net::TcpListener,
};

use crate::support::{
    Client, INITIALIZED, Log, Server, VERSION, call, cancel, dialogue, notification, progress, request, response,
};

#[tokio::test]
async fn r8_without_open_requests_shutdown_is_immediate() {
    let (mut server, client) = dialogue().await;
    client.finish(&mut server).await;

    let (mut server, mut client) = dialogue().await;
    client.handshake(&mut server, Some("session-1")).await;
    client.expect_nothing(&mut server).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r8_open_calls_are_drained() {
    let (mut server, mut client) = dialogue().await;
    client.handshake(&mut server, Some("session-1")).await;
    client.send(call("1")).await;
    client.send(call("2")).await;
    client.close_stdin();
    let (first, mut second) = (server.post_of("1").await, server.post_of("2").await);
    second.sse().await;
    let answer = first.answer("{}").await;
    client.expect(answer).await;
    second.event(&progress("2", 1)).await;
    client.expect(progress("2", 1)).await;
    // The session stays open while a request needs it.
    server.expect_no_more();
    second.event(&response("2", "{}")).await;
    client.expect(response("2", "{}")).await;
    second.end().await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r8_a_session_whose_stdin_closes_at_once_is_fully_answered() {
    let (mut server, mut client) = dialogue().await;
    client.initialize().await;
    client.send(INITIALIZED).await;
    client.send(call("1")).await;
    client.close_stdin();
    let answer = server.initialize(Some("session-1"), VERSION).await;
    client.expect(answer).await;
    server.post().await.accepted().await;
    let answer = server.post().await.answer("{}").await;
    client.expect(answer).await;
    let delete = server.next("the DELETE").await;
    assert_eq!((delete.verb.as_str(), delete.header("mcp-session-id")), ("DELETE", Some("session-1")));
    delete.respond(204, &[], "").await;
    assert!(matches!(client.end().await, End::InputClosed));
    client.expect_end_of_output().await;
}

#[tokio::test]
async fn r8_requests_open_past_the_drain_timeout_get_shutdown_errors() {
    let mut server = Server::start().await;
    let mut config = server.config();
    config.timeouts.drain = Duration::from_millis(300);
    config.limits.concurrency = 1;
    let mut client = Client::start(config);
    client.handshake(&mut server, Some("session-1")).await;
    client.send(call("1")).await;
    let _open = server.post().await;
    // The second call waits in the queue and is never sent.
    client.send(call("2")).await;
    client.close_stdin();
    let failures = client.expect_errors(&["1", "2"]).await;
    assert!(failures.iter().all(|failure| failure.kind() == "shutdown"), "{failures:?}");
    assert_eq!(failures.iter().filter(|failure| failure.may_have_run()).count(), 1, "{failures:?}");
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r8_a_cancelled_request_does_not_delay_shutdown() {
    let mut server = Server::start().await;
    let mut config = server.config();
    config.timeouts.drain = Duration::from_mins(1);
    let mut client = Client::start(config);
    client.send(call("1")).await;
    let _open = server.post().await;
    client.send(cancel("1")).await;
    client.close_stdin();
    assert_eq!(server.post().await.text(), cancel("1"));
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r8_messages_sent_before_stdin_closes_are_delivered() {
    let (mut server, mut client) = dialogue().await;
    client.send(notification("notifications/roots/list_changed", "{}")).await;
    client.send(response("9", "{}")).await;
    client.close_stdin();
    let mut bodies = Vec::new();
    for _ in 0..2 {
        let post = server.post().await;
        bodies.push(post.text().to_owned());
        post.accepted().await;
    }
    bodies.sort_unstable();
    assert_eq!(bodies, [response("9", "{}"), notification("notifications/roots/list_changed", "{}")]);
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r8_an_unanswered_notification_does_not_delay_shutdown() {
    let mut server = Server::start().await;
    let mut config = server.config();
    config.timeouts.drain = Duration::from_millis(300);
    let mut client = Client::start(config);
    client.send(notification("x", "{}")).await;
    client.close_stdin();
    let _silent = server.post().await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r8_a_stream_left_open_after_its_response_does_not_delay_shutdown() {
    let mut server = Server::start().await;
    let mut config = server.config();
    config.timeouts.drain = Duration::from_mins(1);
    let mut client = Client::start(config);
    client.send(call("1")).await;
    let mut stream = server.post().await;
    stream.sse().await;
    stream.event(&response("1", "{}")).await;
    client.expect(response("1", "{}")).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r8_a_stop_answers_pending_requests_with_shutdown_errors() {
    let mut server = Server::start().await;
    let mut config = server.config();
    config.limits.concurrency = 2;
    let mut client = Client::start(config);
    client.handshake(&mut server, Some("session-1")).await;
    // Requests that waited for the handshake together may be sent in any order.
    client.expect_nothing(&mut server).await;
    for id in ["1", "\"1\"", "0"] {
        client.send(call(id)).await;
    }
    let _open = [server.post_of("1").await, server.post_of("\"1\"").await];
    client.expect_nothing(&mut server).await;
    client.stop();
    let failures = client.expect_errors(&["1", "\"1\"", "0"]).await;
    assert!(failures.iter().all(|failure| failure.kind() == "shutdown"), "{failures:?}");
    assert_eq!(failures.iter().filter(|failure| failure.may_have_run()).count(), 2, "{failures:?}");
    let delete = server.next("the DELETE").await;
    assert_eq!((delete.verb.as_str(), delete.header("mcp-session-id")), ("DELETE", Some("session-1")));
    delete.respond(204, &[], "").await;
    assert!(matches!(client.end().await, End::Stopped));
    client.expect_end_of_output().await;
}

#[tokio::test]
async fn r8_a_stop_without_open_requests_ends_the_bridge_silently() {
    let (mut server, mut client) = dialogue().await;
    client.stop();
    assert!(matches!(client.end().await, End::Stopped));
    client.expect_end_of_output().await;
    server.expect_no_more();
}

#[tokio::test]
async fn an_invalid_ca_certificate_is_a_configuration_error() {
    let mut config = Server::start().await.config();
    config.tls.ca_certificates = vec![b"no certificate".to_vec()];
    let error =
        mcp_gangway_core::run(config, tokio::io::empty(), tokio::io::sink(), std::future::pending()).await.unwrap_err();
    assert!(error.is_config(), "{error:?}");
}

#[tokio::test]
async fn r8_a_stop_while_draining_ends_the_drain() {
    let mut server = Server::start().await;
    let mut config = server.config();
    config.timeouts.drain = Duration::from_mins(1);
    let mut client = Client::start(config);
    client.send(call("1")).await;
    let _open = server.post().await;
    let log = Log::default();
    let _guard = log.record();
    client.close_stdin();
    log.wait_for("the bridge is ending").await;
    client.stop();
    assert_eq!(client.expect_error("1").await.kind(), "shutdown");
    client.end().await;
    client.expect_end_of_output().await;
}

#[tokio::test]
async fn r15_a_closed_stdout_ends_the_bridge() {
    let (mut server, mut client) = dialogue().await;
    client.send(call("1")).await;
    client.send(call("2")).await;
    let (first, _open) = (server.post_of("1").await, server.post_of("2").await);
    client.close_stdout();
    first.answer("{}").await;
    assert!(matches!(client.end().await, End::OutputClosed));
}

/// More than pipes, sockets and a reasonable bridge buffer together, and far less than the stream contains.
const BOUND: usize = 48 << 20;

/// Returns a progress event of about 16 KiB.
fn large_event() -> String {
    format!("data: {}\n\n", notification("notifications/progress", &format!("{{\"x\":\"{}\"}}", "x".repeat(16 << 10))))
}

#[tokio::test]
async fn r15_a_client_that_stops_reading_causes_back_pressure_on_the_server() {
    let (mut server, mut client) = dialogue().await;
    client.send(call("1")).await;
    let mut stream = server.post().await;
    stream.sse().await;
    let event = large_event();
    let taken = stream.flood(event.as_bytes(), 4 * BOUND).await;
    assert!(taken < BOUND, "the bridge took {taken} bytes without a reader");

    // Once the client reads, it receives all buffered messages in order, and then the rest.
    let line = event.trim_end().strip_prefix("data: ").unwrap();
    let count = taken / event.len();
    let rest = async {
        stream.event(&response("1", "{}")).await;
        stream.end().await;
    };
    let reading = async {
        for _ in 0..count {
            client.expect(line).await;
        }
        let mut last = client.line("the rest").await;
        if last == line.as_bytes() {
            last = client.line("the answer").await;
        }
        assert_eq!(String::from_utf8(last).unwrap(), response("1", "{}"));
    };
    tokio::join!(rest, reading);
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r15_a_server_that_stops_reading_causes_back_pressure_on_the_client() {
    // The kernel accepts the connections, and no server reads from them.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = Client::to(&format!("http://{}/mcp", listener.local_addr().unwrap()));
    let line = notification("notifications/progress", &format!("{{\"x\":\"{}\"}}", "x".repeat(4 << 20)));
    let taken = client.flood(&line, 5 * BOUND).await;
    assert!(taken < 4 * BOUND, "the bridge took {taken} bytes without a reader");
    client.stop();
    assert!(matches!(client.end().await, End::Stopped));
}

#[tokio::test]
async fn r15_a_client_that_stops_reading_blocks_no_requests_cancels_or_shutdown() {
    for by_stop in [false, true] {
        let mut server = Server::start().await;
        let mut config = server.config();
        config.timeouts.drain = Duration::from_millis(300);
        let mut client = Client::start(config);
        client.handshake(&mut server, Some("session-1")).await;
        client.send(call("1")).await;
        let mut stream = server.post().await;
        stream.sse().await;
        stream.flood(large_event().as_bytes(), 4 * BOUND).await;

        client.send(notification("x", "{}")).await;
        let post = server.post().await;
        assert_eq!(post.text(), notification("x", "{}"));
        post.accepted().await;
        client.send(response("9", "{}")).await;
        let post = server.post().await;
        assert_eq!(post.text(), response("9", "{}"));
        post.accepted().await;
        client.send(request("2", "tools/list", "{}")).await;
        let _open = server.post_of("2").await;
        client.send(cancel("1")).await;
        let post = server.post().await;
        assert_eq!(post.text(), cancel("1"));
        post.accepted().await;

        if by_stop {
            client.stop();
        } else {
            client.close_stdin();
        }
        let delete = server.next("the DELETE").await;
        assert_eq!(delete.verb, "DELETE");
        delete.respond(204, &[], "").await;
        // Either end value is acceptable, but the bridge must report lost lines.
        let end = client.outcome().await;
        assert!(by_stop || end.is_err_and(|error| error.kind() == "stdio"));
    }
}

/// Starts a bridge whose input has ended and whose server answers with 4 MB. Returns the bridge and its output.
async fn answered_at_the_end(
    drain: Duration,
) -> (tokio::task::JoinHandle<Result<End, mcp_gangway_core::Error>>, DuplexStream) {
    let mut server = Server::start().await;
    let mut config = server.config();
    config.timeouts.drain = drain;
    let (output, far) = tokio::io::duplex(64 << 10);
    let bridge = tokio::spawn(mcp_gangway_core::run(
        config,
        std::io::Cursor::new(call("1") + "\n"),
        output,
        std::future::pending(),
    ));
    let post = server.post().await;
    tokio::spawn(async move { post.json(response("1", &format!(r#""{}""#, "x".repeat(4 << 20)))).await });
    tokio::spawn(async move {
        std::future::pending::<()>().await;
        drop(server);
    });
    (bridge, far)
}

#[tokio::test]
async fn r8_a_slow_reader_loses_nothing() {
    // The reader starts late and takes far longer than the bridge waits for a client that does not read.
    let (bridge, mut output) = answered_at_the_end(Duration::from_secs(2)).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let mut read = Vec::new();
    let mut block = vec![0; 100_000];
    loop {
        let length = output.read(&mut block).await.unwrap();
        if length == 0 {
            break;
        }
        read.extend_from_slice(&block[..length]);
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    assert_eq!(read.len(), response("1", "\"\"").len() + (4 << 20) + 1);
    assert!(matches!(bridge.await.unwrap(), Ok(End::InputClosed)));
}

#[tokio::test]
async fn r8_a_client_that_does_not_read_causes_a_stdio_error_at_shutdown() {
    let (bridge, output) = answered_at_the_end(Duration::from_secs(2)).await;
    let error = bridge.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), "stdio", "{error}");
    assert!(error.to_string().contains("not read in time"), "{error}");
    drop(output);
}

#[tokio::test]
async fn timeouts_of_maximum_duration_are_accepted() {
    let mut server = Server::start().await;
    let mut config = server.config();
    let times = &mut config.timeouts;
    for time in
        [&mut times.connect, &mut times.idle, &mut times.drain, &mut times.ping, &mut times.reconnect, &mut times.retry]
    {
        *time = Duration::MAX;
    }
    times.total = Some(Duration::MAX);
    config.idle_for = Duration::MAX;
    let mut client = Client::start(config);
    client.handshake(&mut server, None).await;
    for id in ["1", "2"] {
        client.send(call(id)).await;
        let answer = server.post().await.answer("{}").await;
        client.expect(answer).await;
    }
    client.send(call("3")).await;
    client.close_stdin();
    let answer = server.post().await.answer("{}").await;
    client.expect(answer).await;
    assert!(matches!(client.end().await, End::InputClosed));
}
