//! The URL of a server: as text, as a URI for HTTP, and in a form without secrets for display.

use std::{fmt, path::PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::Uri;
use percent_encoding::percent_decode_str;
use url::{Position, Url};

use crate::error::Error;

/// An absolute `http` or `https` URL. Display and Debug leave out user, password and query, which may be secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerUrl {
    url: Url,
    /// The same URL for requests, without user and password.
    uri: Uri,
}

impl ServerUrl {
    /// Parses a URL and drops its fragment.
    ///
    /// # Errors
    /// The text is not an absolute `http` or `https` URL with a host.
    pub fn parse(text: &str) -> Result<Self, Error> {
        const HINT: &str = "give the server's address like https://example.com/mcp";
        let url = Url::parse(text.trim())
            .map_err(|error| Error::config(format!("the URL cannot be used ({error}); {HINT}")))?;
        if !is_http(&url) {
            return Err(Error::config(format!("the URL's scheme is {:?}, not http or https; {HINT}", url.scheme())));
        }
        Self::of(url).ok_or_else(|| Error::config(format!("the URL cannot be used; {HINT}")))
    }

    /// Returns the value of an `Authorization` header for the URL's user and password, if it has any.
    pub(crate) fn basic(&self) -> Option<String> {
        let (user, password) = (self.url.username(), self.url.password());
        if user.is_empty() && password.is_none() {
            return None;
        }
        let mut pair: Vec<u8> = percent_decode_str(user).collect();
        pair.push(b':');
        pair.extend(percent_decode_str(password.unwrap_or_default()));
        Some(format!("Basic {}", STANDARD.encode(pair)))
    }

    /// Resolves a reference against this URL. Returns `None` if the result is not an `http` or `https` URL.
    pub(crate) fn join(&self, text: &str) -> Option<Self> {
        self.url.join(text).ok().filter(is_http).and_then(Self::of)
    }

    /// Returns this URL with `https` instead of `http` if `base` has the same host and uses `https`. A server behind
    /// a proxy often does not know that its clients use `https`.
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

    /// True if both have the same scheme, host and port.
    pub(crate) fn is_origin_of(&self, other: &Self) -> bool {
        // Both were normalized when they were parsed, and a scheme's default port was removed.
        self.uri.scheme() == other.uri.scheme() && self.uri.authority() == other.uri.authority()
    }
}

/// Returns the path of the socket and the URL to request on it, if the text is the URL of a Unix socket.
pub(crate) fn socket_url(text: &str) -> Result<Option<(PathBuf, String)>, Error> {
    const HINT: &str = "write unix:/path/of/socket:/mcp";
    let has = |scheme: &str| text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    let (socket, path) = if has("http+unix://") {
        let rest = text.get("http+unix://".len()..).unwrap_or_default();
        let (socket, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let socket = percent_decode_str(socket).decode_utf8();
        (socket.map_err(|_| Error::config(format!("the path of the socket is not UTF-8; {HINT}")))?.into_owned(), path)
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
        UriWithoutQuery(&self.uri).fmt(f)
    }
}

/// The URI of a request, formatted without its query, which may be a secret.
pub(crate) struct UriWithoutQuery<'a>(pub(crate) &'a Uri);

impl fmt::Display for UriWithoutQuery<'_> {
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
