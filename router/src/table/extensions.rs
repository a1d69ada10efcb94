//! HTTPRouteFilters of a rule, and what is drawn for them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use weir_mesh::model::{Route, RouteRule};
use weir_mesh::policy::filter::{Filter, Share};
use weir_mesh::policy::{Attached, PolicyKind, PolicySpec};

/// One filter, in use by any number of rules.
pub struct ExtensionEntry {
    /// Its name.
    pub name: Arc<str>,
    /// What it does.
    pub filter: Arc<Filter>,
    /// Which requests are delayed.
    pub delays: Draw,
    /// Which requests are aborted.
    pub aborts: Draw,
}

/// Chooses a share of requests, spread as evenly as can be and not at random:
/// after any number of requests, what was chosen is within a few of the share.
///
/// Request number n is chosen when the fractional part of n times a constant is
/// below the share. With the constants of Roberts' R2 sequence two draws of the
/// same requests are as good as independent: of 50 % and 50 %, both hit a quarter.
pub struct Draw {
    next: AtomicU64,
    step: u64,
}

/// 2^64 over the plastic number, and over its square.
const STEPS: [u64; 2] = [0xC13F_A9A9_02A6_328F, 0x91E1_0DA5_C79E_7B1D];

impl Draw {
    fn new(step: u64) -> Self {
        Self { next: AtomicU64::new(0), step }
    }

    /// Whether the next request is chosen.
    #[must_use]
    pub fn hits(&self, share: Share) -> bool {
        if share == Share::ALL {
            return true;
        }
        let at = self.next.fetch_add(1, Relaxed).wrapping_mul(self.step);
        let millionth = (u128::from(at) * u128::from(Share::ALL.millionths())) >> 64;
        millionth < u128::from(share.millionths())
    }
}

/// Keeps what was drawn from one table to the next.
#[derive(Default)]
pub struct Extensions {
    known: HashMap<Arc<str>, (Arc<ExtensionEntry>, u64)>,
    epoch: u64,
}

impl Extensions {
    /// Begins a table.
    pub fn begin(&mut self) {
        self.epoch += 1;
    }

    /// Ends a table: filters that no rule of it has are forgotten.
    pub fn sweep(&mut self) {
        let epoch = self.epoch;
        self.known.retain(|_, (_, seen)| *seen == epoch);
    }

    /// Those of a rule: first those that it refers to by `names`, then those
    /// that are attached to it, then those of its whole route. Each once. A name
    /// that no filter has is left out.
    pub fn of_rule(
        &mut self,
        route: &Route,
        rule: &RouteRule,
        names: &[Arc<str>],
        attached: &Attached<'_>,
    ) -> Vec<Arc<ExtensionEntry>> {
        let mut found: Vec<Arc<ExtensionEntry>> = Vec::new();
        let mut add = |entry: Arc<ExtensionEntry>| {
            if !found.iter().any(|held| Arc::ptr_eq(held, &entry)) {
                found.push(entry);
            }
        };
        for name in names {
            if let Some(filter) = attached.filter(name) {
                add(self.entry(name, filter));
            }
        }
        for policy in attached.of_rule(route.kind, &route.name, &rule.name, PolicyKind::Filter) {
            if let PolicySpec::Filter(filter) = &policy.spec {
                add(self.entry(&policy.name, filter));
            }
        }
        found
    }

    fn entry(&mut self, name: &Arc<str>, filter: &Arc<Filter>) -> Arc<ExtensionEntry> {
        if let Some((entry, seen)) = self.known.get_mut(name)
            && *entry.filter == **filter
        {
            *seen = self.epoch;
            return entry.clone();
        }
        let [delays, aborts] = STEPS.map(Draw::new);
        let entry = ExtensionEntry { name: name.clone(), filter: filter.clone(), delays, aborts };
        let entry = Arc::new(entry);
        self.known.insert(name.clone(), (entry.clone(), self.epoch));
        entry
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_share_is_held_after_any_number_of_requests(
            millionths in 0u32..=1_000_000,
            which in 0usize..2,
        ) {
            let share = Share::of_percentage(f64::from(millionths) / 10_000.0).unwrap();
            let draw = Draw::new(STEPS[which]);
            let mut chosen = 0.0;
            for n in 1..=20_000 {
                chosen += f64::from(u8::from(draw.hits(share)));
                let wanted = f64::from(n) * f64::from(share.millionths()) / 1e6;
                prop_assert!((chosen - wanted).abs() <= 6.0, "{chosen} of {n}, not {wanted}");
            }
        }
    }

    #[test]
    fn two_draws_meet_as_often_as_chance_would_have_it() {
        let [delays, aborts] = STEPS.map(Draw::new);
        let half = Share::of_percentage(50.0).unwrap();
        let both = |_: &i32| delays.hits(half) & aborts.hits(half);
        let both = (0..1000).filter(both).count();
        assert!((245..=255).contains(&both), "{both}");
    }

    #[test]
    fn none_and_all() {
        let draw = Draw::new(STEPS[0]);
        let none = Share::of_percentage(0.0).unwrap();
        assert!(!(0..1000).any(|_| draw.hits(none)));
        assert!((0..1000).all(|_| draw.hits(Share::ALL)));
    }
}
