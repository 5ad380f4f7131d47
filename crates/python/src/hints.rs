//! What helps against an error, with the names that settings have in Python.

use mcp_gangway_core::Hint;

/// What helps, in these words.
pub(crate) fn words(hint: Hint) -> &'static str {
    match hint {
        Hint::Credentials => "give credentials with auth or headers",
        Hint::Key => "give a key or a token with auth",
        Hint::OtherIssuer => "issuer allows it if that is right",
        Hint::Issuer => "issuer says it",
        Hint::OtherGrant | Hint::NotByDevice => "try another way to sign in",
        Hint::CallbackPort => "choose another port for sign-ins to come back to",
        Hint::ClientId => "client_id gives one",
        Hint::KnownClient => "client_id gives a client that is known there, auth a token",
        Hint::Keychain => "keychain=False leaves what is in it alone",
        Hint::Proxy => "check proxy or HTTPS_PROXY",
        Hint::ProxyAndNetwork => "check proxy or HTTPS_PROXY and the network",
        Hint::Network => "check the network and proxy",
        Hint::Server => "check that the server runs, the URL and proxy",
        Hint::Authority => "verify adds an authority to trust",
        Hint::AuthorityItself => "give it by verify to trust it as the server's",
        Hint::ClientCertificate => "cert gives one",
        Hint::ClientCertificateFile => "cert takes a file in PEM form",
        Hint::ClientKey => "cert names its file",
        Hint::ClientCertificateAndKey => "check cert",
        Hint::OpenFiles => "raise that limit (ulimit -n), or lower concurrency",
        Hint::RequestSize => "max_request_size sets this limit",
        Hint::MessageSize => "max_message_size sets this limit",
        Hint::TotalTime => "max_time sets this limit",
        Hint::IdleTime => "timeout sets this limit",
        // One that is newer than this program.
        hint => hint.as_str(),
    }
}
