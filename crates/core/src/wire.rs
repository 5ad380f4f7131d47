//! JSON-RPC messages, the HTTP bodies and headers that carry them, and the storage of large ones.

pub(crate) mod body;
pub(crate) mod error_text;
pub(crate) mod headers;
pub(crate) mod id;
pub(crate) mod large_message;
pub(crate) mod line;
pub(crate) mod long_values;
pub(crate) mod message;
pub(crate) mod method;
pub(crate) mod missed_events;
pub(crate) mod reply;
pub(crate) mod responses;
pub(crate) mod revision;
pub(crate) mod spool;
