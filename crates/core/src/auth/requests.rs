//! The HTTP requests of a sign-in. They use the bridge's own HTTP client, with its proxies, CA certificates and
//! timeouts.
//!
//! Rules:
//! - Secrets are sent only over TLS, except to this machine. No redirect to another origin is followed.
//! - A name that the MCP server supplies must not lead into a network that the server itself is not in.
//! - Responses are limited in size, and cleaned up for the libraries that read them (`answer`).
//! - The client certificate that the user has for the server is sent only to that server.
//!
//! The reason why an address was refused is recorded, because the libraries continue without it and report another
//! error in the end.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::Full;
use oauth2::{AsyncHttpClient, HttpRequest, HttpResponse};
use rmcp::transport::auth::{
    OAuthHttpClient, OAuthHttpClientError, OAuthHttpClientFuture, OAuthHttpRedirectPolicy, OAuthHttpRequest,
};
use serde::Deserialize;
use tokio::time::timeout;
use url::{Host, Url, form_urlencoded};

use super::{
    answer::{CleanedResponse, Secrets, tidy, tidy_document},
    challenge::Challenge,
};
use crate::{
    error::{Cause, Error, ErrorKind},
    http::{Addresses, HttpClient, HttpSettings, ServerUrl, is_localhost},
    wire::{body::is_event_stream, error_text, headers},
};

/// The limit for the body of a response, in bytes.
const MAX_SIZE: usize = 1 << 20;
/// The timeout for one request.
const LONGEST: Duration = Duration::from_secs(30);
const MAX_REDIRECTS: usize = 5;

/// The two HTTP clients: one for the MCP server's origin, which the user has chosen, and one for all others.
#[derive(Clone, Debug)]
pub(super) struct AuthClients {
    server: ServerUrl,
    here: HttpClient<Full<Bytes>>,
    elsewhere: HttpClient<Full<Bytes>>,
}

impl AuthClients {
    /// # Errors
    /// The TLS settings cannot be used.
    pub(super) fn new(server: &ServerUrl, here: &HttpSettings) -> Result<Self, Error> {
        let mut elsewhere = here.clone();
        elsewhere.tls.client = None;
        elsewhere.unix_socket = None;
        let host = server.as_uri().host().unwrap_or_default();
        elsewhere.addresses = Addresses::Like(host.trim_matches(['[', ']']).to_owned());
        let here = HttpClient::new(here.clone())?;
        Ok(Self { server: server.clone(), here, elsewhere: HttpClient::new(elsewhere)? })
    }
}

/// The requests of one sign-in.
#[derive(Debug)]
pub(super) struct Http {
    clients: AuthClients,
    /// Replaces rmcp's resource in token requests; `None` leaves it unchanged.
    resource: Mutex<Option<Instead>>,
    heard: Mutex<UnreportedDetails>,
}

/// Facts that the libraries do not report.
#[derive(Debug, Default)]
struct UnreportedDetails {
    /// The error code of the last refusal, as in RFC 6749, 5.2. The libraries turn it into text.
    refusal: Option<String>,
    /// The human-readable text of the last refusal.
    words: Option<String>,
    /// Why an address was not connected to.
    forbidden: Option<Error>,
    /// The URL of the last document, before redirects.
    document: Option<Url>,
    /// True if the response was a redirect to the same origin, which is requested next.
    is_moved: bool,
}

/// What to send as the resource.
#[derive(Clone, Debug)]
pub(super) enum Instead {
    This(String),
    Nothing,
}

impl Http {
    pub(super) fn new(clients: AuthClients) -> Arc<Self> {
        Arc::new(Self { clients, resource: Mutex::default(), heard: Mutex::default() })
    }

    /// Replaces the resource in all later token requests.
    pub(super) fn replace_resource(&self, instead: Option<Instead>) {
        *self.resource.lock().unwrap_or_else(PoisonError::into_inner) = instead;
    }

    pub(super) fn instead(&self) -> Option<Instead> {
        self.resource.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes the error code of the last refusal, if there was one since the last call.
    pub(super) fn take_refusal(&self) -> Option<String> {
        self.heard().refusal.take()
    }

    /// Takes the error for the first refused address since the last call.
    pub(super) fn take_forbidden(&self) -> Option<Error> {
        self.heard().forbidden.take()
    }

    /// Returns the error for a failure. Uses the recorded reason, which the libraries do not report, if there is one.
    pub(super) fn failure(&self, what: &str, error: impl Into<Cause>) -> Error {
        if let Some(forbidden) = self.take_forbidden() {
            return explained(what, &forbidden).with_source(error);
        }
        let words = self.heard().words.take();
        let summary = words.map_or_else(|| what.to_owned(), |words| format!("{what}: {words}"));
        Error::new(ErrorKind::NoToken, summary).with_source(error)
    }

    /// Returns the URL of the last document, before redirects.
    pub(super) fn document(&self) -> Option<Url> {
        self.heard().document.clone()
    }

    /// Checks, by the same rules, that the user may be sent to this URL.
    ///
    /// # Errors
    /// Why the user may not.
    pub(super) async fn may_show(&self, url: &str) -> Result<(), Error> {
        let url = ServerUrl::parse(url)?;
        self.judge(&Method::POST, &url)?;
        self.may_reach(&url).await
    }

    /// Records the error if the address of this URL, which the MCP server names, is forbidden. The code that uses the
    /// URL reports other problems.
    pub(super) async fn note(&self, url: &str) {
        if let Ok(url) = ServerUrl::parse(url)
            && let Err(error) = self.may_reach(&url).await
            && error.is_forbidden_address()
        {
            self.heard().forbidden.get_or_insert(error);
        }
    }

    async fn may_reach(&self, url: &ServerUrl) -> Result<(), Error> {
        if self.clients.server.is_origin_of(url) {
            return Ok(());
        }
        self.clients.elsewhere.may_reach(url.as_uri()).await
    }

    /// Like [`Self::send`], with a timeout.
    pub(super) async fn ask(&self, request: HttpRequest, follow: bool) -> Result<HttpResponse, Error> {
        timeout(LONGEST, self.send(request, follow)).await.map_err(|_| too_slow(LONGEST))?
    }

    /// Sends a request, and returns the response, with any status. If `follow` is true, follows redirects within
    /// the same origin.
    ///
    /// # Errors
    /// There is no response, or nothing may be sent there.
    pub(super) async fn send(&self, request: HttpRequest, follow: bool) -> Result<HttpResponse, Error> {
        self.heard().words = None;
        let (head, body) = request.into_parts();
        let body = Bytes::from(self.with_resource(&head.headers, body));
        let secrets = Secrets::of(&head.headers, &body);
        let asked = ServerUrl::parse(&head.uri.to_string())?;
        let mut url = asked.clone();
        for _ in 0..=MAX_REDIRECTS {
            self.judge(&head.method, &url)?;
            let mut request = Request::new(Full::new(body.clone()));
            *request.method_mut() = head.method.clone();
            *request.uri_mut() = url.as_uri().clone();
            request.headers_mut().clone_from(&head.headers);
            let is_here = self.clients.server.is_origin_of(&url);
            let client = if is_here { &self.clients.here } else { &self.clients.elsewhere };
            let response = client.send(request).await.inspect_err(|error| {
                if error.is_forbidden_address() {
                    self.heard().forbidden.get_or_insert_with(|| error.repeated());
                }
            })?;
            // Other redirects may require another method.
            let keeps = matches!(response.status(), StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
            let location = response.headers().get(header::LOCATION).filter(|_| follow && keeps);
            match location.and_then(|location| url.join(location.to_str().ok()?)) {
                Some(next) if url.is_origin_of(&next) => url = next,
                Some(next) => {
                    let summary = format!("{url} redirects to another origin, {next}, which is not followed");
                    return Err(Error::new(ErrorKind::NoToken, summary));
                }
                None => {
                    let (mut head_of_answer, body) = self.gathered(response).await?;
                    if head.method != Method::GET {
                        return Ok(self.fit(head_of_answer, &body, &secrets));
                    }
                    head_of_answer.headers = relevant_headers(&head_of_answer.headers);
                    let response = HttpResponse::from_parts(head_of_answer, tidy_document(&body, &secrets));
                    self.record_document(asked.as_url(), &response).await;
                    return Ok(response);
                }
            }
        }
        Err(Error::new(ErrorKind::NoToken, format!("{url} redirects in circles")))
    }

    /// Records the URL of a document, and the forbidden addresses that it names.
    async fn record_document(&self, asked: &Url, response: &HttpResponse) {
        #[derive(Deserialize)]
        struct Named {
            #[serde(default)]
            authorization_server: Option<String>,
            #[serde(default)]
            authorization_servers: Vec<String>,
        }
        {
            let mut heard = self.heard();
            if !heard.is_moved {
                heard.document = Some(asked.clone());
            }
            heard.is_moved = response.status().is_redirection();
        }
        if let Some(pointer) = Challenge::of(response.headers()).resource_metadata {
            self.note(&pointer).await;
        }
        if let Ok(named) = serde_json::from_slice::<Named>(response.body()) {
            for server in named.authorization_server.iter().chain(&named.authorization_servers) {
                self.note(server).await;
            }
        }
    }

    /// Checks that a request may be sent to this URL.
    fn judge(&self, method: &Method, url: &ServerUrl) -> Result<(), Error> {
        let is_metadata_of_server = method == Method::GET && self.clients.server.is_origin_of(url);
        if is_metadata_of_server || is_confidential(url.as_url()) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::NoToken, format!("{url} is not used: only https protects what is sent there")))
    }

    async fn gathered(
        &self,
        response: http::Response<crate::http::Body>,
    ) -> Result<(http::response::Parts, Vec<u8>), Error> {
        let (head, mut stream) = response.into_parts();
        let mut body = Vec::new();
        // An event stream is not a document, and may never end.
        if !is_event_stream(headers::content_type(&head.headers)) {
            while let Some(chunk) = stream.chunk().await? {
                if body.len() + chunk.len() > MAX_SIZE {
                    return Err(Error::new(ErrorKind::TooLarge, format!("a response is larger than {MAX_SIZE} bytes")));
                }
                body.extend_from_slice(&chunk);
            }
        }
        Ok((head, body))
    }

    /// Adapts the response to a POST for the libraries: a refusal gets an error status, and a grant gets 200 and
    /// JSON.
    fn fit(&self, mut head: http::response::Parts, body: &[u8], secrets: &Secrets) -> HttpResponse {
        let is_success = head.status.is_success();
        let CleanedResponse { body, is_object, refusal } = tidy(body, !is_success, secrets);
        head.headers = relevant_headers(&head.headers);
        if is_object {
            head.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        match (is_success, &refusal) {
            (true, Some(_)) => head.status = StatusCode::BAD_REQUEST,
            (true, None) => head.status = StatusCode::OK,
            (false, _) => {}
        }
        if !head.status.is_success() {
            let words = error_text::of(&String::from_utf8_lossy(&body));
            // A server error is not a refusal of the client.
            let refusal = refusal.filter(|_| head.status.is_client_error());
            let mut last = self.heard();
            (last.words, last.refusal) = (words, refusal);
        }
        HttpResponse::from_parts(head, body)
    }

    fn heard(&self) -> MutexGuard<'_, UnreportedDetails> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the resource in a form.
    fn with_resource(&self, headers: &HeaderMap, body: Vec<u8>) -> Vec<u8> {
        let is_form = headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/x-www-form-urlencoded");
        match self.instead() {
            Some(instead) if is_form => replaced(form_urlencoded::parse(&body), &instead).into_bytes(),
            _ => body,
        }
    }
}

/// Encodes these pairs as a form or a query, with the resource replaced.
pub(super) fn replaced(pairs: form_urlencoded::Parse<'_>, instead: &Instead) -> String {
    let mut out = form_urlencoded::Serializer::new(String::new());
    out.extend_pairs(pairs.filter(|(name, _)| name != "resource"));
    if let Instead::This(resource) = instead {
        out.append_pair("resource", resource);
    }
    out.finish()
}

/// Returns the headers that the libraries need, each once, with the challenge as `Challenge` parses it.
fn relevant_headers(headers: &HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for name in [header::CONTENT_TYPE, header::LOCATION] {
        kept.extend(headers.get(&name).map(|value| (name, value.clone())));
    }
    let challenge = Challenge::of(headers).to_header().and_then(|text| HeaderValue::try_from(text).ok());
    kept.extend(challenge.map(|value| (header::WWW_AUTHENTICATE, value)));
    kept
}

/// True if no one else can read a request: it uses TLS, or stays on this machine.
fn is_confidential(url: &Url) -> bool {
    let is_loopback = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => is_localhost(name),
        None => false,
    };
    url.scheme() == "https" || (url.scheme() == "http" && is_loopback)
}

impl OAuthHttpClient for Http {
    fn execute(&self, request: OAuthHttpRequest) -> OAuthHttpClientFuture<'_> {
        let OAuthHttpRequest { request, redirect_policy, timeout: limit, .. } = request;
        let follow = redirect_policy == OAuthHttpRedirectPolicy::Follow;
        Box::pin(async move {
            let sent = timeout(limit.unwrap_or(LONGEST), self.send(request, follow)).await;
            Ok(sent.map_err(|_| too_slow(LONGEST))??)
        })
    }
}

/// The same client for the `oauth2` crate, which is used without rmcp here.
pub(super) struct OAuth2Http<'a>(pub(super) &'a Http);

/// Wraps an error as the source of another.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(super) struct Sent(OAuthHttpClientError);

impl<'c> AsyncHttpClient<'c> for OAuth2Http<'_> {
    type Error = Sent;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<HttpResponse, Sent>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(async move { self.0.ask(request, false).await.map_err(|error| Sent(error.into())) })
    }
}

/// Returns the error for a failure that is due to a refused address.
pub(super) fn explained(what: &str, forbidden: &Error) -> Error {
    Error::new(ErrorKind::ForbiddenAddress, format!("{what}: {forbidden}"))
}

pub(super) fn too_slow(limit: Duration) -> Error {
    Error::new(ErrorKind::Timeout, format!("no answer within {} s", limit.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http(server: &str) -> Arc<Http> {
        Http::new(AuthClients::new(&ServerUrl::parse(server).unwrap(), &HttpSettings::default()).unwrap())
    }

    #[test]
    fn oauth_secrets_are_sent_over_plain_http_only_to_loopback() {
        let http = http("http://mcp.example/mcp");
        for (method, url, allowed) in [
            (Method::GET, "http://mcp.example/.well-known/oauth-protected-resource", true),
            (Method::POST, "http://mcp.example/token", false),
            (Method::GET, "http://as.example/", false),
            (Method::POST, "https://as.example/token", true),
            (Method::POST, "http://localhost:1/token", true),
            (Method::POST, "http://127.0.0.1:1/token", true),
            (Method::POST, "http://[::1]:1/token", true),
            (Method::POST, "http://localhost.example/token", false),
        ] {
            let verdict = http.judge(&method, &ServerUrl::parse(url).unwrap());
            assert_eq!(verdict.is_ok(), allowed, "{method} {url}");
        }
    }

    #[test]
    fn configured_resource_replaces_the_discovered_one_in_form_bodies() {
        let http = http("https://mcp.example/mcp");
        let form = HeaderMap::from_iter([(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        )]);
        let body = |headers: &HeaderMap| {
            String::from_utf8(http.with_resource(headers, b"a=b%26&resource=c&resource=d".to_vec())).unwrap()
        };
        assert_eq!(body(&form), "a=b%26&resource=c&resource=d");
        http.replace_resource(Some(Instead::This("https://x/?y".into())));
        assert_eq!(body(&form), "a=b%26&resource=https%3A%2F%2Fx%2F%3Fy");
        assert_eq!(body(&HeaderMap::new()), "a=b%26&resource=c&resource=d");
        http.replace_resource(Some(Instead::Nothing));
        assert_eq!(body(&form), "a=b%26");
    }

    #[tokio::test]
    async fn oauth_urls_at_internal_addresses_are_refused() {
        let proxy = crate::http::ProxyUrl::parse("http://127.0.0.1:1").unwrap();
        let server = ServerUrl::parse("https://mcp.example/mcp").unwrap();
        let proxy = crate::http::Proxy::Url { url: proxy, except: None };
        let behind_proxy = HttpSettings { proxy, ..HttpSettings::default() };
        for settings in [HttpSettings::default(), behind_proxy] {
            let http = Http::new(AuthClients::new(&server, &settings).unwrap());
            for url in [
                "http://127.0.0.1:1/",
                "https://10.0.0.1/",
                "https://0x0a000001/",
                "https://012.1/",
                "https://167772161./",
                "https://[::1]/",
                "https://[::ffff:10.0.0.1]/",
                "https://[fec0::1]/",
                "https://169.254.169.254/",
                "https://192.0.0.1/",
                "https://localhost/",
                "https://LOCALHOST./",
                "http://x.localhost:1/",
            ] {
                let request = Request::get(url).body(Vec::new()).unwrap();
                let error = http.send(request, false).await.unwrap_err();
                assert!(error.to_string().contains("where the MCP server is not"), "{url}: {error}");
                assert_eq!(error.kind(), "forbidden_address");
                assert!(http.may_show(url).await.unwrap_err().is_forbidden_address(), "{url}");
                assert!(http.take_forbidden().is_some_and(|error| error.is_forbidden_address()), "{url}");
            }
        }
    }
}
