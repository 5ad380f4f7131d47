//! The system's keychain, which stores sign-ins: a Secret Service on the session bus (GNOME, KDE and others), the
//! Keychain on macOS, the Credential Manager on Windows. Each has its own file below, with the same functions.
//!
//! Rules: accesses nothing before a record is looked up. Never asks the user to unlock anything, because the user may
//! not see it. If a keychain does not answer in time, this process does not ask it again, so a token request is
//! delayed only once.

#[cfg_attr(all(feature = "keychain", target_os = "macos"), path = "keychain/macos.rs")]
#[cfg_attr(all(feature = "keychain", windows), path = "keychain/windows.rs")]
#[cfg_attr(all(feature = "keychain", unix, not(target_os = "macos")), path = "keychain/secret_service.rs")]
#[cfg_attr(not(feature = "keychain"), path = "keychain/none.rs")]
mod system;

use std::{
    ffi::OsString,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::timeout;

/// The timeout for one operation.
const LONGEST: Duration = Duration::from_secs(3);
/// The attribute that all records share.
#[cfg(feature = "keychain")]
const APPLICATION: &str = "mcp-gangway";

/// The user's keychain.
#[derive(Clone, Debug)]
pub struct Keychain {
    system: Arc<system::SystemKeychain>,
    is_silent: Arc<AtomicBool>,
}

impl Keychain {
    /// Returns this user's keychain, if the system may have one. `environment` looks up variables; some systems need
    /// them to find it.
    pub fn of_user(environment: impl Fn(&str) -> Option<OsString>) -> Option<Self> {
        let system = system::SystemKeychain::of_user(environment)?;
        Some(Self { system: Arc::new(system), is_silent: Arc::default() })
    }

    /// Returns the secret with this name.
    pub(super) async fn get(&self, name: &str) -> Result<Option<Vec<u8>>, KeychainFailure> {
        self.ask(self.system.get(name)).await
    }

    /// Returns all secrets of this program.
    pub(super) async fn all(&self) -> Result<Vec<Vec<u8>>, KeychainFailure> {
        self.ask(self.system.all()).await
    }

    /// Stores a secret, and replaces the one with the same name. Keychain applications show the `label`.
    pub(super) async fn set(&self, name: &str, label: &str, secret: &[u8]) -> Result<(), KeychainFailure> {
        self.ask(self.system.set(name, label, secret)).await
    }

    /// Removes the secret with this name, if there is one.
    pub(super) async fn remove(&self, name: &str) -> Result<(), KeychainFailure> {
        self.ask(self.system.remove(name)).await
    }

    async fn ask<T>(&self, question: impl Future<Output = Result<T, KeychainFailure>>) -> Result<T, KeychainFailure> {
        if self.is_silent.load(Ordering::Relaxed) {
            return Err(KeychainFailure::Silent);
        }
        timeout(LONGEST, question).await.unwrap_or_else(|_| {
            self.is_silent.store(true, Ordering::Relaxed);
            Err(KeychainFailure::Silent)
        })
    }
}

/// Why a keychain cannot be used.
#[derive(Debug, thiserror::Error)]
#[cfg_attr(
    not(all(feature = "keychain", unix, not(target_os = "macos"))),
    allow(dead_code, reason = "not every platform uses every variant")
)]
pub(super) enum KeychainFailure {
    #[error("there is none")]
    Absent(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("it is locked")]
    Locked,
    #[error("it does not answer")]
    Silent,
    #[error("{0}")]
    Refused(#[source] Box<dyn std::error::Error + Send + Sync>),
}

#[cfg(test)]
#[cfg(all(feature = "keychain", unix, not(target_os = "macos")))]
mod tests {
    use super::*;

    fn keychain(variables: &[(&str, &str)]) -> Keychain {
        let variable = |wanted: &str| variables.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value.into());
        Keychain::of_user(variable).unwrap()
    }

    fn bus(variables: &[(&str, &str)]) -> String {
        keychain(variables).system.bus.clone()
    }

    #[test]
    fn keychain_uses_the_session_bus_address() {
        assert_eq!(bus(&[("DBUS_SESSION_BUS_ADDRESS", "unix:path=/a"), ("XDG_RUNTIME_DIR", "/b")]), "unix:path=/a");
        assert_eq!(bus(&[("DBUS_SESSION_BUS_ADDRESS", ""), ("XDG_RUNTIME_DIR", "/b")]), "unix:path=/b/bus");
        assert!(bus(&[]).starts_with("unix:path=/run/user/"));
    }

    #[tokio::test(start_paused = true)]
    async fn silent_keychain_is_asked_only_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bus");
        let _listener = tokio::net::UnixListener::bind(&path).unwrap();
        let address = format!("unix:path={}", path.display());
        let keychain = keychain(&[("DBUS_SESSION_BUS_ADDRESS", &address)]);
        let asked = tokio::time::Instant::now();
        assert!(matches!(keychain.get("a").await, Err(KeychainFailure::Silent)));
        assert_eq!(asked.elapsed().as_secs(), LONGEST.as_secs());
        assert!(matches!(keychain.clone().set("a", "A", b"a").await, Err(KeychainFailure::Silent)));
        assert_eq!(asked.elapsed().as_secs(), LONGEST.as_secs());
    }
}
