//! Stores sign-ins. A record holds the registered client and its tokens, and there is one for each issuer, resource
//! and client. A record is stored in the system's keychain; if that fails, in a file; if that fails, in memory.
//!
//! The store also keeps the issuer that each of the user's clients is bound to. That is not a secret, and is always
//! in a file.
//!
//! Rules: a record counts only if its content matches its name. A keychain may fail at one time and work at another,
//! so there may be two records. Then the one with the newer tokens counts, because the older ones are used up.

use std::{
    collections::HashMap,
    fmt, io,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use oauth2::TokenResponse;
use rmcp::transport::auth::StoredCredentials;
use serde::{Deserialize, Serialize};

use super::{
    Prompt,
    keychain::{Keychain, KeychainFailure},
    lock,
};
use crate::folder::{Folder, name_of};

/// The extension of a record's file.
const RECORD: &str = ".json";

/// Identifies a record: the issuer, the resource and the client of its tokens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Key {
    pub(super) issuer: String,
    /// As named by the protected resource.
    pub(super) resource: String,
    /// The client that the user has configured; `None` if the bridge registered it.
    pub(super) client: Option<String>,
}

impl Key {
    /// Returns the name of its file, without the extension.
    fn name(&self) -> String {
        name_of([Some(&self.issuer), Some(&self.resource), self.client.as_ref()])
    }

    fn file(&self) -> String {
        self.name() + RECORD
    }
}

/// The authorization server that a client of the user is bound to, for one MCP server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Binding {
    /// Without user, password and query, which may be secrets and may change.
    pub(super) server: String,
    pub(super) client: String,
    pub(super) issuer: String,
}

impl Binding {
    fn name(&self) -> String {
        format!("{}.issuer", name_of([Some(&self.server), Some(&self.client)]))
    }

    /// Returns the issuer, if this is the binding of the same client at the same server.
    fn issuer_for(self, other: &Self) -> Option<String> {
        (self.server == other.server && self.client == other.client).then_some(self.issuer)
    }
}

/// A stored sign-in.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) key: Key,
    /// The MCP server that the user signed in at.
    pub(super) server: String,
    pub(super) client: Option<RegisteredClient>,
    pub(super) tokens: Option<StoredCredentials>,
}

/// A registered client.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct RegisteredClient {
    pub(super) id: String,
    pub(super) secret: Option<String>,
    pub(super) redirect_uri: String,
    /// How the client authenticates, if the server has said so.
    #[serde(default)]
    pub(super) method: Option<String>,
}

impl Record {
    pub(super) fn new(key: Key, server: String) -> Self {
        Self { key, server, client: None, tokens: None }
    }

    /// When the tokens were issued, if known.
    fn given_at(&self) -> Option<u64> {
        self.tokens.as_ref()?.token_received_at
    }

    /// When the access token expires, if known.
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

/// Where a record is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kept {
    /// In the system's keychain.
    Keychain,
    /// In this file.
    File(PathBuf),
}

/// All records.
#[derive(Debug)]
pub(super) struct Store {
    keychain: Option<Keychain>,
    folder: Option<Folder>,
    /// Records that could not be written.
    memory: Mutex<HashMap<Key, Record>>,
    /// Bindings that could not be written, by name.
    bindings: Mutex<HashMap<String, Binding>>,
}

impl Store {
    /// Creates a store in a keychain and a folder, which may not exist yet. Without either, records last as long as
    /// the store.
    pub(super) fn new(keychain: Option<Keychain>, folder: Option<PathBuf>) -> Self {
        Self { keychain, folder: folder.map(Folder::new), memory: Mutex::default(), bindings: Mutex::default() }
    }

    /// Waits until no other process changes the record with this key. Calls `hear` with the prompt of the process
    /// that does.
    pub(super) async fn lock(&self, key: &Key, hear: impl Fn(Prompt)) -> Option<lock::HeldLock> {
        lock::take(self.folder.as_ref()?, &key.name(), hear).await
    }

    /// Binds a client if it is not bound, and returns the issuer that it is bound to. If several processes try, one
    /// succeeds. If `anew` is true, replaces an existing binding, because the user has named the issuer.
    ///
    /// # Errors
    /// The client may be bound, but the binding cannot be read.
    pub(super) async fn bind(&self, binding: &Binding, anew: bool) -> io::Result<String> {
        let name = binding.name();
        let kept = match &self.folder {
            Some(folder) if anew => folder.write(&name, text_of(binding)?).await,
            Some(folder) => match folder.create(&name, text_of(binding)?).await {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    let found = serde_json::from_slice::<Binding>(&folder.read(&name).await?)?;
                    return found.issuer_for(binding).ok_or_else(|| io::Error::other("it belongs to another client"));
                }
                kept => kept,
            },
            None => Err(io::ErrorKind::NotFound.into()),
        };
        let mut bindings = self.bindings.lock().unwrap_or_else(PoisonError::into_inner);
        match kept {
            Ok(()) => {
                bindings.remove(&name);
                Ok(binding.issuer.clone())
            }
            Err(error) => {
                if anew || !bindings.contains_key(&name) {
                    tracing::warn!(%error, "the client's issuer lasts only for this process; name it in the settings");
                    bindings.insert(name.clone(), binding.clone());
                }
                Ok(bindings.get(&name).map_or_else(|| binding.issuer.clone(), |bound| bound.issuer.clone()))
            }
        }
    }

    pub(super) async fn load(&self, key: &Key) -> Option<Record> {
        if let Some(record) = self.memory().get(key) {
            return Some(record.clone());
        }
        let in_file = match &self.folder {
            Some(folder) => read(folder, &key.file()).await,
            None => None,
        };
        let in_keychain = match &self.keychain {
            Some(keychain) => keychain.get(&key.name()).await.unwrap_or_else(|failure| {
                tell(&failure);
                None
            }),
            None => None,
        };
        let in_keychain = in_keychain.and_then(|secret| parsed(&secret));
        // A file is written after the keychain failed, and removed when the keychain takes its record. So if both
        // have the same time, the file is newer.
        let found = in_keychain.into_iter().chain(in_file).filter(|record| record.key == *key);
        found.max_by_key(Record::given_at)
    }

    /// Stores a record, and replaces an older one.
    pub(super) async fn save(&self, record: &Record) {
        if self.save_in_keychain(record).await {
            self.memory().remove(&record.key);
            if let Err(error) = self.remove_file(&record.key).await {
                tracing::debug!(%error, "the tokens are in the keychain, but older ones stay in a file");
            }
            return;
        }
        let written = match (&self.folder, text_of(record)) {
            (Some(folder), Ok(text)) => folder.write(&record.key.file(), text).await,
            (Some(_), Err(error)) => Err(error),
            (None, _) => {
                self.memory().insert(record.key.clone(), record.clone());
                return;
            }
        };
        match written {
            Ok(()) => drop(self.memory().remove(&record.key)),
            Err(error) => {
                tracing::warn!(%error, "the tokens cannot be stored; they are lost when this process ends");
                self.memory().insert(record.key.clone(), record.clone());
            }
        }
    }

    async fn save_in_keychain(&self, record: &Record) -> bool {
        let Some(keychain) = &self.keychain else { return false };
        let Ok(secret) = serde_json::to_vec(record) else { return false };
        let label = format!("mcp-gangway: {}", record.key.resource);
        let saved = keychain.set(&record.key.name(), &label, &secret).await;
        saved.inspect_err(tell).is_ok()
    }

    /// Returns all records in the keychain and the folder, in no particular order.
    ///
    /// # Errors
    /// There is a keychain, and it cannot be read.
    pub(super) async fn all(&self) -> Result<Vec<(Record, Kept)>, KeychainFailure> {
        let mut found = Vec::new();
        if let Some(keychain) = &self.keychain {
            let secrets = match keychain.all().await {
                Err(failure @ KeychainFailure::Absent(_)) => {
                    tell(&failure);
                    Vec::new()
                }
                answer => answer?,
            };
            found.extend(secrets.iter().filter_map(|secret| Some((parsed(secret)?, Kept::Keychain))));
        }
        if let Some(folder) = &self.folder {
            for name in folder.names().await.unwrap_or_default() {
                if name.ends_with(RECORD)
                    && let Some(record) = read(folder, &name).await
                {
                    found.push((record, Kept::File(folder.path(&name))));
                }
            }
        }
        Ok(found)
    }

    /// Removes a record from all places.
    ///
    /// # Errors
    /// It cannot be removed.
    pub(super) async fn remove(&self, key: &Key) -> Result<(), KeychainFailure> {
        self.memory().remove(key);
        self.remove_file(key).await.map_err(|error| KeychainFailure::Refused(error.into()))?;
        match &self.keychain {
            Some(keychain) => match keychain.remove(&key.name()).await {
                Err(KeychainFailure::Absent(_)) => Ok(()),
                outcome => outcome,
            },
            None => Ok(()),
        }
    }

    async fn remove_file(&self, key: &Key) -> io::Result<()> {
        match &self.folder {
            Some(folder) => folder.remove(&key.file()).await,
            None => Ok(()),
        }
    }

    fn memory(&self) -> MutexGuard<'_, HashMap<Key, Record>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reports that a keychain cannot be used. If there is none, only at debug level.
fn tell(failure: &KeychainFailure) {
    match failure {
        KeychainFailure::Absent(why) => tracing::debug!(%why, "no keychain; sign-ins are stored in files"),
        failure => tracing::info!(%failure, "the keychain cannot be used; sign-ins are stored in files"),
    }
}

async fn read(folder: &Folder, name: &str) -> Option<Record> {
    let text = match folder.read(name).await {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return None,
        Err(error) => {
            tracing::warn!(path = %folder.path(name).display(), %error, "not used");
            return None;
        }
        Ok(text) => text,
    };
    let record = parsed(&text);
    if record.is_none() {
        tracing::warn!(path = %folder.path(name).display(), "the file contains no tokens");
    }
    record
}

fn parsed(text: &[u8]) -> Option<Record> {
    serde_json::from_slice(text).ok()
}

fn text_of(kept: &impl Serialize) -> io::Result<Vec<u8>> {
    Ok(serde_json::to_vec_pretty(kept)?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn key(client: Option<&str>) -> Key {
        Key { issuer: "https://as".into(), resource: "https://mcp".into(), client: client.map(str::to_owned) }
    }

    fn record(key: Key, id: &str) -> Record {
        let client = RegisteredClient {
            id: id.into(),
            secret: Some("hunter2".into()),
            redirect_uri: "http://127.0.0.1:1/".into(),
            method: None,
        };
        Record { client: Some(client), ..Record::new(key, "https://mcp/".into()) }
    }

    #[tokio::test]
    async fn records_are_stored_separately_with_mode_0600() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("state/mcp-gangway");
        let store = Store::new(None, Some(folder.clone()));
        assert!(store.load(&key(None)).await.is_none());
        store.save(&record(key(None), "a")).await;
        store.save(&record(key(Some("b")), "b")).await;
        let fresh = Store::new(None, Some(folder.clone()));
        assert_eq!(fresh.load(&key(None)).await.unwrap().client.unwrap().id, "a");
        assert_eq!(fresh.load(&key(Some("b"))).await.unwrap().client.unwrap().id, "b");
        assert!(fresh.load(&key(Some(""))).await.is_none());
        assert_eq!(fresh.all().await.unwrap().len(), 2);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode(&folder), 0o700);
            assert_eq!(mode(&folder.join(key(None).file())), 0o600);
        }
        fresh.remove(&key(None)).await.unwrap();
        fresh.remove(&key(None)).await.unwrap();
        assert!(store.load(&key(None)).await.is_none());
    }

    #[tokio::test]
    async fn record_file_with_wrong_name_or_content_is_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(None, Some(folder.path().to_owned()));
        store.save(&record(key(Some("other")), "x")).await;
        let at = |key: Key| folder.path().join(key.file());
        fs::rename(at(key(Some("other"))), at(key(None))).unwrap();
        assert!(store.load(&key(None)).await.is_none());
        fs::write(at(key(None)), b"{").unwrap();
        assert!(store.load(&key(None)).await.is_none());
    }

    fn binding(issuer: &str) -> Binding {
        Binding { server: "https://mcp/".into(), client: "c".into(), issuer: issuer.into() }
    }

    #[tokio::test]
    async fn client_stays_bound_to_its_issuer_until_rebinding_is_requested() {
        let home = tempfile::tempdir().unwrap();
        let nowhere = tempfile::NamedTempFile::new().unwrap();
        for (folder, outlives) in [
            (None, false),
            (Some(nowhere.path().to_owned()), false),
            (Some(nowhere.path().join("folder")), false),
            (Some(home.path().join("folder")), true),
        ] {
            let store = Store::new(None, folder.clone());
            for (issuer, anew, bound) in [("a", false, "a"), ("b", false, "a"), ("b", true, "b"), ("a", false, "b")] {
                assert_eq!(store.bind(&binding(issuer), anew).await.unwrap(), bound);
            }
            let other = Binding { client: "d".into(), ..binding("e") };
            assert_eq!(store.bind(&other, false).await.unwrap(), "e");
            let next = Store::new(None, folder).bind(&binding("c"), false).await.unwrap();
            assert_eq!(next, if outlives { "b" } else { "c" });
        }
    }

    #[tokio::test]
    async fn unreadable_binding_file_fails_the_bind() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::new(None, Some(home.path().to_owned()));
        let path = home.path().join(binding("a").name());
        for text in [&b""[..], b"{", br#"{"server":"https://mcp/","client":"other","issuer":"a"}"#] {
            fs::write(&path, text).unwrap();
            store.bind(&binding("a"), false).await.unwrap_err();
        }
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        store.bind(&binding("a"), false).await.unwrap_err();
    }

    #[tokio::test]
    async fn records_are_kept_in_memory_if_they_cannot_be_written() {
        let file = tempfile::NamedTempFile::new().unwrap();
        // A folder cannot be created inside a file.
        for folder in [None, Some(file.path().join("folder"))] {
            let store = Store::new(None, folder);
            store.save(&record(key(None), "a")).await;
            assert_eq!(store.load(&key(None)).await.unwrap().client.unwrap().id, "a");
        }
    }

    /// Two buses without a keychain: one that does not exist, and one that does not answer.
    #[cfg(all(feature = "keychain", unix, not(target_os = "macos")))]
    #[tokio::test(start_paused = true)]
    async fn records_fall_back_to_files_without_a_working_keychain() {
        let home = tempfile::tempdir().unwrap();
        let socket = home.path().join("silent");
        let _listener = tokio::net::UnixListener::bind(&socket).unwrap();
        for (bus, is_told) in [(home.path().join("none"), false), (socket, true)] {
            let bus = format!("unix:path={}", bus.display());
            let keychain = Keychain::of_user(|name| (name == "DBUS_SESSION_BUS_ADDRESS").then(|| bus.clone().into()));
            let store = Store::new(keychain, Some(home.path().join("state")));
            store.save(&record(key(None), "a")).await;
            assert_eq!(store.load(&key(None)).await.unwrap().client.unwrap().id, "a");
            assert_eq!(store.all().await.is_err(), is_told, "{bus}");
            assert_eq!(store.remove(&key(None)).await.is_err(), is_told, "{bus}");
            assert!(store.load(&key(None)).await.is_none());
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        assert!(!format!("{:?}", record(key(None), "a")).contains("hunter2"));
    }
}
