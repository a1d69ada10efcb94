//! Counts in this process, shared by its workers without a lock.
//!
//! The law is that of a leaky bucket (the generic cell rate algorithm, ITU-T
//! I.371): a key is one number, the time at which its bucket would be empty
//! again. Of N requests and a burst of B, no window of the rule's length sees
//! more than N + B let through.
//!
//! Our own and not a crate: those at hand keep a map behind locks that grows
//! with what clients send. Here a key is 16 bytes in a table of fixed size.
//! When too many keys are busy at a time, a new one takes the place **and the
//! count** of the least busy of its set. The least count of a set never falls,
//! so a key that comes back never finds less than it left: nobody gets more by
//! flooding the table, and whoever is busiest is the last to be forgotten. The
//! price is that new keys may then be refused early.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use weir_mesh::policy::rate_limit::LimitRule;
use weir_mesh::telemetry::metrics::Counter;

/// Places of a set: two cache lines.
const WAYS: usize = 8;

/// How fast, in nanoseconds.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// What one request takes from the bucket. Rounded up: never too many.
    interval: u64,
    /// What the bucket holds.
    depth: u64,
}

impl Rate {
    /// Of a rule.
    #[must_use]
    pub fn of(rule: &LimitRule) -> Self {
        let per = u64::try_from(rule.per.as_nanos()).unwrap_or(u64::MAX);
        let interval = per.div_ceil(u64::from(rule.requests.get()));
        Self { interval, depth: interval.saturating_mul(u64::from(rule.burst.get())) }
    }
}

/// What became of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// When it may come again; none: it is let through.
    pub refused: Option<Duration>,
    /// How many more would be let through now.
    pub remaining: u64,
    /// Until nothing of the limit is used.
    pub reset: Duration,
}

struct Slot {
    /// Whose it is; 0: nobody's.
    key: AtomicU64,
    /// When its bucket is empty.
    until: AtomicU64,
}

type Set = [Slot; WAYS];

/// The counts of one rule.
pub struct Counts {
    /// Made when they are first needed: most rules see few keys.
    sets: Box<[OnceLock<Box<Set>>]>,
    /// Keys that made place for others while they were still counted.
    pub forgotten: Counter,
}

impl Counts {
    /// For so many keys at a time, before they begin to share.
    #[must_use]
    pub fn new(max_keys: u32) -> Self {
        // Half full, few sets have more keys than places.
        let sets = (max_keys as usize).div_ceil(WAYS / 2);
        Self { sets: (0..sets).map(|_| OnceLock::new()).collect(), forgotten: Counter::default() }
    }

    /// Counts a request of the key with this hash, if it may come. `now` is in
    /// nanoseconds and never 0.
    ///
    /// Exact among requests that are one after the other. Two workers that
    /// evict the same key in the same instant may let one more through.
    pub fn take(&self, rate: Rate, hash: u64, now: u64, cost: u32) -> Verdict {
        let until = self.find(hash, now);
        let wanted = rate.interval.saturating_mul(u64::from(cost));
        let mut before = until.load(Relaxed);
        loop {
            let next = before.max(now).saturating_add(wanted);
            let ready = next.saturating_sub(rate.depth);
            if ready > now {
                return verdict(rate, before, now, Some(Duration::from_nanos(ready - now)));
            }
            match until.compare_exchange_weak(before, next, Relaxed, Relaxed) {
                Ok(_) => return verdict(rate, next, now, None),
                Err(other) => before = other,
            }
        }
    }

    fn find(&self, hash: u64, now: u64) -> &AtomicU64 {
        // The upper half chooses the set, all of it is the key.
        let index = ((hash >> 32) * self.sets.len() as u64) >> 32;
        let set = self.sets[index as usize].get_or_init(Box::default);
        let key = hash.max(1);
        // Bounded: another worker may take the place that we have chosen.
        for _ in 0..WAYS {
            if let Some(slot) = set.iter().find(|slot| slot.key.load(Relaxed) == key) {
                return &slot.until;
            }
            let least = least(set);
            let other = least.key.load(Relaxed);
            if least.key.compare_exchange(other, key, Relaxed, Relaxed).is_ok() {
                if least.until.load(Relaxed) > now {
                    self.forgotten.inc();
                }
                return &least.until;
            }
        }
        &least(set).until
    }
}

fn least(set: &Set) -> &Slot {
    let [first, rest @ ..] = set;
    rest.iter().fold(first, |least, slot| {
        if slot.until.load(Relaxed) < least.until.load(Relaxed) { slot } else { least }
    })
}

fn verdict(rate: Rate, until: u64, now: u64, refused: Option<Duration>) -> Verdict {
    let used = until.saturating_sub(now);
    Verdict {
        refused,
        remaining: rate.depth.saturating_sub(used) / rate.interval,
        reset: Duration::from_nanos(used),
    }
}

impl Default for Slot {
    fn default() -> Self {
        Self { key: AtomicU64::new(0), until: AtomicU64::new(0) }
    }
}

#[cfg(test)]
mod tests;
