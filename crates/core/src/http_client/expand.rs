//! What decompresses the body of a response (RFC 9110, 8.4), piece by piece as it comes.
//!
//! Rules: what has come so far is expanded as far as it goes, so that an event does not wait for the next; and memory is
//! bounded, however much a little may expand to.

use std::io;

use bytes::{Buf as _, Bytes, BytesMut};
use compression_codecs::{
    BrotliDecoder, DecodeV2, GzipDecoder, ZlibDecoder, ZstdDecoder,
    core::util::{PartialBuffer, WriteBuffer},
    zstd::params::DParameter,
};
use http::{HeaderMap, header};

/// How far back a body in zstd may refer, as a power of 2: the 8 MiB that RFC 9659 allows. The library would take 128 MiB, and
/// each open reply would hold as much.
const ZSTD_WINDOW: u32 = 23;
/// What is expanded at once.
const BLOCK: usize = 16 << 10;
/// A block with less room than this is left, and another one begun.
const LITTLE_ROOM: usize = 4 << 10;

/// A body that is being expanded.
pub(super) struct Expander {
    decoder: Box<dyn DecodeV2 + Send + Sync>,
    input: Bytes,
    /// Room for what is expanded next.
    block: BytesMut,
    /// The decoder may hold more than it had room for.
    is_full: bool,
    /// Nothing has begun that is not at its end. Most formats allow several texts, one after the other.
    is_whole: bool,
}

impl std::fmt::Debug for Expander {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Expander").finish_non_exhaustive()
    }
}

impl Expander {
    /// One for a response with these headers, if its body is compressed in one way that is known.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let coding = headers.get(header::CONTENT_ENCODING)?.as_bytes().trim_ascii().to_ascii_lowercase();
        let decoder: Box<dyn DecodeV2 + Send + Sync> = match coding.as_slice() {
            b"zstd" => Box::new(ZstdDecoder::new_with_params(&[DParameter::window_log_max(ZSTD_WINDOW)])),
            b"gzip" | b"x-gzip" => Box::new(GzipDecoder::new()),
            b"deflate" => Box::new(ZlibDecoder::new()),
            b"br" => Box::new(BrotliDecoder::new()),
            _ => return None,
        };
        Some(Self { decoder, input: Bytes::new(), block: BytesMut::new(), is_full: false, is_whole: true })
    }

    /// Takes the next bytes of the body. All before must have been expanded.
    pub(super) fn feed(&mut self, input: Bytes) {
        self.input = input;
    }

    /// The next bytes of the text; `None` if they need more input.
    ///
    /// # Errors
    /// The body is not what its header says.
    pub(super) fn next(&mut self) -> io::Result<Option<Bytes>> {
        while !self.input.is_empty() || self.is_full {
            if self.is_whole && !self.is_full {
                self.decoder.reinit()?;
                self.is_whole = false;
            }
            if self.block.len() < LITTLE_ROOM {
                self.block = BytesMut::zeroed(BLOCK);
            }
            let mut output = WriteBuffer::new_initialized(&mut self.block);
            let mut input = PartialBuffer::new(&self.input[..]);
            if self.input.is_empty() {
                self.decoder.flush(&mut output)?;
            } else {
                self.is_whole = self.decoder.decode(&mut input, &mut output)?;
            }
            let (read, written) = (input.written_len(), output.written_len());
            self.is_full = written == self.block.len() && !self.is_whole;
            self.input.advance(read);
            if written > 0 {
                return Ok(Some(self.block.split_to(written).freeze()));
            }
            if read == 0 && !self.input.is_empty() {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        Ok(None)
    }

    /// The body is at its end.
    ///
    /// # Errors
    /// Its text is not.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        // The decoder alone knows, if the last of the text had to wait for room after all of the input was read.
        let is_whole =
            self.is_whole || self.decoder.finish(&mut WriteBuffer::new_initialized(&mut [0])).unwrap_or(false);
        if is_whole { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}
