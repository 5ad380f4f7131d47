//! JSON as text: what a scanner sees while bytes pass, and changes that leave all other bytes as they are. No I/O, and no
//! knowledge of MCP.

pub(crate) mod nesting;
pub(crate) mod scanner;
pub(crate) mod splice;
mod wide;
