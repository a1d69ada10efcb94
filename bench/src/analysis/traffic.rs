//! What routers would report.

use fastrand::Rng;
use std::time::Duration;
use weir_mesh::analysis::{Bucket, Histogram, Sample, Stratum};

use super::scenario::{ROUTERS, Scenario};

/// Ranks that latencies are drawn by: so fine is the tail.
const RANKS: usize = 1 << 14;

/// Latency by rank: log-logistic, 10 ms in the middle, 36 ms at p99.
pub struct Latencies(Vec<Bucket>);

impl Latencies {
    pub fn new() -> Self {
        let bucket = |rank: usize| {
            let u = (rank as f64 + 0.5) / RANKS as f64;
            Bucket::of(Duration::from_secs_f64(0.01 * (u / (1.0 - u)).powf(0.28)))
        };
        Self((0..RANKS).map(bucket).collect())
    }

    /// `count` requests; of `slow`, the slowest, each takes twice as long, and all
    /// take 2^(steps/8) as long.
    fn draw(&self, rng: &mut Rng, count: u64, slow: f64, steps: u8) -> Histogram {
        let mut histogram = Histogram::new();
        let from = (RANKS as f64 * (1.0 - slow)) as usize;
        let mut bits = 0u64;
        for number in 0..count {
            if number % 4 == 0 {
                bits = rng.u64(..);
            }
            let rank = bits as usize % RANKS;
            bits >>= 14;
            let extra = if rank >= from { 8 } else { 0 };
            if let Some(bucket) = self.0.get(rank) {
                histogram.add(bucket.slower(steps + extra), 1);
            }
        }
        histogram
    }
}

/// How many of `count` happen, each with probability `p`, by the gaps between them.
pub fn binomial(rng: &mut Rng, count: u64, p: f64) -> u64 {
    if p <= 0.0 {
        return 0;
    }
    let scale = (-p).ln_1p();
    let (mut at, mut hits) = (0.0, 0);
    loop {
        at += ((1.0 - rng.f64()).ln() / scale).floor() + 1.0;
        if at > count as f64 {
            return hits;
        }
        hits += 1;
    }
}

/// A rollout's traffic, report by report.
pub struct Traffic<'a> {
    scenario: &'a Scenario,
    latencies: &'a Latencies,
    rng: Rng,
    seconds: u32,
    canary_requests: u64,
    /// Parts of requests that are due at each router: canary, baseline.
    due: [[f64; 2]; ROUTERS as usize],
}

impl<'a> Traffic<'a> {
    pub fn new(scenario: &'a Scenario, latencies: &'a Latencies, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        // Splits are exact, but where in a request a report falls is chance.
        let due = std::array::from_fn(|_| [rng.f64(), rng.f64()]);
        Self { scenario, latencies, rng, seconds: 0, canary_requests: 0, due }
    }

    pub fn seconds(&self) -> u32 {
        self.seconds
    }

    pub fn canary_requests(&self) -> u64 {
        self.canary_requests
    }

    /// All routers' reports of the next interval.
    pub fn next(&mut self, mut report: impl FnMut(&Stratum)) {
        for router in 0..ROUTERS {
            let stratum = self.stratum(router);
            self.canary_requests += stratum.canary.requests;
            report(&stratum);
        }
        self.seconds += self.scenario.interval;
    }

    fn stratum(&mut self, router: u32) -> Stratum {
        let (scenario, second) = (self.scenario, self.seconds);
        let all = scenario.per_router() * f64::from(scenario.interval);
        let share = scenario.share(router, second);
        let steps = scenario.slower(router, second);
        let due = &mut self.due[router as usize];
        let canary = whole(&mut due[0], all * share);
        let baseline = whole(&mut due[1], all * (1.0 - share));
        let mut sample = |requests, failing, slow| Sample {
            requests,
            failures: scenario.clump * binomial(&mut self.rng, requests / scenario.clump, failing),
            latency: self.latencies.draw(&mut self.rng, requests, slow, steps),
        };
        Stratum {
            canary: sample(canary, scenario.canary_failing(router, second), scenario.slow),
            baseline: sample(baseline, scenario.baseline_failing(router, second), 0.0),
        }
    }
}

/// The whole requests of what is due; the rest stays.
fn whole(due: &mut f64, more: f64) -> u64 {
    *due += more;
    let whole = due.floor();
    *due -= whole;
    whole as u64
}
