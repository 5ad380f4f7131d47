//! Finds the error text in a body that is not JSON-RPC, in the forms that gateways and web frameworks write.

use crate::json::splice::{self, Object};

/// The longest line of plain text that counts as a message for people, in bytes.
const LONGEST: usize = 300;
/// Members that hold a message for people, the likeliest first.
const MEMBERS: [&str; 7] = ["message", "error_description", "detail", "title", "description", "msg", "reason"];

/// Returns the error text of a body, in one line; `None` if it has no text for people. The peer chose the text, so it
/// is untrusted.
pub(crate) fn of(body: &str) -> Option<String> {
    let body = body.trim_start_matches('\u{feff}').trim();
    match body.as_bytes().first()? {
        b'{' => Object::of(body).and_then(in_object),
        b'[' => splice::elements(body).next().and_then(Object::of).and_then(in_object),
        b'"' => serde_json::from_str(body).ok().and_then(|text: String| line(&text)),
        b'<' => line(between(body, "<title>", "</title>")?),
        _ => line(body),
    }
}

fn in_object(object: Object<'_>) -> Option<String> {
    let said = |object: Object<'_>| MEMBERS.iter().find_map(|name| object.string(name).as_deref().and_then(line));
    if let Some(error) = object.object("error") {
        return said(error).or_else(|| error.string("status").as_deref().and_then(line));
    }
    let error = object.string("error").as_deref().and_then(line);
    match (error, said(object)) {
        (Some(error), Some(said)) if said != error => Some(format!("{error}: {said}")),
        (error, said) => error.or(said),
    }
}

/// Returns the first line of a text, if it is short.
fn line(text: &str) -> Option<String> {
    let line = text.trim().lines().next()?.trim();
    (!line.is_empty() && line.len() <= LONGEST).then(|| line.to_owned())
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(start)?;
    rest.split_once(end).map(|(inside, _)| inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_message_is_extracted_from_common_body_formats() {
        for (body, words) in [
            ("Access is only allowed at localhost:6274", Some("Access is only allowed at localhost:6274")),
            (" first\r\nsecond ", Some("first")),
            ("", None),
            ("\n\n", None),
            (r#""a text""#, Some("a text")),
            (r#"{"detail":"Not Found"}"#, Some("Not Found")),
            (r#"{"detail":[{"msg":"x"}],"title":"Bad"}"#, Some("Bad")),
            (r#"{"error":"invalid_token","error_description":"expired"}"#, Some("invalid_token: expired")),
            (r#"{"error":"x","message":"x"}"#, Some("x")),
            (r#"{"error":{"code":7,"message":"m"}}"#, Some("m")),
            (r#"{"error":{"status":"DENIED"}}"#, Some("DENIED")),
            (r#"[{"error":{"message":"in a list"}}]"#, Some("in a list")),
            (r#"{"message":"Forbidden"}"#, Some("Forbidden")),
            ("<html><head><title>502 Bad Gateway</title>", Some("502 Bad Gateway")),
            ("<html><h1>x</h1>", None),
            ("{}", None),
            ("[[[[", None),
            ("{\"error\":{", None),
        ] {
            assert_eq!(of(body).as_deref(), words, "{body}");
        }
        assert_eq!(of(&"x".repeat(301)), None);
    }
}
