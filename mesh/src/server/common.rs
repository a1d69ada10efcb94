//! What every service is told on its command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::database_url::DatabaseUrl;
use crate::identity::SpiffeId;

/// Options that all services share; flatten it into a service's own `Args`.
#[derive(clap::Args, Debug, Clone)]
pub struct Common {
    /// Address to serve gRPC on; port 0 picks a free one.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "IP:PORT")]
    pub listen: SocketAddr,
    /// Directory of the service's data. Its versions and instances share one.
    /// Not needed with --database-url, where nothing is kept in files.
    #[arg(long, value_name = "DIR", required_unless_present = "database_url")]
    pub data: Option<PathBuf>,
    /// PostgreSQL instead of SQLite: postgres://USER:PASSWORD@HOST:PORT/DATABASE.
    /// Better by the environment: others may see a command line.
    #[arg(long, env = "WEIR_DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub database_url: Option<DatabaseUrl>,
    /// Version that this process serves as.
    #[arg(long, default_value = "v1", value_name = "VERSION")]
    pub version_name: String,
    /// Outbound listener of this service's router: the way to other services. Where
    /// connections are redirected to it: their address, with `{service}` for the name.
    #[arg(
        long,
        env = "WEIR_OUTBOUND",
        default_value = "http://127.0.0.1:15001",
        value_name = "URL"
    )]
    pub outbound: String,
    /// Where to export spans to by OTLP over gRPC; without it none are exported.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// Trust domain of the mesh: peers' SPIFFE ids must be in it.
    #[arg(long, default_value = "weir.local", value_name = "NAME")]
    pub trust_domain: String,
    /// Namespace that this service and its peers run in, as their SPIFFE ids have it.
    #[arg(long, default_value = SpiffeId::DEFAULT_NAMESPACE, value_name = "NAME")]
    pub namespace: String,
    /// File to write what was really bound to, as JSON, once serving.
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// What to log: error, warn, info, debug or trace.
    #[arg(long, default_value = "info", value_name = "LEVEL")]
    pub log_level: String,
    /// Seconds that requests in flight get to finish in after SIGTERM.
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    pub drain_timeout: u64,
}

impl Common {
    /// Options for tests: any free port of loopback, data in `data`.
    #[must_use]
    pub fn for_tests(data: impl Into<PathBuf>, version_name: &str, outbound: &str) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            data: Some(data.into()),
            database_url: None,
            version_name: version_name.to_owned(),
            outbound: outbound.to_owned(),
            otlp_endpoint: None,
            trust_domain: "weir.local".to_owned(),
            namespace: SpiffeId::DEFAULT_NAMESPACE.to_owned(),
            ready_file: None,
            log_level: "warn".to_owned(),
            drain_timeout: 1,
        }
    }

    /// Whether this process is to behave as the second version or a later one.
    ///
    /// `v2`, `v10` and `v2-canary` are; `v1`, `stable` and `blue` are not.
    #[must_use]
    pub fn is_v2(&self) -> bool {
        let Some(rest) = self.version_name.strip_prefix('v') else { return false };
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..end].parse::<u64>().is_ok_and(|major| major >= 2)
    }
}
