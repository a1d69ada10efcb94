//! Wires a replica: watches from the start, serves when everything is known, leads when
//! it is its turn, stops in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use weir_mesh::identity::SpiffeId;
use weir_mesh::ready;
use weir_mesh::shutdown::Shutdown;

use super::cluster::Cluster;
use super::election::{self, Candidate};
use super::engine::Engine;
use super::identity::{Callers, Tokens};
use super::mirror::Mirror;
use super::secrets;
use super::standby::Door;
use super::webhook::Webhook;
use super::webhook_tls::WebhookTls;
use super::{authority, watches};
use crate::access::Access;
use crate::app::{self, Config, Listeners, Parts, Running, StartError};
use crate::ca::{JoinTokens, OwnCertificate};
use crate::inject::InjectConfig;
use crate::registry::{self, Registry};
use crate::replica::Replica;
use crate::serve::serve;
use crate::store::ClusterStore;
use crate::{Args, RunError, files};

/// Between complaints about what has not been listed.
const COMPLAINT: Duration = Duration::from_secs(10);
/// After the webhook's certificate could not be read.
const RETRY: Duration = Duration::from_secs(2);

/// One replica.
struct Process<'a> {
    args: &'a Args,
    config: Config,
    cluster: Cluster,
    mirror: Arc<Mirror>,
    door: Door,
    tls: Option<Arc<WebhookTls>>,
    webhook_address: SocketAddr,
    shutdown: Shutdown,
}

fn inject_config(own: &super::Args) -> Result<InjectConfig, StartError> {
    let Some(path) = &own.inject_config else { return Ok(InjectConfig::default()) };
    let option =
        |why: String| StartError::Option(format!("--inject-config: {}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| option(error.to_string()))?;
    InjectConfig::parse(&text).map_err(option)
}

/// Runs a replica until it is told to stop.
pub async fn run(args: &Args, shutdown: Shutdown) -> Result<(), RunError> {
    let own = &args.kubernetes;
    if own.pod.is_empty() {
        let why = "--pod: is missing; name this replica's pod, or set POD_NAME";
        return Err(StartError::Option(why.to_owned()).into());
    }
    if args.consul.consul.is_some() {
        let why = "--consul: a control plane on Kubernetes asks no Consul yet; leave it out";
        return Err(StartError::Option(why.to_owned()).into());
    }
    if args.access.api_tls_cert.is_some() {
        let why = "--api-tls-cert: a control plane on Kubernetes serves no TLS at the API yet; \
                   leave it out";
        return Err(StartError::Option(why.to_owned()).into());
    }
    let config = args.config();
    SpiffeId::control_plane(&config.trust_domain).map_err(StartError::from)?;
    files::directory(&config.data).map_err(StartError::from)?;
    let inject = inject_config(own)?;
    let cluster = Cluster::connect(&own.namespace).await.map_err(StartError::from)?;
    let mirror = Arc::new(Mirror::default());
    let mut tasks = JoinSet::new();
    watches::start(&cluster, &mirror, &own.secret_namespaces, &mut tasks);
    let door = Door::new(mirror.clone(), shutdown.clone());
    let api = app::bind("--api-listen", config.api_listen).await?;
    let address = api.local_addr().map_err(StartError::from)?;
    let webhook = app::bind("--webhook-listen", own.webhook_listen).await?;
    // Its own: it answers probes until all else has ended.
    let probes = Shutdown::new();
    let mut front = JoinSet::new();
    front.spawn(serve(api, None, door.clone(), probes.clone()));
    let webhook_address = webhook.local_addr().map_err(StartError::from)?;
    let mut replica =
        Process { args, config, cluster, mirror, door, tls: None, webhook_address, shutdown };
    let tls = tokio::select! {
        () = replica.shutdown.requested() => return Ok(()),
        tls = replica.webhook_tls() => tls?,
    };
    let injector = Webhook::new(replica.mirror.clone(), inject);
    front.spawn(serve(webhook, Some(tls.clone()), injector, probes.clone()));
    tasks.spawn(tls.clone().keep());
    replica.tls = Some(tls);
    let ended = replica.live(address).await;
    probes.request();
    while front.join_next().await.is_some() {}
    tasks.shutdown().await;
    ended
}

impl Process<'_> {
    /// Waits for what there is to know, serves, and hands over.
    async fn live(&self, api: SocketAddr) -> Result<(), RunError> {
        self.tell(&serde_json::json!({
            "api": api.to_string(),
            "webhook": self.webhook_address.to_string(),
        }))?;
        tokio::select! {
            () = self.shutdown.requested() => return Ok(()),
            () = self.listed() => {}
        }
        let (running, mut tasks, candidate) = self.serve().await?;
        self.tell(&serde_json::json!({
            "api": api.to_string(),
            "webhook": self.webhook_address.to_string(),
            "mesh": running.mesh.to_string(),
            "otlp": running.otlp.to_string(),
        }))?;
        tracing::info!(%api, mesh = %running.mesh, otlp = %running.otlp, "serving");
        let mut election = JoinSet::new();
        election.spawn(election::keep(candidate, self.shutdown.clone()));
        running.run().await;
        // The lead was given up when the stop was asked for.
        while election.join_next().await.is_some() {}
        tasks.shutdown().await;
        Ok(())
    }

    /// The webhook's certificate; waits for an API server that does not answer.
    async fn webhook_tls(&self) -> Result<Arc<WebhookTls>, StartError> {
        let own = &self.args.kubernetes;
        let directory = own.webhook_certificate_dir.clone();
        loop {
            let (cluster, domain) = (self.cluster.clone(), own.cluster_domain.clone());
            let directory = directory.clone();
            let open = move || WebhookTls::open(&cluster, &domain, directory.as_deref());
            let opened = tokio::task::spawn_blocking(open).await;
            match opened.map_err(|lost| StartError::Option(lost.to_string()))? {
                Ok(tls) => return Ok(Arc::new(tls)),
                Err(error) => tracing::warn!(error, "no certificate for the webhook; trying again"),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Waits until every kind has been listed: what is not known must not look as if
    /// it were not there.
    async fn listed(&self) {
        let mut changes = self.mirror.watch();
        loop {
            changes.mark_unchanged();
            let missing = self.mirror.missing();
            if missing.is_empty() {
                return;
            }
            tokio::select! {
                _ = changes.changed() => {}
                () = tokio::time::sleep(COMPLAINT) => {
                    let missing: Vec<_> = missing.iter().map(|kind| kind.as_str()).collect();
                    let missing = missing.join(", ");
                    tracing::warn!(missing, "waiting for objects to be listed");
                }
            }
        }
    }

    async fn serve(&self) -> Result<(Running, JoinSet<()>, Candidate), StartError> {
        let own = &self.args.kubernetes;
        let config = &self.config;
        let trust_domain: Arc<str> = config.trust_domain.as_str().into();
        let replica = Arc::new(Replica::among(own.pod.as_str().into(), None));
        // Nobody is served yet, so this may block; it does so on a thread of its own.
        let (store, token, authority) = tokio::task::block_in_place(|| {
            let token = secrets::api_token(&self.cluster)?;
            let authority =
                authority::open(&self.cluster, &trust_domain, config.certificate_lifetime)?;
            // After the authority, whose Secret owns the history.
            let store = ClusterStore::open(self.cluster.clone(), own.history as usize)?;
            Ok::<_, StartError>((Arc::new(store), token, authority))
        })?;
        let settings = own.settings(&trust_domain);
        let (cluster, mirror) = (self.cluster.clone(), self.mirror.clone());
        let engine =
            Arc::new(Engine::new(cluster, mirror, store.clone(), replica.clone(), settings));
        let attest = Tokens::new(
            self.cluster.clone(),
            self.mirror.clone(),
            trust_domain.clone(),
            own.gateways(),
        );
        let (control, sequences) = tokio::task::block_in_place(|| {
            // Whatever is not recorded yet, a leader records.
            let (first, _) = engine.watch_on(0);
            // Before anything acts on it: what is empty would look as if nobody were meshed.
            engine.newest.send_replace(Arc::new(first.clone()));
            let registry = Registry::restore(registry::load(&app::saved(config))?);
            registry.discover(first.instances.clone());
            let parts = Parts {
                trust_domain,
                store: store.clone(),
                desired: first.desired,
                registry,
                authority,
                join_tokens: JoinTokens::open(None)?,
                consul: None,
                attest: Some(Arc::new(attest)),
                resources: Some(engine.clone()),
                replica,
                shutdown: self.shutdown.clone(),
            };
            Ok::<_, StartError>(parts.assemble()?)
        })?;
        let mut control = control;
        control.rollouts.secret = app::write_back_secret(config.write_back_secret.as_deref())?;
        let control = Arc::new(control);
        let id = SpiffeId::control_plane(&config.trust_domain)?;
        let certificate = Arc::new(OwnCertificate::new(&control.authority, id)?);
        let access = Access::open(token, &config.access).map_err(StartError::Option)?;
        let callers = Arc::new(Callers::new(self.cluster.clone()));
        let access = Arc::new(access.with_reviews(callers));
        let front = app::front(&control, access.clone()).await?;
        let listeners = Listeners::bind(config).await?;
        let running = listeners.serve(config, control.clone(), sequences, certificate)?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { store.keep_up().await });
        tasks.spawn(authority::follow(self.cluster.clone(), control.clone()));
        let (own, kept) = (control.clone(), engine.clone());
        tasks.spawn(async move { kept.keep(&own).await });
        tasks.spawn(access.keep());
        let candidate = Candidate { control, engine, webhook: self.tls.clone() };
        self.door.open(front);
        Ok((running, tasks, candidate))
    }

    fn tell(&self, bound: &serde_json::Value) -> Result<(), RunError> {
        match &self.args.ready_file {
            Some(path) => ready::write(path, &bound.to_string()).map_err(RunError::Ready),
            None => Ok(()),
        }
    }
}
