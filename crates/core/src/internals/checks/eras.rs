//! Checks the translators between the eras, and the headers that tools want. The text is a sequence of messages, one on
//! each line, and each goes to every function that can receive it.
//!
//! Each step returns one valid message with the expected id. Its size is bounded by a multiple of the input's size.

use serde_json::value::RawValue;

use super::Input;
use crate::{
    translate::{
        legacy_to_modern::{self, LegacyClient, Translated},
        modern_to_legacy::{self, Answered, FromModern, LegacyServer},
        tool_headers::Tools,
    },
    wire::{
        id::Id,
        message::{Kind, Message},
    },
};

/// The most bytes that a step adds.
const MAX_ADDED_BYTES: usize = 4096;
/// The most times that input can be repeated in the output.
const MAX_GROWTH_FACTOR: usize = 6;
/// The most messages in one sequence.
const MAX_MESSAGES: usize = 16;

/// Checks that each translator turns any sequence of messages into valid messages.
pub fn eras(input: &[u8]) {
    let input = Input::read(input);
    let text = String::from_utf8_lossy(&input.text);
    let lines = text.lines().take(MAX_MESSAGES);
    // The caller has given a response without an id that of its request.
    let has_id = |message: &Message| message.kind() != Kind::Response || message.id().is_some();
    let messages: Vec<_> = lines.filter_map(|line| Message::one(line.to_owned())).filter(has_id).collect();
    let given = Given { size: text.len() };
    given.to_modern(&messages);
    given.to_legacy(&messages);
    given.to_tools(&messages);
}

/// The input.
struct Given {
    size: usize,
}

impl Given {
    /// Plays a legacy client at a modern server.
    fn to_modern(&self, messages: &[Message]) {
        let [initialize, discovered, rest @ ..] = messages else { return };
        if initialize.kind() != Kind::Request || discovered.kind() != Kind::Response {
            return;
        }
        let mut client = LegacyClient::new(initialize);
        self.holds(&client.discover());
        let (Ok(answer) | Err(answer)) = client.initialized(initialize, discovered);
        self.check_with_id(&answer, initialize.id());
        for (at, message) in rest.iter().enumerate() {
            match client.take(message) {
                legacy_to_modern::FromLegacy::Send(sent) => self.check_with_id(&sent, message.id()),
                legacy_to_modern::FromLegacy::Answer(answer) | legacy_to_modern::FromLegacy::Listen(answer) => {
                    self.check_with_id(&answer, message.id());
                }
                legacy_to_modern::FromLegacy::Nothing => {}
            }
            self.hold(client.listen());
            self.hold(LegacyClient::event(message.clone()));
            for answer in rest.iter().skip(at).filter(|answer| answer.kind() == Kind::Response).take(2) {
                match client.answer(message, answer.clone()) {
                    Translated::Final(last) => self.check_with_id(&last, answer.id()),
                    Translated::InputRequired(round) => {
                        self.hold(round.questions().iter().map(|question| question.request.clone()));
                        let keys = round.questions().iter().map(|question| question.key.clone());
                        let responses: Vec<_> = keys.map(|key| (key, answer.clone())).collect();
                        if let Ok(again) = round.retry(message, &responses) {
                            // One response answers all questions here.
                            is_message(&again, message.id(), self.size * (1 + responses.len()));
                        }
                    }
                }
            }
            client.forget(message);
        }
    }

    /// Plays a modern client at a legacy server.
    fn to_legacy(&self, messages: &[Message]) {
        let Some(server) = messages.iter().find_map(LegacyServer::new) else { return };
        for request in messages.iter().filter(|message| message.kind() == Kind::Request) {
            self.holds(&modern_to_legacy::initialize(request));
            self.hold(modern_to_legacy::objection(request));
            self.check_with_id(&modern_to_legacy::forwarded(request), request.id());
            for answer in [modern_to_legacy::pong(request), modern_to_legacy::refusal(request)] {
                self.check_with_id(&answer, request.id());
            }
            if let Some(level) = modern_to_legacy::log_level(request) {
                self.holds(&modern_to_legacy::set_level(&level));
            }
            match server.take(request) {
                FromModern::Send(sent) => self.check_with_id(&sent, request.id()),
                FromModern::Answer(answer) => self.check_with_id(&answer, request.id()),
                FromModern::Retry { responses, .. } => {
                    self.hold(responses.iter().map(|(_, response)| modern_to_legacy::response(request, response)));
                    self.hold(modern_to_legacy::declined(request, &responses));
                }
                FromModern::Listen(subscription) => {
                    self.holds(&subscription.acknowledged());
                    self.holds(&subscription.ended());
                    self.hold(subscription.uris().iter().map(|uri| modern_to_legacy::subscribe(uri)));
                    self.hold(messages.iter().filter_map(|message| subscription.event(message)));
                }
            }
            for message in messages {
                self.answers(&server, request, message);
            }
        }
    }

    /// Plays a legacy server's messages while a modern client waits for the response to this request.
    fn answers(&self, server: &LegacyServer, request: &Message, message: &Message) {
        match message.kind() {
            Kind::Response => match server.answer(request, message.clone()) {
                Answered::Final(last) => self.check_with_id(&last, request.id()),
                Answered::InputRequired(questions) => {
                    self.check_with_id(&modern_to_legacy::input_required(request, "state", &questions), request.id());
                }
            },
            Kind::Notification => {
                let passed = modern_to_legacy::notification(message.clone(), Some("info"));
                let passed = passed.and_then(|passed| modern_to_legacy::adapt_notification(passed, request));
                self.hold(passed);
            }
            Kind::Request if modern_to_legacy::is_question(request, message) => {
                let asked = modern_to_legacy::input_required(request, "state", std::slice::from_ref(message));
                self.check_with_id(&asked, request.id());
            }
            Kind::Request => {}
        }
    }

    /// Reads the headers that tools want.
    fn to_tools(&self, messages: &[Message]) {
        let mut tools = Tools::default();
        for message in messages {
            self.check_with_id(&tools.learn(message.clone()), message.id());
        }
        for call in messages {
            let headers = tools.params(call);
            assert!(headers.is_empty() || tools.know(call));
            let size: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
            assert!(
                size <= MAX_GROWTH_FACTOR * self.size + MAX_ADDED_BYTES,
                "headers of {size} bytes from {}",
                self.size
            );
        }
    }

    fn hold(&self, made: impl IntoIterator<Item = Message>) {
        for made in made {
            self.holds(&made);
        }
    }

    fn holds(&self, made: &Message) {
        is_message(made, made.id(), self.size);
    }

    fn check_with_id(&self, made: &Message, id: Option<&Id>) {
        is_message(made, id, self.size);
    }
}

/// Checks that this is one message with this id, of the same kind and method as its text.
fn is_message(made: &Message, id: Option<&Id>, size: usize) {
    let text = made.text();
    assert!(text.starts_with('{') && serde_json::from_str::<&RawValue>(text).is_ok(), "{text:.2000}");
    let read = Message::one(text.to_owned()).unwrap_or_else(|| panic!("no message: {text:.2000}"));
    assert_eq!((read.kind(), read.method()), (made.kind(), made.method()), "{text:.2000}");
    let ids = [&read, made].map(|message| message.id().map(Id::as_str));
    assert_eq!(ids, [id.map(Id::as_str); 2], "{text:.2000}");
    assert!(text.len() <= MAX_GROWTH_FACTOR * size + MAX_ADDED_BYTES, "{} bytes from {size}: {text:.2000}", text.len());
}
