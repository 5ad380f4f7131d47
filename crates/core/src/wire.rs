//! What travels: JSON-RPC messages, the bodies and headers that carry them, and where large ones are kept.

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
