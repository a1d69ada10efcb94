//! Row to product.

use weir_mesh::server::database::Row;

use crate::product::{Draft, FieldError, Price, Product, ProductId, Rating, Revision, Tag, Tags};

/// Reads a row of `products`, whole.
pub(super) fn product(row: &Row) -> Result<Product, sqlx::Error> {
    let tags: Vec<String> = serde_json::from_str(&row.get::<String>("tags")?)
        .map_err(|e| sqlx::Error::Decode(Box::new(e)))?;
    let price = Price {
        currency: field(row.get::<String>("currency")?)?,
        amount: row.get::<i64>("amount_minor")?.try_into().map_err(invalid)?,
    };
    let count = u32::try_from(row.get::<i64>("rating_count")?)
        .map_err(|e| sqlx::Error::Decode(Box::new(e)))?;
    Ok(Product {
        id: ProductId::try_from(row.get::<String>("id")?.as_str()).map_err(invalid)?,
        sequence: row.get("sequence")?,
        draft: Draft {
            name: field(row.get::<String>("name")?)?,
            description: field(row.get::<String>("description")?)?,
            sku: field(row.get::<String>("sku")?)?,
            price,
            category: field(row.get::<String>("category")?)?,
            tags: read_tags(tags).map_err(invalid)?,
        },
        revision: Revision(row.get("revision")?),
        create_time: row.get("create_time")?,
        update_time: row.get("update_time")?,
        created_by: row.get("created_by")?,
        rating: match count {
            0 => None,
            count => Some(Rating { sum: row.get("rating_sum")?, count }),
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
