//! The log: where it goes, how much, in which form; and what the user is told on stderr beside it.
//!
//! Rule: the log serves the bridge, never the other way round. A line that cannot be written is dropped: a closed
//! stderr, a full disk, or a client that never reads its child's stderr neither ends the process nor holds it up. What
//! peers choose can neither flood it (`flood`) nor act in it (`lines`).
//! Levels below `warn` are for this project's own events; those of the libraries beneath would drown them.

mod flood;
mod lines;
mod sink;

use std::path::PathBuf;

use mcp_gangway_core::{Error, text::excerpt};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{filter::Targets, prelude::*};

use self::{
    lines::Lines,
    sink::{Sink, Target},
};

use crate::files;

/// The longest line that the user is told. URLs to sign in at are shorter.
const LONGEST_SAID: usize = 8 << 10;

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
    let filter =
        Targets::new().with_default(settings.level.min(LevelFilter::WARN)).with_target("mcp_gangway", settings.level);
    // A log that is there already belongs to the program around this one, and is used.
    let _ = tracing_subscriber::registry().with(filter).with(Lines::new(sink, settings.json)).try_init();
    Ok(())
}

/// Completes the log: lines that were only counted so far are told.
pub(crate) fn finish() {
    tracing::dispatcher::get_default(|log| {
        if let Some(lines) = log.downcast_ref::<Lines>() {
            lines.tell_all();
        }
    });
}

/// Says something to the user on stderr, in one line whatever the text holds and whatever the log does; if nobody reads
/// there, nobody waits.
pub(crate) fn say(text: &str) {
    Sink::new(Target::Stderr).write(&format!("mcp-gangway: {}\n", excerpt(text, LONGEST_SAID)));
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
