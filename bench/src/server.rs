//! The MCP server for all bridges: Streamable HTTP, legacy handshake, one thread.
//!
//! Rule: the server must not limit the results. A long response sends one block repeatedly, so its bytes are neither
//! copied nor generated again. Only paced events are written one by one, as each carries the time at which it was sent.
//!
//! Tools and their arguments: `text` returns `size` bytes of text after `wait` ms. `events` sends `count` progress
//! notifications of `size` bytes each, one every `pause` ms, and then its result. `format` is `json`, `sse` or
//! `ndjson`.

use std::{
    convert::Infallible,
    io::{self, Read, Write},
    iter,
    pin::Pin,
    task::{Context, Poll, ready},
    thread,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustix::time::{ClockId, clock_gettime};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
    time::{Sleep, sleep},
};

use crate::Result;

/// The content of texts: typical tool output in words, code and other scripts, as JSON string content.
const PHRASE: &str =
    r#"The build took 41 s. fn main() {\n\tprintln!(\"{}\", 7);\n} Größe geändert; 文件已保存 — готово. "#;
/// The size of the pieces of a long response.
const BLOCK: usize = 64 << 10;
/// The mark before the time at which an event was sent. Server and driver read the same clock, as they run on one
/// machine.
const MARK: &str = "\"at ";

/// Serves until stdin ends.
pub(crate) fn run() -> Result<()> {
    let (ends, ended) = oneshot::channel();
    thread::spawn(move || {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        let _ = ends.send(());
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("http://{}/mcp", listener.local_addr()?);
        io::stdout().flush()?;
        tokio::spawn(accept(listener));
        let _ = ended.await;
        Ok(())
    })
}

/// Returns nanoseconds of the clock that all processes of a machine share.
pub(crate) fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

/// Returns the times at which the events in this text were sent.
pub(crate) fn left_at(text: &[u8]) -> impl Iterator<Item = u64> {
    memchr::memmem::find_iter(text, MARK).filter_map(|at| {
        let rest = text.get(at + MARK.len()..)?;
        let end = rest.iter().position(|byte| !byte.is_ascii_digit())?;
        std::str::from_utf8(rest.get(..end)?).ok()?.parse().ok()
    })
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    method: Option<String>,
    #[serde(borrow, default)]
    params: Params<'a>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Params<'a> {
    name: String,
    arguments: Arguments,
    protocol_version: String,
    #[serde(borrow, rename = "_meta")]
    meta: Option<Meta<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta<'a> {
    #[serde(borrow)]
    progress_token: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(default)]
struct Arguments {
    size: u64,
    count: u64,
    pause: u64,
    wait: u64,
    format: Format,
}

impl Default for Arguments {
    fn default() -> Self {
        Self { size: 100, count: 1, pause: 0, wait: 0, format: Format::Json }
    }
}

/// The framing of a response.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    Json,
    Sse,
    Ndjson,
}

impl Format {
    /// Returns its name in a call's arguments.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Sse => "sse",
            Self::Ndjson => "ndjson",
        }
    }

    /// Returns its name for people.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Json => "JSON",
            Self::Sse => "SSE",
            Self::Ndjson => "NDJSON",
        }
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Sse => "text/event-stream",
            Self::Ndjson => "application/x-ndjson",
        }
    }

    /// Returns the text before and after a message.
    fn frame(self) -> (&'static str, &'static str) {
        match self {
            Self::Json => ("", ""),
            Self::Sse => ("event: message\ndata: ", "\n\n"),
            Self::Ndjson => ("", "\n"),
        }
    }
}

async fn accept(listener: TcpListener) {
    while let Ok((socket, _)) = listener.accept().await {
        tokio::spawn(converse(socket));
    }
}

async fn converse(socket: TcpStream) {
    let _ = socket.set_nodelay(true);
    // A client may close its connection.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(socket), service_fn(answer)).await;
}

async fn answer(request: Request<Incoming>) -> std::result::Result<Response<Parts>, Infallible> {
    let refused = |status| {
        let mut response = Response::new(Parts::of(Bytes::new()));
        *response.status_mut() = status;
        Ok(response)
    };
    match *request.method() {
        Method::POST => {}
        Method::DELETE => return refused(StatusCode::NO_CONTENT),
        _ => return refused(StatusCode::METHOD_NOT_ALLOWED),
    }
    let Ok(body) = request.into_body().collect().await else {
        return refused(StatusCode::BAD_REQUEST);
    };
    let body = body.to_bytes();
    let Ok(message) = serde_json::from_slice::<Message<'_>>(&body) else {
        return refused(StatusCode::BAD_REQUEST);
    };
    let (Some(id), Some(method)) = (message.id, message.method) else {
        return refused(StatusCode::ACCEPTED);
    };
    let Params { name, arguments, protocol_version, meta } = message.params;
    let format = if method == "tools/call" { arguments.format } else { Format::Json };
    let (before, after) = format.frame();
    let head = format!(r#"{before}{{"jsonrpc":"2.0","id":{id},"#);
    let simple = |result: &str| Parts::of(Bytes::from(format!("{head}{result}}}{after}")));
    let text = |head: &str, size| {
        let before = format!(r#"{head}"result":{{"content":[{{"type":"text","text":""#);
        Parts::new(long(before, size, &format!(r#""}}]}}}}{after}"#)))
    };
    let parts = match (method.as_str(), name.as_str()) {
        ("initialize", _) => simple(&format!(
            r#""result":{{"protocolVersion":"{}","capabilities":{{"tools":{{}}}},"serverInfo":{{"name":"bench","version":"1"}}}}"#,
            if protocol_version.as_str() < "2025-11-25" { protocol_version.as_str() } else { "2025-11-25" }
        )),
        ("ping", _) => simple(r#""result":{}"#),
        ("tools/list", _) => simple(
            r#""result":{"tools":[{"name":"text","inputSchema":{"type":"object"}},{"name":"events","inputSchema":{"type":"object"}}]}"#,
        ),
        ("tools/call", "text") => {
            if arguments.wait > 0 {
                sleep(Duration::from_millis(arguments.wait)).await;
            }
            text(&head, arguments.size)
        }
        ("tools/call", "events") => {
            let token = meta.and_then(|meta| meta.progress_token).map_or("1", RawValue::get).to_owned();
            let last = text(&head, 100).rest;
            let pause = Duration::from_millis(arguments.pause);
            let events: Box<dyn Iterator<Item = Bytes> + Send> = if pause.is_zero() {
                let one = event(&token, 1, arguments.size, format);
                let together = (BLOCK / one.len().max(1)).clamp(1, arguments.count.max(1) as usize);
                let block = Bytes::from(one.repeat(together));
                let rest = block.slice(..one.len() * (arguments.count as usize % together));
                Box::new(iter::repeat_n(block, arguments.count as usize / together).chain([rest]))
            } else {
                Box::new((1..=arguments.count).map(move |number| event(&token, number, arguments.size, format).into()))
            };
            Parts { length: None, rest: Box::new(events.chain(last)), pause, sleep: None }
        }
        _ => simple(r#""error":{"code":-32601,"message":"Method not found"}"#),
    };
    let mut response = Response::new(parts);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    Ok(response)
}

/// A body in parts, with a pause before each if it is paced.
struct Parts {
    length: Option<u64>,
    rest: Box<dyn Iterator<Item = Bytes> + Send>,
    pause: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Parts {
    fn of(whole: Bytes) -> Self {
        Self::new(vec![whole].into_iter())
    }

    /// Makes a body with a known length. The parts have known lengths, so adding them up is cheap.
    fn new(parts: impl Iterator<Item = Bytes> + Clone + Send + 'static) -> Self {
        let length = parts.clone().map(|part| part.len() as u64).sum();
        Self { length: Some(length), rest: Box::new(parts), pause: Duration::ZERO, sleep: None }
    }
}

impl Body for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, Infallible>>> {
        if !self.pause.is_zero() {
            let pause = self.pause;
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep(pause)));
            ready!(sleep.as_mut().poll(context));
            self.sleep = None;
        }
        Poll::Ready(self.rest.find(|part| !part.is_empty()).map(|part| Ok(Frame::data(part))))
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// Makes a message with a text of `size` bytes in the middle.
fn long(before: String, size: u64, after: &str) -> impl Iterator<Item = Bytes> + Clone + Send + use<> {
    let size = size as usize;
    if size < BLOCK {
        let mut whole = before;
        fill(&mut whole, size);
        whole.push_str(after);
        return vec![Bytes::from(whole)].into_iter().chain(iter::repeat_n(Bytes::new(), 0)).chain(vec![]);
    }
    let mut block = String::with_capacity(BLOCK);
    fill(&mut block, BLOCK);
    let mut end = String::new();
    fill(&mut end, size % BLOCK);
    end.push_str(after);
    vec![Bytes::from(before)]
        .into_iter()
        .chain(iter::repeat_n(Bytes::from(block), size / BLOCK))
        .chain(vec![Bytes::from(end)])
}

/// Makes one framed progress notification of `size` bytes of JSON.
fn event(token: &str, number: u64, size: u64, format: Format) -> Vec<u8> {
    let (before, after) = format.frame();
    let mut event = format!(
        r#"{before}{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token},"progress":{number},"message":{MARK}{} ns "#,
        now()
    );
    let end = r#""}}"#;
    let room = (size as usize).saturating_sub(event.len() - before.len() + end.len());
    fill(&mut event, room);
    event.push_str(end);
    event.push_str(after);
    event.into_bytes()
}

/// Adds exactly `size` bytes of text: whole phrases, then dots.
fn fill(text: &mut String, size: usize) {
    text.extend(iter::repeat_n(PHRASE, size / PHRASE.len()));
    text.extend(iter::repeat_n('.', size % PHRASE.len()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_the_length_that_was_asked_for() {
        for size in [0, 1, 100, 5000, BLOCK as u64, 3 * BLOCK as u64 + 7] {
            let whole: Vec<u8> = long("\"".to_owned(), size, "\"").flatten().collect();
            let text: &RawValue = serde_json::from_slice(&whole).unwrap();
            assert_eq!(text.get().len() as u64, size + 2);
        }
    }

    #[test]
    fn an_event_has_its_length_and_its_time() {
        let event = event("1", 1, 4096, Format::Ndjson);
        assert_eq!(event.len(), 4097);
        let both = event.repeat(2);
        assert_eq!(left_at(&both).filter(|&time| time > 0).count(), 2);
    }
}
