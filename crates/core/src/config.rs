//! The settings of the bridge: the server, the headers, limits and timeouts. Plain values, checked when they are set.
//!
//! The core reads no environment variables and no arguments. The command (or the Python module) does, and fills a
//! [`Config`].
//!
//! Rule: a value that may hold a secret has a type that redacts it in Debug and Display.

mod tool_filter;

use crate::{
    error::{Error, Hint, HintWords},
    http::{HttpSettings, HttpVersion, Proxy, ServerUrl, Tls, UnixSocket, socket_url},
    secrets::{self, Concealed},
};
use std::{fmt, path::PathBuf, pin::Pin, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, header};

pub use self::tool_filter::ToolFilter;
#[cfg(feature = "oauth")]
use crate::auth::{Account, OAuth};

/// Headers that MCP or HTTP itself sets. A user's value would break the session (R97).
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

/// The settings of [`crate::run`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The URL of the MCP server.
    pub url: ServerUrl,
    /// Timeouts and waits.
    pub timeouts: Timeouts,
    /// Sizes and counts.
    pub limits: Limits,
    /// The Unix socket on which the server listens, instead of the host and port of its URL. Requests to other origins,
    /// like an authorization server, connect as usual.
    pub unix_socket: Option<PathBuf>,
    /// Settings of secure connections.
    pub tls: Tls,
    /// The proxy to connect through.
    pub proxy: Proxy,
    /// The HTTP version to use.
    pub http_version: HttpVersion,
    /// How many idle connections to the server are kept (no limit).
    pub idle_connections: usize,
    /// How long an idle connection is kept (50 s).
    pub idle_for: Duration,
    /// The HTTP transport of MCP to use.
    pub transport: TransportMode,
    /// Writes U+2028 and U+2029 as escapes, for clients whose line reader takes them for line breaks (false).
    pub escape_separators: bool,
    /// Merges the pages of a list into one, for clients that ask only for the first (false).
    pub merge_pages: bool,
    /// The server's tools that the client may see and call (all).
    pub tools: ToolFilter,
    /// The protocol for a client that knows both eras.
    pub client_era: ClientEra,
    /// Words the hint of an error to the client, in terms of the program around the bridge.
    pub hint_words: HintWords,
    /// The folder for large messages in transit: unlinked files that only this process can read. By default the
    /// system's folder for temporary files.
    pub spool_folder: PathBuf,
    /// The folder in which the bridge keeps what the server says about itself: its answer to the handshake and its
    /// lists. A client that starts before the server gets them. `None`, the default, keeps nothing.
    pub state_folder: Option<PathBuf>,
    /// The source of the server's URL, if that may change while the bridge runs.
    pub url_source: Option<UrlSource>,
    /// The source of headers that may change while the bridge runs.
    pub header_source: Option<HeaderSource>,
    /// How to sign in if the server asks for it and `headers` have no `Authorization`. `None`, the default, turns
    /// sign-in off.
    #[cfg(feature = "oauth")]
    pub oauth: Option<OAuth>,
    headers: HeaderMap,
}

impl Config {
    /// Returns the defaults for a server at `url`. For a server on a Unix socket, `url` is `unix:/path/of/socket:/path`
    /// or `http+unix://%2Fpath%2Fof%2Fsocket/path`. A user and password in `url` are sent as `Authorization: Basic`
    /// (RFC 7617), until [another authorization](Self::set_authorization) replaces it.
    ///
    /// # Errors
    /// Fails if `url` is neither an absolute `http` or `https` URL nor one of a socket.
    pub fn new(url: &str) -> Result<Self, Error> {
        let mut config = match socket_url(url.trim())? {
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
            escape_separators: false,
            merge_pages: false,
            tools: ToolFilter::default(),
            client_era: ClientEra::default(),
            hint_words: Hint::as_str,
            spool_folder: std::env::temp_dir(),
            state_folder: None,
            url_source: None,
            header_source: None,
            #[cfg(feature = "oauth")]
            oauth: None,
            headers: HeaderMap::new(),
        })
    }

    /// Adds a header to every HTTP request to the server; replaces an earlier one of the same name. The value counts as
    /// a secret: it is never logged or sent to another origin.
    ///
    /// # Errors
    /// Fails if HTTP does not allow the name or value (line breaks in particular), or if the name belongs to the
    /// protocol.
    pub fn set_header(&mut self, name: &str, value: &str) -> Result<(), Error> {
        let name = HeaderName::from_bytes(name.trim().as_bytes())
            .map_err(|_| Error::config(format!("{name:?} is not an HTTP header name; write 'Name: Value'")))?;
        if RESERVED.contains(&name.as_str()) || name.as_str().starts_with("mcp-param-") {
            return Err(Error::config(format!("the header {name} is set by the protocol; leave it out")));
        }
        // The error does not show the value.
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
    /// Fails if HTTP does not allow the value, or if it is a scheme without credentials.
    pub fn set_authorization(&mut self, value: &str) -> Result<(), Error> {
        let value = value.trim();
        if value.eq_ignore_ascii_case("bearer") || value.eq_ignore_ascii_case("basic") {
            return Err(Error::config(format!(
                "the authorization is only the word {value:?}; give the whole value in quotes, like 'Bearer TOKEN'"
            )));
        }
        self.set_header(header::AUTHORIZATION.as_str(), value)
    }

    /// Returns the server's Unix socket, if it has one.
    pub(crate) fn socket(&self) -> Option<UnixSocket> {
        Some(UnixSocket::new(self.url.as_uri().clone(), self.unix_socket.as_deref()?))
    }

    /// Returns the user's sign-in at the server; `None` if sign-in is turned off.
    #[cfg(feature = "oauth")]
    pub fn account(&self) -> Option<Account> {
        let http = HttpSettings {
            unix_socket: self.socket(),
            tls: self.tls.clone(),
            proxy: self.proxy.clone(),
            connect: self.timeouts.connect,
            ..HttpSettings::default()
        };
        Some(Account::new(self.url.clone(), http, self.oauth.clone()?))
    }

    /// Conceals the secrets in the settings other than the headers.
    pub(crate) fn concealed(&self) -> Concealed {
        let mut values = secrets::of_url(self.url.as_url());
        if let Proxy::Url { url, .. } = &self.proxy {
            values.extend(secrets::of_url(url.as_url()));
        }
        if let Some(identity) = &self.tls.client {
            let lines = identity.key.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
            values.extend(lines.filter(|line| !line.starts_with(b"-----")).map(<[u8]>::to_vec));
        }
        Concealed::new(values)
    }

    /// Returns the user's headers, each marked sensitive.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }
}

/// Timeouts and waits of the bridge.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Timeouts {
    /// The time for address lookup, connection and TLS handshake together (15 s).
    pub connect: Duration,
    /// The longest silence of the server during a request; any byte restarts it (300 s).
    pub idle: Duration,
    /// The time for a whole request, from stdin to its response (no limit: the client sets it, R44).
    pub total: Option<Duration>,
    /// How long a client waits for the answer to its handshake (3 s). If the server cannot be reached or has not
    /// answered by then, the bridge answers it provisionally, and makes the handshake when the server is there. `None`
    /// waits as long as the server takes, and reports that it cannot be reached as an error.
    pub attach: Option<Duration>,
    /// How long a request waits for a server that cannot be reached (20 s).
    pub hold: Duration,
    /// The silence of the server after which a request with a progress token gets progress from the bridge (no progress
    /// of its own).
    pub heartbeat: Option<Duration>,
    /// How long nothing is sent to the server before it is pinged (no pings), in protocols with sessions.
    pub keep_alive: Option<Duration>,
    /// How long open requests may continue after the end of stdin (5 s).
    pub drain: Duration,
    /// The backoff before a failed request is sent again (100 ms). It doubles four times before the request fails,
    /// about three seconds in all, unless the server asks for other waits (R79, R95).
    pub retry: Duration,
    /// The wait before an ended event stream is resumed, if the server asks for none (1 s; R31, R33).
    pub reconnect: Duration,
    /// How long an HTTP/2 connection may be silent while requests are open before it is pinged (30 s). The ping's
    /// answer has the same time, 20 s at most.
    pub ping: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            idle: Duration::from_mins(5),
            total: None,
            attach: Some(Duration::from_secs(3)),
            hold: Duration::from_secs(20),
            heartbeat: None,
            keep_alive: None,
            drain: Duration::from_secs(5),
            retry: Duration::from_millis(100),
            reconnect: Duration::from_secs(1),
            ping: Duration::from_secs(30),
        }
    }
}

/// Limits on sizes and counts, which bound memory.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Requests that may be open at the server at once (64). Notifications, responses and pings do not count.
    pub concurrency: usize,
    /// The largest message from the server, in bytes (4 GiB). A large one is in a temporary file until it is complete.
    pub incoming: u64,
    /// The largest message from the client, in bytes (64 MiB). It is held in memory.
    pub outgoing: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { concurrency: 64, incoming: 4 << 30, outgoing: 64 << 20 }
    }
}

/// The protocol for a client that knows both eras. Such a client sends `server/discover`, and falls back to
/// `initialize` if that is refused. Any other client is translated where necessary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientEra {
    /// The server's protocol, so nothing needs translation.
    #[default]
    Auto,
    /// The protocol of 2025-11-25 and before.
    Legacy,
    /// The protocol of 2026-07-28.
    Modern,
}

/// The HTTP transport of MCP to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransportMode {
    /// Streamable HTTP, or HTTP+SSE if the server shows that it knows nothing newer (R54).
    #[default]
    Auto,
    /// Streamable HTTP only (2025-03-26 and later).
    Http,
    /// HTTP+SSE only (2024-11-05).
    Sse,
    /// HTTP+SSE, or Streamable HTTP if the server has no such stream.
    SseFirst,
}

/// Finds the server's URL, for servers that write down where they listen. It is called when the server cannot be
/// reached, at most once a second, and once before the first request if `before_first` is set.
#[derive(Clone)]
pub struct UrlSource {
    load: Arc<dyn Fn() -> LoadedUrl + Send + Sync>,
    pub(crate) before_first: bool,
    /// Identifies the server, whatever its URL is.
    pub(crate) name: String,
}

/// The result of a [`UrlSource`]: a URL as [`Config::new`] takes it.
pub type LoadedUrl = Pin<Box<dyn Future<Output = Result<String, Error>> + Send>>;

impl UrlSource {
    /// Creates a source that calls `load`. `name` identifies the server, whatever its URL is. Set `before_first` if the
    /// URL in the [`Config`] is not the server's. A user and password in a loaded URL are not used.
    pub fn new(name: String, load: impl Fn() -> LoadedUrl + Send + Sync + 'static, before_first: bool) -> Self {
        Self { load: Arc::new(load), before_first, name }
    }

    pub(crate) fn load(&self) -> LoadedUrl {
        (self.load)()
    }
}

impl fmt::Debug for UrlSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UrlSource").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Reloads the user's headers, for credentials that expire or rotate. It is called once before the first request if
/// `before_first` is set, and once for each set of headers that the server answers with 401.
#[derive(Clone)]
pub struct HeaderSource {
    load: Arc<dyn Fn() -> LoadedHeaders + Send + Sync>,
    pub(crate) before_first: bool,
}

/// The result of a [`HeaderSource`]: all of the user's headers. They replace those in the [`Config`].
pub type LoadedHeaders = Pin<Box<dyn Future<Output = Result<HeaderMap, Error>> + Send>>;

impl HeaderSource {
    /// Creates a source that calls `load`. Set `before_first` if there are no usable headers before that.
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

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    use super::*;
    use crate::http::{ClientIdentity, ProxyUrl};
    use crate::text::shown;

    #[test]
    fn url_credentials_are_sent_as_basic_unless_authorization_is_set() {
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
    fn invalid_header_error_does_not_show_its_value() {
        let mut config = Config::new("http://localhost/mcp").unwrap();
        for (name, value) in [("X-Key", "hunter2\r\nX: y"), ("Mcp-Session-Id", "hunter2"), ("a b", "hunter2")] {
            let error = config.set_header(name, value).unwrap_err();
            assert!(error.is_config() && !error.to_string().contains("hunter2"), "{error}");
        }
        assert!(config.set_authorization("Bearer").unwrap_err().to_string().contains("Bearer TOKEN"));
        assert!(config.headers().is_empty());
    }

    #[test]
    fn server_url_must_be_http_or_https() {
        for bad in ["", "example.com/mcp", "ftp://example.com", "http://", "/mcp"] {
            assert!(ServerUrl::parse(bad).unwrap_err().is_config(), "{bad}");
        }
        assert_eq!(ServerUrl::parse(" http://[::1]:8080 ").unwrap().to_string(), "http://[::1]:8080/");
    }

    #[test]
    fn secrets_in_urls_proxy_and_client_key_are_redacted() {
        let mut config = Config::new("https://us%C3%A9r-kanarie:pass%2Fkanarie@h/mcp?key=query%20kanarie&v=1").unwrap();
        config.proxy =
            Proxy::Url { url: ProxyUrl::parse("proxy-user:proxy-kanarie@proxy:3128").unwrap(), except: None };
        let key = "-----BEGIN PRIVATE KEY-----\nlinekanarie1\r\nlinekanarie2\n-----END PRIVATE KEY-----\n";
        config.tls.client = Some(ClientIdentity::new(Vec::new(), key.into()));
        let _concealed = config.concealed();
        let sent = STANDARD.encode("proxy-user:proxy-kanarie");
        for page in [
            "usér-kanarie",
            "pass/kanarie",
            "query kanarie",
            "query%20kanarie",
            "query+kanarie",
            "proxy-kanarie",
            &sent,
            "linekanarie1",
            "linekanarie2",
        ] {
            assert_eq!(shown(page), "[secret]");
        }
        assert_eq!(shown("-----BEGIN PRIVATE KEY-----"), "-----BEGIN PRIVATE KEY-----");
    }
}
