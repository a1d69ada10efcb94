//! A control plane as a process, on a real API server.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;

use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use weir_mesh::identity::TrustBundle;

use super::server::Server;
use crate::plane::eventually;
use crate::router::Door;

pub struct Replica {
    pub server: Arc<Server>,
    pub namespace: String,
    pub pod: String,
    child: tokio::process::Child,
    dir: tempfile::TempDir,
}

impl Replica {
    /// A process; it may take a while until it leads.
    pub async fn spawn(server: &Arc<Server>, namespace: &str, pod: &str) -> Self {
        server.namespace(namespace).await;
        server
            .apply(json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": { "name": pod, "namespace": namespace, "labels": { "app": "weir" } },
                "spec": { "containers": [{ "name": "control-plane", "image": "weir" }] },
            }))
            .await;
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let args = format!(
            "--kubernetes --data {} --ready-file {} --namespace {namespace} --pod {pod} \
             --trust-domain weir.local --log-level debug --mesh-listen {}:0 --access {}",
            path("data"),
            path("ready.json"),
            own_address(),
            path("access.yaml"),
        );
        std::fs::write(path("access.yaml"), "").unwrap();
        let log = std::fs::File::create(path("log")).unwrap();
        let child = tokio::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "process::child", "--nocapture"])
            .env("WEIR_TEST_CONTROL_PLANE_ARGS", args)
            .env("KUBECONFIG", server.kubeconfig())
            .stdout(Stdio::from(log.try_clone().unwrap()))
            .stderr(Stdio::from(log))
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self {
            server: server.clone(),
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            child,
            dir,
        }
    }

    /// Three that know of each other, the first of which leads.
    pub async fn trio(server: &Arc<Server>, namespace: &str) -> [Self; 3] {
        let first = Self::lead(server, namespace, "cp-1").await;
        let second = Self::spawn(server, namespace, "cp-2").await;
        let third = Self::spawn(server, namespace, "cp-3").await;
        let mut all = [first, second, third];
        for replica in &all {
            replica.serves().await;
            replica.announce().await;
        }
        let mut leader = String::new();
        for replica in &all {
            leader = replica.knows(all.len()).await;
        }
        // On a busy machine it need not be the first that is there.
        let leads = all.iter().position(|replica| replica.pod == leader).unwrap();
        all.swap(0, leads);
        all
    }

    /// Waits until it is in touch with all others, and knows who leads.
    async fn knows(&self, count: usize) -> String {
        for _ in 0..3 {
            let found = tokio::time::timeout(
                std::time::Duration::from_secs(9),
                eventually("replicas in touch", async || {
                    let told = self.get("/v1/replicas").await;
                    let told = told["replicas"].as_array()?.clone();
                    let touch = told.iter().filter(|replica| replica["inTouch"] == true).count();
                    let leader = told.iter().find(|replica| replica["leads"] == true)?;
                    (touch == count).then(|| leader["name"].as_str().unwrap().to_owned())
                }),
            );
            if let Ok(leader) = found.await {
                return leader;
            }
        }
        panic!("{} {}", self.get("/v1/replicas").await, self.log());
    }

    /// What the cluster's own controller does when its pod is ready: it becomes an
    /// endpoint of the Service.
    pub async fn announce(&self) {
        let address = self.address("mesh").await;
        self.server
            .apply(json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": {
                    "name": format!("weir-control-plane-{}", self.pod),
                    "namespace": self.namespace,
                    "labels": { "kubernetes.io/service-name": "weir-control-plane" },
                },
                "addressType": "IPv4",
                "endpoints": [{
                    "addresses": [address.ip().to_string()],
                    "conditions": { "ready": true },
                    "targetRef": { "kind": "Pod", "name": self.pod, "namespace": self.namespace },
                }],
                "ports": [{ "name": "mesh", "port": address.port(), "protocol": "TCP" }],
            }))
            .await;
    }

    /// One that leads.
    pub async fn lead(server: &Arc<Server>, namespace: &str, pod: &str) -> Self {
        let replica = Self::spawn(server, namespace, pod).await;
        replica.leads().await;
        replica
    }

    fn ready(&self) -> Option<Value> {
        let text = std::fs::read_to_string(self.dir.path().join("ready.json")).ok()?;
        serde_json::from_str(&text).ok()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Waits until it leads.
    pub async fn leads(&self) -> Value {
        // A lead that was not given up is waited for.
        for _ in 0..3 {
            let found = tokio::time::timeout(
                std::time::Duration::from_secs(9),
                eventually("a leader", async || self.ready().filter(|_| self.is_leading())),
            );
            if let Ok(ready) = found.await {
                return ready;
            }
        }
        panic!("it does not lead: {}", self.log());
    }

    /// As the kubelet does: starts it again when it ended.
    pub async fn or_restarted(mut self) -> Self {
        match self.child.try_wait().unwrap() {
            None => self,
            Some(_) => Self::lead(&self.server, &self.namespace, &self.pod).await,
        }
    }

    /// Waits until it answers for the mesh, leading or not.
    pub async fn serves(&self) -> Value {
        for _ in 0..3 {
            let found = tokio::time::timeout(
                std::time::Duration::from_secs(9),
                eventually("service", async || self.ready().filter(|r| r["mesh"].is_string())),
            );
            if let Ok(ready) = found.await {
                return ready;
            }
        }
        panic!("it does not serve: {}", self.log());
    }

    /// Says who may use the API; it takes a moment.
    pub fn access(&self, text: &str) {
        std::fs::write(self.dir.path().join("access.yaml"), text).unwrap();
    }

    pub fn is_leading(&self) -> bool {
        let log = self.log();
        let last = |what: &str| log.rfind(what).map_or(0, |at| at + 1);
        last("leading") > last("the lead was lost")
    }

    pub async fn address(&self, of: &str) -> SocketAddr {
        let ready =
            eventually("a ready file", async || self.ready().filter(|ready| ready[of].is_string()));
        ready.await[of].as_str().unwrap().parse().unwrap()
    }

    /// Where routers connect to, with the roots that the Secret has.
    pub async fn door(&self) -> Door {
        let of = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "namespace": self.namespace },
        });
        let secret = self.server.get(&of, "weir-ca").await.expect("no authority");
        let pem = base64(secret["data"]["ca.pem"].as_str().unwrap());
        let bundle = TrustBundle::from_pem(pem).unwrap();
        Door { address: self.address("mesh").await, bundle }
    }

    pub async fn token(&self) -> String {
        let of = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "namespace": self.namespace },
        });
        let secret = self.server.get(&of, "weir-api-token").await.expect("no token");
        String::from_utf8(base64(secret["data"]["token"].as_str().unwrap())).unwrap()
    }

    pub async fn http(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let token = self.token().await;
        let (status, text) = self.raw(method, path, &token, &body).await;
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    pub async fn get(&self, path: &str) -> Value {
        let (status, json) = self.http("GET", path, Value::Null).await;
        assert_eq!(status, 200, "{path}: {json}");
        json
    }

    pub async fn raw(&self, method: &str, path: &str, token: &str, body: &Value) -> (u16, String) {
        let client: Client<HttpConnector, Full<bytes::Bytes>> =
            Client::builder(TokioExecutor::new()).build_http();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = http::Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address("api").await))
            .header("authorization", format!("Bearer {token}"))
            .body(Full::new(body.into()))
            .unwrap();
        let answer = client.request(request).await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    /// SIGTERM, and waits for its end.
    pub async fn stop(mut self) {
        let pid = self.child.id().unwrap().to_string();
        let killed = std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        assert!(killed.success());
        let status = tokio::time::timeout(std::time::Duration::from_secs(20), self.child.wait());
        let status = status.await.expect("it does not end").unwrap();
        assert!(status.success(), "{status}: {}", self.log());
    }

    /// Stops its threads where they are, or lets them go on.
    pub fn freeze(&self, frozen: bool) {
        let pid = self.child.id().unwrap().to_string();
        let signal = if frozen { "-STOP" } else { "-CONT" };
        let sent = std::process::Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(sent.success());
    }

    /// `kill -9`.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}

/// This machine's own: endpoints may not be on the loopback address. Nothing is sent.
fn own_address() -> std::net::IpAddr {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    // TEST-NET-3 (RFC 5737).
    match socket.connect("203.0.113.1:9").and_then(|()| socket.local_addr()) {
        Ok(own) => own.ip(),
        Err(_) => std::net::Ipv4Addr::LOCALHOST.into(),
    }
}

/// Whether several replicas can be endpoints here.
pub fn can_announce() -> bool {
    let can = !own_address().is_loopback();
    assert!(can || std::env::var("WEIR_TESTS").as_deref() != Ok("all"), "no address but loopback");
    can
}

pub fn base64(text: &str) -> Vec<u8> {
    let secret: k8s_openapi::ByteString =
        serde_json::from_value(Value::String(text.to_owned())).unwrap();
    secret.0
}
