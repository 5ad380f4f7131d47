//! Sends requests to the server: one POST per message, GET for its streams, DELETE at the end.
//!
//! Rules: a redirect keeps method and body. The user's headers, cookies and client certificate never go to another
//! origin, nor to a URL that another origin redirects to (R92). Nothing that was sent by `https` is sent in clear
//! text. The delivery of a request is recorded as it happens, so that an error can say whether the request may have
//! run.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};

use crate::{
    config::Config,
    error::{Error, ErrorKind},
    http::{Body, HttpClient, HttpSettings, ServerUrl},
    secrets::Concealed,
    server::{
        address::Address,
        cookies::Cookies,
        credentials::{Credentials, UserHeaders},
        delivery::{Delivery, DeliveryBody},
        reply::Reply,
    },
    wire::headers,
};

const MAX_REDIRECTS: usize = 5;
/// After a sleep of the machine that is shorter than this, connections are still usable.
const SHORT_SLEEP: Duration = Duration::from_secs(20);

/// Sends requests to the server.
#[derive(Debug)]
pub(crate) struct Requests {
    clients: Mutex<Arc<ServerClients>>,
    cookies: Cookies,
    last_used: Mutex<(Instant, SystemTime)>,
    address: Address,
    /// The settings of the clients, for those of a new address.
    settings: HttpSettings,
    pub(crate) credentials: Credentials,
    #[expect(dead_code, reason = "conceals the secrets of the settings while they are used")]
    concealed: Concealed,
}

impl Requests {
    /// Sets up the HTTP clients. Sends nothing.
    ///
    /// # Errors
    /// The TLS settings cannot be used.
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        let settings = http_settings(config);
        Ok(Self {
            clients: Mutex::new(Arc::new(ServerClients::new(settings.clone())?)),
            cookies: Cookies::new(config.url.clone()),
            last_used: Mutex::new((Instant::now(), SystemTime::now())),
            address: Address::new(config),
            settings,
            credentials: Credentials::new(config),
            concealed: config.concealed(),
        })
    }

    /// Returns the server's URL.
    pub(crate) fn url(&self) -> Arc<ServerUrl> {
        self.address.url()
    }

    /// Posts one message to `target`, or to the server's URL if it is `None`. `session` adds the headers of the session;
    /// `delivery` records when the body is written. A message that is not repeatable never uses a connection that the
    /// server may be about to close.
    ///
    /// # Errors
    /// No HTTP response came. A response with any status code is not an error.
    pub(crate) async fn post(
        &self,
        target: Option<&ServerUrl>,
        body: Bytes,
        is_repeatable: bool,
        session: impl Fn(&mut HeaderMap),
        delivery: &Arc<Delivery>,
    ) -> Result<Reply, Error> {
        self.locate().await?;
        let user = self.credentials.current().await?;
        delivery.begin();
        let headers = |user: Option<&UserHeaders>| {
            let Some(user) = user else { return headers::post(&HeaderMap::new()) };
            let mut headers = user.post.clone();
            session(&mut headers);
            headers
        };
        let body = || DeliveryBody::new(body.clone(), delivery);
        self.follow(Method::POST, target, is_repeatable, user, headers, body).await
    }

    /// Opens an event stream: the server's own, or with `last_event_id` the rest of one that broke (R29, R32). If the
    /// server refuses the credentials, asks for new ones once. The user may be asked only if a request needs the
    /// stream (`is_asked_for`).
    ///
    /// # Errors
    /// As for `post`.
    pub(crate) async fn get(
        &self,
        is_asked_for: bool,
        session: impl Fn(&mut HeaderMap),
        last_event_id: Option<&Bytes>,
    ) -> Result<Reply, Error> {
        let mut reply = self.get_once(&session, last_event_id).await?;
        if self.credentials.max_resends(reply.refusal()) > 0 {
            let renewed = if is_asked_for {
                self.credentials.renew(reply.refusal(), None).await
            } else {
                self.credentials.renew_without_prompt(reply.refusal()).await
            };
            match renewed {
                Ok(true) => return self.get_once(&session, last_event_id).await,
                Ok(false) => {}
                Err(error) if is_asked_for => reply.why = Some(error),
                Err(error) => tracing::debug!(error = %error, "no new credentials for the stream"),
            }
        }
        Ok(reply)
    }

    async fn get_once(&self, session: impl Fn(&mut HeaderMap), last_event_id: Option<&Bytes>) -> Result<Reply, Error> {
        self.locate().await?;
        let user = self.credentials.current().await?;
        let headers = |user: Option<&UserHeaders>| {
            let Some(user) = user else { return headers::get(&HeaderMap::new(), None) };
            let mut headers = headers::get(&user.headers, last_event_id.map(Bytes::as_ref));
            session(&mut headers);
            headers
        };
        self.follow(Method::GET, None, true, user, headers, DeliveryBody::default).await
    }

    /// Ends the session (R41). Accepts any status code: 405 means that the server does not let clients end sessions.
    ///
    /// # Errors
    /// No response came.
    pub(crate) async fn delete(&self, session: impl FnOnce(&mut HeaderMap)) -> Result<StatusCode, Error> {
        let user = self.credentials.current().await?;
        let mut headers = user.headers.clone();
        session(&mut headers);
        let mut request = Request::new(DeliveryBody::default());
        *request.method_mut() = Method::DELETE;
        *request.headers_mut() = headers;
        Ok(self.send(&self.clients(), &self.url(), true, request, Some(&user)).await?.status())
    }

    /// Returns how long ago a request was last sent.
    pub(crate) fn idle_time(&self) -> Duration {
        lock(&self.last_used).0.elapsed()
    }

    /// Abandons all open connections, so that the next request opens a new one. Requests in flight go on.
    pub(crate) fn discard_connections(&self) {
        let mut clients = lock(&self.clients);
        *clients = Arc::new(clients.renewed());
    }

    /// Returns the HTTP clients to send with. After a sleep of the machine, replaces them by clients without
    /// connections, because the old connections have died unnoticed.
    fn clients(&self) -> Arc<ServerClients> {
        let now = (Instant::now(), SystemTime::now());
        let last = std::mem::replace(&mut *lock(&self.last_used), now);
        if has_slept(last, now) {
            tracing::debug!("the clock has jumped; opening new connections");
            self.discard_connections();
        }
        Arc::clone(&lock(&self.clients))
    }

    /// Finds out where the server is now, if it could not be reached where it was.
    async fn locate(&self) -> Result<(), Error> {
        let install = |url: &ServerUrl, unix_socket| {
            let clients = ServerClients::new(HttpSettings { unix_socket, ..self.settings.clone() })?;
            *lock(&self.clients) = Arc::new(clients);
            self.cookies.move_to(url.clone());
            Ok(())
        };
        self.address.refresh(install).await
    }

    /// Sends a request to a URL, or to the server's if it is `None`, and follows redirects. `headers` returns the headers
    /// for the user's server, or for any other server if its argument is `None`.
    async fn follow(
        &self,
        method: Method,
        target: Option<&ServerUrl>,
        is_repeatable: bool,
        user: Arc<UserHeaders>,
        headers: impl Fn(Option<&UserHeaders>) -> HeaderMap,
        body: impl Fn() -> DeliveryBody,
    ) -> Result<Reply, Error> {
        let clients = self.clients();
        let home = self.url();
        let mut url = target.unwrap_or(&home).clone();
        // After a redirect through another origin, the user's headers are not sent again, even to the server itself.
        let mut is_home = home.is_origin_of(&url);
        for _ in 0..=MAX_REDIRECTS {
            let known = is_home.then_some(&*user);
            let mut request = Request::new(body());
            *request.method_mut() = method.clone();
            *request.headers_mut() = headers(known);
            let response = self.send(&clients, &url, is_repeatable, request, known).await.inspect_err(|error| {
                if error.is_unreached() {
                    self.address.was_unreachable(&url);
                }
            })?;
            match redirect_target(&response, &url)? {
                None => return Ok(Reply { response, user, why: None, begun: None }),
                Some(target) => {
                    tracing::debug!(status = response.status().as_u16(), "redirected");
                    url = target;
                    is_home &= home.is_origin_of(&url);
                }
            }
        }
        Err(Error::new(ErrorKind::Status, format!("{home} redirects in circles; check the URL")))
    }

    /// Sends one request. Without `user`, sends no cookies and no client certificate.
    async fn send(
        &self,
        clients: &ServerClients,
        url: &ServerUrl,
        is_repeatable: bool,
        mut request: Request<DeliveryBody>,
        user: Option<&UserHeaders>,
    ) -> Result<Response<Body>, Error> {
        *request.uri_mut() = url.as_uri().clone();
        // The user's own `Cookie` header is not changed.
        let takes_cookies = user.is_some_and(|user| !user.headers.contains_key(header::COOKIE));
        if let Some(cookies) = self.cookies.header(url).filter(|_| takes_cookies) {
            request.headers_mut().insert(header::COOKIE, cookies);
        }
        let client = if user.is_some() { &clients.here } else { &clients.elsewhere };
        let response = if is_repeatable { client.send(request).await } else { client.send_once(request).await }?;
        if user.is_some() {
            self.cookies.learn(response.headers(), url);
        }
        // This answer may come from the proxy instead of the server.
        if response.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED
            && let Some(refusal) = client.refused_by_proxy(url.as_uri())
        {
            return Err(refusal.with_status(response.status()));
        }
        Ok(response)
    }
}

/// The HTTP client for the server, and one without the client certificate for other origins. TLS does not tell which
/// host asks for a certificate, so one client cannot serve both.
#[derive(Debug)]
struct ServerClients {
    here: HttpClient<DeliveryBody>,
    elsewhere: HttpClient<DeliveryBody>,
}

impl ServerClients {
    fn new(mut settings: HttpSettings) -> Result<Self, Error> {
        let here = HttpClient::new(settings.clone())?;
        // Without a client certificate, one connection pool is enough.
        let elsewhere = match settings.tls.client.take() {
            Some(_) => HttpClient::new(settings)?,
            None => here.clone(),
        };
        Ok(Self { here, elsewhere })
    }

    fn renewed(&self) -> Self {
        Self { here: self.here.renewed(), elsewhere: self.elsewhere.renewed() }
    }
}

fn http_settings(config: &Config) -> HttpSettings {
    HttpSettings {
        unix_socket: config.socket(),
        tls: config.tls.clone(),
        proxy: config.proxy.clone(),
        connect: config.timeouts.connect,
        ping: config.timeouts.ping,
        idle_for: config.idle_for,
        idle_connections: config.idle_connections,
        version: config.http_version,
        ..HttpSettings::default()
    }
}

/// True if the machine slept in between: the wall clock advanced while the monotonic clock stood still.
fn has_slept(before: (Instant, SystemTime), now: (Instant, SystemTime)) -> bool {
    let awake = now.0.duration_since(before.0);
    let passed = now.1.duration_since(before.1).unwrap_or_default();
    passed.saturating_sub(awake) > SHORT_SLEEP
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns where to repeat the request, for redirects that keep its method (R92). 303 does not: it asks for a GET,
/// which is not MCP.
///
/// # Errors
/// The redirect leads from `https` to clear text and cannot be upgraded to `https`.
fn redirect_target(response: &Response<Body>, from: &ServerUrl) -> Result<Option<ServerUrl>, Error> {
    let keeps = matches!(
        response.status(),
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    );
    let location = response.headers().get(header::LOCATION).filter(|_| keeps);
    let Some(next) = location.and_then(|location| from.join(location.to_str().ok()?)) else { return Ok(None) };
    if next.is_secure() || !from.is_secure() {
        return Ok(Some(next));
    }
    let secured = next.secured_as(from).filter(|secured| secured != from);
    secured.map(Some).ok_or_else(|| {
        let summary =
            format!("{from} redirects to {next}, where the message would be sent in clear; use the final https URL");
        Error::new(ErrorKind::Status, summary).with_status(response.status())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_clock_jump_is_detected_as_system_sleep() {
        let start = (Instant::now(), SystemTime::now());
        let later = |awake, passed| (start.0 + Duration::from_secs(awake), start.1 + Duration::from_secs(passed));
        for (awake, passed, slept) in
            [(0, 0, false), (500, 500, false), (1, 3600, true), (10, 15, false), (30, 0, false)]
        {
            assert_eq!(has_slept(start, later(awake, passed)), slept, "{awake} {passed}");
        }
        assert!(!has_slept(later(0, 3600), later(1, 0)), "a clock that was set back");
    }
}
