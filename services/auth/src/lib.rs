//! The auth service: accounts, access tokens and refresh tokens.
//!
//! `service` turns wire messages into the types of [`account`] and back;
//! `auth` holds the rules; `store` keeps everything in SQLite or PostgreSQL; `welcome` sends
//! what has to reach the notifications service sooner or later.

pub mod account;
mod auth;
pub mod keys;
pub mod password;
mod peers;
mod service;
mod store;
mod token;
mod welcome;

use std::sync::Arc;

use tonic::service::Routes;
use weir_mesh::server::{self, Common, Running, ServeError, Setup};
use weir_proto::descriptors;
use weir_proto::weir::auth::v1::auth_service_server::AuthServiceServer;

use auth::Auth;
use keys::SigningKey;
use password::{Cost, Hasher};
use peers::Peers;
use store::Store;
use token::Issuer;
use welcome::Welcome;

/// Options of `weir service auth`.
#[derive(clap::Args, Debug, Clone)]
pub struct Args {
    #[command(flatten)]
    /// What all services share.
    pub common: Common,
    /// What one password costs to check; not an option, since lowering it
    /// weakens every account.
    #[arg(skip)]
    pub cost: Cost,
}

/// Serves until SIGTERM. Blocks.
///
/// # Errors
/// What kept it from starting, or from going on.
pub fn run(args: Args) -> Result<(), ServeError> {
    server::run(&args.common, "auth", descriptors::AUTH, async |setup| routes(&args, setup).await)
}

/// Serves on the current runtime; for tests.
///
/// # Errors
/// What kept it from starting.
pub async fn start(args: Args) -> Result<Running, ServeError> {
    server::start(&args.common, "auth", descriptors::AUTH, async |setup| routes(&args, setup).await)
        .await
}

async fn routes(args: &Args, setup: Setup) -> Result<Routes, ServeError> {
    let store = Store::open(&args.common).await.map_err(ServeError::start)?;
    let key = match store.directory() {
        Some(data) => SigningKey::load_or_create(data),
        None => SigningKey::shared(&store).await,
    };
    let key = key.map_err(ServeError::start)?;
    let hasher = Hasher::new(args.cost).map_err(ServeError::start)?;
    let peers = Peers::new(&setup.outbound)?;
    let welcome = Welcome::start(store.clone(), peers.clone(), setup.stopping());
    let auth = Auth { store, hasher, issuer: Issuer::new(key), peers, welcome };
    let service = service::Service { auth: Arc::new(auth), with_session: args.common.is_v2() };
    Ok(Routes::new(AuthServiceServer::new(service)))
}
