//! What a router answered to the snapshots that it was sent.

use std::collections::VecDeque;

use tokio::time::Instant;

use crate::store::Revision;

/// How many revisions' times are remembered: a caller waits for one of the newest.
const REMEMBERED: usize = 64;

/// A snapshot that a router does not use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which.
    pub sequence: u64,
    /// The desired state that it was made from.
    pub revision: Revision,
    /// In the router's words.
    pub reason: String,
}

/// What a router answered.
#[derive(Debug, Clone, Default)]
pub struct Acks {
    /// The newest snapshot that it uses; 0: none.
    pub sequence: u64,
    /// The desired state that this was made from.
    pub revision: Revision,
    /// How long it took to apply it, in microseconds.
    pub apply_micros: u32,
    /// Of a snapshot newer than the one it uses.
    pub refusal: Option<Refusal>,
    reached: VecDeque<(Revision, Instant)>,
}

impl Acks {
    pub(super) fn applied(&mut self, sequence: u64, revision: Revision, micros: u32) {
        if sequence < self.sequence {
            return;
        }
        if revision > self.revision || self.reached.is_empty() {
            if self.reached.len() == REMEMBERED {
                self.reached.pop_front();
            }
            self.reached.push_back((revision, Instant::now()));
        }
        self.sequence = sequence;
        self.revision = revision;
        self.apply_micros = micros;
        if self.refusal.as_ref().is_some_and(|refusal| refusal.sequence <= sequence) {
            self.refusal = None;
        }
    }

    pub(super) fn refused(&mut self, refusal: Refusal) {
        if refusal.sequence > self.sequence {
            self.refusal = Some(refusal);
        }
    }

    /// When the router first used a desired state at least as new as `revision`.
    #[must_use]
    pub fn reached(&self, revision: Revision) -> Option<Instant> {
        self.reached.iter().find(|(reached, _)| *reached >= revision).map(|(_, at)| *at)
    }
}
