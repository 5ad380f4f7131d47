//! Settings for connections: TLS, proxy, HTTP version, Unix socket and timeouts.

use std::{fmt, path::Path, sync::Arc, time::Duration};

use http::Uri;
use url::Url;

use super::ssrf_guard::Addresses;
use crate::{
    error::Error,
    memory::{self, Budget},
};

/// How to make and keep connections.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HttpSettings {
    /// How to make TLS connections.
    pub tls: Tls,
    /// The proxy to connect through.
    pub proxy: Proxy,
    /// The timeout for name resolution, connection, proxy and TLS handshake together (15 s).
    pub connect: Duration,
    /// How long an HTTP/2 connection with open requests may be silent before it is pinged (30 s). The answer may take
    /// as long, but at most 20 s.
    pub ping: Duration,
    /// How long to keep an idle connection (50 s: proxies and load balancers mostly close idle connections after a
    /// minute or more).
    pub idle_for: Duration,
    /// How many idle connections to keep for one host (no limit).
    pub idle_connections: usize,
    /// The HTTP version to use.
    pub version: HttpVersion,
    /// The addresses to connect to.
    pub addresses: Addresses,
    /// The Unix socket of a server on this machine.
    pub unix_socket: Option<UnixSocket>,
    /// The memory budget for decompressing responses.
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
            expanding: Budget::new(memory::DECOMPRESSION),
        }
    }
}

/// A Unix socket that serves one origin, or all. Requests to other origins do not use it.
#[derive(Clone, Debug)]
pub struct UnixSocket {
    /// `None` for all.
    origin: Option<Uri>,
    path: Arc<Path>,
}

impl UnixSocket {
    /// Uses the socket at `path` for requests with the scheme, host and port of `origin`.
    pub fn new(origin: Uri, path: &Path) -> Self {
        Self { origin: Some(origin), path: path.into() }
    }

    /// Uses the socket at `path` for all requests.
    pub fn for_all(path: &Path) -> Self {
        Self { origin: None, path: path.into() }
    }

    pub(super) fn is_for(&self, uri: &Uri) -> bool {
        let is_same = |origin: &Uri| origin.scheme() == uri.scheme() && origin.authority() == uri.authority();
        self.origin.as_ref().is_none_or(is_same)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// The HTTP version to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum HttpVersion {
    /// HTTP/2 if the server offers it in the TLS handshake, otherwise HTTP/1.1.
    #[default]
    Auto,
    /// HTTP/1.1 only.
    Http1,
    /// HTTP/2 only, also without TLS.
    Http2,
}

/// How to verify the server's certificate.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Tls {
    /// Certificates in PEM format to trust in addition to the system's.
    pub ca_certificates: Vec<Vec<u8>>,
    /// Accepts any certificate. For tests and emergencies only.
    pub insecure: bool,
    /// The client certificate for servers that ask for one (mutual TLS). Only the origin of the configured URL sees
    /// it.
    pub client: Option<ClientIdentity>,
}

/// A client certificate and its private key, both in PEM format. Debug shows neither.
#[derive(Clone)]
pub struct ClientIdentity {
    pub(crate) certificates: Vec<u8>,
    pub(crate) key: Vec<u8>,
}

impl ClientIdentity {
    /// Takes the certificate, followed by its chain if it has one, and the key. A PEM text that contains both may be
    /// passed twice. They are parsed when the bridge starts.
    pub fn new(certificates: Vec<u8>, key: Vec<u8>) -> Self {
        Self { certificates, key }
    }
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientIdentity").finish_non_exhaustive()
    }
}

/// The proxy to connect through.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Proxy {
    /// The proxy from the environment (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`) or the system.
    #[default]
    System,
    /// A direct connection.
    None,
    /// This proxy for all hosts except those in `except`.
    Url {
        /// An `http`, `https` or `socks5` URL, with credentials if the proxy needs them.
        url: ProxyUrl,
        /// Hosts to connect to directly, in the format of `NO_PROXY`.
        except: Option<String>,
    },
}

/// A proxy's URL. Display and Debug leave out user and password.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyUrl(Url);

impl ProxyUrl {
    /// Parses a proxy URL. The default scheme is `http`.
    ///
    /// # Errors
    /// The text is not a URL with a known proxy scheme.
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
