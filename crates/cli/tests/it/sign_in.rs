//! Sign-in: what the user sees and types, and what processes share.

use std::{
    collections::HashMap,
    io::{BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
    thread,
};

use serde_json::json;
use url::Url;

use crate::support::{Bridge, INITIALIZE, command, read_request};

/// A server that requires a token, and is its own authorization server.
struct Guarded {
    address: SocketAddr,
    /// The forms of the token requests.
    forms: Arc<Mutex<Vec<String>>>,
}

impl Guarded {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let guarded = Self { address: listener.local_addr().unwrap(), forms: Arc::default() };
        let (address, forms) = (guarded.address, Arc::clone(&guarded.forms));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let forms = Arc::clone(&forms);
                thread::spawn(move || serve(stream.unwrap(), address, &forms));
            }
        });
        guarded
    }

    fn url(&self) -> String {
        format!("http://{}/mcp", self.address)
    }

    /// Returns the command for this server, with a state folder of the test's own.
    fn command(&self, args: &[&str], folder: &Path) -> Command {
        let mut command = command([args, &[&self.url(), "--state-folder", folder.to_str().unwrap()]].concat());
        // The keychain of the user who runs the tests stays untouched.
        command.env("MCP_NO_BROWSER", "1").env("MCP_NO_KEYCHAIN", "1");
        // A slow machine does not make a sign-in late.
        command.env("MCP_ATTACH_WAIT", "60");
        command
    }
}

fn serve(mut stream: TcpStream, address: SocketAddr, forms: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Some(request) = read_request(&mut reader) {
        let origin = format!("http://{address}");
        let (status, answer) = match (request.method.as_str(), request.target.as_str()) {
            (_, "/mcp") if !request.header("authorization").is_some_and(|token| token.starts_with("Bearer token-")) => {
                (401, json!({}))
            }
            ("POST", "/mcp") if request.body["id"].is_null() => (202, json!({})),
            ("POST", "/mcp") => {
                let result =
                    json!({"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "real"}});
                (200, json!({"jsonrpc": "2.0", "id": request.body["id"], "result": result}))
            }
            (_, "/mcp") => (405, json!({})),
            (_, "/.well-known/oauth-protected-resource/mcp") => {
                (200, json!({"resource": format!("{origin}/mcp"), "authorization_servers": [origin]}))
            }
            (_, "/.well-known/oauth-authorization-server") => (
                200,
                json!({
                    "issuer": origin,
                    "authorization_endpoint": format!("{origin}/authorize"),
                    "token_endpoint": format!("{origin}/token"),
                    "registration_endpoint": format!("{origin}/register"),
                    "code_challenge_methods_supported": ["S256"],
                }),
            ),
            (_, "/register") => (201, json!({"client_id": "c", "redirect_uris": []})),
            (_, "/token") => {
                let mut forms = forms.lock().unwrap();
                forms.push(request.body.as_str().unwrap_or_default().to_owned());
                let token = format!("token-{}", forms.len());
                (200, json!({"access_token": token, "token_type": "Bearer", "expires_in": 3600, "refresh_token": "r"}))
            }
            _ => (404, json!({})),
        };
        let answer = answer.to_string();
        let reply = format!(
            "HTTP/1.1 {status} Whatever\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{answer}",
            answer.len()
        );
        if stream.write_all(reply.as_bytes()).is_err() {
            return;
        }
    }
}

/// Returns the URL that the command asks the user to open.
fn asked(bridge: &Bridge) -> String {
    let line = bridge.log_line("asks you to sign in: ");
    line.split_once("sign in: ").unwrap().1.to_owned()
}

/// Signs in as the user, and returns the page that follows.
fn approve(url: &str) -> String {
    let query: HashMap<_, _> = Url::parse(url).unwrap().query_pairs().into_owned().collect();
    let mut back = Url::parse(&query["redirect_uri"]).unwrap();
    back.query_pairs_mut().append_pair("code", "x").append_pair("state", &query["state"]);
    let mut browser = TcpStream::connect((back.host_str().unwrap(), back.port().unwrap())).unwrap();
    let target = &back[url::Position::BeforePath..];
    browser.write_all(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
    let mut page = String::new();
    browser.read_to_string(&mut page).unwrap();
    page
}

#[test]
fn login_status_and_logout_commands_work() {
    let (server, folder) = (Guarded::start(), tempfile::tempdir().unwrap());
    let say = |name: &str| {
        let ended = Bridge::spawn(&mut server.command(&[name], folder.path())).finish();
        assert!(ended.status.success(), "{ended:?}");
        ended.stdout.join("\n")
    };
    assert!(say("status").starts_with("not signed in"));
    let login = Bridge::spawn(&mut server.command(&["login", "--log-level", "off"], folder.path()));
    assert!(approve(&asked(&login)).contains("You are signed in"));
    assert!(login.finish().stdout.join("\n").starts_with("signed in at"));
    // A signed-in user is not prompted again.
    assert!(say("login").starts_with("signed in at"));
    let status = say("status");
    for part in
        [&*format!("resource: {}", server.url()), "client: c", "expires in 59 min", "renewable: yes", "kept in: /"]
    {
        assert!(status.contains(part), "{part}: {status}");
    }
    assert!(!status.contains("token-1"), "{status}");

    let mut bridge = Bridge::spawn(&mut server.command(&[], folder.path()));
    assert_eq!(bridge.ask(INITIALIZE)["result"]["serverInfo"]["name"], "real");
    assert!(bridge.finish().stderr.is_empty());
    assert!(say("logout").starts_with("signed out"));
    assert!(say("logout").starts_with("not signed in"));
    assert_eq!(server.forms.lock().unwrap().len(), 1);
}

#[test]
fn no_oauth_option_passes_401_without_a_sign_in() {
    let (server, folder) = (Guarded::start(), tempfile::tempdir().unwrap());
    let mut bridge = Bridge::spawn(&mut server.command(&["--no-oauth"], folder.path()));
    assert_eq!(bridge.ask(INITIALIZE)["error"]["data"]["httpStatus"], 401);
    assert!(!bridge.finish().stderr.iter().any(|line| line.contains("sign in:")));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn two_processes_share_one_sign_in() {
    let (server, folder) = (Guarded::start(), tempfile::tempdir().unwrap());
    let mut one = Bridge::spawn(&mut server.command(&[], folder.path()));
    one.send(INITIALIZE);
    let url = asked(&one);
    let mut two = Bridge::spawn(&mut server.command(&["--log-level", "info"], folder.path()));
    two.send(INITIALIZE);
    two.log_line("another mcp-gangway is signing in");
    approve(&url);
    for bridge in [&one, &two] {
        assert_eq!(bridge.answer()["result"]["serverInfo"]["name"], "real");
    }
    assert!(!two.finish().stderr.iter().any(|line| line.contains("sign in:")));
    assert_eq!(server.forms.lock().unwrap().len(), 1);
    one.finish();
}

#[cfg(unix)]
#[test]
fn killed_process_leaves_no_sign_in_lock() {
    let (server, folder) = (Guarded::start(), tempfile::tempdir().unwrap());
    let mut one = Bridge::spawn(&mut server.command(&[], folder.path()));
    one.send(INITIALIZE);
    asked(&one);
    let mut two = Bridge::spawn(&mut server.command(&["--log-level", "info"], folder.path()));
    two.send(INITIALIZE);
    two.log_line("another mcp-gangway is signing in");
    one.signal(rustix::process::Signal::KILL);
    approve(&asked(&two));
    assert_eq!(two.answer()["result"]["serverInfo"]["name"], "real");
    two.finish();
}

/// There are more connections than descriptors, and they stay open.
#[cfg(target_os = "linux")]
#[test]
fn foreign_connections_at_the_callback_port_do_not_end_the_sign_in() {
    use std::process::Stdio;

    let (server, folder) = (Guarded::start(), tempfile::tempdir().unwrap());
    let plain = server.command(&[], folder.path());
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 48; exec \"$@\"", "sh"]).arg(plain.get_program()).args(plain.get_args());
    command.env_clear().envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut bridge = Bridge::spawn(&mut command);
    bridge.send(INITIALIZE);
    let url = asked(&bridge);
    let query: HashMap<_, _> = Url::parse(&url).unwrap().query_pairs().into_owned().collect();
    let back = Url::parse(&query["redirect_uri"]).unwrap();
    let at = (back.host_str().unwrap().to_owned(), back.port().unwrap());
    let _strangers: Vec<_> = (0..200).map(|_| TcpStream::connect((at.0.as_str(), at.1)).unwrap()).collect();
    assert!(approve(&url).contains("You are signed in"));
    assert_eq!(bridge.answer()["result"]["serverInfo"]["name"], "real");
    bridge.finish();
}

#[cfg(target_os = "linux")]
#[test]
fn browser_command_gets_the_url_as_one_argument() {
    use std::os::unix::fs::PermissionsExt;

    let (server, folder) = (Guarded::start(), tempfile::tempdir().unwrap());
    let (script, opened) = (folder.path().join("xdg-open"), folder.path().join("opened"));
    std::fs::write(
        &script,
        "#!/bin/sh\nprintf '%s %s' \"$#\" \"$1\" > \"$OPENED.part\"; mv \"$OPENED.part\" \"$OPENED\"\n",
    )
    .unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).unwrap();
    let mut command = server.command(&["--authorize-param", "x=$(id);`id`'\"& y"], folder.path());
    let search = format!("{}:/usr/bin:/bin", folder.path().display());
    command.env_remove("MCP_NO_BROWSER").envs([("PATH", &*search), ("DISPLAY", ":0")]).env("OPENED", &opened);
    let mut bridge = Bridge::spawn(&mut command);
    bridge.send(INITIALIZE);
    let url = asked(&bridge);
    crate::support::until("the browser", || opened.exists());
    assert_eq!(std::fs::read_to_string(&opened).unwrap(), format!("1 {url}"));
    approve(&url);
    assert_eq!(bridge.answer()["result"]["serverInfo"]["name"], "real");
    bridge.finish();
}
