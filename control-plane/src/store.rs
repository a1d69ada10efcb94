//! The only mutable state: what is desired, and how it came to be.
//!
//! History is append-only and hash-chained: each entry holds the SHA-256 of the
//! one before it. A backend acknowledges a commit only when state and history
//! are durable, together.

#[cfg(test)]
mod conformance;
mod consul;
mod discovered;
mod embedded;
#[cfg(feature = "kubernetes")]
mod kubernetes;
mod record;
mod verify;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

use tokio::sync::watch;
use weir_mesh::model::{Instance, Listener, Options, Route, Service, ServiceName, TcpRoute};
use weir_mesh::policy::{Policy, PolicyKind};
use weir_mesh::rollout::Rollout;

pub use consul::ConsulStore;
pub use discovered::{Discovered, Found};
pub use embedded::Embedded;
#[cfg(feature = "kubernetes")]
pub use kubernetes::ClusterStore;
pub use verify::{Fault, Verified};

/// Number of a desired state; 0 before the first change. It only grows.
pub type Revision = u32;

/// A value and the revision of its last change.
#[derive(Debug, Clone, PartialEq)]
pub struct Held<T> {
    /// The value.
    pub value: Arc<T>,
    /// When it last changed.
    pub revision: Revision,
}

/// Everything that was asked for, at one revision.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Desired {
    /// Its number.
    pub revision: Revision,
    /// The newest revision that changed something: entries that only are to be
    /// remembered come after it. Snapshots have this one.
    pub newest_change: Revision,
    /// By name: what was asked for, and what was found beside it.
    pub services: BTreeMap<ServiceName, Held<Service>>,
    /// Of `services` what was asked for, as it was.
    asked: BTreeMap<ServiceName, Held<Service>>,
    /// What another catalogue has. Not part of the history.
    found: Arc<Discovered>,
    /// By name.
    pub routes: BTreeMap<Arc<str>, Held<Route>>,
    /// By kind and name.
    pub policies: BTreeMap<(PolicyKind, Arc<str>), Held<Policy>>,
    /// TCPRoutes and TLSRoutes, by name.
    pub tcp_routes: BTreeMap<Arc<str>, Held<TcpRoute>>,
    /// Rollouts, by name. Routers never see them.
    pub rollouts: BTreeMap<Arc<str>, Held<Rollout>>,
    /// Mesh-wide switches.
    pub options: Options,
    /// What gateways listen on: of the Kubernetes API alone, never of the store.
    pub listeners: Vec<Listener>,
}

impl Desired {
    /// Puts one object in or takes it out, as `revision` does.
    pub fn set(&mut self, edit: &Edit, revision: Revision) {
        match (&edit.key, &edit.after) {
            (ObjectKey::Service(name), Some(Object::Service(value))) => {
                let held = Held { value: value.clone(), revision };
                self.asked.insert(name.clone(), held);
                self.see(name);
            }
            (ObjectKey::Route(name), Some(Object::Route(value))) => {
                self.routes.insert(name.clone(), Held { value: value.clone(), revision });
            }
            (ObjectKey::Policy(kind, name), Some(Object::Policy(value))) => {
                let held = Held { value: value.clone(), revision };
                self.policies.insert((*kind, name.clone()), held);
            }
            (ObjectKey::TcpRoute(name), Some(Object::TcpRoute(value))) => {
                self.tcp_routes.insert(name.clone(), Held { value: value.clone(), revision });
            }
            (ObjectKey::Rollout(name), Some(Object::Rollout(value))) => {
                self.rollouts.insert(name.clone(), Held { value: value.clone(), revision });
            }
            (ObjectKey::Options, Some(Object::Options(value))) => self.options = (**value).clone(),
            (ObjectKey::Service(name), _) => {
                self.asked.remove(name);
                self.see(name);
            }
            (ObjectKey::Route(name), _) => drop(self.routes.remove(name)),
            (ObjectKey::Policy(kind, name), _) => {
                drop(self.policies.remove(&(*kind, name.clone())));
            }
            (ObjectKey::TcpRoute(name), _) => drop(self.tcp_routes.remove(name)),
            (ObjectKey::Rollout(name), _) => drop(self.rollouts.remove(name)),
            (ObjectKey::Options, _) => self.options = Options::default(),
        }
        self.revision = self.revision.max(revision);
        self.newest_change = self.newest_change.max(revision);
    }

    /// The state that these edits would make, as the next revision.
    #[must_use]
    pub fn after(&self, edits: &[Edit]) -> Self {
        let mut next = self.clone();
        for edit in edits {
            next.set(edit, self.revision + 1);
        }
        next
    }

    /// What was asked for under a key.
    #[must_use]
    pub fn get(&self, key: &ObjectKey) -> Option<Object> {
        match key {
            ObjectKey::Service(name) => {
                self.asked.get(name).map(|held| Object::Service(held.value.clone()))
            }
            ObjectKey::Route(name) => {
                self.routes.get(name).map(|held| Object::Route(held.value.clone()))
            }
            ObjectKey::Policy(kind, name) => {
                let held = self.policies.get(&(*kind, name.clone()));
                held.map(|held| Object::Policy(held.value.clone()))
            }
            ObjectKey::TcpRoute(name) => {
                self.tcp_routes.get(name).map(|held| Object::TcpRoute(held.value.clone()))
            }
            ObjectKey::Rollout(name) => {
                self.rollouts.get(name).map(|held| Object::Rollout(held.value.clone()))
            }
            ObjectKey::Options => Some(Object::Options(Arc::new(self.options.clone()))),
        }
    }

    /// The same after an entry that changes nothing.
    #[must_use]
    pub fn noted(&self, revision: Revision) -> Self {
        Self { revision, ..self.clone() }
    }

    /// Whether routers would be told the same of both.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        match self.revision == other.revision {
            true => self == other,
            false => {
                self.newest_change == other.newest_change && self.noted(other.revision) == *other
            }
        }
    }

    /// The rollout that owns the weights of a service, if one does.
    #[must_use]
    pub fn rollout_of(&self, service: &ServiceName) -> Option<&Held<Rollout>> {
        let mut rollouts = self.rollouts.values();
        rollouts.find(|held| held.value.spec.service == *service && held.value.owns())
    }

    /// The revision of an object's last change; none: it is not there. Of mesh-wide
    /// switches it is not kept.
    #[must_use]
    pub fn changed(&self, key: &ObjectKey) -> Option<Revision> {
        match key {
            ObjectKey::Service(name) => self.services.get(name).map(|held| held.revision),
            ObjectKey::Route(name) => self.routes.get(name).map(|held| held.revision),
            ObjectKey::Policy(kind, name) => {
                self.policies.get(&(*kind, name.clone())).map(|held| held.revision)
            }
            ObjectKey::TcpRoute(name) => self.tcp_routes.get(name).map(|held| held.revision),
            ObjectKey::Rollout(name) => self.rollouts.get(name).map(|held| held.revision),
            ObjectKey::Options => None,
        }
    }

    /// Who changes the weights of a service, when only they may: a rollout that runs
    /// (`rollout/NAME`), else what its `managedBy` says.
    #[must_use]
    pub fn manager(&self, service: &ServiceName) -> Option<String> {
        if let Some(held) = self.rollout_of(service) {
            return Some(format!("rollout/{}", held.value.name));
        }
        self.services.get(service)?.value.managed_by.as_deref().map(ToOwned::to_owned)
    }

    /// Everything that was asked for.
    #[must_use]
    pub fn objects(&self) -> BTreeMap<ObjectKey, Object> {
        let services = self.asked.keys().cloned().map(ObjectKey::Service);
        let routes = self.routes.keys().cloned().map(ObjectKey::Route);
        let policies =
            self.policies.keys().map(|(kind, name)| ObjectKey::Policy(*kind, name.clone()));
        let tcp_routes = self.tcp_routes.keys().cloned().map(ObjectKey::TcpRoute);
        let keys = services.chain(routes).chain(policies).chain(tcp_routes);
        let rollouts = self.rollouts.keys().cloned().map(ObjectKey::Rollout);
        let keys = keys.chain(rollouts).chain([ObjectKey::Options]);
        keys.filter_map(|key| self.get(&key).map(|object| (key, object))).collect()
    }

    /// The instances that have no router: services name their addresses.
    fn plain_instances(&self) -> impl Iterator<Item = Instance> {
        self.services.iter().flat_map(|(name, held)| held.value.addresses.instances(name))
    }
}

/// Names one object of the desired state: `service/products`, `route/web`,
/// `policy/RateLimitPolicy/login`, `options`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectKey {
    /// A service.
    Service(ServiceName),
    /// A route.
    Route(Arc<str>),
    /// A policy.
    Policy(PolicyKind, Arc<str>),
    /// A TCPRoute or a TLSRoute: `tcp-route/db`.
    TcpRoute(Arc<str>),
    /// A rollout: `rollout/products-v2`.
    Rollout(Arc<str>),
    /// The mesh-wide switches.
    Options,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(name) => write!(f, "service/{name}"),
            Self::Route(name) => write!(f, "route/{name}"),
            Self::Policy(kind, name) => write!(f, "policy/{kind}/{name}"),
            Self::TcpRoute(name) => write!(f, "tcp-route/{name}"),
            Self::Rollout(name) => write!(f, "rollout/{name}"),
            Self::Options => f.write_str("options"),
        }
    }
}

/// A text that names no object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no object")]
pub struct ObjectKeyError(String);

impl FromStr for ObjectKey {
    type Err = ObjectKeyError;

    fn from_str(text: &str) -> Result<Self, ObjectKeyError> {
        let error = || ObjectKeyError(text.to_owned());
        match text.split_once('/') {
            Some(("service", name)) => name.parse().map(Self::Service).map_err(|_| error()),
            Some(("route", name)) => Ok(Self::Route(name.into())),
            Some(("policy", rest)) => {
                let (kind, name) = rest.split_once('/').ok_or_else(error)?;
                let kind = kind.parse().map_err(|_| error())?;
                Ok(Self::Policy(kind, name.into()))
            }
            Some(("tcp-route", name)) => Ok(Self::TcpRoute(name.into())),
            Some(("rollout", name)) => Ok(Self::Rollout(name.into())),
            None if text == "options" => Ok(Self::Options),
            _ => Err(error()),
        }
    }
}

/// One object of the desired state.
#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    /// A service.
    Service(Arc<Service>),
    /// A route.
    Route(Arc<Route>),
    /// A policy.
    Policy(Arc<Policy>),
    /// A TCPRoute or a TLSRoute.
    TcpRoute(Arc<TcpRoute>),
    /// A rollout: its plan and how far it is.
    Rollout(Arc<Rollout>),
    /// The mesh-wide switches.
    Options(Arc<Options>),
}

/// Sets an object, or removes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Edit {
    /// Which.
    pub key: ObjectKey,
    /// None: it is removed.
    pub after: Option<Object>,
}

/// What kind of change an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Weights of one service.
    Shift,
    /// One service as it was.
    Rollback,
    /// Many objects at once.
    Apply,
    /// One route set.
    PutRoute,
    /// One route removed.
    DeleteRoute,
    /// One policy removed.
    DeletePolicy,
    /// Seen, not asked for here: somebody changed Kubernetes resources.
    Observe,
    /// A rollout was started, changed by somebody, or went on by itself.
    Rollout,
    /// Somebody may not do what was asked; nothing changed.
    Refused,
    /// Certificates were renewed, or the root; nothing that is desired changed.
    Rotate,
}

impl Action {
    const ALL: [Self; 10] = [
        Self::Shift,
        Self::Rollback,
        Self::Apply,
        Self::PutRoute,
        Self::DeleteRoute,
        Self::DeletePolicy,
        Self::Observe,
        Self::Rollout,
        Self::Refused,
        Self::Rotate,
    ];

    /// As the API writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shift => "shift",
            Self::Rollback => "rollback",
            Self::Apply => "apply",
            Self::PutRoute => "put-route",
            Self::DeleteRoute => "delete-route",
            Self::DeletePolicy => "delete-policy",
            Self::Observe => "observe",
            Self::Rollout => "rollout",
            Self::Refused => "refused",
            Self::Rotate => "rotate",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == text)
    }
}

/// A change to be made: all of its edits, or none.
#[derive(Debug, Clone)]
pub struct Commit {
    /// The revision it was worked out from; the commit fails on any other.
    pub base: Revision,
    /// Nanoseconds since the Unix epoch.
    pub nanos: u64,
    /// Who.
    pub actor: String,
    /// Why; may be empty.
    pub reason: String,
    /// What kind.
    pub action: Action,
    /// Empty for what only is to be remembered: a refusal.
    pub edits: Vec<Edit>,
    /// That the request brought.
    pub idempotency: Option<Idempotency>,
}

/// What tells that a request is the same as an earlier one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// The caller's own: 1 to 128 visible ASCII characters.
    pub key: String,
    /// SHA-256 of what was asked for, and of who asked.
    pub request: [u8; 32],
}

/// One object before and after a change.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Which.
    pub key: ObjectKey,
    /// None: it was not there.
    pub before: Option<Object>,
    /// None: it was removed.
    pub after: Option<Object>,
}

/// One entry of the history.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The desired state it made.
    pub revision: Revision,
    /// Nanoseconds since the Unix epoch.
    pub nanos: u64,
    /// Who.
    pub actor: String,
    /// Why; may be empty.
    pub reason: String,
    /// What kind.
    pub action: Action,
    /// What changed.
    pub changes: Vec<Change>,
    /// That its request brought.
    pub idempotency: Option<Idempotency>,
    /// SHA-256 of the entry before it; all zero for the first.
    pub previous: [u8; 32],
    /// Its own SHA-256.
    pub hash: [u8; 32],
}

/// Why a store cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Someone else committed in between.
    #[error("the desired state is at revision {now}, not {base}; read it again and retry")]
    Conflict {
        /// What the commit was worked out from.
        base: Revision,
        /// What is there.
        now: Revision,
    },
    /// Another process has it open.
    #[error(
        "{0} is in use by another control plane; stop that one, or give this one its own --data"
    )]
    InUse(String),
    /// Its file cannot be made or opened.
    #[error("{0}; give a directory that this user may write to by --data")]
    File(String),
    /// What was read is not what was written.
    #[error("the history is damaged at revision {revision}: {why}; restore the data directory")]
    Damaged {
        /// Where.
        revision: Revision,
        /// What is wrong with it.
        why: String,
    },
    /// Written by a newer Weir.
    #[error("the data directory has format {found}, this Weir reads {known}; use a newer Weir")]
    Format {
        /// In the file.
        found: u64,
        /// Of this program.
        known: u64,
    },
    /// Nothing has changed: another control plane leads, or none does.
    #[error("this control plane does not lead now; nothing was changed, try again")]
    NotLeading,
    /// The store did not say whether it took a change.
    #[error("the store did not say whether it has the change ({0}); look at the history")]
    Unclear(String),
    /// The work was lost with its thread.
    #[error("the store did not answer: {0}")]
    Task(String),
    /// The Kubernetes API or Consul failed.
    #[error("the store failed: {0}")]
    Cluster(String),
    /// The backend failed. Whether the last change is on disk is not known; nothing more
    /// is written until the file has been opened, and checked, again.
    #[error(
        "the store failed: {0}; no change is made until the control plane is restarted: make \
         room on its disk, or replace it, then restart. Whether the change that failed was made, \
         the history says then"
    )]
    Backend(Box<redb::Error>),
}

impl<E: Into<redb::Error>> From<E> for StoreError {
    fn from(error: E) -> Self {
        Self::Backend(Box::new(error.into()))
    }
}

/// Where desired state and history live. Every method may block on a disk or a
/// network: call them on a thread that may.
pub trait Store: Send + Sync + 'static {
    /// The newest desired state.
    ///
    /// # Errors
    /// When it cannot be read.
    fn load(&self) -> Result<Desired, StoreError>;

    /// Makes the next revision. When this returns, it is durable.
    ///
    /// # Errors
    /// [`StoreError::Conflict`], or the backend's failure; nothing has changed then.
    fn commit(&self, commit: &Commit) -> Result<Entry, StoreError>;

    /// The newest `limit` entries, newest first: all, or those that changed one object.
    ///
    /// # Errors
    /// When they cannot be read.
    fn history(&self, of: Option<&ObjectKey>, limit: usize) -> Result<Vec<Entry>, StoreError>;

    /// The newest entry that changed an object and is not newer than `revision`.
    ///
    /// # Errors
    /// When it cannot be read.
    fn last_change(&self, of: &ObjectKey, revision: Revision) -> Result<Option<Entry>, StoreError>;

    /// The newest desired state, with the newest revision that changed something.
    ///
    /// # Errors
    /// When it cannot be read.
    fn newest(&self) -> Result<Desired, StoreError> {
        Ok(Desired { newest_change: self.newest_change()?, ..self.load()? })
    }

    /// The newest revision that changed something; 0: none did. Where older entries
    /// were forgotten, it is none before the oldest that is kept.
    ///
    /// # Errors
    /// When the history cannot be read.
    fn newest_change(&self) -> Result<Revision, StoreError> {
        let mut limit = 1;
        loop {
            let entries = self.history(None, limit)?;
            let found = entries.iter().find(|entry| !entry.changes.is_empty());
            match (found, entries.last()) {
                (Some(entry), _) => return Ok(entry.revision),
                (None, None) => return Ok(0),
                (None, Some(oldest)) if entries.len() < limit => {
                    return Ok(if oldest.revision == 1 { 0 } else { oldest.revision });
                }
                _ => limit *= 16,
            }
        }
    }

    /// Takes in what other processes have made since; the newest revision then. A store
    /// of one process has nothing to take in.
    ///
    /// # Errors
    /// When it cannot be read.
    fn refresh(&self) -> Result<Revision, StoreError> {
        Ok(self.load()?.revision)
    }

    /// Follows the newest revision that is known, where other processes make some too.
    fn follow(&self) -> Option<watch::Receiver<Revision>> {
        None
    }

    /// Numbers that were never given out before and never will be again, above all
    /// that were.
    ///
    /// # Errors
    /// When they cannot be reserved durably.
    fn reserve(&self, count: u64) -> Result<Range<u64>, StoreError>;

    /// Reads all that there is and tells whether it is what was written. `kept` are
    /// SHA-256 of entries that somebody noted elsewhere: they must be in the chain.
    ///
    /// # Errors
    /// When it cannot be read at all.
    fn verify(&self, kept: &[[u8; 32]]) -> Result<Verified, StoreError> {
        verify::verify(self, kept)
    }

    /// Whether [`Store::load`] has objects; false: they are somewhere else.
    fn has_state(&self) -> bool {
        true
    }
}
