//! A service's data: SQLite in its data directory, or PostgreSQL, which
//! processes on several machines share.
//!
//! Both speak the SQL that a service writes once, as a [`Query`]; where they
//! differ, its parts do. What SQLite gives by having one writer at a time, a
//! transaction on PostgreSQL has to ask for: row locks (`FOR UPDATE`), or
//! [`Transaction::queue`] for what must be in order.

mod changes;
mod error;
mod query;
mod row;

use std::path::Path;

use sqlx::Sqlite;

use super::common::Common;
#[cfg(feature = "postgres")]
use super::postgres;
use super::sqlite;
use query::Connection;

pub use changes::Changes;
pub use error::{OpenError, is_busy, is_taken};
pub use query::{Query, Value};
pub use row::{Column, Row};

/// The tables of a service. Each migration brings them from the version before
/// it (its index) to the next.
#[derive(Debug, Clone, Copy)]
pub struct Schema {
    /// SQLite's file is `NAME.db`, PostgreSQL's schema `weir_NAME`. Of `a-z` only.
    pub name: &'static str,
    /// For SQLite.
    pub sqlite: &'static [&'static str],
    /// For PostgreSQL.
    pub postgres: &'static [&'static str],
}

/// Connections to a service's data; clones share them.
#[derive(Debug, Clone)]
pub struct Database(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Sqlite(sqlite::Database),
    #[cfg(feature = "postgres")]
    Postgres(postgres::Database),
}

impl Database {
    /// Opens what `common` names, PostgreSQL by `--database-url`, else SQLite in
    /// `--data`, and brings its tables up to date; several processes may do so
    /// at once.
    ///
    /// # Errors
    /// When it cannot be used, and what to do about it. Never with a password.
    pub async fn open(common: &Common, schema: &Schema) -> Result<Self, OpenError> {
        match (&common.database_url, &common.data) {
            #[cfg(feature = "postgres")]
            (Some(url), _) => Ok(Self(Kind::Postgres(postgres::open(url, schema).await?))),
            #[cfg(not(feature = "postgres"))]
            (Some(_), _) => Err(OpenError::NotBuilt),
            (None, Some(directory)) => Self::open_in(directory, schema).await,
            (None, None) => Err(OpenError::Nowhere),
        }
    }

    /// Opens SQLite in `directory`.
    ///
    /// # Errors
    /// As [`Database::open`].
    pub async fn open_in(directory: &Path, schema: &Schema) -> Result<Self, OpenError> {
        let file = format!("{}.db", schema.name);
        Ok(Self(Kind::Sqlite(sqlite::open(directory, &file, schema.sqlite).await?)))
    }

    /// The directory of the data, where its keys lie too; `None` on PostgreSQL,
    /// whose processes share nothing else.
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        match &self.0 {
            Kind::Sqlite(database) => database.path().parent(),
            #[cfg(feature = "postgres")]
            Kind::Postgres(_) => None,
        }
    }

    /// Reads all rows.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn all(&self, query: Query) -> Result<Vec<Row>, sqlx::Error> {
        match &self.0 {
            Kind::Sqlite(database) => {
                query.all(Connection::Sqlite(&mut *database.read.acquire().await?)).await
            }
            #[cfg(feature = "postgres")]
            Kind::Postgres(database) => query
                .all(Connection::Postgres(&mut *database.acquire().await.map_err(away)?))
                .await
                .map_err(away),
        }
    }

    /// Reads the first row.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn one(&self, query: Query) -> Result<Option<Row>, sqlx::Error> {
        Ok(self.all(query).await?.into_iter().next())
    }

    /// Writes, by one statement; says how many rows.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn run(&self, query: Query) -> Result<u64, sqlx::Error> {
        match &self.0 {
            Kind::Sqlite(database) => {
                query.run(Connection::Sqlite(&mut *database.write.acquire().await?)).await
            }
            #[cfg(feature = "postgres")]
            Kind::Postgres(database) => {
                query.run(Connection::Postgres(&mut *database.acquire().await.map_err(away)?)).await
            }
        }
    }

    /// The secret of this name in the table `secrets (name, value)`, the same for
    /// all processes: `new`, if there was none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn secret(&self, name: &str, new: &[u8]) -> Result<Vec<u8>, sqlx::Error> {
        let there = Query::new("SELECT value FROM secrets WHERE name = $1").bind(name);
        if let Some(row) = self.one(there.clone()).await? {
            return row.at(0);
        }
        let add =
            Query::new("INSERT INTO secrets (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING");
        self.run(add.bind(name).bind(new)).await?;
        // Another process may have been first: what is there counts.
        self.one(there).await?.ok_or(sqlx::Error::RowNotFound)?.at(0)
    }

    /// Begins to write. Without [`Transaction::commit`] nothing was written.
    ///
    /// On SQLite there is no other writer until it ends. On PostgreSQL there
    /// are: each statement sees what was committed before it (READ COMMITTED).
    ///
    /// # Errors
    /// When the database fails.
    pub async fn begin(&self) -> Result<Transaction, sqlx::Error> {
        match &self.0 {
            // One that reads first and then writes would not wait for others.
            Kind::Sqlite(database) => {
                Ok(Transaction(Open::Sqlite(database.write.begin_with("BEGIN IMMEDIATE").await?)))
            }
            #[cfg(feature = "postgres")]
            Kind::Postgres(database) => {
                Ok(Transaction(Open::Postgres(database.begin().await.map_err(away)?)))
            }
        }
    }
}

/// A server that is away, or goes, before anything was written is as good as
/// busy: the caller may try again.
fn away(error: sqlx::Error) -> sqlx::Error {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) => {
            tracing::warn!(%error, "the database cannot be reached");
            sqlx::Error::PoolTimedOut
        }
        other => other,
    }
}

/// Changes that come into effect together.
#[derive(Debug)]
pub struct Transaction(Open);

#[derive(Debug)]
enum Open {
    Sqlite(sqlx::Transaction<'static, Sqlite>),
    #[cfg(feature = "postgres")]
    Postgres(sqlx::Transaction<'static, sqlx::Postgres>),
}

impl Transaction {
    fn connection(&mut self) -> Connection<'_> {
        match &mut self.0 {
            Open::Sqlite(transaction) => Connection::Sqlite(transaction),
            #[cfg(feature = "postgres")]
            Open::Postgres(transaction) => Connection::Postgres(transaction),
        }
    }

    /// Reads or writes, and gives all rows.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn all(&mut self, query: Query) -> Result<Vec<Row>, sqlx::Error> {
        query.all(self.connection()).await.map_err(away)
    }

    /// Reads or writes, and gives the first row.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn one(&mut self, query: Query) -> Result<Option<Row>, sqlx::Error> {
        Ok(self.all(query).await?.into_iter().next())
    }

    /// Writes; says how many rows.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn run(&mut self, query: Query) -> Result<u64, sqlx::Error> {
        // Nothing counts before the commit.
        query.run(self.connection()).await.map_err(away)
    }

    /// Waits until no other transaction of this service that asks for it is
    /// open, as every one does on SQLite: numbers that are given out after it
    /// are committed in their order.
    ///
    /// # Errors
    /// When the database fails, also when others take too long.
    pub async fn queue(&mut self) -> Result<(), sqlx::Error> {
        match &mut self.0 {
            Open::Sqlite(_) => Ok(()),
            #[cfg(feature = "postgres")]
            Open::Postgres(transaction) => postgres::queue(transaction).await,
        }
    }

    /// Lets the [`Changes`] of all processes know, once it is committed.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn announce(&mut self) -> Result<(), sqlx::Error> {
        match &mut self.0 {
            // They see it by themselves.
            Open::Sqlite(_) => Ok(()),
            #[cfg(feature = "postgres")]
            Open::Postgres(transaction) => postgres::announce(transaction).await,
        }
    }

    /// Makes it so. What is committed is on the disk.
    ///
    /// # Errors
    /// When the database fails. When it was lost on the way, it may be so.
    pub async fn commit(self) -> Result<(), sqlx::Error> {
        match self.0 {
            Open::Sqlite(transaction) => transaction.commit().await,
            #[cfg(feature = "postgres")]
            Open::Postgres(transaction) => transaction.commit().await,
        }
    }
}
