//! Cuts a stream of bytes into lines, for stdin and for NDJSON.
//!
//! A line ends at LF; a CR before it is dropped. A line inside one chunk is a slice of it; only a line that spans
//! chunks is copied, once. No byte is searched twice: what is carried over holds no LF.
//! A line over the limit is reported once and skipped; the next one is read as usual.

use bytes::Bytes;

use super::pieces::{Pieces, TooLong};

/// A line over the limit: how it begins, and the error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LongLine {
    pub(crate) error: TooLong,
    pub(crate) head: Bytes,
}

/// What is kept of a line over the limit.
const HEAD: usize = 4096;

/// See the module. Call [`Lines::feed`], then [`Lines::next`] until it has no more; at the end [`Lines::finish`].
#[derive(Debug)]
pub(crate) struct Lines {
    chunk: Bytes,
    carried: Pieces,
    skipping: bool,
}

impl Lines {
    /// A cutter of lines of at most `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self { chunk: Bytes::new(), carried: Pieces::new(limit), skipping: false }
    }

    /// Takes the next bytes of the stream, once `next` has used up the last ones.
    pub(crate) fn feed(&mut self, chunk: Bytes) {
        debug_assert!(self.chunk.is_empty(), "feed before the last chunk was used up");
        self.chunk = chunk;
    }

    /// The next complete line, without its end.
    pub(crate) fn next(&mut self) -> Option<Result<Bytes, LongLine>> {
        loop {
            let Some(end) = memchr::memchr(b'\n', &self.chunk) else {
                let rest = std::mem::take(&mut self.chunk);
                return self.carry(rest).err().map(Err);
            };
            let tail = self.chunk.split_to(end);
            self.chunk = self.chunk.split_off(1);
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            return Some(self.hold(tail).map(|()| without_cr(self.carried.take())));
        }
    }

    /// The last line, if the stream ended without LF after it.
    pub(crate) fn finish(&mut self) -> Option<Bytes> {
        (!std::mem::take(&mut self.skipping) && self.carried.len() > 0).then(|| without_cr(self.carried.take()))
    }

    fn carry(&mut self, rest: Bytes) -> Result<(), LongLine> {
        if rest.is_empty() || self.skipping {
            return Ok(());
        }
        self.hold(rest).inspect_err(|_| self.skipping = true)
    }

    fn hold(&mut self, piece: Bytes) -> Result<(), LongLine> {
        self.carried.push(piece.clone()).map_err(|error| {
            let carried = self.carried.take();
            let beginning = if carried.is_empty() { piece } else { carried };
            // A copy, so as not to keep the whole line for it.
            LongLine { error, head: Bytes::copy_from_slice(beginning.get(..HEAD).unwrap_or(&beginning)) }
        })
    }
}

fn without_cr(mut line: Bytes) -> Bytes {
    if line.last() == Some(&b'\r') {
        line.truncate(line.len() - 1);
    }
    line
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(chunks: &[&[u8]], limit: usize) -> Vec<Result<Bytes, TooLong>> {
        let mut lines = Lines::new(limit);
        let mut all = Vec::new();
        for chunk in chunks {
            lines.feed(Bytes::copy_from_slice(chunk));
            all.extend(std::iter::from_fn(|| lines.next()).map(|line| line.map_err(|long| long.error)));
        }
        all.extend(lines.finish().map(Ok));
        all
    }

    /// What the module promises, in the plainest way.
    fn naive(input: &[u8], limit: usize) -> Vec<Result<Bytes, TooLong>> {
        let mut parts: Vec<&[u8]> = input.split(|byte| *byte == b'\n').collect();
        let last = parts.pop().filter(|last| !last.is_empty());
        parts
            .into_iter()
            .chain(last)
            .map(|part| {
                if part.len() > limit {
                    return Err(TooLong { limit });
                }
                Ok(Bytes::copy_from_slice(part.strip_suffix(b"\r").unwrap_or(part)))
            })
            .collect()
    }

    #[test]
    fn vectors_hold_at_every_cut() {
        for case in crate::vectors::read("lines") {
            let expected: Vec<_> =
                case.expected.iter().map(|line| Ok(Bytes::from(line.clone().into_bytes()))).collect();
            assert_eq!(lines(&[&case.input], 100), expected, "{}", case.name);
            for cut in 0..=case.input.len() {
                let (head, tail) = case.input.split_at(cut);
                assert_eq!(lines(&[head, tail], 100), expected, "{} cut at byte {cut}", case.name);
            }
        }
    }

    #[test]
    fn a_line_over_the_limit_is_skipped_and_reported_once() {
        let long = Err(TooLong { limit: 4 });
        assert_eq!(lines(&[b"123", b"45", b"67", b"8\nok\n"], 4), [long.clone(), Ok("ok".into())]);
        assert_eq!(lines(&[b"12345\nok"], 4), [long.clone(), Ok("ok".into())]);
        assert_eq!(lines(&[b"1234\n12345"], 4), [Ok("1234".into()), long]);
    }

    #[test]
    fn a_line_inside_one_chunk_is_not_copied() {
        let chunk = Bytes::from_static(b"one\ntwo\n");
        let mut lines = Lines::new(100);
        lines.feed(chunk.clone());
        let line = lines.next().unwrap().unwrap();
        assert_eq!(line.as_ptr(), chunk.as_ptr());
    }

    proptest! {
        #[test]
        fn equals_the_naive_cutter(
            input in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(b'a'), any::<u8>()], 0..60),
            cuts in proptest::collection::vec(0usize..60, 0..6),
            limit in 0usize..12,
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
            prop_assert_eq!(lines(&chunks, limit), naive(&input, limit));
        }
    }
}
