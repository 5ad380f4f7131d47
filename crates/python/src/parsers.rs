//! The stream parsers for chunks from any source: events, lines, messages.
//!
//! Rule: long chunks are parsed without the interpreter lock. For short ones, releasing it costs more than it saves.

use std::{iter, sync::OnceLock, time::Duration};

use bytes::Bytes;
use mcp_gangway_core::streams::{self, Messages, SseEvents, TextLines};
use pyo3::{
    exceptions::{PyTypeError, PyUnicodeDecodeError, PyValueError},
    intern,
    prelude::*,
    pybacked::PyBackedBytes,
    sync::PyOnceLock,
    types::{PyBytes, PyList, PyString},
};

use crate::{failure::Failure, json::parsed};

/// From this many bytes on, a chunk is parsed without the interpreter lock.
const LONG: usize = 32 << 10;

/// An event keeps at most this many times its own size in memory.
const MAX_RETENTION_FACTOR: usize = 16;

/// A Server-Sent Event. Its data is decoded to text only on demand, because parsing JSON does not need that.
#[pyclass(frozen, module = "mcp_gangway")]
#[expect(clippy::struct_field_names, reason = "they are Python's names")]
pub(crate) struct Event {
    #[pyo3(get)]
    event: Py<PyString>,
    #[pyo3(get)]
    id: Py<PyString>,
    retry: Option<Duration>,
    /// The data as received. None if the event was created from a text.
    bytes: Option<Bytes>,
    text: OnceLock<Py<PyString>>,
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
            id: text(id),
            retry: retry.map(Duration::from_millis),
            bytes: None,
            text: OnceLock::from(text(data)),
        }
    }

    #[getter]
    fn data<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyString>> {
        if let Some(text) = self.text.get() {
            return Ok(text.bind(py).clone());
        }
        let text = text(py, self.bytes.as_deref().unwrap_or_default())?;
        // Another thread may have set it already.
        Ok(self.text.get_or_init(|| text.unbind()).bind(py).clone())
    }

    #[getter]
    fn data_bytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        match &self.bytes {
            Some(bytes) => Ok(PyBytes::new(py, bytes)),
            None => self.data(py)?.encode_utf8(),
        }
    }

    #[getter]
    fn retry(&self) -> Option<u128> {
        self.retry.map(|retry| retry.as_millis())
    }

    fn json<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let text = || Ok(self.data(py)?.into_any());
        match &self.bytes {
            Some(bytes) => parsed(py, bytes, text),
            // A text with a lone surrogate has no UTF-8 form.
            None => parsed(py, self.data(py)?.to_str().unwrap_or_default().as_bytes(), text),
        }
    }

    fn __eq__(&self, py: Python<'_>, other: &Self) -> PyResult<bool> {
        let is_same_data = match (&self.bytes, &other.bytes) {
            (Some(bytes), Some(others)) => bytes == others,
            (Some(bytes), None) => other.data(py)?.to_str().is_ok_and(|text| text.as_bytes() == bytes),
            (None, Some(bytes)) => self.data(py)?.to_str().is_ok_and(|text| text.as_bytes() == bytes),
            (None, None) => self.data(py)?.as_any().eq(other.data(py)?)?,
        };
        let names = |event: &Self| (&event.event, &event.id).into_pyobject(py);
        Ok(self.retry == other.retry && is_same_data && names(self)?.eq(names(other)?)?)
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        (&self.event, self.data(py)?, &self.id).into_pyobject(py)?.hash()
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let repr = |value: &Bound<'_, PyString>| value.repr().map(|text| text.to_string());
        let retry = self.retry().map_or_else(|| "None".to_owned(), |retry| retry.to_string());
        Ok(format!(
            "Event(event={}, data={}, id={}, retry={retry})",
            repr(self.event.bind(py))?,
            repr(&self.data(py)?)?,
            repr(self.id.bind(py))?
        ))
    }
}

/// Decodes UTF-8, with U+FFFD for invalid bytes.
fn text<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyString>> {
    match PyString::from_bytes(py, bytes) {
        Err(error) if error.is_instance_of::<PyUnicodeDecodeError>(py) => {
            Ok(PyString::new(py, &String::from_utf8_lossy(bytes)))
        }
        text => text,
    }
}

/// Caches the last text, because consecutive events often have the same one.
#[derive(Default)]
struct Again(Option<(Bytes, Py<PyString>)>);

impl Again {
    fn text(&mut self, py: Python<'_>, bytes: &Bytes) -> PyResult<Py<PyString>> {
        if let Some((last, text)) = &self.0
            && last == bytes
        {
            return Ok(text.clone_ref(py));
        }
        let text = text(py, bytes)?.unbind();
        self.0 = Some((Bytes::copy_from_slice(bytes), text.clone_ref(py)));
        Ok(text)
    }
}

/// The cached texts of events.
#[derive(Default)]
struct Texts {
    name: Again,
    id: Again,
}

impl Texts {
    /// Creates the event from a chunk of this length.
    fn event<'py>(&mut self, py: Python<'py>, event: streams::Event, length: usize) -> PyResult<Bound<'py, PyAny>> {
        let streams::Event { name, data, id, retry } = event;
        let event = Event {
            event: if name.is_empty() { intern!(py, "message").clone().unbind() } else { self.name.text(py, &name)? },
            id: id.as_ref().map_or_else(|| Ok(intern!(py, "").clone().unbind()), |id| self.id.text(py, id))?,
            retry,
            // A small slice would keep the whole large chunk in memory.
            bytes: Some(if data.len() < length / MAX_RETENTION_FACTOR { Bytes::copy_from_slice(&data) } else { data }),
            text: OnceLock::new(),
        };
        Ok(event.into_pyobject(py)?.into_any())
    }
}

/// Parses Server-Sent Events from chunks.
#[pyclass(module = "mcp_gangway")]
pub(crate) struct SseParser {
    events: SseEvents,
    texts: Texts,
    /// If true, the objects in the data are returned instead of events.
    parsed: bool,
}

#[pymethods]
impl SseParser {
    #[new]
    #[pyo3(signature = (*, max_event_bytes = Limit::DEFAULT, parsed = false))]
    fn new(max_event_bytes: Limit, parsed: bool) -> Self {
        Self { events: SseEvents::new(max_event_bytes.0), texts: Texts::default(), parsed }
    }

    fn feed<'py>(&mut self, py: Python<'py>, chunk: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
        let chunk = bytes_of(chunk)?;
        let length = chunk.len();
        self.events.feed(chunk);
        self.complete(py, length)
    }

    #[pyo3(signature = (*, incomplete = false))]
    fn finish<'py>(&mut self, py: Python<'py>, incomplete: bool) -> PyResult<Bound<'py, PyList>> {
        if !incomplete {
            return Ok(PyList::empty(py));
        }
        self.events.finish();
        self.complete(py, 0)
    }
}

impl SseParser {
    /// Returns the items that are complete after a chunk of this length.
    fn complete<'py>(&mut self, py: Python<'py>, length: usize) -> PyResult<Bound<'py, PyList>> {
        let (events, texts) = (&mut self.events, &mut self.texts);
        if !self.parsed {
            return list(py, length, || events.next(), |event| texts.event(py, event, length));
        }
        // An event without data only sets the stream's id.
        let next = || loop {
            match events.next() {
                Some(Ok(event)) if event.data.is_empty() => {}
                next => break next,
            }
        };
        list(py, length, next, |event| parsed(py, &event.data, || Ok(text(py, &event.data)?.into_any())))
    }
}

/// Parses NDJSON lines from chunks.
#[pyclass(module = "mcp_gangway")]
pub(crate) struct NdjsonParser {
    lines: TextLines,
    /// If true, objects are returned instead of bytes.
    parsed: bool,
}

#[pymethods]
impl NdjsonParser {
    #[new]
    #[pyo3(signature = (*, max_line_bytes = Limit::DEFAULT, parsed = false))]
    fn new(max_line_bytes: Limit, parsed: bool) -> Self {
        Self { lines: TextLines::new(max_line_bytes.0), parsed }
    }

    fn feed<'py>(&mut self, py: Python<'py>, chunk: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
        let chunk = bytes_of(chunk)?;
        let length = chunk.len();
        let (lines, is_parsed) = (&mut self.lines, self.parsed);
        lines.feed(chunk);
        list(py, length, || lines.next(), |line| given(py, &line, is_parsed))
    }

    fn finish<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let (mut last, is_parsed) = (self.lines.finish(), self.parsed);
        list(py, 0, || last.take(), |line| given(py, &line, is_parsed))
    }
}

/// Parses JSON-RPC messages from the chunks of a body with any content type.
#[pyclass(module = "mcp_gangway")]
pub(crate) struct MessageParser {
    messages: Messages,
    /// If true, Python objects are returned instead of bytes.
    parsed: bool,
}

#[pymethods]
impl MessageParser {
    #[new]
    #[pyo3(signature = (content_type, *, max_message_bytes = Limit::DEFAULT, parsed = false))]
    fn new(content_type: Option<&str>, max_message_bytes: Limit, parsed: bool) -> Self {
        Self { messages: Messages::new(content_type, max_message_bytes.0), parsed }
    }

    fn feed<'py>(&mut self, py: Python<'py>, chunk: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
        let chunk = bytes_of(chunk)?;
        let length = chunk.len();
        let (messages, is_parsed) = (&mut self.messages, self.parsed);
        // Feeding may take time as well, and its error is returned like an item's.
        let mut chunk = Some(chunk);
        let next = || match chunk.take().map(|chunk| messages.feed(chunk)) {
            Some(Err(error)) => Some(Err(error)),
            _ => messages.next(),
        };
        list(py, length, next, |message| given(py, &message, is_parsed))
    }

    fn finish<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let (messages, is_parsed) = (&mut self.messages, self.parsed);
        // A body that is one document is parsed here.
        py.detach(|| messages.finish());
        let found = list(py, LONG, || messages.next(), |message| given(py, &message, is_parsed));
        match messages.rejected() {
            Some(error) => Err(Failure::no_message(&error).into_exception(py)),
            None => found,
        }
    }
}

/// Converts a line or message for Python.
fn given<'py>(py: Python<'py>, message: &[u8], is_parsed: bool) -> PyResult<Bound<'py, PyAny>> {
    let bytes = || PyBytes::new(py, message).into_any();
    if is_parsed { parsed(py, message, || Ok(bytes())) } else { Ok(bytes()) }
}

/// The limit of a parser, in bytes.
#[derive(Clone, Copy)]
struct Limit(u64);

impl Limit {
    /// The default of all parsers, the same as the bridge's.
    const DEFAULT: Self = Self(4 << 30);
}

impl<'py> FromPyObject<'_, 'py> for Limit {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        match value.extract::<u64>()? {
            0 => Err(PyValueError::new_err("a limit is a number of bytes, 1 or more")),
            limit => Ok(Self(limit)),
        }
    }
}

/// Returns the list of a parser's items after a chunk of this length. If one item fails, the exception carries the
/// others, so that they are not lost.
fn list<'py, T: Send, O: IntoPyObject<'py>>(
    py: Python<'py>,
    length: usize,
    next: impl FnMut() -> Option<Result<T, mcp_gangway_core::Error>> + Send,
    make: impl FnMut(T) -> PyResult<O>,
) -> PyResult<Bound<'py, PyList>> {
    let items = iter::from_fn(next);
    if length < LONG { list_of(py, items, make) } else { list_of(py, py.detach(|| items.collect::<Vec<_>>()), make) }
}

fn list_of<'py, T, O: IntoPyObject<'py>>(
    py: Python<'py>,
    items: impl IntoIterator<Item = Result<T, mcp_gangway_core::Error>>,
    mut make: impl FnMut(T) -> PyResult<O>,
) -> PyResult<Bound<'py, PyList>> {
    let (mut objects, mut failure) = (Vec::new(), None);
    for item in items {
        match item.map_err(|error| Failure::from(error).into_exception(py)).and_then(&mut make) {
            Ok(object) => objects.push(object),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    // With a known length the list is allocated at once.
    let list = PyList::new(py, objects)?;
    let Some(failure) = failure else { return Ok(list) };
    failure.value(py).setattr(intern!(py, "complete"), list)?;
    Err(failure)
}

/// Returns the bytes of a bytes-like object, without a copy for `bytes`.
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
