//! Runs the bridge inside a program, between two pipes instead of stdio: lists the tools of an MCP server.
//!
//! ```sh
//! cargo run --package mcp-gangway-core --example embed -- https://example.com/mcp
//! ```

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::{env, error::Error};

use mcp_gangway_core::{Config, run};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, duplex};

/// The bytes that a pipe holds.
const PIPE: usize = 64 << 10;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = env::args().nth(1).ok_or("name the URL of an MCP server")?;
    let (mut requests, input) = duplex(PIPE);
    let (output, responses) = duplex(PIPE);
    // The bridge ends when `requests` is closed; this future could end it earlier.
    let bridge = tokio::spawn(run(Config::new(&url)?, input, output, std::future::pending()));

    requests
        .write_all(
            br#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"embed","version":"1"}}}
{"jsonrpc":"2.0","method":"notifications/initialized"}
{"jsonrpc":"2.0","id":2,"method":"tools/list"}
"#,
        )
        .await?;
    drop(requests);
    let mut lines = BufReader::new(responses).lines();
    while let Some(line) = lines.next_line().await? {
        println!("{line}");
    }
    println!("{:?}", bridge.await??);
    Ok(())
}
