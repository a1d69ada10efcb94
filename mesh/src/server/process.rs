//! A service from its start to its end.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use prost::Message as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::common::Common;
use super::layer::{CallLayer, MAX_CONCURRENT_CALLS};
use super::outbound::{InvalidOutbound, InvalidService, Outbound};
use crate::shutdown::{Drain, Shutdown};
use crate::telemetry::log::{self, LogError};
use crate::telemetry::trace::{Exporter, ExporterHandle, InvalidEndpoint, Resource};

/// Headers of one request, in bytes as HTTP/2 counts them (RFC 9113, 6.5.2).
const MAX_HEADER_LIST: u32 = 128 * 1024;
/// How long the last spans may take on their way out.
const FLUSH: Duration = Duration::from_secs(2);

/// Why a service did not start, or did not stay.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// `--listen` cannot be bound to.
    #[error("cannot listen on {address}: {source}: give another --listen, port 0 picks a free one")]
    Bind {
        /// What was asked for.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// `--outbound` is wrong.
    #[error(transparent)]
    Outbound(#[from] InvalidOutbound),
    /// A service that is to be called has an impossible name.
    #[error(transparent)]
    Service(#[from] InvalidService),
    /// `--otlp-endpoint` is wrong.
    #[error(transparent)]
    Otlp(#[from] InvalidEndpoint),
    /// `--log-level` is wrong.
    #[error(transparent)]
    Log(#[from] LogError),
    /// `--ready-file` cannot be written.
    #[error("cannot write the ready file: {0}")]
    ReadyFile(std::io::Error),
    /// The service's descriptor set cannot be served by reflection.
    #[error("the descriptor set of {service} cannot be read: {message}")]
    Descriptors {
        /// The service's name.
        service: String,
        /// What is wrong with it.
        message: String,
    },
    /// The runtime or its signals.
    #[error("cannot start: {0}")]
    Runtime(#[from] std::io::Error),
    /// The listener failed while serving.
    #[error("serving failed: {0}")]
    Serve(#[from] tonic::transport::Error),
    /// The service's own part of the start failed.
    #[error(transparent)]
    Start(Box<dyn std::error::Error + Send + Sync>),
}

impl ServeError {
    /// Wraps the error of a service's own start.
    pub fn start(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Start(Box::new(error))
    }
}

/// What a service builds itself from.
#[derive(Clone)]
pub struct Setup {
    /// The way to other services.
    pub outbound: Outbound,
    draining: Shutdown,
    background: Drain,
}

impl Setup {
    /// Completes when the process begins to stop: background work ends then.
    pub fn stopping(&self) -> impl Future<Output = ()> + Send + use<> {
        let draining = self.draining.clone();
        async move { draining.requested().await }
    }

    /// Spawns work beside the calls, which [`Running::stop`] waits for: it is
    /// to end soon after [`Setup::stopping`].
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let guard = self.background.guard();
        tokio::spawn(async move {
            work.await;
            drop(guard);
        });
    }
}

/// A service that is being served. Dropping it stops it at once.
pub struct Running {
    address: SocketAddr,
    draining: Shutdown,
    background: Drain,
    drain_timeout: Duration,
    health: Health,
    task: JoinHandle<Result<(), tonic::transport::Error>>,
    exporter: Option<ExporterHandle>,
}

impl Running {
    /// What was really bound to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Completes if serving ends by itself, which only an error makes it do.
    ///
    /// # Errors
    /// [`ServeError::Serve`].
    pub async fn failed(&mut self) -> Result<(), ServeError> {
        match (&mut self.task).await {
            Ok(ended) => Ok(ended?),
            Err(lost) => Err(ServeError::start(lost)),
        }
    }

    /// Stops: health turns NOT_SERVING, connections get GOAWAY, calls in flight
    /// and [background work](Setup::spawn) get `--drain-timeout` to finish, then
    /// what is left is cut.
    ///
    /// # Errors
    /// [`ServeError::Serve`].
    pub async fn stop(mut self) -> Result<(), ServeError> {
        self.health.set(ServingStatus::NotServing).await;
        self.draining.request();
        let end = Instant::now() + self.drain_timeout;
        let ended = tokio::time::timeout_at(end, self.failed()).await;
        let left = self.background.wait(end.saturating_duration_since(Instant::now())).await;
        if left > 0 {
            tracing::warn!(left, "background work did not end in time and is cut");
        }
        if let Some(exporter) = self.exporter.take() {
            exporter.shutdown(FLUSH).await;
        }
        ended.unwrap_or(Ok(()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves a service until SIGTERM or SIGINT: builds the runtime, logs JSON,
/// exports spans, and drains at the end. Blocks.
///
/// # Errors
/// Whatever kept it from starting; see [`ServeError`].
pub fn run<F>(
    common: &Common,
    name: &str,
    descriptor_set: &'static [u8],
    build: F,
) -> Result<(), ServeError>
where
    F: AsyncFnOnce(Setup) -> Result<Routes, ServeError>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    log::init(&common.log_level)?;
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!(%panic, "a part of the service panicked");
    }));
    runtime.block_on(async {
        let asked = Shutdown::on_signals()?;
        let mut running = start(common, name, descriptor_set, build).await?;
        tokio::select! {
            () = asked.requested() => running.stop().await,
            ended = running.failed() => ended,
        }
    })
}

/// Starts serving on the current runtime, which tests do too: the listener is
/// bound, then the service built, then the ready file written.
///
/// # Errors
/// Whatever kept it from starting; see [`ServeError`].
pub async fn start<F>(
    common: &Common,
    name: &str,
    descriptor_set: &'static [u8],
    build: F,
) -> Result<Running, ServeError>
where
    F: AsyncFnOnce(Setup) -> Result<Routes, ServeError>,
{
    let bind = |source| ServeError::Bind { address: common.listen, source };
    let listener = TcpListener::bind(common.listen).await.map_err(bind)?;
    let address = listener.local_addr().map_err(bind)?;
    let instance = format!("{}:{address}", std::process::id());
    let resource = Resource::new(name).version(common.version_name.clone()).instance(instance);
    let (sink, exporter) = Exporter::spawn(common.otlp_endpoint.as_deref(), resource)?;
    let draining = Shutdown::new();
    let outbound = Outbound::new(&common.outbound)?.with_spans(sink.clone());
    let background = Drain::new();
    let setup = Setup { outbound, draining: draining.clone(), background: background.clone() };
    let routes = build(setup).await?;

    let health = Health::new(name, descriptor_set).await?;
    let routes = add_reflection(health.add_to(routes), name, descriptor_set)?;
    let stopping = draining.clone();
    let server = Server::builder()
        .layer(CallLayer::new(sink, draining.clone()))
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(Duration::from_secs(20)))
        .http2_max_header_list_size(MAX_HEADER_LIST)
        .max_concurrent_streams(u32::try_from(MAX_CONCURRENT_CALLS).ok())
        .add_routes(routes.prepare())
        .serve_with_incoming_shutdown(
            tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true)),
            async move {
                stopping.requested().await;
            },
        );
    let task = tokio::spawn(server);
    let drain_timeout = Duration::from_secs(common.drain_timeout);
    let exporter = Some(exporter);
    let running = Running { address, draining, background, drain_timeout, health, task, exporter };
    if let Some(path) = &common.ready_file {
        let object = serde_json::json!({ "listen": address.to_string() });
        crate::ready::write(path, &object.to_string()).map_err(ServeError::ReadyFile)?;
    }
    tracing::info!(service = name, version = common.version_name, %address, "serving");
    Ok(running)
}

/// gRPC health of the process (named "") and of each of its services.
struct Health {
    reporter: HealthReporter,
    services: Vec<String>,
}

impl Health {
    async fn new(name: &str, descriptor_set: &[u8]) -> Result<Self, ServeError> {
        let set = prost_types::FileDescriptorSet::decode(descriptor_set)
            .map_err(|error| unreadable(name, &error))?;
        let services = set.file.iter().flat_map(|file| {
            file.service.iter().map(move |service| format!("{}.{}", file.package(), service.name()))
        });
        let health = Self { reporter: HealthReporter::new(), services: services.collect() };
        health.set(ServingStatus::Serving).await;
        Ok(health)
    }

    async fn set(&self, status: ServingStatus) {
        self.reporter.set_service_status("", status).await;
        for service in &self.services {
            self.reporter.set_service_status(service, status).await;
        }
    }

    fn add_to(&self, routes: Routes) -> Routes {
        let service =
            tonic_health::server::HealthService::from_health_reporter(self.reporter.clone());
        routes.add_service(tonic_health::pb::health_server::HealthServer::new(service))
    }
}

fn add_reflection(
    routes: Routes,
    name: &str,
    descriptor_set: &'static [u8],
) -> Result<Routes, ServeError> {
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(descriptor_set)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|error| unreadable(name, &error))?;
    Ok(routes.add_service(reflection))
}

fn unreadable(service: &str, error: &dyn std::fmt::Display) -> ServeError {
    ServeError::Descriptors { service: service.to_owned(), message: error.to_string() }
}
