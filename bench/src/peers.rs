//! Reads the list of bridges: a line for each, `NAME = [VARIABLE=VALUE]... COMMAND WORD...`. Words are split at blanks,
//! without quoting. `{url}` is the server's URL, `{peers}` the folder of `bench/install-peers`, `{gangway}` the command
//! of this project, and `{bench}` this program. Lines that begin with `#` are comments.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::Result;

/// One bridge.
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) environment: Vec<(String, String)>,
    /// The command and its arguments. `{url}` is not replaced yet.
    pub(crate) words: Vec<String>,
    /// Empty if unknown.
    pub(crate) version: String,
}

/// Paths for the placeholders.
pub(crate) struct Places {
    pub(crate) gangway: PathBuf,
    pub(crate) peers: PathBuf,
}

/// Returns the installed bridges, and the names of the others.
pub(crate) fn read(file: &Path, places: &Places) -> Result<(Vec<Peer>, Vec<String>)> {
    let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let bench = env::current_exe()?;
    let versions = fs::read_to_string(places.peers.join("versions")).unwrap_or_default();
    let versions: BTreeMap<&str, &str> = versions.lines().filter_map(|line| line.split_once(' ')).collect();
    let (mut installed, mut absent) = (Vec::new(), Vec::new());
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (name, command) =
            line.split_once(" = ").ok_or_else(|| format!("{}: no ` = ` in {line}", file.display()))?;
        let filled = |word: &str| {
            word.replace("{gangway}", &places.gangway.to_string_lossy())
                .replace("{peers}", &places.peers.to_string_lossy())
                .replace("{bench}", &bench.to_string_lossy())
        };
        let mut words = command.split_whitespace().peekable();
        let mut environment = Vec::new();
        while let Some((variable, value)) = words.peek().and_then(|word| word.split_once('=')) {
            environment.push((variable.to_owned(), filled(value)));
            words.next();
        }
        let words: Vec<String> = words.map(filled).collect();
        // Check the files of an interpreter too: it may be installed without them.
        let there = words.iter().enumerate().all(|(at, word)| match at {
            0 => is_command(word),
            _ => !Path::new(word).starts_with(&places.peers) || Path::new(word).exists(),
        });
        if there {
            let version = if command.starts_with("{gangway}") {
                said_version(&words).unwrap_or_default()
            } else {
                versions.get(name).map(ToString::to_string).unwrap_or_default()
            };
            installed.push(Peer { name: name.to_owned(), environment, words, version });
        } else {
            absent.push(name.to_owned());
        }
    }
    Ok((installed, absent))
}

fn is_command(word: &str) -> bool {
    if word.contains('/') {
        return Path::new(word).is_file();
    }
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|folder| folder.join(word).is_file()))
}

fn said_version(words: &[String]) -> Option<String> {
    let output = Command::new(words.first()?).arg("--version").output().ok()?;
    String::from_utf8(output.stdout).ok()?.split_whitespace().last().map(str::to_owned)
}
