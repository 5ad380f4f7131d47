//! A message as one line for stdout.

use bytes::Bytes;

use super::spool::Spooled;

/// The cost of a line whose bytes are in a file: a descriptor, and one block in memory while it is written.
const SPOOLED_LINE_COST: usize = 64 << 10;

/// One line, without its line end.
#[derive(Clone, Debug)]
pub(crate) enum Line {
    Memory {
        bytes: Bytes,
        /// True if there are raw line breaks. They become spaces when the line is written (R2).
        line_breaks: bool,
    },
    /// A line that is too large for memory. `failure` is the error reply for the case that its file cannot be read.
    Spooled { spooled: Spooled, line_breaks: bool, failure: Option<Bytes> },
}

impl Line {
    /// Returns the bytes that the line takes in memory.
    pub(crate) fn cost(&self) -> usize {
        match self {
            Self::Memory { bytes, .. } => bytes.len(),
            Self::Spooled { .. } => SPOOLED_LINE_COST,
        }
    }
}

impl From<Bytes> for Line {
    fn from(bytes: Bytes) -> Self {
        Self::Memory { bytes, line_breaks: false }
    }
}

/// Replaces raw line breaks with spaces.
pub(crate) fn blank_line_breaks(text: &mut [u8]) {
    let mut rest = text;
    while let Some(at) = memchr::memchr2(b'\r', b'\n', rest) {
        let Some((byte, after)) = rest.get_mut(at..).and_then(<[u8]>::split_first_mut) else { return };
        *byte = b' ';
        rest = after;
    }
}
