//! A request body that Python produces while it is sent.
//!
//! Rule: at most one piece waits, so the producer is as slow as the server. A body that was not ended makes its
//! request fail, and is never taken for a complete one.

use std::{
    io,
    pin::Pin,
    sync::Mutex,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::Frame;
use pyo3::{exceptions::PyRuntimeError, prelude::*};
use tokio::sync::{mpsc, oneshot};

use crate::{
    completions::{Finish, Operation, Waiter, lock},
    failure::Failure,
    http::{seconds, within},
};

/// The end that Python writes to.
#[pyclass(frozen, module = "mcp_gangway._native")]
pub(crate) struct Upload {
    /// None once it is closed.
    sender: Mutex<Option<mpsc::Sender<Option<Bytes>>>>,
    /// Ready when the first piece is requested; until then no write timeout runs. None once that was waited for.
    begun: Mutex<Option<oneshot::Receiver<()>>>,
    /// None once it is sent.
    body: Mutex<Option<(Pieces, Consumed)>>,
}

/// Ready when a body has been consumed to its end, or is no longer wanted.
pub(crate) type Consumed = oneshot::Receiver<()>;

#[pymethods]
impl Upload {
    #[new]
    fn new() -> Self {
        let (sender, receiver) = mpsc::channel(1);
        let (first_poll, begun) = oneshot::channel();
        let (wanted, consumed) = oneshot::channel();
        let pieces = Pieces { receiver, first_poll: Some(first_poll), _wanted: wanted };
        Self {
            sender: Mutex::new(Some(sender)),
            begun: Mutex::new(Some(begun)),
            body: Mutex::new(Some((pieces, consumed))),
        }
    }

    /// Writes the next piece, or None for the end. When there is room for it, the future gets whether the body is
    /// still wanted. `limit` is the write timeout.
    fn write(
        &self,
        waiter: Waiter<'_>,
        future: Py<PyAny>,
        piece: Option<&[u8]>,
        limit: Option<f64>,
    ) -> PyResult<Operation> {
        let piece = piece.map(Bytes::copy_from_slice);
        let limit = seconds(limit)?;
        let Some(sender) = lock(&self.sender).clone() else {
            return Err(PyRuntimeError::new_err("the body was closed"));
        };
        let begun = lock(&self.begun).take();
        waiter.spawn(future, async move {
            if let Some(begun) = begun {
                let _ = begun.await;
            }
            let is_wanted = within(limit, "write_timeout", sender.send(piece)).await?.is_ok();
            Ok::<Finish, Failure>(Box::new(move |py| Ok(is_wanted.into_pyobject(py)?.to_owned().into_any().unbind())))
        })
    }

    /// Closes the body. If it was not ended, its request fails.
    fn close(&self) {
        lock(&self.sender).take();
    }
}

impl Upload {
    /// Takes the end that is sent.
    ///
    /// # Errors
    /// It was sent already.
    pub(crate) fn body(&self) -> PyResult<(Pieces, Consumed)> {
        lock(&self.body).take().ok_or_else(|| PyRuntimeError::new_err("the body was sent already"))
    }
}

/// The written pieces, as a body.
pub(crate) struct Pieces {
    receiver: mpsc::Receiver<Option<Bytes>>,
    first_poll: Option<oneshot::Sender<()>>,
    /// Dropping it completes [`Consumed`].
    _wanted: oneshot::Sender<()>,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(first_poll) = self.first_poll.take() {
            let _ = first_poll.send(());
        }
        Poll::Ready(match ready!(self.receiver.poll_recv(context)) {
            Some(piece) => piece.map(|piece| Ok(Frame::data(piece))),
            None => Some(Err(io::Error::other("the program did not finish the request's body"))),
        })
    }
}
