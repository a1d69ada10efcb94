//! A workload's own certificate and key.

use std::path::Path;
use std::sync::Arc;
use std::{fmt, fs, io};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::verify::read_leaf;
use super::{IdentityError, SpiffeId, provider};

/// An X.509-SVID with its key: the certificate has exactly one SPIFFE id, and
/// the key is the certificate's.
///
/// Cheap to clone. The key is in no `Debug` output and no error.
#[derive(Clone)]
pub struct Svid(Arc<Inner>);

struct Inner {
    id: SpiffeId,
    not_before: i64,
    not_after: i64,
    key: PrivateKeyDer<'static>,
    certified: Arc<CertifiedKey>,
}

impl Svid {
    /// Puts a chain (leaf first) and its key together.
    ///
    /// Whether an authority vouches for it, and since when, is for the peer to
    /// check.
    ///
    /// # Errors
    /// When the chain is empty or its leaf is no X.509-SVID, or when the key
    /// is not the leaf's.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, IdentityError> {
        let leaf = read_leaf(chain.first().ok_or(IdentityError::NoCertificate)?)?;
        let signer = provider()
            .key_provider
            .load_private_key(key.clone_key())
            .map_err(|_| IdentityError::Key("cannot be read; use PKCS#8"))?;
        let certified = CertifiedKey::new(chain, signer);
        certified.keys_match().map_err(|_| IdentityError::Key("is not the certificate's"))?;
        Ok(Self(Arc::new(Inner {
            id: leaf.id,
            not_before: leaf.not_before,
            not_after: leaf.not_after,
            key,
            certified: Arc::new(certified),
        })))
    }

    /// From DER: a chain, leaf first, such as the `certificate_chain` of a
    /// `SignResponse`, and a PKCS#8 key.
    ///
    /// # Errors
    /// As [`Svid::new`].
    pub fn from_der(
        chain: impl IntoIterator<Item = Vec<u8>>,
        pkcs8_key: Vec<u8>,
    ) -> Result<Self, IdentityError> {
        let key = PrivateKeyDer::try_from(pkcs8_key)
            .map_err(|_| IdentityError::Key("cannot be read; use PKCS#8"))?;
        Self::new(chain.into_iter().map(CertificateDer::from).collect(), key)
    }

    /// From PEM text that holds the chain, leaf first, and the key.
    ///
    /// # Errors
    /// As [`Svid::new`], and when the text is no PEM.
    pub fn from_pem(pem: impl AsRef<[u8]>) -> Result<Self, IdentityError> {
        let pem = pem.as_ref();
        let chain = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| IdentityError::Pem(e.to_string()))?;
        // The parser's own error could quote what it read.
        let key = PrivateKeyDer::from_pem_slice(pem)
            .map_err(|_| IdentityError::Key("is missing from the PEM text, or cannot be read"))?;
        Self::new(chain, key)
    }

    /// Reads what [`Svid::save`] wrote.
    ///
    /// # Errors
    /// As [`Svid::from_pem`], and when the file cannot be read; the message
    /// names the path.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, IdentityError> {
        let path = path.as_ref();
        let pem = fs::read(path).map_err(IdentityError::from);
        pem.and_then(Self::from_pem).map_err(|error| with_path(path, &error))
    }

    /// Writes chain and key into one PEM file (mode 0600, replaced atomically).
    ///
    /// One file, since a crash between two would leave a key that is not the
    /// certificate's.
    ///
    /// # Errors
    /// What the file system answers; the message names the path.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), IdentityError> {
        let label = match &self.0.key {
            PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
            PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
            _ => "PRIVATE KEY",
        };
        let mut pem: String =
            self.chain().iter().map(|der| pem_block("CERTIFICATE", der)).collect();
        pem.push_str(&pem_block(label, self.0.key.secret_der()));
        Ok(crate::file::write_secret(path, pem)?)
    }

    /// Whose it is.
    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        &self.0.id
    }

    /// The certificates, leaf first.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.0.certified.cert
    }

    /// When it begins to be valid, in Unix seconds.
    #[must_use]
    pub fn not_before(&self) -> i64 {
        self.0.not_before
    }

    /// When it ceases to be valid, in Unix seconds.
    #[must_use]
    pub fn not_after(&self) -> i64 {
        self.0.not_after
    }

    pub(super) fn certified(&self) -> Arc<CertifiedKey> {
        self.0.certified.clone()
    }
}

impl fmt::Debug for Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Svid")
            .field("id", &self.0.id)
            .field("not_before", &self.0.not_before)
            .field("not_after", &self.0.not_after)
            .finish_non_exhaustive()
    }
}

/// When to renew a certificate, in Unix seconds: at two thirds of its life,
/// give or take a twentieth of it, so that routers started together do not
/// come back together.
///
/// `not_before` and `not_after` are Unix seconds; `jitter` is a random number
/// from 0.0 (earliest) to 1.0 (latest), and taken as the nearer of them when
/// it is outside.
#[must_use]
pub fn renewal_at(not_before: i64, not_after: i64, jitter: f64) -> i64 {
    let lifetime = not_after.saturating_sub(not_before).max(0) as f64;
    let jitter = if jitter.is_nan() { 0.5 } else { jitter.clamp(0.0, 1.0) };
    let share = 2.0 / 3.0 + 0.05 * (2.0 * jitter - 1.0);
    not_before.saturating_add((lifetime * share).round() as i64)
}

/// One block of RFC 7468 text.
pub(super) fn pem_block(label: &str, der: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    let encoded = STANDARD.encode(der);
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = tail;
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

/// Says where what is wrong is.
pub(super) fn with_path(path: &Path, error: &IdentityError) -> IdentityError {
    let kind = match error {
        IdentityError::Io(error) => error.kind(),
        _ => io::ErrorKind::InvalidData,
    };
    io::Error::new(kind, format!("{}: {error}", path.display())).into()
}
