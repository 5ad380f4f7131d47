//! The log: where it goes, how much, in which form.
//!
//! Rule: the log serves the bridge, never the other way round. A line that cannot be written is dropped: a closed
//! stderr, a full disk, or a client that never reads its child's stderr neither ends the process nor holds it up.
//! Levels below `warn` are for this project's own events; those of the libraries beneath would drown them.

use std::{
    fs::File,
    io::{self, Write},
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
};

use gangway::Error;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    filter::Targets,
    fmt::{self, MakeWriter},
    prelude::*,
};

use crate::files;

/// What the user wants to read, and where.
#[derive(Debug)]
pub(crate) struct LogSettings {
    /// The least severe level that is written; `OFF` for none.
    pub(crate) level: LevelFilter,
    /// One JSON object a line, for machines.
    pub(crate) json: bool,
    /// A file to append to, in place of stderr.
    pub(crate) file: Option<PathBuf>,
}

/// The level that a name stands for, in any case. Names are those of `mcpgateway.wrapper`, with its meaning for the odd
/// ones: several words for silence, and `info` for a name that nobody knows.
pub(crate) fn level(name: &str) -> LevelFilter {
    match name.trim().to_ascii_uppercase().as_str() {
        "" | "OFF" | "NONE" | "DISABLE" | "FALSE" | "0" => LevelFilter::OFF,
        "CRITICAL" | "ERROR" => LevelFilter::ERROR,
        "WARNING" | "WARN" => LevelFilter::WARN,
        "DEBUG" => LevelFilter::DEBUG,
        "TRACE" => LevelFilter::TRACE,
        _ => LevelFilter::INFO,
    }
}

/// Installs the log for the rest of the process. Silence costs nothing: there is no subscriber then, and no file.
///
/// # Errors
/// A log file that cannot be opened.
pub(crate) fn start(settings: &LogSettings) -> Result<(), Error> {
    if settings.level == LevelFilter::OFF {
        return Ok(());
    }
    let sink = match &settings.file {
        None => Sink::new(Target::Stderr),
        Some(path) => Sink::new(Target::File(
            files::append(path)
                .map_err(|error| Error::config(format!("cannot write the log file {}: {error}", path.display())))?,
        )),
    };
    let filter = Targets::new()
        .with_default(settings.level.min(LevelFilter::WARN))
        .with_target("gangway", settings.level)
        .with_target("mcp_gangway", settings.level);
    let lines = fmt::layer().with_writer(sink);
    let lines = if settings.json { lines.json().boxed() } else { lines.with_ansi(false).boxed() };
    // A log that is there already belongs to the program around this one, and is used.
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
    Ok(())
}

/// Says something to the user on stderr, whatever the log does; if nobody reads there, nobody waits.
#[cfg(feature = "oauth")]
pub(crate) fn say(line: &str) {
    let line = format!("mcp-gangway: {line}\n");
    let _ = (&Sink::new(Target::Stderr)).write(line.as_bytes());
}

/// Writes what can be written at once, and forgets the rest.
struct Sink {
    target: Target,
    /// Nobody reads at the other end: do not wait for them again.
    stuck: AtomicBool,
}

enum Target {
    Stderr,
    File(File),
}

impl Sink {
    fn new(target: Target) -> Self {
        Self { target, stuck: AtomicBool::new(false) }
    }

    /// Whether the next [`Self::PIECE`] bytes can be written without blocking. A reader who is only slow gets a moment.
    #[cfg(unix)]
    fn is_ready(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        use std::os::fd::AsFd;

        const MOMENT: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

        let stderr = io::stderr();
        let fd = match &self.target {
            Target::Stderr => stderr.as_fd(),
            Target::File(file) => file.as_fd(),
        };
        let patience = if self.stuck.load(Ordering::Relaxed) { &NOW } else { &MOMENT };
        let mut fds = [PollFd::new(&fd, PollFlags::OUT)];
        let ready = rustix::io::retry_on_intr(|| poll(&mut fds, Some(patience))).is_ok_and(|count| count > 0);
        self.stuck.store(!ready, Ordering::Relaxed);
        ready
    }

    /// As much as a pipe that polls as writable takes without blocking.
    #[cfg(unix)]
    const PIECE: usize = rustix::pipe::PIPE_BUF;

    #[cfg(not(unix))]
    fn is_ready(&self) -> bool {
        !self.stuck.load(Ordering::Relaxed)
    }

    #[cfg(not(unix))]
    const PIECE: usize = 4096;
}

impl Write for &Sink {
    /// Takes a whole line, as the formatter hands it over, and never fails.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        for piece in line.chunks(Sink::PIECE) {
            let written = self.is_ready()
                && match &self.target {
                    Target::Stderr => io::stderr().write_all(piece),
                    Target::File(file) => (&*file).write_all(piece),
                }
                .is_ok();
            if !written {
                break;
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = &'a Sink;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn level_names_are_those_of_upstream() {
        for (name, expected) in [
            ("", LevelFilter::OFF),
            ("off", LevelFilter::OFF),
            ("None", LevelFilter::OFF),
            ("DISABLE", LevelFilter::OFF),
            ("false", LevelFilter::OFF),
            ("0", LevelFilter::OFF),
            ("critical", LevelFilter::ERROR),
            ("ERROR", LevelFilter::ERROR),
            ("warn", LevelFilter::WARN),
            ("Warning", LevelFilter::WARN),
            ("INFO", LevelFilter::INFO),
            ("debug", LevelFilter::DEBUG),
            ("trace", LevelFilter::TRACE),
            ("verbose", LevelFilter::INFO),
        ] {
            assert_eq!(level(name), expected, "{name:?}");
        }
    }
}
