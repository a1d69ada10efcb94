//! Hashing passwords: argon2id, a bounded number at a time.

use std::sync::Arc;
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::account::Password;

/// How long a login waits for its turn.
const PATIENCE: Duration = Duration::from_secs(5);

/// What one hash costs (RFC 9106, section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// KiB of memory.
    pub memory: u32,
    /// Passes over it.
    pub passes: u32,
}

impl Default for Cost {
    /// The parameters that OWASP's cheat sheet recommends: 19 MiB, 2 passes.
    fn default() -> Self {
        Self { memory: 19_456, passes: 2 }
    }
}

impl Cost {
    /// Next to nothing, for tests.
    pub const TEST: Self = Self { memory: 64, passes: 1 };
}

/// Hashing failed.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// As many hashes as may be are made, and more wait.
    #[error("too many passwords are being checked")]
    Busy,
    /// Parameters, a stored hash, or the system's randomness are broken.
    #[error("cannot hash passwords: {0}")]
    Broken(&'static str),
}

/// Hashes and checks passwords. Clones share the bound.
#[derive(Clone)]
pub struct Hasher {
    argon2: Argon2<'static>,
    places: Arc<Semaphore>,
    /// A hash that no password has: checking it takes as long as any other.
    decoy: Arc<str>,
}

/// The right to make one hash.
pub struct Place {
    _permit: OwnedSemaphorePermit,
}

impl Hasher {
    /// As many hashes at once as the machine has processors (at least two):
    /// more would only take memory, not finish sooner.
    ///
    /// # Errors
    /// When the cost is out of argon2's bounds.
    pub fn new(cost: Cost) -> Result<Self, HashError> {
        let params = Params::new(cost.memory, cost.passes, 1, None)
            .map_err(|_| HashError::Broken("the cost is out of argon2's bounds"))?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let decoy = make(&argon2, &random::<32>()?)?.into();
        let at_once = std::thread::available_parallelism().map_or(2, |n| n.get().max(2));
        Ok(Self { argon2, places: Arc::new(Semaphore::new(at_once)), decoy })
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// [`HashError::Busy`] after 5 seconds.
    pub async fn place(&self) -> Result<Place, HashError> {
        let place = Arc::clone(&self.places).acquire_owned();
        match tokio::time::timeout(PATIENCE, place).await {
            Ok(Ok(permit)) => Ok(Place { _permit: permit }),
            Ok(Err(_)) | Err(_) => Err(HashError::Busy),
        }
    }

    /// The password's hash as a PHC string, with a new salt.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub async fn hash(&self, place: Place, password: Password) -> Result<String, HashError> {
        let argon2 = self.argon2.clone();
        // The place goes along: a caller that gives up does not stop the work.
        blocking(move || {
            let hash = make(&argon2, password.as_bytes());
            drop(place);
            hash
        })
        .await?
    }

    /// Whether the password has this hash. Without a hash it has not, and that
    /// takes as long to find out.
    ///
    /// # Errors
    /// When the stored hash is broken.
    pub async fn verify(
        &self,
        place: Place,
        hash: Option<String>,
        password: Password,
    ) -> Result<(bool, Place), HashError> {
        let argon2 = self.argon2.clone();
        let decoy = Arc::clone(&self.decoy);
        blocking(move || {
            let known = hash.is_some();
            let hash = hash.as_deref().unwrap_or(&decoy);
            let parsed = PasswordHash::new(hash)
                .map_err(|_| HashError::Broken("a stored hash is not a PHC string"))?;
            let matches = argon2.verify_password(password.as_bytes(), &parsed).is_ok();
            Ok((matches && known, place))
        })
        .await?
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, HashError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| HashError::Broken("its thread was lost"))
}

fn make(argon2: &Argon2<'_>, password: &[u8]) -> Result<String, HashError> {
    let hash = argon2.hash_password_with_salt(password, &random::<16>()?);
    hash.map(|hash| hash.to_string()).map_err(|_| HashError::Broken("argon2 failed"))
}

/// Bytes that no one can guess.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], HashError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| HashError::Broken("the system gives no random bytes"))?;
    Ok(bytes)
}
