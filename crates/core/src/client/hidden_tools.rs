//! Hides tools as the settings say: removes them from lists and refuses calls to them. Everything else passes
//! unchanged.

use crate::{
    config::ToolFilter,
    error::{Error, ErrorKind},
    json::splice::{self, Object, Splice},
    text::excerpt,
    wire::message::Message,
};
/// Maximum length of a tool's name in an error, in bytes.
const MAX_NAME_BYTES: usize = 128;

/// Returns an error if the message calls a hidden tool.
pub(crate) fn objection(filter: &ToolFilter, message: &Message) -> Option<Error> {
    if filter.is_empty() || message.method() != "tools/call" {
        return None;
    }
    let name = hidden_name(message.params()?, |name| filter.allows_tool(name))?;
    let name = excerpt(&name, MAX_NAME_BYTES);
    let summary = format!("the bridge's settings hide the tool {name} from this client");
    Some(Error::new(ErrorKind::HiddenTool, summary).with_may_have_run(false))
}

/// Returns an answer to `tools/list` without the hidden tools, or `None` if it lists none.
pub(crate) fn filtered(filter: &ToolFilter, answer: &Message) -> Option<Message> {
    let result = answer.result()?;
    let lists = result.members().filter(|member| member.is("tools"));
    let mut splice = Splice::new(answer.text());
    let is_hidden =
        |tool: &str| Object::of(tool).is_some_and(|tool| hidden_name(tool, |name| filter.allows_tool(name)).is_some());
    let mut changes = false;
    for list in lists {
        if splice::elements(list.value).any(&is_hidden) {
            changes = true;
            splice.remove_elements(list.value, is_hidden);
        }
    }
    changes.then(|| Message::one(splice.finish())).flatten()
}

/// Returns the first `name` of an object that does not pass. If `name` occurs twice, both must pass, because a reader
/// may take either.
fn hidden_name(object: Object<'_>, passes: impl Fn(&str) -> bool) -> Option<String> {
    let mut names = object.members().filter(|member| member.is("name"));
    // A name that is not a string passes: the server refuses it.
    names.find_map(|member| serde_json::from_str::<String>(member.value).ok().filter(|name| !passes(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> Message {
        Message::one(bytes::Bytes::copy_from_slice(text.as_bytes())).unwrap()
    }

    #[test]
    fn calls_to_hidden_tools_are_refused_in_any_json_spelling() {
        let filter = ToolFilter::new(&[], &["secret"]);
        for (call, is_hidden) in [
            (r#"{"id":1,"method":"tools/call","params":{"name":"secret"}}"#, true),
            (r#"{"id":1,"method":"tools/call","params":{"name":"s\u0065cret"}}"#, true),
            (r#"{"id":1,"method":"tools/call","params":{"n\u0061me":"secret"}}"#, true),
            (r#"{"id":1,"method":"tools/call","params":{"name":"secret","name":"open"}}"#, true),
            (r#"{"id":1,"method":"tools/call","params":{"name":"open","name":"secret"}}"#, true),
            (r#"{"method":"tools/call","params":{"name":"secret"}}"#, true),
            (r#"{"id":1,"method":"tools/call","params":{"name":"open","arguments":{"name":"secret"}}}"#, false),
            (r#"{"id":1,"method":"tools/call","params":{"name":7}}"#, false),
            (r#"{"id":1,"method":"tools/call"}"#, false),
            (r#"{"id":1,"method":"prompts/get","params":{"name":"secret"}}"#, false),
        ] {
            assert_eq!(objection(&filter, &message(call)).is_some(), is_hidden, "{call}");
        }
    }

    #[test]
    fn hidden_tools_are_removed_and_lists_are_otherwise_unchanged() {
        let filter = ToolFilter::new(&[], &["s*"]);
        for (list, expected) in [
            (
                r#"{"id":1,"result":{"tools":[{"name":"a","x":1e400}, {"name":"\u0073ecret"},{"name":"b"}],"nextCursor":"c"}}"#,
                Some(r#"{"id":1,"result":{"tools":[{"name":"a","x":1e400},{"name":"b"}],"nextCursor":"c"}}"#),
            ),
            (r#"{"id":1,"result":{"tools":[{"name":"s"}]}}"#, Some(r#"{"id":1,"result":{"tools":[]}}"#)),
            (
                r#"{"id":1,"result":{"tools":[{"name":"s"}],"tools":[{"name":"s"},{"name":"a"}]}}"#,
                Some(r#"{"id":1,"result":{"tools":[],"tools":[{"name":"a"}]}}"#),
            ),
            (r#"{"id":1,"result":{"tools":[ {"name":"a"} ]}}"#, None),
            (r#"{"id":1,"result":{"tools":[7,{"name":8}]}}"#, None),
            (r#"{"id":1,"result":{"tools":null}}"#, None),
            (r#"{"id":1,"error":{"code":1,"message":"m"}}"#, None),
        ] {
            let done = filtered(&filter, &message(list));
            assert_eq!(done.as_ref().map(Message::text), expected, "{list}");
        }
    }
}
