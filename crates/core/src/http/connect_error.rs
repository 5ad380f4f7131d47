//! Turns a failure below HTTP into an error that names the party at fault and the setting that helps.
//!
//! Rule: decides by the types of errors, never by their texts.

use crate::{
    error::{Error, ErrorKind, Fate, Hint},
    http::{MAX_HEADER_COUNT, MAX_HEADERS, UriWithoutQuery},
    open_files,
};
use std::{error::Error as StdError, io, path::Path};

use http::{Uri, uri::Scheme};

use super::{
    connect::{ConnectFailure, NoAddress, RequestFailure},
    tls::{self, CertificateRequest},
};

/// The known facts about the route of a request.
pub(super) struct RouteContext<'a> {
    pub(super) uri: &'a Uri,
    /// The proxy on the route, without credentials.
    pub(super) proxy: Option<String>,
    /// The Unix socket on the route.
    pub(super) socket: Option<&'a Path>,
    /// Tells if the server asked for a client certificate.
    pub(super) asked: CertificateRequest,
}

impl RouteContext<'_> {
    /// Returns the error to report: the party at fault, and one line on what failed and what to do.
    pub(super) fn explain(&self, error: RequestFailure) -> Error {
        match error {
            RequestFailure::Unreached(failure) => self.explain_route_failure(&failure).with_source(failure),
            RequestFailure::Broken { error, is_unsent } => {
                let explained = self.explain_broken_connection(&error);
                let is_unread = is_unsent || was_refused_unread(&error);
                let explained = explained.with_source(error);
                if is_unread { explained.with_fate(Fate::Unread) } else { explained }
            }
        }
    }

    /// Returns the error for a request that was not attempted.
    #[cfg(feature = "oauth")]
    pub(super) fn route_error(&self, failure: &ConnectFailure) -> Error {
        self.explain_route_failure(failure)
    }

    /// Returns the error if no connection was made.
    fn explain_route_failure(&self, failure: &ConnectFailure) -> Error {
        let url = UriWithoutQuery(self.uri);
        let proxy = self.proxy.as_deref().unwrap_or_default();
        if is_timeout(failure) {
            let slow = |help: &str| format!("connecting to {url}{} took too long{help}", self.via());
            return if proxy.is_empty() {
                Error::new(ErrorKind::Connect, slow("")).with_hint(Hint::Network)
            } else {
                Error::new(ErrorKind::Connect, slow("; check the network and the proxy"))
            };
        }
        match failure {
            ConnectFailure::NoProxy(_) if find::<NoAddress>(failure).is_some() => {
                Error::new(ErrorKind::Dns, format!("the host of the proxy {proxy} has no address"))
                    .with_hint(Hint::Proxy)
            }
            ConnectFailure::NoProxy(_) | ConnectFailure::Refused(_) if find::<rustls::Error>(failure).is_some() => {
                Error::new(ErrorKind::Tls, format!("no secure connection to the proxy {proxy}"))
                    .with_hint(Hint::Authority)
            }
            ConnectFailure::NoProxy(_) => {
                let summary = format!("cannot connect to the proxy {proxy}");
                Error::new(ErrorKind::Connect, summary).with_hint(Hint::ProxyAndNetwork)
            }
            ConnectFailure::Credentials => wants_credentials(proxy),
            ConnectFailure::Refused(_) => Error::new(
                ErrorKind::Connect,
                format!("the proxy {proxy} does not connect to {url}; ask its operator, or put the host into NO_PROXY"),
            ),
            ConnectFailure::NoServer(_) | ConnectFailure::TimedOut => self.explain_unreachable_server(failure),
        }
    }

    /// Returns the error if the server was not reached.
    fn explain_unreachable_server(&self, failure: &ConnectFailure) -> Error {
        let (url, via) = (UriWithoutQuery(self.uri), self.via());
        if let Some(socket) = self.socket {
            let summary = format!(
                "cannot connect to the socket {}; check that the server runs and listens there",
                socket.display()
            );
            return Error::new(ErrorKind::Connect, summary);
        }
        match find::<NoAddress>(failure) {
            Some(NoAddress::Unknown(_)) => {
                return Error::new(
                    ErrorKind::Dns,
                    format!("the host of {url} has no address; check the URL and the network"),
                );
            }
            Some(NoAddress::Forbidden(address, reach)) => {
                let summary = format!("{url} is not used: {address} is {reach}, where the MCP server is not");
                return Error::new(ErrorKind::ForbiddenAddress, summary);
            }
            None => {}
        }
        if let Some(error) = find::<rustls::Error>(failure) {
            return tls::explain(error, &url, self.asked);
        }
        if is_out_of_descriptors(failure) {
            let summary =
                format!("cannot connect to {url}: this process has reached its limit of open files and connections");
            return Error::new(ErrorKind::Connect, summary).with_hint(Hint::OpenFiles);
        }
        let summary = if self.uri.scheme() == Some(&Scheme::HTTPS) && is_cut(failure) {
            format!(
                "{url} closed the connection{via} before it was secure; check that the server runs, and its port for https"
            )
        } else if via.is_empty() {
            return Error::new(ErrorKind::Connect, format!("cannot connect to {url}")).with_hint(Hint::Server);
        } else {
            format!("cannot connect to {url}{via}; check the proxy, or put the host into NO_PROXY")
        };
        Error::new(ErrorKind::Connect, summary)
    }

    /// Returns the error if a connection was made, and broke or returned invalid data.
    fn explain_broken_connection(&self, error: &hyper::Error) -> Error {
        let url = UriWithoutQuery(self.uri);
        if let Some(error) = find::<rustls::Error>(error)
            && tls::is_about_client_certificate(error, self.asked)
        {
            return tls::explain(error, &url, self.asked);
        }
        if find::<h2::Error>(error).is_some_and(|error| error.is_library() && error.is_reset()) {
            let summary = format!("the response of {url} violates HTTP/2, or its headers are too large");
            return Error::new(ErrorKind::InvalidAnswer, summary);
        }
        match find::<hyper::Error>(error) {
            Some(error) if error.is_parse_too_large() => Error::new(
                ErrorKind::InvalidAnswer,
                format!(
                    "the response of {url} has more than {MAX_HEADER_COUNT} headers or {} KiB of them",
                    MAX_HEADERS >> 10
                ),
            ),
            Some(error) if error.is_parse() => Error::new(
                ErrorKind::InvalidAnswer,
                format!("the response of {url} is not HTTP; check its scheme and port"),
            ),
            _ if self.asked == CertificateRequest::InVain => {
                let summary = format!("the connection to {url} broke after it asked for a client certificate");
                Error::new(ErrorKind::Broken, summary).with_hint(Hint::ClientCertificate)
            }
            _ => Error::new(ErrorKind::Broken, format!("the connection to {url} broke before a response arrived")),
        }
    }

    fn via(&self) -> String {
        self.proxy.as_ref().map(|proxy| format!(" through the proxy {proxy}")).unwrap_or_default()
    }
}

/// Returns the error for status 407 of a proxy.
pub(super) fn wants_credentials(proxy: &str) -> Error {
    let scheme = proxy.split_once(':').map_or("http", |(scheme, _)| scheme);
    let summary =
        format!("the proxy {proxy} wants credentials, or others; put them into its URL: {scheme}://USER:PASSWORD@HOST");
    Error::new(ErrorKind::Proxy, summary)
}

/// True if the server said in HTTP/2 that it did not process the request (RFC 9113, 6.8 and 8.7): it shuts down
/// gracefully, or refuses the stream.
fn was_refused_unread(error: &hyper::Error) -> bool {
    find::<h2::Error>(error).is_some_and(|error| {
        let went = error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
        let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
        error.is_remote() && (went || refused)
    })
}

/// Returns the first error of this type: the error itself or one of its causes.
fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    chain(error).find_map(<dyn StdError>::downcast_ref)
}

fn is_timeout(failure: &ConnectFailure) -> bool {
    matches!(failure, ConnectFailure::TimedOut) || io_kinds(failure).any(|kind| kind == io::ErrorKind::TimedOut)
}

/// True if the operating system has no more file descriptors for this process.
fn is_out_of_descriptors(failure: &ConnectFailure) -> bool {
    chain(failure).filter_map(<dyn StdError>::downcast_ref).any(open_files::are_used_up)
}

/// True if the peer closed the connection too early.
fn is_cut(failure: &ConnectFailure) -> bool {
    io_kinds(failure).any(|kind| matches!(kind, io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset))
}

fn io_kinds(failure: &ConnectFailure) -> impl Iterator<Item = io::ErrorKind> {
    chain(failure).filter_map(<dyn StdError>::downcast_ref).map(io::Error::kind)
}

/// Returns an error and all its causes. `io::Error::source()` skips the error that an I/O error wraps, so this
/// unwraps it.
fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
        Some(error)
    })
}
