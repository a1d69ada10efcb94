//! Who is to be welcomed, until the notifications service has taken it.

use std::time::Duration;

use weir_mesh::server::database::{Query, Transaction};

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
    pub(super) async fn insert(&self, transaction: &mut Transaction) -> Result<(), StoreError> {
        let query = Query::new(
            "INSERT INTO outbox (idempotency_key, user_id, display_name, attempts, due_at)
             VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(self.idempotency_key.as_str())
        .bind(self.user_id.as_str())
        .bind(self.display_name.as_str())
        .bind(self.attempts)
        .bind((Millis::now() + LEASE).0);
        transaction.run(query).await?;
        Ok(())
    }
}

impl Store {
    /// Takes one that is due; no other process gets it for the time of the lease.
    pub async fn lease_welcome(&self, now: Millis) -> Result<Option<Welcoming>, StoreError> {
        // Looked for before it is written: mostly there is none, and a write
        // would make the processes of the service wait for each other.
        let query = Query::new("SELECT 1 FROM outbox WHERE due_at <= $1 LIMIT 1").bind(now.0);
        if self.database.one(query).await?.is_none() {
            return Ok(None);
        }
        let mut transaction = self.begin().await?;
        // What another process is taking right now is passed over.
        let query = Query::new(
            "UPDATE outbox SET due_at = $1 WHERE idempotency_key = (SELECT idempotency_key
                 FROM outbox WHERE due_at <= $2 ORDER BY due_at LIMIT 1",
        )
        .postgres(" FOR UPDATE SKIP LOCKED")
        .sql(") RETURNING idempotency_key, user_id, display_name, attempts")
        .bind((now + LEASE).0)
        .bind(now.0);
        let row = transaction.one(query).await?;
        transaction.commit().await?;
        row.map(|row| {
            Ok(Welcoming {
                idempotency_key: row.at(0)?,
                user_id: row.at(1)?,
                display_name: row.at(2)?,
                attempts: u32::try_from(row.at::<i64>(3)?).unwrap_or(u32::MAX),
            })
        })
        .transpose()
    }

    /// It has been taken.
    pub async fn welcomed(&self, key: &str) -> Result<(), StoreError> {
        let query = Query::new("DELETE FROM outbox WHERE idempotency_key = $1").bind(key);
        self.database.run(query).await?;
        Ok(())
    }

    /// It is to be tried again.
    pub async fn welcome_later(&self, key: &str, due: Millis) -> Result<(), StoreError> {
        let query = Query::new(
            "UPDATE outbox SET attempts = attempts + 1, due_at = $1 WHERE idempotency_key = $2",
        );
        self.database.run(query.bind(due.0).bind(key)).await?;
        Ok(())
    }
}
