//! Inboxes and the queue of webhooks in their database. It knows nothing of gRPC.

mod queue;
mod row;

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use weir_mesh::server::Common;
use weir_mesh::server::database::{self, Changes, Database, Query, Row, Schema};

use crate::notification::{
    DeadLetter, Draft, IdempotencyKey, Notification, NotificationId, UserId,
};

pub use queue::{Job, Lease};
pub use weir_mesh::server::database::OpenError;

const SCHEMA: Schema = Schema {
    name: "notifications",
    sqlite: &[include_str!("../migrations/sqlite/001_notifications.sql")],
    postgres: &[include_str!("../migrations/postgres/001_notifications.sql")],
};

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
        if database::is_busy(&error) { Self::Busy } else { Self::Database(error) }
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
    /// Opens the database that `common` names, whose tables are made when there
    /// are none.
    ///
    /// # Errors
    /// When it cannot be used.
    pub async fn open(common: &Common) -> Result<Self, OpenError> {
        Ok(Self { database: Database::open(common, &SCHEMA).await? })
    }

    /// Where files that belong to it are kept; without it, see
    /// [`Store::webhook_secret`].
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        self.database.directory()
    }

    /// The webhook secret that is kept with the rest: `new`, if this is the first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn webhook_secret(&self, new: &[u8]) -> Result<Vec<u8>, StoreError> {
        Ok(self.database.secret("webhook-secret", new).await?)
    }

    /// Tells of changes of all processes, until `stopping` completes.
    pub fn changes(&self, stopping: impl Future<Output = ()> + Send + 'static) -> Changes {
        Changes::start(&self.database, stopping)
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
        let mut transaction = self.database.begin().await?;
        transaction.queue().await?;
        let now = now();
        let key = key.map(IdempotencyKey::as_str);
        let query = Query::new(
            "INSERT INTO notifications (id, \"user\", kind, title, body, webhook_url, create_time, \
             sender, idempotency_key) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
             ON CONFLICT (sender, idempotency_key) WHERE idempotency_key IS NOT NULL \
             DO NOTHING RETURNING *",
        )
        .bind(NotificationId::generate().to_string())
        .bind(draft.user.as_str())
        .bind(draft.kind.as_str())
        .bind(draft.title.as_str())
        .bind(draft.body.as_str())
        .bind(draft.webhook.as_ref().map(|url| url.reveal()))
        .bind(now)
        .bind(sender)
        .bind(key);
        let Some(row) = transaction.one(query).await? else {
            let query = Query::new(
                "SELECT * FROM notifications WHERE sender = $1 AND idempotency_key = $2",
            );
            let row = transaction.one(query.bind(sender).bind(key)).await?;
            let before = row::notification(&row.ok_or(sqlx::Error::RowNotFound)?)?;
            return if before.draft == *draft { Ok(before) } else { Err(StoreError::KeyReused) };
        };
        let notification = row::notification(&row)?;
        if draft.webhook.is_some() {
            let full =
                Query::new("SELECT 1 FROM deliveries WHERE dead_time IS NULL LIMIT 1 OFFSET ")
                    .value(MAX_QUEUE - 1);
            if transaction.one(full).await?.is_some() {
                return Err(StoreError::QueueFull);
            }
            let query =
                Query::new("INSERT INTO deliveries (notification, due_time) VALUES ($1, $2)");
            transaction.run(query.bind(notification.sequence).bind(now)).await?;
        }
        transaction.announce().await?;
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
        let query = Query::new("SELECT * FROM notifications WHERE \"user\" = $1 AND sequence < $2")
            .bind(user.as_str())
            .bind(before.unwrap_or(i64::MAX))
            // In the text, so that the index that fits can be used.
            .sql(if unread_only { " AND read_time IS NULL" } else { "" })
            .sql(" ORDER BY sequence DESC LIMIT ")
            .value(limit);
        self.notifications(query).await
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
        let query = Query::new(
            "SELECT * FROM notifications WHERE \"user\" = $1 AND sequence > $2 \
             ORDER BY sequence LIMIT $3",
        );
        self.notifications(query.bind(user.as_str()).bind(after).bind(limit)).await
    }

    async fn notifications(&self, query: Query) -> Result<Vec<Notification>, StoreError> {
        let rows = self.database.all(query).await?;
        Ok(rows.iter().map(row::notification).collect::<Result<_, _>>()?)
    }

    /// The one number that a query gives.
    async fn number(&self, query: Query) -> Result<i64, StoreError> {
        let row = self.database.one(query).await?;
        Ok(row.ok_or(sqlx::Error::RowNotFound)?.at(0)?)
    }

    /// The sequence of the newest notification of all users; 0: none yet.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn newest(&self) -> Result<i64, StoreError> {
        self.number(Query::new("SELECT coalesce(max(sequence), 0) FROM notifications")).await
    }

    /// One of a user's notifications.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], also when it is another user's, or when the
    /// database fails.
    pub async fn get(&self, user: &UserId, id: NotificationId) -> Result<Notification, StoreError> {
        let query = Query::new("SELECT * FROM notifications WHERE id = $1 AND \"user\" = $2");
        let row = self.database.one(query.bind(id.to_string()).bind(user.as_str())).await?;
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
        let mut transaction = self.database.begin().await?;
        let query = Query::new(
            "UPDATE notifications SET read_time = coalesce(read_time, $1) \
             WHERE id = $2 AND \"user\" = $3 RETURNING *",
        );
        let query = query.bind(now()).bind(id.to_string()).bind(user.as_str());
        let row = transaction.one(query).await?;
        let notification = row::notification(&row.ok_or(StoreError::NotFound(id))?)?;
        transaction.commit().await?;
        Ok(notification)
    }

    /// Marks all of a user's notifications as read; says how many were not.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn mark_all_read(&self, user: &UserId) -> Result<u64, StoreError> {
        let query = Query::new(
            "UPDATE notifications SET read_time = $1 WHERE \"user\" = $2 AND read_time IS NULL",
        );
        Ok(self.database.run(query.bind(now()).bind(user.as_str())).await?)
    }

    /// How many of a user's notifications are not read yet.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn unread(&self, user: &UserId) -> Result<u32, StoreError> {
        let query = Query::new(
            "SELECT count(*) FROM notifications WHERE \"user\" = $1 AND read_time IS NULL",
        );
        let count = self.number(query.bind(user.as_str())).await?;
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
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
        let query = Query::new(
            "SELECT n.*, d.attempts, d.last_error, d.dead_time FROM deliveries d \
             JOIN notifications n ON n.sequence = d.notification \
             WHERE d.dead_time IS NOT NULL AND n.\"user\" = $1 \
             AND (d.dead_time, d.notification) < ($2, $3) \
             ORDER BY d.dead_time DESC, d.notification DESC LIMIT $4",
        )
        .bind(user.as_str())
        .bind(time)
        .bind(sequence)
        .bind(limit);
        let rows = self.database.all(query).await?;
        let letter = |row: &Row| {
            Ok::<_, sqlx::Error>(DeadLetter {
                notification: row::notification(row)?,
                attempts: row::attempts(row)?,
                error: row.get::<Option<String>>("last_error")?.unwrap_or_default(),
                dead_time: row.get("dead_time")?,
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
