//! How the requests of one service were split, for as long as somebody asks: only
//! those that its newest weights decided.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use weir_mesh::model::{ServiceName, VersionName};
use weir_proto::weir::mesh::v1 as pb;

use crate::store::Revision;

/// Counts of one version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counted {
    /// Requests, or connections of opaque TCP.
    pub requests: u64,
    /// Of these, what failed by the server's fault.
    pub failures: u64,
}

/// What was counted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sum {
    /// By version.
    pub versions: BTreeMap<VersionName, Counted>,
    /// Routers that brought a report, whatever was in it.
    pub routers: BTreeSet<String>,
}

/// Counts until it is dropped.
#[derive(Debug)]
pub struct Measuring {
    service: ServiceName,
    since: Revision,
    sum: Mutex<Sum>,
}

impl Measuring {
    /// What was counted so far.
    #[must_use]
    pub fn sum(&self) -> Sum {
        self.sum.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn count(&self, router: &str, report: &pb::Report) {
        let mut sum = self.sum.lock().unwrap_or_else(PoisonError::into_inner);
        if !sum.routers.contains(router) {
            sum.routers.insert(router.to_owned());
        }
        for edge in &report.edges {
            if edge.destination != self.service.as_str() || edge.revision < self.since {
                continue;
            }
            // What reached no version was not decided by weights.
            let Ok(version) = edge.version.parse::<VersionName>() else { continue };
            let counted = sum.versions.entry(version).or_default();
            counted.requests = counted.requests.saturating_add(edge.requests);
            counted.failures = counted.failures.saturating_add(edge.failures);
        }
    }
}

/// Everything that is being measured.
#[derive(Default)]
pub(super) struct Measurements(Mutex<Vec<Weak<Measuring>>>);

impl Measurements {
    /// Begins to count what weights of this revision, or a newer one, decided.
    pub fn begin(&self, service: ServiceName, since: Revision) -> Arc<Measuring> {
        let measuring = Arc::new(Measuring { service, since, sum: Mutex::default() });
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|one| one.strong_count() > 0);
        all.push(Arc::downgrade(&measuring));
        measuring
    }

    /// Counts a report.
    pub fn count(&self, router: &str, report: &pb::Report) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for one in all.iter().filter_map(Weak::upgrade) {
            one.count(router, report);
        }
    }
}
