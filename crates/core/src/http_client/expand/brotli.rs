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

use super::Decoder;

/// What the state itself takes, in bytes.
const STATE: usize = size_of::<State>();

type State = BrotliState<Counted, Counted, Counted>;

/// A decoder of brotli.
pub(super) struct Brotli {
    state: Box<State>,
    window: Counted,
    tables: Counted,
}

impl Brotli {
    pub(super) fn new() -> Self {
        let (window, tables) = (Counted::default(), Counted::default());
        let state = Box::new(State::new_strict(window.clone(), tables.clone(), tables.clone()));
        Self { state, window, tables }
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

impl Decoder for Brotli {
    fn weight(&self) -> (usize, usize) {
        (STATE + self.tables.bytes(), self.window.bytes())
    }
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
        self.bytes.fetch_sub(cell.slice().len() * size_of::<T>(), Ordering::Relaxed);
        Allocator::<T>::free_cell(&mut self.inner, cell);
    }
}
