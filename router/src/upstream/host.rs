//! What a router knows of one instance, for all its workers: read on the path of
//! a request, so it is atomics alone.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use weir_mesh::policy::traffic::SlowStart;

/// One instance of a service that has a policy. It outlives tables. Times are
/// [`crate::clock::millis`].
#[derive(Debug)]
pub struct Host {
    /// Failures since the last good answer.
    pub(super) failures: AtomicU32,
    /// Of the current interval.
    pub(super) good: AtomicU32,
    /// Of the current interval.
    pub(super) all: AtomicU32,
    /// Left out until then; 0: never was.
    pub(super) out_until: AtomicU64,
    /// How often it was left out of late.
    pub(super) times: AtomicU32,
    /// The checks say that it is not well.
    ill: AtomicBool,
    /// When it came, or became well.
    since: AtomicU64,
}

impl Host {
    /// Comes at `now`, and is well until something else is known.
    #[must_use]
    pub fn new(now: u64) -> Self {
        Self {
            failures: AtomicU32::new(0),
            good: AtomicU32::new(0),
            all: AtomicU32::new(0),
            out_until: AtomicU64::new(0),
            times: AtomicU32::new(0),
            ill: AtomicBool::new(false),
            since: AtomicU64::new(now),
        }
    }

    /// Whether it may be asked.
    #[must_use]
    pub fn is_usable(&self, now: u64) -> bool {
        !self.ill.load(Relaxed) && !self.is_out(now)
    }

    /// Left out for what it answered.
    #[must_use]
    pub fn is_out(&self, now: u64) -> bool {
        self.out_until.load(Relaxed) > now
    }

    /// Left out for what the checks say.
    #[must_use]
    pub fn is_ill(&self) -> bool {
        self.ill.load(Relaxed)
    }

    /// What the checks say. True when it is news.
    pub fn checked(&self, well: bool, now: u64) -> bool {
        let news = self.ill.swap(!well, Relaxed) == well;
        if news && well {
            self.since.store(now, Relaxed);
        }
        news
    }

    /// Its share, 0.0 to 1.0: less than all while it is new, or has come back
    /// after having been left out.
    #[must_use]
    pub fn share(&self, now: u64, start: Option<SlowStart>, back: Duration) -> f64 {
        let new = start.map_or(1.0, |start| {
            let floor = f64::from(start.min_weight) / 100.0;
            ramp(now, self.since.load(Relaxed), start.window).max(floor)
        });
        let out_until = self.out_until.load(Relaxed);
        if out_until == 0 || back.is_zero() {
            return new;
        }
        new.min(ramp(now, out_until, back).max(0.1))
    }
}

/// How much of `window` has passed at `now` since `began`, 0.0 to 1.0.
fn ramp(now: u64, began: u64, window: Duration) -> f64 {
    let passed = Duration::from_millis(now.saturating_sub(began));
    (passed.as_secs_f64() / window.as_secs_f64()).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_one_gets_its_share_little_by_little() {
        let host = Host::new(1_000);
        let start = Some(SlowStart { window: Duration::from_secs(10), min_weight: 10 });
        let share = |now| host.share(now, start, Duration::ZERO);
        assert_eq!((share(1_000), share(6_000), share(20_000)), (0.1, 0.5, 1.0));
        assert!(host.checked(false, 20_000) && !host.checked(false, 20_001));
        assert!(!host.is_usable(20_001));
        assert!(host.checked(true, 30_000));
        assert_eq!(share(30_000), 0.1, "it was ill, and begins again");
        host.out_until.store(50_000, Relaxed);
        assert_eq!(host.share(51_000, start, Duration::from_secs(4)), 0.25);
    }
}
