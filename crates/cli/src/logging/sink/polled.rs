//! Asks the system before each write whether it would block.

use std::{
    io,
    os::fd::AsFd,
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Target;

/// The most bytes that a pipe which polls as writable accepts without blocking.
const PIECE: usize = rustix::pipe::PIPE_BUF;

/// Writes a line if that is possible at once, and drops it otherwise.
pub(in crate::logging) struct Sink {
    target: Target,
    /// The reader is stuck: do not wait for it again.
    is_stuck: AtomicBool,
}

impl Sink {
    pub(in crate::logging) fn new(target: Target) -> Self {
        Self { target, is_stuck: AtomicBool::new(false) }
    }

    /// Writes a whole line, including its line break. Never fails.
    pub(in crate::logging) fn write(&self, line: &str) {
        for piece in line.as_bytes().chunks(PIECE) {
            if !self.is_ready() || self.target.write_all(piece).is_err() {
                break;
            }
        }
    }

    /// True if the next [`PIECE`] bytes can be written without blocking. Waits 100 ms for a slow reader.
    fn is_ready(&self) -> bool {
        const POLL_TIMEOUT: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

        let stderr = io::stderr();
        let fd = match &self.target {
            Target::Stderr => stderr.as_fd(),
            Target::File(file) => file.as_fd(),
        };
        let patience = if self.is_stuck.load(Ordering::Relaxed) { &NOW } else { &POLL_TIMEOUT };
        let mut fds = [PollFd::new(&fd, PollFlags::OUT)];
        let ready = rustix::io::retry_on_intr(|| poll(&mut fds, Some(patience))).is_ok_and(|count| count > 0);
        self.is_stuck.store(!ready, Ordering::Relaxed);
        ready
    }
}
