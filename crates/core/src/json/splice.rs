//! Edits JSON and keeps every other byte: finds, sets and removes members of objects in the text (R3).
//!
//! The text must be valid JSON, as [`crate::wire::message::Message`] checks. In any other text it finds fewer members
//! at worst, and never panics.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

/// An object in a text, from brace to brace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Object<'a>(&'a str);

/// A member of an object: its name as written, with quotes, and its value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member<'a> {
    name: &'a str,
    pub(crate) value: &'a str,
}

impl<'a> Object<'a> {
    /// Reads a text as an object; `None` if it is another kind of value.
    pub(crate) fn of(json: &'a str) -> Option<Self> {
        let json = json.trim_ascii();
        json.starts_with('{').then_some(Self(json))
    }

    /// Returns the value of a member; the last one if several have that name.
    pub(crate) fn get(self, name: &str) -> Option<&'a str> {
        self.members().filter(|member| member.is(name)).last().map(|member| member.value)
    }

    /// Returns the value of a member that is an object.
    pub(crate) fn object(self, name: &str) -> Option<Object<'a>> {
        self.get(name).and_then(Object::of)
    }

    /// Returns the value of a member that is a string, unescaped.
    pub(crate) fn string(self, name: &str) -> Option<String> {
        self.get(name).and_then(|value| serde_json::from_str(value).ok())
    }

    /// Returns all members in order.
    pub(crate) fn members(self) -> Members<'a> {
        Members { rest: self.0.get(1..).unwrap_or_default() }
    }

    /// Returns the text, from brace to brace.
    pub(crate) fn as_str(self) -> &'a str {
        self.0
    }
}

impl<'a> Member<'a> {
    /// Returns its name as written, with quotes.
    pub(crate) fn written_name(&self) -> &'a str {
        self.name
    }

    /// True if this is its name, however it is escaped.
    pub(crate) fn is(&self, name: &str) -> bool {
        match self.name.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            Some(plain) if !plain.contains('\\') => plain == name,
            _ => self.name() == name,
        }
    }

    /// Returns its name, unescaped; empty if the name cannot be a Rust string.
    pub(crate) fn name(&self) -> String {
        serde_json::from_str(self.name).unwrap_or_default()
    }
}

/// See [`Object::members`].
#[derive(Clone, Debug)]
pub(crate) struct Members<'a> {
    /// The text after the opening brace or the last member's value.
    rest: &'a str,
}

impl<'a> Iterator for Members<'a> {
    type Item = Member<'a>;

    fn next(&mut self) -> Option<Member<'a>> {
        let rest = self.rest.trim_ascii_start();
        let rest = rest.strip_prefix(',').unwrap_or(rest).trim_ascii_start();
        let (name, rest) = rest.split_at_checked(string_end(rest.as_bytes())?)?;
        let rest = rest.trim_ascii_start().strip_prefix(':')?.trim_ascii_start();
        let (value, rest) = rest.split_at_checked(value_end(rest.as_bytes())?)?;
        self.rest = rest;
        Some(Member { name, value })
    }
}

/// Returns the elements of an array; none if the text is another kind of value.
pub(crate) fn elements(json: &str) -> impl Iterator<Item = &str> {
    let mut rest = json.trim_ascii().strip_prefix('[').unwrap_or_default();
    std::iter::from_fn(move || {
        let range = next_element(rest.as_bytes())?;
        let value = rest.get(range.clone())?;
        rest = rest.get(range.end..)?;
        Some(value)
    })
}

/// Returns the range of the next element in the text after an array's bracket or its last element; `None` at the end of
/// the array.
pub(crate) fn next_element(rest: &[u8]) -> Option<Range<usize>> {
    let value = rest.trim_ascii_start();
    let value = value.strip_prefix(b",").unwrap_or(value).trim_ascii_start();
    let start = rest.len() - value.len();
    Some(start..start + value_end(value)?)
}

/// Changes to one text, applied together at the end.
#[derive(Debug)]
pub(crate) struct Splice<'a> {
    text: &'a str,
    /// Ranges and their replacements.
    changes: Vec<(Range<usize>, String)>,
}

impl<'a> Splice<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, changes: Vec::new() }
    }

    /// Replaces `part`, a slice of the text.
    pub(crate) fn replace(&mut self, part: &str, with: impl Into<String>) {
        let range = self.range(part);
        self.changes.push((range, with.into()));
    }

    /// Sets these members of an object in the text, replacing those of the same names, and removes those for which
    /// `without` returns true. Values are JSON. Values that stay can be changed separately.
    pub(crate) fn edit(&mut self, object: Object<'a>, set: &[(&str, &str)], without: impl Fn(&Member<'_>) -> bool) {
        let members: Vec<_> = object.members().collect();
        let is_gone = |member: &Member<'_>| without(member) || set.iter().any(|(name, _)| member.is(name));
        let start = self.range(object.0).start + 1;
        let mut added = String::new();
        for (name, value) in set {
            if !added.is_empty() {
                added.push(',');
            }
            added.push_str(&serde_json::Value::from(*name).to_string());
            added.push(':');
            added.push_str(value);
        }
        let stays = members.iter().any(|member| !is_gone(member));
        if stays && !added.is_empty() {
            added.push(',');
        }
        if !added.is_empty() {
            self.changes.push((start..start, added));
        }

        // Remove each run of members with the comma after it, or with the comma before it at the end.
        let mut end_of_last_kept = None;
        let mut run: Option<Range<usize>> = None;
        for member in &members {
            let (name, value) = (self.range(member.name), self.range(member.value));
            if is_gone(member) {
                run = Some(run.map_or(name.start, |run| run.start)..value.end);
            } else {
                if let Some(run) = run.take() {
                    self.changes.push((run.start..name.start, String::new()));
                }
                end_of_last_kept = Some(value.end);
            }
        }
        if let Some(run) = run {
            self.changes.push((end_of_last_kept.unwrap_or(run.start)..run.end, String::new()));
        }
    }

    /// Removes the elements of an array in the text for which `without` returns true.
    pub(crate) fn remove_elements(&mut self, array: &'a str, without: impl Fn(&str) -> bool) {
        let kept: Vec<_> = elements(array).filter(|element| !without(element)).collect();
        if kept.len() != elements(array).count() {
            self.replace(array, format!("[{}]", kept.join(",")));
        }
    }

    /// Returns the text with all changes.
    pub(crate) fn finish(mut self) -> Bytes {
        // The sort is stable: an insertion stays before a removal at the same place.
        self.changes.sort_by_key(|(range, _)| (range.start, range.end));
        let added: usize = self.changes.iter().map(|(_, with)| with.len()).sum();
        let mut bytes = BytesMut::with_capacity(self.text.len() + added);
        let mut done = 0;
        for (range, with) in &self.changes {
            bytes.extend_from_slice(self.text.get(done..range.start).unwrap_or_default().as_bytes());
            bytes.extend_from_slice(with.as_bytes());
            done = range.end;
        }
        bytes.extend_from_slice(self.text.get(done..).unwrap_or_default().as_bytes());
        bytes.freeze()
    }

    /// Returns the range of a slice of the text.
    fn range(&self, part: &str) -> Range<usize> {
        let start = part.as_ptr().addr().saturating_sub(self.text.as_ptr().addr());
        start..start + part.len()
    }
}

/// Returns the end of the string at the start of the text.
fn string_end(text: &[u8]) -> Option<usize> {
    if text.first() != Some(&b'"') {
        return None;
    }
    let mut at = 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
        match text.get(at)? {
            b'"' => return Some(at + 1),
            _ => at += 2,
        }
    }
}

/// Returns the end of the value at the start of the text. Keeps only a number for the depth, so deep values need no
/// memory.
pub(crate) fn value_end(text: &[u8]) -> Option<usize> {
    let end = end_of_value(text);
    #[cfg(test)]
    work::add(end.unwrap_or(text.len()));
    end
}

fn end_of_value(text: &[u8]) -> Option<usize> {
    match text.first()? {
        b'"' => string_end(text),
        b'{' | b'[' => {
            let mut depth = 0_usize;
            let mut at = 0;
            loop {
                match text.get(at)? {
                    b'"' => at += string_end(text.get(at..)?)?,
                    b'{' | b'[' => {
                        depth += 1;
                        at += 1;
                    }
                    b'}' | b']' => {
                        depth -= 1;
                        at += 1;
                        if depth == 0 {
                            return Some(at);
                        }
                    }
                    _ => at += 1,
                }
            }
        }
        b'}' | b']' | b',' | b':' => None,
        _ => {
            let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']') || byte.is_ascii_whitespace();
            Some(text.iter().position(ends).unwrap_or(text.len()))
        }
    }
}

/// Counts the bytes read to find the ends of values, for tests of how the work grows.
#[cfg(test)]
pub(crate) mod work {
    use std::cell::Cell;

    thread_local! {
        static BYTES: Cell<usize> = const { Cell::new(0) };
    }

    pub(super) fn add(bytes: usize) {
        BYTES.set(BYTES.get() + bytes);
    }

    /// Returns the bytes that this thread has counted since the last call.
    pub(crate) fn take() -> usize {
        BYTES.take()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::json::values::{short_names, values, written};

    fn edited(text: &str, set: &[(&str, &str)], without: &[&str]) -> String {
        let mut splice = Splice::new(text);
        splice.edit(Object::of(text).unwrap(), set, |member| without.iter().any(|name| member.is(name)));
        String::from_utf8(splice.finish().to_vec()).unwrap()
    }

    #[test]
    fn members_are_found_in_any_json_spelling() {
        let text = " { \"a\" : 1 ,\"b\\u0063\":[{\"a\":2},\"]\\\"\"],\"\":null , \"a\":{\"x\\\\\":-1e5}} ";
        let object = Object::of(text).unwrap();
        assert_eq!(object.get("a"), Some("{\"x\\\\\":-1e5}"), "the last one counts");
        assert_eq!(object.get("bc"), Some("[{\"a\":2},\"]\\\"\"]"));
        assert_eq!(object.get(""), Some("null"));
        assert_eq!(object.get("x"), None);
        assert_eq!(object.object("a").unwrap().get("x\\"), Some("-1e5"));
        assert_eq!(elements(object.get("bc").unwrap()).collect::<Vec<_>>(), ["{\"a\":2}", "\"]\\\"\""]);
        assert!(Object::of("[1]").is_none() && elements("{}").next().is_none());
    }

    #[test]
    fn bytes_outside_of_an_edit_are_unchanged() {
        for (text, set, without, expected) in [
            ("{}", &[("a", "1")][..], &[][..], r#"{"a":1}"#),
            ("{ }", &[("a", "1"), ("b", "{}")], &[], r#"{"a":1,"b":{} }"#),
            (r#"{ "x" : 1e400 }"#, &[("a", "1")], &[], r#"{"a":1, "x" : 1e400 }"#),
            (r#"{"a":0,"x":1}"#, &[("a", "1")], &[], r#"{"a":1,"x":1}"#),
            (r#"{"x":1, "a":0}"#, &[("a", "1")], &[], r#"{"a":1,"x":1}"#),
            (r#"{"a":0}"#, &[("a", "1")], &["a"], r#"{"a":1}"#),
            (r#"{"a":0,"b":1,"c":2}"#, &[], &["a"], r#"{"b":1,"c":2}"#),
            (r#"{"a":0 , "b":1, "c":2}"#, &[], &["b"], r#"{"a":0 , "c":2}"#),
            (r#"{"a":0,"b":1,"c":2}"#, &[], &["b", "c"], r#"{"a":0}"#),
            (r#"{"a":0,"b":1,"c":2}"#, &[], &["a", "c"], r#"{"b":1}"#),
            (r#"{ "a":0,"b":1 }"#, &[], &["a", "b"], r"{  }"),
        ] {
            assert_eq!(edited(text, set, without), expected, "{text}");
        }
    }

    #[test]
    fn nested_objects_can_be_edited_in_one_splice() {
        let text = r#"{"result":{"_meta":{"a":1,"b":2},"x":9007199254740993}}"#;
        let result = Object::of(text).unwrap().object("result").unwrap();
        let mut splice = Splice::new(text);
        splice.edit(result, &[("t", "\"c\"")], |_| false);
        splice.edit(result.object("_meta").unwrap(), &[], |member| member.is("a"));
        let expected = r#"{"result":{"t":"c","_meta":{"b":2},"x":9007199254740993}}"#;
        assert_eq!(splice.finish(), expected);
    }

    #[test]
    fn matching_array_elements_are_removed() {
        let text = r#"{"tools":[ {"name":"a"} , {"name":"b"}]}"#;
        let mut splice = Splice::new(text);
        splice.remove_elements(Object::of(text).unwrap().get("tools").unwrap(), |tool| tool.contains("\"a\""));
        assert_eq!(splice.finish(), r#"{"tools":[{"name":"b"}]}"#);
    }

    #[test]
    fn splicing_malformed_json_does_not_panic() {
        for text in ["{", "{\"a", "{\"a\":", "{\"a\":[", "{\"a\":\"\\", "{,", "{\"a\":}", "{\"é\":\"\\é"] {
            let object = Object::of(text).unwrap();
            let _ = edited(text, &[("a", "1")], &["b"]);
            assert!(object.members().count() <= 1, "{text}");
        }
    }

    proptest! {
        #[test]
        fn members_and_elements_match_those_of_serde_json(value in values(short_names()), pretty: bool) {
            let text = written(&value, pretty);
            match &value {
                Value::Object(expected) => {
                    let members: Vec<_> = Object::of(&text).unwrap().members().collect();
                    prop_assert_eq!(members.len(), expected.len());
                    for member in members {
                        let found: Value = serde_json::from_str(member.value).unwrap();
                        prop_assert_eq!(&found, &expected[&member.name()]);
                    }
                }
                Value::Array(expected) => {
                    let found: Vec<Value> = elements(&text).map(|one| serde_json::from_str(one).unwrap()).collect();
                    prop_assert_eq!(&found, expected);
                }
                _ => prop_assert!(Object::of(&text).is_none()),
            }
        }

        #[test]
        fn edited_text_parses_to_the_edited_object(value in values(short_names()), pretty: bool) {
            let Value::Object(mut expected) = value else { return Ok(()) };
            let text = written(&Value::Object(expected.clone()), pretty);
            let changed: Value = serde_json::from_str(&edited(&text, &[("a", "[7]")], &["b", "\""])).unwrap();
            expected.insert("a".into(), serde_json::json!([7]));
            expected.remove("b");
            expected.remove("\"");
            prop_assert_eq!(changed, Value::Object(expected));
        }
    }
}
