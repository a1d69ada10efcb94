//! Takes what routers report to the rollouts that want it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;
use weir_mesh::model::ServiceName;
use weir_proto::weir::mesh::v1 as pb;

/// Reports that wait for their rollout. What does not fit is left out: canary and
/// baseline of a report go together, so nothing is skewed by that.
const WAITING: usize = 1024;

/// What one report says of one service.
pub type Edges = Vec<pb::Edge>;

/// Who wants reports, by service.
#[derive(Default)]
pub struct Feed {
    taps: Mutex<BTreeMap<Arc<str>, mpsc::Sender<Edges>>>,
}

impl Feed {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, mpsc::Sender<Edges>>> {
        self.taps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is reported of requests to a service from now on. A service has one such
    /// listener: the newest.
    #[must_use]
    pub fn tap(&self, service: &ServiceName) -> mpsc::Receiver<Edges> {
        let (sender, receiver) = mpsc::channel(WAITING);
        self.lock().insert(service.as_str().into(), sender);
        receiver
    }

    /// Hands on a report of one router of a service, by its certificate. What a service
    /// says of itself is no evidence: a canary would be its own judge.
    pub fn report(&self, from: &ServiceName, report: &pb::Report) {
        let mut taps = self.lock();
        if taps.is_empty() {
            return;
        }
        taps.retain(|service, tap| {
            if **service == *from.as_str() {
                return !tap.is_closed();
            }
            let of = report.edges.iter().filter(|edge| *edge.destination == **service);
            let edges: Edges = of.cloned().collect();
            // Full: see WAITING. Closed: nobody wants it any more.
            edges.is_empty()
                || !matches!(tap.try_send(edges), Err(mpsc::error::TrySendError::Closed(_)))
        });
    }
}
