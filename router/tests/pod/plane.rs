//! A control plane: it signs for service accounts, gives every router the same
//! snapshot, and keeps what it hears.

// Not all that use it need all of it.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::{fs, io};

use prost::Message as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, IsCa, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::{Connected, Server};
use tonic::{Request, Response, Status, Streaming};
use weir_mesh::identity::{ALPN_H2, Svid, TrustBundle, server_config_optional_client};
use weir_proto::weir::mesh::v1 as pb;
use weir_proto::weir::mesh::v1::identity_service_server::{IdentityService, IdentityServiceServer};
use weir_proto::weir::mesh::v1::mesh_service_server::{MeshService, MeshServiceServer};
use weir_proto::weir::mesh::v1::watch_request::Message as In;
use weir_proto::weir::mesh::v1::watch_response::Message as Out;

use crate::world::eventually;

pub const DOMAIN: &str = "cluster.local";

type Ca = CertifiedIssuer<'static, KeyPair>;

pub struct Plane {
    pub address: SocketAddr,
    inner: Arc<Inner>,
}

struct Inner {
    ca: Ca,
    snapshot: watch::Sender<pb::Snapshot>,
    /// Streams begin without a snapshot.
    quiet: AtomicBool,
    /// By router.
    routers: Arc<Mutex<BTreeMap<String, Known>>>,
}

/// What is known of a router.
struct Known {
    /// Of its newest stream.
    hello: pb::Hello,
    /// What it applied last.
    applied: u64,
    /// All that it said since its first stream.
    heard: Vec<In>,
    /// To its newest stream.
    out: mpsc::Sender<Result<pb::WatchResponse, Status>>,
}

pub fn identity(account: &str) -> String {
    format!("spiffe://{DOMAIN}/ns/{}", account.replacen('/', "/sa/", 1))
}

fn ca() -> Ca {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn leaf(ca: &Ca, uri: &str, key: &impl PublicKeyData) -> CertificateDer<'static> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    params.signed_by(key, ca).unwrap().der().clone()
}

impl Plane {
    /// Writes `ca.pem` into `directory`.
    pub async fn start(address: &str, directory: &Path) -> Self {
        let ca = ca();
        fs::write(directory.join("ca.pem"), ca.pem()).unwrap();
        let key = KeyPair::generate().unwrap();
        let chain = vec![leaf(&ca, &identity("weir-system/control-plane"), &key)];
        let own = Svid::new(chain, PrivateKeyDer::try_from(key.serialize_der()).unwrap()).unwrap();
        let bundle = TrustBundle::from_der([ca.der().as_ref()]).unwrap();
        let tls = server_config_optional_client(&own, &bundle, ALPN_H2).unwrap();
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let snapshot = watch::Sender::new(pb::Snapshot::default());
        let (quiet, routers) = (AtomicBool::new(false), Arc::default());
        let inner = Arc::new(Inner { ca, snapshot, quiet, routers });
        let (accepted, incoming) = mpsc::channel(16);
        tokio::spawn(async move {
            let acceptor = TlsAcceptor::from(tls);
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, accepted) = (acceptor.clone(), accepted.clone());
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        let _ = accepted.send(Ok::<_, io::Error>(Io(stream))).await;
                    }
                });
            }
        });
        let server = Server::builder()
            .add_service(IdentityServiceServer::from_arc(inner.clone()))
            .add_service(MeshServiceServer::from_arc(inner.clone()));
        tokio::spawn(server.serve_with_incoming(ReceiverStream::new(incoming)));
        Self { address, inner }
    }

    /// Publishes a snapshot, and waits until these routers have applied it.
    pub async fn publish(&self, mut snapshot: pb::Snapshot, routers: &[&str]) {
        let sequence = self.inner.snapshot.borrow().sequence + 1;
        snapshot.sequence = sequence;
        snapshot.trust_domain = DOMAIN.into();
        snapshot.trust_bundle = vec![self.inner.ca.der().to_vec()];
        self.inner.snapshot.send_replace(snapshot);
        eventually("the snapshot is applied", || {
            let known = self.inner.routers.lock().unwrap();
            let applied = |name: &&str| known.get(*name).is_some_and(|it| it.applied >= sequence);
            let all = routers.iter().all(applied);
            async move { all.then_some(()) }
        })
        .await;
    }

    pub fn hello(&self, router: &str) -> pb::Hello {
        self.inner.routers.lock().unwrap()[router].hello.clone()
    }

    /// The snapshot that is published.
    pub fn snapshot(&self) -> pb::Snapshot {
        self.inner.snapshot.borrow().clone()
    }

    /// From now on streams begin without a snapshot.
    pub fn be_quiet(&self) {
        self.inner.quiet.store(true, Relaxed);
    }

    /// Says something to a router.
    pub async fn say(&self, router: &str, message: Out) {
        let out = self.inner.routers.lock().unwrap()[router].out.clone();
        out.send(Ok(pb::WatchResponse { message: Some(message) })).await.unwrap();
    }

    /// All that a router has said.
    pub fn heard(&self, router: &str) -> Vec<In> {
        let known = self.inner.routers.lock().unwrap();
        known.get(router).map(|known| known.heard.clone()).unwrap_or_default()
    }
}

#[tonic::async_trait]
impl IdentityService for Inner {
    async fn sign(
        &self,
        request: Request<pb::SignRequest>,
    ) -> Result<Response<pb::SignResponse>, Status> {
        let request = request.into_inner();
        let csr = request.csr_der.into();
        let csr = rcgen::CertificateSigningRequestParams::from_der(&csr).unwrap();
        let id = identity(&request.join_token);
        let certificate = leaf(&self.ca, &id, &csr.public_key);
        Ok(Response::new(pb::SignResponse {
            certificate_chain: vec![certificate.to_vec()],
            trust_bundle: vec![self.ca.der().to_vec()],
            spiffe_id: id,
            ..Default::default()
        }))
    }
}

#[tonic::async_trait]
impl MeshService for Inner {
    type WatchStream = ReceiverStream<Result<pb::WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let mut incoming = request.into_inner();
        let Some(In::Hello(hello)) = incoming.message().await?.and_then(|m| m.message) else {
            return Err(Status::invalid_argument("no hello"));
        };
        let (out, outgoing) = mpsc::channel(4);
        let mut snapshots = self.snapshot.subscribe();
        let name = hello.router_id.clone();
        {
            let mut routers = self.routers.lock().unwrap();
            let mut heard = routers.remove(&name).map(|known| known.heard).unwrap_or_default();
            heard.push(In::Hello(hello.clone()));
            let out = out.clone();
            routers.insert(name.clone(), Known { hello, applied: 0, heard, out });
        }
        let routers = self.routers.clone();
        if self.quiet.load(Relaxed) {
            snapshots.mark_unchanged();
        } else {
            snapshots.mark_changed();
        }
        tokio::spawn(async move {
            while snapshots.changed().await.is_ok() {
                let snapshot = snapshots.borrow_and_update().clone();
                if snapshot.sequence > 0 {
                    let bytes = snapshot.encode_to_vec().into();
                    let message = pb::WatchResponse { message: Some(Out::Snapshot(bytes)) };
                    if out.send(Ok(message)).await.is_err() {
                        return;
                    }
                }
            }
        });
        tokio::spawn(async move {
            while let Ok(Some(message)) = incoming.message().await {
                let mut routers = routers.lock().unwrap();
                let (Some(known), Some(said)) = (routers.get_mut(&name), message.message) else {
                    continue;
                };
                match &said {
                    In::Applied(applied) => known.applied = applied.sequence,
                    In::Refused(refused) => eprintln!("{name} refused: {}", refused.reason),
                    _ => {}
                }
                known.heard.push(said);
            }
        });
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}

struct Io(TlsStream<TcpStream>);

impl Connected for Io {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
