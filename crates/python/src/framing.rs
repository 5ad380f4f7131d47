//! Checks the headers that say where a request ends and which host it is for.
//!
//! Rule: a request whose headers and body disagree is refused before anything is sent. Otherwise the server could take
//! the rest of its body, or the next request, for something else (request smuggling, RFC 9112, 11.2).

use http::{HeaderMap, HeaderValue, Method, Request, header, uri::Authority};
use http_body::Body;

use crate::failure::Failure;

/// Checks the headers of a request, and adds those that its body needs. Returns the declared length, if the body is
/// produced while it is sent.
///
/// # Errors
/// The headers contradict the body or each other.
pub(crate) fn framed<B: Body>(request: &mut Request<B>) -> Result<Option<u64>, Failure> {
    if request.method() == Method::CONNECT {
        return Err(refused("CONNECT opens a tunnel, which this client does not use: see its proxy setting"));
    }
    check_host(request.headers())?;
    let length = request.body().size_hint().exact();
    let declared = declared_length(request.headers())?;
    let is_chunked = is_chunked(request.headers())?;
    if declared.is_some() && is_chunked {
        return Err(refused("a request has either Content-Length or Transfer-Encoding, not both"));
    }
    match (length, declared) {
        (Some(length), Some(declared)) if length != declared => {
            return Err(refused(format!("Content-Length is {declared}, but the body has {length} bytes")));
        }
        // hyper would not read such a body at all.
        (None, Some(0)) => return Err(refused("Content-Length is 0, but there is a body; leave one of them out")),
        // For these methods, some servers wait for a body unless its length is given (RFC 9110, 8.6).
        (Some(0), None) if matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH) => {
            request.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        // hyper leaves out the body of a GET that has neither.
        (None, None) => {
            request.headers_mut().insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        _ => {}
    }
    Ok(declared.filter(|_| length.is_none()))
}

fn check_host(headers: &HeaderMap) -> Result<(), Failure> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let Some(host) = hosts.next() else { return Ok(()) };
    if hosts.next().is_some() {
        return Err(refused("a request has only one Host header"));
    }
    let is_host = |host: &[u8]| Authority::try_from(host).is_ok_and(|host| !host.as_str().contains('@'));
    if host.is_empty() || is_host(host.as_bytes()) {
        Ok(())
    } else {
        Err(refused("the Host header is not a host with an optional port"))
    }
}

fn declared_length(headers: &HeaderMap) -> Result<Option<u64>, Failure> {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else { return Ok(None) };
    if lengths.next().is_some() {
        return Err(refused("a request has only one Content-Length header"));
    }
    // `u64::from_str` also accepts a plus sign.
    let text = length.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    match text.and_then(|text| text.parse().ok()) {
        Some(length) => Ok(Some(length)),
        None => Err(refused("Content-Length is not a number of bytes")),
    }
}

fn is_chunked(headers: &HeaderMap) -> Result<bool, Failure> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return Ok(false) };
    if codings.next().is_none() && coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
        Ok(true)
    } else {
        Err(refused("the only Transfer-Encoding that can be sent is chunked"))
    }
}

fn refused(why: impl Into<String>) -> Failure {
    Failure::new("invalid_request", why)
}
