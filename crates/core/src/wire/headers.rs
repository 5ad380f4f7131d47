//! The HTTP headers of MCP: those that a request carries in addition to the user's, and those that a response brings.

use std::time::{Duration, SystemTime};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::{
    error::Error,
    json::splice::Object,
    wire::{
        message::{Message, Parsed},
        revision::{self, Era, MODERN_VERSION},
    },
};

/// The session id: in the response to `initialize`, then in every request (R23).
pub(crate) const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
/// The negotiated protocol version, in every request after `initialize` (R25).
pub(crate) const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// The method of a modern message (R61).
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
/// The tool, prompt, resource or task of a modern request (R62).
const NAME: HeaderName = HeaderName::from_static("mcp-name");

/// The marks around the Base64 form of a header's value.
const ENCODED_START: &str = "=?base64?";
const ENCODED_END: &str = "?=";

/// Returns the user's headers and those of every POST (R20).
pub(crate) fn post(user: &HeaderMap) -> HeaderMap {
    let mut headers = user.clone();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
    headers
}

/// Returns the headers of the POST that carries this JSON-RPC message: those of every such POST (R20), and those that
/// describe a message of 2026-07-28 or later (R60–R62). The caller adds the session's headers.
///
/// # Errors
/// Fails if the bytes are not a JSON-RPC message.
pub fn message_headers(message: &Bytes) -> Result<HeaderMap, Error> {
    let mut headers = post(&HeaderMap::new());
    match Message::parse(message).map_err(|invalid| invalid.error())? {
        Parsed::One(message) if message.era() == Era::Modern => modern(&message, Vec::new(), &mut headers),
        // A batch has no headers of its own.
        _ => {}
    }
    Ok(headers)
}

/// Returns the user's headers and those of a GET that opens a stream (R29), or resumes one after an event (R32).
pub(crate) fn get(user: &HeaderMap, last_event_id: Option<&[u8]>) -> HeaderMap {
    let mut headers = user.clone();
    headers.insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
    // A header cannot carry every id, for example one with control characters. The stream then starts anew.
    if let Some(id) = last_event_id.and_then(|id| HeaderValue::from_bytes(id).ok()) {
        headers.insert("last-event-id", id);
    }
    headers
}

/// Sets the headers that describe a modern message (R60–R63): its version, its method, its subject, and `params`, the
/// arguments that its tool wants in headers. A message without a version gets the version that the bridge knows.
pub(crate) fn modern(message: &Message, params: Vec<(HeaderName, HeaderValue)>, headers: &mut HeaderMap) {
    let method = message.method();
    let subject = match method {
        "tools/call" | "prompts/get" => Some("name"),
        "resources/read" => Some("uri"),
        "tasks/get" | "tasks/update" | "tasks/cancel" => Some("taskId"),
        _ => None,
    };
    let (mut version, mut name) = (None, None);
    for member in message.params().iter().flat_map(|params| params.members()) {
        if member.is("_meta") {
            version = Object::of(member.value).and_then(|meta| meta.string(revision::PROTOCOL_VERSION));
        } else if subject.is_some_and(|subject| member.is(subject)) {
            // A subject that is not a string of Unicode text has no header form. The server reports that.
            name = serde_json::from_str::<String>(member.value).ok();
        }
    }

    // `HeaderValue` allows bytes beyond ASCII, which no version has.
    let version =
        version.and_then(|version| HeaderValue::try_from(version).ok()).filter(|value| value.to_str().is_ok());
    let version = (PROTOCOL_VERSION, version.unwrap_or_else(|| HeaderValue::from_static(MODERN_VERSION)));
    let method = (!method.is_empty()).then(|| (METHOD, encoded(method)));
    let name = name.map(|name| (NAME, encoded(&name)));
    for (name, value) in [version].into_iter().chain(method).chain(name).chain(params) {
        // Fails if there are tens of thousands of headers, which no server would read.
        let _ = headers.try_insert(name, value);
    }
}

/// Returns a text as the value of a header: unchanged if that is safe, else in Base64 (R66). A text that looks like
/// Base64 is encoded too, and so is one with a tab: the specification allows tabs inside, but some software does not.
pub(crate) fn encoded(text: &str) -> HeaderValue {
    let is_visible = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    let is_padded = text.starts_with(' ') || text.ends_with(' ');
    let looks_encoded = text.starts_with(ENCODED_START) && text.ends_with(ENCODED_END);
    let value = if is_visible && !is_padded && !looks_encoded {
        HeaderValue::from_str(text)
    } else {
        HeaderValue::try_from(format!("{ENCODED_START}{}{ENCODED_END}", BASE64_STANDARD.encode(text)))
    };
    // Visible ASCII and spaces: this cannot fail.
    value.unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Returns the content type as text.
pub(crate) fn content_type(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::CONTENT_TYPE)?.to_str().ok()
}

/// Returns how long the server asks to wait: a number of seconds, or until a date (RFC 9110, 10.2.3).
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::internals::checks::decoded;

    /// The headers of a message, by name.
    fn of(text: &str, params: Vec<(HeaderName, HeaderValue)>) -> Vec<(String, String)> {
        let mut headers = HeaderMap::new();
        modern(&Message::one(text.to_owned()).unwrap(), params, &mut headers);
        headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect()
    }

    fn value(text: &str, header: &str) -> Option<String> {
        of(text, Vec::new()).into_iter().find(|(name, _)| name == header).map(|(_, value)| value)
    }

    #[test]
    fn r66_unsafe_header_values_are_base64_encoded() {
        // They include the table of the specification.
        for case in crate::vectors::read("headers") {
            let text = String::from_utf8(case.input).unwrap();
            assert_eq!([encoded(&text).to_str().unwrap()], *case.expected, "{}", case.name);
        }
    }

    #[test]
    fn message_headers_are_derived_from_the_message() {
        let names = |text: &'static str| {
            let headers = message_headers(&Bytes::from_static(text.as_bytes()))?;
            Ok::<_, Error>(headers.keys().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert_eq!(names(r#"{"id":1,"method":"tools/list"}"#).unwrap(), ["content-type", "accept"]);
        let modern = r#"{"id":1,"method":"tools/call","params":{"name":"x","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;
        assert_eq!(
            names(modern).unwrap(),
            ["content-type", "accept", "mcp-protocol-version", "mcp-method", "mcp-name"]
        );
        assert!(names("oops").is_err());
    }

    #[test]
    fn r60_r61_version_and_method_headers_come_from_the_message() {
        for (text, version) in [
            (
                r#"{"id":1,"method":"x","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2027-01-01"}}}"#,
                "2027-01-01",
            ),
            (
                r#"{"id":1,"method":"x","params":{"_meta":{"io.modelcontextprotocol\/protocolVersion":"2026-07-28"}}}"#,
                "2026-07-28",
            ),
            (
                r#"{"id":1,"method":"x","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"1\r\nX: y"}}}"#,
                "2026-07-28",
            ),
            (r#"{"id":1,"method":"x","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":1}}}"#, "2026-07-28"),
            (
                r#"{"id":1,"method":"x","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"é"}}}"#,
                "2026-07-28",
            ),
            (r#"{"id":1,"method":"x","params":["_meta"]}"#, "2026-07-28"),
            (r#"{"method":"x"}"#, "2026-07-28"),
        ] {
            let expected = [("mcp-protocol-version".into(), version.into()), ("mcp-method".into(), "x".into())];
            assert_eq!(of(text, Vec::new()), expected, "{text}");
        }
    }

    #[test]
    fn r61_method_cannot_inject_a_header() {
        assert_eq!(value(r#"{"method":"a\r\nX: y"}"#, "mcp-method").unwrap(), "=?base64?YQ0KWDogeQ==?=");
        assert_eq!(value(r#"{"id":1,"method":"日本"}"#, "mcp-method").unwrap(), "=?base64?5pel5pys?=");
        assert_eq!(value(r#"{"id":1,"method":""}"#, "mcp-method"), None);
    }

    #[test]
    fn r62_mcp_name_header_holds_the_name_uri_or_task_id() {
        for (method, params, expected) in [
            ("tools/call", r#""name":"get_weather""#, Some("get_weather")),
            ("tools/call", r#""name":"日本""#, Some("=?base64?5pel5pys?=")),
            ("tools/call", r#""name":"\u65e5\u672c""#, Some("=?base64?5pel5pys?=")),
            ("tools/call", r#""name":" x""#, Some("=?base64?IHg=?=")),
            ("tools/call", r#""name":"=?base64?x?=""#, Some("=?base64?PT9iYXNlNjQ/eD89?=")),
            ("tools/call", r#""name":"a","arguments":{"name":"b","x":1e400},"uri":"c""#, Some("a")),
            ("tools/call", r#""name":"a","name":"b""#, Some("b")),
            ("tools/call", r#""name":1"#, None),
            ("tools/call", r#""name":"\ud800""#, None),
            ("tools/call", r#""arguments":{}"#, None),
            ("prompts/get", r#""name":"my-prompt""#, Some("my-prompt")),
            ("resources/read", r#""uri":"file:///a%20b?c=1","name":"x""#, Some("file:///a%20b?c=1")),
            ("tasks/get", r#""taskId":"7""#, Some("7")),
            ("tasks/update", r#""taskId":"7""#, Some("7")),
            ("tasks/cancel", r#""taskId":"7""#, Some("7")),
            ("completion/complete", r#""name":"x""#, None),
        ] {
            let text = format!(r#"{{"id":1,"method":"{method}","params":{{{params}}}}}"#);
            assert_eq!(value(&text, "mcp-name").as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn r63_mirrored_parameters_replace_configured_headers() {
        let param = (HeaderName::from_static("mcp-param-region"), HeaderValue::from_static("us-west1"));
        let mut headers = HeaderMap::from_iter([
            (param.0.clone(), HeaderValue::from_static("mine")),
            (METHOD, HeaderValue::from_static("mine")),
            (header::AUTHORIZATION, HeaderValue::from_static("mine")),
        ]);
        modern(&Message::one(r#"{"id":1,"method":"x"}"#).unwrap(), vec![param.clone()], &mut headers);
        assert_eq!((headers.len(), &headers[&param.0]), (4, &param.1));
        assert_eq!(
            (&headers[METHOD], &headers[header::AUTHORIZATION]),
            (&"x".parse().unwrap(), &"mine".parse().unwrap())
        );
    }

    #[test]
    fn too_many_param_headers_do_not_panic() {
        let param =
            |number| (HeaderName::try_from(format!("mcp-param-{number}")).unwrap(), HeaderValue::from_static(""));
        let mut headers = HeaderMap::new();
        modern(&Message::one(r#"{"id":1,"method":"x"}"#).unwrap(), (0..40_000).map(param).collect(), &mut headers);
        assert_eq!(headers[METHOD], "x");
    }

    proptest! {
        #[test]
        fn r66_encoded_header_text_decodes_to_the_original(
            text in prop_oneof![any::<String>(), "[ \t=?a\\n]{0,4}", "(=\\?base64\\?)?[ -~]{0,8}(\\?=)?"],
        ) {
            let value = encoded(&text);
            prop_assert_eq!(decoded(&value), text);
        }
    }

    #[test]
    fn retry_after_is_parsed_as_seconds_or_http_date() {
        let wait = |value: &str| {
            retry_after(&HeaderMap::from_iter([(header::RETRY_AFTER, HeaderValue::from_str(value).unwrap())]))
        };
        assert_eq!(wait("90"), Some(Duration::from_secs(90)));
        assert_eq!(wait("Fri, 31 Dec 1999 23:59:59 GMT"), Some(Duration::ZERO));
        let soon = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(1000));
        assert!(wait(&soon).is_some_and(|wait| (990..=1000).contains(&wait.as_secs())));
        assert_eq!(wait("soon"), None);
    }
}
