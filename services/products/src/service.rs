//! The gRPC service: wire in, one call of the store, wire out.

mod streams;

use prost::Message as _;
use tonic::{Code, Request, Response, Status, Streaming};
use weir_mesh::jwt::Verifier;
use weir_mesh::model::Invalid;
use weir_mesh::server::{BadRequest, error_info};
use weir_proto::weir::products::v1 as pb;
use weir_proto::weir::products::v1::products_service_server::ProductsService;

use crate::page::Cursor;
use crate::product::{Draft, ProductId, Revision};
use crate::store::{List, Store, StoreError};
use crate::wire::{self, Etag, Page, Update};

/// Where a page ends even when fewer products are on it than were asked for:
/// most gRPC clients take messages of at most 4 MiB.
const MAX_PAGE_BYTES: usize = 2 * 1024 * 1024;
const DOMAIN: &str = "weir-products";

/// The service. Cheap to clone.
#[derive(Clone)]
pub struct Products {
    store: Store,
    verifier: Verifier,
    /// From version v2 on.
    ratings: bool,
}

impl Products {
    /// A service on `store` that lets users write whose tokens `verifier`
    /// accepts. With `ratings` it behaves as version v2.
    #[must_use]
    pub fn new(store: Store, verifier: Verifier, ratings: bool) -> Self {
        Self { store, verifier, ratings }
    }

    fn product(&self, product: crate::product::Product) -> pb::Product {
        wire::product(product, self.ratings)
    }
}

#[tonic::async_trait]
impl ProductsService for Products {
    async fn create_product(
        &self,
        request: Request<pb::CreateProductRequest>,
    ) -> Result<Response<pb::Product>, Status> {
        let user = self.verifier.user(request.metadata()).await?;
        let draft = Draft::try_from(request.into_inner()).map_err(invalid)?;
        let product = self.store.create(&draft, &user.sub).await.map_err(failed)?;
        Ok(Response::new(self.product(product)))
    }

    async fn get_product(
        &self,
        request: Request<pb::GetProductRequest>,
    ) -> Result<Response<pb::Product>, Status> {
        let id = wire::id(&request.get_ref().product_id, "productId").map_err(invalid)?;
        let product = self.store.get(id).await.map_err(failed)?;
        Ok(Response::new(self.product(product)))
    }

    async fn batch_get_products(
        &self,
        request: Request<pb::BatchGetProductsRequest>,
    ) -> Result<Response<pb::BatchGetProductsResponse>, Status> {
        let ids = wire::ids(&request.get_ref().product_ids).map_err(invalid)?;
        let found = self.store.find(&ids).await.map_err(failed)?;
        let missing: Vec<_> =
            ids.iter().filter(|id| !found.contains_key(id)).map(ProductId::to_string).collect();
        if !missing.is_empty() {
            return Err(not_found(format!("there is no product {}", missing.join(", "))));
        }
        let products =
            ids.iter().filter_map(|id| found.get(id)).map(|p| self.product(p.clone())).collect();
        Ok(Response::new(pb::BatchGetProductsResponse { products }))
    }

    async fn list_products(
        &self,
        request: Request<pb::ListProductsRequest>,
    ) -> Result<Response<pb::ListProductsResponse>, Status> {
        let page = Page::try_from(request.into_inner()).map_err(invalid)?;
        let (filter, order) = (page.filter.as_ref(), page.order);
        // One more than fits tells whether another page follows.
        let list = List { filter, order, after: page.after, limit: page.size + 1 };
        let found = self.store.list(list).await.map_err(failed)?;

        let all = found.len();
        let size = page.size as usize;
        let mut response = pb::ListProductsResponse::default();
        let (mut bytes, mut last) = (0, None);
        for product in found.into_iter().take(size) {
            let cursor = Cursor::after(&product, order.key);
            let product = self.product(product);
            bytes += product.encoded_len();
            if bytes > MAX_PAGE_BYTES && last.is_some() {
                break;
            }
            last = Some(cursor);
            response.products.push(product);
        }
        if response.products.len() < all {
            response.next_page_token = last.map(|at| at.token(filter, order)).unwrap_or_default();
        }
        Ok(Response::new(response))
    }

    async fn update_product(
        &self,
        request: Request<pb::UpdateProductRequest>,
    ) -> Result<Response<pb::Product>, Status> {
        self.verifier.user(request.metadata()).await?;
        let update = Update::try_from(request.into_inner()).map_err(invalid)?;
        if let Some(sku) = update.sku {
            let now = self.store.get(update.id).await.map_err(failed)?.draft.sku;
            if now != sku {
                let violation = format!("never changes: it is {now}");
                return Err(invalid(Invalid::one("product.sku", violation)));
            }
        }
        let expected = revision(update.expected)?;
        let product =
            self.store.update(update.id, expected, &update.patch).await.map_err(failed)?;
        Ok(Response::new(self.product(product)))
    }

    async fn delete_product(
        &self,
        request: Request<pb::DeleteProductRequest>,
    ) -> Result<Response<()>, Status> {
        self.verifier.user(request.metadata()).await?;
        let request = request.into_inner();
        let id = wire::id(&request.product_id, "productId").map_err(invalid)?;
        let expected = revision(wire::etag(&request.etag))?;
        self.store.delete(id, expected).await.map_err(failed)?;
        Ok(Response::new(()))
    }

    async fn rate_product(
        &self,
        request: Request<pb::RateProductRequest>,
    ) -> Result<Response<pb::Product>, Status> {
        if !self.ratings {
            let message = "this version of the service has no ratings: they come with v2";
            return Err(error_info(Code::FailedPrecondition, message, "NO_RATINGS", DOMAIN));
        }
        let user = self.verifier.user(request.metadata()).await?;
        let (id, stars) = wire::rating(request.get_ref()).map_err(invalid)?;
        let product = self.store.rate(id, &user.sub, stars).await.map_err(failed)?;
        Ok(Response::new(self.product(product)))
    }

    type ExportProductsStream = streams::ProductStream;

    async fn export_products(
        &self,
        request: Request<pb::ExportProductsRequest>,
    ) -> Result<Response<Self::ExportProductsStream>, Status> {
        let filter = wire::filter(&request.get_ref().filter)
            .map_err(|error| invalid(Invalid::one("filter", error.to_string())))?;
        Ok(Response::new(self.export(filter)))
    }

    async fn import_products(
        &self,
        request: Request<Streaming<pb::ImportProductsRequest>>,
    ) -> Result<Response<pb::ImportProductsResponse>, Status> {
        let (metadata, _, stream) = request.into_parts();
        let user = self.verifier.user(&metadata).await?;
        Ok(Response::new(self.import(stream, &user.sub).await?))
    }

    type LookupProductsStream = streams::LookupStream;

    async fn lookup_products(
        &self,
        request: Request<Streaming<pb::LookupProductsRequest>>,
    ) -> Result<Response<Self::LookupProductsStream>, Status> {
        Ok(Response::new(self.lookup(request.into_inner())))
    }
}

// A Status is what every tonic method returns; boxing it here saves nothing.
#[allow(clippy::result_large_err)]
fn revision(etag: Option<Etag>) -> Result<Option<Revision>, Status> {
    match etag {
        None => Ok(None),
        Some(Etag::Revision(revision)) => Ok(Some(revision)),
        Some(Etag::Foreign) => Err(failed(StoreError::Changed)),
    }
}

fn invalid(invalid: Invalid) -> Status {
    let mut bad = BadRequest::new();
    for violation in invalid.0 {
        bad.field(violation.field, violation.description);
    }
    bad.into()
}

fn not_found(message: String) -> Status {
    error_info(Code::NotFound, message, "PRODUCT_NOT_FOUND", DOMAIN)
}

fn failed(error: StoreError) -> Status {
    match &error {
        StoreError::NotFound(_) => not_found(error.to_string()),
        StoreError::SkuTaken => {
            error_info(Code::AlreadyExists, error.to_string(), "SKU_TAKEN", DOMAIN)
        }
        StoreError::Changed => {
            let message = format!("{error}: get it again and retry with its new etag");
            error_info(Code::Aborted, message, "ETAG_MISMATCH", DOMAIN)
        }
        StoreError::Busy => Status::unavailable("the catalogue is busy: try again"),
        StoreError::Database(_) => {
            // The caller could do nothing about it; whoever runs the service can.
            tracing::error!(%error, "a call failed");
            Status::internal("the catalogue's database failed; the service's log says why")
        }
    }
}
