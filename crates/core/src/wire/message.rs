//! A JSON-RPC message as the bytes that were sent, with the facts that a bridge needs: kind, id, method.
//!
//! Rule: a forwarded message is never serialized again (R3). A line on stdio needs one change, no raw line breaks (R2):
//! spaces replace them, as valid JSON has them only between tokens. If a key occurs twice, the last one counts, as in
//! every common JSON reader.

use crate::{
    error::{Error, ErrorKind, Hint},
    json::{
        scanner::{JsonFault, Outline, ResponseOutline, Scanner, Shape},
        splice::{self, Object},
    },
    wire::{
        id::Id,
        line::Line,
        reply::error_reply,
        revision::Era,
        spool::{Payload, ScannedPayload, Spooled, Spooler, Storage},
    },
};
use std::{io, ops::Range, sync::Arc};

use bytes::{Buf as _, Bytes, BytesMut};
use serde::Deserialize;
use serde_json::value::RawValue;

/// The most messages in one payload. Each costs memory in addition to its bytes, which the byte limits do not count.
pub(crate) const MAX_BATCH_LENGTH: usize = 10_000;

/// The size of the pieces in which a message is written to its file, in bytes.
const LARGE_PIECE: usize = 64 << 10;

/// One JSON-RPC message.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    /// The text, if it is in memory.
    bytes: Bytes,
    /// The text, if it is in a file. Then only the other fields can be read.
    spooled: Option<Box<Spooled>>,
    kind: Kind,
    era: Era,
    id: Option<Id>,
    /// The start of the id in the text.
    id_at: u64,
    method: Method,
    /// The outline of a response that is not an ordinary result, with its positions in the received text.
    answer: Option<Box<ResponseOutline>>,
    /// True if there are raw line breaks between tokens.
    line_breaks: bool,
}

/// The kind of a message, by its members (JSON-RPC 2.0, sections 4 and 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Has a method and an id.
    Request,
    /// Has a method and no id.
    Notification,
    /// Has no method, but a result or an error.
    Response,
}

/// The content of one line or payload.
#[derive(Debug)]
pub(crate) enum Parsed {
    One(Message),
    /// A JSON-RPC batch (R16).
    Batch(Batch),
}

/// The messages of a batch. Each is parsed when it is needed, so all of them together cost no more than their text.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    /// The text after the bracket or the last element.
    rest: Bytes,
    /// The length of the whole batch, in bytes.
    length: usize,
}

/// The version and capabilities in the result of `initialize`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServerOffer {
    pub(crate) version: String,
    /// Each capability and its features, like `resources` and `resources.subscribe`.
    pub(crate) capabilities: Vec<String>,
}

/// Bytes that are not a message: the reason, and the id for an error reply.
#[derive(Debug)]
pub(crate) struct Invalid {
    reason: InvalidReason,
    pub(crate) id: Option<Id>,
}

/// Why bytes are not a message.
#[derive(Debug)]
enum InvalidReason {
    NotUtf8,
    NotJson(JsonFault),
    NotMessage(&'static str),
    BatchTooLong,
    /// They were not kept.
    NotKept(Error),
}

impl Message {
    /// Reads a line or payload.
    pub(crate) fn parse(bytes: &Bytes) -> Result<Parsed, Invalid> {
        let mut scanner = Scanner::new();
        // `finish` reports the fault too.
        let _ = scanner.feed(bytes);
        Self::read(&ScannedPayload { payload: Payload::Memory(bytes.clone()), outline: scanner.finish() })
    }

    /// Reads a line or payload that was scanned as it arrived.
    pub(crate) fn read(gathered: &ScannedPayload) -> Result<Parsed, Invalid> {
        let ScannedPayload { payload, outline } = gathered;
        let outline = match outline {
            Ok(outline) => outline,
            Err(JsonFault::NotUtf8 { .. }) => {
                let id = match payload {
                    Payload::Memory(bytes) => id_of_broken_text(bytes),
                    Payload::File(_) => None,
                };
                return Err(Invalid { reason: InvalidReason::NotUtf8, id });
            }
            Err(fault) => return Err(Invalid { reason: InvalidReason::NotJson(*fault), id: None }),
        };
        match outline.shape {
            Shape::Object => Self::of(payload, outline).map(Parsed::One),
            Shape::Array => match payload.part(outline.value.clone()) {
                Payload::Memory(bytes) => Batch::read(bytes).map(Parsed::Batch),
                Payload::File(_) => Err(Invalid::message("the batch is too large", None)),
            },
            Shape::Other => Err(Invalid::message("it is not a JSON object", None)),
        }
    }

    /// Reads the object in this payload as a message.
    fn of(payload: &Payload, outline: &Outline) -> Result<Self, Invalid> {
        let start = outline.value.start;
        let (id, id_at) = match &outline.id {
            None => (None, 0),
            Some(kept) => {
                let Some(id) = payload.text_of(kept) else {
                    return Err(Invalid::message("its id is too long", None));
                };
                (Some(Id(id)), kept.range.start - start)
            }
        };
        if id.as_ref().is_some_and(|id| !id.is_valid()) {
            return Err(Invalid::message("its id is neither a string nor a number", None));
        }
        let method = match &outline.method {
            None => Method(Bytes::new()),
            Some(kept) if !kept.is_string => return Err(Invalid::message("its method is not a string", id)),
            Some(kept) => match payload.text_of(kept).and_then(Method::read) {
                Some(method) => method,
                None => return Err(Invalid::message("its method is too long", id)),
            },
        };
        let kind = match (outline.method.is_some(), id.is_some(), outline.answer.is_any()) {
            (true, true, _) => Kind::Request,
            (true, false, _) => Kind::Notification,
            (false, _, true) => Kind::Response,
            (false, _, false) => return Err(Invalid::message("it has no method, result or error", id)),
        };
        let era = match method.as_str() {
            // Only the modern protocol has these methods.
            "server/discover" | "subscriptions/listen" => Era::Modern,
            _ if kind != Kind::Response && outline.names_version => Era::Modern,
            _ => Era::Legacy,
        };
        let (bytes, spooled) = match payload.part(outline.value.clone()) {
            Payload::Memory(bytes) => (bytes, None),
            Payload::File(spooled) => (Bytes::new(), Some(Box::new(spooled))),
        };
        let answer =
            (kind == Kind::Response && !outline.answer.is_plain_result()).then(|| outline.answer.after(start).into());
        Ok(Self { bytes, spooled, kind, era, id, id_at, method, answer, line_breaks: outline.line_breaks })
    }

    /// Reads bytes that are exactly one message.
    pub(crate) fn one(bytes: impl Into<Bytes>) -> Option<Self> {
        match Self::parse(&bytes.into()) {
            Ok(Parsed::One(message)) => Some(message),
            _ => None,
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the era of the message. A modern request names its version in its `_meta` (R81); other messages count as
    /// legacy.
    pub(crate) fn era(&self) -> Era {
        self.era
    }

    pub(crate) fn id(&self) -> Option<&Id> {
        self.id.as_ref()
    }

    /// Returns the method; empty for a response.
    pub(crate) fn method(&self) -> &str {
        self.method.as_str()
    }

    /// Returns the message as it was sent.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Returns the message as text.
    pub(crate) fn text(&self) -> &str {
        // It was valid UTF-8 when it was read.
        std::str::from_utf8(&self.bytes).unwrap_or("{}")
    }

    /// Returns the parameters, if they are an object.
    pub(crate) fn params(&self) -> Option<Object<'_>> {
        Object::of(self.text())?.object("params")
    }

    /// Returns the `_meta` of the parameters.
    pub(crate) fn meta(&self) -> Option<Object<'_>> {
        self.params()?.object("_meta")
    }

    /// Returns the result, if it is an object.
    pub(crate) fn result(&self) -> Option<Object<'_>> {
        Object::of(self.text())?.object("result")
    }

    /// True if its text is too large for memory.
    pub(crate) fn is_spooled(&self) -> bool {
        self.spooled.is_some()
    }

    /// Returns its text, if it is too large for memory.
    pub(crate) fn spooled(&self) -> Option<&Spooled> {
        self.spooled.as_deref()
    }

    /// Returns the start of its id.
    pub(crate) fn id_at(&self) -> u64 {
        self.id_at
    }

    /// True if there may be raw line breaks between its tokens.
    pub(crate) fn has_line_breaks(&self) -> bool {
        self.line_breaks
    }

    /// Loads the text into memory at any size. Returns the message unchanged if its file cannot be read.
    pub(crate) fn loaded(self) -> Self {
        let Some(spooled) = &self.spooled else { return self };
        match spooled.load() {
            Ok(bytes) => Self { bytes, spooled: None, ..self },
            Err(error) => {
                tracing::warn!(%error, "a message cannot be read back from its file");
                self
            }
        }
    }

    /// Returns the same message with its text in a file. That text may be longer than the one in memory, and have the
    /// id in another place.
    pub(crate) fn in_file(&self, spooled: Spooled, id_at: u64, has_line_breaks: bool) -> Self {
        Self {
            bytes: Bytes::new(),
            spooled: Some(Box::new(spooled)),
            id_at,
            line_breaks: self.line_breaks || has_line_breaks,
            ..self.clone()
        }
    }

    /// Moves the text to a file, if it is large.
    pub(crate) fn stored(self, storage: &Arc<Storage>) -> Self {
        let mut spooler = Spooler::new(u64::MAX, storage);
        let pushed = self.bytes.chunks(LARGE_PIECE).try_for_each(|piece| spooler.push(self.bytes.slice_ref(piece)));
        match pushed.and_then(|()| spooler.take()).map(|gathered| Self::read(&gathered)) {
            Ok(Ok(Parsed::One(message))) => message,
            // On failure keep the message, as it is in memory.
            _ => self,
        }
    }

    /// Returns the message as one line for stdout, without the line end (R2).
    pub(crate) fn into_line(self) -> Line {
        if let Some(spooled) = self.spooled {
            let lost = || {
                let error = Error::new(ErrorKind::Storage, "the server's answer cannot be read back from its file");
                error_reply(self.id.as_ref(), &error.with_may_have_run(true), Hint::as_str)
            };
            let failure = (self.kind == Kind::Response).then(lost);
            return Line::Spooled { spooled: *spooled, line_breaks: self.line_breaks, failure };
        }
        Line::Memory { bytes: self.bytes, line_breaks: self.line_breaks }
    }

    /// Returns the outline of a response that is not an ordinary result, with its positions in the received text.
    pub(crate) fn outline(&self) -> Option<&ResponseOutline> {
        self.answer.as_deref()
    }

    /// Returns the bytes of the text from `at` on, `most` at most.
    ///
    /// # Errors
    /// Fails if the text is in a file that cannot be read.
    pub(crate) fn bytes_at(&self, at: u64, most: u64) -> io::Result<Bytes> {
        let range = at..at.saturating_add(most);
        match &self.spooled {
            Some(spooled) => spooled.slice(range).load(),
            None => Ok(self.bytes.slice(self.place(range.start)..self.place(range.end))),
        }
    }

    /// Returns the message with this id, replaced or added (R7). All other bytes stay.
    pub(crate) fn with_id(&self, id: &Id) -> Self {
        // A response has at least one member, so the comma is right.
        let (at, changed) = if let Some(own) = &self.id {
            (self.id_at, self.patched(self.id_at..self.id_at + own.0.len() as u64, id.0.clone()))
        } else {
            (1 + br#""id":"#.len() as u64, self.patched(1..1, [br#""id":"#, &id.0[..], b","].concat().into()))
        };
        Self { id: Some(id.clone()), id_at: at, ..changed }
    }

    /// Returns the message with the bytes in this range replaced. The range must not touch the id or the method. The
    /// positions in a response's outline become invalid.
    pub(crate) fn patched(&self, range: Range<u64>, with: Bytes) -> Self {
        let id_at = if range.start <= self.id_at {
            (self.id_at + with.len() as u64).saturating_sub(range.end - range.start)
        } else {
            self.id_at
        };
        let mut bytes = BytesMut::new();
        if self.spooled.is_none() {
            bytes.reserve(self.bytes.len() + with.len());
            bytes.extend_from_slice(self.bytes.get(..self.place(range.start)).unwrap_or_default());
            bytes.extend_from_slice(&with);
            bytes.extend_from_slice(self.bytes.get(self.place(range.end)..).unwrap_or_default());
        }
        Self {
            bytes: bytes.freeze(),
            spooled: self.spooled.as_ref().map(|spooled| Box::new(spooled.patched(range, with))),
            id_at,
            ..self.clone()
        }
    }

    /// Converts an offset in the text to an index into its bytes.
    fn place(&self, at: u64) -> usize {
        usize::try_from(at).unwrap_or(usize::MAX).min(self.bytes.len())
    }

    /// Returns the id that a `notifications/cancelled` names.
    pub(crate) fn cancelled_id(&self) -> Option<Id> {
        #[derive(Deserialize)]
        struct Cancelled<'a> {
            #[serde(borrow)]
            params: CancelledParams<'a>,
        }
        #[derive(Deserialize)]
        struct CancelledParams<'a> {
            #[serde(borrow, rename = "requestId")]
            request_id: &'a RawValue,
        }
        let message: Cancelled<'_> = serde_json::from_slice(&self.bytes).ok()?;
        Some(Id(self.bytes.slice_ref(message.params.request_id.get().as_bytes())))
    }

    /// Returns the version and capabilities in the result of `initialize`.
    pub(crate) fn offer(&self) -> Option<ServerOffer> {
        type Capabilities = serde_json::Map<String, serde_json::Value>;

        let result = self.result()?;
        let version = result.string("protocolVersion")?;
        // Capabilities that cannot be read are forwarded, but not known here.
        let granted = result.get("capabilities").and_then(|text| serde_json::from_str::<Capabilities>(text).ok());
        let mut capabilities = Vec::new();
        for (name, features) in granted.into_iter().flatten() {
            let features =
                features.as_object().into_iter().flatten().filter(|(_, value)| value.as_bool() != Some(false));
            capabilities.extend(features.map(|(feature, _)| format!("{name}.{feature}")));
            capabilities.push(name);
        }
        Some(ServerOffer { version, capabilities })
    }

    /// Returns code and text of an error response.
    pub(crate) fn error(&self) -> Option<(i64, String)> {
        #[derive(Deserialize)]
        struct ResponseOutline {
            error: ErrorObject,
        }
        #[derive(Deserialize)]
        struct ErrorObject {
            code: i64,
            #[serde(default)]
            message: String,
        }
        let ResponseOutline { error } = serde_json::from_slice(&self.bytes).ok()?;
        Some((error.code, error.message))
    }

    /// Returns the `uri` in the parameters.
    pub(crate) fn uri(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Request {
            params: Params,
        }
        #[derive(Deserialize)]
        struct Params {
            uri: String,
        }
        serde_json::from_slice(&self.bytes).ok().map(|request: Request| request.params.uri)
    }
}

impl Batch {
    /// Reads an array.
    fn read(mut array: Bytes) -> Result<Self, Invalid> {
        array.advance(1.min(array.len()));
        let batch = Self { length: array.len(), rest: array };
        match batch.places().take(MAX_BATCH_LENGTH + 1).count() {
            0 => Err(Invalid::message("the batch is empty", None)),
            1..=MAX_BATCH_LENGTH => Ok(batch),
            _ => Err(Invalid { reason: InvalidReason::BatchTooLong, id: None }),
        }
    }

    /// Returns the ends of its elements, each counted from the previous end.
    fn places(&self) -> impl Iterator<Item = usize> {
        let mut rest = &*self.rest;
        std::iter::from_fn(move || {
            let end = splice::next_element(rest)?.end;
            rest = rest.get(end..)?;
            Some(end)
        })
    }
}

impl Iterator for Batch {
    type Item = Result<Message, Invalid>;

    fn next(&mut self) -> Option<Self::Item> {
        let range = splice::next_element(&self.rest)?;
        let element = self.rest.slice(range.clone());
        self.rest.advance(range.end);
        // A message that stays in use must not keep the text of all others.
        let element = if element.len() > self.length / 2 { element } else { Bytes::copy_from_slice(&element) };
        // A batch holds no other batch, so an array in it is not parsed, however deep it is.
        let is_object = element.first() == Some(&b'{');
        Some(match is_object.then(|| Message::parse(&element)) {
            Some(Ok(Parsed::One(message))) => Ok(message),
            Some(Err(invalid)) => Err(invalid),
            _ => Err(Invalid::message("it is not a JSON object", None)),
        })
    }
}

/// Returns the notification that ends the handshake.
pub(crate) fn initialized() -> Message {
    Message {
        bytes: Bytes::from_static(br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#),
        spooled: None,
        id_at: 0,
        line_breaks: false,
        kind: Kind::Notification,
        era: Era::Legacy,
        id: None,
        method: Method(Bytes::from_static(b"notifications/initialized")),
        answer: None,
    }
}

/// A method's name, unescaped.
#[derive(Clone, Debug)]
struct Method(Bytes);

impl Method {
    /// Reads a name from its JSON.
    fn read(mut raw: Bytes) -> Option<Self> {
        raw.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        if raw.contains(&b'\\')
            // A name with a lone surrogate cannot be a Rust string. It is a method that the bridge does not know.
            && let Ok(unescaped) = serde_json::from_slice::<String>(&raw)
        {
            return Some(Self(unescaped.into()));
        }
        raw.advance(1);
        raw.truncate(raw.len() - 1);
        Some(Self(raw))
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl Invalid {
    /// For a message that could not be kept.
    pub(crate) fn not_kept(error: Error, id: Option<Id>) -> Self {
        Self { reason: InvalidReason::NotKept(error), id }
    }

    fn message(why: &'static str, id: Option<Id>) -> Self {
        Self { reason: InvalidReason::NotMessage(why), id }
    }

    /// Makes the error, which costs far more than reading a short line: a server can send a million of them.
    pub(crate) fn error(&self) -> Error {
        let not_json = |why: String| Error::new(ErrorKind::Parse, format!("this is no JSON: {why}"));
        let not_message =
            |why: &str| Error::new(ErrorKind::InvalidMessage, format!("this is no JSON-RPC message: {why}"));
        match &self.reason {
            InvalidReason::NotUtf8 => not_json("it is not UTF-8".into()),
            InvalidReason::NotJson(fault) => not_json(fault.to_string()),
            InvalidReason::NotMessage(why) => not_message(why),
            InvalidReason::BatchTooLong => not_message(&format!("the batch has more than {MAX_BATCH_LENGTH} messages")),
            InvalidReason::NotKept(error) => error.clone(),
        }
    }
}

/// Returns the id of a request with invalid UTF-8, so that its error reply names it.
fn id_of_broken_text(bytes: &[u8]) -> Option<Id> {
    let repaired = Bytes::from(String::from_utf8_lossy(bytes).into_owned());
    match Message::parse(&repaired) {
        Ok(Parsed::One(message)) if message.kind == Kind::Request => message.id,
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::line::blank_line_breaks;

    fn message(text: &str) -> Message {
        match Message::parse(&Bytes::from(text.to_owned())) {
            Ok(Parsed::One(message)) => message,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn line(message: Message) -> Bytes {
        match message.into_line() {
            Line::Memory { bytes, line_breaks } => {
                let mut line = BytesMut::from(bytes);
                assert_eq!(line_breaks, line.iter().any(|byte| matches!(byte, b'\r' | b'\n')));
                blank_line_breaks(&mut line);
                line.freeze()
            }
            Line::Spooled { .. } => panic!("not in memory"),
        }
    }

    fn invalid(bytes: &[u8]) -> (i32, Option<String>) {
        let invalid = Message::parse(&Bytes::copy_from_slice(bytes)).unwrap_err();
        (invalid.error().code(), invalid.id.map(|id| id.as_str().to_owned()))
    }

    #[test]
    fn r28_message_kind_is_determined_by_its_members() {
        for (text, kind) in [
            (r#"{"id":1,"method":"ping"}"#, Kind::Request),
            (r#"{"id":null,"method":"ping"}"#, Kind::Request),
            (r#"{"method":"ping"}"#, Kind::Notification),
            (r#"{"id":1,"result":{}}"#, Kind::Response),
            (r#"{"id":"0","error":{}}"#, Kind::Response),
            (r#"{"error":{}}"#, Kind::Response),
            (r#"{"\u0069d":1,"m\u0065thod":"p\u0069ng","\ud800":{"\udfff":0}}"#, Kind::Request),
        ] {
            assert_eq!(message(text).kind(), kind, "{text}");
        }
        assert_eq!(message(r#"{"id":1,"method":"p\u0069ng"}"#).method(), "ping");
    }

    #[test]
    fn r81_era_is_determined_by_each_message() {
        let meta = r#"{"_meta":{"progressToken":1,"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}"#;
        for (text, era) in [
            (format!(r#"{{"id":1,"method":"tools/call","params":{meta}}}"#), Era::Modern),
            (format!(r#"{{"params":{},"id":1,"method":"tools/call"}}"#, meta.replace('/', "\\/")), Era::Modern),
            (format!(r#"{{"id":1,"method":"x","params":{}}}"#, meta.replace('_', "\\u005f")), Era::Modern),
            (r#"{"id":1,"method":"server/discover"}"#.into(), Era::Modern),
            (r#"{"id":1,"method":"tools/call","params":{"_meta":{"progressToken":1}}}"#.into(), Era::Legacy),
            (format!(r#"{{"id":1,"method":"tools/call","params":{{"arguments":{meta}}}}}"#), Era::Legacy),
            (r#"{"id":1,"method":"x","params":["_meta",1e400,"\ud800"]}"#.into(), Era::Legacy),
            (format!(r#"{{"method":"notifications/x","params":{meta}}}"#), Era::Modern),
            (format!(r#"{{"id":1,"result":{meta},"params":{meta}}}"#), Era::Legacy),
        ] {
            assert_eq!(message(&text).era(), era, "{text}");
        }
    }

    #[test]
    fn r14_invalid_messages_get_parse_or_invalid_request_codes() {
        for (text, code, id) in [
            ("x", -32700, None),
            ("{", -32700, None),
            (r#"{"id":1,"method":"ping"} x"#, -32700, None),
            ("{\"id\":1,\"method\":\"a\0b\"}", -32700, None),
            ("\0", -32700, None),
            ("1", -32600, None),
            ("\"x\"", -32600, None),
            ("null", -32600, None),
            ("[]", -32600, None),
            ("[1", -32700, None),
            ("{}", -32600, None),
            (r#"{"id":5}"#, -32600, Some("5")),
            (r#"{"id":"x","method":7}"#, -32600, Some("\"x\"")),
            (r#"{"id":{},"method":"ping"}"#, -32600, None),
            (r#"{"id":true,"method":"ping"}"#, -32600, None),
        ] {
            assert_eq!(invalid(text.as_bytes()), (code, id.map(str::to_owned)), "{text}");
        }
        assert_eq!(invalid(b"{\"id\":7,\"method\":\"\xff\"}"), (-32700, Some("7".into())));
        assert_eq!(invalid(b"\xff"), (-32700, None));
    }

    #[test]
    fn r3_deeply_nested_messages_are_parsed() {
        let deep = |open: &str, close: &str| {
            format!(r#"{{"params":{}{},"id":1,"method":"x"}}"#, open.repeat(100_000), close.repeat(100_000))
        };
        assert_eq!(message(&deep("[", "]")).kind(), Kind::Request);
        assert_eq!(message(&deep(r#"{"a":["#, "]}")).id().unwrap().as_str(), "1");
        assert_eq!(invalid(deep("[", "").as_bytes()).0, -32700);
        assert_eq!(invalid("[".repeat(100_000).as_bytes()).0, -32700);
    }

    #[test]
    fn r2_r3_only_line_breaks_change() {
        for text in [
            r#"{"id":1,"result":{"big":12345678901234567890,"huge":1e400,"x":1,"x":2,"s":"\ud800","u":"\u2028"}}"#,
            "{\"id\":1,\"result\":\"\u{2028}\"}",
        ] {
            assert_eq!(line(message(text)), text);
        }
        assert_eq!(line(message(" {\r\n \"id\": 1,\n\t\"result\":\n{}\r}\n")), "{   \"id\": 1, \t\"result\": {} }");
        assert_eq!(line(message("\u{feff}{\"method\":\"x\"}")), r#"{"method":"x"}"#);
    }

    #[test]
    fn last_of_duplicate_keys_is_used() {
        let twice = message(r#"{"id":1,"id":2,"method":"a","method":"b"}"#);
        assert_eq!((twice.id().unwrap().as_str(), twice.method()), ("2", "b"));
    }

    #[test]
    fn r16_batch_is_split_into_its_elements() {
        let batch = Message::parse(&Bytes::from_static(br#" [{"id":1,"method":"a"} , 5,{"method":"b"}]"#)).unwrap();
        let Parsed::Batch(batch) = batch else { panic!("{batch:?}") };
        let elements: Vec<_> = batch.collect();
        let kinds: Vec<_> = elements.iter().map(|one| one.as_ref().ok().map(Message::kind)).collect();
        assert_eq!(kinds, [Some(Kind::Request), None, Some(Kind::Notification)]);
        assert_eq!(elements[0].as_ref().unwrap().bytes(), r#"{"id":1,"method":"a"}"#);
    }

    #[test]
    fn r16_batch_length_is_limited() {
        let batch = |length: usize| Bytes::from(format!("[{}1]", "1,".repeat(length - 1)));
        assert!(Message::parse(&batch(MAX_BATCH_LENGTH)).is_ok());
        assert_eq!(invalid(&batch(MAX_BATCH_LENGTH + 1)), (-32600, None));
        assert_eq!(invalid(&batch(MAX_BATCH_LENGTH * 3)), (-32600, None));
    }

    #[test]
    fn r4_ids_are_compared_by_value_and_type() {
        let id = |text: &str| Id(Bytes::from(text.to_owned()));
        for (one, two) in [("1", "1.0"), ("1", "1"), (r#""a""#, r#""\u0061""#), ("1e2", "100"), ("1e400", "1e400")] {
            assert!(id(one).same(&id(two)), "{one} {two}");
        }
        for (one, two) in [("1", "\"1\""), ("0", "\"\""), ("0", "null"), ("9007199254740993", "9007199254740992")] {
            assert!(!id(one).same(&id(two)), "{one} {two}");
        }
        assert!(id("9007199254740993").same_when_rounded(&id("9007199254740992")));
        assert!(!id("1").same_when_rounded(&id("2")));
    }

    #[test]
    fn r7_message_id_is_inserted_or_replaced() {
        let id = Id(Bytes::from_static(b"\"q\""));
        for (text, expected) in [
            (r#"{"jsonrpc":"2.0","error":{}}"#, r#"{"id":"q","jsonrpc":"2.0","error":{}}"#),
            (r#"{"error":{"id":3}, "id" : null }"#, r#"{"error":{"id":3}, "id" : "q" }"#),
        ] {
            let changed = message(text).with_id(&Id(Bytes::from_static(b"12345"))).with_id(&id);
            assert_eq!(changed.bytes(), expected);
            assert_eq!(message(expected).id().unwrap().as_str(), changed.id().unwrap().as_str());
        }
    }

    #[test]
    fn message_accessors_read_offer_error_uri_and_cancelled_id() {
        let cancelled = message(r#"{"method":"notifications/cancelled","params":{"requestId":"7"}}"#);
        assert_eq!(cancelled.cancelled_id().unwrap().as_str(), "\"7\"");
        assert!(message(r#"{"method":"notifications/cancelled"}"#).cancelled_id().is_none());
        let result = message(r#"{"id":0,"result":{"protocolVersion":"2025-06-18"}}"#);
        assert_eq!(result.offer().unwrap(), ServerOffer { version: "2025-06-18".into(), capabilities: vec![] });
        let result = message(
            r#"{"id":0,"result":{"protocolVersion":"x","capabilities":{"a":{"b":true,"c":false,"d":{}},"e":{}}}}"#,
        );
        assert_eq!(result.offer().unwrap().capabilities, ["a.b", "a.d", "a", "e"]);
        let twice = message(
            r#"{"id":0,"result":{"protocolVersion":"1","\ud800":"","capabilities":7,"protocolVersion":"2","capabilities":{"a":{}}}}"#,
        );
        assert_eq!(twice.offer().unwrap(), ServerOffer { version: "2".into(), capabilities: vec!["a".into()] });
        let error = message(r#"{"id":0,"error":{"code":-32001,"message":"Session not found"}}"#);
        assert_eq!(error.error().unwrap(), (-32001, "Session not found".into()));
        assert_eq!(message(r#"{"id":0,"method":"x","params":{"uri":"a:b"}}"#).uri().unwrap(), "a:b");
    }

    #[test]
    fn an_error_reply_has_only_the_fields_that_apply() {
        let error = Error::new(ErrorKind::Status, "refused").with_may_have_run(false);
        let id = Id(Bytes::from_static(b"1152921504606846976"));
        assert_eq!(
            error_reply(Some(&id), &error, Hint::as_str),
            r#"{"jsonrpc":"2.0","id":1152921504606846976,"error":{"code":-32603,"message":"refused","data":{"source":"mcp-gangway","kind":"http_status","mayHaveRun":false}}}"#
        );
    }
}
