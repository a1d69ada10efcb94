//! The rules: registering, logging in, refreshing, logging out.

use std::time::Duration;

use uuid::Uuid;

use crate::account::{DisplayName, Email, Millis, Password, UserId};
use crate::password::{HashError, Hasher};
use crate::peers::{Created, Peers};
use crate::store::{Allowed, NewSession, Reserved, Rotated, Store, StoreError, Welcoming};
use crate::token::{Issuer, REFRESH_LIFETIME, RefreshToken};
use crate::welcome::Welcome;

/// Why there are no tokens.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// There is an account by this email.
    #[error("there is an account with this email already: log in")]
    EmailTaken,
    /// The profile could not be made. Nothing blocks another attempt.
    #[error("the account could not be made because the users service does not answer: try again")]
    UsersUnavailable,
    /// Which of the two is wrong is not said.
    #[error("email or password is wrong")]
    WrongCredentials,
    /// Too many failures.
    #[error("too many failed logins: wait before trying again")]
    TryAfter(Duration),
    /// Unknown, expired, used before, or of a session that is over.
    #[error("the refresh token is not valid: log in again")]
    RefreshToken,
    /// Hashing.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Signing.
    #[error("an access token could not be signed: {0}")]
    Sign(#[from] jsonwebtoken::errors::Error),
}

/// What a good registration, login or refresh gives.
pub struct Tokens {
    pub user: UserId,
    pub access: String,
    pub refresh: RefreshToken,
    /// When the session began.
    pub session_created_at: Millis,
    /// When `refresh` expires.
    pub refresh_expires_at: Millis,
}

/// The auth service without its wire.
pub struct Auth {
    pub store: Store,
    pub hasher: Hasher,
    pub issuer: Issuer,
    pub peers: Peers,
    pub welcome: Welcome,
}

impl Auth {
    /// Makes an account. What an attempt that failed left behind is found and
    /// used by the next one, whoever makes it.
    pub async fn register(
        &self,
        email: Email,
        password: Password,
        name: DisplayName,
    ) -> Result<Tokens, AuthError> {
        let user = match self.store.reserve(&email).await? {
            Reserved::As(user) => user,
            Reserved::Taken => return Err(AuthError::EmailTaken),
        };
        let hash = self.hasher.hash(self.hasher.place().await?, password).await?;
        match self.peers.create_user(user, &email, &name).await {
            Created::Yes => {}
            Created::EmailTaken => return Err(AuthError::EmailTaken),
            Created::Failed(status) => {
                let code = status.code();
                tracing::warn!(?code, "the users service did not make a profile");
                return Err(AuthError::UsersUnavailable);
            }
        }
        let (session, refresh) = new_session(user)?;
        let welcoming = Welcoming::new(user, &name);
        if !self.store.activate(&hash, &session, &welcoming).await? {
            return Err(AuthError::EmailTaken);
        }
        self.welcome.deliver_soon(welcoming);
        self.tokens(user, refresh, session.created_at, session.created_at)
    }

    /// Begins a session.
    pub async fn log_in(&self, email: Email, password: Password) -> Result<Tokens, AuthError> {
        // Looked at only with a place in hand, and the failure noted before it
        // is given back: however many guesses come at once, few are made.
        let place = self.hasher.place().await?;
        if let Allowed::After(wait) = self.store.may_log_in(&email, Millis::now()).await? {
            return Err(AuthError::TryAfter(wait));
        }
        let (user, hash) = match self.store.account(&email).await? {
            Some(account) => (Some(account.id), Some(account.password_hash)),
            None => (None, None),
        };
        let (right, place) = self.hasher.verify(place, hash, password).await?;
        let Some(user) = user.filter(|_| right) else {
            self.store.login_failed(&email, Millis::now()).await?;
            drop(place);
            return Err(AuthError::WrongCredentials);
        };
        drop(place);
        let (session, refresh) = new_session(user)?;
        self.store.begin_session(&email, &session).await?;
        self.tokens(user, refresh, session.created_at, session.created_at)
    }

    /// Exchanges a refresh token for the next one.
    pub async fn refresh(&self, old: RefreshToken) -> Result<Tokens, AuthError> {
        let new = RefreshToken::generate()?;
        let now = Millis::now();
        match self.store.rotate(&old.hash(), &new.hash(), now).await? {
            Rotated::Goes(session) => self.tokens(session.user, new, session.created_at, now),
            Rotated::Reused(user) => {
                tracing::warn!(%user, "a refresh token came twice: its session is ended");
                Err(AuthError::RefreshToken)
            }
            Rotated::Refused => Err(AuthError::RefreshToken),
        }
    }

    /// Ends a session.
    pub async fn log_out(&self, token: RefreshToken) -> Result<(), AuthError> {
        Ok(self.store.end_session(&token.hash(), Millis::now()).await?)
    }

    fn tokens(
        &self,
        user: UserId,
        refresh: RefreshToken,
        session_created_at: Millis,
        now: Millis,
    ) -> Result<Tokens, AuthError> {
        let access = self.issuer.access_token(user, now)?;
        let refresh_expires_at = now + REFRESH_LIFETIME;
        Ok(Tokens { user, access, refresh, session_created_at, refresh_expires_at })
    }
}

fn new_session(user: UserId) -> Result<(NewSession, RefreshToken), AuthError> {
    let refresh = RefreshToken::generate()?;
    let session =
        NewSession { user, id: Uuid::now_v7(), created_at: Millis::now(), token: refresh.hash() };
    Ok((session, refresh))
}
