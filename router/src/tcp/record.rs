//! What is told of opaque connections: metrics, and a line of the access log.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use serde::Serialize;
use weir_mesh::telemetry::metrics::Counter;

use super::flow::End;
use super::upstream::Refused;
use crate::access_log::rfc3339;
use crate::connection::Side;
use crate::worker::Worker;

/// One connection, from its acceptance to its end. Dropped without a word of how
/// it ended, it was cut off.
pub struct Record {
    worker: Rc<Worker>,
    side: Side,
    peer: Arc<str>,
    began: Instant,
    server_name: Option<Box<str>>,
    destination: Option<SocketAddr>,
    route: Option<Arc<str>>,
    revision: u32,
    to: Option<To>,
    counted: Cell<(u64, u64)>,
    retries: u32,
    told: bool,
}

struct To {
    service: Box<str>,
    version: Box<str>,
    instance: Option<Arc<str>>,
    handles: Handles,
}

/// What is counted of all connections between two.
struct Handles {
    opened: Counter,
    sent: Counter,
    received: Counter,
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    side: &'static str,
    protocol: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    service: &'a str,
    version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<&'a str>,
    peer: &'a str,
    duration_ms: f64,
    bytes_sent: u64,
    bytes_received: u64,
    retries: u32,
    flags: &'a [&'static str],
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Record {
    /// A connection that came by `side` from `peer`.
    #[must_use]
    pub fn begin(worker: &Rc<Worker>, side: Side, peer: Arc<str>) -> Self {
        worker.activity.note();
        Self {
            worker: worker.clone(),
            side,
            peer,
            began: Instant::now(),
            server_name: None,
            destination: None,
            route: None,
            revision: 0,
            to: None,
            counted: Cell::new((0, 0)),
            retries: 0,
            told: false,
        }
    }

    /// The name that its ClientHello has.
    pub fn server_name(&mut self, name: Option<&str>) {
        self.server_name = name.map(Into::into);
    }

    /// Where the client meant to go, when the kernel redirected it.
    pub fn meant_for(&mut self, destination: SocketAddr) {
        self.destination = Some(destination);
    }

    /// What routed it, and the desired state that this is of.
    pub fn route(&mut self, label: Arc<str>, revision: u32) {
        self.route = Some(label);
        self.revision = revision;
    }

    /// It is no opaque connection: its requests are told instead.
    pub fn left_to_requests(mut self) {
        self.told = true;
    }

    /// One more instance is tried.
    pub fn retried(&mut self) {
        self.retries += 1;
    }

    /// Where it goes: it is open from now on.
    pub fn opened(&mut self, service: &str, version: &str, instance: Option<Arc<str>>) {
        let registry = self.worker.shared.metrics.registry();
        let labels = [
            ("weir_side", self.side.as_str()),
            ("weir_service", service),
            ("weir_version", version),
            ("weir_peer", &self.peer),
        ];
        let counter = |name, help, unit| registry.counter(name, help, unit, &labels);
        let handles = Handles {
            opened: counter("weir.router.tcp.opened", "Opaque connections that were opened.", ""),
            sent: counter("weir.router.tcp.sent", "Bytes from clients to services.", "By"),
            received: counter("weir.router.tcp.received", "Bytes from services to clients.", "By"),
        };
        handles.opened.inc();
        self.to = Some(To { service: service.into(), version: version.into(), instance, handles });
    }

    /// Tells how many bytes went to the service and came from it so far.
    pub fn count(&self, sent: u64, received: u64) {
        let (sent_before, received_before) = self.counted.replace((sent, received));
        if let Some(to) = &self.to {
            to.handles.sent.add(sent.saturating_sub(sent_before));
            to.handles.received.add(received.saturating_sub(received_before));
        }
    }

    /// It never was open.
    pub fn refused(mut self, refused: &Refused) {
        self.tell(refused.flag(), Some(refused.to_string()));
    }

    /// It was open, and has ended.
    pub fn ended(mut self, end: End) {
        // At the router beside the service, the near socket is the service's.
        let (near, far) = match self.side {
            Side::Inbound => ("UC", "DC"),
            Side::Outbound | Side::Gateway => ("DC", "UC"),
        };
        let (flag, error) = match end {
            End::Whole => (None, None),
            End::Near => (Some(near), None),
            End::Far => (Some(far), None),
            End::Idle => (Some("SI"), Some("idle for too long".to_owned())),
        };
        self.tell(flag, error);
    }

    fn tell(&mut self, flag: Option<&'static str>, error: Option<String>) {
        self.told = true;
        self.worker.activity.note();
        let (service, version, instance) = match &self.to {
            Some(to) => (&*to.service, &*to.version, to.instance.as_deref()),
            None => ("", "", None),
        };
        let metrics = &self.worker.shared.metrics;
        let labels = [
            ("weir_side", self.side.as_str()),
            ("weir_service", service),
            ("weir_version", version),
            ("weir_peer", &self.peer),
            ("flag", flag.unwrap_or_default()),
        ];
        let help = "Opaque connections that ended, by response flag.";
        metrics.registry().counter("weir.router.tcp.closed", help, "", &labels).inc();
        let failed = matches!(flag, Some("UF" | "UO" | "UH" | "UC" | "NR"));
        if self.side != Side::Inbound && !service.is_empty() {
            metrics.count_edge(service, version, self.revision, failed, self.began.elapsed());
        }
        let log = &self.worker.shared.access_log;
        if !log.is_on() {
            return;
        }
        let took = self.began.elapsed();
        let (bytes_sent, bytes_received) = self.counted.get();
        let flags: Vec<&'static str> = flag.into_iter().collect();
        log.write_json(&Line {
            time: rfc3339(SystemTime::now() - took),
            side: self.side.as_str(),
            protocol: "tcp",
            server_name: self.server_name.as_deref(),
            destination: self.destination,
            route: self.route.as_deref(),
            service,
            version,
            instance,
            peer: &self.peer,
            duration_ms: (took.as_secs_f64() * 1e6).round() / 1e3,
            bytes_sent,
            bytes_received,
            retries: self.retries,
            flags: &flags,
            error,
        });
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.told {
            self.tell(Some("DC"), Some("cut off".to_owned()));
        }
    }
}
