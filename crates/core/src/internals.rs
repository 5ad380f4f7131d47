//! The parts of the data path as plain functions, for benchmarks and fuzz targets: chunks of bytes in, what they
//! contain out. Not part of the public API; may change with any commit.

pub mod checks;

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    json::scanner::Scanner,
    wire::{
        body::{Decoder, EventPart, Lines, Sse},
        message::{Message, Parsed},
        spool::{ScannedPayload, Spooler, Storage},
    },
};

/// The size limit, which no test input reaches.
const LIMIT: u64 = 4 << 30;

/// Reads a stream of events. `data` gets a part of an event's data, `end` the event's name.
pub fn sse(chunks: impl IntoIterator<Item = Bytes>, mut data: impl FnMut(&[u8]), mut end: impl FnMut(&[u8])) {
    let mut events = Sse::default();
    for chunk in chunks {
        events.feed(chunk);
        while let Some(part) = events.next() {
            match part {
                EventPart::Data(part) => data(&part),
                EventPart::End { name } => end(&name),
            }
        }
    }
}

/// Reads lines. `each` gets the part of a line that is in memory.
pub fn lines(chunks: impl IntoIterator<Item = Bytes>, mut each: impl FnMut(&[u8])) {
    let mut lines = Lines::new(Spooler::new(LIMIT, &storage()));
    for chunk in chunks {
        lines.feed(chunk);
        while let Some(line) = lines.next() {
            if let Ok(line) = line {
                each(text(&line));
            }
        }
    }
    if let Some(Ok(line)) = lines.finish() {
        each(text(&line));
    }
}

/// Reads the body of a reply. `each` gets the part of a message that is in memory.
pub fn decode(content_type: Option<&str>, chunks: impl IntoIterator<Item = Bytes>, mut each: impl FnMut(&[u8])) {
    let mut decoder = Decoder::new(content_type, LIMIT, &storage());
    let mut take = |decoder: &mut Decoder| {
        while let Some(message) = decoder.next() {
            each(message.bytes());
        }
    };
    for chunk in chunks {
        if decoder.feed(chunk).is_err() {
            return;
        }
        take(&mut decoder);
    }
    decoder.finish(true);
    take(&mut decoder);
}

/// Checks one JSON text and returns its length in bytes.
///
/// # Errors
/// The text is not JSON. The error says why.
pub fn scan<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Result<u64, String> {
    let mut scanner = Scanner::new();
    for chunk in chunks {
        // The error is returned again at the end.
        let _ = scanner.feed(chunk);
    }
    scanner.finish().map(|outline| outline.length).map_err(|fault| fault.to_string())
}

/// True if this is one message.
pub fn peek(line: &Bytes) -> bool {
    matches!(Message::parse(line), Ok(Parsed::One(_)))
}

fn storage() -> Arc<Storage> {
    Storage::new(std::env::temp_dir())
}

fn text(gathered: &ScannedPayload) -> &[u8] {
    gathered.in_memory().map_or(&[], |bytes| bytes)
}
