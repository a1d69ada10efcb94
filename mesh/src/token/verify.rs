//! One token.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::{Algorithm, KeySet, json};

/// The longest token that is looked at: parsing costs time.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// Why a token is not believed. Nothing in it repeats the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Over [`MAX_TOKEN_BYTES`].
    #[error("the token has more than {MAX_TOKEN_BYTES} bytes")]
    Long,
    /// Not a signed JWT in compact form, or a name is in it twice.
    #[error("the token is no JWT in compact form")]
    Malformed,
    /// Its header says what would let the token choose how it is checked, or what
    /// nobody here understands.
    #[error("the token's header has {0:?}, which is not accepted")]
    Header(&'static str),
    /// Its `alg` is none that its issuer may use.
    #[error("the token is not signed by an algorithm of its issuer")]
    Algorithm,
    /// Nobody that is believed made it.
    #[error("the token's issuer is not accepted here")]
    Issuer,
    /// Its issuer has no such key.
    #[error("the token was signed with a key that its issuer does not publish")]
    UnknownKey,
    /// It was changed, or somebody else made it.
    #[error("the token's signature is not valid")]
    Signature,
    /// It is for others.
    #[error("the token is for another audience")]
    Audience,
    /// A claim is missing or of another type than RFC 7519 says.
    #[error("the token's claim {0:?} is missing or of the wrong type")]
    Claim(&'static str),
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// `nbf` or `iat` lies ahead.
    #[error("the token is not valid yet")]
    NotYet,
    /// It was made too long ago.
    #[error("the token is older than is accepted here")]
    Old,
}

/// What is asked of tokens of one issuer.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// `iss`.
    pub issuer: Arc<str>,
    /// One of these must be in `aud`; never empty.
    pub audiences: Vec<Arc<str>>,
    /// One of these must be `alg`; never empty.
    pub algorithms: Vec<Algorithm>,
    /// How far clocks may differ.
    pub clock_skew: Duration,
    /// Since `iat`; none: `iat` is not asked for.
    pub max_age: Option<Duration>,
}

/// A token that was taken apart, and not believed yet.
#[derive(Debug)]
pub struct Token<'a> {
    algorithm: Algorithm,
    kid: Option<String>,
    claims: Map<String, Value>,
    signed: &'a [u8],
    signature: Vec<u8>,
}

/// Header fields that would let a token bring its own key (RFC 8725 §3.5 and
/// §3.10), or that must be understood (RFC 7515 §4.1.11).
const REFUSED: [&str; 6] = ["jwk", "jku", "x5u", "x5c", "crit", "zip"];

impl<'a> Token<'a> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// [`TokenError`], before anything of it is used.
    pub fn parse(text: &'a str) -> Result<Self, TokenError> {
        if text.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::Long);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed);
        let object = |part| json::object(&decode(part)?).ok_or(TokenError::Malformed);
        let mut header = object(header)?;
        if let Some(name) = REFUSED.into_iter().find(|name| header.contains_key(*name)) {
            return Err(TokenError::Header(name));
        }
        let algorithm = match header.get("alg") {
            Some(Value::String(name)) => name.parse().map_err(|_| TokenError::Algorithm)?,
            _ => return Err(TokenError::Algorithm),
        };
        // Compared with ids of keys, and used for nothing else.
        let kid = match header.remove("kid") {
            None => None,
            Some(Value::String(kid)) => Some(kid),
            Some(_) => return Err(TokenError::Header("kid")),
        };
        let claims = object(payload)?;
        let signature = decode(signature)?;
        Ok(Self { algorithm, kid, claims, signed: signed.as_bytes(), signature })
    }

    /// Who says to have made it: good for choosing [`Rules`], and no more.
    #[must_use]
    pub fn issuer(&self) -> Option<&str> {
        self.claims.get("iss").and_then(Value::as_str)
    }
}

/// The claims of a token, once they are known to be true. `now` is in seconds
/// since 1970-01-01T00:00:00Z.
///
/// # Errors
/// [`TokenError`]; [`TokenError::UnknownKey`] may be mended by newer keys.
pub fn verify(
    token: Token<'_>,
    rules: &Rules,
    keys: &KeySet,
    now: u64,
) -> Result<Map<String, Value>, TokenError> {
    if token.issuer() != Some(&rules.issuer) {
        return Err(TokenError::Issuer);
    }
    if !rules.algorithms.contains(&token.algorithm) {
        return Err(TokenError::Algorithm);
    }
    let kid = token.kid.as_deref();
    if !keys.knows(kid, token.algorithm) {
        return Err(TokenError::UnknownKey);
    }
    if !keys.verify(kid, token.algorithm, token.signed, &token.signature) {
        return Err(TokenError::Signature);
    }
    check_audience(&token.claims, rules)?;
    check_times(&token.claims, rules, now)?;
    Ok(token.claims)
}

fn check_audience(claims: &Map<String, Value>, rules: &Rules) -> Result<(), TokenError> {
    let wanted = |value: &Value| {
        value.as_str().is_some_and(|text| rules.audiences.iter().any(|wanted| &**wanted == text))
    };
    let fits = match claims.get("aud") {
        Some(one @ Value::String(_)) => wanted(one),
        Some(Value::Array(list)) => list.iter().any(wanted),
        _ => return Err(TokenError::Claim("aud")),
    };
    if fits { Ok(()) } else { Err(TokenError::Audience) }
}

fn check_times(claims: &Map<String, Value>, rules: &Rules, now: u64) -> Result<(), TokenError> {
    #[expect(clippy::cast_precision_loss, reason = "seconds stay far below 2^53")]
    let now = now as f64;
    let skew = rules.clock_skew.as_secs_f64();
    let exp = time(claims, "exp")?.ok_or(TokenError::Claim("exp"))?;
    if exp + skew <= now {
        return Err(TokenError::Expired);
    }
    if time(claims, "nbf")?.is_some_and(|nbf| nbf - skew > now) {
        return Err(TokenError::NotYet);
    }
    let iat = time(claims, "iat")?;
    if iat.is_some_and(|iat| iat - skew > now) {
        return Err(TokenError::NotYet);
    }
    if let Some(max_age) = rules.max_age {
        let iat = iat.ok_or(TokenError::Claim("iat"))?;
        if iat + max_age.as_secs_f64() + skew < now {
            return Err(TokenError::Old);
        }
    }
    Ok(())
}

/// RFC 7519 §2, NumericDate: a number, and no text that looks like one.
fn time(claims: &Map<String, Value>, name: &'static str) -> Result<Option<f64>, TokenError> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::Number(number)) => match number.as_f64() {
            Some(seconds) if (0.0..1e12).contains(&seconds) => Ok(Some(seconds)),
            _ => Err(TokenError::Claim(name)),
        },
        Some(_) => Err(TokenError::Claim(name)),
    }
}
