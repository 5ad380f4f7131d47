//! Changes to JSON, and to what is none.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| gangway_fuzz::run(gangway::internals::checks::splice, input));
