//! The command. All of its code is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    mcp_gangway::run(std::env::args_os())
}
