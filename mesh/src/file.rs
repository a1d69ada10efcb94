//! Files that are whole or not there: written beside, then renamed.
//!
//! Blocking: meant for start-up and for rare, small writes.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Replaces `path` by `contents`, readable by all (mode 0644 less the umask).
///
/// A reader sees the old file or the new one, never a part, and so does
/// whoever looks after a crash: the data is on disk before the name changes.
///
/// # Errors
/// What the file system answers; the message names the path.
pub fn write_atomic(path: impl AsRef<Path>, contents: impl AsRef<[u8]>) -> io::Result<()> {
    replace(path.as_ref(), contents.as_ref(), 0o644)
}

/// Like [`write_atomic`], but only the owner may read the file (mode 0600),
/// from its first byte on.
///
/// # Errors
/// What the file system answers; the message names the path.
pub fn write_secret(path: impl AsRef<Path>, contents: impl AsRef<[u8]>) -> io::Result<()> {
    replace(path.as_ref(), contents.as_ref(), 0o600)
}

fn replace(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    let name_path =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let temporary = temporary_name(path).map_err(name_path)?;
    let result = write_new(&temporary, contents, mode).and_then(|()| fs::rename(&temporary, path));
    if result.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    result.and_then(|()| sync_directory(path)).map_err(name_path)
}

/// In the same directory, since a rename does not cross file systems; unlike
/// any other writer's, since several processes may write the same path.
fn temporary_name(path: &Path) -> io::Result<PathBuf> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let Some(name) = path.file_name() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "names no file"));
    };
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}.{}.tmp", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    Ok(path.with_file_name(hidden))
}

fn write_new(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    // Left over from a process with our id that was killed.
    let _ = fs::remove_file(path);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    let mut file = options.open(path)?;
    file.write_all(contents)?;
    file.sync_all()
}

/// The rename itself must survive a crash too.
fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if cfg!(unix) { fs::File::open(parent)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_whole_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        write_atomic(&path, "one").unwrap();
        write_atomic(&path, "two").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn a_secret_is_the_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs::write(&path, "old and open").unwrap();
        write_secret(&path, "k").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn an_error_names_the_path() {
        let error = write_atomic("/nonexistent-directory/x", "").unwrap_err();
        assert!(error.to_string().contains("/nonexistent-directory/x"), "{error}");
    }
}
