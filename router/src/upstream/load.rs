//! How quick an instance is: peak-EWMA of its latency, and passive health.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::{Upstream, Watched};
use crate::metrics::Metrics;

/// How long the past counts.
const DECAY: Duration = Duration::from_secs(10);
/// An instance that was never asked counts as this quick, so that a new one is
/// tried without being flooded.
const UNKNOWN: f64 = 0.001;
/// Nothing is quicker than this, seconds.
const FLOOR: f64 = 0.000_01;
/// The first time out after a failed connection; doubles to `EJECT_MAX`.
const EJECT: Duration = Duration::from_millis(250);
const EJECT_MAX: Duration = Duration::from_secs(10);

/// One instance's load, seen by one worker.
#[derive(Debug)]
pub struct Load {
    /// Seconds.
    latency: Cell<f64>,
    seen: Cell<Instant>,
    pending: Cell<u32>,
    failures: Cell<u32>,
    out_until: Cell<Option<Instant>>,
}

impl Load {
    /// Not asked yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            latency: Cell::new(UNKNOWN),
            seen: Cell::new(Instant::now()),
            pending: Cell::new(0),
            failures: Cell::new(0),
            out_until: Cell::new(None),
        }
    }

    /// Expected cost of one more request: smaller is better.
    #[must_use]
    pub fn cost(&self) -> f64 {
        self.faded(Instant::now()) * f64::from(self.pending.get() + 1)
    }

    /// The latency, less what has faded since the last answer: an instance that
    /// was slow once is tried again.
    fn faded(&self, now: Instant) -> f64 {
        (self.latency.get() * self.kept(now)).max(FLOOR)
    }

    /// What is left of the past's weight, 0.0 to 1.0.
    fn kept(&self, now: Instant) -> f64 {
        let past = now.duration_since(self.seen.get()).as_secs_f64() / DECAY.as_secs_f64();
        // A busy instance was asked just now: there the line is the curve to 8 digits.
        if past < 1e-4 { 1.0 - past } else { (-past).exp() }
    }

    /// Requests that are under way.
    #[must_use]
    pub fn pending(&self) -> u32 {
        self.pending.get()
    }

    /// True while passive health checks keep it out.
    #[must_use]
    pub fn is_out(&self) -> bool {
        match self.out_until.get() {
            None => false,
            Some(until) if Instant::now() < until => true,
            Some(_) => {
                self.out_until.set(None);
                false
            }
        }
    }

    /// An answer began after `took`.
    pub fn answered(&self, took: Duration) {
        self.failures.set(0);
        self.observe(took, Instant::now());
    }

    /// An answer to what was sent at `began` begins now.
    pub fn answers(&self, began: Instant) {
        self.failures.set(0);
        let now = Instant::now();
        self.observe(now.saturating_duration_since(began), now);
    }

    /// There was no answer within `took`.
    pub fn slow(&self, took: Duration) {
        self.observe(took, Instant::now());
    }

    fn observe(&self, took: Duration, now: Instant) {
        let took = took.as_secs_f64();
        let keep = self.kept(now);
        let faded = (self.latency.get() * keep).max(FLOOR);
        self.seen.set(now);
        // Peaks count at once, improvements slowly.
        self.latency.set(if took > faded { took } else { faded + took * (1.0 - keep) });
    }

    /// It could not be reached, or refused.
    pub fn failed(&self) {
        // The many requests of one connection that broke are one failure.
        if self.is_out() {
            return;
        }
        let failures = self.failures.get().saturating_add(1);
        self.failures.set(failures);
        let out = EJECT.saturating_mul(1 << failures.min(10).saturating_sub(1)).min(EJECT_MAX);
        self.out_until.set(Some(Instant::now() + out));
    }
}

impl Default for Load {
    fn default() -> Self {
        Self::new()
    }
}

/// Counts a request as pending for as long as it lives.
pub struct Pending(Rc<Upstream>, Option<Box<Watched>>);

impl Pending {
    /// One more.
    #[must_use]
    pub fn new(upstream: Rc<Upstream>) -> Self {
        Self(upstream, None).counted()
    }

    /// The same, at an instance of a service that has a policy.
    #[must_use]
    pub fn watched(upstream: Rc<Upstream>, watched: Watched) -> Self {
        Self(upstream, Some(Box::new(watched))).counted()
    }

    fn counted(self) -> Self {
        self.0.load.pending.set(self.0.load.pending.get() + 1);
        self
    }

    /// What is learnt from it, where there is a policy.
    pub fn watch(&mut self) -> Option<&mut Watched> {
        self.1.as_deref_mut()
    }

    /// It has ended, well or not.
    pub fn ended(&mut self, good: bool, metrics: &Metrics) {
        if let Some(watched) = &mut self.1 {
            watched.judge(good, metrics);
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.load.pending.set(self.0.load.pending.get().saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_counts_at_once_and_fades_slowly() {
        let load = Load::new();
        load.answered(Duration::from_millis(100));
        assert!((load.cost() - 0.1).abs() < 1e-3);
        load.answered(Duration::from_millis(1));
        assert!(load.cost() > 0.09);
    }

    #[test]
    fn a_failure_keeps_it_out_and_an_answer_forgives() {
        let load = Load::new();
        assert!(!load.is_out());
        load.failed();
        assert!(load.is_out());
        load.answered(Duration::from_millis(1));
        assert_eq!(load.failures.get(), 0);
    }

    #[test]
    fn an_instance_that_was_slow_once_is_cheap_again_in_time() {
        let load = Load::new();
        load.answered(Duration::from_secs(3));
        load.seen.set(Instant::now() - 20 * DECAY);
        assert!(load.cost() < 0.001, "{}", load.cost());
    }

    #[test]
    fn a_connection_that_breaks_counts_once() {
        let load = Load::new();
        for _ in 0..10 {
            load.failed();
        }
        assert_eq!(load.failures.get(), 1);
    }
}
