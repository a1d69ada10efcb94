//! Tries that failed, as evidence against their versions.

use std::sync::Arc;
use std::time::Duration;

use weir_mesh::model::VersionName;

use super::Call;
use crate::connection::Side;
use crate::table::{ServiceEntry, VersionEntry};

/// A version that failed a request.
pub(super) struct Lost {
    service: Arc<ServiceEntry>,
    version: (VersionName, u32),
    /// Of its last try, since the request came.
    at: Duration,
}

impl Call {
    /// A try failed by the version's own fault. An answer to a later try does not hide
    /// it: a version that breaks connections would else look as good as the one that
    /// stands in for it, and as one that needs no second try.
    pub fn lost(&mut self, service: &Arc<ServiceEntry>, version: &VersionEntry) {
        let at = self.began.elapsed();
        let is_it = |lost: &&mut Lost| lost.is(service, version.id);
        match self.lost.iter_mut().find(is_it) {
            Some(lost) => lost.at = at,
            None => {
                let version = (version.name.clone(), version.id);
                self.lost.push(Lost { service: service.clone(), version, at });
            }
        }
    }

    /// Counts a failure for each version that was given up. Says whether the one that
    /// was asked last failed as well, and how much of the request's time was not its.
    pub(super) fn count_lost(&mut self) -> (bool, Duration) {
        let (mut failed, mut waited) = (false, Duration::ZERO);
        if self.side == Side::Inbound {
            return (failed, waited);
        }
        let worker = self.worker.clone();
        let mut lost = std::mem::take(&mut self.lost);
        lost.sort_by_key(|lost| lost.at);
        for lost in lost {
            let last = self.service.as_ref().zip(self.version.as_ref());
            if last.is_some_and(|(service, version)| lost.is(service, version.1)) {
                failed = true;
                continue;
            }
            let edge = (lost.service.name.as_str(), lost.version.0.as_str(), self.revision);
            let took = lost.at.saturating_sub(waited);
            worker.bound.borrow_mut().count_edge(&worker.shared.metrics, edge, true, took);
            waited = lost.at;
        }
        (failed, waited)
    }
}

impl Lost {
    fn is(&self, service: &Arc<ServiceEntry>, version: u32) -> bool {
        self.version.1 == version && self.service.name == service.name
    }
}
