//! JSON straight to Python's objects, with jiter.
//!
//! Rule: what comes out is what `json.loads` gives. What jiter refuses goes to `json.loads` itself, which reads more (lone
//! surrogates, deeper nesting, other encodings) and raises the exceptions that programs know.

use jiter::{PythonParse, StringCacheMode};
use pyo3::{prelude::*, sync::PyOnceLock, types::PyBytes};

/// The value that a document in UTF-8, UTF-16 or UTF-32 stands for, as of `json.loads`.
#[pyfunction]
pub(crate) fn loads<'py>(py: Python<'py>, document: &Bound<'py, PyBytes>) -> PyResult<Bound<'py, PyAny>> {
    parsed(py, document.as_bytes(), || Ok(document.clone().into_any()))
}

/// The value of these bytes. `text` gives the same for `json.loads`: bytes, or text where it is not the bytes that count.
///
/// # Errors
/// It is no JSON, is nested too deeply, or holds a longer integer than Python reads.
pub(crate) fn parsed<'py>(
    py: Python<'py>,
    bytes: &[u8],
    text: impl FnOnce() -> PyResult<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    // Names of members are few and come again; values are kept for nobody, as they may be secrets.
    let parser = PythonParse { allow_inf_nan: true, cache_mode: StringCacheMode::Keys, ..PythonParse::default() };
    match parser.python_parse(py, bytes) {
        Ok(value) => Ok(value),
        Err(_) => LOADS.import(py, "json", "loads")?.call1((text()?,)),
    }
}
