//! When a change has reached the mesh.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::registry::{Presence, Registry, Router};
use crate::store::Revision;

/// How far a change has come.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Converged {
    /// Routers that changes wait for.
    pub routers: u32,
    /// How many of them use the change.
    pub applied: u32,
    /// From the store's acknowledgement to the slowest of these.
    pub slowest: Duration,
    /// The others, each with why.
    pub pending: Vec<(Arc<str>, String)>,
}

/// Waits until every live router uses a desired state at least as new as
/// `revision`, or `limit` is over. Answers early when whoever is left has refused:
/// waiting longer would not change that.
///
/// `acknowledged` is when the store had the change.
pub async fn wait(
    registry: &Registry,
    revision: Revision,
    acknowledged: Instant,
    limit: Duration,
) -> Converged {
    let mut progress = registry.watch_progress();
    let deadline = acknowledged + limit;
    let awaited = || {
        registry.look(|routers| {
            told(&mut routers.filter(|router| router.awaited()), revision, acknowledged)
        })
    };
    loop {
        progress.mark_unchanged();
        if registry.look(|routers| settled(routers, revision)) {
            return awaited();
        }
        let changed = tokio::time::timeout_at(deadline, progress.changed()).await;
        if changed.is_err() {
            return awaited();
        }
    }
}

/// How far a revision has come by now, at all routers that are not forgotten: one whose
/// stream broke a moment ago may serve still, by what it was sent before. Who asks
/// has the time to wait for its end.
#[must_use]
pub fn now(registry: &Registry, revision: Revision) -> Converged {
    registry.look(|routers| told(routers, revision, Instant::now()))
}

/// Whether waiting longer changes nothing. Asked after each answer of each router, so it
/// makes nothing and ends at the first that is awaited.
fn settled(routers: &mut dyn Iterator<Item = &Router>, revision: Revision) -> bool {
    routers.filter(|router| router.awaited()).all(|router| {
        uses(router, revision)
            || router.acks.refusal.as_ref().is_some_and(|refusal| refusal.revision >= revision)
    })
}

fn uses(router: &Router, revision: Revision) -> bool {
    router.acks.revision >= revision && router.acks.sequence > 0
}

/// How far it is.
fn told(
    routers: &mut dyn Iterator<Item = &Router>,
    revision: Revision,
    acknowledged: Instant,
) -> Converged {
    let mut converged = Converged::default();
    for router in routers {
        converged.routers += 1;
        if uses(router, revision) {
            converged.applied += 1;
            let at = router.acks.reached(revision).unwrap_or(acknowledged);
            converged.slowest = converged.slowest.max(at.saturating_duration_since(acknowledged));
            continue;
        }
        let refusal = router.acks.refusal.as_ref().filter(|r| r.revision >= revision);
        let reason = match refusal {
            Some(refusal) => format!("refused: {}", refusal.reason),
            None if router.presence == Presence::Restored => {
                "has not come back since its control plane went away".to_owned()
            }
            None if router.presence == Presence::Deferred => {
                "was told to come back later".to_owned()
            }
            None if router.presence == Presence::Lost => {
                format!("is at revision {}, and its stream broke", router.acks.revision)
            }
            None if router.acks.sequence == 0 => "has applied nothing yet".to_owned(),
            None => format!("is at revision {}", router.acks.revision),
        };
        converged.pending.push((router.registration.id.clone(), reason));
    }
    converged
}
