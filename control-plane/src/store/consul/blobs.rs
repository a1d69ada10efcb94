//! What is too large for one key: kept in parts, by its SHA-256, and never changed.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use tokio::runtime::Handle;

use super::damaged;
use crate::consul::kv::Kv;
use crate::store::StoreError;
use crate::store::record::{Hash, sha256};
use crate::text::hex;

/// Bytes of a part, and of what fits into a key beside others: Consul takes 512 KiB,
/// and a transaction counts what base64 and JSON add.
pub(super) const PART: usize = 256 << 10;

struct Inner {
    kv: Kv,
    /// Those that were seen. They are few: descriptor sets, and very large changes.
    known: HashMap<Hash, Bytes>,
}

/// Everything that is kept so.
pub(super) struct Blobs {
    inner: Mutex<Inner>,
    handle: Handle,
}

impl Blobs {
    pub fn new(kv: Kv, handle: Handle) -> Self {
        Self { inner: Mutex::new(Inner { kv, known: HashMap::new() }), handle }
    }

    fn with<T>(&self, run: impl AsyncFnOnce(&mut Inner) -> T) -> T {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        tokio::task::block_in_place(|| self.handle.block_on(run(&mut inner)))
    }

    /// Keeps what has this SHA-256. Parts that are there already are the same.
    pub fn put(&self, hash: &Hash, bytes: &Bytes) -> Result<(), StoreError> {
        self.with(async |inner| {
            if inner.known.contains_key(hash) {
                return Ok(());
            }
            for (i, part) in bytes.chunks(PART).enumerate() {
                let key = format!("blob/{}/{i:04}", hex(hash));
                inner.kv.set(&key, bytes.slice_ref(part), 0).await?;
            }
            inner.known.insert(*hash, bytes.clone());
            Ok(())
        })
    }

    /// What has this SHA-256, if it is there.
    pub fn get(&self, hash: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let hash = Hash::try_from(hash).map_err(|_| damaged(0, "a hash is cut"))?;
        self.with(async |inner| {
            if let Some(known) = inner.known.get(&hash) {
                return Ok(Some(known.clone()));
            }
            let mut all = Vec::new();
            let folder = format!("blob/{}/", hex(&hash));
            for name in inner.kv.keys(&folder).await? {
                let part = inner.kv.get(&name).await?;
                all.extend_from_slice(&part.map(|pair| pair.value).unwrap_or_default());
            }
            if all.is_empty() {
                return Ok(None);
            }
            if sha256(&all) != hash {
                let why = format!("Consul's keys {}* were altered", inner.kv.name(&folder));
                return Err(damaged(0, why));
            }
            let bytes = Bytes::from(all);
            inner.known.insert(hash, bytes.clone());
            Ok(Some(bytes))
        })
    }
}
