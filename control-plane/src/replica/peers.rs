//! Follows the other control planes: what their routers are and answer, and what they
//! report.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use weir_proto::weir::mesh::v1 as pb;
use weir_proto::weir::mesh::v1::follow_response::Message;
use weir_proto::weir::mesh::v1::peer_service_client::PeerServiceClient;

use super::{Lead, Peer, PeerStatus, link};
use crate::control::Control;
use crate::traces;

/// Whoever says nothing for this long is gone.
const SILENCE: Duration = Duration::from_secs(5);
/// Between attempts to reach a peer.
const RETRY: Duration = Duration::from_millis(200);
/// How long the others have to tell what they know before this one serves without.
const FIRST_WORDS: Duration = Duration::from_secs(5);
/// Bytes of one message: the state of some thousand routers.
const MAX_STATE: usize = 64 << 20;

/// Follows everyone in `Replica.peers`, as that changes. Never returns.
pub async fn follow(control: Arc<Control>) {
    let mut peers = control.replica.peers.subscribe();
    let mut tasks = JoinSet::new();
    let mut running: BTreeMap<Peer, AbortHandle> = BTreeMap::new();
    let patience = Instant::now() + FIRST_WORDS;
    let mut heard = control.registry.watch_progress();
    let mut lead = control.replica.lead.subscribe();
    loop {
        let wanted = peers.borrow_and_update().clone();
        running.retain(|peer, task| {
            let stays = wanted.contains(peer);
            if !stays {
                task.abort();
                lost(&control, peer);
                control.replica.lock().remove(&peer.name);
            }
            stays
        });
        for peer in wanted {
            let follow = || tasks.spawn(one(control.clone(), peer.clone()));
            running.entry(peer.clone()).or_insert_with(follow);
        }
        let settled = *control.replica.settled.borrow();
        if !settled {
            let others = control.replica.others();
            let known = *lead.borrow_and_update() != Lead::Nobody;
            let all = known && others.iter().all(|(_, status)| status.in_touch);
            if all || Instant::now() >= patience {
                control.replica.settled.send_replace(true);
            }
        }
        tokio::select! {
            _ = peers.changed() => {}
            _ = heard.changed(), if !settled => {}
            _ = lead.changed(), if !settled => {}
            () = tokio::time::sleep_until(patience), if !settled => {}
        }
    }
}

/// Follows one. Never returns.
async fn one(control: Arc<Control>, peer: Peer) {
    let mut told = String::new();
    loop {
        let ended = stream(&control, &peer).await;
        lost(&control, &peer);
        if let Err(error) = ended {
            let error = error.to_string();
            if error != told {
                tracing::warn!(peer = %peer.name, error, "not in touch; trying again");
                told = error;
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Its routers are expected back at any moment, here or at another one.
fn lost(control: &Control, peer: &Peer) {
    if let Some(status) = control.replica.lock().get_mut(&peer.name) {
        status.in_touch = false;
    }
    control.registry.peer_lost(&peer.name);
}

async fn stream(control: &Arc<Control>, peer: &Peer) -> Result<(), link::Error> {
    let channel = link::connect(control, peer.address).await?;
    let mut client = PeerServiceClient::new(channel).max_decoding_message_size(MAX_STATE);
    let request = pb::FollowRequest { replica: control.replica.name.to_string() };
    let mut stream = client.follow(request).await?.into_inner();
    let mut renewals = None;
    loop {
        let next = tokio::time::timeout(SILENCE, stream.message()).await;
        let next = next.map_err(|_| "it is silent")??;
        let Some(message) = next else { return Ok(()) };
        match message.message {
            Some(Message::State(state)) => {
                if *state.replica != *peer.name {
                    let why = format!("{} is control plane {:?}", peer.address, state.replica);
                    return Err(why.into());
                }
                control.registry.peer_state(&peer.name, &state.routers);
                let touch = |status: &mut PeerStatus| status.in_touch = true;
                touch(control.replica.lock().entry(peer.name.clone()).or_default());
                control.registry.progressed();
                tracing::info!(peer = %peer.name, routers = state.routers.len(), "in touch");
            }
            Some(Message::Router(router)) => control.registry.peer_router(&peer.name, &router),
            Some(Message::Gone(id)) => control.registry.peer_gone(&peer.name, &id),
            Some(Message::Report(report)) => take_report(control, &report),
            Some(Message::Spans(bytes)) => traces::take_in(&control.traces, &bytes),
            Some(Message::Pulse(pulse)) => {
                control.replica.lock().entry(peer.name.clone()).or_default().revision =
                    pulse.revision;
                let before = renewals.replace(pulse.renewals);
                let leads = matches!(&*control.replica.lead.borrow(), Lead::Other(p) if p == peer);
                if leads && before.is_some_and(|before| before < pulse.renewals) {
                    control.renew_certificates();
                }
            }
            // A newer control plane may say what this one does not know.
            None => {}
        }
    }
}

fn take_report(control: &Control, report: &pb::PeerReport) {
    if let (Ok(service), Some(counts)) = (report.service.parse(), &report.report) {
        control.take_report(&report.router, &service, counts);
    }
}
