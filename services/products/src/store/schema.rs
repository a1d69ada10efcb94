//! Opens the database that all processes of the service share.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

/// Each brings the schema from the version before it (its index) to the next.
const MIGRATIONS: &[&str] = &[include_str!("001_products.sql")];

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory or its lock file.
    #[error("{}: {source}; give a directory that this user may write to by --data", path.display())]
    Directory {
        /// What could not be made or opened.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The database file.
    #[error("{}: {source}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// Why.
        source: sqlx::Error,
    },
    /// Written by a later Weir.
    #[error(
        "{}: has schema version {found}, but this program knows {} and earlier; \
         use a newer weir or another --data directory",
        path.display(), MIGRATIONS.len()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema's version.
        found: i64,
    },
}

/// Connections to one database. SQLite has one writer at a time: with a single
/// connection that writes, writers of this process queue fairly in memory
/// and only processes compete by SQLite's busy timeout.
#[derive(Debug, Clone)]
pub(super) struct Database {
    pub(super) read: SqlitePool,
    pub(super) write: SqlitePool,
}

/// Opens `directory/file`, and brings its schema up to date. Several processes
/// may do so at once.
pub(super) async fn open(directory: &Path, file: &str) -> Result<Database, OpenError> {
    let refused = |path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Directory { path, source }
    };
    std::fs::create_dir_all(directory).map_err(refused(directory))?;
    // Neither entering WAL mode nor a schema change waits for other processes
    // reliably; this lock does, and ends with the process that holds it.
    let lock_path = directory.join(format!("{file}.lock"));
    let lock = File::create(&lock_path).map_err(refused(&lock_path))?;
    let lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock))
        .await
        .unwrap_or_else(|panic| Err(std::io::Error::other(panic)))
        .map_err(refused(&lock_path))?;

    let path = directory.join(file);
    let options = SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // An acknowledged write is on the disk.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(5));
    let failed = |source| OpenError::Database { path: path.clone(), source };
    let pool = |most| {
        SqlitePoolOptions::new().max_connections(most).acquire_timeout(Duration::from_secs(5))
    };
    let write = pool(1).connect_with(options.clone()).await.map_err(failed)?;
    let found = migrate(&write).await.map_err(failed)?;
    if found > MIGRATIONS.len() as i64 {
        return Err(OpenError::Newer { path, found });
    }
    let read = pool(4).connect_with(options).await.map_err(failed)?;
    drop(lock);
    Ok(Database { read, write })
}

/// Applies what is missing and returns the version that was found.
async fn migrate(pool: &SqlitePool) -> Result<i64, sqlx::Error> {
    let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await?;
    let found: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut *transaction).await?;
    for (done, sql) in MIGRATIONS.iter().enumerate().skip(usize::try_from(found).unwrap_or(0)) {
        sqlx::raw_sql(*sql).execute(&mut *transaction).await?;
        // PRAGMA takes no bound parameters; the number is our own.
        let set = format!("PRAGMA user_version = {}", done + 1);
        sqlx::raw_sql(sqlx::AssertSqlSafe(set)).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok(found)
}
