//! How connections are made: TLS, proxy, versions of HTTP, sockets, and the times for all of it.

use std::{fmt, path::Path, sync::Arc, time::Duration};

use http::Uri;
use url::Url;

use super::ssrf_guard::Addresses;
use crate::{
    error::Error,
    memory::{self, Budget},
};

/// How connections are made and kept.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HttpSettings {
    /// How a secure connection is made.
    pub tls: Tls,
    /// The way out of the local network.
    pub proxy: Proxy,
    /// Address, connection, proxy and TLS handshake together (15 s).
    pub connect: Duration,
    /// How long an HTTP/2 connection may be silent while requests are open before it is pinged (30 s). The answer has as
    /// much time, 20 s at most.
    pub ping: Duration,
    /// How long a connection is kept that nobody uses (50 s: a proxy or load balancer that closes idle connections mostly
    /// does so after a minute or more).
    pub idle_for: Duration,
    /// How many such connections are kept for one host (no limit).
    pub idle_connections: usize,
    /// Which version of HTTP is spoken.
    pub version: HttpVersion,
    /// Which addresses are connected to.
    pub addresses: Addresses,
    /// The socket of this machine on which one server listens.
    pub unix_socket: Option<UnixSocket>,
    /// What decompresses replies takes its memory from here.
    pub(crate) expanding: Budget,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            tls: Tls::default(),
            proxy: Proxy::System,
            connect: Duration::from_secs(15),
            ping: Duration::from_secs(30),
            idle_for: Duration::from_secs(50),
            idle_connections: usize::MAX,
            version: HttpVersion::Auto,
            addresses: Addresses::Any,
            unix_socket: None,
            expanding: Budget::new(memory::EXPANDING),
        }
    }
}

/// A Unix socket, which stands for one origin: what goes anywhere else takes the usual way.
#[derive(Clone, Debug)]
pub struct UnixSocket {
    origin: Uri,
    path: Arc<Path>,
}

impl UnixSocket {
    /// The socket at this path is where requests go that have the scheme, host and port of this URI.
    pub fn new(origin: Uri, path: &Path) -> Self {
        Self { origin, path: path.into() }
    }

    pub(super) fn is_for(&self, uri: &Uri) -> bool {
        self.origin.scheme() == uri.scheme() && self.origin.authority() == uri.authority()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Which version of HTTP to speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HttpVersion {
    /// HTTP/2 where the server offers it in the TLS handshake, HTTP/1.1 otherwise.
    #[default]
    Auto,
    /// HTTP/1.1 only.
    Http1,
    /// HTTP/2 only, without TLS too.
    Http2,
}

/// How the server's certificate is judged.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Tls {
    /// Certificates in PEM that are trusted beside the system's.
    pub ca_certificates: Vec<Vec<u8>>,
    /// Trusts any certificate. For tests and rescue only.
    pub insecure: bool,
    /// What the bridge proves to be where the server asks (mutual TLS). Only the configured URL's origin sees it.
    pub client: Option<ClientIdentity>,
}

/// A certificate of the user's and its private key, both in PEM. Debug shows neither.
#[derive(Clone)]
pub struct ClientIdentity {
    pub(crate) certificates: Vec<u8>,
    pub(crate) key: Vec<u8>,
}

impl ClientIdentity {
    /// The certificate, with its chain after it if it has one, and the key; one text may hold both and be given twice.
    /// They are read when the bridge starts.
    pub fn new(certificates: Vec<u8>, key: Vec<u8>) -> Self {
        Self { certificates, key }
    }
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientIdentity").finish_non_exhaustive()
    }
}

/// The way out of the local network.
#[derive(Clone, Debug, Default)]
pub enum Proxy {
    /// What the environment (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`) or the system says.
    #[default]
    System,
    /// A direct connection.
    None,
    /// This proxy for all but the hosts in `except`.
    Url {
        /// `http`, `https` or `socks5` URL, with credentials if it needs any.
        url: ProxyUrl,
        /// Hosts reached directly, in the form of `NO_PROXY`.
        except: Option<String>,
    },
}

/// A proxy's URL. Display and Debug leave out user and password.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyUrl(Url);

impl ProxyUrl {
    /// Reads a proxy URL; without a scheme, `http` is meant.
    ///
    /// # Errors
    /// A text that is no URL of a known proxy scheme.
    pub fn parse(text: &str) -> Result<Self, Error> {
        const HINT: &str = "give it like http://proxy.example.com:3128";
        let text = text.trim();
        let parsed = if text.contains("://") { Url::parse(text) } else { Url::parse(&format!("http://{text}")) };
        let url = parsed.map_err(|error| Error::config(format!("the proxy cannot be used ({error}); {HINT}")))?;
        if !matches!(url.scheme(), "http" | "https" | "socks4" | "socks4a" | "socks5" | "socks5h") {
            return Err(Error::config(format!("the proxy's scheme {:?} is not known; {HINT}", url.scheme())));
        }
        Ok(Self(url))
    }

    pub(crate) fn as_url(&self) -> &Url {
        &self.0
    }
}

impl fmt::Display for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.0.scheme(), self.0.host_str().unwrap_or_default())?;
        self.0.port().map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
