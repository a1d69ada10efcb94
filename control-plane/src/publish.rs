//! Makes a snapshot at each change and shows the newest to every watcher.
//!
//! Each is encoded once for each role, and each delta to it once for each base
//! ([`Deltas`]). Changes of the registry come in bursts (a mesh that starts, or comes
//! back), so they are gathered until it is quiet, but not for long; what a person asked
//! for is published at once.

mod delta;

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;
use weir_mesh::model::{Instance, Snapshot};
use weir_mesh::telemetry::metrics::{Counter, DURATION_BOUNDS, Histogram};

use crate::ca::Authority;
pub use delta::Deltas;
use delta::Trail;

use crate::registry::{Registry, Role};
use crate::snapshot;
use crate::store::{Desired, Revision, Store, StoreError};

/// Changes of the registry are gathered until there is none for this long,
const GATHER: Duration = Duration::from_millis(5);
/// and no longer than this.
const GATHER_MAX: Duration = Duration::from_millis(100);
/// How many sequence numbers are reserved at once: one durable write for so many.
const BLOCK: u64 = 1000;

/// The newest snapshot, for one role.
pub struct Published {
    /// Grows with each, also across restarts.
    pub sequence: u64,
    /// The desired state it was made from.
    pub revision: Revision,
    /// A serialized `weir.mesh.v1.Snapshot`.
    pub bytes: Bytes,
    /// What makes it of earlier ones.
    pub deltas: Deltas,
}

/// What publishing costs. All of it since the start.
pub struct Costs {
    /// Times to make and encode a snapshot.
    pub publish: Histogram,
    /// Whole snapshots that were sent.
    pub wholes: Counter,
    /// Deltas that were sent.
    pub deltas: Counter,
    /// Bytes of both, before TLS.
    pub bytes: Counter,
    /// Deltas that routers refused.
    pub refused: Counter,
    /// Routers that were told to come back later.
    pub told_to_wait: Counter,
}

impl Default for Costs {
    fn default() -> Self {
        Self {
            publish: Histogram::new(&DURATION_BOUNDS),
            wholes: Counter::default(),
            deltas: Counter::default(),
            bytes: Counter::default(),
            refused: Counter::default(),
            told_to_wait: Counter::default(),
        }
    }
}

/// The roots in the newest snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedBundle {
    /// The roots.
    pub bundle: Arc<[Bytes]>,
    /// The first snapshot that had just these.
    pub since: u64,
}

/// Shows the newest snapshots.
pub struct Publisher {
    store: Arc<dyn Store>,
    trust_domain: Arc<str>,
    /// The first sequence of this process.
    first: u64,
    sidecar: Channel,
    gateway: Channel,
    bundle: watch::Sender<PublishedBundle>,
    costs: Costs,
}

/// What routers of one role see.
struct Channel {
    role: Role,
    trail: Mutex<Trail>,
    newest: watch::Sender<Arc<Published>>,
}

impl Channel {
    /// One that shows an empty snapshot.
    fn new(role: Role) -> Self {
        let (bytes, deltas) = Trail::default().go_on(Default::default());
        let none = Arc::new(Published { sequence: 0, revision: 0, bytes, deltas });
        Self { role, trail: Mutex::default(), newest: watch::Sender::new(none) }
    }

    fn show(&self, snapshot: &Snapshot) {
        let message = snapshot::message(snapshot, self.role);
        let mut trail = self.trail.lock().unwrap_or_else(PoisonError::into_inner);
        let (bytes, deltas) = trail.go_on(message);
        drop(trail);
        let (sequence, revision) = (snapshot.sequence, snapshot.revision);
        self.newest.send_replace(Arc::new(Published { sequence, revision, bytes, deltas }));
    }
}

/// What a snapshot is made from.
struct Inputs {
    desired: Arc<Desired>,
    instances: Vec<Instance>,
    bundle: Arc<[Bytes]>,
}

impl PartialEq for Inputs {
    /// Entries of the history that change nothing are none of a router's business.
    fn eq(&self, other: &Self) -> bool {
        self.bundle == other.bundle
            && self.instances == other.instances
            && self.desired.is_same(&other.desired)
    }
}

impl Publisher {
    /// Reserves sequence numbers and makes the first snapshot. Blocks on the store.
    ///
    /// # Errors
    /// [`StoreError`], when numbers cannot be reserved.
    pub fn start(
        store: Arc<dyn Store>,
        trust_domain: Arc<str>,
        desired: &watch::Sender<Arc<Desired>>,
        registry: &Registry,
        authority: &Authority,
    ) -> Result<(Self, Sequences), StoreError> {
        let mut sequences = Sequences { block: store.reserve(BLOCK)? };
        let first = sequences.block.start;
        let publisher = Self {
            store,
            trust_domain,
            first,
            sidecar: Channel::new(Role::Sidecar),
            gateway: Channel::new(Role::Gateway),
            bundle: watch::Sender::new(PublishedBundle { bundle: Arc::new([]), since: 0 }),
            costs: Costs::default(),
        };
        let sequence = sequences.block.next().unwrap_or(first);
        publisher.publish(&inputs(desired, registry, authority), sequence);
        Ok((publisher, sequences))
    }

    /// Follows the newest snapshot for a role.
    #[must_use]
    pub fn watch(&self, role: Role) -> watch::Receiver<Arc<Published>> {
        match role {
            Role::Sidecar => self.sidecar.newest.subscribe(),
            Role::Gateway => self.gateway.newest.subscribe(),
        }
    }

    /// Follows the roots that snapshots carry.
    #[must_use]
    pub fn watch_bundle(&self) -> watch::Receiver<PublishedBundle> {
        self.bundle.subscribe()
    }

    /// The newest snapshot's number.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.sidecar.newest.borrow().sequence
    }

    /// What it cost so far.
    #[must_use]
    pub fn costs(&self) -> &Costs {
        &self.costs
    }

    /// How many snapshots a router that uses `sequence` is behind.
    #[must_use]
    pub fn lag(&self, sequence: u64) -> u64 {
        self.newest().saturating_sub(sequence.max(self.first - 1))
    }

    fn publish(&self, inputs: &Inputs, sequence: u64) {
        let began = Instant::now();
        let made = snapshot::build(
            &inputs.desired,
            inputs.instances.clone(),
            &inputs.bundle,
            &self.trust_domain,
            sequence,
        );
        match made {
            Ok(snapshot) => {
                self.sidecar.show(&snapshot);
                self.gateway.show(&snapshot);
                self.bundle.send_if_modified(|published| {
                    let changed = published.bundle != inputs.bundle;
                    if changed {
                        let bundle = inputs.bundle.clone();
                        *published = PublishedBundle { bundle, since: sequence };
                    }
                    changed
                });
                self.costs.publish.observe_duration(began.elapsed());
                tracing::debug!(sequence, revision = snapshot.revision, "published");
            }
            // Each write was checked by the same rules: only a damaged store leads here.
            Err(error) => {
                let (route, field) = (error.route(), error.field());
                tracing::error!(%route, field, %error, "no snapshot can be made; the last one stays");
            }
        }
    }

    /// Publishes at each change. Never returns.
    pub async fn keep(
        &self,
        mut sequences: Sequences,
        desired: &watch::Sender<Arc<Desired>>,
        registry: &Registry,
        authority: &Authority,
    ) {
        let mut asked = desired.subscribe();
        let mut bundle = authority.watch_bundle();
        let mut members = registry.watch_members();
        let mut last = None;
        loop {
            let now = inputs(desired, registry, authority);
            if last.as_ref() != Some(&now) {
                match self.next(&mut sequences).await {
                    Ok(sequence) => {
                        self.publish(&now, sequence);
                        last = Some(now);
                    }
                    Err(error) => {
                        tracing::error!(%error, "no sequence number for a snapshot; trying again");
                        tokio::time::sleep(Duration::from_secs(1)).await;
                        continue;
                    }
                }
            }
            tokio::select! {
                _ = asked.changed() => {}
                _ = bundle.changed() => {}
                _ = members.changed() => tokio::select! {
                    () = quiet(&mut members) => {}
                    _ = asked.changed() => {}
                    _ = bundle.changed() => {}
                },
            }
        }
    }

    async fn next(&self, sequences: &mut Sequences) -> Result<u64, StoreError> {
        if let Some(sequence) = sequences.block.next() {
            return Ok(sequence);
        }
        let store = self.store.clone();
        let reserve = tokio::task::spawn_blocking(move || store.reserve(BLOCK)).await;
        sequences.block = reserve.map_err(|lost| StoreError::Task(lost.to_string())).flatten()?;
        sequences.block.next().ok_or_else(|| StoreError::Task("no numbers are left".to_owned()))
    }
}

/// Waits until nothing changes for a moment, or it has taken too long.
async fn quiet(members: &mut watch::Receiver<u64>) {
    let end = Instant::now() + GATHER_MAX;
    while Instant::now() < end
        && tokio::time::timeout(GATHER, members.changed())
            .await
            .is_ok_and(|changed| changed.is_ok())
    {}
}

/// Sequence numbers that are ours to use.
pub struct Sequences {
    block: Range<u64>,
}

fn inputs(
    desired: &watch::Sender<Arc<Desired>>,
    registry: &Registry,
    authority: &Authority,
) -> Inputs {
    Inputs {
        desired: desired.borrow().clone(),
        instances: registry.instances(),
        bundle: authority.bundle(),
    }
}
