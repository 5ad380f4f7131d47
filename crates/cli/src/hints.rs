//! Words the hints of errors with the options of the command.

use mcp_gangway_core::Hint;

/// Returns the text of a hint.
pub(crate) fn words(hint: Hint) -> &'static str {
    match hint {
        Hint::Credentials => "pass credentials with --auth or --header",
        Hint::Key => "pass a key or a token with --auth",
        Hint::OtherIssuer => "if that is right, allow it with --issuer",
        Hint::Issuer => "name the right one with --issuer",
        Hint::OtherGrant => "try --device or --client-credentials",
        Hint::NotByDevice => "leave out --device",
        Hint::CallbackPort => "set another with --callback-port",
        Hint::ClientId => "set one with --client-id",
        Hint::KnownClient => "set a registered client with --client-id, or pass a token with --auth",
        Hint::Keychain => "use --no-keychain to ignore it",
        Hint::Proxy => "check --proxy or HTTPS_PROXY",
        Hint::ProxyAndNetwork => "check --proxy or HTTPS_PROXY and the network",
        Hint::Network => "check the network and --proxy",
        Hint::Server => "check that the server runs, the URL and --proxy",
        Hint::Authority => "--ca-cert adds an authority to trust",
        Hint::AuthorityItself => "give it by --ca-cert to trust it as the server's",
        Hint::ClientCertificate => "set one with --client-cert",
        Hint::ClientCertificateFile => "--client-cert needs a PEM file",
        Hint::ClientKey => "name its file with --client-key",
        Hint::ClientCertificateAndKey => "check --client-cert and --client-key",
        Hint::OpenFiles => "raise that limit (ulimit -n), or lower --concurrency",
        Hint::RequestSize => "--max-request-size sets this limit",
        Hint::MessageSize => "--max-message-size sets this limit",
        Hint::TotalTime => "--max-time sets this limit",
        Hint::IdleTime => "--timeout sets this limit",
        // A hint that is newer than this program.
        hint => hint.as_str(),
    }
}
