//! Registers a native client without a secret (RFC 7591). The authorization server may decide otherwise, and its
//! response says how the client authenticates. rmcp can register for one grant only, and ignores that part of the
//! response.

use crate::{
    error::{Error, ErrorKind, Hint},
    wire::error_text,
};
use http::{Request, StatusCode, header};
use serde::{Deserialize, Serialize};

use super::{
    requests::explained,
    sign_in::{CLIENT_NAME, Place, no_sign_in},
    store::RegisteredClient,
};

/// The metadata field with the methods that clients may authenticate with.
pub(super) const METHODS: &str = "token_endpoint_auth_methods_supported";

/// The metadata of a client.
#[derive(Serialize)]
pub(super) struct Registration<'a> {
    client_name: &'a str,
    grant_types: [&'a str; 2],
    response_types: &'a [&'a str],
    redirect_uris: Vec<&'a str>,
    token_endpoint_auth_method: &'a str,
    application_type: &'a str,
    #[serde(skip_serializing_if = "String::is_empty")]
    scope: String,
}

impl<'a> Registration<'a> {
    /// Returns the metadata for the authorization code grant.
    pub(super) fn browser(redirect_uri: &'a str, scopes: &[String]) -> Self {
        Self::new("authorization_code", &["code"], vec![redirect_uri], scopes)
    }

    /// Returns the metadata for the device grant.
    pub(super) fn device(scopes: &[String]) -> Self {
        Self::new("urn:ietf:params:oauth:grant-type:device_code", &[], Vec::new(), scopes)
    }

    fn new(grant: &'a str, response_types: &'a [&'a str], redirect_uris: Vec<&'a str>, scopes: &[String]) -> Self {
        Self {
            client_name: CLIENT_NAME,
            grant_types: [grant, "refresh_token"],
            response_types,
            redirect_uris,
            token_endpoint_auth_method: "none",
            application_type: "native",
            scope: scopes.join(" "),
        }
    }
}

/// The response of an authorization server that has registered a client.
#[derive(Deserialize)]
struct Registered {
    client_id: String,
    client_secret: Option<String>,
    token_endpoint_auth_method: Option<String>,
}

/// Why a client was not registered.
enum RegistrationRefusal {
    /// The server rejected the metadata, so other metadata may succeed.
    OfWhatItSays(Error),
    Final(Error),
}

impl Place<'_> {
    /// Registers a client, and makes all later requests as this client. If the server rejects the first metadata,
    /// tries the next.
    ///
    /// # Errors
    /// The server has no registration, or refused it.
    pub(super) async fn register(&mut self, registrations: &[Registration<'_>]) -> Result<RegisteredClient, Error> {
        let mut first = None;
        for registration in registrations {
            let registered = match self.try_to_register(registration).await {
                Ok(registered) => registered,
                Err(RegistrationRefusal::Final(error)) => return Err(first.unwrap_or(error)),
                Err(RegistrationRefusal::OfWhatItSays(error)) => {
                    first.get_or_insert(error);
                    continue;
                }
            };
            let method = registered.token_endpoint_auth_method;
            let is_public = method.as_deref() == Some("none");
            let client = RegisteredClient {
                id: registered.client_id,
                secret: registered.client_secret.filter(|_| !is_public),
                redirect_uri: registration.redirect_uris.concat(),
                method,
            };
            self.authenticate_as(&client);
            return Ok(client);
        }
        Err(first.unwrap_or_else(|| self.not_registered("no registration")))
    }

    async fn try_to_register(&self, registration: &Registration<'_>) -> Result<Registered, RegistrationRefusal> {
        let endpoint = self.metadata.registration_endpoint.as_ref();
        let endpoint =
            endpoint.ok_or_else(|| RegistrationRefusal::Final(self.not_registered("it does not register clients")))?;
        let failed = |why: &str, error: crate::error::Cause| {
            RegistrationRefusal::Final(self.not_registered(why).with_source(error))
        };
        let body = serde_json::to_vec(registration).map_err(|error| failed("no registration", error.into()))?;
        let request = Request::post(endpoint).header(header::CONTENT_TYPE, "application/json").body(body);
        let request = request.map_err(|error| failed("its registration endpoint is not a URL", error.into()))?;
        let response = self.http.ask(request, true).await.map_err(|error| match self.http.take_forbidden() {
            Some(forbidden) => {
                RegistrationRefusal::Final(explained("a client cannot be registered", &forbidden).with_source(error))
            }
            None => failed("a client cannot be registered", error.into()),
        })?;
        if !response.status().is_success() {
            let said = String::from_utf8_lossy(response.body());
            let words = error_text::of(&said).map(|words| format!(": {words}")).unwrap_or_default();
            let error = self.not_registered(&format!("it does not register a client{words}")).with_detail(&said);
            let is_of_what_it_says =
                matches!(response.status(), StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY);
            return Err(if is_of_what_it_says {
                RegistrationRefusal::OfWhatItSays(error)
            } else {
                RegistrationRefusal::Final(error)
            });
        }
        serde_json::from_slice(response.body()).map_err(|error| failed("its response cannot be read", error.into()))
    }

    fn not_registered(&self, why: &str) -> Error {
        // Without published metadata, the endpoint was only a guess.
        if self.is_guess {
            return no_sign_in(&self.key.issuer);
        }
        let issuer = &self.key.issuer;
        let summary = format!("{issuer}: {why}");
        Error::new(ErrorKind::NoToken, summary).with_hint(Hint::KnownClient)
    }

    /// Makes later requests authenticate as this client, with the method that the server chose at registration, if it
    /// chose one.
    pub(super) fn authenticate_as(&mut self, client: &RegisteredClient) {
        if let Some(method) = &client.method {
            self.metadata.additional_fields.insert(METHODS.to_owned(), [method.as_str()].as_slice().into());
            self.manager.set_metadata(self.metadata.clone());
        }
    }
}
