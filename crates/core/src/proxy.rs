//! Which proxy a URL is reached through, so that an error can say that it was the proxy.
//!
//! The HTTP client decides the same with the same code, and tells nobody; what its connectors say when a proxy fails are
//! types without names, which are named here by the traits that they serve.

use http::Uri;
use hyper_util::client::{
    legacy::connect::{
        HttpConnector,
        proxy::{SocksV5, Tunnel},
    },
    proxy::matcher::Matcher,
};
use tower_service::Service;
use url::Url;

use crate::config::Proxy;

/// Why an HTTP proxy made no tunnel.
pub(crate) type TunnelError = <Tunnel<HttpConnector> as Service<Uri>>::Error;
/// Why a SOCKS proxy made no connection.
pub(crate) type SocksError = <SocksV5<HttpConnector> as Service<Uri>>::Error;

/// The proxies in use.
#[derive(Debug)]
pub(crate) struct Proxies(Matcher);

impl Proxies {
    pub(crate) fn new(proxy: &Proxy) -> Self {
        Self(match proxy {
            Proxy::System => Matcher::from_system(),
            Proxy::None => Matcher::builder().build(),
            Proxy::Url { url, except } => {
                Matcher::builder().all(url.as_url().as_str()).no(except.as_deref().unwrap_or_default()).build()
            }
        })
    }

    /// The proxy for this URL, without credentials; `None` for a direct connection.
    pub(crate) fn between(&self, url: &Url) -> Option<String> {
        let proxy = self.0.intercept(&url.as_str().parse().ok()?)?;
        Some(format!("{}://{}", proxy.uri().scheme_str()?, proxy.uri().authority()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ProxyUrl;

    #[test]
    fn the_proxy_is_named_without_credentials() {
        let proxies = |url: &str, except: Option<&str>| {
            Proxies::new(&Proxy::Url { url: ProxyUrl::parse(url).unwrap(), except: except.map(str::to_owned) })
        };
        let target = Url::parse("https://example.com/mcp").unwrap();
        for (given, named) in [
            ("http://u:hunter2@proxy:3128/x", "http://proxy:3128"),
            ("socks5h://u:hunter2@proxy:1080", "socks5h://proxy:1080"),
            ("hunter2@proxy", "http://proxy"),
        ] {
            assert_eq!(proxies(given, None).between(&target).as_deref(), Some(named));
            assert!(!format!("{:?}", proxies(given, None)).contains("hunter2"));
        }
        assert_eq!(proxies("http://proxy", Some("example.org, .example.com")).between(&target), None);
        assert_eq!(Proxies::new(&Proxy::None).between(&target), None);
    }
}
