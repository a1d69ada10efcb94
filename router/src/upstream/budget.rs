//! What retries and hedges may add to a service's load (GEP-3388).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use weir_mesh::policy::traffic::RetryConstraint;

/// Of a window; one more than divides it, so that it is never looked at for
/// less than its length.
const SLOTS: usize = 11;

/// Counts the requests of a service and the retries that they allow. All workers
/// of a router share one; there is no lock.
#[derive(Debug)]
pub struct RetryBudget {
    constraint: RetryConstraint,
    requests: Window,
    retries: Window,
    /// Retries on account of the rate that is always allowed.
    besides: Window,
}

impl RetryBudget {
    /// Nothing was sent yet.
    #[must_use]
    pub fn new(constraint: RetryConstraint) -> Self {
        Self {
            constraint,
            requests: Window::new(constraint.interval),
            retries: Window::new(constraint.interval),
            besides: Window::new(constraint.per),
        }
    }

    /// What it was made from.
    #[must_use]
    pub fn constraint(&self) -> RetryConstraint {
        self.constraint
    }

    /// A request begins. `now` is [`crate::clock::millis`].
    pub fn request(&self, now: u64) {
        self.requests.add(now);
    }

    /// Whether there may be one more retry or hedge; counts it then.
    ///
    /// In any time, those are at most `percent` of its requests, and `count` for
    /// each `per` that was begun besides.
    #[must_use]
    pub fn spend(&self, now: u64) -> bool {
        let percent = u64::from(self.constraint.percent);
        self.retries.add(now);
        if self.retries.sum(now) * 100 <= percent * self.requests.sum(now) {
            return true;
        }
        self.retries.take_back(now);
        self.besides.add(now);
        if self.besides.sum(now) <= u64::from(self.constraint.count) {
            return true;
        }
        self.besides.take_back(now);
        false
    }
}

/// A count of the last so many milliseconds. Each slot holds in its upper half
/// which stretch of time it counts, in its lower half the count.
#[derive(Debug)]
struct Window {
    width: u64,
    slots: [AtomicU64; SLOTS],
}

impl Window {
    fn new(length: Duration) -> Self {
        let width = u64::try_from(length.as_millis()).unwrap_or(u64::MAX) / (SLOTS as u64 - 1);
        Self { width: width.max(1), slots: Default::default() }
    }

    /// Which stretch `now` is in. It fits a half for 49 days at a millisecond
    /// each; then it begins again.
    fn stretch(&self, now: u64) -> u64 {
        (now / self.width) & 0xffff_ffff
    }

    #[expect(clippy::cast_possible_truncation, reason = "a remainder of 11")]
    fn slot(&self, stretch: u64) -> &AtomicU64 {
        &self.slots[(stretch % SLOTS as u64) as usize]
    }

    fn add(&self, now: u64) {
        let stretch = self.stretch(now);
        let slot = self.slot(stretch);
        let mut held = slot.load(Relaxed);
        while held >> 32 != stretch {
            match slot.compare_exchange_weak(held, stretch << 32 | 1, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(found) => held = found,
            }
        }
        slot.fetch_add(1, Relaxed);
    }

    fn take_back(&self, now: u64) {
        let stretch = self.stretch(now);
        let less = |held: u64| (held >> 32 == stretch && held & 0xffff_ffff > 0).then(|| held - 1);
        // A slot that has become another stretch's is no longer counted at all.
        let _ = self.slot(stretch).fetch_update(Relaxed, Relaxed, less);
    }

    fn sum(&self, now: u64) -> u64 {
        let last = self.stretch(now);
        let first = last.saturating_sub(SLOTS as u64 - 1);
        let held = self.slots.iter().map(|slot| slot.load(Relaxed));
        held.filter(|held| (first..=last).contains(&(held >> 32)))
            .map(|held| held & 0xffff_ffff)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The bound: whatever comes when, and however much of it fails.
        #[test]
        fn retries_stay_within_the_budget(
            percent in 0..=100_u32, count in 0..=20_u32,
            interval in 100..10_000_u64, per in 100..2_000_u64,
            steps in prop::collection::vec((0..400_u64, 0..5_u32, 0..5_u32), 1..300),
        ) {
            let constraint = RetryConstraint {
                percent, count,
                interval: Duration::from_millis(interval), per: Duration::from_millis(per),
            };
            let budget = RetryBudget::new(constraint);
            let (mut now, mut sent, mut retried) = (1, 0_u64, 0_u64);
            for (pause, requests, failures) in steps {
                now += pause;
                for _ in 0..requests {
                    budget.request(now);
                    sent += 1;
                }
                for _ in 0..failures {
                    retried += u64::from(budget.spend(now));
                }
                // Widths are cut to milliseconds: a window may be that much shorter.
                let windows = now / (per / 10 * 10).max(1) + 1;
                let most = sent * u64::from(percent) / 100 + u64::from(count) * windows;
                prop_assert!(retried <= most, "{retried} of {sent} after {now} ms, {most} allowed");
            }
        }

        #[test]
        fn what_is_within_the_budget_is_allowed(requests in 1..1000_u64) {
            let budget = RetryBudget::new(RetryConstraint { count: 0, ..Default::default() });
            (0..requests).for_each(|_| budget.request(5));
            let allowed = (0..requests).filter(|_| budget.spend(6)).count() as u64;
            prop_assert_eq!(allowed, requests / 5);
        }
    }

    #[test]
    fn requests_of_long_ago_allow_nothing() {
        let budget = RetryBudget::new(RetryConstraint { count: 0, ..Default::default() });
        (0..1000).for_each(|_| budget.request(1));
        assert!(budget.spend(9_000));
        assert!(!budget.spend(12_000));
    }

    #[test]
    fn the_rate_that_is_always_allowed_comes_again() {
        let budget = RetryBudget::new(RetryConstraint::default());
        assert_eq!((0..50).filter(|_| budget.spend(1)).count(), 10);
        assert_eq!((0..50).filter(|_| budget.spend(1_200)).count(), 10);
    }
}
