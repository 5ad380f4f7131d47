//! What is kept of a sign-in: the client that the authorization server knows us as, and its tokens, in one file for each
//! issuer, resource and client.
//!
//! Rules: a file is only for its owner (0600, in a folder of 0700), is written whole and put in place at once, and holds
//! what it says it does, or counts for nothing. A folder that cannot be written to costs no sign-in: what was to be kept is
//! kept in memory then.

use std::{
    collections::HashMap,
    fmt, fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use oauth2::TokenResponse;
use rmcp::transport::auth::StoredCredentials;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::lock;

/// Whose tokens they are, for what, and from whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Key {
    pub(super) issuer: String,
    /// As the protected resource calls itself.
    pub(super) resource: String,
    /// The client that the user has named; none if it is one that was registered on the way.
    pub(super) client: Option<String>,
}

impl Key {
    /// The name of its file, without an ending.
    fn name(&self) -> String {
        let mut hash = Sha256::new();
        for part in [Some(&self.issuer), Some(&self.resource), self.client.as_ref()] {
            // The length keeps the parts apart.
            hash.update(part.map_or(u64::MAX, |part| part.len() as u64).to_le_bytes());
            hash.update(part.map_or("", |part| part));
        }
        URL_SAFE_NO_PAD.encode(hash.finalize())
    }
}

/// What is kept for a key.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) key: Key,
    /// The MCP server that was signed in at.
    pub(super) server: String,
    pub(super) client: Option<Client>,
    pub(super) tokens: Option<StoredCredentials>,
}

/// A client as the authorization server has registered it.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Client {
    pub(super) id: String,
    pub(super) secret: Option<String>,
    pub(super) redirect_uri: String,
}

impl Record {
    pub(super) fn new(key: Key, server: String) -> Self {
        Self { key, server, client: None, tokens: None }
    }

    /// When the access token expires, as far as is known.
    pub(super) fn expiry(&self) -> Option<SystemTime> {
        let tokens = self.tokens.as_ref()?;
        let received = UNIX_EPOCH.checked_add(Duration::from_secs(tokens.token_received_at?))?;
        received.checked_add(tokens.token_response.as_ref()?.expires_in()?)
    }

    pub(super) fn can_refresh(&self) -> bool {
        let tokens = self.tokens.as_ref().and_then(|tokens| tokens.token_response.as_ref());
        tokens.is_some_and(|tokens| tokens.refresh_token().is_some())
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record").field("key", &self.key).field("server", &self.server).finish_non_exhaustive()
    }
}

/// All records.
#[derive(Debug)]
pub(super) struct Store {
    folder: Option<PathBuf>,
    /// Those that could not be written.
    memory: Mutex<HashMap<Key, Record>>,
}

impl Store {
    /// The records in a folder, which need not be there yet; without one they last as long as this.
    pub(super) fn new(folder: Option<PathBuf>) -> Self {
        Self { folder, memory: Mutex::default() }
    }

    /// Waits until no other process changes the record with this key.
    pub(super) async fn lock(&self, key: &Key) -> Option<lock::Held> {
        let folder = self.folder.as_ref()?;
        // Where it cannot be made, there is nothing to lock.
        let _ = make(folder);
        lock::take(&folder.join(format!("{}.lock", key.name()))).await
    }

    pub(super) fn load(&self, key: &Key) -> Option<Record> {
        if let Some(record) = self.memory().get(key) {
            return Some(record.clone());
        }
        read(&self.path(key)?).filter(|record| record.key == *key)
    }

    /// Keeps a record in the place of what was there.
    pub(super) fn save(&self, record: &Record) {
        let Some(path) = self.path(&record.key) else {
            self.memory().insert(record.key.clone(), record.clone());
            return;
        };
        match write(&path, record) {
            Ok(()) => drop(self.memory().remove(&record.key)),
            Err(error) => {
                let path = path.display();
                tracing::warn!(%path, %error, "the tokens cannot be kept; they last as long as this process");
                self.memory().insert(record.key.clone(), record.clone());
            }
        }
    }

    /// All that is kept in the folder, in no order.
    pub(super) fn all(&self) -> Vec<Record> {
        let Some(entries) = self.folder.as_ref().and_then(|folder| fs::read_dir(folder).ok()) else {
            return Vec::new();
        };
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        paths.filter(|path| path.extension().is_some_and(|end| end == "json")).filter_map(|path| read(&path)).collect()
    }

    /// Forgets a record.
    ///
    /// # Errors
    /// Its file cannot be removed.
    pub(super) fn remove(&self, key: &Key) -> io::Result<()> {
        self.memory().remove(key);
        match self.path(key).map(fs::remove_file) {
            Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn path(&self, key: &Key) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join(format!("{}.json", key.name())))
    }

    fn memory(&self) -> MutexGuard<'_, HashMap<Key, Record>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(path: &Path) -> Option<Record> {
    let text = fs::read(path).ok()?;
    let record = serde_json::from_slice(&text);
    record.inspect_err(|error| tracing::warn!(path = %path.display(), line = error.line(), "no tokens in it")).ok()
}

fn write(path: &Path, record: &Record) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::NotFound)?;
    make(folder)?;
    // A file that tempfile makes is only for its owner.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    serde_json::to_writer_pretty(&mut file, record)?;
    file.flush()?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

fn make(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(client: Option<&str>) -> Key {
        Key { issuer: "https://as".into(), resource: "https://mcp".into(), client: client.map(str::to_owned) }
    }

    fn record(key: Key, id: &str) -> Record {
        let client =
            Client { id: id.into(), secret: Some("hunter2".into()), redirect_uri: "http://127.0.0.1:1/".into() };
        Record { client: Some(client), ..Record::new(key, "https://mcp/".into()) }
    }

    #[test]
    fn records_are_kept_apart_and_only_for_their_owner() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("state/mcp-gangway");
        let store = Store::new(Some(folder.clone()));
        assert!(store.load(&key(None)).is_none());
        store.save(&record(key(None), "a"));
        store.save(&record(key(Some("b")), "b"));
        let fresh = Store::new(Some(folder.clone()));
        assert_eq!(fresh.load(&key(None)).unwrap().client.unwrap().id, "a");
        assert_eq!(fresh.load(&key(Some("b"))).unwrap().client.unwrap().id, "b");
        assert!(fresh.load(&key(Some(""))).is_none());
        assert_eq!(fresh.all().len(), 2);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode(&folder), 0o700);
            assert_eq!(mode(&store.path(&key(None)).unwrap()), 0o600);
        }
        fresh.remove(&key(None)).unwrap();
        fresh.remove(&key(None)).unwrap();
        assert!(store.load(&key(None)).is_none());
    }

    #[test]
    fn a_file_counts_for_nothing_if_it_is_not_what_its_name_says() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(Some(folder.path().to_owned()));
        store.save(&record(key(Some("other")), "x"));
        fs::rename(store.path(&key(Some("other"))).unwrap(), store.path(&key(None)).unwrap()).unwrap();
        assert!(store.load(&key(None)).is_none());
        fs::write(store.path(&key(None)).unwrap(), b"{").unwrap();
        assert!(store.load(&key(None)).is_none());
    }

    #[test]
    fn what_cannot_be_written_is_kept_in_memory() {
        let file = tempfile::NamedTempFile::new().unwrap();
        // No folder can be made inside of a file.
        for folder in [None, Some(file.path().join("folder"))] {
            let store = Store::new(folder);
            store.save(&record(key(None), "a"));
            assert_eq!(store.load(&key(None)).unwrap().client.unwrap().id, "a");
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        assert!(!format!("{:?}", record(key(None), "a")).contains("hunter2"));
    }
}
