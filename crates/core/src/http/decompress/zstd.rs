//! Zstandard, and the window size that each of its frames announces (RFC 8878, 3.1.1.1).

use std::io;

use compression_codecs::{
    DecodeV2, ZstdDecoder,
    core::util::{PartialBuffer, WriteBuffer},
    zstd::params::DParameter,
};

use super::Decompressor;

/// The largest window, as a power of 2: 8 MiB, as in RFC 9659. The library would accept 128 MiB, and each open
/// response could hold that much.
const MAX_WINDOW_LOG: u32 = 23;
/// The memory of the library without the window, in bytes: its tables, and one block before and one after
/// decompression.
const TABLES: usize = 320 << 10;
const MAGIC: u32 = 0xFD2F_B528;

/// A Zstandard decoder.
pub(super) struct Zstd {
    decoder: ZstdDecoder,
    /// The largest window of the frames so far, in bytes.
    window: usize,
}

impl Zstd {
    pub(super) fn new() -> Self {
        let decoder = ZstdDecoder::new_with_params(&[DParameter::window_log_max(MAX_WINDOW_LOG)]);
        Self { decoder, window: 0 }
    }
}

impl DecodeV2 for Zstd {
    fn reinit(&mut self) -> io::Result<()> {
        self.decoder.reinit()
    }

    fn decode(&mut self, input: &mut PartialBuffer<&[u8]>, output: &mut WriteBuffer<'_>) -> io::Result<bool> {
        self.decoder.decode(input, output)
    }

    fn flush(&mut self, output: &mut WriteBuffer<'_>) -> io::Result<bool> {
        self.decoder.flush(output)
    }

    fn finish(&mut self, output: &mut WriteBuffer<'_>) -> io::Result<bool> {
        self.decoder.finish(output)
    }
}

impl Decompressor for Zstd {
    fn begin(&mut self, input: &[u8]) {
        // An incomplete header counts as the largest window.
        let window = announced(input).unwrap_or(u64::MAX).min(1 << MAX_WINDOW_LOG);
        self.window = self.window.max(usize::try_from(window).unwrap_or(usize::MAX));
    }

    fn weight(&self, expanded: usize) -> (usize, usize) {
        (TABLES + self.window, TABLES + self.window.min(expanded))
    }
}

/// Returns the window that a frame with this beginning announces, in bytes; `None` if the beginning is too short.
fn announced(frame: &[u8]) -> Option<u64> {
    let (magic, rest) = frame.split_first_chunk()?;
    if u32::from_le_bytes(*magic) != MAGIC {
        // A skippable frame, or no frame at all.
        return Some(0);
    }
    let (descriptor, rest) = rest.split_first()?;
    if descriptor & 0x20 == 0 {
        let window = rest.first()?;
        let base = 1_u64 << (10 + (window >> 3));
        return Some(base + base / 8 * u64::from(window & 7));
    }
    // A single segment: the window is the content, and its size follows the dictionary ID.
    let dictionary = [0, 1, 2, 4].get(usize::from(descriptor & 3))?;
    let size = rest.get(*dictionary..)?;
    match descriptor >> 6 {
        0 => size.first().map(|size| u64::from(*size)),
        1 => size.first_chunk().map(|size| u64::from(u16::from_le_bytes(*size)) + 256),
        2 => size.first_chunk().map(|size| u64::from(u32::from_le_bytes(*size))),
        _ => size.first_chunk().map(|size| u64::from_le_bytes(*size)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn zstd_window_size_is_read_from_the_frame_header() {
        for log in [10, 17, 20, 23] {
            let mut encoder = ::zstd::Encoder::new(Vec::new(), 1).unwrap();
            encoder.window_log(log).unwrap();
            encoder.write_all(b"text").unwrap();
            let frame = encoder.finish().unwrap();
            assert_eq!(announced(&frame), Some(1 << log));
            assert_eq!((announced(&frame[..5]), announced(b"")), (None, None));
        }
        for length in [0, 100, 300, 70_000] {
            let frame = ::zstd::bulk::compress(&vec![b'x'; length], 1).unwrap();
            assert_eq!(announced(&frame), Some(length as u64), "in one segment");
        }
        assert_eq!(announced(b"\x50\x2a\x4d\x18\x00\x00\x00\x00"), Some(0), "a frame to be passed over");
    }
}
