//! The control planes of this mesh.

use weir_proto::weir::control::v1 as pb;

use crate::control::Control;
use crate::registry::Router;
use crate::replica::{Lead, Peer, PeerStatus};

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

pub(super) fn list(control: &Control) -> pb::ListReplicasResponse {
    let own = pb::Replica {
        name: control.replica.name.to_string(),
        address: control.replica.address.map(|a| a.to_string()).unwrap_or_default(),
        leads: control.replica.leads(),
        itself: true,
        in_touch: true,
        revision: control.desired.borrow().revision,
        routers: count(control.registry.routers().iter().filter(|r| r.remote.is_none()).count()),
    };
    let routers = control.registry.routers();
    let lead = control.replica.lead.borrow().clone();
    let other = |(peer, status): (Peer, PeerStatus)| {
        let its = |r: &&Router| r.remote.as_ref().is_some_and(|remote| remote.peer == peer.name);
        pb::Replica {
            name: peer.name.to_string(),
            address: peer.address.to_string(),
            leads: matches!(&lead, Lead::Other(leader) if leader.name == peer.name),
            itself: false,
            revision: status.revision,
            routers: count(routers.iter().filter(its).count()),
            in_touch: status.in_touch,
        }
    };
    let mut replicas: Vec<_> = control.replica.others().into_iter().map(other).collect();
    replicas.push(own);
    replicas.sort_by(|a, b| a.name.cmp(&b.name));
    pb::ListReplicasResponse { replicas }
}
