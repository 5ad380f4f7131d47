//! Checks header values: a server decodes the text that was encoded.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{HeaderMap, HeaderValue, header};
use serde_json::{Value, json, value::RawValue};

use super::Input;
use crate::{
    translate::tool_headers::Tools,
    wire::{headers as product, message::Message},
};

/// Checks that any text survives as a method, a tool's name or an argument, and that no value of a peer's header
/// panics.
pub fn headers(input: &[u8]) {
    let input = Input::read(input);
    let text = String::from_utf8_lossy(&input.text);
    assert_eq!(decoded(&product::encoded(&text)), text);

    let call = json!({
        "id": 1,
        "method": "tools/call",
        "params": {"name": text, "_meta": {"io.modelcontextprotocol/protocolVersion": text}},
    });
    let mut headers = HeaderMap::new();
    product::modern(&Message::one(call.to_string()).unwrap(), Vec::new(), &mut headers);
    assert_eq!(decoded(&headers["mcp-name"]), text);
    let version = headers["mcp-protocol-version"].to_str().unwrap();
    assert!(version == text || version == "2026-07-28", "{text:?}");
    let call = json!({"id": 1, "method": text, "params": {}});
    // A method that is too long is not a method.
    if let Some(call) = Message::one(call.to_string()) {
        product::modern(&call, Vec::new(), &mut headers);
        assert!(text.is_empty() || decoded(&headers["mcp-method"]) == text);
    }

    if let Ok(argument) = serde_json::from_str::<&RawValue>(&text) {
        check_argument(argument.get());
    }
    if let Ok(value) = HeaderValue::from_bytes(&input.text) {
        let headers = HeaderMap::from_iter([(header::RETRY_AFTER, value.clone()), (header::CONTENT_TYPE, value)]);
        let _ = (product::retry_after(&headers), product::content_type(&headers));
    }
    let id = product::get(&HeaderMap::new(), Some(&input.text)).remove("last-event-id");
    assert!(id.is_none_or(|id| id.as_bytes() == input.text));
}

/// Decodes a value as a server does (R66).
pub(crate) fn decoded(value: &HeaderValue) -> String {
    assert!(value.as_bytes().iter().all(|byte| (b' '..=b'~').contains(byte)), "{value:?}");
    assert!(!value.as_bytes().starts_with(b" ") && !value.as_bytes().ends_with(b" "), "{value:?}");
    let text = value.to_str().unwrap();
    match text.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) {
        Some(base64) => String::from_utf8(BASE64_STANDARD.decode(base64).unwrap()).unwrap(),
        None => text.to_owned(),
    }
}

/// Checks a tool's argument in its header.
fn check_argument(argument: &str) {
    let schema = r#"{"type":"object","properties":{"x":{"type":"string","x-mcp-header":"X"}}}"#;
    let list = format!(r#"{{"id":1,"result":{{"tools":[{{"name":"t","inputSchema":{schema}}}]}}}}"#);
    let call = format!(r#"{{"id":1,"method":"tools/call","params":{{"name":"t","arguments":{{"x":{argument}}}}}}}"#);
    let mut tools = Tools::default();
    tools.learn(Message::one(list).unwrap());
    let params = tools.params(&Message::one(call).unwrap());
    let found = params.first().map(|(_, value)| decoded(value));
    match serde_json::from_str(argument) {
        Ok(Value::String(text)) => assert_eq!(found.as_ref(), Some(&text), "{argument}"),
        Ok(Value::Bool(yes)) => assert_eq!(found, Some(yes.to_string()), "{argument}"),
        Ok(Value::Number(number)) => {
            let exact = number.as_i64().filter(|integer| integer.unsigned_abs() < 1 << 53);
            match found {
                Some(found) => assert_eq!(found.parse().ok(), number.as_f64(), "{argument}"),
                None => assert_eq!(exact, None, "{argument}"),
            }
        }
        // `Err` includes lone surrogates, and numbers too large for an `f64`.
        Ok(Value::Null | Value::Array(_) | Value::Object(_)) | Err(_) => assert_eq!(found, None, "{argument}"),
    }
}
