//! The command `mcp-gangway`: an MCP client starts it and speaks JSON-RPC lines on stdio; a remote MCP server gets them
//! over HTTP.
//!
//! This crate is the shell around [`mcp_gangway_core`]: arguments and environment (`args`, `given`, `settings`), headers and the
//! command that gives some (`headers`, `command`), the same for other programs (`embedded`), other bridges' options (`peers`), the files that it is told of (`files`), the log (`logging`), what ends the
//! process (`stop`), and the exit status. Rules: stdout carries nothing but JSON-RPC, `--help` and `--version` apart; a
//! mistake of the user is one line on stderr and exit status 2; no failing stderr can end or stop the bridge.

mod args;
#[cfg(feature = "oauth")]
mod browser;
mod command;
pub mod embedded;
mod files;
mod given;
mod headers;
mod hints;
mod logging;
mod peers;
mod settings;
#[cfg(feature = "oauth")]
mod sign_in;
mod stop;

use std::{env, ffi::OsString, io, panic, process::ExitCode, sync::Arc};

use clap::Parser;
use mcp_gangway_core::{stdio, text::shown};
use tokio::runtime::Runtime;

pub use crate::given::Environment;
#[cfg(feature = "oauth")]
use crate::sign_in::Command;
use crate::{args::Args, settings::Settings};

/// Runs the command with `args`, the program's name first, until the client, a signal or the parent's death ends it.
///
/// The status is 0 for every end that somebody asked for, 2 for a mistake in the settings, 1 for any other failure.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    #[cfg_attr(not(feature = "oauth"), expect(unused_mut, reason = "there are no commands to take out"))]
    let mut args: Vec<_> = args.into_iter().collect();
    #[cfg(feature = "oauth")]
    let command = Command::take(&mut args);
    report_panics();
    let translated = match peers::translated(args) {
        Ok(translated) => translated,
        Err(mistake) => return Failure::usage(mistake).report(),
    };
    let (variables, notes) = (translated.variables, translated.notes);
    let typed = match Args::try_parse_from(translated.args) {
        Ok(typed) => typed,
        Err(page) if !page.use_stderr() => {
            // A reader who has seen enough of the help may close the pipe.
            let _ = page.print();
            return ExitCode::SUCCESS;
        }
        Err(error) => return Failure::usage(args::explain(&error)).report(),
    };
    let environment: Environment = Arc::new(move |name| {
        let own = variables.iter().find(|(own, _)| *own == name);
        own.map(|(_, value)| value.into()).or_else(|| env::var_os(name))
    });
    let settings = Settings::new(typed, notes, &environment).map_err(Failure::from);
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

/// Does what a command says in the place of bridging.
#[cfg(feature = "oauth")]
fn follow(command: Command, settings: &Settings) -> Result<(), Failure> {
    logging::start(&settings.log)?;
    settings.log_remarks();
    Ok(runtime()?.block_on(command.run(&settings.config))?)
}

/// From settings that are known to be good to the end of the last open request.
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
    // A thread that waits for a line on stdin cannot be woken, and must not hold the exit.
    runtime.shutdown_background();
    outcome.map(|end| tracing::info!("ended: {end:?}"))
}

/// Lets the allocator keep 1 MiB of freed memory at the end of the heap. The C library gives it back as soon as there are
/// 128 KiB, which are two read buffers, and has to ask for it again, page by page. It keeps twice as much as the largest
/// block that it took from the system for itself and gave back (`mallopt(3)`, `M_MMAP_THRESHOLD`), so it gets such a block.
fn keep_freed_memory() {
    if cfg!(all(target_os = "linux", target_env = "gnu")) {
        drop(std::hint::black_box(Vec::<u8>::with_capacity(512 << 10)));
    }
}

/// One thread: a round trip costs less without hand-overs, and a bridge waits far more than it works.
fn runtime() -> Result<Runtime, Failure> {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.map_err(|error| Failure::system("cannot start the event loop", &error))
}

/// Has panics said as everything is said, in one line that does nothing: their texts may hold a peer's. For programs that
/// have this crate in them and no hook of their own; [`run`] does it.
pub fn report_panics() {
    panic::set_hook(Box::new(|panic| logging::say(&panic.to_string())));
}

/// What ends the command before its time: one line for the user, and the exit status.
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

    /// Runs itself once more, as the hook is the process's and stderr cannot be looked at from within.
    #[test]
    fn a_panic_is_one_line_that_does_nothing() {
        const CHILD: &str = "PANICS";

        if env::var_os(CHILD).is_some() {
            report_panics();
            panic!("a peer said \u{1b}[2J\u{9b}\u{202e}\nforged line");
        }
        let arguments = ["--exact", "tests::a_panic_is_one_line_that_does_nothing", "--nocapture", "--test-threads=1"];
        let child = Command::new(env::current_exe().unwrap()).args(arguments).env(CHILD, "1").output().unwrap();
        let text = String::from_utf8(child.stderr).unwrap();
        let said: Vec<_> = text.lines().filter(|line| line.contains("a peer said")).collect();
        assert_eq!(said.len(), 1, "{text}");
        assert!(said[0].starts_with("mcp-gangway: panicked at "), "{text}");
        assert!(said[0].ends_with(r"a peer said \u{1b}[2J\u{9b}\u{202e} forged line"), "{text}");
    }
}
