//! One bridge at a time signs in at, or refreshes the tokens of, one authorization server for one resource.
//!
//! Rule: the lock is the operating system's, on a file that is never removed. It ends with the process that holds it, so
//! a crash leaves nothing behind.

use std::{
    fs::{File, OpenOptions, TryLockError},
    path::Path,
    time::Duration,
};

use tokio::time::sleep;

/// How often is looked whether another process has given the lock back: there is no way to be told that does not take a
/// thread, which nothing could end.
const EVERY: Duration = Duration::from_millis(100);

/// The lock, until this is dropped.
#[derive(Debug)]
#[must_use]
pub(super) struct Held(#[expect(dead_code, reason = "the lock lives as long as the file is open")] File);

/// Waits for the lock that this file stands for. None if it cannot be had at all, as in a folder that cannot be written
/// to: there is nothing to share then either.
pub(super) async fn take(path: &Path) -> Option<Held> {
    let file = open(path).inspect_err(|error| tracing::debug!(path = %path.display(), %error, "no lock")).ok()?;
    let mut is_waiting = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Some(Held(file)),
            Err(TryLockError::WouldBlock) => {
                if !std::mem::replace(&mut is_waiting, true) {
                    tracing::info!("another mcp-gangway is signing in there; this one waits for it");
                }
                sleep(EVERY).await;
            }
            Err(TryLockError::Error(error)) => {
                tracing::debug!(path = %path.display(), %error, "no lock");
                return None;
            }
        }
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}
