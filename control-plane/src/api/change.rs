//! Writes: each is checked whole, then made as one change or not at all.

mod apply;
mod confirm;
mod managed;
mod request;
mod shift;
mod tcp;
mod warnings;

use std::sync::Arc;
use std::time::Duration;

use tonic::Status;
use weir_mesh::model::{Invalid, ServiceName, Violations};
use weir_mesh::policy::PolicyKind;
use weir_mesh::wire;
use weir_proto::weir::control::v1 as pb;
use weir_proto::weir::mesh::v1 as mesh;

use super::error;
use crate::control::{Author, ChangeError, Control, Made, Plan};
use crate::converge::Converged;
use crate::guard::{Guard, Scope};
use crate::rollout;
use crate::snapshot;
use crate::store::{Action, Desired, Edit, Object, ObjectKey, Revision, Store};
use crate::text::hex;

pub(super) use apply::apply;
pub(crate) use request::HEADER as IDEMPOTENCY_KEY;
pub(super) use request::{guard, replayed, taken};
pub(super) use shift::shift;
pub(super) use tcp::{delete as delete_tcp_route, put as put_tcp_route};

/// Characters of a reason.
const MAX_REASON: usize = 1000;
/// How long `wait` waits unless `wait_seconds` says otherwise.
const DEFAULT_WAIT: Duration = Duration::from_secs(30);

pub(super) fn check_reason(reason: &str, bad: &mut Violations) {
    let length = reason.chars().count();
    if length > MAX_REASON {
        bad.add("reason", format_args!("has {length} characters; at most {MAX_REASON} are kept"));
    } else if reason.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
        bad.add("reason", "has control characters; write plain text");
    }
}

/// How long to wait for convergence; none: not at all.
fn check_wait(wait: bool, seconds: u32, bad: &mut Violations) -> Option<Duration> {
    let limit = match seconds {
        0 => DEFAULT_WAIT,
        1..=300 => Duration::from_secs(seconds.into()),
        _ => {
            bad.add("waitSeconds", format_args!("{seconds} is above 300"));
            DEFAULT_WAIT
        }
    };
    wait.then_some(limit)
}

/// The name of a service that a request is about: only what could be a name.
fn check_service(name: &str, bad: &mut Violations) -> Option<ServiceName> {
    bad.take("service", name.parse())
}

fn no_service(name: &ServiceName, desired: &Desired) -> ChangeError {
    let known: Vec<_> = desired.services.keys().map(ServiceName::as_str).collect();
    ChangeError::NotFound(if known.is_empty() {
        format!("no service {name}; there are none yet")
    } else {
        format!("no service {name}; there are {}", known.join(", "))
    })
}

async fn answer(control: &Control, made: Made, wait: Option<Duration>) -> pb::ChangeResponse {
    let converged = match wait {
        Some(limit) => Some(proto(control.converged(&made, limit).await)),
        None => None,
    };
    pb::ChangeResponse {
        revision: made.revision,
        converged,
        unchanged: made.unchanged,
        replayed: made.replayed,
        ..Default::default()
    }
}

/// The answer to a change that nobody waits for.
pub(super) fn made(made: &Made) -> pb::ChangeResponse {
    pb::ChangeResponse {
        revision: made.revision,
        unchanged: made.unchanged,
        replayed: made.replayed,
        ..Default::default()
    }
}

fn proto(converged: Converged) -> pb::Converged {
    let pending = |(router, reason): (Arc<str>, String)| pb::PendingRouter {
        router: router.to_string(),
        reason,
    };
    pb::Converged {
        routers: converged.routers,
        applied: converged.applied,
        slowest_ms: u32::try_from(converged.slowest.as_millis()).unwrap_or(u32::MAX),
        pending: converged.pending.into_iter().map(pending).collect(),
    }
}

pub(super) async fn rollback(
    control: &Arc<Control>,
    actor: String,
    mut request: pb::RollbackRequest,
) -> Result<pb::ChangeResponse, Status> {
    let mut bad = Violations::new();
    let guard = guard(&mut request, &actor, &mut bad);
    let name = check_service(&request.service, &mut bad);
    check_reason(&request.reason, &mut bad);
    let wait = check_wait(request.wait, request.wait_seconds, &mut bad);
    let name = bad.finish(name).map_err(|e| error::invalid(&e))?;
    if let Some(made) = replayed(control, &guard).await? {
        return Ok(answer(control, made, wait).await);
    }
    let key = ObjectKey::Service(name.clone());
    let guard = guard.expecting(Scope::Object(key.clone()), request.expected_revision);
    let author = Author { actor, reason: request.reason };
    let asked = author.clone();
    let plan = move |desired: &Desired, store: &dyn Store| {
        let held = desired.services.get(&name).ok_or_else(|| no_service(&name, desired))?;
        let paused = check_manager(desired, &name, &asked, request.force)?;
        let before = match earlier(store, &key, held.revision, request.to) {
            // Before anyone asked for it, it was as it is found.
            Err(ChangeError::Precondition(_)) if held.revision > 0 && desired.is_found(&name) => {
                None
            }
            before => Some(before?),
        };
        let edits = paused.into_iter().chain([Edit { key, after: before }]).collect();
        Ok(Plan { action: Action::Rollback, edits, dry_run: false })
    };
    let made = control.change_guarded(author, guard, plan).await.map_err(error::change)?;
    Ok(answer(control, made, wait).await)
}

/// Weights that somebody else manages are theirs to change, unless by force: then the
/// rollout that manages them is paused, by this edit.
fn check_manager(
    desired: &Desired,
    name: &ServiceName,
    author: &Author,
    force: bool,
) -> Result<Option<Edit>, ChangeError> {
    if let Some(held) = desired.rollout_of(name) {
        if force {
            return Ok(rollout::pause_for(&held.value, author));
        }
        let error = rollout::ManagedBy { rollout: held.value.name.clone(), service: name.clone() };
        return Err(ChangeError::Precondition(error.to_string()));
    }
    match desired.manager(name) {
        Some(manager) if manager != author.actor && !force => {
            Err(ChangeError::Precondition(format!(
                "the weights of {name} are managed by {manager}; change them there, or set force \
                 (--force)"
            )))
        }
        _ => Ok(None),
    }
}

/// An object as it was at revision `to`; 0: before its last change, `last`.
fn earlier(
    store: &dyn Store,
    key: &ObjectKey,
    last: Revision,
    to: Revision,
) -> Result<Object, ChangeError> {
    if to > last {
        let newest = store.history(None, 1)?.first().map_or(0, |entry| entry.revision);
        if to > newest {
            let why = format!("there is no revision {to} yet; the newest is {newest}");
            return Err(Invalid::one("to", why).into());
        }
    }
    let at = if to == 0 { last } else { to };
    let entry = store.last_change(key, at)?;
    let change = entry.and_then(|e| e.changes.into_iter().find(|change| change.key == *key));
    let found = match change {
        Some(change) if to == 0 => change.before,
        Some(change) => change.after,
        None => None,
    };
    found.ok_or_else(|| {
        ChangeError::Precondition(if to == 0 {
            format!("{key} was made in revision {last}; there is nothing before it to go back to")
        } else {
            format!("{key} was not there at revision {to}; see its history")
        })
    })
}

pub(super) async fn put_route(
    control: &Arc<Control>,
    actor: String,
    mut request: pb::PutRouteRequest,
) -> Result<pb::ChangeResponse, Status> {
    let mut bad = Violations::new();
    let guard = guard(&mut request, &actor, &mut bad);
    if let Some(made) = replayed(control, &guard).await? {
        return Ok(answer(control, made, None).await);
    }
    check_reason(&request.reason, &mut bad);
    let message = request.route.unwrap_or_default();
    let route = match wire::route(&message, "route") {
        Ok(route) => Some(Arc::new(route)),
        Err(invalid) => {
            bad.extend(invalid);
            None
        }
    };
    check_sent(&control.desired.borrow(), &message, "route", &mut bad);
    let route = bad.finish(route).map_err(|e| error::invalid(&e))?;
    let key = ObjectKey::Route(route.name.clone());
    let guard = guard.expecting(Scope::Object(key.clone()), request.expected_revision);
    let author = Author { actor, reason: request.reason };
    let plan = move |desired: &Desired, _: &dyn Store| {
        let edits = vec![Edit { key, after: Some(Object::Route(route)) }];
        check_backends(desired, &edits, |_| "route".to_owned())?;
        Ok(Plan { action: Action::PutRoute, edits, dry_run: false })
    };
    let made = control.change_guarded(author, guard, plan).await.map_err(error::change)?;
    Ok(answer(control, made, None).await)
}

/// Notes every service and version that a route names and that is not there, so
/// that they are told together with what else is wrong with it.
fn check_sent(desired: &Desired, message: &mesh::Route, at: &str, bad: &mut Violations) {
    for error in snapshot::check_sent(desired, message) {
        bad.add(format!("{at}.{}", error.field()), &error);
    }
}

/// Whether all that routes name would be there after these edits. `at` says where
/// in the request a route is.
fn check_backends(
    desired: &Desired,
    edits: &[Edit],
    at: impl Fn(&str) -> String,
) -> Result<(), Invalid> {
    let mut bad = Violations::new();
    for error in snapshot::introduced(desired, &desired.after(edits)) {
        bad.add(format!("{}.{}", at(error.route()), error.field()), &error);
    }
    bad.finish(Some(()))
}

pub(super) async fn delete_route(
    control: &Arc<Control>,
    actor: String,
    mut request: pb::DeleteRouteRequest,
) -> Result<pb::ChangeResponse, Status> {
    let mut bad = Violations::new();
    let guard = guard(&mut request, &actor, &mut bad);
    check_reason(&request.reason, &mut bad);
    bad.finish(Some(())).map_err(|e| error::invalid(&e))?;
    let key = ObjectKey::Route(request.name.as_str().into());
    let guard = guard.expecting(Scope::Object(key.clone()), request.expected_revision);
    let author = Author { actor, reason: request.reason };
    let what = ("route", request.name.as_str());
    delete(control, author, guard, Action::DeleteRoute, key, what).await
}

pub(super) async fn delete_policy(
    control: &Arc<Control>,
    actor: String,
    mut request: pb::DeletePolicyRequest,
) -> Result<pb::ChangeResponse, Status> {
    let mut bad = Violations::new();
    let guard = guard(&mut request, &actor, &mut bad);
    check_reason(&request.reason, &mut bad);
    let kind = bad.take("kind", request.kind.parse::<PolicyKind>());
    let kind = bad.finish(kind).map_err(|e| error::invalid(&e))?;
    let key = ObjectKey::Policy(kind, request.name.as_str().into());
    let guard = guard.expecting(Scope::Object(key.clone()), request.expected_revision);
    let author = Author { actor, reason: request.reason };
    let what = (kind.as_str(), request.name.as_str());
    delete(control, author, guard, Action::DeletePolicy, key, what).await
}

/// Removes one object; kind and name are what it is called when it is not there.
async fn delete(
    control: &Arc<Control>,
    author: Author,
    guard: Guard,
    action: Action,
    key: ObjectKey,
    (what, name): (&'static str, &str),
) -> Result<pb::ChangeResponse, Status> {
    let name: String = name.chars().take(253).collect();
    let plan = move |desired: &Desired, _: &dyn Store| {
        if desired.get(&key).is_none() {
            return Err(ChangeError::NotFound(format!("no {what} {name:?}")));
        }
        Ok(Plan { action, edits: vec![Edit { key, after: None }], dry_run: false })
    };
    let made = control.change_guarded(author, guard, plan).await.map_err(error::change)?;
    Ok(answer(control, made, None).await)
}

pub(super) async fn rotate(
    control: &Arc<Control>,
    actor: &str,
    request: pb::RotateCertificatesRequest,
) -> Result<pb::RotateCertificatesResponse, Status> {
    let mut bad = Violations::new();
    check_reason(&request.reason, &mut bad);
    bad.finish(Some(())).map_err(|e| error::invalid(&e))?;
    let new_root = request.new_root;
    tracing::info!(actor, reason = request.reason, new_root, "certificates are renewed");
    let routers = if new_root {
        // Detached: a caller that goes away must not leave a root half brought in.
        let control = control.clone();
        let rotation = tokio::spawn(async move { control.rotate_root().await });
        let rotated = rotation.await.map_err(|lost| Status::internal(lost.to_string()))?;
        rotated.map_err(|e| error::rotate(&e))?
    } else {
        control.renew_certificates()
    };
    let reason = match new_root {
        true => format!("a new root: {}", request.reason),
        false => request.reason,
    };
    let author = Author { actor: actor.to_owned(), reason };
    if let Err(error) = control.note(author, Action::Rotate).await {
        // It is done, and cannot be taken back.
        tracing::error!(%error, "the rotation is not in the history");
    }
    let roots = control.authority.bundle();
    Ok(pb::RotateCertificatesResponse {
        routers: u32::try_from(routers).unwrap_or(u32::MAX),
        roots: roots
            .iter()
            .map(|der| hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der).as_ref()))
            .collect(),
    })
}
