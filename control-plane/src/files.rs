//! The data directory's files. Every error names its path.

use std::io;
use std::path::Path;

use weir_mesh::file;
use weir_mesh::identity::Secret;

fn on(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Makes a directory that only its owner can enter, parents included.
///
/// # Errors
/// What the file system answers.
pub fn directory(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| on(path, &error))
}

/// Reads a file, or `None` when there is none.
///
/// # Errors
/// What the file system answers.
pub fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(contents) => Ok(Some(contents)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(on(path, &error)),
    }
}

/// The token in the file at `path`. Without such a file, a new random one,
/// which is written there for its owner only.
///
/// # Errors
/// When the file cannot be read or written, or holds no token.
pub fn token(path: &Path) -> io::Result<Secret> {
    if let Some(contents) = read(path)? {
        let token = std::str::from_utf8(&contents).unwrap_or_default().trim();
        if token.len() < 16 || !token.bytes().all(|b| b.is_ascii_graphic()) {
            let why = "a token has at least 16 visible ASCII characters; \
                       write one, or remove the file to have one made";
            return Err(on(path, &io::Error::new(io::ErrorKind::InvalidData, why)));
        }
        return Ok(Secret::new(token));
    }
    let token = Secret::random().map_err(io::Error::other)?;
    file::write_secret(path, format!("{}\n", token.expose()))?;
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_token_is_made_once_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let made = token(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(token(&path).unwrap(), made);
    }

    #[test]
    fn a_short_token_is_refused_without_being_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "sesame\n").unwrap();
        let error = token(&path).unwrap_err().to_string();
        assert!(error.contains("at least 16") && error.contains("token: "), "{error}");
        assert!(!error.contains("sesame"), "{error}");
    }
}
