//! What may be wrong with a database.

use std::path::PathBuf;

/// Why a database cannot be used.
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
    /// SQLite's file.
    #[error("{}: {source}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// Why.
        source: sqlx::Error,
    },
    /// Written by a later Weir.
    #[error(
        "{place}: has schema version {found}, but this program knows {known} and earlier; \
         use a newer weir or another database"
    )]
    Newer {
        /// The file, or the server and the schema.
        place: String,
        /// Its schema's version.
        found: usize,
        /// The newest version that this program knows.
        known: usize,
    },
    /// Neither `--data` nor `--database-url`.
    #[error("there is no place for the data: give a directory by --data, or --database-url")]
    Nowhere,
    /// `--database-url` in a program without PostgreSQL.
    #[error(
        "--database-url: this weir is built without PostgreSQL; build it with `--features postgres`, \
         or leave the option out to use SQLite in --data"
    )]
    NotBuilt,
    /// `--database-url` is of another kind.
    #[error(
        "--database-url (WEIR_DATABASE_URL): is no PostgreSQL URL; \
         give postgres://USER:PASSWORD@HOST:PORT/DATABASE"
    )]
    NotPostgres,
    /// A part of `--database-url`.
    #[error(
        "--database-url (WEIR_DATABASE_URL): {0}; give postgres://USER:PASSWORD@HOST:PORT/DATABASE"
    )]
    Url(String),
    /// A parameter of `--database-url` that nothing would heed.
    #[error(
        "--database-url (WEIR_DATABASE_URL): the parameter {0:?} is not known; \
         sslmode, sslrootcert, sslcert, sslkey, host, port, dbname, user, password, \
         application_name and options are"
    )]
    Parameter(String),
    /// The PostgreSQL server.
    #[error("{place}: {source}{}", hint(source))]
    Server {
        /// User, host, port and database, without the password.
        place: String,
        /// Why.
        source: sqlx::Error,
    },
}

const TLS: &str = "; see sslmode and sslrootcert in --database-url";

/// What to do about a server's refusal.
fn hint(error: &sqlx::Error) -> &'static str {
    let code = match error {
        sqlx::Error::Database(error) => error.code(),
        sqlx::Error::Tls(_) => return TLS,
        // So rustls refuses a certificate.
        sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => return TLS,
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut => {
            return "; is the server running, and does --database-url name its host and port?";
        }
        _ => return "",
    };
    match code.as_deref() {
        Some("28P01" | "28000") => "; check user and password in --database-url",
        Some("3D000") => "; make the database, or name another in --database-url",
        Some("42501") => {
            "; let the user make a schema (GRANT CREATE ON DATABASE), or make it the schema's owner"
        }
        _ => "",
    }
}

/// Whether a uniqueness rule refused a write.
#[must_use]
pub fn is_taken(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(e) if e.is_unique_violation())
}

/// Whether the database was busy, or away, for longer than we wait: nothing was
/// written, and trying again helps.
#[must_use]
pub fn is_busy(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::PoolTimedOut => true,
        sqlx::Error::Database(e) => e.code().is_some_and(|code| is_busy_code(&code)),
        _ => false,
    }
}

fn is_busy_code(code: &str) -> bool {
    match code {
        // PostgreSQL (appendix A): serialization, deadlock, lock or statement
        // timeout, too many connections, and the server's shutdown or start.
        "40001" | "40P01" | "55P03" | "57014" | "53300" | "57P01" | "57P02" | "57P03" => true,
        // The low byte of SQLite's result codes is the kind: BUSY or LOCKED. Its
        // codes have up to four digits, PostgreSQL's always five characters.
        code => {
            code.len() < 5 && code.parse::<i32>().is_ok_and(|code| matches!(code & 0xff, 5 | 6))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_busy_code;

    #[test]
    fn codes_of_both_are_told_apart() {
        for busy in ["5", "6", "261", "517", "40001", "40P01", "57P03"] {
            assert!(is_busy_code(busy), "{busy}");
        }
        // 23502 would be SQLite's 23502 & 0xff = 206; 22021 & 0xff = 5.
        for other in ["1", "19", "2067", "23505", "22021", "42P01"] {
            assert!(!is_busy_code(other), "{other}");
        }
    }
}
