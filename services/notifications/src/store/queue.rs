//! The queue of webhooks. A job is taken by lease: until that ends nobody else
//! gets it, and if its worker dies it comes back by itself.

use std::fmt;
use std::time::Duration;

use uuid::Uuid;
use weir_mesh::server::database::{Query, Row};

use super::{Store, StoreError, now, row};
use crate::notification::Notification;

/// Most characters of an error that are kept.
const MAX_ERROR: usize = 300;

/// The right to work on what one call of [`Store::take`] gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease(String);

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One webhook to send now.
#[derive(Debug, Clone)]
pub struct Job {
    /// What to send, and where.
    pub notification: Notification,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// Shows who has taken it.
    pub lease: Lease,
}

impl Store {
    /// Takes up to `limit` jobs that are due, for as long as `lease`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn take(&self, limit: usize, lease: Duration) -> Result<Vec<Job>, StoreError> {
        let until = after(lease);
        let lease = Lease(Uuid::new_v4().to_string());
        let mut transaction = self.database.begin().await?;
        // Chosen once and for all, before anything is changed; what another
        // process is taking right now is passed over.
        let query = Query::new(
            "WITH due AS MATERIALIZED (SELECT notification FROM deliveries \
             WHERE dead_time IS NULL AND due_time <= $1 ORDER BY due_time LIMIT $2",
        )
        .postgres(" FOR UPDATE SKIP LOCKED")
        .sql(
            ") UPDATE deliveries SET lease = $3, due_time = $4, attempts = attempts + 1 \
             WHERE notification IN (SELECT notification FROM due)",
        )
        .bind(now())
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .bind(lease.to_string())
        .bind(until);
        transaction.run(query).await?;
        let query = Query::new(
            "SELECT n.*, d.attempts FROM deliveries d \
             JOIN notifications n ON n.sequence = d.notification WHERE d.lease = $1",
        );
        let rows = transaction.all(query.bind(lease.to_string())).await?;
        transaction.commit().await?;
        let job = |row: &Row| {
            Ok::<_, sqlx::Error>(Job {
                notification: row::notification(row)?,
                attempt: row::attempts(row)?,
                lease: lease.clone(),
            })
        };
        Ok(rows.iter().map(job).collect::<Result<_, _>>()?)
    }

    /// Time until the next job is due; `None` when there is none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn next_due(&self) -> Result<Option<Duration>, StoreError> {
        let query = Query::new("SELECT min(due_time) FROM deliveries WHERE dead_time IS NULL");
        let row = self.database.one(query).await?;
        let due: Option<i64> = row.map(|row| row.at(0)).transpose()?.flatten();
        Ok(due.map(|at| Duration::from_micros(u64::try_from(at - now()).unwrap_or(0))))
    }

    /// The job is done: it has arrived.
    ///
    /// Says whether the lease still held; after that the job is another's.
    ///
    /// # Errors
    /// When the database fails; then it will be sent again.
    pub async fn done(&self, job: &Job) -> Result<bool, StoreError> {
        let query = Query::new("DELETE FROM deliveries WHERE notification = $1 AND lease = $2")
            .bind(job.notification.sequence)
            .bind(job.lease.to_string());
        Ok(self.database.run(query).await? > 0)
    }

    /// The job failed, and is due again after `delay`.
    ///
    /// # Errors
    /// When the database fails; then it is due when the lease ends.
    pub async fn retry(&self, job: &Job, delay: Duration, error: &str) -> Result<bool, StoreError> {
        let query = Query::new(
            "UPDATE deliveries SET lease = NULL, due_time = $1, last_error = $2 \
             WHERE notification = $3 AND lease = $4",
        )
        .bind(after(delay))
        .bind(shortened(error))
        .bind(job.notification.sequence)
        .bind(job.lease.to_string());
        Ok(self.database.run(query).await? > 0)
    }

    /// The job is given up. `attempts` is how many were really made; without an
    /// error the last one's stays.
    ///
    /// # Errors
    /// When the database fails; then it will be tried again.
    pub async fn bury(
        &self,
        job: &Job,
        attempts: u32,
        error: Option<&str>,
    ) -> Result<bool, StoreError> {
        let query = Query::new(
            "UPDATE deliveries SET lease = NULL, dead_time = $1, attempts = $2, \
             last_error = coalesce($3, last_error) WHERE notification = $4 AND lease = $5",
        )
        .bind(now())
        .bind(attempts)
        .bind(error.map(shortened))
        .bind(job.notification.sequence)
        .bind(job.lease.to_string());
        Ok(self.database.run(query).await? > 0)
    }
}

fn after(delay: Duration) -> i64 {
    now().saturating_add(i64::try_from(delay.as_micros()).unwrap_or(i64::MAX))
}

fn shortened(error: &str) -> String {
    error.chars().take(MAX_ERROR).collect()
}
