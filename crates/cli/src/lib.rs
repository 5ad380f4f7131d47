//! The command `mcp-gangway`. An MCP client starts it and exchanges JSON-RPC lines on stdio; a remote MCP server
//! receives the messages over HTTP.
//!
//! This crate wraps [`mcp_gangway_core`]:
//!
//! - arguments and environment (`args`, `given`, `settings`)
//! - headers, the address of the server, and the commands that print them (`headers`, `address`, `command`)
//! - the same for embedding programs (`embedded`)
//! - other bridges' options (`peers`)
//! - files that the user names (`files`)
//! - the log (`logging`)
//! - the command that finds out why a server does not work (`doctor`)
//! - signals and the parent's death (`stop`)
//! - the exit status
//! - subcommands without a server: bundles for Claude Desktop (`bundle`), shell completions (`completions`), the manual
//!   page (`manual`)
//!
//! Rules: the bridge's stdout carries only JSON-RPC, apart from `--help` and `--version`; a user's mistake is one line
//! on stderr and exit status 2; an unusable stderr can neither end nor block the bridge.

mod address;
mod args;
#[cfg(feature = "oauth")]
mod browser;
mod bundle;
mod command;
mod completions;
mod doctor;
pub mod embedded;
mod files;
mod given;
mod headers;
mod hints;
mod logging;
mod manual;
mod peers;
mod settings;
#[cfg(feature = "oauth")]
mod sign_in;
mod stop;

use std::{
    env,
    ffi::OsString,
    io::{self, Write as _},
    panic,
    process::ExitCode,
    sync::Arc,
};

use clap::Parser;
use mcp_gangway_core::{stdio, text::shown};
use tokio::runtime::Runtime;

pub use crate::given::Environment;
#[cfg(feature = "oauth")]
use crate::sign_in::Command;
use crate::{args::Args, doctor::Doctor, settings::Settings};

/// Runs the command with `args`, starting with the program's name, until the client, a signal or the parent's death
/// ends it.
///
/// The status is 0 for a requested end, 2 for a mistake in the settings, 1 for any other failure.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut args: Vec<_> = args.into_iter().collect();
    report_panics();
    if let Some(done) = run_without_server(&args) {
        return done.map_or_else(|failure| failure.report(), |()| ExitCode::SUCCESS);
    }
    let doctor = Doctor::take(&mut args);
    #[cfg(feature = "oauth")]
    let command = Command::take(&mut args);
    let translated = match peers::translated(args) {
        Ok(translated) => translated,
        Err(mistake) => return Failure::usage(mistake).report(),
    };
    let (mut variables, notes) = (translated.variables, translated.notes);
    if doctor.is_some() {
        variables.push(("MCP_NO_BROWSER", "1".to_owned()));
    }
    let typed = match Args::try_parse_from(translated.args) {
        Ok(typed) => typed,
        Err(page) if !page.use_stderr() => {
            // The reader may have closed the pipe.
            let _ = page.print();
            return ExitCode::SUCCESS;
        }
        Err(error) => return Failure::usage(args::explain(&error, args::HELP)).report(),
    };
    let environment: Environment = Arc::new(move |name| {
        let own = variables.iter().find(|(own, _)| *own == name);
        own.map(|(_, value)| value.into()).or_else(|| env::var_os(name))
    });
    let settings = Settings::new(typed, notes, &environment).map_err(Failure::from);
    if let Some(doctor) = doctor {
        let status = settings.and_then(|settings| examine(doctor, settings));
        return status.map_or_else(|failure| failure.report(), ExitCode::from);
    }
    let done = settings.and_then(|settings| {
        #[cfg(feature = "oauth")]
        if let Some(command) = command {
            return follow(command, &settings);
        }
        bridge(settings)
    });
    logging::finish();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Runs a subcommand that needs no server, if one directly follows the program's name.
fn run_without_server(args: &[OsString]) -> Option<Result<(), Failure>> {
    let [_, name, rest @ ..] = args else { return None };
    Some(match (name.to_str()?, rest) {
        ("bundle", rest) => bundle::run(rest),
        ("completions", rest) => completions::run(rest),
        ("complete", rest) => completions::complete(rest),
        ("man", []) => print(&manual::page()),
        ("man", _) => Err(Failure::usage("man takes no arguments; run 'mcp-gangway man | man -l -'".to_owned())),
        _ => return None,
    })
}

/// Prints a page. Its reader may stop early.
fn print(page: &str) -> Result<(), Failure> {
    match io::stdout().write_all(page.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::system("cannot write to stdout", &error))
        }
        _ => Ok(()),
    }
}

/// Runs a subcommand for a server instead of the bridge.
#[cfg(feature = "oauth")]
fn follow(command: Command, settings: &Settings) -> Result<(), Failure> {
    logging::start(&settings.log)?;
    settings.log_remarks();
    Ok(runtime()?.block_on(command.run(&settings.config))?)
}

/// Examines the server instead of running the bridge. Returns the exit status.
fn examine(doctor: Doctor, settings: Settings) -> Result<u8, Failure> {
    logging::start(&settings.log)?;
    let status = runtime()?.block_on(doctor.run(settings));
    logging::finish();
    status
}

/// Runs the bridge until the last open request is finished.
fn bridge(settings: Settings) -> Result<(), Failure> {
    logging::start(&settings.log)?;
    settings.log_remarks();
    keep_freed_memory();
    mcp_gangway_core::open_files::raise_limit();
    let runtime = runtime()?;
    let outcome = runtime.block_on(async {
        let stop = stop::requested().map_err(|error| Failure::system("cannot watch for signals", &error))?;
        Ok(mcp_gangway_core::run(settings.config, stdio::input(), stdio::output(), stop).await?)
    });
    // A thread that reads stdin cannot be woken, and must not delay the exit.
    runtime.shutdown_background();
    outcome.map(|end| tracing::info!("ended: {end:?}"))
}

/// Makes the allocator keep 1 MiB of freed memory at the end of the heap. By default glibc returns it to the system
/// from 128 KiB on, which is two read buffers, and then has to request it again, page by page. glibc keeps twice the
/// size of the largest block that it mapped separately and freed (`mallopt(3)`, `M_MMAP_THRESHOLD`), so allocate and
/// free such a block.
fn keep_freed_memory() {
    if cfg!(all(target_os = "linux", target_env = "gnu")) {
        drop(std::hint::black_box(Vec::<u8>::with_capacity(512 << 10)));
    }
}

/// Uses one thread: without hand-overs a round trip is faster, and a bridge mostly waits.
fn runtime() -> Result<Runtime, Failure> {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.map_err(|error| Failure::system("cannot start the event loop", &error))
}

/// Reports each panic as one safe line on stderr, because its text may contain a peer's. [`run`] calls this;
/// embedding programs without a panic hook of their own can call it too.
pub fn report_panics() {
    panic::set_hook(Box::new(|panic| logging::say(&panic.to_string())));
}

/// A failure of the command: one line for the user, and the exit status.
#[derive(Debug)]
pub struct Failure {
    line: String,
    status: u8,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.line)
    }
}

impl std::error::Error for Failure {}

impl Failure {
    /// The exit status of the command: 2 for a mistake in the settings, 1 for any other failure.
    pub fn status(&self) -> u8 {
        self.status
    }

    fn usage(line: String) -> Self {
        Self::new(line, 2)
    }

    fn system(what: &str, error: &io::Error) -> Self {
        Self::new(format!("{what}: {error}"), 1)
    }

    fn new(line: String, status: u8) -> Self {
        Self { line: shown(line).into_owned(), status }
    }

    fn report(&self) -> ExitCode {
        logging::say(&self.line);
        ExitCode::from(self.status)
    }
}

impl From<mcp_gangway_core::Error> for Failure {
    fn from(error: mcp_gangway_core::Error) -> Self {
        let line = error.worded(hints::words);
        let line = error.detail().map_or_else(|| line.clone(), |detail| format!("{line}: {detail}"));
        Self::new(line, if error.is_config() { 2 } else { 1 })
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Runs itself in a child process, because the hook is process-wide and stderr cannot be read from inside.
    #[test]
    fn panic_is_reported_in_one_line_with_control_characters_escaped() {
        const CHILD: &str = "PANICS";

        if env::var_os(CHILD).is_some() {
            report_panics();
            panic!("a peer said \u{1b}[2J\u{9b}\u{202e}\nforged line");
        }
        let arguments = [
            "--exact",
            "tests::panic_is_reported_in_one_line_with_control_characters_escaped",
            "--nocapture",
            "--test-threads=1",
        ];
        let child = Command::new(env::current_exe().unwrap()).args(arguments).env(CHILD, "1").output().unwrap();
        let text = String::from_utf8(child.stderr).unwrap();
        let said: Vec<_> = text.lines().filter(|line| line.contains("a peer said")).collect();
        assert_eq!(said.len(), 1, "{text}");
        assert!(said[0].starts_with("mcp-gangway: panicked at "), "{text}");
        assert!(said[0].ends_with(r"a peer said \u{1b}[2J\u{9b}\u{202e} forged line"), "{text}");
    }
}
