//! Sets the weights of one service.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tonic::Status;
use weir_mesh::model::{
    Instance, Invalid, Service, ServiceName, Split, Sticky, VersionName, Violations, Weight,
};
use weir_mesh::wire;
use weir_proto::weir::control::v1 as pb;

use super::confirm::{check_confirm, measure};
use super::{
    answer, check_manager, check_reason, check_service, check_wait, guard, no_service, replayed,
};
use crate::api::error;
use crate::control::{Author, ChangeError, Control, Made, Plan};
use crate::guard::Scope;
use crate::store::{Action, Desired, Edit, Object, ObjectKey, Store};

/// A shift whose every field could be right; whether it fits the service is asked
/// when the service is known.
struct Shift {
    service: ServiceName,
    weights: BTreeMap<VersionName, Weight>,
    sticky: StickyChange,
    allow_empty: bool,
    /// Also when somebody else manages the weights.
    force: bool,
}

enum StickyChange {
    Keep,
    Set(Sticky),
    Clear,
}

pub(in crate::api) async fn shift(
    control: &Arc<Control>,
    actor: String,
    mut request: pb::ShiftRequest,
) -> Result<pb::ChangeResponse, Status> {
    let mut bad = Violations::new();
    let guard = guard(&mut request, &actor, &mut bad);
    let confirm = check_confirm(request.confirm, request.confirm_seconds, &mut bad);
    let wait = request.wait || request.confirm;
    let wait = check_wait(wait, request.wait_seconds, &mut bad);
    check_reason(&request.reason, &mut bad);
    if let Some(made) = replayed(control, &guard).await? {
        let service = request.service.parse().ok();
        return Ok(told(control, service.as_ref(), made, wait, confirm).await);
    }
    // A shift of a service that is not there is NOT_FOUND whatever else is wrong, and
    // a known service makes better errors: each weight is looked at in its light.
    let known: Vec<VersionName> = match request.service.parse::<ServiceName>() {
        Ok(name) => {
            let desired = control.desired.borrow();
            let held = desired.services.get(&name);
            let held = held.ok_or_else(|| error::change(no_service(&name, &desired)))?;
            held.value.split.versions().iter().map(|(version, _)| version.clone()).collect()
        }
        Err(_) => Vec::new(),
    };
    let shift =
        read(&request, &known, &control.instances(), bad).map_err(|e| error::invalid(&e))?;
    let key = ObjectKey::Service(shift.service.clone());
    let guard = guard.expecting(Scope::Object(key), request.expected_revision);
    let author = Author { actor, reason: request.reason };
    let (known, asked, service) = (control.clone(), author.clone(), shift.service.clone());
    let plan =
        move |desired: &Desired, _: &dyn Store| plan(&shift, &asked, desired, &known.instances());
    let made = control.change_guarded(author, guard, plan).await.map_err(error::change)?;
    Ok(told(control, Some(&service), made, wait, confirm).await)
}

/// The answer, once routers have the shift and requests have been counted.
async fn told(
    control: &Arc<Control>,
    service: Option<&ServiceName>,
    made: Made,
    wait: Option<Duration>,
    confirm: Option<Duration>,
) -> pb::ChangeResponse {
    let revision = made.revision;
    let answer = answer(control, made, wait).await;
    let measured = match (service, confirm) {
        (Some(service), Some(time)) => Some(measure(control, service, revision, time).await),
        _ => None,
    };
    pb::ChangeResponse { measured, ..answer }
}

fn read(
    request: &pb::ShiftRequest,
    known: &[VersionName],
    instances: &[Instance],
    mut bad: Violations,
) -> Result<Shift, Invalid> {
    let service = check_service(&request.service, &mut bad);
    if request.weights.is_empty() && request.sticky.is_none() && !request.clear_sticky {
        bad.add("weights", "is empty; name a version and its weight, such as {\"v1\": 100}");
    }
    let mut weights = BTreeMap::new();
    let mut all_fit = true;
    let sorted: BTreeMap<_, _> = request.weights.iter().collect();
    for (name, weight) in sorted {
        let at = format!("weights.{}", name.chars().take(80).collect::<String>());
        let version = bad.take(&at, name.parse::<VersionName>());
        let weight = bad.take(&at, Weight::try_from(*weight));
        let (Some(version), Some(weight)) = (version, weight) else {
            all_fit = false;
            continue;
        };
        let runs = |i: &Instance| Some(&i.service) == service.as_ref() && i.version == version;
        let exists = known.contains(&version) || instances.iter().any(runs);
        if !exists && !request.allow_empty && service.is_some() {
            bad.add(&at, no_version(&request.service, known));
        }
        weights.insert(version, weight);
    }
    let zero = !weights.is_empty() && weights.values().all(|weight| weight.get() == 0);
    if all_fit && zero {
        bad.add("weights", "sum to 0; at least one must be above 0");
    }
    let sticky = match (&request.sticky, request.clear_sticky) {
        (Some(_), true) => {
            bad.add("clearSticky", "cannot be set together with sticky; leave one out");
            StickyChange::Keep
        }
        (None, true) => StickyChange::Clear,
        (None, false) => StickyChange::Keep,
        (Some(message), false) => match wire::sticky(message, "sticky") {
            Ok(sticky) => StickyChange::Set(sticky),
            Err(invalid) => {
                bad.extend(invalid);
                StickyChange::Keep
            }
        },
    };
    let allow_empty = request.allow_empty;
    bad.finish(service.map(|service| Shift {
        service,
        weights,
        sticky,
        allow_empty,
        force: request.force,
    }))
}

fn no_version(service: &str, known: &[VersionName]) -> String {
    let known: Vec<_> = known.iter().map(VersionName::as_str).collect();
    format!(
        "no such version; {service} has {}; set allowEmpty (--allow-empty) to weight a version \
         that has no instance yet",
        known.join(", ")
    )
}

fn plan(
    shift: &Shift,
    author: &Author,
    desired: &Desired,
    instances: &[Instance],
) -> Result<Plan, ChangeError> {
    let held =
        desired.services.get(&shift.service).ok_or_else(|| no_service(&shift.service, desired))?;
    let paused = check_manager(desired, &shift.service, author, shift.force)?;
    let old = &held.value.split;
    let sticky = match &shift.sticky {
        StickyChange::Keep => old.sticky.clone(),
        StickyChange::Set(sticky) => Some(sticky.clone()),
        StickyChange::Clear => None,
    };
    let versions = if shift.weights.is_empty() {
        old.versions().to_vec()
    } else {
        let weight = |name: &VersionName| shift.weights.get(name).copied().unwrap_or_default();
        let kept = old.versions().iter().map(|(name, _)| (name.clone(), weight(name)));
        // New versions come last, so that the sticky line's cuts before them stay.
        let new = shift.weights.iter().filter(|(name, _)| old.weight(name.as_str()).is_none());
        kept.chain(new.map(|(name, weight)| (name.clone(), *weight))).collect()
    };
    let split = Split::new(versions, sticky).map_err(|e| Invalid::one("weights", e.to_string()))?;
    if !shift.allow_empty {
        check_alive(&shift.service, old, &split, instances)?;
    }
    let service = Service { split, ..(*held.value).clone() };
    let key = ObjectKey::Service(shift.service.clone());
    let shifted = Edit { key, after: Some(Object::Service(Arc::new(service))) };
    let edits = paused.into_iter().chain([shifted]).collect();
    Ok(Plan { action: Action::Shift, edits, dry_run: false })
}

/// Refuses to send a version more than it had when nothing healthy runs it. To
/// send a failing version less is always right.
fn check_alive(
    service: &ServiceName,
    old: &Split,
    new: &Split,
    instances: &[Instance],
) -> Result<(), Invalid> {
    let sum = |split: &Split| -> u64 {
        split.versions().iter().map(|(_, weight)| u64::from(weight.get())).sum()
    };
    let (old_sum, new_sum) = (sum(old), sum(new));
    let mut bad = Violations::new();
    for (version, weight) in new.versions() {
        let before = u64::from(old.weight(version.as_str()).unwrap_or_default().get());
        let grows = u64::from(weight.get()) * old_sum > before * new_sum;
        let alive =
            instances.iter().any(|i| i.service == *service && i.version == *version && i.healthy);
        if grows && !alive {
            bad.add(
                format!("weights.{version}"),
                format_args!(
                    "{service} {version} has no healthy instance; start one, or set allowEmpty \
                     (--allow-empty)"
                ),
            );
        }
    }
    bad.finish(Some(()))
}
