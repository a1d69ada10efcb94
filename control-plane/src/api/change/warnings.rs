//! What is accepted but hardly meant.

use weir_mesh::model::Route;
use weir_proto::weir::control::v1 as pb;

use crate::store::{Change, Desired, Object, ObjectKey};

/// Warnings about a desired state as it is after `changes`, which may have been
/// made already or not. Only about routes that are among them: what was accepted
/// long ago is no news.
pub(super) fn warnings(desired: &Desired, changes: &[Change]) -> Vec<pb::Warning> {
    let mut routes: Vec<&Route> = desired.routes.values().map(|held| &*held.value).collect();
    for change in changes {
        let ObjectKey::Route(name) = &change.key else { continue };
        routes.retain(|route| route.name != *name);
        if let Some(Object::Route(route)) = &change.after {
            routes.push(route);
        }
    }
    of_routes(&routes)
}

/// Of routes beside each other. There are none yet that can be told without
/// knowing the order of precedence, which is the Gateway API reader's.
fn of_routes(_routes: &[&Route]) -> Vec<pb::Warning> {
    Vec::new()
}
