//! `mcp-gangway doctor`: each broken set-up is reported at its stage, with what to do, and by the exit status.

use std::{net::TcpListener, process::Output};

use mcp_gangway_testing::{Authority, Server as TlsServer};
use rcgen::{CertificateParams, date_time_ymd};
use serde_json::Value;

use crate::support::{EVENTS, JSON, Server, command, reply, scripted};

fn examined(args: &[&str]) -> Output {
    command([&["doctor"], args].concat()).output().unwrap()
}

/// Expects that this stage is the first to fail, and that the advice has this part.
fn fails(args: &[&str], stage: &str, status: i32, part: &str) {
    let Output { stdout, stderr, status: exit } = examined(args);
    let text = String::from_utf8(stdout).unwrap();
    assert_eq!(exit.code(), Some(status), "{args:?}: {text}{}", String::from_utf8_lossy(&stderr));
    let bad: Vec<_> = text.lines().filter(|line| line.starts_with('✗')).collect();
    let is_named = |line: &&str| line.split_whitespace().nth(1) == Some(stage) && line.contains(part);
    assert!(!bad.is_empty() && bad.iter().all(is_named), "{args:?}, {stage}, {part}: {text}");
    assert_eq!(text.lines().last(), bad.last().copied(), "later stages are not examined: {text}");
}

#[test]
fn a_server_that_works_passes_every_stage() {
    let server = Server::start();
    let output = examined(&[&server.url("/mcp")]);
    let text = String::from_utf8(output.stdout).unwrap();
    let stages: Vec<_> =
        text.lines().map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")).collect();
    let expected =
        ["settings", "proxy", "name", "connect", "http", "handshake", "ping"].map(|stage| format!("✓ {stage}"));
    assert_eq!(stages, expected, "{text}");
    assert!(output.status.success() && output.stderr.is_empty() && !text.contains('\u{1b}'), "{text}");

    let output = examined(&["--json", &server.url("/mcp")]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["failed"], &report["stages"][2]["stage"]), (&Value::Null, &"name".into()), "{report}");
    assert!(report["stages"][2]["ms"].is_number() && report["url"] == server.url("/mcp"), "{report}");
}

#[test]
fn lists_are_counted_and_no_tool_is_called() {
    let origin = scripted(|request| {
        let result = match request.body["method"].as_str().unwrap_or_default() {
            "initialize" => {
                r#"{"protocolVersion":"2025-06-18","capabilities":{"tools":{},"prompts":{}},"serverInfo":{"name":"\u001b[2Jx","version":"1"}}"#
            }
            "tools/list" => r#"{"tools":[{"name":"a"},{"name":"b"}],"nextCursor":"c"}"#,
            "prompts/list" => r#"{"prompts":[]}"#,
            "ping" => "{}",
            _ => return reply("202 Accepted", "", ""),
        };
        reply("200 OK", JSON, format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, request.body["id"]))
    });
    let text = String::from_utf8(examined(&[&format!("{origin}/mcp")]).stdout).unwrap();
    for part in ["x 1, protocol 2025-06-18, offers prompts, tools", "2 tools on the first page", "0 prompts"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains('\u{1b}'), "{text}");
}

#[test]
fn each_broken_set_up_fails_at_its_stage() {
    let refusing = |status: &'static str, headers: &'static str, body: &'static str| {
        format!("{}/mcp", scripted(move |_| reply(status, headers, body)))
    };
    let closed = format!("http://{}/mcp", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let json_error = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"no such tenant"}}"#;
    for (url, stage, status, part) in [
        ("ftp://example.com".to_owned(), "", 2, ""),
        ("http://no-such-host.invalid/mcp".to_owned(), "name", 11, "check the URL"),
        (closed, "connect", 12, "check that the server runs"),
        (refusing("404 Not Found", "", "Not Found"), "http", 14, "404"),
        (refusing("405 Method Not Allowed", "", ""), "http", 14, "405"),
        (refusing("500 Oops", "", "a bug"), "http", 14, "a bug"),
        (refusing("502 Bad Gateway", "", ""), "http", 14, "502"),
        (refusing("503 Unavailable", "", ""), "http", 14, "503"),
        (refusing("302 Found", "Location: /login\r\n", ""), "http", 14, "redirects in circles"),
        (refusing("401 Unauthorized", "", "give a key"), "sign-in", 15, "--auth"),
        (refusing("401 Unauthorized", "WWW-Authenticate: Bearer\r\n", ""), "sign-in", 15, "401"),
        (refusing("403 Forbidden", "", "wrong tenant"), "sign-in", 15, "wrong tenant"),
        (refusing("200 OK", "Content-Type: text/html\r\n", "<html>"), "handshake", 16, ""),
        (refusing("200 OK", JSON, "{}"), "handshake", 16, ""),
        (refusing("200 OK", EVENTS, ""), "handshake", 16, ""),
        (refusing("400 Bad Request", JSON, json_error), "handshake", 16, "no such tenant"),
    ] {
        if stage.is_empty() {
            assert_eq!(examined(&[&url]).status.code(), Some(status), "{url}");
        } else {
            fails(&[&url], stage, status, part);
        }
    }
}

#[test]
fn a_proxy_that_wants_credentials_or_is_not_there_is_named() {
    let proxy = scripted(|_| reply("407 Proxy Authentication Required", "Proxy-Authenticate: Basic realm=x\r\n", ""));
    for url in ["http://mcp.invalid/mcp", "https://mcp.invalid/mcp"] {
        fails(&[url, "--proxy", &proxy], "proxy", 10, &proxy);
        let closed = format!("http://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
        fails(&[url, "--proxy", &closed], "connect", 12, "the proxy");
    }
}

#[tokio::test]
async fn certificates_that_are_not_accepted_are_explained() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, authority.pem()).unwrap();
    let trusting = ["--ca-cert", file.to_str().unwrap()];
    let mut old = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    old.not_after = date_time_ymd(2020, 1, 1);
    for (config, args, part) in [
        (authority.server_config_of(&old, None), &trusting[..], "expired"),
        (authority.server_config("other.example"), &trusting[..], "other.example"),
        (authority.server_config("localhost"), &[][..], "--ca-cert"),
    ] {
        let server = TlsServer::start_tls(config).await;
        let url = format!("{}/mcp", server.origin());
        let args: Vec<_> = [&[url.as_str()], args].concat().into_iter().map(str::to_owned).collect();
        let examined = move || fails(&args.iter().map(String::as_str).collect::<Vec<_>>(), "tls", 13, part);
        tokio::task::spawn_blocking(examined).await.unwrap();
    }
}
