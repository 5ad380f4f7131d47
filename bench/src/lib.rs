//! `bench/run`: compares bridges between MCP clients on stdio and MCP servers over HTTP.
//!
//! One program with several roles. `measure` is the client that starts bridges and times them. `server` is their MCP
//! server, in its own process. `floor` is a bridge that only copies, as a lower bound. `report` writes tables and plots
//! again from recorded results. `instructions` counts the instructions of the hot paths.
//!
//! Rules: each wait has a limit. A bridge that hangs or loses a response is reported in words, never as a number. All
//! bridges use the same server in the same round, in turn. `measure.rs` defines the meaning of each figure.

#![cfg(target_os = "linux")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints its results")]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the figures need no full precision"
)]

/// A bridge as a child process.
mod bridge;
/// Programs under callgrind.
mod callgrind;
/// The server without a bridge.
mod direct;
/// A bridge that only copies.
mod floor;
/// Counts of instructions, and their record.
mod instructions;
/// Reads lines of any length with a time limit.
mod lines;
/// The tests.
mod measure;
/// The list of bridges.
mod peers;
/// Plots of results.
mod plot;
/// Results as a file and as tables.
mod report;
/// The MCP server for all bridges.
mod server;

use std::{error::Error, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

/// Errors are texts for people.
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
        /// The file that `measure` wrote
        results: PathBuf,
        /// Folder for results.md and the plots
        folder: PathBuf,
    },
    /// The MCP server: prints its URL and ends when its stdin does
    Server,
    /// A bridge that only copies bytes: the minimum cost of any bridge
    Floor {
        /// URL of the server, only `http`
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
