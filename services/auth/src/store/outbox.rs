//! Who is to be welcomed, until the notifications service has taken it.

use std::time::Duration;

use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;

use super::{Store, StoreError};
use crate::account::{DisplayName, Millis, UserId};

/// Whoever works on an entry has so long before another process tries.
pub const LEASE: Duration = Duration::from_secs(15);

/// One welcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcoming {
    /// The same at each attempt: the receiver recognises a repetition by it.
    pub idempotency_key: String,
    pub user_id: String,
    pub display_name: String,
    /// How often it has failed.
    pub attempts: u32,
}

impl Welcoming {
    pub fn new(user: UserId, name: &DisplayName) -> Self {
        Self {
            idempotency_key: format!("welcome:{user}"),
            user_id: user.to_string(),
            display_name: name.as_str().to_owned(),
            attempts: 0,
        }
    }

    /// Added as if it were being worked on: the request that adds it goes on to
    /// deliver it, and the background takes over if that process dies.
    pub(super) async fn insert(&self, connection: &mut SqliteConnection) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO outbox (idempotency_key, user_id, display_name, attempts, due_at)
             VALUES (?, ?, ?, ?, ?)",
        )
        .bind(&self.idempotency_key)
        .bind(&self.user_id)
        .bind(&self.display_name)
        .bind(self.attempts)
        .bind((Millis::now() + LEASE).0)
        .execute(connection)
        .await?;
        Ok(())
    }
}

impl Store {
    /// Takes one that is due; no other process gets it for the time of the lease.
    pub async fn lease_welcome(&self, now: Millis) -> Result<Option<Welcoming>, StoreError> {
        // Looked for before it is written: mostly there is none, and a write
        // would make the processes of the service wait for each other.
        let due: Option<String> = sqlx::query_scalar(
            "SELECT idempotency_key FROM outbox WHERE due_at <= ? ORDER BY due_at LIMIT 1",
        )
        .bind(now.0)
        .fetch_optional(&self.database.read)
        .await?;
        let Some(key) = due else { return Ok(None) };
        let row = sqlx::query(
            "UPDATE outbox SET due_at = ? WHERE idempotency_key = ? AND due_at <= ?
             RETURNING user_id, display_name, attempts",
        )
        .bind((now + LEASE).0)
        .bind(&key)
        .bind(now.0)
        .fetch_optional(&self.database.write)
        .await?;
        row.map(|row| {
            Ok(Welcoming {
                idempotency_key: key,
                user_id: row.try_get(0)?,
                display_name: row.try_get(1)?,
                attempts: row.try_get(2)?,
            })
        })
        .transpose()
    }

    /// It has been taken.
    pub async fn welcomed(&self, key: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM outbox WHERE idempotency_key = ?")
            .bind(key)
            .execute(&self.database.write)
            .await?;
        Ok(())
    }

    /// It is to be tried again.
    pub async fn welcome_later(&self, key: &str, due: Millis) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE outbox SET attempts = attempts + 1, due_at = ? WHERE idempotency_key = ?",
        )
        .bind(due.0)
        .bind(key)
        .execute(&self.database.write)
        .await?;
        Ok(())
    }
}
