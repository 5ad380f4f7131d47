//! Checks the bodies of replies against the readers of lines, events and messages in sequence.

use bytes::Bytes;

use super::{
    Input,
    lines::naive_lines,
    members::Members,
    message::line,
    sse::{Seen, naive_events},
};
use crate::wire::{
    body::Decoder,
    message::{Message, Parsed},
    spool::Storage,
};

/// Checks that any body of any type yields the same messages in chunks as in one piece.
pub fn decoder(input: &[u8]) {
    let input = Input::read(input);
    let content_type = match input.choice & 3 {
        0 => None,
        1 => Some("application/x-ndjson"),
        2 => Some("text/event-stream"),
        _ => Some("application/json"),
    };
    let is_clean = input.choice & 4 == 0;
    let limit = if input.choice & 8 == 0 { u64::MAX } else { u64::from(input.choice >> 4) * 8 };

    let expected = naive_messages(&input.text, content_type, limit, is_clean);
    let whole = Found::of(&[&input.text], content_type, limit, is_clean);
    assert!(expected.is_none_or(|expected| expected == whole.messages), "{}, limit {limit}", input.shown());
    for chunks in input.cuts() {
        let found = Found::of(&chunks, content_type, limit, is_clean);
        assert!(found == whole, "{}, limit {limit}: {found:?}, not {whole:?}", input.shown());
    }
}

/// The output for one body.
#[derive(Debug, Default, PartialEq)]
struct Found {
    messages: Vec<Bytes>,
    endpoint: Option<Bytes>,
    last_event_id: Option<Bytes>,
    rejected: Option<&'static str>,
    is_too_large: bool,
}

impl Found {
    fn of(chunks: &[&[u8]], content_type: Option<&str>, limit: u64, is_clean: bool) -> Self {
        // Everything is in memory here: a text in a file is neither repaired nor split.
        let mut decoder = Decoder::new(content_type, limit, &Storage::new(std::env::temp_dir()));
        let mut found = Self::default();
        for chunk in chunks {
            if decoder.feed(Bytes::copy_from_slice(chunk)).is_err() {
                found.is_too_large = true;
                return found;
            }
            found.take(&mut decoder);
        }
        decoder.finish(is_clean);
        found.take(&mut decoder);
        found.last_event_id = decoder.last_event_id().cloned();
        if limit < u64::MAX {
            // For a message over the size limit, the error depends on how much of it arrived.
            found.rejected = None;
        }
        found
    }

    fn take(&mut self, decoder: &mut Decoder) {
        while let Some(message) = decoder.next() {
            self.messages.push(line(message));
        }
        self.endpoint = decoder.take_endpoint().or(self.endpoint.take());
        self.rejected = decoder.take_rejected().map(|error| error.kind()).or(self.rejected);
    }
}

/// Reads the messages of a body of lines or events in the simplest way.
fn naive_messages(body: &[u8], content_type: Option<&str>, limit: u64, is_clean: bool) -> Option<Vec<Bytes>> {
    let payloads: Vec<Bytes> = match naive_type(body, content_type)? {
        "text/event-stream" => {
            let Seen { events, unfinished, .. } = naive_events(body, limit);
            let events = events.into_iter().chain(unfinished.filter(|_| is_clean));
            let counts = |name: &Bytes, data: &Bytes| {
                name.is_empty() || name == "message" || name != "endpoint" && is_answer(data, name == "error")
            };
            events.filter(|(name, data)| counts(name, data)).map(|(_, data)| data).collect()
        }
        "application/x-ndjson" => {
            let end =
                if is_clean { body.len() } else { body.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1) };
            naive_lines(&body[..end], limit).into_iter().flatten().collect()
        }
        _ => return None,
    };
    let messages = payloads.iter().flat_map(|payload| {
        match Message::parse(&Bytes::from(String::from_utf8_lossy(payload).into_owned())) {
            Ok(Parsed::One(message)) => vec![message],
            Ok(Parsed::Batch(batch)) => batch.flatten().collect(),
            Err(_) => Vec::new(),
        }
    });
    Some(messages.map(line).collect())
}

/// Returns the type of a body: from its first bytes, or from its label if these say nothing.
fn naive_type<'a>(body: &[u8], content_type: Option<&'a str>) -> Option<&'a str> {
    let body = &body[..body.len().min(1024)];
    let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii_start();
    let begins = |word: &str| text.starts_with(word.as_bytes());
    match content_type {
        Some("application/x-ndjson") if begins("{") || begins("[") => content_type,
        _ if begins("{") || begins("[") => None,
        _ if [":", "event:", "data:", "id:", "retry:"].into_iter().any(begins) => Some("text/event-stream"),
        _ => content_type,
    }
}

/// True if the data of an event with an unknown name is a JSON-RPC response.
fn is_answer(data: &[u8], is_error: bool) -> bool {
    let text = String::from_utf8_lossy(data);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let Some(members) = Members::of(text) else { return false };
    let is_code = |code: &str| {
        !code.starts_with('"') && code.parse::<f64>().is_ok_and(|code| code.fract() == 0.0 && code.abs() < 9.1e15)
    };
    let is_right = |error| {
        Members::of(error).is_some_and(|error| {
            error.get("code").is_some_and(is_code) && error.get("message").is_some_and(|text| text.starts_with('"'))
        })
    };
    members.get("method").is_none()
        && members
            .get("jsonrpc")
            .is_some_and(|version| serde_json::from_str::<String>(version).is_ok_and(|text| text == "2.0"))
        && members.get("result").is_some() != members.get("error").is_some()
        && members.get("error").is_none_or(is_right)
        && (is_error || members.get("id").is_some_and(|id| id != "null"))
}
