//! Text from peers, wherever it is shown: it does not control a terminal, does not forge a line, and does not contain
//! the user's secrets.

use serde_json::{Value, json};

use crate::support::{Bridge, EVENTS, INITIALIZE, JSON, LIMIT, Request, command, reply, request, scripted};

const MODERN: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"t","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}"#;

/// Returns the characters that are never shown unescaped, each next to a letter.
fn hostile() -> String {
    let all = ('\0'..='\u{1f}')
        .chain('\u{7f}'..='\u{9f}')
        .chain(['\u{ad}', '\u{61c}', '\u{180e}', '\u{feff}', '\u{fe0f}'])
        .chain('\u{200b}'..='\u{200f}')
        .chain('\u{2028}'..='\u{202e}')
        .chain('\u{2060}'..='\u{206f}')
        .chain('\u{e0000}'..='\u{e007f}');
    // The end would be a separate line in a log.
    all.flat_map(|c| [c, 'x']).collect::<String>()
        + "\n2026-01-01T00:00:00.000000Z ERROR forged: line\r\nmcp-gangway: forged"
}

/// Asserts that no line contains any of them, and that each line was started by the command.
fn check(what: &str, lines: &[String]) {
    let hostile: Vec<_> = hostile().chars().filter(|c| !(' '..='~').contains(c)).collect();
    for line in lines {
        let found = line.chars().find(|c| hostile.contains(c));
        assert!(found.is_none(), "{what}: U+{:04X} in {line:?}", u32::from(found.unwrap_or_default()));
        let begins = line.starts_with("mcp-gangway: ") || line.starts_with('{') || line.starts_with("20");
        assert!(
            begins && !line.starts_with("2026-01-01T00:00:00") && !line.starts_with("mcp-gangway: forged"),
            "{what}: {line:?}"
        );
        if line.starts_with('{') {
            serde_json::from_str::<Value>(line).expect("JSON");
        }
    }
}

/// Starts a server that sends hostile text wherever it can.
fn hostile_server() -> String {
    scripted(|request| {
        let text = hostile();
        let quoted = Value::from(text.as_str()).to_string();
        let event = |message: String| format!("data: {message}\n\n");
        let id = &request.body["id"];
        let method = request.body["method"].as_str().unwrap_or_default();
        match method {
            "initialize" => {
                let result = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": text}});
                let answer = json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string();
                let nonsense = [
                    // Answers to unknown requests, a duplicate answer, and events that are not messages.
                    event(format!(r#"{{"jsonrpc":"2.0","id":{quoted},"result":{{}}}}"#)),
                    event(answer.clone()),
                    event(answer),
                    event(format!(r#"{{"jsonrpc":"2.0","id":[{quoted}],"result":{{}}}}"#)),
                    event(quoted.clone()),
                ];
                reply("200 OK", &format!("{EVENTS}Mcp-Session-Id: a\u{e9}b\r\n"), nonsense.concat())
            }
            "redirect" => reply("307 See", "Location: http://127.0.0.1:1/%1b%5b2J\u{9b}\r\n", ""),
            "html" => reply("200 OK", "Content-Type: text/html\r\n", &text),
            "tools/list" => {
                let schema = json!({"type": "object", "properties": {"a": {"type": "string", "x-mcp-header": text}}});
                let result = json!({"resultType": "complete", "tools": [{"name": text, "inputSchema": schema}]});
                reply("200 OK", JSON, json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string())
            }
            "modern/request" => {
                let own = format!(r#"{{"jsonrpc":"2.0","id":{quoted},"method":{quoted}}}"#);
                let answer = json!({"jsonrpc": "2.0", "id": id, "result": {"resultType": "complete"}}).to_string();
                reply("200 OK", EVENTS, event(own) + &event(answer))
            }
            "modern/error" => {
                let error = json!({"jsonrpc": "2.0", "id": id, "error": {"code": -1, "message": text}});
                reply("400 Bad", JSON, error.to_string())
            }
            _ => reply(&format!("500 {}", "\u{9b}2J\u{202e}"), "Content-Type: text/plain\r\n", &text),
        }
    })
}

#[test]
fn hostile_peer_text_is_escaped_in_the_log_and_in_errors() {
    let origin = hostile_server();
    let quoted = Value::from(hostile()).to_string();
    let modern =
        |method: &str| format!(r#"{{"jsonrpc":"2.0","id":"{method}","method":"{method}","params":{{{MODERN}}}}}"#);
    for form in ["text", "json"] {
        let mut bridge = Bridge::start([&format!("{origin}/mcp"), "--log-format", form, "--log-level", "trace"]);
        bridge.ask(INITIALIZE);
        let mut own = Vec::new();
        for line in [
            r#"{"jsonrpc":"2.0","id":1,"method":"redirect"}"#.to_owned(),
            r#"{"jsonrpc":"2.0","id":2,"method":"html"}"#.to_owned(),
            format!(r#"{{"jsonrpc":"2.0","id":3,"method":{quoted}}}"#),
            modern("tools/list"),
            modern("modern/request"),
            modern("modern/error"),
            // From the client: a message that fails, and lines that are not messages.
            format!(r#"{{"jsonrpc":"2.0","id":4,"method":[{quoted}]}}"#),
            format!(r#"{{"jsonrpc":"2.0","id":{{"a":{quoted}}},"method":"x"}}"#),
            format!("no JSON {}", hostile().replace(['\n', '\r'], " ")),
        ] {
            bridge.send(&line);
            let answer = bridge.answer();
            if answer["error"]["data"]["source"] == "mcp-gangway" {
                own.push(answer["error"].to_string());
            }
        }
        bridge.send(&format!(r#"{{"jsonrpc":"2.0","method":{quoted}}}"#));
        let mut log = bridge.log_until("the server did not take a message");
        log.extend(bridge.finish().stderr);
        assert!(own.len() > 3 && log.len() > 20, "{own:#?} {log:#?}");
        check("an error of ours", &own);
        check("the log", &log);
        for part in ["nobody waits for", "second answer", "no message", "request failed", "not shown", "sent a request"]
        {
            assert!(log.iter().any(|line| line.contains(part)), "{part}: {log:#?}");
        }
    }
}

#[test]
fn hostile_arguments_and_variables_are_escaped_on_stderr() {
    let text: String = hostile().chars().filter(|c| *c != '\0').collect();
    for args in [
        &["http://localhost/mcp", &format!("--{text}")][..],
        &["http://localhost/mcp", "--log-level", "trace", "--log-file", &format!("/{text}")],
        &[&format!("http://h/{text}"), "--header-file", &text],
        &[&text],
    ] {
        let ended = Bridge::start(args).end(LIMIT);
        assert!(!ended.stderr.is_empty() && !ended.status.success(), "{ended:?}");
        check("a mistake", &ended.stderr);
    }
    for (name, value) in [
        ("CONCURRENCY", &*text),
        ("MCP_TRANSPORT", &text),
        ("MCP_HEADER_FILE", &text),
        ("MCP_HEADERS", &text),
        ("TLS_CERT", &text),
        ("MCP_AUTH_COMMAND", &text),
        ("MCP_SCOPE", &text),
    ] {
        let mut bridge = command(["http://localhost:1/mcp", "--log-level", "trace"]);
        let mut bridge = Bridge::spawn(bridge.env(name, value));
        bridge.close_stdin();
        check(name, &bridge.end(LIMIT).stderr);
    }
}

/// Part of every test secret, one in each place that takes a secret. Each secret has characters that pages escape.
const CANARY: &str = "kanarie";

/// Returns a reply that shows the server's request. The method's name selects its kind.
fn echo(request: &Request) -> Vec<u8> {
    let got = format!("{} {}\n{}", request.method, request.target, request.head());
    let html = got.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&#34;").replace('/', "&#x2F;");
    let percent = |upper: bool| {
        let write = |byte: u8| if upper { format!("%{byte:02X}") } else { format!("%{byte:02x}") };
        got.bytes().map(write).collect::<Vec<_>>().concat()
    };
    let one_line = request.head().replace('\n', "; ");
    let id = &request.body["id"];
    let cookie = format!("Set-Cookie: lb={CANARY}-cookie+1; Path=/\r\n");
    match request.body["method"].as_str().unwrap_or_default() {
        "initialize" => {
            let result = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {}});
            let headers = format!("{JSON}{cookie}Mcp-Session-Id: {CANARY}-session/1\r\n");
            reply("200 OK", &headers, json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string())
        }
        "ping" if !id.is_null() => {
            reply("200 OK", JSON, json!({"jsonrpc": "2.0", "id": id, "result": {"got": got}}).to_string())
        }
        "body" => reply("200 OK", "Content-Type: text/plain\r\n", got),
        "body/json" => reply("200 OK", JSON, json!({"status": "unauthorized", "got": got}).to_string()),
        "events" => reply(
            "200 OK",
            EVENTS,
            format!("data: {one_line}\n\nid: {one_line}\nevent: {one_line}\ndata: [{one_line}\n\n"),
        ),
        "redirect" => reply("307 See", &format!("Location: http://127.0.0.1:1/{}\r\n", percent(true)), got),
        "redirect/ftp" => reply("308 See", &format!("Location: ftp://h/{one_line}\r\n"), got),
        status => {
            let (status, form) = status.split_once(' ').unwrap_or(("405", ""));
            let challenge = format!("{status} {one_line}");
            let headers = format!(
                "WWW-Authenticate: Bearer realm=\"{one_line}\", error=\"{one_line}\"\r\nContent-Type: text/{form}\r\n"
            );
            let body = match form {
                "html" => html,
                "percent" => percent(false),
                "json" => json!({"error": {"message": got}, "headers": one_line}).to_string(),
                "late" => format!("{}{got}", "x".repeat(500)),
                _ => got,
            };
            reply(&challenge, &headers, body)
        }
    }
}

#[test]
fn secrets_echoed_by_the_server_are_redacted() {
    let origin = scripted(echo);
    let folder = tempfile::tempdir().unwrap();
    let [file, log, key] = ["headers", "log", "key"].map(|name| folder.path().join(name).to_str().unwrap().to_owned());
    std::fs::write(&file, format!("X-File: {CANARY}<file>\nCookie: own={CANARY}&cookie; b=\"{CANARY}2\"")).unwrap();
    std::fs::write(&key, format!("-----BEGIN PRIVATE KEY-----\n{CANARY}key\n-----END PRIVATE KEY-----\n")).unwrap();
    let url = format!("{origin}/mcp?key={CANARY}%2Fquery%20x&other={CANARY}")
        .replace("//", &format!("//{CANARY}us%2Fer:{CANARY}%22word@"));
    // "kanarie-name:kanarie-word"
    let basic = "Basic a2FuYXJpZS1uYW1lOmthbmFyaWUtd29yZA==";
    let with_cookie_of_server = ["--header-file", "/dev/null"].map(str::to_owned);
    for (variant, more) in [("file", ["--header-file", &file].map(str::to_owned)), ("server", with_cookie_of_server)] {
        for to_file in [false, true] {
            let _ = std::fs::remove_file(&log);
            let mut command =
                command([&*url, "--log-level", "trace", "--header", &format!("X-Key: {CANARY}\"key\\n%41")]);
            // One of the redirects leads to a closed port.
            command
                .args(&more)
                .env("MCP_HOLD", "0")
                .env("MCP_HEADERS", format!("X-Variable: Token {CANARY}-variable\nX-Basic: {basic}"));
            match variant {
                "file" => command.args(["--auth", &format!("Bearer {CANARY}.tok_en/~+==")]),
                _ => command.args(["--auth-command", &format!("echo Bearer {CANARY}.command")]),
            };
            if to_file {
                command.args(["--log-file", &log]);
            }
            let mut bridge = Bridge::spawn(&mut command);
            bridge.ask(INITIALIZE);
            let mut errors = Vec::new();
            let forms = ["plain", "html", "json", "percent", "late"];
            let statuses = ["400", "401", "403", "404", "405", "500", "501", "505"];
            let pages = statuses.iter().flat_map(|status| forms.iter().map(move |form| format!("{status} {form}")));
            let methods = ["body", "body/json", "events", "redirect", "redirect/ftp"].map(str::to_owned);
            for method in methods.into_iter().chain(pages) {
                let answer = bridge.ask(&request(1, &method));
                assert_eq!(answer["error"]["data"]["source"], "mcp-gangway", "{answer}");
                errors.push(answer.to_string());
                bridge.send(&json!({"jsonrpc": "2.0", "method": method}).to_string());
            }
            // The server's answer is passed on unchanged.
            let answer = bridge.ask(&request(2, "ping")).to_string();
            assert!(answer.contains(CANARY), "{answer}");
            let mut said = bridge.finish().stderr;
            if to_file {
                assert!(said.is_empty(), "{said:#?}");
                said = std::fs::read_to_string(&log).unwrap().lines().map(str::to_owned).collect();
            }
            assert!(
                said.len() > 50 && said.iter().chain(&errors).filter(|text| text.contains("[secret]")).count() > 30
            );
            let encoded = CANARY.bytes().map(|byte| format!("%{byte:02x}")).collect::<Vec<_>>().concat();
            for line in errors.iter().chain(&said) {
                for secret in [CANARY, &encoded, &encoded.to_uppercase(), "a2FuYXJp", "%6Bana"] {
                    assert!(!line.contains(secret), "{variant}: {line}");
                }
            }
        }
    }
}

#[test]
fn proxy_credentials_echoed_by_the_proxy_are_redacted() {
    let proxy = scripted(|request| {
        reply("502 Bad Gateway", "", format!("cannot forward {}\n{}", request.target, request.head()))
    });
    let proxy = proxy.replace("//", &format!("//{CANARY}%2Fname:{CANARY}+word@"));
    for variable in [false, true] {
        let mut command = command(["http://server.example/mcp", "--log-level", "trace", "--max-time", "2"]);
        if variable {
            command.env("HTTP_PROXY", &proxy)
        } else {
            command.args(["--proxy", &proxy])
        };
        let mut bridge = Bridge::spawn(&mut command);
        let error = bridge.ask(&request(1, "tools/call")).to_string();
        assert!(error.contains("Proxy-Authorization") || error.contains("proxy-authorization: [secret]"), "{error}");
        let said = bridge.finish().stderr.join("\n");
        // The name and the password, encoded as sent.
        for secret in [CANARY, "a2FuYXJp"] {
            assert!(!error.contains(secret) && !said.contains(secret), "{error} {said}");
        }
    }
}

#[cfg(feature = "oauth")]
mod signing_in {
    use super::*;

    /// An MCP server and its authorization server, which gives hostile names to everything that it names.
    fn hostile_authority(request: &Request) -> Vec<u8> {
        let origin = format!("http://{}", request.header("host").unwrap_or_default());
        let text = hostile();
        let body = match request.target.as_str() {
            "/.well-known/oauth-protected-resource/mcp" => {
                json!({"resource": format!("{origin}/mcp"), "authorization_servers": [origin], "scopes_supported": [text]})
            }
            "/.well-known/oauth-authorization-server" => json!({
                "issuer": origin,
                "authorization_endpoint": format!("{origin}/authorize"),
                "token_endpoint": format!("{origin}/token"),
                "registration_endpoint": format!("{origin}/register"),
                "device_authorization_endpoint": format!("{origin}/device"),
                "code_challenge_methods_supported": ["S256"],
            }),
            "/register" => json!({"client_id": text, "redirect_uris": []}),
            "/device" => json!({
                "device_code": "d",
                "user_code": text,
                "verification_uri": format!("{origin}/\u{202e}\u{1b}[2J\u{9b}"),
                "verification_uri_complete": format!("{origin}/?\u{202e}\u{1b}[2J\u{9b}"),
                "expires_in": 600,
                "interval": 1,
            }),
            "/token" if request.body.as_str().is_some_and(|form| form.contains("client_credentials")) => {
                json!({"access_token": "token", "token_type": "Bearer", "scope": text})
            }
            "/token" => return reply("400 Bad", JSON, json!({"error": "authorization_pending"}).to_string()),
            _ => {
                return reply(
                    "401 No",
                    "WWW-Authenticate: Bearer error=\"\u{9b}2J\", error_description=\"\u{202e}\"\r\n",
                    &text,
                );
            }
        };
        reply("200 OK", JSON, body.to_string())
    }

    fn spawn(origin: &str, folder: &std::path::Path, args: &[&str]) -> Bridge {
        let mut command =
            command([args, &[&format!("{origin}/mcp"), "--state-folder", folder.to_str().unwrap()]].concat());
        Bridge::spawn(command.envs([("MCP_NO_BROWSER", "1"), ("MCP_NO_KEYCHAIN", "1"), ("MCP_CLIENT_SECRET", "")]))
    }

    #[test]
    fn hostile_device_code_is_escaped_in_errors_and_the_prompt() {
        let (origin, folder) = (scripted(hostile_authority), tempfile::tempdir().unwrap());
        let mut bridge = spawn(&origin, folder.path(), &["--device", "--login-wait", "0.5", "--log-level", "trace"]);
        // The bridge answers the handshake instead of the server.
        assert_eq!(bridge.ask(INITIALIZE)["result"]["serverInfo"]["name"], "mcp-gangway");
        let error = bridge.ask(&request(1, "tools/call"))["error"].to_string();
        assert!(error.contains("type in the code"), "{error}");
        check("the error", &[error]);
        let log = bridge.finish().stderr;
        assert!(log.iter().any(|line| line.contains("on any device and type in")), "{log:#?}");
        assert!(log.iter().any(|line| line.contains("or open")), "{log:#?}");
        check("the prompt", &log);
    }

    #[test]
    fn hostile_text_from_a_sign_in_is_escaped_in_log_and_status() {
        let (origin, folder) = (scripted(hostile_authority), tempfile::tempdir().unwrap());
        let mut login = command([
            "login",
            &format!("{origin}/mcp"),
            "--state-folder",
            folder.path().to_str().unwrap(),
            "--client-credentials",
            "--client-id",
            &format!("client{}", hostile().replace('\0', "")),
            "--log-level",
            "trace",
        ]);
        let ended = Bridge::spawn(login.envs([("MCP_NO_KEYCHAIN", "1"), ("MCP_CLIENT_SECRET", "s")])).end(LIMIT);
        assert!(ended.status.success(), "{ended:?}");
        check("the log", &ended.stderr);
        let status = spawn(&origin, folder.path(), &["status"]).end(LIMIT).stdout;
        assert_eq!(status.len(), 7, "{status:#?}");
        for line in &status {
            check("status", &[format!("mcp-gangway: {line}")]);
        }
    }
}
