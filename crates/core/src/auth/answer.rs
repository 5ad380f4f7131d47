//! Cleans up responses of authorization servers and metadata documents for the libraries that parse them.
//!
//! The libraries check the meaning of a response, but not its cost. They compare lists with themselves, query each of
//! a million servers, add seconds without an overflow check, and put any text of the server into errors and logs.
//!
//! They are also stricter than real servers, which write numbers as strings and lists as one string, use null for
//! missing values, leave out the obvious, and refuse with HTTP 200. If only one meaning is possible, it is what the
//! libraries get. Values that tell servers apart (issuer, resource) are never made up.
//!
//! Rules: a response is one object of strings, numbers and lists of strings, as everywhere in OAuth. Deeper values
//! are left out without parsing them. Lists have a maximum length, and a time in seconds can be added to a clock.
//! Secrets that were sent are blanked in the response, except in the members that carry tokens. The work is linear in
//! the response.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, header};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value, value::RawValue};
use url::form_urlencoded::{self, byte_serialize};

use crate::{json::splice::Object, wire::error_text};

/// The most members of a response. Large providers use about fifty.
const MAX_MEMBERS: usize = 1000;
/// The most entries of a list that are read.
const MAX_ENTRIES: usize = 1000;
/// The most authorization servers of one MCP server that are tried. Each costs a few requests.
const MAX_SERVERS: usize = 8;
/// The longest accepted life of a token or a code: ten years.
const MAX_TOKEN_LIFETIME: Duration = Duration::from_hours(24 * 3650);
/// The allowed polling intervals of a device, in seconds (RFC 8628, 3.2; the default is 5).
const DEVICE_WAITS: std::ops::RangeInclusive<u64> = 1..=60;
/// The life of a device code if the response does not say.
const DEVICE_LIFE: Duration = Duration::from_mins(10);
/// Replaces a secret.
const BLANK: &str = "[…]";
/// A text shorter than this, in bytes, is not treated as a secret, because it occurs in many words.
const MIN_SECRET_BYTES: usize = 6;
/// The longest text to keep of a refusal that is not an object, in bytes.
const MAX_TEXT_BYTES: usize = 4096;

/// The form parameters that are secrets, or stand for one.
const SECRETS: [&str; 8] = [
    "assertion",
    "client_assertion",
    "client_secret",
    "code",
    "code_verifier",
    "device_code",
    "refresh_token",
    "token",
];
/// The members that show success. With one of them, `error` is not a refusal.
const GRANTS: [&str; 3] = ["access_token", "client_id", "device_code"];
/// The beginnings of responses that are forms.
const FORMS: [&[u8]; 4] = [b"access_token=", b"error=", b"token_type=", b"device_code="];
/// The members that carry tokens.
const TOKENS: [&str; 5] = ["access_token", "client_secret", "device_code", "id_token", "refresh_token"];

/// Secrets to hide, in each encoding in which they may come back.
#[derive(Debug, Default)]
pub(super) struct Secrets(Vec<String>);

impl Secrets {
    /// Collects the secrets of a request.
    pub(super) fn of(headers: &HeaderMap, form: &[u8]) -> Self {
        let mut secrets = Self::default();
        for (name, value) in form_urlencoded::parse(form) {
            if SECRETS.contains(&&*name) {
                secrets.add(&value);
            }
        }
        let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        if let Some((_, credentials)) = authorization.and_then(|value| value.split_once(' ')) {
            secrets.add(credentials);
            let plain = STANDARD.decode(credentials).ok().and_then(|plain| String::from_utf8(plain).ok());
            if let Some((_, secret)) = plain.as_deref().and_then(|plain| plain.split_once(':')) {
                secrets.add(secret);
                let decoded = form_urlencoded::parse(secret.as_bytes()).next();
                secrets.add(&decoded.map(|(decoded, _)| decoded).unwrap_or_default());
            }
        }
        secrets
    }

    pub(super) fn add(&mut self, secret: &str) {
        let encoded: String = byte_serialize(secret.as_bytes()).collect();
        self.0.extend([secret.to_owned(), encoded].into_iter().filter(|form| form.len() >= MIN_SECRET_BYTES));
        // The longest first, because one may be part of another.
        self.0.sort_unstable_by_key(|form| std::cmp::Reverse(form.len()));
        self.0.dedup();
    }

    pub(super) fn blanked(&self, text: String) -> String {
        self.0.iter().fold(text, |text, secret| if text.contains(secret) { text.replace(secret, BLANK) } else { text })
    }
}

/// A cleaned-up response.
#[derive(Debug)]
pub(super) struct CleanedResponse {
    pub(super) body: Vec<u8>,
    /// True if it is one object, in any format.
    pub(super) is_object: bool,
    /// The code of a refusal (RFC 6749, 5.2).
    pub(super) refusal: Option<String>,
}

/// Cleans up the body of a response to a POST. A refusal may be any text.
pub(super) fn tidy(body: &[u8], is_refusal: bool, secrets: &Secrets) -> CleanedResponse {
    let members = serde_json::from_slice(body).ok().map(|AnswerMembers(members)| members);
    let Some(members) = members.or_else(|| of_form(body)) else {
        return CleanedResponse {
            body: if is_refusal { text(body, secrets) } else { Vec::new() },
            is_object: false,
            refusal: None,
        };
    };
    let refusal = members.get("error").and_then(Value::as_str).filter(|error| !error.is_empty());
    let grants = GRANTS.iter().any(|name| members.contains_key(*name));
    let refusal = refusal.filter(|_| is_refusal || !grants).map(str::to_owned);
    CleanedResponse { body: written(members, secrets), is_object: true, refusal }
}

/// Cleans up a document. Returns nothing if it is not an object.
pub(super) fn tidy_document(body: &[u8], secrets: &Secrets) -> Vec<u8> {
    serde_json::from_slice(body).map(|AnswerMembers(members)| written(members, secrets)).unwrap_or_default()
}

fn text(body: &[u8], secrets: &Secrets) -> Vec<u8> {
    let mut text = secrets.blanked(String::from_utf8_lossy(body).into_owned());
    text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
    text.into_bytes()
}

/// Returns the members of a response that is a form, which some servers send.
fn of_form(body: &[u8]) -> Option<Map<String, Value>> {
    if !FORMS.iter().any(|start| body.starts_with(start)) {
        return None;
    }
    let mut members = Map::new();
    for (name, value) in form_urlencoded::parse(body).take(MAX_MEMBERS) {
        // All values in a form are strings, including numbers. `member` accepts that, and expects JSON.
        if let Some(value) = member(&name, &Value::from(&*value).to_string()) {
            members.insert(name.into_owned(), value);
        }
    }
    Some(completed(members))
}

fn written(members: Map<String, Value>, secrets: &Secrets) -> Vec<u8> {
    let blanked = members.into_iter().map(|(name, value)| {
        let value = match value {
            Value::String(text) if !TOKENS.contains(&&*name) => Value::String(secrets.blanked(text)),
            Value::Array(entries) => entries
                .into_iter()
                .map(|entry| if let Value::String(text) = entry { secrets.blanked(text).into() } else { entry })
                .collect(),
            value => value,
        };
        (secrets.blanked(name), value)
    });
    Value::Object(blanked.collect()).to_string().into_bytes()
}

/// The members of an object that are strings, numbers or lists of strings.
struct AnswerMembers(Map<String, Value>);

impl<'de> Deserialize<'de> for AnswerMembers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = AnswerMembers;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<AnswerMembers, A::Error> {
                let mut members = Map::new();
                for _ in 0..=MAX_MEMBERS {
                    let Some((name, text)) = map.next_entry::<String, &RawValue>()? else {
                        return Ok(AnswerMembers(completed(members)));
                    };
                    if name == "error" && text.get().starts_with('{') {
                        members.extend(of_error(text.get()));
                    } else if let Some(value) = member(&name, text.get()) {
                        members.insert(name, value);
                    }
                }
                Err(A::Error::custom(format_args!("more than {MAX_MEMBERS} members")))
            }
        }

        deserializer.deserialize_map(Reader)
    }
}

/// Parses the value of a member, if OAuth uses its type. Null counts as missing.
fn member(name: &str, text: &str) -> Option<Value> {
    let first = text.as_bytes().first()?;
    match (name, first) {
        (_, b'{' | b'n') => None,
        ("authorization_servers", b'[') => list(text, MAX_SERVERS).map(Value::Array),
        ("scope", b'[') => {
            let scopes = list(text, MAX_ENTRIES)?;
            Some(scopes.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ").into())
        }
        ("scope", b'"') => {
            let scopes: String = serde_json::from_str(text).ok()?;
            Some(scopes.split_whitespace().collect::<Vec<_>>().join(" ").into())
        }
        (_, b'[') => list(text, MAX_ENTRIES).map(Value::Array),
        ("authorization_servers", b'"') => Some(Value::Array(vec![serde_json::from_str(text).ok()?])),
        (name, b'"') if name.ends_with("_supported") => Some(supported(&serde_json::from_str::<String>(text).ok()?)),
        ("client_id" | "user_code" | "device_code", b'0'..=b'9') => Some(text.into()),
        ("expires_in", _) => Some(seconds(text)?.min(MAX_TOKEN_LIFETIME.as_secs()).into()),
        ("interval", _) => Some(seconds(text)?.clamp(*DEVICE_WAITS.start(), *DEVICE_WAITS.end()).into()),
        _ => serde_json::from_str(text).ok(),
    }
}

/// Parses a list or a boolean that is written as a string.
fn supported(text: &str) -> Value {
    match text.trim() {
        "true" => true.into(),
        "false" => false.into(),
        words => {
            let words = words.split([' ', ',', '\t']).filter(|word| !word.is_empty()).take(MAX_ENTRIES);
            words.map(Value::from).collect()
        }
    }
}

/// Parses the refusal of a gateway, which has an object instead of the error code.
fn of_error(text: &str) -> Vec<(String, Value)> {
    let code = Object::of(text).and_then(|error| ["code", "type", "status"].iter().find_map(|name| error.string(name)));
    let mut members = vec![("error".to_owned(), Value::from(code.unwrap_or_else(|| "error".to_owned())))];
    members.extend(error_text::of(text).map(|words| ("error_description".to_owned(), words.into())));
    members
}

/// Adds values that are obvious, and removes empty ones.
fn completed(mut members: Map<String, Value>) -> Map<String, Value> {
    let is_empty = |value: &Value| value.as_str().is_some_and(str::is_empty);
    for name in ["refresh_token", "client_secret"] {
        if members.get(name).is_some_and(is_empty) {
            members.remove(name);
        }
    }
    if members.get("token_type").is_none_or(is_empty) && members.contains_key("access_token") {
        members.insert("token_type".to_owned(), "Bearer".into());
    }
    if members.contains_key("device_code") {
        members.entry("expires_in").or_insert_with(|| DEVICE_LIFE.as_secs().into());
    }
    // rmcp requires this member. Servers where no user signs in do not publish it.
    if let Some(endpoint) = members.get("token_endpoint").cloned() {
        members.entry("authorization_endpoint").or_insert(endpoint);
    }
    members
}

/// Parses a time in seconds. Some servers write it as a string or with a fraction.
fn seconds(text: &str) -> Option<u64> {
    let text: String = serde_json::from_str(text).unwrap_or_else(|_| text.to_owned());
    let text = text.trim();
    // Values out of range become zero or the largest integer.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturation is intended")]
    let rounded = |seconds: f64| seconds as u64;
    text.parse().ok().or_else(|| text.parse().ok().filter(|seconds: &f64| !seconds.is_nan()).map(rounded))
}

/// Returns the strings in a list, up to `most`.
fn list(text: &str, most: usize) -> Option<Vec<Value>> {
    struct Reader(usize);

    impl<'de> Visitor<'de> for Reader {
        type Value = Vec<Value>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Vec<Value>, A::Error> {
            let mut texts = Vec::new();
            while texts.len() < self.0 {
                let Some(entry) = entries.next_element::<&RawValue>()? else { return Ok(texts) };
                if entry.get().starts_with('"') {
                    texts.push(serde_json::from_str(entry.get()).map_err(A::Error::custom)?);
                }
            }
            while entries.next_element::<IgnoredAny>()?.is_some() {}
            Ok(texts)
        }
    }

    serde_json::Deserializer::from_str(text).deserialize_seq(Reader(most)).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tidied(body: &str) -> Value {
        serde_json::from_slice(&tidy_document(body.as_bytes(), &Secrets::default())).unwrap_or(Value::Null)
    }

    #[test]
    fn oauth_answer_keeps_only_scalars_and_string_lists() {
        assert_eq!(
            tidied(r#"{"a":"x","b":1.5,"c":true,"d":null,"e":{"f":1},"g":["y",["z"],{},1,"w"],"a":"last"}"#),
            json!({"a": "last", "b": 1.5, "c": true, "g": ["y", "w"]})
        );
        for no_object in ["", "[]", "\"x\"", "1", "{", "{\"a\":1,}", "{\"a\":\"\u{1}\"}", "<html>"] {
            assert_eq!(tidied(no_object), Value::Null, "{no_object}");
        }
    }

    #[test]
    fn expires_in_and_interval_are_clamped_to_valid_durations() {
        let longest = MAX_TOKEN_LIFETIME.as_secs();
        for (written, life, interval) in [
            ("0", json!(0), json!(1)),
            ("-0", json!(0), json!(1)),
            ("5", json!(5), json!(5)),
            ("7.9", json!(7), json!(7)),
            ("1e1", json!(10), json!(10)),
            ("-1", json!(0), json!(1)),
            ("-1e300", json!(0), json!(1)),
            ("1e300", json!(longest), json!(60)),
            ("1e999", json!(longest), json!(60)),
            ("18446744073709551615", json!(longest), json!(60)),
            ("18446744073709551616", json!(longest), json!(60)),
            ("9223372036854775807", json!(longest), json!(60)),
            ("\"3600\"", json!(3600), json!(60)),
            ("\" 5 \"", json!(5), json!(5)),
            ("\"-5\"", json!(0), json!(1)),
            ("\"inf\"", json!(longest), json!(60)),
            ("\"nan\"", Value::Null, Value::Null),
            ("\"soon\"", Value::Null, Value::Null),
            ("null", Value::Null, Value::Null),
            ("true", Value::Null, Value::Null),
            ("{}", Value::Null, Value::Null),
        ] {
            let tidied = tidied(&format!(r#"{{"expires_in":{written},"interval":{written}}}"#));
            assert_eq!((&tidied["expires_in"], &tidied["interval"]), (&life, &interval), "{written}");
        }
    }

    #[test]
    fn loosely_written_oauth_answers_are_normalized() {
        for (written, meant) in [
            (r#"{"access_token":"t"}"#, json!({"access_token": "t", "token_type": "Bearer"})),
            (
                r#"{"access_token":"t","token_type":null,"expires_in":"3600","scope":["a","b"],"refresh_token":null,"id_token":null}"#,
                json!({"access_token": "t", "token_type": "Bearer", "expires_in": 3600, "scope": "a b"}),
            ),
            (
                r#"{"access_token":"t","token_type":"","scope":"","refresh_token":""}"#,
                json!({"access_token": "t", "token_type": "Bearer", "scope": ""}),
            ),
            (
                r#"{"access_token":"t","token_type":"mac","scope":[]}"#,
                json!({"access_token": "t", "token_type": "mac", "scope": ""}),
            ),
            (r#"{"client_id":12345678901234567890,"client_secret":""}"#, json!({"client_id": "12345678901234567890"})),
            (
                r#"{"device_code":"d","user_code":123456,"verification_url":"u"}"#,
                json!({"device_code": "d", "user_code": "123456", "verification_url": "u", "expires_in": 600}),
            ),
            (
                r#"{"authorization_servers":"https://a","scopes_supported":"a b","x_supported":"true","y_supported":false}"#,
                json!({"authorization_servers": ["https://a"], "scopes_supported": ["a", "b"], "x_supported": true, "y_supported": false}),
            ),
            (
                r#"{"token_endpoint":"https://a/t","code_challenge_methods_supported":null}"#,
                json!({"token_endpoint": "https://a/t", "authorization_endpoint": "https://a/t"}),
            ),
        ] {
            assert_eq!(tidied(written), meant, "{written}");
        }
    }

    #[test]
    fn oauth_errors_are_recognised_in_every_body_format() {
        for (body, is_refusal, error) in [
            (r#"{"error":"invalid_grant"}"#, true, Some("invalid_grant")),
            (r#"{"error":"invalid_grant"}"#, false, Some("invalid_grant")),
            (r#"{"error":"","access_token":"t"}"#, false, None),
            (r#"{"error":null,"access_token":"t"}"#, false, None),
            (r#"{"error":"e","access_token":"t"}"#, false, None),
            (r#"{"error":{"code":"denied","message":"m"}}"#, false, Some("denied")),
            (r#"{"error":{"code":7,"message":"m"}}"#, true, Some("error")),
            ("error=slow_down&error_description=x+y", false, Some("slow_down")),
            ("access_token=t&expires_in=60&scope=a", false, None),
            ("<html>", true, None),
        ] {
            let said = tidy(body.as_bytes(), is_refusal, &Secrets::default());
            assert_eq!(said.refusal.as_deref(), error, "{body}");
        }
        let said = tidy(b"access_token=t&expires_in=60&scope=a%2Cb", false, &Secrets::default());
        let form: Value = serde_json::from_slice(&said.body).unwrap();
        assert_eq!(form, json!({"access_token": "t", "token_type": "Bearer", "expires_in": 60, "scope": "a,b"}));
        let said = tidy(br#"{"error":{"code":7,"message":"m"}}"#, true, &Secrets::default());
        let object: Value = serde_json::from_slice(&said.body).unwrap();
        assert_eq!(object, json!({"error": "error", "error_description": "m"}));
    }

    /// The worst bodies of one mebibyte, one for each shape, on a small stack.
    #[test]
    fn normalized_worst_case_oauth_answers_are_at_most_16_kib() {
        const SIZE: usize = 1 << 20;
        let filled = |head: &str, part: &str, tail: &str| {
            let count = (SIZE - head.len() - tail.len()) / part.len();
            format!("{head}{}{tail}", part.repeat(count))
        };
        let worst = [
            filled("", "[", ""),
            filled("", "{\"a\":", ""),
            filled("{\"a\":", "[", ""),
            filled("{\"a\":", "[", &"]".repeat(SIZE / 2)),
            filled("{\"a\":", "{\"a\":", ""),
            filled("{\"scopes_supported\":[", "\"a\",", "\"a\"]}"),
            filled("{\"authorization_servers\":[", "\"https://a\",", "\"https://b\"]}"),
            filled("{\"authorization_servers\":[", "[],", "[]]}"),
            filled("{", "\"a\":1,", "\"b\":1}"),
            filled("{\"expires_in\":1", "0", "}"),
            filled("{\"expires_in\":\"", "9", "\"}"),
            filled("{\"a\":0.", "1", "}"),
            filled("{\"a\":", "\u{a0}", "1}"),
            filled("{\"error\":{\"error\":{\"message\":\"a\"},", "\"error\":{},", "\"error\":1}}"),
            filled("{\"error\":", "{\"error\":", ""),
            filled("{\"scope\":[", "\"a\",", "\"a\"]}"),
            filled("{\"scopes_supported\":\"", "a ", "\"}"),
            filled("access_token=a&", "b=c&", "d=e"),
            filled("access_token=a&", "&", ""),
        ];
        let small = std::thread::Builder::new().stack_size(256 << 10).spawn(move || {
            for body in &worst {
                assert!(tidy_document(body.as_bytes(), &Secrets::default()).len() <= 16 << 10, "{}", &body[..40]);
                for is_refusal in [false, true] {
                    let said = tidy(body.as_bytes(), is_refusal, &Secrets::default());
                    assert!(said.body.len() <= 16 << 10, "{}", &body[..40]);
                }
            }
        });
        small.unwrap().join().unwrap();
    }

    #[test]
    fn secrets_of_the_token_request_are_redacted_in_the_answer() {
        let headers = HeaderMap::from_iter([(
            header::AUTHORIZATION,
            http::HeaderValue::from_static("Basic aWQ6Y2FuYXJ5JTJGMQ=="),
        )]);
        let form = "code=canary+2&code_verifier=canary3&refresh_token=canary4&grant_type=x&scope=shown";
        let secrets = Secrets::of(&headers, form.as_bytes());
        let echo = format!("Basic aWQ6Y2FuYXJ5JTJGMQ== canary/1 canary%2F1 {form} canary 2");
        let object = json!({"error": echo, "canary3": 1, "list": [echo], "refresh_token": "canary4"});
        let escaped = object.to_string().replace("canary3", "\\u0063anary3");
        for body in [&echo, &escaped] {
            let text = String::from_utf8(tidy(body.as_bytes(), true, &secrets).body).unwrap();
            let text = text.replace(r#""refresh_token":"canary4""#, "");
            assert!(!text.contains("canary") && !text.contains("aWQ6") && text.contains("shown"), "{text}");
        }
    }
}
