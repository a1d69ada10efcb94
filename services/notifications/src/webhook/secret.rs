//! The key that proves a webhook to be ours (Standard Webhooks 1.0.0).

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use aws_lc_rs::hmac;
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use weir_mesh::file;

use crate::store::{Store, StoreError};

/// Name of the file in the data directory.
pub const FILE: &str = "webhook-secret";
const PREFIX: &str = "whsec_";
const BYTES: usize = 32;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read or made.
    #[error("the webhook secret {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file holds something else. What, is not shown.
    #[error(
        "the webhook secret {} is not `{PREFIX}` and 24 to 64 bytes in base64; \
         restore it, or remove it to have a new one made",
        path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// The database.
    #[error("the webhook secret: {0}")]
    Store(#[from] StoreError),
    /// The row holds something else. What, is not shown.
    #[error(
        "the webhook secret in table secrets is not `{PREFIX}` and 24 to 64 bytes in base64; \
         restore the row `webhook-secret`, or delete it to have a new one made"
    )]
    Row,
    /// The system gives no random numbers.
    #[error("no random numbers for the webhook secret")]
    Random,
}

/// Signs webhooks. Neither `Debug` nor any error shows the key.
#[derive(Clone)]
pub struct Secret(hmac::Key);

impl Secret {
    /// The key in `directory`, which is made when there is none. Processes that
    /// start at once end up with the same.
    ///
    /// # Errors
    /// When the file cannot be read, made or understood.
    pub fn open(directory: &Path) -> Result<Self, SecretError> {
        let path = directory.join(FILE);
        let failed = |source| SecretError::File { path: path.clone(), source };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                create(&path)?;
                std::fs::read_to_string(&path).map_err(failed)?
            }
            Err(error) => return Err(failed(error)),
        };
        Self::read(&text).ok_or(SecretError::Malformed { path })
    }

    /// The key in the database, which is made when there is none.
    ///
    /// # Errors
    /// When the database fails, or something else is there.
    pub async fn shared(store: &Store) -> Result<Self, SecretError> {
        let there = store.webhook_secret(generate()?.trim().as_bytes()).await?;
        std::str::from_utf8(&there).ok().and_then(Self::read).ok_or(SecretError::Row)
    }

    fn read(text: &str) -> Option<Self> {
        let key = STANDARD.decode(text.trim().strip_prefix(PREFIX)?).ok()?;
        (24..=64).contains(&key.len()).then(|| Self::new(&key))
    }

    fn new(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// The `webhook-signature` header of a message.
    #[must_use]
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(format!("{id}.{timestamp}.").as_bytes());
        context.update(body);
        format!("v1,{}", STANDARD.encode(context.sign()))
    }
}

/// A new key as it is kept.
fn generate() -> Result<String, SecretError> {
    let mut key = [0; BYTES];
    SystemRandom::new().fill(&mut key).map_err(|_| SecretError::Random)?;
    Ok(format!("{PREFIX}{}\n", STANDARD.encode(key)))
}

/// Makes the file, unless somebody else is first.
fn create(path: &Path) -> Result<(), SecretError> {
    let text = generate()?;
    let own = path.with_file_name(format!(".{FILE}.{}", uuid::Uuid::new_v4()));
    let made = file::write_secret(&own, text)
        // Unlike a rename, a link never replaces what another process has made.
        .and_then(|()| match std::fs::hard_link(&own, path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            other => other,
        });
    let _ = std::fs::remove_file(&own);
    made.map_err(|source| SecretError::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn signs_as_the_specification_s_example() {
        // The example of the Standard Webhooks specification.
        let key = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = Secret::new(&key).sign(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn processes_that_start_at_once_share_one_secret_that_only_the_owner_reads() {
        let directory = tempfile::TempDir::new().unwrap();
        let signatures: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| Secret::open(directory.path()).unwrap().sign("a", 1, b"b")))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(signatures.iter().all(|s| *s == signatures[0]));
        let files: Vec<_> =
            std::fs::read_dir(directory.path()).unwrap().map(|f| f.unwrap()).collect();
        assert_eq!(files.len(), 1);
        assert_eq!(files[0].metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_broken_file_is_named_but_not_shown() {
        let directory = tempfile::TempDir::new().unwrap();
        std::fs::write(directory.path().join(FILE), "whsec_SGVsbG8=").unwrap();
        let error = Secret::open(directory.path()).err().unwrap().to_string();
        assert!(error.contains(FILE) && !error.contains("SGVsbG8"), "{error}");
    }
}
