//! The device grant (RFC 8628), for machines without a browser: the user signs in on another device. rmcp only does
//! the discovery.
//!
//! Rule: the grant ends when the code expires, or after the time limit of a sign-in. `answer` limits the times in the
//! server's responses before they are used.

use crate::{
    error::{Error, ErrorKind, Hint},
    text::excerpt,
};
use oauth2::{
    AuthType, ClientId, ClientSecret, DeviceAuthorizationUrl, RequestTokenError, Scope,
    StandardDeviceAuthorizationResponse, StandardRevocableToken, TokenResponse as _, TokenUrl,
    basic::{BasicErrorResponse, BasicRevocationErrorResponse, BasicTokenIntrospectionResponse},
};
use rmcp::transport::auth::{OAuthTokenResponse, StoredCredentials};
use tokio::time::{sleep, timeout};
use url::Url;

use super::{
    Prompt, User,
    lock::HeldLock,
    now,
    register::Registration,
    requests::OAuth2Http,
    sign_in::{Place, SIGN_IN_TIME, checked, no_sign_in},
    store::Record,
};

/// The longest user code to show. No user types more.
const MAX_CODE_BYTES: usize = 128;

type DeviceClient = oauth2::Client<
    BasicErrorResponse,
    OAuthTokenResponse,
    BasicTokenIntrospectionResponse,
    StandardRevocableToken,
    BasicRevocationErrorResponse,
>;

impl Place<'_> {
    /// Shows a code, and waits until the user has entered it on another device.
    ///
    /// # Errors
    /// The user or the authorization server refused, it took too long, or the server does not support this grant.
    pub(super) async fn authorize_with_device(
        &mut self,
        record: &mut Record,
        scopes: &[String],
        user: &User,
        lock: Option<&HeldLock>,
    ) -> Result<(), Error> {
        let Some(endpoint) = self.text("device_authorization_endpoint").map(str::to_owned) else {
            if self.is_guess {
                return Err(no_sign_in(&self.key.issuer));
            }
            let summary = format!("{} does not support sign-in by device code", self.key.issuer);
            return Err(Error::new(ErrorKind::NoToken, summary).with_hint(Hint::NotByDevice));
        };
        let (id, secret) = self.device_client(record, scopes).await?;
        let unusable =
            |error: url::ParseError| Error::new(ErrorKind::NoToken, "an endpoint is not a URL").with_source(error);
        let mut client = DeviceClient::new(ClientId::new(id.clone()))
            .set_token_uri(TokenUrl::new(self.metadata.token_endpoint.clone()).map_err(unusable)?)
            .set_device_authorization_url(DeviceAuthorizationUrl::new(endpoint).map_err(unusable)?)
            .set_auth_type(if self.sends_secret_in_body() { AuthType::RequestBody } else { AuthType::BasicAuth });
        if let Some(secret) = secret {
            client = client.set_client_secret(ClientSecret::new(secret));
        }
        let http = OAuth2Http(&self.http);
        let request = client.exchange_device_code().add_scopes(scopes.iter().cloned().map(Scope::new));
        let request = request.add_extra_param("resource", &self.key.resource);
        let details: StandardDeviceAuthorizationResponse =
            request.request_async(&http).await.map_err(|error| self.failed(error))?;
        // The server's text may contain anything, so show the parsed URL instead.
        let complete =
            details.verification_uri_complete().and_then(|url| Url::parse(url.secret()).ok()).map(String::from);
        let url = details.verification_uri().url().to_string();
        let code = excerpt(details.user_code().secret(), MAX_CODE_BYTES);
        self.http.may_show(complete.as_deref().unwrap_or(&url)).await?;
        user.ask(Prompt::Device { url, complete, code }, lock).await;
        let request = client.exchange_device_access_token(&details).add_extra_param("resource", &self.key.resource);
        let time = details.expires_in().min(SIGN_IN_TIME);
        let tokens = timeout(time, request.request_async(&http, sleep, Some(time))).await;
        let tokens = tokens.map_err(|_| Error::new(ErrorKind::NoToken, "the code was not entered in time"))?;
        let tokens = tokens.map_err(|error| self.failed(error))?;
        let granted = tokens.scopes().map(|scopes| scopes.iter().map(|scope| scope.to_string()).collect());
        let granted = granted.unwrap_or_else(|| scopes.to_vec());
        let stored = StoredCredentials::new(id, Some(tokens), granted, Some(now()));
        record.tokens = Some(checked(stored.with_issuer(self.metadata.issuer.clone()))?);
        Ok(())
    }

    /// Returns the client to use, in the same order as for the browser.
    async fn device_client(
        &mut self,
        record: &mut Record,
        scopes: &[String],
    ) -> Result<(String, Option<String>), Error> {
        if let Some(id) = &self.settings.client_id {
            return Ok((id.clone(), self.settings.secret()));
        }
        if let Some(url) = self.metadata_document() {
            return Ok((url.to_owned(), None));
        }
        // A client that was registered for the browser may not be valid for this grant.
        if let Some(client) = record.client.clone().filter(|client| client.redirect_uri.is_empty()) {
            self.authenticate_as(&client);
            return Ok((client.id, client.secret));
        }
        let client = self.register(&[Registration::device(scopes)]).await?;
        record.client = Some(client.clone());
        Ok((client.id, client.secret))
    }

    fn failed<E, T>(&self, error: RequestTokenError<E, T>) -> Error
    where
        E: std::error::Error + Send + Sync + 'static,
        T: oauth2::ErrorResponse + Send + Sync + 'static,
    {
        self.http.failure("the sign-in by device code failed", error)
    }
}
