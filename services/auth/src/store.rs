//! Everything that auth keeps. It knows nothing of gRPC.

mod accounts;
mod attempts;
mod outbox;
mod sessions;

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::Sqlite;
use weir_mesh::server::sqlite::{self, Database, OpenError};

use crate::account::Millis;

pub use accounts::Reserved;
pub use attempts::Allowed;
pub use outbox::Welcoming;
pub use sessions::{NewSession, Rotated};

const MIGRATIONS: &[&str] = &[include_str!("store/001_accounts.sql")];

/// Failed logins are remembered for this long after the last of them.
const FORGET_FAILURES: Duration = Duration::from_secs(24 * 3600);

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Busy for longer than we wait.
    #[error("the database is busy")]
    Busy,
    /// A row that this program would not have written.
    #[error("a row of {0} cannot be read")]
    Corrupt(&'static str),
    /// The database failed.
    #[error("the database failed: {0}")]
    Database(sqlx::Error),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if sqlite::is_busy(&error) { Self::Busy } else { Self::Database(error) }
    }
}

/// The accounts that all processes of the service share. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    database: Database,
}

impl Store {
    /// Opens the accounts in `directory`, which is made when there is none.
    pub async fn open(directory: &Path) -> Result<Self, OpenError> {
        Ok(Self { database: sqlite::open(directory, "auth.db", MIGRATIONS).await? })
    }

    async fn begin(&self) -> Result<sqlx::Transaction<'static, Sqlite>, StoreError> {
        Ok(self.database.write.begin_with("BEGIN IMMEDIATE").await?)
    }

    /// Removes what no longer says anything.
    pub async fn purge(&self, now: Millis) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        sqlx::query("DELETE FROM refresh_tokens WHERE expires_at <= ?")
            .bind(now.0)
            .execute(&mut *transaction)
            .await?;
        sqlx::query(
            "DELETE FROM sessions WHERE NOT EXISTS
                 (SELECT 1 FROM refresh_tokens t WHERE t.session_id = sessions.session_id)",
        )
        .execute(&mut *transaction)
        .await?;
        let forgotten =
            now.0.saturating_sub(i64::try_from(FORGET_FAILURES.as_millis()).unwrap_or(i64::MAX));
        sqlx::query("DELETE FROM failed_logins WHERE last_at <= ?")
            .bind(forgotten)
            .execute(&mut *transaction)
            .await?;
        Ok(transaction.commit().await?)
    }
}
