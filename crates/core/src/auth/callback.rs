//! The listener that the browser returns to (RFC 8252, 7.3). It is open only on this machine, and only during one
//! sign-in.
//!
//! Rules: only a request with the `state` of this sign-in ends the wait. Any other request, such as an old tab or a
//! stranger's guess, gets an error page. No visitor can end the wait or keep the browser out: the number of
//! connections is limited, and a new one replaces the oldest. Pages contain only escaped text, and their policy
//! allows no scripts and no external content.

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use memchr::memmem;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::{sleep, timeout},
};
use url::Url;

use crate::task::Task;

/// The host, unless the user or the authorization server requires another: an IP address needs no name resolution.
pub(super) const HOST: &str = "127.0.0.1";
pub(super) const PATH: &str = "/callback";
/// The redirect URI for requests that need one although no browser returns.
pub(super) const PLACEHOLDER_REDIRECT_URI: &str = "http://127.0.0.1:0/callback";
const NAME: &str = "localhost";
/// The longest request head that is read, in bytes.
const MAX_HEAD_BYTES: usize = 32 << 10;
/// The most connections at a time. Each takes a file descriptor.
const MAX_CONNECTIONS: usize = 64;
/// The pause after a failed `accept`: no file descriptor is left, or the system dropped the connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The timeout for receiving a request, and for sending a page.
const REQUEST_TIME: Duration = Duration::from_secs(10);

/// The listener.
pub(super) struct Callback {
    listener: TcpListener,
    /// The same port on `::1`, if it is free, because browsers may resolve `localhost` to it.
    other: Option<TcpListener>,
    host: String,
    port: u16,
    path: String,
}

/// The request of the returning browser.
pub(super) struct Arrival {
    /// The authorization code, or an error instead.
    pub(super) answer: Result<String, AuthorizationError>,
    /// The issuer that claims to have redirected the browser (RFC 9207).
    pub(super) issuer: Option<String>,
    browser: TcpStream,
}

/// Why there is no code, in the authorization server's words.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AuthorizationError {
    pub(super) error: String,
    pub(super) description: Option<String>,
}

impl Callback {
    /// Listens on a port of this machine; 0 means any port. `host` is `localhost` or a loopback address, in URL
    /// syntax.
    pub(super) async fn bind(host: &str, port: u16, path: &str) -> io::Result<Self> {
        let address = host.trim_matches(['[', ']']).parse().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let listener = TcpListener::bind((address, port)).await?;
        let port = listener.local_addr()?.port();
        let other = if address == IpAddr::V4(Ipv4Addr::LOCALHOST) {
            TcpListener::bind((Ipv6Addr::LOCALHOST, port)).await.ok()
        } else {
            None
        };
        Ok(Self { listener, other, host: host.to_owned(), port, path: path.to_owned() })
    }

    pub(super) fn redirect_uri(&self) -> String {
        self.uri(&self.host)
    }

    /// Returns the same URI with the name instead of the address, or the other way round.
    pub(super) fn other_redirect_uri(&self) -> Option<String> {
        match self.host.as_str() {
            HOST => Some(self.uri(NAME)),
            NAME => Some(self.uri(HOST)),
            _ => None,
        }
    }

    fn uri(&self, host: &str) -> String {
        format!("http://{host}:{}{}", self.port, self.path)
    }

    async fn accept(&self) -> io::Result<TcpStream> {
        let other = async {
            match &self.other {
                Some(other) => other.accept().await,
                None => std::future::pending().await,
            }
        };
        let accepted = tokio::select! {
            accepted = self.listener.accept() => accepted,
            accepted = other => accepted,
        };
        accepted.map(|(browser, _)| browser)
    }

    /// Waits until the browser returns from the sign-in with this state.
    pub(super) async fn arrival(self, state: &str) -> Arrival {
        let (arrived, mut arrivals) = mpsc::channel(1);
        // Browsers also open connections that they do not use, so one must not block the others. The oldest is first.
        let mut visits = VecDeque::<Task>::new();
        loop {
            let accepted = tokio::select! {
                biased;
                Some(arrival) = arrivals.recv() => return arrival,
                accepted = self.accept() => accepted,
            };
            match accepted {
                Ok(browser) => {
                    visits.retain(|visit| !visit.0.is_finished());
                    if visits.len() == MAX_CONNECTIONS {
                        visits.pop_front();
                    }
                    let (state, path, arrived) = (state.to_owned(), self.path.clone(), arrived.clone());
                    let visit = tokio::spawn(async move {
                        if let Some(arrival) = visit(browser, &path, &state).await {
                            let _ = arrived.send(arrival).await;
                        }
                    });
                    visits.push_back(Task(visit.abort_handle()));
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot accept the browser's connection");
                    // Frees a file descriptor for the next connection.
                    visits.pop_front();
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl Arrival {
    /// Shows the outcome to the user in the browser.
    pub(super) async fn tell(mut self, outcome: Result<(), &str>) {
        let page = match outcome {
            Ok(()) => page("200 OK", "You are signed in", "You can close this window."),
            Err(why) => page("400 Bad Request", "You are not signed in", why),
        };
        show(&mut self.browser, &page).await;
    }
}

/// Handles one connection. Answers all requests except the expected one.
async fn visit(mut browser: TcpStream, path: &str, state: &str) -> Option<Arrival> {
    let target = timeout(REQUEST_TIME, target(&mut browser)).await.ok()??;
    let (status, why) = match read(&target, path, state) {
        Ok((answer, issuer)) => return Some(Arrival { answer, issuer, browser }),
        Err(CallbackMismatch::Elsewhere) => ("404 Not Found", "There is nothing here."),
        Err(CallbackMismatch::OtherState) => (
            "400 Bad Request",
            "This page does not belong to a current sign-in. Use the newest link, or start again in your application.",
        ),
        Err(CallbackMismatch::Nothing) => {
            ("400 Bad Request", "The authorization server has sent neither a code nor an error.")
        }
    };
    show(&mut browser, &page(status, "You are not signed in", why)).await;
    None
}

/// Reads a GET request, and returns its target.
async fn target(browser: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut searched = 0;
    while memmem::find(head.get(searched..)?, b"\r\n\r\n").is_none() {
        // Up to three bytes of the end may be there already.
        searched = head.len().saturating_sub(3);
        let room = MAX_HEAD_BYTES.checked_sub(head.len())? as u64;
        if browser.take(room).read_buf(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    let line = std::str::from_utf8(&head).ok()?.lines().next()?;
    let (target, version) = line.strip_prefix("GET ")?.split_once(' ')?;
    version.starts_with("HTTP/1.").then(|| target.to_owned())
}

/// Why a request is not the expected one.
#[derive(Debug, PartialEq, Eq)]
enum CallbackMismatch {
    Elsewhere,
    OtherState,
    Nothing,
}

type CallbackPage = (Result<String, AuthorizationError>, Option<String>);

fn read(target: &str, path: &str, state: &str) -> Result<CallbackPage, CallbackMismatch> {
    let url = Url::options().base_url(Url::parse("http://127.0.0.1").ok().as_ref()).parse(target);
    let url = url.ok().filter(|url| url.path() == path).ok_or(CallbackMismatch::Elsewhere)?;
    // A repeated parameter counts as missing (RFC 6749, 3.1).
    let parameter = |name: &str| {
        let mut values = url.query_pairs().filter(|(key, _)| key == name);
        values.next().filter(|_| values.next().is_none()).map(|(_, value)| value.into_owned())
    };
    if parameter("state").as_deref() != Some(state) {
        return Err(CallbackMismatch::OtherState);
    }
    let answer = match (parameter("error"), parameter("code")) {
        (Some(error), _) => Err(AuthorizationError { error, description: parameter("error_description") }),
        (None, Some(code)) => Ok(code),
        (None, None) => return Err(CallbackMismatch::Nothing),
    };
    Ok((answer, parameter("iss")))
}

fn page(status: &str, title: &str, text: &str) -> String {
    let (title, text) = (escaped(title), escaped(text));
    let body = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{title}</title>\n<h1>{title}</h1>\n<p>{text}</p>\n</html>\n"
    );
    format!(
        "HTTP/1.1 {status}\r\n\
         Content-Type: text/html; charset=utf-8\r\n\
         Content-Length: {}\r\n\
         Content-Security-Policy: default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n\
         X-Content-Type-Options: nosniff\r\n\
         Referrer-Policy: no-referrer\r\n\
         Cache-Control: no-store\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

async fn show(browser: &mut TcpStream, page: &str) {
    // It does not matter if the browser is gone.
    let _ = timeout(REQUEST_TIME, async {
        browser.write_all(page.as_bytes()).await?;
        browser.shutdown().await
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More connections than the limit, which send nothing more and stay open.
    #[tokio::test]
    async fn callback_is_received_among_many_idle_connections() {
        let callback = Callback::bind(HOST, 0, PATH).await.unwrap();
        let at = ("127.0.0.1", callback.port);
        let waiting = tokio::spawn(async move { callback.arrival("s").await });
        let mut strangers = Vec::new();
        for _ in 0..10 * MAX_CONNECTIONS {
            let mut stranger = TcpStream::connect(at).await.unwrap();
            stranger.write_all(b"GET /callback?state=").await.unwrap();
            strangers.push(stranger);
        }
        let mut browser = TcpStream::connect(at).await.unwrap();
        for part in ["GET /callback?code=c&state=s HTTP/1.1\r\nA: b\r", "\n\r", "\n"] {
            browser.write_all(part.as_bytes()).await.unwrap();
            browser.flush().await.unwrap();
        }
        assert_eq!(waiting.await.unwrap().answer, Ok("c".to_owned()));
        // None of them holds a file descriptor longer than necessary.
        let mut gone = 0;
        for mut stranger in strangers {
            gone += usize::from(matches!(stranger.read(&mut [0]).await, Ok(0) | Err(_)));
        }
        assert_eq!(gone, 10 * MAX_CONNECTIONS);
    }

    #[test]
    fn callback_accepts_only_the_expected_path_and_state() {
        let code = |code: &str| Ok::<_, AuthorizationError>(code.to_owned());
        assert_eq!(read("/callback?code=c&state=s", PATH, "s"), Ok((code("c"), None)));
        assert_eq!(
            read("/callback?iss=https%3A%2F%2Fa&state=s&code=c+d", PATH, "s"),
            Ok((code("c d"), Some("https://a".into())))
        );
        let denial = AuthorizationError { error: "access_denied".into(), description: Some("<b>no</b>".into()) };
        assert_eq!(
            read("/callback?error=access_denied&error_description=%3Cb%3Eno%3C/b%3E&state=s", PATH, "s"),
            Ok((Err(denial), None))
        );
        for (target, stray) in [
            ("/callback?code=c&state=t", CallbackMismatch::OtherState),
            ("/callback?code=c", CallbackMismatch::OtherState),
            ("/callback?code=c&state=s&state=s", CallbackMismatch::OtherState),
            ("/callback?state=s", CallbackMismatch::Nothing),
            ("/callback?state=s&code=c&code=d", CallbackMismatch::Nothing),
            ("/favicon.ico?code=c&state=s", CallbackMismatch::Elsewhere),
            ("/", CallbackMismatch::Elsewhere),
            ("http://[", CallbackMismatch::Elsewhere),
        ] {
            assert_eq!(read(target, PATH, "s"), Err(stray), "{target}");
        }
    }

    #[test]
    fn callback_page_text_is_html_escaped() {
        let page = page("400 Bad Request", "t", "<script>alert('x')</script> & \"y\"");
        assert!(page.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &quot;y&quot;"), "{page}");
        assert!(page.contains("default-src 'none'"));
        let (head, body) = page.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
    }
}
