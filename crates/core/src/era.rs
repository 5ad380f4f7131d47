//! The two eras of MCP, and which one each side speaks: "legacy" up to 2025-11-25, with a handshake and sessions, and
//! "modern" from 2026-07-28 on, where each request stands for itself.
//!
//! Rule: the client's era is told by each message, the server's is learnt from its replies, and no round trip is spent on
//! the question (R81). Where the two differ, one of the translators stands between; where they agree, bytes pass. All of
//! it is state and text: no I/O.

pub(crate) mod legacy_to_modern;
pub(crate) mod modern_to_legacy;
pub(crate) mod tools;

/// The version that makes a server modern.
pub(crate) const MODERN_VERSION: &str = "2026-07-28";
/// The newest version of the legacy protocol.
pub(crate) const NEWEST_LEGACY_VERSION: &str = "2025-11-25";

/// Members of the `_meta` of a modern request.
pub(crate) const PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
pub(crate) const CLIENT_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
pub(crate) const CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";
pub(crate) const LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
/// Of the `_meta` of a modern result.
pub(crate) const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";
/// Of the `_meta` of a notification on a subscription's stream.
pub(crate) const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";

/// A side's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Era {
    /// 2024-11-05 to 2025-11-25.
    Legacy,
    /// 2026-07-28.
    Modern,
}
