//! Company networks and hostile peers: client certificates, TLS error messages, proxies (R93), cookies, redirects
//! (R92), endless headers, and texts with terminal control sequences.

use mcp_gangway_core::{ClientIdentity, Config};
use rcgen::{CertificateParams, date_time_ymd};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::support::{
    Authority, Client, H2Server, Proxy, ProxyBehavior, Server, call, closed_port, dialogue, response,
};

/// Adds this authority to the trusted ones.
fn trusting(mut config: Config, authority: &Authority) -> Config {
    config.tls.ca_certificates = vec![authority.pem()];
    config
}

/// Adds a client certificate of this authority to the settings.
fn identified(mut config: Config, by: &Authority) -> Config {
    let (certificate, key) = by.client();
    config.tls.client = Some(ClientIdentity::new(certificate.into(), key.into()));
    config
}

/// Expects that a call works end to end.
async fn expect_service(client: &mut Client, server: &mut Server) {
    client.send(call("1")).await;
    let answer = server.post().await.answer("{}").await;
    client.expect(answer).await;
}

/// Expects that a call fails with this kind. Returns the error message.
async fn expect_failure(config: Config, kind: &str) -> String {
    let mut client = Client::start(config);
    client.send(call("1")).await;
    let failure = client.expect_error("1").await;
    assert_eq!(failure.kind(), kind, "{failure:?}");
    assert!(!format!("{failure:?}").contains("hunter2"), "{failure:?}");
    failure.message
}

// Certificates.

#[tokio::test]
async fn r93_a_server_that_requires_a_client_certificate_gets_it() {
    let authority = Authority::new();
    let host = || CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let mut server = Server::start_tls(authority.server_config_of(&host(), Some(&authority))).await;

    let mut client = Client::start(identified(trusting(server.config(), &authority), &authority));
    client.handshake(&mut server, Some("session")).await;
    expect_service(&mut client, &mut server).await;
    client.finish(&mut server).await;

    // Certificate and key in one file, in either order.
    let (certificate, key) = authority.client();
    for both in [format!("{certificate}{key}"), format!("some words\n{key}\n{certificate}")] {
        let mut config = trusting(server.config(), &authority);
        config.tls.client = Some(ClientIdentity::new(both.clone().into(), both.into()));
        let mut client = Client::start(config);
        expect_service(&mut client, &mut server).await;
        client.finish(&mut server).await;
    }

    let message = expect_failure(trusting(server.config(), &authority), "tls").await;
    assert!(message.contains("wants a client certificate; give a client certificate"), "{message}");
    for by in [Authority::new(), Authority::named("another")] {
        let message = expect_failure(identified(trusting(server.config(), &authority), &by), "tls").await;
        assert!(message.contains("does not accept the client certificate"), "{message}");
    }
}

#[tokio::test]
async fn r93_a_client_certificate_is_presented_over_http2() {
    let authority = Authority::new();
    let host = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let mut server = H2Server::start(authority.server_config_of(&host, Some(&authority))).await;
    let mut config = identified(trusting(Config::new(&server.url()).unwrap(), &authority), &authority);
    config.proxy = mcp_gangway_core::Proxy::None;
    let mut client = Client::start(config);
    client.send(call("1")).await;
    server.next().await.json(&response("1", "{}"));
    client.expect(response("1", "{}")).await;
}

#[tokio::test]
async fn r92_a_redirect_to_another_origin_gets_no_client_certificate() {
    let authority = Authority::new();
    let host = || CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let mut server = Server::start_tls(authority.server_config_of(&host(), Some(&authority))).await;
    // This server would accept the certificate if it were presented.
    let mut other = Server::start_tls(authority.server_config_of(&host(), Some(&authority))).await;
    let mut client = Client::start(identified(trusting(server.config(), &authority), &authority));
    expect_service(&mut client, &mut server).await;
    client.send(call("1")).await;
    server.post().await.respond(307, &[("Location", &format!("{}/mcp", other.origin()))], "").await;
    let failure = client.expect_error("1").await;
    assert_eq!(failure.kind(), "tls", "{failure:?}");
    assert!(failure.message.contains(&other.origin()) && failure.message.contains("wants a"), "{failure:?}");
    other.expect_no_more();
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r93_the_error_names_each_fault_of_a_server_certificate() {
    let authority = Authority::new();
    let params = |host: &str| CertificateParams::new(vec![host.to_owned()]).unwrap();
    let mut expired = params("localhost");
    (expired.not_before, expired.not_after) = (date_time_ymd(2000, 1, 1), date_time_ymd(2001, 2, 3));
    let mut early = params("localhost");
    (early.not_before, early.not_after) = (date_time_ymd(3000, 1, 1), date_time_ymd(9999, 12, 31));
    let mut many = params("a.example.com");
    let names = ["b.example.com", "c.example.com", "127.0.0.2", "d.example.com", "e.example.com"];
    many.subject_alt_names.extend(CertificateParams::new(names.map(str::to_owned)).unwrap().subject_alt_names);
    let mut nameless = params("localhost");
    nameless.subject_alt_names.clear();

    for (params, trusted, said) in [
        (expired, &authority, &["has expired Sat, 03 Feb 2001", "renew", "clock"][..]),
        (early, &authority, &["not valid yet, but from Wed, 01 Jan 3000", "clock"]),
        (params("localhost"), &Authority::named("another"), &["not trusted here; trust its authority"]),
        (params("localhost"), &Authority::new(), &["not signed by the authority of that name"]),
        (params("example.com"), &authority, &["is for example.com; use"]),
        (many, &authority, &["is for a.example.com, b.example.com, c.example.com, 127.0.0.2, others; use"]),
        (nameless, &authority, &["is for no host at all"]),
    ] {
        let server = Server::start_tls(authority.server_config_of(&params, None)).await;
        let message = expect_failure(trusting(server.config(), trusted), "tls").await;
        for part in said {
            assert!(message.contains(part), "{part}: {message}");
        }
    }
}

#[tokio::test]
async fn r93_a_ca_certificate_as_server_certificate_is_accepted_only_if_trusted() {
    let own = |host: &str| CertificateParams::new(vec![host.to_owned()]).unwrap();
    let authority = Authority::with(own("localhost"));
    let mut server = Server::start_tls(authority.own_server_config()).await;
    let mut client = Client::start(trusting(server.config(), &authority));
    expect_service(&mut client, &mut server).await;
    client.finish(&mut server).await;

    let mut expired = own("localhost");
    (expired.not_before, expired.not_after) = (date_time_ymd(2000, 1, 1), date_time_ymd(2001, 2, 3));
    for (params, is_trusted, said) in [
        (own("localhost"), false, "an authority's own; trust it as the server's"),
        (own("example.com"), true, "is for example.com; use"),
        (expired, true, "has expired Sat, 03 Feb 2001"),
    ] {
        let authority = Authority::with(params);
        let server = Server::start_tls(authority.own_server_config()).await;
        let trusted = if is_trusted { authority } else { Authority::with(own("localhost")) };
        let message = expect_failure(trusting(server.config(), &trusted), "tls").await;
        assert!(message.contains(said), "{said}: {message}");
    }
}

#[tokio::test]
async fn r93_the_error_names_why_the_tls_handshake_failed() {
    for (reply, kind, said) in [
        (&b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"[..], "tls", "speaks no TLS"),
        (b"SSH-2.0-OpenSSH\r\n", "tls", "speaks no TLS"),
        // Fatal alerts: protocol_version, handshake_failure, unrecognized_name.
        (&[21, 3, 1, 0, 2, 2, 70], "tls", "TLS 1.2 or 1.3"),
        (&[21, 3, 3, 0, 2, 2, 40], "tls", "no way of encryption in common"),
        (&[21, 3, 3, 0, 2, 2, 112], "tls", "does not know this host name"),
        (b"", "connect", "before it was secure"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = Client::to(&format!("https://{}/mcp?key=hunter2", listener.local_addr().unwrap()));
        client.send(call("1")).await;
        // The bridge retries a connection that closes before TLS is ready.
        let answering = async {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0, "a greeting");
                stream.write_all(reply).await.unwrap();
                stream.shutdown().await.unwrap();
            }
        };
        let failure = tokio::select! {
            failure = client.expect_error("1") => failure,
            () = answering => unreachable!(),
        };
        assert_eq!(failure.kind(), kind, "{failure:?}");
        assert!(failure.message.contains(said) && !failure.may_have_run(), "{said}: {failure:?}");
        assert!(!format!("{failure:?}").contains("hunter2"), "{failure:?}");
    }
}

#[tokio::test]
async fn r93_a_plain_http_url_for_a_tls_server_fails_the_request() {
    let authority = Authority::new();
    let server = Server::start_tls(authority.server_config("localhost")).await;
    let mut client = Client::to(&server.origin().replace("https", "http"));
    client.send(call("1")).await;
    let failure = client.expect_error("1").await;
    assert!(matches!(failure.kind(), "invalid_answer" | "connection_lost"), "{failure:?}");
}

// Proxies.

#[tokio::test]
async fn r93_http_and_socks5h_proxies_forward_plain_and_tls_requests() {
    let authority = Authority::new();
    // Only the proxy can resolve this host.
    let mut secure = Server::start_tls(authority.server_config("mcp.invalid")).await;
    let mut plain = Server::start().await;
    let basic = "Basic dXNlcjpwQHNzOg==";
    for manner in [ProxyBehavior::Open, ProxyBehavior::Wants("user", "p@ss:")] {
        let proxy = Proxy::start(manner).await;
        let is_open = matches!(manner, ProxyBehavior::Open);
        let user = if is_open { "" } else { "user:p%40ss%3A@" };
        for scheme in ["http", "socks5h"] {
            for server in [&mut secure, &mut plain] {
                let (target, is_tls) = (format!("mcp.invalid:{}", server.port()), server.origin().starts_with("https"));
                let url = format!("{}://{target}/mcp", if is_tls { "https" } else { "http" });
                let mut client = Client::start(trusting(proxy.config(&url, scheme, user), &authority));
                client.handshake(server, Some("session")).await;
                expect_service(&mut client, server).await;
                client.finish(server).await;

                let mut seen = proxy.seen();
                // Sequential calls share a connection; the GET for the server's pushes has its own.
                assert!((1..=4).contains(&seen.len()), "{seen:?}");
                seen.sort_by_key(|way| !way.starts_with("GET"));
                let expected = match (scheme, is_tls, is_open) {
                    ("http", true, true) => format!("CONNECT {target}"),
                    ("http", true, false) => format!("CONNECT {target} {basic}"),
                    ("http", false, true) => format!("POST http://{target}/mcp"),
                    ("http", false, false) => format!("POST http://{target}/mcp {basic}"),
                    (_, _, true) => format!("SOCKS5 {target}"),
                    (_, _, false) => format!("SOCKS5 user:p@ss: {target}"),
                };
                assert_eq!(seen.pop(), Some(expected));
            }
        }
    }
}

#[tokio::test]
async fn r93_an_https_proxy_forwards_requests_and_needs_a_trusted_certificate() {
    let authority = Authority::new();
    let proxy = Proxy::start_tls(ProxyBehavior::Wants("user", "right"), authority.server_config("127.0.0.1")).await;
    let mut secure = Server::start_tls(authority.server_config("mcp.invalid")).await;
    let mut plain = Server::start().await;
    for server in [&mut secure, &mut plain] {
        let (target, is_tls) = (format!("mcp.invalid:{}", server.port()), server.origin().starts_with("https"));
        let url = format!("{}://{target}/mcp", if is_tls { "https" } else { "http" });
        let mut client = Client::start(trusting(proxy.config(&url, "https", "user:right@"), &authority));
        expect_service(&mut client, server).await;
        client.finish(server).await;
        let way = if is_tls { format!("CONNECT {target}") } else { format!("POST http://{target}/mcp") };
        assert_eq!(proxy.seen(), [format!("{way} Basic dXNlcjpyaWdodA==")]);

        let message = expect_failure(trusting(proxy.config(&url, "https", "user:hunter2@"), &authority), "proxy").await;
        assert!(message.contains(&format!("the proxy {} wants credentials", proxy.url("https", ""))), "{message}");
        proxy.seen();

        let message = expect_failure(proxy.config(&url, "https", "user:hunter2@"), "tls").await;
        assert!(
            message.contains(&format!("no secure connection to the proxy {}", proxy.url("https", ""))),
            "{message}"
        );
        assert!(proxy.seen().is_empty(), "credentials went to an untrusted proxy");
    }
}

#[tokio::test]
async fn r93_a_proxy_gets_no_client_certificate() {
    let authority = Authority::new();
    let host = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    // This proxy would accept the certificate if it were presented.
    let proxy = Proxy::start_tls(ProxyBehavior::Open, authority.server_config_of(&host, Some(&authority))).await;
    let config = trusting(proxy.config("https://mcp.invalid/mcp", "https", ""), &authority);
    let message = expect_failure(identified(config, &authority), "tls").await;
    assert!(message.contains("no secure connection to the proxy"), "{message}");
    assert!(proxy.seen().is_empty());
}

#[tokio::test]
async fn r93_socks5_resolves_names_locally_and_excepted_hosts_bypass_the_proxy() {
    let mut server = Server::start().await;
    let proxy = Proxy::start(ProxyBehavior::Open).await;
    let url = format!("http://localhost:{}/mcp", server.port());
    let mut config = proxy.config(&url, "socks5", "");
    let mut client = Client::start(config.clone());
    expect_service(&mut client, &mut server).await;
    client.finish(&mut server).await;
    assert_eq!(proxy.seen(), [format!("SOCKS5 127.0.0.1:{}", server.port())]);

    for exception in ["localhost", " example.com ,LOCALHOST", "*", ".localhost"] {
        let mcp_gangway_core::Proxy::Url { except, .. } = &mut config.proxy else { panic!("a proxy") };
        *except = Some(exception.to_owned());
        let mut client = Client::start(config.clone());
        expect_service(&mut client, &mut server).await;
        client.finish(&mut server).await;
        assert!(proxy.seen().is_empty(), "{exception}");
    }
}

#[tokio::test]
async fn r93_a_failure_at_the_proxy_names_the_proxy() {
    // Each failure takes its full timeout, so run them concurrently.
    tokio::join!(
        the_proxys_failures("http", "https://mcp.invalid/mcp?key=hunter2"),
        the_proxys_failures("http", "http://mcp.invalid/mcp?key=hunter2"),
        the_proxys_failures("socks5h", "https://mcp.invalid/mcp?key=hunter2"),
        the_proxys_failures("socks5h", "http://mcp.invalid/mcp?key=hunter2"),
    );
}

async fn the_proxys_failures(scheme: &str, url: &str) {
    let (_port, closed) = closed_port();
    let refusing = Proxy::start(ProxyBehavior::Refuses(403)).await;
    let asking = Proxy::start(ProxyBehavior::Wants("user", "right")).await;
    let is_forwarded = scheme == "http" && url.starts_with("http:");
    // The proxy refuses connections.
    let mut config = refusing.config(url, scheme, "");
    let at = mcp_gangway_core::ProxyUrl::parse(&format!("{scheme}://user:hunter2@{closed}")).unwrap();
    config.proxy = mcp_gangway_core::Proxy::Url { url: at, except: None };
    let message = expect_failure(config, "connect").await;
    assert!(message.contains(&format!("cannot connect to the proxy {scheme}://{closed}")), "{message}");

    // The proxy's host does not exist.
    let mut config = refusing.config(url, scheme, "");
    let at = mcp_gangway_core::ProxyUrl::parse(&format!("{scheme}://user:hunter2@proxy.invalid:1")).unwrap();
    config.proxy = mcp_gangway_core::Proxy::Url { url: at, except: None };
    let message = expect_failure(config, "dns").await;
    assert!(message.contains(&format!("the proxy {scheme}://proxy.invalid:1")), "{message}");

    // No credentials, or wrong ones.
    for user in ["", "user:hunter2@"] {
        asking.seen();
        let message = expect_failure(asking.config(url, scheme, user), "proxy").await;
        assert!(message.contains(&format!("the proxy {} wants credentials", asking.url(scheme, ""))), "{message}");
        assert_eq!(asking.seen().len(), 1, "refused credentials are not sent again");
    }

    // The proxy refuses the target. A forwarding proxy answers instead of the server.
    let kind = if is_forwarded { "http_status" } else { "connect" };
    // A SOCKS proxy that requires no credentials accepts none.
    let user = if scheme == "http" { "user:hunter2@" } else { "" };
    let message = expect_failure(refusing.config(url, scheme, user), kind).await;
    assert!(is_forwarded || message.contains(&format!("the proxy {} ", refusing.url(scheme, ""))), "{message}");
}

#[tokio::test]
async fn r93_the_server_certificate_is_verified_through_a_proxy() {
    let authority = Authority::new();
    let server = Server::start_tls(authority.server_config("mcp.invalid")).await;
    let proxy = Proxy::start(ProxyBehavior::Open).await;
    for scheme in ["http", "socks5h"] {
        let url = format!("https://mcp.invalid:{}/mcp", server.port());
        let message = expect_failure(proxy.config(&url, scheme, ""), "tls").await;
        assert!(message.contains("not trusted here; trust its authority"), "{message}");
        let url = format!("https://other.invalid:{}/mcp", server.port());
        let message = expect_failure(trusting(proxy.config(&url, scheme, ""), &authority), "tls").await;
        assert!(message.contains("is for mcp.invalid"), "{message}");
    }
}

// Cookies and redirects.

#[tokio::test]
async fn a_load_balancers_cookie_comes_back_to_its_origin_only() {
    let (mut server, mut client) = dialogue().await;
    let mut other = Server::start().await;
    client.send(call("1")).await;
    let post = server.post().await;
    assert_eq!(post.header("cookie"), None);
    let headers =
        [("Content-Type", "application/json"), ("Set-Cookie", "lb=one; Path=/; HttpOnly"), ("Set-Cookie", "b=2")];
    post.respond(200, &headers, response("1", "{}")).await;
    client.expect(response("1", "{}")).await;

    client.send(call("2")).await;
    let post = server.post().await;
    let mut cookies: Vec<_> = post.header("cookie").unwrap().split("; ").collect();
    cookies.sort_unstable();
    assert_eq!(cookies, ["b=2", "lb=one"]);
    let away = format!("{}/mcp", other.origin());
    post.respond(307, &[("Location", &away), ("Set-Cookie", "b=; Max-Age=0")], "").await;
    // Another port is another origin, although browsers share cookies between ports.
    let post = other.post().await;
    assert_eq!(post.header("cookie"), None);
    let headers = [("Content-Type", "application/json"), ("Set-Cookie", "lb=stolen; Path=/")];
    post.respond(200, &headers, response("2", "{}")).await;
    client.expect(response("2", "{}")).await;

    client.send(call("3")).await;
    let post = server.post().await;
    assert_eq!(post.header("cookie"), Some("lb=one"));
    let answer = post.answer("{}").await;
    client.expect(answer).await;
    client.finish(&mut server).await;
    other.expect_no_more();
}

#[tokio::test]
async fn a_configured_cookie_header_is_not_replaced_by_set_cookie() {
    let mut server = Server::start().await;
    let mut config = server.config();
    config.set_header("Cookie", "mine=1").unwrap();
    let mut client = Client::start(config);
    for _ in 0..2 {
        client.send(call("1")).await;
        let post = server.post().await;
        assert_eq!(post.header("cookie"), Some("mine=1"));
        let headers = [("Content-Type", "application/json"), ("Set-Cookie", "theirs=2")];
        post.respond(200, &headers, response("1", "{}")).await;
        client.expect(response("1", "{}")).await;
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn r92_a_redirect_loop_between_two_servers_fails_the_request() {
    let (mut one, mut client) = dialogue().await;
    let mut two = Server::start().await;
    client.send(call("1")).await;
    let mut turns = 0;
    let failure = loop {
        let (to_one, to_two) = (format!("{}/mcp", one.origin()), format!("{}/mcp", two.origin()));
        tokio::select! {
            failure = client.expect_error("1") => break failure,
            post = one.next("one more turn") => post.respond(308, &[("Location", &to_two)], "").await,
            post = two.next("one more turn") => post.respond(308, &[("Location", &to_one)], "").await,
        }
        turns += 1;
        assert!(turns < 50, "the redirects never end");
    };
    assert!(failure.message.contains("circles"), "{failure:?}");
    client.finish(&mut one).await;
}

// Hostile texts.

#[tokio::test]
async fn too_large_response_headers_are_refused() {
    let (mut server, mut client) = dialogue().await;
    let many = "X: 1\r\n".repeat(1000);
    let long = format!("X: {}\r\n", "x".repeat(1 << 20));
    let half = "x".repeat(1 << 20);
    for (head, status_line) in [
        (many, "HTTP/1.1 200 OK\r\n"),
        (long, "HTTP/1.1 200 OK\r\n"),
        (half.clone(), "HTTP/1.1 200 OK\r\nX-"),
        (half, "HTTP/1.1 200 "),
    ] {
        client.send(call("1")).await;
        let mut post = server.post().await;
        post.write(status_line.as_bytes()).await;
        post.write(head.as_bytes()).await;
        let failure = client.expect_error("1").await;
        assert_eq!(failure.kind(), "invalid_answer", "{failure:?}");
        assert!(failure.may_have_run() && failure.message.contains("headers"), "{failure:?}");
        client.expect_nothing(&mut server).await;
    }
    client.finish(&mut server).await;
}

#[tokio::test]
async fn too_large_response_headers_are_refused_over_http2() {
    let authority = Authority::new();
    let mut server = H2Server::start(authority.server_config("localhost")).await;
    let mut config = trusting(Config::new(&server.url()).unwrap(), &authority);
    config.proxy = mcp_gangway_core::Proxy::None;
    let mut client = Client::start(config);
    client.send(call("1")).await;
    server.next().await.head("x", &"x".repeat(65 << 10));
    let failure = client.expect_error("1").await;
    assert_eq!(failure.kind(), "invalid_answer", "{failure:?}");
    assert!(failure.may_have_run() && failure.message.contains("headers"), "{failure:?}");
    client.send(call("2")).await;
    server.next().await.json(&response("2", "{}"));
    client.expect(response("2", "{}")).await;
}

#[tokio::test]
async fn control_characters_from_the_server_are_escaped_in_errors() {
    let (mut server, mut client) = dialogue().await;
    let body = "\u{1b}]0;title\u{7}\u{1b}[2J\u{9b}31mred\r\nINFO forged\u{202e}\u{0}";
    for content_type in ["text/plain", "text/plain\u{85}", ""] {
        client.send(call("1")).await;
        server.post().await.respond_as(500, content_type, body).await;
        let failure = client.expect_error("1").await;
        let said = format!("{} {}", failure.message, failure.data["detail"].as_str().unwrap());
        assert!(said.contains("red") && said.contains(r"\u{1b}[2J"), "{said}");
        assert!(!said.contains(char::is_control) && !said.contains('\u{202e}'), "{said:?}");
    }
    // A hostile text instead of a message.
    for (content_type, body) in [("application/json", body), ("text/event-stream", "data: \u{1b}[2J\u{9b}31m\n\n")] {
        client.send(call("1")).await;
        server.post().await.respond_as(200, content_type, body).await;
        let failure = client.expect_error("1").await;
        let said = format!("{} {}", failure.message, failure.data["detail"].as_str().unwrap_or_default());
        assert!(!said.contains(char::is_control), "{said:?}");
    }
    client.finish(&mut server).await;
}
