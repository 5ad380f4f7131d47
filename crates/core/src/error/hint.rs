//! Hints at the setting that fixes an error.
//!
//! Rule: the core names no option of a program. Each program words the hints in terms of its own settings.

use std::fmt;

/// A problem that a setting can fix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Hint {
    /// The server requires credentials, or different ones.
    Credentials,
    /// The server requires credentials, and offers no sign-in.
    Key,
    /// The authorization server has changed.
    OtherIssuer,
    /// It is unclear which authorization server to use.
    Issuer,
    /// The authorization server offers no sign-in with a browser.
    OtherGrant,
    /// The authorization server offers no sign-in by device code.
    NotByDevice,
    /// The port for the sign-in callback is in use.
    CallbackPort,
    /// There is no client to sign in as.
    ClientId,
    /// The authorization server registers no clients.
    KnownClient,
    /// The system's keychain cannot be read.
    Keychain,
    /// The proxy cannot be reached.
    Proxy,
    /// The proxy cannot be reached, perhaps because of the network.
    ProxyAndNetwork,
    /// Connecting to the server takes too long.
    Network,
    /// The server cannot be reached.
    Server,
    /// A certificate comes from an untrusted authority.
    Authority,
    /// The server's certificate is an authority's own.
    AuthorityItself,
    /// The server requires a client certificate.
    ClientCertificate,
    /// The client certificate cannot be read.
    ClientCertificateFile,
    /// The client certificate has no private key.
    ClientKey,
    /// The client certificate or its key cannot be used.
    ClientCertificateAndKey,
    /// The process has reached its limit on open files.
    OpenFiles,
    /// A message from the client is larger than the limit.
    RequestSize,
    /// A message from the server is larger than the limit.
    MessageSize,
    /// A request took longer than the limit.
    TotalTime,
    /// The server was silent for longer than the limit.
    IdleTime,
}

/// A program's wording of the hints.
pub type HintWords = fn(Hint) -> &'static str;

impl Hint {
    /// Returns words that fit any program.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Credentials => "give credentials for the server",
            Self::Key => "give a key or a token for the server",
            Self::OtherIssuer => "name the new one in the settings if that is right",
            Self::Issuer => "name the right one in the settings",
            Self::OtherGrant | Self::NotByDevice => "try another way to sign in",
            Self::CallbackPort => "choose another port for the sign-in callback",
            Self::ClientId => "name a client",
            Self::KnownClient => "name a client that is known there, or give a token",
            Self::Keychain => "turn the keychain off",
            Self::Proxy => "check the proxy in the settings or HTTPS_PROXY",
            Self::ProxyAndNetwork => "check the proxy in the settings or HTTPS_PROXY, and the network",
            Self::Network => "check the network, and whether a proxy is needed",
            Self::Server => "check that the server runs, the URL, and whether a proxy is needed",
            Self::Authority => "trust its authority in the settings",
            Self::AuthorityItself => "trust it as the server's in the settings",
            Self::ClientCertificate => "give a client certificate",
            Self::ClientCertificateFile => "give it in PEM form",
            Self::ClientKey => "give its private key in PEM form",
            Self::ClientCertificateAndKey => "check the client certificate and its key",
            Self::OpenFiles => "raise that limit (ulimit -n), or have fewer requests open at once",
            Self::RequestSize | Self::MessageSize | Self::TotalTime | Self::IdleTime => "the settings have this limit",
        }
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
