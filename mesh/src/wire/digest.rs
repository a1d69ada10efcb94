//! What two snapshots are compared by, and what makes one of another.

use std::collections::{HashMap, HashSet};

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN};
use bytes::Bytes;
use prost::Message as _;
use weir_proto::weir::mesh::v1 as pb;

/// SHA-256 (FIPS 180-4) over what a snapshot says, whatever its numbers.
pub type Digest = [u8; SHA256_OUTPUT_LEN];

/// The digest of what a snapshot says: over it serialized with `sequence` and
/// `revision` 0 and its instances sorted by id. It leaves them sorted.
///
/// Control plane and routers come to the same bytes because fields are written in
/// the order of their numbers and maps in that of their keys. One that does not know
/// a field of the other comes to another digest, and gets whole snapshots.
#[must_use]
pub fn digest(snapshot: &mut pb::Snapshot) -> Digest {
    snapshot.instances.sort_by(|a, b| a.id.cmp(&b.id));
    let numbers = (snapshot.sequence, snapshot.revision);
    (snapshot.sequence, snapshot.revision) = (0, 0);
    let bytes = snapshot.encode_to_vec();
    (snapshot.sequence, snapshot.revision) = numbers;
    let mut digest = Digest::default();
    digest.copy_from_slice(aws_lc_rs::digest::digest(&SHA256, &bytes).as_ref());
    digest
}

/// A serialized snapshot with other numbers, without reading it: of a field that
/// is there twice the last one counts (proto3's encoding, "Last One Wins").
#[must_use]
pub fn renumbered(snapshot: &Bytes, sequence: u64, revision: u32) -> Bytes {
    let numbers = pb::Snapshot { sequence, revision, ..Default::default() };
    [snapshot.as_ref(), &numbers.encode_to_vec()].concat().into()
}

/// Why a delta is not applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DeltaError {
    /// It is about another snapshot.
    #[error("the delta is about another base than the snapshot in use; send a whole snapshot")]
    Base,
    /// Applying it makes something else than it says.
    #[error("the delta makes another snapshot than its digest says; send a whole snapshot")]
    Result,
}

/// Makes the next snapshot of the one whose digest is `base`; gives its digest.
///
/// # Errors
/// [`DeltaError`]; `snapshot` is of no use then.
pub fn patch(
    snapshot: &mut pb::Snapshot,
    base: &Digest,
    delta: pb::Delta,
) -> Result<Digest, DeltaError> {
    if delta.base_digest != base {
        return Err(DeltaError::Base);
    }
    (snapshot.sequence, snapshot.revision) = (delta.sequence, delta.revision);
    if delta.instances.is_empty() && delta.gone.is_empty() && delta.digest == base {
        return Ok(*base);
    }
    let gone: HashSet<&str> = delta.gone.iter().map(String::as_str).collect();
    let mut new: HashMap<String, pb::Instance> =
        delta.instances.into_iter().map(|instance| (instance.id.clone(), instance)).collect();
    snapshot.instances.retain(|instance| !gone.contains(instance.id.as_str()));
    for instance in &mut snapshot.instances {
        if let Some(new) = new.remove(&instance.id) {
            *instance = new;
        }
    }
    snapshot.instances.extend(new.into_values());
    let digest = digest(snapshot);
    if delta.digest != digest { Err(DeltaError::Result) } else { Ok(digest) }
}
