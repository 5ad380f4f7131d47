//! The HTTP client on its own, as code outside of the bridge uses it.

use std::{sync::Arc, time::Duration};

use http::{Request, Version};
use mcp_gangway_core::{
    Proxy, ProxyUrl,
    http::{HttpClient, HttpSettings, HttpVersion},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use crate::support::{Authority, H2Server, Server, closed_port, within};
use crate::transport::Encoder;

fn post(url: &str) -> Request<String> {
    Request::post(url).body("text".to_owned()).unwrap()
}

fn direct() -> HttpSettings {
    let mut settings = HttpSettings::default();
    settings.proxy = Proxy::None;
    settings
}

#[tokio::test]
async fn a_body_can_be_read_raw_or_decompressed() {
    let mut server = Server::start().await;
    let client = HttpClient::new(direct()).unwrap();
    for (name, mut encoder) in Encoder::all() {
        let mut body = encoder.flushed("expanded");
        body.extend(encoder.end());
        for is_raw in [true, false] {
            let sending = client.send(post(&format!("{}/mcp", server.origin())));
            let answering = async {
                let post = server.next("a request").await;
                assert_eq!(post.text(), "text");
                assert_eq!(post.header("accept-encoding"), Some("zstd,gzip,deflate,br"));
                assert_eq!(post.header("user-agent"), Some(concat!("mcp-gangway/", env!("CARGO_PKG_VERSION"))));
                post.respond(200, &[("Content-Encoding", name)], &body).await;
            };
            let (response, ()) = tokio::join!(sending, answering);
            let (head, mut response) = response.unwrap().into_parts();
            assert_eq!(head.version, Version::HTTP_11);
            assert_eq!(head.headers["content-encoding"], name);
            let mut read = Vec::new();
            while let Some(chunk) = if is_raw { response.raw_chunk().await } else { response.chunk().await }.unwrap() {
                read.extend_from_slice(&chunk);
            }
            assert_eq!(read, if is_raw { &body[..] } else { b"expanded" }, "{name}");
        }
    }
}

#[tokio::test]
async fn headers_set_on_a_request_are_not_overwritten() {
    let mut server = Server::start().await;
    let client = HttpClient::new(direct()).unwrap();
    let mut request = post(&format!("{}/mcp", server.origin()));
    let own = [("user-agent", "mine"), ("accept-encoding", "identity")];
    for (name, value) in own {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    let answering = async {
        let post = server.next("a request").await;
        for (name, value) in own {
            assert_eq!(post.header(name), Some(value));
        }
        post.accepted().await;
    };
    let (response, ()) = tokio::join!(client.send(request), answering);
    assert_eq!(response.unwrap().status(), 202);
}

#[tokio::test]
async fn the_configured_http_version_is_used() {
    let authority = Authority::new();
    let mut server = H2Server::start(authority.server_config("localhost")).await;
    let (url, mut settings) = (server.url(), direct());
    settings.tls.ca_certificates = vec![authority.pem()];
    for version in [HttpVersion::Auto, HttpVersion::Http2] {
        settings.version = version;
        let client = HttpClient::new(settings.clone()).unwrap();
        let answering = async { server.next().await.json("{}") };
        let (response, ()) = tokio::join!(client.send(post(&url)), answering);
        assert_eq!(response.unwrap().version(), Version::HTTP_2, "{version:?}");
    }
    // This server speaks only HTTP/2, so HTTP/1.1 must fail.
    settings.version = HttpVersion::Http1;
    let error = HttpClient::new(settings).unwrap().send(post(&url)).await.unwrap_err();
    assert!(error.is_connect(), "{error}");
}

#[tokio::test]
async fn connections_are_reused_unless_renewed_or_disabled() {
    let mut server = Server::start().await;
    let mut settings = direct();
    let url = format!("{}/mcp", server.origin());
    let mut connections = async |client: &HttpClient<String>| {
        let mut seen = Vec::new();
        for _ in 0..2 {
            let answering = async {
                let post = server.next("a request").await;
                seen.push(post.connection);
                post.accepted().await;
            };
            let (response, ()) = tokio::join!(client.send(post(&url)), answering);
            assert!(response.unwrap().into_body().chunk().await.unwrap().is_none());
        }
        seen
    };
    let client = HttpClient::new(settings.clone()).unwrap();
    assert_eq!(connections(&client).await, [0, 0]);
    assert_eq!(connections(&client.clone()).await, [0, 0]);
    assert_eq!(connections(&client.renewed()).await, [1, 1]);
    settings.idle_connections = 0;
    assert_eq!(connections(&HttpClient::new(settings).unwrap()).await, [2, 3]);
}

#[tokio::test]
async fn a_connection_that_was_idle_for_too_long_is_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    let mut settings = direct();
    settings.idle_for = Duration::from_millis(50);
    let client = HttpClient::new(settings).unwrap();
    let serving = async { accept_until_the_end(listener.accept().await.unwrap().0).await };
    tokio::join!(async { drop(client.send(post(&url)).await.unwrap()) }, serving);
}

#[tokio::test]
async fn a_tls_connection_is_closed_with_close_notify() {
    let authority = Authority::new();
    let tls = TlsAcceptor::from(Arc::new(authority.server_config("localhost")));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/mcp", listener.local_addr().unwrap().port());
    let mut settings = direct();
    settings.tls.ca_certificates = vec![authority.pem()];
    settings.idle_for = Duration::from_millis(50);
    let client = HttpClient::new(settings).unwrap();
    // Without the alert `close_notify` the end is an error.
    let serving = async { accept_until_the_end(tls.accept(listener.accept().await.unwrap().0).await.unwrap()).await };
    tokio::join!(async { drop(client.send(post(&url)).await.unwrap()) }, serving);
}

#[tokio::test]
async fn an_idle_connection_closed_by_the_server_is_closed_by_the_client() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    let client = HttpClient::new(direct()).unwrap();
    for _ in 0..3 {
        let serving = async {
            let mut connection = listener.accept().await.unwrap().0;
            accept_request(&mut connection).await;
            connection
        };
        let (response, mut connection) = tokio::join!(client.send(post(&url)), serving);
        drop(response.unwrap());
        connection.shutdown().await.unwrap();
        assert_eq!(within("the other half's end", connection.read(&mut [0])).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_freed_connection_serves_a_request_waiting_for_a_new_one() {
    // A proxy that connects once, and ignores all further connections.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut settings = direct();
    let proxy = format!("socks5h://{}", listener.local_addr().unwrap());
    settings.proxy = Proxy::Url { url: ProxyUrl::parse(&proxy).unwrap(), except: None };
    let client = HttpClient::new(settings).unwrap();
    let send = async || client.send(post("http://name.invalid/mcp")).await.unwrap().status();
    let serving = async {
        let mut connection = listener.accept().await.unwrap().0;
        let silent = listener.accept().await.unwrap();
        connection.read_exact(&mut [0; 3]).await.unwrap();
        connection.write_all(&[5, 0]).await.unwrap();
        connection.read_exact(&mut [0; 7 + "name.invalid".len()]).await.unwrap();
        connection.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap();
        accept_request(&mut connection).await;
        accept_request(&mut connection).await;
        silent
    };
    let (one, other, _) = within("both responses", async { tokio::join!(send(), send(), serving) }).await;
    assert_eq!((one.as_u16(), other.as_u16()), (202, 202));
}

#[tokio::test]
async fn a_connection_is_reused_after_an_unread_empty_body() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    let client = HttpClient::new(direct()).unwrap();
    let serving = async {
        let mut connection = listener.accept().await.unwrap().0;
        for head in
            ["Content-Length: 0\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "Content-Length: 0\r\n\r\n"]
        {
            read_request(&mut connection).await;
            connection.write_all(format!("HTTP/1.1 202 Accepted\r\n{head}").as_bytes()).await.unwrap();
        }
        connection
    };
    let sending = async {
        for _ in 0..3 {
            drop(client.send(post(&url)).await.unwrap());
        }
    };
    within("three requests on one connection", async { tokio::join!(serving, sending) }).await;
}

#[tokio::test]
async fn concurrent_requests_share_one_http2_connection() {
    let authority = Authority::new();
    let mut server = H2Server::start(authority.server_config("localhost")).await;
    let mut settings = direct();
    settings.tls.ca_certificates = vec![authority.pem()];
    let client = HttpClient::new(settings).unwrap();
    let mut requests: JoinSet<_> = (0..8).map(|_| client.send(post(&server.url()))).collect();
    let mut connections = Vec::new();
    for _ in 0..8 {
        let exchange = server.next().await;
        connections.push(exchange.connection);
        exchange.json("{}");
        assert_eq!(requests.join_next().await.unwrap().unwrap().unwrap().status(), 200);
    }
    connections.dedup();
    assert_eq!(connections.len(), 1, "{connections:?}");
}

/// Reads a request that `post` made.
async fn read_request(connection: &mut (impl AsyncRead + Unpin)) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\ntext") {
        assert_ne!(within("a request", connection.read_buf(&mut request)).await.unwrap(), 0);
    }
}

/// Reads a request that `post` made, and accepts it.
async fn accept_request(connection: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    read_request(connection).await;
    connection.write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n").await.unwrap();
}

/// Reads and accepts a request, then waits for the regular end of the connection.
async fn accept_until_the_end(mut connection: impl AsyncRead + AsyncWrite + Unpin) {
    accept_request(&mut connection).await;
    assert_eq!(within("the end of the connection", connection.read(&mut [0])).await.unwrap(), 0);
}

#[tokio::test]
async fn a_connect_error_names_the_server_without_its_secrets() {
    let (_port, address) = closed_port();
    let client = HttpClient::new(direct()).unwrap();
    let error = client.send(post(&format!("http://user:hunter2@{address}/?hunter2"))).await.unwrap_err();
    assert!(error.is_connect() && !error.is_config(), "{error}");
    assert!(error.to_string().contains(&format!("cannot connect to http://{address}/?…")), "{error}");
    assert!(!format!("{error:?} {client:?}").contains("hunter2"), "{error:?}");
}
