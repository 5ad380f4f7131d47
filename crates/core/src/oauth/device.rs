//! The device grant (RFC 8628), for machines without a browser: the user signs in on another device.
//!
//! rmcp has no part in it beyond discovery, and registers clients for the authorization code grant alone, so both the
//! grant and the registration for it are here.

use http::{Request, header};
use oauth2::{
    AuthType, ClientId, ClientSecret, DeviceAuthorizationUrl, RequestTokenError, Scope,
    StandardDeviceAuthorizationResponse, StandardRevocableToken, TokenResponse as _, TokenUrl,
    basic::{BasicErrorResponse, BasicRevocationErrorResponse, BasicTokenIntrospectionResponse},
};
use rmcp::transport::auth::{OAuthTokenResponse, StoredCredentials};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::{
    Prompt, User,
    http::Directly,
    lock::Held,
    now,
    sign_in::{Place, checked},
    store::{Client, Record},
};
use crate::error::{Error, Kind as Fault};

type DeviceClient = oauth2::Client<
    BasicErrorResponse,
    OAuthTokenResponse,
    BasicTokenIntrospectionResponse,
    StandardRevocableToken,
    BasicRevocationErrorResponse,
>;

const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

impl Place<'_> {
    /// Shows a code and waits until the user has typed it in elsewhere.
    ///
    /// # Errors
    /// The user or the authorization server refused, it took too long, or the server knows no such grant.
    pub(super) async fn by_device(
        &self,
        record: &mut Record,
        scopes: &[String],
        user: &User,
        lock: Option<&Held>,
    ) -> Result<(), Error> {
        let Some(endpoint) = self.text("device_authorization_endpoint") else {
            let summary = format!("{} knows no sign-in by device code; leave out --device", self.key.issuer);
            return Err(Error::new(Fault::NoToken, summary));
        };
        let (id, secret) = self.device_client(record, scopes).await?;
        let unusable = |error: url::ParseError| Error::new(Fault::NoToken, "an endpoint is no URL").with_source(error);
        let mut client = DeviceClient::new(ClientId::new(id.clone()))
            .set_token_uri(TokenUrl::new(self.metadata.token_endpoint.clone()).map_err(unusable)?)
            .set_device_authorization_url(DeviceAuthorizationUrl::new(endpoint.to_owned()).map_err(unusable)?)
            .set_auth_type(if self.takes_secrets_in_forms() { AuthType::RequestBody } else { AuthType::BasicAuth });
        if let Some(secret) = secret {
            client = client.set_client_secret(ClientSecret::new(secret));
        }
        let http = Directly(&self.http);
        let request = client.exchange_device_code().add_scopes(scopes.iter().cloned().map(Scope::new));
        let request = request.add_extra_param("resource", &self.key.resource);
        let details: StandardDeviceAuthorizationResponse = request.request_async(&http).await.map_err(failed)?;
        let complete = details.verification_uri_complete().map(|url| url.secret().clone());
        let url = details.verification_uri().to_string();
        self.http.may_show(complete.as_deref().unwrap_or(&url)).await?;
        user.ask(Prompt::Device { url, complete, code: details.user_code().secret().clone() }, lock);
        let request = client.exchange_device_access_token(&details).add_extra_param("resource", &self.key.resource);
        let tokens = request.request_async(&http, sleep, None).await.map_err(failed)?;
        let granted = tokens.scopes().map(|scopes| scopes.iter().map(|scope| scope.to_string()).collect());
        let granted = granted.unwrap_or_else(|| scopes.to_vec());
        let stored = StoredCredentials::new(id, Some(tokens), granted, Some(now()));
        record.tokens = Some(checked(stored.with_issuer(self.metadata.issuer.clone()))?);
        Ok(())
    }

    /// Who we are there, in the same order as for the browser.
    async fn device_client(&self, record: &mut Record, scopes: &[String]) -> Result<(String, Option<String>), Error> {
        if let Some(id) = &self.settings.client_id {
            return Ok((id.clone(), self.settings.secret()));
        }
        if let Some(url) = self.metadata_document() {
            return Ok((url.to_owned(), None));
        }
        // One that was registered for the browser need not be good for this.
        if let Some(client) = record.client.as_ref().filter(|client| client.redirect_uri.is_empty()) {
            return Ok((client.id.clone(), client.secret.clone()));
        }
        let (id, secret) = self.register_device(scopes).await?;
        record.client = Some(Client { id: id.clone(), secret: secret.clone(), redirect_uri: String::new() });
        Ok((id, secret))
    }

    async fn register_device(&self, scopes: &[String]) -> Result<(String, Option<String>), Error> {
        #[derive(Serialize)]
        struct Registration<'a> {
            client_name: &'a str,
            grant_types: [&'a str; 2],
            response_types: [&'a str; 0],
            redirect_uris: [&'a str; 0],
            token_endpoint_auth_method: &'a str,
            application_type: &'a str,
            #[serde(skip_serializing_if = "String::is_empty")]
            scope: String,
        }
        #[derive(Deserialize)]
        struct Registered {
            client_id: String,
            client_secret: Option<String>,
        }
        let refused = |why: &str| {
            let summary = format!("{}: {why}; --client-id gives a client that is known there", self.key.issuer);
            Error::new(Fault::NoToken, summary)
        };
        let endpoint = self.metadata.registration_endpoint.as_ref();
        let endpoint = endpoint.ok_or_else(|| refused("it registers no clients"))?;
        let registration = Registration {
            client_name: super::sign_in::CLIENT_NAME,
            grant_types: [GRANT, "refresh_token"],
            response_types: [],
            redirect_uris: [],
            token_endpoint_auth_method: "none",
            application_type: "native",
            scope: scopes.join(" "),
        };
        let body = serde_json::to_vec(&registration).map_err(|error| refused("no registration").with_source(error))?;
        let request = Request::post(endpoint).header(header::CONTENT_TYPE, "application/json").body(body);
        let request = request.map_err(|error| refused("its registration endpoint is no URL").with_source(error))?;
        let response = self.http.send(request, true).await?;
        if !response.status().is_success() {
            return Err(refused("it does not register a client").with_detail(&String::from_utf8_lossy(response.body())));
        }
        let registered: Registered = serde_json::from_slice(response.body())
            .map_err(|error| refused("its registration cannot be read").with_source(error))?;
        Ok((registered.client_id, registered.client_secret.filter(|secret| !secret.is_empty())))
    }
}

fn failed<E, T>(error: RequestTokenError<E, T>) -> Error
where
    E: std::error::Error + Send + Sync + 'static,
    T: oauth2::ErrorResponse + Send + Sync + 'static,
{
    Error::new(Fault::NoToken, "the sign-in by device code failed").with_source(error)
}
