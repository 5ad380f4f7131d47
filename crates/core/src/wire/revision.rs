//! The revisions of MCP: the two eras, and the names that only the modern era has.

/// The version of the modern protocol.
pub(crate) const MODERN_VERSION: &str = "2026-07-28";
/// The newest version of the legacy protocol.
pub(crate) const NEWEST_LEGACY_VERSION: &str = "2025-11-25";

/// Members of the `_meta` of a modern request.
pub(crate) use crate::json::scanner::PROTOCOL_VERSION;
pub(crate) const CLIENT_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
pub(crate) const CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";
pub(crate) const LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
/// Member of the `_meta` of a modern result.
pub(crate) const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";
/// Member of the `_meta` of a notification on a subscription's stream.
pub(crate) const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";

/// The protocol that a client or server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Era {
    /// 2024-11-05 to 2025-11-25.
    Legacy,
    /// 2026-07-28.
    Modern,
}
