//! The macOS Keychain: generic passwords in the user's login keychain.
//!
//! Its functions block, so each operation runs in a thread. If a keychain is locked, or another build of this program
//! made an item, they would ask the user. That is turned off during the operation, which then fails instead.

use std::ffi::OsString;

use security_framework::{
    base::Error,
    item::{ItemClass, ItemSearchOptions, Limit},
    os::macos::keychain::SecKeychain,
    passwords::{PasswordOptions, delete_generic_password, generic_password, set_generic_password},
};
use tokio::task::spawn_blocking;

use super::{APPLICATION, KeychainFailure};

/// `errSecItemNotFound` in `SecBase.h`.
const NOT_FOUND: i32 = -25300;
/// `errSecInteractionNotAllowed` in `SecBase.h`.
const NEEDS_USER: i32 = -25308;

#[derive(Debug)]
pub(super) struct SystemKeychain;

impl SystemKeychain {
    #[expect(clippy::unnecessary_wraps, reason = "builds without keychains return `None`")]
    pub(super) fn of_user(_: impl Fn(&str) -> Option<OsString>) -> Option<Self> {
        Some(Self)
    }

    pub(super) async fn get(&self, name: &str) -> Result<Option<Vec<u8>>, KeychainFailure> {
        let name = name.to_owned();
        quietly(move || found(secret(&name))).await
    }

    pub(super) async fn all(&self) -> Result<Vec<Vec<u8>>, KeychainFailure> {
        quietly(|| {
            let mut options = ItemSearchOptions::new();
            options.class(ItemClass::generic_password()).service(APPLICATION).load_attributes(true).limit(Limit::All);
            let items = found(options.search())?.unwrap_or_default();
            let names = items.iter().filter_map(|item| item.simplify_dict()?.remove("acct"));
            names.map(|name| secret(&name)).collect()
        })
        .await
    }

    pub(super) async fn set(&self, name: &str, _label: &str, secret: &[u8]) -> Result<(), KeychainFailure> {
        let (name, secret) = (name.to_owned(), secret.to_owned());
        quietly(move || set_generic_password(APPLICATION, &name, &secret)).await
    }

    pub(super) async fn remove(&self, name: &str) -> Result<(), KeychainFailure> {
        let name = name.to_owned();
        quietly(move || found(delete_generic_password(APPLICATION, &name)).map(drop)).await
    }
}

fn secret(name: &str) -> Result<Vec<u8>, Error> {
    generic_password(PasswordOptions::new_generic_password(APPLICATION, name))
}

/// Returns `None` if there is no such item.
fn found<T>(answer: Result<T, Error>) -> Result<Option<T>, Error> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.code() == NOT_FOUND => Ok(None),
        Err(error) => Err(error),
    }
}

/// Runs an operation in a thread, without asking the user.
async fn quietly<T: Send + 'static>(
    ask: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, KeychainFailure> {
    let answer = spawn_blocking(move || {
        let _quiet = SecKeychain::disable_user_interaction()?;
        ask()
    });
    let answer = answer.await.map_err(|error| KeychainFailure::Refused(error.into()))?;
    answer.map_err(|error| {
        if error.code() == NEEDS_USER { KeychainFailure::Locked } else { KeychainFailure::Refused(error.into()) }
    })
}
