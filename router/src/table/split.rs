//! Dividing requests by weight: exact (invariant 6) or sticky (invariant 5).

use std::sync::Arc;

/// Weights and what is made of them once.
#[derive(Debug)]
pub struct Splitter {
    /// Keeps its value while what is divided stays the same: workers keep
    /// their state by it.
    pub index: u32,
    weights: Arc<[u32]>,
    cuts: Cuts,
}

impl Splitter {
    /// `weights` must not sum to 0.
    #[must_use]
    pub fn new(index: u32, weights: impl Into<Arc<[u32]>>) -> Self {
        let weights = weights.into();
        let cuts = Cuts::new(&weights);
        Self { index, weights, cuts }
    }

    /// Of the parts, in order.
    #[must_use]
    pub fn weights(&self) -> &[u32] {
        &self.weights
    }

    /// The next request's part, exactly by weight.
    pub fn exact(&self, state: &mut SplitState) -> usize {
        state.next(&self.weights)
    }

    /// The part of a user, by a point of [`point`].
    #[must_use]
    pub fn sticky(&self, point: u64) -> usize {
        self.cuts.part(point)
    }
}

/// A user's place on the line from 0 to 2^64 - 1. The same on every router.
///
/// FNV-1a, then a finalizer (Steele, Lea and Flood's SplitMix64) because FNV's
/// high bits are poor for short keys, and cuts look at the high bits.
#[must_use]
pub fn point(key: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in key {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// Cumulative weights as ends of intervals of the line, in the fixed order of
/// the versions: when a later one only grows, its interval only grows.
#[derive(Debug)]
pub struct Cuts(Box<[u64]>);

impl Cuts {
    /// `weights` must not sum to 0.
    #[must_use]
    pub fn new(weights: &[u32]) -> Self {
        let total: u128 = weights.iter().map(|w| u128::from(*w)).sum();
        let mut sum = 0_u128;
        let cut = |w: &u32| {
            sum += u128::from(*w);
            u64::try_from((sum << 64) / total.max(1)).unwrap_or(u64::MAX)
        };
        Self(weights.iter().map(cut).collect())
    }

    fn part(&self, point: u64) -> usize {
        let at = self.0.partition_point(|end| *end <= point);
        // The last end is 2^64, which is held as 2^64 - 1.
        if at < self.0.len() { at } else { self.0.partition_point(|end| *end < u64::MAX) }
    }
}

/// One worker's place in a split. It outlives tables, so that a change
/// elsewhere in the configuration does not start it again.
#[derive(Debug, Default)]
pub struct SplitState {
    weights: Option<Arc<[u32]>>,
    /// `weight * n - total * sent` for each part: how far behind it is, in
    /// 1/total of a request.
    behind: Vec<i64>,
}

impl SplitState {
    /// Picks by Tijdeman's rule ("The chairman assignment problem", 1980):
    /// among the parts that have earned enough of a request, the one that would
    /// be late first. Never a whole request off, for any weights.
    fn next(&mut self, weights: &Arc<[u32]>) -> usize {
        let total: i64 = weights.iter().map(|w| i64::from(*w)).sum();
        if self.weights.as_ref().is_none_or(|known| known != weights) {
            self.start(weights, total);
        }
        let parts = i64::try_from(weights.iter().filter(|w| **w > 0).count()).unwrap_or(i64::MAX);
        // 1 - 1/(2n-2), the bound of the theorem, scaled by `scale * total`.
        let scale = (2 * parts - 2).max(1);
        let slack = if parts > 1 { total * (scale - 1) } else { 0 };
        let mut best: Option<(usize, i64, i64)> = None;
        for (part, weight) in weights.iter().enumerate() {
            let weight = i64::from(*weight);
            if weight == 0 {
                continue;
            }
            self.behind[part] += weight;
            let earned = self.behind[part] * scale;
            if earned + slack < total * scale {
                continue;
            }
            // Steps until it is late, times its weight.
            let until = slack - earned;
            let sooner = best.is_none_or(|(_, other, other_weight)| {
                i128::from(until) * i128::from(other_weight)
                    < i128::from(other) * i128::from(weight)
            });
            if sooner {
                best = Some((part, until, weight));
            }
        }
        // The theorem has an eligible part at every step; the first part is a
        // safe answer should arithmetic ever disagree.
        let part = best.map_or_else(
            || weights.iter().position(|w| *w > 0).unwrap_or_default(),
            |(part, ..)| part,
        );
        self.behind[part] -= total;
        part
    }

    fn start(&mut self, weights: &Arc<[u32]>, total: i64) {
        self.weights = Some(weights.clone());
        self.behind = vec![0; weights.len()];
        // Many routers that each send few requests would all begin with the
        // heaviest part. With two parts a random start keeps the bound (it is
        // systematic sampling), so the mesh as a whole is right from the start.
        let mut some = weights.iter().enumerate().filter(|(_, w)| **w > 0);
        if let (Some((a, _)), Some((b, _)), None) = (some.next(), some.next(), some.next()) {
            let phase = fastrand::i64(0..total) - total / 2;
            self.behind[a] = phase;
            self.behind[b] = -phase;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn weights() -> impl Strategy<Value = Vec<u32>> {
        prop::collection::vec(prop_oneof![Just(0), 1..=100_u32, 1..=1_000_000_u32], 1..8)
            .prop_filter("sum above 0", |w| w.iter().any(|w| *w > 0))
    }

    proptest! {
        #[test]
        fn exact_is_within_one_request_after_any_number(weights in weights(), n in 1..2_000_u32) {
            let splitter = Splitter::new(0, weights.clone());
            let mut state = SplitState::default();
            let total: f64 = weights.iter().map(|w| f64::from(*w)).sum();
            let mut sent = vec![0_u32; weights.len()];
            for i in 1..=n {
                sent[splitter.exact(&mut state)] += 1;
                for (weight, sent) in weights.iter().zip(&sent) {
                    let ideal = f64::from(*weight) / total * f64::from(i);
                    prop_assert!((f64::from(*sent) - ideal).abs() <= 1.0 + 1e-6, "{ideal} {sent} after {i}");
                }
            }
        }

        #[test]
        fn nothing_goes_to_weight_zero(weights in weights(), key in any::<u64>()) {
            let splitter = Splitter::new(0, weights.clone());
            let mut state = SplitState::default();
            for _ in 0..50 {
                prop_assert!(weights[splitter.exact(&mut state)] > 0);
            }
            for key in [key, 0, u64::MAX] {
                prop_assert!(weights[splitter.sticky(key)] > 0);
            }
        }

        #[test]
        fn a_canary_that_only_grows_never_loses_a_user(
            steps in prop::collection::vec(0..=100_u32, 1..20), users in prop::collection::vec("[a-z0-9]{1,12}", 1..50)
        ) {
            let mut steps = steps;
            steps.sort_unstable();
            for user in users {
                let mut on_canary = false;
                for canary in &steps {
                    let part = Splitter::new(0, vec![100 - canary, *canary]).sticky(point(user.as_bytes()));
                    prop_assert!(!(on_canary && part == 0), "flipped back at {canary}");
                    on_canary = part == 1;
                }
            }
        }

        #[test]
        fn stickiness_keeps_the_weights(canary in 0..=100_u32) {
            let splitter = Splitter::new(0, vec![100 - canary, canary]);
            let users = 20_000_u32;
            let on = (0..users).filter(|u| splitter.sticky(point(format!("user-{u}").as_bytes())) == 1).count();
            let share = on as f64 / f64::from(users) * 100.0;
            prop_assert!((share - f64::from(canary)).abs() < 1.5, "{share} % instead of {canary} %");
        }
    }
}
