//! Which of the server's tools the client may see and call, as the user wants it: by their names, with `*` for any characters
//! and `?` for one.
//!
//! Rule: a tool that is hidden is in no list and is not called, whatever the client says; all else passes untouched.

use wildmatch::WildMatch;

use crate::{
    error::{Error, Kind as Fault},
    json::splice::{self, Object, Splice},
    text::excerpt,
    wire::message::Message,
};

/// The longest name of a tool that is repeated in an error, in bytes.
const LONGEST_NAME: usize = 128;

/// Which tools there are for the client; all of them by default.
#[derive(Clone, Debug, Default)]
pub struct ToolFilter {
    allowed: Vec<WildMatch>,
    denied: Vec<WildMatch>,
}

impl ToolFilter {
    /// Only tools whose names are like one of `allowed`, or any if there is none, and like none of `denied`.
    pub fn new<T: AsRef<str>>(allowed: &[T], denied: &[T]) -> Self {
        let patterns = |texts: &[T]| texts.iter().map(|text| WildMatch::new(text.as_ref())).collect();
        Self { allowed: patterns(allowed), denied: patterns(denied) }
    }

    /// Whether every tool passes.
    pub fn is_empty(&self) -> bool {
        self.allowed.is_empty() && self.denied.is_empty()
    }

    /// Whether the tool of this name passes.
    pub fn lets_pass(&self, name: &str) -> bool {
        let is_like = |patterns: &[WildMatch]| patterns.iter().any(|pattern| pattern.matches(name));
        (self.allowed.is_empty() || is_like(&self.allowed)) && !is_like(&self.denied)
    }

    /// What speaks against sending this message, if it calls a tool that is hidden.
    pub(crate) fn objection(&self, message: &Message) -> Option<Error> {
        if self.is_empty() || message.method() != "tools/call" {
            return None;
        }
        let name = hidden_name(message.params()?, |name| self.lets_pass(name))?;
        let name = excerpt(&name, LONGEST_NAME);
        let summary = format!("the bridge's settings hide the tool {name} from this client");
        Some(Error::new(Fault::HiddenTool, summary).with_may_have_run(false))
    }

    /// An answer to `tools/list` without what is hidden; `None` if nothing is.
    pub(crate) fn filtered(&self, answer: &Message) -> Option<Message> {
        let result = answer.result()?;
        let lists = result.members().filter(|member| member.is("tools"));
        let mut splice = Splice::new(answer.text());
        let is_hidden =
            |tool: &str| Object::of(tool).is_some_and(|tool| hidden_name(tool, |name| self.lets_pass(name)).is_some());
        let mut changes = false;
        for list in lists {
            if splice::elements(list.value).any(&is_hidden) {
                changes = true;
                splice.remove_elements(list.value, is_hidden);
            }
        }
        changes.then(|| Message::one(splice.finish())).flatten()
    }
}

/// The name in an object that does not pass. Where it stands twice, each counts, as a reader may take either.
fn hidden_name(object: Object<'_>, passes: impl Fn(&str) -> bool) -> Option<String> {
    let mut names = object.members().filter(|member| member.is("name"));
    // What is no text names no tool, which only the server can say.
    names.find_map(|member| serde_json::from_str::<String>(member.value).ok().filter(|name| !passes(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> Message {
        Message::one(bytes::Bytes::copy_from_slice(text.as_bytes())).unwrap()
    }

    #[test]
    fn names_are_matched_as_a_whole() {
        for (allowed, denied, passing, hidden) in [
            (&[][..], &["delete_*"][..], &["delete", "undelete_x", "DELETE_x"][..], &["delete_", "delete_all"][..]),
            (&["get_*", "list?"], &["get_secret*"], &["get_a", "lists"], &["get_secret", "list", "listed", "put"]),
            (&[], &["*"], &[], &["", "a"]),
            (&["a"], &[], &["a"], &["", "b", "aa"]),
            (&["é?"], &[], &["éü"], &["é"]),
        ] {
            let filter = ToolFilter::new(allowed, denied);
            for name in passing {
                assert!(filter.lets_pass(name), "{name}");
            }
            for name in hidden {
                assert!(!filter.lets_pass(name), "{name}");
            }
        }
    }

    #[test]
    fn a_call_is_told_by_its_name_however_it_is_written() {
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
            assert_eq!(filter.objection(&message(call)).is_some(), is_hidden, "{call}");
        }
    }

    #[test]
    fn lists_are_untouched_but_for_what_is_hidden() {
        let filter = ToolFilter::new(&[], &["s*"]);
        for (list, filtered) in [
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
            let done = filter.filtered(&message(list));
            assert_eq!(done.as_ref().map(Message::text), filtered, "{list}");
        }
    }
}
