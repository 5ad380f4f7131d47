//! The core against a scripted HTTP server on a real socket. Tests follow the specification and are named by its
//! requirements; each reads as a dialogue between a client, the bridge and a server.

// A test says what it needs by failing.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout, clippy::unwrap_used)]

/// What the server answers: statuses, content types, event streams, and the messages in them.
mod answers;
/// Headers that are read anew when the server refuses them.
mod credentials;
/// Connections that break at each byte.
mod cuts;
/// How the bridge ends, and what it does while nobody reads its output.
mod end;
/// Messages, lines and bodies that never end.
mod endless;
/// What can happen to a connection: refused, cut, reset, silent.
mod failures;
/// What becomes of a request for each way in which it can die.
mod faults;
/// What was seen of servers and gateways in the world, and forms that are odd but right.
mod field;
/// The HTTP client alone: bodies, versions, connections.
mod http_client;
/// The transport of 2024-11-05, and how it is found.
mod http_sse;
/// What may overtake what, and how many at once; cancellation.
mod lanes;
/// Messages that are too large for memory.
mod large;
/// Subscriptions of modern clients at modern servers.
mod listens;
/// Modern clients at modern servers: headers, tools, answers, cancellation.
mod modern;
/// Companies' networks and hostile peers: certificates of both sides, proxies, cookies, redirects, endless headers.
mod network;
/// Signing in where a server asks for it.
#[cfg(feature = "oauth")]
mod oauth;
/// What no authorization server gets, and no server that names one can do.
#[cfg(feature = "oauth")]
mod oauth_strangers;
/// What the bridge takes the server for, and what makes it think again.
mod probes;
/// What the server pushes, and streams that break and go on.
mod push;
/// Sessions that are lost and replaced.
mod renewal;
/// The list of rules.
mod rules;
/// The handshake, the session's headers, requests of the server, the end of the session.
mod session;
/// Connections that die while nobody uses them.
mod sleeping;
/// Lines in and lines out: bytes, ids, garbage, batches, sizes.
mod stdio;
/// Ids that fit nothing, or seem to be somebody else's.
mod strangers;
/// The scripted server and the client.
mod support;
/// A modern client at a legacy server.
mod to_legacy;
/// A legacy client at a modern server.
mod to_modern;
/// The way over the network: compression, redirects, TLS, HTTP/2, addresses, many streams.
mod transport;
/// Peers that mean harm: what they send ends nothing, holds nothing up and runs nothing twice.
mod withstand;
