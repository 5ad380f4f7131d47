//! Takes the long values out of a message that is too large for memory, so that its text can be read and changed. A
//! stand-in of a few bytes replaces each long value. The changed text gets the values back; they never leave their
//! file.
//!
//! Rule: only values that no translator reads are replaced: those of the members of `result`, `params` and `error`, and
//! of the members of their `_meta`. A stand-in has the kind of its value: an object, an array or something else. If a
//! stand-in was changed, the message passes unchanged.

use std::{ops::Range, sync::OnceLock};

use bytes::Bytes;
use memchr::memmem;

use crate::{
    random::random,
    wire::{message::Message, spool::Spooled},
};

/// Values longer than this, in bytes of JSON, are replaced. URIs, tokens and names are shorter.
const LONG: usize = 16 << 10;
/// The longest text that may remain, in bytes. A message with too many short values passes unchanged.
const MAX_CONDENSED_BYTES: usize = 1 << 20;

/// The long values taken out of a message.
#[derive(Debug)]
pub(crate) struct LongValues {
    message: Message,
    values: Vec<LongValue>,
}

/// A value that was replaced: its place in the file, and its first byte.
#[derive(Debug)]
struct LongValue {
    range: Range<u64>,
    kind: u8,
}

impl LongValues {
    /// Returns a message with stand-ins for its long values, and the values. `None` if its text is still too long, if
    /// its file cannot be read, or if it is in memory.
    pub(crate) fn extract_long_values(message: &Message) -> Option<(Message, Self)> {
        let mut extractor = LongValueExtractor::default();
        for block in message.spooled()?.blocks() {
            let block =
                block.inspect_err(|error| tracing::warn!(%error, "a large message cannot be read back")).ok()?;
            extractor.read(&block)?;
        }
        let text = Message::one(extractor.text)?;
        Some((text, Self { message: message.clone(), values: extractor.values }))
    }

    /// Returns a message made from the text, with the values back in their places.
    pub(crate) fn restore_long_values(&self, changed: &Message) -> Message {
        self.spooled(changed).unwrap_or_else(|| {
            tracing::warn!("a large message passes unchanged, as it cannot be put together again");
            self.message.clone()
        })
    }

    fn spooled(&self, changed: &Message) -> Option<Message> {
        let (text, source) = (changed.bytes(), self.message.spooled()?);
        let mut whole = source.emptied();
        let (mut done, mut id_at) = (0, changed.id_at());
        for place in memmem::find_iter(text, mark()) {
            let number = text.get(place + mark().len()..)?.first_chunk::<DIGITS>()?;
            let number = usize::from_str_radix(std::str::from_utf8(number).ok()?, 16).ok()?;
            let value = self.values.get(number)?;
            let placeholder_bytes = value.placeholder_bytes(number);
            let start = place.checked_sub(memmem::find(&placeholder_bytes, mark())?)?;
            let end = start + placeholder_bytes.len();
            if text.get(start..end)? != placeholder_bytes || start < done {
                return None;
            }
            if (start as u64) < changed.id_at() {
                id_at = id_at + (value.range.end - value.range.start) - placeholder_bytes.len() as u64;
            }
            append(&mut whole, text.slice(done..start), source.slice(value.range.clone()));
            done = end;
        }
        if done == 0 {
            return Some(changed.clone());
        }
        append(&mut whole, text.slice(done..), source.emptied());
        Some(changed.in_file(whole, id_at, self.message.has_line_breaks()))
    }
}

fn append(whole: &mut Spooled, bytes: Bytes, value: Spooled) {
    whole.push(bytes);
    whole.append(value);
}

impl LongValue {
    fn placeholder_bytes(&self, number: usize) -> Vec<u8> {
        let name = format!("\"{}{number:0DIGITS$x}\"", String::from_utf8_lossy(mark()));
        match self.kind {
            b'{' => format!("{{{name}:0}}"),
            b'[' => format!("[{name}]"),
            _ => name,
        }
        .into_bytes()
    }
}

/// The hexadecimal digits in a stand-in's number.
const DIGITS: usize = 8;

/// Returns the mark in each stand-in. Nothing else contains it, as it is a secret of this process.
fn mark() -> &'static [u8] {
    static MARK: OnceLock<Vec<u8>> = OnceLock::new();
    MARK.get_or_init(|| format!("mcp-gangway {:x}{:x} ", random().to_bits(), random().to_bits()).into_bytes())
}

/// Reads valid JSON, and copies it with stand-ins for its long values.
#[derive(Default)]
struct LongValueExtractor {
    text: Vec<u8>,
    values: Vec<LongValue>,
    /// The number of bytes read.
    at: u64,
    /// The open objects that are read, from the outermost on: the next token in each.
    open: Vec<Next>,
    /// The current or last name.
    name: Vec<u8>,
    value: Option<OpenValue>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Name,
    /// More of a name. True if the last byte was a backslash that is not escaped itself.
    InName(bool),
    Value,
    /// A comma or the end.
    Comma,
}

/// A value that is skipped.
struct OpenValue {
    /// Its start in the bytes read, and in the remaining text.
    start: u64,
    place: usize,
    kind: u8,
    depth: u32,
    in_string: bool,
    after_backslash: bool,
    is_long: bool,
}

impl LongValueExtractor {
    /// Takes the next bytes. `None` if too much text remains.
    fn read(&mut self, mut bytes: &[u8]) -> Option<()> {
        while let Some((byte, rest)) = bytes.split_first() {
            // Most of a large message is one long string.
            let plain = self.value.as_ref().map_or(0, |value| value.plain_run(bytes));
            if plain > 0 {
                self.at += plain as u64;
                bytes = bytes.get(plain..)?;
            } else {
                self.read_byte(*byte);
                bytes = rest;
            }
        }
        (self.text.len() <= MAX_CONDENSED_BYTES).then_some(())
    }

    fn read_byte(&mut self, byte: u8) {
        let ends_before = self.value.as_ref().is_some_and(|value| value.ends_before(byte));
        if ends_before {
            self.end_value();
        }
        if let Some(value) = &mut self.value {
            let is_over = value.take(byte);
            if !value.is_long {
                self.text.push(byte);
                if self.text.len() - value.place > LONG {
                    value.is_long = true;
                    self.text.truncate(value.place);
                }
            }
            self.at += 1;
            if is_over {
                self.end_value();
            }
        } else {
            self.token(byte);
            self.at += 1;
        }
    }

    /// Reads a byte outside of skipped values.
    fn token(&mut self, byte: u8) {
        let depth = self.open.len();
        let Some(next) = self.open.last_mut() else {
            // Only white space surrounds the outermost object.
            if byte == b'{' {
                self.open.push(Next::Name);
            }
            return self.text.push(byte);
        };
        match (*next, byte) {
            (Next::InName(after_backslash), byte) => {
                self.name.push(byte);
                match byte {
                    b'"' if !after_backslash => *next = Next::Value,
                    byte => *next = Next::InName(byte == b'\\' && !after_backslash),
                }
            }
            (Next::Name, b'"') => {
                self.name.clear();
                self.name.push(byte);
                *next = Next::InName(false);
            }
            (_, b'}') => {
                self.open.pop();
            }
            (_, b',') => *next = Next::Name,
            (Next::Value, byte) if !matches!(byte, b':' | b' ' | b'\t' | b'\r' | b'\n') => {
                *next = Next::Comma;
                let is_meta = || serde_json::from_slice::<String>(&self.name).is_ok_and(|name| name == "_meta");
                if byte == b'{' && (depth == 1 || depth == 2 && is_meta()) {
                    self.open.push(Next::Name);
                } else {
                    self.text.push(byte);
                    return self.begin_value(byte);
                }
            }
            _ => {}
        }
        self.text.push(byte);
    }

    /// Begins a value with this byte, which is already in the text.
    fn begin_value(&mut self, byte: u8) {
        self.value = Some(OpenValue {
            start: self.at,
            place: self.text.len() - 1,
            kind: byte,
            depth: u32::from(matches!(byte, b'{' | b'[')),
            in_string: byte == b'"',
            after_backslash: false,
            is_long: false,
        });
    }

    fn end_value(&mut self) {
        if let Some(OpenValue { start, kind, is_long: true, .. }) = self.value.take() {
            let value = LongValue { range: start..self.at, kind };
            self.text.extend(value.placeholder_bytes(self.values.len()));
            self.values.push(value);
        }
    }
}

impl OpenValue {
    /// True if it is a number or word, and this byte is the first after it.
    fn ends_before(&self, byte: u8) -> bool {
        !matches!(self.kind, b'{' | b'[' | b'"') && matches!(byte, b',' | b'}' | b' ' | b'\t' | b'\r' | b'\n')
    }

    /// Returns how many bytes can be skipped at once: those of a long string before a quote or a backslash.
    fn plain_run(&self, bytes: &[u8]) -> usize {
        if self.is_long && self.in_string && !self.after_backslash {
            memchr::memchr2(b'"', b'\\', bytes).unwrap_or(bytes.len())
        } else {
            0
        }
    }

    /// Takes one more byte. Returns true if it is the last one.
    fn take(&mut self, byte: u8) -> bool {
        if self.in_string {
            let is_end = byte == b'"' && !self.after_backslash;
            self.after_backslash = byte == b'\\' && !self.after_backslash;
            self.in_string = !is_end;
            return is_end && self.depth == 0;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                return self.depth == 0;
            }
            _ => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value as Json;

    use super::*;
    use crate::{
        json::splice::Splice,
        wire::{
            message::Parsed,
            spool::{Spooler, Storage},
        },
    };

    fn in_file(text: &str) -> Message {
        let mut spooler = Spooler::new(u64::MAX, &Storage::used_up());
        for piece in text.as_bytes().chunks(10_000) {
            spooler.push(Bytes::copy_from_slice(piece)).unwrap();
        }
        match Message::read(&spooler.take().unwrap()) {
            Ok(Parsed::One(message)) if message.is_spooled() => message,
            other => panic!("{other:?}"),
        }
    }

    fn text_of(message: &Message) -> String {
        match message.spooled() {
            Some(spooled) => String::from_utf8(spooled.load().unwrap().to_vec()).unwrap(),
            None => message.text().to_owned(),
        }
    }

    #[test]
    fn edits_of_the_condensed_text_apply_to_the_whole_message() {
        let long = "x\\\"]}é".repeat(20_000);
        let text = format!(
            r#" {{"result" : {{ "content":[{{"text":"{long}"}}], "n":1e5 ,"structuredContent":{{"a\"":["{long}"]}},"\u005fmeta":{{"k":"{long}","small":[1]}},"s":"{long}","d":{}}},"jsonrpc":"2.0", "id":7}}"#,
            "0.".to_owned() + &"1".repeat(100_000)
        );
        let message = in_file(&text);
        let (condensed, long_values) = LongValues::extract_long_values(&message).unwrap();
        assert!(condensed.bytes().len() < 1000, "{}", condensed.text());
        assert_eq!(condensed.id().unwrap().as_str(), "7");
        let result = condensed.result().unwrap();
        let kinds = ["content", "structuredContent", "s", "d"].map(|name| result.get(name).unwrap().as_bytes()[0]);
        assert_eq!(kinds, *b"[{\"\"");
        assert_eq!(result.object("_meta").unwrap().get("small"), Some("[1]"));
        assert_eq!(text_of(&long_values.restore_long_values(&condensed)), text.trim());

        let mut splice = Splice::new(condensed.text());
        splice.edit(result, &[("resultType", "\"complete\"")], |member| member.is("s"));
        splice.replace(
            result.get("structuredContent").unwrap(),
            format!("[{}]", result.get("structuredContent").unwrap()),
        );
        let changed = Message::one(splice.finish()).unwrap();
        let whole = long_values.restore_long_values(&changed);
        assert!(whole.is_spooled());
        let (mut expected, found): (Json, Json) =
            (serde_json::from_str(&text).unwrap(), serde_json::from_str(&text_of(&whole)).unwrap());
        let result = expected["result"].as_object_mut().unwrap();
        result.remove("s");
        result.insert("resultType".into(), "complete".into());
        let content = result["structuredContent"].take();
        result.insert("structuredContent".into(), Json::from(vec![content]));
        assert!(expected == found);

        // The position of the id is right, though long values come before it.
        let renamed = whole.with_id(&crate::wire::id::Id::own("other"));
        assert!(text_of(&renamed).ends_with(r#""jsonrpc":"2.0", "id":"other"}"#));
    }

    #[test]
    fn modified_placeholder_restores_the_original_message() {
        let text = format!(r#"{{"id":1,"result":{{"a":{{"b":"{}"}}}}}}"#, "x".repeat(200_000));
        let message = in_file(&text);
        let (condensed, long_values) = LongValues::extract_long_values(&message).unwrap();
        let mut splice = Splice::new(condensed.text());
        let a = condensed.result().and_then(|result| result.object("a")).unwrap();
        splice.edit(a, &[("c", "1")], |_| false);
        let changed = Message::one(splice.finish()).unwrap();
        assert!(text_of(&long_values.restore_long_values(&changed)) == text);
        let gone = Message::one(r#"{"id":1,"result":{}}"#).unwrap();
        assert_eq!(text_of(&long_values.restore_long_values(&gone)), r#"{"id":1,"result":{}}"#);
    }

    #[test]
    fn messages_without_long_values_are_not_condensed() {
        let members: Vec<_> = (0..200_000).map(|number| format!(r#""m{number}":{number}"#)).collect();
        let message = in_file(&format!(r#"{{"id":1,"result":{{{}}}}}"#, members.join(",")));
        assert!(LongValues::extract_long_values(&message).is_none());
        assert!(LongValues::extract_long_values(&Message::one(r#"{"id":1,"result":{}}"#).unwrap()).is_none());
    }

    #[test]
    fn condensed_values_of_any_length_are_restored() {
        for length in [0, 1, LONG - 3, LONG - 2, LONG - 1, LONG, LONG + 1, 3 * LONG] {
            for value in
                [format!("\"{}\"", "y".repeat(length)), format!("[{}]", " ".repeat(length)), "1".repeat(length.max(1))]
            {
                let padding = "z".repeat(100_000);
                let text = format!(r#"{{"method":"n","params":{{"a":{value},"b":{value} ,"p":"{padding}"}}}}"#);
                let (condensed, long_values) = LongValues::extract_long_values(&in_file(&text)).unwrap();
                assert!(text_of(&long_values.restore_long_values(&condensed)) == text, "{length}");
            }
        }
    }
}
