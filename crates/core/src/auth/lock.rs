//! One bridge at a time signs in at, or refreshes the tokens of, one authorization server for one resource. Beside its lock it
//! leaves a note where the user is asked to sign in, as those who wait are asked by their clients, too.
//!
//! Rules: the lock is the operating system's, on a file that is never removed. It ends with the process that holds it, so
//! a crash leaves nothing behind but a note, which the next one removes. The note is for the user alone (0600).

use std::{
    fs::{self, File, TryLockError},
    time::Duration,
};

use tokio::time::sleep;

use super::{Prompt, files::Folder};

/// How often is looked whether another process has given the lock back: there is no way to be told that does not take a
/// thread, which nothing could end.
const EVERY: Duration = Duration::from_millis(100);

/// The lock, until this is dropped.
#[derive(Debug)]
#[must_use]
pub(super) struct HeldLock {
    folder: Folder,
    note: String,
    #[expect(dead_code, reason = "the lock lives as long as the file is open")]
    file: File,
}

impl HeldLock {
    /// Tells those who wait where the user is asked to sign in.
    pub(super) async fn tell(&self, prompt: &Prompt) {
        let Ok(text) = serde_json::to_vec(prompt) else { return };
        if let Err(error) = self.folder.write(&self.note, text).await {
            tracing::debug!(%error, "other processes do not learn where to sign in");
        }
    }
}

impl Drop for HeldLock {
    fn drop(&mut self) {
        // Mostly there is none.
        let _ = fs::remove_file(self.folder.path(&self.note));
    }
}

/// Waits for the lock with this name; `hear` is told meanwhile where the user is asked to sign in. None if it cannot be had
/// at all, as in a folder that cannot be written to: there is nothing to share then either.
pub(super) async fn take(folder: &Folder, name: &str, hear: impl Fn(Prompt)) -> Option<HeldLock> {
    let (lock, note) = (format!("{name}.lock"), format!("{name}.prompt"));
    let no_lock = |error: &std::io::Error| tracing::debug!(path = %folder.path(&lock).display(), %error, "no lock");
    let file = folder.open_lock(&lock).await.inspect_err(no_lock).ok()?;
    let mut is_waiting = false;
    let mut heard = Vec::new();
    loop {
        match file.try_lock() {
            Ok(()) => {
                // One that crashed may have left it.
                let _ = folder.remove(&note).await;
                return Some(HeldLock { folder: folder.clone(), note, file });
            }
            Err(TryLockError::WouldBlock) => {
                if !std::mem::replace(&mut is_waiting, true) {
                    tracing::info!("another mcp-gangway is signing in there; this one waits for it");
                }
                let told = folder.read(&note).await.unwrap_or_default();
                if told != heard {
                    if let Ok(prompt) = serde_json::from_slice(&told) {
                        hear(prompt);
                    }
                    heard = told;
                }
                sleep(EVERY).await;
            }
            Err(TryLockError::Error(error)) => {
                no_lock(&error);
                return None;
            }
        }
    }
}
