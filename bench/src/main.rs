//! The command; everything it does is in the library.

use std::process::ExitCode;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    mcp_gangway_bench::run()
}

#[cfg(not(target_os = "linux"))]
#[allow(clippy::print_stderr, reason = "there is nothing else to do")]
fn main() -> ExitCode {
    eprintln!("bench: it reads what bridges use from /proc, so it runs on Linux only");
    ExitCode::FAILURE
}
