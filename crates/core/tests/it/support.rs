//! The two ends of a dialogue: a scripted HTTP server, and the client that runs the bridge. No wait is without limit.
//!
//! A test reads as what happens: `client.send(..)`, `server.post()`, `call.answer(..)`, `client.expect(..)`. Every test
//! ends with `client.finish(..)` where it can, which proves that nothing more came on either side.

use std::{fmt::Display, net::SocketAddr, time::Duration};

use mcp_gangway_core::Config;
use tokio::net::TcpSocket;

mod client;
#[allow(dead_code, reason = "the soak uses the rest of it")]
pub(crate) mod fault_proxy;
mod h2;
#[cfg(feature = "oauth")]
pub(crate) mod issuer;
#[allow(dead_code, reason = "the soak uses the rest of it")]
pub(crate) mod model;
mod modern;
mod proxy;
mod server;
mod tls;

pub(crate) use client::Client;
#[cfg(feature = "oauth")]
pub(crate) use client::Failure;
pub(crate) use h2::{Fate, RawH2};
pub(crate) use proxy::{Manner, Proxy};
pub(crate) use server::{Exchange, Server};
pub(crate) use tls::{Authority, H2Server};

/// The version that the handshake of these tests negotiates.
pub(crate) const VERSION: &str = "2025-11-25";

/// What the client says when the handshake is done.
pub(crate) const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

/// The longest that a test waits for one thing.
const PATIENCE: Duration = Duration::from_mins(1);

/// The first wait of the bridges here before they try something again. The real schedule is for the fault table.
pub(crate) const SOON: Duration = Duration::from_millis(5);

/// How long a flooded bridge may take nothing before it counts as full.
const STALL: Duration = Duration::from_millis(500);

/// A server, and a client whose bridge leads to it.
pub(crate) async fn dialogue() -> (Server, Client) {
    let server = Server::start().await;
    let client = Client::of(&server);
    (server, client)
}

/// The same with a modern server, which has nothing but POSTs: any other request is the test's to see (R72).
pub(crate) async fn modern_dialogue() -> (Server, Client) {
    modern_dialogue_with(|_| {}).await
}

/// The same with other settings.
pub(crate) async fn modern_dialogue_with(configure: impl FnOnce(&mut Config)) -> (Server, Client) {
    let server = Server::start().await;
    server.expect_get();
    let mut config = server.config();
    configure(&mut config);
    (server, Client::start(config))
}

/// Waits for `future`, and fails the test with the name of what was awaited if it takes too long.
pub(crate) async fn within<T>(awaited: impl Display, future: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(PATIENCE, future).await;
    waited.unwrap_or_else(|_| panic!("waited {PATIENCE:?} for {awaited}"))
}

/// A tool call with this id, written as JSON.
pub(crate) fn call(id: &str) -> String {
    request(id, "tools/call", r#"{"name":"t","arguments":{}}"#)
}

/// A request with this id and these parameters, both written as JSON.
pub(crate) fn request(id: &str, method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#)
}

/// What a modern request says of its client, as a member of its parameters.
pub(crate) const META: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;

/// A modern request with this id and these members of its parameters beside `_meta`, written as JSON.
pub(crate) fn modern(id: &str, method: &str, members: &str) -> String {
    let comma = if members.is_empty() { "" } else { "," };
    request(id, method, &format!("{{{members}{comma}{META}}}"))
}

/// A modern call of the tool `t` with this id and these arguments, written as JSON.
pub(crate) fn modern_call(id: &str, arguments: &str) -> String {
    modern(id, "tools/call", &format!(r#""name":"t","arguments":{arguments}"#))
}

/// A notification with these parameters, written as JSON.
pub(crate) fn notification(method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{params}}}"#)
}

/// The client's cancellation of the request with this id, written as JSON.
pub(crate) fn cancel(id: &str) -> String {
    notification("notifications/cancelled", &format!(r#"{{"requestId":{id}}}"#))
}

/// One step of progress.
pub(crate) fn progress(token: &str, step: usize) -> String {
    notification("notifications/progress", &format!(r#"{{"progressToken":{token},"progress":{step}}}"#))
}

/// An error in answer to a request, with `data` that a bridge must not touch.
pub(crate) fn refusal(id: &str, code: i64) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":"no","data":{{"x":1e400,"a":[1.0]}}}}}}"#)
}

/// A successful response.
pub(crate) fn response(id: &str, result: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
}

/// A message as a body of this content type has it.
pub(crate) fn framed(content_type: &str, message: &str) -> String {
    match content_type {
        "text/event-stream" => format!("data: {message}\n\n"),
        "application/x-ndjson" => format!("{message}\n"),
        _ => message.to_owned(),
    }
}

/// The beginning of a message, for the text of a failed assertion.
fn shown(bytes: &[u8]) -> String {
    const MOST: usize = 400;
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(MOST)]).into_owned();
    if bytes.len() > MOST { format!("{text}… ({} bytes)", bytes.len()) } else { text }
}

/// A port that refuses connections until its socket listens, and that nobody else can take meanwhile.
pub(crate) fn closed_port() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}
