//! Tests the worst input from a peer for everything that reads it: a mebibyte of nesting and of repetition, on a small
//! stack. The work is counted, and must grow linearly with the text.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    json::splice::work,
    translate::{
        legacy_to_modern::LegacyClient,
        modern_to_legacy::{self, FromModern, LegacyServer},
        tool_headers::Tools,
    },
    wire::{
        body::Decoder,
        headers,
        long_values::LongValues,
        message::{Message, Parsed},
        revision::{CLIENT_CAPABILITIES, PROTOCOL_VERSION},
        spool::{Spooler, Storage},
    },
};

/// The size of a text that is read as a stream.
const MIB: usize = 1 << 20;
/// The size of a value within a message, small enough to try all places.
const PART: usize = 100 << 10;
/// The stack of the reading thread.
const STACK: usize = 256 << 10;
/// The most looks at each byte: schemas are read level by level, up to 64 levels.
const MOST: usize = 300;

/// Returns values of about this length that are deep, wide or both.
fn values(length: usize) -> Vec<String> {
    let deep = |open: &str, close: &str| {
        let levels = length / (open.len() + close.len());
        format!("{}{}", open.repeat(levels), close.repeat(levels))
    };
    let wide = |open: &str, one: &str, close: &str| {
        let count = length / (one.len() + 1);
        format!("{open}{}{close}", vec![one; count].join(","))
    };
    vec![
        deep("[", "]"),
        format!("{}0{}", r#"{"a":"#.repeat(length / 6), "}".repeat(length / 6)),
        format!("{}0{}", r#"{"properties":{"a":"#.repeat(length / 22), "}}".repeat(length / 22)),
        format!("{}0{}", r#"{"x-mcp-header":"#.repeat(length / 17), "}".repeat(length / 17)),
        format!("{}0{}", r#"[{"$ref":"#.repeat(length / 11), "}]".repeat(length / 11)),
        wide("[", "[]", "]"),
        wide("[", "{}", "]"),
        wide("[", r#"{"name":"t","inputSchema":{"properties":{"a":{"x-mcp-header":"A","type":"string"}}}}"#, "]"),
        wide("{", r#""a":1"#, "}"),
        wide("{", r#""\u0061":{"\u0061":1}"#, "}"),
        wide("{", r#""_meta":{"a":1}"#, "}"),
        format!("\"{}\"", "\\\"".repeat(length / 2)),
        format!("\"{}\"", "x".repeat(length)),
        "1".repeat(length),
    ]
}

/// Returns such values alone and in batches, and messages with one in each place that is read.
fn messages() -> Vec<String> {
    let meta = format!(r#""_meta":{{"{PROTOCOL_VERSION}":"2026-07-28","{CLIENT_CAPABILITIES}":{{}}}}"#);
    let mut all = Vec::new();
    for value in values(MIB) {
        all.push(format!("[{value},{value}]"));
        all.push(format!(r#"{{"jsonrpc":"2.0","id":1,"result":{value}}}"#));
        all.push(value);
    }
    for value in values(PART) {
        for (head, tail) in [
            (r#"{"jsonrpc":"2.0","id":1,"result":"#, "}"),
            (r#"{"jsonrpc":"2.0","id":1,"result":{"tools":"#, "}}"),
            (r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"t","inputSchema":"#, "}]}}"),
            (r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"t","outputSchema":"#, "}]}}"),
            (r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"input_required","inputRequests":"#, "}}"),
            (r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"#, "}}"),
            (r#"{"jsonrpc":"2.0","id":1,"result":{"structuredContent":"#, "}}"),
            (r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-11-25","capabilities":"#, "}}"),
            (r#"{"jsonrpc":"2.0","id":1,"result":{"_meta":"#, "}}"),
            (r#"{"jsonrpc":"2.0","id":1,"error":"#, "}"),
            (r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32042,"message":"","data":{"elicitations":"#, "}}}"),
            (r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32021,"message":"","data":{"requiredCapabilities":"#, "}}}"),
            (r#"{"jsonrpc":"2.0","method":"notifications/resources/updated","params":"#, "}"),
            (r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"#, "}}"),
            (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t","arguments":"#, "}}"),
            (r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"capabilities":"#, "}}"),
            (r#"{"jsonrpc":"2.0","id":"#, "}"),
            (r#"{"jsonrpc":"2.0","id":1,"method":"#, "}"),
        ] {
            all.push(format!("{head}{value}{tail}"));
        }
        for (method, member) in [
            ("tools/call", "arguments"),
            ("tools/call", "inputResponses"),
            ("subscriptions/listen", "notifications"),
            ("subscriptions/listen", r#"notifications":{},"x"#),
            ("resources/read", "uri"),
        ] {
            let params = format!(r#"{{"name":"t","requestState":"s","{member}":{value},{meta}}}"#);
            all.push(format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#));
        }
        let uris = format!(r#"{{"notifications":{{"resourceSubscriptions":{value}}},{meta}}}"#);
        all.push(format!(r#"{{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{uris}}}"#));
    }
    all
}

/// Calls everything that reads a peer's message.
fn read_all(text: &Bytes) {
    let storage = Storage::new(std::env::temp_dir());
    for content_type in ["application/json", "application/x-ndjson", "text/event-stream"] {
        let framed = match content_type {
            "text/event-stream" => [b"data: ", &text[..], b"\n\n"].concat(),
            _ => [&text[..], b"\n"].concat(),
        };
        let mut decoder = Decoder::new(Some(content_type), u64::MAX, &storage);
        for chunk in framed.chunks(60_000) {
            let _ = decoder.feed(Bytes::copy_from_slice(chunk));
            while decoder.next().is_some() {}
        }
        decoder.finish(true);
        while decoder.next().is_some() {}
    }
    match Message::parse(text) {
        Ok(Parsed::One(message)) => read(&message),
        Ok(Parsed::Batch(batch)) => batch.flatten().for_each(|message| drop(message.into_line())),
        Err(_) => {}
    }
    let mut spooler = Spooler::new(u64::MAX, &Arc::clone(&storage));
    for chunk in text.chunks(60_000) {
        let _ = spooler.push(Bytes::copy_from_slice(chunk));
    }
    if let Some(Parsed::One(message)) = spooler.take().ok().and_then(|gathered| Message::read(&gathered).ok())
        && let Some((condensed, values)) = LongValues::extract_long_values(&message)
    {
        drop(values.restore_long_values(&condensed));
    }
}

fn read(message: &Message) {
    let _ = (message.cancelled_id(), message.offer(), message.error(), message.uri(), message.meta().is_some());
    headers::modern(message, Vec::new(), &mut http::HeaderMap::new());
    let mut tools = Tools::default();
    drop(tools.learn(message.clone()));
    drop(tools.params(message));

    let mut client = LegacyClient::new(message);
    let _ = client.discover();
    let _ = client.initialized(message, message);
    drop(client.take(message));
    drop(LegacyClient::event(message.clone()));
    for method in ["tools/list", "tools/call"] {
        let request = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{"name":"t"}}}}"#);
        if let Some(request) = Message::one(request) {
            drop(client.answer(&request, message.clone()));
        }
    }

    let _ = modern_to_legacy::initialize(message);
    let _ = modern_to_legacy::forwarded(message);
    let offered =
        r#"{"id":0,"result":{"protocolVersion":"2025-11-25","capabilities":{"resources":{"subscribe":true}}}}"#;
    let known = Message::one(offered).and_then(|offered| LegacyServer::new(&offered));
    for server in [LegacyServer::new(message), known].into_iter().flatten() {
        drop(server.discovered(message));
        drop(server.answer(message, message.clone()));
        if let FromModern::Listen(subscription) = server.take(message) {
            drop(subscription.event(message));
        }
    }
}

#[test]
fn parsing_work_is_linear_in_message_size_on_a_small_stack() {
    for text in messages() {
        let text = Bytes::from(text);
        let reader = std::thread::Builder::new().stack_size(STACK).spawn({
            let text = text.clone();
            move || {
                read_all(&text);
                work::take()
            }
        });
        let work = reader.unwrap().join().unwrap();
        let shown = String::from_utf8_lossy(&text[..text.len().min(150)]).into_owned();
        assert!(work <= MOST * text.len(), "{} looks at each byte: {shown}", work / text.len());
    }
}
