//! Sessions: chains of refresh tokens, of which one at a time is good.

use uuid::Uuid;
use weir_mesh::server::database::{Query, Transaction};

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
    pub(super) async fn insert(&self, transaction: &mut Transaction) -> Result<(), StoreError> {
        let query = Query::new(
            "INSERT INTO sessions (session_id, user_id, created_at) VALUES ($1, $2, $3)",
        )
        .bind(self.id.to_string())
        .bind(self.user.to_string())
        .bind(self.created_at.0);
        transaction.run(query).await?;
        insert_token(transaction, &self.id.to_string(), &self.token, self.created_at).await
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
        let query = Query::new("DELETE FROM failed_logins WHERE email = $1").bind(email.as_str());
        transaction.run(query).await?;
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
        // First the session is locked, then looked at: what is seen stays so.
        let query = Query::new(
            "SELECT 1 FROM sessions WHERE session_id =
                 (SELECT session_id FROM refresh_tokens WHERE token_hash = $1)",
        )
        .bind(old.0.as_slice())
        .postgres(" FOR UPDATE");
        if transaction.one(query).await?.is_none() {
            return Ok(Rotated::Refused);
        }
        let query = Query::new(
            "SELECT s.session_id, s.user_id, s.created_at, s.revoked_at, t.expires_at, t.used_at
             FROM refresh_tokens t JOIN sessions s USING (session_id) WHERE t.token_hash = $1",
        )
        .bind(old.0.as_slice());
        let Some(row) = transaction.one(query).await? else { return Ok(Rotated::Refused) };
        let session_id: String = row.at(0)?;
        let user = accounts::user_id(&row.at::<String>(1)?)?;
        let created_at = Millis(row.at(2)?);
        let revoked_at: Option<i64> = row.at(3)?;
        let used_at: Option<i64> = row.at(5)?;
        if revoked_at.is_some() || Millis(row.at(4)?) <= now {
            return Ok(Rotated::Refused);
        }
        if used_at.is_some() {
            revoke(transaction, &session_id, now).await?;
            return Ok(Rotated::Reused(user));
        }
        let query = Query::new("UPDATE refresh_tokens SET used_at = $1 WHERE token_hash = $2")
            .bind(now.0)
            .bind(old.0.as_slice());
        transaction.run(query).await?;
        insert_token(&mut transaction, &session_id, new, now).await?;
        transaction.commit().await?;
        Ok(Rotated::Goes(Session { user, created_at }))
    }

    /// Ends the session that a token is of; without one, nothing happens.
    pub async fn end_session(&self, token: &TokenHash, now: Millis) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        let query = Query::new("SELECT session_id FROM refresh_tokens WHERE token_hash = $1")
            .bind(token.0.as_slice());
        match transaction.one(query).await? {
            Some(row) => revoke(transaction, &row.at::<String>(0)?, now).await,
            None => Ok(()),
        }
    }
}

async fn insert_token(
    transaction: &mut Transaction,
    session_id: &str,
    token: &TokenHash,
    now: Millis,
) -> Result<(), StoreError> {
    let query = Query::new(
        "INSERT INTO refresh_tokens (token_hash, session_id, expires_at) VALUES ($1, $2, $3)",
    )
    .bind(token.0.as_slice())
    .bind(session_id)
    .bind((now + REFRESH_LIFETIME).0);
    transaction.run(query).await?;
    Ok(())
}

async fn revoke(
    mut transaction: Transaction,
    session_id: &str,
    now: Millis,
) -> Result<(), StoreError> {
    let query = Query::new(
        "UPDATE sessions SET revoked_at = coalesce(revoked_at, $1) WHERE session_id = $2",
    );
    transaction.run(query.bind(now.0).bind(session_id)).await?;
    Ok(transaction.commit().await?)
}
