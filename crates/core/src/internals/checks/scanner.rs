//! Checks the scanner against `serde_json`.

use serde_json::value::RawValue;

use super::{
    Input,
    members::{Members, place},
};
use crate::{
    json::scanner::{
        Expected, JsonFault, KeptText, MAX_KEPT_BYTES, MemberKind, Outline, Places, ResponseOutline, Scanner, Shape,
        Version,
    },
    wire::revision,
};

/// Checks that the scanner agrees with `serde_json` on any bytes.
pub fn scanner(input: &[u8]) {
    let input = Input::read(input);
    let result = scan([&*input.text]);
    for chunks in input.cuts() {
        let other = scan(chunks);
        assert!(other == result, "{}: {other:?}, not {result:?}", input.shown());
    }
    agrees(&input.text, &result);
}

/// Scans a text in these chunks.
pub(crate) fn scan<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Result<Outline, JsonFault> {
    let mut scanner = Scanner::new();
    let mut fault = None;
    for chunk in chunks {
        let result = scanner.feed(chunk);
        assert!(fault.is_none() || result.err() == fault, "{result:?} after {fault:?}");
        fault = result.err();
    }
    let result = scanner.finish();
    assert!(fault.is_none() || result.as_ref().err() == fault.as_ref(), "{result:?} after {fault:?}");
    assert_eq!(scanner.finish(), Err(JsonFault::Empty), "it is not ready for another text");
    result
}

/// Compares the scanner's result with that of `serde_json`.
pub(crate) fn agrees(text: &[u8], result: &Result<Outline, JsonFault>) {
    let shown = String::from_utf8_lossy(text.get(..2000).unwrap_or(text));
    match (result, serde(text)) {
        (Ok(outline), Ok(())) => {
            let value = usize::try_from(outline.value.start).unwrap()..usize::try_from(outline.value.end).unwrap();
            assert_eq!(&text[value.clone()], without_mark(text).trim_ascii(), "{shown:?}");
            assert_eq!(outline.length, text.len() as u64);
            // Valid JSON has raw line breaks between tokens only.
            assert_eq!(outline.line_breaks, memchr::memchr2(b'\r', b'\n', &text[value]).is_some(), "{shown:?}");
            let text = std::str::from_utf8(text).unwrap();
            assert_eq!(*outline, expected(text, outline), "{shown:?}");
        }
        (Err(JsonFault::Incomplete { at }), Err(Some(error))) => {
            // To `serde_json`, half a number at the end of a text is a syntax error.
            let is_number = text.last().is_some_and(|last| b"-+.eE".contains(last));
            assert!(error.is_eof() || is_number, "{shown:?}: {error}");
            assert_eq!(*at, text.len() as u64);
        }
        (Err(JsonFault::Empty), Err(Some(error))) => assert!(error.is_eof(), "{shown:?}: {error}"),
        (Err(JsonFault::Syntax { at, expected }), Err(Some(error))) => {
            // `serde_json` reads the four digits of an escape in one step, and reports a text that ends within them as
            // ended.
            assert!(error.is_syntax() || *expected == Expected::HexDigit, "{shown:?}: {error}");
            assert!(*at < text.len() as u64);
        }
        (Err(JsonFault::NotUtf8 { at }), Err(None)) => {
            assert_eq!(*at, std::str::from_utf8(text).unwrap_err().valid_up_to() as u64, "{shown:?}");
        }
        // The scanner reports the first of several faults.
        (Err(JsonFault::Syntax { at, .. }), Err(None)) => {
            assert!(*at <= std::str::from_utf8(text).unwrap_err().valid_up_to() as u64, "{shown:?}");
        }
        (Err(JsonFault::Incomplete { .. }), Err(None)) => {
            assert!(std::str::from_utf8(text).unwrap_err().error_len().is_none(), "{shown:?}");
        }
        (result, serde) => panic!("{shown:?}: {result:?}, but {serde:?}"),
    }
}

/// Parses the text with `serde_json`.
fn serde(text: &[u8]) -> Result<(), Option<serde_json::Error>> {
    let text = std::str::from_utf8(without_mark(text)).map_err(|_| None)?;
    serde_json::from_str::<&RawValue>(text).map(drop).map_err(Some)
}

/// Returns the outline that `serde_json` finds. The other fields are those of `found`.
fn expected(text: &str, found: &Outline) -> Outline {
    let json = text.strip_prefix("\u{feff}").unwrap_or(text);
    let shape = match json.trim_ascii().as_bytes().first() {
        Some(b'{') => Shape::Object,
        Some(b'[') => Shape::Array,
        _ => Shape::Other,
    };
    let members = Members::of(json);
    let get = |name| members.as_ref().and_then(|members| members.get(name));
    let kept = |name| {
        let value: &str = get(name)?;
        let kept = (value.len() <= MAX_KEPT_BYTES).then(|| value.as_bytes().into());
        Some(KeptText { range: place(text, value), is_string: value.starts_with('"'), text: kept })
    };
    let meta = get("params").and_then(Members::of).and_then(|params| params.get("_meta")).and_then(Members::of);
    Outline {
        shape,
        id: kept("id"),
        method: kept("method"),
        answer: expected_answer(text, members.as_ref(), &found.answer),
        names_version: meta.is_some_and(|meta| meta.get(revision::PROTOCOL_VERSION).is_some()),
        ..found.clone()
    }
}

/// Returns the outline of a response. The cuts, which remove a `null` member, are those of `found`.
fn expected_answer(text: &str, members: Option<&Members<'_>>, found: &ResponseOutline) -> ResponseOutline {
    let get = |name: &str| members.and_then(|members| members.get(name));
    let member = |name: &str| match get(name) {
        None => MemberKind::Absent,
        _ if members.is_some_and(|members| members.is_doubtful(name)) => MemberKind::Several,
        Some("null") => MemberKind::Null,
        Some(_) => MemberKind::Value,
    };
    let (result, error) = (member("result"), member("error"));
    let mut places = found.places.as_deref().cloned().unwrap_or_default();
    for (member, cut) in [(result, &places.result), (error, &places.error)] {
        if member == MemberKind::Null {
            let (start, end) = (usize::try_from(cut.start).unwrap(), usize::try_from(cut.end).unwrap());
            let kept = [&text[..start], &text[end..]].concat();
            assert!(start < end && Members::of(kept.trim_start_matches('\u{feff}')).is_some(), "{kept:?}");
        }
    }
    let version = get("jsonrpc");
    if version == Some("null") {
        places.version = place(text, version.unwrap_or_default());
    }
    let error_object = get("error").and_then(Members::of);
    let of_error = |name| error_object.as_ref().and_then(|error| error.get(name));
    let is_number = |value: &&str| value.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    places.code = of_error("code").filter(is_number).map(|code| place(text, code).start);
    ResponseOutline {
        version: match version {
            None => Version::Absent,
            Some("null") => Version::Null,
            Some(version) if serde_json::from_str::<String>(version).is_ok_and(|text| text == "2.0") => Version::Two,
            Some(_) => Version::Other,
        },
        result,
        error,
        has_message: of_error("message").is_some_and(|message| message.starts_with('"')),
        places: found.places.as_ref().map(|_| Box::new(places.clone())).or_else(|| {
            assert_eq!(places, Places::default());
            None
        }),
    }
}

fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text)
}
