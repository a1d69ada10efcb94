//! The users service: a profile and preferences for each account.
//!
//! `service` turns wire messages into the types of [`profile`] and back;
//! `store` keeps them in SQLite or PostgreSQL.

mod avatar;
pub mod profile;
mod service;
mod store;

use tonic::service::Routes;
use weir_mesh::identity::SpiffeId;
use weir_mesh::jwt::Verifier;
use weir_mesh::server::{self, Common, Running, ServeError, Setup};
use weir_proto::descriptors;
use weir_proto::weir::users::v1::users_service_server::UsersServiceServer;

use service::{Creators, Users};
use store::Store;

/// Options of `weir service users`.
#[derive(clap::Args, Debug, Clone)]
pub struct Args {
    #[command(flatten)]
    /// What all services share.
    pub common: Common,
    /// Let any peer create users, even one without an identity. For tests
    /// without a router in front.
    #[arg(long)]
    pub insecure_allow_any_peer: bool,
}

/// Serves until SIGTERM. Blocks.
///
/// # Errors
/// What kept it from starting, or from going on.
pub fn run(args: Args) -> Result<(), ServeError> {
    server::run(&args.common, "users", descriptors::USERS, async |setup| routes(&args, setup).await)
}

/// Serves on the current runtime; for tests.
///
/// # Errors
/// What kept it from starting.
pub async fn start(args: Args) -> Result<Running, ServeError> {
    server::start(&args.common, "users", descriptors::USERS, async |setup| {
        routes(&args, setup).await
    })
    .await
}

async fn routes(args: &Args, setup: Setup) -> Result<Routes, ServeError> {
    let store = Store::open(&args.common).await.map_err(ServeError::start)?;
    let creators = if args.insecure_allow_any_peer {
        Creators::Anyone
    } else {
        let common = &args.common;
        let auth = SpiffeId::new(&common.trust_domain, &common.namespace, "auth");
        Creators::Only(auth.map_err(ServeError::start)?)
    };
    let changes = store.changes(setup.stopping());
    let verifier = Verifier::mesh(&setup.outbound)?;
    let users = Users::new(store, verifier, creators, changes, args.common.is_v2());
    Ok(Routes::new(UsersServiceServer::new(users)))
}
