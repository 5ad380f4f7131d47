//! Immediate reasons: a server's refusal text is in the error message, and no request waits for an unreachable server.

use crate::support::{Client, INITIALIZED, call, closed_port, dialogue, modern_call};

#[tokio::test]
async fn the_error_message_contains_the_text_of_the_refusal() {
    for (status, content_type, body, words) in [
        (403, "text/plain", "Access is only allowed at localhost:6274", "Access is only allowed at localhost:6274"),
        (421, "text/plain", "Invalid Host header\n", "Invalid Host header"),
        (404, "application/json", r#"{"detail":"Not Found"}"#, "Not Found"),
        (
            401,
            "application/json",
            r#"{"error":"invalid_token","error_description":"The key is revoked"}"#,
            "The key is revoked",
        ),
        (500, "text/html", "<html><head><title>Worker threw exception</title></head>", "Worker threw exception"),
        (400, "application/problem+json", r#"{"type":"about:blank","title":"Bad tenant","status":400}"#, "Bad tenant"),
    ] {
        let (mut server, mut client) = dialogue().await;
        client.send(call("1")).await;
        server.post().await.respond_as(status, content_type, body).await;
        let failure = client.expect_error("1").await;
        assert!(failure.message.contains(words), "{failure:?}");
        assert!(failure.message.contains(&format!("HTTP {status}")), "{failure:?}");
        client.finish(&mut server).await;
    }
}

#[tokio::test]
async fn after_stdin_closes_unsent_requests_get_connect_errors() {
    for modern in [false, true] {
        let (_port, address) = closed_port();
        let mut client = Client::to(&format!("http://{address}/mcp"));
        if modern {
            for id in ["1", "2", "3"] {
                client.send(modern_call(id, "{}")).await;
            }
        } else {
            client.initialize().await;
            client.send(INITIALIZED).await;
            client.send(call("1")).await;
            client.send(call("2")).await;
        }
        client.close_stdin();
        let ids: &[&str] = if modern { &["1", "2", "3"] } else { &["\"init\"", "1", "2"] };
        for failure in client.expect_errors(ids).await {
            // The error says why there is no answer, not that the bridge ends. The number of attempts is limited.
            assert_eq!((failure.kind(), failure.may_have_run()), ("connect", false), "{failure:?}");
            assert!(failure.data["attempts"].as_u64().unwrap_or(1) <= 3, "{failure:?}");
        }
        client.end().await;
    }
}

#[tokio::test]
async fn concurrent_calls_share_the_retries_to_an_unreachable_server() {
    // Otherwise each call would make its own attempts after those of the others, and each would also list the tools
    // with further attempts.
    let (_port, address) = closed_port();
    let mut client = Client::to(&format!("http://{address}/mcp"));
    for id in ["1", "2", "3", "4"] {
        client.send(modern_call(id, "{}")).await;
    }
    for failure in client.expect_errors(&["1", "2", "3", "4"]).await {
        assert_eq!((failure.kind(), failure.data["attempts"].as_u64()), ("connect", Some(6)), "{failure:?}");
    }
    client.close_stdin();
    client.end().await;
}
