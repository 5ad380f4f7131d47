//! `bench/run`: bridges between MCP clients on stdio and MCP servers over HTTP, measured side by side.
//!
//! One program in several roles: `measure` is the client that starts bridges and times them, `server` the MCP server that
//! they talk to (a process of its own), `floor` a bridge that only copies, to show what is left to gain, `report` writes
//! tables and plots again from recorded results, and `instructions` counts what the hot paths execute.
//!
//! Rules: each wait has a limit, and a bridge that hangs or loses an answer is reported in words, never as a number. All
//! bridges meet the same server in the same round, in turn. What a figure means is said once, in `measure.rs`.

#![cfg(target_os = "linux")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench reports what it measures")]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures are read by people"
)]

/// A bridge as a child process: what it is told, what it says, what it uses.
mod bridge;
/// Programs under callgrind.
mod callgrind;
/// The server without a bridge.
mod direct;
/// A bridge that only copies.
mod floor;
/// Counts of instructions, and their record.
mod instructions;
/// Reads lines with a limit on the wait, however long they are.
mod lines;
/// The tests: what is measured, and how.
mod measure;
/// Which bridges there are.
mod peers;
/// Pictures of results.
mod plot;
/// Results as a file and as tables.
mod report;
/// The MCP server that all bridges are measured against.
mod server;

use std::{error::Error, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

/// What went wrong, for people.
type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Measures bridges between MCP clients on stdio and MCP servers over HTTP
#[derive(Parser)]
#[command(name = "bench")]
struct Arguments {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Measure all bridges that are installed
    Measure(measure::Options),
    /// Write tables and plots from recorded results
    Report {
        /// What `measure` wrote
        results: PathBuf,
        /// Folder for results.md and the plots
        folder: PathBuf,
    },
    /// The MCP server: prints its URL and ends with its stdin
    Server,
    /// A bridge that only copies bytes: what any bridge costs at least
    Floor {
        /// Where the server is; only `http`
        url: http::Uri,
    },
    /// Count the instructions of the hot paths under valgrind
    Instructions(instructions::Options),
}

/// Runs the command.
pub fn run() -> ExitCode {
    let done = match Arguments::parse().role {
        Role::Measure(options) => measure::run(&options),
        Role::Report { results, folder } => report::Results::read(&results).and_then(|all| all.publish(&folder)),
        Role::Server => server::run(),
        Role::Floor { url } => floor::run(&url),
        Role::Instructions(options) => instructions::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}
