//! Tests the core against a scripted HTTP server on a real socket. Test names cite the requirements of the
//! specification. Each test reads as a dialogue between a client, the bridge and a server.

// A test reports a failure by panicking.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout, clippy::unwrap_used)]

use mcp_gangway_testing as support;

/// Server responses: status codes, content types, event streams and the messages in them.
mod answers;
/// Servers that are not there yet when the client starts.
mod attach;
/// Headers that are read again when the server refuses them.
mod credentials;
/// Connections that break at each byte.
mod cuts;
/// The end of the bridge, and a client that does not read its output.
mod end;
/// Endless messages, lines and bodies.
mod endless;
/// Connections that are refused, cut, reset or silent.
mod failures;
/// The fault table: the outcome of a request for each way in which it can die.
mod faults;
/// Behaviour seen in real servers and gateways, and unusual but valid forms.
mod field;
/// The HTTP client on its own: bodies, versions, connections.
mod http_client;
/// The transport of 2024-11-05 and its detection.
mod http_sse;
/// A scripted authorization server.
#[cfg(feature = "oauth")]
mod issuer;
/// Ordering, the limit on concurrent requests, and cancellation.
mod lanes;
/// Messages that are too large for memory.
mod large;
/// The direction of imports between the folders of the core.
mod layers;
/// Subscriptions of modern clients at modern servers.
mod listens;
/// Modern clients at modern servers: headers, tools, responses, cancellation.
mod modern;
/// Company networks and hostile peers: certificates on both sides, proxies, cookies, redirects, endless headers.
mod network;
/// Sign-in when a server asks for it.
#[cfg(feature = "oauth")]
mod oauth;
/// Hostile authorization servers, and servers that name one.
#[cfg(feature = "oauth")]
mod oauth_strangers;
/// Detection of the server's era, and when the bridge probes again.
mod probes;
/// Server pushes, and streams that break and resume.
mod push;
/// Sessions that are lost and replaced.
mod renewal;
/// The list of rules.
mod rules;
/// The handshake, the session's headers, requests from the server, the end of the session.
mod session;
/// Idle connections that die.
mod sleeping;
/// Lines in and lines out: bytes, ids, garbage, batches, sizes.
mod stdio;
/// Ids that are unknown or collide with other ids.
mod strangers;
/// A modern client at a legacy server.
mod to_legacy;
/// A legacy client at a modern server.
mod to_modern;
/// The network layer: compression, redirects, TLS, HTTP/2, addresses, many streams.
mod transport;
/// Hostile peers: they cannot end or block the bridge, or make a tool run twice.
mod withstand;
