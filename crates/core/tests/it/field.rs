//! What people have met: servers and gateways that answer in their own way, each as a dialogue that is named by what it is. Where
//! something works without a bridge, it works through it.

/// What reaches the client, and what does not.
mod answers;
/// Labels that are wrong or missing, and other streams than the reply's.
mod labels;
/// Forms that are odd and legal.
mod legal;
/// Servers of 2024-11-05.
mod old_servers;
/// What is told of refusals, and of servers that are not there.
mod reasons;
/// Authorization servers, and servers that want a key.
#[cfg(feature = "oauth")]
mod sign_ins;
/// Servers on a Unix socket.
#[cfg(unix)]
mod sockets;
/// Tools that the client may not see.
mod tools;
