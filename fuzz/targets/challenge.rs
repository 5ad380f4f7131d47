//! What refusals say of the credentials that they want.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| gangway_fuzz::run(gangway::internals::checks::challenge, input));
