//! Forms that are unusual, rare or ugly, and valid in HTTP, SSE, JSON or JSON-RPC. All of them must keep working when
//! the bridge becomes stricter about invalid ones.

/// Streams of events.
mod events;
/// JSON and JSON-RPC.
mod messages;
/// Responses to messages that want no answer, to GET and to DELETE.
mod receipts;
/// Headers that a client keeps, and texts that only mention sessions.
mod sessions;
/// HTTP: heads, bodies, compression, redirects, HTTP/2.
mod wire;

/// Non-ASCII characters of two to four bytes.
const FOREIGN: &str = "é日本🦀\u{2028}\u{85}\u{feff}";

/// Returns a whole HTTP response with this head and the length of the body.
fn sized(head: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut reply = format!("{head}\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    reply.extend_from_slice(body);
    reply
}
