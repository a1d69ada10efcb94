//! Access tokens, and the secrets that refresh tokens are.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, Header};
use uuid::Uuid;
use weir_mesh::jwt::{AUDIENCE, Claims, ISSUER};

use crate::account::{Millis, UserId};
use crate::keys::SigningKey;
use crate::password::{HashError, random};

/// How long an access token is valid for.
pub const ACCESS_LIFETIME: Duration = Duration::from_secs(300);
/// How long a refresh token is valid for.
pub const REFRESH_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);

/// Signs access tokens.
#[derive(Clone)]
pub struct Issuer {
    key: Arc<SigningKey>,
    header: Arc<Header>,
}

impl Issuer {
    pub fn new(key: SigningKey) -> Self {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(key.kid.clone());
        Self { key: Arc::new(key), header: Arc::new(header) }
    }

    pub fn key(&self) -> &SigningKey {
        &self.key
    }

    /// A token for a user, valid from `now` on.
    pub fn access_token(
        &self,
        user: UserId,
        now: Millis,
    ) -> Result<String, jsonwebtoken::errors::Error> {
        let seconds = now.seconds();
        let claims = Claims {
            iss: ISSUER.to_owned(),
            sub: user.to_string(),
            aud: AUDIENCE.to_owned(),
            exp: seconds + ACCESS_LIFETIME.as_secs(),
            nbf: seconds,
            iat: seconds,
            jti: Uuid::now_v7().to_string(),
            roles: Vec::new(),
        };
        jsonwebtoken::encode(&self.header, &claims, self.key.encoding())
    }
}

/// 256 random bits that stand for a session. Only its hash is kept, and it
/// never shows itself: it leaves by [`RefreshToken::reveal`] alone.
pub struct RefreshToken(String);

/// SHA-256 of a refresh token. A fast hash is enough: 256 random bits cannot
/// be guessed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenHash(pub Vec<u8>);

impl RefreshToken {
    pub fn generate() -> Result<Self, HashError> {
        Ok(Self(URL_SAFE_NO_PAD.encode(random::<32>()?)))
    }

    /// One that a client sent; `None` when it cannot be one of ours.
    pub fn given(text: String) -> Option<Self> {
        let ours = URL_SAFE_NO_PAD.decode(&text).is_ok_and(|bytes| bytes.len() == 32);
        ours.then_some(Self(text))
    }

    pub fn hash(&self) -> TokenHash {
        TokenHash(digest(&SHA256, self.0.as_bytes()).as_ref().to_vec())
    }

    pub fn reveal(self) -> String {
        self.0
    }
}

impl fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefreshToken(..)")
    }
}
