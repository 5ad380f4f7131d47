//! Keeps the server's cookies, which load balancers use to keep a session at one machine. In memory, never logged.
//!
//! Rule: a cookie comes from the configured URL's origin and goes back only there: not to a subdomain, another port or
//! another origin that a redirect leads to.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use cookie_store::{CookieStore, RawCookie};
use http::{HeaderMap, HeaderValue, header};
use url::Url;

use crate::{http::ServerUrl, secrets::Concealed};

/// Maximum number of cookies, which is the number that RFC 6265 (6.1) asks browsers to keep for one host.
const MOST: usize = 50;
/// Maximum length of a cookie with its attributes, in bytes, from the same section.
const LONGEST: usize = 4096;

/// The cookies of one origin.
pub(crate) struct Cookies {
    kept: Mutex<KeptCookies>,
}

struct KeptCookies {
    home: ServerUrl,
    store: CookieStore,
    /// Name and path of each cookie that is or was in the store. The store itself has no limit.
    seen: HashSet<(Vec<u8>, Vec<u8>)>,
    concealed: Concealed,
}

impl std::fmt::Debug for Cookies {
    /// Omits the cookies, which may be secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cookies").finish_non_exhaustive()
    }
}

impl KeptCookies {
    fn new(home: ServerUrl) -> Self {
        Self { home, store: CookieStore::default(), seen: HashSet::new(), concealed: Concealed::default() }
    }
}

impl Cookies {
    /// Creates an empty store for the origin of `home`.
    pub(crate) fn new(home: ServerUrl) -> Self {
        Self { kept: Mutex::new(KeptCookies::new(home)) }
    }

    /// Forgets all cookies, because the server is at another origin now.
    pub(crate) fn move_to(&self, home: ServerUrl) {
        *self.kept() = KeptCookies::new(home);
    }

    /// Stores the cookies that a response from `url` sets.
    pub(crate) fn learn(&self, headers: &HeaderMap, url: &ServerUrl) {
        let mut set = headers.get_all(header::SET_COOKIE).iter().filter(|set| set.len() <= LONGEST).peekable();
        if set.peek().is_none() {
            return;
        }
        let mut kept = self.kept();
        if !kept.home.is_origin_of(url) {
            return;
        }
        let url = url.as_url();
        for cookie in set {
            let Some(raw) = cookie.to_str().ok().and_then(|text| RawCookie::parse(text.to_owned()).ok()) else {
                continue;
            };
            kept.seen.insert(name_and_path(cookie.as_bytes(), url));
            if kept.seen.len() > MOST {
                // No benign server does this. A server sets the cookies that it still needs again.
                *kept = KeptCookies::new(kept.home.clone());
                kept.seen.insert(name_and_path(cookie.as_bytes(), url));
            }
            kept.store.store_response_cookies(std::iter::once(raw), url);
        }
        kept.concealed = Concealed::new(kept.store.iter_any().map(|cookie| cookie.value()));
    }

    /// Returns the `Cookie` header for a request to `url`, if there is one to send.
    pub(crate) fn header(&self, url: &ServerUrl) -> Option<HeaderValue> {
        let kept = self.kept();
        if kept.seen.is_empty() || !kept.home.is_origin_of(url) {
            return None;
        }
        let mut text = String::new();
        for (name, value) in kept.store.get_request_values(url.as_url()) {
            let separator = if text.is_empty() { "" } else { "; " };
            text.extend([separator, name, "=", value]);
        }
        let mut value = HeaderValue::try_from(text).ok().filter(|value| !value.is_empty())?;
        value.set_sensitive(true);
        Some(value)
    }

    fn kept(&self) -> MutexGuard<'_, KeptCookies> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the name and path, which identify a cookie (RFC 6265, 5.3). The domain is always the server's.
fn name_and_path(cookie: &[u8], url: &Url) -> (Vec<u8>, Vec<u8>) {
    let mut parts = cookie.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
    let name = parts.next().and_then(|pair| pair.split(|&byte| byte == b'=').next()).unwrap_or_default();
    let path = parts.filter_map(|part| part.split_at_checked(5)).rfind(|(key, _)| key.eq_ignore_ascii_case(b"path="));
    (name.trim_ascii().to_vec(), path.map_or(url.path().as_bytes(), |(_, path)| path).to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> ServerUrl {
        ServerUrl::parse(text).unwrap()
    }

    fn set(cookies: &Cookies, from: &str, headers: &[&str]) {
        let set = headers.iter().map(|header| (header::SET_COOKIE, HeaderValue::from_str(header).unwrap()));
        cookies.learn(&set.collect(), &url(from));
    }

    fn sent(cookies: &Cookies, to: &str) -> String {
        cookies.header(&url(to)).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    }

    #[test]
    fn cookies_are_set_by_and_sent_to_the_server_origin_only() {
        let cookies = Cookies::new(url("https://a.example.com/mcp"));
        set(&cookies, "https://a.example.com/mcp", &["lb=1; Path=/; Domain=example.com", "x=2; Path=/other"]);
        for other in
            ["https://b.a.example.com/", "https://example.com/", "https://a.example.com:444/", "http://a.example.com/"]
        {
            set(&cookies, other, &["lb=stolen; Path=/"]);
            assert_eq!(sent(&cookies, other), "", "{other}");
        }
        assert_eq!(sent(&cookies, "https://a.example.com/mcp"), "lb=1");
        set(&cookies, "https://a.example.com/mcp", &["lb=3; Path=/; Domain=example.com"]);
        assert_eq!(sent(&cookies, "https://a.example.com/mcp"), "lb=3");
        set(&cookies, "https://a.example.com/mcp", &["lb=; Path=/; Domain=example.com; Max-Age=0"]);
        assert_eq!(sent(&cookies, "https://a.example.com/mcp"), "");
        assert!(cookies.header(&url("https://a.example.com/other")).unwrap().is_sensitive());
    }

    #[test]
    fn number_of_stored_cookies_is_limited() {
        let cookies = Cookies::new(url("http://h/mcp"));
        for round in 0..10_000 {
            let name = format!("n{round}=v");
            let path = format!("lb=v; path=/{round}");
            set(&cookies, "http://h/mcp", &["lb=1; Path=/", &name, &path, &"long".repeat(2000)]);
            assert!(cookies.kept.lock().unwrap().seen.len() <= MOST);
        }
        assert!(sent(&cookies, "http://h/mcp").contains("lb=1"));
        // Malformed cookies.
        let odd =
            ["", ";", "=", "=;=", "a", "a=b; Max-Age=99999999999999999999; Expires=Thu, 99 Foo 99999 99:99:99 GMT"];
        set(&cookies, "http://h/mcp", &odd);
        sent(&cookies, "http://h/mcp");
    }
    /// Sets 1 MiB of cookies of maximum length in each of several hostile shapes, on a small stack.
    #[test]
    fn hostile_cookies_give_a_header_of_limited_size() {
        let parts = ["a", ";", "=", "; Path=/", "; Domain=", "\"", "%00", "; Expires=Thu, 01", ", ", "Path=/a;"];
        let small = std::thread::Builder::new().stack_size(256 << 10).spawn(move || {
            for part in parts {
                let cookies = Cookies::new(url("http://h/mcp"));
                for round in 0..(1 << 20) / LONGEST {
                    let head = format!("n{round}=v; Path=/");
                    let cookie = head.clone() + &part.repeat((LONGEST - head.len()) / part.len());
                    set(&cookies, "http://h/mcp", &[&cookie]);
                }
                assert!(sent(&cookies, "http://h/mcp").len() <= MOST * LONGEST, "{part}");
            }
        });
        small.unwrap().join().unwrap();
    }
}
