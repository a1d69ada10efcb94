//! Inboxes and the queue of webhooks on disk. It knows nothing of gRPC.

mod queue;
mod row;

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use sqlx::Row as _;

use crate::notification::{
    DeadLetter, Draft, IdempotencyKey, Notification, NotificationId, UserId,
};

pub use queue::{Job, Lease};
pub use weir_mesh::server::sqlite::OpenError;
use weir_mesh::server::sqlite::{self, Database};

/// Each brings the schema from the version before it (its index) to the next.
const MIGRATIONS: &[&str] = &[include_str!("store/001_notifications.sql")];

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The user has no notification of this id.
    #[error("there is no notification {0}")]
    NotFound(NotificationId),
    /// The key stands for another notification.
    #[error("the idempotency key was used for another notification")]
    KeyReused,
    /// The queue of webhooks is as long as it may be.
    #[error("too many webhooks wait to be sent")]
    QueueFull,
    /// The database is busy for longer than we wait.
    #[error("the database is busy")]
    Busy,
    /// The database failed.
    #[error("the database failed: {0}")]
    Database(sqlx::Error),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if sqlite::is_busy(&error) { Self::Busy } else { Self::Database(error) }
    }
}

/// What all processes of the service share. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    database: Database,
}

/// Most webhooks that may wait.
const MAX_QUEUE: i64 = 100_000;

impl Store {
    /// Opens the database in `directory`, which is made when there is none.
    ///
    /// # Errors
    /// When the directory or the database in it cannot be used.
    pub async fn open(directory: &Path) -> Result<Self, OpenError> {
        Ok(Self { database: sqlite::open(directory, "notifications.db", MIGRATIONS).await? })
    }

    /// Puts a notification into its inbox, and into the queue when it has a
    /// webhook. With a key that `sender` has used before, it gives back what
    /// that call made. On return it is on the disk.
    ///
    /// # Errors
    /// [`StoreError::KeyReused`], [`StoreError::QueueFull`], or when the
    /// database fails; then nothing was stored.
    pub async fn enqueue(
        &self,
        draft: &Draft,
        sender: &str,
        key: Option<&IdempotencyKey>,
    ) -> Result<Notification, StoreError> {
        let mut transaction = self.database.write.begin_with("BEGIN IMMEDIATE").await?;
        let now = now();
        let row = sqlx::query(
            "INSERT INTO notifications (id, user, kind, title, body, webhook_url, create_time, \
             sender, idempotency_key) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) \
             ON CONFLICT (sender, idempotency_key) WHERE idempotency_key IS NOT NULL \
             DO NOTHING RETURNING *",
        )
        .bind(NotificationId::generate().to_string())
        .bind(draft.user.as_str().to_owned())
        .bind(draft.kind.as_str().to_owned())
        .bind(draft.title.as_str().to_owned())
        .bind(draft.body.as_str().to_owned())
        .bind(draft.webhook.as_ref().map(|url| url.reveal()))
        .bind(now)
        .bind(sender.to_owned())
        .bind(key.map(|key| key.as_str().to_owned()))
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(row) = row else {
            let row =
                sqlx::query("SELECT * FROM notifications WHERE sender = ? AND idempotency_key = ?")
                    .bind(sender.to_owned())
                    .bind(key.map(|key| key.as_str().to_owned()))
                    .fetch_one(&mut *transaction)
                    .await?;
            let before = row::notification(&row)?;
            return if before.draft == *draft { Ok(before) } else { Err(StoreError::KeyReused) };
        };
        let notification = row::notification(&row)?;
        if draft.webhook.is_some() {
            let full =
                sqlx::query("SELECT 1 FROM deliveries WHERE dead_time IS NULL LIMIT 1 OFFSET ?")
                    .bind(MAX_QUEUE - 1)
                    .fetch_optional(&mut *transaction)
                    .await?;
            if full.is_some() {
                return Err(StoreError::QueueFull);
            }
            sqlx::query("INSERT INTO deliveries (notification, due_time) VALUES (?, ?)")
                .bind(notification.sequence)
                .bind(now)
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        Ok(notification)
    }

    /// A user's notifications, newest first, older than the sequence `before`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list(
        &self,
        user: &UserId,
        before: Option<i64>,
        unread_only: bool,
        limit: u32,
    ) -> Result<Vec<Notification>, StoreError> {
        // Two texts, so that SQLite can use the index that fits each.
        let sql = if unread_only {
            "SELECT * FROM notifications WHERE user = ?1 AND sequence < ?2 AND read_time IS NULL \
             ORDER BY sequence DESC LIMIT ?3"
        } else {
            "SELECT * FROM notifications WHERE user = ?1 AND sequence < ?2 \
             ORDER BY sequence DESC LIMIT ?3"
        };
        let rows = sqlx::query(sql)
            .bind(user.as_str().to_owned())
            .bind(before.unwrap_or(i64::MAX))
            .bind(limit)
            .fetch_all(&self.database.read)
            .await?;
        Ok(rows.iter().map(row::notification).collect::<Result<_, _>>()?)
    }

    /// A user's notifications, oldest first, newer than the sequence `after`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn since(
        &self,
        user: &UserId,
        after: i64,
        limit: u32,
    ) -> Result<Vec<Notification>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM notifications WHERE user = ? AND sequence > ? ORDER BY sequence LIMIT ?",
        )
        .bind(user.as_str().to_owned())
        .bind(after)
        .bind(limit)
        .fetch_all(&self.database.read)
        .await?;
        Ok(rows.iter().map(row::notification).collect::<Result<_, _>>()?)
    }

    /// The sequence of the newest notification of all users; 0: none yet.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn newest(&self) -> Result<i64, StoreError> {
        let newest = sqlx::query_scalar("SELECT coalesce(max(sequence), 0) FROM notifications");
        Ok(newest.fetch_one(&self.database.read).await?)
    }

    /// One of a user's notifications.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], also when it is another user's, or when the
    /// database fails.
    pub async fn get(&self, user: &UserId, id: NotificationId) -> Result<Notification, StoreError> {
        let row = sqlx::query("SELECT * FROM notifications WHERE id = ? AND user = ?")
            .bind(id.to_string())
            .bind(user.as_str().to_owned())
            .fetch_optional(&self.database.read)
            .await?;
        Ok(row::notification(&row.ok_or(StoreError::NotFound(id))?)?)
    }

    /// Marks one of a user's notifications as read, if it is not yet.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], also when it is another user's, or when the
    /// database fails.
    pub async fn mark_read(
        &self,
        user: &UserId,
        id: NotificationId,
    ) -> Result<Notification, StoreError> {
        // Not by autocommit: with RETURNING, the row comes before the commit.
        let mut transaction = self.database.write.begin_with("BEGIN IMMEDIATE").await?;
        let row = sqlx::query(
            "UPDATE notifications SET read_time = coalesce(read_time, ?) \
             WHERE id = ? AND user = ? RETURNING *",
        )
        .bind(now())
        .bind(id.to_string())
        .bind(user.as_str().to_owned())
        .fetch_optional(&mut *transaction)
        .await?;
        let notification = row::notification(&row.ok_or(StoreError::NotFound(id))?)?;
        transaction.commit().await?;
        Ok(notification)
    }

    /// Marks all of a user's notifications as read; says how many were not.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn mark_all_read(&self, user: &UserId) -> Result<u64, StoreError> {
        let done = sqlx::query(
            "UPDATE notifications SET read_time = ? WHERE user = ? AND read_time IS NULL",
        )
        .bind(now())
        .bind(user.as_str().to_owned())
        .execute(&self.database.write)
        .await?;
        Ok(done.rows_affected())
    }

    /// How many of a user's notifications are not read yet.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn unread(&self, user: &UserId) -> Result<u32, StoreError> {
        let count = sqlx::query_scalar(
            "SELECT count(*) FROM notifications WHERE user = ? AND read_time IS NULL",
        )
        .bind(user.as_str().to_owned());
        Ok(count.fetch_one(&self.database.read).await?)
    }

    /// A user's webhooks that were given up, newest first; with `before`, those
    /// after that time and sequence in this order.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn dead_letters(
        &self,
        user: &UserId,
        before: Option<(i64, i64)>,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        let (time, sequence) = before.unwrap_or((i64::MAX, i64::MAX));
        let rows = sqlx::query(
            "SELECT n.*, d.attempts, d.last_error, d.dead_time FROM deliveries d \
             JOIN notifications n ON n.sequence = d.notification \
             WHERE d.dead_time IS NOT NULL AND n.user = ? \
             AND (d.dead_time, d.notification) < (?, ?) \
             ORDER BY d.dead_time DESC, d.notification DESC LIMIT ?",
        )
        .bind(user.as_str().to_owned())
        .bind(time)
        .bind(sequence)
        .bind(limit)
        .fetch_all(&self.database.read)
        .await?;
        let letter = |row| {
            Ok::<_, sqlx::Error>(DeadLetter {
                notification: row::notification(row)?,
                attempts: row.try_get("attempts")?,
                error: row.try_get::<Option<String>, _>("last_error")?.unwrap_or_default(),
                dead_time: row.try_get("dead_time")?,
            })
        };
        Ok(rows.iter().map(letter).collect::<Result<_, _>>()?)
    }
}

/// Microseconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
