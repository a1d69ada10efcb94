use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, PostParams};

#[path = "../../../tests/it/kubernetes/server.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod server;

use super::{Bench, all};
use crate::kubernetes::cluster::Cluster;
use crate::store::{ClusterStore, Revision, Store, StoreError};

/// A namespace of a cluster.
struct Namespace {
    cluster: Cluster,
    maps: Api<ConfigMap>,
}

fn block<T>(call: impl Future<Output = T>) -> T {
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(call))
}

impl Namespace {
    fn entry(revision: Revision) -> String {
        format!("weir-history-{revision:010}")
    }
}

impl Bench for Namespace {
    fn open(&self) -> Arc<dyn Store> {
        self.anew().unwrap()
    }

    fn anew(&self) -> Result<Arc<dyn Store>, StoreError> {
        Ok(Arc::new(ClusterStore::open(self.cluster.clone(), 1000)?))
    }

    fn damage(&self, revision: Revision) {
        let name = Self::entry(revision);
        let mut map = block(self.maps.get(&name)).unwrap();
        self.remove(revision);
        let data = map.binary_data.as_mut().unwrap().get_mut("entry").unwrap();
        let at = data.0.len() / 2;
        data.0[at] ^= 1;
        map.metadata.resource_version = None;
        map.metadata.uid = None;
        block(self.maps.create(&PostParams::default(), &map)).unwrap();
    }

    fn remove(&self, revision: Revision) {
        block(self.maps.delete(&Self::entry(revision), &DeleteParams::default())).unwrap();
    }

    fn keeps_state(&self) -> bool {
        false
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kubernetes_keeps_the_promises_of_a_store() {
    let Some(server) = server::Server::start().await else { return };
    let client = server.client().await;
    let count = AtomicUsize::new(0);
    all(|| {
        let name = format!("mesh-{}", count.fetch_add(1, Ordering::SeqCst));
        block(server.namespace(&name));
        let maps = Api::namespaced(client.clone(), &name);
        Namespace { cluster: Cluster::of(client.clone(), &name), maps }
    });
}
