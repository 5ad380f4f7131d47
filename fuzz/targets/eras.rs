//! Messages in the translators between the eras, and what tools want in headers.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| gangway_fuzz::run(gangway::internals::checks::eras, input));
