//! The server's address, which may change while the bridge runs: desktop programs write down the port that they got,
//! and get another one when they are started again.
//!
//! Rules: the address is read again only after the server could not be reached at the old one, once a second at most. A
//! new one has nothing of the old one: no connections, no cookies.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    config::{Config, UrlSource},
    error::{Error, ErrorKind},
    http::{ServerUrl, UnixSocket, socket_url},
};

/// The shortest time between two readings.
const READING_INTERVAL: Duration = Duration::from_secs(1);

/// The URL of the server, and where a new one comes from.
#[derive(Debug)]
pub(crate) struct Address {
    current: Mutex<Arc<ServerUrl>>,
    source: Option<UrlSource>,
    /// The server could not be reached at the current URL, or there is none yet.
    is_stale: AtomicBool,
    /// Locked while the source is read, so that many failed requests read it once.
    reading: tokio::sync::Mutex<Reading>,
}

/// What the source was last read for.
#[derive(Debug)]
struct Reading {
    at: Option<Instant>,
    socket: Option<PathBuf>,
}

impl Address {
    pub(super) fn new(config: &Config) -> Self {
        let source = config.url_source.clone();
        let is_unknown = source.as_ref().is_some_and(|source| source.before_first);
        Self {
            current: Mutex::new(Arc::new(config.url.clone())),
            source,
            is_stale: AtomicBool::new(is_unknown),
            reading: tokio::sync::Mutex::new(Reading { at: None, socket: config.unix_socket.clone() }),
        }
    }

    /// Returns the current URL.
    pub(crate) fn url(&self) -> Arc<ServerUrl> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Records that the server could not be reached at this URL.
    pub(super) fn was_unreachable(&self, url: &ServerUrl) {
        if self.source.is_some() && *url == *self.url() {
            self.is_stale.store(true, Ordering::Release);
        }
    }

    /// Reads the address again if the current one is of no use. Passes a new one to `install`, before any request uses
    /// it.
    ///
    /// # Errors
    /// There is no address yet, because the source has none, or it cannot be installed.
    pub(super) async fn refresh(
        &self,
        install: impl FnOnce(&ServerUrl, Option<UnixSocket>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Some(source) = self.source.as_ref().filter(|_| self.is_stale.load(Ordering::Acquire)) else {
            return Ok(());
        };
        let mut reading = self.reading.lock().await;
        let is_recent = reading.at.is_some_and(|last| last.elapsed() < READING_INTERVAL);
        if is_recent || !self.is_stale.load(Ordering::Acquire) {
            return Ok(());
        }
        let read = source.load().await.and_then(|text| parse(&text));
        let (socket, url) = read.map_err(|error| {
            let summary = format!("the server's address is not known: {error}");
            Error::new(ErrorKind::Connect, summary)
        })?;
        if url != *self.url() || socket != reading.socket {
            tracing::info!(%url, ?socket, "the server has another address");
            install(&url, socket.as_deref().map(|path| UnixSocket::new(url.as_uri().clone(), path)))?;
            *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(url);
        }
        *reading = Reading { at: Some(Instant::now()), socket };
        self.is_stale.store(false, Ordering::Release);
        Ok(())
    }
}

/// Parses a URL, which may be that of a Unix socket.
fn parse(text: &str) -> Result<(Option<PathBuf>, ServerUrl), Error> {
    Ok(match socket_url(text.trim())? {
        Some((socket, url)) => (Some(socket), ServerUrl::parse(&url)?),
        None => (None, ServerUrl::parse(text)?),
    })
}
