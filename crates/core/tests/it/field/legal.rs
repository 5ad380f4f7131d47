//! Forms that are odd, rare or ugly, and right by the letter of HTTP, SSE, JSON or JSON-RPC. All of them work; who makes the
//! bridge stricter about something that is wrong finds here what must go on working.

/// Streams of events.
mod events;
/// JSON, and JSON-RPC in it.
mod messages;
/// What is said to messages that want no answer, to GET and to DELETE.
mod receipts;
/// Headers that stay with a client, and what only speaks of sessions.
mod sessions;
/// HTTP itself: heads, bodies, compression, redirects, HTTP/2.
mod wire;

/// What is none of ASCII, in one to four bytes.
const FOREIGN: &str = "é日本🦀\u{2028}\u{85}\u{feff}";

/// A whole reply with this head, to which the body's length is added.
fn sized(head: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut reply = format!("{head}\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    reply.extend_from_slice(body);
    reply
}
