//! An HTTP/2 server that writes raw frames (RFC 9113), so that it can misbehave.

use std::{collections::HashMap, future::poll_fn, io, pin::Pin, sync::Arc, task::Poll};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig, server::TlsStream};

/// The server, for `https://localhost`.
pub struct RawH2 {
    listener: TcpListener,
    tls: TlsAcceptor,
}

/// How the server treats a request.
pub enum Fate {
    /// Status 200 with this JSON.
    Answer(String),
    /// These frames: type, flags and payload.
    Frames(Vec<(u8, u8, Vec<u8>)>),
    /// A status without a body, optionally with `Retry-After` in seconds.
    Status(u16, Option<u64>),
    /// Resets the stream.
    Reset(h2::Reason),
    /// Sends GOAWAY and closes the connection. The last processed stream is this request if `processed`, and none
    /// otherwise.
    GoAway { processed: bool },
    /// Sends a response head that does not end until the connection breaks.
    EndlessHeaders,
}

/// A connection being served. The test judges what a peer breaks on it.
type Connection<'a> = Pin<Box<dyn Future<Output = io::Result<()>> + 'a>>;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

impl RawH2 {
    /// Listens with these settings, and adds its protocol to them.
    pub async fn start(mut config: ServerConfig) -> Self {
        config.alpn_protocols = vec![b"h2".to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        Self { listener, tls: TlsAcceptor::from(Arc::new(config)) }
    }

    /// Returns the port that it listens on.
    pub fn port(&self) -> u16 {
        self.listener.local_addr().expect("a bound listener").port()
    }

    /// Returns the URL of its MCP endpoint.
    pub fn url(&self) -> String {
        format!("https://localhost:{}/mcp", self.port())
    }

    /// Serves for ever. Calls `decide` for each request that is not a notification.
    pub async fn serve(&self, decide: impl AsyncFn(&Value) -> Fate) {
        let mut connections: Vec<Connection> = Vec::new();
        loop {
            let converse = poll_fn(|context| {
                connections.retain_mut(|connection| connection.as_mut().poll(context).is_pending());
                Poll::<()>::Pending
            });
            let (socket, _) = tokio::select! {
                accepted = self.listener.accept() => accepted.expect("a connection"),
                () = converse => unreachable!("it serves for ever"),
            };
            connections.push(Box::pin(self.converse(socket, &decide)));
        }
    }

    async fn converse(&self, socket: TcpStream, decide: &impl AsyncFn(&Value) -> Fate) -> io::Result<()> {
        const PREFACE: usize = 24;
        let mut stream = self.tls.accept(socket).await?;
        stream.read_exact(&mut [0; PREFACE]).await?;
        write(&mut stream, SETTINGS, 0, 0, &[]).await?;
        // Streams may be interleaved.
        let mut bodies: HashMap<u32, Vec<u8>> = HashMap::new();
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await?;
            let [a, b, c, kind, flags, id @ ..] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
            stream.read_exact(&mut payload).await?;
            let id = u32::from_be_bytes(id) & !(1 << 31);
            match kind {
                SETTINGS if flags & ACK == 0 => write(&mut stream, SETTINGS, ACK, 0, &[]).await?,
                PING if flags & ACK == 0 => write(&mut stream, PING, ACK, 0, &payload).await?,
                DATA => bodies.entry(id).or_default().extend_from_slice(&payload),
                _ => {}
            }
            if !matches!(kind, HEADERS | DATA) || flags & END_STREAM == 0 {
                continue;
            }
            let message: Value = serde_json::from_slice(&bodies.remove(&id).unwrap_or_default()).unwrap_or_default();
            if message["id"].is_null() {
                // HPACK: status 204.
                write(&mut stream, HEADERS, END_HEADERS | END_STREAM, id, &[0x89]).await?;
                continue;
            }
            match decide(&message).await {
                Fate::Answer(json) => {
                    // HPACK: status 200 and the content type.
                    let mut headers = b"\x88\x0f\x10\x10".to_vec();
                    headers.extend_from_slice(b"application/json");
                    write(&mut stream, HEADERS, END_HEADERS, id, &headers).await?;
                    write(&mut stream, DATA, END_STREAM, id, json.as_bytes()).await?;
                }
                Fate::Frames(frames) => {
                    for (kind, flags, payload) in frames {
                        write(&mut stream, kind, flags, id, &payload).await?;
                    }
                }
                Fate::Status(status, seconds) => {
                    // HPACK: literal values with indexed names.
                    let mut headers = vec![0x08, 3];
                    headers.extend_from_slice(status.to_string().as_bytes());
                    if let Some(seconds) = seconds.map(|seconds| seconds.to_string()) {
                        headers.extend_from_slice(&[0x0f, 53 - 15, u8::try_from(seconds.len()).expect("a number")]);
                        headers.extend_from_slice(seconds.as_bytes());
                    }
                    write(&mut stream, HEADERS, END_HEADERS | END_STREAM, id, &headers).await?;
                }
                Fate::Reset(reason) => {
                    write(&mut stream, RST_STREAM, 0, id, &u32::from(reason).to_be_bytes()).await?;
                }
                Fate::EndlessHeaders => {
                    // HPACK: status 200, then the header `x: x` repeatedly.
                    write(&mut stream, HEADERS, 0, id, &[0x88]).await?;
                    let more = b"\0\x01x\x01x".repeat(1000);
                    loop {
                        write(&mut stream, CONTINUATION, 0, id, &more).await?;
                    }
                }
                Fate::GoAway { processed } => {
                    let last = if processed { id } else { 0 };
                    let payload = [last.to_be_bytes(), u32::from(h2::Reason::NO_ERROR).to_be_bytes()].concat();
                    write(&mut stream, GOAWAY, 0, 0, &payload).await?;
                    return stream.shutdown().await;
                }
            }
        }
    }
}

async fn write(stream: &mut TlsStream<TcpStream>, kind: u8, flags: u8, id: u32, payload: &[u8]) -> io::Result<()> {
    let [_, a, b, c] = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    let mut frame = vec![a, b, c, kind, flags];
    frame.extend_from_slice(&id.to_be_bytes());
    frame.extend_from_slice(payload);
    stream.write_all(&frame).await?;
    stream.flush().await
}
