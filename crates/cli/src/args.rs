//! The command line as it was typed. `settings` says what it means.

#[cfg(feature = "oauth")]
mod sign_in;

use std::path::PathBuf;

use clap::{
    Parser,
    error::{ContextKind, ContextValue, ErrorKind},
};

#[cfg(feature = "oauth")]
pub(crate) use self::sign_in::SignInArgs;

const USAGE: &str = if cfg!(feature = "oauth") {
    "mcp-gangway [OPTIONS] URL
       mcp-gangway login|logout|status [OPTIONS] URL"
} else {
    "mcp-gangway [OPTIONS] URL"
};

const EXAMPLES: &str = r#"Examples:
  mcp-gangway https://example.com/mcp
  mcp-gangway --header 'Authorization: Bearer ${TOKEN}' https://example.com/mcp
  MCP_AUTH='Bearer eyJhb…' mcp-gangway http://localhost:4444/servers/UUID/mcp
  mcp-gangway --log-level debug --log-file /tmp/gangway.log https://example.com/mcp

In an MCP client's configuration:
  {"mcpServers": {"example": {"command": "mcp-gangway", "args": ["https://example.com/mcp"],
                              "env": {"MCP_AUTH": "Bearer eyJhb…"}}}}

Environment:
  A variable above, like [$MCP_AUTH], is used where its option is not given; empty means unset.
  MCP_HEADERS                         headers for the server, one a line, written as for --header
  HTTPS_PROXY, HTTP_PROXY, ALL_PROXY  the proxy, where --proxy is not given
  NO_PROXY                            hosts that are reached without a proxy

Other bridges:
  The options of mcp-remote, fastmcp-remote, supergateway and mcp-proxy are understood, too; one that cannot be
  followed is refused with what to use

Exit status:
  0 if the client closed stdin or a signal asked for the end, 2 for a mistake in the settings,
  1 for any other failure"#;

/// Lets an MCP client that starts local processes use an MCP server that speaks Streamable HTTP: JSON-RPC lines
/// from stdin go to the server, and what it answers comes to stdout as it arrives.
#[derive(Parser)]
#[command(
    name = "mcp-gangway",
    version,
    override_usage = USAGE,
    after_help = EXAMPLES,
    args_override_self = true,
    max_term_width = 100
)]
#[allow(clippy::doc_markdown, rustdoc::bare_urls, reason = "the help is read as plain text")]
pub(crate) struct Args {
    /// Address of the MCP server, like https://example.com/mcp or unix:/run/mcp.sock:/mcp [$MCP_SERVER_URL]
    #[arg(value_name = "URL")]
    pub(crate) server: Option<String>,

    /// The same, as an option
    #[arg(long, value_name = "URL", help_heading = "Server")]
    pub(crate) url: Option<String>,

    /// auto, http (Streamable HTTP), sse (HTTP+SSE) or sse-first [$MCP_TRANSPORT] [default: auto]
    #[arg(long, value_name = "NAME", help_heading = "Server")]
    pub(crate) transport: Option<String>,

    /// What a client speaks that knows both eras of MCP: auto (as the server), modern (2026-07-28) or legacy [$MCP_ERA]
    /// [default: auto]
    #[arg(long, value_name = "NAME", help_heading = "Server")]
    pub(crate) era: Option<String>,

    /// Value of the Authorization header, sent as it is, like 'Bearer TOKEN' [$MCP_AUTH]
    #[arg(long, value_name = "VALUE", help_heading = "Server")]
    pub(crate) auth: Option<String>,

    /// Command that prints this value or a bare token; run without a shell, at the start and on a 401 [$MCP_AUTH_COMMAND]
    #[arg(long, value_name = "COMMAND", help_heading = "Server")]
    pub(crate) auth_command: Option<String>,

    /// Header for every request; ${VAR} in the value comes from the environment; may be repeated
    #[arg(long, value_name = "NAME: VALUE", help_heading = "Server")]
    pub(crate) header: Vec<String>,

    /// File with one such header a line; # begins a comment line; read again on a 401 [$MCP_HEADER_FILE]
    #[arg(long, value_name = "PATH", help_heading = "Server")]
    pub(crate) header_file: Option<PathBuf>,

    /// Tools that the client may see and call, by names with * and ?; may be repeated [$MCP_ALLOW_TOOLS, separated by commas]
    /// [default: all]
    #[arg(long, value_name = "PATTERN", help_heading = "Server")]
    pub(crate) allow_tool: Vec<String>,

    /// Tools that it may not, whatever is allowed [$MCP_DENY_TOOLS]
    #[arg(long, alias = "ignore-tool", value_name = "PATTERN", help_heading = "Server")]
    pub(crate) deny_tool: Vec<String>,

    /// Requests that may be open at the server at once [$CONCURRENCY] [default: 64]
    #[arg(long, value_name = "COUNT", help_heading = "Server")]
    pub(crate) concurrency: Option<String>,

    /// Largest message from the server, like 512M or 16G [$MCP_MAX_MESSAGE_SIZE] [default: 4G]
    #[arg(long, value_name = "SIZE", help_heading = "Sizes", allow_negative_numbers = true)]
    pub(crate) max_message_size: Option<String>,

    /// Largest message from the client, which is in memory [$MCP_MAX_REQUEST_SIZE] [default: 64M]
    #[arg(long, value_name = "SIZE", help_heading = "Sizes", allow_negative_numbers = true)]
    pub(crate) max_request_size: Option<String>,

    /// Longest silence of the server during a request [$MCP_TOOL_CALL_TIMEOUT] [default: 300]
    #[arg(long, value_name = "SECONDS", help_heading = "Times", allow_negative_numbers = true)]
    pub(crate) timeout: Option<String>,

    /// Longest life of a request, however busy [default: no limit]
    #[arg(long, value_name = "SECONDS", help_heading = "Times", allow_negative_numbers = true)]
    pub(crate) max_time: Option<String>,

    /// Longest time to connect: address, TCP and TLS [default: 15]
    #[arg(long, value_name = "SECONDS", help_heading = "Times", allow_negative_numbers = true)]
    pub(crate) connect_timeout: Option<String>,

    /// Longest time for open requests after stdin has ended [default: 5]
    #[arg(long, value_name = "SECONDS", help_heading = "Times", allow_negative_numbers = true)]
    pub(crate) drain_timeout: Option<String>,

    /// PEM file with certificates to trust beside the system's [$TLS_CERT]
    #[arg(long, alias = "tls-cert", value_name = "PATH", help_heading = "Network")]
    pub(crate) ca_cert: Option<PathBuf>,

    /// PEM file with a certificate to show to the server, and maybe its key [$TLS_CLIENT_CERT]
    #[arg(long, value_name = "PATH", help_heading = "Network")]
    pub(crate) client_cert: Option<PathBuf>,

    /// PEM file with the private key of that certificate [$TLS_CLIENT_KEY]
    #[arg(long, value_name = "PATH", help_heading = "Network")]
    pub(crate) client_key: Option<PathBuf>,

    /// Trust any certificate: only for tests [$INSECURE]
    #[arg(long, help_heading = "Network")]
    pub(crate) insecure: bool,

    /// Proxy (http, https, socks5, socks5h) for all hosts but those in NO_PROXY [default: the system's]
    #[arg(long, value_name = "URL", help_heading = "Network")]
    pub(crate) proxy: Option<String>,

    /// Unix socket that the server listens on, in place of the URL's host and port [$MCP_UNIX_SOCKET]
    #[arg(long, value_name = "PATH", help_heading = "Network")]
    pub(crate) unix_socket: Option<PathBuf>,

    /// Speak only HTTP/2, even without TLS [$HTTP2] [default: what the server offers]
    #[arg(long, help_heading = "Network")]
    pub(crate) http2: bool,

    /// Connections that are kept while nobody uses them [$HTTP_POOL_SIZE] [default: no limit]
    #[arg(long, alias = "http-pool-size", value_name = "COUNT", help_heading = "Network")]
    pub(crate) pool_size: Option<String>,

    /// How long they are kept [$HTTP_POOL_IDLE_TIMEOUT] [default: 50]
    #[arg(
        long,
        alias = "http-pool-idle-timeout",
        value_name = "SECONDS",
        help_heading = "Network",
        allow_negative_numbers = true
    )]
    pub(crate) pool_idle: Option<String>,

    /// off, error, warn, info, debug or trace [$MCP_WRAPPER_LOG_LEVEL, $LOG_LEVEL] [default: warn]
    #[arg(long, value_name = "LEVEL", help_heading = "Log")]
    pub(crate) log_level: Option<String>,

    /// File to append the log to, in place of stderr [$MCP_LOG_FILE]
    #[arg(long, value_name = "PATH", help_heading = "Log")]
    pub(crate) log_file: Option<PathBuf>,

    /// text or json (one object a line) [default: text]
    #[arg(long, value_name = "FORMAT", help_heading = "Log")]
    pub(crate) log_format: Option<String>,

    #[cfg(feature = "oauth")]
    #[command(flatten)]
    pub(crate) sign_in: SignInArgs,
}

/// What clap found wrong, in one line. Its own text is longer, and quotes what was typed: the half of an unquoted
/// `--auth Bearer TOKEN`, for one.
pub(crate) fn explain(error: &clap::Error) -> String {
    let culprit = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(text)) => text.as_str(),
        _ => "an argument",
    };
    // Whatever follows the equals sign is a value.
    let option = culprit.split('=').next().unwrap_or_default();
    let what = match error.kind() {
        ErrorKind::UnknownArgument if option.starts_with('-') => format!("there is no option {option}"),
        ErrorKind::UnknownArgument => {
            "one argument is too many; put quotes around a value that holds a space, as in --auth 'Bearer TOKEN'".into()
        }
        ErrorKind::InvalidValue => format!("{culprit} needs a value"),
        ErrorKind::TooManyValues => format!("{option} takes no value"),
        ErrorKind::InvalidUtf8 => "an argument is not UTF-8 text".into(),
        kind => format!("{option}: {kind}"),
    };
    format!("{what} (see mcp-gangway --help)")
}
