//! The stream parsers for chunks that come from anywhere: events, lines, messages.
//!
//! Rule: what is long is read without the interpreter lock; for what is short, giving it up costs more than it brings.

use std::time::Duration;

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
    broken: Option<Bytes>,
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
            Some(bytes) => Ok(PyBytes::new(py, bytes)),
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
        let fields = |event: &Self| PyTuple::new(py, [&event.event, &event.data, &event.id]);
        Ok(self.retry == other.retry && self.broken == other.broken && fields(self)?.eq(fields(other)?)?)
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

/// Server-Sent Events out of chunks.
#[pyclass(module = "mcp_gangway")]
pub(crate) struct SseParser {
    events: SseEvents,
    name: Again,
    id: Again,
}

#[pymethods]
impl SseParser {
    #[new]
    #[pyo3(signature = (*, max_event_bytes = LIMIT))]
    fn new(max_event_bytes: u64) -> Self {
        Self { events: SseEvents::new(max_event_bytes), name: Again::default(), id: Again::default() }
    }

    fn feed<'py>(&mut self, py: Python<'py>, chunk: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
        let chunk = bytes_of(chunk)?;
        let events = reading(py, chunk.len(), || {
            self.events.feed(chunk);
            Found::all(|| self.events.next())
        });
        events.into_list(py, |py, event| self.event(py, event))
    }

    #[pyo3(signature = (*, incomplete = false))]
    fn finish<'py>(&mut self, py: Python<'py>, incomplete: bool) -> PyResult<Bound<'py, PyList>> {
        if !incomplete {
            return Ok(PyList::empty(py));
        }
        self.events.finish();
        Found::all(|| self.events.next()).into_list(py, |py, event| self.event(py, event))
    }
}

impl SseParser {
    fn event<'py>(&mut self, py: Python<'py>, event: &streams::Event) -> PyResult<Bound<'py, PyAny>> {
        let streams::Event { name, data, id, retry } = event;
        let (text, is_broken) = text(py, data)?;
        let event = Event {
            event: if name.is_empty() { intern!(py, "message").clone().unbind() } else { self.name.text(py, name)? },
            data: text.unbind(),
            id: id.as_ref().map_or_else(|| Ok(intern!(py, "").clone().unbind()), |id| self.id.text(py, id))?,
            retry: *retry,
            // Without the chunk that it came in.
            broken: is_broken.then(|| Bytes::copy_from_slice(data)),
        };
        Ok(event.into_pyobject(py)?.into_any())
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
        mut each: impl FnMut(Python<'py>, &T) -> PyResult<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        for item in &self.items {
            list.append(each(py, item)?)?;
        }
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
