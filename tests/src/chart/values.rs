//! What `helm/weir/values.yaml` holds. Every key has to be there with its default;
//! the comments here become the schema's descriptions and the documentation's table.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use weir_cni::{Cidr, PortRange};
use weir_control_plane::inject;

use super::services::Services;

/// All values of the chart.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Values {
    /// The image with `weir`: control plane, services and tests.
    pub image: Image,
    /// Secrets with the credentials of a registry, in the release's namespace.
    pub image_pull_secrets: Vec<LocalRef>,
    /// SPIFFE trust domain. It cannot change while the mesh has pods.
    #[schemars(regex(pattern = "^[a-z0-9._-]{1,255}$"))]
    pub trust_domain: String,
    /// The cluster's DNS domain.
    pub cluster_domain: String,
    /// What decides.
    pub control_plane: ControlPlane,
    /// The sidecar and its defaults; a pod's annotations say otherwise.
    pub router: Router,
    /// How pods get their sidecar.
    pub injector: Injector,
    /// The CNI plugin, which redirects instead of an init container.
    pub cni: Cni,
    /// Where requests from outside enter.
    pub gateway: Gateway,
    /// What applies to connections that leave the mesh.
    pub egress: Egress,
    /// Where spans go.
    pub tracing: Tracing,
    /// Who may connect to control plane, gateway and Jaeger.
    pub network_policy: Toggle,
    /// For the Prometheus operator and Grafana.
    pub monitoring: Monitoring,
    /// Custom resource definitions of weir.dev.
    pub crds: Crds,
    /// What `helm test` does.
    pub test: Test,
    /// The four services of the example mesh.
    pub services: Services,
    /// What Helm shares with subcharts; the chart reads nothing of it.
    #[serde(default)]
    pub global: Free,
}

/// An object that Kubernetes checks itself.
pub type Free = Map<String, Value>;

/// An image by its parts. Those that are left empty are as in `image`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Image {
    /// The registry's host name, such as `docker.io`.
    pub registry: String,
    /// The name within the registry.
    #[schemars(length(min = 1))]
    pub repository: String,
    /// The tag. Empty: that of `image`, else the chart's appVersion.
    pub tag: String,
    /// When the kubelet fetches it.
    pub pull_policy: PullPolicy,
}

/// When an image is fetched.
#[derive(Debug, Deserialize, JsonSchema)]
pub enum PullPolicy {
    /// As in `image`.
    #[serde(rename = "")]
    Inherit,
    /// At every start.
    Always,
    /// When the node has none.
    IfNotPresent,
    /// It has to be there.
    Never,
}

/// An object in the same namespace.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LocalRef {
    /// Its name.
    #[schemars(length(min = 1))]
    pub name: String,
}

/// `controlPlane`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ControlPlane {
    /// Each serves routers, the API and injection. One makes the changes and leads
    /// rollouts; another takes over within 5 s. 1 is for a trial.
    #[schemars(range(min = 1, max = 9))]
    pub replicas: u32,
    /// Requests and limits of a replica.
    pub resources: Resources,
    /// How many may be away when nodes are drained.
    pub pod_disruption_budget: DisruptionBudget,
    /// Life of the certificates of routers: 1m to 7d. Renewed at two thirds of it.
    #[schemars(regex(pattern = "^[0-9]+(s|m|h|d)$"))]
    pub certificate_lifetime: String,
    /// What it logs.
    pub log_level: LogLevel,
    /// Whether it may read Secrets, wherever they are, for the certificates of Gateways. Without,
    /// gateways have no TLS.
    pub read_secrets: bool,
    /// Replaces the rule that replicas prefer different nodes.
    pub affinity: Free,
    /// Replaces the rule that replicas are spread over zones.
    pub topology_spread_constraints: Vec<Free>,
    /// Taints that are no hindrance.
    pub tolerations: Vec<Free>,
    /// Labels that a node must have.
    pub node_selector: BTreeMap<String, String>,
    /// A PriorityClass.
    pub priority_class_name: String,
    /// Annotations of the pods.
    pub pod_annotations: BTreeMap<String, String>,
    /// Labels of the pods.
    pub pod_labels: BTreeMap<String, String>,
}

/// How much is logged.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// Of a container, as Kubernetes has them.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// What is kept for it.
    #[serde(default)]
    pub requests: BTreeMap<String, Quantity>,
    /// What it cannot exceed.
    #[serde(default)]
    pub limits: BTreeMap<String, Quantity>,
}

/// A Kubernetes quantity: `100m`, `64Mi`, `2`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Quantity {
    /// With a unit.
    Text(String),
    /// Without.
    Number(f64),
}

/// A PodDisruptionBudget.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DisruptionBudget {
    /// Whether there is one.
    pub enabled: bool,
    /// Pods that may be away at once.
    #[schemars(range(min = 1))]
    pub max_unavailable: u32,
}

/// `router`. What is given to the injector has the injector's own types.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Router {
    /// The image with `weir-router` alone.
    pub image: Image,
    /// Requests and limits of a sidecar.
    pub resources: inject::Resources,
    /// What it logs.
    pub log_level: inject::LogLevel,
    /// Whether every request is a line of JSON on its standard output (`-` and `off` say the
    /// same as `true` and `false`).
    pub access_log: AccessLog,
    /// More of a sidecar's environment.
    pub environment: BTreeMap<String, Scalar>,
}

/// Where the access log goes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[allow(missing_docs)]
pub enum AccessLog {
    Switch(bool),
    Word(inject::AccessLog),
}

/// What a variable of the environment can be written as.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[allow(missing_docs)]
pub enum Scalar {
    Text(String),
    Number(f64),
    Truth(bool),
}

/// `injector`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Injector {
    /// What becomes of pods in the mesh's namespaces while no injector answers. `Fail`: they
    /// wait for it. `Ignore`: they start without a sidecar, in plaintext. Pods elsewhere never
    /// wait.
    pub failure_policy: FailurePolicy,
    /// How long the API server waits for it, in seconds.
    #[schemars(range(min = 1, max = 30))]
    pub timeout_seconds: u32,
    /// Whether namespaces without the label `weir.dev/inject` are in the mesh too.
    pub default_inject: bool,
    /// How connections get to the sidecar. `init`: an init container with NET_ADMIN. `cni`: the
    /// plugin (see `cni`). `none`: applications ask the sidecar themselves.
    pub redirect: inject::Redirect,
    /// Ports that applications connect to directly, past the sidecar.
    pub skip_outbound_ports: Vec<PortRange>,
    /// Ports of applications that are reached directly, past the sidecar.
    pub skip_inbound_ports: Vec<PortRange>,
    /// Networks that applications connect to directly, such as `10.0.0.0/8`.
    pub skip_outbound_cidrs: Vec<Cidr>,
    /// Whether IPv6 goes past the sidecar, as on nodes where it does not listen on IPv6.
    #[serde(rename = "skipIPv6")]
    pub skip_ipv6: bool,
    /// Ports of applications that are carried as bytes, whatever they speak.
    pub opaque_ports: Vec<PortRange>,
    /// Who makes the webhook's certificate, if not the control plane itself.
    pub cert_manager: CertManager,
}

/// Of a webhook, as Kubernetes has it.
#[derive(Debug, Deserialize, JsonSchema)]
#[allow(missing_docs)]
pub enum FailurePolicy {
    Fail,
    Ignore,
}

/// `injector.certManager`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CertManager {
    /// Whether cert-manager does it.
    pub enabled: bool,
    /// Its issuer. An empty name: a self-signed one is made.
    pub issuer_ref: IssuerRef,
}

/// An issuer of cert-manager.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IssuerRef {
    /// Its name.
    pub name: String,
    /// `Issuer`, `ClusterIssuer` or another's kind.
    pub kind: String,
    /// Its API group.
    pub group: String,
}

/// `cni`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cni {
    /// Whether every node gets the plugin. Needed for `redirect: cni`.
    pub enabled: bool,
    /// The image with `weir-cni` alone; init containers use it as well.
    pub image: Image,
    /// Where the nodes keep plugins.
    #[schemars(regex(pattern = "^/"))]
    pub bin_dir: String,
    /// Where the nodes keep the plugins' configuration.
    #[schemars(regex(pattern = "^/"))]
    pub conf_dir: String,
    /// Requests and limits of the installer.
    pub resources: Resources,
    /// Taints that are no hindrance.
    pub tolerations: Vec<Free>,
}

/// `gateway`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Gateway {
    /// Whether there is one.
    pub enabled: bool,
    /// Its pods, unless they are scaled automatically.
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: u32,
    /// What reaches them.
    pub service: GatewayService,
    /// A HorizontalPodAutoscaler.
    pub autoscaling: Autoscaling,
    /// How many may be away when nodes are drained.
    pub pod_disruption_budget: DisruptionBudget,
    /// Requests and limits of a pod.
    pub resources: Resources,
    /// Replaces the rule that pods prefer different nodes.
    pub affinity: Free,
    /// Taints that are no hindrance.
    pub tolerations: Vec<Free>,
    /// Labels that a node must have.
    pub node_selector: BTreeMap<String, String>,
}

/// `gateway.service`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GatewayService {
    /// `LoadBalancer` shows it to the outside; `helm install --wait` then waits for an address.
    #[serde(rename = "type")]
    pub service_type: ServiceType,
    /// Annotations, for the load balancer.
    pub annotations: BTreeMap<String, String>,
    /// One for each port of a Gateway's listeners, by the same number.
    #[schemars(length(min = 1))]
    pub ports: Vec<ServicePort>,
}

/// Of a Service.
#[derive(Debug, Deserialize, JsonSchema)]
#[allow(missing_docs)]
pub enum ServiceType {
    ClusterIP,
    NodePort,
    LoadBalancer,
}

/// A port of the gateway's Service.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServicePort {
    /// A DNS label.
    #[schemars(regex(pattern = "^[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?$"))]
    pub name: String,
    /// That of the Service and of the Gateway's listener.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// That of every node, when the type is NodePort or LoadBalancer.
    #[serde(default)]
    pub node_port: Option<u16>,
}

/// `gateway.autoscaling`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Autoscaling {
    /// Whether it is.
    pub enabled: bool,
    /// Fewest pods.
    #[schemars(range(min = 1))]
    pub min_replicas: u32,
    /// Most pods.
    #[schemars(range(min = 1))]
    pub max_replicas: u32,
    /// Of the CPU that is requested, in percent.
    #[schemars(range(min = 1, max = 1000))]
    #[serde(rename = "targetCPUUtilizationPercentage")]
    pub target_cpu_utilization_percentage: u32,
}

/// What applies to the outside.
#[derive(Debug, Deserialize, JsonSchema)]
#[allow(missing_docs)]
pub enum Egress {
    Allow,
    Deny,
}

/// `tracing`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tracing {
    /// An OTLP collector over gRPC, such as `http://collector.observability:4317`. Empty: the
    /// chart's Jaeger if it is installed, else the control plane keeps recent spans in memory.
    #[schemars(regex(pattern = "^(https?://.+)?$"))]
    pub endpoint: String,
    /// The part of traces that begin here that is kept, 0 to 1. null: all of them.
    pub sampling: Option<Share>,
    /// Jaeger in one pod that forgets when it restarts: for a trial.
    pub jaeger: Jaeger,
}

/// 0 to 1. `--set` makes a text of what has a point.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Share {
    /// In YAML.
    Number(#[schemars(range(min = 0, max = 1))] f64),
    /// By `--set`.
    Text(#[schemars(regex(pattern = "^(0|1|0?\\.[0-9]+)$"))] String),
}

/// `tracing.jaeger`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Jaeger {
    /// Whether it is installed.
    pub install: bool,
    /// Its image, with a registry and tag of its own.
    pub image: Image,
    /// Most traces that it keeps.
    #[schemars(range(min = 1))]
    pub max_traces: u32,
    /// Requests and limits.
    pub resources: Resources,
}

/// Something that is or is not.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Toggle {
    /// Whether it is.
    pub enabled: bool,
}

/// `monitoring`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Monitoring {
    /// Of the control plane. Needs the Prometheus operator's kinds.
    pub service_monitor: Monitor,
    /// Of gateway and sidecars. Needs the Prometheus operator's kinds.
    pub pod_monitor: Monitor,
    /// A ConfigMap that Grafana's sidecar picks up.
    pub dashboard: Labelled,
}

/// How Prometheus asks.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Monitor {
    /// Whether it is made.
    pub enabled: bool,
    /// How often.
    #[schemars(regex(pattern = "^[0-9]+(ms|s|m)$"))]
    pub interval: String,
    /// Labels by which Prometheus picks it.
    pub labels: BTreeMap<String, String>,
}

/// What others find by its labels.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Labelled {
    /// Whether it is made.
    pub enabled: bool,
    /// By which it is picked.
    pub labels: BTreeMap<String, String>,
}

/// `crds`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Crds {
    /// Whether this release installs and upgrades them.
    pub install: bool,
    /// Whether they stay, with all policies and splits, when it is uninstalled.
    pub keep: bool,
}

/// `test`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Test {
    /// Whether `helm test` has tests.
    pub enabled: bool,
    /// A namespace that is made for them and deleted after them.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
}
