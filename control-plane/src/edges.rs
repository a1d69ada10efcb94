//! Who calls whom: what routers report, over the last ten seconds and in total.

mod measure;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;
use weir_mesh::model::{ServiceName, VersionName};
use weir_mesh::telemetry::{DURATION_BOUNDS, quantile};
use weir_proto::weir::mesh::v1 as pb;

use crate::store::Revision;

pub use measure::{Measuring, Sum};

/// How many seconds are looked at.
const WINDOW: u64 = 10;
/// Edges beyond this are not counted: services and versions are few, so more are a
/// mistake or an attack.
const MAX_EDGES: usize = 10_000;

/// One direction between two services.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    source: ServiceName,
    destination: ServiceName,
    /// None: the request reached no version.
    version: Option<VersionName>,
}

/// Counts of some time.
#[derive(Debug, Clone, Default)]
struct Counts {
    requests: u64,
    failures: u64,
    buckets: [u64; DURATION_BOUNDS.len() + 1],
}

impl Counts {
    fn add(&mut self, edge: &pb::Edge) {
        self.requests = self.requests.saturating_add(edge.requests);
        self.failures = self.failures.saturating_add(edge.failures);
        for (own, more) in self.buckets.iter_mut().zip(&edge.buckets) {
            *own = own.saturating_add(*more);
        }
    }

    fn merge(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.failures = self.failures.saturating_add(other.failures);
        for (own, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *own = own.saturating_add(*more);
        }
    }
}

struct Edge {
    since: u64,
    requests: u64,
    failures: u64,
    /// By second; at most [`WINDOW`] of them.
    seconds: BTreeMap<u64, Counts>,
}

/// What is known of one edge.
#[derive(Debug, Clone, PartialEq)]
pub struct EdgeStatus {
    /// Who calls.
    pub source: String,
    /// Who is called.
    pub destination: String,
    /// Which version answered; empty when none did.
    pub version: String,
    /// Requests a second over the window.
    pub rate: f64,
    /// Share over the window that did not fail: 0.0 to 1.0; 1.0 without requests.
    pub success: f64,
    /// Median duration over the window, in seconds.
    pub p50: f64,
    /// 99th percentile over the window, in seconds.
    pub p99: f64,
    /// In total.
    pub requests: u64,
    /// In total.
    pub failures: u64,
}

/// All edges.
pub struct Edges {
    start: Instant,
    edges: Mutex<BTreeMap<Key, Edge>>,
    measurements: measure::Measurements,
}

impl Default for Edges {
    fn default() -> Self {
        Self { start: Instant::now(), edges: Mutex::default(), measurements: Default::default() }
    }
}

impl Edges {
    fn second(&self) -> u64 {
        self.start.elapsed().as_secs()
    }

    /// Counts what a router of `source` reports. Who it says it is does not matter,
    /// its certificate does. Edges whose names are none are passed over.
    pub fn record(&self, source: &ServiceName, report: &pb::Report) {
        self.record_at(source, report, self.second());
    }

    /// Counts the same report for whoever measures now.
    pub fn measured(&self, router: &str, report: &pb::Report) {
        self.measurements.count(router, report);
    }

    /// Begins to count the requests to a service that weights of this revision, or a
    /// newer one, decided. Ends when it is dropped.
    #[must_use]
    pub fn measure(&self, service: ServiceName, since: Revision) -> Arc<Measuring> {
        self.measurements.begin(service, since)
    }

    fn record_at(&self, source: &ServiceName, report: &pb::Report, now: u64) {
        let mut edges = self.edges.lock().unwrap_or_else(PoisonError::into_inner);
        for message in &report.edges {
            let Ok(destination) = message.destination.parse() else { continue };
            let version = match message.version.as_str() {
                "" => None,
                name => match name.parse() {
                    Ok(version) => Some(version),
                    Err(_) => continue,
                },
            };
            let key = Key { source: source.clone(), destination, version };
            if edges.len() >= MAX_EDGES && !edges.contains_key(&key) {
                continue;
            }
            let edge = edges.entry(key).or_insert_with(|| Edge {
                since: now,
                requests: 0,
                failures: 0,
                seconds: BTreeMap::new(),
            });
            edge.requests = edge.requests.saturating_add(message.requests);
            edge.failures = edge.failures.saturating_add(message.failures);
            edge.seconds.entry(now).or_default().add(message);
            edge.seconds.retain(|second, _| second + WINDOW > now);
        }
    }

    /// Every edge that was ever reported.
    #[must_use]
    pub fn list(&self) -> Vec<EdgeStatus> {
        self.list_at(self.second())
    }

    fn list_at(&self, now: u64) -> Vec<EdgeStatus> {
        let edges = self.edges.lock().unwrap_or_else(PoisonError::into_inner);
        edges.iter().map(|(key, edge)| status(key, edge, now)).collect()
    }
}

fn status(key: &Key, edge: &Edge, now: u64) -> EdgeStatus {
    let mut window = Counts::default();
    for (second, counts) in &edge.seconds {
        if second + WINDOW > now {
            window.merge(counts);
        }
    }
    // A report tells of about one second, so the first one counts for one.
    let seconds = (now.saturating_sub(edge.since) + 1).min(WINDOW);
    let share = |part: u64, whole: u64| part as f64 / whole as f64;
    let failed = window.failures.min(window.requests);
    EdgeStatus {
        source: key.source.to_string(),
        destination: key.destination.to_string(),
        version: key.version.as_ref().map(ToString::to_string).unwrap_or_default(),
        rate: share(window.requests, seconds),
        success: if window.requests == 0 { 1.0 } else { 1.0 - share(failed, window.requests) },
        p50: quantile(&window.buckets, 0.5),
        p99: quantile(&window.buckets, 0.99),
        requests: edge.requests,
        failures: edge.failures,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(requests: u64, failures: u64, destination: &str) -> pb::Report {
        let mut buckets = vec![0; DURATION_BOUNDS.len() + 1];
        buckets[3] = requests;
        let edge = pb::Edge {
            source: "someone-else".into(),
            destination: destination.into(),
            version: "v1".into(),
            requests,
            failures,
            buckets,
            ..Default::default()
        };
        pb::Report { edges: vec![edge] }
    }

    #[test]
    fn the_window_slides_and_totals_stay() {
        let edges = Edges::default();
        let gateway = "gateway".parse().unwrap();
        for second in 0..20 {
            edges.record_at(&gateway, &report(100, 10, "products"), second);
        }
        let edge = edges.list_at(19).remove(0);
        assert_eq!(edge.source, "gateway", "who it is comes from the certificate");
        assert_eq!((edge.rate, edge.requests, edge.failures), (100.0, 2000, 200));
        assert!((edge.success - 0.9).abs() < 1e-9);
        assert!(edge.p50 > DURATION_BOUNDS[2] && edge.p99 <= DURATION_BOUNDS[3]);
        let later = edges.list_at(40).remove(0);
        assert_eq!((later.rate, later.success, later.p99), (0.0, 1.0, 0.0));
        assert_eq!(later.requests, 2000);
    }

    #[test]
    fn the_first_second_is_not_spread_over_ten() {
        let edges = Edges::default();
        edges.record_at(&"gateway".parse().unwrap(), &report(50, 0, "products"), 7);
        assert_eq!(edges.list_at(7)[0].rate, 50.0);
    }

    #[test]
    fn names_that_are_none_and_wrong_numbers_do_no_harm() {
        let edges = Edges::default();
        let gateway = "gateway".parse().unwrap();
        edges.record_at(&gateway, &report(1, 0, "<script>"), 0);
        assert!(edges.list_at(0).is_empty());
        let mut wild = report(u64::MAX, u64::MAX, "products");
        wild.edges[0].buckets = vec![u64::MAX / 64; 100];
        edges.record_at(&gateway, &wild, 0);
        edges.record_at(&gateway, &wild, 0);
        assert_eq!(edges.list_at(0)[0].success, 0.0);
    }
}
