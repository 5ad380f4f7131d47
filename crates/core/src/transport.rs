//! HTTP: the only place that names the HTTP client. One POST per message on pooled connections, DELETE at the end.
//!
//! Rules: a redirect keeps method and body, and nothing of the user's goes to another origin (R92); what is known about
//! a request's delivery is recorded as it happens, for whoever must say whether it may have run.

use std::{
    convert::Infallible,
    error::Error as _,
    net::{Ipv4Addr, Ipv6Addr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body::{Frame, SizeHint};
use tokio::{sync::SetOnce, time::timeout};
use url::Url;

use crate::{
    config::{Config, Proxy, ServerUrl},
    credentials::{Credentials, UserHeaders},
    error::{Error, Fate, Kind as Fault},
    headers, tls,
};

const MOST_REDIRECTS: usize = 5;
/// The longest error page that is looked at for a JSON-RPC error.
const LONGEST_ERROR_BODY: usize = 1 << 20;
/// How long it may take to arrive.
const ERROR_BODY_TIME: Duration = Duration::from_secs(2);
/// A proxy or load balancer that closes idle connections mostly does so after a minute or more.
const KEEP_IDLE: Duration = Duration::from_secs(50);

/// The way to the server.
#[derive(Debug)]
pub(crate) struct Transport {
    client: reqwest::Client,
    url: ServerUrl,
    pub(crate) credentials: Credentials,
}

impl Transport {
    /// Sets up the client; nothing is sent yet.
    ///
    /// # Errors
    /// TLS or proxy settings that cannot be used.
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        let builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls::client_config(&config.tls)?)
            .user_agent(concat!("mcp-gangway/", env!("CARGO_PKG_VERSION")))
            // By definition (RFC 6761), and not all name services know that it has both (R94).
            .resolve_to_addrs("localhost", &[(Ipv4Addr::LOCALHOST, 0).into(), (Ipv6Addr::LOCALHOST, 0).into()])
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(config.timeouts.connect)
            .pool_idle_timeout(KEEP_IDLE);
        let builder = match &config.proxy {
            Proxy::System => builder,
            Proxy::None => builder.no_proxy(),
            Proxy::Url { url, except } => {
                let proxy = reqwest::Proxy::all(url.as_url().clone())
                    .map_err(|error| Error::config("the proxy cannot be used").with_source(error.without_url()))?;
                builder.proxy(proxy.no_proxy(except.as_deref().and_then(reqwest::NoProxy::from_string)))
            }
        };
        let client = builder.build().map_err(|error| Error::config("HTTP cannot be set up").with_source(error))?;
        Ok(Self { client, url: config.url.clone(), credentials: Credentials::new(config) })
    }

    /// Where the server listens.
    pub(crate) fn url(&self) -> &Url {
        self.url.as_url()
    }

    /// Posts one message to `target`. `session` adds the headers of the session; `delivery` learns when the body goes out.
    ///
    /// # Errors
    /// Whatever kept an HTTP response from coming; a response of any status is none.
    pub(crate) async fn post(
        &self,
        target: &Url,
        body: Bytes,
        session: impl FnOnce(&mut HeaderMap),
        delivery: &Arc<Delivery>,
    ) -> Result<Reply, Error> {
        let user = self.credentials.current().await?;
        delivery.begin();
        let mut headers = user.post.clone();
        session(&mut headers);
        let make = |url: Url| {
            let body = Watched { rest: Some(body.clone()), delivery: Arc::clone(delivery) };
            let headers = if self.is_home(&url) { headers.clone() } else { headers::post(&HeaderMap::new()) };
            self.client.post(url).headers(headers).body(reqwest::Body::wrap(body))
        };
        self.follow(target, user, make).await
    }

    /// Opens a stream of events: the server's own, or with `last_event_id` the rest of one that broke (R29, R32).
    ///
    /// # Errors
    /// As for `post`.
    pub(crate) async fn get(
        &self,
        session: impl FnOnce(&mut HeaderMap),
        last_event_id: Option<&Bytes>,
    ) -> Result<Reply, Error> {
        let user = self.credentials.current().await?;
        let mut headers = headers::get(&user.headers, last_event_id.map(Bytes::as_ref));
        session(&mut headers);
        let make = |url: Url| {
            let headers = if self.is_home(&url) { headers.clone() } else { headers::get(&HeaderMap::new(), None) };
            self.client.get(url).headers(headers)
        };
        self.follow(self.url(), user, make).await
    }

    /// Ends the session (R41). Any status will do: 405 means that the server does not let clients end sessions.
    ///
    /// # Errors
    /// No response came.
    pub(crate) async fn delete(&self, session: impl FnOnce(&mut HeaderMap)) -> Result<StatusCode, Error> {
        let mut headers = self.credentials.current().await?.headers.clone();
        session(&mut headers);
        let request = self.client.delete(self.url().clone()).headers(headers);
        let response = request.send().await.map_err(|error| self.failure(error))?;
        Ok(response.status())
    }

    /// Sends the request that `make` makes for a URL, there and where redirects lead.
    async fn follow(
        &self,
        target: &Url,
        user: Arc<UserHeaders>,
        make: impl Fn(Url) -> reqwest::RequestBuilder,
    ) -> Result<Reply, Error> {
        let mut url = target.clone();
        for _ in 0..=MOST_REDIRECTS {
            let response = make(url).send().await.map_err(|error| self.failure(error))?;
            match next_hop(&response) {
                None => return Ok(Reply { response, user }),
                Some(target) => {
                    tracing::debug!(status = response.status().as_u16(), "redirected");
                    url = target;
                }
            }
        }
        Err(Error::new(Fault::Status, format!("{} redirects in circles; check the URL", self.url)))
    }

    /// Whether the user's headers may go there.
    fn is_home(&self, url: &Url) -> bool {
        url.origin() == self.url().origin()
    }

    /// Says who failed: the name service, the way to the server, TLS, or the connection in use.
    fn failure(&self, error: reqwest::Error) -> Error {
        let error = error.without_url();
        let url = &self.url;
        let fate = was_refused_unread(&error).then_some(Fate::Unread);
        let (fault, summary) = if error.is_dns() {
            (Fault::Dns, format!("the host of {url} has no address; check the URL and the network"))
        } else if is_tls(&error) {
            (Fault::Tls, format!("no secure connection to {url}; --ca-cert adds a certificate authority to trust"))
        } else if error.is_connect() && error.is_timeout() {
            (Fault::Connect, format!("connecting to {url} took too long; check the network and --proxy"))
        } else if error.is_connect() {
            (Fault::Connect, format!("cannot connect to {url}; check that the server runs, the URL and --proxy"))
        } else {
            (Fault::Broken, format!("the connection to {url} broke before an answer came"))
        };
        let failure = Error::new(fault, summary).with_source(error);
        if let Some(fate) = fate { failure.with_fate(fate) } else { failure }
    }
}

/// The response to a request: status and headers are here, the body is on its way.
#[derive(Debug)]
pub(crate) struct Reply {
    response: reqwest::Response,
    /// The headers that were sent, which a 401 refuses.
    user: Arc<UserHeaders>,
}

impl Reply {
    pub(crate) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(crate) fn content_type(&self) -> Option<&str> {
        headers::content_type(self.response.headers())
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        headers::retry_after(self.response.headers())
    }

    pub(crate) fn session_id(&self) -> Option<&HeaderValue> {
        self.response.headers().get(headers::SESSION_ID)
    }

    /// The body of a refusal, as far as it can be had: if it breaks off, stalls or is too long, its beginning.
    pub(crate) async fn error_body(mut self) -> Bytes {
        let mut body = Vec::new();
        let gather = async {
            while body.len() < LONGEST_ERROR_BODY
                && let Ok(Some(chunk)) = self.chunk().await
            {
                body.extend_from_slice(&chunk);
            }
        };
        let _ = timeout(ERROR_BODY_TIME, gather).await;
        body.into()
    }

    /// The user's headers that were sent.
    pub(crate) fn user(&self) -> &UserHeaders {
        &self.user
    }

    /// The next bytes of the body, decompressed; `None` at its end.
    ///
    /// # Errors
    /// The body broke off, or cannot be decompressed.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        self.response
            .chunk()
            .await
            .map_err(|error| Error::new(Fault::Broken, "the server's reply broke off").with_source(error.without_url()))
    }
}

/// What is known about a request's way to the server.
#[derive(Debug, Default)]
pub(crate) struct Delivery {
    begun: AtomicBool,
    /// True once all of it is written, false once it is known that it never will be.
    whole: SetOnce<bool>,
}

impl Delivery {
    /// Another try starts, of which nothing is written yet.
    fn begin(&self) {
        self.begun.store(false, Ordering::Release);
    }

    /// Whether a connection began to write the request in its last try, so that the server may have it.
    pub(crate) fn may_have_arrived(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    /// Waits until the request has been written, or never will be; says which.
    pub(crate) async fn decided(&self) -> bool {
        *self.whole.wait().await
    }

    /// The request will not be written any more, if it was not yet.
    pub(crate) fn close(&self) {
        let _ = self.whole.set(false);
    }
}

/// A request's body, which records how far a connection has taken it.
struct Watched {
    rest: Option<Bytes>,
    delivery: Arc<Delivery>,
}

/// What a connection takes of a body at once, so that a long one is not called written when it has just begun.
const PIECE: usize = 64 << 10;

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.delivery.begun.store(true, Ordering::Release);
        let Some(mut piece) = self.rest.take() else { return Poll::Ready(None) };
        if piece.len() > PIECE {
            self.rest = Some(piece.split_off(PIECE));
        } else {
            let _ = self.delivery.whole.set(true);
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.as_ref().map_or(0, |rest| rest.len() as u64))
    }
}

/// Where to repeat the POST, for the redirects that may keep it (R92); 303 asks for a GET, which would be no MCP.
fn next_hop(response: &reqwest::Response) -> Option<Url> {
    let keeps = matches!(
        response.status(),
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    );
    let location = response.headers().get(header::LOCATION).filter(|_| keeps)?;
    let target = response.url().join(location.to_str().ok()?).ok()?;
    matches!(target.scheme(), "http" | "https").then_some(target)
}

/// Whether the server has said in HTTP/2 that it did not process the request (RFC 9113, 6.8 and 8.7): it goes away in
/// good order, or refuses the stream.
fn was_refused_unread(error: &reqwest::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            let reason = error.reason();
            let went = error.is_go_away() && reason == Some(h2::Reason::NO_ERROR);
            let refused = error.is_reset() && reason == Some(h2::Reason::REFUSED_STREAM);
            return error.is_remote() && (went || refused);
        }
        cause = error.source();
    }
    false
}

/// Whether a TLS error is among the causes. An I/O error wraps one, or another I/O error that does, and its `source()`
/// leaves out what it wraps.
fn is_tls(error: &reqwest::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.is::<rustls::Error>() {
            return true;
        }
        cause = match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    false
}
