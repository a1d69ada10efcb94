//! TLS configurations of the mesh.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::{self, cipher_suite};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::{NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};

use super::verify::{ExpectedIdVerifier, TrustDomainVerifier};
use super::{IdentityError, SpiffeId, Svid, TrustBundle};

/// Protocols to offer (ALPN, RFC 7301) where only HTTP/2 is spoken.
pub const ALPN_H2: &[&[u8]] = &[b"h2"];

/// What tells a router's mutual TLS from an application's own TLS on the same port,
/// before anybody has answered.
pub const MESH_PROTOCOL: &[u8] = b"weir/1";

/// What routers offer each other: [`MESH_PROTOCOL`], which is HTTP/2, and `h2` alone
/// for routers that do not know it.
pub const ALPN_MESH: &[&[u8]] = &[MESH_PROTOCOL, b"h2"];

/// Weir's cryptography: aws-lc-rs with the TLS 1.3 suites, the fastest on
/// machines with AES instructions first, and elliptic curves before the larger
/// hybrid key exchange.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    let make = || {
        let groups: [&'static dyn SupportedKxGroup; 4] = [
            aws_lc_rs::kx_group::X25519,
            aws_lc_rs::kx_group::SECP256R1,
            aws_lc_rs::kx_group::SECP384R1,
            aws_lc_rs::kx_group::X25519MLKEM768,
        ];
        Arc::new(CryptoProvider {
            cipher_suites: vec![
                cipher_suite::TLS13_AES_128_GCM_SHA256,
                cipher_suite::TLS13_AES_256_GCM_SHA384,
                cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            ],
            kx_groups: groups.to_vec(),
            ..aws_lc_rs::default_provider()
        })
    };
    PROVIDER.get_or_init(make).clone()
}

/// For a listener that only workloads of the same trust domain may reach.
///
/// A client certificate is required; it must lead to a root of `bundle` and
/// hold exactly one SPIFFE id, of the trust domain of `svid`. `alpn` lists the
/// protocols to accept, the preferred one first.
///
/// # Errors
/// When rustls refuses the parts; with a valid [`Svid`] and [`TrustBundle`]
/// it does not.
pub fn server_config(
    svid: &Svid,
    bundle: &TrustBundle,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, IdentityError> {
    server(svid, bundle, alpn, false)
}

/// Like [`server_config`], but a client may come without a certificate (it has
/// none before its first `Sign`). One that brings a certificate is checked no
/// less.
///
/// # Errors
/// As [`server_config`].
pub fn server_config_optional_client(
    svid: &Svid,
    bundle: &TrustBundle,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, IdentityError> {
    server(svid, bundle, alpn, true)
}

fn server(
    svid: &Svid,
    bundle: &TrustBundle,
    alpn: &[&[u8]],
    optional_client: bool,
) -> Result<Arc<ServerConfig>, IdentityError> {
    let mut builder = WebPkiClientVerifier::builder_with_provider(bundle.store.clone(), provider());
    if optional_client {
        builder = builder.allow_unauthenticated();
    }
    let inner = builder.build().map_err(|e| rustls::Error::General(e.to_string()))?;
    let trust_domain = svid.id().trust_domain().to_owned();
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(TrustDomainVerifier { inner, trust_domain }))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(svid.certified())));
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    // A resumed session is not verified again: it would outlive a certificate
    // or a root.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// For a listener that faces the outside: TLS 1.3, HTTP/2 and HTTP/1.1, no client
/// certificate.
///
/// # Errors
/// When rustls refuses the parts.
pub fn outside_server_config(
    certificates: Arc<dyn ResolvesServerCert>,
) -> Result<Arc<ServerConfig>, IdentityError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Tickets would outlive the key that a Secret takes back.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// A server's certificate and key, of DER: the key as PKCS#8, PKCS#1 or SEC1.
///
/// # Errors
/// When the key cannot be read, or is not the certificate's.
pub fn certified_key(chain: &[Bytes], key: &Bytes) -> Result<Arc<CertifiedKey>, IdentityError> {
    let key = PrivateKeyDer::try_from(key.to_vec())
        .map_err(|_| IdentityError::Key("is no PKCS#8, PKCS#1 or SEC1"))?;
    let signer = provider()
        .key_provider
        .load_private_key(key)
        .map_err(|_| IdentityError::Key("cannot be used"))?;
    let chain = chain.iter().map(|der| der.to_vec().into()).collect();
    let certified = CertifiedKey::new(chain, signer);
    certified.keys_match().map_err(|_| IdentityError::Key("is not the certificate's"))?;
    Ok(Arc::new(certified))
}

/// For connections to the one workload `expected`, presenting `svid`.
///
/// The server's certificate must lead to a root of `bundle` and hold exactly
/// the id `expected`. No name is sent (SNI), and none is checked: pass the
/// address as the server name, `ServerName::from(address.ip())`.
///
/// # Errors
/// When rustls refuses the parts; with a valid [`Svid`] and [`TrustBundle`]
/// it does not.
pub fn client_config(
    svid: &Svid,
    bundle: &TrustBundle,
    expected: &SpiffeId,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, IdentityError> {
    client(Some(svid), bundle, expected, alpn)
}

/// For the first connection to the control plane, before a workload has a
/// certificate of its own: HTTP/2, no client certificate.
///
/// # Errors
/// As [`client_config`].
pub fn bootstrap_client_config(
    bundle: &TrustBundle,
    expected: &SpiffeId,
) -> Result<Arc<ClientConfig>, IdentityError> {
    client(None, bundle, expected, ALPN_H2)
}

fn client(
    svid: Option<&Svid>,
    bundle: &TrustBundle,
    expected: &SpiffeId,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, IdentityError> {
    let verifier = ExpectedIdVerifier {
        roots: bundle.store.clone(),
        provider: provider(),
        expected: expected.clone(),
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match svid {
        Some(svid) => {
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(svid.certified())))
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(Arc::new(config))
}
