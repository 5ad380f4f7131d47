//! A push parser of Server-Sent Events by the WHATWG rules (HTML, 9.2.6 "Interpreting an event stream"; R46).
//!
//! Lines end at LF, CR or CRLF, and one search over each chunk finds them. A small winnow parser reads a complete line;
//! the lines that nearly all servers write do not need it. The data of an event is returned in parts as it arrives,
//! each a slice of its chunk. An event is complete at its last byte: one that ends with CR does not wait for an LF that
//! may follow. The beginning of a line that is cut by the end of a chunk is carried over, up to [`MAX_CARRIED_LINE_BYTES`];
//! nothing else is kept. So the caller has to limit the size of an event.
//!
//! The rules ask for decoded text, but this parser keeps bytes. It cuts data only at ASCII characters or at the end of
//! a chunk, and the caller decides about invalid UTF-8.

use std::{
    mem,
    ops::{Deref, Range},
    time::Duration,
};

use bytes::Bytes;
use winnow::{
    Parser as _,
    combinator::{opt, preceded},
    token::{rest, take_till},
};

use super::pieces::Pieces;

/// A part of an event stream.
#[derive(Debug)]
pub(crate) enum EventPart<'a> {
    /// More of an event's data.
    Data(Piece<'a>),
    /// The event is complete. Its data, which may be empty, came before.
    End {
        /// The value of `event`; empty means `message`.
        name: Bytes,
    },
}

/// Bytes of a chunk. They can be read without keeping them.
#[derive(Debug)]
pub(crate) struct Piece<'a> {
    source: &'a Bytes,
    range: Range<usize>,
}

impl Piece<'_> {
    /// Returns the bytes to keep, without a copy.
    pub(crate) fn to_bytes(&self) -> Bytes {
        self.source.slice(self.range.clone())
    }
}

impl Deref for Piece<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.source.get(self.range.clone()).unwrap_or_default()
    }
}

/// See the module. Call [`Sse::feed`], then [`Sse::next`] until it returns `None`.
#[derive(Debug, Default)]
pub(crate) struct Sse {
    chunk: Bytes,
    state: SseState,
}

#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent")]
struct SseState {
    /// The chunk is read up to here.
    at: usize,
    /// The beginning of an unfinished line.
    carried: Pieces,
    /// The carried part of the last line that was cut by the end of a chunk.
    line: Bytes,
    /// The kind of the rest of a line, once its beginning is no longer carried.
    rest: Option<EventRest>,
    /// The last line ended with CR: an LF that follows belongs to it.
    after_cr: bool,
    /// The stream's first line, which may begin with a byte order mark, is over.
    has_begun: bool,
    /// The event is given up: its lines are skipped up to its end.
    skipping: bool,
    name: Bytes,
    /// The event has data, perhaps empty.
    has_data: bool,
    /// A value that follows the LF that was just returned.
    next_value: Option<(Source, Range<usize>)>,
    id: Option<Bytes>,
    last_event_id: Option<Bytes>,
    retry: Option<Duration>,
}

/// The place of a value.
#[derive(Clone, Copy, Debug)]
enum Source {
    Chunk,
    /// The carried line.
    Line,
    /// The LF between two values.
    LineFeed,
}

/// A part, before its bytes are borrowed.
enum Found {
    Data(Source, Range<usize>),
    End(Bytes),
}

/// The kind of the rest of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EventRest {
    /// The rest is data.
    Data,
    /// The rest does not matter.
    Other,
}

impl Sse {
    /// Takes the next chunk of the stream, once `next` returns `None`.
    pub(crate) fn feed(&mut self, chunk: Bytes) {
        debug_assert!(self.state.at == self.chunk.len(), "feed before the last chunk was used up");
        self.chunk = chunk;
        self.state.at = 0;
    }

    /// Ends the stream. `next` then completes an unfinished event, which the rules would drop. Call this only if the
    /// body ended as its framing says: a server that forgets the last blank line still meant the event.
    pub(crate) fn finish(&mut self) {
        self.feed(Bytes::from_static(b"\n\n"));
    }

    /// Skips the rest of the current event, as its data so far is of no use.
    pub(crate) fn skip_event(&mut self) {
        let state = &mut self.state;
        state.skipping = true;
        state.next_value = None;
        state.has_data = false;
        if state.rest.is_some() {
            state.rest = Some(EventRest::Other);
        }
    }

    /// Returns the next available part.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<EventPart<'_>> {
        let state = &mut self.state;
        let next_value = state.next_value.take().map(|(source, range)| Found::Data(source, range));
        let Some(found) = next_value.or_else(|| state.read(&self.chunk)) else {
            self.chunk = Bytes::new();
            state.at = 0;
            return None;
        };
        Some(match found {
            Found::Data(Source::Chunk, range) => EventPart::Data(Piece { source: &self.chunk, range }),
            Found::Data(Source::Line, range) => EventPart::Data(Piece { source: &state.line, range }),
            Found::Data(Source::LineFeed, range) => EventPart::Data(Piece { source: &LINE_FEED, range }),
            Found::End(name) => EventPart::End { name },
        })
    }

    /// Returns the `Last-Event-ID` for a reconnection: the last `id` of a complete event, even of one without data
    /// (R34).
    pub(crate) fn last_event_id(&self) -> Option<&Bytes> {
        self.state.last_event_id.as_ref()
    }

    /// Returns how long the server asks to wait before a reconnection (R33).
    pub(crate) fn retry(&self) -> Option<Duration> {
        self.state.retry
    }

    /// Like [`Self::retry`], but once.
    pub(crate) fn take_retry(&mut self) -> Option<Duration> {
        self.state.retry.take()
    }
}

impl SseState {
    /// Reads the chunk up to the next part.
    fn read(&mut self, chunk: &Bytes) -> Option<Found> {
        loop {
            let text = chunk.get(self.at..).filter(|text| !text.is_empty())?;
            if mem::take(&mut self.after_cr) && text.first() == Some(&b'\n') {
                self.at += 1;
                continue;
            }
            let start = self.at;
            let found = match length_of_line(text) {
                None => {
                    self.at = chunk.len();
                    self.carry(chunk, start..chunk.len())
                }
                Some(length) => {
                    self.at += length + 1;
                    self.after_cr = text.get(length) == Some(&b'\r');
                    self.line(chunk, start..start + length)
                }
            };
            if found.is_some() {
                return found;
            }
        }
    }

    /// Reads a complete line, or the rest of one.
    fn line(&mut self, chunk: &Bytes, range: Range<usize>) -> Option<Found> {
        if self.rest.is_none() && self.carried.len() == 0 {
            return if range.is_empty() { self.dispatch() } else { self.interpret(chunk, range, Source::Chunk) };
        }
        let found = self.carry(chunk, range);
        if self.rest.take().is_some() {
            return found;
        }
        let line = self.carried.take();
        let found = self.interpret(&line, 0..line.len(), Source::Line);
        self.line = line;
        found
    }

    /// Takes a piece of a line. Returns the value of a `data` line at once, if it is written as most servers do, or is
    /// long. Other lines need no more than [`MAX_CARRIED_LINE_BYTES`], so ignores the rest of long ones.
    fn carry(&mut self, chunk: &Bytes, range: Range<usize>) -> Option<Found> {
        match self.rest {
            Some(EventRest::Data) => return more_data(Source::Chunk, range),
            Some(EventRest::Other) => return None,
            None if self.skipping => {
                // Now only an empty line matters, as it ends the event.
                self.rest = (!range.is_empty()).then_some(EventRest::Other);
                return None;
            }
            None => {}
        }
        let text = chunk.get(range.clone()).unwrap_or_default();
        if let (0, Some((DATA, value))) = (self.carried.len(), text.split_first_chunk()) {
            self.has_begun = true;
            self.rest = Some(EventRest::Data);
            return self.add_data(Source::Chunk, range.end - value.len()..range.end);
        }
        self.carried.push(chunk.slice(range));
        if self.carried.len() <= MAX_CARRIED_LINE_BYTES {
            return None;
        }
        self.line = self.carried.take();
        let line = self.line.clone();
        let Some(value) = self.without_mark(&line).strip_prefix(b"data:") else {
            self.rest = Some(EventRest::Other);
            return None;
        };
        self.rest = Some(EventRest::Data);
        let length = value.strip_prefix(b" ").unwrap_or(value).len();
        self.add_data(Source::Line, line.len() - length..line.len())
    }

    /// Reads one line that is not empty: "Otherwise … process the field".
    fn interpret(&mut self, text: &Bytes, line: Range<usize>, source: Source) -> Option<Found> {
        let (end, is_long) = (line.end, line.len() > MAX_CARRIED_LINE_BYTES);
        let line = self.without_mark(text.get(line).unwrap_or_default());
        if self.skipping {
            return None;
        }
        // The value is the end of the line.
        if let Some((DATA, value)) = line.split_first_chunk() {
            return self.add_data(source, end - value.len()..end);
        }
        if let Some((EVENT_MESSAGE, [])) = line.split_first_chunk() {
            self.name = Bytes::from_static(MESSAGE);
            return None;
        }
        let (name, value) = field(line);
        let range = end - value.len()..end;
        match name {
            b"data" => return self.add_data(source, range),
            // Only `data` has a meaning for so long a value, in one piece or in several.
            _ if is_long => {}
            b"event" if value == MESSAGE => self.name = Bytes::from_static(MESSAGE),
            b"event" => self.name = text.slice(range),
            b"id" if !value.contains(&0) => self.id = Some(text.slice(range)),
            b"retry" => self.retry = milliseconds(value).or(self.retry),
            // A comment has an empty name; any other field is ignored.
            _ => {}
        }
        None
    }

    /// Returns the line without the byte order mark that may begin the stream.
    fn without_mark<'a>(&mut self, line: &'a [u8]) -> &'a [u8] {
        if mem::replace(&mut self.has_begun, true) { line } else { line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line) }
    }

    /// Adds a value of `data`, or the beginning of one.
    fn add_data(&mut self, source: Source, value: Range<usize>) -> Option<Found> {
        if !mem::replace(&mut self.has_data, true) {
            return more_data(source, value);
        }
        self.next_value = (!value.is_empty()).then_some((source, value));
        Some(Found::Data(Source::LineFeed, 0..1))
    }

    /// Reads an empty line: "dispatch the event".
    fn dispatch(&mut self) -> Option<Found> {
        self.skipping = false;
        self.has_begun = true;
        if let Some(id) = self.id.take() {
            self.last_event_id = Some(id);
        }
        let name = mem::take(&mut self.name);
        mem::take(&mut self.has_data).then_some(Found::End(name))
    }
}

/// The longest line that is carried from chunk to chunk. Only `data` has a meaning for longer ones.
pub(crate) const MAX_CARRIED_LINE_BYTES: usize = 16 << 10;
static LINE_FEED: Bytes = Bytes::from_static(b"\n");
// The form of nearly all lines from nearly all servers: recognized without a search or the grammar.
const DATA: &[u8; 6] = b"data: ";
const EVENT_MESSAGE: &[u8; 14] = b"event: message";
/// A static name does not keep its chunk in memory.
const MESSAGE: &[u8] = b"message";
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Returns the length of the first line, if it ends in this text.
fn length_of_line(text: &[u8]) -> Option<usize> {
    if text.first() == Some(&b'\n') {
        return Some(0);
    }
    if let Some((EVENT_MESSAGE, [b'\n', ..])) = text.split_first_chunk() {
        return Some(EVENT_MESSAGE.len());
    }
    memchr::memchr2(b'\n', b'\r', text)
}

/// Returns a part of a value, unless it is empty.
fn more_data(source: Source, value: Range<usize>) -> Option<Found> {
    (!value.is_empty()).then_some(Found::Data(source, value))
}

/// Parses `field = name [ ":" [ space ] value ]`; a comment is a field without a name.
fn field(line: &[u8]) -> (&[u8], &[u8]) {
    let value = opt(preceded((b':', opt(b' ')), rest)).map(Option::unwrap_or_default);
    let parsed: Result<_, winnow::error::EmptyError> =
        (take_till(0.., b':'), value).parse_peek(line).map(|(_, field)| field);
    parsed.unwrap_or_default()
}

/// Parses digits only, as the rules demand; anything else leaves the time unchanged.
fn milliseconds(value: &[u8]) -> Option<Duration> {
    if !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok().map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::internals::checks::{Seen, events_in, naive_events};

    const LIMIT: u64 = 1 << 20;

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    #[test]
    fn r46_test_vectors_pass_at_every_chunk_boundary() {
        for case in crate::vectors::read("sse") {
            let whole = events_in(&[&case.input], LIMIT);
            let events: Vec<_> =
                whole.events.iter().map(|(name, data)| format!("{}|{}", text(name), text(data))).collect();
            assert_eq!(events, case.expected, "{}", case.name);
            for cut in 0..=case.input.len() {
                let (head, tail) = case.input.split_at(cut);
                assert_eq!(events_in(&[head, tail], LIMIT), whole, "{} cut at byte {cut}", case.name);
            }
            let bytes: Vec<_> = case.input.chunks(1).collect();
            assert_eq!(events_in(&bytes, LIMIT), whole, "{} byte by byte", case.name);
        }
    }

    #[test]
    fn r46_an_event_is_delivered_at_the_byte_that_completes_it() {
        for input in [&b"data: 1\n\n"[..], b"data: 1\r\r", b"data: 1\r\n\r"] {
            let (head, last) = input.split_at(input.len() - 1);
            assert!(events_in(&[head], LIMIT).events.is_empty());
            assert_eq!(events_in(&[head, last], LIMIT).events, [(Bytes::new(), "1".into())], "{input:?}");
        }
    }

    #[test]
    fn r34_event_without_data_sets_the_last_event_id() {
        let seen = events_in(&[b"retry: 500\nid: 7\n\n"], LIMIT);
        let retry = Some(Duration::from_millis(500));
        assert_eq!(seen, Seen { last_event_id: Some("7".into()), retry, ..Seen::default() });
    }

    #[test]
    fn an_event_over_the_limit_is_skipped_and_reported_once() {
        let next = [(Bytes::new(), Bytes::from_static(b"ok"))];
        for input in ["data: 12345\n\ndata: ok\n\n", "data: 123\ndata: 45\ndata: 678\n\ndata: ok\n\n"] {
            for chunk in 1..input.len() {
                let chunks: Vec<_> = input.as_bytes().chunks(chunk).collect();
                let seen = events_in(&chunks, 4);
                assert_eq!((seen.too_long, &seen.events[..]), (1, &next[..]), "{input:?} by {chunk}");
            }
        }
        let comment = format!(":{}\n\ndata: ok\n\n", "x".repeat(50));
        assert_eq!(events_in(&[comment.as_bytes()], 4).events, next);
    }

    #[test]
    fn r46_long_lines_match_a_naive_parser() {
        let long = |length: usize| "x".repeat(length);
        for length in [
            MAX_CARRIED_LINE_BYTES - 10,
            MAX_CARRIED_LINE_BYTES - 5,
            MAX_CARRIED_LINE_BYTES,
            3 * MAX_CARRIED_LINE_BYTES,
        ] {
            let x = long(length);
            for input in [
                format!("data: {x}\n\ndata: 1\n\n"),
                format!("\u{feff}data:{x}\r\ndata: 2\r\n\r\n"),
                format!(":{x}\ndata: 1\ndata: {x}\n:{x}\ndata\ndata: 3\nid: 7\n\n"),
                format!("datax: {x}\ndata: 1\n\n:{x}\n\n"),
                format!("event: {x}\ndata: 1\n\nid: {x}\ndata: 2\n\n"),
            ] {
                for size in [997, MAX_CARRIED_LINE_BYTES / 2, MAX_CARRIED_LINE_BYTES, usize::MAX] {
                    let chunks: Vec<_> = input.as_bytes().chunks(size).collect();
                    assert!(
                        events_in(&chunks, LIMIT) == naive_events(input.as_bytes(), LIMIT),
                        "{length} by {size}: {:?}",
                        &input[..9]
                    );
                }
            }
        }
    }

    #[test]
    fn unfinished_event_is_returned_at_the_end_of_the_stream() {
        for (input, expected) in [
            ("data: 1", Some("1")),
            ("data: 1\n", Some("1")),
            ("data: 1\r", Some("1")),
            ("data: 1\n\n", None),
            (": x", None),
        ] {
            let unfinished = events_in(&[input.as_bytes()], LIMIT).unfinished.map(|(_, data)| text(&data));
            assert_eq!(unfinished.as_deref(), expected, "{input:?}");
        }
    }

    #[test]
    fn data_inside_one_chunk_is_not_copied() {
        let chunk = Bytes::from_static(b"data: payload\n\n");
        let mut sse = Sse::default();
        sse.feed(chunk.clone());
        let Some(EventPart::Data(data)) = sse.next() else { panic!("no data") };
        assert_eq!((&data[..], data.as_ptr()), (&b"payload"[..], chunk[6..].as_ptr()));
    }

    fn fragment() -> impl Strategy<Value = &'static str> {
        proptest::sample::select(&[
            "data",
            "id",
            "event",
            "retry",
            ":",
            " ",
            "\n",
            "\r",
            "\n\n",
            "\r\n",
            "7",
            "x",
            "\0",
            "é",
            "\u{feff}",
            "data: a",
            "data:b\n\n",
        ])
    }

    proptest! {
        #[test]
        fn r46_sse_parser_matches_a_naive_parser(
            input in proptest::collection::vec(fragment(), 0..40).prop_map(|parts| parts.concat().into_bytes()),
            size in 1usize..20,
            limit in prop_oneof![Just(LIMIT), 0..8_u64],
        ) {
            let chunks: Vec<_> = input.chunks(size).collect();
            prop_assert_eq!(events_in(&chunks, limit), naive_events(&input, limit));
        }
    }
}
