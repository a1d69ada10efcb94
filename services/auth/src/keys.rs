//! The key that access tokens are signed with. All instances share one: by a
//! file in the data directory, or in the database that they share.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::pkcs8::Document;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::EncodingKey;

use crate::store::{Store, StoreError};

/// PKCS #8 (RFC 5958), DER.
const FILE: &str = "signing-key.p8";

/// Why there is no signing key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file system.
    #[error("signing key {}: {source}", path.display())]
    Io {
        /// The key's file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Something else is in the file.
    #[error(
        "signing key {}: is not a P-256 key in PKCS #8; move it away and a new one is made \
         (access tokens given out so far then end)",
        path.display()
    )]
    Malformed {
        /// The key's file.
        path: PathBuf,
    },
    /// The database.
    #[error("signing key: {0}")]
    Store(#[from] StoreError),
    /// Something else is in the database.
    #[error(
        "signing key in table secrets: is not a P-256 key in PKCS #8; delete the row `signing-key` \
         and a new one is made (access tokens given out so far then end)"
    )]
    Row,
    /// The system cannot make a key.
    #[error("cannot make a signing key: the system gives no random bytes")]
    Generate,
}

/// A P-256 key for ES256. It never shows its private part.
pub struct SigningKey {
    encoding: EncodingKey,
    /// The key's id: its thumbprint (RFC 7638).
    pub kid: String,
    /// Public coordinates, base64url.
    pub x: String,
    /// Likewise.
    pub y: String,
}

impl SigningKey {
    /// The key of this data directory. The first process that asks makes it,
    /// readable by its owner alone; those that ask at the same time get the
    /// same one.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn load_or_create(data: &Path) -> Result<Self, KeyError> {
        let path = data.join(FILE);
        let failed = |source| KeyError::Io { path: path.clone(), source };
        let der = match fs::read(&path) {
            Ok(der) => der,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                publish(data, &path, generate()?.as_ref()).map_err(failed)?;
                // Another process may have been first: what is there counts.
                fs::read(&path).map_err(failed)?
            }
            Err(error) => return Err(failed(error)),
        };
        Self::from_pkcs8(&der).ok_or(KeyError::Malformed { path })
    }

    /// The key in the database. The first process that asks makes it.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub(crate) async fn shared(store: &Store) -> Result<Self, KeyError> {
        let der = store.signing_key(generate()?.as_ref()).await?;
        Self::from_pkcs8(&der).ok_or(KeyError::Row)
    }

    fn from_pkcs8(der: &[u8]) -> Option<Self> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).ok()?;
        // Uncompressed point (SEC 1, section 2.3.3): 4, x, y.
        let [4, point @ ..] = pair.public_key().as_ref() else { return None };
        let (x, y) = point.split_at_checked(32)?;
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        let members = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        let kid = URL_SAFE_NO_PAD.encode(digest(&SHA256, members.as_bytes()));
        Some(Self { encoding: EncodingKey::from_ec_der(der), kid, x, y })
    }

    pub(crate) fn encoding(&self) -> &EncodingKey {
        &self.encoding
    }
}

fn generate() -> Result<Document, KeyError> {
    EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
        .map_err(|_| KeyError::Generate)
}

/// Puts the file there whole, unless there is one: a link, unlike a rename,
/// never replaces what another process has already given out tokens with.
fn publish(data: &Path, path: &Path, der: &[u8]) -> io::Result<()> {
    fs::create_dir_all(data)?;
    let temporary = data.join(format!(".{FILE}.{}", uuid::Uuid::new_v4()));
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options
        .open(&temporary)
        .and_then(|mut file| file.write_all(der).and_then(|()| file.sync_all()))
        .and_then(|()| match fs::hard_link(&temporary, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            linked => linked,
        });
    let _ = fs::remove_file(&temporary);
    written?;
    fs::File::open(data)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn all_who_start_at_once_share_one_key_that_only_they_can_read() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("auth");
        let start = std::sync::Barrier::new(16);
        let kids: Vec<String> = std::thread::scope(|scope| {
            let load = || {
                start.wait();
                SigningKey::load_or_create(&data).unwrap().kid
            };
            let threads: Vec<_> = (0..16).map(|_| scope.spawn(load)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(kids.iter().all(|kid| *kid == kids[0]));
        assert_eq!(SigningKey::load_or_create(&data).unwrap().kid, kids[0], "and again later");

        let files: Vec<_> = fs::read_dir(&data).unwrap().map(|entry| entry.unwrap()).collect();
        assert_eq!(files.len(), 1, "nothing is left over");
        assert_eq!(files[0].metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_is_no_key_is_refused_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "something else").unwrap();
        assert!(matches!(SigningKey::load_or_create(dir.path()), Err(KeyError::Malformed { .. })));
        assert_eq!(fs::read(dir.path().join(FILE)).unwrap(), b"something else");
    }
}
