//! The server side of the bridge: sends requests to the server and keeps what is known about it.

pub(crate) mod address;
pub(crate) mod cookies;
pub(crate) mod credentials;
pub(crate) mod delivery;
pub(crate) mod kept;
pub(crate) mod protocol;
pub(crate) mod push_stream;
pub(crate) mod refusals;
pub(crate) mod reply;
pub(crate) mod requests;
pub(crate) mod retry;
pub(crate) mod session;
pub(crate) mod transport_choice;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::{
    kept::Kept, protocol::Protocol, push_stream::PushStream, requests::Requests, session::Session,
    transport_choice::TransportChoice,
};
use crate::{
    config::Config,
    error::Error,
    wire::{body::Decoder, spool::Storage},
};

/// The state of the server side, which all messages share.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) requests: Requests,
    session: Mutex<Session>,
    pub(crate) transport: TransportChoice,
    pub(crate) push_stream: PushStream,
    protocol: Mutex<Protocol>,
    pub(crate) kept: Kept,
    /// Stores large messages.
    pub(crate) storage: Arc<Storage>,
    /// Maximum size of a message, in bytes.
    largest: u64,
}

impl Server {
    /// Sets up the state. Sends nothing.
    ///
    /// # Errors
    /// The TLS settings cannot be used.
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        Ok(Self {
            requests: Requests::new(config)?,
            session: Mutex::default(),
            transport: TransportChoice::new(config.transport),
            push_stream: PushStream::new(),
            protocol: Mutex::default(),
            kept: Kept::new(config),
            storage: Storage::new(config.spool_folder.clone()),
            largest: config.limits.incoming,
        })
    }

    /// Locks the session in which legacy messages are sent.
    pub(crate) fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the record of the eras that the server speaks.
    pub(crate) fn protocol(&self) -> MutexGuard<'_, Protocol> {
        self.protocol.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a decoder for a body of this content type.
    pub(crate) fn decoder(&self, content_type: Option<&str>) -> Decoder {
        Decoder::new(content_type, self.largest, &self.storage)
    }

    /// Ends the session at the server, if there is one (R41).
    pub(crate) async fn end_session(&self) {
        if !self.session().is_open() {
            return;
        }
        match self.requests.delete(|headers| self.session().apply(headers)).await {
            Ok(status) => tracing::debug!(status = status.as_u16(), "session ended"),
            Err(error) => tracing::debug!(error = %error, "the session could not be ended at the server"),
        }
    }
}
