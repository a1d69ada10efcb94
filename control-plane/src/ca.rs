//! The mesh's certificate authority: SPIFFE X.509-SVIDs from P-256 roots.
//!
//! A root is *pending* while it is only trusted, *signing* when certificates come
//! from it, and *retired* while certificates that it signed may still be valid.

mod csr;
mod join;
mod roots;
mod tls;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::sync::watch;
use weir_mesh::file;
use weir_mesh::identity::{IdentityError, SpiffeId, Svid, TrustBundle};

pub use csr::public_key;
pub use join::{JoinTokens, JoinTokensError};
pub use roots::RootsError;
pub use tls::OwnCertificate;

use crate::{files, text};
use roots::{Root, Roots, Stage};

/// How often in a row somebody else may change the roots while this one does.
const CONFLICTS: u32 = 5;
/// How far clocks of routers may be behind.
pub const CLOCK_SKEW: Duration = Duration::from_secs(60);
/// Shortest and longest life of a certificate.
pub const LIFETIMES: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(60)..=Duration::from_secs(7 * 86_400);

/// Why the authority cannot do its work.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// Its files.
    #[error("{0}")]
    File(#[from] io::Error),
    /// What is in its files.
    #[error("{path}: {source}")]
    Roots {
        /// The file, or what stands for it.
        path: String,
        /// What is wrong with it.
        source: RootsError,
    },
    /// A certificate could not be made.
    #[error("a certificate could not be made: {0}")]
    Certificate(#[from] rcgen::Error),
    /// What was made cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Another control plane changed the roots since they were read.
    #[error("the roots were changed by another control plane; try again")]
    Conflict,
    /// The system's random source failed.
    #[error("no random numbers")]
    Random,
}

/// A certificate that was just made.
#[derive(Debug, Clone)]
pub struct Issued {
    /// Leaf first; the root is not in it.
    pub chain: Vec<CertificateDer<'static>>,
    /// Unix seconds.
    pub not_before: i64,
    /// Unix seconds.
    pub not_after: i64,
}

/// Where the authority keeps its roots. May block.
pub trait Vault: Send + Sync {
    /// What to look at when something is wrong.
    fn name(&self) -> String;

    /// The roots and their keys, if there are any.
    ///
    /// # Errors
    /// When they cannot be read.
    fn load(&self) -> Result<Option<Vec<u8>>, CaError>;

    /// Writes the roots and their keys, and what everyone may know, as PEM. When this
    /// returns, they are durable.
    ///
    /// # Errors
    /// When they cannot be written; [`CaError::Conflict`] when they are not as they were
    /// loaded, and are to be loaded again.
    fn save(&self, authority: &str, bundle: &str) -> Result<(), CaError>;
}

/// `authority.json`, which only its owner can read; `bundle.pem` beside it has what
/// everyone may know.
struct Directory(PathBuf);

impl Vault for Directory {
    fn name(&self) -> String {
        self.0.join("authority.json").display().to_string()
    }

    fn load(&self) -> Result<Option<Vec<u8>>, CaError> {
        files::directory(&self.0)?;
        Ok(files::read(&self.0.join("authority.json"))?)
    }

    fn save(&self, authority: &str, bundle: &str) -> Result<(), CaError> {
        file::write_secret(self.0.join("authority.json"), authority)?;
        Ok(TrustBundle::from_pem(bundle)?.save(self.0.join("bundle.pem"))?)
    }
}

/// The authority.
pub struct Authority {
    vault: Box<dyn Vault>,
    trust_domain: Arc<str>,
    lifetime: Duration,
    /// One change at a time. It is held while the vault works, and `roots` is not:
    /// whoever signs must never wait for a vault, least of all on a thread that the
    /// vault's own connection needs.
    changing: Mutex<()>,
    roots: Mutex<Roots>,
    bundle: watch::Sender<Arc<[Bytes]>>,
}

impl Authority {
    /// Opens the authority in `directory`, or founds it.
    ///
    /// # Errors
    /// [`CaError`] when its files cannot be read, written or understood, or are
    /// another trust domain's.
    pub fn open(directory: &Path, trust_domain: &str, lifetime: Duration) -> Result<Self, CaError> {
        Self::open_in(Box::new(Directory(directory.to_owned())), trust_domain, lifetime)
    }

    /// The same, wherever the roots are kept.
    ///
    /// # Errors
    /// As [`Authority::open`].
    pub fn open_in(
        vault: Box<dyn Vault>,
        trust_domain: &str,
        lifetime: Duration,
    ) -> Result<Self, CaError> {
        let mut tries = 0;
        let (vault, roots) = loop {
            match Self::found(&*vault, trust_domain, lifetime) {
                // Replicas that start together: one founds it, the others take it up.
                Err(CaError::Conflict) if tries < CONFLICTS => tries += 1,
                roots => break (vault, roots?),
            }
        };
        Ok(Self {
            vault,
            trust_domain: trust_domain.into(),
            lifetime,
            bundle: watch::Sender::new(roots.bundle()),
            changing: Mutex::new(()),
            roots: Mutex::new(roots),
        })
    }

    fn found(vault: &dyn Vault, trust_domain: &str, lifetime: Duration) -> Result<Roots, CaError> {
        let mut roots = match load(vault, trust_domain)? {
            Some(roots) => roots,
            None => Roots(vec![Root::generate(trust_domain, Stage::Signing, lifetime)?]),
        };
        if let Some(root) = roots.signing_mut() {
            root.longest_lifetime = root.longest_lifetime.max(lifetime);
        }
        roots.expire(text::unix_seconds());
        save(vault, &roots)?;
        Ok(roots)
    }

    /// Takes in what another control plane made of the roots. May block.
    ///
    /// # Errors
    /// [`CaError`]; the roots stay as they are.
    pub fn reload(&self) -> Result<(), CaError> {
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever empties the vault does not end the mesh by it.
        if let Some(roots) = load(&*self.vault, &self.trust_domain)? {
            self.show(roots);
        }
        Ok(())
    }

    fn show(&self, roots: Roots) {
        let mut held = self.lock();
        self.bundle.send_if_modified(|bundle| {
            let new = roots.bundle();
            let changed = *bundle != new;
            *bundle = new;
            changed
        });
        *held = roots;
    }

    fn lock(&self) -> MutexGuard<'_, Roots> {
        // Every change replaces the whole value: a panic leaves none half done.
        self.roots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a change durable, then shows it.
    fn update(&self, change: impl Fn(&mut Roots) -> Result<(), CaError>) -> Result<(), CaError> {
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut tries = 0;
        loop {
            let held = self.lock().clone();
            let mut roots = held.clone();
            change(&mut roots)?;
            if held == roots {
                return Ok(());
            }
            match save(&*self.vault, &roots) {
                Err(CaError::Conflict) if tries < CONFLICTS => {
                    tries += 1;
                    if let Some(roots) = load(&*self.vault, &self.trust_domain)? {
                        self.show(roots);
                    }
                }
                Err(error) => return Err(error),
                Ok(()) => {
                    self.show(roots);
                    return Ok(());
                }
            }
        }
    }

    /// Roots to trust, as DER: one, or more while roots are being changed.
    #[must_use]
    pub fn bundle(&self) -> Arc<[Bytes]> {
        self.bundle.borrow().clone()
    }

    /// Follows the roots to trust.
    #[must_use]
    pub fn watch_bundle(&self) -> watch::Receiver<Arc<[Bytes]>> {
        self.bundle.subscribe()
    }

    /// How long certificates live.
    #[must_use]
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// Makes a certificate for a SPIFFE ID and a public key that its holder has
    /// proved to have (X.509-SVID standard, §2 to §5).
    ///
    /// # Errors
    /// [`CaError`] when it cannot be made.
    pub fn issue(&self, id: &SpiffeId, key: &impl PublicKeyData) -> Result<Issued, CaError> {
        let now = SystemTime::now();
        let (not_before, not_after) = (now - CLOCK_SKEW, now + self.lifetime);
        let mut params = CertificateParams::default();
        params.not_before = not_before.into();
        params.not_after = not_after.into();
        params.serial_number = Some(serial()?);
        params.subject_alt_names = vec![SanType::URI(id.as_str().try_into()?)];
        params.distinguished_name = DistinguishedName::new();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = {
            let roots = self.lock();
            let issuer = roots.issuer()?;
            params.signed_by(key, &issuer)?
        };
        Ok(Issued {
            chain: vec![certificate.into()],
            not_before: params.not_before.unix_timestamp(),
            not_after: params.not_after.unix_timestamp(),
        })
    }

    /// Makes a key and its certificate, for the control plane itself.
    ///
    /// # Errors
    /// [`CaError`] when they cannot be made.
    pub fn issue_own(&self, id: &SpiffeId) -> Result<Svid, CaError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let chain = self.issue(id, &key)?.chain;
        Ok(Svid::new(chain, PrivatePkcs8KeyDer::from(key.serialize_der()).into())?)
    }

    /// Brings in a new root that is trusted, but signs nothing yet. One that is
    /// pending already is kept, so that an interrupted change can be taken up again.
    ///
    /// # Errors
    /// [`CaError`]; nothing has changed then.
    pub fn prepare_root(&self) -> Result<(), CaError> {
        self.update(|roots| {
            if roots.pending().is_none() {
                let root = Root::generate(&self.trust_domain, Stage::Pending, self.lifetime)?;
                roots.0.push(root);
            }
            Ok(())
        })
    }

    /// Signs with the pending root from now on. The old one stays trusted until the
    /// last certificate that it can have signed has run out. Nothing happens
    /// without a pending root.
    ///
    /// # Errors
    /// [`CaError`]; nothing has changed then.
    pub fn activate_root(&self) -> Result<(), CaError> {
        self.update(|roots| {
            roots.activate(text::unix_seconds());
            Ok(())
        })
    }

    /// Forgets retired roots whose certificates have all run out.
    ///
    /// # Errors
    /// [`CaError`]; nothing has changed then.
    pub fn expire_roots(&self) -> Result<(), CaError> {
        // Seldom there is something to forget; only then it may block.
        let held = self.lock().clone();
        let mut roots = held.clone();
        roots.expire(text::unix_seconds());
        if roots == held {
            return Ok(());
        }
        self.update(|roots| {
            roots.expire(text::unix_seconds());
            Ok(())
        })
    }
}

fn load(vault: &dyn Vault, trust_domain: &str) -> Result<Option<Roots>, CaError> {
    let contents = vault.load()?;
    let roots = contents.map(|contents| {
        Roots::parse(&contents, trust_domain)
            .map_err(|source| CaError::Roots { path: vault.name(), source })
    });
    roots.transpose()
}

fn save(vault: &dyn Vault, roots: &Roots) -> Result<(), CaError> {
    let bundle = TrustBundle::from_der(&*roots.bundle())?.to_pem();
    vault.save(&roots.to_json()?, &bundle)
}

/// 127 random bits, never 0: RFC 5280 §4.1.2.2 wants a positive number.
fn serial() -> Result<SerialNumber, CaError> {
    let mut bytes = [0u8; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| CaError::Random)?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

#[cfg(test)]
mod tests;
