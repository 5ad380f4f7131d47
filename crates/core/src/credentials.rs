//! The user's headers, which may change while the bridge runs: read anew once for each set that the server refuses.

use std::sync::{Arc, Mutex, PoisonError};

use http::HeaderMap;

use crate::{
    config::{Config, HeaderSource},
    error::Error,
    headers,
};

/// The headers in use and where new ones come from.
#[derive(Debug)]
pub(crate) struct Credentials {
    current: Mutex<Arc<UserHeaders>>,
    source: Option<HeaderSource>,
    /// Held while headers are read, so that many refused requests read them once.
    reading: tokio::sync::Mutex<()>,
}

/// One set of the user's headers.
#[derive(Debug)]
pub(crate) struct UserHeaders {
    pub(crate) headers: HeaderMap,
    /// The same with those of every POST.
    pub(crate) post: HeaderMap,
    version: u64,
    /// False until the source was asked, where the bridge has nothing to show before.
    usable: bool,
}

impl UserHeaders {
    fn new(headers: HeaderMap, version: u64, usable: bool) -> Self {
        Self { post: headers::post(&headers), headers, version, usable }
    }
}

impl Credentials {
    pub(crate) fn new(config: &Config) -> Self {
        let source = config.header_source.clone();
        let usable = !source.as_ref().is_some_and(|source| source.before_first);
        let first = UserHeaders::new(config.headers().clone(), 0, usable);
        Self { current: Mutex::new(Arc::new(first)), source, reading: tokio::sync::Mutex::default() }
    }

    /// The headers to send; asks the source if they come from it alone.
    ///
    /// # Errors
    /// The source failed.
    pub(crate) async fn current(&self) -> Result<Arc<UserHeaders>, Error> {
        let current = self.peek();
        if current.usable {
            return Ok(current);
        }
        self.renew(&current).await?;
        Ok(self.peek())
    }

    /// The server refused these headers: reads them anew, unless somebody has. True if there are others now.
    ///
    /// # Errors
    /// The source failed.
    pub(crate) async fn renew(&self, refused: &UserHeaders) -> Result<bool, Error> {
        let Some(source) = &self.source else { return Ok(false) };
        let _reading = self.reading.lock().await;
        let current = self.peek();
        if current.version != refused.version {
            return Ok(true);
        }
        let headers = source.load().await?;
        let changed = headers != current.headers;
        let read = UserHeaders::new(headers, current.version + 1, true);
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(read);
        Ok(changed)
    }

    fn peek(&self) -> Arc<UserHeaders> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU8, Ordering};

    use http::{HeaderValue, header::AUTHORIZATION};

    use super::*;

    /// A source that gives `Bearer 1`, `Bearer 2` … and then no others.
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

    #[tokio::test]
    async fn headers_are_read_once_for_each_refusal() {
        let credentials = credentials(true, 2);
        let first = credentials.current().await.unwrap();
        assert_eq!(first.headers[AUTHORIZATION], "Bearer 1");
        let (one, two) = tokio::join!(credentials.renew(&first), credentials.renew(&first));
        assert!(one.unwrap() && two.unwrap());
        let second = credentials.current().await.unwrap();
        assert_eq!(second.headers[AUTHORIZATION], "Bearer 2");
        assert!(!credentials.renew(&second).await.unwrap(), "the same again is no help");
    }

    #[tokio::test]
    async fn nothing_is_read_before_it_is_needed() {
        let credentials = credentials(false, 1);
        assert!(credentials.current().await.unwrap().headers.is_empty());
    }
}
