//! How the server's certificate is judged: by the system's trust store and the user's certificates.
//!
//! Rule: nothing is loaded before a certificate is there to be judged. Reading the system's store takes milliseconds,
//! and a bridge to an `http` URL never needs it.

use std::sync::{Arc, OnceLock};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
};
use rustls_platform_verifier::Verifier;

use crate::{config::Tls, error::Error};

/// The TLS settings of the HTTP client: HTTP/2 where the server offers it, HTTP/1.1 otherwise.
///
/// # Errors
/// Certificates that cannot be read.
pub(crate) fn client_config(tls: &Tls) -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let trust = if tls.insecure {
        Trust::Anyone
    } else {
        Trust::System { extra: certificates(&tls.ca_certificates)?, verifier: OnceLock::new() }
    };
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::config("TLS cannot be set up").with_source(error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Judge { provider, trust }))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(files: &[Vec<u8>]) -> Result<Vec<CertificateDer<'static>>, Error> {
    const HINT: &str = "the CA certificate cannot be read; give a file in PEM form";
    let mut certificates = Vec::new();
    for pem in files {
        let before = certificates.len();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| Error::config(HINT).with_source(error))?;
            // What no trust store takes is better said now than at the first handshake.
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

#[derive(Debug)]
struct Judge {
    provider: Arc<CryptoProvider>,
    trust: Trust,
}

#[derive(Debug)]
enum Trust {
    /// The system's store and `extra`, read when the first certificate comes.
    System { extra: Vec<CertificateDer<'static>>, verifier: OnceLock<Result<Verifier, TlsError>> },
    /// Every certificate, as the user asked; the handshake's signatures are still checked.
    Anyone,
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let Trust::System { extra, verifier } = &self.trust else {
            return Ok(ServerCertVerified::assertion());
        };
        verifier
            .get_or_init(|| Verifier::new_with_extra_roots(extra.iter().cloned(), Arc::clone(&self.provider)))
            .as_ref()
            .map_err(Clone::clone)?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
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
