//! How long a rollout has run. Monotonic: the wall clock may jump.

use std::time::Duration;

use tokio::time::Instant;

/// Adds up the time in which a rollout progresses, and of that the time in which its
/// step had all that it needs.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// Since the start, pauses left out.
    pub elapsed: Duration,
    /// In the step.
    pub step: Duration,
    last: Instant,
}

impl Clock {
    /// Goes on from what is stored.
    pub fn new(elapsed: Duration, step: Duration, now: Instant) -> Self {
        Self { elapsed, step, last: now }
    }

    /// Takes the time since the last call into account.
    pub fn tick(&mut self, now: Instant, progressing: bool, ready: bool) {
        let more = now.saturating_duration_since(self.last);
        self.last = now;
        if progressing {
            self.elapsed += more;
            if ready {
                self.step += more;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_time_that_counts_is_counted() {
        let second = Duration::from_secs(1);
        let mut now = Instant::now();
        let mut clock = Clock::new(second, Duration::ZERO, now);
        for (progressing, ready) in [(true, true), (true, false), (false, true)] {
            now += second;
            clock.tick(now, progressing, ready);
        }
        assert_eq!((clock.elapsed, clock.step), (3 * second, second));
    }
}
