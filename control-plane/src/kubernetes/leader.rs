//! The label that the Service `weir-control-plane` selects: of the leader's pod alone.

use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::cluster::Cluster;

const LABEL: &str = "weir.dev/leader";

/// Labels this replica's pod, and takes the label from all others.
pub async fn mark(cluster: &Cluster, pod: &str) {
    label(cluster, pod, json!("true")).await;
    let api = cluster.pods();
    let list = ListParams::default().labels(&format!("{LABEL}=true"));
    match cluster.call("pods", api.list(&list)).await {
        Ok(pods) => {
            for other in pods.iter().filter_map(|pod| pod.metadata.name.as_deref()) {
                if other != pod {
                    label(cluster, other, Value::Null).await;
                }
            }
        }
        Err(error) => tracing::warn!(%error, "other pods may be labelled as the leader"),
    }
}

/// Takes the label from this replica's pod.
pub async fn unmark(cluster: &Cluster, pod: &str) {
    label(cluster, pod, Value::Null).await;
}

async fn label(cluster: &Cluster, pod: &str, value: Value) {
    let what = format!("label of pod {pod}");
    let patch = json!({ "metadata": { "labels": { LABEL: value } } });
    let api = cluster.pods();
    let params = PatchParams { field_manager: Some("weir".into()), ..Default::default() };
    match cluster.call(&what, api.patch(pod, &params, &Patch::Merge(&patch))).await {
        // A replica that runs outside of the cluster has no pod.
        Err(error) if error.is_not_found() => tracing::debug!(%error, "no pod to label"),
        Err(error) => tracing::warn!(%error, "the leader's pod is not labelled"),
        Ok(_) => {}
    }
}
