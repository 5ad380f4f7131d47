//! Runs programs under callgrind, which counts the instructions that they execute.

use std::{
    env, fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use crate::{
    Result,
    bridge::{Bridge, Processors},
    measure::Server,
    peers::Peer,
};

/// The time limit. A program that takes longer under valgrind hangs.
pub(crate) const LIMIT: Duration = Duration::from_mins(2);

/// The file that callgrind writes at the end of a program.
pub(crate) struct Output {
    file: PathBuf,
}

impl Output {
    pub(crate) fn new() -> Self {
        Self { file: env::temp_dir().join(format!("callgrind.{}", std::process::id())) }
    }

    /// Counts a bridge from its start through `live` to its end.
    pub(crate) fn of_life(
        command: &[&str],
        options: &[&str],
        live: impl FnOnce(&mut Bridge, Instant) -> Result<()>,
    ) -> Result<Self> {
        let (server, output) = (Server::start()?, Self::new());
        let mut words = vec!["valgrind".to_owned()];
        words.extend(output.options());
        words.extend(options.iter().chain(command).map(ToString::to_string));
        let peer = Peer { name: String::new(), environment: Vec::new(), words, version: String::new() };
        let until = Instant::now() + LIMIT;
        let mut bridge = Bridge::start(&peer, &server.url, Processors::default(), false)?;
        live(&mut bridge, until)?;
        bridge.end(until)?;
        Ok(output)
    }

    /// Returns the options that make valgrind write this file.
    pub(crate) fn options(&self) -> [String; 2] {
        ["--tool=callgrind".to_owned(), format!("--callgrind-out-file={}", self.file.display())]
    }

    pub(crate) fn text(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.file)?)
    }

    /// Returns the instructions of the whole program.
    pub(crate) fn total(&self) -> Result<u64> {
        let text = self.text()?;
        let line = text.lines().find_map(|line| line.strip_prefix("totals: ").or(line.strip_prefix("summary: ")));
        Ok(line.ok_or("callgrind counted nothing")?.trim().parse()?)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.file);
    }
}
