//! A real API server: etcd and kube-apiserver as processes on free ports.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};

/// The administrator's, of this server alone.
const TOKEN: &str = "a-token-of-tests";
/// Between looks.
const MOMENT: Duration = Duration::from_millis(20);
/// How long the server has to start.
const PATIENCE: Duration = Duration::from_secs(90);

/// Optional kinds, as they are installed here: without schemas, which are the chart's.
const KINDS: &[(&str, &str, &str, &str, &str)] = &[
    ("gateway.networking.k8s.io", "v1", "GatewayClass", "gatewayclasses", "Cluster"),
    ("gateway.networking.k8s.io", "v1", "Gateway", "gateways", "Namespaced"),
    ("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes", "Namespaced"),
    ("gateway.networking.k8s.io", "v1", "GRPCRoute", "grpcroutes", "Namespaced"),
    ("gateway.networking.k8s.io", "v1", "ReferenceGrant", "referencegrants", "Namespaced"),
    ("weir.dev", "v1alpha1", "TrafficSplit", "trafficsplits", "Namespaced"),
    ("weir.dev", "v1alpha1", "Rollout", "rollouts", "Namespaced"),
    ("weir.dev", "v1alpha1", "RateLimitPolicy", "ratelimitpolicies", "Namespaced"),
];

/// Killed when this is dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub struct Server {
    api: Mutex<Option<Process>>,
    _etcd: Process,
    dir: tempfile::TempDir,
    etcd_port: u16,
    port: u16,
    binary: PathBuf,
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Finds a program where `.ci/run` puts it, or on the path.
fn program(name: &str) -> Option<PathBuf> {
    let cache = std::env::var_os("WEIR_CACHE").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache/weir"));
    let cached = cache.or_else(home).map(|cache| cache.join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = cached.into_iter().chain(std::env::split_paths(&path));
    let found = dirs.map(|dir| dir.join(name)).find(|path| path.exists());
    if found.is_none() {
        assert!(std::env::var("WEIR_TESTS").as_deref() != Ok("all"), "no {name}: install it");
        eprintln!("skipped: no {name}");
    }
    found
}

fn run(program: &Path, args: &[String], log: &Path) -> Process {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
    let child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    Process(child)
}

static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
static STARTING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// One that tests share, and the turn to use it: a cluster has one control plane.
/// None: it is not installed.
pub async fn shared() -> Option<(Arc<Server>, tokio::sync::MutexGuard<'static, ()>)> {
    let server = {
        let _one_starts_it = STARTING.lock().await;
        let running = SHARED.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
        match running {
            Some(server) => server,
            None => {
                let server = Arc::new(Server::start().await?);
                *SHARED.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&server);
                server
            }
        }
    };
    Some((server, TURN.lock().await))
}

impl Server {
    /// One of its own, with the optional kinds.
    pub async fn start() -> Option<Self> {
        let server = Self::bare().await?;
        for kind in KINDS {
            server.install(kind).await;
        }
        for kind in KINDS {
            server.installed(kind).await;
        }
        Some(server)
    }

    async fn bare() -> Option<Self> {
        let (etcd, binary) = (program("etcd")?, program("kube-apiserver")?);
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let key = KeyPair::generate().unwrap();
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        std::fs::write(path("tls.crt"), certificate.pem()).unwrap();
        std::fs::write(path("tls.key"), key.serialize_pem()).unwrap();
        let accounts = KeyPair::generate().unwrap();
        std::fs::write(path("sa.key"), accounts.serialize_pem()).unwrap();
        std::fs::write(path("sa.pub"), accounts.public_key_pem()).unwrap();
        let admin = format!("{TOKEN},admin,1,system:masters\n");
        std::fs::write(path("tokens.csv"), admin).unwrap();
        let (etcd_port, peer, port) = (free_port(), free_port(), free_port());
        std::fs::write(path("kubeconfig"), kubeconfig(port, &path("tls.crt")).to_string()).unwrap();
        let etcd_args = [
            format!("--data-dir={}", path("etcd").display()),
            format!("--listen-client-urls=http://127.0.0.1:{etcd_port}"),
            format!("--advertise-client-urls=http://127.0.0.1:{etcd_port}"),
            format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
        ];
        let etcd = run(&etcd, &etcd_args, &path("etcd.log"));
        let server = Self { api: Mutex::new(None), _etcd: etcd, etcd_port, port, binary, dir };
        server.up().await;
        Some(server)
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    /// `kill -9`.
    pub fn kill(&self) {
        *self.api.lock().unwrap() = None;
    }

    /// Starts it, again perhaps, and waits until it is ready.
    pub async fn up(&self) {
        let path = |name: &str| self.dir.path().join(name).display().to_string();
        let args = [
            format!("--etcd-servers=http://127.0.0.1:{}", self.etcd_port),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={}", self.port),
            format!("--tls-cert-file={}", path("tls.crt")),
            format!("--tls-private-key-file={}", path("tls.key")),
            format!("--token-auth-file={}", path("tokens.csv")),
            format!("--service-account-key-file={}", path("sa.pub")),
            format!("--service-account-signing-key-file={}", path("sa.key")),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            "--authorization-mode=RBAC".to_owned(),
            "--advertise-address=127.0.0.1".to_owned(),
            "--endpoint-reconciler-type=none".to_owned(),
            "--disable-admission-plugins=ServiceAccount".to_owned(),
            "--profiling=false".to_owned(),
        ];
        let started = run(&self.binary, &args, &self.dir.path().join("apiserver.log"));
        *self.api.lock().unwrap() = Some(started);
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let client = self.client().await;
        loop {
            let request = http::Request::get("/readyz").body(Vec::new()).unwrap();
            if client.request_text(request).await.is_ok_and(|text| text == "ok") {
                return;
            }
            if tokio::time::Instant::now() >= deadline {
                let log = std::fs::read_to_string(path("apiserver.log")).unwrap_or_default();
                let tail: Vec<_> = log.lines().rev().take(20).collect();
                panic!("the API server does not start: {tail:#?}");
            }
            tokio::time::sleep(MOMENT).await;
        }
    }

    pub async fn client(&self) -> Client {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig()).unwrap();
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
        Client::try_from(config).unwrap()
    }

    /// A kind that is there later than others.
    pub async fn add(&self, kind: &(&str, &str, &str, &str, &str)) {
        self.install(kind).await;
        self.installed(kind).await;
    }

    async fn install(&self, kind: &(&str, &str, &str, &str, &str)) {
        let (group, version, kind, plural, scope) = *kind;
        let mut metadata = json!({ "name": format!("{plural}.{group}") });
        if group == "gateway.networking.k8s.io" {
            metadata["annotations"]["api-approved.kubernetes.io"] = "unapproved, of tests".into();
        }
        let schema = json!({
            "type": "object",
            "x-kubernetes-preserve-unknown-fields": true,
        });
        self.apply(json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": metadata,
            "spec": {
                "group": group,
                "names": { "kind": kind, "plural": plural, "singular": kind.to_lowercase() },
                "scope": scope,
                "versions": [{
                    "name": version, "served": true, "storage": true,
                    "schema": { "openAPIV3Schema": schema },
                    "subresources": { "status": {} },
                }],
            },
        }))
        .await;
    }

    /// Waits until a kind can be used.
    async fn installed(&self, kind: &(&str, &str, &str, &str, &str)) {
        let (group, version, kind, ..) = *kind;
        let of = json!({ "apiVersion": format!("{group}/{version}"), "kind": kind });
        let api = self.api(&of).await;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while let Err(error) = api.list(&Default::default()).await {
            assert!(tokio::time::Instant::now() < deadline, "{kind}: {error}");
            tokio::time::sleep(MOMENT).await;
        }
    }

    /// Where objects like this one are.
    pub async fn api(&self, object: &Value) -> Api<DynamicObject> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let api_version = text(&object["apiVersion"]);
        let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
        let kind = text(&object["kind"]);
        let known = KINDS.iter().find(|known| known.0 == group && known.2 == kind);
        let plural = known.map_or_else(|| format!("{}s", kind.to_lowercase()), |k| k.3.to_owned());
        let resource = ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version: api_version.clone(),
            kind,
            plural,
        };
        let client = self.client().await;
        match object["metadata"]["namespace"].as_str() {
            Some(namespace) => Api::namespaced_with(client, namespace, &resource),
            None => Api::all_with(client, &resource),
        }
    }

    /// As `kubectl apply --server-side` does.
    pub async fn apply(&self, object: Value) -> DynamicObject {
        self.apply_as("kubectl", object).await
    }

    pub async fn apply_as(&self, manager: &str, object: Value) -> DynamicObject {
        let name = object["metadata"]["name"].as_str().unwrap();
        let params = PatchParams::apply(manager).force();
        let applied = self.api(&object).await.patch(name, &params, &Patch::Apply(&object)).await;
        applied.unwrap_or_else(|error| panic!("{object}: {error}"))
    }

    pub async fn status(&self, object: Value) {
        let name = object["metadata"]["name"].as_str().unwrap();
        let params = PatchParams::default();
        let api = self.api(&object).await;
        api.patch_status(name, &params, &Patch::Merge(&object)).await.unwrap();
    }

    pub async fn get(&self, of: &Value, name: &str) -> Option<Value> {
        let found = self.api(of).await.get_opt(name).await.unwrap()?;
        Some(serde_json::to_value(found).unwrap())
    }

    /// A projected token, as the kubelet asks for it.
    pub async fn token(&self, namespace: &str, account: &str, audience: &str) -> String {
        let request = json!({ "spec": { "audiences": [audience], "expirationSeconds": 600 } });
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let request = http::Request::post(path)
            .header("content-type", "application/json")
            .body(request.to_string().into_bytes())
            .unwrap();
        let answer: Value = self.client().await.request(request).await.unwrap();
        answer["status"]["token"].as_str().unwrap().to_owned()
    }

    pub async fn namespace(&self, name: &str) {
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name },
        });
        self.apply(namespace).await;
    }

    pub async fn account(&self, namespace: &str, name: &str) {
        self.apply(json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": { "name": name, "namespace": namespace },
        }))
        .await;
    }
}

fn kubeconfig(port: u16, ca: &Path) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{ "name": "c", "cluster": {
            "server": format!("https://127.0.0.1:{port}"),
            "certificate-authority": ca.display().to_string(),
        } }],
        "users": [{ "name": "u", "user": { "token": TOKEN } }],
        "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u" } }],
    })
}
