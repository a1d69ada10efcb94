//! Wire to domain, and back. Nothing of protobuf goes further in than here.

use prost_types::Timestamp;
use weir_mesh::model::{Invalid, Violations};
use weir_proto::weir::products::v1 as pb;

use crate::filter::{Filter, FilterError};
use crate::page::{Cursor, Order, PageError, page_size};
use crate::product::{
    Draft, FieldError, Patch, Price, Product, ProductId, Revision, Sku, Stars, Tag, Tags,
};

/// Most ids of one batch.
pub const MAX_BATCH: usize = 100;

/// Fields that an update mask may name.
const MUTABLE: [&str; 5] = ["name", "description", "price", "category", "tags"];

impl TryFrom<pb::CreateProductRequest> for Draft {
    type Error = Invalid;

    fn try_from(wire: pb::CreateProductRequest) -> Result<Self, Invalid> {
        let mut bad = Violations::new();
        let name = bad.take("name", wire.name.try_into());
        let description = bad.take("description", wire.description.try_into());
        let sku = bad.take("sku", wire.sku.try_into());
        let price = price(wire.price, "price", &mut bad);
        let category = bad.take("category", wire.category.try_into());
        let tags = tags(wire.tags, "tags", &mut bad);
        let draft = (|| {
            Some(Self {
                name: name?,
                description: description?,
                sku: sku?,
                price: price?,
                category: category?,
                tags: tags?,
            })
        })();
        bad.finish(draft)
    }
}

fn price(wire: Option<pb::Price>, path: &str, bad: &mut Violations) -> Option<Price> {
    let Some(wire) = wire else {
        bad.add(path, FieldError::Required);
        return None;
    };
    let currency = bad.take(&format!("{path}.currencyCode"), wire.currency_code.try_into());
    let amount = bad.take(&format!("{path}.amountMinor"), wire.amount_minor.try_into());
    Some(Price { currency: currency?, amount: amount? })
}

fn tags(wire: Vec<String>, path: &str, bad: &mut Violations) -> Option<Tags> {
    if wire.len() > crate::product::MAX_TAGS {
        bad.add(path, FieldError::TooMany(wire.len()));
        return None;
    }
    let all = wire.len();
    let tags: Vec<Tag> = wire
        .into_iter()
        .enumerate()
        .filter_map(|(i, tag)| bad.take(&format!("{path}[{i}]"), tag.try_into()))
        .collect();
    if tags.len() < all {
        return None;
    }
    bad.take(path, tags.try_into())
}

/// Reads a product's id.
pub(crate) fn id(text: &str, path: &str) -> Result<ProductId, Invalid> {
    text.try_into().map_err(|error: FieldError| Invalid::one(path, error.to_string()))
}

/// Reads the ids of a batch.
pub(crate) fn ids(wire: &[String]) -> Result<Vec<ProductId>, Invalid> {
    let mut bad = Violations::new();
    if wire.is_empty() {
        bad.add("productIds", FieldError::Required);
    } else if wire.len() > MAX_BATCH {
        bad.add("productIds", format!("has {} items; at most {MAX_BATCH} are allowed", wire.len()));
        return bad.finish(None);
    }
    let ids = wire
        .iter()
        .enumerate()
        .filter_map(|(i, id)| bad.take(&format!("productIds[{i}]"), id.as_str().try_into()))
        .collect();
    bad.finish(Some(ids))
}

/// A change of one product.
pub(crate) struct Update {
    pub(crate) id: ProductId,
    pub(crate) expected: Option<Etag>,
    pub(crate) patch: Patch,
    /// As the caller believes it to be.
    pub(crate) sku: Option<Sku>,
}

/// An etag that a caller gave.
pub(crate) enum Etag {
    Revision(Revision),
    /// Not one of ours, so never the newest.
    Foreign,
}

/// Reads an etag; empty is none.
pub(crate) fn etag(text: &str) -> Option<Etag> {
    if text.is_empty() {
        return None;
    }
    Some(Revision::from_etag(text).map_or(Etag::Foreign, Etag::Revision))
}

impl TryFrom<pb::UpdateProductRequest> for Update {
    type Error = Invalid;

    fn try_from(wire: pb::UpdateProductRequest) -> Result<Self, Invalid> {
        let product = wire.product.ok_or_else(|| Invalid::one("product", "is required"))?;
        let mut bad = Violations::new();
        let id = bad.take("product.productId", product.product_id.as_str().try_into());
        let named = mask(wire.update_mask.unwrap_or_default().paths, &product, &mut bad);
        let names = |field| named.contains(&field);

        let mut patch = Patch::default();
        if names("name") {
            patch.name = bad.take("product.name", product.name.try_into());
        }
        if names("description") {
            patch.description = bad.take("product.description", product.description.try_into());
        }
        if names("price") {
            patch.price = price(product.price, "product.price", &mut bad);
        }
        if names("category") {
            patch.category = bad.take("product.category", product.category.try_into());
        }
        if names("tags") {
            patch.tags = tags(product.tags, "product.tags", &mut bad);
        }
        let sku = match product.sku {
            sku if sku.is_empty() => None,
            sku => bad.take("product.sku", sku.try_into()),
        };
        let expected = etag(&product.etag);
        bad.finish(id.map(|id| Self { id, expected, patch, sku }))
    }
}

/// The fields to change (AIP-134): those named, all by `*`, or, when none is
/// named, those that are set.
fn mask(paths: Vec<String>, product: &pb::Product, bad: &mut Violations) -> Vec<&'static str> {
    if paths.is_empty() {
        let set = [
            !product.name.is_empty(),
            !product.description.is_empty(),
            product.price.is_some(),
            !product.category.is_empty(),
            !product.tags.is_empty(),
        ];
        let named: Vec<_> =
            MUTABLE.into_iter().zip(set).filter_map(|(field, set)| set.then_some(field)).collect();
        if named.is_empty() {
            bad.add("updateMask", "nothing is to change: set a field of product, or name one here");
        }
        return named;
    }
    let mut named = Vec::new();
    for path in paths {
        if path == "*" {
            return MUTABLE.into();
        }
        match MUTABLE.into_iter().find(|field| *field == path) {
            Some(field) => named.push(field),
            None => {
                let path: String = path.chars().take(80).collect();
                let can = MUTABLE.join(", ");
                bad.add("updateMask", format!("{path:?} cannot be updated; use {can} or *"));
            }
        }
    }
    named
}

/// One page that is asked for.
pub(crate) struct Page {
    pub(crate) filter: Option<Filter>,
    pub(crate) order: Order,
    pub(crate) after: Option<Cursor>,
    pub(crate) size: u32,
}

/// Reads a filter; empty is none.
pub(crate) fn filter(text: &str) -> Result<Option<Filter>, FilterError> {
    if text.trim().is_empty() { Ok(None) } else { text.parse().map(Some) }
}

impl TryFrom<pb::ListProductsRequest> for Page {
    type Error = Invalid;

    fn try_from(wire: pb::ListProductsRequest) -> Result<Self, Invalid> {
        let mut bad = Violations::new();
        let size = bad.take("pageSize", page_size(wire.page_size));
        let filter = bad.take("filter", filter(&wire.filter));
        let order: Option<Order> = bad.take("orderBy", wire.order_by.parse::<Order>());
        let page = (|| {
            let (filter, order) = (filter?, order?);
            let after = match wire.page_token.as_str() {
                "" => None,
                token => {
                    let read: Result<_, PageError> = Cursor::read(token, filter.as_ref(), order);
                    Some(bad.take("pageToken", read)?)
                }
            };
            Some(Self { filter, order, after, size: size? })
        })();
        bad.finish(page)
    }
}

/// Reads a rating.
pub(crate) fn rating(wire: &pb::RateProductRequest) -> Result<(ProductId, Stars), Invalid> {
    let mut bad = Violations::new();
    let id = bad.take("productId", wire.product_id.as_str().try_into());
    let stars = bad.take("stars", wire.stars.try_into());
    bad.finish(id.zip(stars))
}

/// A product as clients see it; `ratings` as the version has them or not.
pub(crate) fn product(product: Product, ratings: bool) -> pb::Product {
    let Product { id, draft, revision, create_time, update_time, created_by, rating, .. } = product;
    pb::Product {
        product_id: id.to_string(),
        name: draft.name.to_string(),
        description: draft.description.to_string(),
        sku: draft.sku.to_string(),
        price: Some(pb::Price {
            currency_code: draft.price.currency.to_string(),
            amount_minor: draft.price.amount.minor(),
        }),
        category: draft.category.to_string(),
        tags: draft.tags.as_slice().iter().map(Tag::to_string).collect(),
        etag: revision.etag(),
        create_time: Some(timestamp(create_time)),
        update_time: Some(timestamp(update_time)),
        created_by,
        rating: rating
            .filter(|_| ratings)
            .map(|rating| pb::Rating { average: rating.average(), count: rating.count }),
    }
}

fn timestamp(micros: i64) -> Timestamp {
    let nanos = i32::try_from(micros.rem_euclid(1_000_000) * 1000).unwrap_or(0);
    Timestamp { seconds: micros.div_euclid(1_000_000), nanos }
}
