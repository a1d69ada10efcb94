//! The authority's roots and their keys in Consul, sealed: who may read Consul's keys,
//! or its disks, learns nothing. The key that opens them is a file that every control
//! plane of the mesh has.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use tokio::runtime::Handle;
use weir_mesh::file;
use weir_mesh::identity::Secret;

use super::config::Endpoint;
use super::kv::{Kv, Pair};
use crate::ca::{CaError, Vault};
use crate::control::Control;

/// What it is kept under.
const KEY: &str = "authority";
/// What a sealed value begins with: the way it is sealed.
const MAGIC: &[u8] = b"weir-sealed-1\n";
const NONCE: usize = 12;
/// How long Consul may hold a question back.
const WAIT: Duration = Duration::from_secs(60);
/// After a failure.
const RETRY: Duration = Duration::from_secs(1);

/// Opens and seals.
struct Seal {
    key: RandomizedNonceKey,
    file: PathBuf,
}

impl Seal {
    fn of(file: &Path, secret: &[u8]) -> Result<Self, CaError> {
        let wrong = || on(file, "holds no key: 43 characters of base64url are one");
        let text = std::str::from_utf8(secret).map_err(|_| wrong())?;
        let bytes = URL_SAFE_NO_PAD.decode(text.trim()).map_err(|_| wrong())?;
        let key = RandomizedNonceKey::new(&AES_256_GCM, &bytes).map_err(|_| wrong())?;
        Ok(Self { key, file: file.to_owned() })
    }

    /// Reads the key's file; none: there is no such file.
    fn read(file: &Path) -> Result<Option<Self>, CaError> {
        let Some(contents) = crate::files::read(file)? else { return Ok(None) };
        let mode = std::fs::metadata(file)?.permissions().mode();
        if mode & 0o077 != 0 {
            let why =
                format!("others may read it (mode {:03o}); run chmod 600 on it", mode & 0o777);
            return Err(on(file, &why));
        }
        Self::of(file, &contents).map(Some)
    }

    fn make(file: &Path) -> Result<Self, CaError> {
        let secret = Secret::random().map_err(io::Error::other)?;
        file::write_secret(file, format!("{}\n", secret.expose()))?;
        tracing::warn!(
            file = %file.display(),
            "a key for what is kept in Consul was made: give this same file to every control \
             plane of the mesh (--store-key-file), and keep a copy"
        );
        Self::of(file, secret.expose().as_bytes())
    }

    fn seal(&self, about: &[u8], text: &[u8]) -> Result<Bytes, CaError> {
        let mut sealed = text.to_vec();
        let nonce = self.key.seal_in_place_append_tag(Aad::from(about), &mut sealed);
        let nonce = nonce.map_err(|_| CaError::Random)?;
        Ok([MAGIC, nonce.as_ref(), &sealed].concat().into())
    }

    fn open(&self, about: &[u8], name: &str, sealed: &[u8]) -> Result<Vec<u8>, CaError> {
        let other =
            |why: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{name}: {why}"));
        let rest = sealed.strip_prefix(MAGIC).and_then(|rest| rest.split_at_checked(NONCE));
        let (nonce, rest) = rest.ok_or_else(|| {
            other("was not written by Weir; delete the key or use another --store-prefix")
        })?;
        let mut text = rest.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| CaError::Random)?;
        let opened = self.key.open_in_place(nonce, Aad::from(about), &mut text);
        let length = opened.map(|text| text.len()).map_err(|_| {
            let file = self.file.display();
            other(&format!("the key in {file} does not open it; use the file that the other control planes have"))
        })?;
        text.truncate(length);
        Ok(text)
    }
}

fn on(file: &Path, why: &str) -> CaError {
    let error = format!("--store-key-file {}: {why}", file.display());
    io::Error::new(io::ErrorKind::InvalidData, error).into()
}

struct Inner {
    kv: Kv,
    /// As it was read last, opened.
    held: Option<(u64, Vec<u8>)>,
}

/// Where the authority is kept.
pub struct ConsulVault {
    inner: Mutex<Inner>,
    seal: Seal,
    about: String,
    name: String,
    handle: Handle,
}

impl ConsulVault {
    /// Reads the key's file; makes it when there is nothing in Consul yet that it
    /// would have to open. Blocks.
    ///
    /// # Errors
    /// [`CaError`], naming the file or Consul.
    pub fn open(
        endpoint: Arc<Endpoint>,
        prefix: Arc<str>,
        file: &Path,
        trust_domain: &str,
    ) -> Result<Self, CaError> {
        let mut kv = Kv::new(endpoint, prefix);
        let handle = Handle::current();
        let seal = match Seal::read(file)? {
            Some(seal) => seal,
            None => match block(&handle, kv.get(KEY))? {
                None => Seal::make(file)?,
                Some(_) => {
                    let why = "there is no such file, and the mesh in Consul has a key already; \
                               copy the file from another of its control planes";
                    return Err(on(file, why));
                }
            },
        };
        let about = format!("weir authority of {trust_domain}");
        let name = format!("Consul's key {}", kv.name(KEY));
        Ok(Self { inner: Mutex::new(Inner { kv, held: None }), seal, about, name, handle })
    }

    fn read(&self, pair: Option<Pair>) -> Result<Option<(u64, Vec<u8>)>, CaError> {
        let open = |pair: Pair| {
            let text = self.seal.open(self.about.as_bytes(), &self.name, &pair.value)?;
            Ok((pair.index, text))
        };
        pair.map(open).transpose()
    }
}

fn block<T>(
    handle: &Handle,
    call: impl Future<Output = Result<T, super::ConsulError>>,
) -> Result<T, CaError> {
    let answer = tokio::task::block_in_place(|| handle.block_on(call));
    answer.map_err(|error| CaError::File(io::Error::other(error.to_string())))
}

impl Vault for ConsulVault {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn load(&self) -> Result<Option<Vec<u8>>, CaError> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let pair = block(&self.handle, inner.kv.get(KEY))?;
        inner.held = self.read(pair)?;
        Ok(inner.held.as_ref().map(|(_, text)| text.clone()))
    }

    fn save(&self, authority: &str, _: &str) -> Result<(), CaError> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let index = match &inner.held {
            Some((_, text)) if *text == authority.as_bytes() => return Ok(()),
            Some((index, _)) => *index,
            None => 0,
        };
        let sealed = self.seal.seal(self.about.as_bytes(), authority.as_bytes())?;
        let set = block(&self.handle, inner.kv.set(KEY, sealed, index))?;
        let pair = block(&self.handle, inner.kv.get(KEY))?;
        inner.held = self.read(pair)?;
        let ours = inner.held.as_ref().is_some_and(|(_, text)| *text == authority.as_bytes());
        if set || ours {
            return Ok(());
        }
        Err(CaError::Conflict)
    }
}

/// Takes in roots that another control plane has changed. Never returns.
pub async fn follow(endpoint: Arc<Endpoint>, prefix: Arc<str>, control: Arc<Control>) {
    let mut kv = Kv::new(endpoint, prefix);
    let mut index = 0;
    loop {
        match kv.changed(KEY, index, WAIT).await {
            Ok((next, _)) if next == index && index != 0 => continue,
            Ok((next, _)) => index = next.max(1),
            Err(error) => {
                tracing::debug!(%error, "the authority is not followed; trying again");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        }
        let own = control.clone();
        let reloaded = tokio::task::spawn_blocking(move || own.authority.reload()).await;
        if let Ok(Err(error)) = reloaded {
            tracing::warn!(%error, "changed roots are not taken in; trying again");
            index = 0;
            tokio::time::sleep(RETRY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_is_opened_by_the_same_key_and_name_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        let seal = Seal::make(&one).unwrap();
        let sealed = seal.seal(b"about", b"text").unwrap();
        assert!(!sealed.windows(4).any(|part| part == b"text"));
        let again = Seal::read(&one).unwrap().unwrap();
        assert_eq!(again.open(b"about", "k", &sealed).unwrap(), b"text");
        assert!(again.open(b"other", "k", &sealed).is_err());
        let other = Seal::make(&two).unwrap().open(b"about", "k", &sealed).unwrap_err();
        assert!(other.to_string().contains("two does not open it"), "{other}");
        for at in 0..sealed.len() {
            let mut bad = sealed.to_vec();
            bad[at] ^= 1;
            assert!(again.open(b"about", "k", &bad).is_err(), "{at}");
        }
        let foreign = again.open(b"about", "weir/authority", b"{}").unwrap_err().to_string();
        assert!(foreign.starts_with("weir/authority: was not written by Weir"), "{foreign}");
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("store.key");
        Seal::make(&file).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = Seal::read(&file).err().unwrap().to_string();
        assert!(error.contains("mode 640") && error.contains("chmod 600"), "{error}");
        let short = dir.path().join("short");
        file::write_secret(&short, "c2hvcnQ").unwrap();
        let error = Seal::read(&short).err().unwrap().to_string();
        assert!(error.contains("holds no key") && !error.contains("c2hv"), "{error}");
    }
}
