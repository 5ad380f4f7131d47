//! Defines the options for sign-in.

use clap::Args;

/// The sign-in options.
#[derive(Args)]
#[command(next_help_heading = "Signing in")]
#[allow(clippy::doc_markdown, reason = "the help is plain text")]
#[allow(clippy::struct_excessive_bools, reason = "each is a separate switch")]
pub(crate) struct SignInArgs {
    /// Turn sign-in off, even if the server requires it [$MCP_NO_OAUTH]
    #[arg(long)]
    pub(crate) no_oauth: bool,

    /// Print the URL to sign in at, but do not open a browser [$MCP_NO_BROWSER]
    #[arg(long)]
    pub(crate) no_browser: bool,

    /// Sign in on another device with a code [$MCP_DEVICE_LOGIN]
    #[arg(long)]
    pub(crate) device: bool,

    /// Use the client's own credentials, without a user [$MCP_CLIENT_CREDENTIALS]
    #[arg(long)]
    pub(crate) client_credentials: bool,

    /// ID of a client registered at the authorization server [$MCP_CLIENT_ID]; its secret or key is in
    /// $MCP_CLIENT_SECRET or $MCP_CLIENT_PRIVATE_KEY (PEM; RSA, P-256 or P-384)
    #[arg(long, value_name = "ID")]
    pub(crate) client_id: Option<String>,

    /// Issuer of the only authorization server to use [$MCP_ISSUER] [default: the one that the server names; with
    /// --client-id the first that it named]
    #[arg(long, value_name = "URL")]
    pub(crate) issuer: Option<String>,

    /// https URL of a client ID metadata document, used if the authorization server supports it
    /// [$MCP_CLIENT_METADATA_URL]
    #[arg(long, value_name = "URL")]
    pub(crate) client_metadata_url: Option<String>,

    /// Scopes to request, separated by spaces [$MCP_SCOPE] [default: those that the server asks for]
    #[arg(long, value_name = "SCOPES")]
    pub(crate) scope: Option<String>,

    /// Resource that the token is for; none omits it [$MCP_RESOURCE] [default: the one that the server names]
    #[arg(long, value_name = "URI")]
    pub(crate) resource: Option<String>,

    /// Extra parameter for the authorization request; repeatable
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) authorize_param: Vec<String>,

    /// Port of the callback URL on this machine [$MCP_CALLBACK_PORT] [default: any]
    #[arg(long, value_name = "PORT")]
    pub(crate) callback_port: Option<String>,

    /// Host of the callback URL: localhost or a loopback address, as registered for the client [$MCP_CALLBACK_HOST]
    /// [default: 127.0.0.1; localhost if the authorization server accepts only that]
    #[arg(long, value_name = "HOST")]
    pub(crate) callback_host: Option<String>,

    /// Path of the callback URL [$MCP_CALLBACK_PATH] [default: /callback]
    #[arg(long, value_name = "PATH")]
    pub(crate) callback_path: Option<String>,

    /// How long a request waits for the user to sign in [$MCP_LOGIN_WAIT] [default: 20]
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    pub(crate) login_wait: Option<String>,

    /// Store sign-ins in files, not in a keychain [$MCP_NO_KEYCHAIN]
    #[arg(long)]
    pub(crate) no_keychain: bool,
}
