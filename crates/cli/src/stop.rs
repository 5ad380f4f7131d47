//! Watches for what ends the bridge from outside: SIGTERM, SIGINT (Ctrl-C), SIGHUP (the terminal closed), on Windows
//! the console's events that mean the same, and the death of the parent process.
//!
//! A client that is killed cannot close its child's stdin, and another process may hold that pipe open. Without a
//! watch the bridge would then never end (R8). Rule: waiting costs nothing while nothing happens, if the system
//! allows that.

use std::{io, time::Duration};

use tokio::time::Instant;

/// A launcher passes on a signal that the terminal sends to this process too. Within this time the same signal is such
/// a copy.
const COPY_TIME: Duration = Duration::from_millis(500);

/// Starts to watch, and returns a future that resolves when the bridge should end soon.
///
/// After it resolves, the next signal ends the process immediately, unless it is a copy of the first. Call it on the
/// runtime.
///
/// # Errors
/// The system does not let signals be watched.
pub(crate) fn requested() -> io::Result<impl Future<Output = ()>> {
    let mut signals = signals::Signals::watch()?;
    let parent = parent::Parent::watch();
    Ok(async move {
        let first = tokio::select! {
            signal = signals.next() => {
                tracing::info!("signal {signal} asks the bridge to end");
                Some(signal)
            }
            () = parent.death() => {
                tracing::info!("the parent process is gone; the bridge ends");
                None
            }
        };
        let copies_end = Instant::now() + COPY_TIME;
        tokio::spawn(async move {
            loop {
                let next = signals.next().await;
                if Some(next) != first || Instant::now() > copies_end {
                    exit_at_once(next);
                }
            }
        });
    })
}

/// Ends the process as a signal would. A second signal means that the user does not want to wait for open requests.
#[expect(clippy::exit, clippy::disallowed_methods, reason = "nothing may delay this exit, not even a stuck stdout")]
fn exit_at_once(signal: i32) -> ! {
    std::process::exit(128 + signal)
}

#[cfg(unix)]
mod signals {
    use std::io;

    use tokio::signal::unix::{Signal, SignalKind, signal};

    pub(super) struct Signals {
        terminate: Signal,
        interrupt: Signal,
        /// None if it is ignored, as under `nohup`.
        hang_up: Option<Signal>,
    }

    impl Signals {
        pub(super) fn watch() -> io::Result<Self> {
            // If a file reaches its size limit (`ulimit -f`), the write fails and reports that. Unwatched, this
            // signal would end the process.
            let _ = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?;
            let hang_up = if is_hang_up_ignored() { None } else { Some(signal(SignalKind::hangup())?) };
            Ok(Self {
                terminate: signal(SignalKind::terminate())?,
                interrupt: signal(SignalKind::interrupt())?,
                hang_up,
            })
        }

        /// Waits for the next signal and returns its number.
        pub(super) async fn next(&mut self) -> i32 {
            let hang_up = async {
                match &mut self.hang_up {
                    Some(signal) => signal.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = self.terminate.recv() => SignalKind::terminate().as_raw_value(),
                _ = self.interrupt.recv() => SignalKind::interrupt().as_raw_value(),
                _ = hang_up => SignalKind::hangup().as_raw_value(),
            }
        }
    }

    /// True if this process was started to survive its terminal. Only Linux reports this without unsafe code;
    /// elsewhere SIGHUP always ends the bridge.
    fn is_hang_up_ignored() -> bool {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
        ignored & 1 << (SignalKind::hangup().as_raw_value() - 1) != 0
    }
}

#[cfg(windows)]
mod signals {
    use std::io;

    use tokio::signal::windows::{
        CtrlBreak, CtrlC, CtrlClose, CtrlLogoff, CtrlShutdown, ctrl_break, ctrl_c, ctrl_close, ctrl_logoff,
        ctrl_shutdown,
    };

    /// The console's events. After the last three the system allows some seconds, then ends the process.
    pub(super) struct Signals {
        ctrl_c: CtrlC,
        ctrl_break: CtrlBreak,
        close: CtrlClose,
        logoff: CtrlLogoff,
        shutdown: CtrlShutdown,
    }

    impl Signals {
        pub(super) fn watch() -> io::Result<Self> {
            Ok(Self {
                ctrl_c: ctrl_c()?,
                ctrl_break: ctrl_break()?,
                close: ctrl_close()?,
                logoff: ctrl_logoff()?,
                shutdown: ctrl_shutdown()?,
            })
        }

        /// Waits for the next event and returns the number of the signal that means the same on Unix.
        pub(super) async fn next(&mut self) -> i32 {
            const HANG_UP: i32 = 1;
            const INTERRUPT: i32 = 2;
            const TERMINATE: i32 = 15;
            tokio::select! {
                _ = self.ctrl_c.recv() => INTERRUPT,
                _ = self.ctrl_break.recv() => TERMINATE,
                _ = self.close.recv() => HANG_UP,
                _ = self.logoff.recv() => TERMINATE,
                _ = self.shutdown.recv() => TERMINATE,
            }
        }
    }
}

#[cfg(unix)]
mod parent {
    use std::{future, time::Duration};

    use rustix::process::{Pid, getppid};

    /// How often to check the parent if the system cannot notify.
    const POLL: Duration = Duration::from_secs(2);

    /// The process that started this one.
    pub(super) enum Parent {
        /// There is no parent to watch.
        Unwatched,
        /// It ended before the watch began.
        #[cfg(target_os = "linux")]
        Dead,
        /// A handle that becomes readable when the parent ends.
        #[cfg(target_os = "linux")]
        Handle(tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>),
        /// Polled: when the parent ends, another process becomes the parent.
        Polled(Pid),
    }

    impl Parent {
        pub(super) fn watch() -> Self {
            match getppid() {
                // The first process adopts orphans and starts services that outlive their parents. None means that
                // the parent is outside this container.
                None | Some(Pid::INIT) => Self::Unwatched,
                Some(parent) => Self::watch_process(parent),
            }
        }

        #[cfg(target_os = "linux")]
        fn watch_process(parent: Pid) -> Self {
            use rustix::{
                io::Errno,
                process::{PidfdFlags, pidfd_open},
            };
            use tokio::io::{Interest, unix::AsyncFd};

            let handle = match pidfd_open(parent, PidfdFlags::empty()) {
                Ok(handle) => handle,
                Err(Errno::SRCH) => return Self::Dead,
                // An old kernel, or a sandbox that blocks the call.
                Err(_) => return Self::Polled(parent),
            };
            // If the parent ended between the two calls, another process may have its number now.
            if getppid() != Some(parent) {
                return Self::Dead;
            }
            #[expect(
                deprecated,
                reason = "its replacement is unsafe for types that can change their descriptor; OwnedFd cannot"
            )]
            let readable = AsyncFd::with_interest(handle, Interest::READABLE);
            readable.map_or(Self::Polled(parent), Self::Handle)
        }

        #[cfg(not(target_os = "linux"))]
        fn watch_process(parent: Pid) -> Self {
            Self::Polled(parent)
        }

        /// Resolves when the parent has ended.
        pub(super) async fn death(self) {
            match self {
                Self::Unwatched => future::pending().await,
                #[cfg(target_os = "linux")]
                Self::Dead => {}
                #[cfg(target_os = "linux")]
                Self::Handle(handle) => {
                    if handle.readable().await.is_err() {
                        // This fails only while the runtime shuts down, which needs no second reason to end.
                        future::pending::<()>().await;
                    }
                }
                Self::Polled(parent) => {
                    while getppid() == Some(parent) {
                        tokio::time::sleep(POLL).await;
                    }
                }
            }
        }
    }
}

#[cfg(not(unix))]
mod parent {
    /// Here the parent's death shows only as the end of stdin.
    pub(super) struct Parent;

    impl Parent {
        pub(super) fn watch() -> Self {
            Self
        }

        pub(super) async fn death(self) {
            std::future::pending::<()>().await;
        }
    }
}
