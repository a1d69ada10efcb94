//! What is printed.

use std::time::Duration;

use serde::Serialize;

use super::plane::Plane;
use crate::cpu::Sample;

/// Everything.
#[derive(Serialize)]
pub struct Report {
    pub routers: usize,
    pub instances: usize,
    pub services: usize,
    pub deltas: bool,
    pub join: Storm,
    pub rest: Rest,
    pub shifts: Shifts,
    pub flaps: Vec<Flaps>,
    pub restart: Restart,
}

/// Routers that all come at once.
#[derive(Serialize)]
pub struct Storm {
    pub seconds: f64,
    pub p50_seconds: f64,
    pub cost: Cost,
}

/// What a part of the run took.
#[derive(Serialize)]
pub struct Cost {
    /// Of the control plane.
    pub cpu_seconds: f64,
    /// That came to the routers, TLS and all.
    pub bytes: u64,
    pub wholes: u64,
    pub deltas: u64,
    pub refusals: u64,
    /// Resident, of the control plane.
    pub rss_bytes: u64,
    /// The most since it was started.
    pub rss_most_bytes: u64,
}

#[derive(Serialize)]
pub struct Rest {
    pub seconds: f64,
    pub cpu_percent: f64,
    pub rss_bytes: u64,
}

#[derive(Serialize)]
pub struct Shifts {
    pub count: usize,
    /// From the API's call to the last router's use of it, over the shifts.
    pub last_ms: Quantiles,
    /// The same for each router.
    pub router_ms: Quantiles,
    /// Until the API answered that all routers have it.
    pub answer_ms: Quantiles,
    /// What the API said that it took.
    pub said_ms: Quantiles,
    /// Shifts that the API did not say all routers have.
    pub unconverged: usize,
    pub cost: Cost,
}

/// Instances that come and go.
#[derive(Serialize)]
pub struct Flaps {
    /// Asked for; each is an instance that goes and comes back.
    pub per_second: u32,
    pub done_per_second: f64,
    pub seconds: f64,
    pub snapshots: u64,
    pub cpu_percent: f64,
    pub bytes_per_second: f64,
    /// Of shifts meanwhile.
    pub last_ms: Quantiles,
    pub cost: Cost,
}

/// After kill -9.
#[derive(Serialize)]
pub struct Restart {
    /// Until it serves again.
    pub serving_seconds: f64,
    /// From the kill until half of the routers, and all, have answers again.
    pub p50_seconds: f64,
    pub last_seconds: f64,
    /// The fewest instances that any router saw while they came back, less those there are.
    pub instances_lost: usize,
    pub told_to_wait: u64,
    pub cost: Cost,
}

#[derive(Serialize, Default)]
pub struct Quantiles {
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

impl Quantiles {
    /// Of times, in milliseconds. Nearest rank.
    pub fn of(times: &mut [Duration]) -> Self {
        times.sort();
        let at = |q: f64| {
            let rank = (q * times.len() as f64).ceil() as usize;
            times.get(rank.saturating_sub(1)).map_or(0.0, |time| time.as_secs_f64() * 1e3)
        };
        Self { p50: at(0.5), p99: at(0.99), max: at(1.0) }
    }
}

/// The counters at the beginning of a part.
pub struct Before {
    pub cpu: Option<Sample>,
    pub bytes: u64,
    pub counts: (u64, u64, u64),
}

impl Before {
    /// What the part took.
    pub fn cost(&self, plane: &Plane, bytes: u64, counts: (u64, u64, u64)) -> Cost {
        let used = plane.used().ok().map(|now| match &self.cpu {
            Some(before) => now.since(before).cpu_seconds,
            None => 0.0,
        });
        let (rss_bytes, rss_most_bytes) = plane.memory();
        Cost {
            cpu_seconds: used.unwrap_or(0.0),
            bytes: bytes - self.bytes,
            wholes: counts.0 - self.counts.0,
            deltas: counts.1 - self.counts.1,
            refusals: counts.2 - self.counts.2,
            rss_bytes,
            rss_most_bytes,
        }
    }
}
