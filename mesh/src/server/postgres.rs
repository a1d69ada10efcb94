//! PostgreSQL as our services use it: each has a schema of its own, so that all
//! of them may share one database, and any number of processes may serve it.

use std::fmt::Display;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{AssertSqlSafe, PgConnection, PgPool, Postgres};

use super::database::{OpenError, Schema};
use super::database_url::DatabaseUrl;

/// How long to wait for a connection, and for a lock that others hold.
const BUSY: Duration = Duration::from_secs(5);
/// Most connections of one process. A server takes 100 unless told otherwise.
const MOST: u32 = 8;
/// What bounds the work of a connection. A process that hangs in a transaction
/// must not hold its locks for ever.
const LIMITS: [(&str, &str); 4] = [
    ("lock_timeout", "5s"),
    ("statement_timeout", "30s"),
    ("idle_in_transaction_session_timeout", "30s"),
    // Our rules count on it, whatever the server's default.
    ("default_transaction_isolation", "read committed"),
];
/// How often a listening connection is asked whether it is still there: when a
/// server is lost without a word, nothing else would tell.
const CHECK: Duration = Duration::from_secs(15);
/// What sqlx heeds in a URL. It would log any other, with its value.
const PARAMETERS: [&str; 18] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];

/// Connections to one schema; clones share them.
#[derive(Debug, Clone)]
pub struct Database {
    pool: PgPool,
    schema: String,
}

/// Connects, and makes the schema or brings it up to date.
///
/// # Errors
/// When the URL is wrong or the server refuses.
pub async fn open(url: &DatabaseUrl, schema: &Schema) -> Result<Database, OpenError> {
    let options = options(url)?;
    let name = format!("weir_{}", schema.name);
    let place = place(&options);
    let options =
        options.application_name(&name).options([("search_path", name.as_str())]).options(LIMITS);
    let failed = |source| OpenError::Server { place: place.clone(), source };

    // A pool says of a server that is not there only that it took too long.
    let mut first = tokio::time::timeout(BUSY, sqlx::ConnectOptions::connect(&options))
        .await
        .unwrap_or(Err(sqlx::Error::PoolTimedOut))
        .map_err(failed)?;
    let found = migrate(&mut first, &name, schema.postgres).await.map_err(failed)?;
    if found > schema.postgres.len() {
        let place = format!("{place}, schema {name}");
        return Err(OpenError::Newer { place, found, known: schema.postgres.len() });
    }
    drop(first);
    let pool = PgPoolOptions::new()
        .max_connections(MOST)
        .acquire_timeout(BUSY)
        .connect_with(options)
        .await
        .map_err(failed)?;
    Ok(Database { pool, schema: name })
}

impl Database {
    pub(super) async fn acquire(&self) -> Result<PoolConnection<Postgres>, sqlx::Error> {
        self.pool.acquire().await
    }

    pub(super) async fn begin(&self) -> Result<sqlx::Transaction<'static, Postgres>, sqlx::Error> {
        self.pool.begin().await
    }

    /// Calls `changed` after each [`announce`], and whenever one may have been
    /// missed, until the database fails.
    pub(super) async fn listen(&self, changed: impl Fn()) -> Result<(), sqlx::Error> {
        let mut listener = PgListener::connect_with(&self.pool).await?;
        listener.listen(&self.schema).await?;
        loop {
            changed();
            match tokio::time::timeout(CHECK, listener.try_recv()).await {
                // Also when the connection was lost and made again.
                Ok(received) => drop(received?),
                Err(_) => {
                    let asked = sqlx::query("SELECT 1").execute(&mut listener);
                    let lost = |_| sqlx::Error::Io(std::io::ErrorKind::TimedOut.into());
                    tokio::time::timeout(BUSY, asked).await.map_err(lost)??;
                }
            }
        }
    }
}

/// Waits for all other transactions of this schema that have called it.
pub(super) async fn queue(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended(current_schema(), 0))")
        .execute(connection)
        .await?;
    Ok(())
}

/// Reaches whoever [listens](Database::listen), once it is committed.
pub(super) async fn announce(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_notify(current_schema(), '')").execute(connection).await?;
    Ok(())
}

fn options(url: &DatabaseUrl) -> Result<PgConnectOptions, OpenError> {
    let text = url.reveal();
    if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
        return Err(OpenError::NotPostgres);
    }
    let query = text.split_once('?').map_or("", |(_, query)| query);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let key = pair.split('=').next().unwrap_or_default();
        if !PARAMETERS.contains(&key) {
            return Err(OpenError::Parameter(key.to_owned()));
        }
    }
    // Its errors are about numbers and characters, and repeat none of them.
    text.parse().map_err(|error: sqlx::Error| OpenError::Url(error.to_string()))
}

/// The server as an error may name it.
fn place(options: &PgConnectOptions) -> String {
    let host: &dyn Display = match options.get_socket() {
        Some(socket) => &socket.display(),
        None => &options.get_host(),
    };
    let (user, port) = (options.get_username(), options.get_port());
    let database = options.get_database().unwrap_or(user);
    format!("postgres://{user}@{host}:{port}/{database}")
}

/// Applies what is missing, as one change, and returns the version that was
/// found. Whoever starts at the same time waits.
async fn migrate(
    connection: &mut PgConnection,
    name: &str,
    migrations: &[&'static str],
) -> Result<usize, sqlx::Error> {
    let mut transaction = sqlx::Connection::begin(connection).await?;
    sqlx::raw_sql("SET LOCAL lock_timeout = '60s'; SET LOCAL statement_timeout = 0")
        .execute(&mut *transaction)
        .await?;
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 1))")
        .bind(name)
        .execute(&mut *transaction)
        .await?;
    // Not by IF NOT EXISTS: that needs the right to make one even if it is there.
    let there: bool = sqlx::query_scalar("SELECT to_regnamespace($1) IS NOT NULL")
        .bind(name)
        .fetch_one(&mut *transaction)
        .await?;
    if !there {
        // The name is our own.
        let create = format!("CREATE SCHEMA {name}");
        sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut *transaction).await?;
    }
    sqlx::raw_sql("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)")
        .execute(&mut *transaction)
        .await?;
    let found: Option<i64> = sqlx::query_scalar("SELECT max(version) FROM schema_version")
        .fetch_one(&mut *transaction)
        .await?;
    let found = usize::try_from(found.unwrap_or(0)).unwrap_or(0);
    for (done, sql) in migrations.iter().enumerate().skip(found) {
        sqlx::raw_sql(*sql).execute(&mut *transaction).await?;
        sqlx::query("INSERT INTO schema_version (version) VALUES ($1)")
            .bind(i64::try_from(done + 1).unwrap_or(i64::MAX))
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    Ok(found)
}
