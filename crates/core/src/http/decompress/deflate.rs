//! The coding `deflate`: the zlib format (RFC 9110, 8.4.1.2), or the bare deflate format, which some servers send.

use std::io;

use compression_codecs::{
    DecodeV2, DeflateDecoder, ZlibDecoder,
    core::util::{PartialBuffer, WriteBuffer},
};

use super::{DEFLATE, Decompressor};

/// A decoder of either format.
pub(super) enum Deflate {
    Zlib(ZlibDecoder),
    Bare(DeflateDecoder),
}

impl Deflate {
    pub(super) fn new() -> Self {
        Self::Zlib(ZlibDecoder::new())
    }

    fn decoder(&mut self) -> &mut dyn DecodeV2 {
        match self {
            Self::Zlib(decoder) => decoder,
            Self::Bare(decoder) => decoder,
        }
    }
}

impl DecodeV2 for Deflate {
    fn reinit(&mut self) -> io::Result<()> {
        self.decoder().reinit()
    }

    fn decode(&mut self, input: &mut PartialBuffer<&[u8]>, output: &mut WriteBuffer<'_>) -> io::Result<bool> {
        self.decoder().decode(input, output)
    }

    fn flush(&mut self, output: &mut WriteBuffer<'_>) -> io::Result<bool> {
        self.decoder().flush(output)
    }

    fn finish(&mut self, output: &mut WriteBuffer<'_>) -> io::Result<bool> {
        self.decoder().finish(output)
    }
}

impl Decompressor for Deflate {
    fn begin(&mut self, input: &[u8]) {
        // The first byte of zlib ends with the method 8 (RFC 1950, 2.2). Bare deflate would begin with a block that is
        // not compressed and whose padding is not zero, which no encoder writes.
        let is_bare = input.first().is_some_and(|first| first & 0x0f != 8);
        match self {
            Self::Zlib(_) if is_bare => *self = Self::Bare(DeflateDecoder::new()),
            Self::Bare(_) if !is_bare => *self = Self::Zlib(ZlibDecoder::new()),
            _ => {}
        }
    }

    fn weight(&self, _expanded: usize) -> (usize, usize) {
        (DEFLATE, DEFLATE)
    }
}
