//! The log, and the messages to the user on stderr.
//!
//! Rule: the log never affects the bridge. A line that cannot be written is dropped: a closed stderr, a full disk, or
//! a client that never reads its child's stderr neither ends the process nor delays it. Peers can neither flood the
//! log (`flood`) nor inject control characters or lines (`lines`). Levels below `warn` are only for this project's
//! own events; those of libraries would be too many.

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

/// The longest message to the user, in bytes. URLs to sign in at are shorter.
const MAX_STDERR_BYTES: usize = 8 << 10;

/// The level, format and destination of the log.
#[derive(Debug)]
pub(crate) struct LogSettings {
    /// The least severe level that is written; `OFF` for none.
    pub(crate) level: LevelFilter,
    /// One JSON object per line, for machines.
    pub(crate) json: bool,
    /// A file to append to, instead of stderr.
    pub(crate) file: Option<PathBuf>,
}

/// Returns the level of this name, in any case. The names are those of `mcpgateway.wrapper` and behave as there:
/// several words turn the log off, and an unknown name means `info`.
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

/// Installs the log for the rest of the process. Level `OFF` costs nothing: no subscriber and no file.
///
/// # Errors
/// The log file cannot be opened.
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
    // If the embedding program has installed a log already, that one is used.
    let _ = tracing_subscriber::registry().with(filter).with(Lines::new(sink, settings.json)).try_init();
    Ok(())
}

/// Completes the log: writes the counts of suppressed lines.
pub(crate) fn finish() {
    tracing::dispatcher::get_default(|log| {
        if let Some(lines) = log.downcast_ref::<Lines>() {
            lines.log_all_suppressed();
        }
    });
}

/// Writes a message to the user on stderr, always on one line and at any log level. Does not wait if stderr is not
/// read.
pub(crate) fn say(text: &str) {
    Sink::new(Target::Stderr).write(&format!("mcp-gangway: {}\n", excerpt(text, MAX_STDERR_BYTES)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_level_names_match_upstream() {
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
