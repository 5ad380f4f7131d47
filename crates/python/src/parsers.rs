//! The stream parsers for chunks that come from anywhere: events, lines, messages.
//!
//! Rule: what is long is read without the interpreter lock; for what is short, giving it up costs more than it brings.

use bytes::Bytes;
use gangway::streams::{self, Messages, SseEvents, TextLines};
use pyo3::{
    exceptions::PyTypeError,
    intern,
    prelude::*,
    pybacked::PyBackedBytes,
    sync::PyOnceLock,
    types::{PyBytes, PyList, PyString},
};

use crate::failure::Failure;

/// From this many bytes on, a chunk is read without the interpreter lock.
const LONG: usize = 32 << 10;

/// One of the Server-Sent Events.
#[pyclass(frozen, module = "mcp_gangway", eq, hash)]
pub(crate) struct Event {
    event: streams::Event,
    /// The data as text, once somebody has asked for it.
    text: PyOnceLock<Py<PyString>>,
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.event == other.event
    }
}

impl std::hash::Hash for Event {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.event.name.hash(state);
        self.event.data.hash(state);
    }
}

impl Event {
    /// An event out of `chunk`; a short one has bytes of its own, and does not keep the chunk.
    fn of(event: &streams::Event, chunk: usize) -> Self {
        let data = if event.data.len() < chunk / 2 { own(&event.data) } else { event.data.clone() };
        let (name, id) = (own(&event.name), event.id.as_ref().map(own));
        Self { event: streams::Event { name, data, id, retry: event.retry }, text: PyOnceLock::new() }
    }
}

/// Most names and ids are empty, and that takes no memory.
fn own(bytes: &Bytes) -> Bytes {
    if bytes.is_empty() { Bytes::new() } else { Bytes::copy_from_slice(bytes) }
}

#[pymethods]
impl Event {
    #[new]
    #[pyo3(signature = (*, event = None, data = None, id = None, retry = None))]
    fn new(event: Option<String>, data: Option<String>, id: Option<String>, retry: Option<u64>) -> Self {
        let name = event.filter(|name| name != "message").unwrap_or_default();
        let event = streams::Event {
            name: name.into(),
            data: data.unwrap_or_default().into(),
            id: id.map(Bytes::from),
            retry: retry.map(std::time::Duration::from_millis),
        };
        Self { event, text: PyOnceLock::new() }
    }

    #[getter]
    fn event(&self, py: Python<'_>) -> Py<PyString> {
        match &*self.event.name {
            b"" => intern!(py, "message").clone().unbind(),
            name => text(py, name),
        }
    }

    #[getter]
    fn data(&self, py: Python<'_>) -> Py<PyString> {
        self.text.get_or_init(py, || text(py, &self.event.data)).clone_ref(py)
    }

    #[getter]
    fn data_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.event.data)
    }

    #[getter]
    fn id(&self, py: Python<'_>) -> Py<PyString> {
        text(py, self.event.id.as_deref().unwrap_or_default())
    }

    #[getter]
    fn retry(&self) -> Option<u128> {
        self.event.retry.map(|retry| retry.as_millis())
    }

    fn json<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        LOADS.import(py, "json", "loads")?.call1((self.data(py),))
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let repr = |value: Py<PyString>| value.bind(py).repr().map(|text| text.to_string());
        let retry = self.retry().map_or_else(|| "None".to_owned(), |retry| retry.to_string());
        Ok(format!(
            "Event(event={}, data={}, id={}, retry={retry})",
            repr(self.event(py))?,
            repr(self.data(py))?,
            repr(self.id(py))?
        ))
    }
}

/// Text with U+FFFD for what is not UTF-8.
fn text(py: Python<'_>, bytes: &[u8]) -> Py<PyString> {
    PyString::new(py, &String::from_utf8_lossy(bytes)).unbind()
}

/// Server-Sent Events out of chunks.
#[pyclass(module = "mcp_gangway")]
pub(crate) struct SseParser(SseEvents);

#[pymethods]
impl SseParser {
    #[new]
    #[pyo3(signature = (*, max_event_bytes = LIMIT))]
    fn new(max_event_bytes: u64) -> Self {
        Self(SseEvents::new(max_event_bytes))
    }

    fn feed<'py>(&mut self, py: Python<'py>, chunk: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
        let chunk = bytes_of(chunk)?;
        let length = chunk.len();
        let events = reading(py, length, || {
            self.0.feed(chunk);
            Found::all(|| self.0.next())
        });
        events.into_list(py, |py, event| Ok(Event::of(event, length).into_pyobject(py)?.into_any()))
    }

    #[pyo3(signature = (*, incomplete = false))]
    fn finish<'py>(&mut self, py: Python<'py>, incomplete: bool) -> PyResult<Bound<'py, PyList>> {
        if !incomplete {
            return Ok(PyList::empty(py));
        }
        self.0.finish();
        Found::all(|| self.0.next()).into_list(py, |py, event| Ok(Event::of(event, 0).into_pyobject(py)?.into_any()))
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
        reading(py, chunk.len(), || {
            self.0.feed(chunk);
            Found::all(|| self.0.next())
        })
        .into_list(py, bytes)
    }

    fn finish<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let mut last = self.0.finish();
        Found::all(|| last.take()).into_list(py, bytes)
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
        reading(py, chunk.len(), || match self.0.feed(chunk) {
            Ok(()) => Found::all(|| self.0.next()),
            Err(error) => Found { items: Vec::new(), error: Some(error) },
        })
        .into_list(py, bytes)
    }

    fn finish<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        // A body of one document is read here.
        let found = py.detach(|| {
            self.0.finish();
            Found::all(|| self.0.next())
        });
        match self.0.rejected() {
            Some(error) => Err(Failure::no_message(&error).into_exception(py)),
            None => found.into_list(py, bytes),
        }
    }
}

/// The default limit of all parsers, in bytes: that of the bridge.
const LIMIT: u64 = 4 << 30;

/// What a chunk completed, and the first of it that is over the limit.
struct Found<T> {
    items: Vec<T>,
    error: Option<gangway::Error>,
}

impl<T> Found<T> {
    fn all(mut next: impl FnMut() -> Option<Result<T, gangway::Error>>) -> Self {
        let mut found = Self { items: Vec::new(), error: None };
        while let Some(item) = next() {
            match item {
                Ok(item) => found.items.push(item),
                Err(error) => found.error = found.error.or(Some(error)),
            }
        }
        found
    }

    /// The list of them. What is beside an error is with the exception, and not lost.
    fn into_list<'py>(
        self,
        py: Python<'py>,
        each: impl Fn(Python<'py>, &T) -> PyResult<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyList>> {
        let items: Vec<_> = self.items.iter().map(|item| each(py, item)).collect::<PyResult<_>>()?;
        let list = PyList::new(py, items)?;
        let Some(error) = self.error else { return Ok(list) };
        let error = Failure::from(error).into_exception(py);
        error.value(py).setattr(intern!(py, "complete"), list)?;
        Err(error)
    }
}

#[expect(clippy::unnecessary_wraps, reason = "that of an event can fail")]
fn bytes<'py>(py: Python<'py>, bytes: &Bytes) -> PyResult<Bound<'py, PyAny>> {
    Ok(PyBytes::new(py, bytes).into_any())
}

fn reading<T: Send>(py: Python<'_>, length: usize, read: impl Send + FnOnce() -> T) -> T {
    if length < LONG { read() } else { py.detach(read) }
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
