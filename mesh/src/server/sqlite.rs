//! SQLite as our services use it: one database in WAL mode that the processes
//! of a service share, with its schema brought up to date at the start.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use super::database::OpenError;

/// How long a writer waits for writers of other processes.
const BUSY: Duration = Duration::from_secs(5);

/// Connections to one database; clones share them.
///
/// SQLite has one writer at a time: with a single connection that writes,
/// writers of this process queue fairly in memory, and only processes compete
/// by SQLite's busy timeout.
#[derive(Debug, Clone)]
pub struct Database {
    /// For what only reads.
    pub read: SqlitePool,
    /// For what writes: begin with `BEGIN IMMEDIATE` where a transaction reads
    /// first, since a reader that turns writer does not wait for others.
    pub write: SqlitePool,
    path: PathBuf,
}

impl Database {
    /// The database file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Opens `directory/file` and brings its schema up to date; several processes
/// may do so at once. What is committed is on the disk (`synchronous=FULL`).
///
/// Each of `migrations` brings the schema from the version before it (its
/// index, kept in `user_version`) to the next.
///
/// # Errors
/// When the directory or the database in it cannot be used.
pub async fn open(
    directory: &Path,
    file: &str,
    migrations: &'static [&'static str],
) -> Result<Database, OpenError> {
    let lock = lock(directory, file).await?;
    let path = directory.join(file);
    // SQLite's other files get the permissions of this one.
    create_private(&path).map_err(|source| OpenError::Directory { path: path.clone(), source })?;
    let options = SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY);
    let pool = |most| SqlitePoolOptions::new().max_connections(most).acquire_timeout(BUSY);
    let failed = |source| OpenError::Database { path: path.clone(), source };

    let write = pool(1).connect_with(options.clone()).await.map_err(failed)?;
    let found = migrate(&write, migrations).await.map_err(failed)?;
    if found > migrations.len() {
        let place = path.display().to_string();
        return Err(OpenError::Newer { place, found, known: migrations.len() });
    }
    let read = pool(4).connect_with(options).await.map_err(failed)?;
    drop(lock);
    Ok(Database { read, write, path })
}

/// Neither entering WAL mode nor a schema change waits for other processes
/// reliably; this lock does, and ends with the process that holds it.
async fn lock(directory: &Path, file: &str) -> Result<File, OpenError> {
    let refused = |path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Directory { path, source }
    };
    std::fs::create_dir_all(directory).map_err(refused(directory))?;
    let path = directory.join(format!("{file}.lock"));
    let lock = create_private(&path).map_err(refused(&path))?;
    tokio::task::spawn_blocking(move || lock.lock().map(|()| lock))
        .await
        .unwrap_or_else(|lost| Err(std::io::Error::other(lost)))
        .map_err(refused(&path))
}

/// Opens a file that, when it is new, only its owner may read: what our services
/// keep is their users' business.
fn create_private(path: &Path) -> std::io::Result<File> {
    let mut options = File::options();
    options.create(true).truncate(false).read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Applies what is missing and returns the version that was found.
async fn migrate(pool: &SqlitePool, migrations: &[&'static str]) -> Result<usize, sqlx::Error> {
    let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await?;
    let found: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut *transaction).await?;
    let found = usize::try_from(found).unwrap_or(0);
    for (done, sql) in migrations.iter().enumerate().skip(found) {
        sqlx::raw_sql(*sql).execute(&mut *transaction).await?;
        // PRAGMA takes no bound parameters; the number is our own.
        let set = format!("PRAGMA user_version = {}", done + 1);
        sqlx::raw_sql(sqlx::AssertSqlSafe(set)).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok(found)
}
