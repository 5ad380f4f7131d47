//! Registering a client (RFC 7591): a native one without a secret. The authorization server may decide otherwise, and how the
//! client then proves itself is its word; rmcp registers for one grant alone, and does not hear that.

use http::{Request, header};
use serde::{Deserialize, Serialize};

use super::{
    sign_in::{CLIENT_NAME, Place, explained},
    store::Client,
};
use crate::error::{Error, Kind as Fault};

/// The metadata that says how clients may prove themselves.
pub(super) const METHODS: &str = "token_endpoint_auth_methods_supported";

/// What a client says of itself.
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
    /// For the authorization code grant.
    pub(super) fn browser(redirect_uri: &'a str, scopes: &[String]) -> Self {
        Self::new("authorization_code", &["code"], vec![redirect_uri], scopes)
    }

    /// For the device grant.
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

impl Place<'_> {
    /// Registers a client, as which the requests that follow are made.
    ///
    /// # Errors
    /// There is no such thing here, or it was refused.
    pub(super) async fn register(&mut self, registration: &Registration<'_>) -> Result<Client, Error> {
        #[derive(Deserialize)]
        struct Registered {
            client_id: String,
            client_secret: Option<String>,
            token_endpoint_auth_method: Option<String>,
        }
        let issuer = &self.key.issuer;
        let refused = |why: &str| {
            let summary = format!("{issuer}: {why}; --client-id gives a client that is known there");
            Error::new(Fault::NoToken, summary)
        };
        let endpoint = self.metadata.registration_endpoint.as_ref();
        let endpoint = endpoint.ok_or_else(|| refused("it registers no clients"))?;
        let body = serde_json::to_vec(registration).map_err(|error| refused("no registration").with_source(error))?;
        let request = Request::post(endpoint).header(header::CONTENT_TYPE, "application/json").body(body);
        let request = request.map_err(|error| refused("its registration endpoint is no URL").with_source(error))?;
        let response = self.http.ask(request, true).await;
        let response = response.map_err(|error| match self.http.take_forbidden() {
            Some(forbidden) => explained("a client cannot be registered", &forbidden).with_source(error),
            None => refused("a client cannot be registered").with_source(error),
        })?;
        if !response.status().is_success() {
            return Err(refused("it does not register a client").with_detail(&String::from_utf8_lossy(response.body())));
        }
        let registered: Registered = serde_json::from_slice(response.body())
            .map_err(|error| refused("its registration cannot be read").with_source(error))?;
        let method = registered.token_endpoint_auth_method;
        let is_public = method.as_deref() == Some("none");
        let client = Client {
            id: registered.client_id,
            secret: registered.client_secret.filter(|secret| !secret.is_empty() && !is_public),
            redirect_uri: registration.redirect_uris.concat(),
            method,
        };
        self.prove_as(&client);
        Ok(client)
    }

    /// From now on, requests prove to be this client's in the way that it was registered with, if the server has said one.
    pub(super) fn prove_as(&mut self, client: &Client) {
        if let Some(method) = &client.method {
            self.metadata.additional_fields.insert(METHODS.to_owned(), [method.as_str()].as_slice().into());
            self.manager.set_metadata(self.metadata.clone());
        }
    }
}
