//! Stream parsers for other programs: they read events, lines and JSON-RPC messages from the chunks of an HTTP body.
//!
//! Each parser takes chunks as they arrive, cut anywhere, and returns complete items. It reads each byte once, and
//! keeps only the unfinished event, line or message, up to a limit in bytes.

use crate::{
    error::{Error, ErrorKind},
    wire::{
        body::{Decoder, EventPart, Lines, PieceJoiner as _, Plain, Sse},
        spool::SpoolError,
    },
};
use std::time::Duration;

use bytes::Bytes;

/// A Server-Sent Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The value of `event`; empty if the stream gives none, which means `message`.
    pub name: Bytes,
    /// The values of `data`, with LF between them. May be empty, and may hold bytes that are not UTF-8.
    pub data: Bytes,
    /// The last `id` of the stream up to here; `None` if there was none.
    pub id: Option<Bytes>,
    /// The `retry` that arrived since the previous event.
    pub retry: Option<Duration>,
}

/// A parser of Server-Sent Events by the WHATWG rules (HTML, 9.2.6).
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
    /// Creates a parser of events with at most `limit` bytes of data.
    pub fn new(limit: u64) -> Self {
        Self { parser: Sse::default(), data: Plain::new(limit) }
    }

    /// Takes the next chunk, once [`SseEvents::next`] returns `None`.
    pub fn feed(&mut self, chunk: Bytes) {
        self.parser.feed(chunk);
    }

    /// Returns the next complete event; `None` if it needs another chunk.
    ///
    /// # Errors
    /// Fails if the event's data is over the limit ([`Error::is_too_large`]). Skips that event, and reads the next one
    /// as usual.
    #[expect(clippy::should_implement_trait, reason = "None is not the end: more chunks may come")]
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

    /// Ends the stream, once `next` returns `None`. `next` then returns the unfinished event, if there is one. The
    /// WHATWG rules drop that event, as it may be cut short; to follow them, do not call this.
    pub fn finish(&mut self) {
        self.parser.finish();
    }
}

/// A parser of lines, as in NDJSON. Each line ends at LF or CRLF. Lines of only white space are left out.
#[derive(Debug)]
pub struct TextLines(Lines<Plain>);

impl TextLines {
    /// Creates a parser of lines of at most `limit` bytes.
    pub fn new(limit: u64) -> Self {
        Self(Lines::new(Plain::new(limit)))
    }

    /// Takes the next chunk, once [`TextLines::next`] returns `None`.
    pub fn feed(&mut self, chunk: Bytes) {
        self.0.feed(chunk);
    }

    /// Returns the next complete line, without its line end; `None` if it needs another chunk.
    ///
    /// # Errors
    /// Fails if the line is over the limit ([`Error::is_too_large`]). Skips that line, and reads the next one as usual.
    #[expect(clippy::should_implement_trait, reason = "None is not the end: more chunks may come")]
    pub fn next(&mut self) -> Option<Result<Bytes, Error>> {
        loop {
            let line = self.0.next()?;
            if let Some(line) = judged(line) {
                return Some(line);
            }
        }
    }

    /// Returns the last line, if the stream ended without an LF after it.
    ///
    /// # Errors
    /// As for [`TextLines::next`].
    pub fn finish(&mut self) -> Option<Result<Bytes, Error>> {
        self.0.finish().and_then(judged)
    }
}

/// A parser of JSON-RPC messages in any content type: Server-Sent Events, NDJSON, or JSON with one message, several, or
/// a batch. Returns the bytes that the server sent, except that U+FFFD replaces invalid UTF-8.
#[derive(Debug)]
pub struct Messages {
    decoder: Decoder,
    found: bool,
}

impl Messages {
    /// Creates a parser for a body with this `Content-Type`, of messages of at most `limit` bytes.
    pub fn new(content_type: Option<&str>, limit: u64) -> Self {
        Self { decoder: Decoder::in_memory(content_type, limit), found: false }
    }

    /// Takes the next chunk, once [`Messages::next`] returns `None`.
    ///
    /// # Errors
    /// Fails if a body that must be read as a whole is over the limit.
    pub fn feed(&mut self, chunk: Bytes) -> Result<(), Error> {
        self.decoder.feed(chunk)
    }

    /// Returns the next complete message; `None` if it needs another chunk. Skips content that is not a JSON-RPC
    /// message.
    ///
    /// # Errors
    /// Fails if the message is over the limit ([`Error::is_too_large`]). Reads later messages as usual.
    #[expect(clippy::should_implement_trait, reason = "None is not the end: more chunks may come")]
    pub fn next(&mut self) -> Option<Result<Bytes, Error>> {
        if let Some(message) = self.decoder.next() {
            self.found = true;
            return Some(Ok(message.bytes().clone()));
        }
        self.decoder.take_lost_responses().into_iter().next().map(|lost| Err(lost.error))
    }

    /// Ends the body, once `next` returns `None`. `next` then returns the messages that the end completes.
    pub fn finish(&mut self) {
        self.decoder.finish(true);
    }

    /// Returns why a body that was read to its end held no message: it held something else.
    pub fn rejected(&mut self) -> Option<Error> {
        self.decoder.take_rejected().filter(|_| !self.found)
    }
}

fn judged(line: Result<Bytes, SpoolError>) -> Option<Result<Bytes, Error>> {
    match line {
        Ok(line) if line.trim_ascii().is_empty() => None,
        Ok(line) => {
            let length = line.strip_suffix(b"\r").unwrap_or(&line).len();
            Some(Ok(line.slice(..length)))
        }
        Err(refusal) => Some(Err(too_large("a line", refusal))),
    }
}

fn too_large(what: &str, refusal: SpoolError) -> Error {
    Error::new(ErrorKind::TooLarge, format!("{what} of the stream is {refusal}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sse_events_have_name_data_id_and_retry() {
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
    fn text_lines_have_no_line_endings() {
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
    fn messages_are_parsed_from_every_content_type() {
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
