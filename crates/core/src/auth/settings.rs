//! Settings for signing in.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::keychain::Keychain;
use crate::secrets::Concealed;

/// How to sign in at a server that asks for it.
#[derive(Clone)]
#[non_exhaustive]
pub struct OAuth {
    /// How the user, or the client itself, signs in.
    pub grant: Grant,
    /// A client that the authorization server already knows.
    pub client_id: Option<String>,
    /// How that client authenticates.
    pub credential: Option<Credential>,
    /// The only authorization server that may be used, compared exactly. If not set: any that the MCP server names,
    /// or with `client_id` the first that the client is used with.
    pub issuer: Option<String>,
    /// The `https` URL of the client's metadata document, for authorization servers that read one.
    pub client_metadata_url: Option<String>,
    /// The scopes to ask for, instead of those that the server names.
    pub scopes: Vec<String>,
    /// The resource that the tokens are for.
    pub resource: Resource,
    /// Extra parameters for the authorization request.
    pub parameters: Vec<(String, String)>,
    /// The port on this machine that the browser returns to. If not set, any free port.
    pub callback_port: Option<u16>,
    /// The host that the browser returns to: `localhost` or a loopback address, in URL syntax. If not set, 127.0.0.1,
    /// or `localhost` if the authorization server accepts only that.
    pub callback_host: Option<String>,
    /// The path that the browser returns to (`/callback`).
    pub callback_path: Option<String>,
    /// How long a request waits for a sign-in before it gets an error (20 s).
    pub login_wait: Duration,
    /// The keychain that stores sign-ins; tried before the folder.
    pub keychain: Option<Keychain>,
    /// The state folder, for sign-ins that no keychain stores. If not set, they are lost when the process ends.
    pub folder: Option<PathBuf>,
    pub(super) show: Arc<dyn Fn(&Prompt) + Send + Sync>,
}

/// The ways to sign in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Grant {
    /// The user signs in with a browser on this machine.
    #[default]
    Browser,
    /// The user signs in on any device (RFC 8628).
    Device,
    /// The client acts for itself.
    ClientCredentials,
}

/// How a client authenticates. Debug does not show the secret.
#[derive(Clone)]
#[non_exhaustive]
pub enum Credential {
    /// A secret that the authorization server also knows.
    Secret(Secret),
    /// A private key in PEM format (PKCS #8). The authorization server has the public key.
    Key(Secret),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Secret(_) => "Secret",
            Self::Key(_) => "Key",
        })
    }
}

/// A text that is never shown.
#[derive(Clone)]
pub struct Secret(pub(super) String, #[expect(dead_code, reason = "conceals the secret while it is kept")] Concealed);

impl Secret {
    /// Takes the text unchanged.
    pub fn new(text: String) -> Self {
        // A key has several lines.
        let concealed = Concealed::new(text.lines().filter(|line| !line.starts_with("-----")));
        Self(text, concealed)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The resource that tokens are for (RFC 8707).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resource {
    /// The resource that the server names, or its URL.
    #[default]
    Found,
    /// This resource.
    This(String),
    /// Not sent, for authorization servers that reject the parameter.
    None,
}

/// Where the user signs in.
#[derive(Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Prompt {
    /// In a browser, at this URL.
    Browser {
        /// Valid for one sign-in.
        url: String,
    },
    /// On any device.
    Device {
        /// Where the user enters the code.
        url: String,
        /// The same URL with the code in it, if there is one.
        complete: Option<String>,
        /// The code.
        code: String,
    },
}

impl Prompt {
    /// The URL to open.
    pub fn url(&self) -> &str {
        match self {
            Self::Browser { url } => url,
            Self::Device { url, complete, .. } => complete.as_ref().unwrap_or(url),
        }
    }
}

impl OAuth {
    /// Creates settings for a sign-in with a browser. `show` is called with the place where the user signs in. It
    /// must not block.
    pub fn new(show: impl Fn(&Prompt) + Send + Sync + 'static) -> Self {
        Self {
            grant: Grant::default(),
            client_id: None,
            credential: None,
            issuer: None,
            client_metadata_url: None,
            scopes: Vec::new(),
            resource: Resource::default(),
            parameters: Vec::new(),
            callback_port: None,
            callback_host: None,
            callback_path: None,
            login_wait: Duration::from_secs(20),
            keychain: None,
            folder: None,
            show: Arc::new(show),
        }
    }

    pub(super) fn secret(&self) -> Option<String> {
        match &self.credential {
            Some(Credential::Secret(secret)) => Some(secret.0.clone()),
            _ => None,
        }
    }

    /// Returns the client that the user has configured. Each client has its own tokens.
    pub(super) fn named_client(&self) -> Option<String> {
        let grant = if self.grant == Grant::ClientCredentials { "client credentials " } else { "" };
        let named = self.client_id.as_ref().or(self.client_metadata_url.as_ref());
        named.map(|name| format!("{grant}{name}"))
    }
}

impl fmt::Debug for OAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OAuth")
            .field("grant", &self.grant)
            .field("client_id", &self.client_id)
            .field("credential", &self.credential)
            .field("issuer", &self.issuer)
            .field("scopes", &self.scopes)
            .field("login_wait", &self.login_wait)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Prompt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Prompt")
    }
}
