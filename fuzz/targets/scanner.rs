//! JSON, cut anywhere, with `serde_json` as the judge.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| gangway_fuzz::run(gangway::internals::checks::scanner, input));
