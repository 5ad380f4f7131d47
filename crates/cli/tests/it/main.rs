//! Tests of the built command from outside: what a user types, what an MCP client does to the process, what a server
//! receives.
//!
//! Every wait has a limit, so that a fault fails instead of hanging. No test measures speed.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in a test, a panic is the report"
)]

mod bundle;
mod doctor;
mod log;
#[cfg(target_os = "linux")]
mod memory;
mod mistakes;
#[cfg(unix)]
mod pages;
mod reach;
mod said;
#[cfg(feature = "oauth")]
mod sign_in;
#[cfg(unix)]
mod stop;
#[cfg(unix)]
mod streams;
mod support;
