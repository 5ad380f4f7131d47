//! The client's side: stdin, stdout, and what the client is asked.

pub(crate) mod questions;
pub mod stdio;
pub(crate) mod tool_filter;
