//! The control planes of this mesh.

use weir_proto::weir::control::v1 as pb;

use crate::control::Control;

pub(super) fn list(control: &Control) -> pb::ListReplicasResponse {
    let own = pb::Replica {
        name: control.replica.name.to_string(),
        leads: control.replica.leads(),
        itself: true,
        in_touch: true,
        revision: control.desired.borrow().revision,
        routers: u32::try_from(control.registry.routers().len()).unwrap_or(u32::MAX),
        ..Default::default()
    };
    pb::ListReplicasResponse { replicas: vec![own] }
}
