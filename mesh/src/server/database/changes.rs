//! Tells watchers that something may have changed, whichever process did it.

use std::future::Future;
use std::time::Duration;

use sqlx::SqliteConnection;
use tokio::sync::watch;

use super::{Database, Kind};

/// How long another process's change to SQLite may go unseen.
const POLL: Duration = Duration::from_millis(200);
/// After the database failed.
const RETRY: Duration = Duration::from_secs(1);

/// A counter that goes up with each change. Cheap to clone.
///
/// Other processes' changes are seen on SQLite by looking every 200 ms while
/// anybody watches, on PostgreSQL by LISTEN: there a writer calls
/// [`Transaction::announce`](super::Transaction::announce).
#[derive(Debug, Clone)]
pub struct Changes {
    counter: watch::Sender<u64>,
}

impl Changes {
    /// Begins to look for changes, until `stopping` completes.
    #[must_use]
    pub fn start(database: &Database, stopping: impl Future<Output = ()> + Send + 'static) -> Self {
        let counter = watch::Sender::new(0);
        let following = follow(database.clone(), counter.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = stopping => {}
                () = following => {}
            }
        });
        Self { counter }
    }

    /// Sees every change from now on.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.counter.subscribe()
    }

    /// Says that this process has just changed something: its own watchers need
    /// not wait.
    pub fn note(&self) {
        self.counter.send_modify(|n| *n += 1);
    }
}

async fn follow(database: Database, counter: watch::Sender<u64>) {
    loop {
        let ended = match &database.0 {
            Kind::Sqlite(database) => poll(database, &counter).await,
            #[cfg(feature = "postgres")]
            Kind::Postgres(database) => database.listen(|| counter.send_modify(|n| *n += 1)).await,
        };
        if let Err(error) = ended {
            tracing::warn!(%error, "cannot look for changes; watchers see them later");
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn poll(
    database: &super::sqlite::Database,
    counter: &watch::Sender<u64>,
) -> Result<(), sqlx::Error> {
    // One of its own: the version is only comparable on the same connection.
    let mut connection: SqliteConnection = database.read.acquire().await?.detach();
    let mut seen = None;
    loop {
        if counter.receiver_count() > 0 {
            let version: i64 =
                sqlx::query_scalar("PRAGMA data_version").fetch_one(&mut connection).await?;
            if seen.replace(version) != Some(version) {
                counter.send_modify(|n| *n += 1);
            }
        }
        tokio::time::sleep(POLL).await;
    }
}
