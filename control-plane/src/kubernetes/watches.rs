//! Keeps the mirror up to date: one watch for each kind that the server has.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use kube::api::DynamicObject;
use kube::runtime::watcher::{self, Event, watcher};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::cluster::{Cluster, ClusterError, api_version, chain};
use super::mirror::Mirror;
use super::objects::Kind;

/// Between looks at which kinds there are.
const DISCOVERY: Duration = Duration::from_secs(10);
/// The same, when the last look failed.
const DISCOVERY_RETRY: Duration = Duration::from_secs(1);
/// How often in a row a kind that was there must be missing to be gone.
const GONE: u32 = 2;
/// First and longest wait after a watch failed.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// Versions in which the server has each optional kind; none before the first answer.
type Served = Option<BTreeMap<Kind, Vec<String>>>;

/// Starts all watches. `secrets` are the namespaces whose Secrets are watched; none:
/// all.
pub fn start(cluster: &Cluster, mirror: &Arc<Mirror>, secrets: &[String], tasks: &mut JoinSet<()>) {
    let served = watch::Sender::new(Served::None);
    for &kind in Kind::ALL {
        let (cluster, mirror) = (cluster.clone(), mirror.clone());
        if kind.is_optional() {
            let served = served.subscribe();
            tasks.spawn(async move { optional(&cluster, &mirror, kind, served).await });
            continue;
        }
        let (_, version, _) = kind.resource();
        mirror.serves(kind, version);
        let everywhere = [String::new()];
        let namespaces = if kind == Kind::Secret && !secrets.is_empty() {
            mirror.limit(kind, secrets);
            secrets
        } else {
            &everywhere
        };
        for namespace in namespaces {
            let (cluster, mirror, namespace) = (cluster.clone(), mirror.clone(), namespace.clone());
            tasks.spawn(async move { follow(&cluster, &mirror, kind, version, &namespace).await });
        }
    }
    let cluster = cluster.clone();
    tasks.spawn(async move { discover(&cluster, &served).await });
}

/// Looks again and again which kinds there are. Never returns.
async fn discover(cluster: &Cluster, served: &watch::Sender<Served>) {
    let mut looks = 0;
    loop {
        match look(cluster).await {
            Ok(found) => {
                // Each look counts, also one that finds the same.
                served.send_replace(Some(found));
                // An API server that starts learns of its kinds by and by.
                looks += 1;
                let pause = if looks <= GONE { DISCOVERY_RETRY } else { DISCOVERY };
                tokio::time::sleep(pause).await;
            }
            Err(error) => {
                tracing::debug!(%error, "cannot ask which kinds there are");
                tokio::time::sleep(DISCOVERY_RETRY).await;
            }
        }
    }
}

async fn look(cluster: &Cluster) -> Result<BTreeMap<Kind, Vec<String>>, ClusterError> {
    let mut found: BTreeMap<Kind, Vec<String>> = BTreeMap::new();
    let groups = cluster.call("API groups", cluster.client.list_api_groups()).await?;
    let wanted = |group: &str| Kind::ALL.iter().any(|k| k.is_optional() && k.resource().0 == group);
    for group in groups.groups.iter().filter(|group| wanted(&group.name)) {
        for version in &group.versions {
            let at = &version.group_version;
            let list = cluster.client.list_api_group_resources(at);
            let list = match cluster.call(at, list).await {
                Ok(list) => list,
                Err(error) if error.is_not_found() => continue,
                Err(error) => return Err(error),
            };
            for &kind in Kind::ALL {
                let (own, _, plural) = kind.resource();
                if own == group.name && list.resources.iter().any(|r| r.name == plural) {
                    found.entry(kind).or_default().push(version.version.clone());
                }
            }
        }
    }
    Ok(found)
}

/// The version to use: the one that we know best, else the most mature.
fn choose(kind: Kind, versions: &[String]) -> Option<&str> {
    let (_, own, _) = kind.resource();
    let known = [own, "v1", "v1beta1", "v1alpha3", "v1alpha2"];
    known.into_iter().find(|known| versions.iter().any(|version| version == known))
}

/// Follows a kind while the server has it. Never returns.
async fn optional(
    cluster: &Cluster,
    mirror: &Mirror,
    kind: Kind,
    mut served: watch::Receiver<Served>,
) {
    let mut version: Option<String> = None;
    let mut missing = 0;
    loop {
        let found = served.borrow_and_update().as_ref().map(|served| {
            let versions = served.get(&kind).map(Vec::as_slice).unwrap_or_default();
            choose(kind, versions).map(str::to_owned)
        });
        match found {
            None => {}
            Some(Some(found)) => {
                missing = 0;
                mirror.serves(kind, &found);
                version = Some(found);
            }
            Some(None) => {
                missing += 1;
                // An API server that starts may not know all of its kinds at once.
                if missing >= GONE {
                    mirror.absent(kind);
                    version = None;
                }
            }
        }
        let changed = match &version {
            None => served.changed().await.is_ok(),
            Some(at) => {
                let changes = async {
                    loop {
                        if served.changed().await.is_err() {
                            return false;
                        }
                        let same = served.borrow().as_ref().is_some_and(|served| {
                            served.get(&kind).and_then(|v| choose(kind, v)) == Some(at)
                        });
                        if !same {
                            return true;
                        }
                    }
                };
                tokio::select! {
                    () = follow(cluster, mirror, kind, at, "") => true,
                    changed = changes => changed,
                }
            }
        };
        if !changed {
            return;
        }
    }
}

/// Lists and watches a kind, in one namespace or, when that is empty, in all. Never returns; failures are tried again.
async fn follow(cluster: &Cluster, mirror: &Mirror, kind: Kind, version: &str, namespace: &str) {
    let mut config = watcher::Config::default();
    if kind == Kind::Secret {
        // Others may hold anything, and are none of our business.
        config = config.fields("type=kubernetes.io/tls");
    }
    let mut events = watcher(cluster.objects(kind, version, namespace), config).boxed();
    let mut listing: Vec<DynamicObject> = Vec::new();
    let mut wait = BACKOFF.0;
    let mut told = String::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                wait = BACKOFF.0;
                told.clear();
                match event {
                    Event::Init => listing = Vec::new(),
                    Event::InitApply(object) => listing.push(object),
                    Event::InitDone => {
                        mirror.replace(kind, namespace, std::mem::take(&mut listing));
                    }
                    Event::Apply(object) => mirror.apply(kind, object),
                    Event::Delete(object) => mirror.delete(kind, &object),
                }
            }
            Err(error) => {
                if kind == Kind::Secret && is_forbidden(&error) && mirror.missing().contains(&kind)
                {
                    // A cluster that does not let us see certificates has none to offer.
                    mirror.replace(kind, namespace, Vec::new());
                }
                let text = chain(&error);
                if text != told {
                    let (group, ..) = kind.resource();
                    let of = api_version(group, version);
                    tracing::warn!(%of, kind = kind.as_str(), error = text, "a watch broke; trying again");
                    told = text;
                }
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(BACKOFF.1);
            }
        }
    }
}

fn is_forbidden(error: &watcher::Error) -> bool {
    matches!(
        error,
        watcher::Error::InitialListFailed(kube::Error::Api(status)) if status.code == 403
    )
}
