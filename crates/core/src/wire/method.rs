//! What the methods of MCP do, as far as a bridge must know it.

/// Methods that only read, so that a second time does no harm.
const READING: &[&str] = &["ping", "initialize", "server/discover", "resources/read", "completion/complete"];

/// Whether a method only reads.
pub(crate) fn only_reads(method: &str) -> bool {
    READING.contains(&method) || method.ends_with("/list") || method.ends_with("/get")
}
