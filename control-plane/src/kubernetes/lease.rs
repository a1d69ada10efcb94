//! Who leads: one replica holds a Lease and renews it.
//!
//! The times are shorter than those of Kubernetes' own controllers (15 s, 10 s, 2 s),
//! because writes and rollouts wait for a leader, and 5 s is as long as they are to
//! wait. Short times cost little here: a leader that misses them stops leading, and
//! goes on serving routers, reads and watches as before.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease as Object, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use tokio::sync::watch;
use tokio::time::Instant;

use super::cluster::{Cluster, ClusterError};

/// How long others wait after the last renewal that they saw; the API knows whole
/// seconds only.
const DURATION: Duration = Duration::from_secs(3);
/// A leader that could not renew for this long leads no more. A second less than
/// [`DURATION`], so that it has stopped before another starts.
const RENEW_DEADLINE: Duration = Duration::from_secs(2);
/// Between attempts. A renewal is seen so late at most.
const RETRY: Duration = Duration::from_millis(500);

/// The Lease, as one replica sees it.
pub struct Lease {
    cluster: Cluster,
    name: String,
    identity: String,
    /// What was seen last, and when by our own clock: clocks of replicas may differ.
    seen: Option<(LeaseSpec, Instant)>,
    /// Who holds it, as far as is known; empty: nobody.
    holder: watch::Sender<String>,
}

impl Lease {
    /// `identity` is the replica's own: its pod's name.
    #[must_use]
    pub fn new(cluster: Cluster, name: &str, identity: &str) -> Self {
        Self {
            cluster,
            name: name.to_owned(),
            identity: identity.to_owned(),
            seen: None,
            holder: watch::Sender::default(),
        }
    }

    /// Follows who holds it; empty: nobody is known.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<String> {
        self.holder.subscribe()
    }

    /// Waits until this replica leads.
    pub async fn acquire(&mut self) {
        let mut told = String::new();
        loop {
            match self.attempt().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) if error.is_conflict() => {}
                Err(error) => {
                    let text = error.to_string();
                    if text != told {
                        tracing::warn!(%error, "cannot ask for the lead; trying again");
                        told = text;
                    }
                }
            }
            tokio::time::sleep(self.wait()).await;
        }
    }

    /// Until the next attempt: when the time of who holds it is over, if that is sooner.
    fn wait(&self) -> Duration {
        let left = self.seen.as_ref().map(|(seen, since)| {
            // What is over to the millisecond is not over yet.
            (duration(seen) + Duration::from_millis(5)).saturating_sub(since.elapsed())
        });
        left.filter(|left| !left.is_zero()).map_or(RETRY, |left| left.min(RETRY))
    }

    /// Renews; returns when that did not work for too long or somebody else leads.
    pub async fn keep(&mut self) {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(RETRY).await;
            // Others count from when they see it, which may be before the answer is here.
            let tried = Instant::now();
            let left = RENEW_DEADLINE.saturating_sub(renewed.elapsed());
            match tokio::time::timeout(left, self.attempt()).await {
                Ok(Ok(true)) => renewed = tried,
                Ok(Ok(false)) => return,
                Ok(Err(error)) => tracing::warn!(%error, "the lead was not renewed"),
                Err(_) => {}
            }
            if renewed.elapsed() >= RENEW_DEADLINE {
                return;
            }
        }
    }

    /// Gives the lead up, so that another replica need not wait.
    pub async fn release(&mut self) {
        let what = format!("lease {}", self.name);
        let api = self.cluster.leases();
        let Ok(mut lease) = self.cluster.call(&what, api.get(&self.name)).await else { return };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(&self.identity) {
            return;
        }
        spec.holder_identity = None;
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        let params = PostParams::default();
        if let Err(error) = self.cluster.call(&what, api.replace(&self.name, &params, &lease)).await
        {
            tracing::warn!(%error, "the lead was not given up; others take it when its time is over");
        }
    }

    /// True: this replica leads now. A conflict means that another was faster.
    async fn attempt(&mut self) -> Result<bool, ClusterError> {
        let what = format!("lease {}", self.name);
        let api = self.cluster.leases();
        let params = PostParams { field_manager: Some("weir".to_owned()), ..Default::default() };
        let found = self.cluster.call(&what, api.get_opt(&self.name)).await?;
        let Some(mut lease) = found else {
            let metadata = ObjectMeta { name: Some(self.name.clone()), ..Default::default() };
            let lease = Object { metadata, spec: Some(self.spec(&LeaseSpec::default())) };
            self.cluster.call(&what, api.create(&params, &lease)).await?;
            return Ok(true);
        };
        let held = lease.spec.take().unwrap_or_default();
        if !self.may_take(&held) {
            self.known(held.holder_identity.unwrap_or_default());
            return Ok(false);
        }
        lease.spec = Some(self.spec(&held));
        self.cluster.call(&what, api.replace(&self.name, &params, &lease)).await?;
        self.seen = None;
        self.known(self.identity.clone());
        Ok(true)
    }

    fn known(&self, holder: String) {
        self.holder.send_if_modified(|known| {
            let changed = *known != holder;
            *known = holder;
            changed
        });
    }

    fn may_take(&mut self, held: &LeaseSpec) -> bool {
        let holder = held.holder_identity.as_deref().unwrap_or_default();
        if holder.is_empty() || holder == self.identity {
            return true;
        }
        match &self.seen {
            Some((seen, since)) if seen == held => since.elapsed() > duration(held),
            _ => {
                self.seen = Some((held.clone(), Instant::now()));
                false
            }
        }
    }

    fn spec(&self, held: &LeaseSpec) -> LeaseSpec {
        let now = Some(MicroTime(Timestamp::now()));
        let ours = held.holder_identity.as_deref() == Some(&self.identity);
        let transitions = held.lease_transitions.unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: if ours { held.acquire_time.clone() } else { now.clone() },
            renew_time: now,
            lease_transitions: Some(if ours { transitions } else { transitions + 1 }),
            ..held.clone()
        }
    }
}

fn duration(held: &LeaseSpec) -> Duration {
    let duration = held.lease_duration_seconds.and_then(|s| u64::try_from(s).ok());
    duration.map_or(DURATION, Duration::from_secs)
}
