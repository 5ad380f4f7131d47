//! Keeps the user's headers, which may change while the bridge runs. When the server refuses a set of headers, they
//! are read again or get a new token, once for that set.
//!
//! Rule: the user's own `Authorization` is never replaced. A token is added only if there is none.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

#[cfg(feature = "oauth")]
use http::header::AUTHORIZATION;
use http::{HeaderMap, StatusCode};
use tokio::sync::watch;

#[cfg(feature = "oauth")]
use crate::auth::{Challenge, SignIn, Token, TokenRequirement};
use crate::{
    config::{Config, HeaderSource},
    error::Error,
    secrets::Concealed,
    wire::headers,
};

/// The current headers and the source of new ones.
#[derive(Debug)]
pub(crate) struct Credentials {
    current: Mutex<Arc<UserHeaders>>,
    /// The version of the current headers.
    versions: watch::Sender<u64>,
    source: Option<HeaderSource>,
    /// Held while the source is read, so that many refused requests read it once.
    reading: tokio::sync::Mutex<()>,
    #[cfg(feature = "oauth")]
    sign_in: Option<SignIn>,
}

/// One set of the user's headers.
#[derive(Debug)]
pub(crate) struct UserHeaders {
    pub(crate) headers: HeaderMap,
    /// `headers` plus the headers of every POST.
    pub(crate) post: HeaderMap,
    version: u64,
    #[expect(dead_code, reason = "conceals their values while they may be sent")]
    concealed: Concealed,
    /// False if the source must be read before the first request.
    usable: bool,
    /// The token in `headers`.
    #[cfg(feature = "oauth")]
    token: Option<Arc<Token>>,
}

impl UserHeaders {
    fn new(headers: HeaderMap, version: u64, usable: bool) -> Self {
        Self {
            post: crate::http::with_defaults(headers::post(&headers)),
            concealed: Concealed::headers(&headers),
            headers,
            version,
            usable,
            #[cfg(feature = "oauth")]
            token: None,
        }
    }
}

/// The server's refusal of a set of headers.
#[derive(Clone, Copy)]
pub(crate) struct HeaderRefusal<'a> {
    pub(crate) sent: &'a UserHeaders,
    pub(crate) status: StatusCode,
    /// The headers of the response.
    pub(crate) headers: &'a HeaderMap,
}

impl Credentials {
    pub(crate) fn new(config: &Config) -> Self {
        let source = config.header_source.clone();
        let usable = !source.as_ref().is_some_and(|source| source.before_first);
        let first = UserHeaders::new(config.headers().clone(), 0, usable);
        Self {
            current: Mutex::new(Arc::new(first)),
            versions: watch::Sender::new(0),
            source,
            reading: tokio::sync::Mutex::default(),
            #[cfg(feature = "oauth")]
            sign_in: config.account().map(SignIn::new),
        }
    }

    /// Returns the headers to send. Reads the source first if only it has usable headers, and renews a token that
    /// expires soon.
    ///
    /// # Errors
    /// The source failed.
    pub(crate) async fn current(&self) -> Result<Arc<UserHeaders>, Error> {
        let current = self.peek();
        if !current.usable {
            self.read(&current).await?;
        }
        #[cfg(feature = "oauth")]
        self.complete().await;
        Ok(self.peek())
    }

    /// Returns how many times a message may be sent again after this refusal. The limit keeps a message from being
    /// sent for ever to a server that accepts no credentials.
    #[cfg_attr(not(feature = "oauth"), expect(clippy::unused_self, reason = "only sign-ins use `self`"))]
    pub(crate) fn max_resends(&self, refusal: HeaderRefusal<'_>) -> usize {
        match refusal.status {
            #[cfg(feature = "oauth")]
            StatusCode::UNAUTHORIZED if self.signs_in(refusal.sent).is_some() => 2,
            StatusCode::UNAUTHORIZED => 1,
            #[cfg(feature = "oauth")]
            StatusCode::FORBIDDEN if self.signs_in(refusal.sent).is_some() => {
                let challenge = Challenge::of(refusal.headers);
                // The token already covers the scope, so a new one would be refused too.
                let is_granted = refusal.sent.token.as_ref().is_some_and(|token| token.covers(&challenge));
                let is_over =
                    refusal.sent.token.as_ref().is_some_and(|token| challenge.refuses_token() || token.has_expired());
                if challenge.wants_more_scope() && !is_granted { 3 } else { usize::from(is_over) }
            }
            _ => 0,
        }
    }

    /// Gets new headers for a request that only the bridge needs: reads the source or renews the token, but never asks
    /// the user. Returns true if the headers have changed.
    ///
    /// # Errors
    /// The source failed, or the token cannot be renewed.
    pub(crate) async fn renew_without_prompt(&self, refusal: HeaderRefusal<'_>) -> Result<bool, Error> {
        if self.peek().version != refusal.sent.version
            || refusal.status == StatusCode::UNAUTHORIZED && self.read(refusal.sent).await?
        {
            return Ok(true);
        }
        #[cfg(feature = "oauth")]
        if let (Some(sign_in), Some(token)) = (self.signs_in(refusal.sent), &refusal.sent.token) {
            let token = sign_in.token(&TokenRequirement::ahead(token), sign_in.patience()).await?;
            self.install(token);
            return Ok(true);
        }
        Ok(false)
    }

    /// Waits until the headers have changed since `sent`.
    pub(crate) async fn change(&self, sent: &UserHeaders) {
        let version = sent.version;
        // Cannot fail, because `self` owns the sender.
        let _ = self.versions.subscribe().wait_for(|now| *now != version).await;
    }

    /// Gets new headers after a refusal: reads the source, unless another request already did, or lets the user sign
    /// in. `wait` limits the time for the sign-in. Returns true if the headers have changed.
    ///
    /// # Errors
    /// The source failed, or there is no token (yet).
    pub(crate) async fn renew(&self, refusal: HeaderRefusal<'_>, wait: Option<Duration>) -> Result<bool, Error> {
        if refusal.status == StatusCode::UNAUTHORIZED && self.read(refusal.sent).await? {
            return Ok(true);
        }
        #[cfg(feature = "oauth")]
        if let Some(sign_in) = self.signs_in(refusal.sent) {
            let challenge = Challenge::of(refusal.headers);
            let is_for_more = refusal.status == StatusCode::FORBIDDEN && challenge.wants_more_scope();
            let need = TokenRequirement::after(refusal.sent.token.as_ref(), challenge, is_for_more);
            let wait = wait.map_or(sign_in.patience(), |wait| wait.min(sign_in.patience()));
            match sign_in.token(&need, wait).await {
                Ok(token) => self.install(token),
                // The refusal is the more useful error.
                Err(error) if error.is_no_sign_in() => return Ok(false),
                Err(error) => return Err(error),
            }
            return Ok(true);
        }
        #[cfg(not(feature = "oauth"))]
        let _ = wait;
        Ok(false)
    }

    /// Reads the source, unless another request already did. Returns true if the headers have changed.
    async fn read(&self, refused: &UserHeaders) -> Result<bool, Error> {
        let Some(source) = &self.source else { return Ok(self.peek().version != refused.version) };
        let _reading = self.reading.lock().await;
        let current = self.peek();
        if current.version != refused.version {
            return Ok(true);
        }
        let headers = source.load().await?;
        #[cfg(feature = "oauth")]
        if current.token.is_some() {
            let mut own = current.headers.clone();
            own.remove(AUTHORIZATION);
            if headers == own {
                return Ok(false);
            }
        }
        let changed = headers != current.headers;
        self.put(UserHeaders::new(headers, current.version + 1, true));
        Ok(changed)
    }

    fn peek(&self) -> Arc<UserHeaders> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn put(&self, headers: UserHeaders) {
        let version = headers.version;
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(headers);
        self.versions.send_replace(version);
    }
}

#[cfg(feature = "oauth")]
impl Credentials {
    /// Returns the source of tokens, unless the headers have an `Authorization` of the user's own.
    fn signs_in(&self, sent: &UserHeaders) -> Option<&SignIn> {
        let has_own = sent.token.is_none() && sent.headers.contains_key(AUTHORIZATION);
        self.sign_in.as_ref().filter(|_| !has_own)
    }

    /// Returns the sign-in, which may be in progress.
    pub(crate) fn sign_in(&self) -> Option<&SignIn> {
        self.sign_in.as_ref()
    }

    /// Adds a token that a sign-in has found meanwhile, and renews one that expires soon. If the renewal fails, the
    /// old token stays in use until the server refuses it.
    async fn complete(&self) {
        let Some(sign_in) = self.signs_in(&self.peek()) else { return };
        let Some(token) = &sign_in.found() else { return };
        self.install(Arc::clone(token));
        if !token.is_stale() {
            return;
        }
        match sign_in.token(&TokenRequirement::ahead(token), sign_in.patience()).await {
            Ok(token) => self.install(token),
            Err(error) => tracing::debug!(error = %error, "the token is not renewed"),
        }
    }

    fn install(&self, token: Arc<Token>) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.token.as_ref().is_some_and(|known| Arc::ptr_eq(known, &token)) {
            return;
        }
        let mut headers = current.headers.clone();
        headers.insert(AUTHORIZATION, token.header.clone());
        let mut completed = UserHeaders::new(headers, current.version + 1, true);
        completed.token = Some(token);
        let version = completed.version;
        *current = Arc::new(completed);
        drop(current);
        self.versions.send_replace(version);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU8, Ordering};

    use http::{HeaderValue, header::AUTHORIZATION};

    use super::*;

    /// Credentials whose source returns `Bearer 1`, `Bearer 2` … up to `last`, and then `last` again.
    fn credentials(before_first: bool, last: u8) -> Credentials {
        let mut config = Config::new("http://localhost/mcp").unwrap();
        let count = Arc::new(AtomicU8::new(0));
        let load = move || {
            let count = count.fetch_add(1, Ordering::SeqCst).saturating_add(1).min(last);
            let value = HeaderValue::from_str(&format!("Bearer {count}")).unwrap();
            let load: crate::config::LoadedHeaders =
                Box::pin(async { Ok(HeaderMap::from_iter([(AUTHORIZATION, value)])) });
            load
        };
        config.header_source = Some(HeaderSource::new(load, before_first));
        Credentials::new(&config)
    }

    fn refusal<'a>(sent: &'a UserHeaders, headers: &'a HeaderMap) -> HeaderRefusal<'a> {
        HeaderRefusal { sent, status: StatusCode::UNAUTHORIZED, headers }
    }

    #[tokio::test]
    async fn headers_are_read_once_for_each_refusal() {
        let credentials = credentials(true, 2);
        let none = HeaderMap::new();
        let first = credentials.current().await.unwrap();
        assert_eq!(first.headers[AUTHORIZATION], "Bearer 1");
        let (one, two) = tokio::join!(
            credentials.renew(refusal(&first, &none), None),
            credentials.renew(refusal(&first, &none), None)
        );
        assert!(one.unwrap() && two.unwrap());
        let second = credentials.current().await.unwrap();
        assert_eq!(second.headers[AUTHORIZATION], "Bearer 2");
        assert!(!credentials.renew(refusal(&second, &none), None).await.unwrap(), "the same headers again do not help");
    }

    #[tokio::test]
    async fn header_source_is_not_read_before_a_refusal() {
        let credentials = credentials(false, 1);
        assert!(credentials.current().await.unwrap().headers.is_empty());
    }
}
