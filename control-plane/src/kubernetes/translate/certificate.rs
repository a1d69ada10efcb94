//! Secrets -> server certificates. Nothing of a Secret's data is ever told.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use weir_mesh::model::ServerCertificate;

/// Reads the certificate chain and the key of a Secret of type `kubernetes.io/tls`.
///
/// # Errors
/// What is wrong with it.
pub(super) fn read(secret: &Value) -> Result<ServerCertificate, String> {
    let pem = |field: &str| {
        let text = secret["data"][field].as_str().unwrap_or_default();
        let pem = STANDARD.decode(text.trim()).map_err(|_| format!("{field} is not base64"))?;
        if pem.is_empty() {
            return Err(format!("has no {field}; it must be of type kubernetes.io/tls"));
        }
        Ok(pem)
    };
    let chain: Result<Vec<CertificateDer<'static>>, _> =
        CertificateDer::pem_slice_iter(&pem("tls.crt")?).collect();
    let chain = chain.map_err(|_| "tls.crt is not PEM".to_owned())?;
    if chain.is_empty() {
        return Err("tls.crt has no certificate".to_owned());
    }
    let key = PrivateKeyDer::from_pem_slice(&pem("tls.key")?)
        .map_err(|_| "tls.key has no private key in PEM".to_owned())?;
    let signing = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key)
        .map_err(|_| "tls.key is of a kind that is not supported".to_owned())?;
    let certified = CertifiedKey::new(chain, signing);
    certified.keys_match().map_err(|_| "tls.key is not the key of tls.crt".to_owned())?;
    Ok(ServerCertificate {
        chain: certified.cert.iter().map(|der| der.to_vec().into()).collect(),
        key: key.secret_der().to_vec().into(),
    })
}
