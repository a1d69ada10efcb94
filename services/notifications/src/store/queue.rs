//! The queue of webhooks. A job is taken by lease: until that ends nobody else
//! gets it, and if its worker dies it comes back by itself.

use std::fmt;
use std::time::Duration;

use sqlx::Row as _;
use uuid::Uuid;

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
        let mut transaction = self.database.write.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query(
            "UPDATE deliveries SET lease = ?, due_time = ?, attempts = attempts + 1 \
             WHERE notification IN (SELECT notification FROM deliveries \
             WHERE dead_time IS NULL AND due_time <= ? ORDER BY due_time LIMIT ?)",
        )
        .bind(lease.to_string())
        .bind(until)
        .bind(now())
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .execute(&mut *transaction)
        .await?;
        let rows = sqlx::query(
            "SELECT n.*, d.attempts FROM deliveries d \
             JOIN notifications n ON n.sequence = d.notification WHERE d.lease = ?",
        )
        .bind(lease.to_string())
        .fetch_all(&mut *transaction)
        .await?;
        transaction.commit().await?;
        let job = |row| {
            Ok::<_, sqlx::Error>(Job {
                notification: row::notification(row)?,
                attempt: row.try_get("attempts")?,
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
        let due: Option<i64> =
            sqlx::query_scalar("SELECT min(due_time) FROM deliveries WHERE dead_time IS NULL")
                .fetch_one(&self.database.read)
                .await?;
        Ok(due.map(|at| Duration::from_micros(u64::try_from(at - now()).unwrap_or(0))))
    }

    /// The job is done: it has arrived.
    ///
    /// Says whether the lease still held; after that the job is another's.
    ///
    /// # Errors
    /// When the database fails; then it will be sent again.
    pub async fn done(&self, job: &Job) -> Result<bool, StoreError> {
        let done = sqlx::query("DELETE FROM deliveries WHERE notification = ? AND lease = ?")
            .bind(job.notification.sequence)
            .bind(job.lease.to_string())
            .execute(&self.database.write)
            .await?;
        Ok(done.rows_affected() > 0)
    }

    /// The job failed, and is due again after `delay`.
    ///
    /// # Errors
    /// When the database fails; then it is due when the lease ends.
    pub async fn retry(&self, job: &Job, delay: Duration, error: &str) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "UPDATE deliveries SET lease = NULL, due_time = ?, last_error = ? \
             WHERE notification = ? AND lease = ?",
        )
        .bind(after(delay))
        .bind(shortened(error))
        .bind(job.notification.sequence)
        .bind(job.lease.to_string())
        .execute(&self.database.write)
        .await?;
        Ok(done.rows_affected() > 0)
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
        let done = sqlx::query(
            "UPDATE deliveries SET lease = NULL, dead_time = ?, attempts = ?, \
             last_error = coalesce(?, last_error) WHERE notification = ? AND lease = ?",
        )
        .bind(now())
        .bind(attempts)
        .bind(error.map(shortened))
        .bind(job.notification.sequence)
        .bind(job.lease.to_string())
        .execute(&self.database.write)
        .await?;
        Ok(done.rows_affected() > 0)
    }
}

fn after(delay: Duration) -> i64 {
    now().saturating_add(i64::try_from(delay.as_micros()).unwrap_or(i64::MAX))
}

fn shortened(error: &str) -> String {
    error.chars().take(MAX_ERROR).collect()
}
