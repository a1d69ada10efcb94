//! Tells routers what to do, and hears from them.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use weir_mesh::identity::SpiffeId;
use weir_mesh::model::{Invalid, ServiceName, Transport, Violations};
use weir_mesh::wire;
use weir_proto::weir::mesh::v1 as pb;
use weir_proto::weir::mesh::v1::mesh_service_server::MeshService;
use weir_proto::weir::mesh::v1::watch_request::Message;
use weir_proto::weir::mesh::v1::watch_response;

use super::error;
use crate::control::Control;
use crate::publish::Published;
use crate::registry::{Refusal, Registration, Role, Ticket};
use crate::store::Revision;

/// How long a router may take to say who it is.
const HELLO: Duration = Duration::from_secs(10);
/// Snapshots whose answer may still come.
const UNANSWERED: usize = 64;
/// Characters of a refusal that are kept.
const MAX_REASON: usize = 1000;

/// Whose certificate a connection was made with.
#[derive(Debug, Clone)]
pub struct Peer(pub SpiffeId);

/// Serves watch streams.
pub struct Watch(pub Arc<Control>);

type Answers = mpsc::Sender<Result<pb::WatchResponse, Status>>;

#[tonic::async_trait]
impl MeshService for Watch {
    type WatchStream = ReceiverStream<Result<pb::WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let peer = request.extensions().get::<Peer>().cloned().ok_or_else(|| {
            Status::unauthenticated("a client certificate is needed; have one signed first")
        })?;
        let control = self.0.clone();
        let requests = request.into_inner();
        // One slot: while a router reads slowly, newer snapshots replace older ones.
        let (answers, stream) = mpsc::channel(1);
        tokio::spawn(async move {
            if let Err(status) = serve(&control, &peer.0, requests, &answers).await {
                // The router may be gone: then nobody needs to hear why.
                let _ = answers.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

async fn serve(
    control: &Control,
    peer: &SpiffeId,
    mut requests: Streaming<pb::WatchRequest>,
    answers: &Answers,
) -> Result<(), Status> {
    let first = tokio::time::timeout(HELLO, requests.message());
    let first = first.await.map_err(|_| Status::deadline_exceeded("no hello came in 10 s"))??;
    let Some(Message::Hello(hello)) = first.and_then(|first| first.message) else {
        return Err(Status::invalid_argument("the first message must be hello"));
    };
    let registration = registration(control, peer, &hello).map_err(|error| match error {
        HelloError::Invalid(invalid) => error::invalid(&invalid),
        HelloError::Identity(why) => Status::permission_denied(why),
    })?;
    let (role, service) = (registration.role, registration.service.clone());
    let ticket = control
        .registry
        .register_at(registration, hello.opened)
        .map_err(|taken| Status::permission_denied(taken.to_string()))?;
    tracing::info!(router = %ticket.id, role = role.as_str(), %service, "a router is here");
    let mut stream = Stream {
        control,
        service,
        ticket,
        newest: control.publisher.watch(role),
        sent: VecDeque::with_capacity(UNANSWERED),
        last: 0,
        floor: hello.revision,
        settled: control.replica.settled.subscribe(),
    };
    stream.resume(hello.sequence);
    let ended = stream.run(&mut requests, answers).await;
    match &ended {
        Ok(End::Left) => control.registry.leave(&stream.ticket),
        Ok(End::Replaced) => {}
        Ok(End::Closed) | Err(_) => control.registry.lost(&stream.ticket),
    }
    tracing::info!(router = %stream.ticket.id, how = ?ended.as_ref().ok(), "a stream ended");
    match ended? {
        End::Replaced => Err(Status::aborted("another stream speaks for this router")),
        End::Left | End::Closed => Ok(()),
    }
}

#[derive(Debug)]
enum End {
    /// The router said it leaves.
    Left,
    /// It closed the stream without saying so.
    Closed,
    /// It has another stream.
    Replaced,
}

struct Stream<'a> {
    control: &'a Control,
    service: ServiceName,
    ticket: Ticket,
    newest: watch::Receiver<Arc<Published>>,
    /// What was sent: an answer names only the sequence.
    sent: VecDeque<(u64, Revision)>,
    /// The newest sequence that was sent.
    last: u64,
    /// What it runs already, perhaps from another control plane: nothing older is sent.
    floor: Revision,
    /// Whether what is published is of the whole mesh.
    settled: watch::Receiver<bool>,
}

impl Stream<'_> {
    /// A router that runs the newest snapshot already need not get it again.
    fn resume(&mut self, sequence: u64) {
        let newest = self.newest.borrow().clone();
        if sequence != 0 && sequence == newest.sequence {
            self.last = sequence;
            self.control.registry.applied(&self.ticket, sequence, newest.revision, 0);
        }
    }

    async fn run(
        &mut self,
        requests: &mut Streaming<pb::WatchRequest>,
        answers: &Answers,
    ) -> Result<End, Status> {
        let mut renew = self.control.renew.subscribe();
        loop {
            let settled = *self.settled.borrow_and_update();
            let behind = settled && {
                let newest = self.newest.borrow_and_update();
                newest.sequence > self.last && newest.revision >= self.floor
            };
            tokio::select! {
                request = requests.message() => match request? {
                    None => return Ok(End::Closed),
                    Some(request) => {
                        if self.hear(request)? {
                            return Ok(End::Left);
                        }
                    }
                },
                slot = answers.reserve(), if behind => {
                    let slot = slot.map_err(|_| Status::cancelled("the router is gone"))?;
                    slot.send(Ok(self.snapshot()));
                }
                _ = self.newest.changed() => {}
                _ = self.settled.changed(), if !settled => {}
                _ = renew.changed() => {
                    let trust_bundle =
                        self.control.authority.bundle().iter().map(|der| der.to_vec()).collect();
                    let renew = pb::RenewCertificate { trust_bundle };
                    let message = Some(watch_response::Message::Renew(renew));
                    let sent = answers.send(Ok(pb::WatchResponse { message })).await;
                    sent.map_err(|_| Status::cancelled("the router is gone"))?;
                }
                () = self.ticket.replaced() => return Ok(End::Replaced),
                () = self.control.shutdown.requested() => {
                    return Err(Status::unavailable("the control plane is stopping; come back"));
                }
            }
        }
    }

    fn snapshot(&mut self) -> pb::WatchResponse {
        let newest = self.newest.borrow_and_update().clone();
        if self.sent.len() == UNANSWERED {
            self.sent.pop_front();
        }
        self.sent.push_back((newest.sequence, newest.revision));
        self.last = newest.sequence;
        let message = Some(watch_response::Message::Snapshot(newest.bytes.clone()));
        pb::WatchResponse { message }
    }

    /// The desired state that a snapshot sent on this stream was made from.
    fn revision(&self, sequence: u64) -> Option<Revision> {
        self.sent.iter().find(|(sent, _)| *sent == sequence).map(|(_, revision)| *revision)
    }

    /// True: the router leaves.
    fn hear(&self, request: pb::WatchRequest) -> Result<bool, Status> {
        let registry = &self.control.registry;
        match request.message {
            Some(Message::Applied(applied)) => {
                // An answer to what was never sent, or too long ago, says nothing.
                if let Some(revision) = self.revision(applied.sequence) {
                    let micros = applied.apply_micros;
                    registry.applied(&self.ticket, applied.sequence, revision, micros);
                }
            }
            Some(Message::Refused(refused)) => {
                let reason: String = refused.reason.chars().take(MAX_REASON).collect();
                tracing::warn!(router = %self.ticket.id, reason, "a snapshot was refused");
                if let Some(revision) = self.revision(refused.sequence) {
                    let sequence = refused.sequence;
                    registry.refused(&self.ticket, Refusal { sequence, revision, reason });
                }
            }
            Some(Message::Health(health)) => {
                let not_after = health.certificate_not_after;
                let not_after = (not_after != 0).then_some(not_after);
                registry.health(&self.ticket, health.healthy, not_after);
            }
            Some(Message::Report(report)) => {
                self.control.report(&self.ticket.id, &self.service, report);
            }
            Some(Message::Leave(_)) => return Ok(true),
            Some(Message::Hello(_)) => {
                return Err(Status::invalid_argument("hello is said once; open another stream"));
            }
            // A newer router may say what this control plane does not know.
            None => {}
        }
        Ok(false)
    }
}

enum HelloError {
    /// Fields that are wrong.
    Invalid(Invalid),
    /// Not the certificate's.
    Identity(String),
}

/// What a router says of itself, if its certificate says the same.
fn registration(
    control: &Control,
    peer: &SpiffeId,
    hello: &pb::Hello,
) -> Result<Registration, HelloError> {
    let mut bad = Violations::new();
    let id = hello.router_id.as_str();
    if id.is_empty() || id.len() > 253 || !id.bytes().all(|b| b.is_ascii_graphic()) {
        bad.add("hello.routerId", "must have 1 to 253 visible ASCII characters");
    }
    let service = bad.take("hello.service", hello.service.parse::<ServiceName>());
    let instance = match hello.instance.as_ref().map(|i| wire::instance(i, "hello.instance")) {
        None => None,
        Some(Ok(instance)) => Some(instance),
        Some(Err(invalid)) => {
            bad.extend(invalid);
            None
        }
    };
    let role = match hello.role() {
        pb::hello::Role::Sidecar => Some(Role::Sidecar),
        pb::hello::Role::Gateway if hello.instance.is_some() => {
            bad.add("hello.instance", "a gateway registers no instance");
            None
        }
        pb::hello::Role::Gateway => Some(Role::Gateway),
        pb::hello::Role::Unspecified => {
            bad.add("hello.role", "is missing; use SIDECAR or GATEWAY");
            None
        }
    };
    if let Some(instance) = &instance {
        let ip = instance.address.ip();
        if ip.is_unspecified() || ip.is_multicast() || instance.address.port() == 0 {
            bad.add(
                "hello.instance.address",
                format_args!("{} cannot be connected to; give the real one", instance.address),
            );
        }
        // A router cannot talk its callers out of mutual TLS.
        if instance.transport != Transport::Mesh {
            bad.add("hello.instance.plain", "is set; an instance behind a router is not plain");
        }
        if service.as_ref().is_some_and(|service| *service != instance.service) {
            bad.add("hello.instance.service", "is not hello.service");
        }
    }
    let admin = hello.admin_address.as_str();
    if !admin.is_empty() && admin.parse::<SocketAddr>().is_err() {
        bad.add("hello.adminAddress", format_args!("{admin:?} is not `ip:port`"));
    }
    let (service, role) = bad.finish(service.zip(role)).map_err(HelloError::Invalid)?;
    if let Some(attest) = &control.attest {
        attest.admit(peer, id, role).map_err(HelloError::Identity)?;
    } else if peer.namespace() != SpiffeId::DEFAULT_NAMESPACE || peer.service() != service.as_str()
    {
        return Err(HelloError::Identity(format!(
            "the certificate is {peer}, which is not service {service}"
        )));
    }
    Ok(Registration {
        id: id.into(),
        role,
        service,
        // What runs is the platform's to say, where there is one.
        instance: instance.filter(|_| control.attest.is_none()),
        admin_address: admin.into(),
        certificate_not_after: hello.certificate_not_after,
    })
}
