//! What canaries are like.

use std::f64::consts::TAU;

use super::tally::Verdict;

/// A canary and the traffic it gets.
pub struct Scenario {
    pub name: &'static str,
    pub about: &'static str,
    /// Whether it should be promoted.
    pub good: bool,
    /// Requests per second of all routers to both versions.
    pub per_second: f64,
    /// The baseline's failure rate at calm times.
    pub failing: f64,
    /// How much more of the canary's requests fail.
    pub more_failing: f64,
    /// So large a share of the canary's requests, the slowest, take twice as long.
    pub slow: f64,
    /// Whether failures, latency and the split change all the time.
    pub drift: bool,
    /// Seconds between reports.
    pub interval: u32,
    /// Seconds after which a run is given up.
    pub limit: u32,
    /// Failures come so many at a time.
    pub clump: u64,
    /// Whether a promotion does not end it: evidence is looked at until the limit.
    pub watched: bool,
}

/// Routers that report.
pub const ROUTERS: u32 = 2;

/// The canary's share where it does not change.
const SHARE: f64 = 0.1;

const PLAIN: Scenario = Scenario {
    name: "good",
    about: "the same program again, 0.1 % fail",
    good: true,
    per_second: 1000.0,
    failing: 0.001,
    more_failing: 0.0,
    slow: 0.0,
    drift: false,
    interval: 1,
    limit: 3600,
    clump: 1,
    watched: false,
};

pub const SCENARIOS: [Scenario; 12] = [
    PLAIN,
    Scenario {
        name: "good-drift",
        about: "the same program; failures swing from 0.1 to 5 %, latency doubles, the split goes from 1 to 50 %, callers differ",
        drift: true,
        ..PLAIN
    },
    Scenario { name: "good-5pct", about: "the same program, 5 % fail", failing: 0.05, ..PLAIN },
    Scenario {
        name: "good-watched",
        about: "as good-5pct, looked at every second for 10 minutes, promoted or not",
        failing: 0.05,
        limit: 600,
        watched: true,
        ..PLAIN
    },
    Scenario {
        name: "good-rare",
        about: "the same program, 1 request/s to the canary",
        per_second: 10.0,
        interval: 5,
        limit: 4 * 3600,
        ..PLAIN
    },
    Scenario {
        name: "slow-p99",
        about: "the slowest 2 % take twice as long: p99 doubles, p95 stays",
        good: false,
        slow: 0.02,
        ..PLAIN
    },
    Scenario {
        name: "fail-1pct",
        about: "1 % fail, 0.1 % of the baseline",
        good: false,
        more_failing: 0.009,
        ..PLAIN
    },
    Scenario {
        name: "fail-1pct-drift",
        about: "1 % more fail than of the baseline, under the same drift",
        good: false,
        more_failing: 0.01,
        drift: true,
        ..PLAIN
    },
    Scenario {
        name: "fail-20pct",
        about: "20 % fail, 0.1 % of the baseline",
        good: false,
        more_failing: 0.199,
        ..PLAIN
    },
    Scenario {
        name: "fail-20pct-rare",
        about: "20 % fail, 1 request/s to the canary",
        good: false,
        more_failing: 0.199,
        per_second: 10.0,
        interval: 1,
        ..PLAIN
    },
    Scenario {
        name: "edge",
        about: "worse by exactly the margin: 5.5 % fail, 5 % of the baseline; given up after 10 minutes",
        good: false,
        failing: 0.05,
        more_failing: 0.005,
        limit: 600,
        ..PLAIN
    },
    Scenario {
        name: "clumped",
        about: "the same program, 1 % fail, always three at once: not what the plan's rates are stated for",
        failing: 0.01,
        clump: 3,
        ..PLAIN
    },
];

impl Scenario {
    /// The verdict that would be wrong.
    pub fn wrong_is(&self) -> Verdict {
        if self.good { Verdict::RolledBack } else { Verdict::Promoted }
    }

    /// Seeds of its runs differ from this in the lower half.
    pub fn seed(&self) -> u64 {
        // FNV-1a: any spread will do, if it stays.
        let spread = |sum: u32, byte| (sum ^ u32::from(byte)).wrapping_mul(16_777_619);
        u64::from(self.name.bytes().fold(2_166_136_261, spread)) << 32
    }

    /// The canary's share at a router.
    pub fn share(&self, router: u32, second: u32) -> f64 {
        if !self.drift {
            return SHARE;
        }
        // The second router hears of each step 20 s after the first.
        let since = f64::from(second.saturating_sub(20 * router));
        (0.01 + since / 120.0 * 0.49).min(0.5)
    }

    /// 0 to 1 and back within a minute.
    fn swing(&self, second: u32) -> f64 {
        if self.drift { 0.5 - 0.5 * (f64::from(second) / 60.0 * TAU).cos() } else { 0.0 }
    }

    /// The baseline's failure rate for a router's requests.
    pub fn baseline_failing(&self, router: u32, second: u32) -> f64 {
        // The first router's callers ask for less that can fail.
        let part = if router == 0 { 0.2 } else { 1.0 };
        self.failing + 0.049 * self.swing(second) * part
    }

    /// The canary's.
    pub fn canary_failing(&self, router: u32, second: u32) -> f64 {
        self.baseline_failing(router, second) + self.more_failing
    }

    /// Eighths of a doubling of latency, of both versions.
    pub fn slower(&self, router: u32, second: u32) -> u8 {
        let caller = if self.drift { 8.0 * f64::from(router) } else { 0.0 };
        (caller + 8.0 * self.swing(second)).round() as u8
    }

    /// Requests per second of a router.
    pub fn per_router(&self) -> f64 {
        self.per_second / f64::from(ROUTERS)
    }

    /// Requests per second to the canary, on average over the first minute.
    pub fn canary_per_second(&self) -> f64 {
        let each = (0..60).flat_map(|second| (0..ROUTERS).map(move |router| (router, second)));
        each.map(|(router, second)| self.share(router, second) * self.per_router()).sum::<f64>()
            / 60.0
    }
}
