//! Runs the bridge inside a Python program: on the process's own stdio, or between two streams of the program.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use mcp_gangway::embedded::{self, Log};
use mcp_gangway_core::{Config, stdio};
use pyo3::{
    exceptions::{PyRuntimeError, PyValueError},
    prelude::*,
};
use tokio::{
    io::{AsyncRead, ReadBuf},
    sync::{Notify, mpsc},
};

use crate::{
    chunks::{Chunks, Writer},
    completions::{Finish, Operation, Waiter, lock},
    http::taken,
    runtime,
    settings::{self, Certificates},
};

/// The most chunks of input that wait for the bridge.
const WAITING: usize = 16;

/// A bridge that is not running yet, runs, or has ended.
#[pyclass(frozen, module = "mcp_gangway._native")]
pub(crate) struct Bridge {
    input: Mutex<Option<mpsc::Sender<Bytes>>>,
    /// Its settings and input. None once it runs.
    task: Mutex<Option<(Config, Log, Reader)>>,
    output: Arc<Chunks>,
    stop: Arc<Notify>,
    /// How long the client's writer may accept nothing at the end, in seconds.
    #[pyo3(get)]
    drain_time: f64,
}

#[pymethods]
impl Bridge {
    /// `settings` has the attributes of `BridgeSettings`.
    #[new]
    fn new(settings: &Bound<'_, PyAny>, certificates: Certificates) -> PyResult<Self> {
        let (config, log) = settings::read(settings, certificates)?;
        let (sender, receiver) = mpsc::channel(WAITING);
        let reader = Reader { receiver, chunk: Bytes::new() };
        Ok(Self {
            drain_time: config.timeouts.drain.as_secs_f64(),
            input: Mutex::new(Some(sender)),
            task: Mutex::new(Some((config, log, reader))),
            output: Arc::default(),
            stop: Arc::default(),
        })
    }

    /// Starts the bridge. The future gets the exit status, and the line that the command would have written, if any.
    /// With `on_stdio` it uses the process's own stdio, otherwise `write` and `take`. Dropping the future does not
    /// stop the bridge.
    fn start(&self, waiter: Waiter<'_>, future: Py<PyAny>, on_stdio: bool) -> PyResult<Operation> {
        let runtime = runtime::handle()?;
        let Some((config, log, input)) = lock(&self.task).take() else {
            return Err(PyRuntimeError::new_err("this bridge has run already: make another one"));
        };
        let (promise, operation) = waiter.promise(future)?;
        let stop = Arc::clone(&self.stop);
        let stop = async move { stop.notified().await };
        let output = Arc::clone(&self.output);
        runtime.spawn(async move {
            let end = if on_stdio {
                embedded::run(config, log, stdio::input(), stdio::output(), stop).await
            } else {
                embedded::run(config, log, input, Writer(Arc::clone(&output)), stop).await
            };
            output.end(Ok(()));
            promise.keep(Ok(ended(end)));
        });
        Ok(operation)
    }

    /// Passes it bytes from its client. The future is set when there is room for more.
    fn write(&self, waiter: Waiter<'_>, future: Py<PyAny>, bytes: Vec<u8>) -> PyResult<Operation> {
        let Some(input) = lock(&self.input).clone() else {
            return Err(PyRuntimeError::new_err("the bridge takes no more input: it was closed"));
        };
        waiter.spawn(future, async move {
            // A bridge that has ended accepts nothing; its outcome says why.
            let _ = input.send(bytes.into()).await;
            Ok::<Finish, _>(Box::new(|py| Ok(py.None())))
        })
    }

    /// Ends the client's input.
    fn close_input(&self) {
        lock(&self.input).take();
    }

    /// Takes its output: a list of chunks, empty if there is nothing yet, or None at the end. The chunks count as
    /// unwritten until `written` is called.
    fn take<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        taken(py, self.output.take_and_hold())
    }

    /// Reports that this many bytes were written. This makes room for more, so that a slow client slows the bridge.
    fn written(&self, length: usize) {
        self.output.free(length);
    }

    /// Sets the future when there is more to take.
    fn wait(&self, waiter: Waiter<'_>, future: Py<PyAny>) -> PyResult<Operation> {
        let (promise, operation) = waiter.promise(future)?;
        self.output.tell(promise);
        Ok(operation)
    }

    /// Stops the bridge. Pending requests are answered, with errors if need be.
    fn stop(&self) {
        self.stop.notify_one();
    }
}

fn ended(end: Result<(), mcp_gangway::Failure>) -> Finish {
    let (status, line) = match end {
        Ok(()) => (0, None),
        Err(failure) => (failure.status(), Some(failure.to_string())),
    };
    Box::new(move |py| match line {
        // Only errors at the start, such as an unusable log file.
        Some(line) if status == 2 => Err(PyValueError::new_err(line)),
        line => Ok((status, line).into_pyobject(py)?.into_any().unbind()),
    })
}

/// The program's input for the bridge, as a stream.
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
