//! What each stage of the data path costs alone, in bytes a second: body bytes to messages, JSON judged while it passes,
//! one message looked at. `cargo bench -p gangway --features internals --bench codec`
//!
//! The sizes are those that tell designs apart: many small messages in one chunk, chunks of about a message, and one
//! message of 64 MiB, where everything that looks at a byte twice shows. Chunks are slices of one buffer, as they are
//! when they come from a connection. A message over a MiB goes through a temporary file here as it does in the bridge.

#![allow(clippy::unwrap_used, reason = "a benchmark of what does not work has nothing to say")]

use std::iter;

use bytes::Bytes;
use divan::{Bencher, black_box, counter::BytesCount};
use gangway::internals;

/// Bytes of one message, and of one chunk.
const SIZES: [(usize, usize); 5] =
    [(150, 1 << 10), (150, 16 << 10), (4 << 10, 16 << 10), (64 << 20, 1 << 10), (64 << 20, 16 << 10)];

/// Small messages are put together to a stream of this size.
const STREAM: usize = 4 << 20;

const TEXTS: [&str; 5] = ["ascii", "utf8", "escapes", "numbers", "pretty"];

/// Bytes of a text for the scanner.
const TEXT: usize = 1 << 20;

fn main() {
    divan::main();
}

#[divan::bench(args = SIZES, sample_size = 1, max_time = 2)]
fn sse(bencher: Bencher<'_, '_>, (message, chunk): (usize, usize)) {
    let stream = stream("event: message\ndata: ", message, "\n\n");
    measure(bencher, &stream, |stream| {
        let mut count = 0_usize;
        internals::sse(chunks(stream, chunk), |_, data| {
            black_box(data);
            count += 1;
        });
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

fn chunks(stream: &Bytes, size: usize) -> impl Iterator<Item = Bytes> {
    (0..stream.len()).step_by(size).map(move |start| stream.slice(start..stream.len().min(start + size)))
}

/// As many messages of `size` bytes, each between `before` and `after`, as make a stream long enough to measure.
fn stream(before: &str, size: usize, after: &str) -> Bytes {
    let one = format!("{before}{}{after}", message(size));
    Bytes::from(one.repeat(STREAM.div_ceil(one.len())))
}

/// A notification of `size` bytes.
fn message(size: usize) -> String {
    let head = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"message":""#;
    let text = "Read 12 of 40 files; ".chars().cycle().take(size - head.len() - r#""}}"#.len());
    head.chars().chain(text).chain(r#""}}"#.chars()).collect()
}

/// A tool's result of about `size` bytes, of what tools return.
fn result(kind: &str, size: usize) -> String {
    let item = match kind {
        "ascii" => r#"{"type":"text","text":"The file has 412 lines and was last changed by the build on Monday."},"#,
        "utf8" => r#"{"type":"text","text":"Файл изменён в понедельник; 檔案共有四百一十二行; Größe geändert."},"#,
        "escapes" => r#"{"type":"text","text":"fn main() {\n\tprintln!(\"{}\\n\", \"a\\tb\");\n}\n\u00e9\n"},"#,
        "numbers" => r#"{"x":[0.25,-17,1e9,3.14159,42],"y":[1,2,3,4,5,6],"on":true,"off":null,"k":[[],{}]},"#,
        _ => "{\n      \"type\": \"text\",\n      \"lines\": 412,\n      \"text\": \"last changed\"\n    },\n    ",
    };
    let items: String = iter::repeat_n(item, size / item.len()).collect();
    format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"content":[{items}{{}}]}}}}"#)
}
