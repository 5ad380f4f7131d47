//! A modern client at a legacy server: what each message becomes, as text (no I/O).
//!
//! Rule: to the client the bridge is a server of 2026-07-28, to the server a client of 2025-11-25. What passes from one to
//! the other is spliced, never written anew (R3): members are put in or taken out, and all other bytes stay. What one
//! side says and the other has no words for is answered here, and says so.
//!
//! The session is the caller's: it sends [`initialize`], keeps the streams open, gives requests ids of its own, and has the
//! table of the calls that are held while the client asks its user. Requests that are made here have the id 0, in the
//! place of which the sender puts its own.

use crate::{
    era::{
        CLIENT_CAPABILITIES, CLIENT_INFO, LOG_LEVEL, MODERN_VERSION, NEWEST_LEGACY_VERSION, PROTOCOL_VERSION,
        SERVER_INFO, SUBSCRIPTION_ID,
    },
    message::{self, Id, Message},
    splice::{Member, Object, Splice, elements},
};

/// The most resources that one subscription can name: the server is sent a request for each.
pub(crate) const MOST_URIS: usize = 1_000;
/// The most questions that one round can ask, and the most responses that a retry can bring.
pub(crate) const MOST_QUESTIONS: usize = 100;

/// The requests that may be answered with questions (modern specification, "Multi Round-Trip Requests").
const HELD: [&str; 3] = ["tools/call", "prompts/get", "resources/read"];
/// The requests whose results say how long they keep, beside `server/discover` ("Caching").
const CACHEABLE: [&str; 5] =
    ["tools/list", "prompts/list", "resources/list", "resources/templates/list", "resources/read"];
/// From the lowest to the highest.
const LOG_LEVELS: [&str; 8] = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];
/// Legacy tasks and the extension that came after them have nothing in common but the name.
const TASKS_EXTENSION: &str = "io.modelcontextprotocol/tasks";

const METHOD_NOT_FOUND: i32 = -32_601;
const INVALID_PARAMS: i32 = -32_602;
const INTERNAL_ERROR: i32 = -32_603;
const UNSUPPORTED_PROTOCOL_VERSION: i32 = -32_022;
/// Of 2025-11-25 only.
const URL_ELICITATION_REQUIRED: i64 = -32_042;

/// The lists whose changes a client can ask to hear of.
const LISTS: [List; 3] = [
    List { filter: "toolsListChanged", capability: "tools", method: "notifications/tools/list_changed" },
    List { filter: "promptsListChanged", capability: "prompts", method: "notifications/prompts/list_changed" },
    List { filter: "resourcesListChanged", capability: "resources", method: "notifications/resources/list_changed" },
];

/// A list of the server's that can change.
#[derive(Debug)]
struct List {
    /// The member of a subscription that asks for it.
    filter: &'static str,
    /// The capability with the member `listChanged`.
    capability: &'static str,
    /// The notification.
    method: &'static str,
}

/// The `initialize` that stands for a modern client, from the `_meta` of one of its requests. Legacy servers want a name:
/// a client that gives none gets the bridge's. Capabilities pass but for tasks, which the two eras understand in
/// different ways, and for `roots.listChanged`, whose notification a modern client does not have.
pub(crate) fn initialize(request: &Message) -> Message {
    let meta = request.meta();
    let capabilities = meta.and_then(|meta| meta.object(CLIENT_CAPABILITIES)).map_or_else(
        || "{}".to_owned(),
        |capabilities| {
            let mut splice = Splice::new(capabilities.as_str());
            without_tasks(&mut splice, capabilities);
            if let Some(roots) = capabilities.object("roots") {
                splice.edit(roots, &[], |member| member.is("listChanged"));
            }
            text_of(splice)
        },
    );
    let info = meta.and_then(|meta| implementation(meta, CLIENT_INFO)).map_or_else(
        || format!(r#"{{"name":"mcp-gangway","version":"{}"}}"#, env!("CARGO_PKG_VERSION")),
        str::to_owned,
    );
    made(format!(
        r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{{"protocolVersion":"{NEWEST_LEGACY_VERSION}","capabilities":{capabilities},"clientInfo":{info}}}}}"#
    ))
}

/// The answer to a request that no server needs to see, as it is no proper request of 2026-07-28: it lacks what each must
/// have (-32602), or is made in another version (-32022).
pub(crate) fn objection(request: &Message) -> Option<Message> {
    check(request).err().map(|fault| fault.answer(request))
}

/// A legacy server as modern clients see it, from its `InitializeResult`.
#[derive(Debug)]
pub(crate) struct LegacyServer {
    /// Its `serverInfo`, in JSON, if that has what it must have.
    info: Option<String>,
    /// The result of `server/discover`, in JSON.
    discovered: String,
    /// The lists that it tells changes of.
    lists: Vec<&'static List>,
    can_subscribe: bool,
    can_log: bool,
}

impl LegacyServer {
    /// Learns what the server is; `None` if the answer is no `InitializeResult`.
    pub(crate) fn new(initialized: &Message) -> Option<Self> {
        let result = initialized.result()?;
        result.string("protocolVersion")?;
        let info = implementation(result, "serverInfo").map(str::to_owned);
        let capabilities = result.object("capabilities");
        let has = |capability: &str, feature: &str| {
            let capability = capabilities.and_then(|capabilities| capabilities.object(capability));
            capability.and_then(|capability| capability.get(feature)) == Some("true")
        };
        Some(Self {
            discovered: discovery(result, info.as_deref()),
            lists: LISTS.iter().filter(|list| has(list.capability, "listChanged")).collect(),
            can_subscribe: has("resources", "subscribe"),
            can_log: capabilities.is_some_and(|capabilities| capabilities.object("logging").is_some()),
            info,
        })
    }

    /// Whether it takes [`set_level`].
    pub(crate) fn can_log(&self) -> bool {
        self.can_log
    }

    /// The answer to `server/discover`. Whatever else the server said in its own answer passes.
    pub(crate) fn discovered(&self, discover: &Message) -> Message {
        answer_of(discover, &self.discovered)
    }

    /// What becomes of a request of the client's.
    pub(crate) fn take(&self, request: &Message) -> Step {
        self.step(request).unwrap_or_else(|fault| Step::Answer(fault.answer(request)))
    }

    /// The server's answer as a modern client knows it, with the id of the client's request. What the result already says
    /// of its type, of caching and of the server stays; a result that is no object has no place for it. Errors pass,
    /// -32002 among them, with one exception: what the user must do at a URL first becomes questions, if this
    /// client can ask them.
    pub(crate) fn answer(&self, request: &Message, answer: Message) -> Answered {
        let text = answer.text();
        let Some(whole) = Object::of(text) else { return Answered::Final(answer) };
        if let Some(questions) = required_elicitations(request, &answer) {
            return Answered::InputRequired(questions);
        }
        let mut splice = Splice::new(text);
        if let Some(result) = whole.object("result") {
            self.complete(request.method(), result, &mut splice);
        }
        let id = id_of(request);
        match whole.get("id") {
            Some(own) => splice.replace(own, id),
            None => splice.edit(whole, &[("id", id)], |_| false),
        }
        Answered::Final(spliced(splice, &answer))
    }

    fn step(&self, request: &Message) -> Result<Step, Fault> {
        check(request)?;
        let method = request.method();
        match method {
            "server/discover" => return Ok(Step::Answer(self.discovered(request))),
            "subscriptions/listen" => return Subscription::new(self, request).map(Step::Listen),
            _ if is_legacy_only(method) => {
                return Err(Fault::new(METHOD_NOT_FOUND, format!("MCP {MODERN_VERSION} has no such method")));
            }
            _ => {}
        }
        let params = request.params();
        let Some(state) = params.and_then(|params| given(params, "requestState")) else {
            return Ok(Step::Send(forwarded(request)));
        };
        let state =
            serde_json::from_str(state).map_err(|_| Fault::invalid("requestState is not one of this server's"))?;
        if !HELD.contains(&method) {
            return Err(Fault::invalid("requestState belongs to another request"));
        }
        let responses = params.and_then(|params| given(params, "inputResponses")).unwrap_or("{}");
        Ok(Step::Retry { state, responses: read_responses(responses)? })
    }

    /// Puts in what each modern result has.
    fn complete<'a>(&self, method: &str, result: Object<'a>, splice: &mut Splice<'a>) {
        let kind = given(result, "resultType");
        let mut set = Vec::new();
        if kind.is_none() {
            set.push(("resultType", r#""complete""#));
        }
        // What a legacy server says may be stale at once, and is for this client alone.
        if CACHEABLE.contains(&method) && kind.is_none_or(|kind| kind == r#""complete""#) {
            let hints = [("ttlMs", "0"), ("cacheScope", r#""private""#)];
            set.extend(hints.into_iter().filter(|(name, _)| given(result, name).is_none()));
        }
        let meta = given(result, "_meta").map(Object::of);
        let new_meta = match (&self.info, meta) {
            (Some(info), None) => Some(format!(r#"{{"{SERVER_INFO}":{info}}}"#)),
            (Some(info), Some(Some(meta))) if meta.get(SERVER_INFO).is_none() => {
                splice.edit(meta, &[(SERVER_INFO, info)], |_| false);
                None
            }
            _ => None,
        };
        if let Some(meta) = &new_meta {
            set.push(("_meta", meta));
        }
        splice.edit(result, &set, |_| false);
    }
}

/// What becomes of a request of the client's.
#[derive(Debug)]
pub(crate) enum Step {
    /// It goes to the server in this form.
    Send(Message),
    /// The bridge answers.
    Answer(Message),
    /// It is a subscription, which the bridge keeps.
    Listen(Subscription),
    /// It takes up a call that is held under this state, and brings the responses to what was asked: each key and the
    /// result in JSON. Where the call is not open any more but to be repeated, [`forwarded`] is what to send.
    Retry { state: String, responses: Vec<(String, String)> },
}

/// What becomes of an answer of the server's.
#[derive(Debug)]
pub(crate) enum Answered {
    /// It goes to the client in this form.
    Final(Message),
    /// The client must ask its user first, with [`input_required`], and then the call is made anew: the server is not
    /// waiting for responses to these questions.
    InputRequired(Vec<Message>),
}

/// A request as a legacy server gets it: without what only modern ones have in `_meta`, and without the responses that a
/// retry brings. A `_meta`, or parameters, with nothing left in them are left out.
pub(crate) fn forwarded(request: &Message) -> Message {
    let Some((whole, params)) = whole_and_params(request) else { return request.clone() };
    let meta = params.object("_meta");
    let is_meta_gone = meta.is_some_and(|meta| meta.members().all(|member| is_modern_key(&member)));
    let is_gone = |member: &Member<'_>| {
        ["requestState", "inputResponses"].iter().any(|name| member.is(name)) || (is_meta_gone && member.is("_meta"))
    };
    let mut splice = Splice::new(request.text());
    if params.members().all(|member| is_gone(&member)) {
        splice.edit(whole, &[], |member| member.is("params"));
    } else {
        splice.edit(params, &[], is_gone);
        if let Some(meta) = meta.filter(|_| !is_meta_gone) {
            splice.edit(meta, &[], is_modern_key);
        }
    }
    spliced(splice, request)
}

/// A notification that belongs to a request's own stream, as it is, or `None` if a modern client must not see it there.
/// `level` is what that request wants to have logged. At the server the level is one for all, so that messages come
/// which another request asked for.
pub(crate) fn notification(notification: Message, level: Option<&str>) -> Option<Message> {
    let passes = match notification.method() {
        "notifications/message" => level.is_some_and(|level| {
            let said = notification.params().and_then(|params| params.string("level"));
            // What has no known level is not below any.
            said.and_then(|said| rank(&said)).is_none_or(|said| rank(level).is_none_or(|level| said >= level))
        }),
        // These belong to subscriptions.
        "notifications/resources/updated" | "notifications/subscriptions/acknowledged" => false,
        // A modern server cancels nothing but subscriptions; the others have no meaning any more.
        "notifications/cancelled" | "notifications/elicitation/complete" | "notifications/tasks/status" => false,
        method => LISTS.iter().all(|list| list.method != method),
    };
    passes.then_some(notification)
}

/// The log level that a request's `_meta` wants.
pub(crate) fn log_level(request: &Message) -> Option<String> {
    request.meta()?.string(LOG_LEVEL).filter(|level| rank(level).is_some())
}

/// The request that sets the server's log level.
pub(crate) fn set_level(level: &str) -> Message {
    let level = serde_json::Value::from(level);
    made(format!(r#"{{"jsonrpc":"2.0","id":0,"method":"logging/setLevel","params":{{"level":{level}}}}}"#))
}

/// Whether a request of the server's can be put to the client in the answer to this request of its own: if that is one that
/// may be answered with questions, and says that the client can answer this one. What an earlier request said does
/// not count.
pub(crate) fn is_question(request: &Message, question: &Message) -> bool {
    if !HELD.contains(&request.method()) {
        return false;
    }
    let Some(capabilities) = request.meta().and_then(|meta| meta.object(CLIENT_CAPABILITIES)) else { return false };
    let params = question.params();
    match question.method() {
        "roots/list" => capabilities.object("roots").is_some(),
        "sampling/createMessage" => {
            let (Some(sampling), Some(params)) = (capabilities.object("sampling"), params) else { return false };
            let has_tools = ["tools", "toolChoice"].iter().any(|name| given(params, name).is_some());
            !has_tools || sampling.object("tools").is_some()
        }
        "elicitation/create" => {
            let (Some(elicitation), Some(params)) = (capabilities.object("elicitation"), params) else { return false };
            match given(params, "mode").map(serde_json::from_str::<String>) {
                Some(Ok(mode)) if mode == "url" => elicitation.object("url").is_some(),
                Some(Ok(mode)) if mode != "form" => false,
                Some(Err(_)) => false,
                // A client that names no mode has forms.
                _ => elicitation.object("form").is_some() || elicitation.object("url").is_none(),
            }
        }
        _ => false,
    }
}

/// The answer to a client's request that tells it to ask its user first. The questions are known as `r0`, `r1` and so on, in
/// their order, and the client's retry brings back `state`.
pub(crate) fn input_required(request: &Message, state: &str, questions: &[Message]) -> Message {
    let mut requests = String::new();
    for (number, question) in questions.iter().enumerate() {
        let comma = if number == 0 { "" } else { "," };
        let method = serde_json::Value::from(question.method());
        requests += &format!(r#"{comma}"r{number}":{{"method":{method}"#);
        if let Some(params) = question.params() {
            requests += &format!(r#","params":{}"#, params.as_str());
        }
        requests.push('}');
    }
    let state = serde_json::Value::from(state);
    answer_of(
        request,
        &format!(r#"{{"resultType":"input_required","inputRequests":{{{requests}}},"requestState":{state}}}"#),
    )
}

/// The response to a request of the server's, from the client's response to the question that it became, in JSON.
pub(crate) fn response(question: &Message, input: &str) -> Message {
    answer_of(question, input)
}

/// The answer to a retry that is no use, as the user does not want to do what the server wants to be done before the call
/// ([`Answered::InputRequired`]): if it was made again, the same would be asked again. `None` if the user did not
/// say no.
pub(crate) fn declined(request: &Message, responses: &[(String, String)]) -> Option<Message> {
    let says_no = |response: &str| {
        let action = Object::of(response).and_then(|response| response.string("action"));
        action.is_some_and(|action| action == "decline" || action == "cancel")
    };
    let fault = Fault::new(INTERNAL_ERROR, "the server wants the user to open a URL first, which was declined");
    responses.iter().any(|(_, response)| says_no(response)).then(|| fault.answer(request))
}

/// The answer to a ping of the server's.
pub(crate) fn pong(ping: &Message) -> Message {
    answer_of(ping, "{}")
}

/// The answer to a request of the server's that the client cannot be asked.
pub(crate) fn refusal(question: &Message) -> Message {
    Fault::new(METHOD_NOT_FOUND, "the client cannot be asked this now").answer(question)
}

/// One `subscriptions/listen` of the client's.
#[derive(Debug)]
pub(crate) struct Subscription {
    /// The id of the request, which is the subscription's, as the client spells it.
    id: String,
    /// The lists whose changes are wanted, and told by the server.
    lists: Vec<&'static List>,
    uris: Vec<String>,
    /// The subset that is granted, in JSON.
    granted: String,
    /// The server's `serverInfo`, in JSON.
    info: Option<String>,
}

impl Subscription {
    fn new(server: &LegacyServer, listen: &Message) -> Result<Self, Fault> {
        let filter = listen.params().and_then(|params| params.object("notifications"));
        let filter = filter.ok_or_else(|| Fault::invalid("notifications must be an object"))?;
        let mut lists = Vec::new();
        let mut granted = Vec::new();
        for list in &LISTS {
            let is_wanted = match given(filter, list.filter) {
                Some("true") => true,
                Some("false") | None => false,
                Some(_) => return Err(Fault::invalid(format!("{} must be true or false", list.filter))),
            };
            if is_wanted && server.lists.iter().any(|told| told.method == list.method) {
                lists.push(list);
                granted.push(format!(r#""{}":true"#, list.filter));
            }
        }
        let mut uris = Vec::new();
        if let Some(resources) = given(filter, "resourceSubscriptions") {
            let wanted = read_uris(resources)?;
            if server.can_subscribe {
                uris = wanted;
                granted.push(format!(r#""resourceSubscriptions":{resources}"#));
            }
        }
        Ok(Self { id: id_of(listen).to_owned(), lists, uris, granted: granted.join(","), info: server.info.clone() })
    }

    /// What the client must be told first: what of its wishes the server can meet.
    pub(crate) fn acknowledged(&self) -> Message {
        let Self { id, granted, .. } = self;
        made(format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{{"_meta":{{"{SUBSCRIPTION_ID}":{id}}},"notifications":{{{granted}}}}}}}"#
        ))
    }

    /// The resources to [`subscribe`] to at the server, each once; none if the server does not have that.
    pub(crate) fn uris(&self) -> &[String] {
        &self.uris
    }

    /// This notification of the server's with the mark of this subscription, or `None` if it is not wanted here.
    pub(crate) fn event(&self, notification: &Message) -> Option<Message> {
        let is_wanted = match notification.method() {
            "notifications/resources/updated" => notification.uri().is_some_and(|uri| self.covers(&uri)),
            method => self.lists.iter().any(|list| list.method == method),
        };
        is_wanted.then(|| self.marked(notification))
    }

    /// The answer to the listen itself, which ends it in good order.
    pub(crate) fn ended(&self) -> Message {
        let Self { id, info, .. } = self;
        let info = info.as_ref().map(|info| format!(r#","{SERVER_INFO}":{info}"#)).unwrap_or_default();
        made(format!(
            r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"complete","_meta":{{"{SUBSCRIPTION_ID}":{id}{info}}}}}}}"#
        ))
    }

    /// Whether this is one of the resources, or stands below one: a server may tell of a part of what was subscribed to.
    fn covers(&self, uri: &str) -> bool {
        self.uris.iter().any(|own| {
            uri.strip_prefix(own.as_str())
                .is_some_and(|below| below.is_empty() || own.ends_with('/') || below.starts_with(['/', '?', '#']))
        })
    }

    fn marked(&self, notification: &Message) -> Message {
        let Some(whole) = Object::of(notification.text()) else { return notification.clone() };
        let mark = format!(r#"{{"{SUBSCRIPTION_ID}":{}}}"#, self.id);
        let params_with_mark = format!(r#"{{"_meta":{mark}}}"#);
        let mut splice = Splice::new(notification.text());
        match (whole.object("params"), notification.meta()) {
            (Some(_), Some(meta)) => splice.edit(meta, &[(SUBSCRIPTION_ID, &self.id)], |_| false),
            (Some(params), None) => splice.edit(params, &[("_meta", &mark)], |_| false),
            (None, _) => splice.edit(whole, &[("params", &params_with_mark)], |_| false),
        }
        spliced(splice, notification)
    }
}

/// The request to be told of changes to a resource.
pub(crate) fn subscribe(uri: &str) -> Message {
    with_uri("resources/subscribe", uri)
}

/// The request to be told no more.
pub(crate) fn unsubscribe(uri: &str) -> Message {
    with_uri("resources/unsubscribe", uri)
}

/// Why a request is answered here: a JSON-RPC error that says whose it is (R78).
#[derive(Debug)]
struct Fault {
    code: i32,
    text: String,
    /// More members of `data`, in JSON, each after a comma.
    data: String,
}

impl Fault {
    fn new(code: i32, text: impl Into<String>) -> Self {
        Self { code, text: text.into(), data: String::new() }
    }

    fn invalid(text: impl Into<String>) -> Self {
        Self::new(INVALID_PARAMS, text)
    }

    fn answer(&self, request: &Message) -> Message {
        let Self { code, text, data } = self;
        let (id, text) = (id_of(request), serde_json::Value::from(text.as_str()));
        made(format!(
            r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":{text},"data":{{"source":"mcp-gangway"{data}}}}}}}"#
        ))
    }
}

/// What each modern request must have ("Per-request protocol fields"), and what it may have but not anyhow.
fn check(request: &Message) -> Result<(), Fault> {
    let meta = request.meta();
    let member = |name: &str| meta.and_then(|meta| meta.get(name));
    let is_string = |json: &&str| json.starts_with('"');
    let Some(version) = member(PROTOCOL_VERSION).filter(is_string) else {
        return Err(Fault::invalid(format!("_meta must have {PROTOCOL_VERSION}, a string")));
    };
    if serde_json::from_str::<String>(version).ok().as_deref() != Some(MODERN_VERSION) {
        let mut fault = Fault::new(UNSUPPORTED_PROTOCOL_VERSION, "unsupported protocol version");
        fault.data = format!(r#","supported":["{MODERN_VERSION}"],"requested":{version}"#);
        return Err(fault);
    }
    if member(CLIENT_CAPABILITIES).and_then(Object::of).is_none() {
        return Err(Fault::invalid(format!("_meta must have {CLIENT_CAPABILITIES}, an object")));
    }
    let level = meta.and_then(|meta| given(meta, LOG_LEVEL));
    if level.is_some() && log_level(request).is_none() {
        return Err(Fault::invalid(format!("{LOG_LEVEL} must be one of {}", LOG_LEVELS.join(", "))));
    }
    Ok(())
}

/// Whether only the legacy protocol has this method. A server would take it for what it meant there. Others that the bridge
/// does not know are the server's to judge.
fn is_legacy_only(method: &str) -> bool {
    matches!(method, "initialize" | "ping" | "logging/setLevel" | "resources/subscribe" | "resources/unsubscribe")
        || method.starts_with("tasks/")
}

/// An `InitializeResult` turned into a `DiscoverResult`.
fn discovery(result: Object<'_>, info: Option<&str>) -> String {
    let mut splice = Splice::new(result.as_str());
    let supported = format!(r#"["{MODERN_VERSION}"]"#);
    let mut set = vec![
        ("resultType", r#""complete""#),
        ("supportedVersions", supported.as_str()),
        ("ttlMs", "0"),
        ("cacheScope", r#""private""#),
    ];
    match result.object("capabilities") {
        Some(capabilities) => without_tasks(&mut splice, capabilities),
        None => set.push(("capabilities", "{}")),
    }
    let meta = info.map(|info| format!(r#"{{"{SERVER_INFO}":{info}}}"#)).unwrap_or_default();
    match (info, result.object("_meta")) {
        (Some(info), Some(meta)) => splice.edit(meta, &[(SERVER_INFO, info)], |_| false),
        (Some(_), None) => set.push(("_meta", &meta)),
        (None, _) => {}
    }
    splice.edit(result, &set, |member| member.is("protocolVersion") || member.is("serverInfo"));
    text_of(splice)
}

/// Takes the tasks of both eras out of the capabilities of either side.
fn without_tasks<'a>(splice: &mut Splice<'a>, capabilities: Object<'a>) {
    splice.edit(capabilities, &[], |member| member.is("tasks"));
    if let Some(extensions) = capabilities.object("extensions") {
        splice.edit(extensions, &[], |member| member.is(TASKS_EXTENSION));
    }
}

/// What the server wants to be done at URLs before it takes the request (-32042), as requests like those that it could
/// have made; `None` if it is something else, or nothing that this client can be asked.
fn required_elicitations(request: &Message, answer: &Message) -> Option<Vec<Message>> {
    let error = Object::of(answer.text())?.object("error")?;
    if !answer.error().is_some_and(|(code, _)| code == URL_ELICITATION_REQUIRED) {
        return None;
    }
    let wanted = error.object("data")?.get("elicitations")?;
    let questions: Vec<_> = elements(wanted)
        .take(MOST_QUESTIONS + 1)
        .map(|params| made(format!(r#"{{"jsonrpc":"2.0","id":0,"method":"elicitation/create","params":{params}}}"#)))
        .collect();
    let is_url = |question: &Message| {
        question.params().and_then(|params| params.string("mode")).is_some_and(|mode| mode == "url")
    };
    let can_be_asked = (1..=MOST_QUESTIONS).contains(&questions.len())
        && questions.iter().all(|question| is_url(question) && is_question(request, question));
    can_be_asked.then_some(questions)
}

/// The responses that a retry brings; of several with one key the last.
fn read_responses(json: &str) -> Result<Vec<(String, String)>, Fault> {
    let object = Object::of(json).ok_or_else(|| Fault::invalid("inputResponses must be an object"))?;
    let mut responses: Vec<(String, String)> = Vec::new();
    for (number, member) in object.members().enumerate() {
        if number == MOST_QUESTIONS {
            return Err(Fault::invalid(format!("inputResponses has more than {MOST_QUESTIONS} members")));
        }
        if Object::of(member.value).is_none() {
            return Err(Fault::invalid("each of inputResponses must be an object"));
        }
        let key = member.name();
        responses.retain(|(known, _)| *known != key);
        responses.push((key, member.value.to_owned()));
    }
    Ok(responses)
}

/// The resources that a subscription names, each once.
fn read_uris(json: &str) -> Result<Vec<String>, Fault> {
    let malformed = || Fault::invalid("resourceSubscriptions must be an array of strings");
    if !json.starts_with('[') {
        return Err(malformed());
    }
    let mut uris = Vec::new();
    for (number, uri) in elements(json).enumerate() {
        if number == MOST_URIS {
            return Err(Fault::invalid(format!("resourceSubscriptions has more than {MOST_URIS} elements")));
        }
        let uri: String = serde_json::from_str(uri).map_err(|_| malformed())?;
        if !uris.contains(&uri) {
            uris.push(uri);
        }
    }
    Ok(uris)
}

/// The description of a client or server, if it has the name and version that both eras want.
fn implementation<'a>(object: Object<'a>, name: &str) -> Option<&'a str> {
    let info = object.object(name)?;
    let has = |name: &str| info.get(name).is_some_and(|value| value.starts_with('"'));
    (has("name") && has("version")).then_some(info.as_str())
}

/// The value of a member. `null` is how some libraries write that there is none.
fn given<'a>(object: Object<'a>, name: &str) -> Option<&'a str> {
    object.get(name).filter(|value| *value != "null")
}

fn is_modern_key(member: &Member<'_>) -> bool {
    member.name().starts_with("io.modelcontextprotocol/")
}

fn rank(level: &str) -> Option<usize> {
    LOG_LEVELS.iter().position(|known| *known == level)
}

fn whole_and_params(message: &Message) -> Option<(Object<'_>, Object<'_>)> {
    let whole = Object::of(message.text())?;
    Some((whole, whole.object("params")?))
}

fn with_uri(method: &str, uri: &str) -> Message {
    let uri = serde_json::Value::from(uri);
    made(format!(r#"{{"jsonrpc":"2.0","id":0,"method":"{method}","params":{{"uri":{uri}}}}}"#))
}

fn answer_of(request: &Message, result: &str) -> Message {
    made(format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, id_of(request)))
}

fn id_of(request: &Message) -> &str {
    request.id().map_or("null", Id::as_str)
}

/// A message of the bridge's own making.
fn made(text: String) -> Message {
    // Its parts were valid JSON, so this does not fail; and a second end of the handshake means nothing to either side.
    Message::one(text).unwrap_or_else(message::initialized)
}

/// A message with changes, which leave it one.
fn spliced(splice: Splice<'_>, original: &Message) -> Message {
    Message::one(splice.finish()).unwrap_or_else(|| original.clone())
}

/// The text with changes, which leave it valid.
fn text_of(splice: Splice<'_>) -> String {
    String::from_utf8_lossy(&splice.finish()).into_owned()
}
