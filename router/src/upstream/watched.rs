//! What is learnt from how a request ends.

use std::sync::Arc;
use std::time::Duration;

use super::{Host, Permit};
use crate::clock;
use crate::metrics::Metrics;
use crate::table::{ServiceEntry, Traffic};

/// A request at an instance of a service that has a policy.
pub struct Watched {
    service: Arc<ServiceEntry>,
    host: Option<Arc<Host>>,
    /// Freed when the answer has ended.
    permit: Option<Permit>,
    judged: bool,
}

impl Watched {
    /// Nothing has come of it yet.
    #[must_use]
    pub fn new(service: Arc<ServiceEntry>, host: Option<Arc<Host>>) -> Self {
        Self { service, host, permit: None, judged: false }
    }

    fn traffic(&self) -> &Traffic {
        &self.service.traffic
    }

    /// Keeps this request's place among those in flight.
    pub fn hold(&mut self, permit: Option<Permit>) {
        self.permit = permit;
    }

    /// The head of an answer came after `took`.
    pub fn answered(&self, took: Duration) {
        if let Some(gradient) = &self.traffic().gradient {
            gradient.answered(took, clock::now());
        }
    }

    /// It is known whether the instance did well. Counts once.
    pub fn judge(&mut self, good: bool, metrics: &Metrics) {
        if std::mem::replace(&mut self.judged, true) {
            return;
        }
        if let (Some(outliers), Some(host)) = (&self.traffic().outliers, &self.host) {
            outliers.ended(host, good, clock::now(), |why| {
                let labels =
                    [("weir_service", self.service.name.as_str()), ("reason", why.as_str())];
                let help = "Instances that were left out for how they answered.";
                metrics.registry().counter("weir.router.ejections", help, "", &labels).inc();
                tracing::warn!(service = %self.service.name, reason = why.as_str(), "an instance is left out");
            });
        }
    }
}
