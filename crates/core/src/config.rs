//! What the bridge is told: the server, the headers, limits and times. Plain values, checked where they are set.
//!
//! The core reads no environment and no argument: the command (or the Python module) does, and fills a [`Config`].
//! Rule: whatever may hold a secret is a type whose Debug and Display redact it.

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
    /// The words in which errors tell the client which setting helps, if one does: those of the program around the bridge.
    pub hint_words: HintWords,
    /// The folder for large messages on their way: unlinked files that only this process can read. The system's folder for
    /// temporary files unless told otherwise.
    pub spool_folder: PathBuf,
    /// Where headers come from that may change while the bridge runs.
    pub header_source: Option<HeaderSource>,
    /// How to sign in where the server asks for it and `headers` have no `Authorization`; off unless set.
    #[cfg(feature = "oauth")]
    pub oauth: Option<OAuth>,
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
            tools: ToolFilter::default(),
            client_era: ClientEra::default(),
            hint_words: Hint::as_str,
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

    /// The user's sign-in at the server; none if signing in is turned off.
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

    /// Conceals what is secret in the settings beside the headers.
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

    /// The headers of the user, each marked sensitive.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
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

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    use super::*;
    use crate::http::{ClientIdentity, ProxyUrl};
    use crate::text::shown;

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

    #[test]
    fn what_is_secret_in_urls_and_keys_is_known() {
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
