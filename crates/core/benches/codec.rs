//! Measures each stage of the data path alone, in bytes per second: body bytes to messages, the JSON scanner, and the
//! parser of one message. `cargo bench -p mcp-gangway-core --features internals --bench codec`
//!
//! The sizes are those where designs differ: many small messages in one chunk, chunks of about one message, and one
//! message of 64 MiB, which shows any code that reads a byte twice. Chunks are slices of one buffer, as they are when
//! they come from a connection. A message over 1 MiB goes through a temporary file, as in the bridge.

#![allow(clippy::unwrap_used, reason = "a benchmark may panic")]

use bytes::Bytes;
use divan::{Bencher, black_box, counter::BytesCount};
use mcp_gangway_core::internals;

#[path = "support/texts.rs"]
mod texts;

use texts::{chunks, message, result, stream};

/// The bytes of one message, and of one chunk.
const SIZES: [(usize, usize); 5] =
    [(150, 1 << 10), (150, 16 << 10), (4 << 10, 16 << 10), (64 << 20, 1 << 10), (64 << 20, 16 << 10)];

const TEXTS: [&str; 5] = ["ascii", "utf8", "escapes", "numbers", "pretty"];

/// The bytes of a text for the scanner.
const TEXT: usize = 1 << 20;

fn main() {
    divan::main();
}

/// Decodes each part of an event's data as text, as its reader would.
#[divan::bench(args = SIZES, sample_size = 1, max_time = 2)]
fn sse(bencher: Bencher<'_, '_>, (message, chunk): (usize, usize)) {
    let stream = stream("event: message\ndata: ", message, "\n\n");
    measure(bencher, &stream, |stream| {
        let mut count = 0_usize;
        internals::sse(
            chunks(stream, chunk),
            |data| {
                let _ = black_box(str::from_utf8(data));
            },
            |_| count += 1,
        );
        count
    });
}

/// The same, and scans and parses each event's data as JSON.
#[divan::bench(args = SIZES, sample_size = 1, max_time = 2)]
fn sse_messages(bencher: Bencher<'_, '_>, (message, chunk): (usize, usize)) {
    let stream = stream("event: message\ndata: ", message, "\n\n");
    measure(bencher, &stream, |stream| {
        let mut count = 0_usize;
        internals::decode(Some("text/event-stream"), chunks(stream, chunk), |_| count += 1);
        count
    });
}

#[divan::bench(args = SIZES, sample_size = 1, max_time = 2)]
fn ndjson(bencher: Bencher<'_, '_>, (message, chunk): (usize, usize)) {
    let stream = stream("", message, "\n");
    measure(bencher, &stream, |stream| {
        let mut count = 0_usize;
        internals::lines(chunks(stream, chunk), |line| {
            black_box(line);
            count += 1;
        });
        count
    });
}

#[divan::bench(args = TEXTS)]
fn scan(bencher: Bencher<'_, '_>, kind: &str) {
    let text = Bytes::from(result(kind, TEXT));
    measure(bencher, &text, |text| internals::scan(text.chunks(16 << 10)).unwrap());
}

#[divan::bench(args = [200, 4 << 10])]
fn peek(bencher: Bencher<'_, '_>, size: usize) {
    let line = Bytes::from(message(size));
    measure(bencher, &line, internals::peek);
}

fn measure<T>(bencher: Bencher<'_, '_>, input: &Bytes, work: impl Fn(&Bytes) -> T) {
    bencher.counter(BytesCount::new(input.len())).bench_local(|| work(black_box(input)));
}
