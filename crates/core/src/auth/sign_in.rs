//! Obtains tokens: finds the authorization server of the MCP server, chooses the client to use there, and runs the
//! grant.
//!
//! rmcp does what the specification asks of a client: metadata discovery, the checks of issuer and resource, PKCE,
//! and token requests. This file adds what rmcp leaves to its users, and what it lacks:
//!
//! - Metadata that does not mention PKCE is refused, as 2025-11-25 and later require; rmcp accepts it. Metadata
//!   without S256 is refused as well; rmcp checks that only if it registers a client itself.
//! - The resource can be replaced or left out, and authorization requests can have extra parameters. rmcp has no
//!   settings for either.
//! - A refusal of the authorization request is reported, after its issuer is verified.
//! - Metadata counts only at the place that belongs to its issuer (RFC 8414, 3.3). rmcp accepts it from any path with
//!   `.well-known` in it, so anyone who can publish such a file could speak for any issuer.
//! - rmcp logs codes and token responses, so its logging is off while it handles them.
//!
//! Rule: text is shown as the authorization server's only if it certainly comes from that server.

use crate::{
    error::{Error, ErrorKind, Hint},
    http::ServerUrl,
};
use std::{collections::HashSet, sync::Arc, time::Duration};

use base64::Engine as _;
use oauth2::basic::BasicTokenType;
use rmcp::transport::auth::{
    AuthError, AuthorizationManager, AuthorizationMetadata, AuthorizationMetadataSource, ClientCredentialsConfig,
    CredentialStore as _, InMemoryCredentialStore, JwtSigningAlgorithm, OAuthClientConfig, StoredCredentials,
};
use tokio::{runtime::Handle, task::spawn_blocking, time::timeout};
use tracing::{Dispatch, instrument::WithSubscriber as _};
use url::Url;

use super::{
    Credential, OAuth, Prompt, Resource, User,
    answer::Secrets,
    callback::{self, Arrival, Callback},
    challenge::Challenge,
    lock::HeldLock,
    register::{METHODS, Registration},
    requests::{AuthClients, Http, Instead, explained, replaced, too_slow},
    store::{Key, Record},
};

/// The timeout for finding the authorization server.
const FIND_TIME: Duration = Duration::from_mins(2);
/// How long the user has to sign in.
pub(super) const SIGN_IN_TIME: Duration = Duration::from_mins(10);
/// The name under which the client is registered.
pub(super) const CLIENT_NAME: &str = "mcp-gangway";

/// The authorization server that the MCP server names, and the state of a sign-in there.
pub(super) struct Place<'a> {
    pub(super) settings: &'a OAuth,
    pub(super) metadata: AuthorizationMetadata,
    pub(super) key: Key,
    pub(super) http: Arc<Http>,
    pub(super) manager: AuthorizationManager,
    /// True if there is no published metadata, so the endpoints are the default ones of 2025-03-26.
    pub(super) is_guess: bool,
    /// The storage that rmcp uses while it works. The tokens to keep are in the record.
    tokens: InMemoryCredentialStore,
}

impl<'a> Place<'a> {
    /// Finds the authorization server, from the server's refusal or from the well-known places of its metadata.
    ///
    /// # Errors
    /// There is none that may be used.
    pub(super) async fn find(
        settings: &'a OAuth,
        server: &ServerUrl,
        clients: AuthClients,
        challenge: &Challenge,
    ) -> Result<Self, Error> {
        let what = format!("{server} requires a sign-in, but none is possible");
        let http = Http::new(clients);
        let failed = |error| http.failure(&what, error);
        let base = without_secrets(server);
        let oauth_http = Arc::clone(&http);
        let mut manager =
            AuthorizationManager::new_with_oauth_http_client(base.clone(), oauth_http).await.map_err(failed)?;
        let tokens = InMemoryCredentialStore::new();
        manager.set_credential_store(tokens.clone());
        if let Some(pointer) = &challenge.resource_metadata {
            http.note(pointer).await;
        }
        let header = challenge.to_header();
        let found = timeout(FIND_TIME, manager.resolve_metadata_from_challenge(header.as_deref())).await;
        let found = found.map_err(|_| Error::new(ErrorKind::NoToken, what.clone()).with_source(too_slow(FIND_TIME)))?;
        let found = found.map_err(failed)?;
        let metadata = found.metadata;
        let is_guess = found.source == AuthorizationMetadataSource::LegacyEndpointFallback;
        if is_guess {
            // The fallback is a guess. It would hide why the address that the server named was not used.
            http.take_forbidden().map_or(Ok(()), |forbidden| Err(explained(&what, &forbidden)))?;
        } else if !metadata.issuer.as_deref().zip(http.document()).is_some_and(|(issuer, at)| keeps(issuer, &at)) {
            return Err(refused(&metadata, "its metadata is not at a place that belongs to its issuer"));
        }
        // Discovery succeeded without the refused addresses.
        http.take_forbidden();
        let is_published = found.source == AuthorizationMetadataSource::ProtectedResourceMetadata;
        let has_pkce = match &metadata.code_challenge_methods_supported {
            Some(methods) => methods.iter().any(|method| method == "S256"),
            None => !is_published,
        };
        if !has_pkce {
            let what = "its metadata does not say that it supports PKCE with S256, which a sign-in needs";
            return Err(refused(&metadata, what));
        }
        let resource = found_resource(&mut manager, &metadata).await.map_err(failed)?;
        let resource = if is_published { resource } else { resource.trim_end_matches('/').to_owned() };
        let (resource, instead) = match &settings.resource {
            Resource::Found if is_published => (resource, None),
            Resource::Found => (resource.clone(), Some(Instead::This(resource))),
            Resource::This(other) => (other.clone(), Some(Instead::This(other.clone()))),
            Resource::None => (resource, Some(Instead::Nothing)),
        };
        http.replace_resource(instead);
        // The result of the sign-in is sent to the token endpoint, so check it before the user is asked.
        let may_show = http.may_show(&metadata.token_endpoint).await;
        may_show.map_err(|error| if is_guess { no_sign_in(&server.to_string()) } else { error })?;
        let issuer = metadata.issuer.clone().unwrap_or_else(|| origin(&metadata.token_endpoint));
        let key = Key { issuer, resource, client: settings.named_client() };
        Ok(Self { settings, metadata, key, http, manager, is_guess, tokens })
    }

    /// Returns the scopes of the first request: the user's if set, otherwise the server's.
    pub(super) async fn initial_scopes(&self) -> Vec<String> {
        if self.settings.scopes.is_empty() {
            self.manager.select_initial_scopes(&[]).await
        } else {
            self.settings.scopes.clone()
        }
    }

    /// Returns the granted scopes and the missing ones (SEP-2350).
    pub(super) fn step_up_scopes(&self, granted: &[String], missing: &Challenge) -> Vec<String> {
        let mut known = HashSet::new();
        let asked = granted.iter().chain(&self.settings.scopes).map(String::as_str);
        let offered = self.metadata.scopes_supported.iter().flatten().map(String::as_str);
        // Some servers issue refresh tokens only with this scope (SEP-2207).
        let offline = offered.filter(|scope| *scope == "offline_access");
        let scopes = asked.chain(missing.scopes()).chain(offline);
        scopes.filter(|scope| known.insert(*scope)).map(str::to_owned).collect()
    }

    /// Refreshes the tokens. Returns false if the authorization server no longer accepts them, or not from this
    /// client.
    ///
    /// # Errors
    /// The server could not be asked, or its response is unusable.
    pub(super) async fn refresh(&mut self, record: &mut Record) -> Result<bool, Error> {
        let Some(stored) = record.tokens.clone() else { return Ok(false) };
        let http = Arc::clone(&self.http);
        let failed = |error| http.failure("the tokens cannot be renewed", error);
        let mut config = OAuthClientConfig::new(&stored.client_id, callback::PLACEHOLDER_REDIRECT_URI);
        config.client_secret = self.secret_of(record);
        if let Some(client) = &record.client {
            self.authenticate_as(client);
        }
        self.manager.configure_client(config).map_err(failed)?;
        self.tokens.save(stored).await.map_err(failed)?;
        self.http.take_refusal();
        match self.manager.refresh_token().with_subscriber(Dispatch::none()).await {
            Ok(_) => {
                record.tokens = Some(granted(&self.tokens).await?);
                Ok(true)
            }
            Err(error) => {
                // rmcp distinguishes only one refusal (`invalid_grant`) from a failure.
                let refusal = self.http.take_refusal();
                let is_over = matches!(error, AuthError::TokenRefreshRejected(_) | AuthError::AuthorizationRequired);
                if !is_over && refusal.is_none() {
                    return Err(failed(error));
                }
                tracing::info!(error = %error, "the tokens cannot be renewed any more");
                record.tokens = None;
                forget_unknown_client(record, refusal.as_deref());
                Ok(false)
            }
        }
    }

    /// Runs the authorization code grant: the user signs in with a browser, which returns to this machine.
    ///
    /// # Errors
    /// The user or the authorization server refused, or it took too long.
    pub(super) async fn authorize_with_browser(
        &mut self,
        record: &mut Record,
        scopes: &[String],
        user: &User,
        lock: Option<&HeldLock>,
    ) -> Result<(), Error> {
        let http = Arc::clone(&self.http);
        let failed = |error| http.failure("the sign-in cannot start", error);
        if self.metadata.authorization_endpoint == self.metadata.token_endpoint {
            let issuer = &self.key.issuer;
            let summary = format!("{issuer} does not support sign-in with a browser");
            return Err(Error::new(ErrorKind::NoToken, summary).with_hint(Hint::OtherGrant));
        }
        let callback = self.callback(record).await?;
        let config = self.client(record, &callback, scopes).await?;
        self.manager.configure_client(config).map_err(failed)?;
        let scopes: Vec<_> = scopes.iter().map(String::as_str).collect();
        let url = self.manager.get_authorization_url(&scopes).await.map_err(failed)?;
        let url = self.completed(&url)?;
        self.http.may_show(url.as_str()).await?;
        let state = parameter(&url, "state").unwrap_or_default();
        user.ask(Prompt::Browser { url: url.into() }, lock).await;
        let arrival = timeout(SIGN_IN_TIME, callback.arrival(&state)).await;
        let arrival = arrival.map_err(|_| Error::new(ErrorKind::NoToken, "the sign-in was not completed in time"))?;
        let outcome = self.exchange(&arrival, &state, record).await;
        user.set_browser(arrival);
        outcome
    }

    /// Exchanges the authorization code for tokens.
    async fn exchange(&self, arrival: &Arrival, state: &str, record: &mut Record) -> Result<(), Error> {
        let issuer = arrival.issuer.as_deref();
        self.check_issuer(issuer)?;
        let code = arrival.answer.as_ref().map_err(|denial| {
            // The state identifies a sign-in that is still open in the browser, so it must not be shown.
            let mut secrets = Secrets::default();
            secrets.add(state);
            let why = secrets.blanked(format!("the authorization server refused the sign-in: {}", denial.error));
            Error::new(ErrorKind::NoToken, why)
                .with_detail(&secrets.blanked(denial.description.clone().unwrap_or_default()))
        })?;
        self.http.take_refusal();
        let exchanged = self.manager.exchange_code_for_token_with_issuer(code, state, issuer);
        exchanged.with_subscriber(Dispatch::none()).await.map_err(|error| {
            forget_unknown_client(record, self.http.take_refusal().as_deref());
            self.http.failure("the authorization server gave no token", error)
        })?;
        record.tokens = Some(granted(&self.tokens).await?);
        Ok(())
    }

    /// Checks that the authorization server that was asked has redirected the browser (RFC 9207, 2.4), also for
    /// refusals. Compares issuers exactly.
    fn check_issuer(&self, issuer: Option<&str>) -> Result<(), Error> {
        let asked = self.metadata.issuer.as_deref();
        let mut is_wrong = issuer.is_some() && issuer != asked;
        is_wrong |= issuer.is_none() && self.supports("authorization_response_iss_parameter_supported");
        if !is_wrong {
            return Ok(());
        }
        let summary = "the answer to the sign-in does not come from the authorization server that was asked; not used";
        Err(Error::new(ErrorKind::NoToken, summary))
    }

    /// Opens the listener for the browser. Host and port are the user's, or those that the client is registered with,
    /// or 127.0.0.1 and any port.
    async fn callback(&self, record: &Record) -> Result<Callback, Error> {
        let registered = record.client.as_ref().and_then(|client| Url::parse(&client.redirect_uri).ok());
        let registered_port = registered.as_ref().and_then(Url::port);
        let port = self.settings.callback_port.or(registered_port).unwrap_or(0);
        let host = self.settings.callback_host.as_deref().or(registered.as_ref().and_then(Url::host_str));
        let host = host.unwrap_or(callback::HOST);
        let path = self.settings.callback_path.as_deref().unwrap_or(callback::PATH);
        let callback = match Callback::bind(host, port, path).await {
            Err(_) if self.settings.callback_port.is_none() && port != 0 => Callback::bind(host, 0, path).await,
            callback => callback,
        };
        callback.map_err(|error| {
            let summary = format!("cannot listen on port {port} of {host}");
            Error::new(ErrorKind::NoToken, summary).with_hint(Hint::CallbackPort).with_source(error)
        })
    }

    /// Returns the client to use, in the order of the specification: the user's client, one with a metadata document,
    /// one registered before, one registered now.
    async fn client(
        &mut self,
        record: &mut Record,
        callback: &Callback,
        scopes: &[String],
    ) -> Result<OAuthClientConfig, Error> {
        let redirect_uri = callback.redirect_uri();
        let new = |id: &str, secret: Option<String>, redirect_uri: &str| {
            let mut config = OAuthClientConfig::new(id, redirect_uri).with_scopes(scopes.to_vec());
            config.client_secret = secret;
            config
        };
        if let Some(id) = &self.settings.client_id {
            return Ok(new(id, self.settings.secret(), &redirect_uri));
        }
        if let Some(url) = self.metadata_document() {
            return Ok(new(url, None, &redirect_uri));
        }
        let known = record.client.clone().filter(|client| client.redirect_uri == redirect_uri);
        let client = if let Some(client) = known {
            self.authenticate_as(&client);
            client
        } else {
            // Some servers accept only `localhost`, others only the loopback address (RFC 8252, 8.3).
            let other = callback.other_redirect_uri().filter(|_| self.settings.callback_host.is_none());
            let uris = [Some(&redirect_uri), other.as_ref()];
            let ways: Vec<_> = uris.into_iter().flatten().map(|uri| Registration::browser(uri, scopes)).collect();
            self.register(&ways).await?
        };
        record.client = Some(client.clone());
        Ok(new(&client.id, client.secret, &client.redirect_uri))
    }

    /// Returns the URL of the client's metadata document, if the authorization server reads such documents.
    pub(super) fn metadata_document(&self) -> Option<&'a str> {
        let url = self.settings.client_metadata_url.as_deref();
        url.filter(|_| self.supports("client_id_metadata_document_supported"))
    }

    /// Returns the authorization request with the user's resource and parameters.
    fn completed(&self, url: &str) -> Result<Url, Error> {
        let mut url = Url::parse(url)
            .map_err(|error| Error::new(ErrorKind::NoToken, "the sign-in URL is invalid").with_source(error))?;
        if let Some(instead) = self.http.instead() {
            let query = replaced(url.query_pairs(), &instead);
            url.set_query(Some(&query));
        }
        url.query_pairs_mut().extend_pairs(&self.settings.parameters);
        Ok(url)
    }

    /// Runs the client credentials grant: the client acts for itself (SEP-1046).
    ///
    /// # Errors
    /// The authorization server refused, or could not be asked.
    pub(super) async fn authorize_with_credentials(
        mut self,
        record: &mut Record,
        scopes: Vec<String>,
    ) -> Result<(), Error> {
        let http = Arc::clone(&self.http);
        let failed = |error| http.failure("the authorization server gave no token for the client's credentials", error);
        let missing = || Error::config("client credentials need a client").with_hint(Hint::ClientId);
        let client_id = self.settings.client_id.clone().ok_or_else(missing)?;
        let resource = Some(self.key.resource.clone());
        let config = match self.settings.credential.as_ref().ok_or_else(missing)? {
            Credential::Secret(secret) => {
                ClientCredentialsConfig::ClientSecret { client_id, client_secret: secret.0.clone(), scopes, resource }
            }
            Credential::Key(pem) => ClientCredentialsConfig::PrivateKeyJwt {
                client_id,
                signing_algorithm: self.signing_algorithm(&pem.0),
                signing_key: pem.0.clone().into_bytes(),
                token_endpoint_audience: None,
                scopes,
                resource,
            },
        };
        self.manager.validate_client_credentials_metadata(&config).map_err(failed)?;
        self.manager.configure_client_credentials(&config).map_err(failed)?;
        let (manager, runtime) = (self.manager, Handle::current());
        // rmcp's future is not `Send`, so it runs in its own thread.
        let exchanged = spawn_blocking(move || {
            let exchange = manager.exchange_client_credentials(&config).with_subscriber(Dispatch::none());
            runtime.block_on(exchange).map(drop)
        });
        exchanged
            .await
            .map_err(|error| Error::new(ErrorKind::NoToken, "the sign-in broke off").with_source(error))?
            .map_err(failed)?;
        record.tokens = Some(granted(&self.tokens).await?);
        Ok(())
    }

    /// Returns the algorithm for a key: the one of its curve, or for RSA the first that the authorization server
    /// accepts.
    fn signing_algorithm(&self, pem: &str) -> JwtSigningAlgorithm {
        // The object identifiers of the two curves, as encoded in the key's DER.
        const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
        const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
        let text: String =
            pem.lines().filter(|line| !line.starts_with("-----")).flat_map(|line| line.trim().chars()).collect();
        let der = base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default();
        let names = |curve: &[u8]| der.windows(curve.len()).any(|part| part == curve);
        if names(P256) {
            return JwtSigningAlgorithm::ES256;
        }
        if names(P384) {
            return JwtSigningAlgorithm::ES384;
        }
        let offered = self.metadata.additional_fields.get("token_endpoint_auth_signing_alg_values_supported");
        let offered = offered.and_then(|names| names.as_array()).into_iter().flatten();
        let known = offered.filter_map(|name| match name.as_str()? {
            "RS256" => Some(JwtSigningAlgorithm::RS256),
            "RS384" => Some(JwtSigningAlgorithm::RS384),
            "RS512" => Some(JwtSigningAlgorithm::RS512),
            _ => None,
        });
        known.into_iter().next().unwrap_or(JwtSigningAlgorithm::RS256)
    }

    /// Returns the secret of the client that a record's tokens belong to.
    pub(super) fn secret_of(&self, record: &Record) -> Option<String> {
        let id = record.tokens.as_ref().map(|tokens| &tokens.client_id);
        match &record.client {
            Some(client) if Some(&client.id) == id => client.secret.clone(),
            _ => self.settings.secret(),
        }
    }

    /// True if a client's secret goes into the form, because the server does not accept it in the header.
    pub(super) fn sends_secret_in_body(&self) -> bool {
        let methods = self.metadata.additional_fields.get(METHODS);
        let methods = methods.and_then(|methods| methods.as_array());
        let offers = |name| methods.is_some_and(|methods| methods.iter().any(|method| method == name));
        offers("client_secret_post") && !offers("client_secret_basic")
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.metadata.additional_fields.get(name).and_then(serde_json::Value::as_str)
    }

    pub(super) fn supports(&self, what: &str) -> bool {
        self.metadata.additional_fields.get(what).and_then(serde_json::Value::as_bool).unwrap_or(false)
    }
}

/// Returns the credentials that rmcp obtained.
async fn granted(tokens: &InMemoryCredentialStore) -> Result<StoredCredentials, Error> {
    let none = || Error::new(ErrorKind::NoToken, "there is no token");
    let granted = tokens.load().await.map_err(|error| none().with_source(error))?;
    checked(granted.ok_or_else(none)?)
}

/// Checks that the token type is `Bearer`, the only one that can be sent.
pub(super) fn checked(granted: StoredCredentials) -> Result<StoredCredentials, Error> {
    match granted.token_response.as_ref().map(oauth2::TokenResponse::token_type) {
        Some(BasicTokenType::Bearer) => Ok(granted),
        _ => Err(Error::new(
            ErrorKind::NoToken,
            "the authorization server gave a token that is not of type Bearer; not used",
        )),
    }
}

/// Forgets a client that the authorization server does not know, so that it is registered again.
fn forget_unknown_client(record: &mut Record, refusal: Option<&str>) {
    if matches!(refusal, Some("invalid_client" | "unauthorized_client")) {
        record.client = None;
    }
}

/// Returns the resource that rmcp found. rmcp does not expose it, but puts it into each authorization request.
async fn found_resource(
    manager: &mut AuthorizationManager,
    metadata: &AuthorizationMetadata,
) -> Result<String, AuthError> {
    let mut any = metadata.clone();
    any.response_types_supported = None;
    any.code_challenge_methods_supported = Some(vec!["S256".to_owned()]);
    manager.set_metadata(any);
    manager.configure_client(OAuthClientConfig::new(CLIENT_NAME, callback::PLACEHOLDER_REDIRECT_URI))?;
    let url = manager.get_authorization_url(&[]).await?;
    manager.set_metadata(metadata.clone());
    Ok(parameter(&Url::parse(&url)?, "resource").unwrap_or_default())
}

fn parameter(url: &Url, name: &str) -> Option<String> {
    url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

/// Returns the server's URL without user, password and query: they may be secrets, and are not for an authorization
/// server.
pub(super) fn without_secrets(server: &ServerUrl) -> Url {
    let mut url = server.as_url().clone();
    url.set_query(None);
    // Fails only for URLs without a host, and this one has a host.
    let _ = (url.set_username(""), url.set_password(None));
    url
}

fn origin(url: &str) -> String {
    Url::parse(url).map(|url| url.origin().ascii_serialization()).unwrap_or_default()
}

/// Returns the error for a server that does not say where to sign in.
pub(super) fn no_sign_in(server: &str) -> Error {
    let summary = format!("{server} names no authorization server to sign in at");
    Error::new(ErrorKind::NoSignIn, summary).with_hint(Hint::Key)
}

fn refused(metadata: &AuthorizationMetadata, why: &str) -> Error {
    let who = metadata.issuer.as_deref().unwrap_or(&metadata.authorization_endpoint);
    Error::new(ErrorKind::NoToken, format!("the authorization server {who} cannot be used: {why}"))
}

/// True if this URL is a place for the issuer's metadata: at the issuer's origin, at one of the paths that MCP
/// specifies.
fn keeps(issuer: &str, at: &Url) -> bool {
    let Ok(issuer) = Url::parse(issuer) else { return false };
    let path = issuer.path().trim_matches('/');
    let documents = ["/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"];
    let is_place = |document: &str| {
        let Some(rest) = at.path().trim_end_matches('/').split_once(document) else { return false };
        match rest {
            ("", "") => true,
            ("", inserted) | (inserted, "") => inserted.strip_prefix('/') == Some(path),
            _ => false,
        }
    };
    issuer.origin() == at.origin() && documents.into_iter().any(is_place)
}
