//! Routers of other control planes. A router has one slot, wherever it is connected:
//! of two streams the one that was opened later counts.

use std::sync::Arc;

use tokio::time::Instant;
use weir_proto::weir::mesh::v1 as pb;

use super::saved::{hello, registration};
use super::{Acks, LOST_GRACE, Presence, RESTORED_GRACE, Refusal, Registry, Router, Slot};

/// What is known of a router by another control plane, which it is connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// Its name.
    pub peer: Arc<str>,
    /// Snapshots behind that one's newest.
    pub lag: u64,
    /// SHA-256 over the roots that it uses; empty: not the newest.
    pub roots: Vec<u8>,
}

impl Router {
    /// Whether other control planes are told of it: it is, or just was, connected here.
    #[must_use]
    pub fn told(&self) -> bool {
        self.remote.is_none() && self.presence != Presence::Restored
    }

    /// As other control planes are told. `lag` is in snapshots.
    #[must_use]
    pub fn to_peer(&self, lag: u64) -> pb::PeerRouter {
        let refusal = self.acks.refusal.clone();
        let (refused_sequence, refused_revision) =
            refusal.as_ref().map_or((0, 0), |refusal| (refusal.sequence, refusal.revision));
        pb::PeerRouter {
            hello: Some(pb::Hello { opened: self.opened, ..hello(&self.registration) }),
            lost: self.presence == Presence::Lost,
            applied_sequence: self.acks.sequence,
            applied_revision: self.acks.revision,
            apply_micros: self.acks.apply_micros,
            lag,
            refused_reason: refusal.map(|refusal| refusal.reason).unwrap_or_default(),
            refused_revision,
            refused_sequence,
            roots: Vec::new(),
        }
    }
}

impl Acks {
    /// What a router answered to another control plane.
    fn follow(&mut self, told: &pb::PeerRouter) {
        if told.applied_sequence > 0 {
            self.applied(told.applied_sequence, told.applied_revision, told.apply_micros);
        }
        self.refusal = (!told.refused_reason.is_empty()).then(|| Refusal {
            sequence: told.refused_sequence,
            revision: told.refused_revision,
            reason: told.refused_reason.clone(),
        });
    }
}

/// Whether what a peer says of a router counts more than what is known.
fn counts(slot: &Slot, peer: &str, opened: u64, lost: bool) -> bool {
    match &slot.router.remote {
        Some(remote) if *remote.peer == *peer => true,
        // Nobody has a stream of it here: one elsewhere is news.
        _ if slot.until.is_some() => !lost,
        _ => !lost && opened > slot.router.opened,
    }
}

impl Registry {
    /// All that a control plane knows of its own routers. Those that it had before and
    /// does not name are expected back.
    pub fn peer_state(&self, peer: &Arc<str>, routers: &[pb::PeerRouter]) {
        self.peer_lost(peer);
        for router in routers {
            self.peer_router(peer, router);
        }
    }

    /// What a control plane knows of one of its own routers.
    pub fn peer_router(&self, peer: &Arc<str>, told: &pb::PeerRouter) {
        let Some(registration) = told.hello.as_ref().and_then(registration) else { return };
        let opened = told.hello.as_ref().map_or(0, |hello| hello.opened);
        let id = registration.id.clone();
        let mut inner = self.lock();
        let mut acks = Acks::default();
        if let Some(slot) = inner.slots.get(&id) {
            if !counts(slot, peer, opened, told.lost) {
                return;
            }
            match &slot.router.remote {
                // Numbers of snapshots compare only within one control plane.
                Some(remote) if remote.peer == *peer => acks = slot.router.acks.clone(),
                Some(_) => {}
                None => {
                    slot.replaced.notify_waiters();
                    slot.replaced.notify_one();
                }
            }
        }
        if let Some(instance) = registration.instance.as_ref().filter(|_| !told.lost) {
            inner.make_room(&id, instance);
        }
        acks.follow(told);
        let remote = Remote { peer: peer.clone(), lag: told.lag, roots: told.roots.clone() };
        let presence = if told.lost { Presence::Lost } else { Presence::Connected };
        let router = Router { registration, presence, acks, opened, remote: Some(remote) };
        // Its own control plane says when it is gone; this is in case it cannot.
        let until = told.lost.then(|| Instant::now() + 2 * LOST_GRACE);
        let slot = Slot { router, stream: 0, replaced: Arc::default(), until };
        let before = inner.slots.insert(id, slot);
        let same = before.is_some_and(|before| {
            let (old, new) = (&before.router, &inner.slots[&before.router.registration.id].router);
            old.registration == new.registration && old.presence == new.presence
        });
        drop(inner);
        if same { self.progressed() } else { self.members_changed() }
    }

    /// A control plane says that one of its routers is gone.
    pub fn peer_gone(&self, peer: &str, id: &str) {
        let mut inner = self.lock();
        let its = |slot: &Slot| slot.router.remote.as_ref().is_some_and(|r| *r.peer == *peer);
        if inner.slots.get(id).is_some_and(its) {
            inner.slots.remove(id);
            drop(inner);
            self.members_changed();
        }
    }

    /// A control plane is not in touch: its routers will come back by it or by another.
    pub fn peer_lost(&self, peer: &str) {
        let until = Instant::now() + RESTORED_GRACE;
        let mut changed = false;
        for slot in self.lock().slots.values_mut() {
            let its = slot.router.remote.as_ref().is_some_and(|r| *r.peer == *peer);
            if its && slot.until.is_none() {
                slot.until = Some(until);
                slot.router.presence = Presence::Restored;
                changed = true;
            }
        }
        if changed {
            self.members_changed();
        }
    }

    /// Wakes whoever waits for routers to answer.
    pub fn progressed(&self) {
        self.progress.send_modify(|count| *count += 1);
    }

    /// The instances of routers that are connected to this control plane itself.
    #[must_use]
    pub fn own_instances(&self) -> Vec<weir_mesh::model::Instance> {
        let own = self.routers().into_iter().filter(|router| router.remote.is_none());
        own.filter_map(|router| router.registration.instance).collect()
    }
}
