//! The door: wire messages in, the rules of `auth`, wire messages out.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tonic::{Request, Response, Status};
use weir_mesh::server::{BadRequest, error_info, retry_after};
use weir_proto::weir::auth::v1 as pb;

use crate::account::{DisplayName, Email, Password};
use crate::auth::{Auth, AuthError, Tokens};
use crate::password::HashError;
use crate::store::StoreError;
use crate::token::{ACCESS_LIFETIME, RefreshToken};

/// `weir.auth.v1.AuthService`.
pub struct Service {
    pub auth: Arc<Auth>,
    /// What v2 has and v1 has not.
    pub with_session: bool,
}

impl Service {
    fn answer(&self, tokens: Tokens) -> Response<pb::TokenResponse> {
        let session = self.with_session.then(|| pb::Session {
            created_at: Some(SystemTime::from(tokens.session_created_at).into()),
            refresh_expires_at: Some(SystemTime::from(tokens.refresh_expires_at).into()),
        });
        Response::new(pb::TokenResponse {
            user_id: tokens.user.to_string(),
            access_token: tokens.access,
            refresh_token: tokens.refresh.reveal(),
            token_type: "Bearer".to_owned(),
            expires_in: i32::try_from(ACCESS_LIFETIME.as_secs()).unwrap_or(i32::MAX),
            session,
        })
    }
}

#[tonic::async_trait]
impl pb::auth_service_server::AuthService for Service {
    async fn register(
        &self,
        request: Request<pb::RegisterRequest>,
    ) -> Result<Response<pb::TokenResponse>, Status> {
        let request = request.into_inner();
        let mut bad = BadRequest::new();
        let email = bad.check("email", Email::try_from(request.email.as_str()));
        let password = bad.check("password", Password::chosen(request.password));
        let name = match (&email, request.display_name.as_str()) {
            (Some(email), "") => Some(DisplayName::of(email)),
            (None, "") => None,
            (_, name) => bad.check("displayName", DisplayName::try_from(name)),
        };
        let (Some(email), Some(password), Some(name)) = (email, password, name) else {
            return Err(bad.into());
        };
        Ok(self.answer(self.auth.register(email, password, name).await?))
    }

    async fn login(
        &self,
        request: Request<pb::LoginRequest>,
    ) -> Result<Response<pb::TokenResponse>, Status> {
        let request = request.into_inner();
        let mut bad = BadRequest::new();
        let email = bad.check("email", Email::try_from(request.email.as_str()));
        let password = bad.check("password", Password::given(request.password));
        let (Some(email), Some(password)) = (email, password) else { return Err(bad.into()) };
        Ok(self.answer(self.auth.log_in(email, password).await?))
    }

    async fn refresh(
        &self,
        request: Request<pb::RefreshRequest>,
    ) -> Result<Response<pb::TokenResponse>, Status> {
        let token = refresh_token(request.into_inner().refresh_token)?;
        Ok(self.answer(self.auth.refresh(token.ok_or(AuthError::RefreshToken)?).await?))
    }

    async fn logout(
        &self,
        request: Request<pb::LogoutRequest>,
    ) -> Result<Response<pb::LogoutResponse>, Status> {
        if let Some(token) = refresh_token(request.into_inner().refresh_token)? {
            self.auth.log_out(token).await?;
        }
        Ok(Response::new(pb::LogoutResponse {}))
    }

    async fn get_jwks(
        &self,
        _request: Request<pb::GetJwksRequest>,
    ) -> Result<Response<pb::Jwks>, Status> {
        let key = self.auth.issuer.key();
        let jwk = pb::Jwk {
            kty: "EC".to_owned(),
            crv: "P-256".to_owned(),
            x: key.x.clone(),
            y: key.y.clone(),
            kid: key.kid.clone(),
            alg: "ES256".to_owned(),
            r#use: "sig".to_owned(),
        };
        Ok(Response::new(pb::Jwks { keys: vec![jwk] }))
    }
}

/// A missing token is a mistake; one that is not ours is only unknown.
#[allow(clippy::result_large_err)]
fn refresh_token(text: String) -> Result<Option<RefreshToken>, Status> {
    if text.is_empty() {
        let mut bad = BadRequest::new();
        bad.field("refreshToken", "is missing");
        return Err(bad.into());
    }
    Ok(RefreshToken::given(text))
}

impl From<AuthError> for Status {
    fn from(error: AuthError) -> Self {
        use tonic::Code::{AlreadyExists, Unauthenticated, Unavailable};
        let message = error.to_string();
        let info = |code, reason| error_info(code, message.clone(), reason, "weir-auth");
        match error {
            AuthError::EmailTaken => info(AlreadyExists, "EMAIL_TAKEN"),
            AuthError::UsersUnavailable => info(Unavailable, "USERS_UNAVAILABLE"),
            AuthError::WrongCredentials => info(Unauthenticated, "CREDENTIALS_WRONG"),
            AuthError::RefreshToken => info(Unauthenticated, "REFRESH_TOKEN_INVALID"),
            AuthError::TryAfter(wait) => retry_after(message, wait),
            AuthError::Hash(HashError::Busy) => retry_after(message, Duration::from_secs(1)),
            AuthError::Store(StoreError::Busy) => {
                Self::unavailable("the auth service is busy: try again")
            }
            AuthError::Hash(_) | AuthError::Store(_) | AuthError::Sign(_) => {
                tracing::error!(%error, "a request failed within");
                Self::internal("the auth service could not do it; its log says why")
            }
        }
    }
}
