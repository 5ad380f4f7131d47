//! How far a request has come on its way to the server: what must be known to say whether it may have run.

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

/// What is known about a request's way to the server.
#[derive(Debug, Default)]
pub(crate) struct Delivery {
    begun: AtomicBool,
    /// True once all of it is written, false once it is known that it never will be.
    whole: SetOnce<bool>,
}

impl Delivery {
    /// Another try starts, or the last one came to nothing: nothing is written yet.
    pub(crate) fn begin(&self) {
        self.begun.store(false, Ordering::Release);
    }

    /// The server has it already, by another way.
    pub(crate) fn arrived(&self) {
        self.begun.store(true, Ordering::Release);
    }

    /// Whether a connection began to write the request in its last try, so that the server may have it.
    pub(crate) fn may_have_arrived(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    /// Waits until the request has been written, or never will be; says which.
    pub(crate) async fn decided(&self) -> bool {
        *self.whole.wait().await
    }

    /// The request will not be written any more, if it was not yet.
    pub(crate) fn close(&self) {
        let _ = self.whole.set(false);
    }
}

/// A request's body, which records how far a connection has taken it.
#[derive(Default)]
pub(super) struct DeliveryBody {
    rest: Option<Bytes>,
    delivery: Option<Arc<Delivery>>,
}

/// What a connection takes of a body at once, so that a long one is not called written when it has just begun.
const PIECE: usize = 64 << 10;

impl DeliveryBody {
    /// A body that tells of its way.
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
