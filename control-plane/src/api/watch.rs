//! Tells routers what to do, and hears from them.

mod floor;
mod told;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
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
use crate::pace::Permit;
use crate::publish::Published;
use crate::registry::{Refusal, Registration, Role, Ticket};
use floor::{Floor, LOOK, Standing};
use told::{About, Told};

/// How long a router may take to say who it is.
const HELLO: Duration = Duration::from_secs(10);
/// A whole snapshot that is not answered for this long does not keep others waiting.
const WHOLE: Duration = Duration::from_secs(2);
/// Routers that wait for a whole snapshot. Those that come then are told to come later:
/// they have what they had.
const MAX_WAITING: usize = 1024;
/// How much later, in milliseconds.
const LATER_MS: u32 = 2000;
/// When the control plane stops, each router comes back after so many milliseconds for
/// each that there is, within bounds: a handshake costs about one.
const BACK_MS: std::ops::RangeInclusive<u32> = 100..=5000;
/// For a goodbye to get out.
const GOODBYE: Duration = Duration::from_secs(1);
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
            let ended = serve(&control, &peer.0, requests, &answers).await;
            // Whoever stops waits for the stream's end: nothing is held then.
            drop(control);
            if let Err(status) = ended {
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
        told: Told::new(&hello),
        turn: Turn::None,
        floor: Floor::new(hello.revision),
        settled: control.replica.settled.subscribe(),
    };
    stream.resume(hello.sequence);
    let ended = stream.run(&mut requests, answers).await;
    match &ended {
        Ok(End::Left) => control.registry.leave(&stream.ticket),
        Ok(End::Replaced) => {}
        Ok(End::Deferred) => control.registry.deferred(&stream.ticket),
        Ok(End::Closed) | Err(_) => control.registry.lost(&stream.ticket),
    }
    tracing::info!(router = %stream.ticket.id, how = ?ended.as_ref().ok(), "a stream ended");
    match ended? {
        End::Replaced => Err(Status::aborted("another stream speaks for this router")),
        End::Left | End::Closed | End::Deferred => Ok(()),
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
    /// It was told to come back later.
    Deferred,
}

/// A router's turn to be sent a whole snapshot.
enum Turn {
    /// It needs none.
    None,
    /// It is in line.
    Waiting(Pin<Box<dyn Future<Output = Permit> + Send>>),
    /// Until it has answered, or this moment.
    Now(#[allow(dead_code)] Permit, Instant),
}

struct Stream<'a> {
    control: &'a Control,
    service: ServiceName,
    ticket: Ticket,
    newest: watch::Receiver<Arc<Published>>,
    told: Told,
    turn: Turn,
    floor: Floor,
    /// Whether what is published is of the whole mesh.
    settled: watch::Receiver<bool>,
}

impl Stream<'_> {
    /// A router that runs the newest snapshot already need not get it again.
    fn resume(&mut self, sequence: u64) {
        let newest = self.newest.borrow().clone();
        if self.told.resume(sequence, &newest) {
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
            let newest = self.newest.borrow_and_update().clone();
            let behind = settled && self.may_have(&newest) && self.told.is_behind(&newest);
            let next = if behind { self.next(&newest) } else { Next::Nothing };
            if let Next::Later = next {
                self.reconnect(answers, LATER_MS).await;
                return Ok(End::Deferred);
            }
            let ready = matches!(next, Next::Send(_));
            tokio::select! {
                request = requests.message() => match request? {
                    None => return Ok(End::Closed),
                    Some(request) => {
                        if self.hear(request)? {
                            return Ok(End::Left);
                        }
                    }
                },
                slot = answers.reserve(), if ready => {
                    let slot = slot.map_err(|_| Status::cancelled("the router is gone"))?;
                    if let Next::Send(message) = next {
                        self.sent(&newest, &message);
                        slot.send(Ok(pb::WatchResponse { message: Some(message) }));
                    }
                }
                () = self.turn.turns() => {}
                _ = self.newest.changed() => {}
                () = tokio::time::sleep(LOOK), if self.floor.holds() => {}
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
                    let routers = u32::try_from(self.control.registry.len()).unwrap_or(u32::MAX);
                    let after = routers.clamp(*BACK_MS.start(), *BACK_MS.end());
                    self.reconnect(answers, after).await;
                    return Err(Status::unavailable("the control plane is stopping; come back"));
                }
            }
        }
    }

    /// Whether it runs nothing newer, or there is nothing newer.
    fn may_have(&mut self, newest: &Published) -> bool {
        let standing = || Standing::of(self.control);
        self.floor.lets(&self.ticket.id, newest.revision, standing, Instant::now())
    }

    /// What it is sent next: a delta at once, the whole in its turn.
    fn next(&mut self, newest: &Published) -> Next {
        if let Some(delta) = self.told.delta(newest) {
            return Next::Send(watch_response::Message::Delta(delta));
        }
        match self.turn {
            Turn::Now(..) => Next::Send(watch_response::Message::Snapshot(newest.bytes.clone())),
            Turn::Waiting(_) => Next::Nothing,
            Turn::None => {
                let wholes = &self.control.pace.wholes;
                if self.told.is_new() && wholes.waiting() >= MAX_WAITING {
                    return Next::Later;
                }
                self.turn = Turn::Waiting(Box::pin(wholes.clone().enter()));
                Next::Nothing
            }
        }
    }

    fn sent(&mut self, newest: &Published, message: &watch_response::Message) {
        let costs = self.control.publisher.costs();
        let (bytes, whole) = match message {
            watch_response::Message::Snapshot(bytes) => (bytes, true),
            watch_response::Message::Delta(bytes) => (bytes, false),
            _ => return,
        };
        costs.bytes.add(bytes.len() as u64);
        if whole { &costs.wholes } else { &costs.deltas }.inc();
        self.told.sent(newest, whole);
        if let Turn::Now(_, until) = &mut self.turn {
            *until = Instant::now() + WHOLE;
        }
    }

    /// Asks a router that understands it to come back, if it listens.
    async fn reconnect(&mut self, answers: &Answers, after_ms: u32) {
        if !self.told.is_new() {
            return;
        }
        self.control.publisher.costs().told_to_wait.inc();
        let message = Some(watch_response::Message::Reconnect(pb::Reconnect { after_ms }));
        let told = answers.send(Ok(pb::WatchResponse { message }));
        let _ = tokio::time::timeout(GOODBYE, told).await;
    }

    /// True: the router leaves.
    fn hear(&mut self, request: pb::WatchRequest) -> Result<bool, Status> {
        let registry = &self.control.registry;
        match request.message {
            Some(Message::Applied(applied)) => {
                self.turn.answered();
                // An answer to what was never sent, or too long ago, says nothing.
                if let About::Snapshot(revision) = self.told.applied(applied.sequence) {
                    let micros = applied.apply_micros;
                    registry.applied(&self.ticket, applied.sequence, revision, micros);
                }
            }
            Some(Message::Refused(refused)) => {
                self.turn.answered();
                let reason: String = refused.reason.chars().take(MAX_REASON).collect();
                match self.told.refused(refused.sequence) {
                    About::Snapshot(revision) => {
                        tracing::warn!(router = %self.ticket.id, reason, "a snapshot was refused");
                        let sequence = refused.sequence;
                        registry.refused(&self.ticket, Refusal { sequence, revision, reason });
                    }
                    About::Delta => {
                        tracing::info!(router = %self.ticket.id, reason, "a delta was refused");
                        self.control.publisher.costs().refused.inc();
                    }
                    About::Nothing => {}
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

/// What comes next on a stream.
enum Next {
    Nothing,
    Send(watch_response::Message),
    /// There is no room in the line.
    Later,
}

impl Turn {
    /// Completes when the turn has come, or is over.
    async fn turns(&mut self) {
        match self {
            Self::None => std::future::pending().await,
            Self::Waiting(turn) => {
                let permit = turn.await;
                *self = Self::Now(permit, Instant::now() + WHOLE);
            }
            Self::Now(_, until) => {
                tokio::time::sleep_until(*until).await;
                *self = Self::None;
            }
        }
    }

    /// The router answered: the next one's turn.
    fn answered(&mut self) {
        if let Self::Now(..) = self {
            *self = Self::None;
        }
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
