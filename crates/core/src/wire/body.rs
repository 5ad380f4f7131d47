//! Decodes an HTTP body into messages, with one decoder for each kind of content (R21, R22). The first bytes of a body
//! decide the kind if they fit only one; else its `Content-Type` does.
//!
//! Feed chunks as they arrive, and take messages as they are complete. Content that is not a message is rejected and
//! noted; the rest of the stream goes on.

pub(crate) mod lines;
mod pieces;
mod sse;

use crate::{
    error::{Error, ErrorKind, Hint},
    json::{scanner::JsonFault, splice},
    wire::{
        id::Id,
        message::{Batch, Invalid, MAX_BATCH_LENGTH, Message, Parsed},
        responses,
        spool::{RejectedPayload, ScannedPayload, SpoolError, Spooler, Storage},
    },
};
use std::{mem, sync::Arc, time::Duration};

use bytes::{Buf as _, Bytes, BytesMut};

#[cfg(any(test, feature = "internals"))]
pub(crate) use self::sse::MAX_CARRIED_LINE_BYTES;
pub(crate) use self::{
    lines::Lines,
    pieces::{PieceJoiner, Plain},
    sse::{EventPart, Sse},
};

/// How much of a payload that is not a message an error gets, in bytes. The error cuts it further.
const EXCERPT_BYTES: usize = 2048;

/// If this many bytes do not show the kind of a body, its label decides.
const MAX_PREFIX_BYTES: usize = 1024;

/// The decoder of one body.
#[derive(Debug)]
pub(crate) struct Decoder {
    format: Format,
    /// Messages that were decoded on another thread, the next one last.
    decoded: Vec<Message>,
    /// The rest of the last payload.
    rest: BodyRest,
    rejected: Option<Rejected>,
    lost: Vec<LostResponse>,
    /// The URL that an `endpoint` event named (R50).
    endpoint: Option<Bytes>,
}

/// The messages of one payload that were not returned yet. They are parsed one by one, so many cost no more than their
/// text.
#[derive(Debug, Default)]
enum BodyRest {
    #[default]
    Nothing,
    One(Message),
    /// With the beginning of the text, for errors.
    Batch(Batch, Bytes),
    /// Each is known to be a message.
    Documents(Documents),
}

/// A possible response that could not be kept.
#[derive(Debug)]
pub(crate) struct LostResponse {
    pub(crate) error: Error,
    /// The id of the response, if that was known in time.
    pub(crate) id: Option<Id>,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one for each reply, and it is not moved")]
enum Format {
    /// Too few bytes have arrived to decide. Holds the content that the label names, and the bytes so far.
    Unread(Content, BytesMut, Spooler),
    /// JSON, and content of unknown kind. It is read at the end, as one document or as several.
    Whole(Spooler),
    Lines(Lines<Spooler>),
    /// Events, and the data of the current one.
    Sse(Sse, Spooler),
}

impl Decoder {
    /// Creates a decoder for a `Content-Type`. No message may be larger than `limit` bytes.
    pub(crate) fn new(content_type: Option<&str>, limit: u64, storage: &Arc<Storage>) -> Self {
        Self::with(content_type, Spooler::new(limit, storage))
    }

    /// Creates a decoder for messages that stay in memory.
    pub(crate) fn in_memory(content_type: Option<&str>, limit: u64) -> Self {
        Self::with(content_type, Spooler::in_memory(limit))
    }

    fn with(content_type: Option<&str>, spooler: Spooler) -> Self {
        let format = Format::Unread(Content::of(content_type), BytesMut::new(), spooler);
        Self { format, decoded: Vec::new(), rest: BodyRest::Nothing, rejected: None, lost: Vec::new(), endpoint: None }
    }

    /// Takes the next chunk of the body, once `next` returns `None`.
    ///
    /// # Errors
    /// Fails if a body that must be read as a whole is over the limit. No message of it can come.
    pub(crate) fn feed(&mut self, mut chunk: Bytes) -> Result<(), Error> {
        if let Format::Unread(label, begun, _) = &mut self.format {
            if !begun.is_empty() {
                begun.extend_from_slice(&chunk);
                chunk = begun.split().freeze();
            }
            let Some(content) = label.judged(&chunk) else {
                begun.extend_from_slice(&chunk);
                return Ok(());
            };
            self.settle(content);
        }
        match &mut self.format {
            // It was settled above.
            Format::Unread(..) => {}
            Format::Whole(body) => body.push(chunk).map_err(|given_up| unkept(given_up.error))?,
            Format::Lines(lines) => lines.feed(chunk),
            Format::Sse(events, _) => events.feed(chunk),
        }
        Ok(())
    }

    /// Like [`Self::feed`], but on another thread if the disk is slow, so as not to delay the other tasks on this one.
    ///
    /// # Errors
    /// As for [`Self::feed`].
    pub(crate) async fn feed_async(&mut self, chunk: Bytes) -> Result<(), Error> {
        if !self.writes_slowly() {
            return self.feed(chunk);
        }
        self.elsewhere(|decoder| decoder.feed(chunk)).await
    }

    /// Like [`Self::finish`], but on another thread if the disk is slow.
    pub(crate) async fn end(&mut self, clean: bool) {
        if !self.writes_slowly() {
            return self.finish(clean);
        }
        let finish = move |decoder: &mut Self| {
            decoder.finish(clean);
            Ok(())
        };
        let done = self.elsewhere(finish).await;
        if let Err(error) = done {
            self.rejected = Some(Rejected::Error(error));
        }
    }

    fn writes_slowly(&self) -> bool {
        match &self.format {
            Format::Unread(_, _, spooler) | Format::Whole(spooler) | Format::Sse(_, spooler) => spooler.writes_slowly(),
            Format::Lines(lines) => lines.spooler().writes_slowly(),
        }
    }

    /// Runs `work` on another thread, and decodes the available messages there, as that writes large ones to files.
    async fn elsewhere(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<(), Error> + Send + 'static,
    ) -> Result<(), Error> {
        let mut decoder = mem::replace(self, Self::in_memory(None, 0));
        let worked = tokio::task::spawn_blocking(move || {
            let done = work(&mut decoder);
            let mut found: Vec<_> = std::iter::from_fn(|| decoder.next()).collect();
            found.reverse();
            decoder.decoded = found;
            (decoder, done)
        });
        let broke_off =
            |error| Error::new(ErrorKind::Internal, "a large message could not be stored").with_source(error);
        let (decoder, done) = worked.await.map_err(broke_off)?;
        *self = decoder;
        done
    }

    /// Returns the next complete message.
    pub(crate) fn next(&mut self) -> Option<Message> {
        if let Some(message) = self.decoded.pop() {
            return Some(message);
        }
        loop {
            if let Some(message) = self.next_of_rest() {
                return Some(message);
            }
            let payload = match &mut self.format {
                Format::Unread(..) | Format::Whole(_) => return None,
                Format::Lines(lines) => lines.next()?,
                Format::Sse(events, data) => match events.next()? {
                    EventPart::Data(piece) => match data.push(piece.to_bytes()) {
                        Ok(()) => continue,
                        Err(given_up) => {
                            events.skip_event();
                            Err(given_up)
                        }
                    },
                    EventPart::End { name } => {
                        let data = data.take();
                        if name == "endpoint" {
                            let text = data.ok().and_then(|data| data.in_memory().cloned());
                            self.endpoint = text.filter(|text| !text.is_empty());
                            continue;
                        }
                        // MCP uses no other type of event for messages.
                        if !name.is_empty() && name != "message" {
                            let is_error = name == "error";
                            if let Ok(data) = data {
                                self.open_other(&data, is_error);
                            }
                            continue;
                        }
                        data
                    }
                },
            };
            match payload {
                Ok(payload) => self.open(&payload),
                Err(given_up) => self.give_up(given_up),
            }
        }
    }

    /// Like [`Self::next`], but for a client: an invalid response is not returned, but [lost](Self::take_lost_responses).
    pub(crate) fn next_valid(&mut self) -> Option<Message> {
        loop {
            match responses::valid(self.next()?) {
                Ok(message) => return Some(message),
                Err(lost) => self.lost.push(lost),
            }
        }
    }

    /// Ends the body. `next` then returns the messages that the end completes. After a connection that broke (`clean`
    /// is false) an unfinished event or line is dropped, as the SSE rules say. A body that is one complete document
    /// counts.
    pub(crate) fn finish(&mut self, clean: bool) {
        if let Format::Unread(_, begun, _) = &mut self.format {
            // It is blank, or the beginning of a word, so it is not a message in any format.
            let begun = begun.split().freeze();
            self.settle(Content::Other);
            if let Format::Whole(body) = &mut self.format {
                let _ = body.push(begun);
            }
        }
        match &mut self.format {
            Format::Whole(body) => match body.take() {
                Ok(body) => self.open_whole(&body),
                Err(given_up) => self.give_up(given_up),
            },
            Format::Lines(lines) if clean => match lines.finish() {
                Some(Ok(line)) => self.open(&line),
                Some(Err(given_up)) => self.give_up(given_up),
                None => {}
            },
            Format::Sse(events, _) if clean => events.finish(),
            Format::Unread(..) | Format::Lines(_) | Format::Sse(..) => {}
        }
    }

    /// True if the body is read as a whole, and one document of it has arrived. A server that leaves such a reply open
    /// has sent all of it.
    pub(crate) fn is_whole(&self) -> bool {
        matches!(&self.format, Format::Whole(body) if body.is_document())
    }

    /// Returns why the last rejected payload is not a message, for the request that gets no answer because of it.
    pub(crate) fn take_rejected(&mut self) -> Option<Error> {
        self.rejected.take().map(|rejected| rejected.error())
    }

    /// Returns the responses that could not be kept since the last call. Their callers need not wait for the end of the
    /// stream, which may never come.
    pub(crate) fn take_lost_responses(&mut self) -> Vec<LostResponse> {
        mem::take(&mut self.lost)
    }

    /// Returns the URL of the last `endpoint` event, once. HTTP+SSE takes messages there (R50).
    pub(crate) fn take_endpoint(&mut self) -> Option<Bytes> {
        self.endpoint.take()
    }

    /// True if the body is an event stream.
    pub(crate) fn is_sse(&self) -> bool {
        matches!(self.format, Format::Sse(..))
    }

    /// Returns the id of the last event, after which the stream can be resumed (R32, R35).
    pub(crate) fn last_event_id(&self) -> Option<&Bytes> {
        match &self.format {
            Format::Sse(events, _) => events.last_event_id().filter(|id| !id.is_empty()),
            _ => None,
        }
    }

    /// Returns how long the server asks to wait before that (R33).
    pub(crate) fn retry(&self) -> Option<Duration> {
        match &self.format {
            Format::Sse(events, _) => events.retry(),
            _ => None,
        }
    }

    /// Returns the next message of the last payload.
    fn next_of_rest(&mut self) -> Option<Message> {
        loop {
            let (invalid, beginning) = match &mut self.rest {
                BodyRest::Nothing => return None,
                BodyRest::One(_) => {
                    let BodyRest::One(message) = mem::take(&mut self.rest) else { return None };
                    return Some(message);
                }
                BodyRest::Documents(documents) => {
                    let message = documents.next().and_then(Message::one);
                    if message.is_none() {
                        self.rest = BodyRest::Nothing;
                    }
                    return message;
                }
                BodyRest::Batch(batch, beginning) => match batch.next() {
                    Some(Ok(message)) => return Some(message),
                    Some(Err(invalid)) => (invalid, beginning.clone()),
                    None => {
                        self.rest = BodyRest::Nothing;
                        return None;
                    }
                },
            };
            self.reject(Rejected::Payload(beginning, invalid));
        }
    }

    /// Decides on the content of the body.
    fn settle(&mut self, content: Content) {
        // The placeholder holds no bytes.
        let unread = mem::replace(&mut self.format, Format::Whole(Spooler::in_memory(0)));
        self.format = match (unread, content) {
            (Format::Unread(_, _, spooler), Content::Events) => Format::Sse(Sse::default(), spooler),
            (Format::Unread(_, _, spooler), Content::Lines) => Format::Lines(Lines::new(spooler)),
            (Format::Unread(_, _, spooler), Content::Other) => Format::Whole(spooler),
            (settled, _) => settled,
        };
    }

    /// Reads the data of an event that is not MCP's. Some servers send an answer in an event with a name of their own.
    fn open_other(&mut self, data: &ScannedPayload, is_error: bool) {
        match repaired(data) {
            Ok(Parsed::One(message))
                if responses::is_valid(&message) && (is_error || message.id().is_some_and(|id| !id.is_null())) =>
            {
                self.rest = BodyRest::One(message);
            }
            _ if is_error => self.reject(Rejected::ErrorEvent(beginning_of(data))),
            _ => {}
        }
    }

    /// Opens one payload for its messages.
    fn open(&mut self, payload: &ScannedPayload) {
        if payload.is_blank() {
            return;
        }
        match repaired(payload) {
            Ok(Parsed::One(message)) => self.rest = BodyRest::One(message),
            Ok(Parsed::Batch(batch)) => self.rest = BodyRest::Batch(batch, beginning_of(payload)),
            Err(invalid) => self.reject(Rejected::Payload(beginning_of(payload), invalid)),
        }
    }

    /// Reads a whole body: one document, or at most [`MAX_BATCH_LENGTH`] in a row. Takes all of them or none (R21).
    fn open_whole(&mut self, body: &ScannedPayload) {
        self.open(body);
        let (BodyRest::Nothing, Some(text)) = (&self.rest, body.in_memory()) else { return };
        let text = match std::str::from_utf8(text) {
            Ok(_) => text.clone(),
            Err(_) => String::from_utf8_lossy(text).into_owned().into(),
        };
        let documents = Documents(text);
        let mut count = 0;
        let mut first = documents.clone().take(MAX_BATCH_LENGTH + 1).inspect(|_| count += 1);
        if first.all(|document| Message::one(document).is_some()) && (1..=MAX_BATCH_LENGTH).contains(&count) {
            self.rejected = None;
            self.rest = BodyRest::Documents(documents);
        }
    }

    fn give_up(&mut self, given_up: RejectedPayload) {
        let error = unkept(given_up.error);
        if given_up.has_method {
            return self.reject(Rejected::Error(error));
        }
        self.lost.push(LostResponse { error, id: given_up.id.and_then(Id::read) });
    }

    fn reject(&mut self, rejected: Rejected) {
        tracing::debug!(error = %rejected.error(), "the server sent something that is no message; dropped");
        self.rejected = Some(rejected);
    }
}

/// Content that is not a message: the error, or what it is made from if it is reported.
#[derive(Debug)]
enum Rejected {
    /// The beginning of a payload, and why it is not a message.
    Payload(Bytes, Invalid),
    /// The beginning of the data of an event named `error` that is not a response.
    ErrorEvent(Bytes),
    Error(Error),
}

impl Rejected {
    fn error(&self) -> Error {
        let (beginning, cause) = match self {
            Self::Payload(beginning, invalid) => (beginning, invalid.error()),
            Self::ErrorEvent(beginning) => {
                let what = "it is an event named error, but not a response";
                (beginning, Error::new(ErrorKind::InvalidMessage, what))
            }
            Self::Error(error) => return error.clone(),
        };
        Error::new(
            ErrorKind::InvalidAnswer,
            "the server's reply is not a JSON-RPC message; check that the URL is its MCP endpoint",
        )
        .with_detail(&String::from_utf8_lossy(beginning))
        .with_source(cause)
    }
}

/// The JSON documents in a text, one after another.
#[derive(Clone, Debug)]
struct Documents(Bytes);

impl Iterator for Documents {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let space = self.0.len() - self.0.trim_ascii_start().len();
        self.0.advance(space);
        let length = splice::value_end(&self.0).unwrap_or(self.0.len());
        (length > 0).then(|| self.0.split_to(length))
    }
}

/// Returns the part of a payload for an error.
/// Copies it, so that it does not keep the rest.
fn beginning_of(payload: &ScannedPayload) -> Bytes {
    let text = payload.in_memory().map(|text| text.get(..EXCERPT_BYTES).unwrap_or(text));
    text.map(Bytes::copy_from_slice).unwrap_or_default()
}

/// The kind of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Events,
    Lines,
    Other,
}

impl Content {
    fn of(content_type: Option<&str>) -> Self {
        let content_type = content_type.unwrap_or_default().as_bytes();
        let end = memchr::memchr(b';', content_type).unwrap_or(content_type.len());
        let essence = content_type.get(..end).unwrap_or_default().trim_ascii();
        let is = |name: &str| essence.eq_ignore_ascii_case(name.as_bytes());
        if is("text/event-stream") {
            Self::Events
        } else if is("application/x-ndjson") || is("application/ndjson") {
            Self::Lines
        } else {
            Self::Other
        }
    }

    /// Returns the kind of a body with this label and these first bytes; `None` if they are too few to decide.
    fn judged(self, bytes: &[u8]) -> Option<Self> {
        const FIELDS: [&[u8]; 4] = [b"event:", b"data:", b"id:", b"retry:"];
        const MARK: &[u8] = b"\xef\xbb\xbf";
        let is_enough = bytes.len() >= MAX_PREFIX_BYTES;
        let bytes = bytes.get(..MAX_PREFIX_BYTES).unwrap_or(bytes);
        if bytes.len() < MARK.len() && MARK.starts_with(bytes) {
            return None;
        }
        let text = bytes.strip_prefix(MARK).unwrap_or(bytes).trim_ascii_start();
        let Some(first) = text.first() else { return is_enough.then_some(self) };
        match first {
            // In NDJSON each line is a document.
            b'{' | b'[' if self == Self::Lines => Some(Self::Lines),
            b'{' | b'[' => Some(Self::Other),
            b':' => Some(Self::Events),
            _ if self == Self::Events => Some(Self::Events),
            _ if FIELDS.iter().any(|field| text.starts_with(field)) => Some(Self::Events),
            _ if !is_enough && FIELDS.iter().any(|field| field.starts_with(text)) => None,
            _ => Some(self),
        }
    }
}

/// True if a `Content-Type` is that of an event stream.
pub(crate) fn is_event_stream(content_type: Option<&str>) -> bool {
    Content::of(content_type) == Content::Events
}

/// True if a body that begins with these bytes is an event stream, regardless of its label; `None` if they are too few.
pub(crate) fn begins_event_stream(bytes: &[u8]) -> Option<bool> {
    Content::Other.judged(bytes).map(|content| content == Content::Events)
}

/// Parses a payload, with U+FFFD for invalid UTF-8, as every reader of JSON over HTTP does.
fn repaired(payload: &ScannedPayload) -> Result<Parsed, Invalid> {
    match (&payload.outline, payload.in_memory()) {
        (Err(JsonFault::NotUtf8 { .. }), Some(bytes)) => {
            tracing::warn!("the server sent bytes that are not UTF-8; U+FFFD replaces them");
            Message::parse(&String::from_utf8_lossy(bytes).into_owned().into())
        }
        _ => Message::read(payload),
    }
}

fn unkept(error: SpoolError) -> Error {
    let summary = format!("the server's message is {error}");
    let told = match error {
        SpoolError::TooLong { .. } => Error::new(ErrorKind::TooLarge, summary).with_hint(Hint::MessageSize),
        SpoolError::NoFile(_) | SpoolError::NoMoreFiles => Error::new(ErrorKind::Storage, summary),
    };
    told.with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::spool::tests::storage;

    fn decode(content_type: Option<&str>, chunks: &[impl AsRef<[u8]>], clean: bool) -> Vec<String> {
        let mut decoder = Decoder::new(content_type, 1000, &storage());
        let mut messages = Vec::new();
        for chunk in chunks {
            decoder.feed(Bytes::copy_from_slice(chunk.as_ref())).unwrap();
            messages.extend(std::iter::from_fn(|| decoder.next()));
        }
        decoder.finish(clean);
        messages.extend(std::iter::from_fn(|| decoder.next()));
        messages.into_iter().map(|message| String::from_utf8_lossy(message.bytes()).into_owned()).collect()
    }

    const ONE: &str = r#"{"id":1,"result":{}}"#;
    const TWO: &str = r#"{"method":"x"}"#;

    #[test]
    fn r21_body_is_decoded_by_its_content_type() {
        let sse = format!("data: {TWO}\n\nevent: ping\ndata: {TWO}\n\ndata: {ONE}\n\n");
        let lines = format!("{TWO}\n\n{ONE}");
        for (content_type, body, expected) in [
            (Some("application/json; charset=utf-8"), ONE, &[ONE][..]),
            (Some("Text/Event-Stream;charset=utf-8"), &sse, &[TWO, ONE]),
            (Some("application/x-ndjson"), &lines, &[TWO, ONE]),
            (Some("application/ndjson"), &lines, &[TWO, ONE]),
            (Some("application/json"), &lines, &[TWO, ONE]),
            (None, &lines, &[TWO, ONE]),
            (Some("text/plain"), ONE, &[ONE]),
            (Some("text/html"), "<html>", &[]),
            (Some("text/plain"), &format!("{ONE}\noops"), &[]),
            (None, "", &[]),
        ] {
            assert_eq!(decode(content_type, &[body], true), expected, "{content_type:?} {body}");
            let bytes: Vec<_> = body.split_inclusive(|_| true).collect();
            assert_eq!(decode(content_type, &bytes, true), expected, "{content_type:?} {body} byte by byte");
        }
    }

    /// The first bytes may come one by one, also those of a byte order mark.
    #[test]
    fn bodies_are_judged_alike_however_their_first_bytes_are_cut() {
        let labels = [None, Some("application/json"), Some("application/x-ndjson"), Some("text/event-stream")];
        for (content_type, mark, space) in labels
            .into_iter()
            .flat_map(|label| ["", "\u{feff}"].map(|mark| (label, mark)))
            .flat_map(|(label, mark)| ["", " ", "\r\n"].map(|space| (label, mark, space)))
        {
            for (body, expected) in [
                (TWO.to_owned(), &[TWO][..]),
                (format!("[{TWO}]"), &[TWO]),
                (format!("data: {TWO}\n\n"), &[TWO]),
                (format!(": comment\ndata: {TWO}\n\n"), &[TWO]),
            ] {
                // An event stream's field names stand at the beginning of a line.
                if space == " " && !body.starts_with(['{', '[', ':']) {
                    continue;
                }
                let body = format!("{mark}{space}{body}");
                for cut in 0..body.len().min(12) {
                    let (before, after) = body.as_bytes().split_at(cut);
                    let found = decode(content_type, &[before, after], true);
                    assert_eq!(found, expected, "{content_type:?} {body:?} cut at {cut}");
                }
            }
        }
    }

    #[test]
    fn r16_response_batch_is_split_into_single_messages() {
        let batch = format!("[{TWO},{ONE}]");
        assert_eq!(decode(Some("application/json"), &[&batch], true), [TWO, ONE]);
        assert_eq!(decode(Some("text/event-stream"), &["data: ", &batch, "\n\n"], true), [TWO, ONE]);
    }

    #[test]
    fn r34_priming_event_sets_the_last_event_id_without_a_message() {
        let mut decoder = Decoder::new(Some("text/event-stream"), 100, &storage());
        decoder.feed(Bytes::from_static(b"id: 7\ndata: \n\nevent: endpoint\ndata:\n\n")).unwrap();
        assert!(decoder.next().is_none() && decoder.take_rejected().is_none() && decoder.take_endpoint().is_none());
        assert_eq!(decoder.last_event_id().unwrap(), "7");
    }

    #[test]
    fn broken_connection_drops_an_unfinished_message() {
        let event = format!("data: {TWO}\n\ndata: {ONE}");
        assert_eq!(decode(Some("text/event-stream"), &[&event], true), [TWO, ONE]);
        assert_eq!(decode(Some("text/event-stream"), &[&event], false), [TWO]);
        assert_eq!(decode(Some("application/json"), &[ONE], false), [ONE]);
        assert_eq!(decode(Some("application/json"), &[&ONE[..9]], false), [""; 0]);
    }

    #[test]
    fn messages_over_the_size_limit_are_too_large_errors() {
        let mut decoder = Decoder::new(None, 10, &storage());
        assert!(decoder.feed(Bytes::from_static(&[b'x'; 11])).unwrap_err().is_too_large());
        let mut decoder = Decoder::new(Some("text/event-stream"), 20, &storage());
        decoder.feed(Bytes::from(format!("data: {}\n\ndata: {TWO}\n\n", "x".repeat(21)))).unwrap();
        assert_eq!(decoder.next().unwrap().bytes(), TWO);
        let [lost] = decoder.take_lost_responses().try_into().unwrap();
        assert!(lost.error.is_too_large() && lost.id.is_none());
        // The same for an event at the end of the stream.
        decoder.feed(Bytes::from(format!("data: {}", "x".repeat(21)))).unwrap();
        assert!(decoder.next().is_none());
        decoder.finish(true);
        assert!(decoder.next().is_none() && decoder.take_lost_responses().len() == 1);
    }

    #[test]
    fn invalid_utf8_in_events_is_replaced() {
        let mut decoder = Decoder::new(Some("text/event-stream"), 100, &storage());
        decoder.feed(Bytes::from_static(b"data: {\"method\":\"\xff\"}\n\n")).unwrap();
        assert_eq!(decoder.next().unwrap().method(), "\u{fffd}");
    }

    /// On a slow disk, only the first write to the file delays the thread that all calls share.
    #[tokio::test]
    async fn spool_writes_to_a_slow_disk_run_on_another_thread() {
        let text = format!(r#"{{"jsonrpc":"2.0","id":1,"result":"{}"}}"#, "x".repeat(3 << 20));
        for (content_type, body) in [
            ("application/json", text.clone()),
            ("application/x-ndjson", format!("{text}\n")),
            ("text/event-stream", format!("data: {text}\n\n")),
        ] {
            let storage = Storage::slow(Duration::from_millis(3));
            let mut decoder = Decoder::new(Some(content_type), u64::MAX, &storage);
            let mut found = Vec::new();
            for chunk in body.as_bytes().chunks(100_000) {
                decoder.feed_async(Bytes::copy_from_slice(chunk)).await.unwrap();
                found.extend(std::iter::from_fn(|| decoder.next()));
            }
            decoder.end(true).await;
            found.extend(std::iter::from_fn(|| decoder.next()));
            let [message] = &*found else { panic!("{content_type}: {found:?}") };
            assert_eq!(message.clone().loaded().text(), text, "{content_type}");
            let writers = storage.writers();
            let here = writers.iter().filter(|writer| **writer == std::thread::current().id()).count();
            assert!(here <= 2 && writers.len() > 20, "{content_type}: {here} of {}", writers.len());
        }
    }
}
