//! What a user can do about an error with the settings of the program around the bridge.
//!
//! Rule: the core names no option of a program. A program words these as its users know its settings.

use std::fmt;

/// What helps, if a setting does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Hint {
    /// The server wants credentials, or others.
    Credentials,
    /// The server wants credentials, and offers no sign-in.
    Key,
    /// The authorization server is another one than before.
    OtherIssuer,
    /// It is not known which authorization server is meant.
    Issuer,
    /// The authorization server has no sign-in with a browser.
    OtherGrant,
    /// The authorization server has no sign-in by device code.
    NotByDevice,
    /// The port that a sign-in comes back to is taken.
    CallbackPort,
    /// There is no client to sign in as.
    ClientId,
    /// The authorization server registers no clients.
    KnownClient,
    /// The system's keychain cannot be read.
    Keychain,
    /// The proxy cannot be reached.
    Proxy,
    /// The same, perhaps because of the network.
    ProxyAndNetwork,
    /// The way to the server takes too long.
    Network,
    /// The server cannot be reached.
    Server,
    /// A certificate comes from an authority that is not trusted.
    Authority,
    /// A server's certificate is that of an authority.
    AuthorityItself,
    /// The server wants a client certificate.
    ClientCertificate,
    /// The client certificate cannot be read.
    ClientCertificateFile,
    /// The client certificate has no private key.
    ClientKey,
    /// The client certificate or its key cannot be used.
    ClientCertificateAndKey,
    /// The process has as many files open as it may.
    OpenFiles,
    /// A message of the client's is larger than the limit.
    RequestSize,
    /// A message of the server's is larger than the limit.
    MessageSize,
    /// A request took longer than it may.
    TotalTime,
    /// The server was silent for longer than it may be.
    IdleTime,
}

/// The words of a program for its settings.
pub type HintWords = fn(Hint) -> &'static str;

impl Hint {
    /// Words that fit any program.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Credentials => "give credentials for the server",
            Self::Key => "give a key or a token for the server",
            Self::OtherIssuer => "name the new one in the settings if that is right",
            Self::Issuer => "name the one that is meant in the settings",
            Self::OtherGrant | Self::NotByDevice => "try another way to sign in",
            Self::CallbackPort => "choose another port for sign-ins to come back to",
            Self::ClientId => "name a client",
            Self::KnownClient => "name a client that is known there, or give a token",
            Self::Keychain => "leave the keychain alone",
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
