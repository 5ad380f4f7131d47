//! Bytes that arrive in pieces and are wanted in one: a single piece stays as it is, several are copied once into a
//! growing buffer. The limit stands here, where the bytes accumulate.

use bytes::{Bytes, BytesMut};
use thiserror::Error;

/// A line, event or body is larger than its reader takes.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("longer than the limit of {limit} bytes")]
pub(crate) struct TooLong {
    /// The limit, in bytes.
    pub(crate) limit: usize,
}

#[derive(Debug)]
pub(crate) struct Pieces {
    held: Held,
    limit: usize,
}

#[derive(Debug, Default)]
enum Held {
    #[default]
    Nothing,
    One(Bytes),
    Many(BytesMut),
}

impl Pieces {
    pub(crate) fn new(limit: usize) -> Self {
        Self { held: Held::Nothing, limit }
    }

    /// Takes one more piece, unless that would pass the limit.
    pub(crate) fn push(&mut self, piece: Bytes) -> Result<(), TooLong> {
        if piece.len() > self.limit - self.len() {
            return Err(TooLong { limit: self.limit });
        }
        self.held = match std::mem::take(&mut self.held) {
            Held::Nothing => Held::One(piece),
            Held::One(first) => {
                let mut many = BytesMut::with_capacity((first.len() + piece.len()) * 2);
                many.extend_from_slice(&first);
                many.extend_from_slice(&piece);
                Held::Many(many)
            }
            Held::Many(mut many) => {
                many.extend_from_slice(&piece);
                Held::Many(many)
            }
        };
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        match &self.held {
            Held::Nothing => 0,
            Held::One(piece) => piece.len(),
            Held::Many(many) => many.len(),
        }
    }

    /// Nothing was pushed since the last take, not even an empty piece.
    pub(crate) fn is_untouched(&self) -> bool {
        matches!(self.held, Held::Nothing)
    }

    pub(crate) fn take(&mut self) -> Bytes {
        match std::mem::take(&mut self.held) {
            Held::Nothing => Bytes::new(),
            Held::One(piece) => piece,
            Held::Many(many) => many.freeze(),
        }
    }
}
