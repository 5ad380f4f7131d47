//! `mcp-gangway bundle`: what it refuses, what it says, and that equal commands write equal bytes. The packages' tests
//! open the bundles and run what is in them.

use std::{fs, path::Path, process::Stdio};

use crate::support::command;

const URL: &str = "https://example.com/mcp";

struct Outcome {
    status: Option<i32>,
    said: String,
}

/// Runs `bundle` in a folder, with a secret in each variable that the bridge would use.
fn bundle(folder: &Path, args: &[&str]) -> Outcome {
    let mut command = command([&["bundle"], args].concat());
    let secrets = ["MCP_AUTH", "MCP_BEARER_TOKEN", "MCP_HEADERS", "MCP_CLIENT_SECRET", "MCP_SERVER_URL"];
    command.envs(secrets.map(|name| (name, "hunter2"))).current_dir(folder).stdin(Stdio::null());
    let output = command.output().unwrap();
    assert!(output.stdout.is_empty(), "{output:?}");
    Outcome { status: output.status.code(), said: String::from_utf8(output.stderr).unwrap() }
}

#[test]
fn secrets_and_settings_of_one_machine_are_refused_with_the_alternative() {
    let folder = tempfile::tempdir().unwrap();
    for (args, part) in [
        (&[URL, "--auth", "Bearer hunter2"][..], "--ask-token"),
        (&[URL, "--auth=hunter2"], "--ask-token"),
        (&[URL, "--auth-command", "hunter2"], "--ask-token"),
        (&[URL, "--header-file", "hunter2"], "--ask-header"),
        (&[URL, "--header", "X-Key: hunter2"], "--ask-header X-Key; if it is no secret, add --public"),
        (&[URL, "--header", "hunter2"], "--ask-header NAME"),
        (&[URL, "--header", "Authorization: hunter2", "--public"], "--ask-header Authorization"),
        (&[URL, "--header", "cookie: hunter2", "--public"], "--ask-header cookie"),
        (&["https://user:hunter2@example.com/mcp", "--public"], "--ask-header Authorization"),
        (&["https://hunter2@example.com/mcp"], "--ask-header Authorization"),
        (&["https://example.com/mcp?key=hunter2"], "--ask-token"),
        (&["unix:/hunter2:/mcp"], "one machine"),
        (&[URL, "--ca-cert", "hunter2"], "one machine"),
        (&[URL, "--proxy", "http://hunter2"], "one machine"),
        (&[URL, "--url", "http://hunter2"], "one machine"),
        (&["hunter2"], "https://example.com/mcp"),
        (&[URL, "hunter2"], "one argument too many"),
        (&[URL, "--unknown=hunter2"], "no option --unknown (see mcp-gangway bundle --help)"),
        (&[URL, "--name", "a b"], "--display-name"),
        (&[URL, "--ask-header", "a b"], "--ask-header: "),
        (&[URL, "--ask-header", "Mcp-Session-Id"], "--ask-header: "),
        (&[URL, "--transport", "stdio"], "sse-first"),
        (&[URL, "--timeout", "soon"], "--timeout: "),
        (&[URL, "--icon", "missing.png"], "--icon: "),
        (&[URL, "--binaries", "missing"], "--binaries: "),
        (&[URL, "--binaries", "."], "PLATFORM/mcp-gangway"),
    ] {
        let Outcome { status, said } = bundle(folder.path(), args);
        assert_eq!(status, Some(2), "{args:?}: {said}");
        assert!(said.contains(part) && said.lines().count() == 1, "{args:?}: {said}");
        assert!(!said.contains("hunter2"), "{args:?}: {said}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "something was written");
}

#[test]
fn bundle_holds_no_secret_and_equal_commands_write_equal_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let programs = folder.path().join("bin");
    for platform in ["linux-x64", "linux-arm64-musl", "darwin-x64", "darwin-arm64", "win32-x64", "win32-arm64", "other"]
    {
        let name = if platform.starts_with("win32") { "mcp-gangway.exe" } else { "mcp-gangway" };
        fs::create_dir_all(programs.join(platform)).unwrap();
        let program = [b"\xcf\xfa\xed\xfe", "\u{7}\0\0\u{1}\u{3}\0\0\0".as_bytes(), platform.as_bytes()].concat();
        fs::write(programs.join(platform).join(name), program).unwrap();
    }
    let args = [URL, "--ask-token", "--ask-header", "X-Key", "--binaries", "bin", "--deny-tool", "delete_*"];
    let Outcome { status, said } = bundle(folder.path(), &args);
    assert_eq!(status, Some(0), "{said}");
    let [first, second] = said.lines().collect::<Vec<_>>().try_into().unwrap();
    let expected =
        "mcp-gangway: wrote example-com.mcpb, 0.1 MB, for darwin (x64 and arm64), linux (x64 and arm64), win32 (x64)";
    assert_eq!(first, expected);
    assert!(second.contains("Claude Desktop") && second.ends_with(": Token, X-Key"), "{second}");

    let again = bundle(folder.path(), &[&args[..], &["--output", "again.mcpb"]].concat());
    assert_eq!(again.status, Some(0), "{}", again.said);
    let bytes = fs::read(folder.path().join("example-com.mcpb")).unwrap();
    assert!(bytes == fs::read(folder.path().join("again.mcpb")).unwrap(), "the bytes differ");
    assert!(!bytes.windows(7).any(|part| part == b"hunter2"));
}
