//! From what a router has to the newest snapshot, in few bytes.
//!
//! What each snapshot changed of the one before is remembered by name alone. A delta
//! for a router that is some snapshots behind is what the newest says of all that
//! changed since; it is made once for each base, whoever asks for it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use prost::Message as _;
use weir_mesh::wire::digest::{self, Digest};
use weir_proto::weir::mesh::v1 as pb;

/// Snapshots back that deltas reach.
const STEPS: usize = 256;
/// Names that are remembered for them, in all.
const NAMES: usize = 100_000;

/// One role's newest snapshot, to make deltas from.
struct Parts {
    /// Sorted by name.
    services: Vec<pb::Service>,
    /// Sorted by id.
    instances: Vec<pb::Instance>,
    /// All else; its numbers are 0.
    rest: pb::Snapshot,
}

/// What one snapshot changed of the one before.
struct Step {
    /// Of the one before.
    base: Digest,
    services: Vec<String>,
    instances: Vec<String>,
    rest: bool,
}

impl Step {
    fn names(&self) -> usize {
        self.services.len() + self.instances.len()
    }
}

/// What led to the newest snapshot of a role.
#[derive(Default)]
pub(super) struct Trail {
    newest: Option<(Digest, Arc<Parts>)>,
    steps: VecDeque<Arc<Step>>,
}

impl Trail {
    /// Takes the newest in; gives its bytes, and the deltas that lead to it.
    pub fn go_on(&mut self, mut message: pb::Snapshot) -> (Bytes, Deltas) {
        let digest = digest::digest(&mut message);
        let bytes = Bytes::from(message.encode_to_vec());
        let (sequence, revision) = (message.sequence, message.revision);
        (message.sequence, message.revision) = (0, 0);
        let services = std::mem::take(&mut message.services);
        let instances = std::mem::take(&mut message.instances);
        let parts = Arc::new(Parts { services, instances, rest: message });
        if let Some((base, before)) = self.newest.replace((digest, parts.clone())) {
            self.steps.push_back(Arc::new(step(base, &before, &parts)));
        }
        let mut names: usize = self.steps.iter().map(|step| step.names()).sum();
        while self.steps.len() > STEPS || names > NAMES {
            names -= self.steps.pop_front().map_or(names, |step| step.names());
        }
        let steps = self.steps.iter().cloned().collect();
        let worth = bytes.len() / 2;
        let made = Mutex::default();
        (bytes, Deltas { digest, sequence, revision, parts, steps, worth, made })
    }
}

fn step(base: Digest, before: &Parts, after: &Parts) -> Step {
    Step {
        base,
        services: changed(&before.services, &after.services, |service| &service.name),
        instances: changed(&before.instances, &after.instances, |instance| &instance.id),
        rest: before.rest != after.rest,
    }
}

/// Names of what is new, changed or gone. Both are sorted by name.
fn changed<T: PartialEq>(before: &[T], after: &[T], name: fn(&T) -> &String) -> Vec<String> {
    let (mut before, mut after) = (before.iter().peekable(), after.iter().peekable());
    let mut names = Vec::new();
    loop {
        let order = match (before.peek(), after.peek()) {
            (Some(old), Some(new)) => name(old).cmp(name(new)),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (None, None) => return names,
        };
        let old = if order.is_le() { before.next() } else { None };
        let new = if order.is_ge() { after.next() } else { None };
        if old != new {
            names.extend(old.or(new).map(|there| name(there).clone()));
        }
    }
}

/// Deltas that lead to one snapshot.
pub struct Deltas {
    digest: Digest,
    sequence: u64,
    revision: u32,
    parts: Arc<Parts>,
    steps: Vec<Arc<Step>>,
    /// More bytes than this are not worth it.
    worth: usize,
    made: Mutex<HashMap<Digest, Option<Bytes>>>,
}

impl Deltas {
    /// Of the snapshot that they lead to.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// A serialized `weir.mesh.v1.Delta` for a router that has `base`. None: it is
    /// better sent the whole snapshot.
    #[must_use]
    pub fn from(&self, base: &Digest) -> Option<Bytes> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = made.get(base) {
            return made.clone();
        }
        let since = if *base == self.digest {
            Some(self.steps.len())
        } else {
            self.steps.iter().rposition(|step| step.base == *base)
        };
        // What routers claim to have must not fill the memory: only real bases are kept.
        let since = since?;
        let delta = self.make(base, &self.steps[since..]).encode_to_vec();
        let delta = (delta.len() <= self.worth || since == self.steps.len()).then(|| delta.into());
        made.insert(*base, delta.clone());
        delta
    }

    fn make(&self, base: &Digest, steps: &[Arc<Step>]) -> pb::Delta {
        let all = |names: fn(&Step) -> &Vec<String>| -> HashSet<&String> {
            steps.iter().flat_map(|step| names(step)).collect()
        };
        let (services, gone_services) =
            pick(all(|step| &step.services), &self.parts.services, |service| &service.name);
        let (instances, gone) =
            pick(all(|step| &step.instances), &self.parts.instances, |instance| &instance.id);
        pb::Delta {
            base_digest: base.to_vec(),
            digest: self.digest.to_vec(),
            sequence: self.sequence,
            revision: self.revision,
            instances,
            gone,
            services,
            gone_services,
            rest: steps.iter().any(|step| step.rest).then(|| self.parts.rest.clone()),
        }
    }
}

/// Those of the names that are there, and the names of the others.
fn pick<T: Clone>(
    names: HashSet<&String>,
    all: &[T],
    name: fn(&T) -> &String,
) -> (Vec<T>, Vec<String>) {
    let (mut there, mut gone) = (Vec::new(), Vec::new());
    for wanted in names {
        match all.binary_search_by(|one| name(one).cmp(wanted)) {
            Ok(at) => there.extend(all.get(at).cloned()),
            Err(_) => gone.push(wanted.clone()),
        }
    }
    (there, gone)
}

#[cfg(test)]
mod tests;
