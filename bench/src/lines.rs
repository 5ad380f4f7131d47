//! Reads lines with a time limit. Counts a long line instead of storing it, and keeps only its two ends, so that 256
//! MiB cost the driver no memory and little time.

use std::{
    io::{ErrorKind, Read},
    os::fd::AsFd,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use crate::Result;

/// The most bytes of a line that are stored.
const KEPT: usize = 4 << 10;
/// The bytes that are kept from the end of a longer line.
const TAIL: usize = 64;
/// The first bytes of a message, which are searched for the members that classify it.
const HEAD: usize = 200;
/// The bytes in one read of a deliberately slow reader.
const SIP: usize = 16 << 10;

/// The lines of a child's output.
pub(crate) struct Lines<R> {
    source: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    head: Vec<u8>,
    tail: Vec<u8>,
    /// The length so far of a long line, whose ends are `head` and `tail`.
    long: u64,
    /// The pause after each read of a deliberately slow reader.
    pub(crate) pause: Option<Duration>,
}

impl<R: Read + AsFd> Lines<R> {
    pub(crate) fn new(source: R) -> Self {
        let (head, tail) = (Vec::new(), Vec::new());
        Self { source, buffer: vec![0; 1 << 20], start: 0, end: 0, head, tail, long: 0, pause: None }
    }

    /// Returns the next line.
    ///
    /// # Errors
    /// No line came in time, or the output ended.
    pub(crate) fn next(&mut self, until: Instant) -> Result<Line<'_>> {
        self.long = 0;
        loop {
            let rest = self.buffer.get(self.start..self.end).unwrap_or_default();
            if let Some(at) = memchr::memchr(b'\n', rest) {
                let from = self.start;
                self.start += at + 1;
                if self.long > 0 {
                    self.long += at as u64;
                    let last = self.buffer.get(from..from + at).unwrap_or_default();
                    keep(&mut self.tail, last);
                    return Ok(Line { head: &self.head, tail: &self.tail, length: self.long });
                }
                let line = self.buffer.get(from..from + at).unwrap_or_default();
                return Ok(Line { head: line, tail: line, length: at as u64 });
            }
            if self.long > 0 {
                self.long += rest.len() as u64;
                keep(&mut self.tail, rest);
                (self.start, self.end) = (0, 0);
            } else if rest.len() > KEPT {
                self.long = rest.len() as u64;
                self.head.clear();
                self.head.extend_from_slice(rest.get(..KEPT).unwrap_or_default());
                self.tail.clear();
                keep(&mut self.tail, rest);
                (self.start, self.end) = (0, 0);
            } else {
                let length = rest.len();
                self.buffer.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, length);
            }
            self.fill(until)?;
        }
    }

    fn fill(&mut self, until: Instant) -> Result<()> {
        wait(&self.source, PollFlags::IN, until)?;
        let most = if self.pause.is_some() { self.end + SIP } else { self.buffer.len() };
        let read = self.source.read(self.buffer.get_mut(self.end..most).unwrap_or_default())?;
        if let Some(pause) = self.pause {
            thread::sleep(pause);
        }
        if read == 0 {
            return Err("it ended".into());
        }
        self.end += read;
        Ok(())
    }
}

/// One line, or both ends of a long line.
pub(crate) struct Line<'a> {
    pub(crate) head: &'a [u8],
    tail: &'a [u8],
    /// The length in bytes, without the line break.
    pub(crate) length: u64,
}

impl Line<'_> {
    /// Returns the id if this is a response to a request.
    ///
    /// # Errors
    /// It is an error, or a response whose id is not a number.
    pub(crate) fn answers(&self) -> Result<Option<u64>> {
        let head = self.head.get(..HEAD.min(self.head.len())).unwrap_or_default();
        let has = |member: &str| memchr::memmem::find(head, member.as_bytes()).is_some();
        if has("\"method\"") {
            return Ok(None);
        }
        if !has("\"result\"") {
            return Err(format!("it said {}", String::from_utf8_lossy(head)).into());
        }
        // Some bridges put the id last.
        number(head).or_else(|| number(self.tail)).map(Some).ok_or_else(|| "an answer has no id".into())
    }
}

/// Waits until `file` can be read or written.
///
/// # Errors
/// The time is up.
pub(crate) fn wait(file: &impl AsFd, what: PollFlags, until: Instant) -> Result<()> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match poll(&mut [PollFd::new(file, what)], Some(&Timespec::try_from(left)?)) {
            Ok(0) => return Err(std::io::Error::from(ErrorKind::TimedOut).into()),
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn number(text: &[u8]) -> Option<u64> {
    let at = memchr::memmem::find(text, b"\"id\":")? + b"\"id\":".len();
    let digits = text.get(at..)?.trim_ascii_start();
    let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
    std::str::from_utf8(digits.get(..end)?).ok()?.parse().ok()
}

fn keep(tail: &mut Vec<u8>, more: &[u8]) {
    tail.extend_from_slice(more.get(more.len().saturating_sub(TAIL)..).unwrap_or_default());
    tail.drain(..tail.len().saturating_sub(TAIL));
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::unix::net::UnixStream};

    use super::*;

    #[test]
    fn lines_of_all_lengths_are_counted_and_told_apart() {
        let (mut far, near) = UnixStream::pair().unwrap();
        let sizes = [1, 100, KEPT, KEPT + 1, 3 << 20];
        let writer = thread::spawn(move || {
            for size in sizes {
                let text = "x".repeat(size);
                writeln!(far, r#"{{"result":"{text}","id":{size}}}"#).unwrap();
                writeln!(far, r#"{{"method":"{text}"}}"#).unwrap();
            }
        });
        let until = Instant::now() + Duration::from_secs(30);
        let mut lines = Lines::new(near);
        for size in sizes {
            let line = lines.next(until).unwrap();
            assert_eq!(line.length, (r#"{"result":"","id":}"#.len() + size + size.to_string().len()) as u64);
            assert_eq!(line.answers().unwrap(), Some(size as u64));
            assert_eq!(lines.next(until).unwrap().answers().unwrap(), None);
        }
        writer.join().unwrap();
        assert!(lines.next(until).is_err());
    }
}
