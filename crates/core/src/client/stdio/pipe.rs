//! Stdin or stdout where it is a pipe of Linux, polled on the runtime's own thread.
//!
//! In the 64 KiB that a pipe holds at first, who writes much and who reads it take turns. So it is made to hold more once
//! there is more for it, and what is in a file goes there without a copy.

use std::{fs::File, io, ops::Range};

use rustix::pipe::{SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size};
use tokio::{
    io::AsyncWriteExt as _,
    net::unix::pipe::{OpenOptions, Receiver, Sender},
};

use super::unreadable;

/// What a pipe holds at first, mostly.
const NARROW: u64 = 64 << 10;
/// What it is made to hold. All pipes of a user may hold 64 MiB (`pipe(7)`): of these, 250 that are wide.
const WIDE: usize = 256 << 10;
/// The most that one call hands on: what a pipe can hold if its reader lets it (`fcntl(2)`).
const MOST_SPLICED: usize = 1 << 20;

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

    /// Writes what it takes at once, and says how much that is.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.widen_for(bytes.len() as u64);
        self.end.write(bytes).await
    }

    /// Lets it have a part of a file, whose pages the kernel hands on as they are. Gives what is left of the part, which is
    /// nothing, or all of it where the file system does not do that. Tells whenever some of it has gone.
    pub(super) async fn splice(
        &mut self,
        file: &File,
        mut range: Range<u64>,
        mut goes_on: impl FnMut(),
    ) -> io::Result<Range<u64>> {
        self.widen_for(range.end - range.start);
        while !range.is_empty() {
            self.end.writable().await?;
            let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX).min(MOST_SPLICED);
            let moved = self.end.try_io(|| {
                let end = &self.end;
                Ok(rustix::pipe::splice(file, Some(&mut range.start), end, None, length, SpliceFlags::NONBLOCK)?)
            });
            match moved {
                Ok(0) => return Err(unreadable(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => goes_on(),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => break,
                // Of the two ends, only the pipe can be broken.
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(unreadable(error)),
                Err(error) => return Err(error),
            }
        }
        Ok(range)
    }

    /// Makes room for what is longer than it holds. Where that is refused it only takes longer.
    fn widen_for(&mut self, length: u64) {
        if length > NARROW && !self.was_widened {
            self.was_widened = true;
            if fcntl_getpipe_size(&self.end).is_ok_and(|size| size < WIDE) {
                let _ = fcntl_setpipe_size(&self.end, WIDE);
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
    async fn a_pipe_becomes_wider_when_there_is_more_for_it_but_never_narrower() {
        for (own, after) in [(WIDE / 4, WIDE), (WIDE * 4, WIDE * 4)] {
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
