//! A request body that Python produces while it is sent.
//!
//! Rule: at most one piece waits, so the producer is as slow as the server. A body that was not ended makes its
//! request fail, and is never taken for a complete one.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex},
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
    declared: Arc<Mutex<Declared>>,
}

/// What is left of the length that the request's `Content-Length` declares, if it has one.
///
/// Rule: the bytes that complete the length are kept until the body ends. So a longer body never becomes a complete
/// request.
#[derive(Default)]
struct Declared {
    left: Option<u64>,
    last: Option<Bytes>,
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
            declared: Arc::default(),
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
        let declared = Arc::clone(&self.declared);
        waiter.spawn(future, async move {
            if let Some(begun) = begun {
                let _ = begun.await;
            }
            let mut is_wanted = true;
            let pieces = lock(&declared).accept(piece)?;
            for piece in pieces {
                is_wanted = within(limit, "write_timeout", sender.send(piece)).await?.is_ok();
            }
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

    /// Sets the length that the request's headers declare. Call it before the request is sent.
    pub(crate) fn declare(&self, length: Option<u64>) {
        lock(&self.declared).left = length;
    }
}

impl Declared {
    /// Returns what to send now, for the next piece or for the end (None).
    ///
    /// # Errors
    /// The body has another length than declared.
    fn accept(&mut self, piece: Option<Bytes>) -> Result<Vec<Option<Bytes>>, Failure> {
        let wrong = |than: &str| {
            Failure::new("invalid_request", format!("the request's body is {than} than its Content-Length says"))
        };
        let Some(left) = &mut self.left else { return Ok(vec![piece]) };
        let Some(piece) = piece else {
            return if *left == 0 { Ok(vec![self.last.take(), None]) } else { Err(wrong("shorter")) };
        };
        *left = left.checked_sub(piece.len() as u64).ok_or_else(|| wrong("longer"))?;
        if piece.is_empty() {
            return Ok(Vec::new());
        }
        if *left > 0 {
            return Ok(vec![Some(piece)]);
        }
        self.last = Some(piece);
        Ok(Vec::new())
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
