//! Writes lines to stderr or a file, without waiting for a reader.

use std::{
    fs::File,
    io::{self, Write},
    sync::atomic::{AtomicBool, Ordering},
};

/// Writes a line if that is possible at once, and drops it otherwise.
pub(super) struct Sink {
    target: Target,
    /// The reader is stuck: do not wait for it again.
    stuck: AtomicBool,
}

pub(super) enum Target {
    Stderr,
    File(File),
}

impl Sink {
    pub(super) fn new(target: Target) -> Self {
        Self { target, stuck: AtomicBool::new(false) }
    }

    /// Writes a whole line, including its line break. Never fails.
    pub(super) fn write(&self, line: &str) {
        for piece in line.as_bytes().chunks(Self::PIECE) {
            let written = self.is_ready()
                && match &self.target {
                    Target::Stderr => io::stderr().write_all(piece),
                    Target::File(file) => (&*file).write_all(piece),
                }
                .is_ok();
            if !written {
                break;
            }
        }
    }

    /// True if the next [`Self::PIECE`] bytes can be written without blocking. Waits 100 ms for a slow reader.
    #[cfg(unix)]
    fn is_ready(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        use std::os::fd::AsFd;

        const MOMENT: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

        let stderr = io::stderr();
        let fd = match &self.target {
            Target::Stderr => stderr.as_fd(),
            Target::File(file) => file.as_fd(),
        };
        let patience = if self.stuck.load(Ordering::Relaxed) { &NOW } else { &MOMENT };
        let mut fds = [PollFd::new(&fd, PollFlags::OUT)];
        let ready = rustix::io::retry_on_intr(|| poll(&mut fds, Some(patience))).is_ok_and(|count| count > 0);
        self.stuck.store(!ready, Ordering::Relaxed);
        ready
    }

    /// The most bytes that a pipe which polls as writable accepts without blocking.
    #[cfg(unix)]
    const PIECE: usize = rustix::pipe::PIPE_BUF;

    #[cfg(not(unix))]
    fn is_ready(&self) -> bool {
        !self.stuck.load(Ordering::Relaxed)
    }

    #[cfg(not(unix))]
    const PIECE: usize = 4096;
}
