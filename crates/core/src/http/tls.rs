//! TLS: verifies server certificates against the system's trust store and the user's certificates, presents the
//! client certificate, and explains failed handshakes.
//!
//! Rule: loads nothing before it is needed. Reading the system's store takes milliseconds, and the cryptography
//! library alone takes noticeable memory. A bridge to an `http` URL needs neither.

use crate::{
    error::{Error, ErrorKind, Hint},
    http::{ClientIdentity, Tls as Settings, UriWithoutQuery},
};
use std::{
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use rustls::{
    AlertDescription as Alert, CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError,
    InvalidMessage, OtherError, PeerIncompatible, RootCertStore, SignatureScheme,
    client::{
        ResolvesClientCert,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
    server::ParsedCertificate,
    sign::CertifiedKey,
};
use rustls_platform_verifier::Verifier;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    runtime::Handle,
    sync::oneshot,
    task::spawn_blocking,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::connect::BoxError;

/// Makes TLS connections.
pub(super) struct TlsSetup {
    trust: Arc<Trust>,
    identity: Arc<Identity>,
    /// The HTTP versions that the server may choose from, as ALPN names.
    versions: &'static [&'static [u8]],
    connector: OnceLock<Result<TlsConnector, TlsError>>,
}

impl TlsSetup {
    pub(super) fn new(trust: &Arc<Trust>, identity: &Arc<Identity>, versions: &'static [&'static [u8]]) -> Arc<Self> {
        let (trust, identity) = (Arc::clone(trust), Arc::clone(identity));
        Arc::new(Self { trust, identity, versions, connector: OnceLock::new() })
    }

    /// Makes a TLS stream to this host over a plain stream.
    ///
    /// # Errors
    /// The host is not a valid name or address for TLS, or the handshake failed.
    pub(super) async fn secure<S>(&self, host: &str, stream: S) -> Result<TlsStream<S>, BoxError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let name = ServerName::try_from(host.to_owned())?;
        let connector = self.connector.get_or_init(|| self.connector()).as_ref().map_err(Clone::clone)?;
        let handshake = connector.connect(name, stream);
        Ok(if SYSTEM_VERIFIER_BLOCKS && matches!(*self.trust, Trust::System { .. }) {
            on_another_thread(handshake).await?
        } else {
            handshake.await?
        })
    }

    fn connector(&self) -> Result<TlsConnector, TlsError> {
        let provider = provider();
        let judge = CertificateVerifier { provider: Arc::clone(&provider), trust: Arc::clone(&self.trust) };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(judge))
            .with_client_cert_resolver(Arc::clone(&self.identity) as Arc<dyn ResolvesClientCert>);
        config.alpn_protocols = self.versions.iter().map(|version| version.to_vec()).collect();
        Ok(Arc::new(config).into())
    }
}

/// True if the system's verifier may ask the network during a handshake, for example whether a certificate was revoked,
/// and blocks its thread for seconds meanwhile.
const SYSTEM_VERIFIER_BLOCKS: bool = cfg!(any(windows, target_os = "macos"));

/// Runs a future on a thread of its own. Stops it if the returned future is dropped.
async fn on_another_thread<T: Send + 'static>(
    future: impl Future<Output = io::Result<T>> + Send + 'static,
) -> io::Result<T> {
    let (_caller, caller_left) = oneshot::channel::<()>();
    let runtime = Handle::current();
    let work = move || {
        runtime.block_on(async {
            tokio::select! {
                done = future => done,
                _ = caller_left => Err(io::ErrorKind::Interrupted.into()),
            }
        })
    };
    spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Which certificates are accepted.
#[derive(Debug)]
pub(super) enum Trust {
    /// Certificates that the system's store or `extra` vouches for. The store is read when the first certificate
    /// arrives.
    System { extra: Vec<CertificateDer<'static>>, verifier: OnceLock<Result<Verifier, TlsError>> },
    /// All certificates, as the user asked. The signatures of the handshake are still checked.
    Anyone,
}

impl Trust {
    /// Reads the settings.
    ///
    /// # Errors
    /// A certificate cannot be read.
    pub(super) fn read(settings: &Settings) -> Result<Arc<Self>, Error> {
        Ok(Arc::new(if settings.insecure {
            Self::Anyone
        } else {
            Self::System { extra: certificates(&settings.ca_certificates)?, verifier: OnceLock::new() }
        }))
    }
}

fn certificates(files: &[Vec<u8>]) -> Result<Vec<CertificateDer<'static>>, Error> {
    const HINT: &str = "the CA certificate cannot be read; give a file in PEM form";
    let mut certificates = Vec::new();
    for pem in files {
        let before = certificates.len();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| Error::config(HINT).with_source(error))?;
            // Report a certificate that no trust store accepts now, not at the first handshake.
            let readable = RootCertStore::empty().add(certificate.clone());
            readable.map_err(|error| Error::config(HINT).with_source(error))?;
            certificates.push(certificate);
        }
        if certificates.len() == before {
            return Err(Error::config("the CA file holds no certificate; give a file in PEM form"));
        }
    }
    Ok(certificates)
}

/// The client certificate for servers that ask for one. Remembers if one has asked.
#[derive(Debug)]
pub(super) struct Identity {
    key: Option<Arc<CertifiedKey>>,
    asked: AtomicBool,
}

/// Tells if a server has asked for a client certificate, and if it received one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CertificateRequest {
    No,
    /// It asked, and there was none to send.
    InVain,
    /// It asked and received one.
    Answered,
}

impl Identity {
    /// Returns an identity without a certificate.
    pub(super) fn none() -> Arc<Self> {
        Arc::new(Self { key: None, asked: AtomicBool::new(false) })
    }

    /// Returns the identity of the settings, which may have no certificate.
    ///
    /// # Errors
    /// The certificate or key cannot be read or used, or they do not belong together. The errors do not contain the
    /// contents of the files.
    pub(super) fn read(settings: &Settings) -> Result<Arc<Self>, Error> {
        let key = settings.client.as_ref().map(certified_key).transpose()?;
        Ok(Arc::new(Self { key, asked: AtomicBool::new(false) }))
    }

    /// True if there is a client certificate.
    pub(super) fn exists(&self) -> bool {
        self.key.is_some()
    }

    pub(super) fn asked(&self) -> CertificateRequest {
        match (self.asked.load(Ordering::Relaxed), &self.key) {
            (false, _) => CertificateRequest::No,
            (true, None) => CertificateRequest::InVain,
            (true, Some(_)) => CertificateRequest::Answered,
        }
    }
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asked.store(true, Ordering::Relaxed);
        self.key.clone()
    }

    fn has_certs(&self) -> bool {
        self.exists()
    }
}

fn certified_key(identity: &ClientIdentity) -> Result<Arc<CertifiedKey>, Error> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&identity.certificates)
        .collect::<Result<_, _>>()
        .map_err(|_| Error::config("the client certificate cannot be read").with_hint(Hint::ClientCertificateFile))?;
    if chain.is_empty() {
        return Err(Error::config("there is no client certificate in PEM form").with_hint(Hint::ClientCertificateFile));
    }
    let key = PrivateKeyDer::from_pem_slice(&identity.key).map_err(|_| {
        let is_encrypted = [&b"ENCRYPTED PRIVATE KEY-----"[..], b"Proc-Type: 4,ENCRYPTED"]
            .iter()
            .any(|mark| memchr::memmem::find(&identity.key, mark).is_some());
        if is_encrypted {
            Error::config(
                "the client's private key is encrypted; give one that is not (openssl pkey -in KEY -out PLAIN)",
            )
        } else {
            let summary = "there is no private key in PEM form for the client certificate";
            Error::config(summary).with_hint(Hint::ClientKey)
        }
    })?;
    let key = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
        TlsError::InconsistentKeys(_) => {
            let summary = "the client's private key does not belong to its certificate";
            Error::config(summary).with_hint(Hint::ClientCertificateAndKey)
        }
        error => {
            let summary = "the client certificate or its key cannot be used";
            Error::config(summary).with_hint(Hint::ClientCertificateAndKey).with_source(error)
        }
    })?;
    Ok(Arc::new(key))
}

/// True if this alert asks for a client certificate, or for another one. With TLS 1.3 it may arrive after the
/// connection was made. Some of the alerts have other meanings if no certificate was asked for.
pub(super) fn is_about_client_certificate(error: &TlsError, asked: CertificateRequest) -> bool {
    let TlsError::AlertReceived(alert) = error else { return false };
    match alert {
        Alert::CertificateRequired
        | Alert::NoCertificate
        | Alert::BadCertificate
        | Alert::UnsupportedCertificate
        | Alert::CertificateRevoked
        | Alert::CertificateExpired
        | Alert::CertificateUnknown
        | Alert::UnknownCA
        | Alert::AccessDenied => true,
        Alert::HandshakeFailure | Alert::DecryptError => asked != CertificateRequest::No,
        _ => false,
    }
}

/// Explains why there is no secure connection, and what helps.
pub(super) fn explain(error: &TlsError, url: &UriWithoutQuery<'_>, asked: CertificateRequest) -> Error {
    let explained = Error::new(ErrorKind::Tls, summary(error, url, asked));
    match hint(error, asked) {
        Some(hint) => explained.with_hint(hint),
        None => explained,
    }
}

/// Returns the setting that helps, if there is one.
fn hint(error: &TlsError, asked: CertificateRequest) -> Option<Hint> {
    match error {
        TlsError::InvalidCertificate(error) => match error {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Some(Hint::Authority),
            error if is_authority(error) => Some(Hint::AuthorityItself),
            error if is_the_servers(error) => None,
            _ => Some(Hint::Authority),
        },
        TlsError::General(_) => Some(Hint::Authority),
        error if is_about_client_certificate(error, asked) => Some(match asked {
            CertificateRequest::Answered => Hint::ClientCertificateAndKey,
            CertificateRequest::InVain | CertificateRequest::No => Hint::ClientCertificate,
        }),
        _ => None,
    }
}

/// True if only the owner of the certificate can fix the problem.
fn is_the_servers(error: &CertificateError) -> bool {
    matches!(
        error,
        CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. }
            | CertificateError::NotValidForName
            | CertificateError::NotValidForNameContext { .. }
            | CertificateError::Revoked
            | CertificateError::InvalidPurpose
            | CertificateError::InvalidPurposeContext { .. }
            | CertificateError::BadEncoding
    )
}

fn summary(error: &TlsError, url: &UriWithoutQuery<'_>, asked: CertificateRequest) -> String {
    match error {
        TlsError::InvalidCertificate(error) => explain_certificate(error, url),
        error if is_about_client_certificate(error, asked) => match asked {
            CertificateRequest::Answered => format!("{url} does not accept the client certificate"),
            CertificateRequest::InVain | CertificateRequest::No => {
                format!("{url} wants a client certificate")
            }
        },
        TlsError::AlertReceived(Alert::ProtocolVersion)
        | TlsError::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13 | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        ) => format!("{url} speaks only versions of TLS that are no longer safe; it needs TLS 1.2 or 1.3"),
        TlsError::AlertReceived(Alert::UnrecognisedName) => {
            format!("the server at {url} does not know this host name; check the URL")
        }
        TlsError::AlertReceived(Alert::HandshakeFailure | Alert::InsufficientSecurity)
        | TlsError::PeerIncompatible(_) => format!("{url} and the bridge have no way of encryption in common"),
        TlsError::InvalidMessage(InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion) => {
            format!("the server at {url} speaks no TLS; check the port, or use http if TLS is not intended")
        }
        TlsError::General(_) => {
            format!("the certificate of {url} cannot be verified: the system's trust store is unusable")
        }
        _ => format!("no secure connection to {url}"),
    }
}

fn explain_certificate(error: &CertificateError, url: &UriWithoutQuery<'_>) -> String {
    const CLOCK: &str = "or this machine's clock is wrong";
    match error {
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("the certificate of {url} has expired{}; its owner must renew it, {CLOCK}", on(*not_after))
        }
        CertificateError::Expired => {
            format!("the certificate of {url} has expired; its owner must renew it, {CLOCK}")
        }
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("the certificate of {url} is not valid yet, but from{} on; {CLOCK}", on(*not_before))
        }
        CertificateError::NotValidYet => format!("the certificate of {url} is not valid yet, {CLOCK}"),
        CertificateError::UnknownIssuer => {
            format!("the certificate of {url} comes from an authority that is not trusted here")
        }
        // Usually an authority that was set up again under its old name.
        CertificateError::BadSignature => {
            format!("the certificate of {url} is not signed by the authority of that name that is trusted here")
        }
        CertificateError::NotValidForNameContext { presented, .. } => {
            format!("the certificate of {url} is for {}; use a name that it has", names(presented))
        }
        CertificateError::NotValidForName => {
            format!("the certificate of {url} is for another host; use a name that it has")
        }
        CertificateError::Revoked => format!("the certificate of {url} was revoked; do not trust this server"),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            format!("the certificate of {url} is not meant for servers; its owner needs another")
        }
        CertificateError::BadEncoding => format!("the certificate of {url} is malformed"),
        error if is_authority(error) => {
            format!("the certificate of {url} is an authority's own")
        }
        // An error of the system's verifier, or one without a better description.
        _ => format!("the certificate of {url} is not accepted"),
    }
}

/// True if a server certificate was rejected because it is an authority's certificate.
fn is_authority(error: &CertificateError) -> bool {
    let CertificateError::Other(OtherError(error)) = error else { return false };
    matches!(error.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
}

/// Formats a date as in HTTP, or returns an empty text if it is out of range.
fn on(time: UnixTime) -> String {
    const LAST: Duration = Duration::from_secs(253_402_300_799);
    let since = Duration::from_secs(time.as_secs());
    match SystemTime::UNIX_EPOCH.checked_add(since) {
        Some(time) if since <= LAST => format!(" {}", httpdate::fmt_http_date(time)),
        _ => String::new(),
    }
}

/// Lists some of the names that a certificate is for. rustls formats them like `DnsName("example.com")`.
fn names(presented: &[String]) -> String {
    const MOST: usize = 4;
    const LONGEST: usize = 100;
    let mut names: Vec<&str> = presented
        .iter()
        .take(MOST)
        .map(|name| {
            let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
            let inner = inner.trim_matches('"');
            &inner[..inner.floor_char_boundary(LONGEST)]
        })
        .collect();
    match presented.len() {
        0 => return "no host at all".to_owned(),
        count if count > MOST => names.push("others"),
        _ => {}
    }
    names.join(", ")
}

#[derive(Debug)]
struct CertificateVerifier {
    provider: Arc<CryptoProvider>,
    trust: Arc<Trust>,
}

impl ServerCertVerifier for CertificateVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let Trust::System { extra, verifier } = &*self.trust else {
            return Ok(ServerCertVerified::assertion());
        };
        let judged = verifier
            .get_or_init(|| Verifier::new_with_extra_roots(extra.iter().cloned(), Arc::clone(&self.provider)))
            .as_ref()
            .map_err(Clone::clone)?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match judged {
            // A server may use a certificate from `openssl req -x509`, which is an authority's certificate. A user
            // who trusts exactly this certificate means the server, and OpenSSL accepts it too. Its validity period
            // was checked before this error.
            Err(TlsError::InvalidCertificate(error)) if is_authority(&error) && extra.contains(end_entity) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            judged => judged,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Instant};

    use super::*;

    #[tokio::test]
    async fn blocking_handshake_on_another_thread_leaves_this_one_free() {
        let is_free = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&is_free);
        let handshake = on_another_thread(async move {
            let begun = Instant::now();
            while !seen.load(Ordering::Relaxed) {
                if begun.elapsed() > Duration::from_secs(30) {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                thread::sleep(Duration::from_millis(1));
            }
            Ok(())
        });
        let other_work = async { is_free.store(true, Ordering::Relaxed) };
        tokio::join!(handshake, other_work).0.unwrap();
    }

    #[tokio::test]
    async fn handshake_on_another_thread_ends_with_its_caller() {
        let (held, mut gone) = oneshot::channel::<()>();
        let handshake = on_another_thread(async move {
            std::future::pending::<()>().await;
            drop(held);
            Ok(())
        });
        tokio::select! {
            _ = handshake => unreachable!("it never ends"),
            () = tokio::time::sleep(Duration::from_millis(5)) => {}
        }
        // The channel closes when the handshake's future is dropped.
        (&mut gone).await.unwrap_err();
    }
}
