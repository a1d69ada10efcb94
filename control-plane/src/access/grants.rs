//! Who was given what, as the file of `--access` says.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};

use super::oidc::{self, Oidc};
use super::tls::ClientCertificate;
use super::{Caller, Method, Role, document};

/// Between looks at files that may have changed.
pub const LOOK: Duration = Duration::from_secs(1);
/// Bytes of the file.
const MAX_BYTES: u64 = 1 << 20;

/// What somebody may do, and what the history calls them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// In the history.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// Of a shifter: which services. None: all.
    pub services: Option<Vec<String>>,
}

impl Grant {
    /// The caller who has it.
    #[must_use]
    pub fn caller(&self, method: Method) -> Caller {
        let Self { name, role, services } = self.clone();
        Caller { name, method, role, services, on_behalf_of: None }
    }
}

/// A token, by its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByToken {
    /// SHA-256 of the token.
    pub sha256: [u8; 32],
    /// Seconds since the Unix epoch; none: it is good until it is taken out.
    pub expires: Option<i64>,
    /// For whom.
    pub grant: Grant,
}

/// What tells a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Certificate {
    /// Its only URI name.
    SpiffeId(String),
    /// Its subject's common name.
    CommonName(String),
    /// SHA-256 of its DER form.
    Fingerprint([u8; 32]),
}

/// A certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByCertificate {
    /// Which.
    pub certificate: Certificate,
    /// For whom.
    pub grant: Grant,
}

/// A service account of Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAccount {
    /// `system:serviceaccount:NAMESPACE:NAME`.
    pub username: String,
    /// For whom.
    pub grant: Grant,
}

/// All of the file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Grants {
    /// Bearer tokens.
    pub tokens: Vec<ByToken>,
    /// Client certificates.
    pub certificates: Vec<ByCertificate>,
    /// Service accounts.
    pub service_accounts: Vec<ServiceAccount>,
    /// An issuer of tokens.
    pub oidc: Option<oidc::Settings>,
}

impl Grants {
    /// Whose token it is. Looks at all of them, each in constant time.
    #[must_use]
    pub fn token(&self, token: &str) -> Option<&ByToken> {
        let hash = digest(&SHA256, token.as_bytes());
        let mut found = None;
        for known in &self.tokens {
            if verify_slices_are_equal(&known.sha256, hash.as_ref()).is_ok() {
                found = Some(known);
            }
        }
        found
    }

    /// Whose certificate it is.
    #[must_use]
    pub fn certificate(&self, shown: &ClientCertificate) -> Option<&Grant> {
        let fits = |known: &&ByCertificate| match &known.certificate {
            Certificate::SpiffeId(id) => shown.spiffe_id.as_ref() == Some(id),
            Certificate::CommonName(name) => shown.common_name.as_ref() == Some(name),
            Certificate::Fingerprint(hash) => shown.fingerprint == *hash,
        };
        self.certificates.iter().find(fits).map(|known| &known.grant)
    }
}

/// The newest grants, and what checks the tokens of their issuer.
#[derive(Clone, Default)]
pub struct Current {
    /// What the file says.
    pub grants: Arc<Grants>,
    /// Of its `oidc`.
    pub oidc: Option<Arc<Oidc>>,
}

/// The file, read again when it changes.
pub struct GrantsFile {
    path: PathBuf,
    text: Mutex<String>,
    current: RwLock<Current>,
}

impl GrantsFile {
    /// Reads it.
    ///
    /// # Errors
    /// All that is wrong, after the file's name.
    pub fn open(path: &Path) -> Result<Self, String> {
        let text = read(path)?;
        let current = made(path, &text, &Current::default())?;
        Ok(Self { path: path.to_owned(), text: Mutex::new(text), current: RwLock::new(current) })
    }

    /// The newest that could be read.
    #[must_use]
    pub fn current(&self) -> Current {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads it again if it changed. Blocks on the disk.
    ///
    /// # Errors
    /// What is wrong with it; what was known before stays.
    pub fn look(&self) -> Result<(), String> {
        let text = read(&self.path)?;
        let mut known = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        if *known == text {
            return Ok(());
        }
        let next = made(&self.path, &text, &self.current())?;
        tracing::info!(file = %self.path.display(), "who may do what was read again");
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = next;
        *known = text;
        Ok(())
    }
}

fn read(path: &Path) -> Result<String, String> {
    use std::io::Read as _;
    let told = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| told(&error))?;
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|error| told(&error))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(told(&format_args!("has more than {MAX_BYTES} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| told(&"is no text in UTF-8"))
}

fn made(path: &Path, text: &str, old: &Current) -> Result<Current, String> {
    let told = |error: String| format!("{}: {error}", path.display());
    let grants = document::parse(text).map_err(told)?;
    let oidc = match (&grants.oidc, &old.oidc) {
        (None, _) => None,
        // With the keys that it has.
        (Some(new), Some(old)) if old.settings == *new => Some(old.clone()),
        (Some(new), _) => Some(Arc::new(Oidc::new(new.clone()).map_err(told)?)),
    };
    Ok(Current { grants: Arc::new(grants), oidc })
}
