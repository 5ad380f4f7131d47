//! Tools that the user hides from the client, in both eras.

use mcp_gangway_core::ToolFilter;
use serde_json::json;

use crate::support::{Client, Server, modern, modern_dialogue_with, notification, request};

const TOOLS: &str = r#"{"tools":[{"name":"get_a","inputSchema":{"type":"object"},"x":1e400},{"name":"delete_a","inputSchema":{"type":"object"}}]}"#;

fn call_of(id: &str, tool: &str) -> String {
    request(id, "tools/call", &format!(r#"{{"name":"{tool}","arguments":{{}}}}"#))
}

#[tokio::test]
async fn a_hidden_tool_is_neither_listed_nor_called() {
    for (allow, deny) in [(&[][..], &["delete_*"][..]), (&["get_?", "list_*"], &[])] {
        let mut server = Server::start().await;
        let mut config = server.config();
        config.tools = ToolFilter::new(allow, deny);
        let mut client = Client::start(config);
        client.handshake(&mut server, None).await;

        client.send(request("1", "tools/list", "{}")).await;
        server.post().await.answer(TOOLS).await;
        let list = client.line("the list").await;
        let list = String::from_utf8(list).unwrap();
        let expected = r#"{"tools":[{"name":"get_a","inputSchema":{"type":"object"},"x":1e400}]}"#;
        assert!(list.contains(expected), "{list}");

        client.send(call_of("2", "delete_a")).await;
        let failure = client.expect_error("2").await;
        assert_eq!((failure.kind(), failure.may_have_run()), ("hidden_tool", false), "{failure:?}");
        assert!(failure.message.contains("delete_a"), "{failure:?}");
        // Hidden in a batch and as a notification as well.
        client.send(format!("[{}]", call_of("3", "delete_b"))).await;
        client.expect_error("3").await;
        client.send(notification("tools/call", r#"{"name":"delete_a"}"#)).await;
        client.send(call_of("4", "get_a")).await;
        let post = server.post().await;
        assert_eq!(post.value()["params"]["name"], "get_a");
        let answer = post.answer(r#"{"content":[]}"#).await;
        client.expect(answer).await;
        client.finish(&mut server).await;
    }
}

#[tokio::test]
async fn a_large_tool_list_in_a_spool_file_is_filtered() {
    let mut server = Server::start().await;
    let mut config = server.config();
    config.tools = ToolFilter::new(&[], &["delete_*"]);
    let mut client = Client::start(config);
    client.handshake(&mut server, None).await;
    client.send(request("1", "tools/list", "{}")).await;
    let description = "d".repeat(3 << 20);
    let tool = |name: &str| format!(r#"{{"name":"{name}","description":"{description}"}}"#);
    server.post().await.answer(&format!(r#"{{"tools":[{},{}]}}"#, tool("delete_a"), tool("get_a"))).await;
    let list = client.value("the list").await;
    assert_eq!(list["result"], json!({"tools": [{"name": "get_a", "description": description}]}));
    client.finish(&mut server).await;
}

#[tokio::test]
async fn the_tool_filter_applies_to_a_modern_server() {
    let (mut server, mut client) = modern_dialogue_with(|config| {
        config.tools = ToolFilter::new(&[], &["delete_*"]);
    })
    .await;
    client.send(modern("1", "tools/list", "")).await;
    server
        .modern_post()
        .await
        .answer(r#"{"resultType":"complete","tools":[{"name":"delete_a"},{"name":"get_a"}]}"#)
        .await;
    let list = client.value("the list").await;
    assert_eq!(list["result"]["tools"], json!([{"name": "get_a"}]));
    client.send(modern("2", "tools/call", r#""name":"delete_a","arguments":{}"#)).await;
    assert_eq!(client.expect_error("2").await.kind(), "hidden_tool");
    client.finish(&mut server).await;
}

#[tokio::test]
async fn without_a_filter_the_tool_list_passes_unchanged() {
    let mut server = Server::start().await;
    let mut client = Client::of(&server);
    client.handshake(&mut server, None).await;
    client.send(request("1", "tools/list", "{}")).await;
    let answer = server.post().await.answer(TOOLS).await;
    client.expect(answer).await;
    client.finish(&mut server).await;
}
