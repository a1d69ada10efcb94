//! Asks the API server for what is judged.

use http::Request;
use kube::Client;
use kube::config::{Config, KubeConfigOptions};
use serde_json::{Value, json};

use super::object::{items, text};
use super::{Check, Line, cluster, installed, workloads};
use crate::Error;

/// What installing the chart takes: (verb, group, resource).
const RIGHTS: [(&str, &str, &str); 7] = [
    ("create", "", "namespaces"),
    ("create", "rbac.authorization.k8s.io", "clusterroles"),
    ("create", "rbac.authorization.k8s.io", "clusterrolebindings"),
    ("create", "apiextensions.k8s.io", "customresourcedefinitions"),
    ("create", "admissionregistration.k8s.io", "mutatingwebhookconfigurations"),
    ("create", "apps", "deployments"),
    ("create", "", "services"),
];
/// Kinds whose status is looked at: (kind, path).
const JUDGED: [(&str, &str); 9] = [
    ("HTTPRoute", "/apis/gateway.networking.k8s.io/v1/httproutes"),
    ("GRPCRoute", "/apis/gateway.networking.k8s.io/v1/grpcroutes"),
    ("TLSRoute", "/apis/gateway.networking.k8s.io/v1/tlsroutes"),
    ("TrafficSplit", "/apis/weir.dev/v1alpha1/trafficsplits"),
    ("BackendTrafficPolicy", "/apis/weir.dev/v1alpha1/backendtrafficpolicies"),
    ("RateLimitPolicy", "/apis/weir.dev/v1alpha1/ratelimitpolicies"),
    ("AuthorizationPolicy", "/apis/weir.dev/v1alpha1/authorizationpolicies"),
    ("AuthenticationPolicy", "/apis/weir.dev/v1alpha1/authenticationpolicies"),
    ("HTTPRouteFilter", "/apis/weir.dev/v1alpha1/httproutefilters"),
];

struct Api(Client);

impl Api {
    async fn send(&self, request: http::request::Builder, body: Value) -> Result<Value, Error> {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request = request
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(body)
            .map_err(|error| Error::new(format!("cannot ask: {error}")))?;
        let (method, path) = (request.method().clone(), request.uri().to_string());
        self.0
            .request(request)
            .await
            .map_err(|error| Error::new(format!("{method} {path}: {error}")))
    }

    async fn get(&self, path: &str) -> Result<Value, Error> {
        self.send(Request::get(path), Value::Null).await
    }

    /// None when it is not there, or may not be seen.
    async fn find(&self, path: &str) -> Option<Value> {
        self.get(path).await.ok()
    }

    async fn list(&self, path: &str) -> Vec<Value> {
        let found = self.find(path).await.unwrap_or_default();
        items(&found, &["items"]).to_vec()
    }

    async fn may(&self, verb: &str, group: &str, resource: &str) -> bool {
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {"verb": verb, "group": group, "resource": resource}},
        });
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        let answer = self.send(Request::post(path), review).await.unwrap_or_default();
        answer["status"]["allowed"] == true
    }
}

/// Every check.
pub(super) async fn lines(check: &Check) -> Result<Vec<Line>, Error> {
    let api = Api(client(check).await?);
    let version = match api.get("/version").await {
        Ok(version) => version,
        Err(error) => {
            let mend = "is the cluster up, and is this the right context of the kubeconfig?";
            return Ok(vec![Line::failure("API server", error.to_string(), mend)]);
        }
    };
    let mut lines = vec![Line::pass("API server", "answers"), cluster::version(&version)];
    lines.extend(cluster::nodes(&api.list("/api/v1/nodes").await));
    let crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let crds = api.list(crds).await;
    lines.push(cluster::gateway_api(&crds));
    let webhooks = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
    lines.extend(cluster::other_meshes(&api.list(webhooks).await));
    if check.pre {
        let mut rights = Vec::new();
        for (verb, group, resource) in RIGHTS {
            let allowed = api.may(verb, group, resource).await;
            rights.push((verb.to_owned(), resource.to_owned(), allowed));
        }
        lines.push(cluster::rights(&rights));
        return Ok(lines);
    }
    lines.push(installed::crds(&crds));
    let home = &check.control_namespace;
    let deployments = format!("/apis/apps/v1/namespaces/{home}/deployments");
    let control = api.find(&format!("{deployments}/weir-control-plane")).await;
    lines.push(installed::deployment("Control plane", control.as_ref(), false));
    if control.is_none() {
        return Ok(lines);
    }
    let leases = format!("/apis/coordination.k8s.io/v1/namespaces/{home}/leases");
    let lease = api.find(&format!("{leases}/weir-control-plane")).await;
    let selector = "labelSelector=app.kubernetes.io/name%3Dweir-control-plane";
    let pods = format!("/api/v1/namespaces/{home}/pods?{selector}");
    lines.push(installed::leader(lease.as_ref(), &api.list(&pods).await));
    lines.push(injector(&api, home).await);
    let gateway = api.find(&format!("{deployments}/weir-gateway")).await;
    lines.push(installed::deployment("Gateway", gateway.as_ref(), true));
    let group = "/apis/gateway.networking.k8s.io/v1";
    let gateways = api.list(&format!("{group}/gateways")).await;
    let classes = api.list(&format!("{group}/gatewayclasses")).await;
    lines.extend(installed::gateways(&gateways, &classes));
    lines.extend(of_workloads(&api, check, home).await);
    for (kind, path) in JUDGED {
        lines.extend(installed::refused(kind, &api.list(path).await));
    }
    Ok(lines)
}

async fn client(check: &Check) -> Result<Client, Error> {
    let config = match &check.context {
        None => Config::infer().await.map_err(|error| error.to_string()),
        Some(context) => {
            let options = KubeConfigOptions {
                context: Some(context.clone()),
                ..KubeConfigOptions::default()
            };
            Config::from_kubeconfig(&options).await.map_err(|error| error.to_string())
        }
    };
    let config = config.map_err(|error| {
        Error::new(format!("no cluster to ask: {error}; set KUBECONFIG, or run it in a pod"))
    })?;
    Client::try_from(config).map_err(|error| Error::new(format!("cannot connect: {error}")))
}

async fn injector(api: &Api, home: &str) -> Line {
    let webhook = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
    let webhook = api.find(&format!("{webhook}/weir-injector")).await;
    let slices = format!(
        "/apis/discovery.k8s.io/v1/namespaces/{home}/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3Dweir-injector"
    );
    let slices = api.list(&slices).await;
    let endpoints = slices.iter().flat_map(|slice| items(slice, &["endpoints"]));
    let ready = endpoints.filter(|one| one["conditions"]["ready"] == true).count();
    installed::injector(webhook.as_ref(), ready)
}

async fn of_workloads(api: &Api, check: &Check, home: &str) -> Vec<Line> {
    let wanted = |object: &Value, field: &str| {
        let namespace = text(object, &["metadata", field]);
        check.namespace.is_empty() || check.namespace.iter().any(|one| one == namespace)
    };
    let mut namespaces = api.list("/api/v1/namespaces").await;
    namespaces.retain(|one| wanted(one, "name"));
    let mut pods = api.list("/api/v1/pods").await;
    pods.retain(|pod| wanted(pod, "namespace"));
    let services = api.list("/api/v1/services").await;
    let bundles = "/api/v1/configmaps?fieldSelector=metadata.name%3Dweir-trust-bundle";
    let mut lines = vec![workloads::roots(&namespaces, &api.list(bundles).await)];
    let config = api.find(&format!("/api/v1/namespaces/{home}/configmaps/weir-injector")).await;
    lines.extend(workloads::pods(&namespaces, &pods, &router_image(config.as_ref())));
    lines.extend(workloads::ports(&namespaces, &services));
    lines
}

/// The router's image that the injector would use now; empty when nobody says.
fn router_image(config: Option<&Value>) -> String {
    let Some(config) = config else { return String::new() };
    let config: Value =
        serde_saphyr::from_str(text(config, &["data", "config.yaml"])).unwrap_or_default();
    let nested = text(&config, &["images", "router"]);
    let flat = text(&config, &["routerImage"]);
    if nested.is_empty() { flat.to_owned() } else { nested.to_owned() }
}
