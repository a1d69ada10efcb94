//! Drives one rollout.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use weir_mesh::rollout::{Paused, Phase, Rollout, Step, Told};

use super::act::{self, Act};
use super::clock::Clock;
use super::decide::{self, Facts, Gate, Move};
use super::feed::Edges;
use super::gate::Asking;
use super::judge::Judge;
use super::live::Live;
use super::{facts, sources, write_back};
use crate::control::{Author, ChangeError, Control, Plan};
use crate::store::{Action, Desired, Held, Revision, Store};
use crate::text::unix_nanos;

/// How long to wait after a change that could not be made.
pub const RETRY: Duration = Duration::from_secs(1);
/// How often what is known is looked at when nothing happens.
const LOOK: Duration = Duration::from_secs(1);

struct Runner {
    control: Arc<Control>,
    name: Arc<str>,
    /// What was last seen of it.
    seen: Held<Rollout>,
    clock: Clock,
    /// Whether the clock of the step runs.
    ready: bool,
    judge: Judge,
    gate: Option<Asking>,
    /// Since when the service's weights are as they are.
    weights: Revision,
    reports: mpsc::Receiver<Edges>,
    sources: sources::Running,
}

/// Drives a rollout until it is at its end, or gone.
pub async fn run(control: Arc<Control>, name: Arc<str>) {
    let held = control.desired.borrow().rollouts.get(&name).cloned();
    let Some(held) = held else { return };
    if held.value.state.write_back == Some(Told::Pending) {
        return write_back::run(control, held).await;
    }
    let spec = held.value.spec.clone();
    let state = &held.value.state;
    let mut runner = Runner {
        clock: Clock::new(state.elapsed, state.step_elapsed, Instant::now()),
        ready: false,
        judge: Judge::new(&spec),
        gate: None,
        weights: 0,
        reports: control.rollouts.feed.tap(&spec.service),
        sources: sources::Running::new(),
        control,
        name,
        seen: held,
    };
    runner.drive().await;
}

impl Runner {
    async fn drive(&mut self) {
        let mut desired = self.control.desired.subscribe();
        let mut progress = self.control.registry.watch_progress();
        loop {
            progress.mark_unchanged();
            let now = desired.borrow_and_update().clone();
            let Some(held) = now.rollouts.get(&self.name) else { return };
            if held.value.state.phase.is_final() {
                return;
            }
            self.take_up(held.clone(), &now);
            let next = self.next(&now).await;
            if let Move::Stay { message, ready } = next {
                self.ready = ready;
                self.judge.ready(ready, Instant::now());
                self.tell(message);
            } else if let Err(error) = self.make(next).await {
                // Somebody else was faster, most often: look again.
                self.tell(format!("a change could not be made: {error}"));
                if !matches!(error, ChangeError::Aborted(_)) {
                    tracing::warn!(rollout = %self.name, %error, "a rollout waits");
                }
                // What is not known here yet comes by itself.
                let _ = tokio::time::timeout(RETRY, desired.changed()).await;
                continue;
            }
            let wake = self.wake();
            tokio::select! {
                changed = desired.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                _ = progress.changed() => {}
                Some(edges) = self.reports.recv() => self.hear(&edges),
                () = Asking::answered(&mut self.gate) => {}
                Some(said) = self.sources.next() => self.judge.source(said),
                () = tokio::time::sleep_until(wake) => {}
            }
            // What has come in at once is looked at once.
            while let Ok(edges) = self.reports.try_recv() {
                self.hear(&edges);
            }
        }
    }

    /// Takes up what is stored, when that is another thing than before.
    fn take_up(&mut self, held: Held<Rollout>, desired: &Desired) {
        self.tick();
        let service = desired.services.get(&held.value.spec.service);
        let weights = service.map_or(0, |service| service.revision).max(1);
        if held == self.seen && weights == self.weights {
            return;
        }
        let (old, new) = (&self.seen.value.state, &held.value.state);
        let resumed = old.paused == Some(Paused::Failure) && new.phase == Phase::Progressing;
        let anew = held.value.spec != self.seen.value.spec || resumed;
        if anew {
            // Who resumed it after a failure wants it looked at anew.
            self.judge = Judge::new(&held.value.spec);
        }
        if held != self.seen {
            self.clock = Clock::new(new.elapsed, new.step_elapsed, Instant::now());
            self.gate = None;
            self.ready = false;
        }
        if anew || weights != self.weights || old.step != new.step {
            self.judge.step(&held.value);
        }
        self.weights = weights;
        let watched = new.phase == Phase::Progressing || new.paused == Some(Paused::Step);
        let judged = new.begun && watched;
        self.sources.keep(judged.then_some(&*held.value));
        self.seen = held;
    }

    fn tick(&mut self) {
        let progressing = self.seen.value.state.phase == Phase::Progressing;
        self.clock.tick(Instant::now(), progressing, self.ready);
    }

    fn hear(&mut self, edges: &Edges) {
        self.judge.hear(edges, &self.seen.value, self.weights);
    }

    async fn next(&mut self, desired: &Desired) -> Move {
        let rollout = self.seen.value.clone();
        let spec = &rollout.spec;
        let service = desired.services.get(&spec.service);
        let instances = self.control.instances();
        let intact = service.is_none_or(|held| rollout.intact(&held.value));
        let intruder = if intact { None } else { self.intruder().await };
        let closed = Gate::Closed("asks".to_owned());
        let judged = self.judge.judged();
        let facts = Facts {
            service: service.map(|held| &*held.value),
            canary_healthy: facts::healthy(&instances, &spec.service, &spec.canary),
            baseline_healthy: spec
                .baseline
                .as_ref()
                .is_none_or(|version| facts::healthy(&instances, &spec.service, version)),
            spread: facts::spread(&self.control, self.weights),
            elapsed: self.clock.elapsed,
            step_elapsed: self.clock.step,
            gate: self.gate.as_ref().map_or(&closed, Asking::said),
            judged: &judged,
            intruder: intruder.as_deref(),
        };
        let next = decide::decide(&rollout, &facts);
        let ready = matches!(next, Move::Stay { ready: true, .. });
        // A gate is asked only while all else is well.
        match spec.steps.get(rollout.state.step) {
            Some(Step::Gate(hook)) if ready && self.gate.is_none() => {
                self.gate = Some(Asking::start(hook.clone(), &rollout));
            }
            _ => {}
        }
        next
    }

    async fn intruder(&self) -> Option<String> {
        let (control, service) = (self.control.clone(), self.seen.value.spec.service.clone());
        let desired = control.desired.borrow().clone();
        let read = move || facts::last_author(&control, &desired, &service);
        match tokio::task::spawn_blocking(read).await {
            Ok(Ok(who)) => who,
            Ok(Err(error)) => {
                tracing::warn!(%error, "who changed the weights cannot be read");
                None
            }
            Err(_) => None,
        }
    }

    /// When to look again though nothing happens.
    fn wake(&self) -> Instant {
        let state = &self.seen.value.state;
        let spec = &self.seen.value.spec;
        let mut after = LOOK;
        if state.phase == Phase::Progressing {
            after = after.min(spec.deadline.saturating_sub(self.clock.elapsed));
            if let Some(Step::Pause(Some(time)) | Step::Analyze { duration: Some(time), .. }) =
                spec.steps.get(state.step)
            {
                let left = time.saturating_sub(self.clock.step);
                after = if left.is_zero() { after } else { after.min(left) };
            }
        }
        Instant::now() + after.max(Duration::from_millis(1))
    }

    fn tell(&self, message: String) {
        let live = Live {
            revision: self.seen.revision,
            message,
            elapsed: self.clock.elapsed,
            step_elapsed: self.clock.step,
            judged: self.judge.judged(),
        };
        self.control.rollouts.set(&self.name, live);
    }

    /// Makes a move: weights and state are one change.
    async fn make(&mut self, next: Move) -> Result<(), ChangeError> {
        let act = Act {
            actor: format!("rollout/{}", self.name),
            reason: String::new(),
            now_ms: unix_nanos() / 1_000_000,
            times: Some((self.clock.elapsed, self.clock.step)),
        };
        let (name, seen) = (self.name.clone(), self.seen.clone());
        let reason = match &next {
            Move::Fail(why) | Move::Pause(_, why) => why.clone(),
            Move::Begin => "begins".to_owned(),
            Move::Enter(step) => {
                let text = seen.value.spec.steps.get(*step).map(ToString::to_string);
                let steps = seen.value.spec.steps.len();
                format!("step {} of {steps}: {}", step + 1, text.unwrap_or_default())
            }
            Move::Succeed => "done".to_owned(),
            Move::Stay { .. } => return Ok(()),
        };
        let author = Author { actor: act.actor.clone(), reason };
        let plan = move |desired: &Desired, _: &dyn Store| {
            let same = desired.rollouts.get(&name).is_some_and(|held| *held == seen);
            if !same {
                return Err(ChangeError::Aborted("it was changed meanwhile".to_owned()));
            }
            let edits = act::edits_of(desired, &seen.value, &next, &act)?;
            let edits = edits.map(|(edits, _)| edits).unwrap_or_default();
            Ok(Plan { action: Action::Rollout, edits, dry_run: false })
        };
        self.control.change(author, plan).await.map(drop)
    }
}
