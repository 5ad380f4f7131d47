//! The way to the server: one POST per message, GET for its streams, DELETE at the end.
//!
//! Rules: a redirect keeps method and body, nothing of the user's goes to another origin or to where another origin sends
//! it (R92), and nothing that was sent by `https` is sent in clear; what is known about a request's delivery is recorded as
//! it happens, for whoever must say whether it may have run.

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
        cookies::Cookies,
        credentials::{Credentials, UserHeaders},
        delivery::{Delivery, DeliveryBody},
        reply::Reply,
    },
    wire::headers,
};

const MOST_REDIRECTS: usize = 5;
/// A machine that was away for less than this finds its connections as they were.
const SHORT_SLEEP: Duration = Duration::from_secs(20);

/// The way to the server.
#[derive(Debug)]
pub(crate) struct Requests {
    clients: Mutex<Arc<ServerClients>>,
    cookies: Cookies,
    last_used: Mutex<(Instant, SystemTime)>,
    url: ServerUrl,
    pub(crate) credentials: Credentials,
    #[expect(dead_code, reason = "what is secret in the settings is concealed for as long as they are used")]
    concealed: Concealed,
}

impl Requests {
    /// Sets up the client; nothing is sent yet.
    ///
    /// # Errors
    /// TLS settings that cannot be used.
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        Ok(Self {
            clients: Mutex::new(Arc::new(ServerClients::new(config)?)),
            cookies: Cookies::new(config.url.clone()),
            last_used: Mutex::new((Instant::now(), SystemTime::now())),
            url: config.url.clone(),
            credentials: Credentials::new(config),
            concealed: config.concealed(),
        })
    }

    /// Where the server listens.
    pub(crate) fn url(&self) -> &ServerUrl {
        &self.url
    }

    /// Posts one message to `target`. `session` adds the headers of the session; `delivery` learns when the body goes out. What is not repeatable
    /// goes on no connection that the server may be about to close.
    ///
    /// # Errors
    /// Whatever kept an HTTP response from coming; a response of any status is none.
    pub(crate) async fn post(
        &self,
        target: &ServerUrl,
        body: Bytes,
        is_repeatable: bool,
        session: impl Fn(&mut HeaderMap),
        delivery: &Arc<Delivery>,
    ) -> Result<Reply, Error> {
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

    /// Opens a stream of events: the server's own, or with `last_event_id` the rest of one that broke (R29, R32). Asks for
    /// new credentials once if the server refuses those it got; unless a request needs the stream (`is_asked_for`), only for
    /// such as bother nobody.
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
        if self.credentials.most_tries(reply.refusal()) > 0 {
            let renewed = if is_asked_for {
                self.credentials.renew(reply.refusal(), None).await
            } else {
                self.credentials.renew_quietly(reply.refusal()).await
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
        let user = self.credentials.current().await?;
        let headers = |user: Option<&UserHeaders>| {
            let Some(user) = user else { return headers::get(&HeaderMap::new(), None) };
            let mut headers = headers::get(&user.headers, last_event_id.map(Bytes::as_ref));
            session(&mut headers);
            headers
        };
        self.follow(Method::GET, &self.url, true, user, headers, DeliveryBody::default).await
    }

    /// Ends the session (R41). Any status will do: 405 means that the server does not let clients end sessions.
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
        Ok(self.send(&self.clients(), &self.url, true, request, Some(&user)).await?.status())
    }

    /// Gives up all connections that are open: the next request opens a new one. What is under way goes on.
    pub(crate) fn distrust_connections(&self) {
        let mut clients = lock(&self.clients);
        *clients = Arc::new(clients.renewed());
    }

    /// The client to send with. After a sleep of the machine it is one without connections, as theirs have died unseen.
    fn clients(&self) -> Arc<ServerClients> {
        let now = (Instant::now(), SystemTime::now());
        let last = std::mem::replace(&mut *lock(&self.last_used), now);
        if has_slept(last, now) {
            tracing::debug!("the clock has jumped; connections are made anew");
            self.distrust_connections();
        }
        Arc::clone(&lock(&self.clients))
    }

    /// Sends a request to a URL and where redirects lead. `headers` gives those that go to the user's
    /// server, or without the user's to any other.
    async fn follow(
        &self,
        method: Method,
        target: &ServerUrl,
        is_repeatable: bool,
        user: Arc<UserHeaders>,
        headers: impl Fn(Option<&UserHeaders>) -> HeaderMap,
        body: impl Fn() -> DeliveryBody,
    ) -> Result<Reply, Error> {
        let clients = self.clients();
        let mut url = target.clone();
        // Once another origin has had a say, the way is a stranger's, wherever it leads.
        let mut is_home = self.url.is_origin_of(&url);
        for _ in 0..=MOST_REDIRECTS {
            let known = is_home.then_some(&*user);
            let mut request = Request::new(body());
            *request.method_mut() = method.clone();
            *request.headers_mut() = headers(known);
            let response = self.send(&clients, &url, is_repeatable, request, known).await?;
            match next_hop(&response, &url)? {
                None => return Ok(Reply { response, user, why: None, begun: None }),
                Some(target) => {
                    tracing::debug!(status = response.status().as_u16(), "redirected");
                    url = target;
                    is_home &= self.url.is_origin_of(&url);
                }
            }
        }
        Err(Error::new(ErrorKind::Status, format!("{} redirects in circles; check the URL", self.url)))
    }

    /// Sends one request. `user` is who the server knows us as; none if that is not to be shown there.
    async fn send(
        &self,
        clients: &ServerClients,
        url: &ServerUrl,
        is_repeatable: bool,
        mut request: Request<DeliveryBody>,
        user: Option<&UserHeaders>,
    ) -> Result<Response<Body>, Error> {
        *request.uri_mut() = url.as_uri().clone();
        // A `Cookie` header of the user's own is left alone.
        let takes_cookies = user.is_some_and(|user| !user.headers.contains_key(header::COOKIE));
        if let Some(cookies) = self.cookies.header(url).filter(|_| takes_cookies) {
            request.headers_mut().insert(header::COOKIE, cookies);
        }
        let client = if user.is_some() { &clients.here } else { &clients.elsewhere };
        let response = if is_repeatable { client.send(request).await } else { client.send_once(request).await }?;
        if user.is_some() {
            self.cookies.learn(response.headers(), url);
        }
        // What a proxy says of itself in the server's place.
        if response.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED
            && let Some(refusal) = client.refused_by_proxy(url.as_uri())
        {
            return Err(refusal.with_status(response.status()));
        }
        Ok(response)
    }
}

/// The HTTP client, and its like for other origins, which never learn who the user is: TLS does not tell the one who
/// picks a certificate which host asks.
#[derive(Debug)]
struct ServerClients {
    here: HttpClient<DeliveryBody>,
    elsewhere: HttpClient<DeliveryBody>,
}

impl ServerClients {
    fn new(config: &Config) -> Result<Self, Error> {
        let mut settings = HttpSettings {
            unix_socket: config.socket(),
            tls: config.tls.clone(),
            proxy: config.proxy.clone(),
            connect: config.timeouts.connect,
            ping: config.timeouts.ping,
            idle_for: config.idle_for,
            idle_connections: config.idle_connections,
            version: config.http_version,
            ..HttpSettings::default()
        };
        let here = HttpClient::new(settings.clone())?;
        // Two pools of connections only where there is something to hide.
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

/// Whether the machine slept in between: the wall clock went on while the other one stood.
fn has_slept(before: (Instant, SystemTime), now: (Instant, SystemTime)) -> bool {
    let awake = now.0.duration_since(before.0);
    let passed = now.1.duration_since(before.1).unwrap_or_default();
    passed.saturating_sub(awake) > SHORT_SLEEP
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where to repeat the POST, for the redirects that may keep it (R92); 303 asks for a GET, which would be no MCP.
///
/// # Errors
/// What was sent by `https` would be sent in clear, and the host gives no other way.
fn next_hop(response: &Response<Body>, from: &ServerUrl) -> Result<Option<ServerUrl>, Error> {
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
    fn a_jump_of_the_wall_clock_is_a_sleep() {
        let start = (Instant::now(), SystemTime::now());
        let later = |awake, passed| (start.0 + Duration::from_secs(awake), start.1 + Duration::from_secs(passed));
        for (awake, passed, slept) in
            [(0, 0, false), (500, 500, false), (1, 3600, true), (10, 15, false), (30, 0, false)]
        {
            assert_eq!(has_slept(start, later(awake, passed)), slept, "{awake} {passed}");
        }
        assert!(!has_slept(later(0, 3600), later(1, 0)), "a clock that was put back");
    }
}
