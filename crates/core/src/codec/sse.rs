//! Server-Sent Events by the WHATWG rules (HTML, 9.2.6 "Interpreting an event stream"; R46), as a push parser.
//!
//! Lines end at LF, CR or CRLF and are found by one search over each chunk; the grammar of a complete line is a small
//! winnow parser. An event is delivered at the byte that completes it: one ended by CR does not wait for the LF that
//! may follow. A `data` line inside one chunk is a slice of it; only what spans chunks or lines is copied, once.
//!
//! Where the rules ask for decoded text this parser keeps bytes: its events are cut at ASCII characters only, so
//! UTF-8 sequences stay whole, and who reads the data decides about invalid ones.

use std::time::Duration;

use bytes::Bytes;
use winnow::{
    Parser as _,
    combinator::{opt, preceded},
    token::{rest, take_till},
};

use super::pieces::{Pieces, TooLong};

/// One dispatched event: its data is never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// The value of `event`; empty means `message`.
    pub(crate) name: Bytes,
    /// The values of `data`, joined by LF.
    pub(crate) data: Bytes,
}

impl Event {
    /// Whether this is an event of the type `message`, the only one that MCP uses for messages.
    pub(crate) fn is_message(&self) -> bool {
        self.name.is_empty() || self.name == "message"
    }
}

/// See the module. Call [`Sse::feed`], then [`Sse::next`] until it has no more; at the end [`Sse::finish`].
#[derive(Debug)]
pub(crate) struct Sse {
    chunk: Bytes,
    /// The beginning of a line whose end has not come.
    carried: Pieces,
    /// The last line ended by CR: a LF that follows belongs to it.
    after_cr: bool,
    /// The stream's first line may open with a byte order mark.
    first_line: bool,
    /// The event is over the limit: its lines are passed over up to its end.
    skipping: bool,
    name: Bytes,
    data: Pieces,
    id: Option<Bytes>,
    last_event_id: Option<Bytes>,
    retry: Option<Duration>,
}

impl Sse {
    /// A parser of events whose data, and whose lines, are at most `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            chunk: Bytes::new(),
            carried: Pieces::new(limit.saturating_add(LONGEST_PREFIX)),
            after_cr: false,
            first_line: true,
            skipping: false,
            name: Bytes::new(),
            data: Pieces::new(limit),
            id: None,
            last_event_id: None,
            retry: None,
        }
    }

    /// Takes the next bytes of the stream, once `next` has used up the last ones.
    pub(crate) fn feed(&mut self, chunk: Bytes) {
        debug_assert!(self.chunk.is_empty(), "feed before the last chunk was used up");
        self.chunk = chunk;
    }

    /// The next event that is complete. One over the limit is reported once; the next is read as usual.
    pub(crate) fn next(&mut self) -> Option<Result<Event, TooLong>> {
        loop {
            if self.after_cr && !self.chunk.is_empty() {
                self.after_cr = false;
                if self.chunk.first() == Some(&b'\n') {
                    self.chunk = self.chunk.split_off(1);
                }
            }
            let Some(end) = memchr::memchr2(b'\n', b'\r', &self.chunk) else {
                let rest = std::mem::take(&mut self.chunk);
                if rest.is_empty() {
                    return None;
                }
                return self.carry(rest).err().map(Err);
            };
            let tail = self.chunk.split_to(end);
            self.after_cr = self.chunk.first() == Some(&b'\r');
            self.chunk = self.chunk.split_off(1);
            let line = match self.carry(tail) {
                Ok(()) => self.carried.take(),
                Err(error) => {
                    // The line that broke the limit ends here; the event goes on.
                    self.carried.take();
                    return Some(Err(error));
                }
            };
            if line.is_empty() {
                if let Some(event) = self.dispatch() {
                    return Some(Ok(event));
                }
            } else if let Err(error) = self.interpret(&line) {
                return Some(Err(error));
            }
        }
    }

    /// The event that the stream ended in, which the rules would drop. Only for a body that ended as its framing says:
    /// a server that forgets the last blank line still meant the event.
    pub(crate) fn finish(&mut self) -> Option<Event> {
        let line = self.carried.take();
        if !line.is_empty() && self.interpret(&line).is_err() {
            return None;
        }
        self.dispatch()
    }

    /// What a reconnection sends as `Last-Event-ID`: the last `id` of a complete event, even of one without data (R34).
    pub(crate) fn last_event_id(&self) -> Option<&Bytes> {
        self.last_event_id.as_ref()
    }

    /// How long the server asks to wait before a reconnection (R33).
    pub(crate) fn retry(&self) -> Option<Duration> {
        self.retry
    }

    fn carry(&mut self, piece: Bytes) -> Result<(), TooLong> {
        if self.skipping {
            // Only whether the line is empty matters now, for that ends the event.
            if self.carried.len() == 0 {
                self.carried.push(piece.slice(..piece.len().min(1)))?;
            }
            return Ok(());
        }
        self.carried.push(piece).inspect_err(|_| self.skip(b"x"))
    }

    /// Gives up the event under way; `line` is what stands for the line under way, empty if that is complete.
    fn skip(&mut self, line: &'static [u8]) {
        self.skipping = true;
        self.data.take();
        self.carried.take();
        // One byte is within every limit, as lines may always hold a field name.
        let _ = self.carried.push(Bytes::from_static(line));
    }

    /// One line that is not empty: "Otherwise … process the field".
    fn interpret(&mut self, line: &Bytes) -> Result<(), TooLong> {
        let mut text = &line[..];
        if std::mem::take(&mut self.first_line) {
            text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
        }
        if self.skipping {
            return Ok(());
        }
        let (name, value) = field(text);
        let value = line.slice_ref(value);
        match name {
            b"data" => {
                let separator = if self.data.is_untouched() { Bytes::new() } else { Bytes::from_static(b"\n") };
                let joined = if separator.is_empty() { Ok(()) } else { self.data.push(separator) };
                joined.and_then(|()| self.data.push(value)).inspect_err(|_| self.skip(b""))?;
            }
            b"event" => self.name = value,
            b"id" if !value.contains(&0) => self.id = Some(value),
            b"retry" => self.retry = milliseconds(&value).or(self.retry),
            // A comment has the empty name; any other field is ignored.
            _ => {}
        }
        Ok(())
    }

    /// An empty line: "dispatch the event".
    fn dispatch(&mut self) -> Option<Event> {
        self.skipping = false;
        self.first_line = false;
        if let Some(id) = self.id.take() {
            self.last_event_id = Some(id);
        }
        let name = std::mem::take(&mut self.name);
        let data = self.data.take();
        (!data.is_empty()).then_some(Event { name, data })
    }
}

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
const LONGEST_PREFIX: usize = BYTE_ORDER_MARK.len() + b"data: ".len();

/// `field = name [ ":" [ space ] value ]`; a comment is a field without a name.
fn field(line: &[u8]) -> (&[u8], &[u8]) {
    let value = opt(preceded((b':', opt(b' ')), rest)).map(Option::unwrap_or_default);
    let parsed: Result<_, winnow::error::EmptyError> =
        (take_till(0.., b':'), value).parse_peek(line).map(|(_, field)| field);
    parsed.unwrap_or_default()
}

/// Digits only, as the rules demand; anything else leaves the time as it was.
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

    const LIMIT: usize = 1 << 20;

    #[derive(Debug, Default, PartialEq)]
    struct Seen {
        events: Vec<(String, String)>,
        last_event_id: Option<String>,
        retry: Option<u64>,
        too_long: usize,
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    fn parse(chunks: &[&[u8]], limit: usize) -> Seen {
        let mut sse = Sse::new(limit);
        let mut seen = Seen::default();
        for chunk in chunks {
            sse.feed(Bytes::copy_from_slice(chunk));
            while let Some(event) = sse.next() {
                match event {
                    Ok(event) => seen.events.push((text(&event.name), text(&event.data))),
                    Err(_) => seen.too_long += 1,
                }
            }
        }
        seen.last_event_id = sse.last_event_id().map(|id| text(id));
        seen.retry = sse.retry().and_then(|retry| retry.as_millis().try_into().ok());
        seen
    }

    /// The standard's algorithm on the whole text, line by line, with no thought of speed.
    fn naive(input: &[u8]) -> Seen {
        let mut seen = Seen::default();
        let (mut name, mut data, mut has_data, mut id) = (Vec::new(), Vec::new(), false, None);
        let mut rest = input.strip_prefix(BYTE_ORDER_MARK).unwrap_or(input);
        while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
            let line = &rest[..end];
            rest = if rest[end..].starts_with(b"\r\n") { &rest[end + 2..] } else { &rest[end + 1..] };
            if line.is_empty() {
                if let Some(id) = id.take() {
                    seen.last_event_id = Some(text(id));
                }
                if !data.is_empty() {
                    seen.events.push((text(&name), text(&data)));
                }
                name.clear();
                data.clear();
                has_data = false;
                continue;
            }
            let colon = line.iter().position(|byte| *byte == b':');
            let (field, value) = colon.map_or((line, &b""[..]), |colon| (&line[..colon], &line[colon + 1..]));
            let value = value.strip_prefix(b" ").unwrap_or(value);
            match field {
                b"data" => {
                    if has_data {
                        data.push(b'\n');
                    }
                    data.extend_from_slice(value);
                    has_data = true;
                }
                b"event" => name = value.to_vec(),
                b"id" if !value.contains(&0) => id = Some(value),
                b"retry" if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
                    seen.retry = text(value).parse().ok().or(seen.retry);
                }
                _ => {}
            }
        }
        seen
    }

    #[test]
    fn r46_vectors_hold_at_every_cut() {
        for case in crate::vectors::read("sse") {
            let whole = parse(&[&case.input], LIMIT);
            let events: Vec<_> = whole.events.iter().map(|(name, data)| format!("{name}|{data}")).collect();
            assert_eq!(events, case.expected, "{}", case.name);
            for cut in 0..=case.input.len() {
                let (head, tail) = case.input.split_at(cut);
                assert_eq!(parse(&[head, tail], LIMIT), whole, "{} cut at byte {cut}", case.name);
            }
            let bytes: Vec<_> = case.input.chunks(1).collect();
            assert_eq!(parse(&bytes, LIMIT), whole, "{} byte by byte", case.name);
        }
    }

    #[test]
    fn r46_an_event_is_delivered_at_the_byte_that_completes_it() {
        for input in [&b"data: 1\n\n"[..], b"data: 1\r\r", b"data: 1\r\n\r"] {
            let mut sse = Sse::new(LIMIT);
            sse.feed(Bytes::copy_from_slice(&input[..input.len() - 1]));
            assert_eq!(sse.next(), None);
            sse.feed(Bytes::copy_from_slice(&input[input.len() - 1..]));
            assert_eq!(sse.next().unwrap().unwrap().data, "1", "{input:?}");
        }
    }

    #[test]
    fn r34_a_priming_event_moves_the_cursor_and_yields_nothing() {
        let seen = parse(&[b"retry: 500\nid: 7\ndata: \n\n"], LIMIT);
        assert_eq!(seen, Seen { last_event_id: Some("7".into()), retry: Some(500), ..Seen::default() });
    }

    #[test]
    fn an_event_over_the_limit_is_skipped_and_reported_once() {
        let next = [(String::new(), "ok".to_owned())];
        for input in ["data: 12345\n\ndata: ok\n\n", "data: 123\ndata: 45\ndata: 678\n\ndata: ok\n\n"] {
            for chunk in 1..input.len() {
                let chunks: Vec<_> = input.as_bytes().chunks(chunk).collect();
                let seen = parse(&chunks, 4);
                assert_eq!((seen.too_long, &seen.events[..]), (1, &next[..]), "{input:?} by {chunk}");
            }
        }
        let comment = format!(":{}\n\ndata: ok\n\n", "x".repeat(50));
        assert_eq!(parse(&[comment.as_bytes()], 4).events, next);
    }

    #[test]
    fn an_unfinished_event_is_known_at_a_clean_end() {
        for (input, data) in [("data: 1", Some("1")), ("data: 1\n", Some("1")), ("data: 1\n\n", None), (": x", None)] {
            let mut sse = Sse::new(LIMIT);
            sse.feed(input.into());
            while sse.next().is_some() {}
            assert_eq!(sse.finish().map(|event| text(&event.data)).as_deref(), data, "{input:?}");
        }
    }

    #[test]
    fn data_inside_one_chunk_is_not_copied() {
        let chunk = Bytes::from_static(b"data: payload\n\n");
        let mut sse = Sse::new(LIMIT);
        sse.feed(chunk.clone());
        assert_eq!(sse.next().unwrap().unwrap().data.as_ptr(), chunk[6..].as_ptr());
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
        fn r46_equals_the_standards_algorithm(
            input in proptest::collection::vec(fragment(), 0..40).prop_map(|parts| parts.concat().into_bytes()),
            size in 1usize..20,
        ) {
            let chunks: Vec<_> = input.chunks(size).collect();
            prop_assert_eq!(parse(&chunks, LIMIT), naive(&input));
        }
    }
}
