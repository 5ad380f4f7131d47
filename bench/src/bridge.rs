//! Runs a bridge as a child process: writes and reads its messages and measures its resources. A bridge can be a tree
//! of processes (`npx`, a shell), so its whole process group is measured, and killed when `Bridge` is dropped.

use std::{
    fs,
    io::{ErrorKind, Write},
    os::unix::process::CommandExt,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::PollFlags,
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    process::{Pid, Signal, kill_process_group},
    thread::{CpuSet, sched_setaffinity},
};

use crate::{
    Result,
    lines::{Line, Lines, wait},
    peers::Peer,
    server::Format,
};

/// The first message of a client. All bridges know this version.
const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"bench","version":"1"}}}"#;
const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
/// Removed from the environment: the user's proxies would be between bridge and server.
const PROXIES: [&str; 6] = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

/// The processors to run on.
#[derive(Clone, Copy, Default)]
pub(crate) struct Processors {
    /// The bridges.
    pub(crate) bridge: Option<usize>,
    /// The driver and the server.
    pub(crate) rest: Option<usize>,
}

impl Processors {
    /// Pins this thread, and the processes it starts, to a processor.
    pub(crate) fn stay(processor: Option<usize>) -> Result<()> {
        if let Some(processor) = processor {
            let mut set = CpuSet::new();
            set.set(processor);
            sched_setaffinity(None, &set)?;
        }
        Ok(())
    }
}

/// A running bridge.
pub(crate) struct Bridge {
    child: Child,
    group: Pid,
    /// `None` after it was closed.
    input: Option<ChildStdin>,
    pub(crate) lines: Lines<ChildStdout>,
    pub(crate) started: Instant,
}

impl Bridge {
    /// Starts the process, without a handshake.
    pub(crate) fn start(peer: &Peer, url: &str, processors: Processors, show_errors: bool) -> Result<Self> {
        let words: Vec<String> = peer.words.iter().map(|word| word.replace("{url}", url)).collect();
        let (program, arguments) = words.split_first().ok_or("a bridge without a command")?;
        let mut command = Command::new(program);
        command.args(arguments).envs(peer.environment.iter().cloned());
        // What servers said is in the user's own folder, and would make one run differ from the next.
        command.env("MCP_NO_CACHE", "1");
        for name in PROXIES {
            command.env_remove(name);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        command.stderr(if show_errors { Stdio::inherit() } else { Stdio::null() });
        Processors::stay(processors.bridge)?;
        let started = Instant::now();
        let child = command.spawn();
        Processors::stay(processors.rest)?;
        let mut child = child?;
        let input = child.stdin.take().ok_or("no stdin")?;
        let output = child.stdout.take().ok_or("no stdout")?;
        fcntl_setfl(&input, fcntl_getfl(&input)? | OFlags::NONBLOCK)?;
        let group = Pid::from_child(&child);
        Ok(Self { child, group, input: Some(input), lines: Lines::new(output), started })
    }

    /// Makes the handshake.
    pub(crate) fn open(&mut self, until: Instant) -> Result<()> {
        self.say(INITIALIZE, until)?;
        while self.hear(until)?.answers()?.is_none() {}
        self.say(INITIALIZED, until)
    }

    /// Sends a call.
    pub(crate) fn ask(&mut self, id: u64, call: &Call, until: Instant) -> Result<()> {
        self.say(&call.request(id), until)
    }

    /// Sends a call and waits for its response. Returns the length of the response's line.
    pub(crate) fn call(&mut self, id: u64, call: &Call, until: Instant) -> Result<u64> {
        self.ask(id, call, until)?;
        loop {
            let line = self.hear(until)?;
            match line.answers()? {
                None => {}
                Some(its) if its == id => return Ok(line.length),
                Some(other) => return Err(format!("it answered {other} instead of {id}").into()),
            }
        }
    }

    pub(crate) fn say(&mut self, line: &str, until: Instant) -> Result<()> {
        self.write(format!("{line}\n").as_bytes(), until)
    }

    /// Writes whole lines.
    pub(crate) fn write(&mut self, mut lines: &[u8], until: Instant) -> Result<()> {
        let input = self.input.as_mut().ok_or("its stdin is closed")?;
        while !lines.is_empty() {
            match input.write(lines) {
                Ok(written) => lines = lines.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => wait(input, PollFlags::OUT, until)?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    pub(crate) fn hear(&mut self, until: Instant) -> Result<Line<'_>> {
        self.lines.next(until)
    }

    /// Closes its stdin and waits until it ends.
    pub(crate) fn end(&mut self, until: Instant) -> Result<()> {
        self.input = None;
        while self.hear(until).is_ok() {}
        while self.child.try_wait()?.is_none() {
            if Instant::now() > until {
                return Err("it did not end".into());
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Returns the processor time of all threads so far, in seconds.
    pub(crate) fn processor_time(&self) -> Result<f64> {
        let mut nanoseconds = 0_u64;
        for process in self.processes() {
            for thread in fs::read_dir(format!("/proc/{process}/task"))?.flatten() {
                // The thread may have ended.
                let times = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
                nanoseconds += times.split(' ').next().and_then(|time| time.parse::<u64>().ok()).unwrap_or(0);
            }
        }
        Ok(nanoseconds as f64 / 1e9)
    }

    /// Returns the current memory: resident, and the proportional share of it.
    pub(crate) fn memory(&self) -> Memory {
        let mut memory = Memory::default();
        for process in self.processes() {
            let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap_or_default();
            memory.resident += kibibytes(&text, "Rss:");
            memory.proportional += kibibytes(&text, "Pss:");
        }
        memory
    }

    /// Resets [`peak`](Self::peak).
    pub(crate) fn forget_peak(&self) {
        for process in self.processes() {
            // If this is not allowed, the peak counts from the start.
            let _ = fs::write(format!("/proc/{process}/clear_refs"), "5");
        }
    }

    /// Returns the peak resident memory, in bytes.
    pub(crate) fn peak(&self) -> u64 {
        let status = |process| fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        self.processes().into_iter().map(|process| kibibytes(&status(process), "VmHWM:")).sum()
    }

    /// Returns the processes of its group.
    fn processes(&self) -> Vec<u32> {
        let group = self.child.id();
        let Ok(all) = fs::read_dir("/proc") else { return vec![group] };
        let ids = all.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        ids.filter(|id| {
            let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            // After the name, which can contain blanks: state, parent, group.
            stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(2)?.parse().ok()) == Some(group)
        })
        .collect()
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = kill_process_group(self.group, Signal::KILL);
        let _ = self.child.wait();
    }
}

/// Memory in bytes.
#[derive(Clone, Copy, Default)]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    pub(crate) proportional: u64,
}

/// A call of one of the server's tools.
#[derive(Clone, Copy)]
pub(crate) enum Call {
    /// A response of this many bytes.
    Text { size: u64, format: Format },
    /// This many events of this size in bytes, with this many milliseconds between them.
    Events { count: u64, size: u64, pause: u64, format: Format },
}

impl Call {
    /// Returns the request.
    pub(crate) fn request(&self, id: u64) -> String {
        let (tool, arguments, meta) = match self {
            Self::Text { size, format } => ("text", format!(r#""size":{size},"format":"{}""#, format.name()), None),
            Self::Events { count, size, pause, format } => (
                "events",
                format!(r#""count":{count},"size":{size},"pause":{pause},"format":"{}""#, format.name()),
                Some(format!(r#","_meta":{{"progressToken":{id}}}"#)),
            ),
        };
        let meta = meta.unwrap_or_default();
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}","arguments":{{{arguments}}}{meta}}}}}"#
        )
    }
}

fn kibibytes(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0) * 1024
}
