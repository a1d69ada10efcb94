//! What a router counts. Handles are bound once for each worker and set of
//! labels; after that, recording takes no lock.

mod edges;

use std::hash::BuildHasher as _;
use std::time::Duration;

use weir_mesh::telemetry::metrics::{Counter, Gauge, Histogram, Registry};
use weir_proto::weir::mesh::v1::Edge;

use self::edges::{Edges, Slots};
use crate::connection::Side;
use crate::table::Map;

/// All metrics of a router.
pub struct Metrics {
    registry: Registry,
    edges: Edges,
    tls_failures: Counter,
    /// The sequence of the snapshot in use.
    pub applied: Gauge,
    /// Snapshots that were refused.
    pub refused: Counter,
    /// 1 while connected to the control plane.
    pub connected: Gauge,
    /// When the certificate in use ceases to be valid, Unix seconds.
    pub certificate_expiry: Gauge,
    /// Lines that did not fit into the access log's queue.
    pub log_dropped: Counter,
}

/// The labels of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key<'a> {
    /// By which listener it came.
    pub side: Side,
    /// Where it went.
    pub service: &'a str,
    /// The version of it.
    pub version: &'a str,
    /// Who sent it: a SPIFFE id, or empty.
    pub peer: &'a str,
    /// Route and rule.
    pub route: &'a str,
    /// HTTP status.
    pub status: u16,
    /// gRPC status.
    pub grpc: Option<u8>,
}

/// What became of it.
pub struct Outcome<'a> {
    /// Whose weights chose its version; 0: none.
    pub revision: u32,
    /// From its arrival to the end of the answer.
    pub took: Duration,
    /// So much of it went to versions that were given up.
    pub waited: Duration,
    /// The server's fault, also when a later try made up for it.
    pub failed: bool,
    /// Tries after the first.
    pub retries: u32,
    /// Response flags.
    pub flags: &'a [&'static str],
}

/// One worker's handles.
#[derive(Default)]
pub struct Bound {
    hasher: foldhash::quality::RandomState,
    handles: Map<u64, Handles>,
    edges: Slots,
}

struct Handles {
    http: Histogram,
    rpc: Option<Histogram>,
    /// A slot of the worker's.
    edge: Option<usize>,
}

impl Metrics {
    /// Nothing is counted yet.
    #[must_use]
    pub fn new() -> Self {
        let registry = Registry::new();
        let counter = |name, help| registry.counter(name, help, "", &[]);
        let gauge = |name, help, unit| registry.gauge(name, help, unit, &[]);
        Self {
            tls_failures: counter("weir.router.tls.failures", "TLS handshakes that failed."),
            applied: gauge("weir.router.snapshot.sequence", "Snapshot in use.", ""),
            refused: counter("weir.router.snapshot.refused", "Snapshots that were refused."),
            connected: gauge(
                "weir.router.control_plane.connected",
                "1 while connected to the control plane.",
                "",
            ),
            certificate_expiry: gauge(
                "weir.router.certificate.expiry",
                "When the certificate ceases to be valid, Unix time.",
                "s",
            ),
            log_dropped: counter(
                "weir.router.access_log.dropped",
                "Lines that did not fit into the queue of the access log.",
            ),
            edges: Edges::default(),
            registry,
        }
    }

    /// Where further metrics are registered.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// A TLS handshake failed.
    pub fn tls_failed(&self) {
        self.tls_failures.inc();
    }

    /// What was seen on each edge since the last report.
    #[must_use]
    pub fn report(&self, source: &str) -> Vec<Edge> {
        self.edges.report(source)
    }

    /// One connection that is no request, from its opening to its end; `revision`
    /// chose its version.
    pub fn count_edge(
        &self,
        service: &str,
        version: &str,
        revision: u32,
        failed: bool,
        took: Duration,
    ) {
        self.edges.get(service, version, revision).count(failed, took);
    }

    fn bind(&self, key: &Key<'_>, slots: &mut Slots) -> Handles {
        let status = key.status.to_string();
        let common = [
            ("weir_service", key.service),
            ("weir_version", key.version),
            ("weir_peer", key.peer),
            ("weir_route", key.route),
            ("http_response_status_code", &status),
        ];
        let server = key.side != Side::Outbound;
        let (http, rpc, help) = if server {
            ("http.server.request.duration", "rpc.server.call.duration", "Time to answer requests.")
        } else {
            (
                "http.client.request.duration",
                "rpc.client.call.duration",
                "Time until answers ended.",
            )
        };
        let histogram =
            |name, labels: &[(&str, &str)]| self.registry.histogram(name, help, "s", labels);
        let code = key.grpc.map(|code| code_name(code).to_owned());
        Handles {
            http: histogram(http, &common),
            rpc: code.map(|code| {
                let mut labels = common.to_vec();
                labels[4] = ("rpc_response_status_code", &code);
                histogram(rpc, &labels)
            }),
            edge: (key.side != Side::Inbound && !key.service.is_empty())
                .then(|| slots.number(key.service, key.version)),
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Bound {
    /// Counts what is no request of a client, but of an edge (service, version and
    /// revision) all the same.
    pub fn count_edge(
        &mut self,
        metrics: &Metrics,
        (service, version, revision): (&str, &str, u32),
        failed: bool,
        took: Duration,
    ) {
        let number = self.edges.number(service, version);
        self.edges.count(&metrics.edges, number, revision, failed, took);
    }

    /// Counts one request.
    pub fn record(&mut self, metrics: &Metrics, key: &Key<'_>, outcome: &Outcome<'_>) {
        // The hash alone is the key: keyed and of 64 bits, two label sets in a
        // process do not meet.
        let hash = self.hasher.hash_one(key);
        let handles =
            self.handles.entry(hash).or_insert_with(|| metrics.bind(key, &mut self.edges));
        let seconds = outcome.took.as_secs_f64();
        handles.http.observe(seconds);
        if let Some(rpc) = &handles.rpc {
            rpc.observe(seconds);
        }
        if outcome.retries > 0 {
            let labels = [("weir_service", key.service), ("weir_version", key.version)];
            let help = "Tries after the first.";
            let retries = metrics.registry.counter("weir.router.retries", help, "", &labels);
            retries.add(u64::from(outcome.retries));
        }
        if let Some(edge) = handles.edge {
            let Outcome { revision, failed, took, waited, .. } = *outcome;
            let took = took.saturating_sub(waited);
            self.edges.count(&metrics.edges, edge, revision, failed, took);
        }
        for flag in outcome.flags {
            // Rare: an error or a stand-in each time.
            let labels = [("flag", *flag), ("weir_service", key.service)];
            let help = "Requests by response flag; see the documentation of the access log.";
            metrics.registry.counter("weir.router.response.flags", help, "", &labels).inc();
        }
    }
}

/// OpenTelemetry's `rpc.response.status_code` for gRPC.
fn code_name(code: u8) -> &'static str {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    NAMES.get(usize::from(code)).copied().unwrap_or("UNKNOWN")
}
