//! Instances that answer badly are left out for a while (passive health).

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

use weir_mesh::policy::traffic::{OutlierDetection, SuccessRate};

use super::Host;

/// Why an instance was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ejected {
    /// Failures one after the other.
    Consecutive,
    /// More failures than the others have.
    SuccessRate,
}

impl Ejected {
    /// For metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Consecutive => "consecutive_errors",
            Self::SuccessRate => "success_rate",
        }
    }
}

/// When success rates are compared next. Who holds it decides alone, so that
/// two workers never leave out more than may be. Only failures and the first
/// answer after an interval come here.
pub type Deciding = Arc<Mutex<u64>>;

/// Watches over the instances of one service.
#[derive(Debug)]
pub struct Outliers {
    /// The rules.
    pub config: OutlierDetection,
    /// All instances of the service.
    pub hosts: Vec<Arc<Host>>,
    /// Outlives tables.
    pub deciding: Deciding,
    /// A copy of what [`Outliers::deciding`] holds, to be read without it.
    next: std::sync::atomic::AtomicU64,
}

impl Outliers {
    /// Watches these.
    #[must_use]
    pub fn new(config: OutlierDetection, hosts: Vec<Arc<Host>>, deciding: Deciding) -> Self {
        let next = *deciding.lock().unwrap_or_else(PoisonError::into_inner);
        Self { config, hosts, deciding, next: next.into() }
    }

    /// A request to `host` ended. `left_out` is told of each instance that is
    /// left out for it.
    pub fn ended(&self, host: &Host, good: bool, now: u64, mut left_out: impl FnMut(Ejected)) {
        host.all.fetch_add(1, Relaxed);
        if good {
            host.good.fetch_add(1, Relaxed);
            host.failures.store(0, Relaxed);
        } else {
            let failures = host.failures.fetch_add(1, Relaxed) + 1;
            let most = self.config.consecutive_errors;
            if most > 0 && failures >= most && !host.is_out(now) {
                let _deciding = self.deciding.lock().unwrap_or_else(PoisonError::into_inner);
                if self.eject(host, now) {
                    left_out(Ejected::Consecutive);
                }
            }
        }
        if now >= self.next.load(Relaxed) {
            self.compare(now, &mut left_out);
        }
    }

    /// Only while [`Outliers::deciding`] is held.
    fn eject(&self, host: &Host, now: u64) -> bool {
        if host.is_out(now) {
            return false;
        }
        let out = self.hosts.iter().filter(|host| host.is_out(now)).count() as u64;
        let most = self.hosts.len() as u64 * u64::from(self.config.max_ejection_percent) / 100;
        if out >= most {
            return false;
        }
        let times = host.times.load(Relaxed).saturating_add(1);
        host.times.store(times, Relaxed);
        let time = self.config.base_ejection_time.saturating_mul(times);
        let time = time.min(self.config.max_ejection_time);
        host.failures.store(0, Relaxed);
        host.out_until.store(now + u64::try_from(time.as_millis()).unwrap_or(u64::MAX), Relaxed);
        true
    }

    /// At the end of an interval: compares, and begins the next.
    fn compare(&self, now: u64, left_out: &mut impl FnMut(Ejected)) {
        let mut next = self.deciding.lock().unwrap_or_else(PoisonError::into_inner);
        if now < *next {
            self.next.store(*next, Relaxed);
            return;
        }
        let first = *next == 0;
        *next = now + u64::try_from(self.config.interval.as_millis()).unwrap_or(u64::MAX);
        self.next.store(*next, Relaxed);
        if first {
            return;
        }
        if let Some(rule) = &self.config.success_rate {
            for host in self.worst(rule, now) {
                if self.eject(host, now) {
                    left_out(Ejected::SuccessRate);
                }
            }
        }
        let interval = u64::try_from(self.config.interval.as_millis()).unwrap_or(u64::MAX);
        for host in &self.hosts {
            host.good.store(0, Relaxed);
            host.all.store(0, Relaxed);
            // Whoever was good for as long as this is trusted a little more.
            if host.out_until.load(Relaxed).saturating_add(interval) <= now {
                let less = |times: u32| times.checked_sub(1);
                let _ = host.times.fetch_update(Relaxed, Relaxed, less);
            }
        }
    }

    /// Those whose success rate is too low, the worst first.
    fn worst(&self, rule: &SuccessRate, now: u64) -> Vec<&Host> {
        let judged = self.hosts.iter().filter(|host| !host.is_out(now)).filter_map(|host| {
            let all = host.all.load(Relaxed);
            let rate = f64::from(host.good.load(Relaxed).min(all)) / f64::from(all.max(1));
            (all >= rule.min_requests).then_some((&**host, rate))
        });
        let judged: Vec<_> = judged.collect();
        let rates = judged.iter().map(|(_, rate)| *rate);
        let count = judged.len().max(1) as f64;
        let mean = rates.clone().sum::<f64>() / count;
        let variance = rates.map(|rate| (rate - mean).powi(2)).sum::<f64>() / count;
        let low = mean - variance.sqrt() * f64::from(rule.stdev_factor) / 1000.0;
        let threshold = f64::from(rule.threshold) / 100.0;
        let mut worst: Vec<_> =
            judged.into_iter().filter(|(_, rate)| *rate < low || *rate < threshold).collect();
        worst.sort_by(|(_, a), (_, b)| a.total_cmp(b));
        worst.into_iter().map(|(host, _)| host).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use proptest::prelude::*;

    fn outliers(count: usize, percent: u32, rate: Option<SuccessRate>) -> Outliers {
        let config = OutlierDetection {
            consecutive_errors: 3,
            success_rate: rate,
            interval: Duration::from_secs(1),
            base_ejection_time: Duration::from_secs(10),
            max_ejection_time: Duration::from_secs(25),
            max_ejection_percent: percent,
            return_slow: Duration::ZERO,
        };
        let hosts = (0..count).map(|_| Arc::new(Host::new(1))).collect();
        Outliers::new(config, hosts, Deciding::default())
    }

    fn fail(outliers: &Outliers, host: usize, now: u64) {
        (0..3).for_each(|_| outliers.ended(&outliers.hosts[host], false, now, |_| {}));
    }

    proptest! {
        #[test]
        fn never_more_are_left_out_than_may_be(
            count in 1..20_usize, percent in 0..=100_u32,
            ends in prop::collection::vec((0..20_usize, any::<bool>(), 0..500_u64), 1..500),
        ) {
            let rate = SuccessRate { min_requests: 2, stdev_factor: 1000, threshold: 60 };
            let outliers = outliers(count, percent, Some(rate));
            let mut now = 1;
            for (host, good, pause) in ends {
                now += pause;
                outliers.ended(&outliers.hosts[host % count], good, now, |_| {});
                let out = outliers.hosts.iter().filter(|host| host.is_out(now)).count();
                prop_assert!(out <= count * percent as usize / 100, "{out} of {count}, {percent} %");
            }
        }
    }

    #[test]
    fn each_time_takes_longer_up_to_the_longest_and_is_forgiven() {
        let outliers = outliers(2, 50, None);
        let host = &outliers.hosts[0];
        let (mut now, mut lengths) = (1, Vec::new());
        for _ in 0..4 {
            fail(&outliers, 0, now);
            let until = host.out_until.load(Relaxed);
            lengths.push((until - now) / 1000);
            now = until;
            assert!(host.is_usable(now));
        }
        assert_eq!(lengths, [10, 20, 25, 25]);
        for _ in 0..5 {
            now += 2_000;
            outliers.ended(host, true, now, |_| {});
        }
        assert_eq!(host.times.load(Relaxed), 0);
    }

    #[test]
    fn a_good_answer_begins_the_count_again() {
        let outliers = outliers(2, 50, None);
        for _ in 0..10 {
            outliers.ended(&outliers.hosts[0], false, 1, |_| {});
            outliers.ended(&outliers.hosts[0], false, 1, |_| {});
            outliers.ended(&outliers.hosts[0], true, 1, |_| {});
        }
        assert!(outliers.hosts[0].is_usable(2));
    }

    #[test]
    fn the_one_that_fails_more_than_the_others_is_found() {
        let rate = SuccessRate { min_requests: 10, stdev_factor: 1900, threshold: 0 };
        let outliers = outliers(6, 50, Some(rate));
        outliers.ended(&outliers.hosts[0], true, 1, |_| {});
        for request in 0..20 {
            for (i, host) in outliers.hosts.iter().enumerate() {
                outliers.ended(host, i != 4 || request % 2 == 0, 500, |_| {});
            }
        }
        let mut why = Vec::new();
        outliers.ended(&outliers.hosts[0], true, 1_500, |reason| why.push(reason));
        let out: Vec<_> = outliers.hosts.iter().map(|host| host.is_out(1_600)).collect();
        assert_eq!(out, [false, false, false, false, true, false]);
        assert_eq!(why, [Ejected::SuccessRate]);
    }
}
