//! The commands for a user's sign-in at one server: login, status and logout.

use crate::{
    error::{Error, ErrorKind, Hint},
    http::{HttpSettings, ServerUrl},
};
use std::{
    pin::Pin,
    time::{Duration, SystemTime},
};

use super::{
    Challenge, SignIn, TokenRequirement,
    requests::AuthClients,
    settings::OAuth,
    sign_in::Place,
    store::{Kept, Record, Store},
};

/// The future of a command. It is boxed because an `async fn` is compiled again in every crate that awaits it,
/// together with all of the sign-in.
pub type AccountFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// Where and how to sign in.
#[derive(Clone, Debug)]
pub struct Account {
    pub(super) server: ServerUrl,
    http: HttpSettings,
    pub(super) settings: OAuth,
}

/// A stored sign-in, without its secrets.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// The authorization server.
    pub issuer: String,
    /// The resource that the token is for.
    pub resource: String,
    /// The client that the token was issued to.
    pub client_id: Option<String>,
    /// The scopes of the token.
    pub scopes: Vec<String>,
    /// True if there is a token.
    pub is_signed_in: bool,
    /// When the token expires, if that is known.
    pub expiry: Option<SystemTime>,
    /// True if the token can be renewed without the user.
    pub can_refresh: bool,
    /// Where the sign-in is stored.
    pub kept: Kept,
}

/// The result of revoking tokens at the authorization server.
#[derive(Debug)]
#[non_exhaustive]
pub enum Revocation {
    /// The tokens are no longer valid.
    Done,
    /// The tokens stay valid, because the server does not offer revocation.
    NotOffered,
    /// It is unknown if the tokens are still valid, for this reason.
    Failed(Error),
}

impl Account {
    /// Creates an account at this MCP server. `http` has the settings for connections to it.
    pub(crate) fn new(server: ServerUrl, http: HttpSettings, settings: OAuth) -> Self {
        Self { server, http, settings }
    }

    /// Signs in at the server, if it asks for that and there is no token for it yet. Waits for the user.
    ///
    /// # Errors
    /// No sign-in is possible, or it failed.
    pub fn login(&self) -> AccountFuture<'_, ()> {
        Box::pin(async move {
            let source = SignIn::new(self.clone());
            let need = TokenRequirement::default();
            // The sign-in has its own, shorter limit.
            let outcome = source.token(&need, Duration::from_hours(1)).await;
            source.wait_for_browser().await;
            outcome.map(drop)
        })
    }

    /// Returns the stored sign-ins for the server. Sends nothing.
    ///
    /// # Errors
    /// There is a keychain, and it cannot be read.
    pub fn status(&self) -> AccountFuture<'_, Vec<Status>> {
        Box::pin(async move {
            let (_, records) = self.records().await?;
            let status = |(record, kept): (Record, Kept)| Status {
                client_id: record
                    .client
                    .as_ref()
                    .map(|client| client.id.clone())
                    .or_else(|| Some(record.tokens.as_ref()?.client_id.clone())),
                scopes: record.tokens.as_ref().map(|tokens| tokens.granted_scopes.clone()).unwrap_or_default(),
                is_signed_in: record.tokens.is_some(),
                expiry: record.expiry(),
                can_refresh: record.can_refresh(),
                issuer: record.key.issuer,
                resource: record.key.resource,
                kept,
            };
            Ok(records.into_iter().map(status).collect())
        })
    }

    /// Revokes the tokens for the server, if the authorization server offers that, and removes them in any case.
    /// Returns one result for each stored record.
    ///
    /// # Errors
    /// The tokens cannot be removed.
    pub fn logout(&self) -> AccountFuture<'_, Vec<Revocation>> {
        Box::pin(async move {
            let (store, records) = self.records().await?;
            let mut revocations = Vec::new();
            for (record, _) in &records {
                let _lock = store.lock(&record.key, |_| ()).await;
                revocations.push(match self.revoke(&store, record).await {
                    Ok(true) => Revocation::Done,
                    Ok(false) => Revocation::NotOffered,
                    Err(error) => Revocation::Failed(error),
                });
                let removed = store.remove(&record.key).await;
                removed.map_err(|error| {
                    Error::new(ErrorKind::Storage, "the tokens cannot be removed").with_source(error)
                })?;
            }
            Ok(revocations)
        })
    }

    async fn revoke(&self, store: &Store, record: &Record) -> Result<bool, Error> {
        if record.tokens.is_none() {
            return Ok(true);
        }
        let mut place = Place::find(&self.settings, &self.server, self.clients()?, &Challenge::default()).await?;
        if place.key.issuer != record.key.issuer {
            let summary = "the server uses another authorization server now, so the tokens are not revoked";
            return Err(Error::new(ErrorKind::NoToken, summary));
        }
        place.is_meant(&self.server, store).await?;
        if let Some(client) = &record.client {
            place.authenticate_as(client);
        }
        place.revoke(record).await
    }

    async fn records(&self) -> Result<(Store, Vec<(Record, Kept)>), Error> {
        let store = self.store();
        let mut records = store.all().await.map_err(|failure| {
            let summary = "the system's keychain cannot be read";
            Error::new(ErrorKind::Storage, summary).with_hint(Hint::Keychain).with_source(failure)
        })?;
        let server = self.server.as_url().as_str();
        records.retain(|(record, _)| record.server == server || record.key.resource == server);
        Ok((store, records))
    }

    /// Returns the store, which holds the records of all accounts.
    pub(super) fn store(&self) -> Store {
        Store::new(self.settings.keychain.clone(), self.settings.folder.clone())
    }

    /// # Errors
    /// The TLS settings cannot be used.
    pub(super) fn clients(&self) -> Result<AuthClients, Error> {
        AuthClients::new(&self.server, &self.http)
    }
}
