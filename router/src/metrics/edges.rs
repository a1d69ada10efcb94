//! Requests of each edge, for the control plane: by the version that they went to,
//! and by the revision whose weights sent them there.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use weir_mesh::analysis::{BUCKETS, Bucket, Histogram};
use weir_mesh::telemetry::DURATION_BOUNDS;
use weir_proto::weir::mesh::v1::Edge;

use crate::table::Map;

/// Durations in the buckets of [`Histogram`], from the slowest.
struct Durations([AtomicU64; BUCKETS]);

impl Default for Durations {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; BUCKETS])
    }
}

impl Durations {
    fn count(&self, bucket: Bucket) {
        let position = Bucket::LAST.index().abs_diff(bucket.index()) as usize;
        if let Some(count) = self.0.get(position) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// Moves what was counted into `histogram`; gives how many.
    fn take(&self, histogram: &mut Histogram) -> u64 {
        let mut sum = 0;
        for (count, index) in self.0.iter().zip((i32::MIN..=Bucket::LAST.index()).rev()) {
            if count.load(Relaxed) == 0 {
                continue;
            }
            let count = count.swap(0, Relaxed);
            sum += count;
            if let Some(bucket) = Bucket::from_index(index) {
                histogram.add(bucket, count);
            }
        }
        sum
    }
}

/// What was counted since the last report. A request is one count of `good` or
/// `bad`, so that it is in one report as a whole: its failure never comes a second
/// after it.
#[derive(Default)]
pub(super) struct Counts {
    good: Durations,
    /// Most versions never have one.
    bad: OnceLock<Box<Durations>>,
    buckets: [AtomicU64; DURATION_BOUNDS.len() + 1],
}

impl Counts {
    pub fn count(&self, failed: bool, took: Duration) {
        let bounds = DURATION_BOUNDS.partition_point(|bound| *bound < took.as_secs_f64());
        self.buckets[bounds].fetch_add(1, Relaxed);
        let durations = match failed {
            false => &self.good,
            true => self.bad.get_or_init(Box::default),
        };
        durations.count(Bucket::of(took));
    }

    fn take(&self) -> Option<Edge> {
        let mut histogram = Histogram::new();
        let failures = self.bad.get().map_or(0, |bad| bad.take(&mut histogram));
        let requests = failures + self.good.take(&mut histogram);
        (requests > 0).then(|| Edge {
            requests,
            failures,
            buckets: self.buckets.iter().map(|bucket| bucket.swap(0, Relaxed)).collect(),
            latency: Some((&histogram).into()),
            ..Edge::default()
        })
    }
}

/// Service and version.
type Name = (String, String);

/// Counters, by revision.
type Revisions = Vec<(u32, Arc<Counts>)>;

/// The counters of all workers.
#[derive(Default)]
pub(super) struct Edges(Mutex<HashMap<Name, Revisions>>);

impl Edges {
    /// The counters of an edge while `revision` was in use.
    pub fn get(&self, service: &str, version: &str, revision: u32) -> Arc<Counts> {
        let mut edges = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let edge = edges.entry((service.to_owned(), version.to_owned())).or_default();
        match edge.iter().find(|(of, _)| *of == revision) {
            Some((_, counts)) => counts.clone(),
            None => {
                let counts = Arc::<Counts>::default();
                edge.push((revision, counts.clone()));
                counts
            }
        }
    }

    /// What was counted since the last report. Counters that nobody counts in any
    /// more are gone afterwards, but for each edge's last ones: else a shift every
    /// second would leave counters for every second.
    pub fn report(&self, source: &str) -> Vec<Edge> {
        let mut edges = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut news = Vec::new();
        for ((service, version), counts) in edges.iter_mut() {
            let newest = counts.iter().map(|(revision, _)| *revision).max();
            counts.retain_mut(|(revision, counts)| {
                // Before they are read: what nobody else has cannot grow after it.
                let alone = Arc::get_mut(counts).is_some();
                news.extend(counts.take().map(|edge| Edge {
                    source: source.to_owned(),
                    destination: service.clone(),
                    version: version.clone(),
                    revision: *revision,
                    ..edge
                }));
                !alone || Some(*revision) == newest
            });
        }
        news
    }
}

/// One worker's hold on the counters of an edge: of the newest revision that it
/// counted, and of one before it, which requests that began earlier still have.
struct Slot {
    name: Name,
    newest: Option<(u32, Arc<Counts>)>,
    before: Option<(u32, Arc<Counts>)>,
}

/// One worker's holds.
#[derive(Default)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    by_name: Map<Name, usize>,
}

impl Slots {
    /// The number of an edge's slot.
    pub fn number(&mut self, service: &str, version: &str) -> usize {
        let name = (service.to_owned(), version.to_owned());
        if let Some(number) = self.by_name.get(&name) {
            return *number;
        }
        let number = self.slots.len();
        self.by_name.insert(name.clone(), number);
        self.slots.push(Slot { name, newest: None, before: None });
        number
    }

    /// Counts in a slot.
    pub fn count(
        &mut self,
        edges: &Edges,
        number: usize,
        revision: u32,
        failed: bool,
        took: Duration,
    ) {
        let Some(slot) = self.slots.get_mut(number) else { return };
        for (of, counts) in slot.newest.iter().chain(&slot.before) {
            if *of == revision {
                return counts.count(failed, took);
            }
        }
        let counts = edges.get(&slot.name.0, &slot.name.1, revision);
        counts.count(failed, took);
        let bound = Some((revision, counts));
        if slot.newest.as_ref().is_none_or(|(newest, _)| *newest < revision) {
            slot.before = std::mem::replace(&mut slot.newest, bound);
        } else {
            slot.before = bound;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn told(edges: &Edges) -> Vec<(u32, u64, u64)> {
        let mut told: Vec<_> = edges
            .report("web")
            .iter()
            .map(|edge| (edge.revision, edge.requests, edge.failures))
            .collect();
        told.sort_unstable();
        told
    }

    fn kept(edges: &Edges) -> usize {
        edges.0.lock().unwrap().values().map(Vec::len).sum()
    }

    #[test]
    fn each_revision_is_told_by_itself_and_once() {
        let (edges, mut slots) = (Edges::default(), Slots::default());
        let v1 = slots.number("api", "v1");
        for (revision, failed) in [(1, false), (2, true), (1, false), (2, false), (2, false)] {
            slots.count(&edges, v1, revision, failed, MS);
        }
        assert_eq!(told(&edges), [(1, 2, 0), (2, 3, 1)]);
        assert_eq!(told(&edges), []);
    }

    #[test]
    fn durations_are_told_in_the_buckets_of_verdicts() {
        let (edges, mut slots) = (Edges::default(), Slots::default());
        let mut wanted = Histogram::new();
        let number = slots.number("api", "v1");
        for micros in [0, 1, 900, 1000, 1_000_000, 5_000_000_000] {
            let took = Duration::from_micros(micros);
            wanted.record(took);
            slots.count(&edges, number, 1, micros == 900, took);
        }
        let [edge] = edges.report("web").try_into().unwrap();
        assert_eq!(edge.latency, Some((&wanted).into()));
        assert_eq!((edge.requests, edge.failures, edge.buckets.iter().sum()), (6, 1, 6));
    }

    #[test]
    fn a_revision_every_second_leaves_no_counters_behind() {
        let edges = Edges::default();
        // The second worker was idle since the first revision.
        let (mut busy, mut idle) = (Slots::default(), Slots::default());
        let (number, idles) = (busy.number("api", "v1"), idle.number("api", "v1"));
        idle.count(&edges, idles, 1, false, MS);
        let mut requests = 0;
        for revision in 1..=10_000 {
            busy.count(&edges, number, revision, false, MS);
            requests += told(&edges).iter().map(|(_, requests, _)| requests).sum::<u64>();
            assert!(kept(&edges) <= 4, "{}", kept(&edges));
        }
        // A stream that began long ago has ended.
        busy.count(&edges, number, 3, false, MS);
        idle.count(&edges, idles, 10_000, false, MS);
        assert_eq!(told(&edges), [(3, 1, 0), (10_000, 1, 0)]);
        assert_eq!(requests, 10_001);
    }
}
