//! What is taken from a certificate request: its public key, and nothing else.

use rcgen::{PublicKeyData as _, SubjectPublicKeyInfo};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;

/// Why a certificate request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// Not PKCS#10.
    #[error("is no DER-encoded PKCS#10 request (RFC 2986)")]
    Unreadable,
    /// Another kind of key.
    #[error("its key is not P-256 (secp256r1); make an ECDSA key on that curve")]
    Key,
    /// Whoever sent it does not have the key.
    #[error("its signature is not by the key in it")]
    Signature,
}

/// The P-256 public key of a DER-encoded PKCS#10 request (RFC 2986) that was
/// signed by it. Names and extensions that the request asks for are ignored.
///
/// # Errors
/// [`CsrError`].
pub fn public_key(der: &[u8]) -> Result<SubjectPublicKeyInfo, CsrError> {
    let (rest, request) =
        X509CertificationRequest::from_der(der).map_err(|_| CsrError::Unreadable)?;
    if !rest.is_empty() {
        return Err(CsrError::Unreadable);
    }
    let key = SubjectPublicKeyInfo::from_der(request.certification_request_info.subject_pki.raw)
        .map_err(|_| CsrError::Key)?;
    // P-256 keys are written by curve, so that P-384 ones differ here.
    if key.algorithm() != &rcgen::PKCS_ECDSA_P256_SHA256 {
        return Err(CsrError::Key);
    }
    request.verify_signature().map_err(|_| CsrError::Signature)?;
    Ok(key)
}
