//! For which authorization server the user's own client is.
//!
//! A client that the user has registered (`--client-id`, with a secret or a key) is known to one authorization server. The MCP
//! server names one; if its word were enough, it could name its own and be sent what proves who the client is. A client
//! that is registered on the way has a record for each issuer anyway, and a metadata document is there for everybody to
//! read and proves nothing: neither is bound.
//!
//! Rule: the user says which issuer it is, else it is the first that the client was used with at this MCP server. That is
//! kept before the client's name is sent anywhere. Issuers are compared to the letter (RFC 8414, 2).

use super::{
    sign_in::{Place, without_secrets},
    store::{Binding, Store},
};
use crate::{
    error::{Error, ErrorKind, Hint},
    http::ServerUrl,
};

impl Place<'_> {
    /// Finds out whether this is the authorization server that the user's client is for.
    ///
    /// # Errors
    /// It is another, or it is not known which one it is.
    pub(super) async fn is_meant(&self, server: &ServerUrl, store: &Store) -> Result<(), Error> {
        let named = &self.key.issuer;
        let other = |whose: &str, issuer: &str| {
            let summary = format!(
                "{server} names the authorization server {named}, but {whose} is {issuer}; nothing was sent there"
            );
            Error::new(ErrorKind::OtherIssuer, summary).with_hint(Hint::OtherIssuer)
        };
        let wanted = self.settings.issuer.as_deref();
        if let Some(wanted) = wanted.filter(|wanted| wanted != named) {
            return Err(other("the one in the settings", wanted));
        }
        let Some(client) = self.settings.client_id.clone() else { return Ok(()) };
        let binding = Binding { server: without_secrets(server).into(), client, issuer: named.clone() };
        let bound = store.bind(&binding, wanted.is_some()).await.map_err(|error| {
            let summary = format!(
                "which authorization server the client is for cannot be read from the folder for sign-ins, and \
                 {named} is the one that the server names"
            );
            Error::new(ErrorKind::Storage, summary).with_hint(Hint::Issuer).with_source(error)
        })?;
        if bound == *named { Ok(()) } else { Err(other("the one that the client was used with before", &bound)) }
    }
}
