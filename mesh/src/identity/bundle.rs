//! The roots that a trust domain's certificates end at.

use std::path::Path;
use std::sync::Arc;
use std::{fmt, fs};

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::IdentityError;
use super::svid::{pem_block, with_path};

/// One root, or several while a new one is being brought in: a certificate
/// under any of them is good.
///
/// Cheap to clone.
#[derive(Clone)]
pub struct TrustBundle {
    roots: Arc<[CertificateDer<'static>]>,
    pub(super) store: Arc<RootCertStore>,
}

impl TrustBundle {
    /// A bundle of DER certificates, such as the `trust_bundle` of a
    /// `SignResponse`.
    ///
    /// # Errors
    /// When there is none, or one cannot be read.
    pub fn from_der<D: AsRef<[u8]>>(
        roots: impl IntoIterator<Item = D>,
    ) -> Result<Self, IdentityError> {
        let roots: Vec<CertificateDer<'static>> =
            roots.into_iter().map(|der| CertificateDer::from(der.as_ref().to_vec())).collect();
        if roots.is_empty() {
            return Err(IdentityError::NoRoot);
        }
        let mut store = RootCertStore::empty();
        for (index, root) in roots.iter().enumerate() {
            store
                .add(root.clone())
                .map_err(|e| IdentityError::Certificate { index, reason: e.to_string() })?;
        }
        Ok(Self { roots: roots.into(), store: Arc::new(store) })
    }

    /// A bundle from PEM text; blocks that are no certificates are passed over.
    ///
    /// # Errors
    /// When the text is no PEM, holds no certificate, or one cannot be read.
    pub fn from_pem(pem: impl AsRef<[u8]>) -> Result<Self, IdentityError> {
        let roots = CertificateDer::pem_slice_iter(pem.as_ref())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| IdentityError::Pem(e.to_string()))?;
        Self::from_der(roots)
    }

    /// Reads a PEM file.
    ///
    /// # Errors
    /// As [`TrustBundle::from_pem`], and when the file cannot be read; the
    /// message names the path.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, IdentityError> {
        let path = path.as_ref();
        let pem = fs::read(path).map_err(IdentityError::from);
        pem.and_then(Self::from_pem).map_err(|error| with_path(path, &error))
    }

    /// Writes a PEM file that all may read, atomically.
    ///
    /// # Errors
    /// What the file system answers; the message names the path.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), IdentityError> {
        Ok(crate::file::write_atomic(path, self.to_pem())?)
    }

    /// The roots as PEM text.
    #[must_use]
    pub fn to_pem(&self) -> String {
        self.roots.iter().map(|root| pem_block("CERTIFICATE", root)).collect()
    }

    /// The roots as DER, in the order given.
    #[must_use]
    pub fn to_der(&self) -> Vec<Vec<u8>> {
        self.roots.iter().map(|root| root.to_vec()).collect()
    }

    /// The roots, at least one, in the order given.
    #[must_use]
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }
}

impl PartialEq for TrustBundle {
    fn eq(&self, other: &Self) -> bool {
        self.roots == other.roots
    }
}

impl Eq for TrustBundle {}

impl fmt::Debug for TrustBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrustBundle({} roots)", self.roots.len())
    }
}
