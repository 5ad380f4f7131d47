//! JSON as text: a scanner that reads bytes as they arrive, and edits that keep all other bytes. No I/O, and no MCP
//! logic.

pub(crate) mod nesting;
pub(crate) mod scanner;
pub(crate) mod splice;
#[cfg(test)]
pub(crate) mod values;
mod wide;
