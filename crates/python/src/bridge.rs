//! The whole bridge inside a Python program: on the process's own stdio, or between two streams of the program's.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use gangway::stdio;
use pyo3::{exceptions::PyRuntimeError, prelude::*};
use tokio::{
    io::{AsyncRead, ReadBuf},
    sync::{Notify, mpsc},
};

use crate::{
    chunks::{Chunks, Writer},
    completions::{Completions, Finish, Operation, lock},
    http::taken,
    runtime,
};

/// Chunks of input that may wait for the bridge.
const WAITING: usize = 16;

/// A bridge that is not running yet, runs, or has ended.
#[pyclass(frozen, module = "mcp_gangway._native")]
pub(crate) struct Bridge {
    input: Mutex<Option<mpsc::Sender<Bytes>>>,
    /// None once it runs.
    reader: Mutex<Option<Reader>>,
    output: Arc<Chunks>,
    stop: Arc<Notify>,
}

#[pymethods]
impl Bridge {
    #[new]
    fn new() -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        let reader = Reader { receiver, chunk: Bytes::new() };
        Self {
            input: Mutex::new(Some(sender)),
            reader: Mutex::new(Some(reader)),
            output: Arc::default(),
            stop: Arc::default(),
        }
    }

    /// Starts it with the command's options and environment. The future gets the exit status and the line that the command
    /// would have written, if there is one. On the process's own stdio with `on_stdio`, else `write` and `take` are its ends.
    /// It goes on when nobody waits for it any more, until it is told to stop.
    fn start(
        &self,
        completions: &Bound<'_, Completions>,
        future: Py<PyAny>,
        options: Vec<OsString>,
        environment: HashMap<OsString, OsString>,
        on_stdio: bool,
    ) -> PyResult<Operation> {
        let runtime = runtime::handle()?;
        let Some(input) = lock(&self.reader).take() else {
            return Err(PyRuntimeError::new_err("this bridge has run already: make another one"));
        };
        let (promise, operation) = Completions::promise(completions, future)?;
        let stop = Arc::clone(&self.stop);
        let stop = async move { stop.notified().await };
        let environment = move |name: &str| environment.get(OsStr::new(name)).cloned();
        let output = Arc::clone(&self.output);
        runtime.spawn(async move {
            let end = if on_stdio {
                mcp_gangway::embedded(options, environment, stdio::input(), stdio::output(), stop).await
            } else {
                let writer = Writer(Arc::clone(&output));
                mcp_gangway::embedded(options, environment, input, writer, stop).await
            };
            output.end(Ok(()));
            promise.keep(Ok(ended(end)));
        });
        Ok(operation)
    }

    /// Gives it bytes of its client's; the future is set when there is room for more.
    fn write(&self, completions: &Bound<'_, Completions>, future: Py<PyAny>, bytes: Vec<u8>) -> PyResult<Operation> {
        let Some(input) = lock(&self.input).clone() else {
            return Err(PyRuntimeError::new_err("the bridge takes no more input: it was closed"));
        };
        Completions::spawn(completions, future, async move {
            // A bridge that has ended takes nothing, and its end says why.
            let _ = input.send(bytes.into()).await;
            Ok::<Finish, _>(Box::new(|py| Ok(py.None())))
        })
    }

    /// The client writes nothing more.
    fn close_input(&self) {
        lock(&self.input).take();
    }

    /// What it has written: a list of chunks, empty if there is nothing yet, or None at the end.
    fn take<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        taken(py, &self.output)
    }

    /// The future is set when there is more to take.
    fn wait(&self, completions: &Bound<'_, Completions>, future: Py<PyAny>) -> PyResult<Operation> {
        let (promise, operation) = Completions::promise(completions, future)?;
        self.output.tell(promise);
        Ok(operation)
    }

    /// Tells it to end: what is pending is answered, with errors where need be.
    fn stop(&self) {
        self.stop.notify_one();
    }
}

fn ended(end: Result<(), mcp_gangway::Failure>) -> Finish {
    let (status, line) = match end {
        Ok(()) => (0, None),
        Err(failure) => (failure.status(), Some(failure.to_string())),
    };
    Box::new(move |py| Ok((status, line).into_pyobject(py)?.into_any().unbind()))
}

/// What the program writes, as a stream.
struct Reader {
    receiver: mpsc::Receiver<Bytes>,
    chunk: Bytes,
}

impl AsyncRead for Reader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.chunk.is_empty() {
            match ready!(self.receiver.poll_recv(context)) {
                Some(chunk) => self.chunk = chunk,
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = self.chunk.len().min(buffer.remaining());
        buffer.put_slice(self.chunk.get(..length).unwrap_or_default());
        self.chunk.advance(length);
        Poll::Ready(Ok(()))
    }
}
