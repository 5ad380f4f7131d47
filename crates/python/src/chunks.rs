//! A bounded queue of bytes from the background to a reader: the body of a response, or a bridge's output.
//!
//! Rule: the reader never waits for a lock or for the background. It takes everything that is there, and is notified
//! when there is more. The writer waits while the queue is full.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use tokio::io::AsyncWrite;

use crate::{
    completions::{Promise, lock},
    failure::Failure,
};

/// The capacity in bytes. One chunk may exceed it.
const ROOM: usize = 256 << 10;
/// The chunk size of a stream, in bytes: a slow reader takes no more at a time.
const PIECE: usize = 16 << 10;

/// The queue, which both ends share.
#[derive(Default)]
pub(crate) struct Chunks(Mutex<State>);

#[derive(Default)]
struct State {
    ready: VecDeque<Bytes>,
    length: usize,
    end: Option<Result<(), Failure>>,
    /// True once the reader has closed it.
    is_closed: bool,
    /// The reader that waits for more.
    reader: Option<Promise>,
    /// The writer that waits for room.
    writer: Option<Waker>,
}

/// The outcome of a read.
pub(crate) enum Taken {
    Chunks(VecDeque<Bytes>),
    /// Nothing yet.
    Nothing,
    /// The end, or the failure.
    End(Result<(), Failure>),
}

impl Chunks {
    /// Takes all chunks and frees their room. The end is returned once.
    pub(crate) fn take(&self) -> Taken {
        let taken = self.take_and_hold();
        if let Taken::Chunks(chunks) = &taken {
            self.free(chunks.iter().map(Bytes::len).sum());
        }
        taken
    }

    /// Takes all chunks without freeing their room; call `free` when they have been passed on.
    pub(crate) fn take_and_hold(&self) -> Taken {
        let mut state = lock(&self.0);
        if !state.ready.is_empty() {
            return Taken::Chunks(std::mem::take(&mut state.ready));
        }
        if state.is_closed {
            return Taken::End(Err(Failure::closed()));
        }
        state.end.take().map_or(Taken::Nothing, Taken::End)
    }

    /// Frees the room of this many bytes.
    pub(crate) fn free(&self, length: usize) {
        let mut state = lock(&self.0);
        state.length = state.length.saturating_sub(length);
        if state.length < ROOM
            && let Some(writer) = state.writer.take()
        {
            writer.wake();
        }
    }

    /// Keeps the promise as soon as there is something to take.
    pub(crate) fn tell(&self, promise: Promise) {
        let mut state = lock(&self.0);
        if state.ready.is_empty() && state.end.is_none() && !state.is_closed {
            state.reader = Some(promise);
        } else {
            drop(state);
            told(Some(promise));
        }
    }

    /// Adds a chunk, even if there is no room.
    pub(crate) fn put(&self, chunk: Bytes) {
        let mut state = lock(&self.0);
        state.length += chunk.len();
        state.ready.push_back(chunk);
    }

    /// Waits for room, then adds a chunk.
    pub(crate) async fn push(&self, chunk: Bytes) {
        let mut chunk = Some(chunk);
        std::future::poll_fn(|context| self.poll_push(context, &mut chunk)).await;
    }

    fn poll_push(&self, context: &mut Context<'_>, chunk: &mut Option<Bytes>) -> Poll<()> {
        let mut state = lock(&self.0);
        if state.is_closed {
            return Poll::Ready(());
        }
        if state.length >= ROOM {
            state.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        if let Some(chunk) = chunk.take().filter(|chunk| !chunk.is_empty()) {
            state.length += chunk.len();
            state.ready.push_back(chunk);
            let reader = state.reader.take();
            drop(state);
            told(reader);
        }
        Poll::Ready(())
    }

    /// Marks the end.
    pub(crate) fn end(&self, outcome: Result<(), Failure>) {
        let mut state = lock(&self.0);
        if state.is_closed {
            return;
        }
        state.end = Some(outcome);
        let reader = state.reader.take();
        drop(state);
        told(reader);
    }

    /// Closes the reading end. A reader that waits in another thread is told.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.0);
        state.is_closed = true;
        let (unread, reader) = (std::mem::take(&mut state.ready), state.reader.take());
        drop(state);
        drop(unread);
        told(reader);
    }
}

fn told(reader: Option<Promise>) {
    if let Some(reader) = reader {
        reader.keep(Ok(Box::new(|py| Ok(py.None()))));
    }
}

/// The writing end, as a stream.
pub(crate) struct Writer(pub(crate) Arc<Chunks>);

impl AsyncWrite for Writer {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let bytes = bytes.get(..PIECE).unwrap_or(bytes);
        let mut chunk = Some(Bytes::copy_from_slice(bytes));
        self.0.poll_push(context, &mut chunk).map(|()| Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
