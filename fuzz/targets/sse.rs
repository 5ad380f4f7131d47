//! Event streams, cut anywhere.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| gangway_fuzz::run(gangway::internals::checks::sse, input));
