//! Stdin and stdout, and the queue of lines before stdout.
//!
//! Under an MCP client both are pipes or sockets; these are polled on the runtime's own thread, which costs half of
//! what a thread per stream costs in a round trip. `O_NONBLOCK` belongs to the open file, which other processes may
//! share, and is never set on what was inherited: a pipe is opened anew, a socket is asked call by call. All else
//! (terminal, file, Windows) is read and written by threads.
//!
//! Lines leave in the order they were queued, short ones in batches of one write each. The queue holds a bounded number of
//! bytes: a client that does not read makes those who answer wait.

#[cfg(target_os = "linux")]
mod pipe;
#[cfg(unix)]
mod socket;

#[cfg(unix)]
use std::os::fd::AsFd;
use std::{
    collections::VecDeque,
    fs::File,
    io, mem,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::BytesMut;
#[cfg(unix)]
use rustix::fs::{FileType, fstat};
#[cfg(unix)]
use tokio::io::Interest;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    sync::{Notify, Semaphore},
    time::Instant,
};

use self::pipe::Pipe;
#[cfg(unix)]
use self::socket::Socket;
#[cfg(target_os = "linux")]
use crate::wire::line::Line;
use crate::{
    memory,
    wire::{
        line::blank_line_breaks,
        spool::{self, StoredPart},
    },
};

/// This process's stdin. Call it inside a tokio runtime.
pub fn input() -> Box<dyn AsyncRead + Send + Unpin> {
    #[cfg(unix)]
    if let Some(input) = polled_input() {
        return input;
    }
    Box::new(tokio::io::stdin())
}

/// This process's stdout. Call it inside a tokio runtime.
pub fn output() -> Stdout {
    #[cfg(unix)]
    if let Some(output) = polled_output() {
        return output;
    }
    tokio::io::stdout().into()
}

/// Where a bridge's lines go: this process's stdout, or any other writer.
pub struct Stdout(Writer);

enum Writer {
    #[cfg(target_os = "linux")]
    Pipe(Pipe),
    Other(Box<dyn AsyncWrite + Send + Unpin>),
}

impl<W: AsyncWrite + Send + Unpin + 'static> From<W> for Stdout {
    fn from(writer: W) -> Self {
        Self(Writer::Other(Box::new(writer)))
    }
}

impl std::fmt::Debug for Stdout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stdout").finish_non_exhaustive()
    }
}

#[cfg(unix)]
fn polled_input() -> Option<Box<dyn AsyncRead + Send + Unpin>> {
    let stdin = io::stdin();
    match file_type(&stdin)? {
        // Only Linux gives a file of its own to who opens a descriptor's path.
        #[cfg(target_os = "linux")]
        FileType::Fifo => Some(Box::new(pipe::stdin()?)),
        FileType::Socket => Some(Box::new(Socket::new(&stdin, Interest::READABLE)?)),
        _ => None,
    }
}

#[cfg(unix)]
fn polled_output() -> Option<Stdout> {
    let stdout = io::stdout();
    match file_type(&stdout)? {
        #[cfg(target_os = "linux")]
        FileType::Fifo => Some(Stdout(Writer::Pipe(Pipe::stdout()?))),
        FileType::Socket => Some(Socket::new(&stdout, Interest::WRITABLE)?.into()),
        _ => None,
    }
}

#[cfg(unix)]
fn file_type(stream: &impl AsFd) -> Option<FileType> {
    fstat(stream).ok().map(|stat| FileType::from_raw_mode(stat.st_mode))
}

/// Bytes that may wait for stdout. A few batches, so that one is gathered while another leaves.
const ROOM: usize = memory::OUTPUT;
/// What a line costs in the queue beside its bytes.
const OVERHEAD: usize = 256;
/// A line of this length has a write of its own; shorter ones are gathered.
const LONG: usize = 64 << 10;
/// What is gathered for one write, which is what a pipe of Linux is made to hold.
const BATCH: usize = 256 << 10;

/// The writing end of the queue before stdout.
#[derive(Clone, Debug)]
pub(crate) struct Output(Arc<Sender>);

/// Whose end is the end of the queue.
#[derive(Debug)]
struct Sender(Arc<QueueState>);

/// The other end of the queue.
#[derive(Debug)]
pub(crate) struct Queue(Arc<QueueState>);

#[derive(Debug)]
struct QueueState {
    batches: Mutex<Batches>,
    /// There is more to write, or never will be.
    changed: Notify,
    room: Semaphore,
    /// When stdout last took anything.
    progress: Mutex<Instant>,
}

#[derive(Debug, Default)]
struct Batches {
    ready: VecDeque<WriteBatch>,
    /// Memory of a batch that was written.
    spare: Vec<u8>,
    is_over: bool,
}

/// What leaves in one write, and the room that it takes until then.
#[derive(Debug)]
enum WriteBatch {
    /// Copies of short lines. A line is mostly a slice of what was read at once, up to 400 KiB, all of which would stay in
    /// memory for it.
    Short(Vec<u8>, usize),
    /// A long line without its end, with which the next batch begins.
    Long(Line, usize),
}

impl Output {
    pub(crate) fn new() -> (Self, Queue) {
        let waiting = QueueState {
            batches: Mutex::default(),
            changed: Notify::new(),
            room: Semaphore::new(ROOM),
            progress: Mutex::new(Instant::now()),
        };
        let waiting = Arc::new(waiting);
        (Self(Arc::new(Sender(Arc::clone(&waiting)))), Queue(waiting))
    }

    /// Queues a line, when there is room for it.
    pub(crate) async fn send(&self, line: impl Into<Line>) {
        let line = line.into();
        let cost = (line.cost() + OVERHEAD).min(ROOM);
        // Fails if stdout is gone; then the bridge is about to end.
        if let Ok(room) = self.0.0.room.acquire_many(u32::try_from(cost).unwrap_or(u32::MAX)).await {
            // It is given back when the line is written.
            room.forget();
            self.0.0.put(line, cost);
        }
    }

    /// What becomes of the lines that were queued.
    pub(crate) fn progress(&self) -> Progress {
        Progress(Arc::clone(&self.0.0))
    }

    /// Queues a line even if there is no room; for the last words, which are few.
    pub(crate) fn send_now(&self, line: impl Into<Line>) {
        self.0.0.put(line.into(), 0);
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.batches().is_over = true;
        self.0.changed.notify_one();
    }
}

/// What becomes of the lines that were queued; it keeps no queue open.
#[derive(Clone, Debug)]
pub(crate) struct Progress(Arc<QueueState>);

impl Progress {
    /// When stdout last took anything; `None` if nothing waits for it.
    pub(crate) fn last(&self) -> Option<Instant> {
        let is_waiting = self.0.room.available_permits() < ROOM || !self.0.batches().ready.is_empty();
        is_waiting.then(|| *self.0.progress.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl QueueState {
    /// Stdout has taken something.
    fn goes_on(&self) {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn put(&self, line: Line, cost: usize) {
        let batches = &mut *self.batches();
        match line {
            Line::Memory { bytes, line_breaks } if bytes.len() < LONG => batches.put_short(&bytes, line_breaks, cost),
            line => {
                batches.ready.push_back(WriteBatch::Long(line, cost));
                batches.put_short(b"", false, 0);
            }
        }
        self.changed.notify_one();
    }

    fn batches(&self) -> MutexGuard<'_, Batches> {
        self.batches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Batches {
    /// Puts a line and its end, or what is left of one, to the others that are short.
    fn put_short(&mut self, line: &[u8], line_breaks: bool, cost: usize) {
        if !matches!(self.ready.back(), Some(WriteBatch::Short(text, _)) if text.len() + line.len() < BATCH) {
            self.ready.push_back(WriteBatch::Short(mem::take(&mut self.spare), 0));
        }
        if let Some(WriteBatch::Short(text, room)) = self.ready.back_mut() {
            let start = text.len();
            text.extend_from_slice(line);
            if line_breaks {
                blank_line_breaks(text.get_mut(start..).unwrap_or_default());
            }
            text.push(b'\n');
            *room += cost;
        }
    }
}

impl Queue {
    fn take(&self) -> Option<WriteBatch> {
        self.0.batches().ready.pop_front()
    }

    /// Waits for more. False if there is none to come.
    async fn has_more(&self) -> bool {
        loop {
            {
                let batches = self.0.batches();
                if !batches.ready.is_empty() || batches.is_over {
                    return !batches.ready.is_empty();
                }
            }
            self.0.changed.notified().await;
        }
    }

    /// Takes back the memory of a batch.
    fn reuse(&self, mut text: Vec<u8>) {
        text.clear();
        self.0.batches().spare = text;
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // Nobody writes any more, so nobody has to wait for it.
        self.0.room.close();
    }
}

/// Writes the queued lines until the last writing end is dropped.
///
/// # Errors
/// Stdout cannot be written, for one because its reader is gone.
pub(crate) async fn write(output: Stdout, queue: Queue) -> io::Result<()> {
    let mut output = Writing { output, waiting: Arc::clone(&queue.0), is_within: false };
    while queue.has_more().await {
        while let Some(batch) = queue.take() {
            match batch {
                WriteBatch::Short(text, room) => {
                    output.write_all(&text).await?;
                    queue.reuse(text);
                    queue.0.room.add_permits(room);
                }
                WriteBatch::Long(line, room) => {
                    output.write_long(&line).await?;
                    queue.0.room.add_permits(room);
                }
            }
        }
        output.flush().await?;
    }
    Ok(())
}

/// Stdout while it is written, and who is told that it goes on.
struct Writing {
    output: Stdout,
    waiting: Arc<QueueState>,
    /// A part of a long line has left.
    is_within: bool,
}

/// A file could not be read; to write was not the trouble.
#[derive(Debug, thiserror::Error)]
#[error("it cannot be read back from its file")]
struct Unreadable(#[source] io::Error);

fn unreadable(error: io::Error) -> io::Error {
    io::Error::other(Unreadable(error))
}

impl Writing {
    /// Writes a line; where its file cannot be read, whoever waits for it is told. What has left of it stays a line of its own,
    /// which is no message.
    async fn write_long(&mut self, line: &Line) -> io::Result<()> {
        self.is_within = false;
        let Err(error) = self.write_line(line).await else { return Ok(()) };
        let is_of_file = |inner: &(dyn std::error::Error + Send + Sync + 'static)| inner.is::<Unreadable>();
        if !error.get_ref().is_some_and(is_of_file) {
            return Err(error);
        }
        tracing::error!(error = ?error.get_ref(), "a large message is lost");
        let Line::Spooled { failure: Some(failure), .. } = line else { return Ok(()) };
        if self.is_within {
            self.write_all(b"\n").await?;
        }
        self.write_all(failure).await
    }

    async fn write_line(&mut self, line: &Line) -> io::Result<()> {
        match line {
            Line::Memory { bytes, line_breaks: false } => self.write_all(bytes).await,
            Line::Memory { bytes, line_breaks: true } => {
                for block in bytes.chunks(LONG) {
                    let mut block = block.to_vec();
                    blank_line_breaks(&mut block);
                    self.write_all(&block).await?;
                }
                Ok(())
            }
            Line::Spooled { spooled, line_breaks: false, .. } => {
                for part in spooled.parts() {
                    match part {
                        StoredPart::File(range) => self.write_file(spooled.file(), range.clone()).await?,
                        StoredPart::Memory(bytes) => self.write_all(bytes).await?,
                    }
                }
                Ok(())
            }
            Line::Spooled { spooled, line_breaks: true, .. } => {
                for block in spooled.blocks() {
                    let mut block = BytesMut::from(block.map_err(unreadable)?);
                    blank_line_breaks(&mut block);
                    self.write_all(&block).await?;
                }
                Ok(())
            }
        }
    }

    /// Writes a part of a file.
    async fn write_file(&mut self, file: &File, range: Range<u64>) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        let range = match &mut self.output.0 {
            Writer::Pipe(pipe) => {
                let within = &mut self.is_within;
                let goes_on = || {
                    *within = true;
                    self.waiting.goes_on();
                };
                pipe.splice(file, range, goes_on).await?
            }
            Writer::Other(_) => range,
        };
        for block in spool::blocks(file, range) {
            self.write_all(&block.map_err(unreadable)?).await?;
        }
        Ok(())
    }

    async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = match &mut self.output.0 {
                #[cfg(target_os = "linux")]
                Writer::Pipe(pipe) => pipe.write(bytes).await?,
                Writer::Other(writer) => writer.write(bytes).await?,
            };
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.waiting.goes_on();
            self.is_within = true;
            bytes = bytes.get(written..).unwrap_or_default();
        }
        Ok(())
    }

    async fn flush(&mut self) -> io::Result<()> {
        match &mut self.output.0 {
            // Nothing waits on this side of it.
            #[cfg(target_os = "linux")]
            Writer::Pipe(_) => Ok(()),
            Writer::Other(writer) => writer.flush().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use bytes::Bytes;

    use super::*;

    #[tokio::test]
    async fn lines_leave_in_order_whatever_their_size() {
        let (output, queue) = Output::new();
        let several = ["b"; BATCH / LONG + 1].map(|b| b.repeat(LONG - 1));
        let lines = [&["a".repeat(10)], &several[..], &["c".repeat(5), "d".repeat(LONG * 3), "e".into()]].concat();
        for line in &lines {
            output.send(Bytes::from(line.clone())).await;
        }
        drop(output);
        let (near, mut far) = tokio::io::duplex(1000);
        let writer = tokio::spawn(write(near.into(), queue));
        let mut written = String::new();
        far.read_to_string(&mut written).await.unwrap();
        writer.await.unwrap().unwrap();
        assert_eq!(written, lines.join("\n") + "\n");
    }

    #[tokio::test]
    async fn r2_line_breaks_become_spaces_whatever_the_size() {
        for size in [10, LONG - 7, LONG, 3 * LONG + 7] {
            let (output, queue) = Output::new();
            let bytes = Bytes::from("[\r\n1]\n".repeat(size / 6));
            output.send(Line::Memory { bytes: bytes.clone(), line_breaks: true }).await;
            drop(output);
            let (near, mut far) = tokio::io::duplex(1000);
            tokio::spawn(write(near.into(), queue));
            let mut written = Vec::new();
            far.read_to_end(&mut written).await.unwrap();
            let expected = String::from_utf8_lossy(&bytes).replace(['\r', '\n'], " ") + "\n";
            assert!(written == expected.as_bytes(), "{size}");
        }
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_patched_file_leaves_through_a_pipe_as_it_reads() {
        let mut store = spool::Spooler::new(u64::MAX, &spool::Storage::used_up());
        for piece in vec![b'a'; 300_000].chunks(5000) {
            store.push(Bytes::copy_from_slice(piece)).unwrap();
        }
        let spool::Payload::File(spooled) = store.take().unwrap().payload else { panic!("in memory") };
        let spooled = spooled.patched(99_999..100_001, Bytes::from_static(b"other"));
        let expected = [&spooled.load().unwrap()[..], b"\n"].concat();
        let (output, queue) = Output::new();
        output.send(Line::Spooled { spooled, line_breaks: false, failure: None }).await;
        drop(output);
        let (near, mut far) = tokio::net::unix::pipe::pipe().unwrap();
        tokio::spawn(write(Stdout(Writer::Pipe(near.into())), queue));
        let mut written = Vec::new();
        far.read_to_end(&mut written).await.unwrap();
        assert!(written == expected);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_file_that_cannot_be_spliced_is_copied() {
        let path = "/proc/self/auxv";
        let (text, file) = (std::fs::read(path).unwrap(), File::open(path).unwrap());
        let (near, mut far) = tokio::net::unix::pipe::pipe().unwrap();
        let mut pipe = Pipe::from(near);
        let range = 16..text.len() as u64;
        assert_eq!(pipe.splice(&file, range.clone(), || ()).await.unwrap(), range, "another file is needed here");
        let (_output, queue) = Output::new();
        let output = Stdout(Writer::Pipe(pipe));
        let mut writing = Writing { output, waiting: Arc::clone(&queue.0), is_within: false };
        writing.write_file(&file, range).await.unwrap();
        drop(writing);
        let mut written = Vec::new();
        far.read_to_end(&mut written).await.unwrap();
        assert_eq!(written, text[16..]);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_file_that_cannot_be_read_back_costs_its_own_line_only() {
        for (line_breaks, is_pipe) in [(false, true), (false, false), (true, true)] {
            let mut store = spool::Spooler::new(u64::MAX, &spool::Storage::used_up());
            for piece in vec![b'a'; 300_000].chunks(5000) {
                store.push(Bytes::copy_from_slice(piece)).unwrap();
            }
            let spool::Payload::File(spooled) = store.take().unwrap().payload else { panic!("in memory") };
            // As if somebody had cut it.
            rustix::fs::ftruncate(spooled.file(), 100_000).unwrap();
            let (output, queue) = Output::new();
            output.send(Bytes::from_static(b"before")).await;
            output.send(Line::Spooled { spooled, line_breaks, failure: Some(Bytes::from_static(b"failed")) }).await;
            output.send(Bytes::from_static(b"after")).await;
            drop(output);
            let mut written = Vec::new();
            if is_pipe {
                let (near, mut far) = tokio::net::unix::pipe::pipe().unwrap();
                tokio::spawn(write(Stdout(Writer::Pipe(near.into())), queue));
                far.read_to_end(&mut written).await.unwrap();
            } else {
                let (near, mut far) = tokio::io::duplex(1000);
                tokio::spawn(write(near.into(), queue));
                far.read_to_end(&mut written).await.unwrap();
            }
            let lines: Vec<_> = written.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
            let part = vec![b'a'; 100_000];
            assert!(
                lines == [&b"before"[..], &part, b"failed", b"after", b""],
                "{line_breaks} {is_pipe}: {}",
                lines.len()
            );
        }
    }

    #[tokio::test]
    async fn lines_that_wait_hold_no_more_than_their_own_bytes() {
        let (output, _queue) = Output::new();
        let read = Bytes::from(vec![b'x'; 1 << 20]);
        for length in [100, LONG - 1] {
            output.send(read.slice(..length)).await;
            assert!(read.is_unique(), "{length}");
        }
    }

    #[tokio::test]
    async fn r15_a_reader_that_stops_makes_senders_wait() {
        let (output, queue) = Output::new();
        let (near, mut far) = tokio::io::duplex(1000);
        tokio::spawn(write(near.into(), queue));
        let sender = output.clone();
        let sent = tokio::spawn(async move {
            for _ in 0..100 {
                sender.send(Bytes::from(vec![b'x'; ROOM / 10])).await;
            }
        });
        tokio::task::yield_now().await;
        assert!(output.0.0.room.available_permits() < ROOM / 10 && !sent.is_finished());
        let mut total = 0;
        let mut buffer = vec![0; 1 << 16];
        while total < 100 * (ROOM / 10 + 1) {
            total += far.read(&mut buffer).await.unwrap();
        }
        sent.await.unwrap();
    }
}
