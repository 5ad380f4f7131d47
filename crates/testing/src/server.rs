//! A scripted HTTP/1.1 server. It reads one request at a time from each connection and hands it to the test as an
//! [`Exchange`]. The methods of an exchange write exactly the bytes that the test wants, when it wants.
//!
//! One exception: it has no event stream for a GET and answers 405 (R30), unless the test called
//! [`Server::expect_get`].
//!
//! After a whole response, the connection serves the next request (keep-alive). Dropping an exchange closes its
//! socket. Dropping the server fails the test if a request is left that the test did not take.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
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
pub struct Server {
    address: SocketAddr,
    scheme: &'static str,
    arrivals: mpsc::UnboundedReceiver<Arrival>,
    put_by: VecDeque<Exchange>,
    /// True if GETs are handed to the test.
    gets: Arc<AtomicBool>,
    listening: JoinHandle<()>,
}

/// A request, or why the received bytes are not one.
type Arrival = Result<Exchange, String>;

/// Where requests are delivered.
#[derive(Clone)]
struct DeliveryQueue {
    arrived: mpsc::UnboundedSender<Arrival>,
    gets: Arc<AtomicBool>,
}

impl Server {
    /// Starts a server for `http://127.0.0.1`.
    pub async fn start() -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.expect("a port"), None)
    }

    /// Starts a server for `https://localhost`.
    pub async fn start_tls(config: ServerConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        Self::on(listener, Some(TlsAcceptor::from(Arc::new(config))))
    }

    /// Starts a server on the test's own listener.
    pub fn on(listener: TcpListener, tls: Option<TlsAcceptor>) -> Self {
        let address = listener.local_addr().expect("a bound listener");
        let scheme = if tls.is_some() { "https" } else { "http" };
        let (arrived, arrivals) = mpsc::unbounded_channel();
        let gets = Arc::default();
        let listening = tokio::spawn(accept(listener, tls, DeliveryQueue { arrived, gets: Arc::clone(&gets) }));
        Self { address, scheme, arrivals, put_by: VecDeque::new(), gets, listening }
    }

    /// From now on the test answers GETs, taken with [`Self::get`]. Of the other methods, only [`Self::next`] returns
    /// them.
    pub fn expect_get(&self) {
        self.gets.store(true, Ordering::Release);
    }

    /// Returns the address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the port that it listens on.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Returns the origin of its URLs.
    pub fn origin(&self) -> String {
        match self.scheme {
            "https" => format!("https://localhost:{}", self.port()),
            _ => format!("http://{}", self.address),
        }
    }

    /// Returns settings for a bridge to this server that ignore the environment's proxy.
    pub fn config(&self) -> Config {
        config(&format!("{}/mcp", self.origin()))
    }

    /// Returns the next HTTP request of any kind.
    pub async fn next(&mut self, awaited: &str) -> Exchange {
        match self.put_by.pop_front() {
            Some(exchange) => exchange,
            None => self.arrival(awaited).await,
        }
    }

    /// Returns the next HTTP request that is not a GET. It must be a valid POST (R20).
    pub async fn post(&mut self) -> Exchange {
        let exchange = self.first("a POST from the bridge", |exchange| exchange.verb != "GET").await;
        exchange.check_post();
        exchange
    }

    /// Returns the next HTTP request. It must be the POST of a modern message: it names its version and its method, and
    /// no session (R60, R61, R72).
    pub async fn modern_post(&mut self) -> Exchange {
        let exchange = self.next("a modern POST from the bridge").await;
        exchange.check_post();
        exchange.check_modern();
        exchange
    }

    /// Returns the POST of the request with this id, written as JSON. Keeps earlier requests for later.
    pub async fn post_of(&mut self, id: &str) -> Exchange {
        let wanted = |exchange: &Exchange| exchange.id().as_deref() == Some(id);
        let exchange = self.first(&format!("the POST of request {id}"), wanted).await;
        exchange.check_post();
        exchange
    }

    /// Returns the next GET, which must ask for an event stream (R29). Keeps earlier requests for later.
    pub async fn get(&mut self) -> Exchange {
        assert!(self.gets.load(Ordering::Acquire), "the test did not call `expect_get`");
        let exchange = self.first("a GET from the bridge", |exchange| exchange.verb == "GET").await;
        assert_eq!(exchange.header("accept"), Some("text/event-stream"), "{}", exchange.shown());
        assert!(exchange.body.is_empty(), "{}", exchange.shown());
        exchange
    }

    /// Returns the first request that is `wanted`. Keeps earlier requests for later.
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
    pub async fn initialize(&mut self, session: Option<&str>, version: &str) -> String {
        let initialize = self.post().await;
        assert_eq!(initialize.rpc_method(), "initialize");
        assert_eq!(initialize.header("mcp-session-id"), None, "initialize must not carry a session (R23)");
        initialize.initialized(session, version).await
    }

    /// Discards requests that carry no JSON-RPC request of the client and that may or may not have arrived.
    pub fn forget_notifications(&mut self) {
        while let Ok(Ok(exchange)) = self.arrivals.try_recv() {
            self.put_by.push_back(exchange);
        }
        self.put_by.retain(|exchange| exchange.id().is_some());
    }

    /// Discards requests that open a subscription and that may or may not have arrived.
    pub fn forget_subscriptions(&mut self) {
        while let Ok(Ok(exchange)) = self.arrivals.try_recv() {
            self.put_by.push_back(exchange);
        }
        self.put_by.retain(|exchange| exchange.rpc_method() != "subscriptions/listen");
    }

    /// Fails the test if a request is left that it did not take.
    pub fn expect_no_more(&mut self) {
        if let Some(exchange) = self.put_by.pop_front() {
            panic!("an unexpected HTTP request: {}", exchange.shown());
        }
        match self.arrivals.try_recv() {
            Ok(Ok(exchange)) => panic!("an unexpected HTTP request: {}", exchange.shown()),
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

/// Returns settings for a bridge to this URL that ignore the environment's proxy.
pub(crate) fn config(url: &str) -> Config {
    let mut config = Config::new(url).expect("a URL");
    config.proxy = Proxy::None;
    config.timeouts.retry = SOON;
    config.timeouts.reconnect = SOON;
    wait_for_no_server(&mut config);
    config
}

/// Turns off what waits for a server that is away: a slow machine does not make a server late, and a request to a
/// closed port fails soon.
pub fn wait_for_no_server(config: &mut Config) {
    config.timeouts.attach = Some(Duration::from_mins(1));
    config.timeouts.hold = Duration::ZERO;
}

/// One HTTP request, and the socket for its response.
pub struct Exchange {
    pub verb: String,
    pub target: String,
    /// Names in lower case, in the order of arrival.
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    /// The server's number for this connection, starting at 0.
    pub connection: usize,
    wire: Wire,
    deliveries: DeliveryQueue,
    /// Bytes of the response that the bridge has not taken yet.
    unsent: BytesMut,
}

/// A socket, and the bytes read from it beyond the last request.
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

/// The parts of a message that identify it.
#[derive(Deserialize)]
struct MessageHead<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    method: Option<String>,
}

impl Exchange {
    /// Returns the value of a header that occurs at most once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let value = values.next();
        assert!(values.next().is_none(), "the header {name} came twice: {}", self.shown());
        value
    }

    /// Returns the body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body in UTF-8")
    }

    /// Returns the id of the message as it is written; `None` for a notification.
    pub fn id(&self) -> Option<String> {
        self.peek().and_then(|peek| peek.id.map(|id| id.get().to_owned()))
    }

    /// Returns the parsed message.
    pub fn value(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// Returns the JSON-RPC method of the message.
    pub fn rpc_method(&self) -> String {
        self.peek().and_then(|peek| peek.method).unwrap_or_default()
    }

    /// Returns the id that a cancellation names, as it is written.
    pub fn cancelled_id(&self) -> Option<String> {
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

    fn peek(&self) -> Option<MessageHead<'_>> {
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

    /// Checks that the message and its headers are modern.
    pub fn check_modern(&self) {
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

    // Whole HTTP responses.

    /// Sends a whole HTTP response with a Content-Length. The connection stays open for the next request.
    pub async fn respond(mut self, status: u16, headers: &[(&str, &str)], body: impl AsRef<[u8]>) {
        let body = body.as_ref();
        let length = body.len().to_string();
        let mut headers = headers.to_vec();
        // RFC 9110, 8.6: no length with 204.
        if status != 204 {
            headers.push(("Content-Length", &length));
        }
        self.write(head(status, &headers).as_bytes()).await;
        self.write(body).await;
        self.serve_next_request();
    }

    /// Sends these bytes as a whole HTTP response. The connection stays open for the next request.
    pub async fn raw(mut self, reply: impl AsRef<[u8]>) {
        self.write(reply.as_ref()).await;
        self.serve_next_request();
    }

    /// Sends a whole HTTP response of this content type; sends no type if it is empty.
    pub async fn respond_as(self, status: u16, content_type: &str, body: impl AsRef<[u8]>) {
        let headers: &[_] = if content_type.is_empty() { &[] } else { &[("Content-Type", content_type)] };
        self.respond(status, headers, body).await;
    }

    /// Sends a JSON body with status 200.
    pub async fn json(self, body: impl AsRef<[u8]>) {
        self.respond_as(200, "application/json", body).await;
    }

    /// Sends the result of this request as JSON; returns the response.
    pub async fn answer(self, result: &str) -> String {
        let response = super::response(&self.id().expect("a request"), result);
        self.json(&response).await;
        response
    }

    /// Sends an error for this request with this status, as JSON; returns the response.
    pub async fn refuse(self, status: u16, code: i64) -> String {
        let response = super::refusal(&self.id().expect("a request"), code);
        self.respond_as(status, "application/json", &response).await;
        response
    }

    /// Sends the result of `initialize`, with a session and a version; returns the response.
    pub async fn initialized(self, session: Option<&str>, version: &str) -> String {
        let result = format!(
            r#"{{"protocolVersion":"{version}","capabilities":{{}},"serverInfo":{{"name":"s","version":"1"}}}}"#
        );
        let response = super::response(&self.id().expect("a request"), &result);
        let mut headers = vec![("Content-Type", "application/json")];
        headers.extend(session.map(|session| ("Mcp-Session-Id", session)));
        self.respond(200, &headers, &response).await;
        response
    }

    /// Sends 202 without a body, as for a notification.
    pub async fn accepted(self) {
        self.respond(202, &[], "").await;
    }

    // HTTP responses in steps.

    /// Sends the head of a chunked HTTP response.
    pub async fn head(&mut self, status: u16, headers: &[(&str, &str)]) {
        let mut headers = headers.to_vec();
        headers.push(("Transfer-Encoding", "chunked"));
        self.write(head(status, &headers).as_bytes()).await;
    }

    /// Sends the head of an HTTP response that ends with the connection.
    pub async fn head_until_close(&mut self, status: u16, headers: &[(&str, &str)]) {
        let mut headers = headers.to_vec();
        headers.push(("Connection", "close"));
        self.write(head(status, &headers).as_bytes()).await;
    }

    /// Sends the head of a chunked event stream.
    pub async fn sse(&mut self) {
        self.head(200, &[("Content-Type", "text/event-stream")]).await;
    }

    /// Sends one chunk of a chunked HTTP response.
    pub async fn chunk(&mut self, bytes: impl AsRef<[u8]>) {
        assert!(!bytes.as_ref().is_empty(), "an empty chunk is the end of the body");
        self.write(&chunk(bytes.as_ref())).await;
    }

    /// Sends one event of a chunked event stream, with its data on one line.
    pub async fn event(&mut self, data: &str) {
        self.chunk(format!("data: {data}\n\n")).await;
    }

    /// Writes bytes unchanged, outside of any framing.
    pub async fn write(&mut self, bytes: &[u8]) {
        let mut unsent = self.unsent.split();
        within("the bridge to read the response", async {
            let _ = self.wire.socket.write_all_buf(&mut unsent).await;
            // The test judges a peer that has closed.
            let _ = self.wire.socket.write_all(bytes).await;
            let _ = self.wire.socket.flush().await;
        })
        .await;
    }

    /// Sends `block` repeatedly, as chunks, until the bridge stops reading or `most` bytes are written. Returns the
    /// number of bytes. The next write first sends the rest of the last chunk.
    pub async fn flood(&mut self, block: &[u8], most: usize) -> usize {
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

    /// Sends the empty result of this request on its event stream, and ends the stream.
    pub async fn answer_on_stream(mut self) {
        let response = super::response(&self.id().expect("a request"), "{}");
        self.event(&response).await;
        self.end().await;
    }

    /// Ends a chunked HTTP response. The connection stays open for the next request.
    pub async fn end(mut self) {
        self.write(b"0\r\n\r\n").await;
        self.serve_next_request();
    }

    /// Sends a stream that ends at once and can be resumed at once.
    pub async fn ends_to_be_resumed(mut self) {
        self.sse().await;
        self.chunk("retry: 0\nid: 1\ndata:\n\n").await;
        self.end().await;
    }

    /// Closes the connection, even in the middle of the response.
    pub async fn fin(mut self) {
        let _ = self.wire.socket.shutdown().await;
    }

    /// Closes the sending side, and keeps reading.
    pub async fn shut_down(&mut self) {
        self.wire.socket.shutdown().await.expect("an open socket");
    }

    /// Resets the connection, even in the middle of the response.
    pub fn reset(self) {
        self.wire.socket.tcp().set_zero_linger().expect("an open socket");
    }

    /// Waits until the bridge closes the connection.
    pub async fn closed_by_peer(mut self, awaited: &str) {
        let surplus = &mut self.wire.surplus;
        let read = within(awaited, self.wire.socket.read_buf(surplus)).await;
        assert!(matches!(read, Ok(0) | Err(_)), "bytes instead of a close: {}", shown(surplus));
    }

    fn serve_next_request(self) {
        tokio::spawn(serve(self.wire, self.connection, self.deliveries));
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, deliveries: DeliveryQueue) {
    for connection in 0.. {
        let (stream, _) = listener.accept().await.expect("a connection");
        stream.set_nodelay(true).expect("an open socket");
        let (tls, deliveries) = (tls.clone(), deliveries.clone());
        tokio::spawn(async move {
            let socket: Box<dyn Socket> = match tls {
                None => Box::new(stream),
                Some(tls) => match tls.accept(stream).into_fallible().await {
                    Ok(stream) => Box::new(stream),
                    // The test judges whether the handshake should work. Read to the end: closing the socket with
                    // unread bytes would lose the alert that says why it failed.
                    Err((_, mut stream)) => {
                        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
                        return;
                    }
                },
            };
            serve(Wire { socket, surplus: BytesMut::new() }, connection, deliveries).await;
        });
    }
}

/// Reads one request and delivers it. The exchange calls this again after a whole response.
async fn serve(mut wire: Wire, connection: usize, deliveries: DeliveryQueue) {
    let read = loop {
        match wire.read_request().await {
            Ok(None) => return,
            Ok(Some((line, headers, body))) => {
                let mut words = line.split(' ').map(str::to_owned);
                let verb = words.next().unwrap_or_default();
                let target = words.next().unwrap_or_default();
                if verb == "GET" && !deliveries.gets.load(Ordering::Acquire) {
                    let refusal = head(405, &[("Allow", "POST, DELETE"), ("Content-Length", "0")]);
                    if wire.socket.write_all(refusal.as_bytes()).await.is_err() || wire.socket.flush().await.is_err() {
                        return;
                    }
                    continue;
                }
                let (unsent, again) = (BytesMut::new(), deliveries.clone());
                break Ok(Exchange { verb, target, headers, body, connection, wire, deliveries: again, unsent });
            }
            Err(fault) => break Err(fault),
        }
    };
    // The test may have ended.
    let _ = deliveries.arrived.send(read);
}

impl Wire {
    /// Reads the request line, the headers and the body; `None` if the peer closed between two requests.
    async fn read_request(&mut self) -> Result<Option<(String, Vec<(String, String)>, Bytes)>, String> {
        let Some(line) = self.read_line().await? else { return Ok(None) };
        let mut headers = Vec::new();
        loop {
            let line = self.read_line().await?.ok_or("a request head was cut")?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| format!("not a header: {line:?}"))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let value_of = |name| headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let body = if value_of("transfer-encoding").is_some() {
            self.read_chunks().await?
        } else {
            let length = value_of("content-length").map_or(Ok(0), str::parse).map_err(|_| "an invalid length")?;
            self.read_exactly(length).await?
        };
        Ok(Some((line, headers, body)))
    }

    async fn read_chunks(&mut self) -> Result<Bytes, String> {
        let mut body = BytesMut::new();
        loop {
            let size = self.read_line().await?.ok_or("a request body was cut")?;
            let size = usize::from_str_radix(&size, 16).map_err(|_| format!("not a chunk size: {size:?}"))?;
            body.extend_from_slice(&self.read_exactly(size).await?);
            self.read_line().await?;
            if size == 0 {
                return Ok(body.freeze());
            }
        }
    }

    /// Reads one line without its CRLF; `None` if the peer closed before it.
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
    async fn scripted_server_refuses_get_until_the_test_expects_one() {
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
