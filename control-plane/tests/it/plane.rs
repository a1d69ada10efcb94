//! A control plane in this process, and clients of its API.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use weir_control_plane::{Config, Running, StartError, start};
use weir_mesh::shutdown::Shutdown;
use weir_proto::weir::control::v1::control_service_client::ControlServiceClient;

pub const JOIN_TOKENS: &str =
    r#"{"products": "join-products", "users": "join-users", "gateway": "join-gateway"}"#;

/// Where the data is: removed at the end if it is this plane's own.
pub enum Dir {
    Own(tempfile::TempDir),
    Given(std::path::PathBuf),
}

impl Dir {
    pub fn path(&self) -> &Path {
        match self {
            Self::Own(dir) => dir.path(),
            Self::Given(path) => path,
        }
    }
}

pub struct Plane {
    pub dir: Dir,
    pub running: Running,
    pub token: String,
    lifetime: Duration,
}

pub fn config(data: &Path, lifetime: Duration) -> Config {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    Config {
        data: data.to_owned(),
        api_listen: any,
        write_back_secret: None,
        mesh_listen: any,
        otlp_listen: any,
        token_file: data.join("token"),
        join_tokens: Some(data.join("join.json")),
        trust_domain: "weir.local".into(),
        certificate_lifetime: lifetime,
        consul: weir_control_plane::ConsulArgs::default(),
        access: weir_control_plane::AccessArgs::default(),
        store: weir_control_plane::StoreArgs::default(),
    }
}

impl Plane {
    pub async fn start() -> Self {
        Self::with_lifetime(Duration::from_secs(3600)).await
    }

    pub async fn with_lifetime(lifetime: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("join.json"), JOIN_TOKENS).unwrap();
        Self::at(Dir::Own(dir), lifetime).await
    }

    /// One on data that is there already.
    pub async fn over(data: &Path) -> Self {
        Self::at(Dir::Given(data.to_owned()), Duration::from_secs(3600)).await
    }

    /// One with this file for `--access`, and whatever else `tune` sets.
    pub async fn with_access(access: &str, tune: impl FnOnce(&mut Config)) -> Self {
        let lifetime = Duration::from_secs(3600);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("join.json"), JOIN_TOKENS).unwrap();
        let file = dir.path().join("access.yaml");
        std::fs::write(&file, access).unwrap();
        let mut config = config(dir.path(), lifetime);
        config.access.access = Some(file);
        tune(&mut config);
        let running = start(config, Shutdown::new()).await.unwrap();
        let token = std::fs::read_to_string(dir.path().join("token")).unwrap().trim().to_owned();
        Self { dir: Dir::Own(dir), running, token, lifetime }
    }

    async fn at(dir: Dir, lifetime: Duration) -> Self {
        let running = start(config(dir.path(), lifetime), Shutdown::new()).await.unwrap();
        let token = std::fs::read_to_string(dir.path().join("token")).unwrap().trim().to_owned();
        Self { dir, running, token, lifetime }
    }

    /// Stops it and starts another on the same data, at the same mesh address.
    pub async fn restart(self) -> Self {
        let Self { dir, running, token, lifetime } = self;
        let mesh = running.mesh;
        running.stop().await;
        let mut config = config(dir.path(), lifetime);
        config.mesh_listen = mesh;
        // What it still has to do in the background may hold the store for a moment.
        let running = eventually("the store is free", async || {
            match start(config.clone(), Shutdown::new()).await {
                Err(error) if error.to_string().contains("in use") => None,
                started => Some(started.unwrap()),
            }
        })
        .await;
        Self { dir, running, token, lifetime }
    }

    /// A second one on the same data.
    pub async fn second(&self) -> Result<Running, StartError> {
        start(config(self.dir.path(), self.lifetime), Shutdown::new()).await
    }

    pub async fn http(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        self.http_as(&self.token, method, path, body).await
    }

    pub async fn http_as(
        &self,
        token: &str,
        method: &str,
        path: &str,
        body: Value,
    ) -> (u16, Value) {
        let auth = format!("Bearer {token}");
        let headers = [("authorization", auth.as_str())];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (status, text) = self.raw(method, path, &headers, body).await;
        let json = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
        (status, json)
    }

    pub async fn get(&self, path: &str) -> Value {
        let (status, json) = self.http("GET", path, Value::Null).await;
        assert_eq!(status, 200, "{path}: {json}");
        json
    }

    pub async fn post(&self, path: &str, body: Value) -> Value {
        let (status, json) = self.http("POST", path, body).await;
        assert_eq!(status, 200, "{path}: {json}");
        json
    }

    pub async fn raw(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: String,
    ) -> (u16, String) {
        let client: Client<HttpConnector, Full<bytes::Bytes>> =
            Client::builder(TokioExecutor::new()).build_http();
        let mut request = http::Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.running.api));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        let answer = client.request(request).await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    pub async fn grpc(&self) -> ControlServiceClient<InterceptedService<Channel, Bearer>> {
        self.grpc_with(&self.token).await
    }

    pub async fn grpc_with(
        &self,
        token: &str,
    ) -> ControlServiceClient<InterceptedService<Channel, Bearer>> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.running.api)).unwrap();
        let channel = endpoint.connect().await.unwrap();
        ControlServiceClient::with_interceptor(channel, Bearer(token.to_owned()))
    }

    /// products (v1=100 v2=0) and users, with one route to products.
    pub async fn seed(&self) {
        let answer = self.post("/v1/apply", mesh()).await;
        assert_eq!(answer["revision"], 1, "{answer}");
    }
}

pub fn mesh() -> Value {
    json!({
        "services": [
            {"name": "products", "protocol": "PROTOCOL_GRPC",
             "versions": [{"version": "v1", "weight": 100}, {"version": "v2", "weight": 0}]},
            {"name": "users", "protocol": "PROTOCOL_HTTP1",
             "versions": [{"version": "v1", "weight": 1}]},
        ],
        "routes": [route("web", "products")],
        "reason": "first",
    })
}

pub fn route(name: &str, service: &str) -> Value {
    json!({
        "name": name, "kind": "HTTP_ROUTE",
        "parentRefs": [{"kind": "Gateway", "name": "gateway"}],
        "rules": [{"matches": [{"pathType": "PATH_PREFIX", "path": "/v1"}],
                   "backendRefs": [{"service": service, "weight": 1}]}],
    })
}

#[derive(Clone)]
pub struct Bearer(String);

impl Interceptor for Bearer {
    fn call(
        &mut self,
        mut request: tonic::Request<()>,
    ) -> Result<tonic::Request<()>, tonic::Status> {
        if !self.0.is_empty() {
            let value = MetadataValue::try_from(format!("Bearer {}", self.0)).unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }
}

/// Polls until `check` gives something; fails after ten seconds.
pub async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
