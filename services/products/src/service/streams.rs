//! The methods that stream.

use std::pin::Pin;

use futures_util::{Stream, TryStreamExt as _, stream};
use tonic::{Status, Streaming};
use weir_mesh::server::Call;
use weir_proto::weir::products::v1 as pb;

use super::{Products, failed, invalid};
use crate::filter::Filter;
use crate::page::{Cursor, Key, Order};
use crate::product::Draft;
use crate::store::List;
use crate::wire;

pub(super) type ProductStream = Pin<Box<dyn Stream<Item = Result<pb::Product, Status>> + Send>>;
pub(super) type LookupStream =
    Pin<Box<dyn Stream<Item = Result<pb::LookupProductsResponse, Status>> + Send>>;

/// Products read, or written, at once.
const BATCH: u32 = 200;
const MAX_IMPORT: u32 = 100_000;
const MAX_ERRORS: usize = 100;

impl Products {
    /// Reads page by page: a slow reader holds neither memory nor the database.
    pub(super) fn export(&self, filter: Option<Filter>) -> ProductStream {
        let service = self.clone();
        let pages = stream::try_unfold(Some(None), move |after: Option<Option<Cursor>>| {
            let (service, filter) = (service.clone(), filter.clone());
            async move {
                let Some(after) = after else { return Ok::<_, Status>(None) };
                let order = Order { key: Key::Created, descending: false };
                let list = List { filter: filter.as_ref(), order, after, limit: BATCH };
                let found = service.store.list(list).await.map_err(failed)?;
                let next = found
                    .last()
                    .filter(|_| found.len() == BATCH as usize)
                    .map(|last| Some(Cursor::after(last, order.key)));
                let page: Vec<_> = found.into_iter().map(|p| Ok(service.product(p))).collect();
                Ok(Some((stream::iter(page), next)))
            }
        });
        Box::pin(pages.try_flatten())
    }

    /// Writes in batches, so that each write to the disk serves many products.
    pub(super) async fn import(
        &self,
        mut stream: Streaming<pb::ImportProductsRequest>,
        user: &str,
    ) -> Result<pb::ImportProductsResponse, Status> {
        let mut response = pb::ImportProductsResponse::default();
        let mut batch = Vec::new();
        let mut index = 0;
        while let Some(message) = stream.message().await? {
            if index == MAX_IMPORT {
                self.write(&mut batch, user, &mut response).await?;
                return Err(Status::resource_exhausted(format!(
                    "at most {MAX_IMPORT} products in one stream: they are in, send the rest in another"
                )));
            }
            let draft = match message.product {
                Some(product) => Draft::try_from(product).map_err(|invalid| invalid.to_string()),
                None => Err("product: is required".to_owned()),
            };
            match draft {
                Ok(draft) => batch.push(draft),
                Err(description) => {
                    response.failed += 1;
                    if response.errors.len() < MAX_ERRORS {
                        response.errors.push(pb::ImportError { index, description });
                    }
                }
            }
            index += 1;
            if batch.len() == BATCH as usize {
                self.write(&mut batch, user, &mut response).await?;
            }
        }
        self.write(&mut batch, user, &mut response).await?;
        Ok(response)
    }

    async fn write(
        &self,
        batch: &mut Vec<Draft>,
        user: &str,
        response: &mut pb::ImportProductsResponse,
    ) -> Result<(), Status> {
        if batch.is_empty() {
            return Ok(());
        }
        for new in self.store.import(batch, user).await.map_err(failed)? {
            if new {
                response.created += 1;
            } else {
                response.skipped += 1;
            }
        }
        batch.clear();
        Ok(())
    }

    /// Answers one by one, so that the order stays and only one is in memory.
    pub(super) fn lookup(&self, requests: Streaming<pb::LookupProductsRequest>) -> LookupStream {
        // A client may keep the stream open for ever; the process may not.
        let call = Call::current();
        let draining = Box::pin(async move {
            match call {
                Some(call) => call.draining().await,
                None => std::future::pending().await,
            }
        });
        let state = (self.clone(), requests, draining);
        Box::pin(stream::try_unfold(state, |(service, mut requests, mut draining)| async move {
            let request = tokio::select! {
                biased;
                () = &mut draining => {
                    return Err(Status::unavailable("the instance is stopping: open the stream again"));
                }
                request = requests.message() => request?,
            };
            let Some(pb::LookupProductsRequest { product_id }) = request else { return Ok(None) };
            let id = wire::id(&product_id, "productId").map_err(invalid)?;
            let mut found = service.store.find(&[id]).await.map_err(failed)?;
            let product = found.remove(&id).map(|product| service.product(product));
            let answer = pb::LookupProductsResponse { product_id, product };
            Ok(Some((answer, (service, requests, draining))))
        }))
    }
}
