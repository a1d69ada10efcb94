//! Everything that auth keeps. It knows nothing of gRPC.

mod accounts;
mod attempts;
mod outbox;
mod sessions;

use std::path::Path;
use std::time::Duration;

use weir_mesh::server::Common;
use weir_mesh::server::database::{self, Database, OpenError, Query, Schema, Transaction};

use crate::account::Millis;

pub use accounts::Reserved;
pub use attempts::Allowed;
pub use outbox::Welcoming;
pub use sessions::{NewSession, Rotated};

const SCHEMA: Schema = Schema {
    name: "auth",
    sqlite: &[include_str!("../migrations/sqlite/001_accounts.sql")],
    postgres: &[include_str!("../migrations/postgres/001_accounts.sql")],
};

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
        if database::is_busy(&error) { Self::Busy } else { Self::Database(error) }
    }
}

/// The accounts that all processes of the service share. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    database: Database,
}

impl Store {
    /// Opens the accounts that `common` names, which are made when there are none.
    pub async fn open(common: &Common) -> Result<Self, OpenError> {
        Ok(Self { database: Database::open(common, &SCHEMA).await? })
    }

    /// Where files that belong to the accounts are kept; without it, see
    /// [`Store::signing_key`].
    pub fn directory(&self) -> Option<&Path> {
        self.database.directory()
    }

    /// The signing key that is kept with the accounts: `new`, if this is the first.
    pub async fn signing_key(&self, new: &[u8]) -> Result<Vec<u8>, StoreError> {
        Ok(self.database.secret("signing-key", new).await?)
    }

    async fn begin(&self) -> Result<Transaction, StoreError> {
        Ok(self.database.begin().await?)
    }

    /// Removes what no longer says anything.
    pub async fn purge(&self, now: Millis) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        // Two at once would wait for each other's rows.
        transaction.queue().await?;
        let tokens = Query::new("DELETE FROM refresh_tokens WHERE expires_at <= $1").bind(now.0);
        transaction.run(tokens).await?;
        let sessions = Query::new(
            "DELETE FROM sessions WHERE NOT EXISTS
                 (SELECT 1 FROM refresh_tokens t WHERE t.session_id = sessions.session_id)",
        );
        transaction.run(sessions).await?;
        let forgotten =
            now.0.saturating_sub(i64::try_from(FORGET_FAILURES.as_millis()).unwrap_or(i64::MAX));
        let failures = Query::new("DELETE FROM failed_logins WHERE last_at <= $1").bind(forgotten);
        transaction.run(failures).await?;
        Ok(transaction.commit().await?)
    }
}
