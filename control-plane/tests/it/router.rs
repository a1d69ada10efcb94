//! A router as far as the control plane can tell: it has a certificate signed and
//! answers snapshots on a watch stream.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use prost::Message as _;
use rcgen::{CertificateParams, KeyPair};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use weir_mesh::identity::{
    ALPN_H2, SpiffeId, Svid, TrustBundle, bootstrap_client_config, client_config, connect_tls,
};
use weir_mesh::wire::digest::{digest, patch};
use weir_proto::weir::mesh::v1::hello::Role;
use weir_proto::weir::mesh::v1::identity_service_client::IdentityServiceClient;
use weir_proto::weir::mesh::v1::mesh_service_client::MeshServiceClient;
use weir_proto::weir::mesh::v1::watch_request::Message;
use weir_proto::weir::mesh::v1::watch_response::Message as Answer;
use weir_proto::weir::mesh::v1::{
    Applied, Delta, Hello, Instance, Refused, SignRequest, SignResponse, Snapshot, WatchRequest,
};

use crate::plane::Plane;

/// Where to reach a control plane, and whom to expect there.
#[derive(Clone)]
pub struct Door {
    pub address: SocketAddr,
    pub bundle: TrustBundle,
}

impl Door {
    pub fn of(plane: &Plane) -> Self {
        Self { address: plane.running.mesh, bundle: bundle(plane.dir.path()) }
    }

    pub async fn channel(&self, svid: Option<&Svid>) -> Channel {
        let own = SpiffeId::control_plane("weir.local").unwrap();
        let config = match svid {
            Some(svid) => client_config(svid, &self.bundle, &own, ALPN_H2).unwrap(),
            None => bootstrap_client_config(&self.bundle, &own).unwrap(),
        };
        Endpoint::from_static("http://control-plane")
            .connect_with_connector(connect_tls(self.address, config))
            .await
            .unwrap()
    }

    pub async fn sign(
        &self,
        service: &str,
        token: &str,
        csr: Vec<u8>,
    ) -> Result<SignResponse, Status> {
        let mut client = IdentityServiceClient::new(self.channel(None).await);
        let request =
            SignRequest { service: service.into(), join_token: token.into(), csr_der: csr };
        Ok(client.sign(request).await?.into_inner())
    }

    pub async fn svid(&self, service: &str) -> Svid {
        let key = KeyPair::generate().unwrap();
        let signed = self.sign(service, &format!("join-{service}"), csr(&key)).await.unwrap();
        Svid::from_der(signed.certificate_chain, key.serialize_der()).unwrap()
    }
}

pub fn bundle(data: &Path) -> TrustBundle {
    TrustBundle::load(data.join("ca/bundle.pem")).unwrap()
}

pub fn csr(key: &KeyPair) -> Vec<u8> {
    CertificateParams::default().serialize_request(key).unwrap().der().to_vec()
}

pub fn hello(id: &str, service: &str, version: &str, port: u16) -> Hello {
    let gateway = service == "gateway";
    let instance = Instance {
        id: format!("{id}-app"),
        service: service.into(),
        version: version.into(),
        address: format!("127.0.0.1:{port}"),
        zone: "a".into(),
        healthy: true,
        plain: false,
        identity: String::new(),
    };
    Hello {
        router_id: id.into(),
        role: if gateway { Role::Gateway } else { Role::Sidecar }.into(),
        instance: (!gateway).then_some(instance),
        admin_address: "127.0.0.1:9".into(),
        sequence: 0,
        certificate_not_after: 1,
        service: service.into(),
        ..Default::default()
    }
}

/// What a router does with a snapshot.
#[derive(Clone, Copy, PartialEq)]
pub enum Manner {
    Applies,
    /// Refuses each that is newer than its first.
    RefusesChanges,
    /// Never answers.
    Silent,
    /// Refuses every delta.
    RefusesDeltas,
}

/// What came.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Came {
    pub wholes: u32,
    pub deltas: u32,
    /// Of the newest message.
    pub bytes: usize,
    /// Milliseconds after which it was told to come back.
    pub reconnect: Option<u32>,
}

pub struct Router {
    pub requests: mpsc::Sender<WatchRequest>,
    /// The newest snapshot that it got.
    pub snapshot: watch::Receiver<Snapshot>,
    /// How often it was asked to renew.
    pub renewals: watch::Receiver<u32>,
    /// How it got what it got.
    pub came: watch::Receiver<Came>,
    task: tokio::task::JoinHandle<Status>,
}

impl Router {
    pub async fn connect(door: &Door, hello: Hello, manner: Manner) -> Self {
        let svid = door.svid(&hello.service).await;
        Self::with(door, &svid, hello, manner).await
    }

    pub async fn with(door: &Door, svid: &Svid, hello: Hello, manner: Manner) -> Self {
        Self::resume(door, svid, hello, manner, Snapshot::default()).await
    }

    /// One that has a snapshot already.
    pub async fn resume(
        door: &Door,
        svid: &Svid,
        hello: Hello,
        manner: Manner,
        had: Snapshot,
    ) -> Self {
        let mut client = MeshServiceClient::new(door.channel(Some(svid)).await)
            .max_decoding_message_size(usize::MAX);
        let (requests, stream) = mpsc::channel(16);
        let first = WatchRequest { message: Some(Message::Hello(hello)) };
        requests.send(first).await.unwrap();
        let (snapshots, snapshot) = watch::channel(had);
        let (renewed, renewals) = watch::channel(0);
        let (coming, came) = watch::channel(Came::default());
        let answers = requests.clone();
        let task = tokio::spawn(async move {
            let mut stream = match client.watch(ReceiverStream::new(stream)).await {
                Ok(stream) => stream.into_inner(),
                Err(status) => return status,
            };
            loop {
                match stream.message().await {
                    Err(status) => return status,
                    Ok(None) => return Status::ok(""),
                    Ok(Some(response)) => match response.message.unwrap() {
                        Answer::Renew(_) => renewed.send_modify(|count| *count += 1),
                        Answer::Reconnect(told) => {
                            coming.send_modify(|came| came.reconnect = Some(told.after_ms));
                        }
                        Answer::Delta(bytes) => {
                            let length = bytes.len();
                            let mut new = snapshots.borrow().clone();
                            let base = digest(&mut new);
                            let delta = Delta::decode(bytes).unwrap();
                            let (first, sequence) = (false, delta.sequence);
                            if manner == Manner::RefusesDeltas {
                                let reason = "another base".into();
                                let refused = Message::Refused(Refused { sequence, reason });
                                let _ = answers.send(WatchRequest { message: Some(refused) }).await;
                            } else {
                                patch(&mut new, &base, delta).unwrap();
                                snapshots.send_replace(new);
                                let _ = answers.send(reply(manner, first, sequence)).await;
                            }
                            coming.send_modify(|came| {
                                (came.deltas, came.bytes) = (came.deltas + 1, length);
                            });
                        }
                        Answer::Snapshot(bytes) => {
                            let length = bytes.len();
                            coming.send_modify(|came| {
                                (came.wholes, came.bytes) = (came.wholes + 1, length);
                            });
                            let new = Snapshot::decode(bytes).unwrap();
                            let first = snapshots.borrow().sequence == 0;
                            let sequence = new.sequence;
                            snapshots.send_replace(new);
                            let _ = answers.send(reply(manner, first, sequence)).await;
                        }
                    },
                }
            }
        });
        Self { requests, snapshot, renewals, came, task }
    }

    pub async fn send(&self, message: Message) {
        self.requests.send(WatchRequest { message: Some(message) }).await.unwrap();
    }

    /// Waits for a snapshot that is as wanted.
    pub async fn sees(&mut self, what: &str, wanted: impl Fn(&Snapshot) -> bool) -> Snapshot {
        let seen = self.snapshot.wait_for(|snapshot| wanted(snapshot));
        let seen = tokio::time::timeout(Duration::from_secs(20), seen).await;
        seen.unwrap_or_else(|_| panic!("never seen: {what}")).unwrap().clone()
    }

    /// Whether the stream ended.
    #[cfg(feature = "kubernetes")]
    pub fn has_ended(&self) -> bool {
        self.task.is_finished()
    }

    /// How the stream ended.
    pub async fn end(self) -> Status {
        let ended = tokio::time::timeout(Duration::from_secs(20), self.task).await;
        ended.expect("the stream goes on").unwrap()
    }

    /// Goes without a word, as a killed process does.
    pub fn kill(self) {
        self.task.abort();
    }
}

fn reply(manner: Manner, first: bool, sequence: u64) -> WatchRequest {
    let message = match manner {
        Manner::Applies | Manner::RefusesDeltas => {
            Some(Message::Applied(Applied { sequence, apply_micros: 7 }))
        }
        Manner::RefusesChanges if first => {
            Some(Message::Applied(Applied { sequence, apply_micros: 7 }))
        }
        Manner::RefusesChanges => {
            Some(Message::Refused(Refused { sequence, reason: "routes[0]: no".into() }))
        }
        Manner::Silent => None,
    };
    WatchRequest { message }
}

pub fn versions(snapshot: &Snapshot, service: &str) -> Vec<(String, i32)> {
    let service = snapshot.services.iter().find(|s| s.name == service);
    service.into_iter().flat_map(|s| &s.versions).map(|v| (v.version.clone(), v.weight)).collect()
}

/// Fails the test unless the call was refused with `code`.
pub fn refused<T>(result: Result<T, Status>, code: Code) -> String {
    let status = result.err().expect("it was accepted");
    assert_eq!(status.code(), code, "{status}");
    status.message().to_owned()
}
