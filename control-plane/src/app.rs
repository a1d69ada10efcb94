//! Wires everything: opens the data directory, binds the listeners, starts the
//! background tasks, and stops them in order.

mod shared;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};
use weir_mesh::identity::{Secret, SpiffeId, SpiffeIdError};
use weir_mesh::shutdown::Shutdown;
use weir_mesh::transcode::{BuildError, Transcoder};
use weir_proto::descriptors;
use weir_proto::otlp::trace_service_server::TraceServiceServer;
use weir_proto::weir::control::v1::control_service_server::ControlServiceServer;
use weir_proto::weir::mesh::v1::identity_service_server::IdentityServiceServer;
use weir_proto::weir::mesh::v1::mesh_service_server::MeshServiceServer;
use weir_proto::weir::mesh::v1::peer_service_server::PeerServiceServer;

use crate::access::{Access, AccessArgs, Refusals};
use crate::api::{Api, Attest, Identity, MAX_MESSAGE, Watch};
use crate::ca::{Authority, CaError, JoinTokens, JoinTokensError, OwnCertificate};
use crate::consul::{Consul, ConsulArgs, ConsulConfigError, Settings, StoreArgs, StoreKind};
use crate::control::{Control, Resources};
use crate::edges::Edges;
use crate::files;
use crate::front::Front;
use crate::guard::Answers;
use crate::metrics::Metrics;
use crate::pace::{Limit, Pace};
use crate::publish::{Publisher, Sequences};
use crate::registry::{self, Registry};
use crate::replica::{self, MeshDoor, Replica, Tell};
use crate::rollout::{self, Rollouts};
use crate::serve::{Grpc, Tls, serve};
use crate::store::{Desired, Embedded, Store, StoreError};
use crate::traces::{Receiver, Traces};

/// Routers that register in one burst are written once.
const SAVE_AFTER: Duration = Duration::from_millis(50);
/// No later than this, however long it takes.
const SAVE_AFTER_MAX: Duration = Duration::from_secs(1);
/// How long Consul may take for its first answers before the mesh starts without.
const FIRST_ANSWERS: Duration = Duration::from_secs(5);

/// What a control plane needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it keeps everything.
    pub data: PathBuf,
    /// API: gRPC and JSON.
    pub api_listen: SocketAddr,
    /// Routers: TLS.
    pub mesh_listen: SocketAddr,
    /// OTLP over gRPC, plaintext.
    pub otlp_listen: SocketAddr,
    /// Signs what rollouts write back.
    pub write_back_secret: Option<PathBuf>,
    /// The API's bearer token; made when absent.
    pub token_file: PathBuf,
    /// JSON object: service -> join token. None: nobody can join.
    pub join_tokens: Option<PathBuf>,
    /// SPIFFE trust domain.
    pub trust_domain: String,
    /// Life of the certificates it signs.
    pub certificate_lifetime: Duration,
    /// Whether and how services are found in Consul.
    pub consul: ConsulArgs,
    /// Who may use the API, and whether by TLS.
    pub access: AccessArgs,
    /// Where the desired state is kept.
    pub store: StoreArgs,
}

/// Why a control plane does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// `--trust-domain`.
    #[error("--trust-domain: {0}")]
    TrustDomain(#[from] SpiffeIdError),
    /// A file or directory; the message names it.
    #[error("{0}")]
    File(#[from] io::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The authority.
    #[error("certificate authority: {0}")]
    Authority(#[from] CaError),
    /// `--join-tokens`.
    #[error("--join-tokens: {0}")]
    JoinTokens(#[from] JoinTokensError),
    /// `--consul...`.
    #[error(transparent)]
    Consul(#[from] ConsulConfigError),
    /// A listener.
    #[error("{option} {address}: cannot listen: {source}; port 0 picks a free one")]
    Bind {
        /// Which option.
        option: &'static str,
        /// What was asked for.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// Kubernetes.
    #[cfg(feature = "kubernetes")]
    #[error(transparent)]
    Cluster(#[from] crate::kubernetes::ClusterError),
    /// An option of `--kubernetes`, or about access.
    #[error("{0}")]
    Option(String),
    /// Built-in descriptors that cannot be used: a mistake in this program.
    #[error("the API's own descriptors: {0}")]
    Transcoder(#[from] BuildError),
    /// Likewise.
    #[error("the API's own descriptors: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// A control plane that serves.
pub struct Running {
    /// Where the API listens.
    pub api: SocketAddr,
    /// Where routers connect to.
    pub mesh: SocketAddr,
    /// Where spans are sent to.
    pub otlp: SocketAddr,
    pub(crate) control: Arc<Control>,
    pub(crate) servers: JoinSet<()>,
    /// Aborted when this is dropped.
    pub(crate) background: JoinSet<()>,
    saved: PathBuf,
}

impl Running {
    /// Stops: routers' streams end, requests in flight finish, and who was there is
    /// written down. Routers go on without it.
    pub async fn stop(mut self) {
        self.control.shutdown.request();
        while self.servers.join_next().await.is_some() {}
        self.background.shutdown().await;
        // Streams that ended just now are expected back: their grace is not over.
        if let Err(error) = registry::save(&self.control.registry, &self.saved) {
            tracing::warn!(%error, "who is there cannot be written down");
        }
    }

    /// Waits until a stop is asked for, by a signal for example, and stops.
    pub async fn run(self) {
        self.control.shutdown.requested().await;
        self.stop().await;
    }
}

/// Starts a control plane on the current runtime. When this returns, it serves.
///
/// # Errors
/// [`StartError`], each naming the option or file to look at.
pub async fn start(config: Config, shutdown: Shutdown) -> Result<Running, StartError> {
    let own_id = SpiffeId::control_plane(&config.trust_domain)?;
    files::directory(&config.data)?;
    let token = files::token(&config.token_file)?;
    let listeners = Listeners::bind(&config).await?;
    if config.store.store == StoreKind::Consul {
        return shared::start(&config, listeners, token, own_id, shutdown).await;
    }
    // Opening reads and checks the whole history; nothing else runs yet, so it may block.
    let parts = open(&config, shutdown)?;
    serve_parts(&config, parts, listeners, token, own_id).await
}

/// Serves what was opened.
pub(crate) async fn serve_parts(
    config: &Config,
    parts: Parts,
    listeners: Listeners,
    token: Secret,
    own_id: SpiffeId,
) -> Result<Running, StartError> {
    let (mut control, sequences) = parts.assemble()?;
    control.rollouts.secret = write_back_secret(config.write_back_secret.as_deref())?;
    let control = Arc::new(control);
    let shutdown = control.shutdown.clone();
    let certificate = Arc::new(OwnCertificate::new(&control.authority, own_id)?);
    let api = bind("--api-listen", config.api_listen).await?;
    let api_address = api.local_addr()?;
    let access = Access::open(token, &config.access).map_err(StartError::Option)?;
    let access = Arc::new(access);
    let front = front(&control, access.clone()).await?;
    let mut running = listeners.serve(config, control.clone(), sequences, certificate)?;
    running.api = api_address;
    if let Some(consul) = &control.consul {
        running.background.spawn(consul.clone().run(control.clone()));
        running.servers.spawn(consul.clone().register(control.clone()));
        // What is asked for next may name what is only there.
        let _ = tokio::time::timeout(FIRST_ANSWERS, consul.settled()).await;
    }
    running.servers.spawn(serve(api, access.tls(), front, shutdown));
    running.background.spawn(access.keep());
    Ok(running)
}

/// Reads the secret that signs what is written back, if there is to be one.
pub(crate) fn write_back_secret(
    file: Option<&Path>,
) -> Result<Option<rollout::Secret>, StartError> {
    let read = file.map(rollout::Secret::read).transpose();
    read.map_err(|error| StartError::Option(format!("--write-back-secret: {error}")))
}

/// What differs between control planes by where they run.
pub(crate) struct Parts {
    pub trust_domain: Arc<str>,
    pub store: Arc<dyn Store>,
    pub desired: Desired,
    pub registry: Registry,
    pub authority: Authority,
    pub join_tokens: JoinTokens,
    pub consul: Option<Arc<Consul>>,
    pub attest: Option<Arc<dyn Attest>>,
    pub resources: Option<Arc<dyn Resources>>,
    pub replica: Arc<Replica>,
    pub shutdown: Shutdown,
}

impl Parts {
    /// Puts them together and makes the first snapshot. Blocks on the store.
    pub(crate) fn assemble(self) -> Result<(Control, Sequences), StoreError> {
        let desired = watch::Sender::new(Arc::new(self.desired));
        let (publisher, sequences) = Publisher::start(
            self.store.clone(),
            self.trust_domain.clone(),
            &desired,
            &self.registry,
            &self.authority,
        )?;
        let control = Control {
            trust_domain: self.trust_domain,
            store: self.store,
            desired,
            replica: self.replica,
            registry: self.registry,
            publisher,
            pace: Pace::default(),
            authority: self.authority,
            join_tokens: self.join_tokens,
            consul: self.consul,
            attest: self.attest,
            resources: self.resources,
            renew: watch::Sender::new(0),
            edges: Edges::default(),
            rollouts: Rollouts::default(),
            traces: Traces::default(),
            refusals: Refusals::default(),
            shutdown: self.shutdown,
            answers: Answers::default(),
            writing: Mutex::new(()),
        };
        Ok((control, sequences))
    }
}

fn open(config: &Config, shutdown: Shutdown) -> Result<Parts, StartError> {
    let store: Arc<dyn Store> = Arc::new(Embedded::open(&config.data.join("weir.redb"))?);
    let trust_domain: Arc<str> = config.trust_domain.as_str().into();
    let consul = Settings::read(&config.consul)?;
    let consul =
        consul.map(|found| Arc::new(Consul::new(found, trust_domain.clone(), &config.data)));
    let mut desired = store.newest()?;
    desired.discover(consul.as_ref().map(|consul| consul.discovered()).unwrap_or_default());
    Ok(Parts {
        desired,
        consul,
        store,
        authority: Authority::open(
            &config.data.join("ca"),
            &trust_domain,
            config.certificate_lifetime,
        )?,
        trust_domain,
        registry: Registry::restore(registry::load(&saved(config))?),
        join_tokens: JoinTokens::open(config.join_tokens.as_deref())?,
        attest: None,
        resources: None,
        replica: Arc::new(Replica::alone()),
        shutdown,
    })
}

/// Where it is written who is there.
pub(crate) fn saved(config: &Config) -> PathBuf {
    config.data.join(registry::SAVED_FILE)
}

/// What routers connect to.
pub(crate) struct Listeners {
    mesh: TcpListener,
    otlp: TcpListener,
}

impl Listeners {
    /// Binds them.
    pub(crate) async fn bind(config: &Config) -> Result<Self, StartError> {
        Ok(Self {
            mesh: bind("--mesh-listen", config.mesh_listen).await?,
            otlp: bind("--otlp-listen", config.otlp_listen).await?,
        })
    }

    /// Where routers and other control planes connect to.
    pub(crate) fn mesh(&self) -> io::Result<SocketAddr> {
        self.mesh.local_addr()
    }

    /// Serves routers, and starts what runs beside. The API is the caller's to serve.
    pub(crate) fn serve(
        self,
        config: &Config,
        control: Arc<Control>,
        sequences: Sequences,
        certificate: Arc<OwnCertificate>,
    ) -> Result<Running, StartError> {
        let (mesh, otlp) = (self.mesh.local_addr()?, self.otlp.local_addr()?);
        let shutdown = control.shutdown.clone();
        let mut servers = JoinSet::new();
        let handshakes = control.pace.handshakes.clone();
        let tls: Arc<dyn Tls> = Arc::new(Paced { certificate: certificate.clone(), handshakes });
        let door = MeshDoor {
            control: control.clone(),
            mesh: mesh_routes(&control),
            api: Routes::new(control_service(&control)).prepare(),
        };
        servers.spawn(serve(self.mesh, Some(tls), door, shutdown.clone()));
        let receiver = TraceServiceServer::new(Receiver(control.clone()));
        let routes = Routes::new(receiver.max_decoding_message_size(MAX_MESSAGE));
        servers.spawn(serve(self.otlp, None, Grpc(routes.prepare()), shutdown));
        let own = control.clone();
        servers.spawn(async move { own.keep_refusals().await });
        let saved = saved(config);
        let background = background(&control, sequences, certificate, saved.clone());
        Ok(Running { api: config.api_listen, mesh, otlp, control, servers, background, saved })
    }
}

/// Routers come all at once when a control plane has been away.
struct Paced {
    certificate: Arc<OwnCertificate>,
    handshakes: Arc<Limit>,
}

impl Tls for Paced {
    fn current(&self) -> Arc<rustls::ServerConfig> {
        self.certificate.current()
    }

    fn handshakes(&self) -> Option<Arc<Limit>> {
        Some(self.handshakes.clone())
    }
}

/// The API's front door.
pub(crate) async fn front(
    control: &Arc<Control>,
    access: Arc<Access>,
) -> Result<Front, StartError> {
    let transcoder = Transcoder::new(descriptors::CONTROL)?;
    let routes = api_routes(control).await?;
    Ok(Front::new(control.clone(), access, routes, transcoder, Metrics::default()))
}

pub(crate) async fn bind(
    option: &'static str,
    address: SocketAddr,
) -> Result<TcpListener, StartError> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|source| StartError::Bind { option, address, source })
}

async fn api_routes(control: &Arc<Control>) -> Result<Routes, StartError> {
    let reporter = HealthReporter::new();
    for service in ["", "weir.control.v1.ControlService"] {
        reporter.set_service_status(service, ServingStatus::Serving).await;
    }
    let health = HealthServer::new(HealthService::from_health_reporter(reporter));
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(descriptors::CONTROL)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let routes = Routes::new(control_service(control))
        .add_service(health)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?);
    Ok(routes.prepare())
}

fn control_service(control: &Arc<Control>) -> ControlServiceServer<Api> {
    ControlServiceServer::new(Api(control.clone()))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(usize::MAX)
}

fn mesh_routes(control: &Arc<Control>) -> Routes {
    Routes::new(IdentityServiceServer::new(Identity(control.clone())))
        .add_service(
            MeshServiceServer::new(Watch(control.clone())).max_encoding_message_size(usize::MAX),
        )
        .add_service(
            PeerServiceServer::new(Tell(control.clone())).max_encoding_message_size(usize::MAX),
        )
        .prepare()
}

fn background(
    control: &Arc<Control>,
    sequences: Sequences,
    certificate: Arc<OwnCertificate>,
    saved: PathBuf,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let own = control.clone();
    tasks.spawn(async move {
        own.publisher.keep(sequences, &own.desired, &own.registry, &own.authority).await;
    });
    let own = control.clone();
    tasks.spawn(async move { own.registry.keep().await });
    tasks.spawn(rollout::keep(control.clone()));
    let own = control.clone();
    tasks.spawn(async move {
        let report = |error: &CaError| {
            tracing::error!(%error, "the control plane's certificate was not renewed");
        };
        certificate.keep(&own.authority, report).await;
    });
    let own = control.clone();
    tasks.spawn(async move { keep_saved(&own, saved).await });
    tasks.spawn(replica::follow(control.clone()));
    let own = control.clone();
    tasks.spawn(async move { own.follow_store().await });
    tasks
}

/// Writes down who is there, a moment after each change.
async fn keep_saved(control: &Arc<Control>, path: PathBuf) {
    let mut members = control.registry.watch_members();
    let mut wait = SAVE_AFTER;
    while members.changed().await.is_ok() {
        tokio::time::sleep(wait).await;
        members.mark_unchanged();
        let began = Instant::now();
        let (own, path) = (control.clone(), path.clone());
        let saved = tokio::task::spawn_blocking(move || registry::save(&own.registry, &path));
        if let Ok(Err(error)) = saved.await {
            tracing::warn!(%error, "who is there cannot be written down");
        }
        // A tenth of the time at most, where many come and go.
        wait = (began.elapsed() * 9).clamp(SAVE_AFTER, SAVE_AFTER_MAX);
    }
}
