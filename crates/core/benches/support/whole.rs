//! Runs a whole bridge between a client in memory and a server over loopback, on one thread: a round trip is all work
//! and no waiting.

use mcp_gangway_core::{Config, Proxy};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream, ReadHalf, WriteHalf, duplex, split},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};

/// The protocol of one side.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Era {
    Legacy,
    Modern,
}

/// A client of a bridge that has a server. All of them share one thread.
pub(crate) struct Client {
    input: WriteHalf<DuplexStream>,
    output: BufReader<ReadHalf<DuplexStream>>,
    call: String,
    line: String,
}

impl Client {
    /// Starts a client and makes a first call with an argument of `size` bytes, which the result repeats.
    pub(crate) fn start(runtime: &Runtime, client: Era, server: Era, size: usize) -> Self {
        let (near, far) = duplex(1 << 20);
        let (output, input) = split(near);
        let (bridge_input, bridge_output) = split(far);
        let meta = match client {
            Era::Legacy => "{}",
            Era::Modern => {
                r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#
            }
        };
        let text = "x".repeat(size);
        let params = format!(r#"{{"name":"echo","arguments":{{"text":"{text}"}},"_meta":{meta}}}"#);
        let call = format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{params}}}\n");
        let mut this = Self { input, output: BufReader::new(output), call, line: String::new() };
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let mut config = Config::new(&format!("http://{}/mcp", listener.local_addr().expect("an address")))
                .expect("a URL");
            config.proxy = Proxy::None;
            tokio::spawn(serve(listener, server, text));
            tokio::spawn(mcp_gangway_core::run(config, bridge_input, bridge_output, std::future::pending()));
            if client == Era::Legacy {
                this.say(
                    r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"bench","version":"1"}}}"#,
                )
                .await;
                this.hear().await;
                this.say(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await;
            }
            // Do one-time work before the first measurement.
            this.call().await;
        });
        this
    }

    /// Makes one round trip.
    pub(crate) async fn call(&mut self) {
        self.input.write_all(self.call.as_bytes()).await.expect("a bridge that reads");
        self.hear().await;
        assert!(self.line.contains(r#""result""#), "{}", self.line);
    }

    async fn say(&mut self, line: &str) {
        self.input.write_all(format!("{line}\n").as_bytes()).await.expect("a bridge that reads");
    }

    async fn hear(&mut self) {
        self.line.clear();
        self.output.read_line(&mut self.line).await.expect("a bridge that writes");
    }
}

/// Runs a server of one era, which echoes.
async fn serve(listener: TcpListener, era: Era, text: String) {
    while let Ok((socket, _)) = listener.accept().await {
        tokio::spawn(converse(socket, era, text.clone()));
    }
}

async fn converse(mut socket: TcpStream, era: Era, text: String) {
    socket.set_nodelay(true).expect("a socket");
    let mut read = Vec::new();
    loop {
        let head = loop {
            if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            if socket.read_buf(&mut read).await.unwrap_or_default() == 0 {
                return;
            }
        };
        let headers = String::from_utf8_lossy(&read[..head]).to_ascii_lowercase();
        let length: usize = headers
            .lines()
            .find_map(|line| line.strip_prefix("content-length:"))
            .map_or(0, |length| length.trim().parse().expect("a length"));
        while read.len() < head + length {
            if socket.read_buf(&mut read).await.unwrap_or_default() == 0 {
                return;
            }
        }
        let rest = read.split_off(head + length);
        let (status, body) = answer(&headers, &read[head..], era, &text);
        read = rest;
        let reply = format!(
            "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        if socket.write_all(reply.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn answer(headers: &str, body: &[u8], era: Era, text: &str) -> (u16, String) {
    if !headers.starts_with("post") {
        return (405, String::new());
    }
    let has = |part: &str| memchr::memmem::find(body, part.as_bytes()).is_some();
    let id = {
        let after = memchr::memmem::find(body, b"\"id\":").map_or(&b""[..], |at| &body[at + 5..]);
        let end = after.iter().position(|byte| matches!(byte, b',' | b'}')).unwrap_or_default();
        String::from_utf8_lossy(&after[..end]).into_owned()
    };
    let (status, answer) = match era {
        _ if id.is_empty() => return (202, String::new()),
        Era::Legacy if !headers.contains("mcp-protocol-version: 2025") && !has("\"initialize\"") => {
            (400, r#""error":{"code":-32000,"message":"not initialized"}"#.to_owned())
        }
        Era::Legacy if has("\"initialize\"") => (
            200,
            r#""result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"s","version":"1"}}"#
                .to_owned(),
        ),
        Era::Modern if has("\"initialize\"") => (400, r#""error":{"code":-32022,"message":"no"}"#.to_owned()),
        Era::Modern if has("\"server/discover\"") => (
            200,
            r#""result":{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{}},"ttlMs":0,"cacheScope":"private"}"#
                .to_owned(),
        ),
        Era::Modern if has("\"tools/list\"") => {
            (200, r#""result":{"resultType":"complete","tools":[{"name":"echo","inputSchema":{"type":"object"}}],"ttlMs":0,"cacheScope":"private"}"#.to_owned())
        }
        Era::Legacy => (200, format!(r#""result":{{"content":[{{"type":"text","text":"{text}"}}]}}"#)),
        Era::Modern => {
            (200, format!(r#""result":{{"resultType":"complete","content":[{{"type":"text","text":"{text}"}}]}}"#))
        }
    };
    (status, format!(r#"{{"jsonrpc":"2.0","id":{id},{answer}}}"#))
}
