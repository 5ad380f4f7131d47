//! Joins bytes that arrive in pieces: a single piece stays as it is, several are copied once into a growing buffer.

use bytes::{Bytes, BytesMut};

use crate::wire::spool::{RejectedPayload, ScannedPayload, SpoolError, Spooler};

/// Joins the pieces of texts, one text after another.
pub(crate) trait PieceJoiner {
    /// A joined text.
    type Whole;
    /// Why a text is given up.
    type Refusal;

    /// Takes one more piece.
    ///
    /// # Errors
    /// Fails if the text is given up; the next piece begins another.
    fn push(&mut self, piece: Bytes) -> Result<(), Self::Refusal>;

    /// Returns the text; the next piece begins another.
    ///
    /// # Errors
    /// Fails if the text is given up.
    fn take(&mut self) -> Result<Self::Whole, Self::Refusal>;

    /// True if nothing of the next text has arrived.
    fn is_empty(&self) -> bool;
}

impl PieceJoiner for Spooler {
    type Whole = ScannedPayload;
    type Refusal = RejectedPayload;

    fn push(&mut self, piece: Bytes) -> Result<(), RejectedPayload> {
        self.push(piece)
    }

    fn take(&mut self) -> Result<ScannedPayload, RejectedPayload> {
        self.take()
    }

    fn is_empty(&self) -> bool {
        self.length() == 0
    }
}

/// Joins texts in memory, of at most `limit` bytes, without a check.
#[derive(Debug)]
pub(crate) struct Plain {
    pieces: Pieces,
    limit: u64,
}

impl Plain {
    pub(crate) fn new(limit: u64) -> Self {
        Self { pieces: Pieces::default(), limit }
    }
}

impl PieceJoiner for Plain {
    type Whole = Bytes;
    type Refusal = SpoolError;

    fn push(&mut self, piece: Bytes) -> Result<(), SpoolError> {
        if (self.pieces.len() + piece.len()) as u64 > self.limit {
            self.pieces.take();
            return Err(SpoolError::TooLong { limit: self.limit });
        }
        self.pieces.push(piece);
        Ok(())
    }

    fn take(&mut self) -> Result<Bytes, SpoolError> {
        Ok(self.pieces.take())
    }

    fn is_empty(&self) -> bool {
        self.pieces.len() == 0
    }
}

#[derive(Debug, Default)]
pub(crate) struct Pieces(HeldPieces);

#[derive(Debug, Default)]
enum HeldPieces {
    #[default]
    Nothing,
    One(Bytes),
    Many(BytesMut),
}

impl Pieces {
    /// Takes one more piece.
    pub(crate) fn push(&mut self, piece: Bytes) {
        self.0 = match std::mem::take(&mut self.0) {
            HeldPieces::Nothing => HeldPieces::One(piece),
            HeldPieces::One(first) => {
                let mut many = BytesMut::with_capacity((first.len() + piece.len()) * 2);
                many.extend_from_slice(&first);
                many.extend_from_slice(&piece);
                HeldPieces::Many(many)
            }
            HeldPieces::Many(mut many) => {
                many.extend_from_slice(&piece);
                HeldPieces::Many(many)
            }
        };
    }

    pub(crate) fn len(&self) -> usize {
        match &self.0 {
            HeldPieces::Nothing => 0,
            HeldPieces::One(piece) => piece.len(),
            HeldPieces::Many(many) => many.len(),
        }
    }

    pub(crate) fn take(&mut self) -> Bytes {
        match std::mem::take(&mut self.0) {
            HeldPieces::Nothing => Bytes::new(),
            HeldPieces::One(piece) => piece,
            HeldPieces::Many(many) => many.freeze(),
        }
    }
}
