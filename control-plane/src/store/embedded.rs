//! The store of one machine: a redb file.

mod check;
mod offline;
#[cfg(test)]
mod torture;

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use bytes::Bytes;
use prost::Message as _;
use redb::{
    Database, DatabaseError, Durability, ReadTransaction, ReadableDatabase as _,
    ReadableTable as _, TableDefinition, WriteTransaction,
};

use super::record::{self, ChangeRecord, EntryRecord, Hash, StateRecord, sha256};
use super::{
    Commit, Desired, Edit, Entry, Fault, ObjectKey, Revision, Store, StoreError, Verified,
};

/// By [`ObjectKey`]: the newest desired state.
const STATE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("state");
/// By revision: append-only.
const HISTORY: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("history");
/// Which revisions changed which object.
const CHANGED: TableDefinition<'_, (&str, u32), ()> = TableDefinition::new("changed");
/// Descriptor sets by SHA-256.
const BLOBS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("blobs");
/// Numbers: see the constants below.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

const FORMAT: &str = "format";
const KNOWN_FORMAT: u64 = 1;
/// The first number that [`Store::reserve`] has not given out.
const NEXT: &str = "next";

/// SHA-256 of the newest entry, in four parts, big-endian, and which entry that is. So
/// the newest is protected too, by which no other entry follows. A Weir that did not
/// know these left them as they were: later entries are taken as they are.
const HEAD: [&str; 4] = ["head-0", "head-1", "head-2", "head-3"];
const HEAD_REVISION: &str = "head-revision";
/// What [`NEXT`] must at least be: a flipped bit must not make it smaller.
const NEXT_LEAST: &str = "next-least";
/// Nobody has reserved so many numbers.
const NEXT_MOST: u64 = u64::MAX / 2;

/// The store of one machine.
pub struct Embedded {
    database: Database,
}

impl Embedded {
    /// Opens the file at `path`, or makes it, and checks the whole history's chain.
    ///
    /// # Errors
    /// [`StoreError`]: in use, damaged, of a newer format, or the disk failed.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let store = Self::with(Self::file(path)?)?;
        if let Some(Fault { revision, why }) = store.verify(&[])?.faults.into_iter().next() {
            return Err(StoreError::Damaged { revision, why });
        }
        Ok(store)
    }

    /// [`Self::open`] on another kind of disk, which may be damaged.
    #[cfg(test)]
    fn on(disk: impl redb::StorageBackend) -> Result<Self, StoreError> {
        let store = Self::with(Database::builder().create_with_backend(disk)?)?;
        match store.verify(&[])?.faults.into_iter().next() {
            Some(Fault { revision, why }) => Err(StoreError::Damaged { revision, why }),
            None => Ok(store),
        }
    }

    fn file(path: &Path) -> Result<Database, StoreError> {
        let file = |error| StoreError::File(format!("{}: {error}", path.display()));
        if !path.try_exists().map_err(file)? {
            Self::make(path)?;
        }
        // redb makes files that all may read, and so did older versions of this.
        std::fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(file)?;
        match Database::create(path) {
            Ok(database) => Ok(database),
            Err(DatabaseError::DatabaseAlreadyOpen) => {
                Err(StoreError::InUse(path.display().to_string()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a file that is whole from the moment that it has its name: redb does not
    /// open one that it was making when the process ended.
    fn make(path: &Path) -> Result<(), StoreError> {
        let new = path.with_extension(format!("new-{}", std::process::id()));
        let file = |error| StoreError::File(format!("{}: {error}", new.display()));
        let _ = std::fs::remove_file(&new);
        OpenOptions::new().create_new(true).append(true).mode(0o600).open(&new).map_err(file)?;
        drop(Self::with(Database::create(&new)?)?);
        let named = File::open(&new).and_then(|made| {
            made.sync_all()?;
            match std::fs::hard_link(&new, path) {
                Ok(()) => {}
                // Another control plane was faster: it has the file, or had.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                // Not every file system has links.
                Err(_) => return std::fs::rename(&new, path),
            }
            std::fs::remove_file(&new)
        });
        named.map_err(file)?;
        match path.parent() {
            Some(directory) if !directory.as_os_str().is_empty() => {
                File::open(directory).and_then(|directory| directory.sync_all()).map_err(file)
            }
            _ => Ok(()),
        }
    }

    /// Makes what a new file lacks.
    fn with(database: Database) -> Result<Self, StoreError> {
        let store = Self { database };
        let write = store.begin()?;
        {
            let mut meta = write.open_table(META)?;
            let found = meta.get(FORMAT)?.map(|value| value.value());
            match found {
                None => drop(meta.insert(FORMAT, KNOWN_FORMAT)?),
                Some(KNOWN_FORMAT) => {}
                Some(found) => return Err(StoreError::Format { found, known: KNOWN_FORMAT }),
            }
            write.open_table(STATE)?;
            write.open_table(HISTORY)?;
            write.open_table(CHANGED)?;
            write.open_table(BLOBS)?;
        }
        write.commit()?;
        Ok(store)
    }

    fn begin(&self) -> Result<WriteTransaction, StoreError> {
        let mut write = self.database.begin_write()?;
        write.set_durability(Durability::Immediate)?;
        Ok(write)
    }
}

fn blob(read: &ReadTransaction, hash: &[u8]) -> Result<Option<Bytes>, StoreError> {
    let found = read.open_table(BLOBS)?.get(hash)?;
    Ok(found.map(|bytes| Bytes::copy_from_slice(bytes.value())))
}

fn entry(read: &ReadTransaction, revision: Revision) -> Result<Option<Entry>, StoreError> {
    let Some(bytes) = read.open_table(HISTORY)?.get(revision)? else {
        return Ok(None);
    };
    record::entry(revision, bytes.value(), &|hash| blob(read, hash)).map(Some)
}

/// Writes one edit into the newest state and says what it changed.
fn write_edit(
    write: &WriteTransaction,
    edit: &Edit,
    revision: Revision,
) -> Result<ChangeRecord, StoreError> {
    let key = edit.key.to_string();
    let mut state = write.open_table(STATE)?;
    let damaged = |error: prost::DecodeError| StoreError::Damaged {
        revision,
        why: format!("{key} cannot be read: {error}"),
    };
    let before = match state.get(key.as_str())? {
        Some(bytes) => Some(StateRecord::decode(bytes.value()).map_err(damaged)?.object),
        None => None,
    };
    let after = match &edit.after {
        Some(object) => {
            let (bytes, descriptor_set) = record::encode(object);
            if let Some((hash, set)) = descriptor_set {
                write.open_table(BLOBS)?.insert(hash.as_slice(), &*set)?;
            }
            let record = StateRecord { revision, object: bytes.clone() };
            state.insert(key.as_str(), record.encode_to_vec().as_slice())?;
            Some(bytes)
        }
        None => {
            state.remove(key.as_str())?;
            None
        }
    };
    write.open_table(CHANGED)?.insert((key.as_str(), revision), ())?;
    Ok(ChangeRecord { object: key, before, after })
}

fn write_head(write: &WriteTransaction, revision: Revision, hash: &Hash) -> Result<(), StoreError> {
    let mut meta = write.open_table(META)?;
    meta.insert(HEAD_REVISION, u64::from(revision))?;
    for (name, part) in HEAD.iter().zip(hash.chunks_exact(8)) {
        let part = part.iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte));
        meta.insert(*name, part)?;
    }
    Ok(())
}

/// The newest revision and the hash of its entry.
fn head(write: &WriteTransaction) -> Result<(Revision, Hash), StoreError> {
    let history = write.open_table(HISTORY)?;
    Ok(match history.last()? {
        Some((revision, bytes)) => (revision.value(), sha256(bytes.value())),
        None => (0, [0; 32]),
    })
}

impl Store for Embedded {
    fn load(&self) -> Result<Desired, StoreError> {
        let read = self.database.begin_read()?;
        let mut desired = Desired::default();
        for item in read.open_table(STATE)?.iter()? {
            let (key, bytes) = item?;
            let damaged = |why: String| StoreError::Damaged { revision: 0, why };
            let record =
                StateRecord::decode(bytes.value()).map_err(|error| damaged(error.to_string()))?;
            let key: ObjectKey = key.value().parse().map_err(|e| damaged(format!("{e}")))?;
            let object =
                record::decode(&key, &record.object, record.revision, &|hash| blob(&read, hash))?;
            desired.set(&Edit { key, after: Some(object) }, record.revision);
        }
        let last = read.open_table(HISTORY)?.last()?.map(|(revision, _)| revision.value());
        desired.revision = last.unwrap_or(0);
        Ok(desired)
    }

    fn commit(&self, commit: &Commit) -> Result<Entry, StoreError> {
        let write = self.begin()?;
        let (now, previous) = head(&write)?;
        if now != commit.base {
            return Err(StoreError::Conflict { base: commit.base, now });
        }
        let revision = now + 1;
        let changes = commit
            .edits
            .iter()
            .map(|edit| write_edit(&write, edit, revision))
            .collect::<Result<_, _>>()?;
        let record = EntryRecord::new(commit, revision, changes, &previous).encode_to_vec();
        write.open_table(HISTORY)?.insert(revision, record.as_slice())?;
        write_head(&write, revision, &sha256(&record))?;
        write.commit()?;
        let read = self.database.begin_read()?;
        record::entry(revision, &record, &|hash| blob(&read, hash))
    }

    fn history(&self, of: Option<&ObjectKey>, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let read = self.database.begin_read()?;
        let mut revisions = Vec::new();
        match of {
            None => {
                for item in read.open_table(HISTORY)?.iter()?.rev().take(limit) {
                    revisions.push(item?.0.value());
                }
            }
            Some(key) => {
                let key = key.to_string();
                let changed = read.open_table(CHANGED)?;
                let range = (key.as_str(), 0)..=(key.as_str(), Revision::MAX);
                for item in changed.range(range)?.rev().take(limit) {
                    revisions.push(item?.0.value().1);
                }
            }
        }
        revisions.into_iter().filter_map(|revision| entry(&read, revision).transpose()).collect()
    }

    fn last_change(&self, of: &ObjectKey, revision: Revision) -> Result<Option<Entry>, StoreError> {
        let read = self.database.begin_read()?;
        let key = of.to_string();
        let changed = read.open_table(CHANGED)?;
        let newest = changed.range((key.as_str(), 0)..=(key.as_str(), revision))?.next_back();
        match newest {
            None => Ok(None),
            Some(item) => entry(&read, item?.0.value().1),
        }
    }

    fn reserve(&self, count: u64) -> Result<Range<u64>, StoreError> {
        let write = self.begin()?;
        let range = {
            let mut meta = write.open_table(META)?;
            let start = meta.get(NEXT)?.map_or(1, |value| value.value());
            let end = start.saturating_add(count);
            meta.insert(NEXT, end)?;
            meta.insert(NEXT_LEAST, end)?;
            start..end
        };
        write.commit()?;
        Ok(range)
    }

    fn verify(&self, kept: &[Hash]) -> Result<Verified, StoreError> {
        check::verify(&self.database.begin_read()?, kept)
    }
}
