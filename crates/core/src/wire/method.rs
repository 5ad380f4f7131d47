//! The MCP methods that only read.

/// Methods that only read, so a request can be sent twice without harm.
const READ_ONLY_METHODS: &[&str] = &["ping", "initialize", "server/discover", "resources/read", "completion/complete"];

/// True if a method only reads.
pub(crate) fn only_reads(method: &str) -> bool {
    READ_ONLY_METHODS.contains(&method) || method.ends_with("/list") || method.ends_with("/get")
}
