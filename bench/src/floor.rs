//! A bridge that only copies: the minimum cost of any bridge on tokio and hyper, with one thread and polled stdin and
//! stdout.
//!
//! It does not parse JSON and has no sessions, retries, limits or error responses. If something fails, the call gets no
//! response. Compare with it to see what those features cost.

use std::rc::Rc;

use bytes::Bytes;
use http::{
    Request, Uri,
    header::{ACCEPT, CONTENT_TYPE, HOST},
};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpStream, unix::pipe},
    sync::{Mutex, MutexGuard, mpsc},
    task::{JoinSet, LocalSet},
};

use crate::Result;

/// The most pieces of output that wait for a slow reader.
const WAITING: usize = 32;
/// The bytes in one read. Together with [`WAITING`] this bounds the memory.
const READ: usize = 64 << 10;
/// The prefix of the event stream lines to copy.
const DATA: &[u8] = b"data: ";

/// Copies until stdin ends and all calls are answered.
pub(crate) fn run(url: &Uri) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, copy(url.clone()))
}

async fn copy(url: Uri) -> Result<()> {
    // Reopen the pipe: then polling it does not change the flags that other processes see.
    let input = pipe::OpenOptions::new().open_receiver("/proc/self/fd/0")?;
    let mut output = pipe::OpenOptions::new().open_sender("/proc/self/fd/1")?;
    let (pieces, mut waiting) = mpsc::channel::<Bytes>(WAITING);
    let writer = tokio::task::spawn_local(async move {
        let (mut some, mut together) = (Vec::new(), Vec::new());
        while waiting.recv_many(&mut some, WAITING).await > 0 {
            if let [one] = some.as_slice() {
                output.write_all(one).await?;
            } else {
                together.clear();
                for piece in &some {
                    together.extend_from_slice(piece);
                }
                output.write_all(&together).await?;
            }
            some.clear();
        }
        Result::Ok(())
    });
    let shared = Rc::new(Shared { url, idle: Mutex::default(), output: Mutex::new(pieces) });
    let mut calls = JoinSet::new();
    let mut lines = BufReader::with_capacity(64 << 10, input);
    loop {
        let mut line = Vec::new();
        if lines.read_until(b'\n', &mut line).await? == 0 {
            break;
        }
        let shared = Rc::clone(&shared);
        calls.spawn_local(async move {
            if let Err(error) = shared.call(line).await {
                eprintln!("floor: {error}");
            }
        });
        while calls.try_join_next().is_some() {}
    }
    calls.join_all().await;
    drop(shared);
    writer.await?
}

struct Shared {
    url: Uri,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
    /// Locked by the writer of a message until the end of its line.
    output: Mutex<mpsc::Sender<Bytes>>,
}

impl Shared {
    async fn call(&self, line: Vec<u8>) -> Result<()> {
        let mut connection = self.connection().await?;
        let request = Request::post(self.url.path())
            .header(HOST, self.url.authority().map_or("", |authority| authority.as_str()))
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json, text/event-stream")
            .body(Full::from(line))?;
        let response = connection.send_request(request).await?;
        let events = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "text/event-stream");
        let body = response.into_body();
        if events {
            self.events(body).await?;
        } else {
            self.whole(body).await?;
        }
        self.idle.lock().await.push(connection);
        Ok(())
    }

    async fn connection(&self) -> Result<SendRequest<Full<Bytes>>> {
        loop {
            let Some(mut idle) = self.idle.lock().await.pop() else { break };
            if idle.ready().await.is_ok() {
                return Ok(idle);
            }
        }
        let address = self.url.authority().ok_or("the URL has no host")?.as_str();
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        let (requests, connection) = http1::Builder::new().max_buf_size(READ).handshake(TokioIo::new(socket)).await?;
        tokio::task::spawn_local(connection);
        Ok(requests)
    }

    async fn whole(&self, mut body: Incoming) -> Result<()> {
        let Some(first) = body.frame().await.transpose()? else { return Ok(()) };
        let output = self.output.lock().await;
        let mut last = first.into_data().unwrap_or_default();
        while let Some(frame) = body.frame().await.transpose()? {
            output.send(last).await?;
            last = frame.into_data().unwrap_or_default();
        }
        let ends = last.ends_with(b"\n");
        output.send(last).await?;
        if !ends {
            output.send(Bytes::from_static(b"\n")).await?;
        }
        Ok(())
    }

    async fn events(&self, mut body: Incoming) -> Result<()> {
        let mut output: Option<MutexGuard<'_, mpsc::Sender<Bytes>>> = None;
        // The start of a line, until it is long enough to classify. `None` while the rest of a line is skipped.
        let mut start = Some(Vec::with_capacity(DATA.len()));
        while let Some(frame) = body.frame().await.transpose()? {
            let mut rest = frame.into_data().unwrap_or_default();
            while !rest.is_empty() {
                let end = memchr::memchr(b'\n', &rest);
                if let Some(out) = &output {
                    out.send(rest.split_to(end.map_or(rest.len(), |end| end + 1))).await?;
                    if end.is_some() {
                        output = None;
                        start = Some(Vec::with_capacity(DATA.len()));
                    }
                } else if let Some(head) = &mut start {
                    let take = (DATA.len() - head.len()).min(end.map_or(rest.len(), |end| end + 1));
                    head.extend_from_slice(&rest.split_to(take));
                    if head == DATA {
                        output = Some(self.output.lock().await);
                    } else if head.ends_with(b"\n") {
                        head.clear();
                    } else if head.len() == DATA.len() {
                        start = None;
                    }
                } else {
                    let _ = rest.split_to(end.map_or(rest.len(), |end| end + 1));
                    start = end.map(|_| Vec::with_capacity(DATA.len()));
                }
            }
        }
        Ok(())
    }
}
