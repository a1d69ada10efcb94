//! JSON Web Key Sets (RFC 7517).

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::{Algorithm, json};

/// Why a document is no key set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// Over [`KeySet::MAX_BYTES`].
    #[error("the key set has more than {} bytes", KeySet::MAX_BYTES)]
    Long,
    /// Not `{"keys": [...]}`.
    #[error("this is no JSON Web Key Set (RFC 7517): {{\"keys\": [...]}}")]
    Form,
    /// Over [`KeySet::MAX_KEYS`].
    #[error("the key set has {0} keys; at most {max} are possible", max = KeySet::MAX_KEYS)]
    Many(usize),
    /// No key that could check a token.
    #[error(
        "the key set has no key that signatures could be checked with (RSA from 2048 bits, P-256, P-384, Ed25519)"
    )]
    None,
    /// A private or a shared key, which does not belong here.
    #[error(
        "the key set holds a private or secret key; publish public keys only, and change that one"
    )]
    Secret,
}

/// Public keys of an issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySet(Vec<Key>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    kid: Option<Box<str>>,
    alg: Option<Algorithm>,
    material: Material,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Material {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl KeySet {
    /// The longest document that is read.
    pub const MAX_BYTES: usize = 128 * 1024;
    /// Most keys of one set.
    pub const MAX_KEYS: usize = 64;
    /// Most keys that one token is tried with.
    const TRIES: usize = 4;

    /// Reads a document. Keys of other kinds and for other uses are left out
    /// (RFC 7517 §5).
    ///
    /// # Errors
    /// [`KeySetError`].
    pub fn parse(document: &[u8]) -> Result<Self, KeySetError> {
        if document.len() > Self::MAX_BYTES {
            return Err(KeySetError::Long);
        }
        let document = json::object(document).ok_or(KeySetError::Form)?;
        let keys = document.get("keys").and_then(Value::as_array).ok_or(KeySetError::Form)?;
        if keys.len() > Self::MAX_KEYS {
            return Err(KeySetError::Many(keys.len()));
        }
        let keys: Vec<_> = keys.iter().filter_map(Value::as_object).collect();
        if keys.iter().any(|key| key.contains_key("d") || key.contains_key("k")) {
            return Err(KeySetError::Secret);
        }
        let keys: Vec<Key> = keys.into_iter().filter_map(key).collect();
        if keys.is_empty() { Err(KeySetError::None) } else { Ok(Self(keys)) }
    }

    /// Whether a key by this id, or any when there is none, can be meant.
    pub(super) fn knows(&self, kid: Option<&str>, algorithm: Algorithm) -> bool {
        self.candidates(kid, algorithm).next().is_some()
    }

    /// Whether one of the keys that can be meant made the signature.
    pub(super) fn verify(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
        message: &[u8],
        signature: &[u8],
    ) -> bool {
        let mut keys = self.candidates(kid, algorithm).take(Self::TRIES);
        keys.any(|key| key.material.verify(algorithm, message, signature))
    }

    fn candidates(&self, kid: Option<&str>, algorithm: Algorithm) -> impl Iterator<Item = &Key> {
        self.0.iter().filter(move |key| {
            // A key is good for what it is, never for what a token says.
            (kid.is_none() || key.kid.as_deref() == kid)
                && key.alg.is_none_or(|own| own == algorithm)
                && key.material.suits(algorithm)
        })
    }
}

fn key(sent: &Map<String, Value>) -> Option<Key> {
    let text = |name| sent.get(name).and_then(Value::as_str);
    let bytes = |name| URL_SAFE_NO_PAD.decode(text(name)?).ok();
    if text("use").is_some_and(|usage| usage != "sig") {
        return None;
    }
    let alg = match text("alg") {
        None => None,
        Some(name) => Some(name.parse().ok()?),
    };
    let point = |size: usize| {
        let (x, y) = (bytes("x")?, bytes("y")?);
        // Uncompressed (SEC 1 §2.3.3).
        (x.len() == size && y.len() == size).then(|| [&[4], &*x, &*y].concat())
    };
    let material = match (text("kty")?, text("crv")) {
        ("RSA", _) => {
            let n = bytes("n")?;
            let first = n.iter().position(|byte| *byte != 0)?;
            let n = n[first..].to_vec();
            (256..=1024).contains(&n.len()).then_some(())?;
            Material::Rsa { n, e: bytes("e")? }
        }
        ("EC", Some("P-256")) => Material::P256(point(32)?),
        ("EC", Some("P-384")) => Material::P384(point(48)?),
        ("OKP", Some("Ed25519")) => Material::Ed25519(bytes("x").filter(|x| x.len() == 32)?),
        _ => return None,
    };
    Some(Key { kid: text("kid").map(Into::into), alg, material })
}

impl Material {
    fn suits(&self, algorithm: Algorithm) -> bool {
        use Algorithm as A;
        match self {
            Self::Rsa { .. } => {
                matches!(algorithm, A::Rs256 | A::Rs384 | A::Rs512 | A::Ps256 | A::Ps384 | A::Ps512)
            }
            Self::P256(_) => algorithm == A::Es256,
            Self::P384(_) => algorithm == A::Es384,
            Self::Ed25519(_) => algorithm == A::EdDsa,
        }
    }

    fn verify(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        use Algorithm as A;
        let rsa = match algorithm {
            A::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
            A::Rs384 => &RSA_PKCS1_2048_8192_SHA384,
            A::Rs512 => &RSA_PKCS1_2048_8192_SHA512,
            A::Ps256 => &RSA_PSS_2048_8192_SHA256,
            A::Ps384 => &RSA_PSS_2048_8192_SHA384,
            _ => &RSA_PSS_2048_8192_SHA512,
        };
        let verified = match self {
            _ if !self.suits(algorithm) => return false,
            Self::Rsa { n, e } => RsaPublicKeyComponents { n, e }.verify(rsa, message, signature),
            Self::P256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature)
            }
            Self::P384(point) => {
                UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point).verify(message, signature)
            }
            Self::Ed25519(key) => UnparsedPublicKey::new(&ED25519, key).verify(message, signature),
        };
        verified.is_ok()
    }
}
