//! Checking one token.

use std::sync::Arc;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation};
use tonic::Status;
use tonic::metadata::MetadataMap;
use weir_proto::weir::auth::v1::GetJwksRequest;
use weir_proto::weir::auth::v1::auth_service_client::AuthServiceClient;

use super::keys::{Keys, NoKey};
use super::{AUDIENCE, Claims, Fetch, ISSUER};
use crate::server::{InvalidService, Outbound, error_info};

/// How far clocks may differ, in seconds.
const LEEWAY: u64 = 30;
/// No token of ours comes near this, and parsing costs time.
const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// Why a token is not accepted. Nothing in it repeats the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// There is no `authorization` header.
    #[error("no access token: send `authorization: Bearer TOKEN`")]
    Missing,
    /// It has another scheme than `Bearer`, or there are several.
    #[error("the authorization header is not of the form `Bearer TOKEN`")]
    Scheme,
    /// It is no JWT, not signed with ES256, or lacks claims.
    #[error("the access token is malformed")]
    Malformed,
    /// No published key made it, or it was changed.
    #[error("the access token's signature is not valid")]
    Signature,
    /// `exp` has passed.
    #[error("the access token has expired: refresh it or log in again")]
    Expired,
    /// `nbf` lies ahead.
    #[error("the access token is not valid yet")]
    NotYet,
    /// Another issuer or audience.
    #[error("the access token was not made for this mesh")]
    Foreign,
    /// The keys to check it with cannot be fetched right now.
    #[error("access tokens cannot be checked right now: the auth service does not answer")]
    Unavailable,
}

impl From<TokenError> for Status {
    fn from(error: TokenError) -> Self {
        let (code, reason) = match error {
            TokenError::Unavailable => (tonic::Code::Unavailable, "KEYS_UNAVAILABLE"),
            TokenError::Missing => (tonic::Code::Unauthenticated, "TOKEN_MISSING"),
            TokenError::Expired => (tonic::Code::Unauthenticated, "TOKEN_EXPIRED"),
            _ => (tonic::Code::Unauthenticated, "TOKEN_INVALID"),
        };
        error_info(code, error.to_string(), reason, ISSUER)
    }
}

/// Checks access tokens. Clones share the cached keys.
///
/// Keys are fetched at the first token, again for a key id that is not known
/// (at most once a second), and every 5 minutes; while the auth service is
/// away, the cached ones go on serving.
#[derive(Clone)]
pub struct Verifier {
    validation: Arc<Validation>,
    keys: Keys,
}

impl Verifier {
    /// Accepts tokens of `issuer` for `audience`, signed by a key of `fetch`.
    #[must_use]
    pub fn new(issuer: &str, audience: &str, fetch: Fetch) -> Self {
        let mut validation = Validation::new(Algorithm::ES256);
        validation.leeway = LEEWAY;
        validation.validate_nbf = true;
        validation.set_issuer(&[issuer]);
        validation.set_audience(&[audience]);
        validation.set_required_spec_claims(&["exp", "nbf", "iss", "aud", "sub"]);
        Self { validation: Arc::new(validation), keys: Keys::new(fetch) }
    }

    /// Accepts the mesh's own access tokens, by the keys of its auth service.
    ///
    /// # Errors
    /// Never in practice: `auth` is a valid name.
    pub fn mesh(outbound: &Outbound) -> Result<Self, InvalidService> {
        let client = AuthServiceClient::new(outbound.channel("auth")?);
        let fetch: Fetch = Arc::new(move || {
            let mut client = client.clone();
            Box::pin(async move { Ok(client.get_jwks(GetJwksRequest {}).await?.into_inner()) })
        });
        Ok(Self::new(ISSUER, AUDIENCE, fetch))
    }

    /// The claims of a token, once they are known to be true.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub async fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::Malformed);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Malformed)?;
        if header.alg != Algorithm::ES256 {
            return Err(TokenError::Malformed);
        }
        let kid = header.kid.ok_or(TokenError::Malformed)?;
        let key = self.keys.get(&kid).await.map_err(|none| match none {
            NoKey::Unknown => TokenError::Signature,
            NoKey::Unreachable => TokenError::Unavailable,
        })?;
        match jsonwebtoken::decode::<Claims>(token, &key, &self.validation) {
            Ok(token) => Ok(token.claims),
            Err(error) => Err(match error.kind() {
                ErrorKind::ExpiredSignature => TokenError::Expired,
                ErrorKind::ImmatureSignature => TokenError::NotYet,
                ErrorKind::InvalidIssuer | ErrorKind::InvalidAudience => TokenError::Foreign,
                ErrorKind::InvalidSignature => TokenError::Signature,
                _ => TokenError::Malformed,
            }),
        }
    }

    /// The user that a request comes from, by its `authorization` header.
    ///
    /// # Errors
    /// UNAUTHENTICATED with google.rpc.ErrorInfo; UNAVAILABLE when no keys can
    /// be fetched.
    pub async fn user(&self, metadata: &MetadataMap) -> Result<Claims, Status> {
        Ok(self.verify(bearer(metadata)?).await?)
    }
}

/// The token of `authorization: Bearer TOKEN` (RFC 6750, section 2.1).
fn bearer(metadata: &MetadataMap) -> Result<&str, TokenError> {
    let mut headers = metadata.get_all("authorization").iter();
    let header = headers.next().ok_or(TokenError::Missing)?;
    if headers.next().is_some() {
        return Err(TokenError::Scheme);
    }
    let text = header.to_str().map_err(|_| TokenError::Scheme)?;
    let (scheme, token) = text.split_once(' ').ok_or(TokenError::Scheme)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(TokenError::Scheme);
    }
    Ok(token.trim())
}
