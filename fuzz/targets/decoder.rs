//! Bodies of replies of every type, cut anywhere.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| gangway_fuzz::run(gangway::internals::checks::decoder, input));
