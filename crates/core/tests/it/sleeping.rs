//! Idle connections that die without notice (R44, R96): closed, reset or stalled, and servers that restart, perhaps at
//! another address. Rule: every open request is answered in bounded time, and the next one works.

use std::{collections::HashSet, net::SocketAddr, time::Duration};

use mcp_gangway_core::Config;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};

use crate::support::{
    Authority, Client, Fate, INITIALIZED, RawH2, SOON, VERSION, call,
    fault_proxy::{Cut, Fault, FaultProxy, Side},
    model::Model,
    request, response, wait_for_no_server, within,
};

/// The idle timeout of the bridges here.
const IDLE: Duration = Duration::from_millis(500);

fn config(url: &str) -> Config {
    let mut config = Config::new(url).unwrap();
    config.proxy = mcp_gangway_core::Proxy::None;
    config.timeouts.idle = IDLE;
    wait_for_no_server(&mut config);
    config
}

/// A server that can be stopped, and its memory, which survives.
struct Host {
    model: Model,
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Host {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (model, address) = (Model::default(), listener.local_addr().unwrap());
        let serving = tokio::spawn(model.clone().serve(listener));
        Self { model, address, serving }
    }

    /// Stops the server and all of its connections.
    async fn stop(&mut self) {
        self.serving.abort();
        assert!((&mut self.serving).await.unwrap_err().is_cancelled());
    }

    /// Restarts the server at this address.
    async fn come_back(&mut self, address: &str) {
        let listener = TcpListener::bind(address).await.unwrap();
        self.serving = tokio::spawn(self.model.clone().serve(listener));
    }

    /// Sends one call. Returns the answer and the number of runs.
    async fn ask(&self, client: &mut Client, key: &str) -> (Value, usize) {
        let params = format!(r#"{{"name":"json","arguments":{{"key":"{key}"}}}}"#);
        client.send(request(&format!("\"{key}\""), "tools/call", &params)).await;
        let line = client.line("the answer").await;
        let answer: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(answer["id"], key, "{answer}");
        (answer, self.model.runs(key))
    }

    /// Sends one call, which must succeed.
    async fn ask_well(&self, client: &mut Client, key: &str) {
        let (answer, runs) = self.ask(client, key).await;
        assert!(answer["result"].is_object(), "{answer}");
        assert_eq!(runs, 1, "{answer}");
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn shake_hands(client: &mut Client) {
    client.initialize().await;
    let line = client.line("the answer to initialize").await;
    let answer: Value = serde_json::from_slice(&line).unwrap();
    assert_eq!(answer["result"]["protocolVersion"], VERSION, "{answer}");
    client.send(INITIALIZED).await;
}

#[tokio::test]
async fn r96_a_call_succeeds_if_the_server_has_just_closed_the_connection() {
    // The bridge sees the end of the connection and the next call at the same time, as after a sleep of the computer.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = Client::start(config(&format!("http://{}/mcp", listener.local_addr().unwrap())));
    listener.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    for id in 0..20 {
        let id = id.to_string();
        client.send(call(&id)).await;
        let (mut socket, _) = within("a new connection", listener.accept()).await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(call(&id).as_bytes()) {
            assert!(within("the call", socket.read_buf(&mut request)).await.unwrap() > 0);
        }
        let answer = response(&id, "{}");
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ";
        socket.write_all(format!("{head}{}\r\n\r\n{answer}", answer.len()).as_bytes()).await.unwrap();
        client.expect(answer).await;
        drop(socket);
        // In real use, one system call reports both the line from the client and the end of the connection.
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn r96_a_call_after_an_idle_server_restart_succeeds() {
    let mut host = Host::start().await;
    let mut client = Client::start(config(&format!("http://{}/mcp", host.address)));
    shake_hands(&mut client).await;
    for turn in 0..5 {
        host.ask_well(&mut client, &format!("before {turn}")).await;
        host.stop().await;
        host.model.forget();
        host.come_back(&host.address.to_string()).await;
        host.ask_well(&mut client, &format!("after {turn}")).await;
    }
    // The bridge created one new session per restart.
    assert_eq!(host.model.sessions(), 6);
}

#[tokio::test]
async fn r44_a_call_on_a_stalled_connection_times_out() {
    for side in [Side::Request, Side::Response] {
        let host = Host::start().await;
        let proxy = FaultProxy::before(host.address).await.unwrap();
        let mut client = Client::start(config(&format!("http://{}/mcp", proxy.address())));
        shake_hands(&mut client).await;
        host.ask_well(&mut client, "before").await;
        for turn in 0..3 {
            proxy.arm(Cut { side, after: 0, fault: Fault::Stall });
            let key = format!("deaf {turn}");
            let (answer, runs) = host.ask(&mut client, &key).await;
            assert_eq!(answer["error"]["data"]["kind"], "timeout", "{answer}");
            assert_eq!(answer["error"]["data"]["mayHaveRun"], true, "{answer}");
            assert_eq!(runs, usize::from(side == Side::Response));
            host.ask_well(&mut client, &format!("after {turn}")).await;
        }
    }
}

#[tokio::test]
async fn r44_a_stalled_http2_connection_is_replaced_for_the_next_request() {
    let authority = Authority::new();
    let server = RawH2::start(authority.server_config("localhost")).await;
    let proxy = FaultProxy::before(SocketAddr::from(([127, 0, 0, 1], server.port()))).await.unwrap();
    let mut config = config(&format!("https://localhost:{}/mcp", proxy.address().port()));
    config.tls.ca_certificates = vec![authority.pem()];
    let mut client = Client::start(config);
    let serve = server.serve(async |message: &Value| Fate::Answer(response(&message["id"].to_string(), "{}")));
    let play = async {
        for turn in 0..3 {
            let (before, deaf, after) = (format!("{turn}0"), format!("{turn}1"), format!("{turn}2"));
            let (before, deaf, after) = (format!("\"{before}\""), format!("\"{deaf}\""), format!("\"{after}\""));
            client.send(call(&before)).await;
            client.expect(response(&before, "{}")).await;
            proxy.arm(Cut { side: Side::Response, after: 0, fault: Fault::Stall });
            client.send(call(&deaf)).await;
            // The bridge may notice before the timeout.
            let failure = client.expect_error(&deaf).await;
            assert!(matches!(failure.kind(), "timeout" | "connection_lost"), "{failure:?}");
            assert!(failure.may_have_run(), "{failure:?}");
            // All requests share a connection, so this one needs a new one.
            client.send(call(&after)).await;
            client.expect(response(&after, "{}")).await;
        }
    };
    tokio::select! {
        () = play => {}
        () = serve => unreachable!("it serves for ever"),
    }
}

#[tokio::test]
async fn r44_an_http2_ping_detects_a_stalled_connection() {
    let authority = Authority::new();
    let server = RawH2::start(authority.server_config("localhost")).await;
    let proxy = FaultProxy::before(SocketAddr::from(([127, 0, 0, 1], server.port()))).await.unwrap();
    let mut config = config(&format!("https://localhost:{}/mcp", proxy.address().port()));
    config.tls.ca_certificates = vec![authority.pem()];
    // The server may take any time to respond, if it answers pings.
    (config.timeouts.idle, config.timeouts.ping) = (Duration::from_hours(1), IDLE);
    let mut client = Client::start(config);
    let serve = server.serve(async |message: &Value| Fate::Answer(response(&message["id"].to_string(), "{}")));
    let play = async {
        client.send(call("1")).await;
        client.expect(response("1", "{}")).await;
        proxy.arm(Cut { side: Side::Response, after: 0, fault: Fault::Stall });
        client.send(call("2")).await;
        let failure = client.expect_error("2").await;
        assert_eq!((failure.kind(), failure.may_have_run()), ("connection_lost", true), "{failure:?}");
        client.send(call("3")).await;
        client.expect(response("3", "{}")).await;
    };
    tokio::select! {
        () = play => {}
        () = serve => unreachable!("it serves for ever"),
    }
}

#[tokio::test]
async fn r94_requests_follow_a_server_between_ipv4_and_ipv6() {
    let mut host = Host::start().await;
    let port = host.address.port();
    let mut client = Client::start(config(&format!("http://localhost:{port}/mcp")));
    shake_hands(&mut client).await;
    for (turn, address) in
        [format!("[::1]:{port}"), format!("127.0.0.1:{port}"), format!("[::1]:{port}")].iter().enumerate()
    {
        host.ask_well(&mut client, &format!("before {turn}")).await;
        host.stop().await;
        host.come_back(address).await;
        host.ask_well(&mut client, &format!("after {turn}")).await;
    }
    // The server kept its memory, so the session stays the same.
    assert_eq!(host.model.sessions(), 1);
}

#[tokio::test]
async fn r9_calls_fail_while_the_network_is_down_and_work_again_after() {
    let mut host = Host::start().await;
    host.model.push();
    let mut config = config(&format!("http://{}/mcp", host.address));
    config.timeouts.retry = SOON;
    let mut client = Client::start(config);
    shake_hands(&mut client).await;
    host.ask_well(&mut client, "before").await;
    // A call is open when the network fails.
    let params = r#"{"name":"json","arguments":{"key":"open","wait":60000}}"#;
    client.send(request("\"open\"", "tools/call", params)).await;
    while host.model.runs("open") == 0 {
        tokio::task::yield_now().await;
    }
    host.stop().await;
    let failure = client.expect_error("\"open\"").await;
    assert_eq!((failure.kind(), failure.may_have_run()), ("connection_lost", true), "{failure:?}");
    for key in ["gone 1", "gone 2"] {
        let (answer, runs) = host.ask(&mut client, key).await;
        assert_eq!(answer["error"]["data"]["kind"], "connect", "{answer}");
        assert_eq!((&answer["error"]["data"]["mayHaveRun"], runs), (&Value::Bool(false), 0), "{answer}");
    }
    host.come_back(&host.address.to_string()).await;
    host.ask_well(&mut client, "after").await;
    assert_eq!(host.model.runs("open"), 1);
}

#[tokio::test]
async fn r39_no_call_runs_twice_when_the_server_restarts_under_load() {
    const CALLS: usize = 40;
    const TURNS: usize = 3;
    let mut host = Host::start().await;
    let mut client = Client::start(config(&format!("http://{}/mcp", host.address)));
    shake_hands(&mut client).await;
    let mut answered = HashSet::new();
    for turn in 1..=TURNS {
        for call in 0..CALLS {
            let key = format!("{turn} {call}");
            let params = format!(r#"{{"name":"resumable","arguments":{{"key":"{key}","wait":{}}}}}"#, call * 5);
            client.send(request(&format!("\"{key}\""), "tools/call", &params)).await;
        }
        // Some calls are answered, some are in flight.
        let begun = (turn - 1) * CALLS;
        read_answers(&mut client, &mut answered, begun + CALLS / 4).await;
        host.stop().await;
        host.model.forget();
        host.come_back(&host.address.to_string()).await;
        read_answers(&mut client, &mut answered, turn * CALLS).await;
        host.ask_well(&mut client, &format!("after {turn}")).await;
    }
    client.close_stdin();
    client.end().await;
    client.expect_end_of_output().await;
    let (calls, twice) = host.model.run_counts();
    assert!(calls <= TURNS * (CALLS + 1) && twice == 0, "{twice} of {calls} calls ran twice");
    // The first session, and one per restart, however many calls found the old one lost.
    assert_eq!(host.model.sessions(), 1 + TURNS);
}

/// Reads until `count` requests have been answered. No request may be answered twice.
async fn read_answers(client: &mut Client, answered: &mut HashSet<String>, count: usize) {
    while answered.len() < count {
        let line = client.line("an answer").await;
        let message: Value = serde_json::from_slice(&line).unwrap();
        if let Some(id) = message["id"].as_str() {
            assert!(answered.insert(id.to_owned()), "a second answer: {message}");
        }
    }
}

/// Starts a server with a latency of 40 ms in each direction. It closes idle connections without notice.
async fn far_away(keeps: Duration, announces: Option<u64>) -> SocketAddr {
    const WAY: Duration = Duration::from_millis(40);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut read = Vec::new();
                loop {
                    let mut piece = [0; 4096];
                    let Ok(length) = tokio::time::timeout(keeps, socket.read(&mut piece)).await else {
                        // The client sees the end only after the latency. Requests that it sends meanwhile are lost.
                        tokio::time::sleep(WAY).await;
                        return;
                    };
                    let length = length.unwrap_or(0);
                    if length == 0 {
                        return;
                    }
                    read.extend_from_slice(&piece[..length]);
                    let text = String::from_utf8_lossy(&read).into_owned();
                    let Some((_, body)) = text.split_once("\r\n\r\n") else { continue };
                    let Ok(message) = serde_json::from_str::<Value>(body) else { continue };
                    read.clear();
                    tokio::time::sleep(2 * WAY).await;
                    let answer = response(&message["id"].to_string(), "{}");
                    let kept =
                        announces.map(|seconds| format!("Keep-Alive: timeout={seconds}\r\n")).unwrap_or_default();
                    let head = format!(
                        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{kept}Content-Length: {}\r\n\r\n",
                        answer.len()
                    );
                    socket.write_all((head + &answer).as_bytes()).await.unwrap();
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn r96_no_call_fails_when_the_server_closes_idle_connections() {
    // As uvicorn does after 5 s, and servers that announce a shorter time.
    let times = [(5000, None), (2000, Some(2)), (3000, Some(3))];
    let times = times.into_iter().flat_map(|server| [70_u64, 50, 30, 10, 0].map(|early| (server, early)));
    let calls = times.map(|((keeps, announces), early)| async move {
        let address = far_away(Duration::from_millis(keeps), announces).await;
        let mut client = Client::start(Config::new(&format!("http://{address}/mcp")).unwrap());
        client.send(call("1")).await;
        client.expect(response("1", "{}")).await;
        // The answer is half a round trip old.
        tokio::time::sleep(Duration::from_millis(keeps - 40 - early)).await;
        client.send(call("2")).await;
        client.expect(response("2", "{}")).await;
    });
    within("all of the calls", async {
        let mut all = tokio::task::JoinSet::new();
        for calls in calls {
            all.spawn(calls);
        }
        all.join_all().await;
    })
    .await;
}

#[tokio::test]
async fn a_connection_is_reused_for_the_announced_keep_alive_time() {
    let servers = [(None, 2), (Some("timeout=60, max=100"), 1), (Some("max=5,Timeout = 60"), 1)];
    let dialogues = servers.map(|(announces, connections)| async move {
        let mut server = crate::support::Server::start().await;
        let mut client = Client::of(&server);
        let mut headers = vec![("Content-Type", "application/json")];
        headers.extend(announces.map(|announced| ("Keep-Alive", announced)));
        for (id, method) in [("1", "tools/call"), ("2", "tools/list"), ("3", "tools/call")] {
            client.send(request(id, method, r#"{"name":"t"}"#)).await;
            let post = server.post().await;
            // A request that only reads uses the old connection in any case.
            let expected = if id == "3" { connections - 1 } else { 0 };
            assert_eq!(post.connection, expected, "{announces:?} {id}");
            post.respond(200, &headers, response(id, "{}")).await;
            client.expect(response(id, "{}")).await;
            if id == "1" {
                tokio::time::sleep(Duration::from_millis(4100)).await;
            }
            if id == "2" && announces.is_none() {
                tokio::time::sleep(Duration::from_millis(4100)).await;
            }
        }
        client.finish(&mut server).await;
    });
    let [one, two, three] = dialogues;
    tokio::join!(one, two, three);
}
