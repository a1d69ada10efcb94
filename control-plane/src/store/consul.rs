//! The store of several control planes: Consul's keys.
//!
//! | key | holds |
//! | --- | --- |
//! | `history/0000000042` | the entry of revision 42 |
//! | `head` | the newest revision, and the hash of its entry |
//! | `blob/SHA256/0000` | parts of what is too large for one key, written before it is named |
//! | `next` | the first number that was not given out |
//!
//! What is desired is what the entries come to; it has no keys of its own, so the two
//! cannot differ. A commit is one transaction: it needs the head to be as it was read,
//! the entry not to be there, and the lead to be held by the session that commits. All
//! entries are in memory as well, and are read from there.

mod blobs;
mod memory;

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message as _;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::record::{self, ChangeRecord, EntryRecord, sha256};
use super::verify::{self, Verified};
use super::{Commit, Desired, Entry, ObjectKey, Revision, Store, StoreError};
use crate::consul::election::{LEAD, LeadSession};
use crate::consul::kv::{Done, Kv};
use crate::consul::{ConsulError, Endpoint};
use crate::text::hex;
use blobs::Blobs;
use memory::Memory;

const HEAD: &str = "head";
const HISTORY: &str = "history/";
const NEXT: &str = "next";
const KNOWN_FORMAT: u64 = 1;
/// How long a commit whose answer was lost is asked about.
const PATIENCE: Duration = Duration::from_secs(8);
/// Between attempts.
const RETRY: Duration = Duration::from_millis(100);
/// How long Consul may hold a question back.
const WAIT: Duration = Duration::from_secs(30);
/// How often numbers are asked for while others take some.
const ATTEMPTS: u32 = 50;
/// An entry's key holds the entry, or the hash of the blob that is the entry.
const INLINE: u8 = 0;
const BLOB: u8 = 1;

impl From<ConsulError> for StoreError {
    fn from(error: ConsulError) -> Self {
        Self::Cluster(error.to_string())
    }
}

#[derive(Serialize, Deserialize)]
struct Head {
    format: u64,
    revision: Revision,
    sha256: String,
}

struct Writer {
    kv: Kv,
    /// Of the key `head`; 0: there is none.
    head_index: u64,
}

/// The store of several control planes.
pub struct ConsulStore {
    writer: Mutex<Writer>,
    memory: RwLock<Memory>,
    blobs: Blobs,
    lead: Arc<LeadSession>,
    newest: watch::Sender<Revision>,
    endpoint: Arc<Endpoint>,
    prefix: Arc<str>,
    handle: Handle,
}

fn key(revision: Revision) -> String {
    format!("{HISTORY}{revision:010}")
}

fn damaged(revision: Revision, why: impl Into<String>) -> StoreError {
    StoreError::Damaged { revision, why: why.into() }
}

impl ConsulStore {
    /// Reads all entries and checks their chain. Blocks; the runtime must have threads
    /// of its own.
    ///
    /// # Errors
    /// [`StoreError`]: damaged, of a newer format, or Consul failed.
    pub fn open(
        endpoint: Arc<Endpoint>,
        prefix: Arc<str>,
        lead: Arc<LeadSession>,
    ) -> Result<Self, StoreError> {
        let handle = Handle::current();
        let kv = || Kv::new(endpoint.clone(), prefix.clone());
        let store = Self {
            writer: Mutex::new(Writer { kv: kv(), head_index: 0 }),
            memory: RwLock::default(),
            blobs: Blobs::new(kv(), handle.clone()),
            lead,
            newest: watch::Sender::new(0),
            handle,
            endpoint,
            prefix,
        };
        store.read_all()?;
        let revision = store.refresh()?;
        store.newest.send_replace(revision);
        Ok(store)
    }

    /// Waits for what is newer in Consul, and tells. Never returns.
    pub async fn keep(self: Arc<Self>) {
        let mut kv = Kv::new(self.endpoint.clone(), self.prefix.clone());
        let mut index = 0;
        loop {
            match kv.changed(HEAD, index, WAIT).await {
                Ok((next, pairs)) => {
                    index = next;
                    let found = pairs.iter().find(|pair| pair.key == HEAD);
                    if let Some(Ok(head)) = found.map(|pair| read_head(&pair.value)) {
                        self.newest.send_if_modified(|newest| {
                            let newer = head.revision > *newest;
                            *newest = head.revision.max(*newest);
                            newer
                        });
                    }
                    if next == 0 {
                        tokio::time::sleep(RETRY).await;
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "the store is not followed; trying again");
                    tokio::time::sleep(10 * RETRY).await;
                }
            }
        }
    }

    fn block<T>(&self, call: impl Future<Output = T>) -> T {
        tokio::task::block_in_place(|| self.handle.block_on(call))
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        // It holds what was read last, which a commit compares with what is there.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn memory<T>(&self, look: impl FnOnce(&Memory) -> T) -> T {
        look(&self.memory.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn remember(&self, revision: Revision, bytes: Bytes) -> Result<(), StoreError> {
        let mut memory = self.memory.write().unwrap_or_else(PoisonError::into_inner);
        memory.add(revision, bytes)
    }

    /// Reads every entry there is. Keys are asked for in parts: all at once could be
    /// more than Consul sends.
    fn read_all(&self) -> Result<(), StoreError> {
        let mut writer = self.writer();
        let names = self.block(writer.kv.keys(HISTORY))?;
        let mut parts = Vec::new();
        for name in &names {
            let number = name.strip_prefix(HISTORY).filter(|n| n.len() == 10);
            if number.and_then(|n| n.parse::<Revision>().ok()).is_none_or(|n| n == 0) {
                let name = writer.kv.name(name);
                let why = format!(
                    "Consul's key {name:?} is none of Weir's; delete it, or use another \
                     --store-prefix"
                );
                return Err(damaged(0, why));
            }
            let part = &name[..name.len() - 1];
            if parts.last().is_none_or(|last| last != part) {
                parts.push(part.to_owned());
            }
        }
        for part in parts {
            for pair in self.block(writer.kv.list(&part))? {
                let revision = pair.key[HISTORY.len()..].parse().unwrap_or(0);
                self.remember(revision, self.unpack(revision, &pair.value)?)?;
            }
        }
        Ok(())
    }

    /// What an entry's key holds.
    fn unpack(&self, revision: Revision, value: &Bytes) -> Result<Bytes, StoreError> {
        match value.first() {
            Some(&INLINE) => Ok(value.slice(1..)),
            Some(&BLOB) => {
                let found = self.blobs.get(&value[1..])?;
                found.ok_or_else(|| damaged(revision, "its parts are missing"))
            }
            _ => Err(damaged(revision, "its key was not written by Weir")),
        }
    }

    fn pack(&self, bytes: &Bytes) -> Result<Bytes, StoreError> {
        if bytes.len() < blobs::PART {
            return Ok([&[INLINE], &bytes[..]].concat().into());
        }
        let hash = sha256(bytes);
        self.blobs.put(&hash, bytes)?;
        Ok([&[BLOB], &hash[..]].concat().into())
    }

    /// Takes in what the head says is there.
    fn follow_head(&self, writer: &mut Writer) -> Result<Revision, StoreError> {
        let pair = self.block(writer.kv.get(HEAD))?;
        let known = self.memory(|memory| memory.head().0);
        let Some(pair) = pair else {
            return match known {
                0 => Ok(0),
                _ => Err(damaged(known, "Consul's key of the head is gone")),
            };
        };
        let head = read_head(&pair.value)?;
        if head.revision < known {
            let why = format!("the head went back to revision {}", head.revision);
            return Err(damaged(known, why));
        }
        for revision in known + 1..=head.revision {
            let pair = self.block(writer.kv.get(&key(revision)))?;
            let pair = pair.ok_or_else(|| damaged(revision, "its key is missing in Consul"))?;
            self.remember(revision, self.unpack(revision, &pair.value)?)?;
        }
        let (_, hash) = self.memory(Memory::head);
        if hex(&hash) != head.sha256 {
            return Err(damaged(head.revision, "it is not the entry that the head names"));
        }
        writer.head_index = pair.index;
        Ok(head.revision)
    }

    fn record(
        &self,
        commit: &Commit,
        revision: Revision,
        previous: &record::Hash,
    ) -> Result<Bytes, StoreError> {
        let mut changes = Vec::with_capacity(commit.edits.len());
        for edit in &commit.edits {
            let object = edit.key.to_string();
            let before = self.memory(|memory| memory.object(&object));
            let after = match &edit.after {
                None => None,
                Some(object) => {
                    let (bytes, set) = record::encode(object);
                    if let Some((hash, set)) = set {
                        self.blobs.put(&hash, &set)?;
                    }
                    Some(bytes)
                }
            };
            changes.push(ChangeRecord { object, before, after });
        }
        Ok(EntryRecord::new(commit, revision, changes, previous).encode_to_vec().into())
    }

    /// Makes an entry, and is sure about it: an answer that was lost is asked for.
    fn write(
        &self,
        writer: &mut Writer,
        session: &str,
        revision: Revision,
        bytes: &Bytes,
    ) -> Result<(), StoreError> {
        let head = Head { format: KNOWN_FORMAT, revision, sha256: hex(&sha256(bytes)) };
        let head = serde_json::to_vec(&head).map_err(|e| StoreError::Task(e.to_string()))?;
        let (entry, value) = (key(revision), self.pack(bytes)?);
        let sets = [(HEAD, writer.head_index, head.into()), (&*entry, 0, value.clone())];
        let began = Instant::now();
        loop {
            let done = self.block(writer.kv.transact(LEAD, session, &sets));
            let error = match done {
                Ok(Done::Made(made)) => {
                    let index = made.iter().find(|(key, _)| key == HEAD).map(|(_, index)| *index);
                    writer.head_index = index.unwrap_or(0);
                    return Ok(());
                }
                Ok(Done::Refused { op, why }) => match self.block(writer.kv.get(&entry)) {
                    // An earlier attempt, whose answer was lost.
                    Ok(Some(there)) if there.value == value => {
                        let head = self.block(writer.kv.get(HEAD));
                        // If it is not known, the next commit finds out.
                        writer.head_index = head.ok().flatten().map_or(0, |pair| pair.index);
                        return Ok(());
                    }
                    Ok(_) if op == 0 => {
                        tracing::warn!(why, "the lead was lost before a change was written");
                        return Err(StoreError::NotLeading);
                    }
                    Ok(_) => {
                        let now = self.follow_head(writer)?;
                        return Err(StoreError::Conflict { base: revision - 1, now });
                    }
                    Err(error) => error,
                },
                Err(error) => error,
            };
            if is_certain(&error) {
                return Err(error.into());
            }
            if began.elapsed() > PATIENCE {
                return Err(StoreError::Unclear(error.to_string()));
            }
            // Repeating it is safe: it needs the head to be as it was.
            self.block(tokio::time::sleep(RETRY));
        }
    }
}

/// Whether Consul has said no, so that nothing was done.
fn is_certain(error: &ConsulError) -> bool {
    match error {
        ConsulError::Denied { .. } | ConsulError::Token(_) => true,
        ConsulError::Status { status, .. } => status.is_client_error(),
        _ => false,
    }
}

fn read_head(value: &[u8]) -> Result<Head, StoreError> {
    let head: Head = serde_json::from_slice(value)
        .map_err(|error| damaged(0, format!("Consul's key of the head: {error}")))?;
    match head.format {
        KNOWN_FORMAT => Ok(head),
        found => Err(StoreError::Format { found, known: KNOWN_FORMAT }),
    }
}

impl Store for ConsulStore {
    fn load(&self) -> Result<Desired, StoreError> {
        let (revision, objects) = self.memory(Memory::objects);
        let mut desired = Desired::default();
        for (name, at, bytes) in objects {
            let key: ObjectKey = name.parse().map_err(|error| damaged(at, format!("{error}")))?;
            let object = record::decode(&key, &bytes, at, &|hash| self.blobs.get(hash))?;
            desired.set(&super::Edit { key, after: Some(object) }, at);
        }
        desired.revision = revision;
        Ok(desired)
    }

    fn commit(&self, commit: &Commit) -> Result<Entry, StoreError> {
        let mut writer = self.writer();
        let session = self.lead.get().ok_or(StoreError::NotLeading)?;
        let (now, previous) = self.memory(Memory::head);
        if now != commit.base {
            return Err(StoreError::Conflict { base: commit.base, now });
        }
        if now > 0 && writer.head_index == 0 {
            self.follow_head(&mut writer)?;
        }
        let revision = now + 1;
        let bytes = self.record(commit, revision, &previous)?;
        self.write(&mut writer, &session, revision, &bytes)?;
        self.remember(revision, bytes.clone())?;
        record::entry(revision, &bytes, &|hash| self.blobs.get(hash))
    }

    fn history(&self, of: Option<&ObjectKey>, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let of = of.map(ToString::to_string);
        let found = self.memory(|memory| memory.newest(of.as_deref(), Revision::MAX, limit));
        let entry = |(revision, bytes): (Revision, Bytes)| {
            record::entry(revision, &bytes, &|hash| self.blobs.get(hash))
        };
        found.into_iter().map(entry).collect()
    }

    fn last_change(&self, of: &ObjectKey, revision: Revision) -> Result<Option<Entry>, StoreError> {
        let of = of.to_string();
        let found = self.memory(|memory| memory.newest(Some(&of), revision, 1)).pop();
        let entry = |(revision, bytes): (Revision, Bytes)| {
            record::entry(revision, &bytes, &|hash| self.blobs.get(hash))
        };
        found.map(entry).transpose()
    }

    fn reserve(&self, count: u64) -> Result<Range<u64>, StoreError> {
        let mut writer = self.writer();
        for _ in 0..ATTEMPTS {
            let (start, index) = match self.block(writer.kv.get(NEXT))? {
                None => (1, 0),
                Some(pair) => {
                    let text = std::str::from_utf8(&pair.value).unwrap_or_default();
                    let why = format!("Consul's key {:?} is no number", writer.kv.name(NEXT));
                    (text.parse().map_err(|_| damaged(0, why))?, pair.index)
                }
            };
            let end = u64::saturating_add(start, count);
            if self.block(writer.kv.set(NEXT, end.to_string().into(), index))? {
                return Ok(start..end);
            }
        }
        Err(StoreError::Cluster("others take numbers all the time".to_owned()))
    }

    /// Reads everything anew: what is in memory proves nothing of what is in Consul.
    fn verify(&self, kept: &[record::Hash]) -> Result<Verified, StoreError> {
        let (endpoint, prefix) = (self.endpoint.clone(), self.prefix.clone());
        match Self::open(endpoint, prefix, self.lead.clone()) {
            Ok(there) => {
                let mut verified = verify::verify(&there, kept)?;
                let own = self.memory(|memory| memory.hash(verified.newest));
                if own.is_some_and(|own| own != verified.hash) {
                    let why = "it is another entry than this control plane has read or made";
                    verified.fault(verified.newest, why);
                }
                Ok(verified)
            }
            Err(StoreError::Damaged { revision, why }) => {
                let mut verified = Verified::default();
                verified.fault(revision, why);
                Ok(verified)
            }
            Err(error) => Err(error),
        }
    }

    fn refresh(&self) -> Result<Revision, StoreError> {
        let mut writer = self.writer();
        self.follow_head(&mut writer)
    }

    fn follow(&self) -> Option<watch::Receiver<Revision>> {
        Some(self.newest.subscribe())
    }
}
