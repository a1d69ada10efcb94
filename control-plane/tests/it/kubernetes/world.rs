//! Namespaces, Services and pods, as Kubernetes' own controllers would make them.

use std::sync::Arc;

use rcgen::KeyPair;
use serde_json::{Value, json};
use weir_mesh::identity::Svid;
use weir_proto::weir::mesh::v1::{Hello, Snapshot};

use super::replica::Replica;
use super::server::Server;
use crate::router::{Manner, Router, csr, hello};

/// A namespace of the mesh with the Service `products`, whose pods are v1 and v2.
pub struct Shop {
    pub server: Arc<Server>,
    pub namespace: String,
}

impl Shop {
    pub async fn open(server: &Arc<Server>, namespace: &str) -> Self {
        server
            .apply(json!({
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": { "name": namespace, "labels": { "weir.dev/inject": "enabled" } },
            }))
            .await;
        server.account(namespace, "products").await;
        let shop = Self { server: server.clone(), namespace: namespace.to_owned() };
        shop.apply(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": "products" },
            "spec": {
                "selector": { "app": "products" },
                "ports": [{ "name": "http", "port": 80, "targetPort": 8080 }],
            },
        }))
        .await;
        shop.pods(&[("products-1", "v1"), ("products-2", "v2")]).await;
        shop
    }

    /// The service's name in the mesh.
    pub fn products(&self) -> String {
        format!("products.{}", self.namespace)
    }

    pub async fn apply(&self, object: Value) -> Value {
        self.apply_as("kubectl", object).await
    }

    pub async fn apply_as(&self, manager: &str, mut object: Value) -> Value {
        object["metadata"]["namespace"] = self.namespace.as_str().into();
        let applied = self.server.apply_as(manager, object).await;
        serde_json::to_value(applied).unwrap()
    }

    pub async fn get(&self, api_version: &str, kind: &str, name: &str) -> Option<Value> {
        let of = json!({
            "apiVersion": api_version, "kind": kind, "metadata": { "namespace": self.namespace },
        });
        self.server.get(&of, name).await
    }

    pub async fn split(&self) -> Option<Value> {
        self.get("weir.dev/v1alpha1", "TrafficSplit", "products").await
    }

    /// The pods of products, ready, and the slice that says so.
    pub async fn pods(&self, pods: &[(&str, &str)]) {
        let mut endpoints = Vec::new();
        for (i, (name, version)) in pods.iter().enumerate() {
            let ip = format!("10.244.7.{}", i + 1);
            self.apply(json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {
                    "name": name,
                    "labels": {
                        "app": "products", "weir.dev/version": version,
                        "weir.dev/injected": "true",
                    },
                },
                "spec": {
                    "serviceAccountName": "products",
                    "containers": [{ "name": "app", "image": "products" }],
                },
            }))
            .await;
            self.server
                .status(json!({
                    "apiVersion": "v1", "kind": "Pod",
                    "metadata": { "name": name, "namespace": self.namespace },
                    "status": {
                        "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }],
                        "conditions": [{ "type": "Ready", "status": "True" }],
                    },
                }))
                .await;
            endpoints.push(json!({
                "addresses": [ip], "conditions": { "ready": true },
                "targetRef": { "kind": "Pod", "name": name, "namespace": self.namespace },
            }));
        }
        self.apply(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": "products-a",
                "labels": { "kubernetes.io/service-name": "products" },
            },
            "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
        }))
        .await;
    }

    /// The router of a pod of products.
    pub async fn router(&self, replica: &Replica, pod: &str) -> Router {
        let door = replica.door().await;
        let key = KeyPair::generate().unwrap();
        let token = self.server.token(&self.namespace, "products", "weir").await;
        let signed = door.sign("products", &token, csr(&key)).await.unwrap();
        let svid = Svid::from_der(signed.certificate_chain, key.serialize_der()).unwrap();
        let id = format!("{}/{pod}", self.namespace);
        let hello = Hello { instance: None, ..hello(&id, &self.products(), "v1", 1) };
        Router::with(&door, &svid, hello, Manner::Applies).await
    }

    /// Weights of products in a snapshot.
    pub fn weights(&self, snapshot: &Snapshot) -> Vec<(String, i32)> {
        crate::router::versions(snapshot, &self.products())
    }
}

pub fn traffic_split(v1: u32, v2: u32) -> Value {
    json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "TrafficSplit",
        "metadata": { "name": "products" },
        "spec": { "versions": [
            { "name": "v1", "weight": v1 }, { "name": "v2", "weight": v2 },
        ] },
    })
}

pub fn pairs(v1: i32, v2: i32) -> Vec<(String, i32)> {
    vec![("v1".to_owned(), v1), ("v2".to_owned(), v2)]
}
