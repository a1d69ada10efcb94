//! A limit of requests in flight that follows latency: while answers take as
//! long as they do in the long run, it grows; when they take longer, requests
//! queue somewhere, and it shrinks. The rule is that of Netflix's
//! concurrency-limits, `Gradient2Limit` (2018).

use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::Duration;

use weir_mesh::policy::traffic::AdaptiveConcurrency;

use super::Limiter;

/// Fewer answers in a window say nothing; it goes on then.
const SAMPLES: u32 = 10;
/// Weight of a window in the latency of the long run.
const LONG: f64 = 0.05;
/// Weight of a window in the limit.
const SMOOTHING: f64 = 0.2;
/// It shrinks at most to this share in one window, before smoothing.
const STEEPEST: f64 = 0.5;

/// Finds the limit of one [`Limiter`].
#[derive(Debug)]
pub struct Gradient {
    config: AdaptiveConcurrency,
    limiter: Arc<Limiter>,
    /// Never above this, whatever latency says.
    most: u32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    until: u64,
    answers: u32,
    seconds: f64,
    peak: u32,
    long: Option<f64>,
    limit: f64,
}

impl Gradient {
    /// Begins with the initial limit. `most` is another limit, if there is one.
    #[must_use]
    pub fn new(config: AdaptiveConcurrency, most: Option<u32>) -> Self {
        let most = most.unwrap_or(u32::MAX);
        let state = State {
            until: 0,
            answers: 0,
            seconds: 0.0,
            peak: 0,
            long: None,
            limit: config.initial_limit.into(),
        };
        let limiter = Limiter::new(config.initial_limit.min(most));
        Self { config, limiter, most, state: Mutex::new(state) }
    }

    /// What it limits.
    #[must_use]
    pub fn limiter(&self) -> &Arc<Limiter> {
        &self.limiter
    }

    /// An answer began after `took`. Skipped while another worker is here.
    pub fn answered(&self, took: Duration, now: u64) {
        let mut state = match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(poisoned)) => PoisonError::into_inner(poisoned),
            Err(TryLockError::WouldBlock) => return,
        };
        state.answers += 1;
        state.seconds += took.as_secs_f64();
        state.peak = state.peak.max(self.limiter.inside());
        if state.until == 0 {
            state.until = now + self.window();
        }
        if now < state.until || state.answers < SAMPLES {
            return;
        }
        self.adjust(&mut state);
        state.until = now + self.window();
        (state.answers, state.seconds, state.peak) = (0, 0.0, 0);
        self.limiter.set_limit(whole(state.limit).min(self.most));
    }

    fn window(&self) -> u64 {
        u64::try_from(self.config.window.as_millis()).unwrap_or(u64::MAX)
    }

    fn adjust(&self, state: &mut State) {
        let short = (state.seconds / f64::from(state.answers)).max(1e-6);
        let long = state.long.map_or(short, |long| long + (short - long) * LONG);
        // After a time of overload the long run comes down quickly.
        let long = if long > 2.0 * short { long * (1.0 - LONG) } else { long };
        state.long = Some(long);
        // Where the limit was not felt, nothing is learnt about it.
        if f64::from(state.peak) < state.limit / 2.0 {
            return;
        }
        let tolerance = f64::from(self.config.tolerance) / 100.0;
        let gradient = (tolerance * long / short).clamp(STEEPEST, 1.0);
        // Room for a queue: else it could never grow.
        let wanted = state.limit * gradient + state.limit.sqrt();
        let next = state.limit * (1.0 - SMOOTHING) + wanted * SMOOTHING;
        state.limit = next.clamp(self.config.min_limit.into(), self.config.max_limit.into());
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to 1000000")]
fn whole(limit: f64) -> u32 {
    limit as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn config(min: u32, initial: u32, max: u32) -> AdaptiveConcurrency {
        AdaptiveConcurrency {
            min_limit: min,
            initial_limit: initial,
            max_limit: max,
            window: Duration::from_millis(100),
            tolerance: 150,
        }
    }

    fn window(gradient: &Gradient, now: &mut u64, took: Duration) {
        let inside: Vec<_> = std::iter::from_fn(|| gradient.limiter().try_enter()).collect();
        for _ in 0..20 {
            *now += 10;
            gradient.answered(took, *now);
        }
        drop(inside);
    }

    proptest! {
        #[test]
        fn it_stays_within_its_bounds(
            min in 1..50_u32, more in 0..200_u32, start in 0..200_u32,
            took in prop::collection::vec(0..5_000_000_u64, 1..200),
        ) {
            let max = min + more;
            let gradient = Gradient::new(config(min, (min + start).min(max), max), None);
            let mut now = 1;
            for micros in took {
                window(&gradient, &mut now, Duration::from_micros(micros));
                let limit = gradient.limiter().limit();
                prop_assert!((min..=max).contains(&limit), "{limit}");
            }
        }
    }

    #[test]
    fn it_grows_while_latency_stays_and_shrinks_when_it_rises() {
        let gradient = Gradient::new(config(5, 20, 1000), None);
        let mut now = 1;
        (0..20).for_each(|_| window(&gradient, &mut now, Duration::from_millis(10)));
        let grown = gradient.limiter().limit();
        assert!(grown > 25, "{grown}");
        (0..5).for_each(|_| window(&gradient, &mut now, Duration::from_millis(200)));
        let shrunk = gradient.limiter().limit();
        assert!(shrunk < grown * 3 / 4, "{grown} -> {shrunk}");
    }

    #[test]
    fn what_is_not_felt_is_not_learnt() {
        let gradient = Gradient::new(config(5, 20, 1000), Some(15));
        assert_eq!(gradient.limiter().limit(), 15);
        for now in (1..5_000).step_by(10) {
            gradient.answered(Duration::from_millis(1), now);
        }
        assert_eq!(gradient.limiter().limit(), 15);
    }
}
