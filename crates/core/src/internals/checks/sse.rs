//! Checks event streams against the standard's algorithm on the whole text.

use std::time::Duration;

use bytes::Bytes;

use super::{Input, text_of};
use crate::wire::{
    body::{EventPart, MAX_CARRIED_LINE_BYTES, Sse},
    spool::{Spooler, Storage},
};

/// Checks that any bytes are read as the standard's algorithm reads the whole.
pub fn sse(input: &[u8]) {
    let input = Input::read(input);
    let limit = input.limit();
    let expected = naive_events(&input.text, limit);
    for chunks in [vec![&*input.text]].into_iter().chain(input.cuts()) {
        let seen = events_in(&chunks, limit);
        assert!(seen == expected, "{}, limit {limit}: {seen:.99?}, not {expected:.99?}", input.shown());
    }
}

/// The contents of a stream.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Seen {
    /// Names and data.
    pub(crate) events: Vec<(Bytes, Bytes)>,
    /// The event at the end of the stream, without its blank line.
    pub(crate) unfinished: Option<(Bytes, Bytes)>,
    pub(crate) last_event_id: Option<Bytes>,
    pub(crate) retry: Option<Duration>,
    pub(crate) too_long: usize,
}

/// Reads a stream in these chunks.
pub(crate) fn events_in(chunks: &[&[u8]], limit: u64) -> Seen {
    let mut sse = Sse::default();
    let mut data = Spooler::new(limit, &Storage::used_up());
    let mut seen = Seen::default();
    for chunk in chunks {
        sse.feed(Bytes::copy_from_slice(chunk));
        let events = complete(&mut sse, &mut data, &mut seen.too_long);
        seen.events.extend(events);
    }
    seen.last_event_id = sse.last_event_id().cloned();
    sse.finish();
    seen.unfinished = complete(&mut sse, &mut data, &mut seen.too_long).pop();
    seen.retry = sse.retry();
    seen
}

/// Returns the events that are complete.
fn complete(sse: &mut Sse, data: &mut Spooler, too_long: &mut usize) -> Vec<(Bytes, Bytes)> {
    let mut events = Vec::new();
    while let Some(part) = sse.next() {
        match part {
            EventPart::Data(piece) => {
                if data.push(piece.to_bytes()).is_err() {
                    *too_long += 1;
                    sse.skip_event();
                }
            }
            EventPart::End { name } => events.push((name, text_of(&data.take().expect("it was kept")))),
        }
    }
    events
}

/// Runs the standard's algorithm, line by line, in the simplest way. In addition to the standard, data has a size
/// limit, and so have the other fields that matter.
pub(crate) fn naive_events(input: &[u8], limit: u64) -> Seen {
    let mut seen = Seen::default();
    let mut event = ReferenceEvent::default();
    let mut rest = input;
    let mut is_first = true;
    while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
        let line = &rest[..end];
        rest = if rest[end..].starts_with(b"\r\n") { &rest[end + 2..] } else { &rest[end + 1..] };
        if line.is_empty() {
            let event = std::mem::take(&mut event);
            seen.last_event_id = event.id.clone().or(seen.last_event_id);
            seen.events.extend(event.dispatched());
        } else {
            event.take(line, std::mem::take(&mut is_first), limit, &mut seen);
        }
        is_first = false;
    }
    if !rest.is_empty() {
        event.take(rest, is_first, limit, &mut seen);
    }
    seen.unfinished = event.dispatched();
    seen
}

#[derive(Default)]
struct ReferenceEvent {
    name: Bytes,
    data: Option<Vec<u8>>,
    id: Option<Bytes>,
    is_too_long: bool,
}

impl ReferenceEvent {
    fn take(&mut self, line: &[u8], is_first: bool, limit: u64, seen: &mut Seen) {
        let is_long = line.len() > MAX_CARRIED_LINE_BYTES;
        let line = if is_first { line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line) } else { line };
        let colon = line.iter().position(|byte| *byte == b':');
        let (field, value) = colon.map_or((line, &b""[..]), |colon| (&line[..colon], &line[colon + 1..]));
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            _ if self.is_too_long => {}
            b"data" => {
                let data = match self.data.take() {
                    Some(data) => [&data, &b"\n"[..], value].concat(),
                    None => value.to_vec(),
                };
                self.is_too_long = data.len() as u64 > limit;
                seen.too_long += usize::from(self.is_too_long);
                self.data = Some(data).filter(|_| !self.is_too_long);
            }
            _ if is_long => {}
            b"event" => self.name = Bytes::copy_from_slice(value),
            b"id" if !value.contains(&0) => self.id = Some(Bytes::copy_from_slice(value)),
            b"retry" if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
                let milliseconds = String::from_utf8_lossy(value).parse().ok();
                seen.retry = milliseconds.map(Duration::from_millis).or(seen.retry);
            }
            _ => {}
        }
    }

    fn dispatched(self) -> Option<(Bytes, Bytes)> {
        Some((self.name, self.data?.into()))
    }
}
