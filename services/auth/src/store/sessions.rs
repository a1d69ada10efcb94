//! Sessions: chains of refresh tokens, of which one at a time is good.

use sqlx::sqlite::SqliteConnection;
use sqlx::{Row as _, Sqlite, Transaction};
use uuid::Uuid;

use super::{Store, StoreError, accounts};
use crate::account::{Email, Millis, UserId};
use crate::token::{REFRESH_LIFETIME, TokenHash};

/// A session that is to begin, with its first token.
#[derive(Debug)]
pub struct NewSession {
    pub user: UserId,
    pub id: Uuid,
    pub created_at: Millis,
    pub token: TokenHash,
}

/// A session that goes on.
#[derive(Debug, PartialEq, Eq)]
pub struct Session {
    pub user: UserId,
    pub created_at: Millis,
}

/// What became of an exchange of tokens.
#[derive(Debug, PartialEq, Eq)]
pub enum Rotated {
    /// The new token is good now, the old one no longer.
    Goes(Session),
    /// The old token was used before: the session is over.
    Reused(UserId),
    /// No such token, expired, or its session is over.
    Refused,
}

impl NewSession {
    pub(super) async fn insert(&self, connection: &mut SqliteConnection) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO sessions (session_id, user_id, created_at) VALUES (?, ?, ?)")
            .bind(self.id.to_string())
            .bind(self.user.to_string())
            .bind(self.created_at.0)
            .execute(&mut *connection)
            .await?;
        insert_token(connection, &self.id.to_string(), &self.token, self.created_at).await
    }
}

impl Store {
    /// Begins a session after a good login, whose earlier failures are forgotten.
    pub async fn begin_session(
        &self,
        email: &Email,
        session: &NewSession,
    ) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        sqlx::query("DELETE FROM failed_logins WHERE email = ?")
            .bind(email.as_str())
            .execute(&mut *transaction)
            .await?;
        session.insert(&mut transaction).await?;
        Ok(transaction.commit().await?)
    }

    /// Exchanges a token for the next one. Of two exchanges of one token, from
    /// whatever processes, only one succeeds, and the other ends the session:
    /// one of the two was not its owner.
    pub async fn rotate(
        &self,
        old: &TokenHash,
        new: &TokenHash,
        now: Millis,
    ) -> Result<Rotated, StoreError> {
        let mut transaction = self.begin().await?;
        let row = sqlx::query(
            "SELECT s.session_id, s.user_id, s.created_at, s.revoked_at, t.expires_at, t.used_at
             FROM refresh_tokens t JOIN sessions s USING (session_id) WHERE t.token_hash = ?",
        )
        .bind(&old.0)
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(row) = row else { return Ok(Rotated::Refused) };
        let session_id: String = row.try_get(0)?;
        let user = accounts::user_id(&row.try_get::<String, _>(1)?)?;
        let created_at = Millis(row.try_get(2)?);
        let revoked_at: Option<i64> = row.try_get(3)?;
        let used_at: Option<i64> = row.try_get(5)?;
        if revoked_at.is_some() || Millis(row.try_get(4)?) <= now {
            return Ok(Rotated::Refused);
        }
        if used_at.is_some() {
            revoke(transaction, &session_id, now).await?;
            return Ok(Rotated::Reused(user));
        }
        sqlx::query("UPDATE refresh_tokens SET used_at = ? WHERE token_hash = ?")
            .bind(now.0)
            .bind(&old.0)
            .execute(&mut *transaction)
            .await?;
        insert_token(&mut transaction, &session_id, new, now).await?;
        transaction.commit().await?;
        Ok(Rotated::Goes(Session { user, created_at }))
    }

    /// Ends the session that a token is of; without one, nothing happens.
    pub async fn end_session(&self, token: &TokenHash, now: Millis) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        let session_id: Option<String> =
            sqlx::query_scalar("SELECT session_id FROM refresh_tokens WHERE token_hash = ?")
                .bind(&token.0)
                .fetch_optional(&mut *transaction)
                .await?;
        match session_id {
            Some(session_id) => revoke(transaction, &session_id, now).await,
            None => Ok(()),
        }
    }
}

async fn insert_token(
    connection: &mut SqliteConnection,
    session_id: &str,
    token: &TokenHash,
    now: Millis,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO refresh_tokens (token_hash, session_id, expires_at) VALUES (?, ?, ?)")
        .bind(&token.0)
        .bind(session_id)
        .bind((now + REFRESH_LIFETIME).0)
        .execute(connection)
        .await?;
    Ok(())
}

async fn revoke(
    mut transaction: Transaction<'static, Sqlite>,
    session_id: &str,
    now: Millis,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE sessions SET revoked_at = coalesce(revoked_at, ?) WHERE session_id = ?")
        .bind(now.0)
        .bind(session_id)
        .execute(&mut *transaction)
        .await?;
    Ok(transaction.commit().await?)
}
