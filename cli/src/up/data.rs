//! Where a mesh keeps what it must keep.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
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
        let data = Self { path, temporary };
        for part in ["", "logs", "run", "join", "routers", "services", "control-plane"] {
            data.make(part)?;
        }
        Ok(data)
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
        let path = if path.as_ref() == Path::new("") { self.path.clone() } else { self.join(path) };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .map_err(|error| failed(&path, &error))?;
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
