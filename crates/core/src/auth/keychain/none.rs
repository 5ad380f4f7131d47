//! A placeholder for builds without keychain support.

#![expect(clippy::unused_async, reason = "the functions match the other platforms")]

use std::{convert::Infallible, ffi::OsString};

use super::KeychainFailure;

#[derive(Debug)]
pub(super) struct SystemKeychain(Infallible);

impl SystemKeychain {
    pub(super) fn of_user(_: impl Fn(&str) -> Option<OsString>) -> Option<Self> {
        None
    }

    pub(super) async fn get(&self, _: &str) -> Result<Option<Vec<u8>>, KeychainFailure> {
        match self.0 {}
    }

    pub(super) async fn all(&self) -> Result<Vec<Vec<u8>>, KeychainFailure> {
        match self.0 {}
    }

    pub(super) async fn set(&self, _: &str, _: &str, _: &[u8]) -> Result<(), KeychainFailure> {
        match self.0 {}
    }

    pub(super) async fn remove(&self, _: &str) -> Result<(), KeychainFailure> {
        match self.0 {}
    }
}
