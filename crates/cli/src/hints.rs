//! What helps against an error, with the options of the command.

use mcp_gangway_core::Hint;

/// What helps, in these words.
pub(crate) fn words(hint: Hint) -> &'static str {
    match hint {
        Hint::Credentials => "give credentials with --auth or --header",
        Hint::Key => "give a key or a token with --auth",
        Hint::OtherIssuer => "--issuer allows it if that is right",
        Hint::Issuer => "--issuer says it",
        Hint::OtherGrant => "try --device or --client-credentials",
        Hint::NotByDevice => "leave out --device",
        Hint::CallbackPort => "--callback-port gives another",
        Hint::ClientId => "--client-id gives one",
        Hint::KnownClient => "--client-id gives a client that is known there, --auth a token",
        Hint::Keychain => "--no-keychain leaves what is in it alone",
        Hint::Proxy => "check --proxy or HTTPS_PROXY",
        Hint::ProxyAndNetwork => "check --proxy or HTTPS_PROXY and the network",
        Hint::Network => "check the network and --proxy",
        Hint::Server => "check that the server runs, the URL and --proxy",
        Hint::Authority => "--ca-cert adds an authority to trust",
        Hint::AuthorityItself => "give it by --ca-cert to trust it as the server's",
        Hint::ClientCertificate => "--client-cert gives one",
        Hint::ClientCertificateFile => "--client-cert takes a file in PEM form",
        Hint::ClientKey => "--client-key names its file",
        Hint::ClientCertificateAndKey => "check --client-cert and --client-key",
        Hint::OpenFiles => "raise that limit (ulimit -n), or lower --concurrency",
        Hint::RequestSize => "--max-request-size sets this limit",
        Hint::MessageSize => "--max-message-size sets this limit",
        Hint::TotalTime => "--max-time sets this limit",
        Hint::IdleTime => "--timeout sets this limit",
        // One that is newer than this program.
        hint => hint.as_str(),
    }
}
