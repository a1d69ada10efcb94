//! TCPRoutes and TLSRoutes.

use std::collections::HashSet;
use std::sync::Arc;

use tonic::Status;
use weir_mesh::model::{TcpRoute, Violations};
use weir_mesh::wire;
use weir_proto::weir::control::v1 as pb;
use weir_proto::weir::mesh::v1 as mesh;

use super::{answer, check_reason, guard, replayed};
use crate::api::error;
use crate::control::{Author, Control, Plan};
use crate::guard::Scope;
use crate::snapshot;
use crate::store::{Action, Desired, Edit, Object, ObjectKey, Store};

pub(in crate::api) async fn put(
    control: &Arc<Control>,
    actor: String,
    mut request: pb::PutTcpRouteRequest,
) -> Result<pb::ChangeResponse, Status> {
    let mut bad = Violations::new();
    let guard = guard(&mut request, &actor, &mut bad);
    if let Some(made) = replayed(control, &guard).await? {
        return Ok(answer(control, made, None).await);
    }
    check_reason(&request.reason, &mut bad);
    let message = request.route.unwrap_or_default();
    let route = one(&message, "route", Some(&**control.desired.borrow()), &mut bad);
    let route = bad.finish(route).map_err(|e| error::invalid(&e))?;
    let key = ObjectKey::TcpRoute(route.name.clone());
    let guard = guard.expecting(Scope::Object(key.clone()), request.expected_revision);
    let author = Author { actor, reason: request.reason };
    let plan = move |_: &Desired, _: &dyn Store| {
        let edits = vec![Edit { key, after: Some(Object::TcpRoute(route)) }];
        Ok(Plan { action: Action::PutRoute, edits, dry_run: false })
    };
    let made = control.change_guarded(author, guard, plan).await.map_err(error::change)?;
    Ok(answer(control, made, None).await)
}

pub(in crate::api) async fn delete(
    control: &Arc<Control>,
    actor: String,
    mut request: pb::DeleteTcpRouteRequest,
) -> Result<pb::ChangeResponse, Status> {
    let mut bad = Violations::new();
    let guard = guard(&mut request, &actor, &mut bad);
    check_reason(&request.reason, &mut bad);
    bad.finish(Some(())).map_err(|e| error::invalid(&e))?;
    let key = ObjectKey::TcpRoute(request.name.as_str().into());
    let guard = guard.expecting(Scope::Object(key.clone()), request.expected_revision);
    let author = Author { actor, reason: request.reason };
    let what = ("TCPRoute or TLSRoute", request.name.as_str());
    super::delete(control, author, guard, Action::DeleteRoute, key, what).await
}

/// Reads those of a request. What they name must be `there`; none: that cannot be
/// said.
pub(super) fn read(
    messages: &[mesh::TcpRoute],
    there: Option<&Desired>,
    bad: &mut Violations,
) -> Vec<Arc<TcpRoute>> {
    let mut routes = Vec::with_capacity(messages.len());
    let mut names = HashSet::new();
    for (i, message) in messages.iter().enumerate() {
        let at = format!("tcpRoutes[{i}]");
        if !names.insert(message.name.as_str()) {
            bad.add(format!("{at}.name"), format_args!("{:?} is named twice", message.name));
        }
        routes.extend(one(message, &at, there, bad));
    }
    routes
}

fn one(
    message: &mesh::TcpRoute,
    at: &str,
    there: Option<&Desired>,
    bad: &mut Violations,
) -> Option<Arc<TcpRoute>> {
    match wire::tcp_route(message, at) {
        Ok(route) => {
            for error in there.into_iter().flat_map(|there| snapshot::check_tcp(there, &route)) {
                bad.add(format!("{at}.{}", error.field()), &error);
            }
            Some(Arc::new(route))
        }
        Err(invalid) => {
            bad.extend(invalid);
            None
        }
    }
}
