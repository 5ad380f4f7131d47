//! Stdin and stdout, and the queue of lines for stdout.
//!
//! An MCP client connects both to pipes or sockets. The runtime's own thread polls these, which halves the cost of a
//! round trip compared to a thread per stream. `O_NONBLOCK` belongs to the open file, which other processes may share,
//! so it is never set on an inherited file: a pipe is opened again, and each call on a socket is nonblocking by a
//! flag. Threads read and write everything else (a terminal, a file, all of Windows).
//!
//! Lines leave in the order in which they were queued, short ones in batches of one write each. The queue holds a
//! limited number of bytes: if the client does not read, senders wait.

#[cfg(target_os = "linux")]
mod pipe;
mod separators;
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

use bytes::{Bytes, BytesMut};
#[cfg(unix)]
use rustix::fs::{FileType, fstat};
#[cfg(unix)]
use tokio::io::Interest;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    sync::{Notify, Semaphore},
    time::Instant,
};

#[cfg(target_os = "linux")]
use self::pipe::Pipe;
use self::separators::{SeparatorEscaper, escape_from};
#[cfg(unix)]
use self::socket::Socket;
use crate::{
    memory,
    wire::{
        line::{Line, blank_line_breaks},
        spool::{self, StoredPart},
    },
};

/// Returns this process's stdin. Call it inside a tokio runtime.
pub fn input() -> Box<dyn AsyncRead + Send + Unpin> {
    #[cfg(unix)]
    if let Some(input) = polled_input() {
        return input;
    }
    Box::new(tokio::io::stdin())
}

/// Returns this process's stdout. Call it inside a tokio runtime.
pub fn output() -> Stdout {
    #[cfg(unix)]
    if let Some(output) = polled_output() {
        return output;
    }
    tokio::io::stdout().into()
}

/// The output of a bridge: this process's stdout or any other writer.
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
        // Only on Linux does opening a descriptor's path create a new open file.
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

/// Bytes that may wait for stdout: a few batches, so that one is gathered while another is written.
const ROOM: usize = memory::OUTPUT;
/// Bytes that a line costs in the queue in addition to its own.
const OVERHEAD: usize = 256;
/// Lines of this length or more have a write of their own; shorter ones are gathered. In bytes.
const LONG: usize = 64 << 10;
/// Bytes that are gathered for one write, which is the capacity that a Linux pipe gets.
const BATCH: usize = 256 << 10;

/// The sending end of the queue for stdout.
#[derive(Clone, Debug)]
pub(crate) struct Output(Arc<Sender>);

/// Ends the queue when dropped.
#[derive(Debug)]
struct Sender(Arc<QueueState>);

/// The receiving end of the queue.
#[derive(Debug)]
pub(crate) struct Queue(Arc<QueueState>);

#[derive(Debug)]
struct QueueState {
    batches: Mutex<Batches>,
    /// Notified when there is more to write, or never will be.
    changed: Notify,
    room: Semaphore,
    /// Line and paragraph separators are escaped.
    escapes: bool,
    /// When stdout last accepted bytes.
    progress: Mutex<Instant>,
}

#[derive(Debug, Default)]
struct Batches {
    ready: VecDeque<WriteBatch>,
    /// The buffer of a batch that was written, for reuse.
    spare: Vec<u8>,
    is_over: bool,
}

/// The bytes of one write, and the room that they take in the queue until then.
#[derive(Debug)]
enum WriteBatch {
    /// Copies of short lines. A line is usually a slice of a chunk of up to 400 KiB, and would keep the whole chunk in
    /// memory.
    Short(Vec<u8>, usize),
    /// A long line without its line break, which begins the next batch.
    Long(Line, usize),
}

impl Output {
    /// Creates a queue. With `escapes`, U+2028 and U+2029 are written as `\u2028` and `\u2029`.
    pub(crate) fn new(escapes: bool) -> (Self, Queue) {
        let waiting = QueueState {
            escapes,
            batches: Mutex::default(),
            changed: Notify::new(),
            room: Semaphore::new(ROOM),
            progress: Mutex::new(Instant::now()),
        };
        let waiting = Arc::new(waiting);
        (Self(Arc::new(Sender(Arc::clone(&waiting)))), Queue(waiting))
    }

    /// Queues a line. Waits until there is room for it.
    pub(crate) async fn send(&self, line: impl Into<Line>) {
        let line = line.into();
        let cost = (line.cost() + OVERHEAD).min(ROOM);
        // Fails if stdout is closed; then the bridge is about to end.
        if let Ok(room) = self.0.0.room.acquire_many(u32::try_from(cost).unwrap_or(u32::MAX)).await {
            // `write` gives the room back when the line is written.
            room.forget();
            self.0.0.put(line, cost);
        }
    }

    /// Returns a handle that observes the progress of the queue.
    pub(crate) fn progress(&self) -> Progress {
        Progress(Arc::clone(&self.0.0))
    }

    /// Queues a line even if there is no room. For lines that cannot wait, which are few.
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

/// Observes the progress of the queue, without keeping it open.
#[derive(Clone, Debug)]
pub(crate) struct Progress(Arc<QueueState>);

impl Progress {
    /// Returns when stdout last accepted bytes, or `None` if no line waits.
    pub(crate) fn last(&self) -> Option<Instant> {
        let is_waiting = self.0.room.available_permits() < ROOM || !self.0.batches().ready.is_empty();
        is_waiting.then(|| *self.0.progress.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl QueueState {
    /// Records that stdout has accepted bytes.
    fn goes_on(&self) {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn put(&self, line: Line, cost: usize) {
        let batches = &mut *self.batches();
        match line {
            Line::Memory { bytes, line_breaks } if bytes.len() < LONG => {
                batches.push_short_line(&bytes, line_breaks, self.escapes, cost);
            }
            line => {
                batches.ready.push_back(WriteBatch::Long(line, cost));
                batches.push_short_line(b"", false, false, 0);
            }
        }
        self.changed.notify_one();
    }

    fn batches(&self) -> MutexGuard<'_, Batches> {
        self.batches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Batches {
    /// Adds a short line and its line break to the current batch. `line` is empty for the line break of a long line.
    fn push_short_line(&mut self, line: &[u8], line_breaks: bool, escapes: bool, cost: usize) {
        if !matches!(self.ready.back(), Some(WriteBatch::Short(text, _)) if text.len() + line.len() < BATCH) {
            self.ready.push_back(WriteBatch::Short(mem::take(&mut self.spare), 0));
        }
        if let Some(WriteBatch::Short(text, room)) = self.ready.back_mut() {
            let start = text.len();
            text.extend_from_slice(line);
            if line_breaks {
                blank_line_breaks(text.get_mut(start..).unwrap_or_default());
            }
            if escapes {
                escape_from(text, start);
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

    /// Waits for more lines. Returns false if the queue has ended.
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

    /// Keeps the buffer of a batch for the next one.
    fn reuse(&self, mut text: Vec<u8>) {
        text.clear();
        self.0.batches().spare = text;
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // No lines are written any more, so senders must not wait for room.
        self.0.room.close();
    }
}

/// Writes the queued lines until the last sending end is dropped.
///
/// # Errors
/// Stdout cannot be written, for example because its reader is gone.
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

/// Stdout while lines are written, and the queue that records the progress.
struct Writing {
    output: Stdout,
    waiting: Arc<QueueState>,
    /// A part of a long line has been written.
    is_within: bool,
}

/// The file of a long line cannot be read. Stdout is not at fault.
#[derive(Debug, thiserror::Error)]
#[error("it cannot be read back from its file")]
struct Unreadable(#[source] io::Error);

fn unreadable(error: io::Error) -> io::Error {
    io::Error::other(Unreadable(error))
}

impl Writing {
    /// Writes a long line. If its file cannot be read, writes its failure reply. A part of the long line that was
    /// already written stays as a line of its own, which is not a valid message.
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
        if self.waiting.escapes {
            return self.write_escaped(line).await;
        }
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

    /// Writes a long line without line and paragraph separators.
    async fn write_escaped(&mut self, line: &Line) -> io::Result<()> {
        let mut escaper = SeparatorEscaper::default();
        let mut text = Vec::new();
        let (Line::Memory { line_breaks, .. } | Line::Spooled { line_breaks, .. }) = line;
        let blocks: &mut (dyn Iterator<Item = io::Result<Bytes>> + Send) = match line {
            Line::Memory { bytes, .. } => &mut std::iter::once(Ok(bytes.clone())),
            Line::Spooled { spooled, .. } => &mut spooled.blocks(),
        };
        for block in blocks {
            let block = block.map_err(unreadable)?;
            for block in block.chunks(LONG) {
                escaper.push(block, &mut text);
                if *line_breaks {
                    blank_line_breaks(&mut text);
                }
                self.write_all(&text).await?;
                text.clear();
            }
        }
        escaper.finish(&mut text);
        self.write_all(&text).await
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
            // A pipe has no buffer on this side.
            #[cfg(target_os = "linux")]
            Writer::Pipe(_) => Ok(()),
            Writer::Other(writer) => writer.flush().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn lines_of_any_size_are_written_in_order() {
        let (output, queue) = Output::new(false);
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
    async fn separators_are_escaped_at_any_line_size() {
        for size in [10, LONG - 7, LONG, 3 * LONG + 7] {
            let (output, queue) = Output::new(true);
            let text = "[\u{2028}\"\u{2029}\n".repeat(size / 9);
            output.send(Line::Memory { bytes: text.clone().into(), line_breaks: true }).await;
            drop(output);
            let (near, mut far) = tokio::io::duplex(1000);
            tokio::spawn(write(near.into(), queue));
            let mut written = String::new();
            far.read_to_string(&mut written).await.unwrap();
            let expected = text.replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029").replace('\n', " ") + "\n";
            assert!(written == expected, "{size}");
        }
    }

    #[tokio::test]
    async fn r2_line_breaks_become_spaces_at_any_line_size() {
        for size in [10, LONG - 7, LONG, 3 * LONG + 7] {
            let (output, queue) = Output::new(false);
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
    async fn patched_spool_file_is_written_to_a_pipe_correctly() {
        let mut store = spool::Spooler::new(u64::MAX, &spool::Storage::used_up());
        for piece in vec![b'a'; 300_000].chunks(5000) {
            store.push(Bytes::copy_from_slice(piece)).unwrap();
        }
        let spool::Payload::File(spooled) = store.take().unwrap().payload else { panic!("in memory") };
        let spooled = spooled.patched(99_999..100_001, Bytes::from_static(b"other"));
        let expected = [&spooled.load().unwrap()[..], b"\n"].concat();
        let (output, queue) = Output::new(false);
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
        let (_output, queue) = Output::new(false);
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
    async fn truncated_spool_file_spoils_only_its_own_line() {
        for (line_breaks, is_pipe) in [(false, true), (false, false), (true, true)] {
            let mut store = spool::Spooler::new(u64::MAX, &spool::Storage::used_up());
            for piece in vec![b'a'; 300_000].chunks(5000) {
                store.push(Bytes::copy_from_slice(piece)).unwrap();
            }
            let spool::Payload::File(spooled) = store.take().unwrap().payload else { panic!("in memory") };
            // Truncates the file.
            rustix::fs::ftruncate(spooled.file(), 100_000).unwrap();
            let (output, queue) = Output::new(false);
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
    async fn queued_lines_do_not_keep_the_read_buffer_alive() {
        let (output, _queue) = Output::new(false);
        let read = Bytes::from(vec![b'x'; 1 << 20]);
        for length in [100, LONG - 1] {
            output.send(read.slice(..length)).await;
            assert!(read.is_unique(), "{length}");
        }
    }

    #[tokio::test]
    async fn r15_stalled_reader_makes_senders_wait() {
        let (output, queue) = Output::new(false);
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
