//! Verifying a file that no control plane uses. Opening a database may already repair
//! it, so only a copy is opened: looking changes nothing.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase as _, TableError};

use super::{Embedded, FORMAT, META};
use crate::store::record::Hash;
use crate::store::{Store as _, StoreError, Verified};

/// Is removed when it is no longer needed.
struct Copy(PathBuf);

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Copy {
    /// Beside the file: what may not be read there may not be read elsewhere.
    fn of(path: &Path) -> Result<Self, StoreError> {
        let file = |error| StoreError::File(format!("{}: {error}", path.display()));
        let mut from = File::open(path).map_err(file)?;
        // What a control plane writes meanwhile would be copied in part.
        match from.try_lock_shared() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::InUse(path.display().to_string()));
            }
            Err(TryLockError::Error(error)) => return Err(file(error)),
        }
        let copy = Self(path.with_extension(format!("verify-{}", std::process::id())));
        let failed = |error| {
            StoreError::File(format!(
                "{}: {error}; a copy is verified, which needs as much room in that directory as \
                 the file has",
                copy.0.display()
            ))
        };
        // Of a process that was killed.
        let _ = std::fs::remove_file(&copy.0);
        let made = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&copy.0);
        io::copy(&mut from, &mut made.map_err(failed)?).map_err(failed)?;
        Ok(copy)
    }
}

impl Embedded {
    /// Verifies a file that no control plane uses, page by page as well, and leaves it
    /// as it is. Needs as much room beside it as it has.
    ///
    /// # Errors
    /// [`StoreError`]: in use, none there, or it cannot be read at all.
    pub fn verify_file(path: &Path, kept: &[Hash]) -> Result<Verified, StoreError> {
        if !path.is_file() {
            return Err(StoreError::File(format!("there is no {}", path.display())));
        }
        let copy = Copy::of(path)?;
        let mut database = Self::file(&copy.0)?;
        let sound = database.check_integrity();
        let noted = notes_format(&database)?;
        let mut verified = Self::with(database)?.verify(kept)?;
        if !noted {
            verified.fault(0, "the format is not noted");
        }
        match sound {
            Ok(true) => {}
            Ok(false) => verified.fault(0, "pages of the file are damaged"),
            Err(error) => verified.fault(0, format!("pages of the file are damaged: {error}")),
        }
        Ok(verified)
    }
}

/// Before the copy is made whole.
fn notes_format(database: &Database) -> Result<bool, StoreError> {
    match database.begin_read()?.open_table(META) {
        Ok(meta) => Ok(meta.get(FORMAT)?.is_some()),
        Err(TableError::TableDoesNotExist(_)) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// All that is in a directory, with the rights of each.
    fn files(directory: &Path) -> Vec<(PathBuf, u32, Vec<u8>)> {
        let entries = std::fs::read_dir(directory).unwrap().map(Result::unwrap);
        let mut files: Vec<_> = entries
            .map(|entry| {
                let mode = entry.metadata().unwrap().permissions().mode();
                (entry.path(), mode, std::fs::read(entry.path()).unwrap())
            })
            .collect();
        files.sort();
        files
    }

    #[test]
    fn looking_changes_nothing_and_tells_that_the_format_is_missing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("weir.redb");
        drop(Embedded::open(&path).unwrap());
        let sound = files(directory.path());
        assert_eq!(Embedded::verify_file(&path, &[]).unwrap().faults, []);
        assert_eq!(files(directory.path()), sound);

        let store = Embedded::open(&path).unwrap();
        let write = store.begin().unwrap();
        write.open_table(META).unwrap().remove(FORMAT).unwrap();
        write.commit().unwrap();
        assert!(matches!(Embedded::verify_file(&path, &[]), Err(StoreError::InUse(_))));
        drop(store);
        let before = files(directory.path());
        for _ in 0..2 {
            let faults = Embedded::verify_file(&path, &[]).unwrap().faults;
            let why: Vec<_> = faults.iter().map(|fault| fault.why.as_str()).collect();
            assert_eq!(why, ["the format is not noted"]);
            assert!(files(directory.path()) == before);
        }
    }
}
