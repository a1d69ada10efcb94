//! Tells other control planes of the routers that are connected to this one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use weir_proto::weir::mesh::v1 as pb;
use weir_proto::weir::mesh::v1::follow_response::Message;
use weir_proto::weir::mesh::v1::peer_service_server::PeerService;

use super::door::{is_control_plane, not_leading};
use crate::api::Peer;
use crate::control::{Author, Control};
use crate::store::{Action, StoreError};

/// At least so often something is said, so that silence means something.
pub(super) const PULSE: Duration = Duration::from_millis(500);
/// Answers of routers come in bursts; they are gathered for so long.
const GATHER: Duration = Duration::from_millis(2);

/// Serves other control planes.
pub struct Tell(pub Arc<Control>);

type Answers = mpsc::Sender<Result<pb::FollowResponse, Status>>;

#[tonic::async_trait]
impl PeerService for Tell {
    type FollowStream = ReceiverStream<Result<pb::FollowResponse, Status>>;

    async fn follow(
        &self,
        request: Request<pb::FollowRequest>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        if !is_control_plane(&self.0, request.extensions().get::<Peer>()) {
            return Err(Status::permission_denied("only control planes of this mesh may ask"));
        }
        let control = self.0.clone();
        let (answers, stream) = mpsc::channel(64);
        tokio::spawn(async move {
            // Whoever is gone asks again.
            let _ = tell(&control, &answers).await;
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn note(
        &self,
        request: Request<pb::NoteRequest>,
    ) -> Result<Response<pb::NoteResponse>, Status> {
        if !is_control_plane(&self.0, request.extensions().get::<Peer>()) {
            return Err(Status::permission_denied("only control planes of this mesh may ask"));
        }
        if !self.0.replica.leads() {
            return Err(not_leading());
        }
        let pb::NoteRequest { actor, reason } = request.into_inner();
        let noted = self.0.note(Author { actor, reason }, Action::Refused).await;
        noted.map_err(|error| match error {
            StoreError::NotLeading => not_leading(),
            error => Status::unavailable(error.to_string()),
        })?;
        Ok(Response::new(pb::NoteResponse {}))
    }
}

struct Gone;

async fn say(answers: &Answers, message: Message) -> Result<(), Gone> {
    let message = Some(message);
    answers.send(Ok(pb::FollowResponse { message })).await.map_err(|_| Gone)
}

async fn tell(control: &Control, answers: &Answers) -> Result<(), Gone> {
    let mut progress = control.registry.watch_progress();
    let mut desired = control.desired.subscribe();
    let mut renew = control.renew.subscribe();
    let mut bundle = control.publisher.watch_bundle();
    let mut reports = control.replica.reports.subscribe();
    let mut spans = control.replica.spans.subscribe();
    let mut pulse = tokio::time::interval(PULSE);
    pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    progress.mark_unchanged();
    let mut told = routers(control);
    let state = pb::PeerState {
        replica: control.replica.name.to_string(),
        routers: told.values().cloned().collect(),
    };
    say(answers, Message::State(state)).await?;
    loop {
        tokio::select! {
            _ = pulse.tick() => {}
            _ = desired.changed() => {}
            _ = renew.changed() => {}
            report = reports.recv() => {
                match report {
                    Ok(report) => say(answers, Message::Report((*report).clone())).await?,
                    Err(broadcast::error::RecvError::Lagged(missed)) => {
                        tracing::warn!(missed, "a control plane is too slow for reports");
                    }
                    Err(broadcast::error::RecvError::Closed) => return Ok(()),
                }
                continue;
            }
            some = spans.recv() => {
                match some {
                    Ok(spans) => say(answers, Message::Spans(spans.into())).await?,
                    // Traces are a help, not a record.
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return Ok(()),
                }
                continue;
            }
            _ = bundle.changed() => differences(control, &mut told, answers).await?,
            _ = progress.changed() => {
                tokio::time::sleep(GATHER).await;
                progress.mark_unchanged();
                differences(control, &mut told, answers).await?;
            }
            () = control.shutdown.requested() => return Ok(()),
            () = answers.closed() => return Ok(()),
        }
        let revision = control.desired.borrow().revision;
        let renewals = *control.renew.borrow();
        say(answers, Message::Pulse(pb::PeerPulse { revision, renewals })).await?;
    }
}

async fn differences(
    control: &Control,
    told: &mut BTreeMap<String, pb::PeerRouter>,
    answers: &Answers,
) -> Result<(), Gone> {
    let now = routers(control);
    for (id, router) in &now {
        if told.get(id) != Some(router) {
            say(answers, Message::Router(router.clone())).await?;
        }
    }
    for id in told.keys().filter(|id| !now.contains_key(*id)) {
        say(answers, Message::Gone(id.clone())).await?;
    }
    *told = now;
    Ok(())
}

/// Those that are connected here, or were until a moment ago.
fn routers(control: &Control) -> BTreeMap<String, pb::PeerRouter> {
    let newest = control.publisher.watch_bundle().borrow().clone();
    let roots = roots_digest(&newest.bundle);
    let own = control.registry.routers().into_iter().filter(|router| router.told());
    let own = own.map(|router| {
        let lag = control.publisher.lag(router.acks.sequence);
        let trusts = router.acks.sequence >= newest.since;
        let mut message = router.to_peer(lag);
        if trusts {
            message.roots = roots.clone();
        }
        (router.registration.id.to_string(), message)
    });
    own.collect()
}

/// SHA-256 over roots, whatever their order.
pub(crate) fn roots_digest(bundle: &[bytes::Bytes]) -> Vec<u8> {
    use aws_lc_rs::digest::{Context, SHA256, digest};
    let mut each: Vec<_> = bundle.iter().map(|der| digest(&SHA256, der)).collect();
    each.sort_by(|a, b| a.as_ref().cmp(b.as_ref()));
    let mut all = Context::new(&SHA256);
    for one in each {
        all.update(one.as_ref());
    }
    all.finish().as_ref().to_vec()
}
