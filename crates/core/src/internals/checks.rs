//! Properties that hold for every input, as functions that panic if one does not. The fuzz targets call them with
//! arbitrary input, the unit tests with fixed and generated cases. Each compares a part of the data path with an oracle
//! that reads the whole text in the simplest way. For JSON the oracle is `serde_json`.
//!
//! Rule: chunk boundaries never change the result. Each property is defined in one place, here.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "these are tests"
)]

#[cfg(feature = "oauth")]
mod challenge;
mod compressed;
mod cookies;
mod decoder;
mod eras;
mod headers;
mod hostile;
mod lines;
mod members;
mod message;
#[cfg(feature = "oauth")]
mod oauth;
mod response;
mod scanner;
mod splice;
mod sse;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

pub(crate) use self::scanner::scan;
#[cfg(feature = "oauth")]
pub use self::{challenge::challenge, oauth::oauth};
pub use self::{
    cookies::cookies, decoder::decoder, eras::eras, headers::headers, hostile::hostile, lines::lines, message::message,
    response::response, scanner::scanner, splice::splice, sse::sse,
};
#[cfg(test)]
pub(crate) use self::{
    headers::decoded,
    lines::{lines_in, naive_lines},
    scanner::agrees,
    sse::{Seen, events_in, naive_events},
};
use crate::wire::spool::{Payload, ScannedPayload};

/// A fuzzer's input: a text, and the sizes of its chunks.
///
/// The first byte is for the check itself. The second has the number of sizes in its two lowest bits. Its other bits
/// say how far the text is stretched, and the third byte says where. The sizes follow, one byte each, then the text.
struct Input {
    choice: u8,
    text: Vec<u8>,
    /// The sizes of its chunks, repeated. If empty, the whole text is one chunk.
    sizes: Vec<usize>,
}

impl Input {
    fn read(input: &[u8]) -> Self {
        let ([choice, form, place], rest) = input.split_first_chunk().unwrap_or((&[0; 3], &[]));
        let (sizes, text) = rest.split_at_checked(usize::from(form & 3)).unwrap_or_default();
        let text = stretched(text, form >> 2, *place);
        // Very small chunks of a long text take long, and find nothing that a short text does not.
        let least = text.len() / 256;
        let sizes = sizes.iter().map(|size| match usize::from(*size) {
            small @ ..128 => (small + 1).max(least),
            large => (large - 127) << 9,
        });
        Self { choice: *choice, sizes: sizes.collect(), text }
    }

    /// Returns the text in its chunks.
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

    /// Returns the ways to cut the text that must give the same result: its chunks, and single bytes unless that takes
    /// long.
    fn cuts(&self) -> Vec<Vec<&[u8]>> {
        let mut cuts = vec![self.chunks()];
        if self.text.len() <= 2000 {
            cuts.push(self.text.chunks(1).collect());
        }
        cuts
    }

    /// Returns the size limit for a part of the text: none for most choices, else a few bytes or 20,000.
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

/// Returns the text, in some cases with a part of it repeated. The repeats fill about as much as the data path keeps,
/// carries, reads at once or has in memory, or a mebibyte. A fuzzer would not find such sizes itself.
fn stretched(text: &[u8], how: u8, place: u8) -> Vec<u8> {
    let at = text.len() * usize::from(place) / 256;
    let (before, after) = text.split_at(at);
    let Some(byte) = after.first() else { return text.to_vec() };
    let fragment = after.get(..1 + usize::from(place & 15)).unwrap_or(after);
    // As many lines as bytes would take the oracles too long.
    let has_lines = fragment.iter().any(|byte| matches!(byte, b'\r' | b'\n'));
    let room = if has_lines { 64 << 10 } else { LONGEST };
    let length = match how {
        ..48 => 0,
        62 => return [before, &fragment.repeat(room / fragment.len()), after].concat(),
        63 => return nested(before, fragment, after, room),
        48..53 => 64,
        // As many lines would take long, and show nothing that a few do not.
        _ if matches!(byte, b'\r' | b'\n') => 64,
        53..58 => 4096,
        58..61 => 16 << 10,
        61.. => 160 << 10,
    };
    let length = length - length.min(usize::from(place & 7) * 4);
    [before, &vec![*byte; length], after].concat()
}

/// The longest stretched text, and the most levels of nesting, which the scanner still accepts. A tenth of it is enough
/// to detect recursion, and the unit tests run without optimisation.
const LONGEST: usize = if cfg!(test) { 100_000 } else { 1_000_000 };

/// Nests a text as deep as there is room for: repeats a fragment, and repeats its closing brackets where the text
/// closed it, or at the end.
fn nested(before: &[u8], fragment: &[u8], after: &[u8], room: usize) -> Vec<u8> {
    let mut closers = Vec::new();
    for byte in fragment {
        match byte {
            b'[' => closers.push(b']'),
            b'{' => closers.push(b'}'),
            b']' | b'}' => _ = closers.pop(),
            _ => {}
        }
    }
    closers.reverse();
    let levels = room / (fragment.len() + closers.len());
    let closed = closers.first().and_then(|closer| after.iter().position(|byte| byte == closer)).unwrap_or(after.len());
    let (inside, outside) = after.split_at(closed);
    [before, &fragment.repeat(levels), inside, &closers.repeat(levels), outside].concat()
}

/// Makes headers of one name.
fn repeated(name: &HeaderName, values: impl IntoIterator<Item = HeaderValue>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in values {
        // Fails for tens of thousands of values, which no response has.
        let _ = headers.try_append(name, value);
    }
    headers
}

/// An empty request body.
struct NoBody;

impl http_body::Body for NoBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        std::task::Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        true
    }
}

/// Returns the text, from memory or a file, and checks that its outline is correct.
fn text_of(gathered: &ScannedPayload) -> Bytes {
    let text = match &gathered.payload {
        Payload::Memory(bytes) => bytes.clone(),
        Payload::File(spooled) => spooled.load().expect("a file is read back"),
    };
    assert_eq!(gathered.length(), text.len() as u64);
    assert_eq!(gathered.outline, scan([&*text]), "{}", text.escape_ascii());
    text
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// The stack size of the fuzz targets.
    const STACK: usize = 256 << 10;

    type Check = fn(&[u8]);

    /// Texts to stretch, and where.
    const TEXTS: &[(&str, &str)] = &[
        ("[1]", "["),
        (r#"{"a":1}"#, r#"{"a":"#),
        (r#"[{"id":1,"method":"a","params":[]}]"#, r#"[{"id":1,"method"#),
        (r#"{"jsonrpc":"2.0","id":1,"result":{"a":1}}"#, r#"{"a":"#),
        (r#"{"jsonrpc":"2.0","id":1,"method":"a"}"#, "a"),
        ("data: [1]\n\n", "["),
        ("data: x\n\n", "data: x\n\n"),
        ("data: x\n\n", "x"),
        ("{}\n", "{}\n"),
        ("[{},{}]", "{},"),
        (r#"Bearer scope="a", error="b""#, r#"scope="a", "#),
        (r#""\\\"\ud800""#, r#"\\\""#),
    ];

    /// A fuzzer's input for such a text.
    fn input(choice: u8, how: u8, text: &str, fragment: &str) -> Option<Vec<u8>> {
        let at = text.find(fragment)?;
        // Finds a place whose lowest bits give the fragment's length. Spaces before the text move the place until one
        // fits.
        (0..40).find_map(|more| {
            let text = format!("{}{text}", " ".repeat(more));
            let is_it = |place: &u8| {
                usize::from(place & 15) + 1 == fragment.len() && text.len() * usize::from(*place) / 256 == at + more
            };
            let place = (0..=255).find(is_it)?;
            Some([&[choice, how << 2, place], text.as_bytes()].concat())
        })
    }

    #[test]
    fn hostile_input_shapes_need_only_a_small_stack() {
        let checks: &[(&str, Check)] = &[
            ("scanner", scanner),
            ("message", message),
            ("decoder", decoder),
            ("sse", sse),
            ("lines", lines),
            ("splice", splice),
            ("eras", eras),
            ("cookies", cookies),
        ];
        let mut made = 0;
        for (text, fragment) in TEXTS {
            for (name, check) in checks {
                for (choice, how) in [(1, 62), (2, 63)] {
                    let Some(input) = input(choice, how, text, fragment) else { continue };
                    made += 1;
                    let run = move || check(&input);
                    let thread =
                        thread::Builder::new().name(format!("{name} {choice} {how} {text:?}")).stack_size(STACK);
                    thread.spawn(run).unwrap().join().unwrap();
                }
            }
        }
        assert!(made > 150, "{made} inputs");
    }
}
