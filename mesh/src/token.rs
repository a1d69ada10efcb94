//! Checking JSON Web Tokens (RFC 7519) of any issuer, strictly: what RFC 8725
//! warns of is refused.
//!
//! Pure: keys come from outside ([`KeySet`]), and so does the time.

mod json;
mod keys;
#[cfg(test)]
mod tests;
mod verify;

use std::fmt;
use std::str::FromStr;

pub use keys::{KeySet, KeySetError};
pub use verify::{MAX_TOKEN_BYTES, Rules, Token, TokenError, verify};

/// How a token is signed (RFC 7518 §3.1, RFC 8037 §3.1). Only with a private key:
/// a secret that those who check tokens share would let them make some.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
    /// ECDSA with P-256 and SHA-256.
    Es256,
    /// ECDSA with P-384 and SHA-384.
    Es384,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// Every one.
    pub const ALL: [Self; 9] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::EdDsa,
    ];

    /// Its name in `alg`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no algorithm of [`Algorithm`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AlgorithmError {
    /// `none`, whatever its case.
    #[error("\"none\" is no signature; anyone could make such tokens")]
    None,
    /// A MAC.
    #[error("{0} needs a secret that everyone who checks tokens could sign with; use {names}", names = names())]
    Mac(String),
    /// Anything else.
    #[error("{0:?} is not known; use {names}", names = names())]
    Unknown(String),
}

fn names() -> String {
    Algorithm::ALL.map(Algorithm::as_str).join(", ")
}

impl FromStr for Algorithm {
    type Err = AlgorithmError;

    fn from_str(text: &str) -> Result<Self, AlgorithmError> {
        let known = Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == text);
        known.ok_or_else(|| match text {
            _ if text.eq_ignore_ascii_case("none") => AlgorithmError::None,
            "HS256" | "HS384" | "HS512" => AlgorithmError::Mac(text.to_owned()),
            _ => AlgorithmError::Unknown(text.chars().take(40).collect()),
        })
    }
}
