//! Words the hints of errors with the names of the Python settings.

use mcp_gangway_core::Hint;

/// Returns the text of a hint.
pub(crate) fn words(hint: Hint) -> &'static str {
    match hint {
        Hint::Credentials => "pass credentials with auth or headers",
        Hint::Key => "pass a key or a token with auth",
        Hint::OtherIssuer => "if that is right, allow it with issuer",
        Hint::Issuer => "name the right one with issuer",
        Hint::OtherGrant | Hint::NotByDevice => "try another way to sign in",
        Hint::CallbackPort => "set another with callback_port",
        Hint::ClientId => "set one with client_id",
        Hint::KnownClient => "set a registered client with client_id, or pass a token with auth",
        Hint::Keychain => "use keychain=False to ignore it",
        Hint::Proxy => "check proxy or HTTPS_PROXY",
        Hint::ProxyAndNetwork => "check proxy or HTTPS_PROXY and the network",
        Hint::Network => "check the network and proxy",
        Hint::Server => "check that the server runs, the URL and proxy",
        Hint::Authority => "add an authority to trust with verify",
        Hint::AuthorityItself => "pass it with verify to trust it as the server's",
        Hint::ClientCertificate => "set one with cert",
        Hint::ClientCertificateFile => "cert needs a PEM file",
        Hint::ClientKey => "name its file with cert",
        Hint::ClientCertificateAndKey => "check cert",
        Hint::OpenFiles => "raise that limit (ulimit -n), or lower concurrency",
        Hint::RequestSize => "max_request_size sets this limit",
        Hint::MessageSize => "max_message_size sets this limit",
        Hint::TotalTime => "max_time sets this limit",
        Hint::IdleTime => "timeout sets this limit",
        // A hint that is newer than this program.
        hint => hint.as_str(),
    }
}
