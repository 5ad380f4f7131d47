//! A bounded queue of bytes from the background to an event loop: the body of a response, or what a bridge writes.
//!
//! Rule: who reads never waits for a lock or for the background; it takes all that is there, and asks to be told when there
//! is more. Who writes waits while more than a bound is there.

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

/// Bytes that may wait to be read. One chunk may go beyond.
const ROOM: usize = 256 << 10;

/// The queue, which both ends share.
#[derive(Default)]
pub(crate) struct Chunks(Mutex<State>);

#[derive(Default)]
struct State {
    ready: VecDeque<Bytes>,
    length: usize,
    end: Option<Result<(), Failure>>,
    /// Who waits for more.
    reader: Option<Promise>,
    /// Who waits for room.
    writer: Option<Waker>,
}

/// What is there to be read.
pub(crate) enum Taken {
    Chunks(VecDeque<Bytes>),
    /// Nothing yet.
    Nothing,
    /// The end, or what broke it off.
    End(Result<(), Failure>),
}

impl Chunks {
    /// All that is there. An end is told once.
    pub(crate) fn take(&self) -> Taken {
        let mut state = lock(&self.0);
        if !state.ready.is_empty() {
            state.length = 0;
            if let Some(writer) = state.writer.take() {
                writer.wake();
            }
            return Taken::Chunks(std::mem::take(&mut state.ready));
        }
        state.end.take().map_or(Taken::Nothing, Taken::End)
    }

    /// Keeps the promise as soon as there is something to take.
    pub(crate) fn tell(&self, promise: Promise) {
        let mut state = lock(&self.0);
        if state.ready.is_empty() && state.end.is_none() {
            state.reader = Some(promise);
        } else {
            drop(state);
            told(Some(promise));
        }
    }

    /// Adds a chunk, when there is room.
    pub(crate) async fn push(&self, chunk: Bytes) {
        let mut chunk = Some(chunk);
        std::future::poll_fn(|context| self.poll_push(context, &mut chunk)).await;
    }

    fn poll_push(&self, context: &mut Context<'_>, chunk: &mut Option<Bytes>) -> Poll<()> {
        let mut state = lock(&self.0);
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

    /// Nothing more comes.
    pub(crate) fn end(&self, outcome: Result<(), Failure>) {
        let mut state = lock(&self.0);
        state.end = Some(outcome);
        let reader = state.reader.take();
        drop(state);
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
