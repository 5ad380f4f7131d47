//! Translates between a modern client and a legacy server, one message at a time, as text (no I/O).
//!
//! Rule: the bridge is a server of 2026-07-28 to the client, and a client of 2025-11-25 to the server. Messages that
//! pass are spliced, never rewritten (R3): members are added or removed, and all other bytes stay. A message that the
//! other side's protocol cannot express is answered here, with an error that says so.
//!
//! The caller owns the session: it sends [`initialize`], keeps the streams open, chooses request ids, and has the table
//! of calls that are held while the client asks its user. Requests made here have the id 0, which the sender replaces.

use std::collections::HashSet;

use crate::{
    json::splice::{Member, Object, Splice, elements},
    wire::{
        id::Id,
        message::{self, Message},
        revision::{
            CLIENT_CAPABILITIES, CLIENT_INFO, LOG_LEVEL, MODERN_VERSION, NEWEST_LEGACY_VERSION, PROTOCOL_VERSION,
            SERVER_INFO, SUBSCRIPTION_ID,
        },
    },
};

/// The most resources that one subscription can name. The server gets a request for each.
pub(crate) const MAX_URIS: usize = 1_000;
/// The most bytes of JSON for all of these together. Each notification is compared with them.
const MAX_URI_LIST_BYTES: usize = 256 << 10;
/// The most questions in one round, and the most responses in a retry.
pub(crate) const MAX_QUESTIONS: usize = 100;

/// The requests that can be answered with questions (modern specification, "Multi Round-Trip Requests").
const HELD: [&str; 3] = ["tools/call", "prompts/get", "resources/read"];
/// The requests whose results have caching hints, in addition to `server/discover` ("Caching").
const CACHEABLE: [&str; 5] =
    ["tools/list", "prompts/list", "resources/list", "resources/templates/list", "resources/read"];
/// From the lowest to the highest.
const LOG_LEVELS: [&str; 8] = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];
/// The tasks extension. It shares only its name with legacy tasks.
const TASKS_EXTENSION: &str = "io.modelcontextprotocol/tasks";

const METHOD_NOT_FOUND: i32 = -32_601;
const INVALID_PARAMS: i32 = -32_602;
const INTERNAL_ERROR: i32 = -32_603;
const UNSUPPORTED_PROTOCOL_VERSION: i32 = -32_022;
/// Only 2025-11-25 has it.
const URL_ELICITATION_REQUIRED: i64 = -32_042;

/// The lists for which a client can request change notifications.
const LISTS: [List; 3] = [
    List { filter: "toolsListChanged", method: "notifications/tools/list_changed" },
    List { filter: "promptsListChanged", method: "notifications/prompts/list_changed" },
    List { filter: "resourcesListChanged", method: "notifications/resources/list_changed" },
];

/// A list of the server that can change.
#[derive(Debug)]
struct List {
    /// The member of a subscription that asks for it.
    filter: &'static str,
    /// The notification.
    method: &'static str,
}

/// Makes the `initialize` for a modern client from the `_meta` of one of its requests. Legacy servers require a name,
/// so a client without one gets the bridge's. Capabilities pass except for tasks, which differ between the eras, and
/// `roots.listChanged`, whose notification a modern client does not have.
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

/// Returns the error for an invalid request of 2026-07-28, which no server needs to see: a required member is missing
/// (-32602), or the version is another (-32022).
pub(crate) fn objection(request: &Message) -> Option<Message> {
    check(request).err().map(|fault| fault.answer(request))
}

/// Makes the response to a client's `server/discover` if the server is a legacy one. On this code all SDKs that know
/// both eras fall back to `initialize`. Some do not on -32022.
pub(crate) fn no_discovery(discover: &Message) -> Message {
    let text = format!("the server speaks a protocol older than {MODERN_VERSION}: begin with initialize");
    Fault::new(METHOD_NOT_FOUND, text).answer(discover)
}

/// A legacy server as modern clients see it, from its `InitializeResult`.
#[derive(Debug)]
pub(crate) struct LegacyServer {
    /// Its `serverInfo`, in JSON, if the required members are there.
    info: Option<String>,
    /// The result of `server/discover`, in JSON.
    discovered: String,
}

impl LegacyServer {
    /// Reads the server's response. Returns `None` if it is not an `InitializeResult`.
    pub(crate) fn new(initialized: &Message) -> Option<Self> {
        let result = initialized.result()?;
        result.string("protocolVersion")?;
        let info = implementation(result, "serverInfo").map(str::to_owned);
        Some(Self { discovered: discovery(result, info.as_deref()), info })
    }

    /// Makes the response to `server/discover`. Other members of the server's own result pass.
    pub(crate) fn discovered(&self, discover: &Message) -> Message {
        answer_of(discover, &self.discovered)
    }

    /// Translates a client's request.
    pub(crate) fn take(&self, request: &Message) -> FromModern {
        self.step(request).unwrap_or_else(|fault| FromModern::Answer(fault.answer(request)))
    }

    /// Translates the server's response for a modern client, with the id of the client's request. If the result already
    /// has a type, caching hints or server info, they stay. A result that is not an object cannot have them. Errors
    /// pass, -32002 included, with one exception: if the user must first visit a URL and this client can ask that, the
    /// error becomes questions.
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

    fn step(&self, request: &Message) -> Result<FromModern, Fault> {
        check(request)?;
        let method = request.method();
        match method {
            "server/discover" => return Ok(FromModern::Answer(self.discovered(request))),
            "subscriptions/listen" => return Subscription::new(self, request).map(FromModern::Listen),
            _ if is_legacy_only(method) => {
                return Err(Fault::new(METHOD_NOT_FOUND, format!("MCP {MODERN_VERSION} has no such method")));
            }
            _ => {}
        }
        let params = request.params();
        let Some(state) = params.and_then(|params| given(params, "requestState")) else {
            return Ok(FromModern::Send(forwarded(request)));
        };
        let state =
            serde_json::from_str(state).map_err(|_| Fault::invalid("requestState is not one of this server's"))?;
        if !HELD.contains(&method) {
            return Err(Fault::invalid("requestState belongs to another request"));
        }
        let responses = params.and_then(|params| given(params, "inputResponses")).unwrap_or("{}");
        Ok(FromModern::Retry { state, responses: read_responses(responses)? })
    }

    /// Adds the members that each modern result has.
    fn complete<'a>(&self, method: &str, result: Object<'a>, splice: &mut Splice<'a>) {
        let kind = given(result, "resultType");
        let mut set = Vec::new();
        if kind.is_none() {
            set.push(("resultType", r#""complete""#));
        }
        // A legacy server's result can be stale at once, and is for this client only.
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

/// What to do with a client's request.
#[derive(Debug)]
pub(crate) enum FromModern {
    /// Send this to the server.
    Send(Message),
    /// Answer the client with this.
    Answer(Message),
    /// Keep this subscription.
    Listen(Subscription),
    /// Continue the call that is held under this state, with the responses to its questions: each key, and the result
    /// in JSON. If the call is no longer open and must be repeated, send [`forwarded`].
    Retry { state: String, responses: Vec<(String, String)> },
}

/// What to do with a server's response.
#[derive(Debug)]
pub(crate) enum Answered {
    /// Send this to the client.
    Final(Message),
    /// Let the client ask its user, with [`input_required`], and then send the call again: the server does not wait for
    /// responses to these questions.
    InputRequired(Vec<Message>),
}

/// Returns a request in its legacy form: without the members of `_meta` that only modern requests have, and without the
/// responses of a retry. Omits `_meta` or parameters that become empty.
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

/// Returns a notification from a request's own stream unchanged, or `None` if a modern client must not see it there.
/// `level` is the log level of that request. The server has one level for all, so it also sends messages that another
/// request asked for.
pub(crate) fn notification(notification: Message, level: Option<&str>) -> Option<Message> {
    let passes = match notification.method() {
        "notifications/message" => level.is_some_and(|level| {
            let said = notification.params().and_then(|params| params.string("level"));
            // A message without a known level passes.
            said.and_then(|said| rank(&said)).is_none_or(|said| rank(level).is_none_or(|level| said >= level))
        }),
        // The first two belong to subscriptions. A modern server cancels only subscriptions, and the rest no longer
        // exist.
        "notifications/resources/updated"
        | "notifications/subscriptions/acknowledged"
        | "notifications/cancelled"
        | "notifications/elicitation/complete"
        | "notifications/tasks/status" => false,
        method => LISTS.iter().all(|list| list.method != method),
    };
    passes.then_some(notification)
}

/// Adapts a notification of a held call for the client that continued the call with `retry`. The server only knows the
/// progress token of the first request, and the client expects that of the last. Returns `None` for progress that the
/// retry did not ask for.
pub(crate) fn adapt_notification(notification: Message, retry: &Message) -> Option<Message> {
    if notification.method() != "notifications/progress" {
        return Some(notification);
    }
    let token = given(retry.meta()?, "progressToken")?;
    let mut splice = Splice::new(notification.text());
    splice.replace(notification.params()?.get("progressToken")?, token);
    Some(spliced(splice, &notification))
}

/// Returns the log level in a request's `_meta`.
pub(crate) fn log_level(request: &Message) -> Option<String> {
    request.meta()?.string(LOG_LEVEL).filter(|level| rank(level).is_some())
}

/// Makes the request that sets the server's log level.
pub(crate) fn set_level(level: &str) -> Message {
    let level = serde_json::Value::from(level);
    made(format!(r#"{{"jsonrpc":"2.0","id":0,"method":"logging/setLevel","params":{{"level":{level}}}}}"#))
}

/// True if the server's request `question` can be put to the client in the response to `request`. `request` must allow
/// questions and declare the capability to answer this one. Earlier requests do not count.
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
            // Without a mode it is a form, on both sides.
            let has_forms = elicitation.object("form").is_some() || elicitation.object("url").is_none();
            match given(params, "mode") {
                None | Some(r#""form""#) => has_forms,
                Some(r#""url""#) => elicitation.object("url").is_some(),
                Some(_) => false,
            }
        }
        _ => false,
    }
}

/// Makes the response that tells a client to ask its user, or, without questions, to send the request again. The
/// questions have the keys `r0`, `r1` and so on, in order. The client's retry brings `state` back.
pub(crate) fn input_required(request: &Message, state: &str, questions: &[Message]) -> Message {
    let requests = questions.iter().enumerate().map(|(number, question)| {
        let method = serde_json::Value::from(question.method());
        let params = question.params().map(|params| format!(r#","params":{}"#, params.as_str())).unwrap_or_default();
        format!(r#""r{number}":{{"method":{method}{params}}}"#)
    });
    let requests = requests.collect::<Vec<_>>().join(",");
    let requests = if requests.is_empty() { requests } else { format!(r#""inputRequests":{{{requests}}},"#) };
    let state = serde_json::Value::from(state);
    answer_of(request, &format!(r#"{{"resultType":"input_required",{requests}"requestState":{state}}}"#))
}

/// Makes the response to a server's request from the client's response to its question, in JSON.
pub(crate) fn response(question: &Message, input: &str) -> Message {
    answer_of(question, input)
}

/// Makes the error for a retry after the user declined an action that the server requires before the call
/// ([`Answered::InputRequired`]). A repeated call would only ask the same again. Returns `None` if the user did not
/// decline.
pub(crate) fn declined(request: &Message, responses: &[(String, String)]) -> Option<Message> {
    let fault = Fault::new(INTERNAL_ERROR, "the server wants the user to open a URL first, which was declined");
    responses.iter().any(|(_, response)| declines_or_cancels(response)).then(|| fault.answer(request))
}

/// True if this response to an elicitation, in JSON, declines or cancels.
pub(crate) fn declines_or_cancels(response: &str) -> bool {
    let action = Object::of(response).and_then(|response| response.string("action"));
    action.is_some_and(|action| action == "decline" || action == "cancel")
}

/// Makes the response to a server's ping.
pub(crate) fn pong(ping: &Message) -> Message {
    answer_of(ping, "{}")
}

/// Makes the error for a server's request that cannot be put to the client.
pub(crate) fn refusal(question: &Message) -> Message {
    Fault::new(METHOD_NOT_FOUND, "the client cannot be asked this now").answer(question)
}

/// One `subscriptions/listen` of the client.
#[derive(Debug)]
pub(crate) struct Subscription {
    /// The id of the request, which is also the subscription's, in the client's spelling.
    id: String,
    /// The lists for which the client wants change notifications.
    lists: Vec<&'static List>,
    /// The wanted resources that the server watches. `None` if the client asked for none.
    uris: Option<Vec<String>>,
    /// The server's `serverInfo`, in JSON.
    info: Option<String>,
}

impl Subscription {
    fn new(server: &LegacyServer, listen: &Message) -> Result<Self, Fault> {
        let filter = listen.params().and_then(|params| params.object("notifications"));
        let filter = filter.ok_or_else(|| Fault::invalid("notifications must be an object"))?;
        let mut lists = Vec::new();
        for list in &LISTS {
            let is_wanted = match given(filter, list.filter) {
                Some("true") => true,
                Some("false") | None => false,
                Some(_) => return Err(Fault::invalid(format!("{} must be true or false", list.filter))),
            };
            // Do not check the server's capabilities: some servers send these notifications without declaring them.
            if is_wanted {
                lists.push(list);
            }
        }
        let uris = given(filter, "resourceSubscriptions").map(read_uris).transpose()?;
        Ok(Self { id: id_of(listen).to_owned(), lists, uris, info: server.info.clone() })
    }

    /// Makes the acknowledgement, the first message to the client: the part of its request that the server supports.
    pub(crate) fn acknowledged(&self) -> Message {
        let Self { id, lists, uris, .. } = self;
        let mut granted: Vec<_> = lists.iter().map(|list| format!(r#""{}":true"#, list.filter)).collect();
        if let Some(uris) = uris {
            granted.push(format!(r#""resourceSubscriptions":{}"#, serde_json::Value::from(uris.as_slice())));
        }
        let granted = granted.join(",");
        made(format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{{"_meta":{{"{SUBSCRIPTION_ID}":{id}}},"notifications":{{{granted}}}}}}}"#
        ))
    }

    /// Returns the resources to [`subscribe`] to at the server, each once.
    pub(crate) fn uris(&self) -> &[String] {
        self.uris.as_deref().unwrap_or_default()
    }

    /// Removes resources that the server does not watch.
    pub(crate) fn remove_unwatched(&mut self, unwatched: &HashSet<String>) {
        self.uris.iter_mut().for_each(|uris| uris.retain(|own| !unwatched.contains(own)));
    }

    /// Returns this server notification marked for this subscription, or `None` if the subscription does not cover it.
    pub(crate) fn event(&self, notification: &Message) -> Option<Message> {
        let is_wanted = match notification.method() {
            "notifications/resources/updated" => notification.uri().is_some_and(|uri| self.covers(&uri)),
            method => self.lists.iter().any(|list| list.method == method),
        };
        is_wanted.then(|| self.marked(notification))
    }

    /// Makes the response to the listen request, which ends it normally.
    pub(crate) fn ended(&self) -> Message {
        let Self { id, info, .. } = self;
        let info = info.as_ref().map(|info| format!(r#","{SERVER_INFO}":{info}"#)).unwrap_or_default();
        made(format!(
            r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"complete","_meta":{{"{SUBSCRIPTION_ID}":{id}{info}}}}}}}"#
        ))
    }

    /// True if this is one of the resources, or is below one: a server can send notifications for a part of a
    /// subscribed resource.
    fn covers(&self, uri: &str) -> bool {
        self.uris().iter().any(|own| {
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

/// Makes the request that subscribes to a resource.
pub(crate) fn subscribe(uri: &str) -> Message {
    with_uri("resources/subscribe", uri)
}

/// True if the server does not have this method, so that it need not be asked again.
pub(crate) fn has_no_such_method(answer: &Message) -> bool {
    answer.error().is_some_and(|(code, _)| code == i64::from(METHOD_NOT_FOUND))
}

/// Makes the request that ends a subscription.
pub(crate) fn unsubscribe(uri: &str) -> Message {
    with_uri("resources/unsubscribe", uri)
}

/// A JSON-RPC error from the bridge, which names the bridge as its source (R78).
#[derive(Debug)]
struct Fault {
    code: i32,
    text: String,
    /// Further members of `data`, in JSON, each after a comma.
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

/// Checks the members that each modern request must have ("Per-request protocol fields"), and the optional ones.
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

/// True if only the legacy protocol has this method. A legacy server would act on it. Methods that the bridge does not
/// know are left to the server.
fn is_legacy_only(method: &str) -> bool {
    matches!(method, "initialize" | "ping" | "logging/setLevel" | "resources/subscribe" | "resources/unsubscribe")
        || method.starts_with("tasks/")
}

/// Turns an `InitializeResult` into a `DiscoverResult`.
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

/// Removes the tasks of both eras from the capabilities of either side.
fn without_tasks<'a>(splice: &mut Splice<'a>, capabilities: Object<'a>) {
    splice.edit(capabilities, &[], |member| member.is("tasks"));
    if let Some(extensions) = capabilities.object("extensions") {
        splice.edit(extensions, &[], |member| member.is(TASKS_EXTENSION));
    }
}

/// Turns the elicitations that the server requires before it accepts the request (-32042) into requests, as if the
/// server had sent them. Returns `None` for other errors, or if this client cannot be asked.
fn required_elicitations(request: &Message, answer: &Message) -> Option<Vec<Message>> {
    let error = Object::of(answer.text())?.object("error")?;
    if answer.error().is_none_or(|(code, _)| code != URL_ELICITATION_REQUIRED) {
        return None;
    }
    let wanted = error.object("data")?.get("elicitations")?;
    let questions: Vec<_> = elements(wanted)
        .take(MAX_QUESTIONS + 1)
        .map(|params| made(format!(r#"{{"jsonrpc":"2.0","id":0,"method":"elicitation/create","params":{params}}}"#)))
        .collect();
    let is_url = |question: &Message| {
        question.params().and_then(|params| params.string("mode")).is_some_and(|mode| mode == "url")
    };
    let can_be_asked = (1..=MAX_QUESTIONS).contains(&questions.len())
        && questions.iter().all(|question| is_url(question) && is_question(request, question));
    can_be_asked.then_some(questions)
}

/// Reads the responses of a retry. If several have one key, the last one counts.
fn read_responses(json: &str) -> Result<Vec<(String, String)>, Fault> {
    let object = Object::of(json).ok_or_else(|| Fault::invalid("inputResponses must be an object"))?;
    let mut responses: Vec<(String, String)> = Vec::new();
    for (number, member) in object.members().enumerate() {
        if number == MAX_QUESTIONS {
            return Err(Fault::invalid(format!("inputResponses has more than {MAX_QUESTIONS} members")));
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

/// Reads the resources of a subscription, each once.
fn read_uris(json: &str) -> Result<Vec<String>, Fault> {
    let malformed = || Fault::invalid("resourceSubscriptions must be an array of strings");
    if !json.starts_with('[') {
        return Err(malformed());
    }
    if json.len() > MAX_URI_LIST_BYTES {
        return Err(Fault::invalid(format!("resourceSubscriptions has more than {MAX_URI_LIST_BYTES} bytes")));
    }
    let mut known = HashSet::new();
    let mut uris = Vec::new();
    for (number, uri) in elements(json).enumerate() {
        if number == MAX_URIS {
            return Err(Fault::invalid(format!("resourceSubscriptions has more than {MAX_URIS} elements")));
        }
        let uri: String = serde_json::from_str(uri).map_err(|_| malformed())?;
        if known.insert(uri.clone()) {
            uris.push(uri);
        }
    }
    Ok(uris)
}

/// Returns the description of a client or server, if it has the name and version that both eras require.
fn implementation<'a>(object: Object<'a>, name: &str) -> Option<&'a str> {
    let info = object.object(name)?;
    let has = |name: &str| info.get(name).is_some_and(|value| value.starts_with('"'));
    (has("name") && has("version")).then_some(info.as_str())
}

/// Returns the value of a member. Some libraries write a missing value as `null`.
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

/// Makes a message from text.
fn made(text: String) -> Message {
    // Its parts are valid JSON, so this does not fail. The fallback, a second `notifications/initialized`, is harmless.
    Message::one(text).unwrap_or_else(message::initialized)
}

/// Finishes the changes to a message.
fn spliced(splice: Splice<'_>, original: &Message) -> Message {
    Message::one(splice.finish()).unwrap_or_else(|| original.clone())
}

/// Finishes the changes to a text.
fn text_of(splice: Splice<'_>) -> String {
    String::from_utf8_lossy(&splice.finish()).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::wire::{message::Kind, revision::Era};

    fn message(text: &str) -> Message {
        Message::one(text.to_owned()).unwrap_or_else(|| panic!("{text}"))
    }

    fn value(message: &Message) -> Value {
        serde_json::from_slice(message.bytes()).unwrap()
    }

    /// A request with these capabilities, and these further parameters, each after a comma.
    fn request(method: &str, capabilities: &str, more: &str) -> Message {
        message(&format!(
            r#"{{"jsonrpc":"2.0","id":11,"method":"{method}","params":{{"_meta":{{"{PROTOCOL_VERSION}":"2026-07-28","{CLIENT_CAPABILITIES}":{capabilities}}}{more}}}}}"#
        ))
    }

    fn server_with(capabilities: &str) -> LegacyServer {
        let answer = format!(
            r#"{{"id":0,"result":{{"protocolVersion":"2025-11-25","capabilities":{capabilities},"serverInfo":{{"name":"s","version":"1"}}}}}}"#
        );
        LegacyServer::new(&message(&answer)).unwrap()
    }

    fn server() -> LegacyServer {
        server_with(r#"{"tools":{"listChanged":true},"prompts":{},"resources":{"subscribe":true,"listChanged":false}}"#)
    }

    fn sent(request: &Message) -> Message {
        match server().take(request) {
            FromModern::Send(message) => message,
            other => panic!("{other:?}"),
        }
    }

    /// The code and data of the bridge's own error.
    fn fault(request: &Message) -> (i64, Value) {
        let FromModern::Answer(answer) = server().take(request) else { panic!("{request:?}") };
        let answer = value(&answer);
        assert_eq!(answer["error"]["data"]["source"], "mcp-gangway", "R78: {answer}");
        (answer["error"]["code"].as_i64().unwrap(), answer["error"]["data"].clone())
    }

    fn listen(server: &LegacyServer, id: &str, filter: &str) -> Result<Subscription, Value> {
        let text = format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"subscriptions/listen","params":{{"notifications":{filter},"_meta":{{"{PROTOCOL_VERSION}":"2026-07-28","{CLIENT_CAPABILITIES}":{{}}}}}}}}"#
        );
        match server.take(&message(&text)) {
            FromModern::Listen(subscription) => Ok(subscription),
            FromModern::Answer(answer) => Err(value(&answer)),
            other => panic!("{other:?}"),
        }
    }

    fn completed(request: &Message, answer: &str) -> Message {
        match server().answer(request, message(answer)) {
            Answered::Final(message) => message,
            other @ Answered::InputRequired(_) => panic!("{other:?}"),
        }
    }

    // From the client.

    #[test]
    fn first_request_becomes_initialize() {
        let first = message(
            r#"{"id":"d","method":"server/discover","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28",
            "io.modelcontextprotocol/clientInfo":{ "version":"3","name":"id\u0065","x":1e400},
            "io.modelcontextprotocol/clientCapabilities":{"tasks":{"list":{}}, "roots":{"listChanged":true},"sampling":{"tools":{}},
            "elicitation":{},"experimental":{"n":9007199254740993},
            "extensions":{"io.modelcontextprotocol/tasks":{},"io.modelcontextprotocol/ui":{"mimeTypes":[]}}}}}}"#,
        );
        let initialize = initialize(&first);
        assert_eq!(initialize.kind(), Kind::Request);
        assert_eq!(initialize.era(), Era::Legacy);
        assert_eq!(
            initialize.with_id(&Id::own("b1")).text().replace("\n            ", ""),
            r#"{"jsonrpc":"2.0","id":"b1","method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{"roots":{},"sampling":{"tools":{}},"elicitation":{},"experimental":{"n":9007199254740993},"extensions":{"io.modelcontextprotocol/ui":{"mimeTypes":[]}}},"clientInfo":{ "version":"3","name":"id\u0065","x":1e400}}}"#
        );
    }

    #[test]
    fn initialize_has_defaults_for_missing_or_invalid_client_meta() {
        for meta in [
            "{}",
            r#""x""#,
            "[]",
            r#"{"io.modelcontextprotocol/clientInfo":{"name":"n"},"io.modelcontextprotocol/clientCapabilities":[1]}"#,
            r#"{"io.modelcontextprotocol/clientInfo":"n","io.modelcontextprotocol/clientCapabilities":null}"#,
        ] {
            let request = message(&format!(r#"{{"id":1,"method":"server/discover","params":{{"_meta":{meta}}}}}"#));
            let params = &value(&initialize(&request))["params"];
            assert_eq!(params["capabilities"], json!({}), "{meta}");
            assert_eq!(params["clientInfo"], json!({"name": "mcp-gangway", "version": env!("CARGO_PKG_VERSION")}));
        }
    }

    #[test]
    fn discover_is_answered_from_the_initialize_result() {
        let server = LegacyServer::new(&message(
            r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-11-25",
            "capabilities":{ "logging":{},"tasks":{"list":{}},"tools":{"listChanged" : true},"experimental":{"n":1e400}},
            "serverInfo":{"name":"s","version":"\ud800"},"instructions":"a\/b","_meta":{"x":1}}}"#,
        ))
        .unwrap();
        let discover = message(r#"{"id":1e2,"method":"server/discover"}"#);
        assert_eq!(
            server.discovered(&discover).text().replace("\n            ", ""),
            r#"{"jsonrpc":"2.0","id":1e2,"result":{"resultType":"complete","supportedVersions":["2026-07-28"],"ttlMs":0,"cacheScope":"private","capabilities":{ "logging":{},"tools":{"listChanged" : true},"experimental":{"n":1e400}},"instructions":"a\/b","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"s","version":"\ud800"},"x":1}}}"#
        );
        let asked = request("server/discover", "{}", "");
        let FromModern::Answer(answer) = server.take(&asked) else { panic!() };
        assert_eq!(answer.bytes(), server.discovered(&asked).bytes());
    }

    #[test]
    fn discover_result_is_built_from_a_minimal_initialize_result() {
        let server =
            LegacyServer::new(&message(r#"{"id":1,"result":{"protocolVersion":"2024-11-05","serverInfo":{}}}"#));
        let server = server.unwrap();
        let answer = value(&server.discovered(&request("server/discover", "{}", "")));
        assert_eq!(
            answer["result"],
            json!({"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {}, "ttlMs": 0, "cacheScope": "private"})
        );
        for nothing in [
            r#"{"id":1,"result":{"capabilities":{}}}"#,
            r#"{"id":1,"result":{"protocolVersion":1}}"#,
            r#"{"id":1,"result":[]}"#,
            r#"{"id":1,"error":{"code":-32601,"message":"no"}}"#,
        ] {
            assert!(LegacyServer::new(&message(nothing)).is_none(), "{nothing}");
        }
    }

    #[test]
    fn unsupported_protocol_version_is_refused() {
        for (version, requested) in [(r#""2027-01-01""#, "2027-01-01"), (r#""2025-11-25""#, "2025-11-25")] {
            let request = message(&format!(
                r#"{{"id":"\u0061","method":"tools/list","params":{{"_meta":{{"{PROTOCOL_VERSION}":{version},"{CLIENT_CAPABILITIES}":{{}}}}}}}}"#
            ));
            let (code, data) = fault(&request);
            assert_eq!(code, -32_022);
            assert_eq!((&data["supported"], &data["requested"]), (&json!(["2026-07-28"]), &json!(requested)));
            let answer = objection(&request).unwrap();
            assert!(answer.text().starts_with(r#"{"jsonrpc":"2.0","id":"\u0061","error""#), "{answer:?}");
        }
        assert!(objection(&request("tools/list", "{}", "")).is_none());
    }

    #[test]
    fn requests_without_valid_version_and_capabilities_are_refused() {
        let version = format!(r#""{PROTOCOL_VERSION}":"2026-07-28""#);
        let capabilities = format!(r#""{CLIENT_CAPABILITIES}":{{}}"#);
        for params in [
            "[]".to_owned(),
            "{}".to_owned(),
            r#"{"_meta":"x"}"#.to_owned(),
            format!(r#"{{"_meta":{{{capabilities}}}}}"#),
            format!(r#"{{"_meta":{{{version}}}}}"#),
            format!(r#"{{"_meta":{{"{PROTOCOL_VERSION}":2026,{capabilities}}}}}"#),
            format!(r#"{{"_meta":{{{version},"{CLIENT_CAPABILITIES}":[]}}}}"#),
            format!(r#"{{"_meta":{{{version},{capabilities},"{LOG_LEVEL}":"loud"}}}}"#),
            format!(r#"{{"_meta":{{{version},{capabilities},"{LOG_LEVEL}":7}}}}"#),
        ] {
            for method in ["server/discover", "subscriptions/listen", "tools/call"] {
                let request = message(&format!(r#"{{"id":1,"method":"{method}","params":{params}}}"#));
                assert_eq!(fault(&request).0, -32_602, "{params}");
            }
        }
        assert_eq!(fault(&message(r#"{"id":1,"method":"server/discover"}"#)).0, -32_602);
    }

    #[test]
    fn legacy_only_methods_are_refused() {
        for method in [
            "initialize",
            "ping",
            "logging/setLevel",
            "resources/subscribe",
            "resources/unsubscribe",
            "tasks/get",
            "tasks/list",
        ] {
            assert_eq!(fault(&request(method, "{}", "")).0, -32_601, "{method}");
        }
        assert_eq!(sent(&request("example/own", "{}", "")).method(), "example/own");
    }

    #[test]
    fn modern_params_are_removed_from_forwarded_requests() {
        let kept = message(
            r#"{ "jsonrpc" : "2.0", "params" : {"name":"a\/\ud800","_meta":{"traceparent":"00-1","io.modelcontextprotocol/protocolVersion":"2026-07-28","progressToken":9007199254740993,"io.modelcontextprotocol/logLevel":"info","\u0069o.modelcontextprotocol/clientCapabilities":{},"x":[ ]},
            "arguments":{"n":1e400,"n":1e400,"io.modelcontextprotocol/x":1, "requestState":1},"zz":1},"method":"tools/call","id":"" }"#,
        );
        assert_eq!(
            sent(&kept).text(),
            r#"{ "jsonrpc" : "2.0", "params" : {"name":"a\/\ud800","_meta":{"traceparent":"00-1","progressToken":9007199254740993,"x":[ ]},
            "arguments":{"n":1e400,"n":1e400,"io.modelcontextprotocol/x":1, "requestState":1},"zz":1},"method":"tools/call","id":"" }"#
        );
        assert_eq!(sent(&kept).era(), Era::Legacy);
        assert_eq!(
            sent(&request("tools/call", "{}", r#","name":"x""#)).text(),
            r#"{"jsonrpc":"2.0","id":11,"method":"tools/call","params":{"name":"x"}}"#,
            "an empty _meta is left out"
        );
        assert_eq!(
            sent(&request("tools/list", "{}", "")).text(),
            r#"{"jsonrpc":"2.0","id":11,"method":"tools/list"}"#,
            "and so are empty parameters"
        );
        assert_eq!(
            sent(&request("tools/call", "{}", r#","name":"x","inputResponses":[],"requestState":null"#)).text(),
            r#"{"jsonrpc":"2.0","id":11,"method":"tools/call","params":{"name":"x"}}"#,
            "responses to nothing"
        );
    }

    #[test]
    fn log_level_in_meta_becomes_a_set_level_request() {
        let with = |level: &str| {
            message(&format!(
                r#"{{"id":1,"method":"tools/list","params":{{"_meta":{{"{PROTOCOL_VERSION}":"2026-07-28","{LOG_LEVEL}":{level}}}}}}}"#
            ))
        };
        for level in LOG_LEVELS {
            assert_eq!(log_level(&with(&format!("\"{level}\""))).as_deref(), Some(level));
        }
        assert_eq!(log_level(&with(r#""d\u0065bug""#)).as_deref(), Some("debug"));
        for none in [r#""Debug""#, "null", "1", r#""""#] {
            assert_eq!(log_level(&with(none)), None, "{none}");
        }
        assert_eq!(
            set_level("debug").text(),
            r#"{"jsonrpc":"2.0","id":0,"method":"logging/setLevel","params":{"level":"debug"}}"#
        );
        assert_eq!(set_level("debug").kind(), Kind::Request);
    }

    #[test]
    fn listen_acknowledgement_repeats_the_requested_filter() {
        let filter = r#"{"resourceSubscriptions":["file:\/\/a", "b" ,"b"],"toolsListChanged":true,"promptsListChanged":true,"resourcesListChanged":true}"#;
        for id in ["1", "\"1\"", "0", "\"\"", "1e2", "9007199254740993", "\"\\u0061\""] {
            let subscription = listen(&server(), id, filter).unwrap();
            assert_eq!(
                subscription.acknowledged().text(),
                format!(
                    r#"{{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{{"_meta":{{"io.modelcontextprotocol/subscriptionId":{id}}},"notifications":{{"toolsListChanged":true,"promptsListChanged":true,"resourcesListChanged":true,"resourceSubscriptions":["file://a","b"]}}}}}}"#
                )
            );
            assert_eq!(subscription.acknowledged().kind(), Kind::Notification);
            assert_eq!(
                subscription.ended().text(),
                format!(
                    r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"complete","_meta":{{"io.modelcontextprotocol/subscriptionId":{id},"io.modelcontextprotocol/serverInfo":{{"name":"s","version":"1"}}}}}}}}"#
                )
            );
            assert_eq!(subscription.uris(), ["file://a", "b"]);
        }
        // A server's capabilities are a hint. Its responses to subscribe requests tell what it watches.
        let mut some = listen(&server_with("{}"), "1", filter).unwrap();
        some.remove_unwatched(&HashSet::from(["b".to_owned()]));
        let granted = &value(&some.acknowledged())["params"]["notifications"];
        assert_eq!(granted["resourceSubscriptions"], json!(["file://a"]));
        assert!(some.event(&message(r#"{"method":"notifications/tools/list_changed"}"#)).is_some());
        let nothing = listen(&server(), "1", r#"{"toolsListChanged":false}"#).unwrap();
        assert_eq!(value(&nothing.acknowledged())["params"]["notifications"], json!({}));
        assert!(nothing.event(&message(r#"{"method":"notifications/tools/list_changed"}"#)).is_none());
        assert_eq!(
            subscribe("a\"b").text(),
            r#"{"jsonrpc":"2.0","id":0,"method":"resources/subscribe","params":{"uri":"a\"b"}}"#
        );
        assert_eq!(unsubscribe("a").method(), "resources/unsubscribe");
    }

    #[test]
    fn invalid_or_oversized_listen_filters_are_refused() {
        let uris = |count: usize| {
            let uris: Vec<_> = (0..count).map(|number| format!("\"u:{number}\"")).collect();
            format!(r#"{{"resourceSubscriptions":[{}]}}"#, uris.join(","))
        };
        for filter in [
            "[]",
            "null",
            "1",
            r#"{"toolsListChanged":1}"#,
            r#"{"promptsListChanged":"true"}"#,
            r#"{"resourceSubscriptions":{}}"#,
            r#"{"resourceSubscriptions":"a"}"#,
            r#"{"resourceSubscriptions":[1]}"#,
            r#"{"resourceSubscriptions":["\ud800"]}"#,
            &uris(MAX_URIS + 1),
        ] {
            let answer = listen(&server(), "7", filter).unwrap_err();
            assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(7), &json!(-32_602)), "{answer}");
        }
        assert_eq!(listen(&server(), "7", &uris(MAX_URIS)).unwrap().uris().len(), MAX_URIS);
        let nulls = r#"{"toolsListChanged":null,"promptsListChanged":false,"resourceSubscriptions":null}"#;
        assert_eq!(value(&listen(&server(), "7", nulls).unwrap().acknowledged())["params"]["notifications"], json!({}));
    }

    #[test]
    fn notifications_get_the_id_of_each_matching_subscription() {
        let first = listen(&server(), "\"1\"", r#"{"toolsListChanged":true}"#).unwrap();
        let second = listen(&server(), "1", r#"{"resourceSubscriptions":["file:///a","x:/b/"]}"#).unwrap();
        let event = |subscription: &Subscription, text: &str| {
            subscription.event(&message(text)).map(|event| event.text().to_owned())
        };
        let mark = r#""io.modelcontextprotocol/subscriptionId""#;
        for (text, expected) in [
            (
                r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#,
                format!(
                    r#"{{"params":{{"_meta":{{{mark}:"1"}}}},"jsonrpc":"2.0","method":"notifications/tools/list_changed"}}"#
                ),
            ),
            (
                r#"{"method":"notifications/tools/list_changed","params":{ }}"#,
                format!(r#"{{"method":"notifications/tools/list_changed","params":{{"_meta":{{{mark}:"1"}} }}}}"#),
            ),
            (
                r#"{"method":"notifications/tools/list_changed","params":null}"#,
                format!(r#"{{"params":{{"_meta":{{{mark}:"1"}}}},"method":"notifications/tools/list_changed"}}"#),
            ),
            (
                r#"{"method":"notifications/tools/list_changed","params":{"n":1e400,"_meta":"x"}}"#,
                format!(
                    r#"{{"method":"notifications/tools/list_changed","params":{{"_meta":{{{mark}:"1"}},"n":1e400}}}}"#
                ),
            ),
        ] {
            assert_eq!(event(&first, text).unwrap(), expected);
            assert_eq!(event(&second, text), None);
        }
        let updated = |uri: &str| {
            format!(
                r#"{{"method":"notifications/resources/updated","params":{{"uri":"{uri}","title":"\ud800","_meta":{{"a":1}}}}}}"#
            )
        };
        assert_eq!(event(&first, &updated("file:///a")), None);
        assert_eq!(
            event(&second, &updated(r"file:\/\/\/a")).unwrap(),
            format!(
                r#"{{"method":"notifications/resources/updated","params":{{"uri":"file:\/\/\/a","title":"\ud800","_meta":{{{mark}:1,"a":1}}}}}}"#
            )
        );
        for (uri, is_wanted) in [
            ("file:///a/part", true),
            ("file:///a#part", true),
            ("file:///ab", false),
            ("x:/b/c", true),
            ("x:/b", false),
            ("\\ud800", false),
        ] {
            assert_eq!(event(&second, &updated(uri)).is_some(), is_wanted, "{uri}");
        }
        for other in ["notifications/prompts/list_changed", "notifications/message", "notifications/progress"] {
            assert_eq!(event(&first, &format!(r#"{{"method":"{other}","params":{{}}}}"#)), None);
        }
        assert_eq!(event(&second, r#"{"method":"notifications/resources/updated","params":[]}"#), None);
    }

    #[test]
    fn retry_request_yields_its_state_and_input_responses() {
        let retry = request(
            "tools/call",
            "{}",
            r#","requestState":"br-\u0035f","inputResponses":{"r0":{"action":"decline"},"r1":{ "n":1e400 },"r\u0030":{"action":"accept","content":{"a":"\ud800"}}}"#,
        );
        let FromModern::Retry { state, responses } = server().take(&retry) else { panic!() };
        assert_eq!(state, "br-5f");
        assert_eq!(
            responses,
            [
                ("r1".to_owned(), r#"{ "n":1e400 }"#.to_owned()),
                ("r0".to_owned(), r#"{"action":"accept","content":{"a":"\ud800"}}"#.to_owned())
            ]
        );
        let bare = request("prompts/get", "{}", r#","requestState":"x""#);
        assert!(matches!(server().take(&bare), FromModern::Retry { responses, .. } if responses.is_empty()));
        assert_eq!(
            forwarded(&retry).text(),
            r#"{"jsonrpc":"2.0","id":11,"method":"tools/call"}"#,
            "to make the call anew"
        );
    }

    #[test]
    fn invalid_retries_are_refused() {
        let many: Vec<_> = (0..=MAX_QUESTIONS).map(|number| format!("\"r{number}\":{{}}")).collect();
        for more in [
            r#","requestState":1"#,
            r#","requestState":{}"#,
            r#","requestState":"\ud800""#,
            r#","requestState":"x","inputResponses":[]"#,
            r#","requestState":"x","inputResponses":"r0""#,
            r#","requestState":"x","inputResponses":{"r0":null}"#,
            r#","requestState":"x","inputResponses":{"r0":[{}]}"#,
            &format!(r#","requestState":"x","inputResponses":{{{}}}"#, many.join(",")),
        ] {
            assert_eq!(fault(&request("tools/call", "{}", more)).0, -32_602, "{more}");
        }
        assert_eq!(fault(&request("tools/list", "{}", r#","requestState":"x""#)).0, -32_602, "never given to it");
    }

    // From the server.

    #[test]
    fn result_becomes_complete_with_the_clients_id() {
        let call = request("tools/call", "{}", r#","name":"x""#);
        let info = r#""_meta":{"io.modelcontextprotocol/serverInfo":{"name":"s","version":"1"}}"#;
        for (answer, expected) in [
            (
                r#"{"jsonrpc":"2.0","id":"b7","result":{"structuredContent":{"n":9007199254740993,"n":1e400},"content":[ ]}}"#,
                format!(
                    r#"{{"jsonrpc":"2.0","id":11,"result":{{"resultType":"complete",{info},"structuredContent":{{"n":9007199254740993,"n":1e400}},"content":[ ]}}}}"#
                ),
            ),
            (
                "{\n  \"result\": {\n    \"text\": \"\\ud800\\/\"\n  },\n  \"id\": \"b7\"\n}",
                format!(
                    "{{\n  \"result\": {{\"resultType\":\"complete\",{info},\n    \"text\": \"\\ud800\\/\"\n  }},\n  \"id\": 11\n}}"
                ),
            ),
            (
                r#"{"id":"b7","result":{"_meta":{"a":1}}}"#,
                r#"{"id":11,"result":{"resultType":"complete","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"s","version":"1"},"a":1}}}"#.to_owned(),
            ),
            (
                r#"{"id":"b7","result":{"resultType":"task","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"other"}}}}"#,
                r#"{"id":11,"result":{"resultType":"task","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"other"}}}}"#.to_owned(),
            ),
            (r#"{"id":"b7","result":{"_meta":"x"}}"#, r#"{"id":11,"result":{"resultType":"complete","_meta":"x"}}"#.to_owned()),
            (r#"{"id":"b7","result":null}"#, r#"{"id":11,"result":null}"#.to_owned()),
            (r#"{"id":"b7","result":[{}]}"#, r#"{"id":11,"result":[{}]}"#.to_owned()),
            (r#"{"result":7}"#, r#"{"id":11,"result":7}"#.to_owned()),
        ] {
            let completed = completed(&call, answer);
            assert_eq!(completed.text(), expected);
            assert_eq!(completed.id().unwrap().as_str(), "11");
        }
    }

    #[test]
    fn cacheable_results_get_zero_ttl_and_private_scope() {
        for method in CACHEABLE {
            let result = &value(&completed(&request(method, "{}", ""), r#"{"id":1,"result":{"x":1}}"#))["result"];
            assert_eq!((&result["ttlMs"], &result["cacheScope"]), (&json!(0), &json!("private")), "{method}");
        }
        for method in ["tools/call", "prompts/get", "completion/complete"] {
            let result = &value(&completed(&request(method, "{}", ""), r#"{"id":1,"result":{"x":1}}"#))["result"];
            assert!(result.get("ttlMs").is_none() && result.get("cacheScope").is_none(), "{method}");
        }
        let own = r#"{"id":1,"result":{"ttlMs":5,"resultType":"complete"}}"#;
        let result = &value(&completed(&request("tools/list", "{}", ""), own))["result"];
        assert_eq!((&result["ttlMs"], &result["cacheScope"]), (&json!(5), &json!("private")));
    }

    #[test]
    fn legacy_errors_are_forwarded_with_only_the_id_changed() {
        let read = request("resources/read", r#"{"elicitation":{"url":{}}}"#, "");
        for error in [
            r#"{"code":-32002,"message":"Resource not found","data":{"uri":"x"}}"#,
            r#"{"code":-32601,"message":"\ud800"}"#,
            r#"{"code":-32042.5,"message":""}"#,
            r#"{"code":-32042,"message":"no data"}"#,
            r#"{"code":-32042,"message":"","data":[]}"#,
            r#"{"code":-32042,"message":"","data":{"elicitations":[]}}"#,
            r#"{"code":-32042,"message":"","data":{"elicitations":{"mode":"url"}}}"#,
            r#"{"code":-32042,"message":"","data":{"elicitations":["url"]}}"#,
            r#"{"code":-32042,"message":"","data":{"elicitations":[{"mode":"url"},{"url":"x"}]}}"#,
            r#"{"code":-32042,"message":"","data":{"elicitations":[{"mode":"form"}]}}"#,
            "[]",
        ] {
            let answer = completed(&read, &format!(r#"{{"error":{error},"id":"b"}}"#));
            assert_eq!(answer.text(), format!(r#"{{"error":{error},"id":11}}"#));
        }
        let many = vec![r#"{"mode":"url"}"#; MAX_QUESTIONS + 1].join(",");
        let many = format!(r#"{{"id":"b","error":{{"code":-32042,"message":"","data":{{"elicitations":[{many}]}}}}}}"#);
        completed(&read, &many);
    }

    #[test]
    fn url_elicitation_required_error_becomes_input_required() {
        let params = r#"{"mode":"url","elicitationId":"e-\u0031","url":"https:\/\/x","message":"Sign in"}"#;
        let answer = message(&format!(
            r#"{{"id":"b","error":{{"code":-32042,"message":"first","data":{{"elicitations":[{params}, {params}]}}}}}}"#
        ));
        let call = request("tools/call", r#"{"elicitation":{"form":{},"url":{}}}"#, "");
        let Answered::InputRequired(questions) = server().answer(&call, answer.clone()) else { panic!() };
        let asked = input_required(&call, "s", &questions);
        assert_eq!(
            asked.text(),
            format!(
                r#"{{"jsonrpc":"2.0","id":11,"result":{{"resultType":"input_required","inputRequests":{{"r0":{{"method":"elicitation/create","params":{params}}},"r1":{{"method":"elicitation/create","params":{params}}}}},"requestState":"s"}}}}"#
            )
        );
        for (method, capabilities) in [
            ("tools/call", r#"{"elicitation":{}}"#),
            ("tools/call", "{}"),
            ("completion/complete", r#"{"elicitation":{"url":{}}}"#),
        ] {
            let answered = server().answer(&request(method, capabilities, ""), answer.clone());
            assert!(matches!(answered, Answered::Final(_)), "{method} {capabilities}");
        }

        let responses = |action: &str| vec![("r0".to_owned(), format!(r#"{{"action":"{action}"}}"#))];
        assert!(declined(&call, &responses("accept")).is_none() && declined(&call, &[]).is_none());
        for no in ["decline", "cancel"] {
            assert_eq!(value(&declined(&call, &responses(no)).unwrap())["error"]["code"], -32_603);
        }
    }

    #[test]
    fn ask() {
        // The example of the table: a call during which the server asks.
        let call = message(
            r#"{"jsonrpc":"2.0","id":11,"method":"tools/call","params":{"name":"ask","arguments":{},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{"elicitation":{"form":{}}}}}}"#,
        );
        assert_eq!(
            sent(&call).text(),
            r#"{"jsonrpc":"2.0","id":11,"method":"tools/call","params":{"name":"ask","arguments":{}}}"#
        );
        let question = message(
            r#"{"jsonrpc":"2.0","id":0,"method":"elicitation/create","params":{"message":"\ud83d\ude00","requestedSchema":{"type":"object","properties":{}}}}"#,
        );
        assert!(is_question(&call, &question));
        assert_eq!(
            input_required(&call, "br-5f", std::slice::from_ref(&question)).text(),
            r#"{"jsonrpc":"2.0","id":11,"result":{"resultType":"input_required","inputRequests":{"r0":{"method":"elicitation/create","params":{"message":"\ud83d\ude00","requestedSchema":{"type":"object","properties":{}}}}},"requestState":"br-5f"}}"#
        );
        let retry = message(
            r#"{"jsonrpc":"2.0","id":12,"method":"tools/call","params":{"name":"ask","arguments":{},"requestState":"br-5f","inputResponses":{"r0":{"action":"accept","content":{}}},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{"elicitation":{"form":{}}}}}}"#,
        );
        let FromModern::Retry { state, responses } = server().take(&retry) else { panic!() };
        assert_eq!((state.as_str(), responses[0].0.as_str()), ("br-5f", "r0"));
        assert_eq!(
            response(&question, &responses[0].1).text(),
            r#"{"jsonrpc":"2.0","id":0,"result":{"action":"accept","content":{}}}"#
        );
        assert_eq!(
            completed(&retry, r#"{"jsonrpc":"2.0","id":11,"result":{"content":[]}}"#).text(),
            r#"{"jsonrpc":"2.0","id":12,"result":{"resultType":"complete","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"s","version":"1"}},"content":[]}}"#
        );
    }

    #[test]
    fn server_questions_need_a_capability_declared_by_the_request() {
        let form = r#""elicitation/create","params":{"message":"m","requestedSchema":{}}"#;
        let named_form = r#""elicitation/create","params":{"mode":"form"}"#;
        let url = r#""elicitation/create","params":{"mode":"url","url":"x"}"#;
        let sampling = r#""sampling/createMessage","params":{"messages":[]}"#;
        let tools = r#""sampling/createMessage","params":{"messages":[],"tools":[]}"#;
        let roots = r#""roots/list""#;
        for (method, capabilities, question, expected) in [
            ("tools/call", r#"{"elicitation":{}}"#, form, true),
            ("prompts/get", r#"{"elicitation":{"form":{}}}"#, named_form, true),
            ("resources/read", r#"{"elicitation":{"url":{}}}"#, url, true),
            ("tools/call", r#"{"elicitation":{}}"#, url, false),
            ("tools/call", r#"{"elicitation":{"url":{}}}"#, form, false),
            ("tools/call", r#"{"elicitation":{"form":{},"url":{}}}"#, url, true),
            ("tools/call", r#"{"elicitation":{}}"#, r#""elicitation/create","params":{"mode":"mind"}"#, false),
            ("tools/call", r#"{"elicitation":{}}"#, r#""elicitation/create","params":{"mode":1}"#, false),
            ("tools/call", r#"{"elicitation":{}}"#, r#""elicitation/create","params":[]"#, false),
            ("tools/call", r#"{"elicitation":true}"#, form, false),
            ("tools/call", "{}", form, false),
            ("tools/call", r#"{"sampling":{}}"#, sampling, true),
            ("tools/call", r#"{"sampling":{}}"#, tools, false),
            ("tools/call", r#"{"sampling":{"tools":{}}}"#, tools, true),
            ("tools/call", r#"{"roots":{}}"#, roots, true),
            ("tools/call", r#"{"sampling":{}}"#, roots, false),
            ("tools/call", r#"{"roots":{}}"#, r#""tasks/get""#, false),
            ("completion/complete", r#"{"roots":{}}"#, roots, false),
            ("tools/list", r#"{"elicitation":{}}"#, form, false),
        ] {
            let question = message(&format!(r#"{{"id":1,"method":{question}}}"#));
            let request = request(method, capabilities, "");
            assert_eq!(is_question(&request, &question), expected, "{method} {capabilities} {question:?}");
        }
        let questions = [message(r#"{"id":1,"method":"roots/list"}"#)];
        assert_eq!(
            value(&input_required(&request("tools/call", "{}", ""), "\"", &questions))["result"],
            json!({"resultType": "input_required", "inputRequests": {"r0": {"method": "roots/list"}}, "requestState": "\""})
        );
    }

    #[test]
    fn replies_to_server_requests_repeat_the_request_id() {
        for id in ["0", "\"\"", "1e2", "\"\\u0061\"", "9007199254740993", "-0.0"] {
            let ping = message(&format!(r#"{{"id":{id},"method":"ping"}}"#));
            assert_eq!(pong(&ping).text(), format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#));
            let refused = refusal(&ping);
            assert!(refused.text().starts_with(&format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32601,"#)));
            assert_eq!(refused.kind(), Kind::Response);
        }
    }

    #[test]
    fn only_request_related_notifications_pass_on_a_request_stream() {
        let passes = |text: &str, level: Option<&str>| {
            let passed = notification(message(text), level);
            if let Some(passed) = &passed {
                assert_eq!(passed.text(), text);
            }
            passed.is_some()
        };
        assert!(passes(r#"{ "method":"notifications/progress","params":{"progressToken":1e400}}"#, None));
        assert!(passes(r#"{"method":"notifications/example"}"#, None));
        for method in [
            "tools/list_changed",
            "prompts/list_changed",
            "resources/list_changed",
            "resources/updated",
            "subscriptions/acknowledged",
            "elicitation/complete",
            "tasks/status",
            "cancelled",
        ] {
            assert!(
                !passes(&format!(r#"{{"method":"notifications/{method}","params":{{}}}}"#), Some("debug")),
                "{method}"
            );
        }
        let log =
            |level: &str| format!(r#"{{"method":"notifications/message","params":{{"level":{level},"data":1}}}}"#);
        assert!(!passes(&log("\"emergency\""), None), "it did not ask");
        assert!(passes(&log("\"warning\""), Some("warning")) && passes(&log("\"alert\""), Some("warning")));
        assert!(!passes(&log("\"notice\""), Some("warning")), "another request asked for it");
        assert!(passes(&log("\"loud\""), Some("error")) && passes(&log("3"), Some("error")));
    }

    #[test]
    fn progress_of_a_held_call_gets_the_token_of_the_retry() {
        let retry = |token: &str| {
            message(&format!(r#"{{"id":12,"method":"tools/call","params":{{"_meta":{{"progressToken":{token}}}}}}}"#))
        };
        let progress = message(
            r#"{"method":"notifications/progress","params":{ "progressToken" : 11,"progress":1e400,"message":"\ud800"}}"#,
        );
        for token in ["12", r#""\u0061""#, "0", r#""""#] {
            assert_eq!(
                adapt_notification(progress.clone(), &retry(token)).unwrap().text(),
                format!(
                    r#"{{"method":"notifications/progress","params":{{ "progressToken" : {token},"progress":1e400,"message":"\ud800"}}}}"#
                )
            );
        }
        assert!(adapt_notification(progress.clone(), &retry("null")).is_none());
        assert!(adapt_notification(progress, &request("tools/call", "{}", "")).is_none());
        assert!(
            adapt_notification(message(r#"{"method":"notifications/progress","params":[]}"#), &retry("1")).is_none()
        );
        let log = message(r#"{"method":"notifications/message","params":{"progressToken":1}}"#);
        assert_eq!(adapt_notification(log.clone(), &retry("2")).unwrap().bytes(), log.bytes());
    }

    // Arbitrary input.

    #[test]
    fn hostile_text_does_not_panic() {
        let texts = [
            r#"{"id":null,"method":"subscriptions/listen","params":[]}"#,
            r#"{"id":1,"method":"server/discover","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"\ud800"}}}"#,
            r#"{"id":1,"method":"tools/call","params":null}"#,
            r#"{"id":1,"method":"\ud800","params":{"_meta":[]}}"#,
            r#"{"id":1,"result":{"_meta":null,"resultType":null,"protocolVersion":"\ud800"}}"#,
            r#"{"id":1,"result":{},"error":{"code":-32042,"data":{"elicitations":[[]]}}}"#,
            r#"{"id":1,"id":2,"result":{"a":1},"result":{"a":2}}"#,
            r#"{"id":1,"error":null}"#,
            r#"{"method":"notifications/resources/updated","params":"uri"}"#,
        ];
        let server = server();
        let subscription = listen(&server, "1", r#"{"toolsListChanged":true,"resourceSubscriptions":[""]}"#).unwrap();
        for one in texts.map(message) {
            let _ = (initialize(&one), objection(&one), forwarded(&one), log_level(&one), LegacyServer::new(&one));
            let _ = (server.take(&one), server.discovered(&one), pong(&one), refusal(&one));
            let _ = (notification(one.clone(), Some("x")), subscription.event(&one), response(&one, "{"));
            for two in texts.map(message) {
                let _ =
                    (is_question(&one, &two), server.answer(&one, two.clone()), adapt_notification(one.clone(), &two));
                let _ = input_required(&one, "", &[two]);
            }
        }
    }

    fn members() -> impl Strategy<Value = serde_json::Map<String, Value>> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::from),
            any::<bool>().prop_map(Value::from),
            "[\\PC\"\\\\\n{},]{0,6}".prop_map(Value::from),
        ];
        let any = leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((name(), inner), 0..4).prop_map(|all| Value::Object(all.into_iter().collect())),
            ]
        });
        prop::collection::vec((name(), any), 0..6).prop_map(|all| all.into_iter().collect())
    }

    fn name() -> impl Strategy<Value = String> {
        prop_oneof![
            "[ab\"\\\\é]{0,2}",
            Just("_meta".to_owned()),
            Just("inputResponses".to_owned()),
            Just("resultType".to_owned()),
            Just("ttlMs".to_owned()),
            Just("io.modelcontextprotocol/x".to_owned()),
            Just(SERVER_INFO.to_owned()),
        ]
    }

    fn written(value: &Value, pretty: bool) -> String {
        if pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) }.unwrap()
    }

    proptest! {
        #[test]
        fn r3_forwarded_request_keeps_all_params_except_modern_ones(params in members(), meta in members(), pretty: bool) {
            let mut params = params;
            let mut asked = meta.clone();
            asked.insert(PROTOCOL_VERSION.into(), json!(MODERN_VERSION));
            asked.insert(CLIENT_CAPABILITIES.into(), json!({}));
            params.insert("_meta".into(), Value::Object(asked));
            let text = written(&json!({"id": 1, "method": "tools/call", "params": params.clone()}), pretty);

            let mut kept = meta;
            kept.retain(|name, _| !name.starts_with("io.modelcontextprotocol/"));
            params.remove("inputResponses");
            if kept.is_empty() { params.remove("_meta"); } else { params.insert("_meta".into(), Value::Object(kept)); }
            let mut expected = json!({"id": 1, "method": "tools/call"});
            if !params.is_empty() { expected["params"] = Value::Object(params); }
            prop_assert_eq!(value(&sent(&message(&text))), expected);
        }

        #[test]
        fn r3_completed_result_keeps_all_original_members(result in members(), pretty: bool, cacheable: bool) {
            let text = written(&json!({"id": "b", "result": result.clone()}), pretty);
            let request = request(if cacheable { "tools/list" } else { "tools/call" }, "{}", "");
            let mut expected = result;
            let put = |object: &mut serde_json::Map<String, Value>, name: &str, value: Value| {
                if object.get(name).is_none_or(Value::is_null) { object.insert(name.into(), value); }
            };
            put(&mut expected, "resultType", json!("complete"));
            if cacheable && expected["resultType"] == "complete" {
                put(&mut expected, "ttlMs", json!(0));
                put(&mut expected, "cacheScope", json!("private"));
            }
            put(&mut expected, "_meta", json!({}));
            if let Some(Value::Object(meta)) = expected.get_mut("_meta") {
                meta.entry(SERVER_INFO).or_insert(json!({"name": "s", "version": "1"}));
            }
            prop_assert_eq!(value(&completed(&request, &text)), json!({"id": 11, "result": expected}));
        }
    }
}
