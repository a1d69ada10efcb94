//! Join tokens and other shared secrets.

use std::path::Path;
use std::{fmt, fs};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{IdentityError, provider};

/// A join token, bearer token or the like.
///
/// It never shows in `Debug`, has no `Display`, and compares in a time that
/// depends on its length alone.
#[derive(Clone)]
pub struct Secret(Box<str>);

impl Secret {
    /// Takes a secret as it is.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into().into_boxed_str())
    }

    /// Makes a secret of 256 random bits, written with the URL-safe alphabet
    /// (RFC 4648 section 5).
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn random() -> Result<Self, IdentityError> {
        let mut bytes = [0; 32];
        provider()
            .secure_random
            .fill(&mut bytes)
            .map_err(|_| rustls::Error::FailedToGetRandomBytes)?;
        Ok(Self::new(URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// Reads a file, without the white space around.
    ///
    /// # Errors
    /// When the file cannot be read or is empty; the message names the path.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, IdentityError> {
        let path = path.as_ref();
        let text = fs::read_to_string(path)
            .map_err(|e| std::io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
        match text.trim() {
            "" => Err(std::io::Error::new(
                std::io::ErrorKind::InvalidData,
                format!("{}: is empty; it must hold a token", path.display()),
            )
            .into()),
            secret => Ok(Self::new(secret)),
        }
    }

    /// The secret itself: only for what sends it to its owner or checks it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether `candidate` is the secret, in constant time for its length.
    #[must_use]
    pub fn matches(&self, candidate: &str) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(self.0.as_bytes(), candidate.as_bytes())
            .is_ok()
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.matches(&other.0)
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_only_when_equal_and_never_shown() {
        let secret = Secret::new("hunter2");
        assert!(secret.matches("hunter2"));
        for other in ["", "hunter", "hunter3", "hunter22"] {
            assert!(!secret.matches(other), "{other}");
        }
        assert!(!format!("{secret:?} {:?}", Some(&secret)).contains("hunter"));
    }

    #[test]
    fn random_ones_differ_and_files_are_trimmed() {
        let (a, b) = (Secret::random().unwrap(), Secret::random().unwrap());
        assert_ne!(a, b);
        assert_eq!(a.expose().len(), 43);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        crate::file::write_secret(&path, format!("{}\n", a.expose())).unwrap();
        assert_eq!(Secret::read(&path).unwrap(), a);
        crate::file::write_secret(&path, "\n").unwrap();
        assert!(Secret::read(&path).unwrap_err().to_string().contains("token: is empty"));
    }
}
