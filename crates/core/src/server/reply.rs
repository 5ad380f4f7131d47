//! The response to a request while its body arrives, and the error that a refusal becomes.

use crate::{
    error::{Error, ErrorKind, Hint},
    http::Body,
    wire::{
        body::{self, Decoder},
        error_text, headers,
        message::{Kind, Message},
        spool::Storage,
    },
};
use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Response, StatusCode};
use tokio::time::timeout;

use super::{
    credentials::{HeaderRefusal, UserHeaders},
    refusals::RefusalBody,
    retry,
};

/// The longest error page that is searched for a JSON-RPC error, in bytes.
const MAX_PAGE_BYTES: u64 = 1 << 20;
/// How long an error page may take to arrive.
const PAGE_TIME: Duration = Duration::from_secs(2);
/// How much of an error page is kept as text, in bytes. If no one waits for an answer, no more than this is read.
const EXCERPT_BYTES: usize = 4096;
/// How long an error page may take to arrive if no one waits for an answer.
const EXCERPT_TIME: Duration = Duration::from_millis(250);

/// The response to a request. Status and headers have arrived; the body is still arriving.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(super) response: Response<Body>,
    /// The user's headers that were sent; a 401 refuses them.
    pub(super) user: Arc<UserHeaders>,
    /// Why there are no credentials that the server accepts.
    pub(super) why: Option<Error>,
    /// The part of the body that was read to detect its type.
    pub(super) begun: Option<Bytes>,
}

impl Reply {
    /// Returns the error for a refusal: the reason why there are no credentials that the server accepts, without a
    /// status code, or the status code with the server's explanation from `text`.
    pub(crate) fn failure(&mut self, text: &[u8]) -> Error {
        match self.why.take() {
            Some(why) => why,
            None => refusal(self.status(), self.retry_after(), &String::from_utf8_lossy(text)),
        }
    }

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

    /// Reads the body of a refusal. If it breaks off, stalls or is too long, returns its beginning. Reads little if no
    /// one waits for an answer (`is_wanted` is false).
    pub(crate) async fn page(&mut self, storage: &Arc<Storage>, is_wanted: bool) -> RefusalBody {
        let (limit, time) = if is_wanted { (MAX_PAGE_BYTES, PAGE_TIME) } else { (EXCERPT_BYTES as u64, EXCERPT_TIME) };
        let mut text = Vec::new();
        let mut decoder = Decoder::new(self.content_type(), limit, storage);
        let mut response = None;
        let gather = async {
            while let Some(chunk) = self.chunk().await? {
                text.extend(chunk.iter().take(EXCERPT_BYTES - text.len()));
                decoder.feed_async(chunk).await?;
                response = response_in(&mut decoder);
                if response.is_some() {
                    break;
                }
            }
            Ok::<_, Error>(())
        };
        let is_whole = matches!(timeout(time, gather).await, Ok(Ok(())));
        if response.is_none() {
            decoder.end(is_whole).await;
            response = response_in(&mut decoder);
        }
        let is_whole = is_whole && !decoder.take_lost_responses().into_iter().any(|lost| lost.error.is_too_large());
        RefusalBody { text: text.into(), response, is_whole }
    }

    /// True if the body is an event stream, by its content type or else by its first bytes, which this waits for.
    pub(crate) async fn is_events(&mut self) -> bool {
        if body::is_event_stream(self.content_type()) {
            return true;
        }
        let mut begun = BytesMut::new();
        let is_events = loop {
            match self.chunk().await {
                Ok(Some(chunk)) => begun.extend_from_slice(&chunk),
                Ok(None) | Err(_) => break false,
            }
            if let Some(is_events) = body::begins_event_stream(&begun) {
                break is_events;
            }
        };
        self.begun = Some(begun.freeze()).filter(|begun| !begun.is_empty());
        is_events
    }

    /// True if the whole body has arrived.
    pub(crate) fn is_over(&self) -> bool {
        self.response.body().is_over()
    }

    /// Returns the user's headers that were sent with the request.
    pub(crate) fn into_sent(self) -> Arc<UserHeaders> {
        self.user
    }

    /// Returns the response as a refusal of the headers that were sent.
    pub(crate) fn refusal(&self) -> HeaderRefusal<'_> {
        HeaderRefusal { sent: &self.user, status: self.status(), headers: self.response.headers() }
    }

    /// Returns the next bytes of the body, decompressed, or `None` at its end.
    ///
    /// # Errors
    /// The body broke off, or cannot be decompressed.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        if let Some(begun) = self.begun.take() {
            return Ok(Some(begun));
        }
        self.response.body_mut().chunk().await
    }
}

/// Returns the first response that a decoder has, if there is one.
fn response_in(decoder: &mut Decoder) -> Option<Message> {
    std::iter::from_fn(|| decoder.next_valid()).find(|message| message.kind() == Kind::Response)
}

/// Returns the error for a refusal. `wait` is how long the server asks to wait; `text` is the body or its beginning.
fn refusal(status: StatusCode, wait: Option<Duration>, text: &str) -> Error {
    let advice = match status.as_u16() {
        401 | 407 => "",
        300..=399 => "; the redirect cannot be followed; use the final URL",
        403 => "; check that the credentials may use this server",
        404 | 405 | 406 | 410 => "; check that the URL is the server's MCP endpoint",
        408 | 425 | 429 | 503 => "; try again later",
        413 => "; the message is larger than the server takes",
        400..=499 => "; the server does not take this message",
        _ => "; the server, or a proxy in front of it, failed",
    };
    let reason = status.canonical_reason().map(|reason| format!(" {reason}")).unwrap_or_default();
    let said = error_text::of(text).map(|said| format!(": {said}")).unwrap_or_default();
    let error =
        Error::new(ErrorKind::Status, format!("the server answered HTTP {}{reason}{said}{advice}", status.as_u16()));
    let error = if matches!(status.as_u16(), 401 | 407) { error.with_hint(Hint::Credentials) } else { error };
    error.with_status(status).with_retry_after(wait).with_fate(retry::judge(status.as_u16(), wait).0).with_detail(text)
}
