//! The two ends of a dialogue: a scripted HTTP server, and the client that runs the bridge. Every wait has a limit.
//!
//! A test reads as the sequence of events: `client.send(..)`, `server.post()`, `call.answer(..)`, `client.expect(..)`.
//! Where it can, a test ends with `client.finish(..)`, which proves that neither side sent anything more.

// A test says what it needs by failing.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout, clippy::unwrap_used)]
#![allow(clippy::missing_panics_doc, clippy::missing_errors_doc, reason = "everything here panics where a test fails")]
#![allow(missing_docs, reason = "names say it where there is no comment")]

use std::{fmt::Display, net::SocketAddr, time::Duration};

use mcp_gangway_core::Config;
use tokio::net::TcpSocket;

mod client;
pub mod fault_proxy;
mod h2;
mod log;
pub mod model;
mod modern;
mod proxy;
mod server;
mod tls;

pub use client::Client;
pub use client::Failure;
pub use h2::{Fate, RawH2};
pub use log::Log;
pub use proxy::{Proxy, ProxyBehavior};
pub use server::{Exchange, Server, wait_for_no_server};
pub use tls::{Authority, H2Server};

/// The version that the handshake of these tests negotiates.
pub const VERSION: &str = "2025-11-25";

/// The client's message after the handshake.
pub const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

/// The longest time that a test waits for one event.
const PATIENCE: Duration = Duration::from_mins(1);

/// The first backoff of the bridges here. The fault table tests the real schedule.
pub const SOON: Duration = Duration::from_millis(5);

/// How long a flooded bridge may accept nothing before it counts as full.
const STALL: Duration = Duration::from_millis(500);

/// Starts a server, and a client whose bridge connects to it.
pub async fn dialogue() -> (Server, Client) {
    let server = Server::start().await;
    let client = Client::of(&server);
    (server, client)
}

/// Starts a dialogue with a modern server. It accepts only POSTs: the test sees every other request (R72).
pub async fn modern_dialogue() -> (Server, Client) {
    modern_dialogue_with(|_| {}).await
}

/// Starts a modern dialogue with other settings.
pub async fn modern_dialogue_with(configure: impl FnOnce(&mut Config)) -> (Server, Client) {
    let server = Server::start().await;
    server.expect_get();
    let mut config = server.config();
    configure(&mut config);
    (server, Client::start(config))
}

/// Waits for `future`. Fails the test, naming `awaited`, if it takes too long.
pub async fn within<T>(awaited: impl Display, future: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(PATIENCE, future).await;
    waited.unwrap_or_else(|_| panic!("waited {PATIENCE:?} for {awaited}"))
}

/// Returns a tool call with this id, written as JSON.
pub fn call(id: &str) -> String {
    request(id, "tools/call", r#"{"name":"t","arguments":{}}"#)
}

/// Returns a request with this id and these parameters, both written as JSON.
pub fn request(id: &str, method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#)
}

/// The `_meta` parameter of a modern request, which describes its client.
pub const META: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;

/// Returns a modern request with this id and, next to `_meta`, these members of its parameters, written as JSON.
pub fn modern(id: &str, method: &str, members: &str) -> String {
    let comma = if members.is_empty() { "" } else { "," };
    request(id, method, &format!("{{{members}{comma}{META}}}"))
}

/// Returns a modern call of the tool `t` with this id and these arguments, written as JSON.
pub fn modern_call(id: &str, arguments: &str) -> String {
    modern(id, "tools/call", &format!(r#""name":"t","arguments":{arguments}"#))
}

/// Returns a notification with these parameters, written as JSON.
pub fn notification(method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{params}}}"#)
}

/// Returns the client's cancellation of the request with this id, written as JSON.
pub fn cancel(id: &str) -> String {
    notification("notifications/cancelled", &format!(r#"{{"requestId":{id}}}"#))
}

/// Returns a progress notification.
pub fn progress(token: &str, step: usize) -> String {
    notification("notifications/progress", &format!(r#"{{"progressToken":{token},"progress":{step}}}"#))
}

/// Returns an error response with `data` that the bridge must not change.
pub fn refusal(id: &str, code: i64) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":"no","data":{{"x":1e400,"a":[1.0]}}}}}}"#)
}

/// Returns a successful response.
pub fn response(id: &str, result: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
}

/// Returns a message as a body of this content type.
pub fn framed(content_type: &str, message: &str) -> String {
    match content_type {
        "text/event-stream" => format!("data: {message}\n\n"),
        "application/x-ndjson" => format!("{message}\n"),
        _ => message.to_owned(),
    }
}

/// Returns the beginning of a message, for the text of a failed assertion.
fn shown(bytes: &[u8]) -> String {
    const MOST: usize = 400;
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(MOST)]).into_owned();
    if bytes.len() > MOST { format!("{text}… ({} bytes)", bytes.len()) } else { text }
}

/// Returns a port that refuses connections until its socket listens. No other process can take it meanwhile.
pub fn closed_port() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}
