//! A modern server's part of a dialogue (2026-07-28), with a legacy client at the other end of the bridge.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Client, Exchange, INITIALIZED, Server, VERSION, request, response, shown};

/// The version of modern servers.
pub(crate) const MODERN: &str = "2026-07-28";

impl Server {
    /// Returns the next POST, which must be a modern one of this method, under an id of the bridge's own (R60, R61,
    /// R72).
    pub async fn modern(&mut self, method: &str) -> Exchange {
        let post = self.post().await;
        assert_eq!(post.rpc_method(), method, "{}", post.text());
        assert_eq!(post.header("mcp-protocol-version"), Some(MODERN), "{}", post.text());
        assert_eq!(post.header("mcp-method"), Some(method));
        assert_eq!(post.header("mcp-session-id"), None);
        assert_eq!(post.header("last-event-id"), None);
        if let Some(id) = post.id() {
            assert!(id.starts_with("\"mcp-gangway-"), "an id of the bridge's own: {id}");
            assert_eq!(post.meta()["io.modelcontextprotocol/protocolVersion"], MODERN, "{}", post.text());
        }
        post
    }
}

impl Exchange {
    /// Returns the `_meta` of the message.
    pub fn meta(&self) -> Value {
        #[derive(Deserialize)]
        struct Message {
            params: Params,
        }
        #[derive(Deserialize)]
        struct Params {
            #[serde(rename = "_meta")]
            meta: Value,
        }
        // Other members may hold values that a `Value` cannot.
        serde_json::from_slice::<Message>(&self.body).expect("parameters with _meta").params.meta
    }

    /// Returns the notifications that a `subscriptions/listen` asks for.
    pub fn wanted(&self) -> Value {
        self.value()["params"]["notifications"].clone()
    }

    /// Sends a complete result with these members. Returns the response that the client must receive under its own id.
    pub async fn complete(self, id: &str, members: &str) -> String {
        let comma = if members.is_empty() { "" } else { "," };
        self.answer(&format!(r#"{{"resultType":"complete"{comma}{members}}}"#)).await;
        response(id, &format!("{{{members}}}"))
    }

    /// Sends a result that asks for input, with these members.
    pub async fn ask(self, members: &str) {
        self.answer(&format!(r#"{{"resultType":"input_required",{members}}}"#)).await;
    }

    /// Answers `server/discover` with these capabilities.
    pub async fn discovered(self, capabilities: &str) {
        let meta = r#"{"io.modelcontextprotocol/serverInfo":{"name":"s","version":"1"}}"#;
        let members = format!(r#""supportedVersions":["{MODERN}"],"capabilities":{capabilities},"_meta":{meta}"#);
        self.complete("0", &members).await;
    }

    /// Opens the stream of a subscription with its acknowledgement.
    pub async fn acknowledge(&mut self) {
        let wanted = self.wanted().to_string();
        self.sse().await;
        self.tell("notifications/subscriptions/acknowledged", &format!(r#""notifications":{wanted}"#)).await;
    }

    /// Sends a notification on the stream of a subscription; `members` are those of the parameters.
    pub async fn tell(&mut self, method: &str, members: &str) {
        let id = self.id().expect("a request");
        let comma = if members.is_empty() { "" } else { "," };
        let meta = format!(r#""_meta":{{"io.modelcontextprotocol/subscriptionId":{id}}}"#);
        self.event(&format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{{{members}{comma}{meta}}}}}"#)).await;
    }
}

impl Client {
    /// Sends `initialize` with this id, declaring these capabilities.
    pub async fn initialize_as(&mut self, id: &str, capabilities: &str) {
        let client = r#"{"name":"c","version":"1"}"#;
        let params =
            format!(r#"{{"protocolVersion":"{VERSION}","capabilities":{capabilities},"clientInfo":{client}}}"#);
        self.send(request(id, "initialize", &params)).await;
    }

    /// Completes the handshake with a modern server, with the capabilities of both. The test handles the client's
    /// subscriptions.
    pub async fn handshake_with_modern(&mut self, server: &mut Server, own: &str, offered: &str) {
        self.initialize_as(r#""init""#, own).await;
        server.post().await.refuse(400, -32_022).await;
        server.modern("server/discover").await.discovered(offered).await;
        let answer = self.value("a message").await;
        assert_eq!(answer["id"], "init");
        assert_eq!(answer["result"]["capabilities"], serde_json::from_str::<Value>(offered).expect("JSON"));
        self.send(INITIALIZED).await;
    }

    /// Expects a request with these parameters next. Returns the id that the bridge has given it, as JSON.
    pub async fn asked(&mut self, method: &str, params: &str) -> String {
        let line = self.line(&format!("the question {method}")).await;
        let id = serde_json::from_slice::<Value>(&line).expect("JSON")["id"].to_string();
        assert!(id.starts_with("\"mcp-gangway-"), "{}", shown(&line));
        assert_eq!(String::from_utf8_lossy(&line), request(&id, method, params));
        id
    }

    /// Expects that nothing is in flight in either direction: sends a request and requires it and its response to come
    /// next.
    pub async fn expect_quiet(&mut self, server: &mut Server) {
        self.send(request("\"quiet\"", "resources/templates/list", "{}")).await;
        let answer = server.modern("resources/templates/list").await.complete("\"quiet\"", "").await;
        self.expect(answer).await;
    }

    /// Expects that the bridge answers a ping itself, and sends nothing before it.
    pub async fn expect_pong(&mut self) {
        self.send(request("\"pong\"", "ping", "{}")).await;
        assert_eq!(self.value("a message").await, json!({"jsonrpc": "2.0", "id": "pong", "result": {}}));
    }
}
