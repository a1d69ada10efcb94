//! Access tokens: JWTs (RFC 7519) signed with ES256 (RFC 7518, section 3.4),
//! checked with the keys that the auth service publishes.

mod keys;
mod verifier;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tonic::Status;
use weir_proto::weir::auth::v1::Jwks;

pub use verifier::{TokenError, Verifier};

/// `iss` of the access tokens that the auth service gives out.
pub const ISSUER: &str = "weir-auth";
/// `aud` of the access tokens that the auth service gives out.
pub const AUDIENCE: &str = "weir";

/// What an access token says (RFC 7519, section 4.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Who gave the token out.
    pub iss: String,
    /// The user's id.
    pub sub: String,
    /// Whom the token is for.
    pub aud: String,
    /// When it ends, in seconds since 1970-01-01T00:00:00Z.
    pub exp: u64,
    /// When it begins, likewise.
    pub nbf: u64,
    /// When it was given out, likewise.
    pub iat: u64,
    /// This token's own id.
    pub jti: String,
    /// What the user may do beyond what every user may.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
}

/// One fetch of the keys.
pub type FetchFuture = Pin<Box<dyn Future<Output = Result<Jwks, Status>> + Send>>;
/// Where the keys come from.
pub type Fetch = Arc<dyn Fn() -> FetchFuture + Send + Sync>;
