//! Help, version, and user mistakes: one line on stderr, exit status 2, nothing on stdout.

use std::process::{Command, Stdio};

use crate::support::{Bridge, Ended, command};

fn run(command: &mut Command) -> Ended {
    Bridge::spawn(command.stdin(Stdio::null())).finish()
}

/// Runs an invalid command line and returns its error line.
fn complaint(command: &mut Command) -> String {
    let ended = run(command);
    assert_eq!(ended.status.code(), Some(2), "{command:?}: {ended:?}");
    assert!(ended.stdout.is_empty(), "{ended:?}");
    let [line] = ended.stderr.try_into().expect("one line");
    assert!(line.starts_with("mcp-gangway: "), "{line}");
    assert!(!line.contains("hunter2"), "{line}");
    line
}

#[cfg(feature = "oauth")]
#[test]
#[expect(clippy::too_many_lines, reason = "the help is one page")]
fn help() {
    let [long, short] = ["--help", "-h"].map(|flag| {
        let ended = run(&mut command([flag]));
        assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
        ended.stdout.join("\n")
    });
    assert_eq!(long, short);
    insta::assert_snapshot!(long, @r#"
    Connects an MCP client that starts local processes to an MCP server over Streamable HTTP. JSON-RPC
    lines from stdin go to the server; its messages are written to stdout as they arrive

    Usage: mcp-gangway [OPTIONS] URL
           mcp-gangway login|logout|status [OPTIONS] URL
           mcp-gangway doctor [--json] [OPTIONS] URL
           mcp-gangway bundle [OPTIONS] [URL]
           mcp-gangway completions SHELL
           mcp-gangway man

    Arguments:
      [URL]  Address of the MCP server, like https://example.com/mcp or unix:/run/mcp.sock:/mcp
             [$MCP_SERVER_URL]

    Options:
      -h, --help     Print help
      -V, --version  Print version

    Server:
          --url <URL>               Address of the MCP server, as an option
          --url-file <PATH>         File with this address, or only its port; read again while the
                                    server cannot be reached [$MCP_URL_FILE]
          --url-command <COMMAND>   Command that prints the same; run without a shell, at start and
                                    while the server cannot be reached [$MCP_URL_COMMAND]
          --transport <NAME>        auto, http (Streamable HTTP), sse (HTTP+SSE) or sse-first
                                    [$MCP_TRANSPORT] [default: auto]
          --era <NAME>              Protocol for a client that supports both eras of MCP: auto (as the
                                    server), modern (2026-07-28) or legacy [$MCP_ERA] [default: auto]
          --auth <VALUE>            Value of the Authorization header, sent unchanged, like 'Bearer
                                    TOKEN' [$MCP_AUTH]
          --auth-command <COMMAND>  Command that prints this value or a bare token; run without a shell,
                                    at start and on a 401 [$MCP_AUTH_COMMAND]
          --header <NAME: VALUE>    Header for every request; ${VAR} in the value is replaced from the
                                    environment; repeatable
          --header-file <PATH>      File with one such header per line; # starts a comment line; read
                                    again on a 401 [$MCP_HEADER_FILE]
          --allow-tool <PATTERN>    Tools that the client can see and call, as names with * and ?;
                                    repeatable [$MCP_ALLOW_TOOLS, comma-separated] [default: all]
          --deny-tool <PATTERN>     Tools that the client cannot see or call, even if allowed
                                    [$MCP_DENY_TOOLS]
          --concurrency <COUNT>     Maximum number of requests in flight to the server [$CONCURRENCY]
                                    [default: 64]

    Client:
          --merge-pages        Merge the pages of lists, for clients that ask only for the first
                               [$MCP_MERGE_PAGES]
          --escape-separators  Write U+2028 and U+2029 as escapes, for clients that take them for line
                               breaks [$MCP_ESCAPE_SEPARATORS]

    Sizes:
          --max-message-size <SIZE>  Largest message from the server, like 512M or 16G
                                     [$MCP_MAX_MESSAGE_SIZE] [default: 4G]
          --max-request-size <SIZE>  Largest message from the client, held in memory
                                     [$MCP_MAX_REQUEST_SIZE] [default: 64M]

    Times:
          --timeout <SECONDS>          Longest time without data from the server during a request
                                       [$MCP_TOOL_CALL_TIMEOUT] [default: 300]
          --max-time <SECONDS>         Longest total time of a request, even while data arrives
                                       [default: no limit]
          --connect-timeout <SECONDS>  Longest time to connect: DNS, TCP and TLS [default: 15]
          --attach-wait <SECONDS>      Longest time until the client's handshake is answered, even if
                                       the server is not there yet; 0 turns that off [$MCP_ATTACH_WAIT]
                                       [default: 3]
          --hold <SECONDS>             Longest time that a request waits for a server that cannot be
                                       reached [$MCP_HOLD] [default: 20]
          --heartbeat[=<SECONDS>]      Send progress of the bridge's own for a call after this silence
                                       of the server, if the client asks for progress; 15 without a
                                       value [$MCP_HEARTBEAT] [default: off]
          --keep-alive <SECONDS>       Ping the server after this time without requests
                                       [$MCP_KEEP_ALIVE] [default: off]
          --drain-timeout <SECONDS>    Longest time for open requests after stdin ends [default: 5]

    Network:
          --ca-cert <PATH>       PEM file with certificates to trust in addition to the system's
                                 [$TLS_CERT]
          --client-cert <PATH>   PEM file with the client certificate, and optionally its key
                                 [$TLS_CLIENT_CERT]
          --client-key <PATH>    PEM file with the private key of the client certificate
                                 [$TLS_CLIENT_KEY]
          --insecure             Accept any server certificate; only for tests [$INSECURE]
          --proxy <URL>          Proxy (http, https, socks5, socks5h) for all hosts except those in
                                 NO_PROXY [default: the system's]
          --unix-socket <PATH>   Unix socket of the server, instead of the URL's host and port
                                 [$MCP_UNIX_SOCKET]
          --http2                Use only HTTP/2, even without TLS [$HTTP2] [default: the version that
                                 the server offers]
          --pool-size <COUNT>    Maximum number of idle connections to keep [$HTTP_POOL_SIZE] [default:
                                 no limit]
          --pool-idle <SECONDS>  How long to keep idle connections [$HTTP_POOL_IDLE_TIMEOUT] [default:
                                 50]

    State:
          --no-cache             Do not keep the server's lists for a start without the server
                                 [$MCP_NO_CACHE]
          --state-folder <PATH>  Folder for these lists and for sign-ins [$MCP_STATE_FOLDER] [default:
                                 in the user's folder for program state]

    Log:
          --log-level <LEVEL>    off, error, warn, info, debug or trace [$MCP_WRAPPER_LOG_LEVEL,
                                 $LOG_LEVEL] [default: warn]
          --log-file <PATH>      File to append the log to, instead of stderr [$MCP_LOG_FILE]
          --log-format <FORMAT>  text or json (one object per line) [default: text]

    Signing in:
          --no-oauth                      Turn sign-in off, even if the server requires it
                                          [$MCP_NO_OAUTH]
          --no-browser                    Print the URL to sign in at, but do not open a browser
                                          [$MCP_NO_BROWSER]
          --device                        Sign in on another device with a code [$MCP_DEVICE_LOGIN]
          --client-credentials            Use the client's own credentials, without a user
                                          [$MCP_CLIENT_CREDENTIALS]
          --client-id <ID>                ID of a client registered at the authorization server
                                          [$MCP_CLIENT_ID]; its secret or key is in $MCP_CLIENT_SECRET
                                          or $MCP_CLIENT_PRIVATE_KEY (PEM; RSA, P-256 or P-384)
          --issuer <URL>                  Issuer of the only authorization server to use [$MCP_ISSUER]
                                          [default: the one that the server names; with --client-id the
                                          first that it named]
          --client-metadata-url <URL>     https URL of a client ID metadata document, used if the
                                          authorization server supports it [$MCP_CLIENT_METADATA_URL]
          --scope <SCOPES>                Scopes to request, separated by spaces [$MCP_SCOPE] [default:
                                          those that the server asks for]
          --resource <URI>                Resource that the token is for; none omits it [$MCP_RESOURCE]
                                          [default: the one that the server names]
          --authorize-param <NAME=VALUE>  Extra parameter for the authorization request; repeatable
          --callback-port <PORT>          Port of the callback URL on this machine [$MCP_CALLBACK_PORT]
                                          [default: any]
          --callback-host <HOST>          Host of the callback URL: localhost or a loopback address, as
                                          registered for the client [$MCP_CALLBACK_HOST] [default:
                                          127.0.0.1; localhost if the authorization server accepts only
                                          that]
          --callback-path <PATH>          Path of the callback URL [$MCP_CALLBACK_PATH] [default:
                                          /callback]
          --login-wait <SECONDS>          How long a request waits for the user to sign in
                                          [$MCP_LOGIN_WAIT] [default: 20]
          --no-keychain                   Store sign-ins in files, not in a keychain [$MCP_NO_KEYCHAIN]

    Commands:
      login, logout, status  sign in ahead of time, sign out, show the sign-in; same options
      doctor                 find out at which stage a server fails, and what to do; same options, and
      --json
      bundle                 write an extension for Claude Desktop (.mcpb); see bundle --help
      completions            print completions for bash, zsh, fish, powershell or elvish
      man                    print the manual page

    Examples:
      mcp-gangway https://example.com/mcp
      mcp-gangway --header 'Authorization: Bearer ${TOKEN}' https://example.com/mcp
      MCP_AUTH='Bearer eyJhb…' mcp-gangway http://localhost:4444/servers/UUID/mcp
      mcp-gangway --log-level debug --log-file /tmp/gangway.log https://example.com/mcp

    In an MCP client's configuration:
      {"mcpServers": {"example": {"command": "mcp-gangway", "args": ["https://example.com/mcp"],
                                  "env": {"MCP_AUTH": "Bearer eyJhb…"}}}}

    Environment:
      A variable above, like [$MCP_AUTH], applies if its option is not given; empty means unset.
      MCP_BEARER_TOKEN                    a token; sent as 'Authorization: Bearer TOKEN'
      MCP_HEADERS                         headers for the server, one per line, as for --header
      HTTPS_PROXY, HTTP_PROXY, ALL_PROXY  the proxy, if --proxy is not given
      NO_PROXY                            hosts to reach without a proxy

    Other bridges:
      The options of mcp-remote, fastmcp-remote, supergateway and mcp-proxy are accepted as well.
      An unsupported one fails with a line that names the alternative.

    Exit status:
      0 if the client closed stdin or a signal ended the process, 2 for an invalid setting,
      1 for any other failure
    "#);
}

#[test]
fn version() {
    let ended = run(&mut command(["--version"]));
    assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
    assert_eq!(ended.stdout, [concat!("mcp-gangway ", env!("CARGO_PKG_VERSION"))]);
}

#[test]
fn each_invalid_setting_is_reported_in_one_line() {
    const URL: &str = "http://localhost:1/mcp";
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let no_pem = file("no.pem", "hello");
    let bad_pem = file("bad.pem", "-----BEGIN CERTIFICATE-----\n(hunter2)\n-----END CERTIFICATE-----\n");
    let new_key = || rcgen::KeyPair::generate().unwrap();
    let (key, other) = (new_key(), new_key());
    let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap();
    let (certificate, key) = (file("cert.pem", &certificate.pem()), file("key.pem", &key.serialize_pem()));
    let other = file("other.pem", &other.serialize_pem());
    let locked = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nhunter2=\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let locked = file("locked.pem", locked);
    let bad_key = file("bad-key.pem", "-----BEGIN PRIVATE KEY-----\naHVudGVyMg==\n-----END PRIVATE KEY-----\n");
    let headers = file("headers", "# two headers\nA: b\nhunter2\n");
    let missing = folder.path().join("missing").join("file").to_str().unwrap().to_owned();

    for (args, part) in [
        (&[][..], "MCP_SERVER_URL"),
        (&["hunter2"], "https://example.com/mcp"),
        (&["ftp://hunter2/"], "https://example.com/mcp"),
        (&["http://"], "https://example.com/mcp"),
        (&[URL, "--url", "http://hunter2/"], "--url"),
        (&[URL, "hunter2"], "quotes"),
        (&[URL, "--auth", "Bearer", "hunter2"], "quotes"),
        (&[URL, "--auth"], "--auth"),
        (&[URL, "--auth", "hunter2\nX: y"], "--auth: "),
        (&[URL, "--auth", "Bearer"], "Bearer TOKEN"),
        (&[URL, "--unknown=hunter2"], "--unknown"),
        (&[URL, "--timeout", "soon"], "--timeout: "),
        (&[URL, "--timeout", "-1"], "--timeout: "),
        (&[URL, "--max-time", "0"], "--max-time: "),
        (&[URL, "--connect-timeout", "inf"], "--connect-timeout: "),
        (&[URL, "--drain-timeout", "-1"], "--drain-timeout: "),
        (&[URL, "--concurrency", "0"], "--concurrency: "),
        (&[URL, "--max-message-size", "64"], "--max-message-size: "),
        (&[URL, "--max-request-size", "1.5G"], "--max-request-size: "),
        (&[URL, "--header", "hunter2"], "Name: Value"),
        (&[URL, "--header", "A B: hunter2"], "--header: "),
        (&[URL, "--header", "Host: ${MISSING}"], "MISSING"),
        (&[URL, "--header", "Mcp-Session-Id: hunter2"], "mcp-session-id"),
        (&[URL, "--header-file", &headers], "line 3"),
        (&[URL, "--header-file", &missing], "--header-file: "),
        (&[URL, "--ca-cert", &missing], "--ca-cert: "),
        (&[URL, "--ca-cert", &no_pem], "PEM"),
        (&[URL, "--ca-cert", &bad_pem], "PEM"),
        (&[URL, "--client-cert", &missing], "--client-cert: "),
        (&[URL, "--client-key", &key], "--client-cert"),
        (&[URL, "--client-cert", &no_pem], "--client-cert needs a PEM file"),
        (&[URL, "--client-cert", &bad_pem, "--client-key", &key], "PEM"),
        (&[URL, "--client-cert", &certificate], "--client-key"),
        (&[URL, "--client-cert", &certificate, "--client-key", &missing], "--client-key: "),
        (&[URL, "--client-cert", &certificate, "--client-key", &no_pem], "no private key"),
        (&[URL, "--client-cert", &certificate, "--client-key", &locked], "openssl pkey"),
        (&[URL, "--client-cert", &certificate, "--client-key", &bad_key], "cannot be used"),
        (&[URL, "--client-cert", &certificate, "--client-key", &other], "does not belong"),
        (&[URL, "--proxy", "ftp://hunter2"], "--proxy: "),
        (&[URL, "--transport", "stdio"], "sse-first"),
        (&[URL, "--auth-command", "cat 'hunter2"], "quote"),
        (&[URL, "--auth-command", " "], "--auth-command: "),
        (&[URL, "--auth-command", "hunter2", "--auth", "hunter2"], "only one"),
        (&[URL, "--log-file", &missing], "log file"),
        (&[URL, "--log-format", "xml"], "--log-format: "),
    ] {
        let line = complaint(&mut command(args));
        assert!(line.contains(part), "{args:?}: {line}");
    }

    for (name, value) in [
        ("MCP_SERVER_URL", "hunter2"),
        ("MCP_AUTH", "Bearer"),
        ("MCP_TOOL_CALL_TIMEOUT", "soon"),
        ("CONCURRENCY", "0"),
        ("MCP_HEADERS", "A: b\nhunter2"),
        ("MCP_HEADER_FILE", &missing),
        ("MCP_AUTH_COMMAND", "'hunter2"),
        ("MCP_TRANSPORT", "stdio"),
        ("TLS_CERT", &missing),
        ("TLS_CLIENT_CERT", &missing),
        ("TLS_CLIENT_KEY", &key),
        ("INSECURE", "perhaps"),
    ] {
        let args = if name == "MCP_SERVER_URL" { &[][..] } else { &[URL] };
        let line = complaint(command(args).env(name, value));
        assert!(line.contains(name), "{name}: {line}");
    }
}

#[cfg(unix)]
#[test]
fn non_utf8_arguments_and_variables_are_rejected() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

    let broken = OsStr::from_bytes(b"http://\xff/");
    assert!(complaint(&mut command([broken])).contains("UTF-8"));
    assert!(complaint(command([OsStr::new("http://localhost/")]).env("MCP_AUTH", broken)).contains("MCP_AUTH"));
}

/// A closed stdout or stderr does not change the exit status.
#[cfg(unix)]
#[test]
fn exit_status_is_kept_when_stdout_and_stderr_are_closed() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let ended = run(command(["hunter2"]).stdout(writer.try_clone().unwrap()).stderr(writer.try_clone().unwrap()));
    assert_eq!(ended.status.code(), Some(2));
    let ended = run(command(["--help"]).stdout(writer.try_clone().unwrap()).stderr(writer));
    assert_eq!(ended.status.code(), Some(0));
}
