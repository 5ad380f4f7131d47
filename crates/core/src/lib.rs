#![doc = include_str!("front.md")]

#[cfg(feature = "oauth")]
pub mod auth;
mod bridge;
mod call;
mod client;
mod config;
mod error;
mod folder;
mod gate;
pub mod http;
#[cfg(any(test, feature = "internals"))]
#[doc(hidden)]
pub mod internals;
mod json;
mod memory;
pub mod open_files;
mod random;
mod secrets;
mod server;
pub mod streams;
mod task;
pub mod text;
mod translate;
#[cfg(test)]
mod vectors;
mod wire;
#[cfg(test)]
mod worst;

pub use bridge::{End, run};
pub use client::stdio;
pub use config::{
    ClientEra, Config, HeaderSource, Limits, LoadedHeaders, LoadedUrl, Timeouts, ToolFilter, TransportMode, UrlSource,
};
pub use error::{Error, Hint, HintWords};
pub use http::{ClientIdentity, Proxy, ProxyUrl, ServerUrl, Tls};
pub use wire::headers::message_headers;
