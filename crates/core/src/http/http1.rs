//! One HTTP/1.1 connection.
//!
//! The current user of the connection polls it, so no other task is woken for each chunk that is sent or received.
//! The user is first the task that waits for a response, then the one that reads its body, and between requests the
//! pool.

use std::{
    fmt,
    future::poll_fn,
    pin::{Pin, pin},
    sync::{Arc, Weak},
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderName, HeaderValue, Request, Response, Uri, header, uri::PathAndQuery};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1},
};
use hyper_util::rt::TokioIo;
use tokio::runtime::Handle;

use super::{
    RequestBody,
    connect::NetworkStream,
    pool::{Pool, PoolKey},
};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// A connection, and the data that each request on it needs.
pub(super) struct Http1<B> {
    sender: http1::SendRequest<B>,
    /// `None` after the connection has ended.
    connection: Option<Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>>,
    origin: PoolKey,
    host: Option<HeaderValue>,
    /// True if the peer is a proxy, which needs the absolute URI.
    is_forwarded: bool,
    /// How long the server keeps the connection idle, as it announced.
    kept_for: Option<Duration>,
    pool: Weak<Pool<B>>,
}

/// A connection, independent of the type of its request bodies.
pub(super) trait ErasedConnection: Send {
    /// Sends and receives as much as possible. Ready when the connection has ended.
    fn drive(&mut self, context: &mut Context<'_>) -> Poll<()>;

    /// Returns the connection to the pool at the end of a response.
    fn release(self: Box<Self>);
}

impl<B: RequestBody> Http1<B> {
    /// Starts HTTP/1.1 on a stream.
    ///
    /// # Errors
    /// None is known.
    pub(super) async fn new(
        stream: NetworkStream,
        settings: &http1::Builder,
        uri: &Uri,
        origin: PoolKey,
        pool: &Arc<Pool<B>>,
    ) -> hyper::Result<Box<Self>> {
        let is_forwarded = stream.is_forwarded();
        let (sender, connection) = settings.handshake(TokioIo::new(stream)).await?;
        let connection = Some(Box::pin(connection) as _);
        let (host, pool) = (host(uri), Arc::downgrade(pool));
        Ok(Box::new(Self { sender, connection, origin, host, is_forwarded, kept_for: None, pool }))
    }

    /// Sends a request, and waits for the head of its response.
    ///
    /// # Errors
    /// The connection broke. The error contains the request if nothing of it was sent.
    // Not an `async fn`, which would store the original request in its state as well.
    pub(super) fn send(
        &mut self,
        mut request: Request<B>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<B>>>> + Send + use<'_, B> {
        if let Some(host) = &self.host {
            request.headers_mut().entry(header::HOST).or_insert_with(|| host.clone());
        }
        if !self.is_forwarded {
            let path = request.uri().path_and_query().cloned();
            *request.uri_mut() = path.unwrap_or_else(|| PathAndQuery::from_static("/")).into();
        }
        let response = self.sender.try_send_request(request);
        async move {
            let mut response = pin!(response);
            let response = poll_fn(|context| {
                // The response reports the end of the connection.
                let _ = drive(&mut self.connection, context);
                response.as_mut().poll(context)
            })
            .await?;
            if let Some(announced) = response.headers().get(KEEP_ALIVE) {
                self.kept_for = kept_for(announced);
            }
            Ok(response)
        }
    }
}

impl<B> Http1<B> {
    pub(super) fn origin(&self) -> &PoolKey {
        &self.origin
    }

    /// Returns how long the server keeps the connection idle, as it announced.
    pub(super) fn kept_for(&self) -> Option<Duration> {
        self.kept_for
    }

    /// True if the connection can take a request.
    pub(super) fn is_free(&self) -> bool {
        self.sender.is_ready()
    }
}

impl<B: Send + 'static> ErasedConnection for Http1<B> {
    fn drive(&mut self, context: &mut Context<'_>) -> Poll<()> {
        drive(&mut self.connection, context)
    }

    fn release(self: Box<Self>) {
        if let Some(pool) = self.pool.upgrade() {
            pool.put(self);
        }
    }
}

impl<B> Drop for Http1<B> {
    fn drop(&mut self) {
        // Dropping the sender ends the connection cleanly, with TLS `close_notify`, or at once if a request is in
        // flight.
        if let (Some(connection), Ok(runtime)) = (self.connection.take(), Handle::try_current()) {
            drop(runtime.spawn(connection));
        }
    }
}

impl fmt::Debug for dyn ErasedConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Http1")
    }
}

/// Returns the timeout in a `Keep-Alive` header (RFC 2068, 19.7.1.1).
fn kept_for(announced: &HeaderValue) -> Option<Duration> {
    let parameters = announced.to_str().ok()?.split(',').filter_map(|parameter| parameter.split_once('='));
    let timeout = parameters.into_iter().find(|(name, _)| name.trim().eq_ignore_ascii_case("timeout"));
    Some(Duration::from_secs(timeout?.1.trim().parse().ok()?))
}

fn drive(
    connection: &mut Option<Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>>,
    context: &mut Context<'_>,
) -> Poll<()> {
    let Some(driven) = connection else { return Poll::Ready(()) };
    driven.as_mut().poll(context).map(|ended| {
        // The caller that waits for a response has its own error.
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection broke");
        }
        *connection = None;
    })
}

/// Returns the value of the `Host` header, without the scheme's default port.
fn host(uri: &Uri) -> Option<HeaderValue> {
    let host = uri.host()?;
    match (uri.port_u16(), uri.scheme_str()) {
        (None, _) | (Some(80), Some("http")) | (Some(443), Some("https")) => HeaderValue::from_str(host).ok(),
        (Some(port), _) => HeaderValue::try_from(format!("{host}:{port}")).ok(),
    }
}
