//! One statement for either database.

#[cfg(feature = "postgres")]
use sqlx::PgConnection;
use sqlx::{AssertSqlSafe, SqliteConnection};

use super::Row;

/// The statement as sqlx takes it. The same for both, but of different types.
macro_rules! prepared {
    ($query:expr, $database:ty, $on_sqlite:expr) => {{
        let mut statement = sqlx::query::<$database>(AssertSqlSafe($query.text($on_sqlite)));
        for value in $query.values {
            statement = match value {
                Value::Int(value) => statement.bind(value),
                Value::Text(value) => statement.bind(value),
                Value::Bytes(value) => statement.bind(value),
            };
        }
        statement
    }};
}

/// A statement and its values. Its text is put together from the program's own
/// constants only; what comes from outside is always bound.
#[derive(Clone)]
#[must_use]
pub struct Query {
    parts: Vec<Part>,
    values: Vec<Value>,
}

#[derive(Clone, Copy)]
enum Part {
    Both(&'static str),
    Sqlite(&'static str),
    Postgres(&'static str),
    /// `$N` of the value with this number.
    Value(usize),
}

/// What can be bound.
#[derive(Clone)]
pub enum Value {
    /// `INTEGER`, `BIGINT`
    Int(Option<i64>),
    /// `TEXT`
    Text(Option<String>),
    /// `BLOB`, `BYTEA`
    Bytes(Vec<u8>),
}

impl Query {
    /// A statement, in which `$1` stands for the first value and so on.
    pub fn new(sql: &'static str) -> Self {
        Self { parts: vec![Part::Both(sql)], values: Vec::new() }
    }

    /// Goes on with more text.
    pub fn sql(mut self, sql: &'static str) -> Self {
        self.parts.push(Part::Both(sql));
        self
    }

    /// Goes on with text that is only for SQLite.
    pub fn sqlite(mut self, sql: &'static str) -> Self {
        self.parts.push(Part::Sqlite(sql));
        self
    }

    /// Goes on with text that is only for PostgreSQL.
    pub fn postgres(mut self, sql: &'static str) -> Self {
        self.parts.push(Part::Postgres(sql));
        self
    }

    /// Goes on with the next value's `$N`.
    pub fn value(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self.parts.push(Part::Value(self.values.len()));
        self
    }

    /// Binds the next value, whose `$N` is in the text.
    pub fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    fn text(&self, on_sqlite: bool) -> String {
        let mut text = String::new();
        for part in &self.parts {
            match *part {
                Part::Both(sql) => text.push_str(sql),
                Part::Sqlite(sql) if on_sqlite => text.push_str(sql),
                Part::Postgres(sql) if !on_sqlite => text.push_str(sql),
                Part::Sqlite(_) | Part::Postgres(_) => {}
                Part::Value(number) => text.push_str(&format!("${number}")),
            }
        }
        text
    }

    pub(super) async fn all(self, on: Connection<'_>) -> Result<Vec<Row>, sqlx::Error> {
        match on {
            Connection::Sqlite(connection) => {
                let query = prepared!(self, sqlx::Sqlite, true);
                Ok(query.fetch_all(connection).await?.into_iter().map(Row::Sqlite).collect())
            }
            #[cfg(feature = "postgres")]
            Connection::Postgres(connection) => {
                let query = prepared!(self, sqlx::Postgres, false);
                Ok(query.fetch_all(connection).await?.into_iter().map(Row::Postgres).collect())
            }
        }
    }

    pub(super) async fn run(self, on: Connection<'_>) -> Result<u64, sqlx::Error> {
        match on {
            Connection::Sqlite(connection) => {
                Ok(prepared!(self, sqlx::Sqlite, true).execute(connection).await?.rows_affected())
            }
            #[cfg(feature = "postgres")]
            Connection::Postgres(connection) => Ok(prepared!(self, sqlx::Postgres, false)
                .execute(connection)
                .await?
                .rows_affected()),
        }
    }
}

/// A connection to either.
pub(super) enum Connection<'a> {
    Sqlite(&'a mut SqliteConnection),
    #[cfg(feature = "postgres")]
    Postgres(&'a mut PgConnection),
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(Some(value))
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Int(Some(value.into()))
    }
}

impl From<Option<i64>> for Value {
    fn from(value: Option<i64>) -> Self {
        Self::Int(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(Some(value.to_owned()))
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(Some(value))
    }
}

impl From<Option<&str>> for Value {
    fn from(value: Option<&str>) -> Self {
        Self::Text(value.map(str::to_owned))
    }
}

impl From<Option<String>> for Value {
    fn from(value: Option<String>) -> Self {
        Self::Text(value)
    }
}

impl From<&[u8]> for Value {
    fn from(value: &[u8]) -> Self {
        Self::Bytes(value.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::Query;

    #[test]
    fn parts_are_for_one_or_both_and_values_are_numbered() {
        let query = Query::new("SELECT * FROM t WHERE a = $1")
            .bind("a")
            .sql(" AND b = ")
            .value(2_i64)
            .sqlite(" LIMIT 1")
            .postgres(" FOR UPDATE");
        assert_eq!(query.text(true), "SELECT * FROM t WHERE a = $1 AND b = $2 LIMIT 1");
        assert_eq!(query.text(false), "SELECT * FROM t WHERE a = $1 AND b = $2 FOR UPDATE");
    }
}
