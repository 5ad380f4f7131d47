//! JSON, cut anywhere, with `serde_json` as the judge.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| gangway::internals::checks::scanner(input));
