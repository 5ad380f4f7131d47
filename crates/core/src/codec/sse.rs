//! Server-Sent Events by the WHATWG rules (HTML, 9.2.6 "Interpreting an event stream"; R46), as a push parser.
//!
//! Lines end at LF, CR or CRLF and are found by one search over each chunk; the grammar of a complete line is a small
//! winnow parser. An event is delivered at the byte that completes it: one ended by CR does not wait for the LF that
//! may follow. A `data` line inside one chunk is a slice of it; only what spans chunks or lines is copied, once.
//!
//! Where the rules ask for decoded text this parser keeps bytes: its events are cut at ASCII characters only, so
//! UTF-8 sequences stay whole, and who reads the data decides about invalid ones.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use winnow::{
    Parser as _,
    combinator::{opt, preceded},
    token::{rest, take_till},
};

use super::pieces::Pieces;
use crate::payload::{Gathered, Gatherer, Storage, Unkept};

/// One dispatched event: its data is never empty.
#[derive(Debug)]
pub(crate) struct Event {
    /// The value of `event`; empty means `message`.
    pub(crate) name: Bytes,
    /// The values of `data`, joined by LF.
    pub(crate) data: Gathered,
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
    /// What a long line is, whose beginning is not carried any more.
    long: Option<Long>,
    /// The last line ended by CR: a LF that follows belongs to it.
    after_cr: bool,
    /// The stream's first line may open with a byte order mark.
    first_line: bool,
    /// The event is over the limit: its lines are passed over up to its end.
    skipping: bool,
    name: Bytes,
    data: Gatherer,
    id: Option<Bytes>,
    last_event_id: Option<Bytes>,
    retry: Option<Duration>,
}

impl Sse {
    /// A parser of events whose data is at most `limit` bytes.
    pub(crate) fn new(limit: u64, storage: &Arc<Storage>) -> Self {
        Self {
            chunk: Bytes::new(),
            carried: Pieces::default(),
            long: None,
            after_cr: false,
            first_line: true,
            skipping: false,
            name: Bytes::new(),
            data: Gatherer::new(limit, storage),
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
    pub(crate) fn next(&mut self) -> Option<Result<Event, Unkept>> {
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
            if let Err(error) = self.carry(tail) {
                self.end_line();
                return Some(Err(error));
            }
            if self.long.is_some() {
                self.end_line();
                continue;
            }
            let line = self.carried.take();
            if line.is_empty() {
                if let Some(event) = self.dispatch() {
                    return Some(event);
                }
            } else if let Err(error) = self.interpret(&line) {
                return Some(Err(error));
            }
        }
    }

    /// The event that the stream ended in, which the rules would drop. Only for a body that ended as its framing says:
    /// a server that forgets the last blank line still meant the event.
    pub(crate) fn finish(&mut self) -> Option<Result<Event, Unkept>> {
        self.long = None;
        let line = self.carried.take();
        if !line.is_empty()
            && let Err(error) = self.interpret(&line)
        {
            return Some(Err(error));
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

    /// Takes a piece of a line. The value of a long `data` line goes on its way at once; of other lines that are long, more
    /// than any field can mean, the rest does not matter.
    fn carry(&mut self, piece: Bytes) -> Result<(), Unkept> {
        match self.long {
            Some(Long::Data) => return self.gather(piece),
            Some(Long::Other) => return Ok(()),
            None => {}
        }
        if self.skipping {
            // Only whether the line is empty matters now, for that ends the event.
            self.long = (!piece.is_empty()).then_some(Long::Other);
            return Ok(());
        }
        self.carried.push(piece);
        if self.carried.len() <= LONGEST_CARRIED {
            return Ok(());
        }
        let line = self.carried.take();
        let text = if self.first_line { line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&line) } else { &line };
        let Some(value) = text.strip_prefix(b"data:") else {
            self.first_line = false;
            self.long = Some(Long::Other);
            return Ok(());
        };
        self.first_line = false;
        self.long = Some(Long::Data);
        let value = line.slice_ref(value.strip_prefix(b" ").unwrap_or(value));
        self.add_data(value)
    }

    /// A line that was not carried to its end is over.
    fn end_line(&mut self) {
        self.long = None;
        self.carried.take();
    }

    /// One more value of `data`, or the beginning of one.
    fn add_data(&mut self, value: Bytes) -> Result<(), Unkept> {
        if !self.data.is_untouched() {
            self.gather(Bytes::from_static(b"\n"))?;
        }
        self.gather(value)
    }

    /// More of the event's data. If that cannot be kept, the event is given up.
    fn gather(&mut self, piece: Bytes) -> Result<(), Unkept> {
        self.data.push(piece).inspect_err(|_| {
            self.skipping = true;
            self.data.clear();
            if self.long.is_some() {
                self.long = Some(Long::Other);
            }
        })
    }

    /// One line that is not empty: "Otherwise … process the field".
    fn interpret(&mut self, line: &Bytes) -> Result<(), Unkept> {
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
            b"data" => self.add_data(value)?,
            b"event" => self.name = value,
            b"id" if !value.contains(&0) => self.id = Some(value),
            b"retry" => self.retry = milliseconds(&value).or(self.retry),
            // A comment has the empty name; any other field is ignored.
            _ => {}
        }
        Ok(())
    }

    /// An empty line: "dispatch the event".
    fn dispatch(&mut self) -> Option<Result<Event, Unkept>> {
        self.skipping = false;
        self.first_line = false;
        if let Some(id) = self.id.take() {
            self.last_event_id = Some(id);
        }
        let name = std::mem::take(&mut self.name);
        if self.data.length() == 0 {
            self.data.clear();
            return None;
        }
        Some(self.data.take().map(|data| Event { name, data }))
    }
}

/// What a line is whose beginning is not carried any more.
#[derive(Clone, Copy, Debug)]
enum Long {
    /// The rest is data.
    Data,
    /// The rest does not matter.
    Other,
}

/// The longest line that is carried from chunk to chunk. No field but `data` has a meaning that takes more.
pub(crate) const LONGEST_CARRIED: usize = 16 << 10;
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

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
    use crate::{
        internals::checks::{Seen, events_in, naive_events},
        payload::tests::storage,
    };

    const LIMIT: u64 = 1 << 20;

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    fn data(event: &Event) -> &Bytes {
        event.data.in_memory().unwrap()
    }

    #[test]
    fn r46_vectors_hold_at_every_cut() {
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
            let mut sse = Sse::new(LIMIT, &storage());
            sse.feed(Bytes::copy_from_slice(&input[..input.len() - 1]));
            assert!(sse.next().is_none());
            sse.feed(Bytes::copy_from_slice(&input[input.len() - 1..]));
            assert_eq!(data(&sse.next().unwrap().unwrap()), "1", "{input:?}");
        }
    }

    #[test]
    fn r34_a_priming_event_moves_the_cursor_and_yields_nothing() {
        let seen = events_in(&[b"retry: 500\nid: 7\ndata: \n\n"], LIMIT);
        assert_eq!(
            seen,
            Seen { last_event_id: Some("7".into()), retry: Some(Duration::from_millis(500)), ..Seen::default() }
        );
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
    fn r46_long_lines_are_read_like_short_ones() {
        let long = |length: usize| "x".repeat(length);
        for length in [LONGEST_CARRIED - 10, LONGEST_CARRIED - 5, LONGEST_CARRIED, 3 * LONGEST_CARRIED] {
            let x = long(length);
            for input in [
                format!("data: {x}\n\ndata: 1\n\n"),
                format!("\u{feff}data:{x}\r\ndata: 2\r\n\r\n"),
                format!(":{x}\ndata: 1\ndata: {x}\n:{x}\ndata\ndata: 3\nid: 7\n\n"),
                format!("datax: {x}\ndata: 1\n\n:{x}\n\n"),
            ] {
                for size in [997, LONGEST_CARRIED / 2, LONGEST_CARRIED, usize::MAX] {
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
    fn an_unfinished_event_is_known_at_a_clean_end() {
        for (input, expected) in
            [("data: 1", Some("1")), ("data: 1\n", Some("1")), ("data: 1\n\n", None), (": x", None)]
        {
            let mut sse = Sse::new(LIMIT, &storage());
            sse.feed(input.into());
            while sse.next().is_some() {}
            let event = sse.finish().map(Result::unwrap);
            assert_eq!(event.map(|event| text(data(&event))).as_deref(), expected, "{input:?}");
        }
    }

    #[test]
    fn data_inside_one_chunk_is_not_copied() {
        let chunk = Bytes::from_static(b"data: payload\n\n");
        let mut sse = Sse::new(LIMIT, &storage());
        sse.feed(chunk.clone());
        assert_eq!(data(&sse.next().unwrap().unwrap()).as_ptr(), chunk[6..].as_ptr());
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
            limit in prop_oneof![Just(LIMIT), 0..8_u64],
        ) {
            let chunks: Vec<_> = input.chunks(size).collect();
            prop_assert_eq!(events_in(&chunks, limit), naive_events(&input, limit));
        }
    }
}
