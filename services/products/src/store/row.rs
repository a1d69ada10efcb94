//! Row to product.

use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use crate::product::{Draft, FieldError, Price, Product, ProductId, Rating, Revision, Tag, Tags};

/// Reads a row of `products`, whole.
pub(super) fn product(row: &SqliteRow) -> Result<Product, sqlx::Error> {
    let tags: Vec<String> =
        serde_json::from_str(row.try_get("tags")?).map_err(|e| sqlx::Error::Decode(Box::new(e)))?;
    let price = Price {
        currency: field(row.try_get::<String, _>("currency")?)?,
        amount: row.try_get::<i64, _>("amount_minor")?.try_into().map_err(invalid)?,
    };
    let count: u32 = row.try_get("rating_count")?;
    Ok(Product {
        id: ProductId::try_from(row.try_get::<&str, _>("id")?).map_err(invalid)?,
        sequence: row.try_get("sequence")?,
        draft: Draft {
            name: field(row.try_get::<String, _>("name")?)?,
            description: field(row.try_get::<String, _>("description")?)?,
            sku: field(row.try_get::<String, _>("sku")?)?,
            price,
            category: field(row.try_get::<String, _>("category")?)?,
            tags: read_tags(tags).map_err(invalid)?,
        },
        revision: Revision(row.try_get("revision")?),
        create_time: row.try_get("create_time")?,
        update_time: row.try_get("update_time")?,
        created_by: row.try_get("created_by")?,
        rating: match count {
            0 => None,
            count => Some(Rating { sum: row.try_get("rating_sum")?, count }),
        },
    })
}

fn read_tags(tags: Vec<String>) -> Result<Tags, FieldError> {
    tags.into_iter().map(Tag::try_from).collect::<Result<Vec<_>, _>>()?.try_into()
}

fn field<T: TryFrom<String, Error = FieldError>>(text: String) -> Result<T, sqlx::Error> {
    T::try_from(text).map_err(invalid)
}

/// Somebody else wrote it: nothing that this service stores fails here.
fn invalid(error: FieldError) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(error))
}
