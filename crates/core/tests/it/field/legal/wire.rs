//! HTTP (RFC 9110, 9112, 9113). Each form is the HTTP response to a call.

use std::io::Write as _;

use flate2::{Compression, GzBuilder, write::GzEncoder};
use mcp_gangway_core::{Config, Proxy};
use serde_json::Value;

use super::{FOREIGN, sized};
use crate::support::{Authority, Client, Fate, RawH2, call, dialogue, request, response};

/// Returns the answer that each form carries.
fn answer() -> String {
    response("1", &format!(r#"{{"text":"{FOREIGN}"}}"#))
}

/// Expects that a call with this HTTP response is answered, and that the next request uses the same connection.
async fn works(form: &str, reply: impl AsRef<[u8]>) {
    println!("{form}");
    let (mut server, mut client) = dialogue().await;
    client.send(call("1")).await;
    server.post().await.raw(reply).await;
    client.expect(answer()).await;
    client.send(request("2", "ping", "{}")).await;
    let ping = server.post().await;
    assert_eq!(ping.connection, 0, "{form}");
    client.expect(ping.answer("{}").await).await;
    client.finish(&mut server).await;
}

/// Expects that a call with this HTTP response, which ends with its connection, is answered, and that the next request
/// uses another connection.
async fn works_to_the_end(form: &str, reply: impl AsRef<[u8]>) {
    println!("{form}");
    let (mut server, mut client) = dialogue().await;
    client.send(call("1")).await;
    let mut post = server.post().await;
    post.write(reply.as_ref()).await;
    post.fin().await;
    client.expect(answer()).await;
    client.send(request("2", "ping", "{}")).await;
    let ping = server.post().await;
    assert_eq!(ping.connection, 1, "{form}");
    client.expect(ping.answer("{}").await).await;
    client.finish(&mut server).await;
}

const OK: &str = "HTTP/1.1 200 OK";
const JSON: &str = "Content-Type: application/json\r\nContent-Length: <length>";

/// Returns the answer after a head in which `<length>` is replaced by its length.
fn reply(status: &str, headers: &str) -> String {
    let answer = answer();
    format!("{status}\r\n{headers}\r\n\r\n{answer}").replace("<length>", &answer.len().to_string())
}

#[tokio::test]
async fn unusual_status_lines_are_accepted() {
    for (form, status) in [
        ("an empty reason", "HTTP/1.1 200 "),
        ("no reason at all", "HTTP/1.1 200"),
        ("a reason that is not ASCII", "HTTP/1.1 200 Tr\u{e8}s bien \u{2713}"),
        ("created", "HTTP/1.1 201 Created"),
        ("accepted, with the answer", "HTTP/1.1 202 Accepted"),
        ("from a proxy", "HTTP/1.1 203 Non-Authoritative Information"),
        ("an unknown success", "HTTP/1.1 299 Fine"),
        ("several choices, none named", "HTTP/1.1 300 Multiple Choices"),
    ] {
        works(form, reply(status, JSON)).await;
    }
}

#[tokio::test]
async fn content_type_and_length_headers_in_unusual_forms_are_read() {
    for (form, headers) in [
        ("names in any case", "CONTENT-TYPE: application/json\r\ncontent-LENGTH: <length>"),
        ("no blank after the colon", "Content-Type:application/json\r\nContent-Length:<length>"),
        ("blanks and tabs around values", "Content-Type: \t application/json \t \r\nContent-Length:\t<length>  \t"),
        ("a type in any case", "Content-Type: Application/JSON\r\nContent-Length: <length>"),
        ("parameters", "Content-Type: application/json ; Charset=\"utf-8\";q=\";,\"\r\nContent-Length: <length>"),
        ("an empty parameter", "Content-Type: application/json;\r\nContent-Length: <length>"),
        ("a type with a suffix", "Content-Type: application/vnd.mcp+json\r\nContent-Length: <length>"),
        ("no type", "Content-Length: <length>"),
        ("an empty type", "Content-Type:\r\nContent-Length: <length>"),
        ("a type on two lines", "Content-Type: application/json;\r\n charset=utf-8\r\nContent-Length: <length>"),
        ("a length with zeros before it", "Content-Length: 000<length>\r\nContent-Type: application/json"),
        ("a length on the next line", "Content-Type: application/json\r\nContent-Length:\r\n\t<length>"),
        (
            "the same length twice",
            "Content-Length: <length>\r\nContent-Type: application/json\r\nContent-Length: <length>",
        ),
        ("the same length in a list", "Content-Type: application/json\r\nContent-Length: <length>, <length>"),
    ] {
        works(form, reply(OK, headers)).await;
    }
}

#[tokio::test]
async fn replies_with_unusual_headers_are_read() {
    let many = |number: usize| format!("X-{number}: {}", "x".repeat(500));
    for (form, status, headers) in [
        ("no value", OK, "X-Empty:\r\nX-Blank: \t "),
        ("a value that is not ASCII", OK, "X-Name: caf\u{e9}"),
        ("a value on several lines", OK, "X-Long: one\r\n two\r\n\tthree"),
        ("odd names", OK, "!#$%&'*+-.^_`|~: 1\r\n0: 1"),
        ("names that repeat", OK, "Vary: Accept\r\nVary: Origin\r\nvary: *"),
        ("many", OK, &*(0..90).map(many).collect::<Vec<_>>().join("\r\n")),
        ("a keep-alive time", OK, "Connection: keep-alive\r\nKeep-Alive: timeout=5, max=100"),
        ("a list of options", OK, "Connection: , Keep-Alive ,"),
        ("kept, in 1.0", "HTTP/1.0 200 OK", "Connection: Keep-Alive"),
        ("other protocols on offer", OK, "Connection: Upgrade\r\nUpgrade: h2,h2c\r\nAlt-Svc: h3=\":443\""),
        ("a location", "HTTP/1.1 201 Created", "Location: /calls/1\r\nContent-Location: /calls/1"),
        ("a location without a redirect", "HTTP/1.1 303 See Other", "Location: /calls/1"),
    ] {
        works(form, reply(status, &format!("{headers}\r\n{JSON}"))).await;
        works(form, reply(status, &format!("{JSON}\r\n{headers}"))).await;
    }
    let (head, body) = (reply(OK, JSON), answer());
    let head = head.strip_suffix(&body).unwrap().replace("\r\n", "\n");
    works("lines that end with LF", head + &body).await;
}

#[tokio::test]
async fn replies_that_end_with_their_connection_are_read() {
    for (form, status, headers) in [
        ("HTTP/1.0", "HTTP/1.0 200 OK", "Content-Type: application/json"),
        ("HTTP/1.0 with a length", "HTTP/1.0 200 OK", "Content-Type: application/json\r\nContent-Length: <length>"),
        ("without a header", OK, "Content-Type: application/json"),
        ("with a header", OK, "Connection: close\r\nContent-Type: application/json"),
        ("with a header and a length", OK, "Content-Length: <length>\r\nConnection: Close"),
        ("with a header list", OK, "Content-Length: <length>\r\nConnection: x-other, CLOSE"),
    ] {
        works_to_the_end(form, reply(status, headers)).await;
    }
    let stream = format!("Content-Type: text/event-stream\r\n\r\n: hello\n\ndata: {}\n\n", answer());
    works_to_the_end("an HTTP/1.0 stream", format!("HTTP/1.0 200 OK\r\n{stream}")).await;
    works_to_the_end("an HTTP/1.1 stream", format!("HTTP/1.1 200 OK\r\nConnection: close\r\n{stream}")).await;
}

#[tokio::test]
async fn interim_responses_and_empty_lines_before_the_reply_are_skipped() {
    let last = reply(OK, "Content-Type: application/json\r\nContent-Length: <length>");
    for (form, before) in [
        ("continue", "HTTP/1.1 100 Continue\r\n\r\n"),
        ("continue without a reason", "HTTP/1.1 100 \r\n\r\n"),
        ("processing, twice", "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"),
        ("hints", "HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\nContent-Length: 7\r\n\r\n"),
        (
            "several",
            "HTTP/1.1 100 Continue\r\nX: y\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 199 Nobody Knows\r\n\r\n",
        ),
        ("an empty line", "\r\n"),
        ("empty lines", "\r\n\r\n\n"),
    ] {
        works(form, before.to_owned() + &last).await;
    }
}

/// Returns the answer in chunks of this size; `line` makes the line before each chunk from its length.
fn chunked(headers: &str, size: usize, line: impl Fn(usize) -> String, trailer: &str) -> Vec<u8> {
    let mut reply = format!("HTTP/1.1 200 OK\r\n{headers}\r\n\r\n").into_bytes();
    for chunk in answer().as_bytes().chunks(size) {
        reply.extend_from_slice(format!("{}\r\n", line(chunk.len())).as_bytes());
        reply.extend_from_slice(chunk);
        reply.extend_from_slice(b"\r\n");
    }
    reply.extend_from_slice(trailer.as_bytes());
    reply
}

#[tokio::test]
async fn chunked_bodies_in_unusual_forms_are_read() {
    const HEADERS: &str = "Content-Type: application/json\r\nTransfer-Encoding: chunked";
    let plain = |size: usize| format!("{size:x}");
    for (form, reply) in [
        ("plain", chunked(HEADERS, 1000, plain, "0\r\n\r\n")),
        ("of one byte, which cut characters", chunked(HEADERS, 1, plain, "0\r\n\r\n")),
        ("named in any case", chunked("TRANSFER-encoding:\tChunked ", 7, plain, "0\r\n\r\n")),
        ("sizes in capitals", chunked(HEADERS, 43, |size| format!("{size:X}"), "0\r\n\r\n")),
        ("sizes with zeros before them", chunked(HEADERS, 43, |size| format!("{size:012x}"), "00000\r\n\r\n")),
        ("sizes with blanks after them", chunked(HEADERS, 43, |size| format!("{size:x}  \t"), "0 \r\n\r\n")),
        (
            "extensions",
            chunked(HEADERS, 10, |size| format!("{size:x};flag;name=value ; quoted=\";=0\\\"\""), "0;last=1\r\n\r\n"),
        ),
        (
            "a length as well, which is ignored",
            chunked(&format!("Content-Length: 5\r\n{HEADERS}"), 10, plain, "0\r\n\r\n"),
        ),
        ("a trailer", chunked(&format!("Trailer: X-Sum\r\n{HEADERS}"), 10, plain, "0\r\nX-Sum: 1\r\nExpires:\r\n\r\n")),
    ] {
        works(form, reply).await;
    }
    let closing = chunked(&format!("Connection: close\r\n{HEADERS}"), 10, plain, "0\r\n\r\n");
    works_to_the_end("with a close", closing).await;
}

#[tokio::test]
async fn replies_sent_byte_by_byte_are_read() {
    for reply in [
        reply(OK, "Content-Type: application/json\r\nContent-Length: <length>").into_bytes(),
        chunked("Transfer-Encoding: chunked", 5, |size| format!("{size:x};x"), "0\r\nX: y\r\n\r\n"),
        format!("HTTP/1.1 103 \r\n\r\nHTTP/1.0 200\r\n\r\nid: 1\r\n\r\ndata: {}\r\n\r\n", answer()).into_bytes(),
    ] {
        let (mut server, mut client) = dialogue().await;
        client.send(call("1")).await;
        let mut post = server.post().await;
        for byte in reply {
            post.write(&[byte]).await;
            tokio::task::yield_now().await;
        }
        post.fin().await;
        client.expect(answer()).await;
        client.finish(&mut server).await;
    }
}

#[tokio::test]
async fn an_empty_line_after_a_reply_does_not_disturb_the_next_request() {
    let (mut server, mut client) = dialogue().await;
    for id in ["1", "2", "3"] {
        client.send(call(id)).await;
        let answer = response(id, "{}");
        server.post().await.raw([&sized(OK, &answer)[..], b"\r\n"].concat()).await;
        client.expect(answer).await;
    }
    client.finish(&mut server).await;
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn compressed_bodies_in_unusual_forms_are_read() {
    let answer = answer();
    let (head, tail) = answer.as_bytes().split_at(answer.len() / 2);
    let stored = {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::none());
        encoder.write_all(answer.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let named = {
        let builder = GzBuilder::new().filename("answer.json").comment("of a tool").extra(*b"ab\x01\x00x").mtime(1);
        let mut encoder = builder.write(Vec::new(), Compression::best());
        encoder.write_all(answer.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = |text: &[u8]| zstd::encode_all(text, 1).unwrap();
    let skipped = b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc".to_vec();
    for (form, coding, body) in [
        ("identity", "identity", answer.clone().into_bytes()),
        ("an empty value", "", answer.clone().into_bytes()),
        ("the old name", "x-gzip", gzip(answer.as_bytes())),
        ("in capitals, with blanks", " GZip\t", gzip(answer.as_bytes())),
        ("on the next line", "\r\n\tgzip", gzip(answer.as_bytes())),
        ("with an empty element", "gzip,", gzip(answer.as_bytes())),
        ("after identity", "identity, gzip", gzip(answer.as_bytes())),
        ("in another header than identity", "identity\r\nContent-Encoding: gzip", gzip(answer.as_bytes())),
        ("without compression", "gzip", stored),
        ("with a name and a comment", "gzip", named),
        ("several members", "gzip", [gzip(head), gzip(tail)].concat()),
        ("empty members", "gzip", [gzip(b""), gzip(head), gzip(b""), gzip(tail), gzip(b"")].concat()),
        ("several frames", "zstd", [zstd(head), zstd(tail)].concat()),
        ("frames to be skipped", "zstd", [skipped.clone(), zstd(head), skipped.clone(), zstd(tail), skipped].concat()),
    ] {
        works(form, sized(&format!("{OK}\r\nContent-Encoding: {coding}"), &body)).await;
        let mut chunks =
            format!("{OK}\r\ncontent-encoding:{coding}\r\nTransfer-Encoding: chunked\r\n\r\n").into_bytes();
        for byte in body {
            chunks.extend_from_slice(&[b'1', b'\r', b'\n', byte, b'\r', b'\n']);
        }
        works(form, [&chunks[..], b"0\r\n\r\n"].concat()).await;
    }
}

#[tokio::test]
async fn redirects_within_the_origin_are_followed() {
    let (mut server, mut client) = dialogue().await;
    let (address, origin) = (server.address(), server.origin());
    for (location, target) in [
        ("mcp/", "/mcp/"),
        ("./other", "/other"),
        ("../other/./x", "/other/x"),
        ("/", "/"),
        ("?tenant=1", "/mcp?tenant=1"),
        ("/other#part", "/other"),
        ("\r\n /other", "/other"),
        ("/a%2Fb?c=d%26e", "/a%2Fb?c=d%26e"),
        ("", "/mcp"),
        (&format!("//{address}/other"), "/other"),
        (&format!("HTTP://{address}"), "/"),
        (&format!("{origin}/a/../mcp/"), "/mcp/"),
    ] {
        for status in [307, 308] {
            println!("{status} {location:?}");
            client.send(call("1")).await;
            server.post().await.respond(status, &[("location", location)], "").await;
            let post = server.post().await;
            assert_eq!((post.target.as_str(), post.text()), (target, call("1").as_str()), "{location:?}");
            client.expect(post.answer("{}").await).await;
        }
    }
    // A chain of redirects, each relative to the one before. The next request uses the first URL again.
    client.send(call("1")).await;
    server.post().await.respond(308, &[("Location", "a/b")], "moved").await;
    server.post().await.respond(307, &[("Location", "c")], "moved").await;
    let post = server.post().await;
    assert_eq!(post.target, "/a/c");
    client.expect(post.answer("{}").await).await;
    client.send(call("2")).await;
    let post = server.post().await;
    assert_eq!(post.target, "/mcp");
    client.expect(post.answer("{}").await).await;
    client.finish(&mut server).await;
}

/// A frame of HTTP/2: type, flags, payload.
type Frame = (u8, u8, Vec<u8>);

#[tokio::test]
async fn http2_replies_in_unusual_framing_are_read() {
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const PRIORITY: u8 = 2;
    const WINDOW_UPDATE: u8 = 8;
    const CONTINUATION: u8 = 9;
    const UNKNOWN: u8 = 0xfa;
    const END_STREAM: u8 = 1;
    const END_HEADERS: u8 = 4;
    const PADDED: u8 = 8;
    const HAS_PRIORITY: u8 = 0x20;
    // HPACK: the status 200, a status 103, a content type, an unknown header.
    const OK: &[u8] = b"\x88";
    const HINTS: &[u8] = b"\x08\x03103";
    const JSON: &[u8] = b"\x0f\x10\x10application/json";
    const OTHER: &[u8] = b"\x00\x01x\x01y";
    let head = (HEADERS, END_HEADERS, [OK, JSON].concat());
    let padded = |bytes: &[u8]| (DATA, PADDED, [&[2][..], bytes, &[0; 2]].concat());
    let forms = |body: Vec<u8>| -> Vec<Vec<Frame>> {
        let (begun, rest) = body.split_at(body.len() / 2);
        vec![
            // Interim responses.
            vec![
                (HEADERS, END_HEADERS, HINTS.into()),
                (HEADERS, END_HEADERS, HINTS.into()),
                head.clone(),
                (DATA, END_STREAM, body.clone()),
            ],
            // No content type, and END_STREAM in a frame of its own.
            vec![(HEADERS, END_HEADERS, OK.into()), (DATA, 0, body.clone()), (DATA, END_STREAM, Vec::new())],
            // A trailer.
            vec![head.clone(), (DATA, 0, body.clone()), (HEADERS, END_HEADERS | END_STREAM, OTHER.into())],
            // A head in pieces, with a priority and padding.
            vec![
                (HEADERS, PADDED | HAS_PRIORITY, [&[3, 0, 0, 0, 0, 16][..], OK, &[0; 3]].concat()),
                (CONTINUATION, 0, JSON[..5].into()),
                (CONTINUATION, 0, Vec::new()),
                (CONTINUATION, END_HEADERS, JSON[5..].into()),
                (DATA, END_STREAM, body.clone()),
            ],
            // Padding around a part, and nothing but padding.
            vec![head.clone(), padded(b""), padded(begun), padded(rest), (DATA, PADDED | END_STREAM, vec![0])],
            // One byte in each frame.
            [head.clone()]
                .into_iter()
                .chain(body.chunks(1).map(padded))
                .chain([(DATA, END_STREAM, Vec::new())])
                .collect(),
            // Frames of other types in between, and empty ones.
            vec![
                (UNKNOWN, 0xff, b"what is this".into()),
                head.clone(),
                (PRIORITY, 0, vec![0, 0, 0, 0, 255]),
                (DATA, 0, begun.into()),
                (UNKNOWN, 0, Vec::new()),
                (WINDOW_UPDATE, 0, vec![0, 0, 1, 0]),
                (DATA, 0, Vec::new()),
                (DATA, END_STREAM, rest.into()),
            ],
            // A stream of events.
            vec![
                (HEADERS, END_HEADERS, OK.into()),
                (DATA, 0, b": hello\n\ndata: ".into()),
                (DATA, 0, body.clone()),
                (DATA, END_STREAM, b"\n\n".into()),
            ],
        ]
    };
    let answer = |id: usize| response(&id.to_string(), &format!(r#"{{"text":"{FOREIGN}"}}"#));
    let authority = Authority::new();
    let server = RawH2::start(authority.server_config("localhost")).await;
    let mut config = Config::new(&server.url()).unwrap();
    config.tls.ca_certificates.push(authority.pem());
    config.proxy = Proxy::None;
    let mut client = Client::start(config);
    let serving = server.serve(async |message: &Value| {
        let id = usize::try_from(message["id"].as_u64().unwrap()).unwrap();
        Fate::Frames(forms(answer(id).into_bytes()).swap_remove(id))
    });
    let asking = async {
        for id in 0..forms(Vec::new()).len() {
            println!("the form at {id}");
            client.send(call(&id.to_string())).await;
            client.expect(answer(id)).await;
        }
    };
    tokio::select! {
        () = asking => {}
        () = serving => unreachable!("it serves for ever"),
    }
}
