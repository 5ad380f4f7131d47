//! The options for signing in.

use std::path::PathBuf;

use clap::Args;

/// The options.
#[derive(Args)]
#[command(next_help_heading = "Signing in")]
#[allow(clippy::doc_markdown, reason = "the help is read as plain text")]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub(crate) struct SignInArgs {
    /// Do not sign in where the server asks for it [$MCP_NO_OAUTH]
    #[arg(long)]
    pub(crate) no_oauth: bool,

    /// Only print the URL to sign in at [$MCP_NO_BROWSER]
    #[arg(long)]
    pub(crate) no_browser: bool,

    /// Sign in on another device, with a code [$MCP_DEVICE_LOGIN]
    #[arg(long)]
    pub(crate) device: bool,

    /// Use the client's own credentials, without a user [$MCP_CLIENT_CREDENTIALS]
    #[arg(long)]
    pub(crate) client_credentials: bool,

    /// Client that the authorization server knows [$MCP_CLIENT_ID]; its secret or key is in $MCP_CLIENT_SECRET or
    /// $MCP_CLIENT_PRIVATE_KEY (PEM; RSA, P-256 or P-384)
    #[arg(long, value_name = "ID")]
    pub(crate) client_id: Option<String>,

    /// Authorization server that may be used, as it names itself [$MCP_ISSUER] [default: what the server names; for a
    /// --client-id the first that it named]
    #[arg(long, value_name = "URL")]
    pub(crate) issuer: Option<String>,

    /// https URL of a client ID metadata document, used where the server reads such [$MCP_CLIENT_METADATA_URL]
    #[arg(long, value_name = "URL")]
    pub(crate) client_metadata_url: Option<String>,

    /// Scopes to ask for, separated by spaces [$MCP_SCOPE] [default: what the server asks for]
    #[arg(long, value_name = "SCOPES")]
    pub(crate) scope: Option<String>,

    /// What the token is for; none leaves that out [$MCP_RESOURCE] [default: what the server says]
    #[arg(long, value_name = "URI")]
    pub(crate) resource: Option<String>,

    /// Another parameter for the authorization request; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) authorize_param: Vec<String>,

    /// Port of this machine that the browser comes back to [$MCP_CALLBACK_PORT] [default: any]
    #[arg(long, value_name = "PORT")]
    pub(crate) callback_port: Option<String>,

    /// Host that it comes back to: localhost or a loopback address, as the client is registered [$MCP_CALLBACK_HOST] [default:
    /// 127.0.0.1; localhost where the authorization server takes only that]
    #[arg(long, value_name = "HOST")]
    pub(crate) callback_host: Option<String>,

    /// Path that it comes back to [$MCP_CALLBACK_PATH] [default: /callback]
    #[arg(long, value_name = "PATH")]
    pub(crate) callback_path: Option<String>,

    /// How long a request waits for the user to sign in [$MCP_LOGIN_WAIT] [default: 20]
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    pub(crate) login_wait: Option<String>,

    /// Keep sign-ins in files, not in a keychain [$MCP_NO_KEYCHAIN]
    #[arg(long)]
    pub(crate) no_keychain: bool,

    /// Folder for what is kept of sign-ins [$MCP_STATE_FOLDER] [default: the user's, for the state of programs]
    #[arg(long, value_name = "PATH")]
    pub(crate) state_folder: Option<PathBuf>,
}
