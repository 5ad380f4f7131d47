//! What ends the bridge from outside: SIGTERM, SIGINT (Ctrl-C), SIGHUP (the terminal is gone), and the death of the process that started it.
//!
//! A client that is killed cannot close its child's stdin, and another process may hold that pipe open; without a watch
//! the bridge would stay for ever (R8). Rule: waiting costs nothing while nothing happens, where the system allows it.

use std::io;

/// Starts to watch, and gives the future that resolves when the bridge should leave soon.
///
/// Once it has resolved, the next signal ends the process at once. Needs to be called on the runtime.
///
/// # Errors
/// A system that lets no signal be watched.
pub(crate) fn requested() -> io::Result<impl Future<Output = ()>> {
    let mut signals = signals::Signals::watch()?;
    let parent = parent::Parent::watch();
    Ok(async move {
        tokio::select! {
            signal = signals.next() => tracing::info!("signal {signal} asks the bridge to end"),
            () = parent.death() => tracing::info!("the parent process is gone; the bridge ends"),
        }
        tokio::spawn(async move { exit_at_once(signals.next().await) });
    })
}

/// Ends the process as a signal would have done. Whoever signals twice does not want to wait for open requests.
#[expect(clippy::exit, clippy::disallowed_methods, reason = "nothing may delay this exit, not even a stuck stdout")]
fn exit_at_once(signal: i32) {
    std::process::exit(128 + signal)
}

#[cfg(unix)]
mod signals {
    use std::io;

    use tokio::signal::unix::{Signal, SignalKind, signal};

    pub(super) struct Signals {
        terminate: Signal,
        interrupt: Signal,
        /// None where it is ignored, as `nohup` wants it.
        hang_up: Option<Signal>,
    }

    impl Signals {
        pub(super) fn watch() -> io::Result<Self> {
            // A file that may not grow any more (`ulimit -f`) makes a write fail, which is for that write to tell; without a
            // watch the system ends the process.
            let _ = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?;
            let hang_up = if is_hang_up_ignored() { None } else { Some(signal(SignalKind::hangup())?) };
            Ok(Self {
                terminate: signal(SignalKind::terminate())?,
                interrupt: signal(SignalKind::interrupt())?,
                hang_up,
            })
        }

        /// The number of the next signal.
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

    /// Whether this process was started so that it survives its terminal. Only Linux says so without unsafe code; elsewhere
    /// SIGHUP counts.
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

    use tokio::signal::windows::{CtrlC, ctrl_c};

    pub(super) struct Signals(CtrlC);

    impl Signals {
        pub(super) fn watch() -> io::Result<Self> {
            Ok(Self(ctrl_c()?))
        }

        /// The number that Unix gives to the next signal.
        pub(super) async fn next(&mut self) -> i32 {
            self.0.recv().await;
            2
        }
    }
}

#[cfg(unix)]
mod parent {
    use std::{future, time::Duration};

    use rustix::process::{Pid, getppid};

    /// How often the parent is asked for where the system cannot tell by itself.
    const POLL: Duration = Duration::from_secs(2);

    /// The process that started this one.
    pub(super) enum Parent {
        /// No parent whose death means anything.
        Unwatched,
        /// It ended before the watch began.
        #[cfg(target_os = "linux")]
        Dead,
        /// Becomes readable when it ends.
        #[cfg(target_os = "linux")]
        Handle(tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>),
        /// When it ends, another process takes its place as the parent.
        Polled(Pid),
    }

    impl Parent {
        pub(super) fn watch() -> Self {
            match getppid() {
                // The first process adopts orphans, and starts what ought to outlive everything. None: it is elsewhere,
                // beyond the border of a container.
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
                // An old kernel, or a sandbox that does not know the call.
                Err(_) => return Self::Polled(parent),
            };
            // If the parent ended between the two calls, the number may belong to a stranger by now.
            if getppid() != Some(parent) {
                return Self::Dead;
            }
            #[expect(
                deprecated,
                reason = "its successor is unsafe for types that may change their descriptor; OwnedFd cannot"
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
                        // Only a runtime that shuts down fails here; it needs no second reason.
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
    /// Closing stdin is the only sign of a parent's death here.
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
