//! One bridge at a time signs in at, or refreshes the tokens of, one authorization server for one resource. Beside its lock it
//! leaves a note where the user is asked to sign in, as those who wait are asked by their clients, too.
//!
//! Rules: the lock is the operating system's, on a file that is never removed. It ends with the process that holds it, so
//! a crash leaves nothing behind but a note, which the next one removes. The note is for the user alone (0600).

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::sleep;

use super::Prompt;

/// How often is looked whether another process has given the lock back: there is no way to be told that does not take a
/// thread, which nothing could end.
const EVERY: Duration = Duration::from_millis(100);

/// The lock, until this is dropped.
#[derive(Debug)]
#[must_use]
pub(super) struct Held {
    note: PathBuf,
    #[expect(dead_code, reason = "the lock lives as long as the file is open")]
    file: File,
}

impl Held {
    fn new(note: PathBuf, file: File) -> Self {
        let held = Self { note, file };
        held.forget();
        held
    }

    /// Tells those who wait where the user is asked to sign in.
    pub(super) fn tell(&self, prompt: &Prompt) {
        if let Err(error) = write(&self.note, prompt) {
            tracing::debug!(%error, "other processes do not learn where to sign in");
        }
    }

    fn forget(&self) {
        // Mostly there is none.
        let _ = fs::remove_file(&self.note);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.forget();
    }
}

/// Waits for the lock that this file stands for; `hear` is told meanwhile where the user is asked to sign in. None if it
/// cannot be had at all, as in a folder that cannot be written to: there is nothing to share then either.
pub(super) async fn take(path: &Path, hear: impl Fn(Prompt)) -> Option<Held> {
    let file = open(path).inspect_err(|error| tracing::debug!(path = %path.display(), %error, "no lock")).ok()?;
    let note = path.with_extension("prompt");
    let mut is_waiting = false;
    let mut heard = Vec::new();
    loop {
        match file.try_lock() {
            Ok(()) => return Some(Held::new(note, file)),
            Err(TryLockError::WouldBlock) => {
                if !std::mem::replace(&mut is_waiting, true) {
                    tracing::info!("another mcp-gangway is signing in there; this one waits for it");
                }
                let told = fs::read(&note).unwrap_or_default();
                if told != heard {
                    if let Ok(prompt) = serde_json::from_slice(&told) {
                        hear(prompt);
                    }
                    heard = told;
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

/// A file that tempfile makes is only for its owner.
fn write(path: &Path, prompt: &Prompt) -> std::io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(path))?;
    file.write_all(&serde_json::to_vec(prompt)?)?;
    file.persist(path)?;
    Ok(())
}
