//! Join tokens: how a router proves whose it is before it has a certificate.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use weir_mesh::identity::Secret;

use crate::files;

/// Why the file of join tokens cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JoinTokensError {
    /// It cannot be read.
    #[error("{0}")]
    File(#[from] io::Error),
    /// It is not there.
    #[error("{}: no such file; write a JSON object of service names and tokens", .0.display())]
    Missing(PathBuf),
    /// It has the wrong form. The text never quotes the file.
    #[error(
        "{}: line {line}, column {column}: not a JSON object of service names and tokens",
        path.display()
    )]
    Json {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
}

/// The join token of each service, from a JSON object: `{"products": "..."}`.
pub struct JoinTokens {
    path: Option<PathBuf>,
    tokens: RwLock<HashMap<String, Secret>>,
}

impl JoinTokens {
    /// Reads the file; without one, nobody can join.
    ///
    /// # Errors
    /// [`JoinTokensError`] naming the file and the place in it.
    pub fn open(path: Option<&Path>) -> Result<Self, JoinTokensError> {
        let tokens = path.map(read).transpose()?.unwrap_or_default();
        Ok(Self { path: path.map(Path::to_owned), tokens: RwLock::new(tokens) })
    }

    /// Whether `token` is the service's. A service that is not known yet, or a token
    /// that does not fit, has the file read again. Blocks on the disk then.
    ///
    /// # Errors
    /// [`JoinTokensError`] when the file must be read again and cannot be: what was
    /// known before stays.
    pub fn allow(&self, service: &str, token: &str) -> Result<bool, JoinTokensError> {
        if self.known(service, token) {
            return Ok(true);
        }
        let Some(path) = &self.path else {
            return Ok(false);
        };
        *self.tokens.write().unwrap_or_else(PoisonError::into_inner) = read(path)?;
        Ok(self.known(service, token))
    }

    fn known(&self, service: &str, token: &str) -> bool {
        let tokens = self.tokens.read().unwrap_or_else(PoisonError::into_inner);
        tokens.get(service).is_some_and(|own| !token.is_empty() && own.matches(token))
    }
}

fn read(path: &Path) -> Result<HashMap<String, Secret>, JoinTokensError> {
    let contents = files::read(path)?.ok_or_else(|| JoinTokensError::Missing(path.to_owned()))?;
    let tokens: HashMap<String, String> = serde_json::from_slice(&contents).map_err(|e| {
        JoinTokensError::Json { path: path.to_owned(), line: e.line(), column: e.column() }
    })?;
    Ok(tokens.into_iter().map(|(service, token)| (service, Secret::new(token))).collect())
}
