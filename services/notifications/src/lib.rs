//! The notifications service: an inbox for each user, and a queue of webhooks,
//! both on SQLite or PostgreSQL.
//!
//! `wire` turns requests into the types of [`notification`], `service` makes
//! one call of [`store`], `wire` turns the answer back. Beside it, [`worker`]
//! takes webhooks from the store and sends them.

pub mod notification;
pub mod page;
mod service;
pub mod store;
pub mod webhook;
mod wire;
pub mod worker;

use std::time::Duration;

use tonic::service::Routes;
use weir_mesh::jwt::Verifier;
use weir_mesh::server::{self, Common, Running, ServeError, Setup};
use weir_proto::weir::notifications::v1::notifications_service_server::NotificationsServiceServer;

pub use service::{Behaviour, Notifications};
use store::Store;
use webhook::Secret;
use worker::{Policy, Worker};

const NAME: &str = "notifications";

/// Options of `weir service notifications`.
#[derive(clap::Args, Debug, Clone)]
pub struct Args {
    /// What all services take.
    #[command(flatten)]
    pub common: Common,
    /// Attempts before a webhook is given up.
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub webhook_attempts: u32,
    /// Longest pause after a webhook's first attempt, in seconds; doubles with each.
    #[arg(long, default_value = "1", value_name = "SECONDS", value_parser = seconds)]
    pub webhook_backoff: Duration,
    /// Longest pause between two attempts, in seconds.
    #[arg(long, default_value = "300", value_name = "SECONDS", value_parser = seconds)]
    pub webhook_max_backoff: Duration,
    /// How long one attempt may take, in seconds.
    #[arg(long, default_value = "10", value_name = "SECONDS", value_parser = seconds)]
    pub webhook_timeout: Duration,
    /// Lets webhooks go to loopback, private and other special addresses.
    #[arg(long)]
    pub allow_private_webhooks: bool,
    /// Lets anybody enqueue notifications, not only services of the mesh. For tests.
    #[arg(long)]
    pub insecure_allow_any_peer: bool,
}

/// 0.001 to 86,400 seconds.
fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.001..=86_400.0).contains(&seconds) => {
            Ok(Duration::from_secs_f64(seconds))
        }
        _ => Err("give seconds from 0.001 to 86400, such as 1.5".to_owned()),
    }
}

impl Args {
    /// The defaults, for tests.
    #[must_use]
    pub fn new(common: Common) -> Self {
        let policy = Policy::default();
        Self {
            common,
            webhook_attempts: policy.attempts,
            webhook_backoff: policy.backoff,
            webhook_max_backoff: policy.max_backoff,
            webhook_timeout: policy.timeout,
            allow_private_webhooks: false,
            insecure_allow_any_peer: false,
        }
    }

    fn policy(&self) -> Policy {
        Policy {
            attempts: self.webhook_attempts,
            backoff: self.webhook_backoff,
            max_backoff: self.webhook_max_backoff,
            timeout: self.webhook_timeout,
            private: self.allow_private_webhooks,
            ..Policy::default()
        }
    }
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// See [`ServeError`].
pub fn run(args: Args) -> Result<(), ServeError> {
    server::run(&args.common, NAME, weir_proto::descriptors::NOTIFICATIONS, async |setup| {
        routes(&args, &setup).await
    })
}

/// Serves inside a runtime that is there already.
///
/// # Errors
/// See [`ServeError`].
pub async fn start(args: &Args) -> Result<Running, ServeError> {
    server::start(&args.common, NAME, weir_proto::descriptors::NOTIFICATIONS, async |setup| {
        routes(args, &setup).await
    })
    .await
}

async fn routes(args: &Args, setup: &Setup) -> Result<Routes, ServeError> {
    let store = Store::open(&args.common).await.map_err(ServeError::start)?;
    let secret = match store.directory() {
        Some(data) => Secret::open(data),
        None => Secret::shared(&store).await,
    };
    let worker = Worker::new(store.clone(), secret.map_err(ServeError::start)?, args.policy());
    setup.spawn(worker.clone().run(setup.stopping()));
    let changes = store.changes(setup.stopping());

    let behaviour = Behaviour {
        v2: args.common.is_v2(),
        any_peer: args.insecure_allow_any_peer,
        private_webhooks: args.allow_private_webhooks,
    };
    let verifier = Verifier::mesh(&setup.outbound)?;
    let service = Notifications::new(store, verifier, worker, changes, behaviour);
    Ok(Routes::new(NotificationsServiceServer::new(service)))
}
