//! `instructions PATH COUNT`: runs one hot path COUNT times, for valgrind to count (`bench/instructions`).
//!
//! The difference between two counts of one path is its cost, without the start and the end of the program. Without
//! arguments it lists all paths, each with its unit, the units in one run, and the two counts to use.

#![allow(clippy::print_stdout, reason = "another program reads the list")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a failed run must not be counted"
)]
#![allow(dead_code, reason = "the benchmarks use the rest of the shared modules")]

use std::{env, hint::black_box};

use bytes::Bytes;
use mcp_gangway_core::internals;

#[path = "../benches/support/texts.rs"]
mod texts;
#[path = "../benches/support/whole.rs"]
mod whole;

use texts::{chunks, message, result, stream};
use whole::{Client, Era};

const CHUNK: usize = 16 << 10;
/// The bytes of a text for the scanner.
const TEXT: usize = 64 << 10;
/// The bytes in a tool call's argument and in its result.
const CALL: usize = 100;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [path, count] = arguments.as_slice() else {
        for (name, unit, units, few, many, _) in paths() {
            println!("{name}\t{unit}\t{units}\t{few}\t{many}");
        }
        return;
    };
    let (.., walk) = paths().into_iter().find(|(name, ..)| name == path).expect("a path of the list");
    walk(count.parse().expect("a number"));
}

/// Name, unit, units in one run, the lower and the higher count, and the path itself.
type Path = (&'static str, &'static str, usize, usize, usize, Box<dyn FnOnce(usize)>);

fn paths() -> Vec<Path> {
    let small_events = stream("event: message\ndata: ", 150, "\n\n");
    let events = stream("event: message\ndata: ", 4 << 10, "\n\n");
    let small_lines = stream("", 150, "\n");
    let lines = stream("", 4 << 10, "\n");
    let sse = |input: Bytes| move || internals::sse(chunks(&input, CHUNK), |data| see(data), |name| see(name));
    let messages =
        |input: Bytes| move || internals::decode(Some("text/event-stream"), chunks(&input, CHUNK), |text| see(text));
    let ndjson = |input: Bytes| move || internals::lines(chunks(&input, CHUNK), |line| see(line));
    let scan = |kind| {
        let text = result(kind, TEXT);
        let size = text.len();
        (size, move || see(internals::scan(text.as_bytes().chunks(CHUNK)).unwrap()))
    };
    let peek = |size| {
        let line = Bytes::from(message(size));
        move || see(internals::peek(black_box(&line)))
    };
    let ((ascii, ascii_scan), (utf8, utf8_scan)) = (scan("ascii"), scan("utf8"));
    let ((numbers, numbers_scan), (escapes, escapes_scan)) = (scan("numbers"), scan("escapes"));
    vec![
        many("sse-150", "byte", small_events.len(), (1, 2), sse(small_events.clone())),
        many("sse-4k", "byte", events.len(), (1, 2), sse(events.clone())),
        many("sse-messages-150", "byte", small_events.len(), (1, 2), messages(small_events)),
        many("sse-messages-4k", "byte", events.len(), (1, 2), messages(events)),
        many("ndjson-150", "byte", small_lines.len(), (1, 2), ndjson(small_lines)),
        many("ndjson-4k", "byte", lines.len(), (1, 2), ndjson(lines)),
        many("scan-ascii", "byte", ascii, (10, 20), ascii_scan),
        many("scan-utf8", "byte", utf8, (10, 20), utf8_scan),
        many("scan-numbers", "byte", numbers, (10, 20), numbers_scan),
        many("scan-escapes", "byte", escapes, (10, 20), escapes_scan),
        many("peek-200", "message", 1, (1000, 2000), peek(200)),
        many("peek-4k", "message", 1, (1000, 2000), peek(4 << 10)),
        calls("call-legacy-legacy", Era::Legacy, Era::Legacy),
        calls("call-modern-modern", Era::Modern, Era::Modern),
        calls("call-legacy-modern", Era::Legacy, Era::Modern),
        calls("call-modern-legacy", Era::Modern, Era::Legacy),
    ]
}

/// Keeps the compiler from removing an unused value.
fn see<T>(value: T) {
    black_box(value);
}

fn many(
    name: &'static str,
    unit: &'static str,
    units: usize,
    (few, many): (usize, usize),
    once: impl Fn() + 'static,
) -> Path {
    (name, unit, units, few, many, Box::new(move |count| (0..count).for_each(|_| once())))
}

fn calls(name: &'static str, client: Era, server: Era) -> Path {
    let walk = move |count| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let mut client = Client::start(&runtime, client, server, CALL);
        runtime.block_on(async {
            for _ in 0..count {
                client.call().await;
            }
        });
    };
    (name, "call", 1, 100, 200, Box::new(walk))
}
