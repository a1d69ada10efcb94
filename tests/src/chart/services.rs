//! What `helm/weir/charts/services/values.yaml` holds: `services` of the whole.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::values::{Free, Image, LogLevel, Quantity, Resources, Scalar};

/// `services`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Services {
    /// Whether they are installed.
    #[serde(default)]
    pub enabled: bool,
    /// The image with `weir`, with a registry and tag of its own.
    pub image: Image,
    /// Where they run.
    pub namespace: Namespace,
    /// As that of the mesh.
    pub trust_domain: String,
    /// The cluster's DNS domain.
    pub cluster_domain: String,
    /// What they log.
    pub log_level: LogLevel,
    /// Where they keep their data. `sqlite`: in each version's own volume. `postgresql`: shared
    /// by versions and replicas.
    pub database: Database,
    /// For `database: sqlite`.
    pub sqlite: Sqlite,
    /// For `database: postgresql`.
    pub postgresql: Postgresql,
    /// Requests and limits of a pod.
    pub resources: Resources,
    /// Accounts and tokens.
    pub auth: Service,
    /// Profiles and preferences.
    pub users: Service,
    /// The catalogue.
    pub products: Service,
    /// Messages to users.
    pub notifications: Service,
    /// A Gateway and HTTPRoutes for them. Needs the Gateway API's kinds.
    pub routes: Routes,
    /// What Helm shares with subcharts.
    #[serde(default)]
    pub global: Free,
}

/// `services.namespace`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Namespace {
    /// Its name. Not that of the control plane, which has no sidecars.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Whether the chart makes it, with the label that brings it into the mesh.
    pub create: bool,
}

/// Where data is kept.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Database {
    Sqlite,
    Postgresql,
}

/// `services.sqlite`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sqlite {
    /// Whether data outlives its pod. Versions and replicas of a service then share a volume and
    /// run on one node.
    pub persistent: bool,
    /// Of the volume.
    pub size: Quantity,
    /// Of the volume. Empty: the cluster's default.
    pub storage_class: String,
}

/// `services.postgresql`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Postgresql {
    /// A Secret in the services' namespace with a key for each service (`auth`, `users`,
    /// `products`, `notifications`): `postgres://USER:PASSWORD@HOST/DATABASE`, a database each.
    pub secret: String,
}

/// One of the four.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Pods of each version. More than 1 needs `postgresql`.
    #[schemars(range(min = 0, max = 100))]
    pub replicas: u32,
    /// Each a Deployment; all traffic goes to the first until it is shifted.
    #[schemars(length(min = 1))]
    pub versions: Vec<Version>,
    /// More of the environment.
    pub env: BTreeMap<String, Scalar>,
}

/// A DNS label.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Version(#[schemars(regex(pattern = "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"))] pub String);

/// `services.routes`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Routes {
    /// Whether they are made.
    pub enabled: bool,
    /// The GatewayClass.
    pub gateway_class: String,
    /// The listener's port; the gateway's Service must have it.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// Hosts that are served. Empty: any.
    pub hostnames: Vec<String>,
}
