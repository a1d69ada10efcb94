//! The roots to trust, in every namespace whose pods may have routers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use kube::runtime::watcher::{self, Event, watcher};
use serde_json::{Value, json};
use tokio::sync::watch;
use weir_mesh::identity::TrustBundle;

use super::cluster::{Cluster, FIELD_MANAGER, chain};
use super::engine::Engine;
use crate::control::Control;

const NAME: &str = "weir-trust-bundle";
const KEY: &str = "ca.pem";
/// The control plane's own, which the chart makes.
const ROLE: &str = "weir-control-plane";
/// Label of those that the control plane made, and may delete.
const OURS: &str = "weir.dev/trust";
/// After a write or a watch failed.
const RETRY: Duration = Duration::from_secs(2);

/// The ConfigMaps that are there: by namespace, the roots in it, and whether it is ours.
#[derive(Default)]
struct Held {
    maps: Mutex<BTreeMap<String, (Option<String>, bool)>>,
    /// Counts changes; 0 before all of them are known.
    changes: watch::Sender<u64>,
}

/// Keeps the ConfigMaps as they should be. Never returns.
pub async fn keep(engine: Arc<Engine>, control: Arc<Control>) {
    let held = Held::default();
    tokio::join!(follow(&engine.cluster, &held), repair(&engine, &control, &held));
}

async fn follow(cluster: &Cluster, held: &Held) {
    let api: Api<ConfigMap> = Api::all(cluster.client.clone());
    let config = watcher::Config::default().fields(&format!("metadata.name={NAME}"));
    let mut events = watcher(api, config).boxed();
    let mut listing = BTreeMap::new();
    let entry = |map: ConfigMap| {
        let labels = map.metadata.labels.unwrap_or_default();
        let ours = labels.contains_key(OURS);
        let pem = map.data.and_then(|mut data| data.remove(KEY));
        (map.metadata.namespace.unwrap_or_default(), (pem, ours))
    };
    while let Some(event) = events.next().await {
        let broken = {
            let mut broken = None;
            let mut maps = held.maps.lock().unwrap_or_else(PoisonError::into_inner);
            match event {
                Ok(Event::Init) => listing = BTreeMap::new(),
                Ok(Event::InitApply(map)) => listing.extend([entry(map)]),
                Ok(Event::InitDone) => *maps = std::mem::take(&mut listing),
                Ok(Event::Apply(map)) => maps.extend([entry(map)]),
                Ok(Event::Delete(map)) => drop(maps.remove(&entry(map).0)),
                Err(error) => broken = Some(chain(&error)),
            }
            broken
        };
        match broken {
            None if listing.is_empty() => held.changes.send_modify(|count| *count += 1),
            None => {}
            Some(error) => {
                tracing::warn!(error, "the watch of ConfigMaps {NAME} broke; trying again");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn repair(engine: &Engine, control: &Control, held: &Held) {
    let mut newest = engine.newest.subscribe();
    let mut bundle = control.authority.watch_bundle();
    let mut changes = held.changes.subscribe();
    loop {
        newest.mark_unchanged();
        bundle.mark_unchanged();
        changes.mark_unchanged();
        let mut meshed: BTreeSet<String> = newest.borrow().meshed.clone();
        meshed.insert(engine.cluster.namespace.to_string());
        let done = match TrustBundle::from_der(&*control.authority.bundle()) {
            Ok(roots) => round(&engine.cluster, held, &meshed, &roots.to_pem()).await,
            Err(error) => {
                tracing::error!(%error, "the roots cannot be written as PEM");
                false
            }
        };
        tokio::select! {
            _ = newest.changed() => {}
            _ = bundle.changed() => {}
            _ = changes.changed() => {}
            () = tokio::time::sleep(RETRY), if !done => {}
        }
    }
}

/// False: something failed, and is worth trying again.
async fn round(cluster: &Cluster, held: &Held, meshed: &BTreeSet<String>, pem: &str) -> bool {
    let there = held.maps.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut done = true;
    let right = |namespace: &&String| {
        there.get(*namespace).is_some_and(|(held, _)| held.as_deref() == Some(pem))
    };
    let wrong: Vec<_> = meshed.iter().filter(|namespace| !right(namespace)).collect();
    let owner = if wrong.is_empty() { None } else { owner(cluster).await };
    for namespace in wrong {
        let what = format!("ConfigMap {namespace}/{NAME}");
        let api: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), namespace);
        let mut map = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": { "name": NAME, "labels": { OURS: "true" } },
            "data": { KEY: pem },
        });
        // The chart makes the one of the control plane's own namespace.
        if let Some(owner) = owner.as_ref().filter(|_| **namespace != *cluster.namespace) {
            map["metadata"]["ownerReferences"] = json!([owner]);
        }
        let params = PatchParams::apply(FIELD_MANAGER).force();
        match cluster.call(&what, api.patch(NAME, &params, &Patch::Apply(&map))).await {
            // Heard of by the watch, later: not to be written again until then.
            Ok(_) => {
                let mut maps = held.maps.lock().unwrap_or_else(PoisonError::into_inner);
                maps.insert(namespace.clone(), (Some(pem.to_owned()), true));
            }
            // A namespace that goes takes nothing in.
            Err(error) if error.is_not_found() => {}
            Err(error) => {
                tracing::warn!(%error, "pods of this namespace may not trust the mesh");
                done &= error.is_refused();
            }
        }
    }
    let stale = there.iter().filter(|(name, (_, ours))| *ours && !meshed.contains(*name));
    for (namespace, _) in stale {
        let what = format!("ConfigMap {namespace}/{NAME}");
        let api: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), namespace);
        match cluster.call(&what, api.delete(NAME, &DeleteParams::default())).await {
            Err(error) if !error.is_not_found() => {
                tracing::warn!(%error, "a ConfigMap that nobody needs stays");
                done &= error.is_refused();
            }
            _ => {
                let mut maps = held.maps.lock().unwrap_or_else(PoisonError::into_inner);
                maps.remove(namespace);
            }
        }
    }
    done
}

/// What uninstalling takes away, and the ConfigMaps with it: an object without a
/// namespace, which may own what is in any. The last of them, too: without its
/// binding, which goes before it, nothing is put right that has just been removed.
async fn owner(cluster: &Cluster) -> Option<Value> {
    let api: Api<ClusterRole> = Api::all(cluster.client.clone());
    let found = cluster.call("ClusterRole", api.get_opt(ROLE)).await;
    let uid = found.ok()??.metadata.uid?;
    Some(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "name": ROLE, "uid": uid,
    }))
}
