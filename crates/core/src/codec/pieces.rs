//! Bytes that arrive in pieces and are wanted in one: a single piece stays as it is, several are copied once into a
//! growing buffer.

use bytes::{Bytes, BytesMut};

#[derive(Debug, Default)]
pub(crate) struct Pieces(Held);

#[derive(Debug, Default)]
enum Held {
    #[default]
    Nothing,
    One(Bytes),
    Many(BytesMut),
}

impl Pieces {
    /// Takes one more piece.
    pub(crate) fn push(&mut self, piece: Bytes) {
        self.0 = match std::mem::take(&mut self.0) {
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
    }

    pub(crate) fn len(&self) -> usize {
        match &self.0 {
            Held::Nothing => 0,
            Held::One(piece) => piece.len(),
            Held::Many(many) => many.len(),
        }
    }

    pub(crate) fn take(&mut self) -> Bytes {
        match std::mem::take(&mut self.0) {
            Held::Nothing => Bytes::new(),
            Held::One(piece) => piece,
            Held::Many(many) => many.freeze(),
        }
    }
}
