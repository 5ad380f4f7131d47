//! Cuts a stream of bytes into lines, for stdin and for NDJSON.
//!
//! A line ends at LF. A CR before it stays in the line, as white space of the message. A line inside one chunk is a
//! slice of it; a line that spans chunks is copied once. No byte is searched twice, as the carried bytes hold no LF. A
//! line over the limit is reported once and skipped; the next one is read as usual.

use std::mem;

use bytes::Bytes;

use super::pieces::PieceJoiner;

/// See the module. Call [`Lines::feed`], then [`Lines::next`] until it returns `None`; at the end call
/// [`Lines::finish`].
#[derive(Debug)]
pub(crate) struct Lines<G> {
    chunk: Bytes,
    /// The chunk is read up to here.
    at: usize,
    carried: G,
    skipping: bool,
}

impl<G: PieceJoiner> Lines<G> {
    /// Creates a line cutter. `spooler` joins the parts of a line, and checks it.
    pub(crate) fn new(spooler: G) -> Self {
        Self { chunk: Bytes::new(), at: 0, carried: spooler, skipping: false }
    }

    /// Returns the spooler that joins the parts of a line.
    pub(crate) fn spooler(&self) -> &G {
        &self.carried
    }

    /// Takes the next chunk of the stream, once `next` returns `None`.
    pub(crate) fn feed(&mut self, chunk: Bytes) {
        debug_assert!(self.at == self.chunk.len(), "feed before the last chunk was used up");
        self.chunk = chunk;
        self.at = 0;
    }

    /// Returns the next complete line, without its line end.
    pub(crate) fn next(&mut self) -> Option<Result<G::Whole, G::Refusal>> {
        loop {
            let rest = self.chunk.get(self.at..).unwrap_or_default();
            let start = self.at;
            let Some(length) = memchr::memchr(b'\n', rest) else {
                let rest = self.chunk.slice(start..);
                (self.chunk, self.at) = (Bytes::new(), 0);
                return self.carry(rest).err().map(Err);
            };
            self.at += length + 1;
            if mem::take(&mut self.skipping) {
                continue;
            }
            let tail = self.chunk.slice(start..start + length);
            return Some(self.carried.push(tail).and_then(|()| self.carried.take()));
        }
    }

    /// Returns the last line, if the stream ended without an LF after it.
    pub(crate) fn finish(&mut self) -> Option<Result<G::Whole, G::Refusal>> {
        (!mem::take(&mut self.skipping) && !self.carried.is_empty()).then(|| self.carried.take())
    }

    fn carry(&mut self, rest: Bytes) -> Result<(), G::Refusal> {
        if rest.is_empty() || self.skipping {
            return Ok(());
        }
        self.carried.push(rest).inspect_err(|_| self.skipping = true)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        internals::checks::{lines_in, naive_lines},
        wire::spool::{SpoolError, Spooler, tests::storage},
    };

    #[test]
    fn vectors_hold_at_every_cut() {
        for case in crate::vectors::read("lines") {
            let expected = lines_in(&[&case.input], 100);
            // The expected lines are without the CR, which stays in the line.
            let texts: Vec<_> = expected.iter().map(|line| String::from_utf8_lossy(line.as_ref().unwrap())).collect();
            let texts: Vec<_> = texts.iter().map(|line| line.strip_suffix('\r').unwrap_or(line)).collect();
            assert_eq!(texts, case.expected, "{}", case.name);
            for cut in 0..=case.input.len() {
                let (head, tail) = case.input.split_at(cut);
                assert_eq!(lines_in(&[head, tail], 100), expected, "{} cut at byte {cut}", case.name);
            }
        }
    }

    #[test]
    fn a_line_over_the_limit_is_skipped_and_reported_once() {
        let long = Err(SpoolError::TooLong { limit: 4 });
        assert_eq!(lines_in(&[b"123", b"45", b"67", b"8\nok\n"], 4), [long.clone(), Ok("ok".into())]);
        assert_eq!(lines_in(&[b"12345\nok"], 4), [long.clone(), Ok("ok".into())]);
        assert_eq!(lines_in(&[b"1234\n12345"], 4), [Ok("1234".into()), long]);
    }

    #[test]
    fn a_line_inside_one_chunk_is_not_copied() {
        let chunk = Bytes::from_static(b"one\ntwo\n");
        let mut lines = Lines::new(Spooler::new(100, &storage()));
        lines.feed(chunk.clone());
        let line = lines.next().unwrap().unwrap().in_memory().unwrap().clone();
        assert_eq!(line.as_ptr(), chunk.as_ptr());
    }

    proptest! {
        #[test]
        fn lines_match_a_naive_line_splitter(
            input in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(b'a'), any::<u8>()], 0..60),
            cuts in proptest::collection::vec(0usize..60, 0..6),
            limit in 0u64..12,
        ) {
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(input.len())).collect();
            cuts.sort_unstable();
            let mut chunks = Vec::new();
            let mut from = 0;
            for cut in cuts {
                chunks.push(&input[from..cut]);
                from = cut;
            }
            chunks.push(&input[from..]);
            prop_assert_eq!(lines_in(&chunks, limit), naive_lines(&input, limit));
        }
    }
}
