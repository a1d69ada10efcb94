//! The control plane that is driven: a process of its own, and its API.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};
use weir_mesh::identity::TrustBundle;
use weir_proto::weir::control::v1 as pb;
use weir_proto::weir::control::v1::control_service_client::ControlServiceClient;
use weir_proto::weir::mesh::v1::Service;

use crate::cpu::Sample;

/// For a start.
const READY: Duration = Duration::from_secs(60);

/// Where it listens.
#[derive(Deserialize, Clone, Copy)]
pub struct Bound {
    api: SocketAddr,
    pub mesh: SocketAddr,
    otlp: SocketAddr,
}

/// A control plane that serves; killed when dropped.
pub struct Plane {
    program: PathBuf,
    data: PathBuf,
    child: Child,
    pub bound: Bound,
}

impl Plane {
    /// Starts one on a new directory, with a join token `join-SERVICE` for each service.
    pub async fn start(program: &Path, data: &Path, services: &[String]) -> Result<Self, String> {
        let tokens: serde_json::Map<_, _> =
            services.iter().map(|name| (name.clone(), format!("join-{name}").into())).collect();
        let tokens = serde_json::Value::from(tokens).to_string();
        fs::write(data.join("join.json"), tokens).map_err(|e| e.to_string())?;
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let any = Bound { api: any, mesh: any, otlp: any };
        let (child, bound) = spawn(program, data, any).await?;
        Ok(Self { program: program.to_owned(), data: data.to_owned(), child, bound })
    }

    /// Kills it as `kill -9` does, and starts it again at the same addresses. Gives
    /// when it was killed.
    pub async fn kill(&mut self) -> Result<Instant, String> {
        let at = Instant::now();
        self.child.kill().map_err(|e| e.to_string())?;
        self.child.wait().map_err(|e| e.to_string())?;
        let (child, bound) = spawn(&self.program, &self.data, self.bound).await?;
        (self.child, self.bound) = (child, bound);
        Ok(at)
    }

    /// What it has used up to now.
    pub fn used(&self) -> Result<Sample, String> {
        Sample::take(self.child.id()).map_err(|e| e.to_string())
    }

    /// Resident bytes: now, and the most so far.
    pub fn memory(&self) -> (u64, u64) {
        let path = format!("/proc/{}/status", self.child.id());
        let status = fs::read_to_string(path).unwrap_or_default();
        let kib = |name| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
        };
        let (now, most): (u64, u64) = (kib("VmRSS:"), kib("VmHWM:"));
        (now * 1024, most * 1024)
    }

    /// Roots that it signs with.
    pub fn bundle(&self) -> Result<TrustBundle, String> {
        TrustBundle::load(self.data.join("data/ca/bundle.pem")).map_err(|e| e.to_string())
    }

    /// A client of its API.
    pub async fn api(&self) -> Result<Api, String> {
        let token = fs::read_to_string(self.data.join("data/token")).map_err(|e| e.to_string())?;
        let endpoint = Endpoint::from_shared(format!("http://{}", self.bound.api));
        let channel = endpoint.map_err(|e| e.to_string())?.connect().await;
        let client = ControlServiceClient::new(channel.map_err(|e| e.to_string())?);
        Ok(Api { client, authorization: format!("Bearer {}", token.trim()) })
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn spawn(program: &Path, data: &Path, at: Bound) -> Result<(Child, Bound), String> {
    let ready = data.join("ready.json");
    let _ = fs::remove_file(&ready);
    let log = fs::File::options().create(true).append(true).open(data.join("log"));
    let mut command = Command::new(program);
    command.arg("control-plane").arg("--data").arg(data.join("data"));
    command.arg("--join-tokens").arg(data.join("join.json")).arg("--ready-file").arg(&ready);
    for (option, address) in
        [("--api-listen", at.api), ("--mesh-listen", at.mesh), ("--otlp-listen", at.otlp)]
    {
        command.args([option, &address.to_string()]);
    }
    command.args(["--log-level", "warn"]).stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(log.map_err(|e| e.to_string())?);
    let mut child = command.spawn().map_err(|e| format!("{}: {e}", program.display()))?;
    let deadline = Instant::now() + READY;
    while Instant::now() < deadline {
        if let Ok(text) = fs::read_to_string(&ready)
            && let Ok(bound) = serde_json::from_str(&text)
        {
            return Ok((child, bound));
        }
        if let Ok(Some(status)) = child.try_wait() {
            let log = fs::read_to_string(data.join("log")).unwrap_or_default();
            return Err(format!("the control plane ended: {status}\n{log}"));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let _ = child.kill();
    Err(format!("the control plane does not serve within {READY:?}"))
}

/// The control-plane API.
pub struct Api {
    client: ControlServiceClient<Channel>,
    authorization: String,
}

impl Api {
    fn request<T>(&self, message: T) -> Result<Request<T>, String> {
        let mut request = Request::new(message);
        let value = self.authorization.parse().map_err(|_| "the token is no header's value")?;
        request.metadata_mut().insert("authorization", value);
        Ok(request)
    }

    /// Makes services.
    pub async fn apply(&mut self, services: Vec<Service>) -> Result<(), String> {
        let request = self.request(pb::ApplyRequest { services, ..Default::default() })?;
        self.client.apply(request).await.map(drop).map_err(|status| status.to_string())
    }

    /// Moves weights, and waits until every router has them.
    pub async fn shift(
        &mut self,
        service: &str,
        weights: [i32; 2],
    ) -> Result<pb::ChangeResponse, String> {
        let weights = [("v1".to_owned(), weights[0]), ("v2".to_owned(), weights[1])].into();
        let (service, wait_seconds) = (service.to_owned(), 120);
        let shift =
            pb::ShiftRequest { service, weights, wait: true, wait_seconds, ..Default::default() };
        let request = self.request(shift)?;
        let answer = self.client.shift(request).await;
        answer.map(tonic::Response::into_inner).map_err(|status| status.to_string())
    }

    /// What it says of the mesh.
    pub async fn mesh(&mut self) -> Result<pb::Mesh, String> {
        let request = self.request(pb::GetMeshRequest {})?;
        let answer = self.client.get_mesh(request).await;
        answer.map(tonic::Response::into_inner).map_err(|status| status.to_string())
    }
}
