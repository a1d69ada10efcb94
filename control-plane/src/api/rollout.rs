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
use crate::access::Caller;
use crate::control::{Author, ChangeError, Control, Made, Plan};
use crate::rollout::{self, Act};
use crate::store::{Action, Desired, Edit, Held, Store};
use crate::text::unix_nanos;

/// A rollout at each change.
pub type Watching = ReceiverStream<Result<pb::Rollout, Status>>;

/// Between two answers to who watches.
const PACE: Duration = Duration::from_millis(100);

fn shown(control: &Control, held: &Held<weir_mesh::rollout::Rollout>) -> pb::Rollout {
    let live = control.rollouts.get(&held.value.name, held.revision);
    wire::rollout(&held.value, held.revision, live)
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
    request: pb::StartRolloutRequest,
) -> Result<pb::Rollout, Status> {
    let mut bad = Violations::new();
    change::check_reason(&request.reason, &mut bad);
    let sent = request.rollout.unwrap_or_default();
    let read = read(&sent, "rollout", &mut bad);
    let (name, spec) = bad.finish(read).map_err(|e| error::invalid(&e))?;
    let (act, dry_run) = (act(control, &name, &caller, &request.reason), request.dry_run);
    let own = name.clone();
    let plan = move |desired: &Desired, _: &dyn Store| {
        let edits = rollout::start(desired, &own, spec, &act)?;
        Ok(Plan { action: Action::Rollout, edits, dry_run })
    };
    let author = Author { actor: caller.actor(), reason: request.reason };
    let made = control.change(author, plan).await.map_err(error::change)?;
    if dry_run {
        return Ok(pb::Rollout { status: None, ..sent });
    }
    after(control, &name, &made)
}

/// The rollout as a change left it, or as it is since.
fn after(control: &Arc<Control>, name: &str, made: &Made) -> Result<pb::Rollout, Status> {
    let rollout = get(control, name)?;
    debug_assert!(rollout.revision >= made.revision || made.unchanged);
    Ok(rollout)
}

/// Who asks, and how long the rollout has run by now.
fn act(control: &Control, name: &str, caller: &Caller, reason: &str) -> Act {
    let revision = control.desired.borrow().rollouts.get(name).map_or(0, |held| held.revision);
    let live = control.rollouts.get(name, revision);
    Act {
        actor: caller.actor(),
        reason: reason.to_owned(),
        now_ms: unix_nanos() / 1_000_000,
        times: live.map(|live| (live.elapsed, live.step_elapsed)),
    }
}

/// Makes what somebody asks of a rollout.
async fn asked(
    control: &Arc<Control>,
    caller: &Caller,
    name: &str,
    reason: String,
    what: impl FnOnce(&Desired, &str, &Act) -> Result<Vec<Edit>, ChangeError> + Send + 'static,
) -> Result<Made, Status> {
    let mut bad = Violations::new();
    change::check_reason(&reason, &mut bad);
    bad.finish(Some(())).map_err(|e| error::invalid(&e))?;
    let act = act(control, name, caller, &reason);
    let author = Author { actor: caller.actor(), reason };
    let name = name.to_owned();
    let plan = move |desired: &Desired, _: &dyn Store| {
        let edits = what(desired, &name, &act)?;
        Ok(Plan { action: Action::Rollout, edits, dry_run: false })
    };
    control.change(author, plan).await.map_err(error::change)
}

pub(super) async fn pause(
    control: &Arc<Control>,
    caller: Caller,
    request: pb::ChangeRolloutRequest,
) -> Result<pb::Rollout, Status> {
    let made = asked(control, &caller, &request.name, request.reason, rollout::pause).await?;
    after(control, &request.name, &made)
}

pub(super) async fn resume(
    control: &Arc<Control>,
    caller: Caller,
    request: pb::ChangeRolloutRequest,
) -> Result<pb::Rollout, Status> {
    let made = asked(control, &caller, &request.name, request.reason, rollout::resume).await?;
    after(control, &request.name, &made)
}

pub(super) async fn promote(
    control: &Arc<Control>,
    caller: Caller,
    request: pb::PromoteRolloutRequest,
) -> Result<pb::Rollout, Status> {
    let full = request.full;
    let what =
        move |desired: &Desired, name: &str, act: &Act| rollout::promote(desired, name, full, act);
    let made = asked(control, &caller, &request.name, request.reason, what).await?;
    after(control, &request.name, &made)
}

pub(super) async fn abort(
    control: &Arc<Control>,
    caller: Caller,
    request: pb::ChangeRolloutRequest,
) -> Result<pb::Rollout, Status> {
    let made = asked(control, &caller, &request.name, request.reason, rollout::abort).await?;
    after(control, &request.name, &made)
}

pub(super) async fn delete(
    control: &Arc<Control>,
    caller: Caller,
    request: pb::ChangeRolloutRequest,
) -> Result<pb::ChangeResponse, Status> {
    let what = |desired: &Desired, name: &str, _: &Act| rollout::deletable(desired, name);
    let made = asked(control, &caller, &request.name, request.reason, what).await?;
    Ok(pb::ChangeResponse { revision: made.revision, ..Default::default() })
}
