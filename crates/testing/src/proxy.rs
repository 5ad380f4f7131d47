//! A working proxy: CONNECT, forwarding and SOCKS5, distinguished by the first byte. It resolves every host name to
//! this machine, so a test sees which side resolved a name.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use mcp_gangway_core::{Config, Proxy as Setting, ProxyUrl};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

use super::{SOON, wait_for_no_server};

/// How a proxy treats its clients.
#[derive(Clone, Copy)]
pub enum ProxyBehavior {
    /// Accepts every client.
    Open,
    /// Requires this user and password.
    Wants(&'static str, &'static str),
    /// Refuses with this status, or with the SOCKS code for "not allowed".
    Refuses(u16),
}

/// The proxy. See the module.
pub struct Proxy {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// Starts a proxy that speaks each client's protocol.
    pub async fn start(manner: ProxyBehavior) -> Self {
        Self::on(manner, None).await
    }

    /// Starts an HTTP proxy behind TLS, with these settings.
    pub async fn start_tls(manner: ProxyBehavior, config: ServerConfig) -> Self {
        Self::on(manner, Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn on(manner: ProxyBehavior, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let proxy = Self { address: listener.local_addr().expect("a bound listener"), seen: Arc::default() };
        let seen = Arc::clone(&proxy.seen);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let (tls, seen) = (tls.clone(), Arc::clone(&seen));
                tokio::spawn(async move {
                    match tls {
                        Some(tls) => http(tls.accept(stream).await.ok()?, manner, &seen).await,
                        None => serve(stream, manner, &seen).await,
                    }
                });
            }
        });
        proxy
    }

    /// Returns its URL, with `user` as `name:password@` or empty.
    pub fn url(&self, scheme: &str, user: &str) -> String {
        format!("{scheme}://{user}{}", self.address)
    }

    /// Returns settings for a bridge to `url` through this proxy.
    pub fn config(&self, url: &str, scheme: &str, user: &str) -> Config {
        let mut config = Config::new(url).expect("a URL");
        let url = ProxyUrl::parse(&self.url(scheme, user)).expect("a proxy's URL");
        config.proxy = Setting::Url { url, except: None };
        config.timeouts.retry = SOON;
        wait_for_no_server(&mut config);
        config
    }

    /// Returns what its clients requested since the last call, one line per connection.
    pub fn seen(&self) -> Vec<String> {
        std::mem::take(&mut *self.seen.lock().expect("no panic"))
    }
}

/// Serves a client. Ignores one that hangs up: the test judges that.
async fn serve(stream: TcpStream, manner: ProxyBehavior, seen: &Mutex<Vec<String>>) -> Option<()> {
    let mut first = [0];
    stream.peek(&mut first).await.ok()?;
    if first == [5] { socks(stream, manner, seen).await } else { http(stream, manner, seen).await }
}

/// Connects the client to this port, and sends `ahead` there first.
async fn relay_to(mut stream: impl AsyncRead + AsyncWrite + Unpin, port: u16, ahead: &[u8]) -> Option<()> {
    let mut server = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    server.write_all(ahead).await.ok()?;
    copy_bidirectional(&mut stream, &mut server).await.ok()?;
    Some(())
}

async fn http(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    manner: ProxyBehavior,
    seen: &Mutex<Vec<String>>,
) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let text = String::from_utf8(head.clone()).expect("a head in UTF-8");
    let mut lines = text.lines();
    let line = lines.next()?.trim_end_matches(" HTTP/1.1").to_owned();
    let credentials = lines
        .filter_map(|line| line.split_once(": "))
        .find_map(|(name, value)| name.eq_ignore_ascii_case("proxy-authorization").then(|| value.to_owned()));
    seen.lock().expect("no panic").push(match &credentials {
        Some(credentials) => format!("{line} {credentials}"),
        None => line.clone(),
    });
    let refusal = match manner {
        ProxyBehavior::Refuses(status) => Some(status),
        ProxyBehavior::Wants(user, password) => {
            let expected = format!("Basic {}", base64(&format!("{user}:{password}")));
            (credentials != Some(expected)).then_some(407)
        }
        ProxyBehavior::Open => None,
    };
    if let Some(status) = refusal {
        let reply = format!("HTTP/1.1 {status} No\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno");
        stream.write_all(reply.as_bytes()).await.ok()?;
        // Bytes from the client may still be in flight.
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        return None;
    }
    match line.split_once(' ')? {
        ("CONNECT", target) => {
            stream.write_all(b"HTTP/1.1 200 Fine\r\n\r\n").await.ok()?;
            relay_to(stream, target.rsplit_once(':')?.1.parse().ok()?, b"").await
        }
        (_, target) => {
            let authority = target.strip_prefix("http://")?.split('/').next()?;
            relay_to(stream, authority.rsplit_once(':')?.1.parse().ok()?, &head).await
        }
    }
}

/// Serves a SOCKS5 client (RFC 1928 and 1929).
async fn socks(mut stream: TcpStream, manner: ProxyBehavior, seen: &Mutex<Vec<String>>) -> Option<()> {
    async fn field(stream: &mut TcpStream) -> Option<Vec<u8>> {
        let mut bytes = vec![0; stream.read_u8().await.ok()?.into()];
        stream.read_exact(&mut bytes).await.ok()?;
        Some(bytes)
    }
    stream.read_u8().await.ok()?;
    let methods = field(&mut stream).await?;
    let mut user = String::new();
    if let ProxyBehavior::Wants(name, password) = manner {
        if !methods.contains(&2) {
            seen.lock().expect("no panic").push("SOCKS5 without credentials".to_owned());
            stream.write_all(&[5, 0xff]).await.ok()?;
            return None;
        }
        stream.write_all(&[5, 2]).await.ok()?;
        stream.read_u8().await.ok()?;
        let (given_name, given_password) = (field(&mut stream).await?, field(&mut stream).await?);
        user = format!("{}:{} ", String::from_utf8_lossy(&given_name), String::from_utf8_lossy(&given_password));
        let fits = given_name == name.as_bytes() && given_password == password.as_bytes();
        stream.write_all(&[1, u8::from(!fits)]).await.ok()?;
        if !fits {
            seen.lock().expect("no panic").push(format!("SOCKS5 {user}refused"));
            return None;
        }
    } else {
        stream.write_all(&[5, 0]).await.ok()?;
    }
    let mut head = [0; 4];
    stream.read_exact(&mut head).await.ok()?;
    let host = match head[3] {
        1 => {
            let mut address = [0; 4];
            stream.read_exact(&mut address).await.ok()?;
            std::net::Ipv4Addr::from(address).to_string()
        }
        3 => String::from_utf8(field(&mut stream).await?).ok()?,
        _ => return None,
    };
    let port = stream.read_u16().await.ok()?;
    seen.lock().expect("no panic").push(format!("SOCKS5 {user}{host}:{port}"));
    let refused = matches!(manner, ProxyBehavior::Refuses(_));
    stream.write_all(&[5, if refused { 2 } else { 0 }, 0, 1, 0, 0, 0, 0, 0, 0]).await.ok()?;
    if refused { None } else { relay_to(stream, port, b"").await }
}

fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for piece in text.as_bytes().chunks(3) {
        let bits = piece.iter().fold(0_u32, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - piece.len()));
        for digit in 0..4 {
            let value = (bits >> (18 - 6 * digit)) & 63;
            out.push(if digit <= piece.len() { DIGITS[value as usize].into() } else { '=' });
        }
    }
    out
}
