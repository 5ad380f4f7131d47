//! The native half of the Python package `mcp_gangway`: HTTP, the stream parsers and the bridge itself. What Python
//! programs see is in `python/mcp_gangway`; this module, `mcp_gangway._native`, is only for that package.
//!
//! Rule: Python's objects stay on Python's threads. What runs in the background (`runtime`) knows none, takes no
//! interpreter lock, and hands its results over through a queue (`completions`, `threads`, `chunks`). So it waits for no interpreter,
//! and an interpreter that ends or is forked waits for nothing here.

mod bridge;
mod chunks;
mod completions;
mod failure;
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
        http::{HttpClient, HttpResponse, message_headers},
        json::loads,
        parsers::{Event, MessageParser, NdjsonParser, SseParser},
        threads::Call,
        upload::Upload,
    };

    #[pymodule_export]
    const VERSION: &str = env!("CARGO_PKG_VERSION");
}
