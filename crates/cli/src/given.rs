//! A value from the user: which option or variable it came from, and its conversions.
//!
//! Rules: an option overrides its variable; an empty variable counts as unset; an error names the option or variable
//! and says what to do.

use std::{ffi::OsString, path::PathBuf, sync::Arc, time::Duration};

use mcp_gangway_core::Error;

/// More concurrent requests than this are a typing error.
pub const MAX_CONCURRENT: usize = 65_536;

/// A message size limit below this is a typing error, like 64 for 64M.
pub const MIN_LIMIT: u64 = 1 << 10;
/// A message size limit above this is a typing error as well.
pub const MAX_LIMIT: u64 = 1 << 40;

/// More seconds than this are a typing error (31 years). It is less than the clocks of all systems can add.
pub const MAX_SECONDS: f64 = 1e9;

/// Looks up an environment variable.
pub type Environment = Arc<dyn Fn(&str) -> Option<OsString> + Send + Sync>;

/// A text from the user, and the option or variable that it came from.
pub(crate) struct Given {
    pub(crate) from: String,
    pub(crate) text: String,
}

impl Given {
    pub(crate) fn new(from: impl Into<String>, text: String) -> Self {
        Self { from: from.into(), text }
    }

    pub(crate) fn mistake(&self, what: impl std::fmt::Display) -> Error {
        Error::config(format!("{}: {what}", self.from))
    }
}

/// Returns the variable's value, unless it is empty. Some hosts of bundles leave `${user_config.NAME}` in place of a
/// setting that the user did not make, which counts as empty too.
pub(crate) fn variable(env: &Environment, name: &str) -> Option<OsString> {
    let is_unset = |value: &str| value.starts_with("${user_config.") && value.ends_with('}');
    env(name).filter(|value| !value.is_empty() && !value.to_str().is_some_and(is_unset))
}

pub(crate) fn text_variable(env: &Environment, name: &str) -> Result<Option<Given>, Error> {
    variable(env, name)
        .map(|value| value.into_string().map(|text| Given::new(name, text)))
        .transpose()
        .map_err(|_| Error::config(format!("{name}: the value is not UTF-8 text")))
}

pub(crate) fn option_or(
    typed: Option<String>,
    option: &str,
    env: &Environment,
    name: &str,
) -> Result<Option<Given>, Error> {
    typed.map_or_else(|| text_variable(env, name), |text| Ok(Some(Given::new(option, text))))
}

pub(crate) fn path_or<'a>(
    typed: Option<PathBuf>,
    option: &'a str,
    env: &Environment,
    name: &'a str,
) -> Option<(&'a str, PathBuf)> {
    typed.map(|path| (option, path)).or_else(|| variable(env, name).map(|path| (name, path.into())))
}

/// Returns this program's state folder on this system.
pub(crate) fn state_folder(env: &Environment) -> Option<PathBuf> {
    let absolute = |name| variable(env, name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = if cfg!(windows) {
        absolute("LOCALAPPDATA")?
    } else if cfg!(target_os = "macos") {
        absolute("HOME")?.join("Library/Application Support")
    } else {
        absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))?
    };
    Some(base.join("mcp-gangway"))
}

pub(crate) fn count(given: &Given) -> Result<usize, Error> {
    (given.text.trim().parse().ok())
        .filter(|count| (1..=MAX_CONCURRENT).contains(count))
        .ok_or_else(|| given.mistake(format!("{:?} is not a whole number from 1 to {MAX_CONCURRENT}", given.text)))
}

/// Parses a size in bytes, or with a unit that is a power of 1024. Units are accepted in either case, and also as
/// `MB` and `MiB`.
pub(crate) fn size(given: &Given) -> Result<u64, Error> {
    let text = given.text.trim();
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let factor = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => Some(1),
        "k" | "kb" | "kib" => Some(1 << 10),
        "m" | "mb" | "mib" => Some(1 << 20),
        "g" | "gb" | "gib" => Some(1 << 30),
        _ => None,
    };
    let bytes = number.parse::<u64>().ok().zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
    let Some(bytes) = bytes else {
        return Err(given.mistake(format!("{:?} is not a size in bytes, like 65536, 512k, 64M or 2G", given.text)));
    };
    if !(MIN_LIMIT..=MAX_LIMIT).contains(&bytes) {
        return Err(given.mistake(format!("{:?} is not a size from 1k to 1024G", given.text)));
    }
    Ok(bytes)
}

pub(crate) fn time(given: &Given) -> Result<Duration, Error> {
    (given.text.trim().parse().ok())
        .filter(|seconds| (0.0..=MAX_SECONDS).contains(seconds))
        .map(Duration::from_secs_f64)
        .ok_or_else(|| given.mistake(format!("{:?} is not a number of seconds, like 2.5", given.text)))
}

/// Parses a time limit, which must not be zero.
pub(crate) fn nonzero_duration(given: &Given) -> Result<Duration, Error> {
    Some(time(given)?)
        .filter(|time| !time.is_zero())
        .ok_or_else(|| given.mistake("the time must be longer than 0 seconds"))
}

pub(crate) fn is_set(env: &Environment, name: &str) -> Result<bool, Error> {
    let Some(given) = text_variable(env, name)? else { return Ok(false) };
    match given.text.trim().to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" => Ok(true),
        "" | "0" | "false" | "no" => Ok(false),
        _ => Err(given.mistake(format!("{:?} is neither true nor false", given.text))),
    }
}
