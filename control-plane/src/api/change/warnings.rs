//! What is accepted but hardly meant.

use std::collections::HashMap;

use weir_mesh::gateway_api::lint;
use weir_mesh::model::Route;
use weir_proto::weir::control::v1 as pb;

use crate::store::{Change, Desired, Object, ObjectKey};

/// Warnings about a desired state as it is after `changes`, which may have been
/// made already or not. Only about routes that are among them: what was accepted
/// long ago is no news. `places` has the routes of the request.
pub(super) fn warnings(
    desired: &Desired,
    changes: &[Change],
    places: &HashMap<&str, usize>,
) -> Vec<pb::Warning> {
    let mut changed: HashMap<&str, Option<&Route>> = HashMap::new();
    for change in changes {
        let ObjectKey::Route(name) = &change.key else { continue };
        let route = match &change.after {
            Some(Object::Route(route)) => Some(&**route),
            _ => None,
        };
        changed.insert(name, route);
    }
    if changed.values().all(Option::is_none) {
        return Vec::new();
    }
    let kept = desired.routes.values().map(|held| &*held.value);
    let kept = kept.filter(|route| !changed.contains_key(&*route.name));
    let routes = kept.chain(changed.values().copied().flatten());
    let warnings = lint(routes).into_iter().filter_map(|warning| {
        // No name has a bracket in it, so the first one is the rules'.
        let (name, rest) = warning.field.split_once('[')?;
        let (name, key) = name.rsplit_once('.')?;
        changed.get(name)?;
        let field = match places.get(name) {
            Some(i) => format!("routes[{i}].{key}[{rest}"),
            None => format!("routes.{}", warning.field),
        };
        let (name, description) = (warning.name.to_owned(), warning.description);
        Some(pb::Warning { name, field, description })
    });
    warnings.collect()
}
