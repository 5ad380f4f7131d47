//! Servers behind TLS: the tests' own certificate authority, and a small HTTP/2 server.

use std::sync::Arc;

use bytes::Bytes;
use h2::{Reason, RecvStream, server::SendResponse};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivateKeyDer},
        server::WebPkiClientVerifier,
    },
};

use super::within;

/// A certificate authority that is not trusted by default.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// Creates an authority with its own key.
    #[allow(clippy::new_without_default, reason = "each is another one")]
    pub fn new() -> Self {
        Self::named("an authority for tests")
    }

    /// Creates an authority with this name.
    pub fn named(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        Self::with(params)
    }

    /// Creates an authority with this certificate.
    pub fn with(mut params: CertificateParams) -> Self {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self { issuer: CertifiedIssuer::self_signed(params, key).expect("a certificate") }
    }

    /// Returns its certificate.
    pub fn pem(&self) -> Vec<u8> {
        self.issuer.pem().into_bytes()
    }

    /// Returns settings of a server that proves to be `host`.
    pub fn server_config(&self, host: &str) -> ServerConfig {
        self.server_config_of(&CertificateParams::new(vec![host.to_owned()]).expect("a host name"), None)
    }

    /// Returns settings of a server with this certificate. It accepts only clients with a certificate from `clients`.
    pub fn server_config_of(&self, params: &CertificateParams, clients: Option<&Authority>) -> ServerConfig {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        server_config(certificate.der(), &key, clients)
    }

    /// Returns settings of a server that presents the authority's own certificate.
    pub fn own_server_config(&self) -> ServerConfig {
        server_config(self.issuer.der(), self.issuer.key(), None)
    }

    /// Returns a certificate for a client, and its key.
    pub fn client(&self) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let certificate = CertificateParams::default().signed_by(&key, &self.issuer).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }
}

fn server_config(certificate: &CertificateDer<'static>, key: &KeyPair, clients: Option<&Authority>) -> ServerConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("known versions");
    let config = match clients {
        None => config.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.issuer.der().clone()).expect("a certificate");
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build();
            config.with_client_cert_verifier(verifier.expect("an authority"))
        }
    };
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    config.with_single_cert(vec![certificate.clone()], key).expect("a key that fits")
}

/// A server for `https://localhost` that speaks only HTTP/2.
pub struct H2Server {
    port: u16,
    arrivals: mpsc::UnboundedReceiver<H2Exchange>,
}

/// One request over HTTP/2.
pub struct H2Exchange {
    pub body: String,
    pub connection: usize,
    respond: SendResponse<Bytes>,
}

impl H2Server {
    /// Listens with these settings, and adds its protocol to them.
    pub async fn start(mut config: ServerConfig) -> Self {
        config.alpn_protocols = vec![b"h2".to_vec()];
        let tls = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("a bound listener").port();
        let (arrived, arrivals) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            for connection in 0.. {
                let (stream, _) = listener.accept().await.expect("a connection");
                tokio::spawn(serve(tls.clone(), stream, connection, arrived.clone()));
            }
        });
        Self { port, arrivals }
    }

    /// Returns the URL of its MCP endpoint.
    pub fn url(&self) -> String {
        format!("https://localhost:{}/mcp", self.port)
    }

    /// Returns the next request.
    pub async fn next(&mut self) -> H2Exchange {
        within("a request over HTTP/2", self.arrivals.recv()).await.expect("the server listens")
    }
}

impl H2Exchange {
    /// Resets this request's stream, and leaves the connection open.
    pub fn reset(mut self) {
        self.respond.send_reset(Reason::INTERNAL_ERROR);
    }

    /// Sends a head with this header, and nothing more.
    pub fn head(mut self, name: &str, value: &str) {
        let head = http::Response::builder().header(name, value).body(()).expect("a head");
        self.respond.send_response(head, true).expect("an open stream");
    }

    /// Sends a JSON body with status 200.
    pub fn json(mut self, body: &str) {
        let head = http::Response::builder().header("content-type", "application/json").body(()).expect("a head");
        let mut stream = self.respond.send_response(head, false).expect("an open stream");
        stream.send_data(Bytes::copy_from_slice(body.as_bytes()), true).expect("an open stream");
    }
}

async fn serve(
    tls: TlsAcceptor,
    stream: tokio::net::TcpStream,
    connection: usize,
    arrived: mpsc::UnboundedSender<H2Exchange>,
) {
    let Ok(stream) = tls.accept(stream).await else { return };
    let Ok(mut streams) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, respond))) = streams.accept().await {
        let arrived = arrived.clone();
        tokio::spawn(async move {
            let body = text(request.into_body()).await;
            // The test may have ended.
            let _ = arrived.send(H2Exchange { body, connection, respond });
        });
    }
}

async fn text(mut body: RecvStream) -> String {
    let mut text = Vec::new();
    while let Some(Ok(data)) = body.data().await {
        text.extend_from_slice(&data);
    }
    String::from_utf8(text).expect("a body in UTF-8")
}
