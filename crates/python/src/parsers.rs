//! The stream parsers for chunks that come from anywhere: events, lines, messages.
//!
//! Rule: what is long is read without the interpreter lock; for what is short, giving it up costs more than it brings.

use std::{iter, time::Duration};

use bytes::Bytes;
use gangway::streams::{self, Messages, SseEvents, TextLines};
use pyo3::{
    exceptions::{PyTypeError, PyUnicodeDecodeError},
    intern,
    prelude::*,
    pybacked::PyBackedBytes,
    sync::PyOnceLock,
    types::{PyBytes, PyList, PyString, PyTuple},
};

use crate::failure::Failure;

/// From this many bytes on, a chunk is read without the interpreter lock.
const LONG: usize = 32 << 10;

/// One of the Server-Sent Events. Its fields are read like those of any Python object, without a call into this module.
#[pyclass(frozen, module = "mcp_gangway")]
#[expect(clippy::struct_field_names, reason = "they are Python's names")]
pub(crate) struct Event {
    #[pyo3(get)]
    event: Py<PyString>,
    #[pyo3(get)]
    data: Py<PyString>,
    #[pyo3(get)]
    id: Py<PyString>,
    retry: Option<Duration>,
    /// The data as it came, where its text stands for something else.
    broken: Option<Py<PyBytes>>,
}

#[pymethods]
impl Event {
    #[new]
    #[pyo3(signature = (*, event = None, data = None, id = None, retry = None))]
    fn new(
        py: Python<'_>,
        event: Option<&Bound<'_, PyString>>,
        data: Option<&Bound<'_, PyString>>,
        id: Option<&Bound<'_, PyString>>,
        retry: Option<u64>,
    ) -> Self {
        let text = |text: Option<&Bound<'_, PyString>>| text.unwrap_or(intern!(py, "")).clone().unbind();
        let name = event.filter(|name| name.is_truthy().unwrap_or(true));
        Self {
            event: name.unwrap_or(intern!(py, "message")).clone().unbind(),
            data: text(data),
            id: text(id),
            retry: retry.map(Duration::from_millis),
            broken: None,
        }
    }

    #[getter]
    fn data_bytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        match &self.broken {
            Some(bytes) => Ok(bytes.bind(py).clone()),
            None => self.data.bind(py).encode_utf8(),
        }
    }

    #[getter]
    fn retry(&self) -> Option<u128> {
        self.retry.map(|retry| retry.as_millis())
    }

    fn json<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        LOADS.import(py, "json", "loads")?.call1((&self.data,))
    }

    fn __eq__(&self, py: Python<'_>, other: &Self) -> PyResult<bool> {
        let fields = |event: &Self| (&event.event, &event.data, &event.id, &event.broken).into_pyobject(py);
        Ok(self.retry == other.retry && fields(self)?.eq(fields(other)?)?)
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        PyTuple::new(py, [&self.event, &self.data, &self.id])?.hash()
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let repr = |value: &Py<PyString>| value.bind(py).repr().map(|text| text.to_string());
        let retry = self.retry().map_or_else(|| "None".to_owned(), |retry| retry.to_string());
        Ok(format!(
            "Event(event={}, data={}, id={}, retry={retry})",
            repr(&self.event)?,
            repr(&self.data)?,
            repr(&self.id)?
        ))
    }
}

/// Text with U+FFFD for what is not UTF-8, and whether there is that.
fn text<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<(Bound<'py, PyString>, bool)> {
    match PyString::from_bytes(py, bytes) {
        Err(error) if error.is_instance_of::<PyUnicodeDecodeError>(py) => {
            Ok((PyString::new(py, &String::from_utf8_lossy(bytes)), true))
        }
        text => Ok((text?, false)),
    }
}

/// A text that is often the same again, and then the same object.
#[derive(Default)]
struct Again(Option<(Bytes, Py<PyString>)>);

impl Again {
    fn text(&mut self, py: Python<'_>, bytes: &Bytes) -> PyResult<Py<PyString>> {
        if let Some((last, text)) = &self.0
            && last == bytes
        {
            return Ok(text.clone_ref(py));
        }
        let text = text(py, bytes)?.0.unbind();
        self.0 = Some((Bytes::copy_from_slice(bytes), text.clone_ref(py)));
        Ok(text)
    }
}

/// The texts of events.
#[derive(Default)]
struct Texts {
    name: Again,
    id: Again,
}

impl Texts {
    fn event<'py>(&mut self, py: Python<'py>, event: &streams::Event) -> PyResult<Bound<'py, PyAny>> {
        let streams::Event { name, data, id, retry } = event;
        let (text, is_broken) = text(py, data)?;
        let event = Event {
            event: if name.is_empty() { intern!(py, "message").clone().unbind() } else { self.name.text(py, name)? },
            data: text.unbind(),
            id: id.as_ref().map_or_else(|| Ok(intern!(py, "").clone().unbind()), |id| self.id.text(py, id))?,
            retry: *retry,
            broken: is_broken.then(|| PyBytes::new(py, data).unbind()),
        };
        Ok(event.into_pyobject(py)?.into_any())
    }
}

/// Server-Sent Events out of chunks.
#[pyclass(module = "mcp_gangway")]
pub(crate) struct SseParser {
    events: SseEvents,
    texts: Texts,
}

#[pymethods]
impl SseParser {
    #[new]
    #[pyo3(signature = (*, max_event_bytes = LIMIT))]
    fn new(max_event_bytes: u64) -> Self {
        Self { events: SseEvents::new(max_event_bytes), texts: Texts::default() }
    }

    fn feed<'py>(&mut self, py: Python<'py>, chunk: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
        let chunk = bytes_of(chunk)?;
        let length = chunk.len();
        self.events.feed(chunk);
        list(py, length, || self.events.next(), |event| self.texts.event(py, &event))
    }

    #[pyo3(signature = (*, incomplete = false))]
    fn finish<'py>(&mut self, py: Python<'py>, incomplete: bool) -> PyResult<Bound<'py, PyList>> {
        if !incomplete {
            return Ok(PyList::empty(py));
        }
        self.events.finish();
        list(py, 0, || self.events.next(), |event| self.texts.event(py, &event))
    }
}

/// The lines of NDJSON out of chunks.
#[pyclass(module = "mcp_gangway")]
pub(crate) struct NdjsonParser(TextLines);

#[pymethods]
impl NdjsonParser {
    #[new]
    #[pyo3(signature = (*, max_line_bytes = LIMIT))]
    fn new(max_line_bytes: u64) -> Self {
        Self(TextLines::new(max_line_bytes))
    }

    fn feed<'py>(&mut self, py: Python<'py>, chunk: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
        let chunk = bytes_of(chunk)?;
        let length = chunk.len();
        self.0.feed(chunk);
        list(py, length, || self.0.next(), |line| Ok(PyBytes::new(py, &line)))
    }

    fn finish<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let mut last = self.0.finish();
        list(py, 0, || last.take(), |line| Ok(PyBytes::new(py, &line)))
    }
}

/// JSON-RPC messages out of the chunks of a body, whatever its content type.
#[pyclass(module = "mcp_gangway._native")]
pub(crate) struct MessageParser(Messages);

#[pymethods]
impl MessageParser {
    #[new]
    #[pyo3(signature = (content_type, *, max_message_bytes = LIMIT))]
    fn new(content_type: Option<&str>, max_message_bytes: u64) -> Self {
        Self(Messages::new(content_type, max_message_bytes))
    }

    fn feed<'py>(&mut self, py: Python<'py>, chunk: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
        let chunk = bytes_of(chunk)?;
        let length = chunk.len();
        // To take it may be work, too, and its error is one of the items'.
        let mut chunk = Some(chunk);
        let next = || match chunk.take().map(|chunk| self.0.feed(chunk)) {
            Some(Err(error)) => Some(Err(error)),
            _ => self.0.next(),
        };
        list(py, length, next, |message| Ok(PyBytes::new(py, &message)))
    }

    fn finish<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        // A body of one document is read here.
        py.detach(|| self.0.finish());
        let found = list(py, LONG, || self.0.next(), |message| Ok(PyBytes::new(py, &message)));
        match self.0.rejected() {
            Some(error) => Err(Failure::no_message(&error).into_exception(py)),
            None => found,
        }
    }
}

/// The default limit of all parsers, in bytes: that of the bridge.
const LIMIT: u64 = 4 << 30;

/// The list of what a parser has after a chunk of this length. If something is wrong with one item, the exception has the
/// others, which are not lost.
fn list<'py, T: Send, O: IntoPyObject<'py>>(
    py: Python<'py>,
    length: usize,
    next: impl FnMut() -> Option<Result<T, gangway::Error>> + Send,
    make: impl FnMut(T) -> PyResult<O>,
) -> PyResult<Bound<'py, PyList>> {
    let items = iter::from_fn(next);
    if length < LONG { list_of(py, items, make) } else { list_of(py, py.detach(|| items.collect::<Vec<_>>()), make) }
}

fn list_of<'py, T, O: IntoPyObject<'py>>(
    py: Python<'py>,
    items: impl IntoIterator<Item = Result<T, gangway::Error>>,
    mut make: impl FnMut(T) -> PyResult<O>,
) -> PyResult<Bound<'py, PyList>> {
    let (mut objects, mut failure) = (Vec::new(), None);
    for item in items {
        match item.map_err(|error| Failure::from(error).into_exception(py)).and_then(&mut make) {
            Ok(object) => objects.push(object),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    // Of known length it is made at once.
    let list = PyList::new(py, objects)?;
    let Some(failure) = failure else { return Ok(list) };
    failure.value(py).setattr(intern!(py, "complete"), list)?;
    Err(failure)
}

/// The bytes of a bytes-like object; those of `bytes` are not copied.
fn bytes_of(chunk: &Bound<'_, PyAny>) -> PyResult<Bytes> {
    static MEMORY_VIEW: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    if let Ok(bytes) = chunk.cast::<PyBytes>() {
        return Ok(Bytes::from_owner(PyBackedBytes::from(bytes.clone())));
    }
    let view = MEMORY_VIEW.import(chunk.py(), "builtins", "memoryview")?.call1((chunk,)).map_err(|_| {
        let name = chunk.get_type().name().map_or_else(|_| "object".to_owned(), |name| name.to_string());
        PyTypeError::new_err(format!("a bytes-like object is required, not '{name}'"))
    })?;
    let copy = view.call_method0(intern!(chunk.py(), "tobytes"))?;
    Ok(Bytes::from_owner(PyBackedBytes::from(copy.cast_into::<PyBytes>()?)))
}
