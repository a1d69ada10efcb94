//! Who is there: routers register themselves and their instance by their watch
//! stream, and are known for a while after it breaks.
//!
//! | what happened | how long the instance stays |
//! | --- | --- |
//! | the router said it leaves | not at all |
//! | its stream broke | [`LOST_GRACE`] |
//! | it was told to come back later | [`RESTORED_GRACE`], until the router is back |
//! | the control plane restarted | [`RESTORED_GRACE`], until the router is back |
//! | the control plane that it was connected to is gone | the same |

mod acks;
mod peers;
mod saved;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use weir_mesh::model::{Instance, ServiceName};

pub use acks::{Acks, Refusal};
pub use peers::Remote;
pub use saved::{SAVED_FILE, load, save};

use crate::store::Revision;

/// How long the instance of a router whose stream broke is kept.
pub const LOST_GRACE: Duration = Duration::from_secs(5);
/// How long routers have to come back after a restart of the control plane.
pub const RESTORED_GRACE: Duration = Duration::from_secs(15);

/// What a router is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Beside an application.
    Sidecar,
    /// Facing the outside.
    Gateway,
}

impl Role {
    /// As the API writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sidecar => "sidecar",
            Self::Gateway => "gateway",
        }
    }
}

/// What a router says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Registration {
    /// Unique in the mesh; kept across its restarts.
    pub id: Arc<str>,
    /// What it is.
    pub role: Role,
    /// Whose identity it holds.
    pub service: ServiceName,
    /// What runs behind it, if anything does.
    pub instance: Option<Instance>,
    /// `ip:port` of its admin listener; may be empty.
    pub admin_address: Arc<str>,
    /// Unix seconds; 0: unknown.
    pub certificate_not_after: i64,
}

/// Whether a router is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It has a stream.
    Connected,
    /// Its stream broke.
    Lost,
    /// It was told to come back later, and goes on with what it has until then.
    Deferred,
    /// It was there before the control plane restarted, or before the one that it was
    /// connected to went away.
    Restored,
}

/// A router as it is now.
#[derive(Debug, Clone)]
pub struct Router {
    /// What it said.
    pub registration: Registration,
    /// Whether it is connected.
    pub presence: Presence,
    /// What it answered to snapshots.
    pub acks: Acks,
    /// Orders its streams at several control planes: the highest is the newest.
    pub opened: u64,
    /// It is connected to another control plane.
    pub remote: Option<Remote>,
}

impl Router {
    /// Whether changes wait for it: it is connected, or expected back at any moment.
    #[must_use]
    pub fn awaited(&self) -> bool {
        self.presence != Presence::Lost
    }
}

struct Slot {
    router: Router,
    /// Which stream speaks for it.
    stream: u64,
    /// Tells that stream to end.
    replaced: Arc<Notify>,
    /// When it is forgotten; none while it is connected.
    until: Option<Instant>,
}

#[derive(Default)]
struct Inner {
    slots: BTreeMap<Arc<str>, Slot>,
    next_stream: u64,
    /// Found by somebody else than routers: Kubernetes.
    discovered: Vec<Instance>,
}

impl Inner {
    /// A broken stream's instance whose place or name is taken is gone for good.
    fn make_room(&mut self, id: &str, instance: &Instance) {
        self.slots.retain(|other, slot| {
            let same = slot
                .router
                .registration
                .instance
                .as_ref()
                .is_some_and(|gone| gone.id == instance.id || gone.address == instance.address);
            **other == *id || slot.until.is_none() || !same
        });
    }
}

/// A router's right to speak: lost when another stream registers the same router.
#[derive(Clone)]
pub struct Ticket {
    /// The router.
    pub id: Arc<str>,
    stream: u64,
    replaced: Arc<Notify>,
}

impl Ticket {
    /// Completes when another stream speaks for the router.
    pub async fn replaced(&self) {
        self.replaced.notified().await;
    }
}

/// Another service's router has this id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("router id {id:?} is in use by a router of service {owner}; give this one another id")]
pub struct Taken {
    /// What was asked for.
    pub id: Arc<str>,
    /// Whose it is.
    pub owner: ServiceName,
}

/// All routers and their instances.
#[derive(Default)]
pub struct Registry {
    inner: Mutex<Inner>,
    /// Counts changes of routers and instances.
    members: watch::Sender<u64>,
    /// Counts what routers answered, and changes of members.
    progress: watch::Sender<u64>,
}

impl Registry {
    /// An empty one, but for the routers that were known before a restart.
    #[must_use]
    pub fn restore(routers: Vec<Registration>) -> Self {
        let registry = Self::default();
        let until = Some(Instant::now() + RESTORED_GRACE);
        for registration in routers {
            let id = registration.id.clone();
            let router = Router {
                registration,
                presence: Presence::Restored,
                acks: Acks::default(),
                opened: 0,
                remote: None,
            };
            let slot = Slot { router, stream: 0, replaced: Arc::default(), until };
            registry.lock().slots.insert(id, slot);
        }
        registry
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Each method makes one insertion, removal or assignment: none is half done.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn members_changed(&self) {
        self.members.send_modify(|count| *count += 1);
        self.progress.send_modify(|count| *count += 1);
    }

    /// Follows changes of routers and instances.
    #[must_use]
    pub fn watch_members(&self) -> watch::Receiver<u64> {
        self.members.subscribe()
    }

    /// Follows answers of routers, and changes of routers.
    #[must_use]
    pub fn watch_progress(&self) -> watch::Receiver<u64> {
        self.progress.subscribe()
    }

    /// [`Registry::register_at`], by a router that does not say when.
    #[cfg(test)]
    pub fn register(&self, registration: Registration) -> Result<Ticket, Taken> {
        self.register_at(registration, 0)
    }

    /// Takes a router in. An older stream of the same router is told to end. `opened`
    /// is when it opened this one, by its own clock.
    ///
    /// # Errors
    /// [`Taken`]: the id is another service's router.
    pub fn register_at(&self, registration: Registration, opened: u64) -> Result<Ticket, Taken> {
        let mut inner = self.lock();
        let id = registration.id.clone();
        if let Some(old) = inner.slots.get(&id) {
            let owner = &old.router.registration.service;
            if *owner != registration.service {
                return Err(Taken { id, owner: owner.clone() });
            }
            old.replaced.notify_waiters();
            old.replaced.notify_one();
        }
        if let Some(instance) = &registration.instance {
            inner.make_room(&id, instance);
        }
        inner.next_stream += 1;
        let stream = inner.next_stream;
        let replaced = Arc::new(Notify::new());
        let old = inner.slots.remove(&id).map(|slot| slot.router);
        // A stream that comes here is newer than all that is known, whatever clocks say.
        let opened = old.as_ref().map_or(opened, |old| opened.max(old.opened + 1));
        // Numbers of snapshots compare only within one control plane.
        let acks = old.filter(|old| old.remote.is_none()).map(|old| old.acks).unwrap_or_default();
        let presence = Presence::Connected;
        let router = Router { registration, presence, acks, opened, remote: None };
        let slot = Slot { router, stream, replaced: replaced.clone(), until: None };
        inner.slots.insert(id.clone(), slot);
        drop(inner);
        self.members_changed();
        Ok(Ticket { id, stream, replaced })
    }

    /// Changes a router that the ticket still speaks for.
    fn with<T>(&self, ticket: &Ticket, change: impl FnOnce(&mut Slot) -> T) -> Option<T> {
        let mut inner = self.lock();
        let slot = inner.slots.get_mut(&ticket.id)?;
        (slot.stream == ticket.stream && slot.until.is_none()).then(|| change(slot))
    }

    /// The router goes: its instance is out at once.
    pub fn leave(&self, ticket: &Ticket) {
        if self.with(ticket, |_| ()).is_some() {
            self.lock().slots.remove(&ticket.id);
            self.members_changed();
        }
    }

    /// The router's stream ended without a word.
    pub fn lost(&self, ticket: &Ticket) {
        self.away(ticket, Presence::Lost, LOST_GRACE);
    }

    /// The router was told to come back later.
    pub fn deferred(&self, ticket: &Ticket) {
        self.away(ticket, Presence::Deferred, RESTORED_GRACE);
    }

    fn away(&self, ticket: &Ticket, presence: Presence, grace: Duration) {
        let until = Instant::now() + grace;
        let lost = self.with(ticket, |slot| {
            slot.until = Some(until);
            slot.router.presence = presence;
        });
        if lost.is_some() {
            self.members_changed();
        }
    }

    /// The application's health, and the end of a renewed certificate (Unix seconds).
    pub fn health(&self, ticket: &Ticket, healthy: bool, not_after: Option<i64>) {
        let changed = self.with(ticket, |slot| {
            let registration = &mut slot.router.registration;
            if let Some(not_after) = not_after {
                registration.certificate_not_after = not_after;
            }
            match &mut registration.instance {
                Some(instance) if instance.healthy != healthy => {
                    instance.healthy = healthy;
                    true
                }
                _ => false,
            }
        });
        if changed == Some(true) {
            self.members_changed();
        }
    }

    /// The router uses a snapshot.
    pub fn applied(&self, ticket: &Ticket, sequence: u64, revision: Revision, micros: u32) {
        self.with(ticket, |slot| slot.router.acks.applied(sequence, revision, micros));
        self.progress.send_modify(|count| *count += 1);
    }

    /// The router does not use a snapshot.
    pub fn refused(&self, ticket: &Ticket, refusal: Refusal) {
        self.with(ticket, |slot| slot.router.acks.refused(refusal));
        self.progress.send_modify(|count| *count += 1);
    }

    /// When the next router is forgotten, if any waits for that.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Instant> {
        self.lock().slots.values().filter_map(|slot| slot.until).min()
    }

    /// Forgets routers that did not come back in time.
    pub fn expire(&self, now: Instant) {
        let mut inner = self.lock();
        let before = inner.slots.len();
        inner.slots.retain(|_, slot| slot.until.is_none_or(|until| until > now));
        let changed = inner.slots.len() != before;
        drop(inner);
        if changed {
            self.members_changed();
        }
    }

    /// Forgets routers when their time is over. Never returns.
    pub async fn keep(&self) {
        let mut members = self.watch_members();
        loop {
            match self.next_expiry() {
                Some(at) => tokio::select! {
                    () = tokio::time::sleep_until(at) => self.expire(Instant::now()),
                    _ = members.changed() => {}
                },
                None => drop(members.changed().await),
            }
        }
    }

    /// Every router, by id.
    #[must_use]
    pub fn routers(&self) -> Vec<Router> {
        self.lock().slots.values().map(|slot| slot.router.clone()).collect()
    }

    /// How many routers there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().slots.len()
    }

    /// Looks at every router, by id, without copies of them: nothing changes meanwhile.
    pub fn look<T>(&self, look: impl FnOnce(&mut dyn Iterator<Item = &Router>) -> T) -> T {
        look(&mut self.lock().slots.values().map(|slot| &slot.router))
    }

    /// Replaces the instances that routers do not register: those that an
    /// orchestrator knows of.
    #[cfg(feature = "kubernetes")]
    pub fn discover(&self, instances: Vec<Instance>) {
        let mut inner = self.lock();
        if inner.discovered == instances {
            return;
        }
        inner.discovered = instances;
        drop(inner);
        self.members_changed();
    }

    /// Every instance, healthy or not, by id. Two routers that claim one id show up
    /// as one instance.
    #[must_use]
    pub fn instances(&self) -> Vec<Instance> {
        let inner = self.lock();
        let instances =
            inner.slots.values().filter_map(|slot| slot.router.registration.instance.as_ref());
        let instances = instances.chain(&inner.discovered);
        let by_id: BTreeMap<_, _> = instances.map(|i| (i.id.clone(), i.clone())).collect();
        by_id.into_values().collect()
    }
}

#[cfg(test)]
mod tests;
