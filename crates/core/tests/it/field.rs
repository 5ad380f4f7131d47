//! Behaviour seen in real servers and gateways. Each dialogue is named after it. Rule: a server that works without the
//! bridge works through it.

/// Which messages reach the client.
mod answers;
/// Wrong or missing labels, and messages on another stream than the response's.
mod labels;
/// Unusual but valid forms.
mod legal;
/// Servers of 2024-11-05.
mod old_servers;
/// The reasons reported for refusals and for unreachable servers.
mod reasons;
/// Authorization servers, and servers that want a key.
#[cfg(feature = "oauth")]
mod sign_ins;
/// Servers on a Unix socket.
#[cfg(unix)]
mod sockets;
/// Tools that are hidden from the client.
mod tools;
