//! How a control plane bears many routers and instances.
//!
//! The control plane is the real one, as a process. The routers are simulated: each
//! has its own certificate, connection and stream, and digests what it gets as a
//! router does, but has no table and passes no traffic. They share this thread.

mod content;
mod fleet;
mod link;
mod plane;
mod report;
mod router;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use weir_proto::weir::mesh::v1 as pb;

use crate::cpu::Sample;
use fleet::{Fleet, Place};
use plane::{Api, Plane};
use report::{Before, Flaps, Quantiles, Report, Rest, Restart, Shifts, Storm};

/// The longest that any part may take.
const LIMIT: Duration = Duration::from_secs(120);
/// For what is left of a part to end.
const SETTLE: Duration = Duration::from_secs(2);

/// What `weir-bench scale` can be told.
#[derive(clap::Args)]
pub struct Options {
    /// `weir`, or another program that knows `control-plane`
    #[arg(long, value_name = "FILE")]
    program: PathBuf,
    /// Simulated routers, each with one instance
    #[arg(long, default_value_t = 1000)]
    routers: usize,
    /// All instances: those without a router are addresses of services
    #[arg(long, default_value_t = 10_000)]
    instances: usize,
    /// Services, of two versions each
    #[arg(long, default_value_t = 100)]
    services: usize,
    /// Shifts to measure
    #[arg(long, default_value_t = 50)]
    shifts: usize,
    /// Instances that go and come back, a second; repeatable
    #[arg(long, value_name = "N", default_values_t = [10, 100])]
    flaps: Vec<u32>,
    /// For how long
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    flap_seconds: u32,
    /// Over which routers come the first time; 0: all at once
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    ramp: u64,
    /// Routers do not say that they take deltas
    #[arg(long)]
    no_deltas: bool,
}

struct Run {
    options: Options,
    plane: Plane,
    fleet: Arc<Fleet>,
    api: Api,
    /// Shifts so far.
    shifted: usize,
}

/// Runs every part.
///
/// # Errors
/// What did not work, or did not end in time.
pub async fn run(options: Options) -> Result<Report, String> {
    if options.services == 0 || options.routers < options.services {
        return Err("--routers: at least one for each of --services, which is not 0".into());
    }
    let data = tempfile::tempdir().map_err(|e| e.to_string())?;
    let services: Vec<String> = (0..options.services).map(|i| format!("service-{i}")).collect();
    let plane = Plane::start(&options.program, data.path(), &services).await?;
    let mut api = plane.api().await?;
    api.apply(mesh(&options, &services)).await?;
    let began = Instant::now();
    let cpu = plane.used().ok();
    let (mesh, bundle) = (plane.bound.mesh, plane.bundle()?);
    let ramp = Duration::from_secs(options.ramp);
    let fleet = Fleet::start(mesh, bundle, services, options.routers, !options.no_deltas, ramp);
    let mut run = Run { options, plane, fleet, api, shifted: 0 };
    let join = run.join(began, Before { cpu, bytes: 0, counts: (0, 0, 0) }).await?;
    eprintln!("joined in {:.1} s", join.seconds);
    let rest = run.rest().await?;
    let shifts = run.shifts().await?;
    eprintln!("shifts: p50 {:.0} ms, p99 {:.0} ms", shifts.last_ms.p50, shifts.last_ms.p99);
    let mut flaps = Vec::new();
    for per_second in run.options.flaps.clone() {
        flaps.push(run.flaps(per_second).await?);
    }
    let restart = run.restart().await?;
    let Options { routers, instances, services, no_deltas, .. } = run.options;
    let deltas = !no_deltas;
    Ok(Report { routers, instances, services, deltas, join, rest, shifts, flaps, restart })
}

/// Services whose addresses are the instances that have no router.
fn mesh(options: &Options, names: &[String]) -> Vec<pb::Service> {
    let plain = options.instances.saturating_sub(options.routers);
    let mut services: Vec<_> = names
        .iter()
        .map(|name| pb::Service {
            name: name.clone(),
            protocol: pb::Protocol::Http1.into(),
            versions: ["v1", "v2"]
                .map(|version| pb::VersionWeight {
                    version: version.into(),
                    weight: 50,
                    addresses: Vec::new(),
                })
                .into(),
            ..Default::default()
        })
        .collect();
    for i in 0..plain {
        let service = i % services.len();
        let version = i / services.len() % 2;
        let address = format!("10.{}.{}.{}:8080", 8 + i / 62_500, i / 250 % 250, 1 + i % 250);
        services[service].versions[version].addresses.push(address);
    }
    services
}

impl Run {
    fn before(&self) -> Before {
        let cpu = self.plane.used().ok();
        Before { cpu, bytes: self.fleet.bytes.received(), counts: self.fleet.counts() }
    }

    fn cost(&self, before: &Before) -> report::Cost {
        before.cost(&self.plane, self.fleet.bytes.received(), self.fleet.counts())
    }

    async fn join(&self, began: Instant, before: Before) -> Result<Storm, String> {
        let all = self.options.instances;
        let there = |place: &Place| place.back.is_some() && place.instances >= all;
        let places = self.fleet.until("joined", LIMIT, there).await?;
        let seconds = began.elapsed().as_secs_f64();
        let mut back = since(&places, began, |place| place.back);
        let p50_seconds = Quantiles::of(&mut back).p50 / 1e3;
        Ok(Storm { seconds, p50_seconds, cost: self.cost(&before) })
    }

    async fn rest(&self) -> Result<Rest, String> {
        tokio::time::sleep(SETTLE).await;
        let (before, began) = (self.before(), Instant::now());
        tokio::time::sleep(Duration::from_secs(10)).await;
        let seconds = began.elapsed().as_secs_f64();
        let cost = self.cost(&before);
        let cpu_percent = cost.cpu_seconds / seconds * 100.0;
        Ok(Rest { seconds, cpu_percent, rss_bytes: cost.rss_bytes })
    }

    /// One shift: each router's time, and what the API said.
    async fn shift(&mut self) -> Result<(Vec<Duration>, Duration, Option<Duration>), String> {
        let service = self.fleet.services[self.shifted % self.fleet.services.len()].clone();
        let weight = 1 + (self.shifted / self.fleet.services.len()) as i32 % 49;
        self.shifted += 1;
        let began = Instant::now();
        let answer = self.api.shift(&service, [100 - weight, weight]).await?;
        let answered = began.elapsed();
        let there = |place: &Place| place.revision >= answer.revision;
        let places = self.fleet.until("shifted", LIMIT, there).await?;
        let converged = answer.converged.unwrap_or_default();
        let all = converged.applied == converged.routers
            && converged.routers as usize >= self.options.routers;
        let said = all.then(|| Duration::from_millis(converged.slowest_ms.into()));
        Ok((since(&places, began, |place| place.since), answered, said))
    }

    async fn shifts(&mut self) -> Result<Shifts, String> {
        let count = self.options.shifts;
        let before = self.before();
        let (mut last, mut each, mut answers, mut said) = (vec![], vec![], vec![], vec![]);
        for _ in 0..count {
            let (times, answered, slowest) = self.shift().await?;
            last.extend(times.iter().max());
            each.extend(times);
            answers.push(answered);
            said.extend(slowest);
        }
        Ok(Shifts {
            count,
            last_ms: Quantiles::of(&mut last),
            router_ms: Quantiles::of(&mut each),
            answer_ms: Quantiles::of(&mut answers),
            unconverged: count - said.len(),
            said_ms: Quantiles::of(&mut said),
            cost: self.cost(&before),
        })
    }

    async fn flaps(&mut self, per_second: u32) -> Result<Flaps, String> {
        let sequence = self.api.mesh().await?.sequence;
        let (before, began) = (self.before(), Instant::now());
        let fleet = self.fleet.clone();
        let length = Duration::from_secs(self.options.flap_seconds.into());
        let routers = self.options.routers;
        let flapping = tokio::spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_secs(1) / per_second.max(1));
            let mut done = 0_u64;
            while began.elapsed() < length {
                tick.tick().await;
                done += u64::from(fleet.flap(fastrand::usize(..routers)));
            }
            done
        });
        let mut last = Vec::new();
        while !flapping.is_finished() {
            tokio::time::sleep(Duration::from_millis(500)).await;
            // One that flaps right now may come back later than it is waited for.
            if let Ok((times, ..)) = self.shift().await {
                last.extend(times.iter().max());
            }
        }
        let done = flapping.await.map_err(|e| e.to_string())?;
        let seconds = began.elapsed().as_secs_f64();
        let snapshots = self.api.mesh().await?.sequence - sequence;
        let cost = self.cost(&before);
        self.fleet.until("back", LIMIT, |place| place.back.is_some()).await?;
        Ok(Flaps {
            per_second,
            done_per_second: done as f64 / seconds,
            seconds,
            snapshots,
            cpu_percent: cost.cpu_seconds / seconds * 100.0,
            bytes_per_second: cost.bytes as f64 / seconds,
            last_ms: Quantiles::of(&mut last),
            cost,
        })
    }

    async fn restart(&mut self) -> Result<Restart, String> {
        tokio::time::sleep(SETTLE).await;
        let before = self.before();
        let told = self.fleet.told_to_wait.load(Ordering::Relaxed);
        let killed = self.plane.kill().await?;
        // Of the new process: from its start.
        let before = Before { cpu: Some(Sample::zero()), ..before };
        let serving = killed.elapsed();
        self.fleet.fewest.store(usize::MAX, Ordering::Relaxed);
        let back = |place: &Place| place.back.is_some_and(|back| back > killed);
        let places = self.fleet.until("back", LIMIT, back).await?;
        let cost = self.cost(&before);
        // As long as routers that did not come back would be kept.
        tokio::time::sleep(Duration::from_secs(20).saturating_sub(killed.elapsed())).await;
        let fewest = self.fleet.fewest.load(Ordering::Relaxed);
        let mut times = since(&places, killed, |place| place.back);
        let times = Quantiles::of(&mut times);
        Ok(Restart {
            serving_seconds: serving.as_secs_f64(),
            p50_seconds: times.p50 / 1e3,
            last_seconds: times.max / 1e3,
            instances_lost: self.options.instances.saturating_sub(fewest),
            told_to_wait: self.fleet.told_to_wait.load(Ordering::Relaxed) - told,
            cost,
        })
    }
}

/// From `began`, of each.
fn since(
    places: &[Place],
    began: Instant,
    when: impl Fn(&Place) -> Option<Instant>,
) -> Vec<Duration> {
    let times = places.iter().filter_map(when);
    times.map(|at| at.saturating_duration_since(began)).collect()
}
