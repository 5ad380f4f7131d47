//! The native half of the Python package `mcp_gangway`: HTTP, the stream parsers and the bridge. The public Python
//! API is in `python/mcp_gangway`; this module, `mcp_gangway._native`, is private to that package.
//!
//! Rule: Python objects stay on Python's threads. Background tasks (`runtime`) use none, never take the interpreter
//! lock, and pass results through a queue (`completions`, `threads`, `chunks`). So they never wait for an
//! interpreter, and an interpreter that ends or forks never waits for them.

mod bridge;
mod chunks;
mod completions;
mod failure;
mod framing;
mod hints;
mod http;
mod json;
mod parsers;
mod runtime;
mod settings;
mod threads;
mod upload;

use pyo3::prelude::*;

#[pymodule(name = "_native")]
mod native {
    #[pymodule_export]
    use super::{
        bridge::Bridge,
        completions::{Completions, Operation},
        failure::shown,
        http::{HttpClient, HttpResponse, message_headers, normalized_url},
        json::loads,
        parsers::{Event, MessageParser, NdjsonParser, SseParser},
        threads::Call,
        upload::Upload,
    };

    #[pymodule_export]
    const VERSION: &str = env!("CARGO_PKG_VERSION");
}
