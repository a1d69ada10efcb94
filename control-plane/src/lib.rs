//! The control plane: tells routers what to do, and knows when they have done it.
//!
//! In the order in which configuration flows: `api` takes a write, the store
//! makes it durable, the snapshot is worked out from it, published, and watched by
//! routers, whose answers converge. Beside that are the certificate authority, the
//! registry of routers and instances, Consul as a second source of instances,
//! traces and edges.

mod access;
mod api;
mod app;
mod ca;
mod consul;
mod control;
mod converge;
mod edges;
mod files;
mod front;
mod guard;
pub mod inject;
mod json;
#[cfg(feature = "kubernetes")]
mod kubernetes;
mod metrics;
mod pace;
mod publish;
mod registry;
mod replica;
mod rollout;
mod serve;
mod snapshot;
mod store;
mod text;
mod traces;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use weir_mesh::ready;
use weir_mesh::shutdown::Shutdown;
use weir_mesh::telemetry::log;

pub use access::AccessArgs;
pub use app::{Config, Running, StartError, start};
pub use consul::{ConsulArgs, StoreArgs, StoreKind};

/// Options of `weir control-plane`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Directory of everything that must last: desired state, history, authority.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Address of the API, for gRPC and JSON; port 0 picks a free one.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "IP:PORT")]
    pub api_listen: SocketAddr,
    /// Address that routers connect to, by TLS.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "IP:PORT")]
    pub mesh_listen: SocketAddr,
    /// Address that takes in spans, by OTLP over gRPC in plaintext.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "IP:PORT")]
    pub otlp_listen: SocketAddr,
    /// File with the API's bearer token; made with a random one when absent.
    /// Without this option: `token` in the data directory.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// JSON file with an object of service names and their join tokens. Without
    /// it, no router can join.
    #[arg(long, value_name = "FILE")]
    pub join_tokens: Option<PathBuf>,
    /// SPIFFE trust domain of the mesh.
    #[arg(long, default_value = "weir.local", value_name = "NAME")]
    #[cfg_attr(
        feature = "kubernetes",
        arg(default_value_if(
            "kubernetes",
            clap::builder::ArgPredicate::IsPresent,
            "cluster.local"
        ))
    )]
    pub trust_domain: String,
    /// Life of certificates: 1m to 7d.
    #[arg(long, default_value = "1h", value_name = "DURATION", value_parser = lifetime)]
    pub certificate_lifetime: Duration,
    /// Where to find services beside those that are asked for.
    #[command(flatten)]
    pub consul: ConsulArgs,
    /// Who may use the API, and whether by TLS.
    #[command(flatten)]
    pub access: AccessArgs,
    /// Where the desired state is kept.
    #[command(flatten)]
    pub store: StoreArgs,
    /// File with the secret that signs what rollouts write back, 16 bytes at least: the
    /// header X-Weir-Signature-256 is its HMAC-SHA256 of the body.
    #[arg(long, value_name = "FILE", env = "WEIR_WRITE_BACK_SECRET_FILE")]
    pub write_back_secret: Option<PathBuf>,
    /// File to write what was really bound to, as JSON, once serving.
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// What to log: error, warn, info, debug or trace.
    #[arg(long, default_value = "info", value_name = "LEVEL")]
    pub log_level: String,
    /// On Kubernetes.
    #[cfg(feature = "kubernetes")]
    #[command(flatten)]
    pub kubernetes: kubernetes::Args,
}

/// Verifies the history in the data directory of a control plane that does not run.
/// `hashes` are SHA-256 of entries that somebody kept, in hexadecimal.
///
/// # Errors
/// What to do instead.
pub fn verify_history(
    data: &std::path::Path,
    hashes: &[String],
) -> Result<weir_proto::weir::control::v1::VerifyHistoryResponse, String> {
    let kept = hashes.iter().map(|text| {
        api::hash(text).ok_or_else(|| format!("{text:?} is not 64 hexadecimal digits"))
    });
    let kept = kept.collect::<Result<Vec<_>, _>>()?;
    let verified = store::Embedded::verify_file(&data.join("weir.redb"), &kept);
    verified.map(Into::into).map_err(|error| error.to_string())
}

fn lifetime(text: &str) -> Result<Duration, String> {
    let duration = text::parse_duration(text).map_err(|e| e.to_string())?;
    if ca::LIFETIMES.contains(&duration) {
        Ok(duration)
    } else {
        Err("a certificate lives from 1m to 7d".to_owned())
    }
}

impl Args {
    /// What to start with.
    #[must_use]
    pub fn config(&self) -> Config {
        Config {
            data: self.data.clone(),
            api_listen: self.api_listen,
            write_back_secret: self.write_back_secret.clone(),
            mesh_listen: self.mesh_listen,
            otlp_listen: self.otlp_listen,
            token_file: self.token_file.clone().unwrap_or_else(|| self.data.join("token")),
            join_tokens: self.join_tokens.clone(),
            trust_domain: self.trust_domain.clone(),
            certificate_lifetime: self.certificate_lifetime,
            consul: self.consul.clone(),
            access: self.access.clone(),
            store: self.store.clone(),
        }
    }
}

/// Why `weir control-plane` ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// `--log-level`.
    #[error("--log-level: {0}")]
    Log(#[from] log::LogError),
    /// `--ready-file`; the message names it.
    #[error("--ready-file: {0}")]
    Ready(io::Error),
    /// The runtime or its signals.
    #[error("cannot start: {0}")]
    Runtime(io::Error),
}

/// Runs a control plane until SIGTERM or SIGINT. Blocks.
///
/// # Errors
/// [`RunError`], naming the option or file to look at.
pub fn run(args: Args) -> Result<(), RunError> {
    log::init(&args.log_level)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(RunError::Runtime)?;
    let ended = runtime.block_on(async {
        let shutdown = Shutdown::on_signals().map_err(RunError::Runtime)?;
        #[cfg(feature = "kubernetes")]
        if args.kubernetes.kubernetes {
            return kubernetes::run(&args, shutdown).await;
        }
        let running = start(args.config(), shutdown).await?;
        if let Some(path) = &args.ready_file {
            let bound = serde_json::json!({
                "api": running.api.to_string(),
                "mesh": running.mesh.to_string(),
                "otlp": running.otlp.to_string(),
            });
            ready::write(path, &bound.to_string()).map_err(RunError::Ready)?;
        }
        tracing::info!(api = %running.api, mesh = %running.mesh, otlp = %running.otlp, "serving");
        running.run().await;
        Ok(())
    });
    // What still waits for an API server must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}
