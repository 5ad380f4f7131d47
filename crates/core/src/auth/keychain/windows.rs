//! The Windows Credential Manager: generic credentials of this user on this machine.
//!
//! A credential may have 2560 bytes. A record with long tokens does not fit, and is refused like any other failure.
//! The functions block, so each operation runs in a thread.

use std::{collections::HashMap, ffi::OsString};

use keyring_core::{Entry, Error, api::CredentialStoreApi};
use tokio::task::spawn_blocking;
use windows_native_keyring_store::Store;

use super::{APPLICATION, KeychainFailure};

#[derive(Debug)]
pub(super) struct SystemKeychain;

impl SystemKeychain {
    #[expect(clippy::unnecessary_wraps, reason = "builds without keychains return `None`")]
    pub(super) fn of_user(_: impl Fn(&str) -> Option<OsString>) -> Option<Self> {
        Some(Self)
    }

    pub(super) async fn get(&self, name: &str) -> Result<Option<Vec<u8>>, KeychainFailure> {
        let name = name.to_owned();
        in_thread(move |store| found(entry(store, &name)?.get_secret())).await
    }

    pub(super) async fn all(&self) -> Result<Vec<Vec<u8>>, KeychainFailure> {
        in_thread(|store| {
            let pattern = format!(r"\.{APPLICATION}$");
            let entries = store.search(&HashMap::from([("pattern", pattern.as_str())]))?;
            entries.iter().map(Entry::get_secret).collect()
        })
        .await
    }

    pub(super) async fn set(&self, name: &str, _label: &str, secret: &[u8]) -> Result<(), KeychainFailure> {
        let (name, secret) = (name.to_owned(), secret.to_owned());
        in_thread(move |store| entry(store, &name)?.set_secret(&secret)).await
    }

    pub(super) async fn remove(&self, name: &str) -> Result<(), KeychainFailure> {
        let name = name.to_owned();
        in_thread(move |store| found(entry(store, &name)?.delete_credential()).map(drop)).await
    }
}

/// A credential that does not roam to other machines of the user's domain. Files do not roam either.
fn entry(store: &Store, name: &str) -> Result<Entry, Error> {
    store.build(APPLICATION, name, Some(&HashMap::from([("persistence", "Local")])))
}

/// Returns `None` if there is no such credential.
fn found<T>(answer: Result<T, Error>) -> Result<Option<T>, Error> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(Error::NoEntry) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn in_thread<T: Send + 'static>(
    ask: impl FnOnce(&Store) -> Result<T, Error> + Send + 'static,
) -> Result<T, KeychainFailure> {
    let answer = spawn_blocking(move || ask(&*Store::new()?));
    let answer = answer.await.map_err(|error| KeychainFailure::Refused(error.into()))?;
    answer.map_err(|error| KeychainFailure::Refused(error.into()))
}
