//! Checks lines against a split of the whole text.

use bytes::Bytes;

use super::{Input, text_of};
use crate::wire::{
    body::Lines,
    spool::{RejectedPayload, ScannedPayload, SpoolError, Spooler, Storage},
};

/// Checks that any bytes give the same lines in chunks as in one piece.
pub fn lines(input: &[u8]) {
    let input = Input::read(input);
    let limit = input.limit();
    let expected = naive_lines(&input.text, limit);
    for chunks in [vec![&*input.text]].into_iter().chain(input.cuts()) {
        assert!(lines_in(&chunks, limit) == expected, "{}, limit {limit}", input.shown());
    }
}

/// Returns the lines of a stream in these chunks, without their LF.
pub(crate) fn lines_in(chunks: &[&[u8]], limit: u64) -> Vec<Result<Bytes, SpoolError>> {
    let text = |line: Result<ScannedPayload, RejectedPayload>| {
        line.map(|line| text_of(&line)).map_err(|given_up| given_up.error)
    };
    let mut lines = Lines::new(Spooler::new(limit, &Storage::used_up()));
    let mut all = Vec::new();
    for chunk in chunks {
        lines.feed(Bytes::copy_from_slice(chunk));
        all.extend(std::iter::from_fn(|| lines.next()).map(text));
    }
    all.extend(lines.finish().map(text));
    all
}

/// Splits lines as [`Lines`] does, in the simplest way.
pub(crate) fn naive_lines(input: &[u8], limit: u64) -> Vec<Result<Bytes, SpoolError>> {
    let mut parts: Vec<&[u8]> = input.split(|byte| *byte == b'\n').collect();
    let last = parts.pop().filter(|last| !last.is_empty());
    let line = |part: &[u8]| {
        if part.len() as u64 > limit { Err(SpoolError::TooLong { limit }) } else { Ok(Bytes::copy_from_slice(part)) }
    };
    parts.into_iter().chain(last).map(line).collect()
}
