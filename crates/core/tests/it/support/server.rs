//! An HTTP/1.1 server that does nothing by itself: it reads one request at a time from each connection and hands it to
//! the test as an [`Exchange`], whose verbs put bytes on the socket exactly when and as the test says.
//!
//! One exception: it has no event stream for a GET and answers 405 (R30), unless the test said
//! [`Server::expect_get`].
//!
//! A whole reply gives the connection back for the next request (keep-alive). Dropping an exchange closes its socket.
//! Dropping the server fails the test if a request is left that the test did not ask for.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::{Buf, Bytes, BytesMut};
use mcp_gangway_core::{Config, Proxy};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig, server::TlsStream};

use super::{SOON, STALL, shown, within};

/// The scripted server. See the module.
pub(crate) struct Server {
    address: SocketAddr,
    scheme: &'static str,
    arrivals: mpsc::UnboundedReceiver<Arrival>,
    put_by: VecDeque<Exchange>,
    /// Whether a GET is handed to the test.
    gets: Arc<AtomicBool>,
    listening: JoinHandle<()>,
}

/// A request, or why what came is none.
type Arrival = Result<Exchange, String>;

/// Where requests go.
#[derive(Clone)]
struct Desk {
    arrived: mpsc::UnboundedSender<Arrival>,
    gets: Arc<AtomicBool>,
}

impl Server {
    /// A server for `http://127.0.0.1`.
    pub(crate) async fn start() -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.expect("a port"), None)
    }

    /// A server for `https://localhost`.
    pub(crate) async fn start_tls(config: ServerConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        Self::on(listener, Some(TlsAcceptor::from(Arc::new(config))))
    }

    /// A server on a listener of the test's own.
    pub(crate) fn on(listener: TcpListener, tls: Option<TlsAcceptor>) -> Self {
        let address = listener.local_addr().expect("a bound listener");
        let scheme = if tls.is_some() { "https" } else { "http" };
        let (arrived, arrivals) = mpsc::unbounded_channel();
        let gets = Arc::default();
        let listening = tokio::spawn(accept(listener, tls, Desk { arrived, gets: Arc::clone(&gets) }));
        Self { address, scheme, arrivals, put_by: VecDeque::new(), gets, listening }
    }

    /// From now on a GET is the test's to answer, with [`Self::get`]; no other waiting verb but [`Self::next`] takes it.
    pub(crate) fn expect_get(&self) {
        self.gets.store(true, Ordering::Release);
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port that it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// The origin of its URLs.
    pub(crate) fn origin(&self) -> String {
        match self.scheme {
            "https" => format!("https://localhost:{}", self.port()),
            _ => format!("http://{}", self.address),
        }
    }

    /// Settings for a bridge to this server, past any proxy of the environment.
    pub(crate) fn config(&self) -> Config {
        config(&format!("{}/mcp", self.origin()))
    }

    /// The next HTTP request, whatever it is.
    pub(crate) async fn next(&mut self, awaited: &str) -> Exchange {
        match self.put_by.pop_front() {
            Some(exchange) => exchange,
            None => self.arrival(awaited).await,
        }
    }

    /// The next HTTP request beside GETs, which must be a POST as the protocol wants it (R20).
    pub(crate) async fn post(&mut self) -> Exchange {
        let exchange = self.first("a POST from the bridge", |exchange| exchange.verb != "GET").await;
        exchange.check_post();
        exchange
    }

    /// The next HTTP request, which must be a modern message's POST: it names its version and its method, and no session
    /// (R60, R61, R72).
    pub(crate) async fn modern_post(&mut self) -> Exchange {
        let exchange = self.next("a modern POST from the bridge").await;
        exchange.check_post();
        exchange.check_modern();
        exchange
    }

    /// The POST of the request with this id, written as JSON; what arrives before it is kept for later.
    pub(crate) async fn post_of(&mut self, id: &str) -> Exchange {
        let wanted = |exchange: &Exchange| exchange.id().as_deref() == Some(id);
        let exchange = self.first(&format!("the POST of request {id}"), wanted).await;
        exchange.check_post();
        exchange
    }

    /// The next GET, which must ask for an event stream (R29); what arrives before it is kept for later.
    pub(crate) async fn get(&mut self) -> Exchange {
        assert!(self.gets.load(Ordering::Acquire), "the test has not said that it answers GETs");
        let exchange = self.first("a GET from the bridge", |exchange| exchange.verb == "GET").await;
        assert_eq!(exchange.header("accept"), Some("text/event-stream"), "{}", exchange.shown());
        assert!(exchange.body.is_empty(), "{}", exchange.shown());
        exchange
    }

    /// The first request that is `wanted`; what arrives before it is kept for later.
    async fn first(&mut self, awaited: &str, wanted: impl Fn(&Exchange) -> bool) -> Exchange {
        if let Some(place) = self.put_by.iter().position(&wanted) {
            return self.put_by.remove(place).expect("it was there");
        }
        loop {
            let exchange = self.arrival(awaited).await;
            if wanted(&exchange) {
                return exchange;
            }
            self.put_by.push_back(exchange);
        }
    }

    /// Answers `initialize` with this session and version, and returns the response.
    pub(crate) async fn initialize(&mut self, session: Option<&str>, version: &str) -> String {
        let initialize = self.post().await;
        assert_eq!(initialize.rpc_method(), "initialize");
        assert_eq!(initialize.header("mcp-session-id"), None, "initialize must not carry a session (R23)");
        initialize.initialized(session, version).await
    }

    /// Leaves out what carries no request of the client's and may or may not have come.
    pub(crate) fn forget_notifications(&mut self) {
        while let Ok(Ok(exchange)) = self.arrivals.try_recv() {
            self.put_by.push_back(exchange);
        }
        self.put_by.retain(|exchange| exchange.id().is_some());
    }

    /// Leaves out what tries to open a subscription and may or may not have come.
    pub(crate) fn forget_subscriptions(&mut self) {
        while let Ok(Ok(exchange)) = self.arrivals.try_recv() {
            self.put_by.push_back(exchange);
        }
        self.put_by.retain(|exchange| exchange.rpc_method() != "subscriptions/listen");
    }

    /// Fails the test if a request has arrived that it did not ask for.
    pub(crate) fn expect_no_more(&mut self) {
        if let Some(exchange) = self.put_by.pop_front() {
            panic!("an HTTP request that nobody expected: {}", exchange.shown());
        }
        match self.arrivals.try_recv() {
            Ok(Ok(exchange)) => panic!("an HTTP request that nobody expected: {}", exchange.shown()),
            Ok(Err(fault)) => panic!("{fault}"),
            Err(_) => {}
        }
    }

    async fn arrival(&mut self, awaited: &str) -> Exchange {
        match within(awaited, self.arrivals.recv()).await.expect("the server listens") {
            Ok(exchange) => exchange,
            Err(fault) => panic!("{fault}, while the test waited for {awaited}"),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.listening.abort();
        if !std::thread::panicking() {
            self.expect_no_more();
        }
    }
}

/// Settings for a bridge to this URL, past any proxy of the environment.
pub(super) fn config(url: &str) -> Config {
    let mut config = Config::new(url).expect("a URL");
    config.proxy = Proxy::None;
    config.timeouts.retry = SOON;
    config.timeouts.reconnect = SOON;
    config
}

/// One HTTP request, and the socket on which its reply is written.
pub(crate) struct Exchange {
    pub(crate) verb: String,
    pub(crate) target: String,
    /// Names in lower case, in the order in which they came.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
    /// Which connection of the server this is, counted from 0.
    pub(crate) connection: usize,
    wire: Wire,
    desk: Desk,
    /// What of the reply the bridge has not taken yet.
    unsent: BytesMut,
}

/// A socket, and what was read from it beyond the last request.
struct Wire {
    socket: Box<dyn Socket>,
    surplus: BytesMut,
}

trait Socket: AsyncRead + AsyncWrite + Send + Unpin {
    fn tcp(&self) -> &TcpStream;
}

impl Socket for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Socket for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// What a bridge's message says of itself.
#[derive(Deserialize)]
struct Peek<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    method: Option<String>,
}

impl Exchange {
    /// The value of a header that stands at most once.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let value = values.next();
        assert!(values.next().is_none(), "the header {name} came twice: {}", self.shown());
        value
    }

    /// The body as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body in UTF-8")
    }

    /// The id of the message, as it is written; `None` for a notification.
    pub(crate) fn id(&self) -> Option<String> {
        self.peek().and_then(|peek| peek.id.map(|id| id.get().to_owned()))
    }

    /// The message, read.
    pub(crate) fn value(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// The JSON-RPC method of the message.
    pub(crate) fn rpc_method(&self) -> String {
        self.peek().and_then(|peek| peek.method).unwrap_or_default()
    }

    /// The id that a cancellation names, as it is written.
    pub(crate) fn cancelled_id(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Cancelled<'a> {
            method: &'a str,
            #[serde(borrow)]
            params: Params<'a>,
        }
        #[derive(Deserialize)]
        struct Params<'a> {
            #[serde(borrow, rename = "requestId")]
            request_id: &'a RawValue,
        }
        let message: Cancelled = serde_json::from_slice(&self.body).ok()?;
        (message.method == "notifications/cancelled").then(|| message.params.request_id.get().to_owned())
    }

    fn peek(&self) -> Option<Peek<'_>> {
        serde_json::from_slice(&self.body).ok()
    }

    fn check_post(&self) {
        assert_eq!(self.verb, "POST", "{}", self.shown());
        assert_eq!(self.header("content-type"), Some("application/json"), "{}", self.shown());
        let accept = self.header("accept").unwrap_or_default();
        for wanted in ["application/json", "text/event-stream"] {
            assert!(accept.contains(wanted), "Accept lacks {wanted} (R20): {}", self.shown());
        }
        assert!(!self.body.starts_with(b"["), "an array went upstream (R17): {}", self.shown());
    }

    /// The message is a modern one, and so are its headers.
    pub(crate) fn check_modern(&self) {
        assert!(self.text().contains("io.modelcontextprotocol/protocolVersion"), "{}", self.shown());
        assert!(self.header("mcp-protocol-version").is_some(), "{}", self.shown());
        assert_eq!(self.header("mcp-method"), Some(self.rpc_method().as_str()), "{}", self.shown());
        for unwanted in ["mcp-session-id", "last-event-id"] {
            assert_eq!(self.header(unwanted), None, "{}", self.shown());
        }
    }

    fn shown(&self) -> String {
        format!("{} {} {:?} {}", self.verb, self.target, self.headers, shown(&self.body))
    }

    // Whole replies.

    /// A whole reply with a Content-Length. The connection stays open for the next request.
    pub(crate) async fn respond(mut self, status: u16, headers: &[(&str, &str)], body: impl AsRef<[u8]>) {
        let body = body.as_ref();
        let length = body.len().to_string();
        let mut headers = headers.to_vec();
        // RFC 9110, 8.6: no length with 204.
        if status != 204 {
            headers.push(("Content-Length", &length));
        }
        self.write(head(status, &headers).as_bytes()).await;
        self.write(body).await;
        self.give_back();
    }

    /// A whole reply as it stands in these bytes. The connection stays open for the next request.
    pub(crate) async fn raw(mut self, reply: impl AsRef<[u8]>) {
        self.write(reply.as_ref()).await;
        self.give_back();
    }

    /// A whole reply of this content type; none if it is empty.
    pub(crate) async fn respond_as(self, status: u16, content_type: &str, body: impl AsRef<[u8]>) {
        let headers: &[_] = if content_type.is_empty() { &[] } else { &[("Content-Type", content_type)] };
        self.respond(status, headers, body).await;
    }

    /// A JSON body under status 200.
    pub(crate) async fn json(self, body: impl AsRef<[u8]>) {
        self.respond_as(200, "application/json", body).await;
    }

    /// The result of this request, as JSON; returns the response.
    pub(crate) async fn answer(self, result: &str) -> String {
        let response = super::response(&self.id().expect("a request"), result);
        self.json(&response).await;
        response
    }

    /// An error in answer to this request under this status, as JSON; returns the response.
    pub(crate) async fn refuse(self, status: u16, code: i64) -> String {
        let response = super::refusal(&self.id().expect("a request"), code);
        self.respond_as(status, "application/json", &response).await;
        response
    }

    /// The result of `initialize`, with a session and a version; returns the response.
    pub(crate) async fn initialized(self, session: Option<&str>, version: &str) -> String {
        let result = format!(
            r#"{{"protocolVersion":"{version}","capabilities":{{}},"serverInfo":{{"name":"s","version":"1"}}}}"#
        );
        let response = super::response(&self.id().expect("a request"), &result);
        let mut headers = vec![("Content-Type", "application/json")];
        headers.extend(session.map(|session| ("Mcp-Session-Id", session)));
        self.respond(200, &headers, &response).await;
        response
    }

    /// 202 without a body, as for a notification.
    pub(crate) async fn accepted(self) {
        self.respond(202, &[], "").await;
    }

    // Replies in steps.

    /// The head of a chunked reply.
    pub(crate) async fn head(&mut self, status: u16, headers: &[(&str, &str)]) {
        let mut headers = headers.to_vec();
        headers.push(("Transfer-Encoding", "chunked"));
        self.write(head(status, &headers).as_bytes()).await;
    }

    /// The head of a reply that ends with the connection.
    pub(crate) async fn head_until_close(&mut self, status: u16, headers: &[(&str, &str)]) {
        let mut headers = headers.to_vec();
        headers.push(("Connection", "close"));
        self.write(head(status, &headers).as_bytes()).await;
    }

    /// The head of a chunked event stream.
    pub(crate) async fn sse(&mut self) {
        self.head(200, &[("Content-Type", "text/event-stream")]).await;
    }

    /// One chunk of a chunked reply.
    pub(crate) async fn chunk(&mut self, bytes: impl AsRef<[u8]>) {
        assert!(!bytes.as_ref().is_empty(), "an empty chunk is the end of the body");
        self.write(&chunk(bytes.as_ref())).await;
    }

    /// One event of a chunked event stream, with its data on one line.
    pub(crate) async fn event(&mut self, data: &str) {
        self.chunk(format!("data: {data}\n\n")).await;
    }

    /// Bytes as they are, outside of any framing.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        let mut unsent = self.unsent.split();
        within("the bridge to take the reply", async {
            let _ = self.wire.socket.write_all_buf(&mut unsent).await;
            // A peer that has closed is for the test to judge.
            let _ = self.wire.socket.write_all(bytes).await;
            let _ = self.wire.socket.flush().await;
        })
        .await;
    }

    /// Sends `block` again and again, as chunks, until the bridge takes no more or `most` bytes are gone, and says how
    /// many it took. What is left of the last chunk goes out before anything else.
    pub(crate) async fn flood(&mut self, block: &[u8], most: usize) -> usize {
        let block = chunk(block);
        let mut taken = 0;
        loop {
            if self.unsent.is_empty() {
                if taken >= most {
                    return taken;
                }
                self.unsent.extend_from_slice(&block);
            }
            match tokio::time::timeout(STALL, self.wire.socket.write(&self.unsent)).await {
                Ok(Ok(count)) => {
                    self.unsent.advance(count);
                    taken += count;
                }
                Ok(Err(error)) => panic!("the bridge hung up on a flood: {error}"),
                Err(_) => return taken,
            }
        }
    }

    /// The empty result of this request on its event stream, which ends with it.
    pub(crate) async fn answer_on_stream(mut self) {
        let response = super::response(&self.id().expect("a request"), "{}");
        self.event(&response).await;
        self.end().await;
    }

    /// The regular end of a chunked reply. The connection stays open for the next request.
    pub(crate) async fn end(mut self) {
        self.write(b"0\r\n\r\n").await;
        self.give_back();
    }

    /// A stream that ends at once, and whose rest can be asked for at once.
    pub(crate) async fn ends_to_be_resumed(mut self) {
        self.sse().await;
        self.chunk("retry: 0\nid: 1\ndata:\n\n").await;
        self.end().await;
    }

    /// Closes the connection, however much of the reply is out.
    pub(crate) async fn fin(mut self) {
        let _ = self.wire.socket.shutdown().await;
    }

    /// Says that nothing more will come, and keeps reading.
    pub(crate) async fn shut_down(&mut self) {
        self.wire.socket.shutdown().await.expect("an open socket");
    }

    /// Resets the connection, however much of the reply is out.
    pub(crate) fn reset(self) {
        self.wire.socket.tcp().set_zero_linger().expect("an open socket");
    }

    /// Waits until the bridge closes the connection.
    pub(crate) async fn closed_by_peer(mut self, awaited: &str) {
        let surplus = &mut self.wire.surplus;
        let read = within(awaited, self.wire.socket.read_buf(surplus)).await;
        assert!(matches!(read, Ok(0) | Err(_)), "more instead of a close: {}", shown(surplus));
    }

    fn give_back(self) {
        tokio::spawn(serve(self.wire, self.connection, self.desk));
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, desk: Desk) {
    for connection in 0.. {
        let (stream, _) = listener.accept().await.expect("a connection");
        stream.set_nodelay(true).expect("an open socket");
        let (tls, desk) = (tls.clone(), desk.clone());
        tokio::spawn(async move {
            let socket: Box<dyn Socket> = match tls {
                None => Box::new(stream),
                Some(tls) => match tls.accept(stream).into_fallible().await {
                    Ok(stream) => Box::new(stream),
                    // Whether the handshake should work is the test's to say. The alert that says why it did not is lost
                    // if the socket closes on bytes that nobody has read.
                    Err((_, mut stream)) => {
                        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
                        return;
                    }
                },
            };
            serve(Wire { socket, surplus: BytesMut::new() }, connection, desk).await;
        });
    }
}

/// Reads one request and hands it over; the exchange starts this again when its reply is whole.
async fn serve(mut wire: Wire, connection: usize, desk: Desk) {
    let read = loop {
        match wire.read_request().await {
            Ok(None) => return,
            Ok(Some((line, headers, body))) => {
                let mut words = line.split(' ').map(str::to_owned);
                let verb = words.next().unwrap_or_default();
                let target = words.next().unwrap_or_default();
                if verb == "GET" && !desk.gets.load(Ordering::Acquire) {
                    let refusal = head(405, &[("Allow", "POST, DELETE"), ("Content-Length", "0")]);
                    if wire.socket.write_all(refusal.as_bytes()).await.is_err() || wire.socket.flush().await.is_err() {
                        return;
                    }
                    continue;
                }
                let (unsent, again) = (BytesMut::new(), desk.clone());
                break Ok(Exchange { verb, target, headers, body, connection, wire, desk: again, unsent });
            }
            Err(fault) => break Err(fault),
        }
    };
    // The test may have ended.
    let _ = desk.arrived.send(read);
}

impl Wire {
    /// The request line, the headers and the body; `None` where the peer closed between two requests.
    async fn read_request(&mut self) -> Result<Option<(String, Vec<(String, String)>, Bytes)>, String> {
        let Some(line) = self.read_line().await? else { return Ok(None) };
        let mut headers = Vec::new();
        loop {
            let line = self.read_line().await?.ok_or("a request head was cut")?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| format!("no header: {line:?}"))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let value_of = |name| headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let body = if value_of("transfer-encoding").is_some() {
            self.read_chunks().await?
        } else {
            let length = value_of("content-length").map_or(Ok(0), str::parse).map_err(|_| "no length")?;
            self.read_exactly(length).await?
        };
        Ok(Some((line, headers, body)))
    }

    async fn read_chunks(&mut self) -> Result<Bytes, String> {
        let mut body = BytesMut::new();
        loop {
            let size = self.read_line().await?.ok_or("a request body was cut")?;
            let size = usize::from_str_radix(&size, 16).map_err(|_| format!("no chunk size: {size:?}"))?;
            body.extend_from_slice(&self.read_exactly(size).await?);
            self.read_line().await?;
            if size == 0 {
                return Ok(body.freeze());
            }
        }
    }

    /// One line without its CRLF; `None` where the peer closed before it.
    async fn read_line(&mut self) -> Result<Option<String>, String> {
        loop {
            if let Some(end) = self.surplus.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.surplus.split_to(end + 2);
                return String::from_utf8(line[..end].to_vec()).map(Some).map_err(|_| "a head not in UTF-8".to_owned());
            }
            match self.socket.read_buf(&mut self.surplus).await {
                Ok(0) | Err(_) if self.surplus.is_empty() => return Ok(None),
                Ok(0) | Err(_) => return Err(format!("a request head was cut: {}", shown(&self.surplus))),
                Ok(_) => {}
            }
        }
    }

    async fn read_exactly(&mut self, length: usize) -> Result<Bytes, String> {
        self.surplus.reserve(length.saturating_sub(self.surplus.len()));
        while self.surplus.len() < length {
            if !matches!(self.socket.read_buf(&mut self.surplus).await, Ok(1..)) {
                return Err(format!("a request body was cut: {}", shown(&self.surplus)));
            }
        }
        Ok(self.surplus.split_to(length).freeze())
    }
}

fn head(status: u16, headers: &[(&str, &str)]) -> String {
    let mut head = format!("HTTP/1.1 {status} Scripted\r\n");
    for (name, value) in headers {
        head.push_str(name);
        head.push_str(": ");
        head.push_str(value);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    head
}

fn chunk(bytes: &[u8]) -> Vec<u8> {
    let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
    chunk.extend_from_slice(bytes);
    chunk.extend_from_slice(b"\r\n");
    chunk
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_get_is_refused_until_the_test_wants_it() {
        const GET: &[u8] = b"GET /mcp HTTP/1.1\r\nAccept: text/event-stream\r\n\r\n";
        let mut server = Server::start().await;
        let socket = TcpStream::connect(server.address).await.expect("the server listens");
        let mut wire = Wire { socket: Box::new(socket), surplus: BytesMut::new() };
        for _ in 0..2 {
            wire.socket.write_all(GET).await.expect("an open socket");
            let (status, _, _) = within("a reply", wire.read_request()).await.expect("a reply").expect("a reply");
            assert_eq!(status, "HTTP/1.1 405 Scripted");
        }
        server.expect_get();
        wire.socket.write_all(GET).await.expect("an open socket");
        server.get().await.respond(200, &[], "").await;
        let (status, _, _) = within("a reply", wire.read_request()).await.expect("a reply").expect("a reply");
        assert_eq!(status, "HTTP/1.1 200 Scripted");
    }
}
