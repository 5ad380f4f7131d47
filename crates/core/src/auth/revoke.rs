//! Signs out at the authorization server by revoking tokens (RFC 7009), if it offers that. Tokens that are deleted
//! here are then no longer valid anywhere.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{Request, header};
use oauth2::TokenResponse as _;
use url::form_urlencoded::{self, byte_serialize};

use super::{sign_in::Place, store::Record};
use crate::error::{Error, ErrorKind};

impl Place<'_> {
    /// Revokes all tokens of a record. Returns false if the authorization server does not offer that.
    ///
    /// # Errors
    /// The server refused, or could not be asked.
    pub(super) async fn revoke(&self, record: &Record) -> Result<bool, Error> {
        let Some(endpoint) = self.text("revocation_endpoint") else { return Ok(false) };
        let Some(stored) = &record.tokens else { return Ok(true) };
        let Some(tokens) = &stored.token_response else { return Ok(true) };
        // Revoking the refresh token ends the access token at many servers, but no server has to do that.
        let refresh = tokens.refresh_token().map(|token| (token.secret(), "refresh_token"));
        for (token, kind) in refresh.into_iter().chain([(tokens.access_token().secret(), "access_token")]) {
            self.revoke_one(endpoint, &stored.client_id, self.secret_of(record).as_deref(), (token, kind)).await?;
        }
        Ok(true)
    }

    async fn revoke_one(
        &self,
        endpoint: &str,
        client: &str,
        secret: Option<&str>,
        (token, kind): (&String, &str),
    ) -> Result<(), Error> {
        let mut request = Request::post(endpoint).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        let mut members = vec![("token", token.as_str()), ("token_type_hint", kind)];
        match secret {
            Some(secret) if !self.sends_secret_in_body() => {
                request = request.header(header::AUTHORIZATION, basic(client, secret));
            }
            Some(secret) => members.extend([("client_id", client), ("client_secret", secret)]),
            None => members.push(("client_id", client)),
        }
        let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(members).finish();
        let request = request
            .body(form.into_bytes())
            .map_err(|error| Error::new(ErrorKind::NoToken, "the revocation endpoint is invalid").with_source(error))?;
        let response = self.http.ask(request, false).await?;
        if response.status().is_success() {
            return Ok(());
        }
        let summary = format!("the authorization server responds with {} to the revocation", response.status());
        Err(Error::new(ErrorKind::NoToken, summary).with_detail(&String::from_utf8_lossy(response.body())))
    }
}

/// Encodes client credentials as in RFC 6749, 2.3.1.
fn basic(client: &str, secret: &str) -> String {
    let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
    format!("Basic {}", STANDARD.encode(format!("{}:{}", encoded(client), encoded(secret))))
}
