//! Checks messages against what `serde_json` finds in them.

use bytes::Bytes;
use serde_json::value::RawValue;

use super::{
    Input,
    members::{Members, place},
};
use crate::{
    json::scanner::MAX_KEPT_BYTES,
    wire::reply::error_reply,
    wire::{
        id::Id,
        line::{Line, blank_line_breaks},
        message::{Invalid, Kind, MAX_BATCH_LENGTH, Message, Parsed},
        revision::{self, Era},
        spool::{Spooler, Storage},
    },
};

/// Checks that any bytes are the messages that `serde_json` finds, in memory and in a file.
pub fn message(input: &[u8]) {
    let input = Input::read(input);
    let bytes = Bytes::copy_from_slice(&input.text);
    let parsed = Message::parse(&bytes);
    match (json(&bytes), &parsed) {
        (None, Err(invalid)) => assert_eq!(invalid.error().code(), -32700),
        (Some(text), Ok(Parsed::Batch(batch))) => {
            let expected: Vec<&RawValue> = serde_json::from_str(text).expect("a batch is an array");
            assert!((1..=MAX_BATCH_LENGTH).contains(&expected.len()));
            let elements: Vec<_> = batch.clone().collect();
            assert_eq!(elements.len(), expected.len());
            for (element, expected) in elements.iter().zip(expected) {
                check(expected.get(), element.as_ref());
            }
        }
        (Some(text), Ok(Parsed::One(one))) => check(text, Ok(one)),
        (Some(text), Err(invalid)) => check(text, Err(invalid)),
        (None, Ok(_)) => panic!("this is not JSON: {}", input.shown()),
    }
    if let Ok(Parsed::One(one)) = parsed {
        let spooled = gathered(&input.chunks());
        if let Some((_, version)) = expected(one.text()).map(|one| (one.kind, one.era)) {
            assert_eq!((spooled.kind(), spooled.era()), (one.kind(), version));
        }
        let id = Id::own("other");
        assert_eq!(line(spooled.with_id(&id).with_id(&id)), line(one.with_id(&id)), "{}", input.shown());
        assert_eq!(line(spooled.clone()), line(one.clone()), "{}", input.shown());
        assert_eq!(spooled.loaded().bytes(), one.bytes(), "{}", input.shown());
    }
}

/// Reads one message in these chunks, into a file if it is large.
fn gathered(chunks: &[&[u8]]) -> Message {
    let mut spooler = Spooler::new(u64::MAX, &Storage::used_up());
    for chunk in chunks {
        spooler.push(Bytes::copy_from_slice(chunk)).unwrap();
    }
    match Message::read(&spooler.take().unwrap()) {
        Ok(Parsed::One(message)) => message,
        other => panic!("one message in memory, and in a file {other:?}"),
    }
}

/// Returns the JSON in these bytes, without whitespace or a byte order mark around it.
fn json(bytes: &Bytes) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    serde_json::from_str::<&RawValue>(text).ok().map(RawValue::get)
}

/// The expected properties of a message.
struct Expected<'a> {
    kind: Kind,
    era: Era,
    id: Option<&'a str>,
    method: String,
}

/// Returns the message in this JSON, if it is one.
fn expected(json: &str) -> Option<Expected<'_>> {
    let members = Members::of(json)?;
    let (id, method) = (members.get("id"), members.get("method"));
    let is_id = |id: &str| id.len() <= MAX_KEPT_BYTES && matches!(id.as_bytes()[0], b'"' | b'-' | b'0'..=b'9' | b'n');
    let is_method = |method: &str| method.len() <= MAX_KEPT_BYTES && method.starts_with('"');
    if !id.is_none_or(is_id) || !method.is_none_or(is_method) {
        return None;
    }
    let kind = match (method, id) {
        (Some(_), Some(_)) => Kind::Request,
        (Some(_), None) => Kind::Notification,
        (None, _) => members.get("result").or(members.get("error")).map(|_| Kind::Response)?,
    };
    // A lone surrogate is not valid in a Rust string.
    let method = method.unwrap_or("\"\"");
    let method = serde_json::from_str(method).unwrap_or_else(|_| method[1..method.len() - 1].to_owned());
    let meta = members.get("params").and_then(Members::of).and_then(|params| params.get("_meta"));
    let names_version = meta.and_then(Members::of).is_some_and(|meta| meta.get(revision::PROTOCOL_VERSION).is_some());
    let is_modern =
        matches!(&*method, "server/discover" | "subscriptions/listen") || kind != Kind::Response && names_version;
    Some(Expected { kind, era: if is_modern { Era::Modern } else { Era::Legacy }, id, method })
}

/// Compares a parsed message with its text.
fn check(json: &str, found: Result<&Message, &Invalid>) {
    let shown = json.get(..2000).unwrap_or(json);
    match (expected(json), found) {
        (Some(expected), Ok(one)) => {
            assert_eq!((one.kind(), one.era()), (expected.kind, expected.era), "{shown:?}");
            assert_eq!(one.id().map(Id::as_str), expected.id, "{shown:?}");
            assert_eq!((one.method(), one.bytes()), (&*expected.method, &Bytes::copy_from_slice(json.as_bytes())));
            let line = line(one.clone());
            assert!(memchr::memchr2(b'\n', b'\r', &line).is_none(), "{shown:?}");
            assert_eq!(line, json.replace(['\r', '\n'], " "), "{shown:?}");
            check_id(json, one);
            check_lazy_members(json, one);
        }
        (None, Err(invalid)) => {
            assert_eq!(invalid.error().code(), -32600, "{shown:?}");
            let reply = error_reply(invalid.id.as_ref(), &invalid.error(), crate::Hint::as_str);
            assert!(Message::one(reply).is_some_and(|reply| reply.kind() == Kind::Response), "{shown:?}");
        }
        (expected, found) => panic!("{shown:?}: {:?}, but {found:?}", expected.map(|expected| expected.kind)),
    }
}

/// Checks that `with_id` replaces the id and changes nothing else.
fn check_id(json: &str, one: &Message) {
    let changed = one.with_id(&Id::own("a")).with_id(&Id::own("other"));
    let other = "\"other\"";
    let expected = match one.id() {
        Some(_) => {
            let value = Members::of(json).and_then(|members| members.get("id")).unwrap();
            let range = place(json, value);
            let (start, end) = (usize::try_from(range.start).unwrap(), usize::try_from(range.end).unwrap());
            [&json[..start], other, &json[end..]].concat()
        }
        None => [r#"{"id":"#, other, ",", &json[1..]].concat(),
    };
    assert_eq!(changed.text(), expected);
    assert_eq!(changed.id().map(Id::as_str), Some(other));
    if let Some(id) = one.id() {
        assert!(id.identical(id) && id.same(id));
    }
}

/// Checks the members that are read on demand.
fn check_lazy_members(json: &str, one: &Message) {
    let object = |json: Option<&str>| json.filter(|json| json.starts_with('{')).map(str::to_owned);
    let members = Members::of(json).unwrap();
    let params = object(members.get("params"));
    assert_eq!(one.params().map(|params| params.as_str().to_owned()), params);
    let meta = params.as_deref().and_then(Members::of).and_then(|params| object(params.get("_meta")));
    assert_eq!(one.meta().map(|meta| meta.as_str().to_owned()), meta);
    assert_eq!(one.result().map(|result| result.as_str().to_owned()), object(members.get("result")));
    let _ = (one.cancelled_id(), one.offer(), one.error(), one.uri());
}

/// Returns the line for stdout.
pub(super) fn line(message: Message) -> Bytes {
    let (text, line_breaks) = match message.into_line() {
        Line::Memory { bytes, line_breaks } => (bytes, line_breaks),
        Line::Spooled { spooled, line_breaks, .. } => (spooled.load().expect("a file is read back"), line_breaks),
    };
    let mut text = text.to_vec();
    if line_breaks {
        blank_line_breaks(&mut text);
    }
    text.into()
}
