//! Changes to JSON that leave every other byte as it was: members of objects are found, set and removed in the text (R3).
//!
//! The text must be valid JSON, as [`crate::wire::message::Message`] has checked it to be. Anything else gives no nonsense worse
//! than no members, and never a panic.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

/// An object in a text, from brace to brace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Object<'a>(&'a str);

/// A member of an object: its name as it is written, quotes and all, and its value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member<'a> {
    name: &'a str,
    pub(crate) value: &'a str,
}

impl<'a> Object<'a> {
    /// The object that this text is; `None` if it is another kind of value.
    pub(crate) fn of(json: &'a str) -> Option<Self> {
        let json = json.trim_ascii();
        json.starts_with('{').then_some(Self(json))
    }

    /// The value of a member; the last one's, if there are several of that name.
    pub(crate) fn get(self, name: &str) -> Option<&'a str> {
        self.members().filter(|member| member.is(name)).last().map(|member| member.value)
    }

    /// The value of a member that is an object.
    pub(crate) fn object(self, name: &str) -> Option<Object<'a>> {
        self.get(name).and_then(Object::of)
    }

    /// The value of a member that is a string, unescaped.
    pub(crate) fn string(self, name: &str) -> Option<String> {
        self.get(name).and_then(|value| serde_json::from_str(value).ok())
    }

    /// All members, in their order.
    pub(crate) fn members(self) -> Members<'a> {
        Members { rest: self.0.get(1..).unwrap_or_default() }
    }

    /// The text, from brace to brace.
    pub(crate) fn as_str(self) -> &'a str {
        self.0
    }
}

impl<'a> Member<'a> {
    /// Its name as it is written, quotes and all.
    pub(crate) fn written_name(&self) -> &'a str {
        self.name
    }

    /// Whether this is its name, however it is escaped.
    pub(crate) fn is(&self, name: &str) -> bool {
        match self.name.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            Some(plain) if !plain.contains('\\') => plain == name,
            _ => self.name() == name,
        }
    }

    /// Its name, unescaped; empty if that has no Rust spelling.
    pub(crate) fn name(&self) -> String {
        serde_json::from_str(self.name).unwrap_or_default()
    }
}

/// See [`Object::members`].
#[derive(Clone, Debug)]
pub(crate) struct Members<'a> {
    /// What follows the opening brace or the last member's value.
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

/// The elements of an array; none if the text is another kind of value.
pub(crate) fn elements(json: &str) -> impl Iterator<Item = &str> {
    let mut rest = json.trim_ascii().strip_prefix('[').unwrap_or_default();
    std::iter::from_fn(move || {
        let range = next_element(rest.as_bytes())?;
        let value = rest.get(range.clone())?;
        rest = rest.get(range.end..)?;
        Some(value)
    })
}

/// Where the next element stands in what follows an array's bracket or its last element; `None` at the array's end.
pub(crate) fn next_element(rest: &[u8]) -> Option<Range<usize>> {
    let value = rest.trim_ascii_start();
    let value = value.strip_prefix(b",").unwrap_or(value).trim_ascii_start();
    let start = rest.len() - value.len();
    Some(start..start + value_end(value)?)
}

/// Changes to one text, made together at the end.
#[derive(Debug)]
pub(crate) struct Splice<'a> {
    text: &'a str,
    /// What is put in the place of which bytes.
    changes: Vec<(Range<usize>, String)>,
}

impl<'a> Splice<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, changes: Vec::new() }
    }

    /// Puts other text in the place of `part`, a slice of the whole.
    pub(crate) fn replace(&mut self, part: &str, with: impl Into<String>) {
        let range = self.range(part);
        self.changes.push((range, with.into()));
    }

    /// Gives an object of the text these members, in the place of those of the same names, and takes away those that
    /// `without` names. Values are JSON. Changes to values that stay can be made beside this.
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

        // Each run of members that go: with the comma after it, or before it at the end.
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

    /// Takes elements of an array of the text away.
    pub(crate) fn remove_elements(&mut self, array: &'a str, without: impl Fn(&str) -> bool) {
        let kept: Vec<_> = elements(array).filter(|element| !without(element)).collect();
        if kept.len() != elements(array).count() {
            self.replace(array, format!("[{}]", kept.join(",")));
        }
    }

    /// The text with all changes.
    pub(crate) fn finish(mut self) -> Bytes {
        // Stable: what is put in at a place stays before what is taken away there.
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

    /// Where a slice of the text stands in it.
    fn range(&self, part: &str) -> Range<usize> {
        let start = part.as_ptr().addr().saturating_sub(self.text.as_ptr().addr());
        start..start + part.len()
    }
}

/// Where the string that the text begins with ends.
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

/// Where the value that the text begins with ends. However deep it is, no more than a number is kept of its depth.
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

/// Counts the bytes that are looked at to find where values end, for tests of how the work grows.
#[cfg(test)]
pub(crate) mod work {
    use std::cell::Cell;

    thread_local! {
        static BYTES: Cell<usize> = const { Cell::new(0) };
    }

    pub(super) fn add(bytes: usize) {
        BYTES.set(BYTES.get() + bytes);
    }

    /// The bytes since this was last asked, by this thread.
    pub(crate) fn take() -> usize {
        BYTES.take()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn edited(text: &str, set: &[(&str, &str)], without: &[&str]) -> String {
        let mut splice = Splice::new(text);
        splice.edit(Object::of(text).unwrap(), set, |member| without.iter().any(|name| member.is(name)));
        String::from_utf8(splice.finish().to_vec()).unwrap()
    }

    #[test]
    fn members_are_found_however_they_are_written() {
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
    fn every_other_byte_stays() {
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
    fn changes_inside_of_values_that_stay_are_made_beside() {
        let text = r#"{"result":{"_meta":{"a":1,"b":2},"x":9007199254740993}}"#;
        let result = Object::of(text).unwrap().object("result").unwrap();
        let mut splice = Splice::new(text);
        splice.edit(result, &[("t", "\"c\"")], |_| false);
        splice.edit(result.object("_meta").unwrap(), &[], |member| member.is("a"));
        let expected = r#"{"result":{"t":"c","_meta":{"b":2},"x":9007199254740993}}"#;
        assert_eq!(splice.finish(), expected);
    }

    #[test]
    fn elements_are_removed() {
        let text = r#"{"tools":[ {"name":"a"} , {"name":"b"}]}"#;
        let mut splice = Splice::new(text);
        splice.remove_elements(Object::of(text).unwrap().get("tools").unwrap(), |tool| tool.contains("\"a\""));
        assert_eq!(splice.finish(), r#"{"tools":[{"name":"b"}]}"#);
    }

    #[test]
    fn broken_text_gives_nothing_and_no_panic() {
        for text in ["{", "{\"a", "{\"a\":", "{\"a\":[", "{\"a\":\"\\", "{,", "{\"a\":}", "{\"é\":\"\\é"] {
            let object = Object::of(text).unwrap();
            let _ = edited(text, &[("a", "1")], &["b"]);
            assert!(object.members().count() <= 1, "{text}");
        }
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[\\PC\"\\\\\n,:{}]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec(("[abc\"\\\\é]{0,2}", inner), 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_found_is_what_a_json_reader_finds(value in json(), pretty: bool) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
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
        fn an_edit_is_what_a_json_reader_would_make(value in json(), pretty: bool) {
            let Value::Object(mut expected) = value else { return Ok(()) };
            let text = if pretty { serde_json::to_string_pretty(&expected) } else { serde_json::to_string(&expected) };
            let changed: Value = serde_json::from_str(&edited(&text.unwrap(), &[("a", "[7]")], &["b", "\""])).unwrap();
            expected.insert("a".into(), serde_json::json!([7]));
            expected.remove("b");
            expected.remove("\"");
            prop_assert_eq!(changed, Value::Object(expected));
        }
    }
}
