#![doc = include_str!("front.md")]

mod bridge;
mod codec;
mod condensed;
mod config;
mod cookies;
mod credentials;
mod era;
mod error;
mod exchange;
pub mod files;
mod headers;
mod held;
pub mod http_client;
mod intake;
#[cfg(any(test, feature = "internals"))]
#[doc(hidden)]
pub mod internals;
mod listen;
mod memory;
mod message;
#[cfg(feature = "oauth")]
pub mod oauth;
mod opened;
mod own;
mod payload;
mod pending;
mod permits;
#[cfg(feature = "oauth")]
mod provisional;
mod questions;
mod renewal;
mod response;
mod retry;
mod route;
mod scan;
mod secrets;
mod session;
mod splice;
pub mod stdio;
pub mod streams;
mod subscriptions;
pub mod text;
mod tool_filter;
mod transport;
#[cfg(test)]
mod vectors;
mod words;
#[cfg(test)]
mod worst;

pub use bridge::{End, run};
pub use config::{
    ClientEra, ClientIdentity, Config, HeaderSource, Limits, LoadedHeaders, Proxy, ProxyUrl, ServerUrl, Timeouts, Tls,
    TransportMode,
};
pub use error::Error;
pub use headers::message_headers;
pub use tool_filter::ToolFilter;
