//! What a router is told at its start.

mod pod;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args as ClapArgs, ValueEnum};
use weir_mesh::model::{NameError, Protocol, ServiceName, VersionName};

pub use pod::{PlatformArg, Pod, Ports, Probes, Remote};

/// What this router stands in front of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RoleArg {
    /// Beside one instance of a service.
    Sidecar,
    /// Where requests from outside enter.
    Gateway,
}

/// What the application speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProtocolArg {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 by prior knowledge.
    Http2,
    /// gRPC.
    Grpc,
    /// Opaque TCP.
    Tcp,
}

/// Command line of a router.
#[derive(Debug, Clone, ClapArgs)]
pub struct Args {
    /// What it stands in front of.
    #[arg(long, value_enum, default_value = "sidecar", env = "WEIR_ROLE")]
    pub role: RoleArg,
    /// The service whose identity it takes (`gateway` for the gateway).
    #[arg(long, env = "WEIR_SERVICE")]
    pub service: String,
    /// The version that its application runs.
    #[arg(long, default_value = "v1", env = "WEIR_VERSION")]
    pub version_name: String,
    /// Unique in the mesh; made up when it is not given.
    #[arg(long, env = "WEIR_INSTANCE_ID")]
    pub instance_id: Option<String>,
    /// Where it runs.
    #[arg(long, default_value = "", env = "WEIR_ZONE")]
    pub zone: String,
    /// The control plane's mesh listener; with several replicas, those of all, separated by
    /// commas. Names are looked up at each connection.
    #[arg(long, value_name = "HOST:PORT,...", env = "WEIR_CONTROL_MESH")]
    pub control: Remote,
    /// Roots to trust at the start, PEM.
    #[arg(long, value_name = "FILE", env = "WEIR_TRUST_BUNDLE")]
    pub trust_bundle: PathBuf,
    /// Proof of its service.
    #[arg(long, value_name = "FILE", env = "WEIR_JOIN_TOKEN_FILE")]
    pub join_token_file: PathBuf,
    /// SPIFFE trust domain.
    #[arg(long, default_value = "weir.local", env = "WEIR_TRUST_DOMAIN")]
    pub trust_domain: String,
    /// From other routers (mutual TLS).
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:0")]
    pub inbound_listen: SocketAddr,
    /// From its own application.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:0")]
    pub outbound_listen: SocketAddr,
    /// Probes, metrics and configuration.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:0")]
    pub admin_listen: SocketAddr,
    /// From outside (gateway).
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// For opaque connections. Of a sidecar: from its own application to a service of
    /// this name. Of the gateway: a listener of this name, for TCPRoutes. May be given
    /// many times.
    #[arg(long, value_name = "NAME=IP:PORT")]
    pub tcp_listen: Vec<NamedListen>,
    /// Of the gateway: a listener of this name for TLS that is passed through, for
    /// TLSRoutes. May be given many times.
    #[arg(long, value_name = "NAME=IP:PORT")]
    pub tls_listen: Vec<NamedListen>,
    /// The kernel redirects the application's connections to `--outbound-listen`: each
    /// goes where it was meant to go.
    #[arg(long, env = "WEIR_TRANSPARENT")]
    pub transparent: bool,
    /// Where it runs. In a pod of Kubernetes it needs no `--app`: connections say where
    /// they were meant to go.
    #[arg(long, value_enum, default_value = "local", env = "WEIR_PLATFORM")]
    pub platform: PlatformArg,
    /// Kubernetes: the pod's address.
    #[arg(long, value_name = "IP", env = "WEIR_POD_IP")]
    pub pod_ip: Option<IpAddr>,
    /// Kubernetes: the pod's namespace. Default: that of `--service`.
    #[arg(long, value_name = "NAME", env = "WEIR_NAMESPACE")]
    pub namespace: Option<String>,
    /// Kubernetes: ports of the application whose plaintext nobody looks at.
    #[arg(long, value_name = "PORT,...", default_value = "", env = "WEIR_OPAQUE_PORTS")]
    pub opaque_ports: Ports,
    /// Kubernetes: HTTP probes of the pod. In plaintext they are asked nothing.
    #[arg(long, value_name = "PORT/PATH,...", default_value = "", env = "WEIR_PROBES")]
    pub probes: Probes,
    /// The address that other routers reach `--inbound-listen` by, when it is
    /// not the one that is bound.
    #[arg(long, value_name = "IP")]
    pub advertise: Option<IpAddr>,
    /// The application.
    #[arg(long, value_name = "IP:PORT", env = "WEIR_APP")]
    pub app: Option<SocketAddr>,
    /// What the application speaks.
    #[arg(long, value_enum, default_value = "grpc", env = "WEIR_APP_PROTOCOL")]
    pub app_protocol: ProtocolArg,
    /// Keeps certificate and last good snapshot, so that a router that starts
    /// while the control plane is away can serve.
    #[arg(long, value_name = "DIR", env = "WEIR_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// Where spans go, by OTLP over gRPC.
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,
    /// Threads that carry requests.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub workers: u16,
    /// A file, `-` for standard output, or `off`.
    #[arg(long, value_name = "FILE", default_value = "off", env = "WEIR_ACCESS_LOG")]
    pub access_log: String,
    /// Requests in flight of the whole router; further ones are refused with 503.
    #[arg(long, default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(1..), env = "WEIR_MAX_REQUESTS")]
    pub max_requests: u32,
    /// Memory, such as 64Mi: at nine tenths of it new requests are refused with
    /// 503. Default: the control group's limit, if it has one.
    #[arg(long, value_name = "BYTES", env = "WEIR_MEMORY_LIMIT")]
    pub memory_limit: Option<crate::shed::Bytes>,
    /// How long requests in flight may take after SIGTERM.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub drain_timeout: u64,
    /// How long new connections are accepted after SIGTERM.
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=3600), env = "WEIR_DRAIN_DELAY")]
    pub drain_delay: u64,
    /// Written once the listeners are bound.
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// `error`, `warn`, `info`, `debug` or `trace` (which says more than `debug` only in a debug
    /// build).
    #[arg(long, default_value = "info", env = "WEIR_LOG")]
    pub log_level: String,
}

/// A listener and its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedListen {
    /// A DNS label.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
}

impl std::str::FromStr for NamedListen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, address) = text
            .split_once('=')
            .ok_or_else(|| format!("{text:?} is not NAME=IP:PORT, such as db=127.0.0.1:5432"))?;
        let label: ServiceName = name.parse().map_err(|error| format!("{name:?}: {error}"))?;
        let address = address
            .parse()
            .map_err(|_| format!("{address:?} is not IP:PORT, such as 127.0.0.1:5432"))?;
        Ok(Self { name: label.to_string(), address })
    }
}

/// Why a command line is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not a service's or version's name.
    #[error("--{0}: {1}")]
    Name(&'static str, #[source] NameError),
    /// A sidecar needs one.
    #[error("--app is missing: a sidecar needs the IP:PORT of its application")]
    NoApp,
    /// A sidecar in a pod needs it.
    #[error(
        "--pod-ip is missing: a sidecar on Kubernetes needs its pod's address (WEIR_POD_IP, by \
         the downward API)"
    )]
    NoPodIp,
    /// A router in a pod needs it.
    #[error("--namespace is missing: on Kubernetes a router needs its pod's namespace")]
    NoNamespace,
    /// A sidecar has none.
    #[error("--tls-listen is for the gateway; beside an application use --tcp-listen")]
    TlsListen,
}

/// What stands behind a router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// One instance of a service.
    Sidecar {
        /// The application's address; none in a pod, where connections say where they
        /// were meant to go.
        app: Option<SocketAddr>,
    },
    /// Nothing: requests come from outside.
    Gateway,
}

/// [`Args`], checked.
#[derive(Debug)]
pub struct Config {
    /// What stands behind it.
    pub role: Role,
    /// Whose identity it takes.
    pub service: ServiceName,
    /// What its application runs.
    pub version: VersionName,
    /// Unique in the mesh.
    pub instance_id: Arc<str>,
    /// What the application speaks.
    pub app_protocol: Protocol,
    /// How long requests in flight may take after SIGTERM.
    pub drain_timeout: Duration,
    /// The pod that it runs in; none: it is not on Kubernetes.
    pub pod: Option<Arc<Pod>>,
    /// The rest, as it was given.
    pub args: Args,
}

impl TryFrom<Args> for Config {
    type Error = ConfigError;

    fn try_from(args: Args) -> Result<Self, ConfigError> {
        let service: ServiceName =
            args.service.parse().map_err(|e| ConfigError::Name("service", e))?;
        let version: VersionName =
            args.version_name.parse().map_err(|e| ConfigError::Name("version-name", e))?;
        let pod = pod(&args, &service)?;
        let role = match (args.role, args.app) {
            (RoleArg::Gateway, _) => Role::Gateway,
            (RoleArg::Sidecar, _) if pod.is_some() => Role::Sidecar { app: None },
            (RoleArg::Sidecar, Some(app)) => Role::Sidecar { app: Some(app) },
            (RoleArg::Sidecar, None) => return Err(ConfigError::NoApp),
        };
        if role != Role::Gateway && !args.tls_listen.is_empty() {
            return Err(ConfigError::TlsListen);
        }
        let instance_id = args
            .instance_id
            .clone()
            .unwrap_or_else(|| format!("{service}-{version}-{:08x}", fastrand::u32(..)));
        let app_protocol = match args.app_protocol {
            ProtocolArg::Http1 => Protocol::Http1,
            ProtocolArg::Http2 => Protocol::Http2,
            ProtocolArg::Grpc => Protocol::Grpc,
            ProtocolArg::Tcp => Protocol::Tcp,
        };
        Ok(Self {
            role,
            service,
            version,
            instance_id: instance_id.into(),
            app_protocol,
            drain_timeout: Duration::from_secs(args.drain_timeout),
            pod,
            args,
        })
    }
}

fn pod(args: &Args, service: &ServiceName) -> Result<Option<Arc<Pod>>, ConfigError> {
    if args.platform == PlatformArg::Local {
        return Ok(None);
    }
    if args.role == RoleArg::Sidecar && args.pod_ip.is_none() {
        return Err(ConfigError::NoPodIp);
    }
    let namespace = args.namespace.as_deref().filter(|namespace| !namespace.is_empty());
    let namespace = namespace.or(service.namespace()).ok_or(ConfigError::NoNamespace)?;
    Ok(Some(Arc::new(Pod {
        ip: args.pod_ip.map(|ip| ip.to_canonical()),
        namespace: namespace.into(),
        opaque_ports: args.opaque_ports.clone(),
        probes: args.probes.clone(),
    })))
}

impl Config {
    /// The application's address; unspecified where there is none, and nobody asks.
    #[must_use]
    pub fn app(&self) -> SocketAddr {
        match self.role {
            Role::Sidecar { app: Some(app) } => app,
            Role::Sidecar { app: None } | Role::Gateway => (Ipv4Addr::UNSPECIFIED, 0).into(),
        }
    }
}
