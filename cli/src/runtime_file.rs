//! How commands find the mesh that runs on this machine: one small file for each
//! `weir up`, in a directory that only its user can read.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use weir_mesh::file::write_secret;

/// What is known of a running mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeFile {
    /// URL of the control API.
    pub control: String,
    /// Where its bearer token is.
    pub token_file: PathBuf,
    /// Process id of `weir up`.
    pub pid: u32,
    /// Milliseconds since 1970.
    pub started: u64,
    /// A directory to remove with the mesh.
    pub temporary: Option<PathBuf>,
    /// Whether commands may take it for the mesh that is meant. A tour's is not:
    /// what it measures must not change under it.
    pub listed: bool,
}

/// Removes the file when dropped.
#[derive(Debug)]
pub struct Guard(PathBuf);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Beginning of the name of every temporary data directory.
pub const TEMPORARY_PREFIX: &str = "weir-up-";

impl RuntimeFile {
    /// Describes the mesh that this process runs.
    #[must_use]
    pub fn new(
        control: String,
        token_file: PathBuf,
        temporary: Option<PathBuf>,
        listed: bool,
    ) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let started = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        Self { control, token_file, pid: std::process::id(), started, temporary, listed }
    }

    /// Announces the mesh until the guard is dropped.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn publish(&self) -> io::Result<Guard> {
        self.publish_in(&directory())
    }

    fn publish_in(&self, directory: &Path) -> io::Result<Guard> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let path = directory.join(format!("{}.json", self.pid));
        write_secret(&path, serde_json::to_vec(self)?)?;
        Ok(Guard(path))
    }
}

/// The newest mesh that still runs. Files of dead ones are removed, and so are
/// the temporary directories that they could not remove themselves.
#[must_use]
pub fn newest() -> Option<RuntimeFile> {
    newest_in(&directory())
}

fn newest_in(directory: &Path) -> Option<RuntimeFile> {
    let mut newest: Option<RuntimeFile> = None;
    for entry in fs::read_dir(directory).ok()?.flatten() {
        let path = entry.path();
        let Some(mesh) = fs::read(&path)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<RuntimeFile>(&bytes).ok())
        else {
            continue;
        };
        if !is_alive(mesh.pid) {
            clean(&path, &mesh);
        } else if mesh.listed && newest.as_ref().is_none_or(|other| other.started <= mesh.started) {
            newest = Some(mesh);
        }
    }
    newest
}

fn clean(path: &Path, mesh: &RuntimeFile) {
    let _ = fs::remove_file(path);
    // Only what `weir up` itself made: a name of ours, right below the
    // directory for temporary files.
    if let Some(directory) = &mesh.temporary
        && directory.parent() == Some(&std::env::temp_dir())
        && directory
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.starts_with(TEMPORARY_PREFIX))
    {
        let _ = fs::remove_dir_all(directory);
    }
}

fn is_alive(pid: u32) -> bool {
    let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) else {
        return false;
    };
    // EPERM also means that there is such a process, but not one of ours.
    rustix::process::test_kill_process(pid).is_ok()
}

/// `$XDG_RUNTIME_DIR/weir/meshes`, else `~/.weir/meshes`.
fn directory() -> PathBuf {
    let named = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if let Some(runtime) = named("XDG_RUNTIME_DIR").filter(|path| path.is_dir()) {
        return runtime.join("weir/meshes");
    }
    match named("HOME") {
        Some(home) => home.join(".weir/meshes"),
        None => {
            std::env::temp_dir().join(format!("weir-{}/meshes", rustix::process::getuid().as_raw()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mesh(pid: u32, started: u64) -> RuntimeFile {
        RuntimeFile {
            control: format!("http://127.0.0.1:{started}"),
            token_file: "token".into(),
            pid,
            started,
            temporary: None,
            listed: true,
        }
    }

    #[test]
    fn the_newest_living_mesh_wins_and_dead_ones_go() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("meshes");
        let me = std::process::id();
        let _one = mesh(me, 10).publish_in(&dir).unwrap();
        // Above every pid that Linux gives out.
        let dead = mesh(1 << 30, 99).publish_in(&dir).unwrap();
        let parent = mesh(std::os::unix::process::parent_id(), 20).publish_in(&dir).unwrap();
        assert_eq!(newest_in(&dir).unwrap().started, 20);
        assert!(!dead.0.exists());
        let mode = fs::metadata(&parent.0).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(parent);
        let hidden = RuntimeFile { listed: false, ..mesh(std::os::unix::process::parent_id(), 30) };
        let _hidden = hidden.publish_in(&dir).unwrap();
        assert_eq!(newest_in(&dir).unwrap().started, 10);
    }
}
