//! Builds what a client gets while its user signs in, because clients have a time limit for the handshake and for each
//! call.
//!
//! The bridge answers the handshake provisionally, with lists that can change, so that the client looks again later.
//! Later requests get an error that says where to sign in. Once there is a token, the bridge makes the real handshake,
//! as it does for a lost session, and tells the client that all lists have changed.
//!
//! A client that can show URLs is asked to show the one for the sign-in: in a session by a request of the bridge, in
//! the modern protocol by a result that asks for input (MRTR). After such a result the client repeats its request, as
//! often as needed.
//!
//! Rule: the provisional answer promises only what the bridge can keep. The bridge speaks every version itself, and
//! the client learns which lists are empty or missing when it asks for them.

use std::sync::{Arc, Mutex, PoisonError};

use memchr::memmem;
use serde_json::{Value, json};

use crate::{
    auth::{Prompt, SignIn},
    call::{Bridge, renewal},
    json::splice::{Object, Splice},
    translate::modern_to_legacy::{declines_or_cancels, input_required, is_question},
    wire::{id::own_id, message::Message, revision::Era},
};

const NAME: &str = "mcp-gangway";
const LATER: &str = "The user has to sign in first. Until then, requests fail and say where.";
/// The `requestState` that a modern client brings back when it repeats a request. The bridge stores nothing for it.
const STATE: &str = "mcp-gangway: signing in";
/// The lists that may differ from what the client believes.
const LISTS: [&str; 3] = ["tools", "resources", "prompts"];

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

/// Returns the provisional answer to a handshake of either era, or `None` if the request is no handshake.
pub(crate) fn answer(request: &Message) -> Option<Message> {
    let capabilities = json!({
        "tools": {"listChanged": true},
        "resources": {"listChanged": true},
        "prompts": {"listChanged": true},
    });
    let info = json!({"name": NAME, "version": env!("CARGO_PKG_VERSION")});
    let result = match request.method() {
        "initialize" => json!({
            "protocolVersion": request.params()?.string("protocolVersion")?,
            "capabilities": capabilities,
            "serverInfo": info,
            "instructions": LATER,
        }),
        "server/discover" => json!({
            "resultType": "complete",
            "supportedVersions": ["2026-07-28"],
            "capabilities": capabilities,
            "instructions": LATER,
            "ttlMs": 0,
            "cacheScope": "private",
            "_meta": {"io.modelcontextprotocol/serverInfo": info},
        }),
        _ => return None,
    };
    response(request, &result)
}

fn response(request: &Message, result: &Value) -> Option<Message> {
    Message::one(format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, request.id()?.as_str()))
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

/// Waits in the background for the sign-in after a provisional answer, then makes the real handshake.
pub(crate) fn await_sign_in(bridge: &Arc<Bridge>) {
    bridge.calls.spawn({
        let bridge = Arc::clone(bridge);
        async move {
            let epoch = bridge.server.session().epoch();
            let Some(sign_in) = bridge.server.requests.credentials.sign_in() else { return };
            // If a sign-in fails, the client's requests report that; the next one may succeed.
            while !sign_in.is_done().await {
                sign_in.wait_for_next_sign_in().await;
            }
            if let Err(error) = renewal::renew(&bridge, epoch).await {
                tracing::warn!(error = %error, detail = error.detail(), "signed in, but the handshake failed");
            }
        }
    });
}

/// Tells the client that all lists have changed, because the real handshake has replaced the provisional one.
pub(crate) async fn notify_lists_changed(bridge: &Bridge) {
    for list in LISTS {
        let told = format!(r#"{{"jsonrpc":"2.0","method":"notifications/{list}/list_changed"}}"#);
        if let Some(told) = Message::one(told) {
            bridge.client.output.send(told.into_line()).await;
        }
    }
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
    fn handshakes_of_both_eras_get_a_provisional_answer() {
        let initialize =
            message(r#"{"jsonrpc":"2.0","id":"a","method":"initialize","params":{"protocolVersion":"2025-06-18"}}"#);
        let answered: Value = serde_json::from_str(answer(&initialize).unwrap().text()).unwrap();
        assert_eq!((&answered["id"], &answered["result"]["protocolVersion"]), (&json!("a"), &json!("2025-06-18")));
        assert_eq!(answered["result"]["capabilities"]["tools"]["listChanged"], true);
        let discover = message(r#"{"jsonrpc":"2.0","id":1e0,"method":"server/discover","params":{}}"#);
        let answered = answer(&discover).unwrap();
        assert!(answered.text().contains(r#""id":1e0,"#) && answered.text().contains("2026-07-28"));
        assert!(answer(&message(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#)).is_none());
        assert!(answer(&message(r#"{"jsonrpc":"2.0","id":1,"method":"initialize"}"#)).is_none());
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
