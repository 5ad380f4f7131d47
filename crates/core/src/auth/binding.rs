//! Binds the user's own client to one authorization server.
//!
//! A client that the user has registered (`--client-id`, with a secret or a key) is known to one authorization
//! server. The MCP server names that server; if its word were enough, it could name one of its own and receive the
//! client's proof of identity. Two kinds of clients are not bound: one that the bridge registers itself has a record
//! for each issuer anyway, and a metadata document is public and proves nothing.
//!
//! Rule: the user names the issuer, or else it is the first one that the client is used with at this MCP server. The
//! binding is stored before the client's name is sent anywhere. Issuers are compared exactly (RFC 8414, 2).

use super::{
    sign_in::{Place, without_secrets},
    store::{Binding, Store},
};
use crate::{
    error::{Error, ErrorKind, Hint},
    http::ServerUrl,
};

impl Place<'_> {
    /// Checks that this is the authorization server of the user's client.
    ///
    /// # Errors
    /// It is another one, or it is unknown which one it is.
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
                "cannot read from the state folder which authorization server the client belongs to; the server \
                 names {named}"
            );
            Error::new(ErrorKind::Storage, summary).with_hint(Hint::Issuer).with_source(error)
        })?;
        if bound == *named { Ok(()) } else { Err(other("the one that the client was used with before", &bound)) }
    }
}
