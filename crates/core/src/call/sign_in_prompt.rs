//! Asks the user of a client to sign in. The handshake is answered provisionally meanwhile ([`super::attachment`]), and
//! other requests get an error that says where to sign in.
//!
//! A client that can show URLs is asked to show the one for the sign-in: in a session by a request of the bridge, in
//! the modern protocol by a result that asks for input (MRTR). After such a result the client repeats its request, as
//! often as needed.

use std::sync::{Arc, Mutex, PoisonError};

use memchr::memmem;
use serde_json::{Value, json};

use crate::{
    auth::{Prompt, SignIn},
    call::Bridge,
    json::splice::{Object, Splice},
    translate::modern_to_legacy::{declines_or_cancels, input_required, is_question},
    wire::{id::own_id, message::Message, revision::Era},
};

const NAME: &str = "mcp-gangway";
/// The `requestState` that a modern client brings back when it repeats a request. The bridge stores nothing for it.
const STATE: &str = "mcp-gangway: signing in";

/// The sign-in URL that the client last showed its user.
#[derive(Debug, Default)]
pub(crate) struct ShownSignIns(Mutex<Option<String>>);

impl ShownSignIns {
    /// Records this URL. Returns true if it is not the last one shown.
    pub(crate) fn is_new(&self, url: &str) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.replace(url.to_owned()).as_deref() != Some(url)
    }
}

/// Returns the result that asks a modern client to show its user where to sign in, if it can. A request with a
/// `requestState` gets none, as that state would be lost.
pub(crate) fn question(request: &Message, prompt: &Prompt) -> Option<Message> {
    let question = elicitation(&json!({"mode": "url", "url": prompt.url(), "message": sign_in_instructions(prompt)}))?;
    let goes_on = request.params()?.get("requestState").is_some();
    (!goes_on && is_question(request, &question)).then(|| input_required(request, STATE, &[question]))
}

/// Returns the result that makes a modern client repeat its request, because the user has not signed in yet.
pub(crate) fn later(request: &Message) -> Message {
    input_required(request, STATE, &[])
}

/// A repeated request that was answered by one of these results.
pub(crate) struct Again {
    /// The original request.
    pub(crate) request: Message,
    /// The user declined to sign in.
    pub(crate) is_declined: bool,
}

pub(crate) fn again(request: &Message) -> Option<Again> {
    // Almost no request is a repeated one, and this is faster than a look at all members.
    if request.era() != Era::Modern || memmem::find(request.bytes(), STATE.as_bytes()).is_none() {
        return None;
    }
    let params = Object::of(request.text())?.object("params")?;
    params.string("requestState").filter(|state| state == STATE)?;
    let responses = params.object("inputResponses");
    let is_declined = responses.is_some_and(|all| all.members().any(|member| declines_or_cancels(member.value)));
    let mut splice = Splice::new(request.text());
    splice.edit(params, &[], |member| member.is("requestState") || member.is("inputResponses"));
    Some(Again { request: Message::one(splice.finish())?, is_declined })
}

fn elicitation(params: &Value) -> Option<Message> {
    Message::one(format!(r#"{{"jsonrpc":"2.0","id":0,"method":"elicitation/create","params":{params}}}"#))
}

fn sign_in_instructions(prompt: &Prompt) -> String {
    match prompt {
        Prompt::Browser { .. } => "Sign in to use this server.".to_owned(),
        Prompt::Device { code, .. } => format!("Sign in to use this server. Your code is {code}."),
    }
}

/// True if the client can show a URL to its user, according to its `initialize`.
fn can_show_urls(initialize: &Message) -> bool {
    let elicitation = initialize.params().and_then(|params| params.object("capabilities")?.object("elicitation"));
    elicitation.is_some_and(|elicitation| elicitation.get("url").is_some())
}

/// Asks the client to show its user the URL to sign in at, if it has said that it can. Shows each URL once, and not
/// during the handshake, when clients accept no requests.
pub(crate) fn show(bridge: &Arc<Bridge>) {
    let can_show = bridge.server.session().initialize().is_some_and(can_show_urls);
    if !can_show || bridge.server.requests.credentials.sign_in().is_none() {
        return;
    }
    bridge.calls.spawn({
        let bridge = Arc::clone(bridge);
        async move {
            let Some(sign_in) = bridge.server.requests.credentials.sign_in() else { return };
            let Some(prompt) = sign_in.prompt().await else { return };
            if bridge.calls.shown_sign_ins.is_new(prompt.url()) {
                elicit(&bridge, &prompt, sign_in).await;
            }
        }
    });
}

async fn elicit(bridge: &Bridge, prompt: &Prompt, sign_in: &SignIn) {
    let id = NAME.to_owned() + own_id().as_str().trim_matches('"');
    let asked = elicitation(
        &json!({"mode": "url", "elicitationId": id, "url": prompt.url(), "message": sign_in_instructions(prompt)}),
    );
    let Some(asked) = asked else { return };
    let done = sign_in.is_done();
    tokio::pin!(done);
    // Only the sign-in counts, not the user's answer: stop waiting for the answer once the sign-in is over.
    let is_signed_in = tokio::select! {
        _ = bridge.client.questions.ask(std::slice::from_ref(&asked), &bridge.client.output) => done.await,
        is_signed_in = &mut done => is_signed_in,
    };
    if is_signed_in {
        let told =
            json!({"jsonrpc": "2.0", "method": "notifications/elicitation/complete", "params": {"elicitationId": id}});
        if let Some(told) = Message::one(told.to_string()) {
            bridge.client.output.send(told.into_line()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> Message {
        Message::one(text.to_owned()).unwrap()
    }

    #[test]
    fn only_clients_with_url_elicitation_are_shown_urls() {
        for (elicitation, can) in [("", false), (r#""elicitation":{}"#, false), (r#""elicitation":{"url":{}}"#, true)] {
            let text = format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"initialize","params":{{"capabilities":{{{elicitation}}}}}}}"#
            );
            assert_eq!(can_show_urls(&message(&text)), can, "{elicitation}");
        }
    }
}
