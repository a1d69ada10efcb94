//! Mutual TLS, as between Weir's routers.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::verify_tls13_signature;
use rustls::server::ParsedCertificate;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use weir_mesh::identity::{ALPN_H2, SpiffeId, peer_id, provider};

use crate::net;

/// The client's side of mutual TLS.
#[derive(clap::Args, Default)]
pub struct TlsOptions {
    /// Our certificate chain, PEM, leaf first; turns on TLS 1.3 with HTTP/2
    #[arg(long, value_name = "FILE", requires_all = ["mtls_key", "mtls_ca"])]
    mtls_cert: Option<PathBuf>,
    /// Our private key, PEM
    #[arg(long, value_name = "FILE", requires = "mtls_cert")]
    mtls_key: Option<PathBuf>,
    /// The roots that the server's certificate must lead to, PEM
    #[arg(long, value_name = "FILE", requires = "mtls_cert")]
    mtls_ca: Option<PathBuf>,
    /// Who the server must be, as a SPIFFE id; or the DNS name to ask for, of
    /// which only the chain is checked
    #[arg(long, value_name = "NAME", requires = "mtls_cert")]
    server_name: Option<String>,
}

/// How to connect with TLS.
#[derive(Clone)]
pub struct Tls {
    connector: TlsConnector,
    /// Instead of the address.
    name: Option<ServerName<'static>>,
}

impl TlsOptions {
    /// Reads the files; nothing if TLS is not wanted.
    pub fn load(&self) -> Result<Option<Tls>, String> {
        let (Some(cert), Some(key), Some(ca)) = (&self.mtls_cert, &self.mtls_key, &self.mtls_ca)
        else {
            return Ok(None);
        };
        let named = |flag: &str, path: &PathBuf, e: &dyn ToString| {
            format!("{flag} {}: {}", path.display(), e.to_string())
        };
        let chain = certificates(cert).map_err(|e| named("--mtls-cert", cert, &e))?;
        let roots = certificates(ca).map_err(|e| named("--mtls-ca", ca, &e))?;
        let key = PrivateKeyDer::from_pem_file(key).map_err(|e| named("--mtls-key", key, &e))?;
        let mut store = RootCertStore::empty();
        for root in roots {
            store.add(root).map_err(|e| named("--mtls-ca", ca, &e))?;
        }
        let (expected, name) = self.server()?;
        let verifier = ChainVerifier { roots: store, expected };
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|e| e.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(chain, key)
            .map_err(|e| named("--mtls-cert", cert, &e))?;
        config.alpn_protocols = ALPN_H2.iter().map(|protocol| protocol.to_vec()).collect();
        config.resumption = Resumption::disabled();
        config.enable_sni = name.is_some();
        Ok(Some(Tls { connector: Arc::new(config).into(), name }))
    }

    fn server(&self) -> Result<(Option<SpiffeId>, Option<ServerName<'static>>), String> {
        match self.server_name.as_deref() {
            None => Ok((None, None)),
            Some(id) if id.starts_with("spiffe://") => match id.parse() {
                Ok(id) => Ok((Some(id), None)),
                Err(error) => Err(format!("--server-name {id}: {error}")),
            },
            Some(name) => match ServerName::try_from(name.to_owned()) {
                Ok(server) => Ok((None, Some(server))),
                Err(_) => Err(format!("--server-name {name}: no DNS name and no spiffe:// id")),
            },
        }
    }
}

fn certificates(path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = CertificateDer::pem_file_iter(path).map_err(|e| e.to_string())?;
    let all: Vec<_> = pem.collect::<Result<_, _>>().map_err(|e| e.to_string())?;
    if all.is_empty() { Err("holds no certificate".into()) } else { Ok(all) }
}

impl Tls {
    /// Connects; the other side must speak HTTP/2.
    pub async fn connect(&self, address: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
        let stream = net::connect(address).await?;
        let name = self.name.clone().unwrap_or_else(|| ServerName::from(address.ip()));
        let stream = self.connector.connect(name, stream).await?;
        match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => Ok(stream),
            _ => Err(io::Error::other("the server did not choose h2 (ALPN)")),
        }
    }
}

/// Checks that a chain leads to the roots and, if it is known, whose it is: a
/// workload's certificate has a SPIFFE id and no DNS name.
#[derive(Debug)]
struct ChainVerifier {
    roots: RootCertStore,
    expected: Option<SpiffeId>,
}

impl ServerCertVerifier for ChainVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end_entity)?,
            &self.roots,
            intermediates,
            now,
            provider().signature_verification_algorithms.all,
        )?;
        let Some(expected) = &self.expected else { return Ok(ServerCertVerified::assertion()) };
        match peer_id(std::slice::from_ref(end_entity)) {
            Ok(id) if id == *expected => Ok(ServerCertVerified::assertion()),
            _ => Err(CertificateError::NotValidForName.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("only TLS 1.3 is spoken".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let provider = provider();
        verify_tls13_signature(message, cert, dss, &provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
