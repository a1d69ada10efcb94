//! Follows the objects: records and shows what they come to, or only shows it while
//! another replica leads.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Engine;
use crate::control::Control;
use crate::kubernetes::objects::{Kind, Objects};
use crate::store::{Desired, StoreError};

/// How long changes are gathered: a rollout makes many at once.
const GATHER: Duration = Duration::from_millis(20);
/// After recording failed.
const RETRY: Duration = Duration::from_secs(1);
/// How long a replica that does not lead waits for entries and objects to agree. The
/// leader records within milliseconds; without a leader nobody does, and routers are
/// not to wait for that.
const HOLD: Duration = Duration::from_secs(1);

/// What came of one look.
enum Outcome {
    Shown,
    /// Used, but not in the history.
    Unrecorded(StoreError),
    /// Shown but for what is desired: entries and objects differ.
    Held,
}

impl Engine {
    /// Follows the objects. Never returns.
    pub async fn keep(self: &Arc<Self>, control: &Arc<Control>) {
        let mut objects = self.mirror.watch();
        let mut entries = self.store.watch();
        let mut lead = self.replica.lead.subscribe();
        // Since when entries and objects differ.
        let mut since: Option<Instant> = None;
        // What changed between the first look and now.
        objects.mark_changed();
        loop {
            let wake = since.map(|since| since + HOLD);
            tokio::select! {
                changed = objects.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                _ = entries.changed() => {}
                _ = lead.changed() => {}
                () = sleep_until(wake) => {}
            }
            tokio::time::sleep(GATHER).await;
            objects.mark_unchanged();
            entries.mark_unchanged();
            lead.mark_unchanged();
            let patient = since.is_none_or(|since| since.elapsed() < HOLD);
            let (engine, own) = (self.clone(), control.clone());
            let work = move || {
                let _one_at_a_time = own.writing.lock().unwrap_or_else(PoisonError::into_inner);
                engine.round(&own, patient)
            };
            match tokio::task::spawn_blocking(work).await {
                Ok(Outcome::Shown) => since = None,
                Ok(Outcome::Held) => since = since.or_else(|| Some(Instant::now())),
                Ok(Outcome::Unrecorded(error)) => {
                    tracing::warn!(%error, "a change is used, but not in the history yet");
                    since = None;
                    tokio::time::sleep(RETRY).await;
                    objects.mark_changed();
                }
                Err(error) => {
                    tracing::error!(%error, "objects were not worked out");
                    since = None;
                }
            }
        }
    }

    /// Finishes what the leader before had begun, and shows it. Blocks.
    pub(in crate::kubernetes) fn take_over(&self, control: &Control) {
        let _one_at_a_time = control.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.mend();
        let before = control.desired.borrow().revision;
        self.publish(control, self.watch_on(before).0);
    }

    /// Whether there are any, or were when it was last looked.
    fn has_rollouts(&self, before: &Desired) -> bool {
        let there = |objects: &Objects| objects.all(Kind::Rollout).next().is_some();
        !before.rollouts.is_empty() || self.mirror.read(there)
    }

    /// Nobody else writes meanwhile.
    fn round(&self, control: &Control, patient: bool) -> Outcome {
        let before = control.desired.borrow().clone();
        if self.replica.leads() {
            if self.has_rollouts(&before) {
                self.mend();
            }
            let (made, recorded) = self.work(None, &before);
            self.publish(control, made);
            return match recorded {
                Ok(_) => Outcome::Shown,
                Err(error) => Outcome::Unrecorded(error),
            };
        }
        let (made, unlike) = self.watch_on(before.revision);
        if unlike.is_empty() || !patient {
            self.publish(control, made);
            return Outcome::Shown;
        }
        // Pods come and go whatever was decided.
        control.registry.discover(made.instances);
        Outcome::Held
    }
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}
