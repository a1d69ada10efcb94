//! What makes a peer's certificate acceptable.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{IdentityError, SpiffeId};

/// Who the peer of a connection is, by its certificates (leaf first), as
/// `peer_certificates()` of a rustls connection gives them.
///
/// The handshake has checked them; this only reads the name.
///
/// # Errors
/// When there is no certificate, or the leaf is no X.509-SVID.
pub fn peer_id(certificates: &[CertificateDer<'_>]) -> Result<SpiffeId, IdentityError> {
    Ok(read_leaf(certificates.first().ok_or(IdentityError::NoCertificate)?)?.id)
}

pub(super) struct Leaf {
    pub id: SpiffeId,
    pub not_before: i64,
    pub not_after: i64,
}

/// Reads a leaf by the rules of X.509-SVID section 5.2.
pub(super) fn read_leaf(der: &CertificateDer<'_>) -> Result<Leaf, IdentityError> {
    let unreadable =
        |reason: &dyn ToString| IdentityError::Certificate { index: 0, reason: reason.to_string() };
    let (_, certificate) = X509Certificate::from_der(der).map_err(|e| unreadable(&e))?;
    let constraints = certificate.basic_constraints().map_err(|e| unreadable(&e))?;
    let usage = certificate.key_usage().map_err(|e| unreadable(&e))?;
    if constraints.is_some_and(|c| c.value.ca)
        || usage.is_some_and(|u| u.value.key_cert_sign() || u.value.crl_sign())
    {
        return Err(IdentityError::Authority);
    }
    let names = certificate.subject_alternative_name().map_err(|e| unreadable(&e))?;
    let uris: Vec<&str> = names
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
        .collect();
    let [uri] = uris[..] else { return Err(IdentityError::UriNames(uris.len())) };
    let validity = certificate.validity();
    Ok(Leaf {
        id: uri.parse()?,
        not_before: validity.not_before.timestamp(),
        not_after: validity.not_after.timestamp(),
    })
}

/// rustls shows the cause by its `Debug`; a person who reads a log wants the
/// sentence.
struct Reason(IdentityError);

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl std::error::Error for Reason {}

fn refuse(error: IdentityError) -> rustls::Error {
    rustls::Error::InvalidCertificate(match error {
        IdentityError::Certificate { .. } => CertificateError::BadEncoding,
        error => CertificateError::Other(OtherError(Arc::new(Reason(error)))),
    })
}

fn no_tls12() -> rustls::Error {
    rustls::Error::General("only TLS 1.3 is spoken in the mesh".into())
}

/// Lets in every workload of one trust domain.
#[derive(Debug)]
pub(super) struct TrustDomainVerifier {
    /// Checks chain, time and use.
    pub inner: Arc<dyn ClientCertVerifier>,
    pub trust_domain: String,
}

impl ClientCertVerifier for TrustDomainVerifier {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        let id = read_leaf(end_entity).map_err(refuse)?.id;
        if id.trust_domain() != self.trust_domain {
            let expected = self.trust_domain.clone();
            return Err(refuse(IdentityError::TrustDomain { id, expected }));
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Lets a client talk to one workload only. The name or address that it
/// dialled does not matter: addresses come and go, the identity stays.
#[derive(Debug)]
pub(super) struct ExpectedIdVerifier {
    pub roots: Arc<RootCertStore>,
    pub provider: Arc<CryptoProvider>,
    pub expected: SpiffeId,
}

impl ServerCertVerifier for ExpectedIdVerifier {
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
            self.provider.signature_verification_algorithms.all,
        )?;
        let id = read_leaf(end_entity).map_err(refuse)?.id;
        if id != self.expected {
            let expected = self.expected.clone();
            return Err(refuse(IdentityError::Unexpected { id, expected }));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
