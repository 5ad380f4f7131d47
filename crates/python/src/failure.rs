//! A failure in the background, and its conversion to a Python exception.
//!
//! Rule: the classes are defined in Python (`mcp_gangway._exceptions`), which gets the kind, one line, and the lines
//! of the causes. All lines may contain text from peers, so each is made safe to show.

use std::{error::Error as StdError, io};

use mcp_gangway_core::text::excerpt;
use pyo3::{prelude::*, sync::PyOnceLock};

use crate::hints;

/// The longest line, in bytes.
const LONGEST: usize = 2048;

/// Why something failed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The name that selects the Python class.
    kind: &'static str,
    message: String,
    /// Its causes, the nearest first, each with the system's error number if there is one.
    causes: Vec<(Option<i32>, String)>,
}

impl Failure {
    pub(crate) fn new(kind: &'static str, message: impl Into<String>) -> Self {
        Self { kind, message: excerpt(&message.into(), LONGEST), causes: Vec::new() }
    }

    /// Returns the failure of an object that was closed.
    pub(crate) fn closed() -> Self {
        Self::new("closed", "it was closed")
    }

    /// Returns the failure of a response whose body contains no JSON-RPC messages.
    pub(crate) fn no_message(error: &mcp_gangway_core::Error) -> Self {
        let beginning = error.detail().map(|beginning| format!(": {beginning}")).unwrap_or_default();
        Self::new("no_message", format!("{}{beginning}", error.worded(hints::words)))
    }

    /// Adds `error` and its sources as causes.
    pub(crate) fn because_of(mut self, error: &(dyn StdError + 'static)) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            let number = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
            self.causes.push((number, excerpt(&error.to_string(), LONGEST)));
            next = error.source();
        }
        self
    }

    /// Returns its message, one line.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn into_exception(self, py: Python<'_>) -> PyErr {
        static FROM_NATIVE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        FROM_NATIVE
            .import(py, "mcp_gangway._exceptions", "from_native")
            .and_then(|from_native| from_native.call1((self.kind, self.message, self.causes)))
            .map_or_else(|error| error, PyErr::from_value)
    }
}

impl From<mcp_gangway_core::Error> for Failure {
    fn from(error: mcp_gangway_core::Error) -> Self {
        let failure = Self::new(error.kind(), error.worded(hints::words));
        match error.source() {
            Some(source) => failure.because_of(source),
            None => failure,
        }
    }
}

/// Returns a text that is safe to show: on one line, harmless to a terminal, without the secrets that this process
/// knows.
#[pyfunction]
pub(crate) fn shown(text: &str) -> String {
    mcp_gangway_core::text::shown(text).into_owned()
}
