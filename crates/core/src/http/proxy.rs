//! Chooses the proxy for a URI, and connects through it.
//!
//! The proxy connectors return error types that have no public name. They are named here through the traits that the
//! connectors implement, so a change to them is a compile error, not a wrong message.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    io,
    mem::discriminant,
    net::{IpAddr, SocketAddr},
    sync::OnceLock,
    task::{Context, Poll},
};

use http::{HeaderMap, HeaderValue, Uri, header, uri::Scheme};
use hyper_util::{
    client::{
        legacy::connect::proxy::{SocksV4, SocksV5, Tunnel},
        proxy::matcher::{Intercept, Matcher},
    },
    rt::TokioIo,
};
use tokio::io::{Join, Sink, join, sink};
use tower_service::Service;

use super::{
    USER_AGENT,
    connect::{ConnectFailure, Direct, Names, NetworkStream, NoAddress, bare_host},
    proxy_exceptions::ProxyExceptions,
    system_proxy,
};
use crate::{
    http::{Proxy, ServerUrl},
    secrets::Concealed,
};

/// Why an HTTP proxy opened no tunnel.
type TunnelError = <Tunnel<Direct> as Service<Uri>>::Error;
/// Why a SOCKS proxy made no connection.
type SocksError = <SocksV5<Direct> as Service<Uri>>::Error;

/// The proxies in use.
#[derive(Debug)]
pub(super) struct Proxies {
    matcher: Matcher,
    exceptions: ProxyExceptions,
    /// The credentials of the proxies used for `http` and for `https` servers.
    to_http: OnceLock<Concealed>,
    to_https: OnceLock<Concealed>,
}

impl Proxies {
    pub(super) fn new(proxy: &Proxy) -> Self {
        let (matcher, exceptions) = match proxy {
            Proxy::System => {
                let (proxy, exceptions) = system_proxy::read();
                (Matcher::builder().http(proxy.http).https(proxy.https).all(proxy.all), exceptions)
            }
            Proxy::None => (Matcher::builder(), ProxyExceptions::default()),
            Proxy::Url { url, except } => {
                let exceptions = ProxyExceptions::parse(except.as_deref().unwrap_or_default());
                (Matcher::builder().all(url.as_url().as_str()), exceptions)
            }
        };
        Self { matcher: matcher.build(), exceptions, to_http: OnceLock::new(), to_https: OnceLock::new() }
    }

    /// Returns the route to this URI, if it goes through a proxy.
    pub(super) fn between(&self, uri: &Uri) -> Option<ProxyRoute> {
        let proxy = self.matcher.intercept(uri).filter(|_| !self.exceptions.contain(uri))?;
        let concealed = if uri.scheme() == Some(&Scheme::HTTP) { &self.to_http } else { &self.to_https };
        concealed.get_or_init(|| concealed_of(&proxy));
        Some(match proxy.uri().scheme_str() {
            Some("http" | "https") if uri.scheme() == Some(&Scheme::HTTP) => ProxyRoute::Forward(proxy),
            Some("http" | "https") => ProxyRoute::Tunnel(proxy),
            _ => ProxyRoute::Socks(proxy),
        })
    }
}

impl Proxy {
    /// Returns the proxy on the way to this URL, without its credentials; `None` if the way is direct.
    pub fn on_the_way_to(&self, url: &ServerUrl) -> Option<String> {
        Proxies::new(self).between(url.as_uri()).map(|route| route.proxy())
    }
}

fn concealed_of(proxy: &Intercept) -> Concealed {
    match (proxy.basic_auth(), proxy.raw_auth()) {
        (Some(value), _) => Concealed::headers(&HeaderMap::from_iter([(header::PROXY_AUTHORIZATION, value.clone())])),
        (None, Some((user, password))) => Concealed::new([user, password]),
        (None, None) => Concealed::default(),
    }
}

/// A route through a proxy.
pub(super) enum ProxyRoute {
    /// The proxy receives the request itself, with the absolute URI and the proxy's credentials.
    Forward(Intercept),
    /// The proxy connects to the target and relays bytes.
    Tunnel(Intercept),
    Socks(Intercept),
}

impl ProxyRoute {
    /// Returns the URL of the proxy, without credentials.
    pub(super) fn proxy(&self) -> String {
        let uri = self.intercept().uri();
        format!("{}://{}", uri.scheme_str().unwrap_or_default(), uri.authority().map_or("", |host| host.as_str()))
    }

    /// Returns the credentials to send to the proxy with each request, if it needs any.
    pub(super) fn credentials(&self) -> Option<&HeaderValue> {
        if let Self::Forward(proxy) = self { proxy.basic_auth() } else { None }
    }

    /// Connects to the target, or to the proxy if that forwards requests.
    pub(super) async fn connect(&self, to_proxy: Direct, target: &Uri) -> Result<NetworkStream, ConnectFailure> {
        match self {
            Self::Forward(proxy) => to_proxy.connect(proxy.uri()).await.map_err(ConnectFailure::NoProxy),
            Self::Tunnel(proxy) => tunnel(proxy, to_proxy, target).await,
            Self::Socks(proxy) => socks(proxy, to_proxy, target).await,
        }
    }

    fn intercept(&self) -> &Intercept {
        let (Self::Forward(proxy) | Self::Tunnel(proxy) | Self::Socks(proxy)) = self;
        proxy
    }
}

async fn tunnel(proxy: &Intercept, to_proxy: Direct, target: &Uri) -> Result<NetworkStream, ConnectFailure> {
    let agent = HeaderMap::from_iter([(header::USER_AGENT, USER_AGENT)]);
    let mut tunnel = Tunnel::new(proxy.uri().clone(), to_proxy).with_headers(agent);
    if let Some(credentials) = proxy.basic_auth() {
        tunnel = tunnel.with_auth(credentials.clone());
    }
    match tunnel.call(target.clone()).await {
        Ok(stream) => Ok(stream.into_inner()),
        Err(TunnelError::ConnectFailed(error)) => Err(ConnectFailure::NoProxy(error)),
        Err(TunnelError::ProxyAuthRequired) => Err(ConnectFailure::Credentials),
        Err(error) => Err(ConnectFailure::Refused(error.into())),
    }
}

async fn socks(proxy: &Intercept, to_proxy: Direct, target: &Uri) -> Result<NetworkStream, ConnectFailure> {
    let uri = proxy.uri().clone();
    let scheme = uri.scheme_str().unwrap_or_default();
    let is_4 = scheme.starts_with("socks4");
    // With other schemes, the proxy resolves names.
    let address = match scheme {
        "socks4" | "socks5" => {
            Some(address(target, is_4).await.map_err(|error| ConnectFailure::NoServer(error.into()))?)
        }
        _ => None,
    };
    let target = with_port(target, address).map_err(|error| ConnectFailure::NoServer(error.into()))?;
    let connected = if is_4 {
        SocksV4::new(uri, to_proxy).call(target).await
    } else {
        let mut socks = SocksV5::new(uri, to_proxy);
        if let Some((user, password)) = proxy.raw_auth() {
            socks = socks.with_auth(user.to_owned(), password.to_owned());
        }
        socks.call(target).await
    };
    match connected {
        Ok(stream) => Ok(stream.into_inner()),
        Err(SocksError::Inner(error)) => Err(ConnectFailure::NoProxy(error)),
        Err(error) if is_about_credentials(&error).await => Err(ConnectFailure::Credentials),
        Err(error) => Err(ConnectFailure::Refused(error.into())),
    }
}

/// True if a SOCKS proxy rejects or requires credentials. That error is a variant of a type that cannot be named
/// here, so it is compared with a sample: the error from a proxy that rejects all authentication methods.
async fn is_about_credentials(error: &SocksError) -> bool {
    let SocksError::V5(error) = error else { return false };
    let specimen = SocksV5::new(Uri::default(), NoConnector).call(Uri::from_static("socks://host:1")).await;
    matches!(specimen, Err(NoConnectorError::V5(specimen)) if discriminant(&specimen) == discriminant(error))
}

/// Connects to an in-memory SOCKS proxy that rejects all authentication methods.
struct NoConnector;

type NoConnectorError = <SocksV5<NoConnector> as Service<Uri>>::Error;

impl Service<Uri> for NoConnector {
    type Response = TokioIo<Join<&'static [u8], Sink>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        ready(Ok(TokioIo::new(join(&[5, 0xff], sink()))))
    }
}

/// Returns an address of the target; for SOCKS 4 an IPv4 address.
async fn address(target: &Uri, is_4: bool) -> Result<IpAddr, NoAddress> {
    let host = bare_host(target);
    if let Ok(address) = host.parse() {
        return Ok(address);
    }
    let name = host.parse().map_err(io::Error::other)?;
    let mut addresses = Names::new().call(name).await?.map(|address| address.ip());
    addresses.find(|address| !is_4 || address.is_ipv4()).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound).into())
}

/// Returns the target with an explicit port, and with the address instead of the name.
fn with_port(target: &Uri, address: Option<IpAddr>) -> Result<Uri, http::Error> {
    let is_secure = target.scheme() == Some(&Scheme::HTTPS);
    let port = target.port_u16().unwrap_or(if is_secure { 443 } else { 80 });
    let authority = match address {
        Some(address) => SocketAddr::new(address, port).to_string(),
        None => format!("{}:{port}", target.host().unwrap_or_default()),
    };
    Uri::builder().scheme("socks").authority(authority).path_and_query("/").build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::ProxyUrl;

    #[test]
    fn proxy_is_shown_without_credentials() {
        let proxies = |url: &str, except: Option<&str>| {
            Proxies::new(&Proxy::Url { url: ProxyUrl::parse(url).unwrap(), except: except.map(str::to_owned) })
        };
        let target = Uri::from_static("https://example.com/mcp");
        let named = |proxies: &Proxies| proxies.between(&target).map(|way| way.proxy());
        for (given, expected) in [
            ("http://u:hunter2@proxy:3128/x", "http://proxy:3128"),
            ("socks5h://u:hunter2@proxy:1080", "socks5h://proxy:1080"),
            ("hunter2@proxy", "http://proxy"),
        ] {
            assert_eq!(named(&proxies(given, None)).as_deref(), Some(expected));
            assert!(!format!("{:?}", proxies(given, None)).contains("hunter2"));
        }
        assert_eq!(named(&proxies("http://proxy", Some("example.org, .example.com"))), None);
        assert_eq!(named(&Proxies::new(&Proxy::None)), None);
    }
}
