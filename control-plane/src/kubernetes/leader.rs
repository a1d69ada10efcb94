//! The label that the Service `weir-control-plane` selects: of the leader's pod alone.

use std::time::Duration;

use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::cluster::Cluster;

const LABEL: &str = "weir.dev/leader";

/// Between two looks at the label of the leader.
const AGAIN: Duration = Duration::from_secs(10);
/// After a label that could not be written.
const RETRY: Duration = Duration::from_secs(2);

/// Keeps the label where it belongs: without it nobody reaches the leader. `done` is
/// what the first [`mark`] said. Never returns.
pub async fn keep(cluster: Cluster, pod: String, mut done: bool) {
    loop {
        tokio::time::sleep(if done { AGAIN } else { RETRY }).await;
        done = mark(&cluster, &pod).await;
    }
}

/// Labels this replica's pod, and takes the label from all others. False: something
/// failed, and is worth trying again.
pub async fn mark(cluster: &Cluster, pod: &str) -> bool {
    let mut done = label(cluster, pod, json!("true")).await;
    let api = cluster.pods();
    let list = ListParams::default().labels(&format!("{LABEL}=true"));
    match cluster.call("pods", api.list(&list)).await {
        Ok(pods) => {
            for other in pods.iter().filter_map(|pod| pod.metadata.name.as_deref()) {
                if other != pod {
                    done &= label(cluster, other, Value::Null).await;
                }
            }
        }
        Err(error) => {
            tracing::warn!(%error, "other pods may be labelled as the leader");
            done = false;
        }
    }
    done
}

/// Takes the label from this replica's pod.
pub async fn unmark(cluster: &Cluster, pod: &str) {
    label(cluster, pod, Value::Null).await;
}

async fn label(cluster: &Cluster, pod: &str, value: Value) -> bool {
    let what = format!("label of pod {pod}");
    let patch = json!({ "metadata": { "labels": { LABEL: value } } });
    let api = cluster.pods();
    let params = PatchParams { field_manager: Some("weir".into()), ..Default::default() };
    match cluster.call(&what, api.patch(pod, &params, &Patch::Merge(&patch))).await {
        // A replica that runs outside of the cluster has no pod.
        Err(error) if error.is_not_found() => {
            tracing::debug!(%error, "no pod to label");
            true
        }
        Err(error) => {
            tracing::warn!(%error, "the leader's pod is not labelled");
            false
        }
        Ok(_) => true,
    }
}
