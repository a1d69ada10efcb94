//! Wires the parts and spawns everything that lives long: the workers' threads,
//! and on this one the control plane's stream, health checks and the admin page.

use std::fs::DirBuilder;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt as _;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::LocalSet;
use weir_mesh::ready;
use weir_mesh::shutdown::{Drain, Shutdown};
use weir_mesh::telemetry::log;
use weir_mesh::telemetry::trace::{Exporter, InvalidEndpoint, Resource};

use crate::access_log::AccessLog;
use crate::admin::Admin;
use crate::config::{Args, Config, ConfigError, NamedListen, Role};
use crate::connection::Side;
use crate::control::{Addresses, Control};
use crate::identity::Identity;
use crate::metrics::Metrics;
use crate::tcp::{Kind, Listen};
use crate::worker::{Shared, Worker};
use crate::{gateway, health, listener, memory, shed, upstream};

/// For spans to get out at the end.
const FLUSH: Duration = Duration::from_secs(1);

/// Why a router cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The command line.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A listener.
    #[error("{0} {1}")]
    Listen(&'static str, #[source] io::Error),
    /// The collector's address.
    #[error("--otlp-endpoint: {0}")]
    Otlp(#[from] InvalidEndpoint),
    /// Logging.
    #[error("--log-level: {0}")]
    Log(#[from] log::LogError),
    /// Anything of the system.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// One listener's sockets, one for each worker.
struct Bound {
    side: Side,
    /// None: for requests.
    opaque: Option<Arc<Listen>>,
    address: SocketAddr,
    sockets: Vec<TcpListener>,
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot begin.
pub fn run(args: Args) -> Result<(), RunError> {
    // Before anything else: there is one thread, and nothing is loaded later.
    let pages = memory::Pages::at_start();
    log::init(&args.log_level)?;
    let config = Config::try_from(args)?;
    Builder::new_current_thread().enable_all().build()?.block_on(serve(config, pages))
}

async fn serve(config: Config, pages: memory::Pages) -> Result<(), RunError> {
    let shutdown = Shutdown::on_signals()?;
    let bound = bind(&config)?;
    let (admin_socket, admin_address) = bind_admin(&config)?;
    let mut resource = Resource::new(config.service.to_string())
        .instance(config.instance_id.to_string())
        .with("weir.component", "router");
    if config.role != Role::Gateway {
        resource = resource.version(config.version.to_string());
    }
    let (spans, exporter) = Exporter::spawn(config.args.otlp_endpoint.as_deref(), resource)?;
    let metrics = Metrics::new();
    spans.register(metrics.registry());
    let access_log = AccessLog::open(&config.args.access_log, metrics.log_dropped.clone())?;
    let shared = Arc::new(Shared {
        config,
        table: Default::default(),
        shed: Default::default(),
        changed: Default::default(),
        installed: Default::default(),
        identity: Arc::new(Identity::default()),
        metrics,
        spans,
        access_log,
        pages,
    });
    let address_of =
        |side| bound.iter().find(|b| b.side == side && b.opaque.is_none()).map(|b| b.address);
    let advertised = address_of(Side::Inbound).map(|mut address| {
        if let Some(ip) = shared.config.args.advertise {
            address.set_ip(ip);
        }
        address
    });
    let mut admin_at = admin_address;
    if let Some(ip) = shared.config.pod.as_ref().and_then(|pod| pod.ip) {
        admin_at.set_ip(ip);
    }
    let addresses = Addresses { inbound: advertised, admin: Some(admin_at) };
    let mut ready = json!({"admin": admin_address});
    for Bound { side, address, opaque, .. } in &bound {
        let name = match opaque {
            None => side.as_str().to_owned(),
            Some(listen) => format!("tcp/{}", listen.name),
        };
        ready[name] = address.to_string().into();
    }

    let admin = Arc::new(Admin { shared: shared.clone(), draining: AtomicBool::new(false) });
    tokio::spawn(admin.clone().serve(admin_socket));
    tokio::spawn(shed::watch(shared.clone()));
    // In a pod the kubelet asks the application how it is.
    let (healthy, health) = watch::channel(shared.config.pod.is_some());
    if let Role::Sidecar { app: Some(app) } = shared.config.role {
        tokio::spawn(health::check(app, healthy));
    }
    if let Some(dir) = &shared.config.args.state_dir {
        let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", dir.display()));
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(named)?;
    }
    let control = Control::new(shared.clone(), addresses, health);
    let builder = control.restore();
    let control = tokio::spawn(control.run(builder, shutdown.clone()));
    let (first, last) = (Stage::new(), Stage::new());
    let threads = spawn_workers(&shared, bound, &first, &last)?;
    if let Some(path) = &shared.config.args.ready_file {
        ready::write(path, &ready.to_string())?;
    }
    tracing::info!(instance = &*shared.config.instance_id, %ready, "router runs");

    shutdown.requested().await;
    admin.draining.store(true, Relaxed);
    tokio::time::sleep(Duration::from_secs(shared.config.args.drain_delay)).await;
    // First other routers hear that this instance goes, then requests end: what
    // came in may still go out while it is answered.
    let _ = control.await;
    let until = Instant::now() + shared.config.drain_timeout;
    let left = first.close(shared.config.drain_timeout).await;
    let left = left + last.close(until.saturating_duration_since(Instant::now())).await;
    if left > 0 {
        tracing::warn!(left, "connections cut off at the end of the drain");
    }
    drop(threads);
    exporter.shutdown(FLUSH).await;
    Ok(())
}

/// Connections that are closed together.
struct Stage {
    closing: watch::Sender<bool>,
    drain: Drain,
}

impl Stage {
    fn new() -> Self {
        Self { closing: watch::Sender::new(false), drain: Drain::new() }
    }

    /// Stops accepting, tells every connection to finish, and waits for them.
    async fn close(&self, limit: Duration) -> usize {
        self.closing.send_replace(true);
        self.drain.wait(limit).await
    }
}

fn bind(config: &Config) -> Result<Vec<Bound>, RunError> {
    let args = &config.args;
    let wanted = match config.role {
        Role::Gateway => vec![(Side::Gateway, "--listen", args.listen)],
        Role::Sidecar { .. } => vec![
            (Side::Inbound, "--inbound-listen", args.inbound_listen),
            (Side::Outbound, "--outbound-listen", args.outbound_listen),
        ],
    };
    let side = match config.role {
        Role::Gateway => Side::Gateway,
        Role::Sidecar { .. } => Side::Outbound,
    };
    let opaque =
        |kind, flag| move |l: &NamedListen| (side, flag, l.address, Some((kind, l.name.clone())));
    let wanted = wanted.into_iter().map(|(side, flag, address)| (side, flag, address, None));
    wanted
        .chain(args.tcp_listen.iter().map(opaque(Kind::Tcp, "--tcp-listen")))
        .chain(args.tls_listen.iter().map(opaque(Kind::Tls, "--tls-listen")))
        .map(|(side, flag, address, opaque)| {
            let sockets = listener::bind(address, args.workers.into())
                .map_err(|error| RunError::Listen(flag, error))?;
            let address = sockets.first().map_or(Ok(address), TcpListener::local_addr)?;
            let port = address.port();
            let opaque = opaque.map(|(kind, name)| Arc::new(Listen { name, kind, port }));
            Ok(Bound { side, opaque, address, sockets })
        })
        .collect()
}

fn bind_admin(config: &Config) -> Result<(TcpListener, SocketAddr), RunError> {
    let error = |error| RunError::Listen("--admin-listen", error);
    let mut sockets = listener::bind(config.args.admin_listen, 1).map_err(error)?;
    let socket = sockets.pop().ok_or_else(|| error(io::ErrorKind::AddrNotAvailable.into()))?;
    let address = socket.local_addr()?;
    Ok((socket, address))
}

fn spawn_workers(
    shared: &Arc<Shared>,
    bound: Vec<Bound>,
    first: &Stage,
    last: &Stage,
) -> Result<Vec<thread::JoinHandle<()>>, RunError> {
    let count = usize::from(shared.config.args.workers);
    let mut by_worker: Vec<Vec<Listening>> = (0..count).map(|_| Vec::new()).collect();
    for Bound { side, opaque, sockets, .. } in bound {
        let stage = if side == Side::Outbound { last } else { first };
        for (worker, socket) in by_worker.iter_mut().zip(sockets) {
            let (closing, drain) = (stage.closing.subscribe(), stage.drain.clone());
            let opaque = opaque.clone();
            worker.push(Listening { side, opaque, socket, closing, drain });
        }
    }
    let mut threads = Vec::new();
    for (index, listening) in by_worker.into_iter().enumerate() {
        let shared = shared.clone();
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let thread = thread::Builder::new().name(format!("worker-{index}"));
        let checks = index == 0;
        let gateway = (shared.config.role == Role::Gateway)
            .then(|| (first.closing.subscribe(), first.drain.clone()));
        threads.push(thread.spawn(move || work(&runtime, shared, listening, gateway, checks))?);
    }
    Ok(threads)
}

struct Listening {
    side: Side,
    opaque: Option<Arc<Listen>>,
    socket: TcpListener,
    closing: watch::Receiver<bool>,
    drain: Drain,
}

/// `gateway`: it keeps the listeners of Gateways, until then. `checks`: it also asks instances how they are, for all workers.
fn work(
    runtime: &Runtime,
    shared: Arc<Shared>,
    listening: Vec<Listening>,
    gateway: Option<(watch::Receiver<bool>, Drain)>,
    checks: bool,
) {
    let worker = Rc::new(Worker::new(shared));
    LocalSet::new().block_on(runtime, async move {
        let accepting: Vec<_> = listening
            .into_iter()
            .map(|l| {
                let Listening { side, opaque, socket, closing, drain } = l;
                let worker = worker.clone();
                let accept = listener::accept(worker, side, opaque, socket, closing, drain);
                tokio::task::spawn_local(accept)
            })
            .collect();
        if let Some((closing, drain)) = gateway {
            tokio::task::spawn_local(gateway::keep(worker.clone(), closing, drain));
        }
        if checks {
            tokio::task::spawn_local(upstream::checks::run(worker.clone()));
        }
        tokio::task::spawn_local(memory::keep_small(worker));
        for task in accepting {
            if let Ok(Err(error)) = task.await {
                tracing::error!(%error, "listener ended");
            }
        }
        // Connections that drain go on until the process ends.
        std::future::pending::<()>().await;
    });
}
