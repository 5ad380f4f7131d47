//! Stdin or stdout as a Linux pipe, polled on the runtime's own thread.
//!
//! A pipe holds 64 KiB at first, so that with much data its writer and its reader take turns. The bridge widens a pipe
//! when it has more to write, and moves data from a file to the pipe without a copy.

use std::{fs::File, io, ops::Range};

use rustix::pipe::{SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size};
use tokio::{
    io::AsyncWriteExt as _,
    net::unix::pipe::{OpenOptions, Receiver, Sender},
};

use super::unreadable;

/// The usual initial capacity of a pipe, in bytes.
const DEFAULT_PIPE_BYTES: u64 = 64 << 10;
/// The capacity of a widened pipe, in bytes. All pipes of a user may hold 64 MiB (`pipe(7)`), which is about 250 wide
/// ones.
const LARGE_PIPE_BYTES: usize = 256 << 10;
/// The most bytes that one call moves, which is the largest capacity that a reader can set (`fcntl(2)`).
const MAX_SPLICE_BYTES: usize = 1 << 20;

pub(super) fn stdin() -> Option<Receiver> {
    OpenOptions::new().open_receiver("/proc/self/fd/0").ok()
}

/// A pipe to write to.
pub(super) struct Pipe {
    end: Sender,
    was_widened: bool,
}

impl Pipe {
    pub(super) fn stdout() -> Option<Self> {
        OpenOptions::new().open_sender("/proc/self/fd/1").ok().map(Self::from)
    }

    /// Writes as much as the pipe accepts at once, and returns how much that is.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.grow_pipe_for(bytes.len() as u64);
        self.end.write(bytes).await
    }

    /// Moves a part of a file to the pipe; the kernel passes its pages without a copy. Calls `goes_on` after each
    /// step. Returns the rest of the part: nothing, or all of it if the file system does not support this.
    pub(super) async fn splice(
        &mut self,
        file: &File,
        mut range: Range<u64>,
        mut goes_on: impl FnMut(),
    ) -> io::Result<Range<u64>> {
        self.grow_pipe_for(range.end - range.start);
        while !range.is_empty() {
            self.end.writable().await?;
            let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX).min(MAX_SPLICE_BYTES);
            let moved = self.end.try_io(|| {
                let end = &self.end;
                Ok(rustix::pipe::splice(file, Some(&mut range.start), end, None, length, SpliceFlags::NONBLOCK)?)
            });
            match moved {
                Ok(0) => return Err(unreadable(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => goes_on(),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => break,
                // `BrokenPipe` is the pipe's error; all others are the file's.
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(unreadable(error)),
                Err(error) => return Err(error),
            }
        }
        Ok(range)
    }

    /// Widens the pipe for data that is longer than it holds. If that is refused, writing only takes longer.
    fn grow_pipe_for(&mut self, length: u64) {
        if length > DEFAULT_PIPE_BYTES && !self.was_widened {
            self.was_widened = true;
            if fcntl_getpipe_size(&self.end).is_ok_and(|size| size < LARGE_PIPE_BYTES) {
                let _ = fcntl_setpipe_size(&self.end, LARGE_PIPE_BYTES);
            }
        }
    }
}

impl From<Sender> for Pipe {
    fn from(end: Sender) -> Self {
        Self { end, was_widened: false }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncReadExt as _, net::unix::pipe};

    use super::*;

    #[tokio::test]
    async fn pipe_capacity_grows_for_large_writes_and_never_shrinks() {
        for (own, after) in [(LARGE_PIPE_BYTES / 4, LARGE_PIPE_BYTES), (LARGE_PIPE_BYTES * 4, LARGE_PIPE_BYTES * 4)] {
            let (near, mut far) = pipe::pipe().unwrap();
            fcntl_setpipe_size(&near, own).unwrap();
            let mut pipe = Pipe::from(near);
            for (length, size) in [(1000, own), (100_000, after), (1000, after)] {
                let mut read = vec![0; length];
                let written = vec![b'x'; length];
                let write = async {
                    let mut left = &written[..];
                    while !left.is_empty() {
                        left = &left[pipe.write(left).await.unwrap()..];
                    }
                };
                tokio::join!(write, async { far.read_exact(&mut read).await.unwrap() });
                assert!(read == written);
                assert_eq!(fcntl_getpipe_size(&far).unwrap(), size, "{length}");
            }
        }
    }
}
