//! What holds for every input, as functions that panic where it does not: the fuzz targets call them with anything, the
//! unit tests with their cases and with generated input. Each compares a part of the data path with an oracle that reads
//! the whole text in the plainest way; for JSON that is `serde_json`.
//!
//! Rule: however a text is cut into chunks, the same is found in it. What is the same is written down in one place, here.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "these are tests"
)]

mod decoder;
mod headers;
mod hostile;
mod lines;
mod members;
mod message;
mod scanner;
mod splice;
mod sse;

use bytes::Bytes;

pub(crate) use self::scanner::scan;
pub use self::{
    decoder::decoder, headers::headers, hostile::hostile, lines::lines, message::message, scanner::scanner, splice::splice, sse::sse,
};
#[cfg(test)]
pub(crate) use self::{
    headers::decoded,
    lines::{lines_in, naive_lines},
    scanner::agrees,
    sse::{Seen, events_in, naive_events},
};
use crate::payload::{Gathered, Payload};

/// A fuzzer's input: a text, and how it arrives.
///
/// The first byte is the check's own. The second has the number of sizes in its two lowest bits and in the others how far the
/// text is stretched, at the place that the third names. The sizes follow, one byte each, and the rest is text.
struct Input {
    choice: u8,
    text: Vec<u8>,
    /// The sizes of its chunks, over and over. All of it is one chunk if there are none.
    sizes: Vec<usize>,
}

impl Input {
    fn read(input: &[u8]) -> Self {
        let ([choice, form, place], rest) = input.split_first_chunk().unwrap_or((&[0; 3], &[]));
        let (sizes, text) = rest.split_at_checked(usize::from(form & 3)).unwrap_or_default();
        let text = stretched(text, form >> 2, *place);
        // A long text in the smallest chunks would take long, and show nothing that a short one does not.
        let least = text.len() / 256;
        let sizes = sizes.iter().map(|size| match usize::from(*size) {
            small @ ..128 => (small + 1).max(least),
            large => (large - 127) << 9,
        });
        Self { choice: *choice, sizes: sizes.collect(), text }
    }

    /// The text as it arrives.
    fn chunks(&self) -> Vec<&[u8]> {
        let mut rest = &*self.text;
        let mut chunks = Vec::new();
        for size in self.sizes.iter().cycle() {
            if rest.is_empty() {
                return chunks;
            }
            let (chunk, after) = rest.split_at(rest.len().min(*size));
            chunks.push(chunk);
            rest = after;
        }
        vec![rest]
    }

    /// The ways of cutting the text that must make no difference: as it arrives, and byte by byte unless that takes long.
    fn cuts(&self) -> Vec<Vec<&[u8]>> {
        let mut cuts = vec![self.chunks()];
        if self.text.len() <= 2000 {
            cuts.push(self.text.chunks(1).collect());
        }
        cuts
    }

    /// How large a part of the text may be: any size for most choices, else a few bytes or some.
    fn limit(&self) -> u64 {
        match self.choice {
            ..128 => u64::MAX,
            few @ 128..240 => u64::from(few - 128),
            _ => 20_000,
        }
    }

    fn shown(&self) -> String {
        let text = self.text.get(..2000).unwrap_or(&self.text);
        format!("{} bytes, \"{}\", in chunks of {:?}", self.text.len(), text.escape_ascii(), self.sizes)
    }
}

/// The text, in some cases with one of its bytes repeated: about as often as there is room for in what the data path keeps,
/// carries, takes at once or has in memory, which a fuzzer would not come to with bytes of its own.
fn stretched(text: &[u8], how: u8, place: u8) -> Vec<u8> {
    let mut stretched = text.to_vec();
    let at = text.len() * usize::from(place) / 256;
    let Some(byte) = text.get(at) else { return stretched };
    let length = match how {
        ..48 => 0,
        48..53 => 64,
        // As many lines would take long, and show nothing that a few do not.
        _ if matches!(byte, b'\r' | b'\n') => 64,
        53..59 => 4096,
        59..63 => 16 << 10,
        _ => 160 << 10,
    };
    stretched.splice(at..at, std::iter::repeat_n(*byte, length - length.min(usize::from(place & 7) * 4)));
    stretched
}

/// What was gathered, wherever it is. What was seen of it on its way is what there is to see.
fn text_of(gathered: &Gathered) -> Bytes {
    let text = match &gathered.payload {
        Payload::Memory(bytes) => bytes.clone(),
        Payload::File(spooled) => spooled.load().expect("a file is read back"),
    };
    assert_eq!(gathered.length(), text.len() as u64);
    assert_eq!(gathered.outline, scan([&*text]), "{}", text.escape_ascii());
    text
}
