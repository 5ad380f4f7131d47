//! Checks a server's responses: only valid JSON-RPC (2.0, section 5) reaches a client. Client libraries drop all other
//! responses, and the call waits forever.
//!
//! Rule: a response that only lacks the right form is repaired in place, and all other bytes stay. An error of a
//! gateway or of another protocol becomes an error of the bridge, in the server's words.

use bytes::Bytes;

use crate::{
    error::{Error, ErrorKind},
    json::scanner::{MemberKind, ResponseOutline, Version},
    wire::{
        body::LostResponse,
        error_text,
        message::{Kind, Message},
    },
};

/// The longest number that is read as an error's code, in bytes.
const MAX_CODE_BYTES: u64 = 40;
/// JavaScript has no exact integers beyond this.
const MAX_CODE: f64 = 9_007_199_254_740_991.0;
/// How much of an invalid response is searched for the server's words, in bytes.
const EXCERPT_BYTES: u64 = 16 << 10;

/// True if the message is a valid response.
pub(crate) fn is_valid(message: &Message) -> bool {
    let is_error = |answer: &ResponseOutline| {
        let has_form =
            answer.version == Version::Two && answer.result == MemberKind::Absent && answer.error == MemberKind::Value;
        has_form && answer.has_message && has_integer_code(message, answer)
    };
    message.kind() == Kind::Response && message.outline().is_none_or(is_error)
}

/// Returns the message in a form that may reach a client.
///
/// # Errors
/// Fails if it is an invalid response that cannot be repaired.
pub(crate) fn valid(message: Message) -> Result<Message, LostResponse> {
    let Some(answer) = message.outline().filter(|_| message.kind() == Kind::Response) else { return Ok(message) };
    let has_version = answer.version == Version::Two;
    let may_be_mended = match (answer.result, answer.error) {
        (MemberKind::Value | MemberKind::Null, MemberKind::Absent | MemberKind::Null) => {
            answer.version != Version::Other
        }
        // A message with an id is meant to be JSON-RPC.
        (MemberKind::Absent | MemberKind::Null, MemberKind::Value) => {
            let is_meant = has_version || (message.id().is_some() && answer.version != Version::Other);
            is_meant && answer.has_message && has_integer_code(&message, answer)
        }
        _ => false,
    };
    if may_be_mended { Ok(mended(&message, answer)) } else { Err(foreign(&message)) }
}

/// Repairs a response: adds the version if it lacks one, and removes a `null` next to its result or error.
fn mended(message: &Message, answer: &ResponseOutline) -> Message {
    let places = answer.places.as_deref().cloned().unwrap_or_default();
    let mut patches = Vec::new();
    match (answer.result, answer.error) {
        (_, MemberKind::Null) => patches.push((places.error, Bytes::new())),
        (MemberKind::Null, MemberKind::Value) => patches.push((places.result, Bytes::new())),
        _ => {}
    }
    match answer.version {
        Version::Absent => patches.push((1..1, Bytes::from_static(br#""jsonrpc":"2.0","#))),
        Version::Null => patches.push((places.version, Bytes::from_static(br#""2.0""#))),
        Version::Two | Version::Other => {}
    }
    // Start with the last patch, as it does not move the others.
    patches.sort_by_key(|(range, _)| std::cmp::Reverse(range.start));
    patches.into_iter().fold(message.clone(), |message, (range, with)| message.patched(range, with))
}

fn has_integer_code(message: &Message, answer: &ResponseOutline) -> bool {
    let text = answer
        .places
        .as_ref()
        .and_then(|places| places.code)
        .and_then(|at| message.bytes_at(at, MAX_CODE_BYTES).ok())
        .unwrap_or_default();
    let end = text.iter().position(|byte| !matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'));
    let number = text.get(..end.unwrap_or(text.len())).and_then(|text| std::str::from_utf8(text).ok());
    let code = number.and_then(|number| number.parse::<f64>().ok());
    code.is_some_and(|code| code.fract() == 0.0 && code.abs() <= MAX_CODE)
}

/// Returns an error that replaces an invalid response, with the server's words.
fn foreign(message: &Message) -> LostResponse {
    let text = message.bytes_at(0, EXCERPT_BYTES).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let said = error_text::of(&text).map(|said| format!(": {said}")).unwrap_or_default();
    let summary = format!("the server's answer is not a JSON-RPC response{said}");
    LostResponse { error: Error::new(ErrorKind::InvalidAnswer, summary).with_detail(&text), id: message.id().cloned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::spool::{Spooler, tests::storage};

    /// Returns the result for a text, which must be the same in memory and from a file.
    fn becomes(text: &str) -> Result<String, String> {
        let outcome = |message| match valid(message) {
            Ok(message) => Ok(message.loaded().text().replacen(&" ".repeat(1 << 20), "", 1)),
            Err(lost) => Err(lost.error.to_string()),
        };
        let in_memory = outcome(Message::one(text.to_owned()).unwrap());
        let mut spooler = Spooler::new(u64::MAX, &storage());
        let pad = Bytes::from(" ".repeat(1 << 20));
        let (start, brace) = text.split_at(text.len() - 1);
        for piece in [start.to_owned().into(), pad, brace.to_owned().into()] {
            spooler.push(piece).unwrap();
        }
        let Ok(crate::wire::message::Parsed::One(message)) = Message::read(&spooler.take().unwrap()) else {
            panic!("{text}")
        };
        assert!(message.is_spooled());
        assert_eq!(outcome(message), in_memory, "{text}");
        in_memory
    }

    #[test]
    fn valid_responses_are_unchanged_and_formal_faults_are_repaired() {
        for (text, mended) in [
            (r#"{"jsonrpc":"2.0","id":1,"result":{"error":null}}"#, None),
            (r#"{"jsonrpc":"2.0","id":1,"result":null}"#, None),
            (r#"{"jsonrpc":"2\u002e\u0030","id":1,"result":null}"#, None),
            (r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":""}}"#, None),
            (r#"{"error":{"message":"x","data":{"code":"a"},"code":-3.2e4},"id":1,"jsonrpc":"2.0"}"#, None),
            (r#"{"jsonrpc":"2.0","error":{"code":1,"message":"no id"}}"#, None),
            (r#"{"id":1,"result":{}}"#, Some(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#)),
            (r#"{"jsonrpc" : null ,"id":1,"result":{}}"#, Some(r#"{"jsonrpc" : "2.0" ,"id":1,"result":{}}"#)),
            (r#"{"id":1,"result":{},"jsonrpc":null}"#, Some(r#"{"id":1,"result":{},"jsonrpc":"2.0"}"#)),
            (r#"{"jsonrpc":"2.0","id":1,"result":{},"error":null}"#, Some(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#)),
            (
                r#"{"error" : null , "jsonrpc":"2.0","id":1,"result":[]}"#,
                Some(r#"{"jsonrpc":"2.0","id":1,"result":[]}"#),
            ),
            (r#"{"id":1 , "error":null,"result":7}"#, Some(r#"{"jsonrpc":"2.0","id":1,"result":7}"#)),
            (
                r#"{"jsonrpc":null,"id":"a","result":null,"error":{"code":5,"message":"m"}}"#,
                Some(r#"{"jsonrpc":"2.0","id":"a","error":{"code":5,"message":"m"}}"#),
            ),
            (
                r#"{"id":1,"error":{"code":5,"message":"m"}}"#,
                Some(r#"{"jsonrpc":"2.0","id":1,"error":{"code":5,"message":"m"}}"#),
            ),
            (
                r#"{"result":null,"error":null,"id":1,"jsonrpc":"2.0"}"#,
                Some(r#"{"result":null,"id":1,"jsonrpc":"2.0"}"#),
            ),
        ] {
            assert_eq!(becomes(text).as_deref(), Ok(mended.unwrap_or(text)), "{text}");
        }
    }

    #[test]
    fn id_can_be_replaced_in_a_repaired_response() {
        let message = valid(Message::one(r#"{"error":null,"id":"abc","result":{}}"#).unwrap()).unwrap();
        let id = Message::one(r#"{"id":7,"method":"x"}"#).unwrap().id().cloned().unwrap();
        assert_eq!(message.with_id(&id).text(), r#"{"jsonrpc":"2.0","id":7,"result":{}}"#);
    }

    #[test]
    fn invalid_responses_are_reported_with_the_servers_message() {
        for (text, words) in [
            (
                r#"{"error":{"code":403,"message":"The caller may not","status":"PERMISSION_DENIED"}}"#,
                "The caller may not",
            ),
            (r#"{"jsonrpc":"2.0","id":1,"error":{"code":"403","message":"text code"}}"#, "text code"),
            (r#"{"jsonrpc":"2.0","id":1,"error":{"message":"no code"}}"#, "no code"),
            (r#"{"jsonrpc":"2.0","id":1,"error":{"code":null,"message":"null code"}}"#, "null code"),
            (r#"{"jsonrpc":"2.0","id":1,"error":{"code":1.5,"message":"half"}}"#, "half"),
            (r#"{"jsonrpc":"2.0","id":1,"error":{"code":1e300,"message":"huge"}}"#, "huge"),
            (r#"{"jsonrpc":"2.0","id":1,"error":{"code":1}}"#, "response"),
            (r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":["x"]}}"#, "response"),
            (r#"{"jsonrpc":"2.0","id":1,"error":"boom"}"#, "boom"),
            (r#"{"error":"invalid_token","error_description":"it has expired"}"#, "invalid_token: it has expired"),
            (r#"{"jsonrpc":"2.0","id":1,"error":["a"]}"#, "response"),
            (r#"{"jsonrpc":"1.0","id":1,"result":{}}"#, "response"),
            (r#"{"jsonrpc":2.0,"id":1,"result":{}}"#, "response"),
            (r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{"code":1,"message":"both"}}"#, "both"),
            (r#"{"jsonrpc":"2.0","id":1,"error":null}"#, "response"),
        ] {
            let said = becomes(text).unwrap_err();
            assert!(said.ends_with(words), "{text}: {said}");
        }
    }
}
