//! What it means that a request failed below HTTP: who is at fault, and which setting helps.
//!
//! Rule: decided by the types of the errors, never by their texts.

use std::{error::Error as StdError, io};

use crate::{
    config::ServerUrl,
    error::Kind as Fault,
    proxy::{SocksError, TunnelError},
    tls::{self, Asked},
};

/// What is known about the way that a request took.
pub(crate) struct Way<'a> {
    pub(crate) url: &'a ServerUrl,
    /// The proxy on it, without credentials.
    pub(crate) proxy: Option<String>,
    /// Whether the server asked for a client certificate.
    pub(crate) asked: Asked,
}

impl Way<'_> {
    /// The party at fault, and one line on what failed and what to do.
    pub(crate) fn judge(&self, error: &reqwest::Error) -> (Fault, String) {
        if let Some(proxy) = &self.proxy
            && let Some(judged) = self.judge_proxy(proxy, error)
        {
            return judged;
        }
        let url = self.url;
        if error.is_dns() {
            return (Fault::Dns, format!("the host of {url} has no address; check the URL and the network"));
        }
        if let Some(tls) = find::<rustls::Error>(error)
            && (error.is_connect() || tls::is_about_client_certificate(tls, self.asked))
        {
            return (Fault::Tls, tls::explain(tls, url, self.asked));
        }
        if error.is_connect() {
            return self.judge_connection(error);
        }
        if find::<h2::Error>(error).is_some_and(|error| error.is_library() && error.is_reset()) {
            let summary = format!("what {url} answers breaks the rules of HTTP/2, or its headers have no end");
            return (Fault::InvalidAnswer, summary);
        }
        match find::<hyper::Error>(error) {
            Some(error) if error.is_parse() => (
                Fault::InvalidAnswer,
                format!("what {url} answers is no HTTP, or its headers have no end; check scheme and port of the URL"),
            ),
            _ if self.asked == Asked::InVain => (
                Fault::Broken,
                format!(
                    "the connection to {url} broke after it asked for a client certificate; --client-cert gives one"
                ),
            ),
            _ => (Fault::Broken, format!("the connection to {url} broke before an answer came")),
        }
    }

    fn judge_connection(&self, error: &reqwest::Error) -> (Fault, String) {
        let url = self.url;
        let is_https = url.as_url().scheme() == "https";
        let via = self.proxy.as_ref().map(|proxy| format!(" through the proxy {proxy}")).unwrap_or_default();
        if error.is_timeout() {
            let hint = if via.is_empty() { "check the network and --proxy" } else { "check the network and the proxy" };
            (Fault::Connect, format!("connecting to {url}{via} took too long; {hint}"))
        } else if is_https && is_cut(error) {
            let summary = format!(
                "{url} closed the connection{via} before it was secure; check that the server runs, and its port for https"
            );
            (Fault::Connect, summary)
        } else if via.is_empty() {
            (Fault::Connect, format!("cannot connect to {url}; check that the server runs, the URL and --proxy"))
        } else {
            (Fault::Connect, format!("cannot connect to {url}{via}; check the proxy, or put the host into NO_PROXY"))
        }
    }

    /// What the proxy itself did. `None` if it did its part.
    fn judge_proxy(&self, proxy: &str, error: &reqwest::Error) -> Option<(Fault, String)> {
        let url = self.url;
        let unreachable = || match find::<rustls::Error>(error) {
            Some(_) => (Fault::Tls, format!("no secure connection to the proxy {proxy}; --ca-cert adds an authority")),
            None => (
                Fault::Connect,
                format!("cannot connect to the proxy {proxy}; check --proxy or HTTPS_PROXY and the network"),
            ),
        };
        if error.is_timeout() {
            return None;
        }
        if error.is_dns() && !(proxy.starts_with("socks") && find::<SocksError>(error).is_none()) {
            return Some((
                Fault::Dns,
                format!("the host of the proxy {proxy} has no address; check --proxy or HTTPS_PROXY"),
            ));
        }
        if let Some(tunnel) = find::<TunnelError>(error) {
            return Some(match tunnel {
                TunnelError::ProxyAuthRequired => wants_credentials(proxy),
                TunnelError::ConnectFailed(_) => unreachable(),
                _ => (
                    Fault::Connect,
                    format!(
                        "the proxy {proxy} refuses the way to {url}; ask who runs it, or put the host into NO_PROXY"
                    ),
                ),
            });
        }
        if let Some(socks) = find::<SocksError>(error) {
            return Some(match socks {
                SocksError::Inner(_) => unreachable(),
                _ => (
                    Fault::Connect,
                    format!(
                        "the proxy {proxy} gives no way to {url}; check its credentials and rules, or use NO_PROXY"
                    ),
                ),
            });
        }
        // Without a tunnel, the connection that failed is that to the proxy.
        let forwards = proxy.starts_with("http") && url.as_url().scheme() == "http";
        (forwards && error.is_connect()).then(unreachable)
    }
}

/// What a proxy means by 407.
pub(crate) fn wants_credentials(proxy: &str) -> (Fault, String) {
    let summary =
        format!("the proxy {proxy} wants credentials, or others; put them into its URL: http://USER:PASSWORD@HOST");
    (Fault::Proxy, summary)
}

/// Whether the server has said in HTTP/2 that it did not process the request (RFC 9113, 6.8 and 8.7): it goes away in
/// good order, or refuses the stream.
pub(crate) fn was_refused_unread(error: &reqwest::Error) -> bool {
    find::<h2::Error>(error).is_some_and(|error| {
        let went = error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
        let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
        error.is_remote() && (went || refused)
    })
}

/// The first error of this type among the causes.
fn find<E: StdError + 'static>(error: &reqwest::Error) -> Option<&E> {
    causes(error).find_map(<dyn StdError>::downcast_ref)
}

/// Whether the peer closed the connection when more should have come.
fn is_cut(error: &reqwest::Error) -> bool {
    causes(error)
        .filter_map(<dyn StdError>::downcast_ref::<io::Error>)
        .any(|error| matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset))
}

/// All causes. An I/O error wraps one, or another I/O error that does, and its `source()` leaves out what it wraps.
fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    let mut next = error.source();
    std::iter::from_fn(move || {
        let error = next?;
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
        Some(error)
    })
}
