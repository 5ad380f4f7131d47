//! A lock between processes: one bridge at a time signs in or refreshes tokens at one authorization server for one
//! resource. The holder also leaves a note that says where to sign in, because waiting bridges ask their users
//! through their clients.
//!
//! Rules: the lock is the operating system's, on a file that is never removed. It ends with the process that holds
//! it, so a crash leaves only a note, which the next holder removes. Only the user can read the note (0600).

use std::{
    fs::{self, File, TryLockError},
    time::Duration,
};

use tokio::time::sleep;

use super::Prompt;
use crate::folder::Folder;

/// How often to try the lock again. Waiting for a notification would need a thread that cannot be stopped.
const LOCK_RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// The lock, held until this is dropped.
#[derive(Debug)]
#[must_use]
pub(super) struct HeldLock {
    folder: Folder,
    note: String,
    #[expect(dead_code, reason = "the lock lives as long as the file is open")]
    file: File,
}

impl HeldLock {
    /// Tells the waiting processes where the user signs in.
    pub(super) async fn tell(&self, prompt: &Prompt) {
        let Ok(text) = serde_json::to_vec(prompt) else { return };
        if let Err(error) = self.folder.write(&self.note, text).await {
            tracing::debug!(%error, "cannot tell other processes where to sign in");
        }
    }
}

impl Drop for HeldLock {
    fn drop(&mut self) {
        // Usually there is no note.
        let _ = fs::remove_file(self.folder.path(&self.note));
    }
}

/// Waits for the lock with this name. Calls `hear` with the prompt of the process that holds it. Returns `None` if
/// there can be no lock, for example in a read-only folder; then there is nothing to share either.
pub(super) async fn take(folder: &Folder, name: &str, hear: impl Fn(Prompt)) -> Option<HeldLock> {
    let (lock, note) = (format!("{name}.lock"), format!("{name}.prompt"));
    let no_lock = |error: &std::io::Error| tracing::debug!(path = %folder.path(&lock).display(), %error, "no lock");
    let file = folder.open_lock(&lock).await.inspect_err(no_lock).ok()?;
    let mut is_waiting = false;
    let mut heard = Vec::new();
    loop {
        match file.try_lock() {
            Ok(()) => {
                // A process that crashed may have left a note.
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
                sleep(LOCK_RETRY_INTERVAL).await;
            }
            Err(TryLockError::Error(error)) => {
                no_lock(&error);
                return None;
            }
        }
    }
}
