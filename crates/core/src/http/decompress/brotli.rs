//! Brotli in the form of RFC 7932, whose windows are 16 MiB at most. The library also reads a form with windows of 1 GiB, which
//! nobody but an attacker sends, and holds tables beside the window that a peer can make large; so what it takes is counted.

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

/// What the state itself takes, in bytes.
const STATE: usize = size_of::<CountedState>();
/// What a step may add to the tables: codes for 256 kinds of blocks in three categories.
const MORE_TABLES: usize = 4 << 20;

type CountedState = BrotliState<Counted, Counted, Counted>;

/// A decoder of brotli.
pub(super) struct Brotli {
    state: Box<CountedState>,
    tables: Counted,
    /// What the text announces, in bytes.
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
            return Err(io::Error::new(io::ErrorKind::InvalidData, "this is no brotli"));
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
        // It fills the window before it gives any of it.
        let touched =
            if self.state.rb_roundtrips > 0 { self.window } else { usize::try_from(self.state.pos).unwrap_or(0) };
        (own + MORE_TABLES + self.window, own + touched.min(self.window))
    }
}

/// The window, in bytes, that a text announces which begins with this byte (RFC 7932, 9.1).
fn announced(first: u8) -> usize {
    let (short, long) = (first >> 1 & 7, first >> 4 & 7);
    let bits = match (first & 1, short, long) {
        (0, ..) => 16,
        (_, 1.., _) => 17 + short,
        (_, _, 0) => 17,
        // 1 is no brotli, but the form that is not read.
        (_, _, long) => 8 + long,
    };
    1 << bits
}

/// The library's allocator, which tells how much is taken.
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
    fn the_window_is_read_from_the_first_byte() {
        for bits in 10..=24 {
            let mut encoder = ::brotli::CompressorWriter::new(Vec::new(), 4096, 5, bits);
            // More than the window, as the library announces no larger one than it needs.
            encoder.write_all(&vec![b'x'; 2 << bits]).unwrap();
            let text = encoder.into_inner();
            assert_eq!(announced(text[0]), 1 << bits);
        }
    }
}
