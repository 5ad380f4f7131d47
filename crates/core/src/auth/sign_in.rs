//! The ways to a token: which authorization server stands for the MCP server, which client we are there, and the grant.
//!
//! What the specification asks of a client is rmcp's: where the metadata is, the checks of issuer and resource, PKCE, the
//! requests for tokens. Here is what it leaves to its users, and what it leaves out:
//!
//! - Metadata that does not speak of PKCE is refused, as 2025-11-25 and later have it; rmcp goes on. So is one without S256,
//!   which rmcp looks at only where it registers a client itself.
//! - The resource can be another than the one that was found, or left out, and authorization requests can have other
//!   parameters beside; rmcp has no settings for either.
//! - A refusal of the authorization request is told, once its issuer is known to be the right one.
//! - Metadata counts only where its issuer keeps it (RFC 8414, 3.3); rmcp takes it from any path with `.well-known` in it, so that
//!   whoever serves one could speak for any issuer.
//! - rmcp logs codes and what comes with tokens, so it is silent while it has them.
//!
//! Rule: what the authorization server says is shown only if it is known that it has said so.

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

/// How long the authorization server is looked for.
const FIND_TIME: Duration = Duration::from_mins(2);
/// How long the user has to sign in.
pub(super) const SIGN_IN_TIME: Duration = Duration::from_mins(10);
/// What the client is called where it is registered.
pub(super) const CLIENT_NAME: &str = "mcp-gangway";

/// The authorization server that the MCP server has named, and what it is asked for.
pub(super) struct Place<'a> {
    pub(super) settings: &'a OAuth,
    pub(super) metadata: AuthorizationMetadata,
    pub(super) key: Key,
    pub(super) http: Arc<Http>,
    pub(super) manager: AuthorizationManager,
    /// Nothing is published of it; it is looked for where servers of 2025-03-26 have it.
    pub(super) is_guess: bool,
    /// What rmcp reads and writes while it works; the record is what is kept.
    tokens: InMemoryCredentialStore,
}

impl<'a> Place<'a> {
    /// Finds it, from what the server's refusal says or from where its metadata should be.
    ///
    /// # Errors
    /// There is none that may be used.
    pub(super) async fn find(
        settings: &'a OAuth,
        server: &ServerUrl,
        clients: AuthClients,
        challenge: &Challenge,
    ) -> Result<Self, Error> {
        let what = format!("{server} wants a sign-in, and none is possible");
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
            // That is a guess, and would hide why what the server has named is not used.
            http.take_forbidden().map_or(Ok(()), |forbidden| Err(explained(&what, &forbidden)))?;
        } else if !metadata.issuer.as_deref().zip(http.document()).is_some_and(|(issuer, at)| keeps(issuer, &at)) {
            return Err(refused(&metadata, "its metadata is not where its issuer keeps it"));
        }
        // What was not used has not been needed.
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
        // Whatever comes of the sign-in goes there, so nobody is asked for one that could not end.
        let may_show = http.may_show(&metadata.token_endpoint).await;
        may_show.map_err(|error| if is_guess { no_sign_in(&server.to_string()) } else { error })?;
        let issuer = metadata.issuer.clone().unwrap_or_else(|| origin(&metadata.token_endpoint));
        let key = Key { issuer, resource, client: settings.named_client() };
        Ok(Self { settings, metadata, key, http, manager, is_guess, tokens })
    }

    /// The scopes to ask for at first: those that the user wants, else those that the server does.
    pub(super) async fn first_scopes(&self) -> Vec<String> {
        if self.settings.scopes.is_empty() {
            self.manager.select_initial_scopes(&[]).await
        } else {
            self.settings.scopes.clone()
        }
    }

    /// Those that were granted and those that are missing (SEP-2350).
    pub(super) fn more_scopes(&self, granted: &[String], missing: &Challenge) -> Vec<String> {
        let mut known = HashSet::new();
        let asked = granted.iter().chain(&self.settings.scopes).map(String::as_str);
        let offered = self.metadata.scopes_supported.iter().flatten().map(String::as_str);
        // With it there are refresh tokens where they are not there anyway (SEP-2207).
        let offline = offered.filter(|scope| *scope == "offline_access");
        let scopes = asked.chain(missing.scopes()).chain(offline);
        scopes.filter(|scope| known.insert(*scope)).map(str::to_owned).collect()
    }

    /// Asks for new tokens with the old ones. False if the authorization server does not take them any more, or not from
    /// this client.
    ///
    /// # Errors
    /// It could not be asked, or gave no usable answer.
    pub(super) async fn refresh(&mut self, record: &mut Record) -> Result<bool, Error> {
        let Some(stored) = record.tokens.clone() else { return Ok(false) };
        let http = Arc::clone(&self.http);
        let failed = |error| http.failure("the tokens cannot be renewed", error);
        let mut config = OAuthClientConfig::new(&stored.client_id, callback::NOWHERE);
        config.client_secret = self.secret_of(record);
        if let Some(client) = &record.client {
            self.prove_as(client);
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
                // rmcp tells only one refusal from a failure (`invalid_grant`).
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

    /// The authorization code grant: the user signs in with a browser, which comes back to this machine.
    ///
    /// # Errors
    /// The user or the authorization server refused, or it took too long.
    pub(super) async fn by_browser(
        &mut self,
        record: &mut Record,
        scopes: &[String],
        user: &User,
        lock: Option<&HeldLock>,
    ) -> Result<(), Error> {
        let http = Arc::clone(&self.http);
        let failed = |error| http.failure("the sign-in cannot begin", error);
        if self.metadata.authorization_endpoint == self.metadata.token_endpoint {
            let issuer = &self.key.issuer;
            let summary = format!("{issuer} has no sign-in with a browser");
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
        let arrival = arrival.map_err(|_| Error::new(ErrorKind::NoToken, "nobody has signed in"))?;
        let outcome = self.exchange(&arrival, &state, record).await;
        user.has_come(arrival);
        outcome
    }

    /// What the browser brought becomes tokens.
    async fn exchange(&self, arrival: &Arrival, state: &str, record: &mut Record) -> Result<(), Error> {
        let issuer = arrival.issuer.as_deref();
        self.check_issuer(issuer)?;
        let code = arrival.answer.as_ref().map_err(|denial| {
            // It stands for this sign-in, which goes on in the browser.
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

    /// Who has sent the browser back must be who was asked (RFC 9207, 2.4): as it stands, in refusals too.
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

    /// Where the browser comes back to: the port and the host that the user wants, or that the client is registered with, or
    /// any port of 127.0.0.1.
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
            let summary = format!("port {port} of {host} cannot be listened on");
            Error::new(ErrorKind::NoToken, summary).with_hint(Hint::CallbackPort).with_source(error)
        })
    }

    /// Who we are there, in the specification's order: a client that the user has, one with a metadata document, one that
    /// was registered before, one that is registered now.
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
            self.prove_as(&client);
            client
        } else {
            // Some servers take only the name of this machine, others only its address (RFC 8252, 8.3).
            let other = callback.other_redirect_uri().filter(|_| self.settings.callback_host.is_none());
            let uris = [Some(&redirect_uri), other.as_ref()];
            let ways: Vec<_> = uris.into_iter().flatten().map(|uri| Registration::browser(uri, scopes)).collect();
            self.register(&ways).await?
        };
        record.client = Some(client.clone());
        Ok(new(&client.id, client.secret, &client.redirect_uri))
    }

    /// The document that says who we are, where it is of use.
    pub(super) fn metadata_document(&self) -> Option<&'a str> {
        let url = self.settings.client_metadata_url.as_deref();
        url.filter(|_| self.supports("client_id_metadata_document_supported"))
    }

    /// The authorization request with what the user wants in it.
    fn completed(&self, url: &str) -> Result<Url, Error> {
        let mut url = Url::parse(url)
            .map_err(|error| Error::new(ErrorKind::NoToken, "no URL to sign in at").with_source(error))?;
        if let Some(instead) = self.http.instead() {
            let query = replaced(url.query_pairs(), &instead);
            url.set_query(Some(&query));
        }
        url.query_pairs_mut().extend_pairs(&self.settings.parameters);
        Ok(url)
    }

    /// The client credentials grant: the client is its own user (SEP-1046).
    ///
    /// # Errors
    /// The authorization server refused, or could not be asked.
    pub(super) async fn by_credentials(mut self, record: &mut Record, scopes: Vec<String>) -> Result<(), Error> {
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
        // rmcp's future holds what must stay on its thread, so it gets one.
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

    /// The algorithm for a key: what its curve says, or for RSA the first that the authorization server takes.
    fn signing_algorithm(&self, pem: &str) -> JwtSigningAlgorithm {
        // How the object identifiers of the two curves stand in the key's DER.
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

    /// The secret of the client that a record's tokens were given to.
    pub(super) fn secret_of(&self, record: &Record) -> Option<String> {
        let id = record.tokens.as_ref().map(|tokens| &tokens.client_id);
        match &record.client {
            Some(client) if Some(&client.id) == id => client.secret.clone(),
            _ => self.settings.secret(),
        }
    }

    /// Whether a client's secret goes into the form, because the header is not offered.
    pub(super) fn takes_secrets_in_forms(&self) -> bool {
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

/// What rmcp was granted.
async fn granted(tokens: &InMemoryCredentialStore) -> Result<StoredCredentials, Error> {
    let none = || Error::new(ErrorKind::NoToken, "there is no token");
    let granted = tokens.load().await.map_err(|error| none().with_source(error))?;
    checked(granted.ok_or_else(none)?)
}

/// The tokens, if they are of the one kind that can be sent.
pub(super) fn checked(granted: StoredCredentials) -> Result<StoredCredentials, Error> {
    match granted.token_response.as_ref().map(oauth2::TokenResponse::token_type) {
        Some(BasicTokenType::Bearer) => Ok(granted),
        _ => Err(Error::new(
            ErrorKind::NoToken,
            "the authorization server gave a token of another kind than Bearer; not used",
        )),
    }
}

/// A client that the authorization server does not know is registered anew the next time.
fn forget_unknown_client(record: &mut Record, refusal: Option<&str>) {
    if matches!(refusal, Some("invalid_client" | "unauthorized_client")) {
        record.client = None;
    }
}

/// The resource that was found: rmcp keeps it to itself, but puts it into each authorization request.
async fn found_resource(
    manager: &mut AuthorizationManager,
    metadata: &AuthorizationMetadata,
) -> Result<String, AuthError> {
    let mut any = metadata.clone();
    any.response_types_supported = None;
    any.code_challenge_methods_supported = Some(vec!["S256".to_owned()]);
    manager.set_metadata(any);
    manager.configure_client(OAuthClientConfig::new(CLIENT_NAME, callback::NOWHERE))?;
    let url = manager.get_authorization_url(&[]).await?;
    manager.set_metadata(metadata.clone());
    Ok(parameter(&Url::parse(&url)?, "resource").unwrap_or_default())
}

fn parameter(url: &Url, name: &str) -> Option<String> {
    url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

/// The server's URL without what may be secret in it, which is nothing for an authorization server.
pub(super) fn without_secrets(server: &ServerUrl) -> Url {
    let mut url = server.as_url().clone();
    url.set_query(None);
    // Fails for URLs without a host, which this is not.
    let _ = (url.set_username(""), url.set_password(None));
    url
}

fn origin(url: &str) -> String {
    Url::parse(url).map(|url| url.origin().ascii_serialization()).unwrap_or_default()
}

/// Nobody signs in at a server that tells nothing of how.
pub(super) fn no_sign_in(server: &str) -> Error {
    let summary = format!("{server} names no authorization server to sign in at");
    Error::new(ErrorKind::NoSignIn, summary).with_hint(Hint::Key)
}

fn refused(metadata: &AuthorizationMetadata, why: &str) -> Error {
    let who = metadata.issuer.as_deref().unwrap_or(&metadata.authorization_endpoint);
    Error::new(ErrorKind::NoToken, format!("the authorization server {who} cannot be used: {why}"))
}

/// Whether an issuer keeps its metadata there: at its own origin, in one of the places that the specification of MCP knows.
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
