//! A scriptable authorization server. It registers clients, asks no user, issues the tokens `token-1`, `token-2` …, and
//! records its requests. A test changes its answers through its [`State`].

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use mcp_gangway_core::{
    Config,
    auth::{OAuth, Prompt},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
};
use url::{Url, form_urlencoded};

use crate::support::{Server, within};

/// The parameters of a form or query.
pub(crate) type Form = HashMap<String, String>;

/// The authorization server of one MCP server.
pub(crate) struct Issuer {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
    serving: JoinHandle<()>,
}

/// Its answers, and the requests that it received.
pub(crate) struct State {
    /// Added to the default metadata; overrides equal members.
    pub(crate) metadata: Value,
    /// The same for the metadata of the MCP server.
    pub(crate) resource_metadata: Value,
    /// Lifetime in seconds of a token that was not refreshed.
    pub(crate) life: u64,
    /// True if refresh tokens are issued and accepted.
    pub(crate) refreshes: bool,
    /// The scope that is granted, instead of the requested one.
    pub(crate) grants: Option<String>,
    /// How often a device must poll before its user is done.
    pub(crate) device_waits: usize,
    /// The error code that it gets until then.
    pub(crate) device_word: &'static str,
    /// Added to the answer to a request for a device code; overrides equal members.
    pub(crate) device: Value,
    /// Added to the answer to a registration.
    pub(crate) registered: Value,
    /// Added to a token response; overrides equal members.
    pub(crate) token: Value,
    /// The only host that clients may register as redirect target; `None` allows any.
    pub(crate) redirect_host: Option<&'static str>,
    /// By path: a status and an answer that replace the default one.
    pub(crate) answers: HashMap<&'static str, (u16, Value)>,
    /// Documents at other paths.
    pub(crate) documents: HashMap<String, Value>,
    /// Paths that answer with an error that repeats the whole request.
    pub(crate) echoes: Vec<&'static str>,
    /// The URL to which the token endpoint redirects requests.
    pub(crate) redirects: Option<String>,
    /// All requests, with their bodies.
    pub(crate) requests: Vec<String>,
    pub(crate) registrations: Vec<Value>,
    /// The forms that the token endpoint received, with the `Authorization` header as `authorization`.
    pub(crate) tokens: Vec<Form>,
    /// The forms that the revocation endpoint received, in the same form.
    pub(crate) revocations: Vec<Form>,
    codes: HashMap<String, Form>,
    refresh_tokens: HashSet<String>,
    count: usize,
}

impl Issuer {
    /// Starts an authorization server for this MCP server.
    pub(crate) async fn of(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State {
            metadata: json!({}),
            resource_metadata: json!({}),
            life: 3600,
            refreshes: true,
            grants: None,
            device_waits: 0,
            device_word: "authorization_pending",
            device: json!({}),
            registered: json!({}),
            token: json!({}),
            redirect_host: None,
            answers: HashMap::new(),
            documents: HashMap::new(),
            echoes: Vec::new(),
            redirects: None,
            requests: Vec::new(),
            registrations: Vec::new(),
            tokens: Vec::new(),
            revocations: Vec::new(),
            codes: HashMap::new(),
            refresh_tokens: HashSet::new(),
            count: 0,
        }));
        let (shared, resource) = (Arc::clone(&state), format!("{}/mcp", server.origin()));
        let serving = tokio::spawn(async move {
            loop {
                let Ok((socket, _)) = listener.accept().await else { return };
                let (state, resource) = (Arc::clone(&shared), resource.clone());
                tokio::spawn(async move { serve(socket, address, &state, &resource).await });
            }
        });
        Self { address, state, serving }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the MCP server's challenge for a 401, with `more` appended as further parameters.
    pub(crate) fn challenge(&self, more: &str) -> String {
        format!(r#"Bearer resource_metadata="{}/resource"{more}"#, self.origin())
    }

    /// Signs the user in and follows the redirect to the bridge. Returns the page that the browser shows.
    pub(crate) async fn approve(&self, url: &str) -> String {
        let request = query(url);
        let code = self.state().code(&request);
        come_back(&request, &[("code", &code), ("iss", &self.origin())]).await
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Returns the parameters of a URL.
pub(crate) fn query(url: &str) -> Form {
    Url::parse(url).unwrap().query_pairs().into_owned().collect()
}

/// Visits the redirect URI of the authorization request with these parameters. Returns the whole response.
pub(crate) async fn come_back(request: &Form, parameters: &[(&str, &str)]) -> String {
    let mut url = Url::parse(&request["redirect_uri"]).unwrap();
    url.query_pairs_mut().extend_pairs(parameters).append_pair("state", &request["state"]);
    visit(&url).await
}

/// Sends a GET to a URL on this machine.
pub(crate) async fn visit(url: &Url) -> String {
    within("a page", async {
        let mut socket = TcpStream::connect((url.host_str().unwrap(), url.port().unwrap())).await.unwrap();
        let target = &url[url::Position::BeforePath..];
        socket.write_all(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        let mut page = String::new();
        socket.read_to_string(&mut page).await.unwrap();
        page
    })
    .await
}

/// Returns settings for signing in at `server`, and the prompts that the user sees.
pub(crate) fn signing_in(server: &Server, folder: &Path) -> (Config, mpsc::UnboundedReceiver<Prompt>) {
    let (show, prompts) = mpsc::unbounded_channel();
    let mut oauth = OAuth::new(move |prompt| {
        let _ = show.send(prompt.clone());
    });
    oauth.folder = Some(folder.to_owned());
    let mut config = server.config();
    config.timeouts.hold = Duration::from_secs(20);
    config.oauth = Some(oauth);
    (config, prompts)
}

async fn serve(mut socket: TcpStream, address: SocketAddr, state: &Mutex<State>, resource: &str) {
    let mut request = Vec::new();
    let (head, body) = loop {
        if socket.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = header(head, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        if body.len() >= length {
            break (head.to_owned(), body.to_owned());
        }
    };
    let target = head.split(' ').nth(1).unwrap_or_default();
    let (status, answer, location) = {
        let mut state = state.lock().unwrap();
        let whole = format!("{head}\r\n\r\n{body}");
        state.requests.push(whole.clone());
        let location = state.redirects.clone().filter(|_| target == "/token");
        if location.is_some() {
            (307, json!({}), location)
        } else if state.echoes.contains(&target) {
            (400, json!({"error": format!("so it is: {body}"), "error_description": whole, whole: "seen"}), None)
        } else {
            let (status, answer) = answer(target, &head, &body, address, &mut state, resource);
            (status, answer, None)
        }
    };
    let answer = answer.to_string();
    let location = location.map(|location| format!("Location: {location}\r\n")).unwrap_or_default();
    let response = format!(
        "HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{location}Connection: close\r\n\r\n{answer}",
        answer.len()
    );
    let _ = socket.write_all(response.as_bytes()).await;
}

fn answer(
    target: &str,
    head: &str,
    body: &str,
    address: SocketAddr,
    state: &mut State,
    resource: &str,
) -> (u16, Value) {
    let origin = format!("http://{address}");
    if let Some(answer) = state.answers.get(target) {
        return answer.clone();
    }
    match target {
        "/resource" => {
            let said = json!({"resource": resource, "authorization_servers": [origin], "scopes_supported": ["read"]});
            (200, merged(said, &state.resource_metadata))
        }
        "/.well-known/oauth-authorization-server" => {
            let said = json!({
                "issuer": origin,
                "authorization_endpoint": format!("{origin}/authorize"),
                "token_endpoint": format!("{origin}/token"),
                "registration_endpoint": format!("{origin}/register"),
                "device_authorization_endpoint": format!("{origin}/device"),
                "response_types_supported": ["code"],
                "code_challenge_methods_supported": ["S256"],
                "authorization_response_iss_parameter_supported": true,
            });
            (200, merged(said, &state.metadata))
        }
        "/register" => {
            let registration: Value = serde_json::from_str(body).unwrap();
            state.registrations.push(registration.clone());
            let redirect = registration["redirect_uris"][0].as_str().and_then(|uri| Url::parse(uri).ok());
            let host = redirect.as_ref().and_then(Url::host_str);
            if state.redirect_host.is_some_and(|only| host.is_some_and(|host| host != only)) {
                let why = json!({"error": "invalid_redirect_uri", "error_description": "not this host"});
                return (400, why);
            }
            let id = format!("client-{}", state.registrations.len());
            let said = json!({"client_id": id, "redirect_uris": registration["redirect_uris"]});
            (201, merged(said, &state.registered))
        }
        "/device" => {
            let uri = format!("{origin}/type");
            let said = json!({"device_code": "d", "user_code": "ABCD", "verification_uri": uri, "expires_in": 60, "interval": 0});
            (200, merged(said, &state.device))
        }
        "/revoke" => {
            state.revocations.push(form(head, body));
            (200, json!({}))
        }
        "/token" => {
            let form = form(head, body);
            state.tokens.push(form.clone());
            state.token(&form)
        }
        other => state.documents.get(other).map_or((404, json!({})), |document| (200, document.clone())),
    }
}

impl State {
    /// True if a request contains this text.
    pub(crate) fn has_got(&self, text: &str) -> bool {
        self.requests.iter().any(|request| request.contains(text))
    }

    /// Issues a code for this authorization request.
    fn code(&mut self, request: &Form) -> String {
        self.count += 1;
        let code = format!("code-{}", self.count);
        self.codes.insert(code.clone(), request.clone());
        code
    }

    fn token(&mut self, form: &Form) -> (u16, Value) {
        let refusal = |error: &str| (400, json!({"error": error, "error_description": "so it is"}));
        let mut scope = form.get("scope").cloned();
        match form["grant_type"].as_str() {
            "authorization_code" => {
                let Some(request) = self.codes.remove(&form["code"]) else { return refusal("invalid_grant") };
                let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(form["code_verifier"].as_bytes()));
                if request["code_challenge"] != challenge || request["code_challenge_method"] != "S256" {
                    return refusal("invalid_grant");
                }
                scope = request.get("scope").cloned();
            }
            "refresh_token" if self.refreshes && self.refresh_tokens.remove(&form["refresh_token"]) => {}
            "refresh_token" => return refusal("invalid_grant"),
            "urn:ietf:params:oauth:grant-type:device_code" if self.device_waits > 0 => {
                self.device_waits -= 1;
                return refusal(self.device_word);
            }
            "urn:ietf:params:oauth:grant-type:device_code" | "client_credentials" => {}
            _ => return refusal("unsupported_grant_type"),
        }
        let life = if form["grant_type"] == "refresh_token" { 3600 } else { self.life };
        self.count += 1;
        let count = self.count;
        let mut answer = json!({"access_token": format!("token-{count}"), "token_type": "Bearer", "expires_in": life});
        if let Some(scope) = self.grants.clone().or(scope) {
            answer["scope"] = scope.into();
        }
        if self.refreshes && form["grant_type"] != "client_credentials" {
            self.refresh_tokens.insert(format!("refresh-{count}"));
            answer["refresh_token"] = format!("refresh-{count}").into();
        }
        answer.as_object_mut().unwrap().extend(self.token.as_object().unwrap().clone());
        (200, answer)
    }
}

/// Parses the form, and adds the `Authorization` header as one of its members.
fn form(head: &str, body: &str) -> Form {
    let mut form: Form = form_urlencoded::parse(body.as_bytes()).into_owned().collect();
    form.extend(header(head, "authorization").map(|value| ("authorization".to_owned(), value.to_owned())));
    form
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let line = head.lines().find(|line| line.split(':').next().is_some_and(|own| own.eq_ignore_ascii_case(name)))?;
    Some(line.split_once(':')?.1.trim())
}

/// Merges the members of another object into this one; null removes a member.
fn merged(mut object: Value, other: &Value) -> Value {
    let members = object.as_object_mut().unwrap();
    for (name, value) in other.as_object().unwrap() {
        match value {
            Value::Null => drop(members.remove(name)),
            value => drop(members.insert(name.clone(), value.clone())),
        }
    }
    object
}
