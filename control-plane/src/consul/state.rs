//! What is known of Consul and of its services now.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;
use weir_mesh::model::ServiceName;

use super::answer::Seen;
use super::client::ConsulError;
use super::damp::{Answer, Graces, Known};
use crate::store::{Discovered, Found};

/// What goes wrong, by what it is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// The list of services.
    Catalogue,
    /// One service.
    Service(ServiceName),
    /// Registering this mesh's instances.
    Registration,
}

/// How things stand with Consul.
#[derive(Debug, Clone)]
pub struct Status {
    /// Its URL.
    pub address: String,
    /// Why it is not in touch; none: it is.
    pub trouble: Option<String>,
    /// Since when it is or is not.
    pub since: Instant,
    /// Services that are taken from it.
    pub services: usize,
    /// Their instances.
    pub instances: usize,
    /// Instances that it does not list, and that are kept for a while.
    pub kept: usize,
    /// What cannot be taken from it, and why.
    pub skipped: Vec<String>,
    /// Instances of this mesh that are registered there.
    pub registered: usize,
    /// Questions that failed, since the start.
    pub errors: u64,
    /// How often an index went back, since the start.
    pub resets: u64,
}

struct Service {
    known: Known,
    answered: bool,
    skipped: Vec<String>,
}

struct Inner {
    services: BTreeMap<ServiceName, Service>,
    /// Of the last list.
    listed: BTreeSet<ServiceName>,
    answered: bool,
    skipped: Vec<String>,
    troubles: BTreeMap<Subject, String>,
    since: Instant,
    registered: usize,
    errors: u64,
    resets: u64,
}

/// Shared by all that ask Consul.
pub struct State {
    graces: Graces,
    inner: Mutex<Inner>,
    /// Counts changes of what is known.
    pub changed: watch::Sender<u64>,
    /// The services to follow.
    pub wanted: watch::Sender<BTreeSet<ServiceName>>,
}

/// What is known at one moment.
pub struct Picture {
    /// To put into the mesh.
    pub discovered: Discovered,
    /// When time alone changes something.
    pub next: Option<Instant>,
    /// Everything has been asked for once, or cannot be.
    pub settled: bool,
}

impl State {
    /// With what was known before a restart.
    #[must_use]
    pub fn new(graces: Graces, saved: BTreeMap<ServiceName, Vec<Seen>>) -> Self {
        let wanted = saved.keys().cloned().collect();
        let service = |seen| {
            let known = Known::new(graces, seen);
            Service { known, answered: false, skipped: Vec::new() }
        };
        let services = saved.into_iter().map(|(name, seen)| (name, service(seen))).collect();
        let inner = Inner {
            services,
            listed: BTreeSet::new(),
            answered: false,
            skipped: Vec::new(),
            troubles: BTreeMap::new(),
            since: Instant::now(),
            registered: 0,
            errors: 0,
            resets: 0,
        };
        Self {
            graces,
            inner: Mutex::new(inner),
            changed: watch::Sender::new(0),
            wanted: watch::Sender::new(wanted),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Each method leaves it whole at every step.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn touch(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// Which services Consul lists that are to be taken in.
    pub fn listed(&self, names: BTreeSet<ServiceName>, skipped: Vec<String>) {
        let mut inner = self.lock();
        inner.answered = true;
        inner.note_skipped(&skipped);
        inner.skipped = skipped;
        for name in &names {
            inner.services.entry(name.clone()).or_insert_with(|| Service {
                known: Known::new(self.graces, Vec::new()),
                answered: false,
                skipped: Vec::new(),
            });
        }
        inner.listed = names;
        let all: BTreeSet<_> = inner.services.keys().cloned().collect();
        self.wanted.send_if_modified(|wanted| {
            let changed = *wanted != all;
            *wanted = all;
            changed
        });
        drop(inner);
        self.touch();
    }

    /// What Consul says of one service. False: it is gone, and need not be followed.
    pub fn answered(&self, name: &ServiceName, answer: Answer, skipped: Vec<String>) -> bool {
        let mut inner = self.lock();
        let listed = inner.listed.contains(name);
        inner.note_skipped(&skipped);
        let Some(service) = inner.services.get_mut(name) else { return false };
        service.answered = true;
        service.skipped = skipped;
        service.known.take(answer, Instant::now());
        let stays = listed || !service.known.is_empty();
        if !stays {
            inner.services.remove(name);
            self.wanted.send_if_modified(|wanted| wanted.remove(name));
            tracing::info!(service = %name, "Consul has it no more");
        }
        drop(inner);
        self.touch();
        stays
    }

    /// Whether an answer that was held back must be asked for again.
    #[must_use]
    pub fn lacks(&self, name: &ServiceName, seen: &[Seen]) -> bool {
        self.lock().services.get(name).is_some_and(|service| service.known.lacks(seen))
    }

    /// While a service is said to have nothing: how soon to ask again.
    #[must_use]
    pub fn doubt(&self, name: &ServiceName) -> Option<std::time::Duration> {
        self.lock().services.get(name)?.known.doubt()
    }

    /// How many services are followed.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().services.len()
    }

    /// An index went back.
    pub fn reset(&self) {
        self.lock().resets += 1;
    }

    /// How many instances are registered.
    pub fn registered(&self, count: usize) {
        self.lock().registered = count;
    }

    /// A question or a write failed.
    pub fn failed(&self, about: Subject, error: &ConsulError) {
        self.trouble(about, error.to_string());
        self.touch();
    }

    /// Something is wrong, though answers come.
    pub fn trouble(&self, about: Subject, why: String) {
        let mut inner = self.lock();
        inner.errors += 1;
        if inner.troubles.is_empty() {
            inner.since = Instant::now();
            tracing::warn!(error = why, "Consul is not in touch; what is known of it stays");
        }
        inner.troubles.insert(about, why);
    }

    /// It went well.
    pub fn worked(&self, about: &Subject) {
        let mut inner = self.lock();
        let had = inner.troubles.remove(about).is_some();
        if had && inner.troubles.is_empty() {
            inner.since = Instant::now();
            tracing::info!("Consul is in touch again");
        }
    }

    /// What is known now.
    #[must_use]
    pub fn picture(&self, now: Instant) -> Picture {
        let mut inner = self.lock();
        let mut discovered = Discovered::default();
        for (name, service) in &mut inner.services {
            service.known.pass(now);
            if service.known.is_empty() {
                continue;
            }
            let found = Found {
                protocol: service.known.protocol(),
                instances: service.known.instances(),
                missed: BTreeSet::new(),
            };
            discovered.services.insert(name.clone(), found);
        }
        let next = inner.services.values().filter_map(|service| service.known.next()).min();
        let all = inner.answered && inner.services.values().all(|service| service.answered);
        Picture { discovered, next, settled: all || !inner.troubles.is_empty() }
    }

    /// How things stand.
    #[must_use]
    pub fn status(&self, address: &str) -> Status {
        let inner = self.lock();
        let services = inner.services.values().filter(|service| !service.known.is_empty());
        let skipped = inner.services.values().flat_map(|service| &service.skipped);
        Status {
            address: address.to_owned(),
            trouble: inner.troubles.values().next().cloned(),
            since: inner.since,
            services: services.clone().count(),
            instances: services.clone().map(|service| service.known.instances().len()).sum(),
            kept: services.map(|service| service.known.kept()).sum(),
            skipped: inner.skipped.iter().chain(skipped).take(100).cloned().collect(),
            registered: inner.registered,
            errors: inner.errors,
            resets: inner.resets,
        }
    }
}

impl Inner {
    /// Says once what cannot be taken in.
    fn note_skipped(&self, skipped: &[String]) {
        let mut old = self.skipped.iter().chain(self.services.values().flat_map(|s| &s.skipped));
        for why in skipped {
            if !old.any(|known| known == why) {
                tracing::warn!(why, "an entry of Consul's cannot be taken in");
            }
        }
    }
}
