//! Headers that a client keeps, and answers of tools that only look like a lost session.

use crate::support::{VERSION, call, dialogue, framed, notification, request, response};

#[tokio::test]
async fn the_session_id_comes_only_from_the_initialize_response() {
    let longest = "x".repeat(1000);
    for (name, session) in [
        ("mcp-session-id", "s"),
        ("MCP-SESSION-ID", "6f1c1a9e-6c1d-4e55-9a1b-0d6c3c2f4a11"),
        ("MCP-Session-ID", "eyJhbGciOiJub25lIn0.eyJzIjoxfQ."),
        ("Mcp-session-Id", "\"a,b;c=d\""),
        ("Mcp-Session-Id", "0"),
        ("Mcp-Session-Id", &longest),
    ] {
        println!("{name}: {session}");
        let (mut server, mut client) = dialogue().await;
        client.initialize().await;
        let initialize = server.post().await;
        let answer = response(
            r#""init""#,
            &format!(
                r#"{{"protocolVersion":"{VERSION}","capabilities":{{}},"serverInfo":{{"name":"s","version":"1"}}}}"#
            ),
        );
        let padded = format!("  {session}\t");
        initialize.respond(200, &[(name, &padded), ("Content-Type", "application/json")], &answer).await;
        client.expect(answer).await;
        // On other responses, the bridge ignores the header.
        for other in [session, "another", ""] {
            client.send(call("1")).await;
            let post = server.post().await;
            assert_eq!(post.header("mcp-session-id"), Some(session));
            assert_eq!(post.header("mcp-protocol-version"), Some(VERSION));
            post.respond(200, &[(name, other), ("MCP-Protocol-Version", "2024-11-05")], response("1", "{}")).await;
            client.expect(response("1", "{}")).await;
        }
        client.has_session(session);
        client.finish(&mut server).await;
    }
}

#[tokio::test]
async fn handshakes() {
    let news = notification("notifications/message", "{}");
    let plain = response(r#""init""#, &format!(r#"{{"protocolVersion":"{VERSION}","capabilities":{{}}}}"#));
    let escaped = r#"{"id":"\u0069nit","r\u0065sult":{"protocol\u0056ersion":"2025\u002d11-25"},"jsonrpc":"2.0"}"#;
    let odd = format!(
        r#"{{"result":{{"protocolVersion":"1","capabilities":{{"x":null}},"protocolVersion":"{VERSION}"}},"id":7,"id":"init","jsonrpc":"2.0"}}"#
    );
    for (content_type, body, lines) in [
        ("application/json", format!("\u{feff}\r\n {plain}\n"), &[&plain][..]),
        ("application/json", escaped.to_owned(), &[&escaped.replace(r"\u0069nit", "init")]),
        ("application/json", odd.clone(), &[&odd]),
        ("", format!("retry: 10\rid: 0\rdata:\r\rdata: {news}\r\rid: 1\rdata: {plain}\r\r: bye\r\r"), &[&news, &plain]),
        ("TEXT/EVENT-STREAM", format!("event:\r\ndata:{plain}\r\n\r\ndata: {news}\r\n\r\n"), &[&plain, &news]),
    ] {
        println!("{body}");
        let (mut server, mut client) = dialogue().await;
        client.initialize().await;
        server.post().await.respond(200, &[("Content-Type", content_type), ("Mcp-Session-Id", "s")], body).await;
        for line in lines {
            client.expect(line).await;
        }
        client.send(call("1")).await;
        let post = server.post().await;
        assert_eq!(post.header("mcp-session-id"), Some("s"));
        assert_eq!(post.header("mcp-protocol-version"), Some(VERSION));
        client.expect(post.answer("{}").await).await;
        client.has_session("s");
        client.finish(&mut server).await;
    }
}

#[tokio::test]
async fn cookies_set_in_several_headers_are_sent_back() {
    let (mut server, mut client) = dialogue().await;
    client.send(call("1")).await;
    let headers = [
        ("Content-Type", "application/json"),
        ("Set-Cookie", "lb=node-1; Path=/; HttpOnly; SameSite=Lax"),
        ("set-cookie", "quoted=\"a b\"; Max-Age=3600"),
        ("SET-COOKIE", "empty="),
        ("Set-Cookie", "equal=a=b==; Expires=Thu, 31 Dec 2099 23:59:59 GMT; Unknown; X=y"),
        ("Set-Cookie", "lb=node-2; path=/"),
        ("Set-Cookie", "gone=1; Max-Age=0"),
        ("Set-Cookie", "elsewhere=1; Path=/other"),
        ("Set-Cookie", "not a cookie"),
    ];
    server.post().await.respond(200, &headers, response("1", "{}")).await;
    client.expect(response("1", "{}")).await;
    client.send(call("2")).await;
    let post = server.post().await;
    let mut cookies: Vec<_> = post.header("cookie").unwrap().split("; ").map(str::to_owned).collect();
    cookies.sort();
    assert_eq!(cookies, ["empty=", "equal=a=b==", "lb=node-2", "quoted=\"a b\""]);
    client.expect(post.answer("{}").await).await;
    client.finish(&mut server).await;
}

#[tokio::test]
async fn responses_that_merely_mention_a_session_are_delivered() {
    let error = |code: i64, message: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"error":{{"code":{code},"message":"{message}","data":{{"session":null}}}}}}"#
        )
    };
    let nested = r#"{"content":[{"text":"{\"id\":1,\"error\":{\"code\":-32001,\"message\":\"Session not found\"}}"}]}"#;
    let (mut server, mut client) = dialogue().await;
    client.handshake(&mut server, Some("s")).await;
    for (answer, statuses) in [
        (
            response("1", r#"{"content":[{"type":"text","text":"Session not found"}],"isError":true}"#),
            &[200, 404, 500][..],
        ),
        (response("1", nested), &[200, 502]),
        (response("1", r#"{"error":{"code":-32001,"message":"Session not found"}}"#), &[200, 400]),
        (response("1", r#""Session not found""#), &[200]),
        (error(-32_603, "Session not found"), &[200, 400, 404, 500]),
        (error(-32_601, "Session not found"), &[200, 404]),
        (error(404, "session not found"), &[200, 404]),
        (error(1, "No valid session ID provided"), &[200, 400]),
        (error(-32_000, "the browser session 7 has ended"), &[200, 400, 404, 410, 500]),
        (error(-32_000, "the session of the user was closed by the bank"), &[200, 401, 403, 409]),
        (error(-32_000, "device not initialized"), &[200, 400, 404]),
        (error(-32_602, "unknown argument: session"), &[200, 400, 422]),
        (error(-32_001, "no more sessions: limit reached"), &[200, 429, 503]),
        (error(-32_000, "order not found"), &[200, 404, 410]),
    ] {
        for status in statuses {
            for content_type in ["application/json", "text/event-stream"] {
                if *status != 200 && content_type != "application/json" {
                    continue;
                }
                println!("{status} {content_type} {answer}");
                client.send(call("1")).await;
                let post = server.post().await;
                assert_eq!((post.text(), post.header("mcp-session-id")), (call("1").as_str(), Some("s")));
                post.respond_as(*status, content_type, framed(content_type, &answer)).await;
                client.expect(&answer).await;
                client.expect_nothing(&mut server).await;
            }
        }
    }
    // The same holds for a request that the bridge could repeat.
    for (method, answer) in [
        ("tools/list", error(-32_603, "Session not found")),
        ("resources/read", response("1", r#"{"contents":[{"uri":"a:b","text":"Session not found"}]}"#)),
    ] {
        client.send(request("1", method, r#"{"uri":"a:b"}"#)).await;
        server.post().await.json(&answer).await;
        client.expect(&answer).await;
        client.expect_nothing(&mut server).await;
    }
    client.finish(&mut server).await;
}
