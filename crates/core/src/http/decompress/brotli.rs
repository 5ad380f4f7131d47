//! Brotli as in RFC 7932, with windows up to 16 MiB.
//!
//! The library can also read a variant with windows of 1 GiB, which only an attacker would send. In addition to the
//! window it holds tables, and the peer determines their size, so its allocations are counted.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use brotli::{Allocator, BrotliDecompressStream, BrotliResult, BrotliState, SliceWrapper as _, enc::StandardAlloc};
use compression_codecs::{
    DecodeV2,
    core::util::{PartialBuffer, WriteBuffer},
};

use super::Decompressor;

/// The size of the decoder's state, in bytes.
const STATE: usize = size_of::<CountedState>();
/// How much one step may add to the tables: codes for 256 block types in three categories.
const MAX_TABLE_GROWTH: usize = 4 << 20;

type CountedState = BrotliState<Counted, Counted, Counted>;

/// A Brotli decoder.
pub(super) struct Brotli {
    state: Box<CountedState>,
    tables: Counted,
    /// The window that the text announces, in bytes.
    window: usize,
}

impl Brotli {
    pub(super) fn new() -> Self {
        let tables = Counted::default();
        let state = Box::new(CountedState::new_strict(Counted::default(), tables.clone(), tables.clone()));
        Self { state, tables, window: 0 }
    }

    fn run(&mut self, input: &mut PartialBuffer<&[u8]>, output: &mut WriteBuffer<'_>) -> io::Result<BrotliResult> {
        let (source, room) = (input.unwritten(), output.initialize_unwritten());
        let (mut read, mut written) = (0, 0);
        let result = BrotliDecompressStream(
            &mut source.len(),
            &mut read,
            source,
            &mut room.len(),
            &mut written,
            room,
            &mut 0,
            &mut self.state,
        );
        if matches!(result, BrotliResult::ResultFailure) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "invalid Brotli data"));
        }
        input.advance(read);
        output.advance(written);
        Ok(result)
    }
}

impl DecodeV2 for Brotli {
    fn reinit(&mut self) -> io::Result<()> {
        *self = Self::new();
        Ok(())
    }

    fn decode(&mut self, input: &mut PartialBuffer<&[u8]>, output: &mut WriteBuffer<'_>) -> io::Result<bool> {
        Ok(matches!(self.run(input, output)?, BrotliResult::ResultSuccess))
    }

    fn flush(&mut self, output: &mut WriteBuffer<'_>) -> io::Result<bool> {
        Ok(!matches!(self.run(&mut PartialBuffer::new(&[]), output)?, BrotliResult::NeedsMoreOutput))
    }

    fn finish(&mut self, output: &mut WriteBuffer<'_>) -> io::Result<bool> {
        match self.run(&mut PartialBuffer::new(&[]), output)? {
            BrotliResult::NeedsMoreInput => Err(io::ErrorKind::UnexpectedEof.into()),
            result => Ok(matches!(result, BrotliResult::ResultSuccess)),
        }
    }
}

impl Decompressor for Brotli {
    fn begin(&mut self, input: &[u8]) {
        self.window = input.first().map_or(0, |first| announced(*first));
    }

    fn weight(&self, _expanded: usize) -> (usize, usize) {
        let own = STATE + self.tables.bytes();
        // The decoder fills the window before it returns any of it.
        let touched =
            if self.state.rb_roundtrips > 0 { self.window } else { usize::try_from(self.state.pos).unwrap_or(0) };
        (own + MAX_TABLE_GROWTH + self.window, own + touched.min(self.window))
    }
}

/// Returns the window that a text with this first byte announces, in bytes (RFC 7932, 9.1).
fn announced(first: u8) -> usize {
    let (short, long) = (first >> 1 & 7, first >> 4 & 7);
    let bits = match (first & 1, short, long) {
        (0, ..) => 16,
        (_, 1.., _) => 17 + short,
        (_, _, 0) => 17,
        // 1 marks the variant with large windows, which is rejected.
        (_, _, long) => 8 + long,
    };
    1 << bits
}

/// The library's allocator, which also counts the allocated bytes.
#[derive(Clone, Default)]
struct Counted {
    inner: StandardAlloc,
    bytes: Arc<AtomicUsize>,
}

impl Counted {
    fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl<T: Clone + Default> Allocator<T> for Counted {
    type AllocatedMemory = <StandardAlloc as Allocator<T>>::AllocatedMemory;

    fn alloc_cell(&mut self, length: usize) -> Self::AllocatedMemory {
        self.bytes.fetch_add(length * size_of::<T>(), Ordering::Relaxed);
        self.inner.alloc_cell(length)
    }

    fn free_cell(&mut self, cell: Self::AllocatedMemory) {
        self.bytes.fetch_sub(size_of_val(cell.slice()), Ordering::Relaxed);
        Allocator::<T>::free_cell(&mut self.inner, cell);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn brotli_window_size_is_read_from_the_first_byte() {
        for bits in 10..=24 {
            let mut encoder = ::brotli::CompressorWriter::new(Vec::new(), 4096, 5, bits);
            // More than the window, because the library announces no larger window than it needs.
            encoder.write_all(&vec![b'x'; 2 << bits]).unwrap();
            let text = encoder.into_inner();
            assert_eq!(announced(text[0]), 1 << bits);
        }
    }
}
