//! One row of either database.

use sqlx::sqlite::{Sqlite, SqliteRow};
use sqlx::{Decode, Row as _, Type};

/// A row that was read.
pub enum Row {
    /// Of SQLite.
    Sqlite(SqliteRow),
    /// Of PostgreSQL.
    #[cfg(feature = "postgres")]
    Postgres(sqlx::postgres::PgRow),
}

/// What both databases can give: `i64`, `bool`, `String`, `Vec<u8>`, and
/// `Option` of these. PostgreSQL gives an `i64` for `BIGINT` only.
#[cfg(feature = "postgres")]
pub trait Column:
    for<'r> Decode<'r, Sqlite>
    + Type<Sqlite>
    + for<'r> Decode<'r, sqlx::Postgres>
    + Type<sqlx::Postgres>
{
}
#[cfg(feature = "postgres")]
impl<T> Column for T where
    T: for<'r> Decode<'r, Sqlite>
        + Type<Sqlite>
        + for<'r> Decode<'r, sqlx::Postgres>
        + Type<sqlx::Postgres>
{
}

/// What a database can give: `i64`, `bool`, `String`, `Vec<u8>`, and `Option`
/// of these.
#[cfg(not(feature = "postgres"))]
pub trait Column: for<'r> Decode<'r, Sqlite> + Type<Sqlite> {}
#[cfg(not(feature = "postgres"))]
impl<T> Column for T where T: for<'r> Decode<'r, Sqlite> + Type<Sqlite> {}

impl Row {
    /// The column of this name.
    ///
    /// # Errors
    /// When there is none, or it holds something else.
    pub fn get<T: Column>(&self, name: &str) -> Result<T, sqlx::Error> {
        match self {
            Self::Sqlite(row) => row.try_get(name),
            #[cfg(feature = "postgres")]
            Self::Postgres(row) => row.try_get(name),
        }
    }

    /// The column at this place, from 0.
    ///
    /// # Errors
    /// When there is none, or it holds something else.
    pub fn at<T: Column>(&self, place: usize) -> Result<T, sqlx::Error> {
        match self {
            Self::Sqlite(row) => row.try_get(place),
            #[cfg(feature = "postgres")]
            Self::Postgres(row) => row.try_get(place),
        }
    }
}
