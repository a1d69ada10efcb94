//! One simulated router: it has a certificate signed, opens the watch stream, applies
//! what comes and says so, and comes back when the stream breaks, as `weir-router` does.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, KeyPair};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use weir_mesh::identity::{ALPN_H2, SpiffeId, Svid, bootstrap_client_config, client_config};
use weir_proto::weir::mesh::v1 as pb;
use weir_proto::weir::mesh::v1::identity_service_client::IdentityServiceClient;
use weir_proto::weir::mesh::v1::mesh_service_client::MeshServiceClient;
use weir_proto::weir::mesh::v1::watch_request::Message as Out;
use weir_proto::weir::mesh::v1::watch_response::Message as In;

use super::content::Content;
use super::fleet::Fleet;
use super::link::connect;

/// Between tries, as `weir-router` has it.
const BACKOFF: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Why a stream ended.
enum End {
    /// It was told to flap: the same connection is used again.
    Flap,
    /// It was told to come back later.
    Later(Duration),
    /// Something else.
    Broken(String),
}

struct Router<'a> {
    fleet: &'a Fleet,
    index: usize,
    svid: Svid,
    have: Option<Content>,
}

/// Lives until the runtime ends.
pub async fn live(fleet: Arc<Fleet>, index: usize, mut flaps: mpsc::Receiver<()>) {
    let mut backoff = BACKOFF;
    tokio::time::sleep(fleet.ramp.mul_f64(fastrand::f64())).await;
    let svid = loop {
        match sign(&fleet, index).await {
            Ok(svid) => break svid,
            Err(error) => told(index, &error),
        }
        pause(&mut backoff).await;
    };
    let mut router = Router { fleet: &fleet, index, svid, have: None };
    backoff = BACKOFF;
    loop {
        let began = Instant::now();
        let ended = router.connection(&mut flaps).await;
        fleet.place(index, |place| place.back = None);
        if began.elapsed() > BACKOFF_MAX {
            backoff = BACKOFF;
        }
        match ended {
            End::Later(after) => {
                fleet.told_to_wait.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(after.mul_f64(0.5 + fastrand::f64())).await;
            }
            End::Broken(error) => {
                told(index, &error);
                pause(&mut backoff).await;
            }
            End::Flap => {}
        }
    }
}

/// Only one of them is listened to: what one says, all say.
fn told(index: usize, error: &str) {
    if index == 0 {
        eprintln!("router 0: {error}");
    }
}

async fn pause(backoff: &mut Duration) {
    tokio::time::sleep(backoff.mul_f64(0.5 + fastrand::f64())).await;
    *backoff = (*backoff * 2).min(BACKOFF_MAX);
}

fn service(fleet: &Fleet, index: usize) -> &str {
    &fleet.services[index % fleet.services.len()]
}

async fn sign(fleet: &Fleet, index: usize) -> Result<Svid, String> {
    let own = SpiffeId::control_plane("weir.local").map_err(|e| e.to_string())?;
    let tls = bootstrap_client_config(&fleet.bundle, &own).map_err(|e| e.to_string())?;
    let key = KeyPair::generate().map_err(|e| e.to_string())?;
    let csr = CertificateParams::default().serialize_request(&key).map_err(|e| e.to_string())?;
    let mut client = IdentityServiceClient::new(connect(fleet.mesh, tls, &fleet.bytes).await?);
    let service = service(fleet, index).to_owned();
    let join_token = format!("join-{service}");
    let request = pb::SignRequest { service, join_token, csr_der: csr.der().to_vec() };
    let signed = client.sign(request).await.map_err(|status| status.to_string())?.into_inner();
    Svid::from_der(signed.certificate_chain, key.serialize_der()).map_err(|e| e.to_string())
}

impl Router<'_> {
    async fn connection(&mut self, flaps: &mut mpsc::Receiver<()>) -> End {
        let channel = match self.connect().await {
            Ok(channel) => channel,
            Err(error) => return End::Broken(error),
        };
        loop {
            match self.stream(channel.clone(), flaps).await {
                Ok(End::Flap) => {}
                Ok(end) => return end,
                Err(error) => return End::Broken(error),
            }
        }
    }

    async fn connect(&self) -> Result<Channel, String> {
        let own = SpiffeId::control_plane("weir.local").map_err(|e| e.to_string())?;
        let tls = client_config(&self.svid, &self.fleet.bundle, &own, ALPN_H2);
        connect(self.fleet.mesh, tls.map_err(|e| e.to_string())?, &self.fleet.bytes).await
    }

    async fn stream(
        &mut self,
        channel: Channel,
        flaps: &mut mpsc::Receiver<()>,
    ) -> Result<End, String> {
        let mut client =
            MeshServiceClient::new(channel).max_decoding_message_size(64 * 1024 * 1024);
        let (out, outgoing) = mpsc::channel(16);
        let say = async |message| {
            let sent = out.send(pb::WatchRequest { message: Some(message) }).await;
            sent.map_err(|_| "the stream is gone".to_owned())
        };
        say(Out::Hello(self.hello())).await?;
        let stream = client.watch(ReceiverStream::new(outgoing)).await;
        let mut incoming = stream.map_err(|status| status.to_string())?.into_inner();
        loop {
            tokio::select! {
                message = incoming.message() => {
                    match message.map_err(|status| status.to_string())?.and_then(|m| m.message) {
                        None => return Err("the control plane closed the stream".into()),
                        Some(In::Snapshot(bytes)) => {
                            self.fleet.wholes.fetch_add(1, Ordering::Relaxed);
                            let made = self.fleet.contents.whole(bytes)?;
                            say(self.applied(made)).await?;
                        }
                        Some(In::Delta(bytes)) => {
                            self.fleet.delta_messages.fetch_add(1, Ordering::Relaxed);
                            let have = self.have.as_ref().ok_or("a delta to nothing")?;
                            match self.fleet.contents.delta(bytes, have) {
                                Ok(made) => say(self.applied(made)).await?,
                                Err(reason) => {
                                    self.fleet.refusals.fetch_add(1, Ordering::Relaxed);
                                    told(0, &reason);
                                    say(Out::Refused(pb::Refused { sequence: 0, reason })).await?;
                                }
                            }
                        }
                        Some(In::Reconnect(reconnect)) => {
                            let after = Duration::from_millis(reconnect.after_ms.into());
                            return Ok(End::Later(after));
                        }
                        Some(In::Renew(_)) => {}
                    }
                }
                Some(()) = flaps.recv() => {
                    say(Out::Leave(pb::Leave {})).await?;
                    while incoming.message().await.is_ok_and(|message| message.is_some()) {}
                    return Ok(End::Flap);
                }
            }
        }
    }

    fn applied(&mut self, made: Content) -> Out {
        let now = Instant::now();
        self.fleet.place(self.index, |place| {
            if made.revision > place.revision || place.since.is_none() {
                place.since = Some(now);
            }
            (place.sequence, place.revision) = (made.sequence, made.revision);
            place.instances = made.instances();
            place.back.get_or_insert(now);
        });
        self.fleet.fewest.fetch_min(made.instances(), Ordering::Relaxed);
        let sequence = made.sequence;
        self.have = Some(made);
        Out::Applied(pb::Applied { sequence, apply_micros: 1 })
    }

    fn hello(&self) -> pb::Hello {
        let service = service(self.fleet, self.index).to_owned();
        let id = format!("{service}-{}", self.index);
        let host = 1 + self.index;
        let instance = pb::Instance {
            id: id.clone(),
            service: service.clone(),
            version: if (self.index / self.fleet.services.len()).is_multiple_of(2) {
                "v1"
            } else {
                "v2"
            }
            .into(),
            address: format!("10.1.{}.{}:15006", host / 250, 1 + host % 250),
            zone: "a".into(),
            healthy: true,
            ..Default::default()
        };
        let have = self.have.as_ref();
        pb::Hello {
            router_id: id,
            role: pb::hello::Role::Sidecar.into(),
            instance: Some(instance),
            admin_address: "127.0.0.1:9".into(),
            sequence: have.map_or(0, |have| have.sequence),
            revision: have.map_or(0, |have| have.revision),
            digest: have.filter(|_| self.fleet.deltas).map_or(Vec::new(), |h| h.digest.to_vec()),
            deltas: self.fleet.deltas,
            certificate_not_after: 1,
            service,
            ..Default::default()
        }
    }
}
