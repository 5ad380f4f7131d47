//! A whole bridge between a client and a hostile server, in one process and in virtual time.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| gangway_fuzz::run(gangway::internals::checks::hostile, input));
