//! The life of each message, from its line on stdin to its answer.

pub(crate) mod call_table;
pub(crate) mod exchange;
pub(crate) mod intake;
pub(crate) mod own_requests;
pub(crate) mod parked_calls;
pub(crate) mod permits;
pub(crate) mod push_stream;
pub(crate) mod renewal;
#[cfg(feature = "oauth")]
pub(crate) mod sign_in_prompt;
pub(crate) mod subscriptions;
