//! The table of the secrets that this process knows: the values of the user's headers, tokens, passwords, the session
//! and cookies.
//!
//! A server or a proxy may repeat a secret, for example in an error page that shows the request, with any escapes that
//! such pages use.
//!
//! There is one table per process, as there is one log. A value is in it while its [`Concealed`] lives, so the owner of
//! the value keeps both. Only [`crate::text`] reads the table, when a text is shown or stored. So forwarding a message
//! costs nothing, and every text that is shown is covered.
//!
//! Rule: text that is not secret is shown. Values of less than [`MIN_VALUE_BYTES`] bytes occur in ordinary words and are not
//! searched for. Nor are forms that no page writes, like the value backwards or encrypted.

use std::{
    fmt,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD},
};
use http::{HeaderMap, HeaderName, header};
use memchr::memmem::Finder;
use url::Url;

/// The shortest value that is searched for, in bytes.
const MIN_VALUE_BYTES: usize = 6;
/// A value is recognized by its beginning, of at most this many bytes, and blanked as far as the text matches it.
const MATCHED_PREFIX_BYTES: usize = 128;
/// The most bytes that one byte of a value takes when it is escaped, as in `&#x000041;`.
const MAX_ESCAPE_BYTES: usize = 12;
/// The most bytes of a text that are needed to recognize a value.
pub(crate) const MAX_PREFIX_BYTES: usize = MATCHED_PREFIX_BYTES * MAX_ESCAPE_BYTES;
/// Headers with values that are not secret and appear in the bridge's own texts.
const OPEN: [HeaderName; 4] = [header::ACCEPT_LANGUAGE, header::HOST, header::ORIGIN, header::USER_AGENT];

/// Values that are blanked in every shown text while this lives.
#[derive(Clone, Default)]
pub(crate) struct Concealed(#[expect(dead_code, reason = "the table has weak references to it")] Option<Arc<Values>>);

type Values = [SecretValue];

struct SecretValue {
    beginning: Finder<'static>,
    rest: Vec<u8>,
}

static TABLE: Mutex<Vec<Weak<Values>>> = Mutex::new(Vec::new());

impl Concealed {
    /// Conceals these values in all their spellings.
    pub(crate) fn new<T: AsRef<[u8]>>(values: impl IntoIterator<Item = T>) -> Self {
        let mut all = Vec::new();
        for value in values {
            all.extend(spellings(value.as_ref()));
        }
        all.retain(|value| value.len() >= MIN_VALUE_BYTES);
        all.sort_unstable();
        all.dedup();
        if all.is_empty() {
            return Self::default();
        }
        let values: Arc<Values> = all.iter().map(|value| SecretValue::new(value)).collect();
        let mut table = table();
        table.retain(|known| known.strong_count() > 0);
        table.push(Arc::downgrade(&values));
        Self(Some(values))
    }

    /// Conceals the values of the user's headers.
    pub(crate) fn headers(headers: &HeaderMap) -> Self {
        let secret = headers.iter().filter(|(name, _)| !OPEN.contains(name));
        Self::new(secret.flat_map(|(name, value)| parts(name, value.as_bytes())))
    }

    /// Conceals the query, user and password of a URL.
    pub(crate) fn url(url: &Url) -> Self {
        Self::new(of_url(url))
    }
}

impl fmt::Debug for Concealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Concealed")
    }
}

impl SecretValue {
    fn new(value: &[u8]) -> Self {
        let (beginning, rest) = value.split_at_checked(MATCHED_PREFIX_BYTES).unwrap_or((value, &[]));
        Self { beginning: Finder::new(beginning).into_owned(), rest: rest.to_vec() }
    }

    fn places_in<'a>(&'a self, bytes: &'a [u8]) -> impl Iterator<Item = Range<usize>> + 'a {
        self.beginning.find_iter(bytes).map(|start| {
            let end = start + self.beginning.needle().len();
            let after = bytes.get(end..).unwrap_or_default();
            start..end + after.iter().zip(&self.rest).take_while(|(one, other)| one == other).count()
        })
    }
}

/// Returns the ranges of secrets in a text, sorted, without overlaps, and at character boundaries.
pub(crate) fn places_in(text: &str) -> Vec<Range<usize>> {
    let known: Vec<_> = table().iter().filter_map(Weak::upgrade).collect();
    if known.is_empty() {
        return Vec::new();
    }
    let mut places = Vec::new();
    for reading in readings(text) {
        for value in known.iter().flat_map(|values| values.iter()) {
            for place in value.places_in(&reading.bytes) {
                let (start, end) = (reading.source(place.start), reading.source(place.end));
                places.push(text.floor_char_boundary(start)..text.ceil_char_boundary(end));
            }
        }
    }
    places.sort_unstable_by_key(|place| place.start);
    places.dedup_by(|next, last| {
        let touches = next.start <= last.end;
        if touches {
            last.end = last.end.max(next.end);
        }
        touches
    });
    places
}

fn table() -> MutexGuard<'static, Vec<Weak<Values>>> {
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the secrets in a header: its value, the credentials after the scheme, the user and password of `Basic`, and
/// the values of parameters in headers that have some.
fn parts(name: &HeaderName, value: &[u8]) -> Vec<Vec<u8>> {
    let mut parts = vec![value.to_vec()];
    let (scheme, credentials) = match memchr::memchr(b' ', value) {
        Some(space) => value.split_at(space),
        None => (&[][..], value),
    };
    let credentials = credentials.trim_ascii();
    parts.push(credentials.to_vec());
    if scheme.eq_ignore_ascii_case(b"basic")
        && let Ok(pair) = STANDARD.decode(credentials).or_else(|_| STANDARD_NO_PAD.decode(credentials))
    {
        parts.extend(pair.splitn(2, |&byte| byte == b':').map(<[u8]>::to_vec));
        parts.push(pair);
    }
    if *name == header::COOKIE || name.as_str().ends_with("authorization") {
        let pairs = value.split(|byte| b";,".contains(byte));
        let values = pairs.filter_map(|pair| Some(pair.splitn(2, |&byte| byte == b'=').nth(1)?.trim_ascii()));
        parts.extend(values.map(|value| unquoted(value).to_vec()));
    }
    parts
}

fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(value)
}

/// Returns the secrets in a URL, both as written and decoded.
pub(crate) fn of_url(url: &Url) -> Vec<Vec<u8>> {
    let meant = |text: &str| {
        let read = Reading::of(text);
        read.without(&PERCENT).unwrap_or(read).bytes
    };
    let (user, password) = (url.username(), url.password().unwrap_or_default());
    let mut values = vec![user.into(), password.into(), meant(user), meant(password)];
    if !password.is_empty() {
        // The encoded form that is sent.
        values.push(STANDARD.encode([meant(user), meant(password)].join(&b':')).into());
    }
    let query = url.query().unwrap_or_default();
    values.push(query.into());
    values.extend(query.split('&').filter_map(|pair| Some(pair.split_once('=')?.1.into())));
    for (_, value) in url.query_pairs() {
        // Forms write a space as a plus.
        values.extend([value.replace(' ', "+").into(), value.into_owned().into()]);
    }
    values
}

/// Returns the bytes that a value can have in a page of UTF-8: its own and, if it is not ASCII, those from a server
/// that reads it as Latin-1 or as invalid UTF-8.
fn spellings(value: &[u8]) -> Vec<Vec<u8>> {
    if value.is_ascii() {
        return vec![value.to_vec()];
    }
    let latin: String = value.iter().map(|&byte| char::from(byte)).collect();
    vec![value.to_vec(), latin.into(), String::from_utf8_lossy(value).into_owned().into()]
}

/// A text with some of its escapes undone.
struct Reading {
    bytes: Vec<u8>,
    /// The position of each byte in the original text, and that of the end. Empty if the positions are the same.
    places: Vec<usize>,
}

impl Reading {
    fn of(text: &str) -> Self {
        Self { bytes: text.into(), places: Vec::new() }
    }

    fn source(&self, at: usize) -> usize {
        self.places.get(at).copied().unwrap_or(at)
    }

    /// Undoes one more kind of escape; `None` if the text has none of that kind.
    fn without(&self, escapes: &Escapes) -> Option<Self> {
        memchr::memchr(escapes.begin, &self.bytes)?;
        let mut read = Self { bytes: Vec::new(), places: Vec::new() };
        let mut at = 0;
        while let Some(&byte) = self.bytes.get(at) {
            let rest = self.bytes.get(at + 1..).unwrap_or_default();
            let undone = if byte == escapes.begin { (escapes.read)(rest) } else { None };
            let (meant, length) = undone.unwrap_or((Unescaped::Byte(byte), 0));
            let mut buffer = [0; 4];
            let meant = match meant {
                Unescaped::Byte(byte) => &[byte][..],
                Unescaped::Char(c) => c.encode_utf8(&mut buffer).as_bytes(),
            };
            read.bytes.extend(meant);
            read.places.extend(meant.iter().map(|_| self.source(at)));
            at += 1 + length;
        }
        read.places.push(self.source(at));
        (read.bytes.len() < self.bytes.len()).then_some(read)
    }
}

/// Returns the text unchanged and with any one or two kinds of escapes undone: HTML that quotes JSON has two.
fn readings(text: &str) -> Vec<Reading> {
    let mut readings = vec![Reading::of(text)];
    let mut from = 0;
    for _ in 0..2 {
        let to = readings.len();
        let further: Vec<_> =
            readings.iter().skip(from).flat_map(|it| ESCAPES.iter().filter_map(|e| it.without(e))).collect();
        readings.extend(further);
        from = to;
    }
    readings
}

/// A kind of escape: its first byte, and a function that reads the bytes after it and returns the meaning and their
/// count.
struct Escapes {
    begin: u8,
    read: fn(&[u8]) -> Option<(Unescaped, usize)>,
}

enum Unescaped {
    Byte(u8),
    Char(char),
}

const PERCENT: Escapes = Escapes { begin: b'%', read: percent };

/// The escapes of URLs, of JSON and programming languages, and of HTML.
const ESCAPES: [Escapes; 3] =
    [PERCENT, Escapes { begin: b'\\', read: backslash }, Escapes { begin: b'&', read: entity }];

fn percent(rest: &[u8]) -> Option<(Unescaped, usize)> {
    Some((Unescaped::Byte(u8::try_from(number(rest.get(..2)?, 16)?).ok()?), 2))
}

fn backslash(rest: &[u8]) -> Option<(Unescaped, usize)> {
    let byte = |byte| Some((Unescaped::Byte(byte), 1));
    match rest.first()? {
        b'n' => byte(b'\n'),
        b'r' => byte(b'\r'),
        b't' => byte(b'\t'),
        b'x' => Some((Unescaped::Byte(u8::try_from(number(rest.get(1..3)?, 16)?).ok()?), 3)),
        b'u' if rest.get(1) == Some(&b'{') => {
            let digits = rest.get(2..)?.iter().take(8).position(|&byte| byte == b'}')?;
            Some((Unescaped::Char(char::from_u32(number(rest.get(2..2 + digits)?, 16)?)?), digits + 3))
        }
        b'u' => {
            let unit = number(rest.get(1..5)?, 16)?;
            if let Some(c) = char::from_u32(unit) {
                return Some((Unescaped::Char(c), 5));
            }
            // The second half of a surrogate pair follows.
            let second = number(rest.get(5..11)?.strip_prefix(b"\\u")?, 16)?;
            let pair = [u16::try_from(unit).ok()?, u16::try_from(second).ok()?];
            Some((Unescaped::Char(char::decode_utf16(pair).next()?.ok()?), 11))
        }
        &other if other.is_ascii_punctuation() => byte(other),
        _ => None,
    }
}

fn entity(rest: &[u8]) -> Option<(Unescaped, usize)> {
    let length = rest.iter().take(10).position(|&byte| byte == b';')?;
    let c = match rest.get(..length)? {
        b"amp" => '&',
        b"lt" => '<',
        b"gt" => '>',
        b"quot" => '"',
        b"apos" => '\'',
        [b'#', b'x' | b'X', digits @ ..] => char::from_u32(number(digits, 16)?)?,
        [b'#', digits @ ..] => char::from_u32(number(digits, 10)?)?,
        _ => return None,
    };
    Some((Unescaped::Char(c), length + 1))
}

fn number(digits: &[u8], radix: u32) -> Option<u32> {
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, radix).ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::text::{excerpt, shown};

    /// Conceals canaries that no other test uses, as all tests share the table.
    fn headers(pairs: &[(&'static str, &str)]) -> Concealed {
        let pairs =
            pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()));
        Concealed::headers(&pairs.collect())
    }

    #[test]
    fn secret_is_redacted_in_every_encoding() {
        let value = r#"q/7"<&>'\%+kanarie ß"#;
        let _concealed = headers(&[("x-api-key", value)]);
        let percent = |wide: bool| {
            let write = |byte: u8| match byte {
                b'a'..=b'z' | b'0'..=b'9' if !wide => char::from(byte).to_string(),
                0x27..=0x2f => format!("%{byte:02x}"),
                _ => format!("%{byte:02X}"),
            };
            value.bytes().map(write).collect::<Vec<_>>().concat()
        };
        let json = serde_json::to_string(value).unwrap();
        let html = value
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;")
            .replace('"', "&#34;")
            .replace('\'', "&#x27;");
        let units =
            |value: &str| value.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect::<Vec<_>>().concat();
        for text in [
            value.to_owned(),
            percent(false),
            percent(true),
            json.clone(),
            json.replace('/', "\\/"),
            html.clone(),
            units(value),
            serde_json::to_string(&html).unwrap(),
            json.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;").replace('>', "&gt;"),
            percent(true).replace('%', "%25"),
            format!("{value:?}"),
            value.bytes().map(char::from).collect(),
            format!("{value}{value}"),
        ] {
            let page = format!("X-Api-Key: {text}; that is all");
            let shown = shown(page.as_str());
            assert!(!shown.contains("kanarie") && shown.contains("[secret]"), "{shown}");
            assert!(shown.starts_with("X-Api-Key: ") && shown.ends_with("; that is all"), "{shown}");
        }
    }

    #[test]
    fn credentials_are_redacted_without_their_scheme_too() {
        let basic = STANDARD.encode("kanarie-user:kanarie-word:2");
        let _concealed = headers(&[
            ("authorization", &format!("Basic {basic}")),
            ("proxy-authorization", r#"Digest username="dig-kanarie", response=resp-kanarie"#),
            ("x-token", "Bearer kanarie-token"),
            ("cookie", "a=cookie-kanarie; b=\"other-kanarie\""),
            ("origin", "https://open-kanarie.example"),
        ]);
        for (page, blanked) in [
            (basic.as_str(), "[secret]"),
            ("hello kanarie-user!", "hello [secret]!"),
            ("word kanarie-word:2.", "word [secret]."),
            ("dig-kanarie or resp-kanarie", "[secret] or [secret]"),
            ("the token kanarie-token is stale", "the token [secret] is stale"),
            ("cookie-kanarie other-kanarie", "[secret] [secret]"),
            ("from https://open-kanarie.example", "from https://open-kanarie.example"),
        ] {
            assert_eq!(shown(page), blanked);
        }
    }

    #[test]
    fn secret_that_crosses_the_excerpt_cut_is_redacted() {
        let value = "kanarie-long-".repeat(100);
        let _concealed = headers(&[("x-long", &value)]);
        let encoded = value.bytes().map(|byte| format!("%{byte:02X}")).collect::<Vec<_>>().concat();
        for at in [0, 100, 500, 505, 511] {
            for value in [&value, &encoded] {
                let page = format!("{}{value} and so on, {value}", "x".repeat(at));
                let shown = excerpt(&page, 512);
                assert!(!shown.contains("kana") && !shown.contains("%6B") && shown.len() <= 512, "{at}: {shown}");
            }
        }
        assert_eq!(shown(format!("cut: {}", &value[..500])), "cut: [secret]", "as the server has cut it");
    }

    #[test]
    fn short_or_dropped_values_are_not_redacted() {
        let concealed = headers(&[("x-short", "abcde"), ("x-other", "kanarie-gone")]);
        assert_eq!(shown("abcde kanarie-gone"), "abcde [secret]");
        drop(concealed);
        assert_eq!(shown("abcde kanarie-gone"), "abcde kanarie-gone");
    }

    #[test]
    fn malformed_escapes_do_not_prevent_redaction() {
        let _concealed = headers(&[("x-api-key", "kanarie-escape")]);
        for text in [
            "%",
            "%4",
            "%zz",
            "\\",
            "\\u",
            "\\u12",
            "\\ud800",
            "\\ud800\\u0041",
            "\\u{",
            "\\u{110000}",
            "&",
            "&#",
            "&#;",
            "&#x;",
            "&#99999999;",
            "é%\u{e9}",
        ] {
            let page = format!("{text}kanarie-escape{text}");
            assert!(shown(page.as_str()).contains("[secret]"), "{text}");
        }
    }
}
