//! Challenges in refusals.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| mcp_gangway_fuzz::run(
    mcp_gangway_core::internals::checks::challenge,
    input
));
