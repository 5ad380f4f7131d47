//! Builds the answers that a client gets before its server is there: to the handshake, to lists and to pings. No I/O.
//!
//! What the server said last time is used where there is something; otherwise the answer promises lists that can
//! change, and they are empty.
//!
//! Rule: a provisional answer promises only what the bridge can keep. The bridge speaks every version itself, and
//! announces that the lists have changed once the server is there.

use serde_json::{Value, json};

use crate::{
    json::splice::{Object, Splice},
    server::kept,
    wire::{
        message::Message,
        revision::{Era, MODERN_VERSION},
    },
};

const NAME: &str = "mcp-gangway";
/// The capabilities whose lists the bridge announces when they change.
pub(crate) const LISTS: [&str; 3] = ["tools", "resources", "prompts"];

/// Why the server has not answered yet, for the client's user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Absence {
    /// The server cannot be reached, or says nothing.
    Away,
    /// The user has to sign in.
    SignIn,
}

impl Absence {
    fn instructions(self) -> &'static str {
        match self {
            Self::Away => "The server has not answered yet. Its lists follow when it does; until then they are empty.",
            Self::SignIn => "The user has to sign in first. Until then, requests fail and say where.",
        }
    }
}

/// Returns the provisional answer to a handshake of either era, or `None` if the request is no handshake. `last` is
/// what the server answered last time.
pub(crate) fn handshake(request: &Message, last: Option<&str>, absence: Absence) -> Option<Message> {
    let info = json!({"name": NAME, "version": env!("CARGO_PKG_VERSION")});
    let lists = json!({
        "tools": {"listChanged": true},
        "resources": {"listChanged": true},
        "prompts": {"listChanged": true},
    });
    let result = match (request.method(), last.and_then(Object::of)) {
        ("initialize", Some(last)) => {
            let asked = request.params()?.string("protocolVersion")?;
            let version = last.string("protocolVersion").filter(|known| *known < asked).unwrap_or(asked);
            let capabilities = with_changes(last);
            let mut splice = Splice::new(last.as_str());
            let version = Value::from(version).to_string();
            splice.edit(last, &[("protocolVersion", &version), ("capabilities", &capabilities)], |_| false);
            String::from_utf8(splice.finish().to_vec()).ok()?
        }
        ("initialize", None) => json!({
            "protocolVersion": request.params()?.string("protocolVersion")?,
            "capabilities": lists,
            "serverInfo": info,
            "instructions": absence.instructions(),
        })
        .to_string(),
        ("server/discover", Some(last)) => fleeting(last, &[("capabilities", &with_changes(last))])?,
        ("server/discover", None) => json!({
            "resultType": "complete",
            "supportedVersions": [MODERN_VERSION],
            "capabilities": lists,
            "instructions": absence.instructions(),
            "ttlMs": 0,
            "cacheScope": "private",
            "_meta": {"io.modelcontextprotocol/serverInfo": info},
        })
        .to_string(),
        _ => return None,
    };
    response(request, &result)
}

/// Returns the answer to a list request: the list of last time, or an empty one. `None` if the request asks for no
/// list.
pub(crate) fn list(request: &Message, last: Option<&str>) -> Option<Message> {
    let member = kept::list_member(request.method())?;
    let empty = format!("{{\"{member}\":[]}}");
    let page = Object::of(last.unwrap_or(&empty))?;
    let result = if request.era() == Era::Modern { fleeting(page, &[])? } else { page.as_str().to_owned() };
    response(request, &result)
}

/// Returns the answer to a ping, which asks whether the bridge is there.
pub(crate) fn pong(request: &Message) -> Option<Message> {
    (request.method() == "ping").then(|| response(request, "{}")).flatten()
}

/// Returns the notification that a list has changed.
pub(crate) fn list_changed(list: &str) -> Option<Message> {
    Message::one(format!(r#"{{"jsonrpc":"2.0","method":"notifications/{list}/list_changed"}}"#))
}

/// Returns a modern result that the client must not cache.
fn fleeting(result: Object<'_>, set: &[(&str, &str)]) -> Option<String> {
    let mut splice = Splice::new(result.as_str());
    let members = [("resultType", "\"complete\""), ("ttlMs", "0"), ("cacheScope", "\"private\"")];
    splice.edit(result, &[&members[..], set].concat(), |_| false);
    String::from_utf8(splice.finish().to_vec()).ok()
}

/// Returns the capabilities of last time, in which every list can change.
fn with_changes(last: Object<'_>) -> String {
    let Some(capabilities) = last.object("capabilities") else { return "{}".to_owned() };
    let mut splice = Splice::new(capabilities.as_str());
    for list in LISTS.iter().filter_map(|list| capabilities.object(list)) {
        splice.edit(list, &[("listChanged", "true")], |_| false);
    }
    String::from_utf8(splice.finish().to_vec()).unwrap_or_default()
}

fn response(request: &Message, result: &str) -> Option<Message> {
    Message::one(format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, request.id()?.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> Message {
        Message::one(text.to_owned()).unwrap()
    }

    fn initialize(version: &str) -> Message {
        message(&format!(
            r#"{{"jsonrpc":"2.0","id":"a","method":"initialize","params":{{"protocolVersion":"{version}"}}}}"#
        ))
    }

    fn result(answer: Option<Message>) -> Value {
        serde_json::from_str(answer.unwrap().result().unwrap().as_str()).unwrap()
    }

    const DISCOVER: &str = r#"{"jsonrpc":"2.0","id":1e0,"method":"server/discover","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;

    #[test]
    fn handshakes_of_both_eras_get_a_provisional_answer() {
        let answered = handshake(&initialize("2025-06-18"), None, Absence::Away).unwrap();
        assert!(answered.text().contains(r#""id":"a","#));
        let answered = result(Some(answered));
        assert_eq!(answered["protocolVersion"], "2025-06-18");
        assert_eq!(answered["capabilities"]["tools"]["listChanged"], true);
        let answered = handshake(&message(DISCOVER), None, Absence::Away).unwrap();
        assert!(answered.text().contains(r#""id":1e0,"#) && answered.text().contains("2026-07-28"));
        let list = message(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#);
        assert!(handshake(&list, None, Absence::Away).is_none());
        let unversioned = message(r#"{"jsonrpc":"2.0","id":1,"method":"initialize"}"#);
        assert!(handshake(&unversioned, None, Absence::Away).is_none());
    }

    #[test]
    fn the_handshake_of_last_time_is_repeated_with_lists_that_can_change() {
        let last = r#"{"protocolVersion":"2025-06-18","capabilities":{"tools":{},"prompts":{"listChanged":false},"logging":{},"x":{"y":1e400}},"serverInfo":{"name":"s"},"instructions":"Do."}"#;
        for (asked, offered) in
            [("2025-11-25", "2025-06-18"), ("2025-06-18", "2025-06-18"), ("2024-11-05", "2024-11-05")]
        {
            let answered = handshake(&initialize(asked), Some(last), Absence::Away).unwrap();
            assert!(answered.text().contains("1e400"), "what the bridge does not know stays as it is");
            let answered: Value = serde_json::from_str(&answered.text().replace("1e400", "0")).unwrap();
            assert_eq!(answered["result"]["protocolVersion"], offered);
            assert_eq!(
                answered["result"]["capabilities"],
                json!({"tools": {"listChanged": true}, "prompts": {"listChanged": true}, "logging": {}, "x": {"y": 0}})
            );
            assert_eq!(answered["result"]["instructions"], "Do.");
        }
        let last = r#"{"supportedVersions":["2026-07-28"],"capabilities":{"tools":{}}}"#;
        let answered = result(handshake(&message(DISCOVER), Some(last), Absence::Away));
        assert_eq!(
            answered,
            json!({"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {"listChanged": true}},
                   "resultType": "complete", "ttlMs": 0, "cacheScope": "private"})
        );
    }

    #[test]
    fn lists_are_those_of_last_time_or_empty() {
        let templates = message(r#"{"jsonrpc":"2.0","id":1,"method":"resources/templates/list"}"#);
        assert_eq!(result(list(&templates, None)), json!({"resourceTemplates": []}));
        let last = r#"{"resourceTemplates":[{"name":"a"}],"nextCursor":"b"}"#;
        assert_eq!(result(list(&templates, Some(last))), serde_json::from_str::<Value>(last).unwrap());
        let modern = message(&DISCOVER.replace("server/discover", "tools/list"));
        assert_eq!(
            result(list(&modern, None)),
            json!({"tools": [], "resultType": "complete", "ttlMs": 0, "cacheScope": "private"})
        );
        assert!(list(&initialize("2025-06-18"), None).is_none());
        assert!(pong(&templates).is_none());
    }
}
