//! The network layer: compression (R90), redirects (R92), TLS (R93), HTTP/2, both addresses of `localhost` (R94), many
//! open streams (R91).

use std::io::Write;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::support::{
    Authority, Client, Exchange, H2Server, Server, call, dialogue, notification, progress, request, response, within,
};

/// An encoder that can be flushed after each event.
pub(crate) enum Encoder {
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    Deflate(flate2::write::ZlibEncoder<Vec<u8>>),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Zstd(zstd::Encoder<'static, Vec<u8>>),
}

impl Encoder {
    /// Returns one encoder of each kind, with its name in HTTP.
    pub(crate) fn all() -> [(&'static str, Self); 4] {
        let level = flate2::Compression::default();
        [
            ("gzip", Self::Gzip(flate2::write::GzEncoder::new(Vec::new(), level))),
            ("deflate", Self::Deflate(flate2::write::ZlibEncoder::new(Vec::new(), level))),
            ("br", Self::Brotli(Box::new(brotli::CompressorWriter::new(Vec::new(), 4096, 5, 18)))),
            ("zstd", Self::Zstd(zstd::Encoder::new(Vec::new(), 3).unwrap())),
        ]
    }

    /// Compresses `text` and flushes. Returns bytes from which the peer can decode all of `text`.
    pub(crate) fn flushed(&mut self, text: &str) -> Vec<u8> {
        fn write(encoder: &mut impl Write, text: &str) {
            encoder.write_all(text.as_bytes()).unwrap();
            encoder.flush().unwrap();
        }
        match self {
            Self::Gzip(encoder) => {
                write(encoder, text);
                std::mem::take(encoder.get_mut())
            }
            Self::Deflate(encoder) => {
                write(encoder, text);
                std::mem::take(encoder.get_mut())
            }
            Self::Brotli(encoder) => {
                write(encoder, text);
                std::mem::take(encoder.get_mut())
            }
            Self::Zstd(encoder) => {
                write(encoder, text);
                std::mem::take(encoder.get_mut())
            }
        }
    }

    /// Finishes the stream and returns the remaining bytes.
    pub(crate) fn end(self) -> Vec<u8> {
        match self {
            Self::Gzip(encoder) => encoder.finish().unwrap(),
            Self::Deflate(encoder) => encoder.finish().unwrap(),
            Self::Brotli(encoder) => encoder.into_inner(),
            Self::Zstd(encoder) => encoder.finish().unwrap(),
        }
    }
}

#[tokio::test]
async fn r90_events_of_compressed_streams_are_not_delayed() {
    let (mut server, mut client) = dialogue().await;
    for (name, mut encoder) in Encoder::all() {
        client.send(call("1")).await;
        let mut stream = server.post().await;
        let accepted = stream.header("accept-encoding").unwrap_or_default().to_owned();
        assert!(accepted.split(',').any(|known| known.trim() == name), "{accepted} lacks {name}");
        stream.head(200, &[("Content-Type", "text/event-stream"), ("Content-Encoding", name)]).await;
        for step in 0..3 {
            stream.chunk(encoder.flushed(&format!("data: {}\n\n", progress("1", step)))).await;
            client.expect(progress("1", step)).await;
        }
        stream.chunk(encoder.flushed(&format!("data: {}\n\n", response("1", "{}")))).await;
        client.expect(response("1", "{}")).await;
        stream.chunk(encoder.end()).await;
        stream.end().await;
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r90_compressed_bodies_are_decoded() {
    let (mut server, mut client) = dialogue().await;
    let text = "é".repeat(100_000);
    for (name, mut encoder) in Encoder::all() {
        client.send(call("1")).await;
        let answer = response("1", &format!("\"{text}\""));
        let mut body = encoder.flushed(&answer);
        body.extend(encoder.end());
        let headers = [("Content-Type", "application/json"), ("Content-Encoding", name)];
        server.post().await.respond(200, &headers, body).await;
        client.expect(answer).await;
    }
    // A body that is not in the declared encoding.
    client.send(call("1")).await;
    let headers = [("Content-Type", "application/json"), ("Content-Encoding", "gzip")];
    server.post().await.respond(200, &headers, response("1", "{}")).await;
    client.expect_error("1").await;
    client.finish(&mut server).await;
}

async fn redirect(post: Exchange, status: u16, to: &str) {
    post.respond(status, &[("Location", to), ("Content-Type", "text/html")], "<a>moved</a>").await;
}

#[tokio::test]
async fn r92_a_redirect_keeps_method_and_body() {
    let mut server = Server::start().await;
    let mut config = server.config();
    config.set_authorization("Bearer secret").unwrap();
    config.set_header("X-Key", "key").unwrap();
    let mut client = Client::start(config);
    for status in [301, 302, 307, 308] {
        for to in ["/other?x=1", &format!("{}/other?x=1", server.origin())] {
            client.send(call("1")).await;
            redirect(server.post().await, status, to).await;
            let post = server.post().await;
            assert_eq!((post.target.as_str(), post.text()), ("/other?x=1", call("1").as_str()), "{status}");
            assert_eq!(post.header("authorization"), Some("Bearer secret"));
            assert_eq!(post.header("x-key"), Some("key"));
            let answer = post.answer("{}").await;
            client.expect(answer).await;
        }
    }
    client.send(notification("x", "{}")).await;
    redirect(server.post().await, 307, "/other").await;
    let post = server.post().await;
    assert_eq!(post.text(), notification("x", "{}"));
    post.accepted().await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r92_a_redirect_to_another_origin_carries_no_secret_headers() {
    let mut server = Server::start().await;
    let mut other = Server::start().await;
    let mut config = server.config();
    config.set_authorization("Bearer secret").unwrap();
    config.set_header("X-Key", "secret").unwrap();
    config.set_header("Cookie", "secret").unwrap();
    let mut client = Client::start(config);
    client.handshake(&mut server, Some("secret-session")).await;
    for status in [301, 302, 307, 308] {
        client.send(call("1")).await;
        redirect(server.post().await, status, &format!("{}/mcp", other.origin())).await;
        let post = other.post().await;
        assert_eq!(post.text(), call("1"));
        for (name, value) in &post.headers {
            assert!(!value.contains("secret"), "{status}: {name} went to another origin: {:?}", post.headers);
        }
        let answer = post.answer("{}").await;
        client.expect(answer).await;
    }
    // A redirect back to the first origin carries no secrets, because the other origin requested it.
    client.send(call("1")).await;
    redirect(server.post().await, 307, &format!("{}/mcp", other.origin())).await;
    redirect(other.post().await, 307, &format!("{}/back", server.origin())).await;
    let answer = server.post().await.answer("{}").await;
    client.expect(answer).await;
    // The next request starts at the configured URL, with all of its headers.
    client.send(call("2")).await;
    let post = server.post().await;
    assert_eq!((post.header("x-key"), post.header("mcp-session-id")), (Some("secret"), Some("secret-session")));
    let answer = post.answer("{}").await;
    client.expect(answer).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r92_unusable_and_endless_redirects_are_errors() {
    let (mut server, mut client) = dialogue().await;
    // 303 asks the client to fetch the answer with GET, which this protocol does not do.
    client.send(call("1")).await;
    redirect(server.post().await, 303, "/other").await;
    client.expect_error("1").await;
    client.expect_nothing(&mut server).await;

    for status in [300, 304, 307] {
        client.send(call("1")).await;
        server.post().await.respond(status, &[], "").await;
        client.expect_error("1").await;
    }
    client.send(call("1")).await;
    redirect(server.post().await, 307, "ftp://localhost/mcp").await;
    client.expect_error("1").await;
    client.expect_nothing(&mut server).await;

    client.send(call("1")).await;
    let mut turns = 0;
    let failure = loop {
        tokio::select! {
            failure = client.expect_error("1") => break failure,
            post = server.next("one more turn") => redirect(post, 307, "/mcp").await,
        }
        turns += 1;
        assert!(turns < 50, "the redirects never end");
    };
    assert!(turns > 1, "{failure:?}");
    client.expect_nothing(&mut server).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r93_a_certificate_of_a_configured_authority_is_accepted() {
    let authority = Authority::new();
    let mut server = Server::start_tls(authority.server_config("localhost")).await;
    let mut config = server.config();
    config.tls.ca_certificates = vec![Authority::new().pem(), authority.pem()];
    let mut client = Client::start(config);
    client.handshake(&mut server, Some("session-1")).await;
    client.send(call("1")).await;
    let mut stream = server.post().await;
    stream.sse().await;
    stream.event(&progress("1", 1)).await;
    client.expect(progress("1", 1)).await;
    stream.event(&response("1", "{}")).await;
    client.expect(response("1", "{}")).await;
    stream.end().await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r93_an_untrusted_certificate_is_refused_unless_insecure_is_set() {
    let authority = Authority::new();
    // An unknown authority, another authority, and another host.
    for (trusted, host) in
        [(vec![], "localhost"), (vec![Authority::new().pem()], "localhost"), (vec![authority.pem()], "example.com")]
    {
        let mut server = Server::start_tls(authority.server_config(host)).await;
        let mut config = server.config();
        config.tls.ca_certificates = trusted;
        config.set_authorization("Bearer secret").unwrap();
        let mut client = Client::start(config);
        client.send(call("1")).await;
        let failure = client.expect_error("1").await;
        assert_eq!(failure.kind(), "tls", "{failure:?}");
        assert!(!failure.may_have_run(), "{failure:?}");
        client.finish(&mut server).await;

        let mut config = server.config();
        config.tls.insecure = true;
        let mut client = Client::start(config);
        client.send(call("1")).await;
        let answer = server.post().await.answer("{}").await;
        client.expect(answer).await;
        client.finish(&mut server).await;
    }
}

#[tokio::test]
async fn r93_a_server_without_tls_causes_a_tls_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = Client::to(&format!("https://{}/mcp", listener.local_addr().unwrap()));
    client.send(call("1")).await;
    let (mut stream, _) = within("a connection", listener.accept()).await.unwrap();
    // The TLS ClientHello. Such servers respond that it is not HTTP.
    within("the greeting", stream.read(&mut [0; 4096])).await.unwrap();
    stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await.unwrap();
    let failure = client.expect_error("1").await;
    assert_eq!(failure.kind(), "tls", "{failure:?}");
    assert!(!failure.may_have_run(), "{failure:?}");
}

#[tokio::test]
async fn r91_http2_by_alpn_shares_one_connection() {
    let authority = Authority::new();
    let mut server = H2Server::start(authority.server_config("localhost")).await;
    let mut config = mcp_gangway_core::Config::new(&server.url()).unwrap();
    config.proxy = mcp_gangway_core::Proxy::None;
    config.tls.ca_certificates = vec![authority.pem()];
    let mut client = Client::start(config);
    client.send(call("1")).await;
    let first = server.next().await;
    client.send(call("2")).await;
    let second = server.next().await;
    assert_eq!((first.body.as_str(), second.body.as_str()), (call("1").as_str(), call("2").as_str()));
    assert_eq!((first.connection, second.connection), (0, 0));
    second.json(&response("2", "{}"));
    client.expect(response("2", "{}")).await;
    // A reset of one stream does not affect the other.
    client.send(call("3")).await;
    server.next().await.reset();
    let failure = client.expect_error("3").await;
    assert_eq!(failure.kind(), "connection_lost");
    assert!(failure.may_have_run(), "{failure:?}");
    first.json(&response("1", "{}"));
    client.expect(response("1", "{}")).await;
}

#[tokio::test]
async fn r94_localhost_is_reached_over_ipv4_and_ipv6() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let mut server = Server::on(TcpListener::bind(address).await.unwrap(), None);
        let mut client = Client::to(&format!("http://localhost:{}/mcp", server.port()));
        client.send(call("1")).await;
        let answer = server.post().await.answer("{}").await;
        client.expect(answer).await;
        client.finish(&mut server).await;
    }
}

#[tokio::test]
async fn r91_many_open_streams_do_not_block_a_short_call() {
    let mut server = Server::start().await;
    let mut config = server.config();
    config.limits.concurrency = 100;
    let mut client = Client::start(config);
    let mut streams = Vec::new();
    for id in 0..64 {
        client.send(call(&id.to_string())).await;
        let mut stream = server.post().await;
        stream.sse().await;
        stream.event(&progress(&id.to_string(), 0)).await;
        client.expect(progress(&id.to_string(), 0)).await;
        streams.push(stream);
    }
    client.send(request("\"short\"", "tools/list", "{}")).await;
    let answer = server.post().await.answer("{}").await;
    client.expect(answer).await;
    for (id, mut stream) in streams.into_iter().enumerate() {
        stream.event(&response(&id.to_string(), "{}")).await;
        client.expect(response(&id.to_string(), "{}")).await;
        stream.end().await;
    }
    client.finish(&mut server).await;
}
