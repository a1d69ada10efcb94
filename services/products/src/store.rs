//! The catalogue on disk. It knows nothing of gRPC.

mod row;

use std::collections::HashMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use crate::filter::Filter;
use crate::page::{Cursor, Key, Order};
use crate::product::{Draft, Patch, Product, ProductId, Revision, Stars, Tags};

pub use weir_mesh::server::sqlite::OpenError;
use weir_mesh::server::sqlite::{self, Database};

/// Each brings the schema from the version before it (its index) to the next.
const MIGRATIONS: &[&str] = &[include_str!("store/001_products.sql")];

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No product has this id.
    #[error("there is no product {0}")]
    NotFound(ProductId),
    /// Another product has this SKU.
    #[error("another product has this SKU")]
    SkuTaken,
    /// It has changed since the caller read it.
    #[error("the product has changed since it was read")]
    Changed,
    /// The database is busy for longer than we wait.
    #[error("the database is busy")]
    Busy,
    /// The database failed.
    #[error("the database failed: {0}")]
    Database(sqlx::Error),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if sqlite::is_taken(&error) {
            Self::SkuTaken
        } else if sqlite::is_busy(&error) {
            Self::Busy
        } else {
            Self::Database(error)
        }
    }
}

/// The products that all processes of the service share. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    database: Database,
}

/// What to list.
#[derive(Debug, Clone)]
pub struct List<'a> {
    /// `None`: all.
    pub filter: Option<&'a Filter>,
    /// In which order.
    pub order: Order,
    /// `None`: from the beginning.
    pub after: Option<Cursor>,
    /// At most this many.
    pub limit: u32,
}

impl Store {
    /// Opens the catalogue in `directory`, which is made when there is none.
    ///
    /// # Errors
    /// When the directory or the database in it cannot be used.
    pub async fn open(directory: &Path) -> Result<Self, OpenError> {
        Ok(Self { database: sqlite::open(directory, "products.db", MIGRATIONS).await? })
    }

    /// Adds a product.
    ///
    /// # Errors
    /// [`StoreError::SkuTaken`], or when the database fails.
    pub async fn create(&self, draft: &Draft, created_by: &str) -> Result<Product, StoreError> {
        let mut transaction = self.database.write.begin_with("BEGIN IMMEDIATE").await?;
        let product =
            insert(&mut transaction, draft, created_by).await?.ok_or(StoreError::SkuTaken)?;
        transaction.commit().await?;
        Ok(product)
    }

    /// Adds all whose SKU is new, as one change; says for each whether it was.
    ///
    /// # Errors
    /// When the database fails; then none was added.
    pub async fn import(
        &self,
        drafts: &[Draft],
        created_by: &str,
    ) -> Result<Vec<bool>, StoreError> {
        let mut transaction = self.database.write.begin_with("BEGIN IMMEDIATE").await?;
        let mut added = Vec::with_capacity(drafts.len());
        for draft in drafts {
            added.push(insert(&mut transaction, draft, created_by).await?.is_some());
        }
        transaction.commit().await?;
        Ok(added)
    }

    /// Adds `drafts` to a catalogue that was always empty, once in its life,
    /// however many processes try. Says whether this call did.
    ///
    /// # Errors
    /// When the database fails; then none was added.
    pub async fn seed(&self, drafts: &[Draft], created_by: &str) -> Result<bool, StoreError> {
        let mut transaction = self.database.write.begin_with("BEGIN IMMEDIATE").await?;
        let first = sqlx::query("INSERT INTO done (what) VALUES ('seeded') ON CONFLICT DO NOTHING")
            .execute(&mut *transaction)
            .await?
            .rows_affected()
            == 1;
        let used: i64 =
            sqlx::query_scalar("SELECT count(*) FROM sqlite_sequence WHERE name = 'products'")
                .fetch_one(&mut *transaction)
                .await?;
        let seeds = first && used == 0;
        if seeds {
            for draft in drafts {
                insert(&mut transaction, draft, created_by).await?;
            }
        }
        transaction.commit().await?;
        Ok(seeds)
    }

    /// The product with this id.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], or when the database fails.
    pub async fn get(&self, id: ProductId) -> Result<Product, StoreError> {
        self.find(&[id]).await?.remove(&id).ok_or(StoreError::NotFound(id))
    }

    /// Those of `ids` that there are.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn find(&self, ids: &[ProductId]) -> Result<HashMap<ProductId, Product>, StoreError> {
        let mut sql = QueryBuilder::<Sqlite>::new("SELECT * FROM products WHERE id IN (");
        let mut list = sql.separated(", ");
        for id in ids {
            list.push_bind(id.to_string());
        }
        sql.push(")");
        let rows = sql.build().fetch_all(&self.database.read).await?;
        let products = products(&rows)?;
        Ok(products.into_iter().map(|product| (product.id, product)).collect())
    }

    /// Part of a list, in its order.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list(&self, list: List<'_>) -> Result<Vec<Product>, StoreError> {
        let mut sql = QueryBuilder::<Sqlite>::new("SELECT * FROM products WHERE ");
        let beyond = if list.order.descending { " < (" } else { " > (" };
        match list.after {
            None => sql.push("1"),
            Some(Cursor::Created(sequence)) => {
                sql.push("(sequence)").push(beyond).push_bind(sequence).push(")")
            }
            Some(Cursor::Price(amount, sequence)) => sql
                .push("(amount_minor, sequence)")
                .push(beyond)
                .push_bind(amount)
                .push(", ")
                .push_bind(sequence)
                .push(")"),
            Some(Cursor::Name(name, sequence)) => sql
                .push("(name COLLATE NOCASE, sequence)")
                .push(beyond)
                .push_bind(name)
                .push(", ")
                .push_bind(sequence)
                .push(")"),
        };
        if let Some(filter) = list.filter {
            sql.push(" AND ");
            filter.push(&mut sql);
        }
        sql.push(match (list.order.key, list.order.descending) {
            (Key::Created, false) => " ORDER BY sequence",
            (Key::Created, true) => " ORDER BY sequence DESC",
            (Key::Price, false) => " ORDER BY amount_minor, sequence",
            (Key::Price, true) => " ORDER BY amount_minor DESC, sequence DESC",
            (Key::Name, false) => " ORDER BY name COLLATE NOCASE, sequence",
            (Key::Name, true) => " ORDER BY name COLLATE NOCASE DESC, sequence DESC",
        });
        sql.push(" LIMIT ").push_bind(list.limit);
        let rows = sql.build().fetch_all(&self.database.read).await?;
        products(&rows)
    }

    /// Changes a product. With `expected`, only in that state.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Changed`], or when the database
    /// fails.
    pub async fn update(
        &self,
        id: ProductId,
        expected: Option<Revision>,
        patch: &Patch,
    ) -> Result<Product, StoreError> {
        // Not by autocommit: with RETURNING, the row comes before the commit.
        let mut transaction = self.database.write.begin_with("BEGIN IMMEDIATE").await?;
        let row = sqlx::query(
            "UPDATE products SET name = coalesce(?3, name), description = coalesce(?4, description), \
             currency = coalesce(?5, currency), amount_minor = coalesce(?6, amount_minor), \
             category = coalesce(?7, category), tags = coalesce(?8, tags), \
             revision = revision + 1, update_time = max(?9, update_time) \
             WHERE id = ?1 AND revision = coalesce(?2, revision) RETURNING *",
        )
        .bind(id.to_string())
        .bind(expected.map(|revision| revision.0))
        .bind(patch.name.as_ref().map(|v| v.as_str().to_owned()))
        .bind(patch.description.as_ref().map(|v| v.as_str().to_owned()))
        .bind(patch.price.as_ref().map(|v| v.currency.as_str().to_owned()))
        .bind(patch.price.as_ref().map(|v| v.amount.minor()))
        .bind(patch.category.as_ref().map(|v| v.as_str().to_owned()))
        .bind(patch.tags.as_ref().map(tags_json))
        .bind(now())
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(row) = row else { return Err(absent_or_changed(&mut transaction, id).await?) };
        let product = row::product(&row)?;
        transaction.commit().await?;
        Ok(product)
    }

    /// Removes a product. With `expected`, only in that state.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Changed`], or when the database
    /// fails.
    pub async fn delete(
        &self,
        id: ProductId,
        expected: Option<Revision>,
    ) -> Result<(), StoreError> {
        let mut connection = self.database.write.acquire().await?;
        let done =
            sqlx::query("DELETE FROM products WHERE id = ?1 AND revision = coalesce(?2, revision)")
                .bind(id.to_string())
                .bind(expected.map(|revision| revision.0))
                .execute(&mut *connection)
                .await?;
        match done.rows_affected() {
            0 => Err(absent_or_changed(&mut connection, id).await?),
            _ => Ok(()),
        }
    }

    /// Gives or replaces a user's rating. The product's revision stays, or
    /// each rating would refuse its editors.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], or when the database fails.
    pub async fn rate(
        &self,
        id: ProductId,
        user: &str,
        stars: Stars,
    ) -> Result<Product, StoreError> {
        let mut transaction = self.database.write.begin_with("BEGIN IMMEDIATE").await?;
        let product: Option<i64> = sqlx::query_scalar("SELECT sequence FROM products WHERE id = ?")
            .bind(id.to_string())
            .fetch_optional(&mut *transaction)
            .await?;
        let product = product.ok_or(StoreError::NotFound(id))?;
        let before: Option<i64> =
            sqlx::query_scalar("SELECT stars FROM ratings WHERE product = ? AND user = ?")
                .bind(product)
                .bind(user.to_owned())
                .fetch_optional(&mut *transaction)
                .await?;
        let stars = i64::from(stars.get());
        sqlx::query(
            "INSERT INTO ratings (product, user, stars) VALUES (?, ?, ?) \
             ON CONFLICT DO UPDATE SET stars = excluded.stars",
        )
        .bind(product)
        .bind(user.to_owned())
        .bind(stars)
        .execute(&mut *transaction)
        .await?;
        let row = sqlx::query(
            "UPDATE products SET rating_sum = rating_sum + ?, rating_count = rating_count + ? \
             WHERE sequence = ? RETURNING *",
        )
        .bind(stars - before.unwrap_or(0))
        .bind(i64::from(before.is_none()))
        .bind(product)
        .fetch_one(&mut *transaction)
        .await?;
        let product = row::product(&row)?;
        transaction.commit().await?;
        Ok(product)
    }
}

/// Inserts one; `None` when the SKU is taken.
async fn insert(
    connection: &mut SqliteConnection,
    draft: &Draft,
    created_by: &str,
) -> Result<Option<Product>, StoreError> {
    let row = sqlx::query(
        "INSERT INTO products (id, name, description, sku, currency, amount_minor, category, tags, \
         create_time, update_time, created_by) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?9, ?10) \
         ON CONFLICT (sku) DO NOTHING RETURNING *",
    )
    .bind(ProductId::generate().to_string())
    .bind(draft.name.as_str().to_owned())
    .bind(draft.description.as_str().to_owned())
    .bind(draft.sku.as_str().to_owned())
    .bind(draft.price.currency.as_str().to_owned())
    .bind(draft.price.amount.minor())
    .bind(draft.category.as_str().to_owned())
    .bind(tags_json(&draft.tags))
    .bind(now())
    .bind(created_by.to_owned())
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| row::product(&row)).transpose()?)
}

async fn absent_or_changed(
    connection: &mut SqliteConnection,
    id: ProductId,
) -> Result<StoreError, StoreError> {
    let found: Option<i64> = sqlx::query_scalar("SELECT 1 FROM products WHERE id = ?")
        .bind(id.to_string())
        .fetch_optional(connection)
        .await?;
    Ok(if found.is_some() { StoreError::Changed } else { StoreError::NotFound(id) })
}

fn products(rows: &[SqliteRow]) -> Result<Vec<Product>, StoreError> {
    Ok(rows.iter().map(row::product).collect::<Result<_, _>>()?)
}

fn tags_json(tags: &Tags) -> String {
    let tags: Vec<_> = tags.as_slice().iter().map(|tag| tag.as_str()).collect();
    // A list of texts always serializes.
    serde_json::to_string(&tags).unwrap_or_default()
}

/// Microseconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
