//! What is known of rollouts that run, beside what is stored.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use weir_mesh::telemetry::metrics::Counter;

use super::feed::Feed;
use super::write_back::Secret;
use crate::store::Revision;

/// What the analysis says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verdict {
    /// Nothing is judged.
    #[default]
    None,
    /// Neither has been shown.
    NotEnough,
    /// Good enough.
    Promote,
    /// Worse.
    RollBack,
}

/// One metric.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct JudgedMetric {
    /// `success-rate`, `latency-p99`, or an outside source's.
    pub name: String,
    /// What it alone says.
    pub verdict: Verdict,
    /// Share of good requests, or seconds, or the source's own unit.
    pub canary: f64,
    /// Likewise.
    pub baseline: f64,
    /// That the canary is worse: the e-value.
    pub evidence: f64,
    /// What decides.
    pub limit: f64,
    /// For people.
    pub message: String,
}

/// What is known of a canary.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Judged {
    /// What follows from it.
    pub verdict: Verdict,
    /// Why, or what is missing.
    pub message: String,
    /// About so many requests of the canary are missing, if that is known.
    pub more: Option<u64>,
    /// Each.
    pub metrics: Vec<JudgedMetric>,
    /// That were compared.
    pub canary_requests: u64,
    /// Likewise.
    pub baseline_requests: u64,
}

/// What is known of a rollout at this moment.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Live {
    /// Of what was stored; what is known of another state of it is nothing.
    pub revision: Revision,
    /// What it waits for.
    pub message: String,
    /// That it has run.
    pub elapsed: Duration,
    /// In the step.
    pub step_elapsed: Duration,
    /// Of the canary.
    pub judged: Judged,
}

/// All rollouts that run here.
#[derive(Default)]
pub struct Rollouts {
    live: Mutex<BTreeMap<Arc<str>, Live>>,
    changed: watch::Sender<u64>,
    /// What routers report.
    pub feed: Feed,
    /// Signs what is written back.
    pub secret: Option<Secret>,
    /// Tries to write back that failed, since the start.
    pub failures: Counter,
}

impl Rollouts {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Live>> {
        // Each method makes one insertion or removal: none is half done.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of a rollout, if it runs here and is still as it was stored then.
    #[must_use]
    pub fn get(&self, name: &str, revision: Revision) -> Option<Live> {
        self.lock().get(name).filter(|live| live.revision == revision).cloned()
    }

    /// Replaces what is known of a rollout.
    pub fn set(&self, name: &Arc<str>, live: Live) {
        let mut all = self.lock();
        if all.get(name) != Some(&live) {
            all.insert(name.clone(), live);
            drop(all);
            self.changed.send_modify(|count| *count += 1);
        }
    }

    /// Forgets a rollout that does not run here any more.
    pub fn forget(&self, name: &str) {
        self.lock().remove(name);
        self.changed.send_modify(|count| *count += 1);
    }

    /// Forgets all of them: another control plane drives them.
    pub fn clear(&self) {
        self.lock().clear();
        self.changed.send_modify(|count| *count += 1);
    }

    /// Follows all of it.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}
