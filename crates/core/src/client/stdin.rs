//! Reads messages from stdin.

use crate::{
    error::{Error, ErrorKind, Hint},
    wire::{
        body::lines::Lines,
        id::Id,
        message::{Batch, Invalid, Message, Parsed},
        spool::{RejectedPayload, ScannedPayload, SpoolError, Spooler},
    },
};
use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Size of a read buffer, in bytes. Messages that arrive together share one buffer.
const READ_SIZE: usize = 16 << 10;
/// With less room than this in the buffer, the next read allocates another.
const MIN_READ_SIZE: usize = 2 << 10;

/// One message of the client, or the error for an invalid one.
pub(crate) type Incoming = Result<Message, Invalid>;

/// Reads messages from stdin.
pub(crate) struct Input<R> {
    reader: R,
    buffer: BytesMut,
    lines: Lines<Spooler>,
    /// The rest of the last line, if that was a batch (R16).
    batch: Option<Batch>,
    ended: bool,
}

impl<R: AsyncRead + Unpin> Input<R> {
    pub(crate) fn new(reader: R, limit: u64) -> Self {
        let lines = Lines::new(Spooler::in_memory(limit));
        Self { reader, buffer: BytesMut::new(), lines, batch: None, ended: false }
    }

    /// Returns the next message, or `None` at the end. Is cancel safe.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Incoming>> {
        loop {
            if let Some(message) = self.next_read() {
                return Ok(Some(message));
            }
            if self.ended {
                return Ok(None);
            }
            if self.buffer.capacity() - self.buffer.len() < MIN_READ_SIZE {
                self.buffer.reserve(READ_SIZE);
            }
            if self.reader.read_buf(&mut self.buffer).await? == 0 {
                self.ended = true;
                // The last line may lack its line break.
                if let Some(message) = self.lines.finish().and_then(|line| self.open(line)) {
                    return Ok(Some(message));
                }
                continue;
            }
            self.lines.feed(self.buffer.split().freeze());
        }
    }

    /// Returns the next message that was already read.
    pub(crate) fn next_read(&mut self) -> Option<Incoming> {
        loop {
            if let Some(element) = self.batch.as_mut().and_then(Iterator::next) {
                return Some(element);
            }
            self.batch = None;
            let line = self.lines.next()?;
            if let Some(message) = self.open(line) {
                return Some(message);
            }
        }
    }

    /// Returns the message of a line, or `None` if the line is blank or a batch. The messages of a batch are taken one
    /// by one: only 2025-03-26 has batches, and single messages are always valid (R16, R17).
    fn open(&mut self, line: Result<ScannedPayload, RejectedPayload>) -> Option<Incoming> {
        match line {
            Ok(line) if line.is_blank() => None,
            Ok(line) => match Message::read(&line) {
                Ok(Parsed::One(message)) => Some(Ok(message)),
                Ok(Parsed::Batch(batch)) => {
                    self.batch = Some(batch);
                    None
                }
                Err(invalid) => Some(Err(invalid)),
            },
            Err(RejectedPayload { error, id, .. }) => {
                let is_too_long = matches!(error, SpoolError::TooLong { .. });
                let error = Error::new(ErrorKind::TooLarge, format!("the client's message is {error}"));
                let error = if is_too_long { error.with_hint(Hint::RequestSize) } else { error };
                Some(Err(Invalid::not_kept(error, id.and_then(Id::read))))
            }
        }
    }
}
