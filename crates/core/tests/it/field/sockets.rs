//! Servers that listen on a Unix socket, as desktop programs and containers do.

use mcp_gangway_core::Config;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixListener,
};

use crate::support::{Client, call, response, wait_for_no_server, within};

/// Accepts the next connection, and answers one request with this body. Returns the request.
async fn serve(listener: &UnixListener, body: &str) -> String {
    let (mut socket, _) = within("a connection", listener.accept()).await.unwrap();
    let mut request = Vec::new();
    while !request.ends_with(b"}") {
        assert!(socket.read_buf(&mut request).await.unwrap() > 0);
    }
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    String::from_utf8(request).unwrap()
}

#[tokio::test]
async fn a_unix_socket_server_is_reached_by_each_form_of_its_url() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("a b.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let path = socket.to_str().unwrap();
    let encoded: String = url::form_urlencoded::byte_serialize(path.as_bytes()).collect();
    let encoded = encoded.replace('+', "%20");
    for (url, target) in [
        (format!("unix:{path}"), "/mcp"),
        (format!("unix:{path}:/v1/mcp?key=1"), "/v1/mcp?key=1"),
        (format!("unix://{path}"), "/mcp"),
        (format!("http+unix://{encoded}/other"), "/other"),
        (format!("HTTP+UNIX://{encoded}"), "/mcp"),
    ] {
        let mut config = Config::new(&url).unwrap();
        // The proxy setting has no effect on a socket.
        let proxy = mcp_gangway_core::ProxyUrl::parse("http://127.0.0.1:1").unwrap();
        config.proxy = mcp_gangway_core::Proxy::Url { url: proxy, except: None };
        let mut client = Client::start(config);
        client.send(call("1")).await;
        let answer = response("1", "{}");
        let request = serve(&listener, &answer).await;
        assert!(request.starts_with(&format!("POST {target} HTTP/1.1\r\n")), "{url}: {request}");
        assert!(request.to_ascii_lowercase().contains("\r\nhost: localhost\r\n"), "{url}: {request}");
        client.expect(answer).await;
        client.close_stdin();
        client.end().await;
    }
}

#[tokio::test]
async fn a_unix_socket_replaces_the_connection_but_not_the_host_header() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let mut config = Config::new("http://mcp.example:81/mcp").unwrap();
    config.unix_socket = Some(socket.clone());
    wait_for_no_server(&mut config);
    let mut client = Client::start(config.clone());
    client.send(call("1")).await;
    let answer = response("1", "{}");
    let request = serve(&listener, &answer).await;
    assert!(request.to_ascii_lowercase().contains("\r\nhost: mcp.example:81\r\n"), "{request}");
    client.expect(answer).await;
    client.close_stdin();
    client.end().await;

    drop(listener);
    let mut client = Client::start(config);
    client.send(call("1")).await;
    let failure = client.expect_error("1").await;
    assert_eq!(failure.kind(), "connect");
    assert!(failure.message.contains(socket.to_str().unwrap()), "{failure:?}");
    client.close_stdin();
    client.end().await;
}

#[test]
fn an_invalid_unix_socket_url_is_a_configuration_error() {
    for url in [
        "unix:",
        "unix:relative.sock",
        "unix://host/path:/mcp",
        "http+unix:///mcp",
        "http+unix://relative/mcp",
        "unix:/a\0b",
    ] {
        let error = Config::new(url).unwrap_err();
        assert!(error.is_config() && error.to_string().contains("unix:/path/of/socket:/mcp"), "{url}: {error}");
    }
}
