//! Stdin and stdout, and the queue of lines before stdout.
//!
//! Under an MCP client both are pipes or sockets; these are polled on the runtime's own thread, which costs half of
//! what a thread per stream costs in a round trip. `O_NONBLOCK` belongs to the open file, which other processes may
//! share, and is never set on what was inherited: a pipe is opened anew, a socket is asked call by call. All else
//! (terminal, file, Windows) is read and written by threads.
//!
//! Lines leave in the order they were queued, and what is ready leaves in one write. The queue holds a bounded number
//! of bytes: a client that does not read makes those who answer wait.

use std::{io, sync::Arc};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};

use crate::{message::blank_line_breaks, payload::Spooled};

/// This process's stdin. Call it inside a tokio runtime.
pub fn input() -> Box<dyn AsyncRead + Send + Unpin> {
    #[cfg(unix)]
    if let Some(input) = polled::input() {
        return input;
    }
    Box::new(tokio::io::stdin())
}

/// This process's stdout. Call it inside a tokio runtime.
pub fn output() -> Box<dyn AsyncWrite + Send + Unpin> {
    #[cfg(unix)]
    if let Some(output) = polled::output() {
        return output;
    }
    Box::new(tokio::io::stdout())
}

/// Bytes that may wait for stdout.
const ROOM: usize = 1 << 20;
/// What a line costs in the queue beside its bytes.
const OVERHEAD: usize = 256;
/// What a line costs whose bytes are in a file: a descriptor, and the block that is in memory while it is written.
const SPOOLED: usize = 64 << 10;
/// A line is mostly a slice of what was read at once, all of which stays in memory for it. That does no harm while lines leave
/// as they come; once more than this waits, the next ones get memory of their own.
const AHEAD: usize = 32 << 10;
/// The longest line that does. What a longer one is a slice of is not much larger.
const LONGEST_COPIED: usize = 64 << 10;
/// Lines up to this size are gathered into one write; copying a longer one costs more than a write of its own.
const GATHERED: usize = 16 << 10;
/// What is gathered before it is written, which is what a pipe takes. The room of what is written is given back then, so that
/// the next lines come while the client reads.
const BATCH: usize = 64 << 10;

/// The writing end of the queue before stdout.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    lines: mpsc::UnboundedSender<Queued>,
    room: Arc<Semaphore>,
}

/// The other end of the queue.
pub(crate) type Queue = mpsc::UnboundedReceiver<Queued>;

/// One line, without its end.
#[derive(Clone, Debug)]
pub(crate) enum Line {
    Memory {
        bytes: Bytes,
        /// There are raw line breaks, which become spaces when it is written (R2).
        line_breaks: bool,
    },
    /// A line that is too large to be in memory.
    Spooled { spooled: Spooled, line_breaks: bool },
}

impl Line {
    /// Bytes that it takes in memory.
    fn cost(&self) -> usize {
        match self {
            Self::Memory { bytes, .. } => bytes.len(),
            Self::Spooled { .. } => SPOOLED,
        }
    }

    /// The same line, in no more memory than it has bytes.
    fn compact(self) -> Self {
        match self {
            Self::Memory { bytes, line_breaks } if bytes.len() <= LONGEST_COPIED => {
                Self::Memory { bytes: Bytes::copy_from_slice(&bytes), line_breaks }
            }
            line => line,
        }
    }
}

impl From<Bytes> for Line {
    fn from(bytes: Bytes) -> Self {
        Self::Memory { bytes, line_breaks: false }
    }
}

#[derive(Debug)]
pub(crate) struct Queued {
    line: Line,
    /// Given back when the line is written.
    room: Option<OwnedSemaphorePermit>,
}

impl Output {
    pub(crate) fn new() -> (Self, Queue) {
        let (lines, queue) = mpsc::unbounded_channel();
        (Self { lines, room: Arc::new(Semaphore::new(ROOM)) }, queue)
    }

    /// Queues a line, when there is room for it.
    pub(crate) async fn send(&self, line: impl Into<Line>) {
        let mut line = line.into();
        if self.room.available_permits() < ROOM - AHEAD {
            line = line.compact();
        }
        let cost = u32::try_from((line.cost() + OVERHEAD).min(ROOM)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(cost).await.ok();
        // Fails if stdout is gone; then the bridge is about to end.
        let _ = self.lines.send(Queued { line, room });
    }

    /// Queues a line even if there is no room; for the last words, which are few.
    pub(crate) fn send_now(&self, line: impl Into<Line>) {
        let _ = self.lines.send(Queued { line: line.into(), room: None });
    }
}

/// Writes the queued lines until all writing ends are dropped.
///
/// # Errors
/// Stdout cannot be written, for one because its reader is gone.
pub(crate) async fn write(mut output: impl AsyncWrite + Unpin, mut queue: Queue) -> io::Result<()> {
    const AT_ONCE: usize = 256;
    let mut lines = Vec::new();
    let mut gathered = Gathered::default();
    while queue.recv_many(&mut lines, AT_ONCE).await > 0 {
        for Queued { line, room } in lines.drain(..) {
            let is_short = line.cost() <= GATHERED;
            if !is_short || gathered.bytes.len() + line.cost() >= BATCH {
                gathered.write(&mut output).await?;
            }
            match &line {
                Line::Memory { bytes, line_breaks } if is_short => gathered.add(bytes, *line_breaks),
                line => write_long(&mut output, line).await?,
            }
            gathered.bytes.push(b'\n');
            gathered.rooms.extend(room);
        }
        gathered.write(&mut output).await?;
        output.flush().await?;
    }
    Ok(())
}

/// Lines on their way out, and the room that they take.
#[derive(Default)]
struct Gathered {
    bytes: Vec<u8>,
    rooms: Vec<OwnedSemaphorePermit>,
}

impl Gathered {
    fn add(&mut self, bytes: &[u8], line_breaks: bool) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        if line_breaks {
            blank_line_breaks(self.bytes.get_mut(start..).unwrap_or_default());
        }
    }

    async fn write(&mut self, output: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        output.write_all(&self.bytes).await?;
        self.bytes.clear();
        self.rooms.clear();
        Ok(())
    }
}

async fn write_long(output: &mut (impl AsyncWrite + Unpin), line: &Line) -> io::Result<()> {
    match line {
        Line::Memory { bytes, line_breaks: false } => output.write_all(bytes).await,
        Line::Memory { bytes, line_breaks: true } => {
            for block in bytes.chunks(BATCH) {
                let mut block = block.to_vec();
                blank_line_breaks(&mut block);
                output.write_all(&block).await?;
            }
            Ok(())
        }
        Line::Spooled { spooled, line_breaks } => {
            for block in spooled.blocks() {
                let mut block = BytesMut::from(block?);
                if *line_breaks {
                    blank_line_breaks(&mut block);
                }
                output.write_all(&block).await?;
            }
            Ok(())
        }
    }
}

#[cfg(unix)]
mod polled {
    //! Stdin and stdout as descriptors that the runtime polls.

    use std::{
        io,
        os::fd::{AsFd, OwnedFd},
        pin::Pin,
        task::{Context, Poll, ready},
    };

    use rustix::{
        fs::{FileType, fstat},
        net::{RecvFlags, SendFlags, recv, send},
    };
    use tokio::{
        io::{AsyncRead, AsyncWrite, Interest, ReadBuf, unix::AsyncFd},
        net::unix::pipe,
    };

    pub(super) fn input() -> Option<Box<dyn AsyncRead + Send + Unpin>> {
        let stdin = io::stdin();
        match file_type(&stdin)? {
            // Only Linux gives a file of its own to who opens a descriptor's path.
            FileType::Fifo if cfg!(target_os = "linux") => {
                Some(Box::new(pipe::OpenOptions::new().open_receiver("/proc/self/fd/0").ok()?))
            }
            FileType::Socket => Some(Box::new(Socket::new(&stdin, Interest::READABLE)?)),
            _ => None,
        }
    }

    pub(super) fn output() -> Option<Box<dyn AsyncWrite + Send + Unpin>> {
        let stdout = io::stdout();
        match file_type(&stdout)? {
            FileType::Fifo if cfg!(target_os = "linux") => {
                Some(Box::new(pipe::OpenOptions::new().open_sender("/proc/self/fd/1").ok()?))
            }
            FileType::Socket => Some(Box::new(Socket::new(&stdout, Interest::WRITABLE)?)),
            _ => None,
        }
    }

    fn file_type(stream: &impl AsFd) -> Option<FileType> {
        fstat(stream).ok().map(|stat| FileType::from_raw_mode(stat.st_mode))
    }

    struct Socket(AsyncFd<OwnedFd>);

    impl Socket {
        fn new(stream: &impl AsFd, interest: Interest) -> Option<Self> {
            let descriptor = stream.as_fd().try_clone_to_owned().ok()?;
            #[expect(
                deprecated,
                reason = "its successor is unsafe for types that may change their descriptor; OwnedFd cannot"
            )]
            let socket = AsyncFd::with_interest(descriptor, interest);
            socket.ok().map(Self)
        }
    }

    impl AsyncRead for Socket {
        fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            loop {
                let mut ready = ready!(self.0.poll_read_ready(cx))?;
                let read = ready.try_io(|socket| Ok(recv(socket, buf.initialize_unfilled(), RecvFlags::DONTWAIT)?.1));
                if let Ok(read) = read {
                    buf.advance(read?);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    impl AsyncWrite for Socket {
        fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            loop {
                let mut ready = ready!(self.0.poll_write_ready(cx))?;
                let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                if let Ok(written) = ready.try_io(|socket| Ok(send(socket, bytes, flags)?)) {
                    return Poll::Ready(written);
                }
            }
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn lines_leave_in_order_whatever_their_size() {
        let (output, queue) = Output::new();
        let lines = ["a".repeat(10), "b".repeat(GATHERED + 1), "c".repeat(5), "d".repeat(GATHERED * 3), "e".into()];
        for line in &lines {
            output.send(Bytes::from(line.clone())).await;
        }
        drop(output);
        let (near, mut far) = tokio::io::duplex(1000);
        let writer = tokio::spawn(write(near, queue));
        let mut written = String::new();
        far.read_to_string(&mut written).await.unwrap();
        writer.await.unwrap().unwrap();
        assert_eq!(written, lines.join("\n") + "\n");
    }

    #[tokio::test]
    async fn r2_line_breaks_become_spaces_whatever_the_size() {
        for size in [10, GATHERED, BATCH, 3 * BATCH + 7] {
            let (output, queue) = Output::new();
            let bytes = Bytes::from("[\r\n1]\n".repeat(size / 6));
            output.send(Line::Memory { bytes: bytes.clone(), line_breaks: true }).await;
            drop(output);
            let mut written = Vec::new();
            write(&mut written, queue).await.unwrap();
            let expected = String::from_utf8_lossy(&bytes).replace(['\r', '\n'], " ") + "\n";
            assert!(written == expected.as_bytes(), "{size}");
        }
    }

    #[tokio::test]
    async fn lines_that_wait_hold_no_more_than_their_own_bytes() {
        let (output, mut queue) = Output::new();
        let read = Bytes::from(vec![b'x'; 1 << 20]);
        let mut copied = 0;
        for _ in 0..1000 {
            output.send(read.slice(..100)).await;
            let Line::Memory { bytes, .. } = queue.recv().await.map(|queued| queued.line).unwrap() else { panic!() };
            assert_eq!(bytes.as_ptr(), read.as_ptr(), "a line that leaves at once is not copied");
        }
        for _ in 0..1000 {
            output.send(read.slice(..100)).await;
        }
        for _ in 0..1000 {
            let Line::Memory { bytes, .. } = queue.recv().await.map(|queued| queued.line).unwrap() else { panic!() };
            copied += usize::from(bytes.as_ptr() != read.as_ptr());
        }
        assert!(copied > 1000 - AHEAD / OVERHEAD, "{copied}");
    }

    #[tokio::test]
    async fn r15_a_reader_that_stops_makes_senders_wait() {
        let (output, queue) = Output::new();
        let (near, mut far) = tokio::io::duplex(1000);
        tokio::spawn(write(near, queue));
        let sender = output.clone();
        let sent = tokio::spawn(async move {
            for _ in 0..100 {
                sender.send(Bytes::from(vec![b'x'; ROOM / 10])).await;
            }
        });
        tokio::task::yield_now().await;
        assert!(output.room.available_permits() < ROOM / 10 && !sent.is_finished());
        let mut total = 0;
        let mut buffer = vec![0; 1 << 16];
        while total < 100 * (ROOM / 10 + 1) {
            total += far.read(&mut buffer).await.unwrap();
        }
        sent.await.unwrap();
    }
}
