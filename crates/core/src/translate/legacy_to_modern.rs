//! Translates between a legacy client and a modern server, one message at a time, as text (no I/O).
//!
//! A legacy client and its server remember the handshake. A modern server expects the same data with each request, and
//! asks its questions in results instead of requests. This file holds the remembered data and each change of form. The
//! caller decides when a message is sent and under which id: messages made here carry a placeholder id, and messages
//! that pass through keep theirs.
//!
//! Rule: a message that passes through is edited in place. Numbers, the order of members, escapes and unknown members
//! stay byte for byte (R3). So do the keys of questions and `requestState` (R75).

use crate::{
    error::{Error, ErrorKind, Hint},
    json::splice::{Object, Splice, elements},
    wire::{
        id::Id,
        message::{Kind, Message},
        reply::error_reply,
        revision::{
            CLIENT_CAPABILITIES, CLIENT_INFO, LOG_LEVEL, NEWEST_LEGACY_VERSION, PROTOCOL_VERSION, SERVER_INFO,
            SUBSCRIPTION_ID,
        },
    },
};
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

/// The most resources that a client can subscribe to. Each change sends the full list to the server.
pub(crate) const MAX_SUBSCRIPTIONS: usize = 1_000;
/// The longest URI of a subscription, in bytes.
pub(crate) const MAX_URI_BYTES: usize = 8 * 1024;
/// The most questions in one round. Each becomes a request to the client.
pub(crate) const MAX_QUESTIONS: usize = 100;
/// The most tools to remember whose results are not objects.
const MAX_WRAPPED_TOOLS: usize = 10_000;
/// The longest name of such a tool, in bytes.
const MAX_TOOL_NAME_BYTES: usize = 1024;
/// The deepest level of an output schema that is searched. A deeper schema is withheld from the client.
const MAX_SCHEMA_DEPTH: usize = 64;
/// The longest list of capabilities that an error names, in bytes.
const MAX_CAPABILITY_LIST_LENGTH: usize = 200;

/// The protocol versions whose handshake is supported. A client that requests another version gets the newest of these.
const LEGACY_VERSIONS: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", NEWEST_LEGACY_VERSION];
/// [`crate::wire::revision::MODERN_VERSION`] as JSON.
const MODERN_VERSION_JSON: &str = "\"2026-07-28\"";
/// The log levels of RFC 5424, which both protocols use.
const LOG_LEVELS: [&str; 8] = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];
/// The extension for tasks of 2026-07-28. Tasks of 2025-11-25 are different.
const TASKS_EXTENSION: &str = "io.modelcontextprotocol/tasks";
/// The `_meta` member that ties a message to a task of 2025-11-25.
const RELATED_TASK: &str = "io.modelcontextprotocol/related-task";

/// The result for an elicitation that the client did not answer.
const CANCEL: &str = r#"{"action":"cancel"}"#;

const INVALID_REQUEST: i32 = -32_600;
const METHOD_NOT_FOUND: i32 = -32_601;
const INVALID_PARAMS: i32 = -32_602;
const MISSING_CLIENT_CAPABILITY: i64 = -32_021;

/// A legacy client, with the data that a modern server expects in each request.
#[derive(Debug)]
pub(crate) struct LegacyClient {
    initialize: Message,
    /// JSON, for `_meta`.
    capabilities: String,
    /// JSON. `None` if the client gave no name.
    info: Option<String>,
    /// JSON. `None` until the client asks for log messages.
    log_level: Option<String>,
    /// The client's subscriptions: each URI, and its spelling in the client's JSON.
    subscriptions: BTreeMap<String, String>,
    offer: OfferedNotifications,
    /// Tools whose output schema the client sees wrapped (see [`wrapped_schema`]).
    wrapped_tools: BTreeSet<String>,
    /// The number of elicitations that got an id here.
    elicitations: u64,
}

/// The notifications that the server offers.
#[derive(Debug, Default)]
struct OfferedNotifications {
    /// The lists, under their names in a subscription.
    lists: Vec<&'static str>,
    has_subscriptions: bool,
}

/// What to do with a client's message.
#[derive(Debug)]
pub(crate) enum FromLegacy {
    /// Send this to the server.
    Send(Message),
    /// Answer the client with this, without the server. It has the request's id.
    Answer(Message),
    /// The client's subscriptions changed. Open a new [`LegacyClient::listen`] before the old one ends, then send this
    /// response. If the server refuses, call [`LegacyClient::forget`].
    Listen(Message),
    /// Send nothing. After `notifications/initialized`, listening can begin.
    Nothing,
}

/// The meaning of a response to a forwarded request.
#[derive(Debug)]
pub(crate) enum Translated {
    /// A response for the client.
    Final(Message),
    /// The server needs input first.
    InputRequired(Round),
}

/// One round of a request that takes several: the server's questions, and the state for the next round.
#[derive(Debug)]
pub(crate) struct Round {
    questions: Vec<Question>,
    /// Keys, as JSON, of the questions that the client cannot be asked. The bridge answers them.
    cancelled: Vec<String>,
    /// JSON, as the server wrote it.
    state: Option<String>,
}

/// One request from the server to the client.
#[derive(Debug)]
pub(crate) struct Question {
    /// The key for the answer, as JSON, in the server's spelling.
    pub(crate) key: String,
    /// The request. Its id is a placeholder that the sender replaces.
    pub(crate) request: Message,
}

impl LegacyClient {
    /// Makes a client from its `initialize`. Another `initialize` makes another client.
    pub(crate) fn new(initialize: &Message) -> Self {
        let params = initialize.params();
        Self {
            initialize: initialize.clone(),
            capabilities: params
                .and_then(|params| params.object("capabilities"))
                .map_or_else(|| "{}".to_owned(), declared_capabilities),
            info: params.and_then(|params| params.object("clientInfo")).map(|info| info.as_str().to_owned()),
            log_level: None,
            subscriptions: BTreeMap::new(),
            offer: OfferedNotifications::default(),
            wrapped_tools: BTreeSet::new(),
            elicitations: 0,
        }
    }

    /// Returns the `server/discover` that replaces the handshake.
    pub(crate) fn discover(&self) -> Message {
        let meta = object(&self.meta());
        let text = format!(r#"{{"jsonrpc":"2.0","id":0,"method":"server/discover","params":{{"_meta":{meta}}}}}"#);
        // It is JSON by construction.
        Message::one(text).unwrap_or_else(|| self.initialize.clone())
    }

    /// Makes the response to the client's `initialize` from the response to `server/discover`. Remembers what the
    /// server offers.
    ///
    /// The version is the client's own if it is supported: translation is the same for all of them.
    ///
    /// # Errors
    /// Returns the error for the client, with its id, if the server did not say what it offers.
    pub(crate) fn initialized(&mut self, initialize: &Message, discovered: &Message) -> Result<Message, Message> {
        let id = initialize.id();
        let Some(result) = discovered.result() else {
            let error = Error::new(ErrorKind::InvalidAnswer, "the server's answer to server/discover has no result");
            return Err(with_id(
                match discovered.error() {
                    Some(_) => mapped_error(discovered).unwrap_or_else(|| discovered.clone()),
                    None => failed(discovered, &error),
                },
                id,
            ));
        };
        if result_type(result) != ResultType::Complete {
            let error = Error::new(ErrorKind::InvalidAnswer, "the server's answer to server/discover is not complete");
            return Err(with_id(failed(discovered, &error), id));
        }
        let offered = result.object("capabilities");
        let has = |name, feature| {
            let feature = offered.and_then(|offered| offered.object(name)?.get(feature));
            feature == Some("true")
        };
        let lists =
            [("tools", "toolsListChanged"), ("prompts", "promptsListChanged"), ("resources", "resourcesListChanged")];
        self.offer = OfferedNotifications {
            lists: lists.into_iter().filter(|(name, _)| has(name, "listChanged")).map(|(_, list)| list).collect(),
            has_subscriptions: has("resources", "subscribe"),
        };

        let requested = initialize.params().and_then(|params| params.string("protocolVersion"));
        let version = LEGACY_VERSIONS
            .into_iter()
            .find(|known| requested.as_deref() == Some(known))
            .unwrap_or(NEWEST_LEGACY_VERSION);
        let version = serde_json::Value::from(version).to_string();
        // The client cannot use extensions, nor tasks, which differ in this version.
        let capabilities =
            offered.map_or_else(|| "{}".to_owned(), |offered| edited(offered, &[], &["extensions", "tasks"]));
        // A legacy server must have both members. Drafts put `serverInfo` next to the capabilities (1.7).
        let is_named = |info: &Object<'_>| info.string("name").is_some() && info.string("version").is_some();
        let in_meta = result.object("_meta").and_then(|meta| meta.object(SERVER_INFO));
        let server = in_meta
            .filter(is_named)
            .or_else(|| result.object("serverInfo").filter(is_named))
            .map_or(r#"{"name":"unnamed","version":"unknown"}"#, Object::as_str);

        let mut splice = Splice::new(discovered.text());
        let set =
            [("protocolVersion", version.as_str()), ("capabilities", capabilities.as_str()), ("serverInfo", server)];
        strip(&mut splice, result, &set, |name| match name {
            "supportedVersions" => true,
            "instructions" => result.string("instructions").is_none(),
            _ => false,
        });
        let answer = Message::one(splice.finish()).unwrap_or_else(|| discovered.clone());
        Ok(with_id(answer, id))
    }

    /// Translates one message of the client after the handshake. The sender handles `notifications/cancelled`: it ends
    /// the request's stream (R69).
    ///
    /// A request that a legacy server would refuse is refused with the code of such a server, -32601 or -32602. The
    /// error's `data` says that it comes from the bridge (R78).
    pub(crate) fn take(&mut self, message: &Message) -> FromLegacy {
        match message.kind() {
            Kind::Request => self.take_request(message),
            Kind::Response => FromLegacy::Nothing,
            Kind::Notification => match message.method() {
                // The modern protocol has none of these from a client.
                "notifications/initialized"
                | "notifications/cancelled"
                | "notifications/progress"
                | "notifications/roots/list_changed"
                | "notifications/tasks/status" => FromLegacy::Nothing,
                _ => FromLegacy::Send(message.clone()),
            },
        }
    }

    /// Returns a `subscriptions/listen` for everything that is wanted now: the lists that the server offers, and the
    /// client's subscriptions. Returns `None` if that is nothing.
    pub(crate) fn listen(&self) -> Option<Message> {
        let mut wanted: Vec<_> = self.offer.lists.iter().map(|list| (*list, "true".to_owned())).collect();
        if !self.subscriptions.is_empty() {
            let uris: Vec<_> = self.subscriptions.values().map(String::as_str).collect();
            wanted.push(("resourceSubscriptions", format!("[{}]", uris.join(","))));
        }
        if wanted.is_empty() {
            return None;
        }
        let wanted: Vec<_> = wanted.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let params = object(&[("_meta", &object(&self.meta())), ("notifications", &object(&wanted))]);
        Message::one(format!(r#"{{"jsonrpc":"2.0","id":0,"method":"subscriptions/listen","params":{params}}}"#))
    }

    /// Undoes this `resources/subscribe`, which the server refused.
    pub(crate) fn forget(&mut self, request: &Message) {
        if request.method() == "resources/subscribe"
            && let Some(uri) = request.uri()
        {
            self.subscriptions.remove(&uri);
        }
    }

    /// Translates a notification from the listen stream. Returns `None` for the acknowledgement, and for notifications
    /// that a legacy client does not know.
    pub(crate) fn event(notification: Message) -> Option<Message> {
        let is_unknown = matches!(
            notification.method(),
            "notifications/subscriptions/acknowledged" | "notifications/cancelled" | "notifications/tasks"
        );
        if notification.kind() != Kind::Notification || is_unknown {
            return None;
        }
        let Some(params) = notification.params() else { return Some(notification) };
        let mut splice = Splice::new(notification.text());
        strip_meta(&mut splice, params, &[], SUBSCRIPTION_ID, |_| false);
        Message::one(splice.finish()).or(Some(notification))
    }

    /// True if the response asks for input.
    pub(crate) fn is_question(answer: &Message) -> bool {
        answer.result().is_some_and(|result| result_type(result) == ResultType::InputRequired)
    }

    /// Interprets the response to a forwarded request. `request` is the client's request or the one sent for it. The
    /// response keeps its id.
    pub(crate) fn answer(&mut self, request: &Message, answer: Message) -> Translated {
        let Some(result) = answer.result() else {
            return Translated::Final(mapped_error(&answer).unwrap_or(answer));
        };
        match result_type(result) {
            ResultType::Complete => Translated::Final(self.completed(request, &answer, result).unwrap_or(answer)),
            ResultType::InputRequired => match self.round(result) {
                Ok(round) => Translated::InputRequired(round),
                Err(error) => Translated::Final(failed(&answer, &error)),
            },
            ResultType::Unknown(name) => {
                let error = Error::new(ErrorKind::InvalidAnswer, "the server's result is of a type that is not known")
                    .with_detail(&name);
                Translated::Final(failed(&answer, &error))
            }
        }
    }

    fn take_request(&mut self, request: &Message) -> FromLegacy {
        let params = request.params();
        match request.method() {
            "ping" => answered(reply(request, "{}")),
            "initialize" => refused(request, INVALID_REQUEST, "the handshake was made already"),
            "logging/setLevel" => {
                let level = params.and_then(|params| params.string("level"));
                let Some(level) = level.filter(|level| LOG_LEVELS.contains(&level.as_str())) else {
                    // A server would refuse each request with this level.
                    return refused(request, INVALID_PARAMS, "this is no log level");
                };
                self.log_level = Some(serde_json::Value::from(level).to_string());
                answered(reply(request, "{}"))
            }
            "resources/subscribe" | "resources/unsubscribe" if !self.offer.has_subscriptions => {
                refused(request, METHOD_NOT_FOUND, "the server offers no subscriptions to resources")
            }
            "resources/subscribe" => self.subscribe(request),
            "resources/unsubscribe" => {
                let Some(uri) = request.uri() else { return refused(request, INVALID_PARAMS, "the uri is missing") };
                let was_subscribed = self.subscriptions.remove(&uri).is_some();
                changed(reply(request, "{}"), was_subscribed)
            }
            method if method.starts_with("tasks/") => {
                refused(request, METHOD_NOT_FOUND, "the server has no tasks of this protocol version")
            }
            _ => match self.with_meta(request) {
                Some(request) => FromLegacy::Send(request),
                None => refused(request, INVALID_PARAMS, "the params are no object"),
            },
        }
    }

    fn subscribe(&mut self, request: &Message) -> FromLegacy {
        // Keep the client's spelling, but only if it can be decoded: no URI has a lone surrogate.
        let spelt = request.params().and_then(|params| params.get("uri"));
        let (Some(uri), Some(spelt)) = (request.uri(), spelt) else {
            return refused(request, INVALID_PARAMS, "the uri is missing");
        };
        if self.subscriptions.contains_key(&uri) {
            return answered(reply(request, "{}"));
        }
        if spelt.len() > MAX_URI_BYTES {
            return refused(request, INVALID_PARAMS, &format!("a uri has at most {MAX_URI_BYTES} bytes"));
        }
        if self.subscriptions.len() >= MAX_SUBSCRIPTIONS {
            let why = format!("there are {MAX_SUBSCRIPTIONS} subscriptions already, which is the most");
            return refused(request, INVALID_REQUEST, &why);
        }
        self.subscriptions.insert(uri, spelt.to_owned());
        changed(reply(request, "{}"), true)
    }

    /// Returns the members of `_meta` that each modern request has, as JSON (1.6).
    fn meta(&self) -> Vec<(&'static str, &str)> {
        let mut meta = vec![(PROTOCOL_VERSION, MODERN_VERSION_JSON), (CLIENT_CAPABILITIES, self.capabilities.as_str())];
        meta.extend(self.info.as_deref().map(|info| (CLIENT_INFO, info)));
        meta
    }

    /// Returns the request with all `_meta` members. Returns `None` if its parameters are not an object.
    fn with_meta(&self, request: &Message) -> Option<Message> {
        let mut set = self.meta();
        set.extend(self.log_level.as_deref().map(|level| (LOG_LEVEL, level)));
        let root = Object::of(request.text())?;
        let mut splice = Splice::new(request.text());
        match root.get("params") {
            None | Some("null") => splice.edit(root, &[("params", &object(&[("_meta", &object(&set))]))], |_| false),
            Some(params) => {
                let params = Object::of(params)?;
                // The server does not declare tasks of 2025-11-25, so this is an ordinary call.
                let is_call = request.method() == "tools/call";
                let without = |name: &str| is_call && name == "task";
                if let Some(meta) = params.object("_meta") {
                    splice.edit(params, &[], |member| without(&member.name()));
                    // Anything that the client put there could contradict the handshake.
                    let reserved = [PROTOCOL_VERSION, CLIENT_CAPABILITIES, CLIENT_INFO, LOG_LEVEL, RELATED_TASK];
                    splice.edit(meta, &set, |member| reserved.iter().any(|name| member.is(name)));
                } else {
                    splice.edit(params, &[("_meta", &object(&set))], |member| without(&member.name()));
                }
            }
        }
        Message::one(splice.finish())
    }

    /// Returns a complete result in its legacy form.
    fn completed(&mut self, request: &Message, answer: &Message, result: Object<'_>) -> Option<Message> {
        let mut splice = Splice::new(answer.text());
        strip(&mut splice, result, &[], |_| false);
        match request.method() {
            "tools/list" => self.wrap_schemas(&mut splice, result),
            "tools/call" => {
                let content = result.get("structuredContent");
                let tool = || request.params().and_then(|params| params.string("name"));
                let is_wrapped = |content: &str| {
                    Object::of(content).is_none() || tool().is_some_and(|tool| self.wrapped_tools.contains(&tool))
                };
                if let Some(content) = content.filter(|content| is_wrapped(content)) {
                    splice.replace(content, format!(r#"{{"result":{content}}}"#));
                }
            }
            _ => {}
        }
        Message::one(splice.finish())
    }

    /// Turns each output schema of a list into the schema of an object, which a legacy client requires, and remembers
    /// the tools whose results must change with it. Removes a schema that cannot be changed: the client then does not
    /// check the results.
    fn wrap_schemas<'a>(&mut self, splice: &mut Splice<'a>, result: Object<'a>) {
        for tool in result.get("tools").into_iter().flat_map(elements).filter_map(Object::of) {
            let name = tool.string("name").filter(|name| name.len() <= MAX_TOOL_NAME_BYTES);
            let Some(written) = tool.get("outputSchema") else {
                self.unwrap_tool(name.as_deref());
                continue;
            };
            let schema = Object::of(written);
            if schema.is_some_and(|schema| schema.string("type").as_deref() == Some("object")) {
                self.unwrap_tool(name.as_deref());
                continue;
            }
            let name =
                name.filter(|name| self.wrapped_tools.len() < MAX_WRAPPED_TOOLS || self.wrapped_tools.contains(name));
            match (schema.and_then(wrapped_schema), name) {
                (Some(wrapped), Some(name)) => {
                    splice.replace(written, wrapped);
                    self.wrapped_tools.insert(name);
                }
                (_, name) => {
                    splice.edit(tool, &[], |member| member.is("outputSchema"));
                    self.unwrap_tool(name.as_deref());
                }
            }
        }
    }

    fn unwrap_tool(&mut self, name: Option<&str>) {
        if let Some(name) = name {
            self.wrapped_tools.remove(name);
        }
    }

    /// Reads the server's questions from a result.
    fn round(&mut self, result: Object<'_>) -> Result<Round, Error> {
        let state = result.get("requestState").map(str::to_owned);
        let asked = result.get("inputRequests").filter(|asked| *asked != "null");
        if asked.is_none() && state.is_none() {
            return Err(Error::new(ErrorKind::InvalidAnswer, "the server needs input, but does not say which"));
        }
        let mut round = Round { questions: Vec::new(), cancelled: Vec::new(), state };
        let Some(asked) = asked else { return Ok(round) };
        let unreadable = |key: &str| {
            Error::new(ErrorKind::InvalidAnswer, "the server asks for input in a form that is not known")
                .with_detail(key)
        };
        let asked = Object::of(asked).ok_or_else(|| unreadable("inputRequests"))?;
        let asked: Vec<_> = asked.members().take(MAX_QUESTIONS + 1).collect();
        if asked.len() > MAX_QUESTIONS {
            let why = format!("the server asks for more than {MAX_QUESTIONS} inputs at once");
            return Err(Error::new(ErrorKind::InvalidAnswer, why));
        }
        for (at, member) in asked.iter().enumerate() {
            let key = member.written_name();
            // If two questions have the same key, the last one counts, as everywhere.
            if asked.iter().skip(at + 1).any(|later| later.written_name() == key) {
                continue;
            }
            let question = Object::of(member.value).ok_or_else(|| unreadable(key))?;
            let method = question.string("method").ok_or_else(|| unreadable(key))?;
            let params = match question.get("params") {
                None | Some("null") => None,
                Some(params) => Some(Object::of(params).ok_or_else(|| unreadable(key))?),
            };
            match self.can_be_asked(&method, params) {
                Ok(()) => {
                    let request = self.question(&method, params).ok_or_else(|| unreadable(key))?;
                    round.questions.push(Question { key: key.to_owned(), request });
                }
                // The client would refuse it, with the same outcome.
                Err(_) if method == "elicitation/create" => round.cancelled.push(key.to_owned()),
                Err(error) => return Err(error),
            }
        }
        Ok(round)
    }

    /// Checks that the client declared support for this question. A server must not ask for anything else.
    fn can_be_asked(&self, method: &str, params: Option<Object<'_>>) -> Result<(), Error> {
        let declared = Object::of(&self.capabilities);
        let has = |name: &str| declared.and_then(|declared| declared.object(name));
        let (capability, is_declared) = match method {
            "roots/list" => ("roots", has("roots").is_some()),
            "sampling/createMessage" => {
                // Clients that predate these members would ignore them.
                let is_tooled =
                    params.is_some_and(|params| params.get("tools").is_some() || params.get("toolChoice").is_some());
                match has("sampling") {
                    Some(sampling) if is_tooled => ("sampling.tools", sampling.object("tools").is_some()),
                    sampling => ("sampling", sampling.is_some()),
                }
            }
            "elicitation/create" => {
                let mode = params.and_then(|params| params.get("mode"));
                let mode = mode.map(|mode| serde_json::from_str::<String>(mode).unwrap_or_default());
                match (mode.as_deref(), has("elicitation")) {
                    // A declaration without any mode means forms.
                    (None | Some("form"), Some(modes)) => {
                        ("elicitation.form", modes.get("form").is_some() || modes.get("url").is_none())
                    }
                    (Some("url"), Some(modes)) => ("elicitation.url", modes.object("url").is_some()),
                    _ => ("elicitation", false),
                }
            }
            _ => {
                let error =
                    Error::new(ErrorKind::InvalidAnswer, "the server asks for input of a kind that is not known");
                return Err(error.with_detail(method));
            }
        };
        if is_declared {
            return Ok(());
        }
        let why = format!("the server asks for input that the client cannot give: it has no {capability}");
        Err(Error::new(ErrorKind::InvalidAnswer, why))
    }

    /// Makes the request that puts a question to the client.
    fn question(&mut self, method: &str, params: Option<Object<'_>>) -> Option<Message> {
        let method = serde_json::Value::from(method);
        let Some(params) = params else {
            return Message::one(format!(r#"{{"jsonrpc":"2.0","id":0,"method":{method}}}"#));
        };
        let is_of_a_page = method == "elicitation/create" && params.string("mode").as_deref() == Some("url");
        let params = if is_of_a_page && params.string("elicitationId").is_none() {
            // 2025-11-25 requires it and 2026-07-28 removed it. Nothing refers to it later.
            self.elicitations += 1;
            edited(params, &[("elicitationId", &format!("\"gangway-{}\"", self.elicitations))], &[])
        } else {
            params.as_str().to_owned()
        };
        Message::one(format!(r#"{{"jsonrpc":"2.0","id":0,"method":{method},"params":{params}}}"#))
    }
}

impl Round {
    /// Returns the questions for the client, in the server's order. If there are none, retry at once.
    pub(crate) fn questions(&self) -> &[Question] {
        &self.questions
    }

    /// Makes the request for the next round. It has the client's answers under the keys of their questions, and the
    /// exact `requestState`, or none (R75). `sent` is the request of the last round. The result has the same id, which
    /// the caller must replace.
    ///
    /// # Errors
    /// The client refused or misunderstood a question, so the request cannot complete. Only for an elicitation is there
    /// an answer that says so.
    pub(crate) fn retry(&self, sent: &Message, responses: &[(String, Message)]) -> Result<Message, Error> {
        let mut answers = Vec::new();
        for Question { key, request } in &self.questions {
            let Some((_, response)) = responses.iter().find(|(answered, _)| answered == key) else {
                // The server asks again if it needs this.
                continue;
            };
            let answer = match response.result() {
                Some(result) => result.as_str(),
                None if request.method() == "elicitation/create" => CANCEL,
                None => {
                    let why = format!("the client did not answer the server's {}", request.method());
                    let error = Error::new(ErrorKind::InputRefused, why);
                    return Err(match response.error() {
                        Some((code, text)) => error.with_detail(&format!("{code}: {text}")),
                        None => error,
                    });
                }
            };
            answers.push(format!("{key}:{answer}"));
        }
        answers.extend(self.cancelled.iter().map(|key| format!("{key}:{CANCEL}")));

        let answers = (!answers.is_empty()).then(|| format!("{{{}}}", answers.join(",")));
        let members = [("inputResponses", answers.as_deref()), ("requestState", self.state.as_deref())];
        let added: Vec<_> = members.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        let retried = sent.params().and_then(|params| {
            let mut splice = Splice::new(sent.text());
            // Remove the members of an earlier round.
            splice.edit(params, &added, |member| members.iter().any(|(name, _)| member.is(name)));
            Message::one(splice.finish())
        });
        retried.ok_or_else(|| Error::new(ErrorKind::InvalidMessage, "the request has no params to put the answers in"))
    }
}

/// The type that a result declares.
#[derive(Debug, PartialEq, Eq)]
enum ResultType {
    Complete,
    InputRequired,
    Unknown(String),
}

fn result_type(result: Object<'_>) -> ResultType {
    let Some(written) = result.get("resultType") else {
        // Servers of earlier versions omit it.
        return ResultType::Complete;
    };
    match result.string("resultType").as_deref() {
        Some("complete") => ResultType::Complete,
        Some("input_required") => ResultType::InputRequired,
        _ => ResultType::Unknown(written.to_owned()),
    }
}

/// Returns the client's capabilities without tasks, old and new, which cannot be translated.
fn declared_capabilities(declared: Object<'_>) -> String {
    let mut splice = Splice::new(declared.as_str());
    splice.edit(declared, &[], |member| member.is("tasks"));
    if let Some(extensions) = declared.object("extensions") {
        splice.edit(extensions, &[], |member| member.is(TASKS_EXTENSION));
    }
    text_of(&splice.finish())
}

/// Returns a JSON object with these members.
fn object(members: &[(&str, &str)]) -> String {
    let members: Vec<_> =
        members.iter().map(|(name, value)| format!("{}:{value}", serde_json::Value::from(*name))).collect();
    format!("{{{}}}", members.join(","))
}

/// Returns a copy of an object, with members set and removed.
fn edited(object: Object<'_>, set: &[(&str, &str)], without: &[&str]) -> String {
    let mut splice = Splice::new(object.as_str());
    splice.edit(object, set, |member| without.iter().any(|name| member.is(name)));
    text_of(&splice.finish())
}

fn text_of(bytes: &Bytes) -> String {
    // It was made from texts, so it is valid UTF-8.
    std::str::from_utf8(bytes).unwrap_or("{}").to_owned()
}

/// Removes the members that only modern results have and those that `without` names, and sets members.
fn strip<'a>(splice: &mut Splice<'a>, result: Object<'a>, set: &[(&str, &str)], without: impl Fn(&str) -> bool) {
    strip_meta(splice, result, set, SERVER_INFO, |name| {
        matches!(name, "resultType" | "ttlMs" | "cacheScope") || without(name)
    });
}

/// Removes a member of an object's `_meta`, and the whole `_meta` if it becomes empty.
fn strip_meta<'a>(
    splice: &mut Splice<'a>,
    object: Object<'a>,
    set: &[(&str, &str)],
    name: &str,
    without: impl Fn(&str) -> bool,
) {
    let meta = object.object("_meta").filter(|meta| meta.get(name).is_some());
    let is_only = meta.is_some_and(|meta| meta.members().all(|member| member.is(name)));
    splice.edit(object, set, |member| without(&member.name()) || (is_only && member.is("_meta")));
    if let Some(meta) = meta.filter(|_| !is_only) {
        splice.edit(meta, &[], |member| member.is(name));
    }
}

/// Translates a modern server's error for a legacy client. Returns `None` if the error can stay as it is.
fn mapped_error(answer: &Message) -> Option<Message> {
    let error = Object::of(answer.text())?.object("error")?;
    let (code, text) = answer.error()?;
    if code != MISSING_CLIENT_CAPABILITY {
        return None;
    }
    let required = error.object("data").and_then(|data| data.object("requiredCapabilities"));
    let mut names = String::new();
    for member in required.into_iter().flat_map(Object::members) {
        let name = member.name();
        let features: Vec<_> = Object::of(member.value)
            .into_iter()
            .flat_map(Object::members)
            .map(|feature| format!("{name}.{}", feature.name()))
            .take(MAX_CAPABILITY_LIST_LENGTH)
            .collect();
        let comma = if names.is_empty() { "" } else { ", " };
        names = names + comma + &if features.is_empty() { name } else { features.join(", ") };
        if names.len() > MAX_CAPABILITY_LIST_LENGTH {
            names.truncate(names.floor_char_boundary(MAX_CAPABILITY_LIST_LENGTH));
            names += "...";
            break;
        }
    }
    let text =
        if names.is_empty() { text } else { format!("the server needs a capability that the client lacks: {names}") };
    let text = serde_json::Value::from(text).to_string();
    let mut splice = Splice::new(answer.text());
    splice.edit(error, &[("code", "-32603"), ("message", &text)], |_| false);
    Message::one(splice.finish())
}

/// Makes the error that the client gets instead of this response.
fn failed(answer: &Message, error: &Error) -> Message {
    Message::one(error_reply(answer.id(), error, Hint::as_str)).unwrap_or_else(|| answer.clone())
}

fn with_id(message: Message, id: Option<&Id>) -> Message {
    match id {
        Some(id) => message.with_id(id),
        None => message,
    }
}

/// Makes the bridge's own response to a request.
fn reply(request: &Message, result: &str) -> Option<Message> {
    let id = request.id().map_or("null", Id::as_str);
    Message::one(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#))
}

/// Refuses a request as a legacy server would. The error says that it comes from the bridge.
fn refused(request: &Message, code: i32, why: &str) -> FromLegacy {
    let id = request.id().map_or("null", Id::as_str);
    let text = if code == METHOD_NOT_FOUND { format!("Method not found: {why}") } else { why.to_owned() };
    let text = serde_json::Value::from(text);
    answered(Message::one(format!(
        r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":{text},"data":{{"source":"mcp-gangway"}}}}}}"#
    )))
}

fn answered(answer: Option<Message>) -> FromLegacy {
    // A response is JSON by construction.
    answer.map_or(FromLegacy::Nothing, FromLegacy::Answer)
}

/// Wraps the response to a request that may have changed the subscriptions.
fn changed(answer: Option<Message>, is_changed: bool) -> FromLegacy {
    match answer {
        Some(answer) if is_changed => FromLegacy::Listen(answer),
        answer => answered(answer),
    }
}

/// Wraps an output schema in the schema of an object whose member `result` has it, as the official TypeScript SDK shows
/// it to legacy clients. Rewrites references into the document to match. Returns `None` if that is not possible.
fn wrapped_schema(schema: Object<'_>) -> Option<String> {
    /// Keywords with data as value, in which `$ref` has no meaning.
    const DATA: [&str; 4] = ["const", "enum", "default", "examples"];
    /// Keywords with an object as value whose member names the author chooses.
    const MAPS: [&str; 6] =
        ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"];

    let mut splice = Splice::new(schema.as_str());
    let mut left = vec![(schema.as_str(), false, 0)];
    while let Some((value, is_map, depth)) = left.pop() {
        if depth > MAX_SCHEMA_DEPTH {
            return None;
        }
        let Some(object) = Object::of(value) else {
            left.extend(elements(value).map(|element| (element, false, depth + 1)));
            continue;
        };
        if !is_map && is_base(object) {
            continue;
        }
        for member in object.members() {
            let name = member.name();
            match name.as_str() {
                _ if is_map => left.push((member.value, false, depth + 1)),
                "$ref" | "$dynamicRef" => {
                    let target = serde_json::from_str::<String>(member.value).unwrap_or_default();
                    if let Some(path) = target.strip_prefix('#').filter(|path| path.is_empty() || path.starts_with('/'))
                    {
                        splice.replace(
                            member.value,
                            serde_json::Value::from(format!("#/properties/result{path}")).to_string(),
                        );
                    }
                }
                // Only 2019-09 has it, and it refers to the whole document.
                "$recursiveRef" => return None,
                name if DATA.contains(&name) => {}
                name => left.push((member.value, MAPS.contains(&name), depth + 1)),
            }
        }
    }
    let dialect = schema.get("$schema").filter(|dialect| dialect.starts_with('"'));
    let dialect = dialect.map_or_else(String::new, |dialect| format!(r#""$schema":{dialect},"#));
    let natural = text_of(&splice.finish());
    Some(format!(r#"{{{dialect}"type":"object","properties":{{"result":{natural}}},"required":["result"]}}"#))
}

/// True if references in a schema start at the schema itself instead of the document's root.
fn is_base(schema: Object<'_>) -> bool {
    schema.get("$id").is_some_and(|id| !id.starts_with("\"#"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::json::values::{short_names, values, written};

    fn message(text: &str) -> Message {
        Message::one(text.to_owned()).unwrap_or_else(|| panic!("{text}"))
    }

    fn value(message: &Message) -> Value {
        serde_json::from_str(message.text()).unwrap()
    }

    /// A client with this version and these capabilities.
    fn client_of(version: &str, capabilities: &str) -> LegacyClient {
        LegacyClient::new(&message(&format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"initialize","params":{{"protocolVersion":"{version}","capabilities":{capabilities},"clientInfo":{{"name":"ide","version":"3"}}}}}}"#
        )))
    }

    /// A client with all capabilities.
    fn client() -> LegacyClient {
        client_of(
            "2025-11-25",
            r#"{"roots":{"listChanged":true},"sampling":{"tools":{}},"elicitation":{"form":{},"url":{}}}"#,
        )
    }

    /// A client of a server that offers everything.
    fn connected() -> LegacyClient {
        let mut client = client();
        initialized(
            &mut client,
            r#"{"capabilities":{"tools":{"listChanged":true},"prompts":{"listChanged":true},"resources":{"listChanged":true,"subscribe":true},"logging":{}}}"#,
        )
        .unwrap();
        client
    }

    fn initialized(client: &mut LegacyClient, result: &str) -> Result<Message, Message> {
        let initialize = client.initialize.clone();
        client.initialized(&initialize, &message(&format!(r#"{{"jsonrpc":"2.0","id":"d","result":{result}}}"#)))
    }

    fn sent(client: &mut LegacyClient, text: &str) -> Message {
        match client.take(&message(text)) {
            FromLegacy::Send(message) => message,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn answer_of(client: &mut LegacyClient, text: &str) -> Value {
        match client.take(&message(text)) {
            FromLegacy::Answer(message) => value(&message),
            other => panic!("{text}: {other:?}"),
        }
    }

    fn subscribed(client: &mut LegacyClient, method: &str, uri: &str) -> Value {
        let request = format!(r#"{{"jsonrpc":"2.0","id":4,"method":"resources/{method}","params":{{"uri":{uri}}}}}"#);
        match client.take(&message(&request)) {
            FromLegacy::Listen(answer) => value(&answer),
            other => panic!("{other:?}"),
        }
    }

    fn last(client: &mut LegacyClient, method: &str, result: &str) -> String {
        let request = message(&format!(r#"{{"id":7,"method":"{method}","params":{{"name":"t"}}}}"#));
        match client.answer(&request, message(&format!(r#"{{"jsonrpc":"2.0","id":"br","result":{result}}}"#))) {
            Translated::Final(answer) => answer.text().to_owned(),
            other @ Translated::InputRequired(_) => panic!("{other:?}"),
        }
    }

    fn round(client: &mut LegacyClient, result: &str) -> Result<Round, Value> {
        let request = message(r#"{"id":7,"method":"tools/call","params":{"name":"t"}}"#);
        match client.answer(&request, message(&format!(r#"{{"jsonrpc":"2.0","id":"br","result":{result}}}"#))) {
            Translated::Final(answer) => Err(value(&answer)),
            Translated::InputRequired(round) => Ok(round),
        }
    }

    fn asked(client: &mut LegacyClient, requests: &str) -> Result<Round, Value> {
        round(client, &format!(r#"{{"resultType":"input_required","inputRequests":{requests}}}"#))
    }

    const META: &str = r#""io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{"roots":{"listChanged":true},"sampling":{"tools":{}},"elicitation":{"form":{},"url":{}}},"io.modelcontextprotocol/clientInfo":{"name":"ide","version":"3"}"#;

    #[test]
    fn modern_version_json_constant_matches_the_modern_version() {
        assert_eq!(MODERN_VERSION_JSON, Value::from(crate::wire::revision::MODERN_VERSION).to_string());
    }

    // From the client.

    #[test]
    fn from_client_initialize_becomes_discover() {
        let discover = client().discover();
        assert_eq!(
            discover.text(),
            format!(r#"{{"jsonrpc":"2.0","id":0,"method":"server/discover","params":{{"_meta":{{{META}}}}}}}"#)
        );
        assert_eq!((discover.kind(), discover.method()), (Kind::Request, "server/discover"));
        let bare = LegacyClient::new(&message(r#"{"id":1,"method":"initialize"}"#)).discover();
        assert_eq!(
            value(&bare)["params"]["_meta"],
            json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}})
        );
    }

    #[test]
    fn from_client_capabilities_are_forwarded_verbatim_except_tasks() {
        let declared = |capabilities: &str| client_of("2025-11-25", capabilities).capabilities;
        for verbatim in
            [r#"{ "elicitation" : {} , "x":1e400}"#, "{}", r#"{"extensions":{"io.modelcontextprotocol/ui":{}}}"#]
        {
            assert_eq!(declared(verbatim), verbatim);
        }
        assert_eq!(
            declared(
                r#"{"tasks":{"list":{}},"extensions":{"io.modelcontextprotocol\/tasks":{},"a.b/c":{"x":1.0}},"roots":{}}"#
            ),
            r#"{"extensions":{"a.b/c":{"x":1.0}},"roots":{}}"#
        );
        assert_eq!(declared("[1]"), "{}");
    }

    #[test]
    fn from_client_legacy_notifications_are_dropped() {
        for method in ["initialized", "roots/list_changed", "cancelled", "progress", "tasks/status"] {
            let notification = message(&format!(r#"{{"jsonrpc":"2.0","method":"notifications/{method}"}}"#));
            assert!(matches!(connected().take(&notification), FromLegacy::Nothing), "{method}");
        }
        let own = r#"{"method":"notifications/vendor","params":{"x":1e400}}"#;
        assert_eq!(sent(&mut connected(), own).text(), own);
        assert!(matches!(connected().take(&message(r#"{"id":1,"result":{}}"#)), FromLegacy::Nothing));
    }

    #[test]
    fn from_client_ping_is_answered() {
        let answer = answer_of(&mut connected(), r#"{"id":9007199254740993,"method":"ping"}"#);
        assert_eq!(answer.to_string(), r#"{"id":9007199254740993,"jsonrpc":"2.0","result":{}}"#);
    }

    #[test]
    fn from_client_log_level_is_added_to_later_requests() {
        let mut client = connected();
        let set = |level: &str| format!(r#"{{"id":1,"method":"logging/setLevel","params":{{"level":{level}}}}}"#);
        let level = |client: &mut LegacyClient| {
            value(&sent(client, r#"{"id":2,"method":"tools/list"}"#))["params"]["_meta"][LOG_LEVEL].clone()
        };
        assert_eq!(level(&mut client), Value::Null);
        assert_eq!(answer_of(&mut client, &set("\"w\\u0061rning\""))["result"], json!({}));
        assert_eq!(level(&mut client), "warning");
        for bad in ["\"loud\"", "7", "\"\\ud800\"", "null"] {
            assert_eq!(answer_of(&mut client, &set(bad))["error"]["code"], -32602, "{bad}");
        }
        assert_eq!(answer_of(&mut client, r#"{"id":1,"method":"logging/setLevel"}"#)["error"]["code"], -32602);
        assert_eq!(level(&mut client), "warning");
        assert!(!client.listen().unwrap().text().contains(LOG_LEVEL));
    }

    #[test]
    fn from_client_resource_subscriptions_change_the_listen_filter() {
        let mut client = connected();
        let uris = |client: &LegacyClient| {
            value(&client.listen().unwrap())["params"]["notifications"]["resourceSubscriptions"].clone()
        };
        assert_eq!(uris(&client), Value::Null);
        assert_eq!(subscribed(&mut client, "subscribe", "\"b:1\""), json!({"jsonrpc": "2.0", "id": 4, "result": {}}));
        subscribed(&mut client, "subscribe", r#""a:\u0031\/""#);
        assert_eq!(uris(&client), json!(["a:1/", "b:1"]));
        assert!(client.listen().unwrap().text().contains(r#"["a:\u0031\/","b:1"]"#), "spelt as it was");
        let again = answer_of(&mut client, r#"{"id":5,"method":"resources/subscribe","params":{"uri":"a:1/"}}"#);
        assert_eq!(again["result"], json!({}), "nothing changes");
        subscribed(&mut client, "unsubscribe", "\"a:1/\"");
        assert_eq!(uris(&client), json!(["b:1"]));
        let unknown = answer_of(&mut client, r#"{"id":5,"method":"resources/unsubscribe","params":{"uri":"c:"}}"#);
        assert_eq!(unknown["result"], json!({}));
        client.forget(&message(r#"{"id":4,"method":"resources/subscribe","params":{"uri":"b:1"}}"#));
        assert_eq!(uris(&client), Value::Null);
        for bad in ["{}", "[]", r#"{"uri":7}"#, r#"{"uri":"\ud800"}"#] {
            for method in ["subscribe", "unsubscribe"] {
                let request = format!(r#"{{"id":5,"method":"resources/{method}","params":{bad}}}"#);
                assert_eq!(answer_of(&mut client, &request)["error"]["code"], -32602, "{request}");
            }
        }
    }

    #[test]
    fn from_client_subscriptions_have_limits() {
        let mut client = connected();
        for number in 0..MAX_SUBSCRIPTIONS {
            subscribed(&mut client, "subscribe", &format!("\"a:{number}\""));
        }
        let one_more = r#"{"id":5,"method":"resources/subscribe","params":{"uri":"b:"}}"#;
        let refusal = answer_of(&mut client, one_more);
        assert!(refusal["error"]["message"].as_str().unwrap().contains("1000"), "{refusal}");
        assert_eq!(refusal["error"]["data"]["source"], "mcp-gangway");
        subscribed(&mut client, "unsubscribe", "\"a:0\"");
        subscribed(&mut client, "subscribe", "\"b:\"");
        let long = one_more.replace("b:", &"b".repeat(MAX_URI_BYTES));
        assert_eq!(answer_of(&mut connected(), &long)["error"]["code"], -32602);
    }

    #[test]
    fn from_client_resource_subscriptions_are_refused_if_not_offered() {
        let mut client = client();
        initialized(&mut client, r#"{"capabilities":{"resources":{"subscribe":false},"tools":{}}}"#).unwrap();
        for method in ["subscribe", "unsubscribe"] {
            let request = format!(r#"{{"id":5,"method":"resources/{method}","params":{{"uri":"a:"}}}}"#);
            assert_eq!(answer_of(&mut client, &request)["error"]["code"], -32601);
        }
        assert!(client.listen().is_none());
    }

    #[test]
    fn from_client_listen_asks_only_for_offered_notifications() {
        let listen = connected().listen().unwrap();
        assert_eq!(
            listen.text(),
            format!(
                r#"{{"jsonrpc":"2.0","id":0,"method":"subscriptions/listen","params":{{"_meta":{{{META}}},"notifications":{{"toolsListChanged":true,"promptsListChanged":true,"resourcesListChanged":true}}}}}}"#
            )
        );
        let mut client = client();
        initialized(&mut client, r#"{"capabilities":{"prompts":{"listChanged":true},"tools":{"listChanged":1}}}"#)
            .unwrap();
        assert_eq!(value(&client.listen().unwrap())["params"]["notifications"], json!({"promptsListChanged": true}));
    }

    #[test]
    fn from_client_requests_get_meta_and_are_otherwise_unchanged() {
        for (given, expected) in [
            (
                r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"deploy","arguments":{"env":"prod"},"_meta":{"progressToken":"p7"}}}"#,
                r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"deploy","arguments":{"env":"prod"},"_meta":{META,"progressToken":"p7"}}}"#,
            ),
            (
                r#"{ "id" : "\ud800" , "params":{"z":1e400,"a":9007199254740993,"a":[1.0, "\u0061\udfff"]},"method":"x"}"#,
                r#"{ "id" : "\ud800" , "params":{"_meta":{META},"z":1e400,"a":9007199254740993,"a":[1.0, "\u0061\udfff"]},"method":"x"}"#,
            ),
            (r#"{"id":1,"method":"tools/list"}"#, r#"{"params":{"_meta":{META}},"id":1,"method":"tools/list"}"#),
            (r#"{"id":1,"method":"x","params":null}"#, r#"{"params":{"_meta":{META}},"id":1,"method":"x"}"#),
            (r#"{"id":1,"method":"x","params":{}}"#, r#"{"id":1,"method":"x","params":{"_meta":{META}}}"#),
            (r#"{"id":1,"method":"x","params":{"_meta":"no"}}"#, r#"{"id":1,"method":"x","params":{"_meta":{META}}}"#),
            (
                r#"{"id":1,"method":"x","params":{"_meta":{"io.modelcontextprotocol\/clientInfo":{"name":"liar"},"io.modelcontextprotocol/logLevel":"debug","a/b":1}}}"#,
                r#"{"id":1,"method":"x","params":{"_meta":{META,"a/b":1}}}"#,
            ),
        ] {
            let request = sent(&mut connected(), given);
            assert_eq!(request.text(), expected.replace("META", META));
            assert_eq!(request.era(), crate::wire::revision::Era::Modern);
        }
    }

    #[test]
    fn from_client_params_that_have_no_place_for_meta_are_refused() {
        for bad in ["[]", "[1,{}]", "7", "\"x\"", "true"] {
            let request = format!(r#"{{"id":"i","method":"tools/call","params":{bad}}}"#);
            assert_eq!(answer_of(&mut connected(), &request)["error"]["code"], -32602, "{bad}");
        }
    }

    #[test]
    fn from_client_task_methods_are_refused_and_task_params_removed() {
        for method in ["get", "result", "list", "cancel"] {
            let request = format!(r#"{{"id":1,"method":"tasks/{method}","params":{{"taskId":"t"}}}}"#);
            assert_eq!(answer_of(&mut connected(), &request)["error"]["code"], -32601);
        }
        let call = r#"{"id":1,"method":"tools/call","params":{"name":"t","task":{"ttl":1},"_meta":{"io.modelcontextprotocol/related-task":{"taskId":"t"}}}}"#;
        let expected = r#"{"id":1,"method":"tools/call","params":{"name":"t","_meta":{META}}}"#.replace("META", META);
        assert_eq!(sent(&mut connected(), call).text(), expected);
        let other = sent(&mut connected(), r#"{"id":1,"method":"vendor/x","params":{"task":1}}"#);
        assert_eq!(value(&other)["params"]["task"], 1);
    }

    #[test]
    fn from_client_a_second_handshake_is_refused() {
        assert_eq!(answer_of(&mut connected(), r#"{"id":1,"method":"initialize"}"#)["error"]["code"], -32600);
    }

    // From the server.

    #[test]
    fn from_server_discover_result_becomes_the_initialize_result() {
        let mut client = client_of("2025-06-18", "{}");
        let answer = initialized(
            &mut client,
            r#"{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{"listChanged":true},"extensions":{"a.b/c":{}},"experimental":{"x":1e400}},"_meta":{"io.modelcontextprotocol/serverInfo":{"name":"S\u0031","version":"1"},"v/x":1},"instructions":"Do.","ttlMs":3600000,"cacheScope":"public","more":9007199254740993}"#,
        );
        assert_eq!(
            answer.unwrap().text(),
            r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-06-18","capabilities":{"tools":{"listChanged":true},"experimental":{"x":1e400}},"serverInfo":{"name":"S\u0031","version":"1"},"_meta":{"v/x":1},"instructions":"Do.","more":9007199254740993}}"#
        );
    }

    #[test]
    fn from_server_initialize_result_repeats_a_known_client_version() {
        for (asked, given) in [
            ("2024-11-05", "2024-11-05"),
            ("2025-03-26", "2025-03-26"),
            ("2025-11-25", "2025-11-25"),
            ("2026-07-28", "2025-11-25"),
            ("1.0", "2025-11-25"),
        ] {
            let answer = initialized(&mut client_of(asked, "{}"), r#"{"capabilities":{}}"#).unwrap();
            assert_eq!(value(&answer)["result"]["protocolVersion"], given);
        }
    }

    #[test]
    fn from_server_initialize_result_always_has_a_server_name() {
        for (result, name) in [
            (r#"{"serverInfo":{"name":"top","version":"1"}}"#, "top"),
            (
                r#"{"serverInfo":{"name":"top","version":"1"},"_meta":{"io.modelcontextprotocol/serverInfo":{"name":"m","version":"1"}}}"#,
                "m",
            ),
            (r#"{"_meta":{"io.modelcontextprotocol/serverInfo":{"name":"m"}}}"#, "unnamed"),
            (r#"{"_meta":"x","serverInfo":[],"capabilities":[],"instructions":7}"#, "unnamed"),
            ("{}", "unnamed"),
        ] {
            let answer = value(&initialized(&mut client(), result).unwrap());
            assert_eq!(answer["result"]["serverInfo"]["name"], name, "{result}");
            assert!(
                answer["result"]["capabilities"].is_object() && answer["result"]["serverInfo"]["version"].is_string()
            );
            assert!(answer["result"].get("instructions").is_none());
        }
    }

    #[test]
    fn from_server_failed_discover_fails_initialize() {
        let initialize = message(r#"{"id":"i","method":"initialize"}"#);
        for (discovered, code) in [
            (r#"{"id":"d","error":{"code":-32022,"message":"no","data":{"supported":["2027-01-01"]}}}"#, -32022),
            (r#"{"id":"d","error":{"code":-32021,"message":"no"}}"#, -32603),
            (r#"{"id":"d","result":[]}"#, -32603),
            (r#"{"id":"d","result":{"resultType":"input_required","requestState":""}}"#, -32603),
            (r#"{"id":"d","result":{"resultType":7}}"#, -32603),
            (r#"{"id":"d","error":7}"#, -32603),
        ] {
            let answer = client().initialized(&initialize, &message(discovered)).unwrap_err();
            assert_eq!(
                (&value(&answer)["id"], &value(&answer)["error"]["code"]),
                (&json!("i"), &json!(code)),
                "{discovered}"
            );
        }
    }

    #[test]
    fn from_server_modern_members_are_removed_from_complete_results() {
        for (given, expected) in [
            (r#"{"resultType":"complete","content":[{"x":1e400}]}"#, r#"{"content":[{"x":1e400}]}"#),
            (
                r#"{ "b":9007199254740993,"ttlMs":0, "a":"\ud800","cacheScope":"private","b":1,"_meta":{"io.modelcontextprotocol/serverInfo":{},"k":1.0},"resultType":"complete" }"#,
                r#"{ "b":9007199254740993,"a":"\ud800","b":1,"_meta":{"k":1.0} }"#,
            ),
            (r#"{"_meta":{"io.modelcontextprotocol/serverInfo":{}},"resultType":"complete"}"#, "{}"),
            (r#"{"_meta":{},"x":1}"#, r#"{"_meta":{},"x":1}"#),
            (r#"{"_meta":"no","resultType":"compl\u0065te"}"#, r#"{"_meta":"no"}"#),
            ("[1]", "[1]"),
            ("null", "null"),
        ] {
            let expected = format!(r#"{{"jsonrpc":"2.0","id":"br","result":{expected}}}"#);
            assert_eq!(last(&mut connected(), "prompts/get", given), expected);
        }
    }

    #[test]
    fn from_server_a_result_of_an_unknown_type_is_an_error() {
        for kind in ["\"task\"", "7", "null", "\"\\ud800\"", "{}"] {
            let answer: Value =
                serde_json::from_str(&last(&mut connected(), "tools/call", &format!(r#"{{"resultType":{kind}}}"#)))
                    .unwrap();
            assert_eq!((&answer["error"]["code"], &answer["id"]), (&json!(-32603), &json!("br")), "{kind}");
            assert_eq!(answer["error"]["data"]["source"], "mcp-gangway");
        }
    }

    #[test]
    fn from_server_structured_content_is_wrapped_in_an_object() {
        let mut client = connected();
        for content in ["[1,2]", "null", "1e400", "\"\\ud800\""] {
            let answer = last(&mut client, "tools/call", &format!(r#"{{"structuredContent":{content},"content":[]}}"#));
            assert!(
                answer.contains(&format!(r#""structuredContent":{{"result":{content}}},"content":[]"#)),
                "{answer}"
            );
        }
        let object = r#"{"structuredContent":{"a":1}}"#;
        assert!(last(&mut client, "tools/call", object).contains(object));
        assert!(last(&mut client, "prompts/get", r#"{"structuredContent":1}"#).contains(r#""structuredContent":1"#));
    }

    #[test]
    fn from_server_output_schemas_are_wrapped_in_an_object_schema() {
        let mut client = connected();
        let list = |client: &mut LegacyClient, schema: &str| {
            last(
                client,
                "tools/list",
                &format!(r#"{{"tools":[ {{"name":"t","outputSchema":{schema}, "x":1e400}},7]}}"#),
            )
        };
        let tool = |schema: &str| {
            format!(
                r#"{{"jsonrpc":"2.0","id":"br","result":{{"tools":[ {{"name":"t","outputSchema":{schema}, "x":1e400}},7]}}}}"#
            )
        };
        let object = r##"{"type":"object","properties":{"a":{"$ref":"#/x"}}}"##;
        assert_eq!(list(&mut client, object), tool(object));
        let content = r#"{"structuredContent":{"a":1}}"#;
        assert!(last(&mut client, "tools/call", content).contains(content));

        let any = r##"{"$schema":"s","anyOf":[{"$ref":"#"},{"$ref":"#\/$defs/a"},{"$ref":"http://x/#/a"},{"$ref":"#a"}],"const":{"$ref":"#"},"$defs":{"const":{"$ref":"#/b"},"a":{"$id":"x","$ref":"#/c"}}}"##;
        let moved = r##"{"$schema":"s","anyOf":[{"$ref":"#/properties/result"},{"$ref":"#/properties/result/$defs/a"},{"$ref":"http://x/#/a"},{"$ref":"#a"}],"const":{"$ref":"#"},"$defs":{"const":{"$ref":"#/properties/result/b"},"a":{"$id":"x","$ref":"#/c"}}}"##;
        let wrapped =
            format!(r#"{{"$schema":"s","type":"object","properties":{{"result":{moved}}},"required":["result"]}}"#);
        assert_eq!(list(&mut client, any), tool(&wrapped));
        assert!(last(&mut client, "tools/call", content).contains(r#""structuredContent":{"result":{"a":1}}"#));

        let deep = format!("{}1{}", r#"{"not":"#.repeat(10_000), "}".repeat(10_000));
        for impossible in ["true", "null", "[]", r##"{"items":{"$recursiveRef":"#"}}"##, &deep] {
            assert_eq!(list(&mut client, impossible), tool("").replace(r#""outputSchema":, "#, ""), "{impossible:.60}");
            assert!(last(&mut client, "tools/call", content).contains(content), "the client checks nothing");
        }
    }

    #[test]
    fn from_server_input_required_asks_the_client_and_retries() {
        // The example of 3.2.
        let mut client = client_of("2025-11-25", r#"{"elicitation":{"form":{}}}"#);
        let call = sent(
            &mut client,
            r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"deploy","arguments":{"env":"prod"},"_meta":{"progressToken":"p7"}}}"#,
        );
        let meta = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{"elicitation":{"form":{}}},"io.modelcontextprotocol/clientInfo":{"name":"ide","version":"3"},"progressToken":"p7"}"#;
        assert_eq!(
            call.text(),
            format!(
                r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"name":"deploy","arguments":{{"env":"prod"}},{meta}}}}}"#
            )
        );
        let params = r#"{"mode":"form","message":"Really?","requestedSchema":{"type":"object","properties":{"yes":{"type":"boolean"}}}}"#;
        let required = message(&format!(
            r#"{{"jsonrpc":"2.0","id":"br-1","result":{{"resultType":"input_required","requestState":"q9\u0078\ud800","inputRequests":{{"ok":{{"method":"elicitation/create","params":{params}}}}}}}}}"#
        ));
        let Translated::InputRequired(round) = client.answer(&call, required) else { panic!() };
        let [Question { key, request }] = round.questions() else { panic!("{round:?}") };
        assert_eq!(
            request.text(),
            format!(r#"{{"jsonrpc":"2.0","id":0,"method":"elicitation/create","params":{params}}}"#)
        );
        let said =
            message(r#"{"jsonrpc":"2.0","id":"br-2","result":{"action":"accept","content":{"yes":true,"n":1e400}}}"#);
        let retry = round.retry(&call, &[(key.clone(), said)]).unwrap().with_id(&Id::own("br-3"));
        assert_eq!(
            retry.text(),
            format!(
                r#"{{"jsonrpc":"2.0","id":"br-3","method":"tools/call","params":{{"inputResponses":{{"ok":{{"action":"accept","content":{{"yes":true,"n":1e400}}}}}},"requestState":"q9\u0078\ud800","name":"deploy","arguments":{{"env":"prod"}},{meta}}}}}"#
            )
        );
        let done = r#"{"resultType":"complete","content":[{"type":"text","text":"done"}]}"#;
        let done = last(&mut client, "tools/call", done);
        assert_eq!(done, r#"{"jsonrpc":"2.0","id":"br","result":{"content":[{"type":"text","text":"done"}]}}"#);
    }

    #[test]
    fn from_server_each_retry_has_only_its_own_responses_and_state() {
        let mut client = connected();
        let call = sent(&mut client, r#"{"id":7,"method":"prompts/get","params":{"name":"p"}}"#);
        let first = asked(&mut client, r#"{"a":{"method":"roots/list"}}"#).unwrap();
        let roots = message(r#"{"id":1,"result":{"roots":[]}}"#);
        let second = first.retry(&call, &[("\"a\"".into(), roots)]).unwrap();
        assert_eq!(value(&second)["params"]["inputResponses"], json!({"a": {"roots": []}}));
        assert!(value(&second)["params"].get("requestState").is_none());

        let wait =
            round(&mut client, r#"{"resultType":"input_required","requestState":"s","inputRequests":null}"#).unwrap();
        assert!(wait.questions().is_empty(), "retried at once");
        let third = wait.retry(&second, &[]).unwrap();
        assert_eq!(value(&third)["params"]["requestState"], "s");
        assert!(value(&third)["params"].get("inputResponses").is_none());

        let fourth = asked(&mut client, "{}").unwrap().retry(&third, &[]).unwrap();
        assert_eq!(value(&fourth), value(&call), "no state, so none goes back");
    }

    #[test]
    fn from_server_input_requests_keep_their_order_and_keys() {
        let mut client = connected();
        let round = asked(
            &mut client,
            r#"{"z":{"method":"roots/list","params":null},"\ud800":{"params":{"messages":[],"maxTokens":1e2,"tools":[]},"method":"sampling/createMessage"},"a":{"method":"no"},"\u0061":{"method":"roots/list"},"a":{"method":"roots/list","id":5}}"#,
        )
        .unwrap();
        let questions: Vec<_> = round.questions().iter().map(|one| (one.key.as_str(), one.request.text())).collect();
        let roots = r#"{"jsonrpc":"2.0","id":0,"method":"roots/list"}"#;
        let sampling = r#"{"jsonrpc":"2.0","id":0,"method":"sampling/createMessage","params":{"messages":[],"maxTokens":1e2,"tools":[]}}"#;
        assert_eq!(questions, [("\"z\"", roots), ("\"\\ud800\"", sampling), ("\"\\u0061\"", roots), ("\"a\"", roots)]);
        let call = sent(&mut client, r#"{"id":7,"method":"tools/call","params":{"name":"p"}}"#);
        let said = |key: &str| (key.to_owned(), message(r#"{"id":1,"result":{"x":1}}"#));
        let retry = round.retry(&call, &[said("\"z\""), said("\"\\ud800\"")]).unwrap();
        assert!(retry.text().contains(r#""inputResponses":{"z":{"x":1},"\ud800":{"x":1}}"#), "{}", retry.text());
    }

    #[test]
    fn from_server_refused_input_cancels_elicitation_or_fails_the_call() {
        let mut client = connected();
        let call = sent(&mut client, r#"{"id":7,"method":"tools/call","params":{"name":"p"}}"#);
        let refusal =
            || vec![("\"k\"".to_owned(), message(r#"{"id":1,"error":{"code":-1,"message":"User said no"}}"#))];
        let elicitation = asked(&mut client, r#"{"k":{"method":"elicitation/create","params":{}}}"#).unwrap();
        let retry = elicitation.retry(&call, &refusal()).unwrap();
        assert_eq!(value(&retry)["params"]["inputResponses"], json!({"k": {"action": "cancel"}}));
        for method in ["sampling/createMessage", "roots/list"] {
            let round = asked(&mut client, &format!(r#"{{"k":{{"method":"{method}","params":{{}}}}}}"#)).unwrap();
            let error = round.retry(&call, &refusal()).unwrap_err();
            assert_eq!((error.code(), error.kind()), (-32603, "input_refused"));
            assert_eq!(error.detail().unwrap(), "-1: User said no");
            assert!(error.to_string().contains(method));
            let nonsense = message(r#"{"id":1,"result":"yes"}"#);
            assert!(round.retry(&call, &[("\"k\"".to_owned(), nonsense)]).is_err());
        }
    }

    #[test]
    fn from_server_input_requests_need_a_declared_client_capability() {
        let url = r#"{"k":{"method":"elicitation/create","params":{"mode":"url","url":"http://x","message":""}}}"#;
        let form = r#"{"k":{"method":"elicitation/create","params":{"message":"?","requestedSchema":{}}}}"#;
        let sampling = r#"{"k":{"method":"sampling/createMessage","params":{}}}"#;
        let tools = r#"{"k":{"method":"sampling/createMessage","params":{"toolChoice":{}}}}"#;
        let roots = r#"{"k":{"method":"roots/list"}}"#;
        for (capabilities, question, is_asked) in [
            (r#"{"elicitation":{}}"#, form, true),
            (r#"{"elicitation":{}}"#, url, false),
            (r#"{"elicitation":{"url":{}}}"#, url, true),
            (r#"{"elicitation":{"url":{}}}"#, form, false),
            (r#"{"elicitation":{"form":{}}}"#, url, false),
            ("{}", form, false),
            (
                r#"{"elicitation":{"url":{},"form":{}}}"#,
                &form.replace("\"message\":\"?\"", "\"mode\":\"hologram\""),
                false,
            ),
        ] {
            let mut client = client_of("2025-11-25", capabilities);
            let call = sent(&mut client, r#"{"id":7,"method":"tools/call","params":{"name":"p"}}"#);
            let round = asked(&mut client, question).unwrap();
            assert_eq!(round.questions().len(), usize::from(is_asked), "{capabilities} {question}");
            if !is_asked {
                let retry = round.retry(&call, &[]).unwrap();
                assert_eq!(value(&retry)["params"]["inputResponses"], json!({"k": {"action": "cancel"}}));
            }
        }
        for (capabilities, question, is_asked) in [
            ("{}", sampling, false),
            (r#"{"sampling":{}}"#, sampling, true),
            (r#"{"sampling":{}}"#, tools, false),
            (r#"{"sampling":{"tools":{}}}"#, tools, true),
            ("{}", roots, false),
            (r#"{"roots":{}}"#, roots, true),
        ] {
            let round = asked(&mut client_of("2025-11-25", capabilities), question);
            assert_eq!(round.is_ok(), is_asked, "{capabilities} {question} {round:?}");
        }
    }

    #[test]
    fn from_server_url_elicitation_gets_an_elicitation_id() {
        let mut client = connected();
        let mut ids = Vec::new();
        for _ in 0..2 {
            let url =
                r#"{"k":{"method":"elicitation/create","params":{"mode":"url","url":"http://x","message":"\ud800"}}}"#;
            let round = asked(&mut client, url).unwrap();
            let text = round.questions()[0].request.text().to_owned();
            assert!(text.ends_with(r#","mode":"url","url":"http://x","message":"\ud800"}}"#), "{text}");
            ids.push(round.questions()[0].request.params().unwrap().string("elicitationId").unwrap());
        }
        assert_ne!(ids[0], ids[1]);
        let own = r#"{"k":{"method":"elicitation/create","params":{"mode":"url","elicitationId":"e"}}}"#;
        assert!(asked(&mut client, own).unwrap().questions()[0].request.text().contains(r#""elicitationId":"e""#));
    }

    #[test]
    fn from_server_progress_notifications_are_unchanged() {
        // The sender forwards them. They also pass on the listen stream.
        let progress =
            r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"p7","progress":1e400}}"#;
        assert_eq!(LegacyClient::event(message(progress)).unwrap().text(), progress);
    }

    #[test]
    fn from_server_subscription_id_is_removed_from_notifications() {
        let event = |text: &str| LegacyClient::event(message(text)).map(|event| event.text().to_owned());
        assert_eq!(
            event(r#"{"method":"notifications/resources/updated","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":1},"uri":"\u0061:"}}"#).unwrap(),
            r#"{"method":"notifications/resources/updated","params":{"uri":"\u0061:"}}"#
        );
        assert_eq!(
            event(r#"{"method":"notifications/tools/list_changed","params":{"_meta":{"x":1e400,"io.modelcontextprotocol\/subscriptionId":"l"}}}"#).unwrap(),
            r#"{"method":"notifications/tools/list_changed","params":{"_meta":{"x":1e400}}}"#
        );
        for same in [
            r#"{"method":"notifications/tools/list_changed"}"#,
            r#"{"method":"x","params":[1]}"#,
            r#"{"method":"x","params":{"_meta":"m"}}"#,
        ] {
            assert_eq!(event(same).unwrap(), same);
        }
        for unseen in [
            r#"{"method":"notifications/subscriptions/acknowledged","params":{"notifications":{}}}"#,
            r#"{"method":"notifications/cancelled","params":{"requestId":0}}"#,
            r#"{"method":"notifications/tasks","params":{}}"#,
            r#"{"id":1,"method":"sampling/createMessage"}"#,
            r#"{"id":1,"result":{}}"#,
        ] {
            assert_eq!(event(unseen), None, "{unseen}");
        }
    }

    #[test]
    fn from_server_errors_are_unchanged_except_missing_capability() {
        let answer =
            |text: &str| match connected().answer(&message(r#"{"id":7,"method":"resources/read"}"#), message(text)) {
                Translated::Final(answer) => answer.text().to_owned(),
                other @ Translated::InputRequired(_) => panic!("{other:?}"),
            };
        for same in [
            r#"{"id":"br","error":{"code":-32602,"message":"Resource not found","data":{"uri":"\ud800"}}}"#,
            r#"{"id":"br","error":{"code":-32020,"message":"x"}}"#,
            r#"{"id":"br","error":{"code":-32021}, "error":"x"}"#,
            r#"{"id":"br","error":[]}"#,
        ] {
            assert_eq!(answer(same), same);
        }
        assert_eq!(
            answer(
                r#"{"id":"br","error":{"code":-32021,"message":"x","data":{"requiredCapabilities":{"elicitation":{"url":{}},"sampling":{}}, "n":1e400}}}"#
            ),
            r#"{"id":"br","error":{"code":-32603,"message":"the server needs a capability that the client lacks: elicitation.url, sampling","data":{"requiredCapabilities":{"elicitation":{"url":{}},"sampling":{}}, "n":1e400}}}"#
        );
        assert_eq!(
            answer(r#"{"id":"br","error":{"code":-32021,"message":"say\u0021"}}"#),
            r#"{"id":"br","error":{"code":-32603,"message":"say!"}}"#
        );
        let many = format!(
            r#"{{"id":1,"error":{{"code":-32021,"data":{{"requiredCapabilities":{{"{}":1}}}}}}}}"#,
            "é".repeat(9_999)
        );
        let answer: Value = serde_json::from_str(&answer(&many)).unwrap();
        assert!(answer["error"]["message"].as_str().unwrap().len() < 300);
    }

    #[test]
    fn invalid_input_requests_are_errors() {
        let mut client = connected();
        let many: Vec<_> = (0..=MAX_QUESTIONS).map(|key| format!(r#""{key}":{{"method":"roots/list"}}"#)).collect();
        let many = format!("{{{}}}", many.join(","));
        for bad in [
            "[]",
            "7",
            "\"x\"",
            r#"{"a":[]}"#,
            r#"{"a":null}"#,
            r#"{"a":{}}"#,
            r#"{"a":{"method":7}}"#,
            r#"{"a":{"method":"\ud800"}}"#,
            r#"{"a":{"method":"roots/list","params":[]}}"#,
            r#"{"a":{"method":"tools/call","params":{}}}"#,
            &many,
        ] {
            let error = asked(&mut client, bad).unwrap_err();
            assert_eq!(error["error"]["code"], -32603, "{bad}");
            assert_eq!(error["error"]["data"]["kind"], "invalid_answer");
        }
        assert!(round(&mut client, r#"{"resultType":"input_required"}"#).is_err());
        let odd = round(&mut client, r#"{"resultType":"input_required","requestState":{"a":1e400}}"#).unwrap();
        let call = sent(&mut client, r#"{"id":7,"method":"tools/call","params":{"name":"p"}}"#);
        assert!(odd.retry(&call, &[]).unwrap().text().contains(r#""requestState":{"a":1e400}"#), "as it came");
        assert!(odd.retry(&message(r#"{"id":1,"method":"x","params":[]}"#), &[]).is_err());
    }

    /// Values in which the members that the translators look at are common.
    fn messages() -> impl Strategy<Value = Value> {
        let known = prop::sample::select(vec![
            "_meta",
            "method",
            "params",
            "inputRequests",
            "resultType",
            "tools",
            "name",
            "outputSchema",
            "$ref",
            "uri",
            "structuredContent",
            "requestState",
            "capabilities",
            "io.modelcontextprotocol/serverInfo",
        ]);
        values(prop_oneof![4 => short_names(), 1 => known.prop_map(str::to_owned)])
    }

    proptest! {
        #[test]
        fn added_meta_is_the_only_change_to_request_params(params in messages(), pretty: bool) {
            let Value::Object(mut params) = params else { return Ok(()) };
            if params.get("_meta").is_some_and(|meta| !meta.is_object()) {
                params.remove("_meta");
            }
            let text = written(&json!({"id": 1, "method": "x", "params": params}), pretty);
            let mut found = value(&sent(&mut connected(), &text));
            let meta = found["params"]["_meta"].as_object_mut().unwrap();
            for name in [PROTOCOL_VERSION, CLIENT_CAPABILITIES, CLIENT_INFO] {
                prop_assert!(meta.remove(name).is_some());
            }
            if meta.is_empty() && !params.contains_key("_meta") {
                found["params"].as_object_mut().unwrap().remove("_meta");
            }
            prop_assert_eq!(found, json!({"id": 1, "method": "x", "params": params}));
        }

        #[test]
        fn modern_result_members_are_removed_from_any_result(result in messages(), pretty: bool) {
            let Value::Object(mut plain) = result else { return Ok(()) };
            for name in ["resultType", "ttlMs", "cacheScope", "_meta"] {
                plain.remove(name);
            }
            let mut modern = plain.clone();
            modern.insert("resultType".into(), "complete".into());
            modern.insert("ttlMs".into(), 5.into());
            modern.insert("cacheScope".into(), "public".into());
            modern.insert("_meta".into(), json!({SERVER_INFO: {"name": "s", "version": "1"}}));
            let answer = last(&mut connected(), "prompts/get", &written(&Value::Object(modern), pretty));
            let answer: Value = serde_json::from_str(&answer).unwrap();
            prop_assert_eq!(&answer["result"], &Value::Object(plain));
        }

        #[test]
        fn arbitrary_json_from_either_side_does_not_panic(
            method in prop::sample::select(vec![
                "initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe", "tools/list",
                "tools/call", "tasks/get", "x",
            ]),
            said in messages(),
            kind in prop::sample::select(vec!["complete", "input_required", "task"]),
            pretty: bool,
        ) {
            let said = written(&said, pretty);
            let mut client = connected();
            let request = message(&format!(r#"{{"id":1,"method":"{method}","params":{said}}}"#));
            client.forget(&request);
            let _ = (client.take(&request), client.listen(), client.discover());
            let _ = LegacyClient::new(&request).discover();
            let _ = LegacyClient::event(message(&format!(r#"{{"method":"{method}","params":{said}}}"#)));
            let answers = [
                format!(r#"{{"id":1,"result":{said}}}"#),
                format!(r#"{{"id":1,"error":{said}}}"#),
                format!(r#"{{"id":1,"error":{{"code":-32021,"message":"","data":{{"requiredCapabilities":{said}}}}}}}"#),
                format!(r#"{{"id":1,"result":{{"tools":[{{"name":"t","outputSchema":{said}}}]}}}}"#),
                format!(r#"{{"id":1,"result":{{"resultType":"{kind}","inputRequests":{said}}}}}"#),
                format!(r#"{{"id":1,"result":{{"resultType":"{kind}","inputRequests":{{"a":{{"method":"elicitation/create","params":{said}}}}}}}}}"#),
            ];
            for answer in answers {
                let answer = message(&answer);
                let _ = client.initialized(&request, &answer);
                if let Translated::InputRequired(round) = client.answer(&request, answer.clone()) {
                    let _ = round.retry(&request, &[("\"a\"".into(), answer)]);
                }
            }
        }
    }
}
