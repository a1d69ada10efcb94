//! A place among the requests in flight, or in the queue before them.

use std::rc::Rc;
use std::sync::Arc;

use tokio::time::Instant;
use weir_mesh::telemetry::metrics::Gauge;

use super::Call;
use crate::error::RouterError;
use crate::table::ServiceEntry;
use crate::upstream::{Full, Permit, until};
use crate::worker::Worker;

/// Waits for a place.
///
/// # Errors
/// [`RouterError::Overflow`], or [`RouterError::Timeout`] when the request's
/// deadline passed meanwhile.
pub(super) async fn enter(
    worker: &Rc<Worker>,
    service: &Arc<ServiceEntry>,
    call: &Call,
) -> Result<Option<Permit>, RouterError> {
    let Some(limiter) = &service.traffic.limiter else { return Ok(None) };
    if let Some(permit) = limiter.try_enter() {
        return Ok(Some(permit));
    }
    let limits = &service.traffic.policy.limits;
    let _waits = Waits::new(worker, service);
    match limiter.wait(limits.max_pending, until(call.deadline(), limits.pending_timeout)).await {
        Ok(permit) => Ok(Some(permit)),
        Err(Full::Waited) if call.deadline().is_some_and(|at| at <= Instant::now()) => {
            Err(RouterError::Timeout(call.budget()))
        }
        Err(full) => Err(RouterError::Overflow(describe(service, limiter.limit(), full))),
    }
}

fn describe(service: &ServiceEntry, limit: u32, full: Full) -> String {
    let limits = &service.traffic.policy.limits;
    let name = &service.name;
    let queue = match full {
        Full::Queue if limits.max_pending == 0 => String::new(),
        Full::Queue => format!(" and {} wait", limits.max_pending),
        Full::Waited => format!(", none of which ended within {:?}", limits.pending_timeout),
    };
    format!(
        "this router has {limit} requests in flight at {name}{queue}: the limit of its \
         BackendTrafficPolicy; try again later"
    )
}

/// Shows the queue's length while it lives.
struct Waits(Gauge);

impl Waits {
    fn new(worker: &Worker, service: &ServiceEntry) -> Self {
        let labels = [("weir_service", service.name.as_str())];
        let help = "Requests that wait for others to end.";
        let registry = worker.shared.metrics.registry();
        let gauge = registry.gauge("weir.router.queue.length", help, "", &labels);
        gauge.add(1);
        Self(gauge)
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.add(-1);
    }
}
