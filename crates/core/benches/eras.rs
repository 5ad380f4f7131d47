//! Measures translation between the eras: one tool call at a time through a whole bridge, over loopback, for each pair
//! of client and server. `cargo bench -p mcp-gangway-core --bench eras`
//!
//! Client, bridge and server share one thread, so a round trip is all work and no waiting. Compare the medians of one
//! run: a pair of the same era shows the cost of the bridge without translation.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a benchmark may panic")]

use divan::{Bencher, counter::BytesCount};

#[path = "support/whole.rs"]
mod whole;

use whole::{Client, Era};

/// The bytes of the call's argument, which the result repeats.
const SIZES: [usize; 3] = [100, 4 << 10, 256 << 10];

fn main() {
    divan::main();
}

#[divan::bench(args = SIZES)]
fn legacy_client_legacy_server(bencher: Bencher<'_, '_>, size: usize) {
    round_trips(bencher, Era::Legacy, Era::Legacy, size);
}

#[divan::bench(args = SIZES)]
fn modern_client_modern_server(bencher: Bencher<'_, '_>, size: usize) {
    round_trips(bencher, Era::Modern, Era::Modern, size);
}

#[divan::bench(args = SIZES)]
fn legacy_client_modern_server(bencher: Bencher<'_, '_>, size: usize) {
    round_trips(bencher, Era::Legacy, Era::Modern, size);
}

#[divan::bench(args = SIZES)]
fn modern_client_legacy_server(bencher: Bencher<'_, '_>, size: usize) {
    round_trips(bencher, Era::Modern, Era::Legacy, size);
}

fn round_trips(bencher: Bencher<'_, '_>, client: Era, server: Era, size: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut client = Client::start(&runtime, client, server, size);
    bencher.counter(BytesCount::new(2 * size)).bench_local(|| runtime.block_on(client.call()));
}
