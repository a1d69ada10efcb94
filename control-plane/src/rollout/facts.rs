//! What there is to know for a decision.

use weir_mesh::model::{Instance, ServiceName, VersionName};

use super::decide::Spread;
use crate::control::Control;
use crate::converge::{self, Converged};
use crate::store::{Action, Desired, ObjectKey, Revision, StoreError};

/// Whether a healthy instance runs a version.
pub fn healthy(instances: &[Instance], service: &ServiceName, version: &VersionName) -> bool {
    instances.iter().any(|i| i.service == *service && i.version == *version && i.healthy)
}

/// How far the routers are with a revision.
pub fn spread(control: &Control, revision: Revision) -> Spread {
    let Converged { routers, applied, pending, .. } = converge::now(&control.registry, revision);
    match pending.first() {
        None => Spread::Done,
        Some((router, why)) => Spread::Pending(format!(
            "{applied} of {routers} routers have applied revision {revision}; {router}: {why}"
        )),
    }
}

/// Who last changed a service, and in which revision.
pub fn last_author(
    control: &Control,
    desired: &Desired,
    service: &ServiceName,
) -> Result<Option<String>, StoreError> {
    let key = ObjectKey::Service(service.clone());
    let entry = control.store.last_change(&key, desired.revision)?;
    Ok(entry.map(|entry| {
        let who = match entry.action {
            Action::Observe => format!("{} at the Kubernetes API", entry.actor),
            _ => entry.actor,
        };
        format!("{who} (revision {})", entry.revision)
    }))
}
