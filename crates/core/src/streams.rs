//! The stream codecs for other programs: events, lines and JSON-RPC messages out of the chunks of an HTTP body.
//!
//! Each takes chunks as they arrive, cut anywhere, and gives what is complete. No byte is looked at twice, and what has
//! come of an unfinished event, line or message is all that is kept, up to a limit in bytes.

use crate::{
    error::{Error, ErrorKind},
    wire::{
        body::{Decoder, EventPart, Gather as _, Lines, Plain, Sse},
        spool::Unkept,
    },
};
use std::time::Duration;

use bytes::Bytes;

/// One of the Server-Sent Events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The value of `event`; empty where the stream names none, which means `message`.
    pub name: Bytes,
    /// The values of `data`, with LF between them. May be empty; may hold bytes that are not UTF-8.
    pub data: Bytes,
    /// The last `id` of the stream up to here; `None` if there was none.
    pub id: Option<Bytes>,
    /// The `retry` that came since the event before.
    pub retry: Option<Duration>,
}

/// Server-Sent Events by the WHATWG rules (HTML, 9.2.6).
///
/// ```
/// let mut events = mcp_gangway_core::streams::SseEvents::new(1 << 20);
/// events.feed("id: 1\ndata: hel".into());
/// assert!(events.next().is_none());
/// events.feed("lo\n\n".into());
/// let event = events.next().unwrap().unwrap();
/// assert_eq!((&event.data[..], event.id.as_deref()), (&b"hello"[..], Some(&b"1"[..])));
/// ```
#[derive(Debug)]
pub struct SseEvents {
    parser: Sse,
    data: Plain,
}

impl SseEvents {
    /// A parser of events with at most `limit` bytes of data.
    pub fn new(limit: u64) -> Self {
        Self { parser: Sse::default(), data: Plain::new(limit) }
    }

    /// Takes the next bytes, once [`SseEvents::next`] has used up the last ones.
    pub fn feed(&mut self, chunk: Bytes) {
        self.parser.feed(chunk);
    }

    /// The next complete event.
    ///
    /// # Errors
    /// Its data is over the limit ([`Error::is_too_large`]). The event is passed over, and the next one is read as usual.
    #[expect(clippy::should_implement_trait, reason = "None is no end: more chunks may come")]
    pub fn next(&mut self) -> Option<Result<Event, Error>> {
        loop {
            let refusal = match self.parser.next()? {
                EventPart::Data(piece) => match self.data.push(piece.to_bytes()) {
                    Ok(()) => continue,
                    Err(refusal) => {
                        self.parser.skip_event();
                        refusal
                    }
                },
                EventPart::End { name } => match self.data.take() {
                    Ok(data) => {
                        let id = self.parser.last_event_id().cloned();
                        return Some(Ok(Event { name, data, id, retry: self.parser.take_retry() }));
                    }
                    Err(refusal) => refusal,
                },
            };
            return Some(Err(too_large("an event", refusal)));
        }
    }

    /// The stream is over, and `next` has used up its last chunk: it then gives the event that it ended in. The rules drop that one, as it may be cut short, and
    /// whoever keeps to them does not call this.
    pub fn finish(&mut self) {
        self.parser.finish();
    }
}

/// Lines, as of NDJSON: each ends at LF or CRLF, and those with nothing but white space are left out.
#[derive(Debug)]
pub struct TextLines(Lines<Plain>);

impl TextLines {
    /// A parser of lines of at most `limit` bytes.
    pub fn new(limit: u64) -> Self {
        Self(Lines::new(Plain::new(limit)))
    }

    /// Takes the next bytes, once [`TextLines::next`] has used up the last ones.
    pub fn feed(&mut self, chunk: Bytes) {
        self.0.feed(chunk);
    }

    /// The next complete line, without its end.
    ///
    /// # Errors
    /// It is over the limit ([`Error::is_too_large`]). The line is passed over, and the next one is read as usual.
    #[expect(clippy::should_implement_trait, reason = "None is no end: more chunks may come")]
    pub fn next(&mut self) -> Option<Result<Bytes, Error>> {
        loop {
            let line = self.0.next()?;
            if let Some(line) = judged(line) {
                return Some(line);
            }
        }
    }

    /// The last line, if the stream ended without a LF after it.
    ///
    /// # Errors
    /// As for [`TextLines::next`].
    pub fn finish(&mut self) -> Option<Result<Bytes, Error>> {
        self.0.finish().and_then(judged)
    }
}

/// JSON-RPC messages, whatever content type they come in: Server-Sent Events, NDJSON, or JSON with one message, several,
/// or a batch. Their bytes are as the server sent them, except that U+FFFD stands for what is not UTF-8.
#[derive(Debug)]
pub struct Messages {
    decoder: Decoder,
    found: bool,
}

impl Messages {
    /// A parser for a body with this `Content-Type`, of messages of at most `limit` bytes.
    pub fn new(content_type: Option<&str>, limit: u64) -> Self {
        Self { decoder: Decoder::in_memory(content_type, limit), found: false }
    }

    /// Takes the next bytes, once [`Messages::next`] has used up the last ones.
    ///
    /// # Errors
    /// A body that must be read as a whole is over the limit.
    pub fn feed(&mut self, chunk: Bytes) -> Result<(), Error> {
        self.decoder.feed(chunk)
    }

    /// The next complete message. What is no JSON-RPC message is passed over.
    ///
    /// # Errors
    /// The message is over the limit ([`Error::is_too_large`]); those behind it are read as usual.
    #[expect(clippy::should_implement_trait, reason = "None is no end: more chunks may come")]
    pub fn next(&mut self) -> Option<Result<Bytes, Error>> {
        if let Some(message) = self.decoder.next() {
            self.found = true;
            return Some(Ok(message.bytes().clone()));
        }
        self.decoder.take_lost().into_iter().next().map(|lost| Err(lost.error))
    }

    /// The body is over, and `next` has used up its last chunk; it then gives what the end completes.
    pub fn finish(&mut self) {
        self.decoder.finish(true);
    }

    /// Why there was no message, once all is read: the body held something else.
    pub fn rejected(&mut self) -> Option<Error> {
        self.decoder.take_rejected().filter(|_| !self.found)
    }
}

fn judged(line: Result<Bytes, Unkept>) -> Option<Result<Bytes, Error>> {
    match line {
        Ok(line) if line.trim_ascii().is_empty() => None,
        Ok(line) => {
            let length = line.strip_suffix(b"\r").unwrap_or(&line).len();
            Some(Ok(line.slice(..length)))
        }
        Err(refusal) => Some(Err(too_large("a line", refusal))),
    }
}

fn too_large(what: &str, refusal: Unkept) -> Error {
    Error::new(ErrorKind::TooLarge, format!("{what} of the stream is {refusal}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_have_the_fields_of_their_stream() {
        let mut parser = SseEvents::new(10);
        parser.feed("retry: 5\n\ndata\n\nid: 1\nevent: x\ndata: a\ndata: b\n\ndata: 12345678901\n\ndata: c".into());
        let mut events = Vec::new();
        while let Some(event) = parser.next() {
            events.push(event.map_err(|error| error.is_too_large()));
        }
        let event = |name: &'static str, data: &'static str, id: Option<&'static str>, retry: Option<u64>| Event {
            name: name.into(),
            data: data.into(),
            id: id.map(Bytes::from),
            retry: retry.map(Duration::from_millis),
        };
        let expected = [Ok(event("", "", None, Some(5))), Ok(event("x", "a\nb", Some("1"), None)), Err(true)];
        assert_eq!(events, expected);
        parser.finish();
        assert_eq!(parser.next().unwrap().unwrap(), event("", "c", Some("1"), None));
        assert!(parser.next().is_none());
    }

    #[test]
    fn lines_are_without_their_ends() {
        let mut lines = TextLines::new(3);
        lines.feed("1\r\n\n \t\r\n22\n4444\n333\nlas".into());
        let mut seen = Vec::new();
        while let Some(line) = lines.next() {
            seen.push(line.map_err(|error| error.is_too_large()));
        }
        assert_eq!(seen, [Ok("1".into()), Ok("22".into()), Err(true), Ok("333".into())]);
        assert_eq!(lines.finish().unwrap().unwrap(), "las");
        assert!(lines.finish().is_none());
    }

    #[test]
    fn messages_come_out_of_every_content_type() {
        let one = r#"{"id":1,"result":{}}"#;
        for (content_type, body) in [
            ("application/json", one.to_owned()),
            ("application/x-ndjson", format!("oops\n{one}")),
            ("text/event-stream", format!("data: oops\n\ndata: {one}\n\n")),
        ] {
            let mut messages = Messages::new(Some(content_type), 50);
            messages.feed(body.into()).unwrap();
            let mut seen: Vec<_> = std::iter::from_fn(|| messages.next()).map(Result::unwrap).collect();
            messages.finish();
            seen.extend(std::iter::from_fn(|| messages.next()).map(Result::unwrap));
            assert_eq!(seen, [one], "{content_type}");
            assert!(messages.rejected().is_none());
        }
        let mut messages = Messages::new(None, 10);
        messages.feed("<html>".into()).unwrap();
        messages.finish();
        assert!(messages.next().is_none() && messages.rejected().is_some());
        let mut messages = Messages::new(Some("text/event-stream"), 10);
        messages.feed(format!("data: {one}\n\n").into()).unwrap();
        assert!(messages.next().unwrap().unwrap_err().is_too_large());
    }
}
