//! Parses JSON directly into Python objects, with jiter.
//!
//! Rule: the result is that of `json.loads`. Documents that jiter refuses are parsed by `json.loads` itself, which
//! accepts more (lone surrogates, deeper nesting, other encodings) and raises the exceptions that programs know.

use jiter::{PythonParse, StringCacheMode};
use pyo3::{prelude::*, sync::PyOnceLock, types::PyBytes};

/// Parses a document in UTF-8, UTF-16 or UTF-32, like `json.loads`.
#[pyfunction]
pub(crate) fn loads<'py>(py: Python<'py>, document: &Bound<'py, PyBytes>) -> PyResult<Bound<'py, PyAny>> {
    parsed(py, document.as_bytes(), || Ok(document.clone().into_any()))
}

/// Parses these bytes. `text` returns the argument for `json.loads`: bytes, or a string if there are no original
/// bytes.
///
/// # Errors
/// It is not JSON, is nested too deeply, or has a longer integer than Python accepts.
pub(crate) fn parsed<'py>(
    py: Python<'py>,
    bytes: &[u8],
    text: impl FnOnce() -> PyResult<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    // Names of members repeat and are cached. Values are not, because they may be secrets.
    let parser = PythonParse { allow_inf_nan: true, cache_mode: StringCacheMode::Keys, ..PythonParse::default() };
    match parser.python_parse(py, bytes) {
        Ok(value) => Ok(value),
        Err(_) => LOADS.import(py, "json", "loads")?.call1((text()?,)),
    }
}
