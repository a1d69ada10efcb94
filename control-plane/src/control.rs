//! The control plane's parts put together, and the one way to change what is desired.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use weir_mesh::model::{Instance, Invalid, ServiceName};
use weir_mesh::shutdown::Shutdown;
use weir_proto::weir::mesh::v1 as pb;

use crate::access::Refusals;
use crate::api::Attest;
use crate::ca::{Authority, CaError, JoinTokens};
use crate::consul::Consul;
use crate::converge::{self, Converged};
use crate::edges::Edges;
use crate::guard::{Answers, Guard};
use crate::pace::Pace;
use crate::publish::Publisher;
use crate::registry::{Registry, Router};
use crate::replica::{self, Replica};
use crate::rollout::Rollouts;
use crate::snapshot::{self, policies};
use crate::store::{
    Action, Change, Commit, Desired, Discovered, Edit, Idempotency, Revision, Store, StoreError,
};
use crate::text;
use crate::traces::Traces;

/// How long a new root has to reach every router before it may sign.
const ROOT_SPREAD: Duration = Duration::from_secs(10);

/// After a newer state could not be read.
const FOLLOW_RETRY: Duration = Duration::from_millis(500);

/// Who asks for a change, and why.
#[derive(Debug, Clone)]
pub struct Author {
    /// Goes into the history.
    pub actor: String,
    /// May be empty.
    pub reason: String,
}

/// What goes into the history beside the change itself.
#[derive(Debug, Clone)]
// Only where something outside of the store is changed does anybody read it.
#[cfg_attr(not(feature = "kubernetes"), expect(dead_code))]
pub struct Asked {
    /// Who, and why.
    pub author: Author,
    /// What kind of change it is.
    pub action: Action,
    /// By which a retry is known.
    pub idempotency: Option<Idempotency>,
}

/// What is to be changed.
pub struct Plan {
    /// What kind of change it is.
    pub action: Action,
    /// Edits that change nothing are left out.
    pub edits: Vec<Edit>,
    /// Only checks, and says what would change.
    pub dry_run: bool,
}

/// A change that is durable.
#[derive(Debug, Clone)]
pub struct Made {
    /// What is desired now.
    pub revision: Revision,
    /// True: all of it was so already; there is no new revision.
    pub unchanged: bool,
    /// When the store had it.
    pub at: Instant,
    /// What it changes; empty when it is replayed.
    pub changes: Vec<Change>,
    /// True: an earlier request with the same key made it.
    pub replayed: bool,
}

impl Made {
    /// One that was made just now.
    #[must_use]
    pub fn of(revision: Revision, unchanged: bool, changes: Vec<Change>) -> Self {
        Self { revision, unchanged, at: Instant::now(), changes, replayed: false }
    }
}

/// Why a change was not made. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// What was asked for is wrong.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// What it is about is not there.
    #[error("{0}")]
    NotFound(String),
    /// Something of this name is there.
    #[error("{0}")]
    Exists(String),
    /// Someone else was faster.
    #[error("{0}")]
    Aborted(String),
    /// It cannot be done in the state that the mesh is in.
    #[error("{0}")]
    Precondition(String),
    /// It could not be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why the roots were not changed.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    /// Certificates from the new root would not be trusted everywhere. The new root
    /// stays pending: calling again takes it up.
    #[error(
        "the new root has not reached every router, so it does not sign yet; call again when \
         these have applied it: {0}"
    )]
    NotSpread(String),
    /// The authority failed.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The work was lost with its thread.
    #[error("the authority did not answer: {0}")]
    Task(String),
}

/// Objects outside of the store that are the desired state. May block.
pub trait Resources: Send + Sync {
    /// The edits as they can be made: refused with what to do instead, or without
    /// what is not for them to change.
    ///
    /// # Errors
    /// [`ChangeError::Invalid`], all of what cannot be done at once.
    fn admit(&self, desired: &Desired, edits: Vec<Edit>) -> Result<Vec<Edit>, ChangeError>;

    /// Makes a checked change: writes the objects, records it, and shows the new
    /// desired state. Nobody else changes anything meanwhile.
    ///
    /// # Errors
    /// [`ChangeError`], which says what was changed nevertheless.
    fn write(&self, control: &Control, asked: Asked, edits: &[Edit]) -> Result<Made, ChangeError>;

    /// The objects that would be written, as documents that a user can apply.
    ///
    /// # Errors
    /// [`ChangeError::Invalid`] for what cannot be written, all at once.
    fn documents(&self, edits: &[Edit]) -> Result<Vec<serde_json::Value>, ChangeError>;
}

/// Everything that requests and background tasks share.
pub struct Control {
    /// SPIFFE trust domain.
    pub trust_domain: Arc<str>,
    /// History and desired state on disk.
    pub store: Arc<dyn Store>,
    /// The newest desired state.
    pub desired: watch::Sender<Arc<Desired>>,
    /// Which control plane this is, and who leads.
    pub replica: Arc<Replica>,
    /// Who is there.
    pub registry: Registry,
    /// Newest snapshots.
    pub publisher: Publisher,
    /// How much is done at once.
    pub pace: Pace,
    /// Signs certificates.
    pub authority: Authority,
    /// Who may join.
    pub join_tokens: JoinTokens,
    /// Who may join, where join tokens are not how.
    pub attest: Option<Arc<dyn Attest>>,
    /// What is really changed, where the store only records.
    pub resources: Option<Arc<dyn Resources>>,
    /// A second source of services and instances.
    pub consul: Option<Arc<Consul>>,
    /// Counts calls to renew certificates.
    pub renew: watch::Sender<u64>,
    /// Who calls whom.
    pub edges: Edges,
    /// What is known of rollouts that run here.
    pub rollouts: Rollouts,
    /// What was recorded.
    pub traces: Traces,
    /// Who was refused, as far as it is not in the history yet.
    pub refusals: Refusals,
    /// Set when the process stops.
    pub shutdown: Shutdown,
    /// How requests with a key were answered.
    pub answers: Answers,
    /// One change at a time.
    pub writing: Mutex<()>,
}

impl Control {
    /// Makes a change without conditions: `plan` works it out from the newest desired state, the result
    /// is checked whole, stored, and published. It goes on to its end even when
    /// nobody waits for the answer any more, so that memory and store agree.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub async fn change(
        self: &Arc<Self>,
        author: Author,
        plan: impl FnOnce(&Desired, &dyn Store) -> Result<Plan, ChangeError> + Send + 'static,
    ) -> Result<Made, ChangeError> {
        self.change_guarded(author, Guard::default(), plan).await
    }

    /// The same, for a request with conditions. One that was answered already changes
    /// nothing and is answered as it was.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub async fn change_guarded(
        self: &Arc<Self>,
        author: Author,
        guard: Guard,
        plan: impl FnOnce(&Desired, &dyn Store) -> Result<Plan, ChangeError> + Send + 'static,
    ) -> Result<Made, ChangeError> {
        let control = self.clone();
        let work = move || control.change_blocking(author, &guard, plan);
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|lost| StoreError::Task(lost.to_string()))?
    }

    /// What an earlier request with the same key led to.
    ///
    /// # Errors
    /// [`ChangeError`]: another request had the key, or history cannot be read.
    pub async fn replayed(self: &Arc<Self>, guard: &Guard) -> Result<Option<Made>, ChangeError> {
        if guard.idempotency.is_none() {
            return Ok(None);
        }
        let (control, guard) = (self.clone(), guard.clone());
        let work = move || {
            let _one_at_a_time = control.writing.lock().unwrap_or_else(PoisonError::into_inner);
            let newest = control.desired.borrow().revision;
            control.replayed_blocking(&guard, newest)
        };
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|lost| StoreError::Task(lost.to_string()))?
    }

    fn replayed_blocking(
        &self,
        guard: &Guard,
        newest: Revision,
    ) -> Result<Option<Made>, ChangeError> {
        let Some(asked) = &guard.idempotency else { return Ok(None) };
        let found = self.answers.find(&*self.store, newest, asked)?;
        Ok(found.map(|answer| Made {
            revision: answer.revision,
            unchanged: answer.unchanged,
            at: Instant::now(),
            changes: Vec::new(),
            replayed: true,
        }))
    }

    fn change_blocking(
        &self,
        author: Author,
        guard: &Guard,
        plan: impl FnOnce(&Desired, &dyn Store) -> Result<Plan, ChangeError>,
    ) -> Result<Made, ChangeError> {
        let _one_at_a_time = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.replica.leads() {
            return Err(StoreError::NotLeading.into());
        }
        let desired = self.desired.borrow().clone();
        if let Some(made) = self.replayed_blocking(guard, desired.revision)? {
            return Ok(made);
        }
        guard.check(&desired)?;
        let Plan { action, edits, dry_run } = plan(&desired, &*self.store)?;
        guard.check_there(&desired)?;
        let made = self.make(&desired, author, guard, Plan { action, edits, dry_run })?;
        if let Some(asked) = guard.idempotency.as_ref().filter(|_| !dry_run) {
            self.answers.remember(asked, made.revision, made.unchanged);
        }
        Ok(made)
    }

    /// Makes a change that is worked out. Nobody else makes one meanwhile.
    fn make(
        &self,
        desired: &Desired,
        author: Author,
        guard: &Guard,
        plan: Plan,
    ) -> Result<Made, ChangeError> {
        let Plan { action, mut edits, dry_run } = plan;
        if let Some(resources) = &self.resources {
            edits = resources.admit(desired, edits)?;
        }
        edits.retain(|edit| desired.get(&edit.key) != edit.after);
        if edits.is_empty() {
            return Ok(Made::of(desired.newest_change, true, Vec::new()));
        }
        let next = desired.after(&edits);
        if let Some(error) = snapshot::introduced(desired, &next).into_iter().next() {
            let field = format!("routes.{}.{}", error.route(), error.field());
            return Err(Invalid::one(field, error.to_string()).into());
        }
        if let Some(fault) = policies::introduced(desired, &next).into_iter().next() {
            let field = format!("policies.{}.{}.{}", fault.kind, fault.name, fault.field());
            return Err(Invalid::one(field, fault.to_string()).into());
        }
        if dry_run {
            let change = |edit: &Edit| Change {
                key: edit.key.clone(),
                before: desired.get(&edit.key),
                after: edit.after.clone(),
            };
            let changes = edits.iter().map(change).collect();
            return Ok(Made::of(desired.revision, false, changes));
        }
        if let Some(resources) = &self.resources {
            let asked = Asked { author, action, idempotency: guard.idempotency.clone() };
            return resources.write(self, asked, &edits);
        }
        let entry = self.store.commit(&Commit {
            base: desired.revision,
            nanos: text::unix_nanos(),
            actor: author.actor,
            reason: author.reason,
            action,
            edits,
            idempotency: guard.idempotency.clone(),
        })?;
        let made = Made::of(entry.revision, false, entry.changes);
        self.desired.send_replace(Arc::new(next));
        let action = action.as_str();
        tracing::info!(revision = entry.revision, action, actor = entry.actor, "changed");
        Ok(made)
    }

    /// Writes an entry that changes nothing into the history: somebody was refused, or
    /// did what no desired state tells. Routers hear nothing of it.
    ///
    /// # Errors
    /// When it could not be stored.
    pub async fn note(self: &Arc<Self>, author: Author, action: Action) -> Result<(), StoreError> {
        if action == Action::Refused && !self.replica.leads() {
            return replica::note(self, &author).await;
        }
        let control = self.clone();
        let done = tokio::task::spawn_blocking(move || control.note_blocking(author, action)).await;
        done.map_err(|lost| StoreError::Task(lost.to_string()))?
    }

    fn note_blocking(&self, author: Author, action: Action) -> Result<(), StoreError> {
        let _one_at_a_time = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.replica.leads() {
            return Err(StoreError::NotLeading);
        }
        let entry = self.store.commit(&Commit {
            base: self.desired.borrow().revision,
            nanos: text::unix_nanos(),
            actor: author.actor,
            reason: author.reason,
            action,
            edits: Vec::new(),
            idempotency: None,
        })?;
        self.desired.send_if_modified(|desired| {
            *desired = Arc::new(desired.noted(entry.revision));
            false
        });
        Ok(())
    }

    /// Every instance: those that routers registered, then those without one.
    #[must_use]
    pub fn instances(&self) -> Vec<Instance> {
        self.desired.borrow().with_instances(self.registry.instances())
    }

    /// Takes in what another catalogue has now. No revision is made: nobody asked
    /// for it. Blocks while a change is being made.
    pub fn discovered(&self, found: Discovered) {
        let _one_at_a_time = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = (**self.desired.borrow()).clone();
        next.discover(found);
        self.desired.send_if_modified(|desired| {
            let changed = **desired != next;
            if changed {
                *desired = Arc::new(next);
            }
            changed
        });
    }

    /// Takes in what the store has that is newer than what is shown: another control
    /// plane made it, or the answer to one of ours was lost. Blocks.
    ///
    /// # Errors
    /// When it cannot be read; what is shown stays.
    pub fn catch_up(&self) -> Result<Revision, StoreError> {
        let _one_at_a_time = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = self.store.refresh()?;
        if newest > self.desired.borrow().revision {
            let mut next = self.store.newest()?;
            next.discover(self.desired.borrow().found());
            self.desired.send_if_modified(|desired| {
                let changed = !desired.is_same(&next);
                *desired = Arc::new(next);
                changed
            });
        }
        Ok(newest)
    }

    /// Follows a store that others write to as well. Never returns if it is one.
    pub async fn follow_store(self: &Arc<Self>) {
        let Some(mut newest) = self.store.follow() else { return };
        loop {
            if *newest.borrow_and_update() > self.desired.borrow().revision {
                let control = self.clone();
                let done = tokio::task::spawn_blocking(move || control.catch_up()).await;
                if let Ok(Err(error)) = done {
                    tracing::warn!(%error, "a newer state is not taken in yet; trying again");
                    tokio::time::sleep(FOLLOW_RETRY).await;
                    continue;
                }
            }
            if newest.changed().await.is_err() {
                return;
            }
        }
    }

    /// Counts what a router reports, whichever control plane it is connected to.
    pub fn take_report(&self, router: &str, service: &ServiceName, report: &pb::Report) {
        self.edges.record(service, report);
        self.edges.measured(router, report);
        self.rollouts.feed.report(service, report);
    }

    /// Counts what a router of this control plane reports, and tells the others.
    pub fn report(&self, router: &str, service: &ServiceName, report: pb::Report) {
        self.take_report(router, service, &report);
        let service = service.to_string();
        let message = pb::PeerReport { router: router.to_owned(), service, report: Some(report) };
        // Nobody may follow.
        let _ = self.replica.reports.send(Arc::new(message));
    }

    /// Waits for a change to reach every live router.
    pub async fn converged(&self, made: &Made, limit: Duration) -> Converged {
        converge::wait(&self.registry, made.revision, made.at, limit).await
    }

    /// Has every router renew its certificate now; tells how many were asked.
    pub fn renew_certificates(&self) -> usize {
        self.renew.send_modify(|count| *count += 1);
        self.registry.routers().iter().filter(|router| router.awaited()).count()
    }

    /// Brings in a new root: trusted by every router first, then signing, then
    /// every certificate is renewed by it. No connection fails in between.
    ///
    /// # Errors
    /// [`RotateError`].
    pub async fn rotate_root(self: &Arc<Self>) -> Result<usize, RotateError> {
        let control = self.clone();
        blocking(move || control.authority.prepare_root()).await?;
        self.root_spread().await?;
        let control = self.clone();
        blocking(move || control.authority.activate_root()).await?;
        Ok(self.renew_certificates())
    }

    /// Waits until every live router uses a snapshot that has the newest roots.
    async fn root_spread(&self) -> Result<(), RotateError> {
        let bundle = self.authority.bundle();
        let roots = replica::roots_digest(&bundle);
        let mut published = self.publisher.watch_bundle();
        let mut progress = self.registry.watch_progress();
        let deadline = Instant::now() + ROOT_SPREAD;
        loop {
            progress.mark_unchanged();
            published.mark_unchanged();
            let since = {
                let newest = published.borrow();
                (newest.bundle == bundle).then_some(newest.since)
            };
            let trusts = |router: &Router| match &router.remote {
                Some(remote) => remote.roots == roots,
                None => since.is_some_and(|since| router.acks.sequence >= since),
            };
            let behind: Vec<String> = self
                .registry
                .routers()
                .iter()
                .filter(|r| r.awaited() && !trusts(r))
                .map(|r| r.registration.id.to_string())
                .collect();
            if since.is_some() && behind.is_empty() {
                return Ok(());
            }
            tokio::select! {
                _ = progress.changed() => {}
                _ = published.changed() => {}
                () = tokio::time::sleep_until(deadline) => {
                    return Err(RotateError::NotSpread(behind.join(", ")));
                }
            }
        }
    }
}

async fn blocking(
    work: impl FnOnce() -> Result<(), CaError> + Send + 'static,
) -> Result<(), RotateError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|lost| RotateError::Task(lost.to_string()))??)
}
