//! Writes lines to stderr or a file, without waiting for a reader.
//!
//! Unix tells whether a write would block (`polled`). Elsewhere a thread writes (`threaded`).

#[cfg(unix)]
mod polled;
#[cfg(any(not(unix), test))]
mod threaded;

use std::{
    fs::File,
    io::{self, Write},
};

#[cfg(unix)]
pub(super) use self::polled::Sink;
#[cfg(not(unix))]
pub(super) use self::threaded::Sink;

pub(super) enum Target {
    Stderr,
    File(File),
}

impl Target {
    fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Stderr => io::stderr().write_all(bytes),
            Self::File(file) => (&*file).write_all(bytes),
        }
    }
}
