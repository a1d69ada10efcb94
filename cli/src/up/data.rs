//! Where a mesh keeps what it must keep.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use weir_mesh::file::write_secret;

use crate::Error;
use crate::mesh_file::{MeshFile, Secret};
use crate::runtime_file::TEMPORARY_PREFIX;

/// A mesh's directory: the one that `--data` names, or a temporary one that is
/// removed when this is dropped.
#[derive(Debug)]
pub struct Data {
    path: PathBuf,
    temporary: Option<tempfile::TempDir>,
    /// Held while the mesh runs; the kernel lets go of it however that ends.
    _lock: fs::File,
}

impl Data {
    /// Opens or makes the directory.
    ///
    /// # Errors
    /// It cannot be made or written.
    pub fn open(path: Option<&Path>) -> Result<Self, Error> {
        let (path, temporary) = match path {
            Some(path) => (absolute(path)?, None),
            None => {
                let dir = tempfile::Builder::new()
                    .prefix(TEMPORARY_PREFIX)
                    .tempdir()
                    .map_err(|error| failed(&std::env::temp_dir(), &error))?;
                (dir.path().to_path_buf(), Some(dir))
            }
        };
        make(&path)?;
        let data = Self { _lock: lock(&path)?, path, temporary };
        for part in ["logs", "run", "join", "routers", "services", "control-plane"] {
            data.make(part)?;
        }
        data.put_logs_aside();
        Ok(data)
    }

    /// Logs begin anew with each mesh; the last one's are kept as `*.log.1`.
    fn put_logs_aside(&self) {
        for entry in fs::read_dir(self.join("logs")).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "log") {
                let _ = fs::rename(&path, path.with_extension("log.1"));
            }
        }
    }

    /// The directory, if it goes when the mesh goes.
    #[must_use]
    pub fn temporary(&self) -> Option<&Path> {
        self.temporary.as_ref().map(tempfile::TempDir::path)
    }

    /// A path inside.
    #[must_use]
    pub fn join(&self, path: impl AsRef<Path>) -> PathBuf {
        self.path.join(path)
    }

    /// Makes a directory inside, for this user only.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn make(&self, path: impl AsRef<Path>) -> Result<PathBuf, Error> {
        let path = self.join(path);
        make(&path)?;
        Ok(path)
    }

    /// The process's log.
    #[must_use]
    pub fn log(&self, name: &str) -> PathBuf {
        self.join(format!("logs/{name}.log"))
    }

    /// The file by which the process says that it serves.
    #[must_use]
    pub fn ready(&self, name: &str) -> PathBuf {
        self.join(format!("run/{name}.json"))
    }

    /// The file with a service's join token.
    #[must_use]
    pub fn join_token(&self, service: &str) -> PathBuf {
        self.join(format!("join/{service}.token"))
    }

    /// Writes the join tokens: those of the mesh file, those of an earlier run,
    /// new ones for the rest.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn write_join_tokens(&self, mesh: &MeshFile) -> Result<(), Error> {
        let all = self.join("join-tokens.json");
        let before: BTreeMap<String, String> = fs::read(&all)
            .ok()
            .and_then(|old| serde_json::from_slice(&old).ok())
            .unwrap_or_default();
        let given = mesh.services.iter().map(|spec| {
            (spec.service.name.to_string(), spec.join_token.as_ref().map(Secret::expose))
        });
        let mut tokens = BTreeMap::new();
        for (service, token) in given.chain([("gateway".to_owned(), None)]) {
            let token = match (token, before.get(&service)) {
                (Some(token), _) => token.to_owned(),
                (None, Some(token)) => token.clone(),
                (None, None) => random_token()?,
            };
            let path = self.join_token(&service);
            write_secret(&path, &token).map_err(|error| unwritten(&error))?;
            tokens.insert(service, token);
        }
        serde_json::to_vec(&tokens)
            .map_err(io::Error::from)
            .and_then(|bytes| write_secret(&all, bytes))
            .map_err(|error| unwritten(&error))
    }

    /// The control API's bearer token.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn token(&self) -> Result<String, Error> {
        let path = self.join("token");
        let text = fs::read_to_string(&path).map_err(|error| {
            Error::new(format!("cannot read the token in {}: {error}", path.display()))
        })?;
        Ok(text.trim().to_owned())
    }
}

fn make(path: &Path) -> Result<(), Error> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| failed(path, &error))
}

/// Keeps a second mesh out of the directory.
fn lock(directory: &Path) -> Result<fs::File, Error> {
    let path = directory.join("lock");
    let file = fs::OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
    let file = file.map_err(|error| failed(&path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(Error::new(format!(
            "{} is in use by another `weir up`; stop that one, or name another directory with \
             --data",
            directory.display()
        ))),
        Err(fs::TryLockError::Error(error)) => Err(failed(&path, &error)),
    }
}

/// 256 bits of the operating system's randomness, in hexadecimal.
fn random_token() -> Result<String, Error> {
    use std::io::Read as _;
    let mut bytes = [0; 32];
    fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|error| Error::new(format!("cannot make a join token: {error}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(|error| failed(path, &error))
}

/// For errors that name their path.
fn unwritten(error: &io::Error) -> Error {
    Error::new(format!("cannot write {error}; name a directory that you can write with --data"))
}

fn failed(path: &Path, error: &io::Error) -> Error {
    Error::new(format!(
        "cannot write {}: {error}; name a directory that you can write with --data",
        path.display()
    ))
}
