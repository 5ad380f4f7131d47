//! What the bridge is told: the server, the headers, limits and times. Plain values, checked where they are set.
//!
//! The core reads no environment and no argument: the command (or the Python module) does, and fills a [`Config`].
//! Rule: whatever may hold a secret is a type whose Debug and Display redact it.

use std::{fmt, path::PathBuf, pin::Pin, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use percent_encoding::percent_decode_str;
use url::{Position, Url};

use crate::{
    error::Error,
    http_client::{HttpSettings, HttpVersion, UnixSocket},
    tool_filter::ToolFilter,
};

/// Headers that the protocol or HTTP itself sets; a user's value would break the session (R97).
const RESERVED: &[&str] = &[
    "accept",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "last-event-id",
    "mcp-method",
    "mcp-name",
    "mcp-protocol-version",
    "mcp-session-id",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// Everything that [`crate::run`] needs to know.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Where the MCP server listens.
    pub url: ServerUrl,
    /// Times, all in [`Duration`].
    pub timeouts: Timeouts,
    /// Sizes and counts.
    pub limits: Limits,
    /// The Unix socket on which the server listens, in the place of the host and port of its URL. Requests to other origins,
    /// like an authorization server, take the usual way.
    pub unix_socket: Option<PathBuf>,
    /// How a secure connection is made.
    pub tls: Tls,
    /// The way out of the local network.
    pub proxy: Proxy,
    /// Which version of HTTP is spoken.
    pub http_version: HttpVersion,
    /// How many connections to the server are kept while nobody uses them (no limit).
    pub idle_connections: usize,
    /// How long they are kept (50 s).
    pub idle_for: Duration,
    /// Which of MCP's HTTP transports the server is spoken to with.
    pub transport: TransportMode,
    /// Which of the server's tools the client may see and call (all).
    pub tools: ToolFilter,
    /// Which protocol a client is to speak that knows both eras.
    pub client_era: ClientEra,
    /// The folder for large messages on their way: unlinked files that only this process can read. The system's folder for
    /// temporary files unless told otherwise.
    pub spool_folder: PathBuf,
    /// Where headers come from that may change while the bridge runs.
    pub header_source: Option<HeaderSource>,
    /// How to sign in where the server asks for it and `headers` have no `Authorization`; off unless set.
    #[cfg(feature = "oauth")]
    pub oauth: Option<crate::oauth::OAuth>,
    headers: HeaderMap,
}

impl Config {
    /// The defaults for a server at `url`; `unix:/path/of/socket:/path` and `http+unix://%2Fpath%2Fof%2Fsocket/path` are one that
    /// listens on a Unix socket. A user and a password in it are sent as `Authorization: Basic`, until there is another
    /// [authorization](Self::set_authorization) (RFC 7617).
    ///
    /// # Errors
    /// A text that is no absolute `http` or `https` URL, and none of a socket.
    pub fn new(url: &str) -> Result<Self, Error> {
        let mut config = match on_socket(url.trim())? {
            Some((socket, url)) => Self { unix_socket: Some(socket), ..Self::without_credentials(&url)? },
            None => Self::without_credentials(url)?,
        };
        if let Some(basic) = config.url.basic() {
            config.set_authorization(&basic)?;
        }
        Ok(config)
    }

    fn without_credentials(url: &str) -> Result<Self, Error> {
        let HttpSettings { tls, proxy, version, idle_connections, idle_for, .. } = HttpSettings::default();
        Ok(Self {
            url: ServerUrl::parse(url)?,
            unix_socket: None,
            timeouts: Timeouts::default(),
            limits: Limits::default(),
            tls,
            proxy,
            http_version: version,
            idle_connections,
            idle_for,
            transport: TransportMode::Auto,
            tools: ToolFilter::default(),
            client_era: ClientEra::default(),
            spool_folder: std::env::temp_dir(),
            header_source: None,
            #[cfg(feature = "oauth")]
            oauth: None,
            headers: HeaderMap::new(),
        })
    }

    /// Adds a header to every HTTP request to the server; an earlier one of the same name is replaced.
    /// The value counts as a secret: it is never logged, nor sent to another origin.
    ///
    /// # Errors
    /// A name or value that HTTP does not allow (line breaks in particular), or a name that belongs to the protocol.
    pub fn set_header(&mut self, name: &str, value: &str) -> Result<(), Error> {
        let name = HeaderName::from_bytes(name.trim().as_bytes())
            .map_err(|_| Error::config(format!("{name:?} is no HTTP header name; write 'Name: Value'")))?;
        if RESERVED.contains(&name.as_str()) || name.as_str().starts_with("mcp-param-") {
            return Err(Error::config(format!("the header {name} is set by the protocol; leave it out")));
        }
        // The value itself stays out of the message.
        let mut value =
            HeaderValue::from_str(value.trim()).or_else(|_| HeaderValue::from_bytes(value.trim().as_bytes())).map_err(
                |_| Error::config(format!("the value of header {name} holds a line break or control character")),
            )?;
        value.set_sensitive(true);
        self.headers.insert(name, value);
        Ok(())
    }

    /// Sets `Authorization` to `value`, verbatim.
    ///
    /// # Errors
    /// A value that HTTP does not allow, or a scheme without credentials.
    pub fn set_authorization(&mut self, value: &str) -> Result<(), Error> {
        let value = value.trim();
        if value.eq_ignore_ascii_case("bearer") || value.eq_ignore_ascii_case("basic") {
            return Err(Error::config(format!(
                "the authorization is only the word {value:?}; give the whole value in quotes, like 'Bearer TOKEN'"
            )));
        }
        self.set_header(header::AUTHORIZATION.as_str(), value)
    }

    /// The way to the server where that is a socket.
    pub(crate) fn socket(&self) -> Option<UnixSocket> {
        Some(UnixSocket::new(self.url.as_uri().clone(), self.unix_socket.as_deref()?))
    }

    /// The headers of the user, each marked sensitive.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }
}

/// An absolute `http` or `https` URL. Display and Debug leave out user, password and query, which may be secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerUrl {
    url: Url,
    /// The same for HTTP, which has no user and password there.
    uri: Uri,
}

impl ServerUrl {
    /// Reads a URL; a fragment is dropped.
    ///
    /// # Errors
    /// A text that is no absolute `http` or `https` URL with a host.
    pub fn parse(text: &str) -> Result<Self, Error> {
        const HINT: &str = "give the server's address like https://example.com/mcp";
        let url = Url::parse(text.trim())
            .map_err(|error| Error::config(format!("the URL cannot be used ({error}); {HINT}")))?;
        if !is_http(&url) {
            return Err(Error::config(format!("the URL's scheme is {:?}, not http or https; {HINT}", url.scheme())));
        }
        Self::of(url).ok_or_else(|| Error::config(format!("the URL cannot be used; {HINT}")))
    }

    /// What its user and password are in HTTP, if there are any.
    fn basic(&self) -> Option<String> {
        let (user, password) = (self.url.username(), self.url.password());
        if user.is_empty() && password.is_none() {
            return None;
        }
        let mut pair: Vec<u8> = percent_decode_str(user).collect();
        pair.push(b':');
        pair.extend(percent_decode_str(password.unwrap_or_default()));
        Some(format!("Basic {}", STANDARD.encode(pair)))
    }

    /// Where a text leads from here, if that is such a URL too.
    pub(crate) fn join(&self, text: &str) -> Option<Self> {
        self.url.join(text).ok().filter(is_http).and_then(Self::of)
    }

    /// The same with `https` in the place of `http`, if it is said by a server of the same host that is reached by `https`: one
    /// behind a proxy often does not know that it is.
    pub(crate) fn secured_as(&self, base: &Self) -> Option<Self> {
        if self.is_secure() || !base.is_secure() || self.url.host() != base.url.host() {
            return None;
        }
        let mut url = self.url.clone();
        url.set_scheme("https").ok()?;
        Self::of(url)
    }

    pub(crate) fn is_secure(&self) -> bool {
        self.url.scheme() == "https"
    }

    fn of(mut url: Url) -> Option<Self> {
        url.set_fragment(None);
        let uri = format!("{}://{}", url.scheme(), &url[Position::BeforeHost..]).parse().ok()?;
        Some(Self { url, uri })
    }

    pub(crate) fn as_url(&self) -> &Url {
        &self.url
    }

    pub(crate) fn as_uri(&self) -> &Uri {
        &self.uri
    }

    /// Whether the other has the same scheme, host and port.
    pub(crate) fn is_origin_of(&self, other: &Self) -> bool {
        // Both were put into their one form when they were read, without the port that the scheme has anyway.
        self.uri.scheme() == other.uri.scheme() && self.uri.authority() == other.uri.authority()
    }
}

/// The path of the socket, and the URL on it, if this is a URL of a socket.
fn on_socket(text: &str) -> Result<Option<(PathBuf, String)>, Error> {
    const HINT: &str = "write unix:/path/of/socket:/mcp";
    let has = |scheme: &str| text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    let (socket, path) = if has("http+unix://") {
        let rest = text.get("http+unix://".len()..).unwrap_or_default();
        let (socket, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let socket = percent_decode_str(socket).decode_utf8();
        (socket.map_err(|_| Error::config(format!("the path of the socket is no text; {HINT}")))?.into_owned(), path)
    } else if has("unix:") {
        let rest = text.get("unix:".len()..).unwrap_or_default();
        let rest = rest.strip_prefix("//").filter(|rest| rest.starts_with('/')).unwrap_or(rest);
        let (socket, path) = rest.split_at(rest.find(":/").unwrap_or(rest.len()));
        (socket.to_owned(), path.strip_prefix(':').unwrap_or_default())
    } else {
        return Ok(None);
    };
    if !socket.starts_with('/') || socket.starts_with("//") || socket.contains('\0') {
        return Err(Error::config(format!("the path of the socket does not begin with /; {HINT}")));
    }
    let path = if path.is_empty() { "/mcp" } else { path };
    Ok(Some((socket.into(), format!("http://localhost{path}"))))
}

fn is_http(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https")
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Shown(&self.uri).fmt(f)
    }
}

/// The URI of a request to an HTTP server, as it may be shown: its query may be a secret.
pub(crate) struct Shown<'a>(pub(crate) &'a Uri);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(uri) = self;
        let (scheme, host) = (uri.scheme_str().unwrap_or_default(), uri.host().unwrap_or_default());
        write!(f, "{scheme}://{host}")?;
        if let Some(port) = uri.port() {
            write!(f, ":{port}")?;
        }
        f.write_str(uri.path())?;
        if uri.query().is_some() { f.write_str("?…") } else { Ok(()) }
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Times after which the bridge acts.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Timeouts {
    /// Address, connection and TLS handshake together (15 s).
    pub connect: Duration,
    /// The longest silence of the server during a request; any byte starts it anew (300 s).
    pub idle: Duration,
    /// The whole life of a request, from stdin to its answer (no limit: the client owns that, R44).
    pub total: Option<Duration>,
    /// How long open requests may go on after stdin has ended (5 s).
    pub drain: Duration,
    /// The wait before a request that failed is sent again (100 ms). It is doubled four times before the request is given
    /// up, about three seconds in all, unless the server asks for other waits (R79, R95).
    pub retry: Duration,
    /// The wait before an event stream that ended is taken up again, if the server asks for none (1 s; R31, R33).
    pub reconnect: Duration,
    /// How long an HTTP/2 connection may be silent while requests are open before it is pinged (30 s). The answer has as
    /// much time, 20 s at most.
    pub ping: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            idle: Duration::from_mins(5),
            total: None,
            drain: Duration::from_secs(5),
            retry: Duration::from_millis(100),
            reconnect: Duration::from_secs(1),
            ping: Duration::from_secs(30),
        }
    }
}

/// Sizes and counts that keep memory bounded.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Requests that may be open at the server at once (64). Notifications, responses and pings do not count.
    pub concurrency: usize,
    /// The largest message from the server, in bytes (4 GiB). What is large is in a temporary file until it is complete.
    pub incoming: u64,
    /// The largest message from the client, in bytes (64 MiB), which is in memory.
    pub outgoing: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { concurrency: 64, incoming: 4 << 30, outgoing: 64 << 20 }
    }
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

/// Which protocol a client is to speak that knows both eras: it asks with `server/discover`, and begins with `initialize`
/// where that is refused. A client that begins in another way is translated where it has to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientEra {
    /// The server's, so that nothing has to be translated.
    #[default]
    Auto,
    /// That of 2025-11-25 and before.
    Legacy,
    /// That of 2026-07-28.
    Modern,
}

/// Which of MCP's HTTP transports to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TransportMode {
    /// Streamable HTTP; HTTP+SSE where the server shows that it knows nothing newer (R54).
    #[default]
    Auto,
    /// Streamable HTTP only (2025-03-26 and later).
    Http,
    /// HTTP+SSE only (2024-11-05).
    Sse,
    /// HTTP+SSE; Streamable HTTP where the server has no such stream.
    SseFirst,
}

/// Makes the user's headers anew: credentials that expire or rotate. Asked once before the first request if
/// `before_first`, and once for each set of headers that the server answers with 401.
#[derive(Clone)]
pub struct HeaderSource {
    load: Arc<dyn Fn() -> LoadedHeaders + Send + Sync>,
    pub(crate) before_first: bool,
}

/// What a [`HeaderSource`] gives: all of the user's headers, in place of those in the [`Config`].
pub type LoadedHeaders = Pin<Box<dyn Future<Output = Result<HeaderMap, Error>> + Send>>;

impl HeaderSource {
    /// A source that calls `load`; `before_first` says that there are no usable headers before.
    pub fn new(load: impl Fn() -> LoadedHeaders + Send + Sync + 'static, before_first: bool) -> Self {
        Self { load: Arc::new(load), before_first }
    }

    pub(crate) fn load(&self) -> LoadedHeaders {
        (self.load)()
    }
}

impl fmt::Debug for HeaderSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeaderSource").field("before_first", &self.before_first).finish_non_exhaustive()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_in_the_url_is_sent_as_basic_unless_there_is_another_authorization() {
        for (url, basic) in [
            ("https://user:pass@a.example/mcp", Some("Basic dXNlcjpwYXNz")),
            ("https://us%40er:p%3Ass%20%C3%A9@a.example/mcp", Some("Basic dXNAZXI6cDpzcyDDqQ==")),
            ("https://token@a.example/mcp", Some("Basic dG9rZW46")),
            ("https://a.example/mcp", None),
        ] {
            let mut config = Config::new(url).unwrap();
            let sent = config.headers().get("authorization").map(|value| value.to_str().unwrap());
            assert_eq!(sent, basic, "{url}");
            config.set_authorization("Bearer t").unwrap();
            assert_eq!(config.headers()["authorization"], "Bearer t");
        }
    }

    #[test]
    fn r10_no_secret_in_debug_or_display() {
        let mut config = Config::new("https://user:hunter2@example.com/mcp?key=hunter2#x").unwrap();
        config.set_authorization("Bearer hunter2").unwrap();
        config.proxy = Proxy::Url { url: ProxyUrl::parse("user:hunter2@proxy:3128").unwrap(), except: None };
        config.tls.client = Some(ClientIdentity::new(b"hunter2".to_vec(), b"hunter2".to_vec()));
        let shown = format!("{config:?} {}", config.url);
        assert!(!shown.contains("hunter2") && !shown.contains(&format!("{:?}", b"hunter2")[1..10]), "{shown}");
        assert!(shown.contains("https://example.com/mcp?…"), "{shown}");
        assert!(shown.contains("http://proxy:3128"), "{shown}");
    }

    #[test]
    fn a_bad_header_is_refused_without_its_value() {
        let mut config = Config::new("http://localhost/mcp").unwrap();
        for (name, value) in [("X-Key", "hunter2\r\nX: y"), ("Mcp-Session-Id", "hunter2"), ("a b", "hunter2")] {
            let error = config.set_header(name, value).unwrap_err();
            assert!(error.is_config() && !error.to_string().contains("hunter2"), "{error}");
        }
        assert!(config.set_authorization("Bearer").unwrap_err().to_string().contains("Bearer TOKEN"));
        assert!(config.headers().is_empty());
    }

    #[test]
    fn only_http_urls() {
        for bad in ["", "example.com/mcp", "ftp://example.com", "http://", "/mcp"] {
            assert!(ServerUrl::parse(bad).unwrap_err().is_config(), "{bad}");
        }
        assert_eq!(ServerUrl::parse(" http://[::1]:8080 ").unwrap().to_string(), "http://[::1]:8080/");
    }
}
