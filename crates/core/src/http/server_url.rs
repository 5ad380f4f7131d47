//! The URL of a server: as text, as a URI for HTTP, and in a form without secrets for display.

use std::{fmt, path::PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::Uri;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
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

/// What is encoded in a query. WHATWG also encodes `'`, which other programs do not, and which signatures may cover.
const QUERY: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'<').add(b'>');
/// What is encoded in a fragment.
const FRAGMENT: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'`');

/// Returns a URL in its normal form, with user, password and fragment: the host in ASCII, no dot segments, no default
/// port, everything encoded that HTTP does not allow. Resolves it against `base`, if there is one. For programs that
/// keep URLs as texts; the host is the one that [`ServerUrl::parse`] finds.
///
/// # Errors
/// It is not an `http` or `https` URL with a host, or contains control characters.
pub fn normalized_url(text: &str, base: Option<&ServerUrl>) -> Result<String, Error> {
    if text.contains(|character: char| character.is_ascii_control()) {
        return Err(Error::config("the URL has a character that cannot be printed"));
    }
    let (text, fragment) = text.split_once('#').map_or((text, None), |(text, fragment)| (text, Some(fragment)));
    let (head, query) = text.split_once('?').map_or((text, None), |(head, query)| (head, Some(query)));
    // WHATWG drops spaces at the end, which belong to the path here.
    let head = head.trim_start_matches(' ').replace(' ', "%20");
    let ServerUrl { url, .. } = match base {
        Some(base) => base.join(&head).ok_or_else(|| Error::config("the URL cannot be used"))?,
        None => ServerUrl::parse(&head)?,
    };
    // A reference without a path keeps the base's query.
    let query = query.or_else(|| url.query().filter(|_| head.is_empty()));
    let mut normal = url[..Position::AfterPath].to_owned();
    for (mark, part, encoded) in [("?", query, QUERY), ("#", fragment, FRAGMENT)] {
        if let Some(part) = part {
            normal.push_str(mark);
            normal.extend(utf8_percent_encode(part, encoded));
        }
    }
    Ok(normal)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalized_urls_have_the_hosts_that_the_parser_finds() {
        for (text, normal) in [
            ("http://faß.de", "http://xn--fa-hia.de/"),
            ("HTTP://EXAMPLE.com:80/a/../b/./c?x='y'#z`", "http://example.com/b/c?x='y'#z%60"),
            ("http://user:pa%3Ass@0x7f.1:8080", "http://user:pa%3Ass@127.0.0.1:8080/"),
            ("https://h:443/a b?c d#e f", "https://h/a%20b?c%20d#e%20f"),
            ("http://h/ ", "http://h/%20"),
            ("http://h?", "http://h/?"),
            ("http://[::0:1]/ż?ż", "http://[::1]/%C5%BC?%C5%BC"),
            (r"http:\\h\a", "http://h/a"),
        ] {
            assert_eq!(normalized_url(text, None).unwrap(), normal, "{text}");
        }
        for bad in ["http://a b", "http://a\tb", "ftp://a", "http://", "/a", "http://a:99999", "http://a:-1"] {
            assert!(normalized_url(bad, None).is_err(), "{bad}");
        }
    }

    #[test]
    fn references_are_resolved() {
        let base = ServerUrl::parse("https://user@h:8443/a/b?c#d").unwrap();
        for (reference, normal) in [
            ("", "https://user@h:8443/a/b?c"),
            ("#e", "https://user@h:8443/a/b?c#e"),
            ("?e", "https://user@h:8443/a/b?e"),
            ("../e?f='", "https://user@h:8443/e?f='"),
            ("//i/e", "https://i/e"),
            ("http://i/", "http://i/"),
        ] {
            assert_eq!(normalized_url(reference, Some(&base)).unwrap(), normal, "{reference}");
        }
        assert!(normalized_url("ftp://i/", Some(&base)).is_err());
    }
}
