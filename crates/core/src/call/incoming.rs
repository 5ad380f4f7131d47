//! Hands on messages from the server to their receivers, and records what they say about the server.

use crate::{
    call::{
        Bridge, attachment,
        call_table::Pending,
        own_requests, pages,
        parked_calls::{CallQuestion, OpenCall},
        purpose::{Purpose, SideMessageRecipient},
    },
    client::hidden_tools,
    error::{Error, ErrorKind},
    memory,
    translate::{
        legacy_to_modern::LegacyClient,
        modern_to_legacy::{self, LegacyServer},
    },
    wire::{
        body::LostResponse,
        id::Id,
        large_message::OpenedMessage,
        message::{Kind, Message},
        revision::Era,
        spool::Spooled,
    },
};
use std::sync::Arc;

/// Hands on one message from the server. `own` is the request in whose reply it came, if any.
pub(crate) async fn forward_message(bridge: &Arc<Bridge>, message: Message, own: Option<&Arc<Pending>>) {
    match message.kind() {
        Kind::Response => {}
        Kind::Notification => return forward_notification(bridge, message, own).await,
        Kind::Request => return forward_server_request(bridge, message, own).await,
    }
    let theirs = message.id().filter(|id| !id.is_null());
    let target = match (own.and_then(|own| own.id()), theirs) {
        (Some(id), Some(theirs)) if id.same(theirs) || id.same_when_rounded(theirs) => own.cloned(),
        // An error without an id answers the request of this reply (R7).
        (Some(_), None) => own.cloned(),
        // Some servers turn every id into a string.
        (Some(id), Some(theirs)) => {
            bridge.calls.table.find(theirs).or_else(|| own.filter(|_| theirs.is_text_of(id)).cloned())
        }
        (None, Some(theirs)) => bridge.calls.table.find(theirs),
        (None, None) => None,
    };
    if let Some(target) = target {
        answer(bridge, &target, message).await;
    } else {
        tracing::debug!(id = ?message.id(), "an answer that nobody waits for; dropped");
    }
}

/// Handles a message that could not be stored and may have been a response: its request gets an error instead. Returns
/// the error if that request is `own`, or may be.
pub(crate) async fn fail_lost_call(bridge: &Bridge, lost: LostResponse, own: Option<&Arc<Pending>>) -> Option<Error> {
    let LostResponse { error, id } = lost;
    let theirs = id.filter(|id| !id.is_null());
    let target = match (own.and_then(|own| own.id()), theirs) {
        (Some(id), Some(theirs)) if id.same(&theirs) || id.same_when_rounded(&theirs) => return Some(error),
        (Some(_), None) => return Some(error),
        (_, Some(theirs)) => bridge.calls.table.find(&theirs),
        (None, None) => None,
    };
    match target {
        Some(target) if target.claim_answer() => fail(bridge, &target, error).await,
        _ => tracing::warn!(error = %error, "the server sent something that nobody waits for; dropped"),
    }
    None
}

/// Reports to the caller or the client that a response, already claimed, is lost.
async fn fail(bridge: &Bridge, target: &Arc<Pending>, error: Error) {
    let error = error.with_may_have_run(true);
    tracing::info!(error = %error, detail = error.detail(), "request failed");
    if let Some(caller) = target.take_caller() {
        // Fails if the caller is gone.
        let _ = caller.send(Err(error));
    } else {
        bridge.client.output.send(bridge.client.error_reply(target.id(), &error)).await;
    }
    bridge.calls.table.remove(target);
}

async fn forward_notification(bridge: &Arc<Bridge>, message: Message, own: Option<&Arc<Pending>>) {
    // Progress after the response upsets clients: they have forgotten its token.
    if own.is_some_and(|own| own.is_answered()) && message.method() == "notifications/progress" {
        return;
    }
    match own.map(|own| &own.purpose.side_messages) {
        Some(SideMessageRecipient::Subscription(acknowledged)) => {
            if message.method() == "notifications/subscriptions/acknowledged" {
                acknowledged.notify_one();
            }
            let opened = OpenedMessage::new(message);
            if let Some(event) = LegacyClient::event(opened.message.clone()) {
                bridge.client.output.send(opened.close(event).await.into_line()).await;
            }
        }
        Some(SideMessageRecipient::Call(held)) => forward_to_modern(bridge, message, Some(held)).await,
        Some(SideMessageRecipient::Nobody) => {
            tracing::debug!(method = message.method(), "nobody asked for it; dropped");
        }
        Some(SideMessageRecipient::Session) | None if bridge.server.session().is_for_modern() => {
            forward_to_modern(bridge, message, None).await;
        }
        _ => {
            bridge.calls.heartbeats.see(&message);
            bridge.client.output.send(message.into_line()).await;
        }
    }
}

/// Hands on a legacy server's notification to a modern client: to every subscription that wants it, and to the request
/// that it belongs to.
async fn forward_to_modern(bridge: &Bridge, message: Message, held: Option<&Arc<OpenCall>>) {
    let opened = OpenedMessage::new(message);
    let message = opened.message.clone();
    if !opened.is_open() {
        return bridge.client.output.send(message.into_line()).await;
    }
    // Make one copy at a time.
    let mut last = 0;
    while let Some((number, event)) = bridge.calls.subscriptions.event_after(last, &message) {
        last = number;
        bridge.client.output.send(opened.close(event).await.into_line()).await;
    }
    let translated = match held {
        Some(held) => held.notification(message),
        // It may belong to an open call, because some servers send on this stream what belongs on another.
        None => bridge.calls.table.held().iter().find_map(|held| {
            let is_its = message.method() != "notifications/progress" || held.is_progress(&message);
            is_its.then(|| held.notification(message.clone())).flatten()
        }),
    };
    if let Some(notification) = translated {
        bridge.calls.heartbeats.see(&notification);
        bridge.client.output.send(opened.close(notification).await.into_line()).await;
    }
}

/// Hands on a server request, if the client's protocol has server requests (R76).
async fn forward_server_request(bridge: &Arc<Bridge>, message: Message, own: Option<&Arc<Pending>>) {
    let held = match own.map(|own| (own.era(), &own.purpose.side_messages)) {
        Some((Era::Modern, _)) => {
            tracing::warn!(method = message.method(), "a modern server sent a request; dropped");
            return;
        }
        Some((_, SideMessageRecipient::Call(held))) => Some(Arc::clone(held)).filter(|held| held.can_ask(&message)),
        Some((_, SideMessageRecipient::Session)) | None if bridge.server.session().is_for_modern() => {
            let mut open = bridge.calls.table.held();
            open.retain(|held| held.can_ask(&message));
            open.iter().find(|held| !held.is_parked()).or(open.first()).cloned()
        }
        _ => return bridge.client.output.send(message.into_line()).await,
    };
    let reply = if message.method() == "ping" {
        modern_to_legacy::pong(&message)
    } else {
        // The request stays in memory until the client answers it.
        let length = message.spooled().map_or(message.bytes().len() as u64, Spooled::length);
        let room = usize::try_from(length)
            .ok()
            .and_then(|length| bridge.calls.parked.room.try_take(length + memory::OVERHEAD));
        if let (Some(held), Some(room)) = (held, room) {
            let question = CallQuestion { request: message.clone().loaded(), room: Arc::new(room) };
            if !question.request.is_spooled() && held.ask(question) {
                return;
            }
        }
        modern_to_legacy::refusal(&message)
    };
    own_requests::send_in_background(bridge, reply, Purpose::session()).await;
}

/// Sends the response to a request, unless it already has one (R36). The response gets the request's id, in the same
/// spelling.
pub(crate) async fn answer(bridge: &Arc<Bridge>, target: &Arc<Pending>, answer: Message) {
    let Some((request, id)) = target.request().and_then(|request| Some((request, request.id()?))) else { return };
    if !target.claim_answer() {
        if target.settle_promise() {
            attachment::settle(bridge, request.clone(), answer);
        } else {
            tracing::debug!(id = ?id, "a second answer to the same request; dropped");
        }
        return;
    }
    let answer = if request.era() == Era::Modern && request.method() == "tools/list" {
        let opened = OpenedMessage::whole(answer.clone(), &bridge.calls.loans, &bridge.server.storage).await;
        let learnt = if opened.is_open() {
            bridge.server.protocol().tools.learn(opened.message.clone())
        } else {
            answer.clone()
        };
        // Usually no tool is taken out.
        if learnt.bytes().as_ptr() == opened.message.bytes().as_ptr() { answer } else { opened.close(learnt).await }
    } else {
        answer
    };
    if target.is_own() {
        if let Some(caller) = target.take_caller() {
            // Fails if the caller is gone.
            let _ = caller.send(Ok(answer));
        }
    } else if pages::is_to_be_merged(bridge, request, &answer) {
        pages::merge(bridge, request.clone(), answer);
    } else {
        learn(bridge, request, &answer);
        send_to_client(bridge, request, id, answer).await;
    }
    bridge.calls.table.remove(target);
}

/// Sends an answer of the bridge itself, unless the request already has one. Nothing is learnt from it.
pub(crate) async fn answer_provisionally(bridge: &Bridge, target: &Arc<Pending>, answer: Message) {
    let Some((request, id)) = target.request().and_then(|request| Some((request, request.id()?))) else { return };
    if target.claim_answer() {
        send_to_client(bridge, request, id, answer).await;
        bridge.calls.table.remove(target);
    }
}

/// Sends an answer to the client, without the tools that the settings hide, and with the id in the client's spelling.
async fn send_to_client(bridge: &Bridge, request: &Message, id: &Id, answer: Message) {
    let answer = if bridge.client.tools.is_empty() || request.method() != "tools/list" {
        answer
    } else {
        match without_hidden_tools(bridge, answer).await {
            Ok(answer) => answer,
            Err(error) => return bridge.client.output.send(bridge.client.error_reply(Some(id), &error)).await,
        }
    };
    let spelled_alike = answer.id().is_some_and(|theirs| theirs.identical(id));
    let answer = if spelled_alike { answer } else { answer.with_id(id) };
    bridge.client.output.send(answer.into_line()).await;
}

async fn without_hidden_tools(bridge: &Bridge, answer: Message) -> Result<Message, Error> {
    let opened = OpenedMessage::whole(answer.clone(), &bridge.calls.loans, &bridge.server.storage).await;
    if !opened.is_open() {
        let summary = "the list of tools is too large to take out the tools that the settings hide";
        return Err(Error::new(ErrorKind::TooLarge, summary));
    }
    Ok(match hidden_tools::filtered(&bridge.client.tools, &opened.message) {
        Some(filtered) => opened.close(filtered).await,
        None => answer,
    })
}

/// Records what a response says about the server and the session, before the client can act on it.
pub(crate) fn learn(bridge: &Arc<Bridge>, request: &Message, answer: &Message) {
    match request.method() {
        "initialize" => {
            keep(bridge, request, answer);
            if let Some(offer) = answer.offer().filter(|_| !bridge.client.is_translated()) {
                bridge.server.session().negotiated(request, offer);
                bridge.record_handshake_accepted();
                bridge.server.protocol().legacy_server = LegacyServer::new(answer);
            }
        }
        "logging/setLevel" | "resources/subscribe" | "resources/unsubscribe" if answer.error().is_none() => {
            bridge.server.session().answered(request);
        }
        "server/discover" => keep(bridge, request, answer),
        "tools/list" | "prompts/list" | "resources/list" | "resources/templates/list" => {
            bridge.calls.attachment.has_list(request);
            keep(bridge, request, answer);
        }
        _ => {}
    }
}

/// Keeps what the server says about itself for the next start.
pub(crate) fn keep(bridge: &Arc<Bridge>, request: &Message, answer: &Message) {
    if bridge.server.kept.learn(request, answer) {
        attachment::write_soon(bridge);
    }
}
