//! A whole bridge between a client and a hostile server, in one process and in virtual time.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| mcp_gangway_fuzz::run(mcp_gangway_core::internals::checks::hostile, input));
