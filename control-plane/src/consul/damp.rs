//! What is believed of Consul's answers about one service. Pure: times come in.
//!
//! | Consul says | what happens |
//! | --- | --- |
//! | an instance's check is critical | it is unhealthy at once |
//! | it passes again | healthy at once; later each time, when it fell often in a minute |
//! | an instance is not listed, others are | it is kept for the leave grace |
//! | none is listed | all are kept for the empty grace, and until three answers said so |
//! | none is listed, and the index did not grow | the same, for ten times as long |
//! | some may have been hidden by ACLs | nothing goes |
//!
//! Consul holds a question back until it has news. What goes by such an answer is
//! asked for again, by a question that is answered at once, before it is believed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use weir_mesh::model::{Instance, Protocol};

use super::answer::Seen;

/// Answers that must say that nothing is left.
const CONFIRMATIONS: u32 = 3;
/// How much longer a service is kept when Consul seems to have lost its memory.
const LOST_MEMORY: u32 = 10;
/// How long a fall counts.
const FALLS_COUNT: Duration = Duration::from_secs(60);
/// How long an instance must pass before it is healthy again, by its falls.
const HOLDS: [Duration; 4] =
    [Duration::ZERO, Duration::ZERO, Duration::from_secs(5), Duration::from_secs(10)];
/// After more falls than that.
const LONGEST_HOLD: Duration = Duration::from_secs(30);

/// How long what Consul does not list is kept.
#[derive(Debug, Clone, Copy)]
pub struct Graces {
    /// One instance of several.
    pub leave: Duration,
    /// All of a service.
    pub empty: Duration,
}

/// One answer about one service.
#[derive(Debug)]
pub struct Answer {
    /// `X-Consul-Index`; none of an answer that was held back: Consul's two backends
    /// count differently.
    pub index: Option<u64>,
    /// Whether ACLs hid something.
    pub filtered: bool,
    /// What was listed.
    pub seen: Vec<Seen>,
}

#[derive(Debug)]
struct Slot {
    seen: Seen,
    /// Not listed since.
    gone: Option<Instant>,
    /// When it became unhealthy, of late.
    falls: Vec<Instant>,
    /// Unhealthy still, until then.
    held: Option<Instant>,
}

#[derive(Debug)]
struct Empty {
    since: Instant,
    grace: Duration,
    answers: u32,
    index: u64,
}

/// What is known of one service.
#[derive(Debug)]
pub struct Known {
    graces: Graces,
    slots: BTreeMap<Arc<str>, Slot>,
    /// Of the last answer that listed something and was not held back.
    index: u64,
    empty: Option<Empty>,
}

impl Known {
    /// Nothing, or what was known before a restart.
    #[must_use]
    pub fn new(graces: Graces, seen: Vec<Seen>) -> Self {
        let slot = |seen: Seen| {
            let id = seen.instance.id.clone();
            (id, Slot { seen, gone: None, falls: Vec::new(), held: None })
        };
        let slots = seen.into_iter().map(slot).collect();
        Self { graces, slots, index: 0, empty: None }
    }

    /// Takes an answer in.
    pub fn take(&mut self, answer: Answer, now: Instant) {
        if answer.seen.is_empty() {
            self.nothing_listed(&answer, now);
            return;
        }
        self.empty = None;
        self.index = answer.index.unwrap_or(self.index);
        let mut missing: BTreeMap<_, _> = self.slots.iter_mut().collect();
        let mut new = Vec::new();
        for seen in answer.seen {
            match missing.remove(&seen.instance.id) {
                Some(slot) => slot.update(seen, now),
                None => new.push(seen),
            }
        }
        if !answer.filtered {
            for slot in missing.into_values() {
                slot.gone.get_or_insert(now);
            }
        }
        for seen in new {
            // A new process at a place is not the one that was there.
            self.slots.retain(|_, slot| {
                slot.gone.is_none() || slot.seen.instance.address != seen.instance.address
            });
            let id = seen.instance.id.clone();
            self.slots.insert(id, Slot { seen, gone: None, falls: Vec::new(), held: None });
        }
        self.pass(now);
    }

    fn nothing_listed(&mut self, answer: &Answer, now: Instant) {
        let Some(index) = answer.index else { return };
        if answer.filtered || self.slots.is_empty() {
            return;
        }
        let start = |grace| Empty { since: now, grace, answers: 1, index };
        match &mut self.empty {
            Some(empty) if index >= empty.index => {
                empty.answers = empty.answers.saturating_add(1);
                empty.index = index;
                if empty.answers >= CONFIRMATIONS && now >= empty.since + empty.grace {
                    self.slots.clear();
                    self.empty = None;
                    self.index = index;
                }
            }
            None if index > self.index => self.empty = Some(start(self.graces.empty)),
            _ => self.empty = Some(start(self.graces.empty * LOST_MEMORY)),
        }
    }

    /// Lets time pass.
    pub fn pass(&mut self, now: Instant) {
        let leave = self.graces.leave;
        if self.empty.is_none() {
            self.slots.retain(|_, slot| slot.gone.is_none_or(|since| since + leave > now));
        }
        for slot in self.slots.values_mut() {
            if slot.held.is_some_and(|until| until <= now) {
                slot.held = None;
            }
        }
    }

    /// When [`Known::pass`] changes something next.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        let slots = self.slots.values();
        let gone = slots.clone().filter_map(|slot| Some(slot.gone? + self.graces.leave));
        let gone = gone.filter(|_| self.empty.is_none());
        gone.chain(slots.filter_map(|slot| slot.held)).min()
    }

    /// Whether some that are believed to be there are not among these. An answer
    /// that was held back does not tell what ACLs hide: then it is asked again.
    #[must_use]
    pub fn lacks(&self, seen: &[Seen]) -> bool {
        let listed = |id: &Arc<str>| seen.iter().any(|seen| seen.instance.id == *id);
        self.slots.iter().any(|(id, slot)| slot.gone.is_none() && !listed(id))
    }

    /// While nothing is listed: how soon to ask again.
    #[must_use]
    pub fn doubt(&self) -> Option<Duration> {
        let empty = self.empty.as_ref()?;
        Some((empty.grace / 4).clamp(Duration::from_millis(200), Duration::from_secs(10)))
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// How many are kept that Consul does not list.
    #[must_use]
    pub fn kept(&self) -> usize {
        match self.empty {
            Some(_) => self.slots.len(),
            None => self.slots.values().filter(|slot| slot.gone.is_some()).count(),
        }
    }

    /// All that are believed to be there, by id.
    #[must_use]
    pub fn instances(&self) -> Vec<Instance> {
        let one = |slot: &Slot| {
            let instance = slot.seen.instance.clone();
            Instance { healthy: instance.healthy && slot.held.is_none(), ..instance }
        };
        self.slots.values().map(one).collect()
    }

    /// What most instances say that they speak; HTTP/1.1 when none says.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        let told: Vec<_> = self.slots.values().filter_map(|slot| slot.seen.protocol).collect();
        let count = |protocol| told.iter().filter(|told| **told == protocol).count();
        // The last of the most: on a tie the simpler protocol.
        let all = [Protocol::Tcp, Protocol::Grpc, Protocol::Http2, Protocol::Http1];
        all.into_iter().max_by_key(|protocol| count(*protocol)).unwrap_or(Protocol::Http1)
    }
}

impl Slot {
    fn update(&mut self, seen: Seen, now: Instant) {
        let (was, is) = (self.seen.instance.healthy, seen.instance.healthy);
        self.falls.retain(|fall| *fall + FALLS_COUNT > now);
        if was && !is {
            self.falls.push(now);
            self.held = None;
        } else if !was && is {
            let hold = HOLDS.get(self.falls.len()).copied().unwrap_or(LONGEST_HOLD);
            self.held = (!hold.is_zero()).then(|| now + hold);
        }
        self.gone = None;
        self.seen = seen;
    }
}

#[cfg(test)]
mod tests;
