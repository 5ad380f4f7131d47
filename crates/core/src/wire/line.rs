//! A message as the line that stdout gets.

use bytes::Bytes;

use super::spool::Spooled;

/// What a line costs whose bytes are in a file: a descriptor, and the block that is in memory while it is written.
const SPOOLED: usize = 64 << 10;

/// One line, without its end.
#[derive(Clone, Debug)]
pub(crate) enum Line {
    Memory {
        bytes: Bytes,
        /// There are raw line breaks, which become spaces when it is written (R2).
        line_breaks: bool,
    },
    /// A line that is too large to be in memory, and the one that tells its reader should its file not be readable.
    Spooled { spooled: Spooled, line_breaks: bool, failure: Option<Bytes> },
}

impl Line {
    /// Bytes that it takes in memory.
    pub(crate) fn cost(&self) -> usize {
        match self {
            Self::Memory { bytes, .. } => bytes.len(),
            Self::Spooled { .. } => SPOOLED,
        }
    }
}

impl From<Bytes> for Line {
    fn from(bytes: Bytes) -> Self {
        Self::Memory { bytes, line_breaks: false }
    }
}

/// With spaces in the place of raw line breaks.
pub(crate) fn blank_line_breaks(text: &mut [u8]) {
    let mut rest = text;
    while let Some(at) = memchr::memchr2(b'\r', b'\n', rest) {
        let Some((byte, after)) = rest.get_mut(at..).and_then(<[u8]>::split_first_mut) else { return };
        *byte = b' ';
        rest = after;
    }
}
