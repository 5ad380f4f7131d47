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
            let mut member = tokens.next_object_bytes()?.map(|name| names.member(py, name)).transpose()?;
            while let Some((name, has_word)) = member {
                let value = match tokens.peek()? {
                    Peek::String if has_word => names.word(py, tokens.known_str()?).into_any(),
                    first => value(py, tokens, names, first, depth)?,
                };
                object.set_item(name, value)?;
                member = tokens.next_key_bytes()?.map(|name| names.member(py, name)).transpose()?;
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

/// The names of members that were seen last, and words that repeat like them. Other values may be secrets, which must
/// not be kept.
struct Names([Option<(Box<str>, Py<PyString>)>; Self::SLOTS]);

impl Names {
    const SLOTS: usize = 256;
    /// In bytes. Longer names are made anew each time.
    const MAX_LENGTH: usize = 64;

    const fn new() -> Self {
        Self([const { None }; Self::SLOTS])
    }

    /// Returns the name of a member from its text between the quotes, and whether the values of this member are words.
    fn member<'py>(&mut self, py: Python<'py>, written: &[u8]) -> Result<(Bound<'py, PyString>, bool), Unread> {
        let has_word = matches!(written, b"jsonrpc" | b"method");
        if let Some(Some((known, name))) = self.slot(written)
            && known.as_bytes() == written
        {
            return Ok((name.bind(py).clone(), has_word));
        }
        if written.contains(&b'\\') {
            let quoted = [b"\"", written, b"\""].concat();
            return Ok((PyString::new(py, Jiter::new(&quoted).next_str()?), has_word));
        }
        let name = str::from_utf8(written).map_err(|_| Unread)?;
        Ok((self.word(py, name), has_word))
    }

    fn word<'py>(&mut self, py: Python<'py>, word: &str) -> Bound<'py, PyString> {
        match self.slot(word.as_bytes()) {
            Some(Some((known, object))) if **known == *word => object.bind(py).clone(),
            // A name is looked for as it is written, so no text is kept that would be written with an escape.
            Some(slot) if word.len() <= Self::MAX_LENGTH && !word.contains('\\') => {
                let object = PyString::new(py, word);
                *slot = Some((word.into(), object.clone().unbind()));
                object
            }
            _ => PyString::new(py, word),
        }
    }

    /// Returns the place for a text. A few of its bytes tell the names of a message apart. Texts that share a place
    /// replace each other.
    fn slot(&mut self, text: &[u8]) -> Option<&mut Option<(Box<str>, Py<PyString>)>> {
        let hash = [0, text.len() / 2, text.len().saturating_sub(1)]
            .iter()
            .filter_map(|&at| text.get(at))
            .fold(text.len(), |hash, &byte| hash.wrapping_mul(31).wrapping_add(usize::from(byte)));
        self.0.get_mut(hash % Self::SLOTS)
    }
}
