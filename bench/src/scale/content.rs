//! What simulated routers run. A message that many of them get is decoded, applied and
//! checked once; for the others its bytes are compared, and what came of it is shared:
//! a thousand routers on one core would else measure themselves.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use prost::Message as _;
use weir_mesh::wire::digest::{self, Digest};
use weir_proto::weir::mesh::v1 as pb;

/// Messages that are remembered.
const REMEMBERED: usize = 64;

/// What one message makes of what a router had.
#[derive(Clone)]
pub struct Content {
    pub sequence: u64,
    pub revision: u32,
    pub digest: Digest,
    snapshot: Arc<pb::Snapshot>,
}

impl Content {
    /// How many instances there are.
    pub fn instances(&self) -> usize {
        self.snapshot.instances.len()
    }
}

struct Known {
    message: Bytes,
    /// None: a whole snapshot, which needs no base.
    base: Option<Digest>,
    made: Content,
}

/// What came of messages.
#[derive(Default)]
pub struct Contents {
    known: Mutex<VecDeque<Known>>,
}

impl Contents {
    /// A whole snapshot.
    pub fn whole(&self, message: Bytes) -> Result<Content, String> {
        self.make(message, None, |message| {
            let mut snapshot = pb::Snapshot::decode(message).map_err(|e| e.to_string())?;
            let digest = digest::digest(&mut snapshot);
            Ok((snapshot, digest))
        })
    }

    /// A delta for what a router has.
    pub fn delta(&self, message: Bytes, have: &Content) -> Result<Content, String> {
        self.make(message, Some(have.digest), |message| {
            let delta = pb::Delta::decode(message).map_err(|e| e.to_string())?;
            let mut snapshot = (*have.snapshot).clone();
            let digest = digest::patch(&mut snapshot, &have.digest, delta);
            digest.map(|digest| (snapshot, digest)).map_err(|e| e.to_string())
        })
    }

    fn make(
        &self,
        message: Bytes,
        base: Option<Digest>,
        make: impl FnOnce(Bytes) -> Result<(pb::Snapshot, Digest), String>,
    ) -> Result<Content, String> {
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |known: &&Known| known.base == base && known.message == message;
        if let Some(known) = all.iter().rev().find(same) {
            return Ok(known.made.clone());
        }
        let (snapshot, digest) = make(message.clone())?;
        let (sequence, revision) = (snapshot.sequence, snapshot.revision);
        let made = Content { sequence, revision, digest, snapshot: Arc::new(snapshot) };
        if all.len() == REMEMBERED {
            all.pop_front();
        }
        all.push_back(Known { message, base, made: made.clone() });
        Ok(made)
    }
}
