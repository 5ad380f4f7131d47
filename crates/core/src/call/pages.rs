//! Merges the pages of a list for clients that ask only for the first one.
//!
//! Rules: the client gets one answer, with the elements of all pages as the server sent them. If a page cannot be had,
//! or there are too many, the answer has those before it and the cursor of the rest.

use std::sync::Arc;

use crate::{
    call::{Bridge, incoming, own_requests, purpose::Purpose},
    error::{Error, ErrorKind},
    json::splice::{Object, Splice, elements},
    server::{kept::list_member, protocol::TranslationRoute},
    translate::legacy_to_modern::{FromLegacy, Translated},
    wire::message::Message,
};

/// The most pages that are merged.
const MAX_PAGES: usize = 1000;
/// The largest list, in bytes.
const MAX_BYTES: usize = 8 << 20;

/// True if this answer is the first page of a list that is to be merged.
pub(crate) fn is_to_be_merged(bridge: &Bridge, request: &Message, answer: &Message) -> bool {
    bridge.client.merges_pages
        && list_member(request.method()).is_some()
        && cursor(request.params(), "cursor").is_none()
        && bridge.translation_route(request) != TranslationRoute::ToLegacy
        && cursor(answer.result(), "nextCursor").is_some()
}

/// Answers the request with all pages, in the background: the answer of a page may come on the stream that brought the
/// first one.
pub(crate) fn merge(bridge: &Arc<Bridge>, request: Message, first: Message) {
    let pending = bridge.calls.table.insert(&request);
    bridge.calls.spawn({
        let bridge = Arc::clone(bridge);
        async move {
            let merged = merged(&bridge, &request, first).await;
            incoming::learn(&bridge, &request, &merged);
            if pending.is_cancelled() {
                bridge.calls.table.remove(&pending);
            } else {
                incoming::answer_provisionally(&bridge, &pending, merged).await;
            }
        }
    });
}

async fn merged(bridge: &Arc<Bridge>, request: &Message, first: Message) -> Message {
    let Some(member) = list_member(request.method()) else { return first };
    let (mut all, mut bytes, mut page) = (Vec::new(), 0, first.clone());
    for _ in 0..MAX_PAGES {
        let list = page.result().and_then(|result| result.get(member)).unwrap_or_default();
        all.extend(elements(list).map(str::to_owned));
        bytes += list.len();
        let Some(next) = cursor(page.result(), "nextCursor").filter(|_| bytes < MAX_BYTES) else { break };
        match page_at(bridge, request, next).await {
            Ok(found) => page = found,
            Err(error) => {
                tracing::warn!(method = request.method(), error = %error, "a page of a list is missing");
                break;
            }
        }
    }
    with_elements(&first, member, &all, cursor(page.result(), "nextCursor")).unwrap_or(first)
}

/// Asks for the page at a cursor, in the client's protocol.
async fn page_at(bridge: &Arc<Bridge>, request: &Message, cursor: &str) -> Result<Message, Error> {
    let unusable = || Error::new(ErrorKind::InvalidAnswer, "the page has no list");
    let asked = with_cursor(request, cursor).ok_or_else(unusable)?;
    let is_translated = bridge.translation_route(request) == TranslationRoute::ToModern;
    let answer = if is_translated {
        let translated = bridge.client.legacy().as_mut().map(|client| client.take(&asked));
        let Some(FromLegacy::Send(message)) = translated else { return Err(unusable()) };
        let answer = own_requests::call(bridge, &message, Purpose::legacy_client()).await?;
        match bridge.client.legacy().as_mut().map(|client| client.answer(&asked, answer)) {
            Some(Translated::Final(answer)) => answer,
            _ => return Err(unusable()),
        }
    } else {
        own_requests::call(bridge, &asked, Purpose::recheck()).await?
    };
    match (answer.error(), answer.result()) {
        (Some((_, why)), _) => Err(Error::new(ErrorKind::InvalidAnswer, format!("the server refuses a page: {why}"))),
        (None, Some(_)) => Ok(answer),
        (None, None) => Err(unusable()),
    }
}

/// Returns a cursor, as it is written.
fn cursor<'a>(object: Option<Object<'a>>, name: &str) -> Option<&'a str> {
    object?.get(name).filter(|cursor| *cursor != "null")
}

fn with_cursor(request: &Message, cursor: &str) -> Option<Message> {
    let mut splice = Splice::new(request.text());
    if let Some(params) = request.params() {
        splice.edit(params, &[("cursor", cursor)], |_| false);
    } else {
        let params = format!("{{\"cursor\":{cursor}}}");
        splice.edit(Object::of(request.text())?, &[("params", &params)], |_| false);
    }
    Message::one(splice.finish())
}

/// Returns an answer whose list has these elements, with the cursor of the rest if there is one.
fn with_elements(answer: &Message, member: &str, all: &[String], rest: Option<&str>) -> Option<Message> {
    let list = format!("[{}]", all.join(","));
    let members = [(member, list.as_str()), ("nextCursor", rest.unwrap_or_default())];
    let set = members.get(..if rest.is_some() { 2 } else { 1 })?;
    let mut splice = Splice::new(answer.text());
    splice.edit(answer.result()?, set, |member| member.is("nextCursor"));
    Message::one(splice.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> Message {
        Message::one(text.to_owned()).unwrap()
    }

    #[test]
    fn elements_and_cursors_are_set_and_all_else_is_unchanged() {
        let answer = message(r#"{"id":1,"result":{"tools":[1],"x":1e400,"nextCursor":"a"}}"#);
        let all = ["{\"a\":1.0}".to_owned(), "2".to_owned()];
        let text = |rest| with_elements(&answer, "tools", &all, rest).unwrap().text().to_owned();
        assert_eq!(text(None), r#"{"id":1,"result":{"tools":[{"a":1.0},2],"x":1e400}}"#);
        assert_eq!(text(Some("\"b\"")), r#"{"id":1,"result":{"tools":[{"a":1.0},2],"nextCursor":"b","x":1e400}}"#);
        for (request, expected) in [
            (r#"{"id":1,"method":"m"}"#, r#"{"params":{"cursor":"c"},"id":1,"method":"m"}"#),
            (
                r#"{"id":1,"method":"m","params":{"x":1e400}}"#,
                r#"{"id":1,"method":"m","params":{"cursor":"c","x":1e400}}"#,
            ),
        ] {
            assert_eq!(with_cursor(&message(request), "\"c\"").unwrap().text(), expected);
        }
    }
}
