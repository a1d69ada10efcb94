//! The products service: a catalogue on SQLite or PostgreSQL.
//!
//! `wire` turns requests into the types of [`product`], [`filter`] and
//! [`page`], `service` makes one call of [`store`], `wire` turns the answer
//! back.

pub mod filter;
pub mod page;
pub mod product;
pub mod seed;
mod service;
pub mod store;
mod wire;

use tonic::service::Routes;
use weir_mesh::jwt::Verifier;
use weir_mesh::server::{self, Common, Running, ServeError, Setup};
use weir_proto::weir::products::v1::products_service_server::ProductsServiceServer;

pub use service::Products;
use store::Store;

const NAME: &str = "products";

/// Options of `weir service products`.
#[derive(clap::Args, Debug, Clone)]
pub struct Args {
    /// What all services take.
    #[command(flatten)]
    pub common: Common,
    /// Puts a dozen products into a catalogue that is new.
    #[arg(long)]
    pub seed: bool,
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// See [`ServeError`].
pub fn run(args: Args) -> Result<(), ServeError> {
    server::run(&args.common, NAME, weir_proto::descriptors::PRODUCTS, async |setup| {
        routes(&args, &setup).await
    })
}

/// Serves inside a runtime that is there already.
///
/// # Errors
/// See [`ServeError`].
pub async fn start(args: &Args) -> Result<Running, ServeError> {
    server::start(&args.common, NAME, weir_proto::descriptors::PRODUCTS, async |setup| {
        routes(args, &setup).await
    })
    .await
}

async fn routes(args: &Args, setup: &Setup) -> Result<Routes, ServeError> {
    let store = Store::open(&args.common).await.map_err(ServeError::start)?;
    if args.seed {
        let drafts = seed::drafts().map_err(ServeError::start)?;
        store.seed(&drafts, seed::CREATED_BY).await.map_err(ServeError::start)?;
    }
    let verifier = Verifier::mesh(&setup.outbound)?;
    let products = Products::new(store, verifier, args.common.is_v2());
    Ok(Routes::new(ProductsServiceServer::new(products)))
}
