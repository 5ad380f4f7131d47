//! The command. Its code is in the library.

use std::process::ExitCode;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    mcp_gangway_bench::run()
}

#[cfg(not(target_os = "linux"))]
#[allow(clippy::print_stderr, reason = "it only prints an error")]
fn main() -> ExitCode {
    eprintln!("bench: runs on Linux only, as it reads /proc");
    ExitCode::FAILURE
}
