//! Records how much of a request has been written to a connection, to tell whether the request may have run.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::sync::SetOnce;

/// The delivery of a request.
#[derive(Debug, Default)]
pub(crate) struct Delivery {
    begun: AtomicBool,
    /// True once the whole request is written, false once it is certain that it never will be.
    whole: SetOnce<bool>,
}

impl Delivery {
    /// Resets the record, because another try starts or the last one had no effect.
    pub(crate) fn begin(&self) {
        self.begun.store(false, Ordering::Release);
    }

    /// Records that the server already has the request, because another message carried it.
    pub(crate) fn arrived(&self) {
        self.begun.store(true, Ordering::Release);
    }

    /// True if a connection began to write the request in its last try, so that the server may have it.
    pub(crate) fn may_have_arrived(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    /// Waits until the request has been written (returns true) or never will be (returns false).
    pub(crate) async fn decided(&self) -> bool {
        *self.whole.wait().await
    }

    /// Records that the request will not be written, unless it already was.
    pub(crate) fn close(&self) {
        let _ = self.whole.set(false);
    }
}

/// A request body that records how much of it a connection has taken.
#[derive(Default)]
pub(super) struct DeliveryBody {
    rest: Option<Bytes>,
    delivery: Option<Arc<Delivery>>,
}

/// The most that a connection takes of a body at once, in bytes, so that a long body does not count as written too
/// early.
const PIECE: usize = 64 << 10;

impl DeliveryBody {
    /// Creates a body that reports to `delivery`.
    pub(super) fn new(body: Bytes, delivery: &Arc<Delivery>) -> Self {
        Self { rest: Some(body), delivery: Some(Arc::clone(delivery)) }
    }
}

impl http_body::Body for DeliveryBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let rest = self.rest.take();
        let Some(delivery) = &self.delivery else { return Poll::Ready(None) };
        delivery.begun.store(true, Ordering::Release);
        let Some(mut piece) = rest else { return Poll::Ready(None) };
        if piece.len() > PIECE {
            self.rest = Some(piece.split_off(PIECE));
        } else {
            let _ = delivery.whole.set(true);
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.as_ref().map_or(0, |rest| rest.len() as u64))
    }
}
