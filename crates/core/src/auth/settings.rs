//! How to sign in, as a program says it.

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
    /// The client that the authorization server knows already.
    pub client_id: Option<String>,
    /// How that client proves to be it.
    pub credential: Option<Credential>,
    /// The authorization server that may be used, to the letter; any that the MCP server names if there is none, and for a
    /// client of the user's the first.
    pub issuer: Option<String>,
    /// An `https` URL of a document that says who the client is, for authorization servers that read such.
    pub client_metadata_url: Option<String>,
    /// What to ask for, in the place of what the server says.
    pub scopes: Vec<String>,
    /// What the tokens are for.
    pub resource: Resource,
    /// More parameters for the authorization request.
    pub parameters: Vec<(String, String)>,
    /// The port of this machine that the browser comes back to; any that is free if there is none.
    pub callback_port: Option<u16>,
    /// The host that it comes back to, which must be `localhost` or a loopback address as a URL has it; 127.0.0.1 if there is
    /// none, or `localhost` where the authorization server takes only that.
    pub callback_host: Option<String>,
    /// The path that it comes back to (`/callback`).
    pub callback_path: Option<String>,
    /// How long a request waits for a sign-in before it is answered with an error (20 s).
    pub login_wait: Duration,
    /// Where sign-ins are kept first; none unless set.
    pub keychain: Option<Keychain>,
    /// The folder for what no keychain keeps; without one, that is gone when the process ends.
    pub folder: Option<PathBuf>,
    pub(super) show: Arc<dyn Fn(&Prompt) + Send + Sync>,
}

/// The ways to sign in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Grant {
    /// The user signs in with a browser on this machine.
    #[default]
    Browser,
    /// The user signs in on any device (RFC 8628).
    Device,
    /// The client is its own user.
    ClientCredentials,
}

/// How a client proves who it is. Debug does not show it.
#[derive(Clone)]
pub enum Credential {
    /// A secret that the authorization server shares.
    Secret(Secret),
    /// A private key in PEM (PKCS #8), whose public key the authorization server has.
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

/// A text that nobody is shown.
#[derive(Clone)]
pub struct Secret(
    pub(super) String,
    #[expect(dead_code, reason = "it is concealed for as long as it is kept")] Concealed,
);

impl Secret {
    /// Takes it as it is.
    pub fn new(text: String) -> Self {
        // A key has lines.
        let concealed = Concealed::new(text.lines().filter(|line| !line.starts_with("-----")));
        Self(text, concealed)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// What tokens are for (RFC 8707).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Resource {
    /// What the server calls itself, or its URL.
    #[default]
    Found,
    /// This.
    This(String),
    /// It is not said, for authorization servers that refuse to be told.
    None,
}

/// Where the user signs in.
#[derive(Clone, Serialize, Deserialize)]
pub enum Prompt {
    /// In a browser, at this URL.
    Browser {
        /// Good for one sign-in.
        url: String,
    },
    /// On any device.
    Device {
        /// Where the code is typed in.
        url: String,
        /// The same with the code in it, where there is such.
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
    /// Settings for a sign-in with a browser. `show` is told where the user signs in; it must not block.
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

    /// The client as far as the user has named it; another one has tokens of its own.
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
