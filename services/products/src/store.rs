//! The catalogue in its database. It knows nothing of gRPC.

mod row;

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use weir_mesh::server::Common;
use weir_mesh::server::database::{self, Database, Query, Row, Schema, Transaction};

use crate::filter::Filter;
use crate::page::{Cursor, Key, Order};
use crate::product::{Draft, Patch, Product, ProductId, Revision, Stars, Tags};

pub use weir_mesh::server::database::OpenError;

const SCHEMA: Schema = Schema {
    name: "products",
    sqlite: &[include_str!("../migrations/sqlite/001_products.sql")],
    postgres: &[include_str!("../migrations/postgres/001_products.sql")],
};

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
        if database::is_taken(&error) {
            Self::SkuTaken
        } else if database::is_busy(&error) {
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
    /// Opens the catalogue that `common` names, which is made when there is none.
    ///
    /// # Errors
    /// When the database cannot be used.
    pub async fn open(common: &Common) -> Result<Self, OpenError> {
        Ok(Self { database: Database::open(common, &SCHEMA).await? })
    }

    /// Adds a product.
    ///
    /// # Errors
    /// [`StoreError::SkuTaken`], or when the database fails.
    pub async fn create(&self, draft: &Draft, created_by: &str) -> Result<Product, StoreError> {
        let mut transaction = self.database.begin().await?;
        transaction.queue().await?;
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
        let mut transaction = self.database.begin().await?;
        transaction.queue().await?;
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
        let mut transaction = self.database.begin().await?;
        transaction.queue().await?;
        let done = Query::new("INSERT INTO done (what) VALUES ('seeded') ON CONFLICT DO NOTHING");
        let first = transaction.run(done).await? == 1;
        // Whether there ever was a product, also if it is gone again.
        let used = Query::new("SELECT 1 FROM ")
            .sqlite("sqlite_sequence WHERE name = 'products'")
            .postgres("products_sequence WHERE is_called");
        let seeds = first && transaction.one(used).await?.is_none();
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
        let mut query = Query::new("SELECT * FROM products WHERE id IN (");
        for (i, id) in ids.iter().enumerate() {
            query = query.sql(if i == 0 { "" } else { ", " }).value(id.to_string());
        }
        let rows = self.database.all(query.sql(")")).await?;
        let products = products(&rows)?;
        Ok(products.into_iter().map(|product| (product.id, product)).collect())
    }

    /// Part of a list, in its order.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list(&self, list: List<'_>) -> Result<Vec<Product>, StoreError> {
        let mut query = Query::new("SELECT * FROM products WHERE ");
        let beyond = if list.order.descending { " < (" } else { " > (" };
        query = match list.after.clone() {
            None => query.sql("1 = 1"),
            Some(Cursor::Created(sequence)) => query.sql("(sequence)").sql(beyond).value(sequence),
            Some(Cursor::Price(amount, sequence)) => query
                .sql("(amount_minor, sequence)")
                .sql(beyond)
                .value(amount)
                .sql(", ")
                .value(sequence),
            Some(Cursor::Name(name, sequence)) => {
                let query = by_name(query.sql("(")).sql(", sequence)").sql(beyond);
                let query = query.postgres("lower(").value(name).postgres(" COLLATE \"C\")");
                query.sql(", ").value(sequence)
            }
        };
        if list.after.is_some() {
            query = query.sql(")");
        }
        if let Some(filter) = list.filter {
            query = filter.push(query.sql(" AND "));
        }
        query = match list.order.key {
            Key::Created => query.sql(" ORDER BY sequence"),
            Key::Price => query.sql(" ORDER BY amount_minor"),
            Key::Name => by_name(query.sql(" ORDER BY ")),
        };
        if list.order.key != Key::Created {
            query = query.sql(if list.order.descending { " DESC, sequence" } else { ", sequence" });
        }
        query = query.sql(if list.order.descending { " DESC LIMIT " } else { " LIMIT " });
        let rows = self.database.all(query.value(list.limit)).await?;
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
        let mut transaction = self.database.begin().await?;
        let query = Query::new(
            "UPDATE products SET name = coalesce($3, name), description = coalesce($4, description), \
             currency = coalesce($5, currency), amount_minor = coalesce($6, amount_minor), \
             category = coalesce($7, category), tags = coalesce($8, tags), revision = revision + 1, \
             update_time = CASE WHEN $9 > update_time THEN $9 ELSE update_time END \
             WHERE id = $1 AND revision = coalesce($2, revision) RETURNING *",
        )
        .bind(id.to_string())
        .bind(expected.map(|revision| revision.0))
        .bind(patch.name.as_ref().map(|v| v.as_str()))
        .bind(patch.description.as_ref().map(|v| v.as_str()))
        .bind(patch.price.as_ref().map(|v| v.currency.as_str()))
        .bind(patch.price.as_ref().map(|v| v.amount.minor()))
        .bind(patch.category.as_ref().map(|v| v.as_str()))
        .bind(patch.tags.as_ref().map(tags_json))
        .bind(now());
        let row = transaction.one(query).await?;
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
        let mut transaction = self.database.begin().await?;
        let query =
            Query::new("DELETE FROM products WHERE id = $1 AND revision = coalesce($2, revision)")
                .bind(id.to_string())
                .bind(expected.map(|revision| revision.0));
        match transaction.run(query).await? {
            0 => Err(absent_or_changed(&mut transaction, id).await?),
            _ => Ok(transaction.commit().await?),
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
        let mut transaction = self.database.begin().await?;
        // Locked, or two ratings of one user at once would both count as the first.
        let query = Query::new("SELECT sequence FROM products WHERE id = $1")
            .bind(id.to_string())
            .postgres(" FOR UPDATE");
        let product = transaction.one(query).await?.ok_or(StoreError::NotFound(id))?;
        let product: i64 = product.at(0)?;
        let query = Query::new("SELECT stars FROM ratings WHERE product = $1 AND \"user\" = $2")
            .bind(product)
            .bind(user);
        let before = transaction.one(query).await?.map(|row| row.at::<i64>(0)).transpose()?;
        let stars = i64::from(stars.get());
        let query = Query::new(
            "INSERT INTO ratings (product, \"user\", stars) VALUES ($1, $2, $3) \
             ON CONFLICT (product, \"user\") DO UPDATE SET stars = excluded.stars",
        );
        transaction.run(query.bind(product).bind(user).bind(stars)).await?;
        let query = Query::new(
            "UPDATE products SET rating_sum = rating_sum + $1, rating_count = rating_count + $2 \
             WHERE sequence = $3 RETURNING *",
        )
        .bind(stars - before.unwrap_or(0))
        .bind(i64::from(before.is_none()))
        .bind(product);
        let row = transaction.one(query).await?.ok_or(StoreError::NotFound(id))?;
        let product = row::product(&row)?;
        transaction.commit().await?;
        Ok(product)
    }
}

/// The name as lists order it: ignoring the case of ASCII letters.
fn by_name(query: Query) -> Query {
    query.sqlite("name COLLATE NOCASE").postgres("lower(name)")
}

/// Inserts one; `None` when the SKU is taken.
async fn insert(
    transaction: &mut Transaction,
    draft: &Draft,
    created_by: &str,
) -> Result<Option<Product>, StoreError> {
    let query = Query::new(
        "INSERT INTO products (id, name, description, sku, currency, amount_minor, category, tags, \
         create_time, update_time, created_by) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, $10) \
         ON CONFLICT (sku) DO NOTHING RETURNING *",
    )
    .bind(ProductId::generate().to_string())
    .bind(draft.name.as_str())
    .bind(draft.description.as_str())
    .bind(draft.sku.as_str())
    .bind(draft.price.currency.as_str())
    .bind(draft.price.amount.minor())
    .bind(draft.category.as_str())
    .bind(tags_json(&draft.tags))
    .bind(now())
    .bind(created_by);
    let row = transaction.one(query).await?;
    Ok(row.map(|row| row::product(&row)).transpose()?)
}

async fn absent_or_changed(
    transaction: &mut Transaction,
    id: ProductId,
) -> Result<StoreError, StoreError> {
    let query = Query::new("SELECT 1 FROM products WHERE id = $1").bind(id.to_string());
    let found = transaction.one(query).await?;
    Ok(if found.is_some() { StoreError::Changed } else { StoreError::NotFound(id) })
}

fn products(rows: &[Row]) -> Result<Vec<Product>, StoreError> {
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
