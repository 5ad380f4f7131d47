//! What each stage of the data path costs alone, in bytes a second: body bytes to messages, JSON judged while it passes,
//! one message looked at. `cargo bench -p mcp-gangway-core --features internals --bench codec`
//!
//! The sizes are those that tell designs apart: many small messages in one chunk, chunks of about a message, and one
//! message of 64 MiB, where everything that looks at a byte twice shows. Chunks are slices of one buffer, as they are
//! when they come from a connection. A message over a MiB goes through a temporary file here as it does in the bridge.

#![allow(clippy::unwrap_used, reason = "a benchmark of what does not work has nothing to say")]

use bytes::Bytes;
use divan::{Bencher, black_box, counter::BytesCount};
use mcp_gangway_core::internals;

#[path = "support/texts.rs"]
mod texts;

use texts::{chunks, message, result, stream};

/// Bytes of one message, and of one chunk.
const SIZES: [(usize, usize); 5] =
    [(150, 1 << 10), (150, 16 << 10), (4 << 10, 16 << 10), (64 << 20, 1 << 10), (64 << 20, 16 << 10)];

const TEXTS: [&str; 5] = ["ascii", "utf8", "escapes", "numbers", "pretty"];

/// Bytes of a text for the scanner.
const TEXT: usize = 1 << 20;

fn main() {
    divan::main();
}

/// Each part of an event's data is looked at as text, as whoever reads it does.
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

/// The same, and each event's data judged as JSON and looked at.
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
