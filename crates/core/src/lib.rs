#![doc = include_str!("front.md")]

mod bridge;
mod codec;
mod config;
mod credentials;
mod error;
mod exchange;
mod headers;
mod intake;
mod listen;
mod message;
mod pending;
mod renewal;
mod retry;
mod route;
mod session;
pub mod stdio;
mod tls;
mod transport;
#[cfg(test)]
mod vectors;

pub use bridge::{End, run};
pub use config::{
    Config, HeaderSource, Limits, LoadedHeaders, Proxy, ProxyUrl, ServerUrl, Timeouts, Tls, TransportMode,
};
pub use error::Error;
