//! Writes on a thread of its own, so that only that thread waits for a reader.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use super::Target;

/// The longest wait for a slow reader.
const MOMENT: Duration = Duration::from_millis(100);

/// Writes a line if that is possible at once, and drops it otherwise.
pub(in crate::logging) struct Sink(SinkKind);

enum SinkKind {
    /// All sinks for stderr share one thread.
    Stderr,
    File(Writer),
}

struct Writer {
    lines: SyncSender<Line>,
    /// The number of lines that were accepted and are not written yet.
    unwritten: Arc<AtomicUsize>,
}

struct Line {
    text: String,
    written: SyncSender<()>,
}

impl Sink {
    pub(in crate::logging) fn new(target: Target) -> Self {
        Self(match target {
            Target::Stderr => SinkKind::Stderr,
            Target::File(_) => SinkKind::File(Writer::new(target)),
        })
    }

    /// Writes a whole line, including its line break. Never fails.
    pub(in crate::logging) fn write(&self, line: &str) {
        static STDERR: OnceLock<Writer> = OnceLock::new();
        match &self.0 {
            SinkKind::Stderr => STDERR.get_or_init(|| Writer::new(Target::Stderr)).write(line),
            SinkKind::File(writer) => writer.write(line),
        }
    }
}

impl Writer {
    fn new(target: Target) -> Self {
        // While one line is written, one more can wait.
        let (lines, next) = sync_channel::<Line>(1);
        let unwritten = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&unwritten);
        // If no thread can be started, `next` is dropped and no line is accepted.
        let _ = thread::Builder::new().name("log".into()).spawn(move || {
            for line in next {
                let _ = target.write_all(line.text.as_bytes());
                counter.fetch_sub(1, Ordering::Relaxed);
                let _ = line.written.send(());
            }
        });
        Self { lines, unwritten }
    }

    fn write(&self, line: &str) {
        let (written, is_written) = sync_channel(1);
        let was_idle = self.unwritten.fetch_add(1, Ordering::Relaxed) == 0;
        if self.lines.try_send(Line { text: line.to_owned(), written }).is_err() {
            self.unwritten.fetch_sub(1, Ordering::Relaxed);
        } else if was_idle {
            // Wait, so that the last lines of a process are written before it ends.
            let _ = is_written.recv_timeout(MOMENT);
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::{fs::File, io::Read};

    use super::*;

    #[test]
    fn an_unread_pipe_blocks_no_caller_and_gets_new_lines_when_it_is_read() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let (mut reader, sink) = (File::from(reader), Sink::new(Target::File(File::from(writer))));
        // More than any pipe holds.
        let line = format!("{}\n", "x".repeat(1 << 20));
        for _ in 0..20 {
            sink.write(&line);
        }
        let mut first = vec![0; line.len()];
        reader.read_exact(&mut first).unwrap();
        assert_eq!(first, line.as_bytes());
        // The line that waited follows, then the first new line that finds the thread free.
        reader.read_exact(&mut first).unwrap();
        assert_eq!(first, line.as_bytes());
        sink.write("after\n");
        drop(sink);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "after\n");
    }
}
