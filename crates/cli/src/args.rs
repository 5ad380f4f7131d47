//! Defines the command line. `settings` interprets it.

mod bundle;
#[cfg(feature = "oauth")]
mod sign_in;

use std::path::PathBuf;

use clap::{
    Parser,
    error::{ContextKind, ContextValue, ErrorKind},
};

pub(crate) use self::bundle::BundleArgs;
#[cfg(feature = "oauth")]
pub(crate) use self::sign_in::SignInArgs;

/// The command that shows this help.
pub(crate) const HELP: &str = "mcp-gangway --help";

#[cfg(feature = "oauth")]
pub(crate) const USAGE: &str = "mcp-gangway [OPTIONS] URL
       mcp-gangway login|logout|status [OPTIONS] URL
       mcp-gangway doctor [--json] [OPTIONS] URL
       mcp-gangway bundle [OPTIONS] [URL]
       mcp-gangway completions SHELL
       mcp-gangway man";
#[cfg(not(feature = "oauth"))]
pub(crate) const USAGE: &str = "mcp-gangway [OPTIONS] URL
       mcp-gangway doctor [--json] [OPTIONS] URL
       mcp-gangway bundle [OPTIONS] [URL]
       mcp-gangway completions SHELL
       mcp-gangway man";

/// The rest of the help, as sections: a title with a colon, then indented lines. The manual page has them too.
pub(crate) const SECTIONS: &str = r#"Commands:
  login, logout, status  sign in ahead of time, sign out, show the sign-in; same options
  doctor                 find out at which stage a server fails, and what to do; same options, and --json
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
  1 for any other failure"#;

/// Connects an MCP client that starts local processes to an MCP server over Streamable HTTP. JSON-RPC lines from
/// stdin go to the server; its messages are written to stdout as they arrive.
#[derive(Parser)]
#[command(
    name = "mcp-gangway",
    version,
    override_usage = USAGE,
    after_help = SECTIONS,
    args_override_self = true,
    max_term_width = 100
)]
#[allow(clippy::doc_markdown, rustdoc::bare_urls, reason = "the help is plain text")]
#[allow(clippy::struct_excessive_bools, reason = "each is a separate switch")]
pub(crate) struct Args {
    /// Address of the MCP server, like https://example.com/mcp or unix:/run/mcp.sock:/mcp [$MCP_SERVER_URL]
    #[arg(value_name = "URL")]
    pub(crate) server: Option<String>,

    /// Address of the MCP server, as an option
    #[arg(long, value_name = "URL", help_heading = "Server")]
    pub(crate) url: Option<String>,

    /// File with this address, or only its port; read again while the server cannot be reached [$MCP_URL_FILE]
    #[arg(long, value_name = "PATH", help_heading = "Server")]
    pub(crate) url_file: Option<PathBuf>,

    /// Command that prints the same; run without a shell, at start and while the server cannot be reached
    /// [$MCP_URL_COMMAND]
    #[arg(long, value_name = "COMMAND", help_heading = "Server")]
    pub(crate) url_command: Option<String>,

    /// auto, http (Streamable HTTP), sse (HTTP+SSE) or sse-first [$MCP_TRANSPORT] [default: auto]
    #[arg(long, value_name = "NAME", help_heading = "Server")]
    pub(crate) transport: Option<String>,

    /// Protocol for a client that supports both eras of MCP: auto (as the server), modern (2026-07-28) or legacy
    /// [$MCP_ERA] [default: auto]
    #[arg(long, value_name = "NAME", help_heading = "Server")]
    pub(crate) era: Option<String>,

    /// Value of the Authorization header, sent unchanged, like 'Bearer TOKEN' [$MCP_AUTH]
    #[arg(long, value_name = "VALUE", help_heading = "Server")]
    pub(crate) auth: Option<String>,

    /// Command that prints this value or a bare token; run without a shell, at start and on a 401 [$MCP_AUTH_COMMAND]
    #[arg(long, value_name = "COMMAND", help_heading = "Server")]
    pub(crate) auth_command: Option<String>,

    /// Header for every request; ${VAR} in the value is replaced from the environment; repeatable
    #[arg(long, value_name = "NAME: VALUE", help_heading = "Server")]
    pub(crate) header: Vec<String>,

    /// File with one such header per line; # starts a comment line; read again on a 401 [$MCP_HEADER_FILE]
    #[arg(long, value_name = "PATH", help_heading = "Server")]
    pub(crate) header_file: Option<PathBuf>,

    /// Tools that the client can see and call, as names with * and ?; repeatable [$MCP_ALLOW_TOOLS, comma-separated]
    /// [default: all]
    #[arg(long, value_name = "PATTERN", help_heading = "Server")]
    pub(crate) allow_tool: Vec<String>,

    /// Tools that the client cannot see or call, even if allowed [$MCP_DENY_TOOLS]
    #[arg(long, alias = "ignore-tool", value_name = "PATTERN", help_heading = "Server")]
    pub(crate) deny_tool: Vec<String>,

    /// Merge the pages of lists, for clients that ask only for the first [$MCP_MERGE_PAGES]
    #[arg(long, help_heading = "Client")]
    pub(crate) merge_pages: bool,

    /// Write U+2028 and U+2029 as escapes, for clients that take them for line breaks [$MCP_ESCAPE_SEPARATORS]
    #[arg(long, help_heading = "Client")]
    pub(crate) escape_separators: bool,

    /// Maximum number of requests in flight to the server [$CONCURRENCY] [default: 64]
    #[arg(long, value_name = "COUNT", help_heading = "Server")]
    pub(crate) concurrency: Option<String>,

    /// Largest message from the server, like 512M or 16G [$MCP_MAX_MESSAGE_SIZE] [default: 4G]
    #[arg(long, value_name = "SIZE", help_heading = "Sizes", allow_negative_numbers = true)]
    pub(crate) max_message_size: Option<String>,

    /// Largest message from the client, held in memory [$MCP_MAX_REQUEST_SIZE] [default: 64M]
    #[arg(long, value_name = "SIZE", help_heading = "Sizes", allow_negative_numbers = true)]
    pub(crate) max_request_size: Option<String>,

    /// Longest time without data from the server during a request [$MCP_TOOL_CALL_TIMEOUT] [default: 300]
    #[arg(long, value_name = "SECONDS", help_heading = "Times", allow_negative_numbers = true)]
    pub(crate) timeout: Option<String>,

    /// Longest total time of a request, even while data arrives [default: no limit]
    #[arg(long, value_name = "SECONDS", help_heading = "Times", allow_negative_numbers = true)]
    pub(crate) max_time: Option<String>,

    /// Longest time to connect: DNS, TCP and TLS [default: 15]
    #[arg(long, value_name = "SECONDS", help_heading = "Times", allow_negative_numbers = true)]
    pub(crate) connect_timeout: Option<String>,

    /// Longest time until the client's handshake is answered, even if the server is not there yet; 0 turns that off
    /// [$MCP_ATTACH_WAIT] [default: 3]
    #[arg(long, value_name = "SECONDS", help_heading = "Times", allow_negative_numbers = true)]
    pub(crate) attach_wait: Option<String>,

    /// Longest time that a request waits for a server that cannot be reached [$MCP_HOLD] [default: 20]
    #[arg(long, value_name = "SECONDS", help_heading = "Times", allow_negative_numbers = true)]
    pub(crate) hold: Option<String>,

    /// Send progress of the bridge's own for a call after this silence of the server, if the client asks for progress;
    /// 15 without a value [$MCP_HEARTBEAT] [default: off]
    #[arg(
        long,
        value_name = "SECONDS",
        help_heading = "Times",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "15"
    )]
    pub(crate) heartbeat: Option<String>,

    /// Ping the server after this time without requests [$MCP_KEEP_ALIVE] [default: off]
    #[arg(long, value_name = "SECONDS", help_heading = "Times", allow_negative_numbers = true)]
    pub(crate) keep_alive: Option<String>,

    /// Longest time for open requests after stdin ends [default: 5]
    #[arg(long, value_name = "SECONDS", help_heading = "Times", allow_negative_numbers = true)]
    pub(crate) drain_timeout: Option<String>,

    /// PEM file with certificates to trust in addition to the system's [$TLS_CERT]
    #[arg(long, alias = "tls-cert", value_name = "PATH", help_heading = "Network")]
    pub(crate) ca_cert: Option<PathBuf>,

    /// PEM file with the client certificate, and optionally its key [$TLS_CLIENT_CERT]
    #[arg(long, value_name = "PATH", help_heading = "Network")]
    pub(crate) client_cert: Option<PathBuf>,

    /// PEM file with the private key of the client certificate [$TLS_CLIENT_KEY]
    #[arg(long, value_name = "PATH", help_heading = "Network")]
    pub(crate) client_key: Option<PathBuf>,

    /// Accept any server certificate; only for tests [$INSECURE]
    #[arg(long, help_heading = "Network")]
    pub(crate) insecure: bool,

    /// Proxy (http, https, socks5, socks5h) for all hosts except those in NO_PROXY [default: the system's]
    #[arg(long, value_name = "URL", help_heading = "Network")]
    pub(crate) proxy: Option<String>,

    /// Unix socket of the server, instead of the URL's host and port [$MCP_UNIX_SOCKET]
    #[arg(long, value_name = "PATH", help_heading = "Network")]
    pub(crate) unix_socket: Option<PathBuf>,

    /// Use only HTTP/2, even without TLS [$HTTP2] [default: the version that the server offers]
    #[arg(long, help_heading = "Network")]
    pub(crate) http2: bool,

    /// Maximum number of idle connections to keep [$HTTP_POOL_SIZE] [default: no limit]
    #[arg(long, alias = "http-pool-size", value_name = "COUNT", help_heading = "Network")]
    pub(crate) pool_size: Option<String>,

    /// How long to keep idle connections [$HTTP_POOL_IDLE_TIMEOUT] [default: 50]
    #[arg(
        long,
        alias = "http-pool-idle-timeout",
        value_name = "SECONDS",
        help_heading = "Network",
        allow_negative_numbers = true
    )]
    pub(crate) pool_idle: Option<String>,

    /// Do not keep the server's lists for a start without the server [$MCP_NO_CACHE]
    #[arg(long, help_heading = "State")]
    pub(crate) no_cache: bool,

    /// Folder for these lists and for sign-ins [$MCP_STATE_FOLDER] [default: in the user's folder for program state]
    #[arg(long, value_name = "PATH", help_heading = "State")]
    pub(crate) state_folder: Option<PathBuf>,

    /// off, error, warn, info, debug or trace [$MCP_WRAPPER_LOG_LEVEL, $LOG_LEVEL] [default: warn]
    #[arg(long, value_name = "LEVEL", help_heading = "Log")]
    pub(crate) log_level: Option<String>,

    /// File to append the log to, instead of stderr [$MCP_LOG_FILE]
    #[arg(long, value_name = "PATH", help_heading = "Log")]
    pub(crate) log_file: Option<PathBuf>,

    /// text or json (one object per line) [default: text]
    #[arg(long, value_name = "FORMAT", help_heading = "Log")]
    pub(crate) log_format: Option<String>,

    #[cfg(feature = "oauth")]
    #[command(flatten)]
    pub(crate) sign_in: SignInArgs,
}

/// Returns the argument that a clap error is about, without a value.
pub(crate) fn culprit(error: &clap::Error) -> &str {
    let culprit = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(text)) => text.as_str(),
        _ => "an argument",
    };
    // The text after the equals sign is a value.
    culprit.split('=').next().unwrap_or_default()
}

/// Describes a clap error in one line, which names the command that shows the help. Clap's own text is longer and
/// quotes the arguments, for example the second half of an unquoted `--auth Bearer TOKEN`.
pub(crate) fn explain(error: &clap::Error, help: &str) -> String {
    let option = culprit(error);
    let what = match error.kind() {
        ErrorKind::UnknownArgument if option.starts_with('-') => format!("there is no option {option}"),
        ErrorKind::UnknownArgument => {
            "one argument too many; put quotes around a value that contains a space, as in --auth 'Bearer TOKEN'".into()
        }
        ErrorKind::InvalidValue => format!("{option} needs a value"),
        ErrorKind::TooManyValues => format!("{option} takes no value"),
        ErrorKind::InvalidUtf8 => "an argument is not UTF-8 text".into(),
        kind => format!("{option}: {kind}"),
    };
    format!("{what} (see {help})")
}
