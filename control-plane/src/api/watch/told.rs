//! What one router was sent, what it said to that, and what it is to be sent next.

use std::collections::VecDeque;

use bytes::Bytes;
use weir_mesh::wire::digest::Digest;
use weir_proto::weir::mesh::v1 as pb;

use crate::publish::Published;
use crate::store::Revision;

/// Messages whose answer may still come.
const UNANSWERED: usize = 64;

struct Sent {
    sequence: u64,
    revision: Revision,
    whole: bool,
}

/// The side of the conversation that is ours.
pub struct Told {
    /// Whether it takes deltas.
    deltas: bool,
    /// What it has when it has applied all that it was sent; none: nobody knows.
    has: Option<Digest>,
    /// An answer names only the sequence. Oldest first.
    sent: VecDeque<Sent>,
    /// The newest sequence that was sent.
    last: u64,
    /// It refused a delta: it gets the newest whole, though that is not new.
    again: bool,
}

/// What an answer is about.
#[derive(Debug, PartialEq, Eq)]
pub enum About {
    /// A snapshot of this revision.
    Snapshot(Revision),
    /// A delta that was refused: the whole snapshot goes out, and what the router says
    /// to that is what counts.
    Delta,
    /// Nothing that was sent, or something too long ago.
    Nothing,
}

impl Told {
    /// To a router that said this.
    pub fn new(hello: &pb::Hello) -> Self {
        let has: Option<Digest> = hello.digest.as_slice().try_into().ok();
        Self {
            deltas: hello.deltas || has.is_some(),
            has,
            sent: VecDeque::with_capacity(UNANSWERED),
            last: 0,
            again: false,
        }
    }

    /// Whether it understands what is younger than whole snapshots.
    pub fn is_new(&self) -> bool {
        self.deltas
    }

    /// A router that runs the newest snapshot already need not get it again. True: it
    /// does.
    pub fn resume(&mut self, sequence: u64, newest: &Published) -> bool {
        let same = sequence != 0
            && sequence == newest.sequence
            && self.has.is_none_or(|has| has == newest.deltas.digest());
        if same {
            self.last = sequence;
            self.has = self.deltas.then(|| newest.deltas.digest());
        }
        same
    }

    /// Whether there is something to send.
    pub fn is_behind(&self, newest: &Published) -> bool {
        newest.sequence > self.last || self.again
    }

    /// A delta that makes the newest of what it has; none: it needs all of it.
    pub fn delta(&self, newest: &Published) -> Option<Bytes> {
        let has = self.has.as_ref().filter(|_| self.deltas && !self.again)?;
        newest.deltas.from(has)
    }

    /// Takes down that the newest is sent.
    pub fn sent(&mut self, newest: &Published, whole: bool) {
        if self.sent.len() == UNANSWERED {
            self.sent.pop_front();
        }
        let (sequence, revision) = (newest.sequence, newest.revision);
        self.sent.push_back(Sent { sequence, revision, whole });
        self.last = sequence;
        self.has = Some(newest.deltas.digest());
        if whole {
            self.again = false;
        }
    }

    /// It applied the snapshot of this number.
    pub fn applied(&mut self, sequence: u64) -> About {
        self.answered(sequence).map_or(About::Nothing, |sent| About::Snapshot(sent.revision))
    }

    /// It refused it.
    pub fn refused(&mut self, sequence: u64) -> About {
        // A delta that was no delta to the router has no number.
        let answered = match sequence {
            0 => self.sent.pop_front(),
            _ => self.answered(sequence),
        };
        let Some(sent) = answered else { return About::Nothing };
        if sent.whole {
            // It goes on with what it had, which is not known here.
            self.has = None;
            return About::Snapshot(sent.revision);
        }
        // Deltas that are on their way build on this one; a whole snapshot does not.
        if !self.sent.iter().any(|later| later.whole) {
            self.has = None;
            self.again = true;
        }
        About::Delta
    }

    /// Answers come in order, and one may stand for those before it.
    fn answered(&mut self, sequence: u64) -> Option<Sent> {
        let at = self.sent.iter().position(|sent| sent.sequence == sequence)?;
        self.sent.drain(..=at).next_back()
    }
}
