//! This replica among the others: where they are, who leads, and what only the leader
//! does.
//!
//! Losing the lead ends no process. What leads is stopped a second before another may
//! start (`lease.rs`); a write that is under way then is told apart by the history,
//! where each revision can be made once.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use kube::api::ListParams;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use weir_mesh::shutdown::Shutdown;

use super::cluster::{Cluster, ClusterError};
use super::engine::Engine;
use super::lease::Lease;
use super::mirror::{Mirror, is_configuration};
use super::objects::{Kind, Objects};
use super::webhook_tls::WebhookTls;
use super::{status, trust};
use crate::control::Control;
use crate::replica::{Lead, Peer, Replica};

/// Name of the Lease.
const LEASE: &str = "weir-control-plane";
/// Service of the replicas; its endpoints say where they are.
const SERVICE: &str = "weir-control-plane";
/// Name of its port for routers and other replicas.
const PORT: &str = "mesh";
/// After a look at what a new leader must know failed.
const RETRY: Duration = Duration::from_millis(200);

/// What it takes to lead.
pub struct Candidate {
    pub control: Arc<Control>,
    pub engine: Arc<Engine>,
    pub webhook: Option<Arc<WebhookTls>>,
}

/// Leads whenever it is this replica's turn, until a stop is asked for; then the lead
/// is given up at once.
pub async fn keep(candidate: Candidate, shutdown: Shutdown) {
    let replica = candidate.engine.replica.clone();
    let cluster = candidate.engine.cluster.clone();
    let mut lease = Lease::new(cluster.clone(), LEASE, &replica.name);
    let own = watch::Sender::new(false);
    let mut telling = JoinSet::new();
    telling.spawn(tell(candidate.engine.clone(), &own, lease.watch()));
    loop {
        tokio::select! {
            () = shutdown.requested() => return,
            () = lease.acquire() => {}
        }
        // A task of its own: what leads may block for a while.
        let mut keeper = JoinSet::new();
        keeper.spawn(async move {
            lease.keep().await;
            lease
        });
        let ended = tokio::select! {
            ended = keeper.join_next() => ended,
            () = lead(&candidate, &own) => None,
            () = shutdown.requested() => None,
        };
        // Whatever led has been dropped, and with it stopped.
        step_down(&own, &replica);
        match ended {
            Some(Ok(kept)) => {
                tracing::warn!("the lead was lost; serving as one that does not lead");
                lease = kept;
            }
            Some(Err(error)) => {
                tracing::error!(%error, "the lead was lost");
                lease = Lease::new(cluster.clone(), LEASE, &replica.name);
            }
            None => {
                keeper.shutdown().await;
                break;
            }
        }
    }
    Lease::new(cluster, LEASE, &replica.name).release().await;
}

fn step_down(own: &watch::Sender<bool>, replica: &Replica) {
    own.send_replace(false);
    replica.lead.send_if_modified(|lead| {
        let led = *lead == Lead::Own;
        if led {
            *lead = Lead::Nobody;
        }
        led
    });
}

/// Never returns; dropping it stops what leads.
async fn lead(candidate: &Candidate, own: &watch::Sender<bool>) {
    let Candidate { control, engine, webhook } = candidate;
    let mut told = String::new();
    while let Err(error) = catch_up(engine, control).await {
        if error != told {
            tracing::warn!(error, "cannot lead before everything is known; trying again");
            told = error;
        }
        tokio::time::sleep(RETRY).await;
    }
    tracing::info!("leading");
    own.send_replace(true);
    let mut tasks = JoinSet::new();
    tasks.spawn(status::keep(engine.clone()));
    tasks.spawn(trust::keep(engine.clone(), control.clone()));
    if let Some(tls) = webhook {
        tasks.spawn(tls.clone().tell(engine.cluster.clone()));
    }
    std::future::pending().await
}

/// Takes in all that was acknowledged by who led before. A watch may be behind, and a
/// leader that has not seen a change would take the state before it for a new one.
async fn catch_up(engine: &Arc<Engine>, control: &Arc<Control>) -> Result<(), String> {
    // Entries first: what they say was written before them.
    let store = engine.store.clone();
    let read = tokio::task::spawn_blocking(move || store.reread()).await;
    read.map_err(|lost| lost.to_string())?.map_err(|error| error.to_string())?;
    let kinds = Kind::ALL.iter().copied().filter(|kind| is_configuration(*kind));
    let lists = kinds.map(|kind| list(&engine.cluster, &engine.mirror, kind));
    let listed = futures_util::future::join_all(lists).await;
    listed.into_iter().collect::<Result<Vec<()>, _>>().map_err(|error| error.to_string())?;
    // Before anything acts on a step of a rollout that is half written.
    let (engine, control) = (engine.clone(), control.clone());
    let mend = tokio::task::spawn_blocking(move || engine.take_over(&control));
    mend.await.map_err(|lost| lost.to_string())
}

/// What is gone meanwhile is left to the watch: it knows the order of things.
async fn list(cluster: &Cluster, mirror: &Mirror, kind: Kind) -> Result<(), ClusterError> {
    let Some(version) = mirror.version(kind) else { return Ok(()) };
    let api = cluster.objects(kind, &version, "");
    match cluster.call(kind.as_str(), api.list(&ListParams::default())).await {
        Ok(objects) => {
            for object in objects {
                mirror.apply(kind, object);
            }
            Ok(())
        }
        // The kind has just been removed.
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Tells where the others are and who leads. Never returns.
fn tell(
    engine: Arc<Engine>,
    own: &watch::Sender<bool>,
    mut holder: watch::Receiver<String>,
) -> impl Future<Output = ()> + Send + 'static {
    let mut own = own.subscribe();
    async move {
        let replica = &engine.replica;
        let mut objects = engine.mirror.watch();
        loop {
            objects.mark_unchanged();
            let peers =
                engine.mirror.read(|objects| peers(objects, &engine.cluster.namespace, replica));
            let held_by = holder.borrow_and_update().clone();
            let other = peers.iter().find(|peer| *peer.name == *held_by).cloned();
            set(&replica.peers, peers);
            own.mark_unchanged();
            // Looked at under the lock, so that who stops leading has stopped.
            replica.lead.send_if_modified(|lead| {
                let now = match *own.borrow() {
                    true => Lead::Own,
                    false => other.map_or(Lead::Nobody, Lead::Other),
                };
                let changed = *lead != now;
                *lead = now;
                changed
            });
            tokio::select! {
                Ok(()) = objects.changed() => {}
                Ok(()) = own.changed() => {}
                Ok(()) = holder.changed() => {}
                else => return,
            }
        }
    }
}

fn set<T: PartialEq>(sender: &watch::Sender<T>, value: T) {
    sender.send_if_modified(|held| {
        let changed = *held != value;
        *held = value;
        changed
    });
}

/// The other replicas, by name. One that is not ready is there, too: it may lead.
fn peers(objects: &Objects, own: &str, replica: &Replica) -> Vec<Peer> {
    let mut found = BTreeMap::new();
    for (namespace, _, slice) in objects.all(Kind::EndpointSlice) {
        let of = &slice["metadata"]["labels"]["kubernetes.io/service-name"];
        if namespace != own || of != SERVICE {
            continue;
        }
        let port = array(slice, "ports").find(|port| port["name"] == PORT);
        let port = port.and_then(|port| u16::try_from(port["port"].as_u64()?).ok());
        let Some(port) = port else { continue };
        for endpoint in array(slice, "endpoints") {
            let name = endpoint["targetRef"]["name"].as_str().unwrap_or_default();
            let address = endpoint["addresses"][0].as_str().and_then(|ip| ip.parse().ok());
            if let Some(ip) = address.filter(|_| !name.is_empty() && name != &*replica.name) {
                let address = SocketAddr::new(ip, port);
                // Pods with two addresses are in two slices.
                let held = found.entry(name.to_owned()).or_insert(address);
                if let (IpAddr::V6(_), IpAddr::V4(_)) = (held.ip(), ip) {
                    *held = address;
                }
            }
        }
    }
    let peer = |(name, address): (String, SocketAddr)| Peer { name: name.into(), address };
    found.into_iter().map(peer).collect()
}

fn array<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value[field].as_array().into_iter().flatten()
}
