//! Translation between the two eras of MCP, as text (no I/O).

pub(crate) mod legacy_to_modern;
pub(crate) mod modern_to_legacy;
pub(crate) mod tool_headers;
