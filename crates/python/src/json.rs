//! Parses JSON directly into Python objects, with jiter.
//!
//! Rule: the result is that of `json.loads`. Documents that jiter refuses are parsed by `json.loads` itself, which
//! accepts more (lone surrogates, deeper nesting, other encodings) and raises the exceptions that programs know.
//!
//! jiter reads the document and this file makes the objects. jiter can make them as well, but Python's stable interface
//! makes its cache of names slow (docs/decisions.md).

use std::sync::Mutex;

use jiter::{Jiter, JiterError, Peek};
use pyo3::{
    prelude::*,
    sync::PyOnceLock,
    types::{PyBytes, PyDict, PyList, PyString},
};

/// Deeper documents are left to `json.loads`, which knows the interpreter's limit.
const MAX_DEPTH: usize = 200;

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
    match document(py, bytes) {
        Ok(value) => Ok(value),
        Err(Unread) => LOADS.import(py, "json", "loads")?.call1((text()?,)),
    }
}

/// The document was not read, and `json.loads` says why, or reads it.
struct Unread;

impl From<JiterError> for Unread {
    fn from(_: JiterError) -> Self {
        Self
    }
}

impl From<PyErr> for Unread {
    fn from(_: PyErr) -> Self {
        Self
    }
}

fn document<'py>(py: Python<'py>, bytes: &[u8]) -> Result<Bound<'py, PyAny>, Unread> {
    static NAMES: Mutex<Names> = Mutex::new(Names::new());
    let mut tokens = Jiter::new(bytes).with_allow_inf_nan();
    let first = tokens.peek()?;
    let value = match NAMES.try_lock() {
        Ok(mut names) => value(py, &mut tokens, &mut names, first, MAX_DEPTH)?,
        // The collector can run a finalizer that parses JSON while this thread does.
        Err(_) => value(py, &mut tokens, &mut Names::new(), first, MAX_DEPTH)?,
    };
    tokens.finish()?;
    Ok(value)
}

fn value<'py>(
    py: Python<'py>,
    tokens: &mut Jiter<'_>,
    names: &mut Names,
    first: Peek,
    depth: usize,
) -> Result<Bound<'py, PyAny>, Unread> {
    let depth = depth.checked_sub(1).ok_or(Unread)?;
    match first {
        Peek::Object => {
            let object = PyDict::new(py);
            let mut member = tokens.known_object()?.map(|name| (has_word(name), names.get(py, name)));
            while let Some((is_word, name)) = member {
                let value = match tokens.peek()? {
                    Peek::String if is_word => names.get(py, tokens.known_str()?).into_any(),
                    first => value(py, tokens, names, first, depth)?,
                };
                object.set_item(name, value)?;
                member = tokens.next_key()?.map(|name| (has_word(name), names.get(py, name)));
            }
            Ok(object.into_any())
        }
        Peek::Array => {
            let mut elements = Vec::new();
            let mut first = tokens.known_array()?;
            while let Some(found) = first {
                elements.push(value(py, tokens, names, found, depth)?);
                first = tokens.array_step()?;
            }
            Ok(PyList::new(py, elements)?.into_any())
        }
        Peek::String => Ok(PyString::new(py, tokens.known_str()?).into_any()),
        Peek::Null => {
            tokens.known_null()?;
            Ok(py.None().into_bound(py))
        }
        Peek::True | Peek::False => {
            Ok(tokens.known_bool(first)?.into_pyobject(py).map_err(PyErr::from)?.to_owned().into_any())
        }
        number => Ok(tokens.known_number(number)?.into_pyobject(py)?.into_any()),
    }
}

/// Returns whether the values of a member of a JSON-RPC message repeat like names.
fn has_word(name: &str) -> bool {
    matches!(name, "jsonrpc" | "method")
}

/// The names of members that were seen last. They repeat, while values may be secrets, which must not be kept.
struct Names([Option<(Box<str>, Py<PyString>)>; Self::SLOTS]);

impl Names {
    const SLOTS: usize = 256;
    /// In bytes. Longer names are made anew each time.
    const MAX_LENGTH: usize = 64;

    const fn new() -> Self {
        Self([const { None }; Self::SLOTS])
    }

    fn get<'py>(&mut self, py: Python<'py>, name: &str) -> Bound<'py, PyString> {
        match self.slot(name) {
            Some(Some((known, object))) if **known == *name => object.bind(py).clone(),
            Some(slot) if name.len() <= Self::MAX_LENGTH => {
                let object = PyString::new(py, name);
                *slot = Some((name.into(), object.clone().unbind()));
                object
            }
            _ => PyString::new(py, name),
        }
    }

    /// Returns the place for a name. A few of its bytes tell the names of a message apart. Names that share a place
    /// replace each other.
    fn slot(&mut self, name: &str) -> Option<&mut Option<(Box<str>, Py<PyString>)>> {
        let bytes = name.as_bytes();
        let hash = [0, bytes.len() / 2, bytes.len().saturating_sub(1)]
            .iter()
            .filter_map(|&at| bytes.get(at))
            .fold(bytes.len(), |hash, &byte| hash.wrapping_mul(31).wrapping_add(usize::from(byte)));
        self.0.get_mut(hash % Self::SLOTS)
    }
}
