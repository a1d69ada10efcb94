//! Rollouts: plans of shifts.

mod wire;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use weir_mesh::model::Violations;
use weir_mesh::policy::value;
use weir_mesh::rollout::{Spec, read_rollout};
use weir_proto::weir::control::v1 as pb;

use super::{change, error};
use crate::access::{self, Caller, Role};
use crate::control::{Author, ChangeError, Control, Made, Plan};
use crate::guard::{Guard, Scope};
use crate::rollout::{self, Act};
use crate::store::{Action, Desired, Edit, Held, ObjectKey, Store};

/// A rollout at each change.
pub type Watching = ReceiverStream<Result<pb::Rollout, Status>>;

/// Between two answers to who watches.
const PACE: Duration = Duration::from_millis(100);

fn shown(control: &Control, held: &Held<weir_mesh::rollout::Rollout>) -> pb::Rollout {
    let live = control.rollouts.get(&held.value.name, held.revision);
    wire::rollout(&held.value, held.revision, live)
}

/// As it was stored, in the history.
pub(super) fn stored(rollout: &weir_mesh::rollout::Rollout) -> pb::Rollout {
    wire::rollout(rollout, 0, None)
}

fn no_rollout(name: &str) -> Status {
    Status::not_found(format!("no rollout {:?}", name.chars().take(253).collect::<String>()))
}

pub(super) fn list(
    control: &Arc<Control>,
    request: &pb::ListRolloutsRequest,
) -> Result<pb::ListRolloutsResponse, Status> {
    let desired = control.desired.borrow().clone();
    let wanted = |held: &&Held<weir_mesh::rollout::Rollout>| {
        request.service.is_empty() || held.value.spec.service.as_str() == request.service
    };
    let rollouts = desired.rollouts.values().filter(wanted);
    Ok(pb::ListRolloutsResponse { rollouts: rollouts.map(|held| shown(control, held)).collect() })
}

pub(super) fn get(control: &Arc<Control>, name: &str) -> Result<pb::Rollout, Status> {
    let desired = control.desired.borrow().clone();
    let held = desired.rollouts.get(name).ok_or_else(|| no_rollout(name))?;
    Ok(shown(control, held))
}

pub(super) fn watch(control: &Arc<Control>, name: &str) -> Result<Watching, Status> {
    let first = get(control, name)?;
    // One slot: while the reader is slow, newer states replace older ones.
    let (sender, stream) = mpsc::channel(1);
    let (control, name) = (control.clone(), name.to_owned());
    tokio::spawn(async move { follow(&control, &name, first, &sender).await });
    Ok(ReceiverStream::new(stream))
}

async fn follow(
    control: &Arc<Control>,
    name: &str,
    first: pb::Rollout,
    sender: &mpsc::Sender<Result<pb::Rollout, Status>>,
) {
    let mut desired = control.desired.subscribe();
    let mut live = control.rollouts.watch();
    let mut last = None;
    let mut now = first;
    loop {
        let phase = now.status.as_ref().map(pb::RolloutStatus::phase);
        if last.as_ref() != Some(&now) {
            if sender.send(Ok(now.clone())).await.is_err() {
                return;
            }
            last = Some(now);
        }
        if phase.is_some_and(wire::is_final) {
            return;
        }
        tokio::select! {
            changed = desired.changed() => if changed.is_err() { return },
            changed = live.changed() => if changed.is_err() { return },
            () = control.shutdown.requested() => {
                let stopping = Status::unavailable("the control plane is stopping; come back");
                let _ = sender.send(Err(stopping)).await;
                return;
            }
            () = sender.closed() => return,
        }
        tokio::time::sleep(PACE).await;
        now = match get(control, name) {
            Ok(now) => now,
            Err(gone) => {
                let _ = sender.send(Err(gone)).await;
                return;
            }
        };
    }
}

/// What a request sends: a rollout by its name and spec. `at` is its path.
pub(super) fn read(
    sent: &pb::Rollout,
    at: &str,
    bad: &mut Violations,
) -> Option<(Arc<str>, Arc<Spec>)> {
    let written = sent.spec.as_ref().map(value::from_struct).unwrap_or_default();
    match read_rollout(&sent.name, &written, at) {
        Ok((name, spec)) => Some((name, Arc::new(spec))),
        Err(invalid) => {
            bad.extend(invalid);
            None
        }
    }
}

pub(super) async fn start(
    control: &Arc<Control>,
    caller: Caller,
    mut request: pb::StartRolloutRequest,
) -> Result<pb::Rollout, Status> {
    let mut bad = Violations::new();
    let guard = change::guard(&mut request, &caller.actor(), &mut bad);
    change::check_reason(&request.reason, &mut bad);
    let sent = request.rollout.unwrap_or_default();
    let read = read(&sent, "rollout", &mut bad);
    let (name, spec) = bad.finish(read).map_err(|e| error::invalid(&e))?;
    access::check_service(control, &caller, "StartRollout", spec.service.as_str()).await?;
    if spec.asks_outside() {
        // Who may only shift must not send the control plane to any address.
        let call = "StartRollout with webhooks or Prometheus";
        access::check_role(control, &caller, Role::Operator, call).await?;
    }
    let (act, dry_run) = (act(control, &name, &caller, &request.reason), request.dry_run);
    let own = name.clone();
    let plan = move |desired: &Desired, _: &dyn Store| {
        let edits = rollout::start(desired, &own, spec, &act)?;
        Ok(Plan { action: Action::Rollout, edits, dry_run })
    };
    let author = Author { actor: caller.actor(), reason: request.reason };
    control.change_guarded(author, guard, plan).await.map_err(error::change)?;
    if dry_run {
        return Ok(pb::Rollout { status: None, ..sent });
    }
    get(control, &name)
}

/// Who asks, and how long the rollout has run by now.
fn act(control: &Control, name: &str, caller: &Caller, reason: &str) -> Act {
    let revision = control.desired.borrow().rollouts.get(name).map_or(0, |held| held.revision);
    let live = control.rollouts.get(name, revision);
    let times = live.map(|live| (live.elapsed, live.step_elapsed));
    Act { times, ..Act::new(&caller.actor(), reason) }
}

/// What somebody asks of a rollout.
struct Ask {
    name: String,
    reason: String,
    guard: Guard,
}

macro_rules! ask {
    ($request:ident, $caller:ident) => {{
        let mut request = $request;
        let mut bad = Violations::new();
        let guard = change::guard(&mut request, &$caller.actor(), &mut bad);
        change::check_reason(&request.reason, &mut bad);
        bad.finish(Some(())).map_err(|e| error::invalid(&e))?;
        let scope = Scope::Object(ObjectKey::Rollout(request.name.as_str().into()));
        let guard = guard.expecting(scope, request.expected_revision);
        Ask { name: request.name, reason: request.reason, guard }
    }};
}

/// Makes it so.
async fn asked(
    control: &Arc<Control>,
    caller: &Caller,
    (method, ask): (&str, Ask),
    what: impl FnOnce(&Desired, &str, &Act) -> Result<Vec<Edit>, ChangeError> + Send + 'static,
) -> Result<Made, Status> {
    let Ask { name, reason, guard } = ask;
    let held = control.desired.borrow().rollouts.get(name.as_str()).cloned();
    let service = held.map(|held| held.value.spec.service.clone());
    if let Some(service) = &service {
        access::check_service(control, caller, method, service.as_str()).await?;
    }
    let act = act(control, &name, caller, &reason);
    let author = Author { actor: caller.actor(), reason };
    let plan = move |desired: &Desired, _: &dyn Store| {
        // Who was asked about is whose it is still.
        let now = desired.rollouts.get(name.as_str()).map(|held| &held.value.spec.service);
        if now != service.as_ref() {
            return Err(ChangeError::Aborted("the rollout was replaced; try again".to_owned()));
        }
        let edits = what(desired, &name, &act)?;
        Ok(Plan { action: Action::Rollout, edits, dry_run: false })
    };
    control.change_guarded(author, guard, plan).await.map_err(error::change)
}

pub(super) async fn pause(
    control: &Arc<Control>,
    caller: Caller,
    request: pb::ChangeRolloutRequest,
) -> Result<pb::Rollout, Status> {
    let name = request.name.clone();
    asked(control, &caller, ("PauseRollout", ask!(request, caller)), rollout::pause).await?;
    get(control, &name)
}

pub(super) async fn resume(
    control: &Arc<Control>,
    caller: Caller,
    request: pb::ChangeRolloutRequest,
) -> Result<pb::Rollout, Status> {
    let name = request.name.clone();
    asked(control, &caller, ("ResumeRollout", ask!(request, caller)), rollout::resume).await?;
    get(control, &name)
}

pub(super) async fn promote(
    control: &Arc<Control>,
    caller: Caller,
    request: pb::PromoteRolloutRequest,
) -> Result<pb::Rollout, Status> {
    let (name, full) = (request.name.clone(), request.full);
    let what =
        move |desired: &Desired, name: &str, act: &Act| rollout::promote(desired, name, full, act);
    asked(control, &caller, ("PromoteRollout", ask!(request, caller)), what).await?;
    get(control, &name)
}

pub(super) async fn abort(
    control: &Arc<Control>,
    caller: Caller,
    request: pb::ChangeRolloutRequest,
) -> Result<pb::Rollout, Status> {
    let name = request.name.clone();
    asked(control, &caller, ("AbortRollout", ask!(request, caller)), rollout::abort).await?;
    get(control, &name)
}

pub(super) async fn delete(
    control: &Arc<Control>,
    caller: Caller,
    request: pb::ChangeRolloutRequest,
) -> Result<pb::ChangeResponse, Status> {
    let what = |desired: &Desired, name: &str, _: &Act| rollout::deletable(desired, name);
    let made = asked(control, &caller, ("DeleteRollout", ask!(request, caller)), what).await?;
    Ok(change::made(&made))
}
