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
    let numbers = (delta.sequence, delta.revision);
    (snapshot.sequence, snapshot.revision) = numbers;
    if delta.digest == base && only_numbers(&delta) {
        return Ok(*base);
    }
    if let Some(mut rest) = delta.rest {
        rest.services = std::mem::take(&mut snapshot.services);
        rest.instances = std::mem::take(&mut snapshot.instances);
        (rest.sequence, rest.revision) = numbers;
        *snapshot = rest;
    }
    replace(&mut snapshot.instances, delta.instances, &delta.gone, |instance| &instance.id);
    replace(&mut snapshot.services, delta.services, &delta.gone_services, |service| &service.name);
    snapshot.services.sort_by(|a, b| a.name.cmp(&b.name));
    let digest = digest(snapshot);
    if delta.digest != digest { Err(DeltaError::Result) } else { Ok(digest) }
}

fn only_numbers(delta: &pb::Delta) -> bool {
    delta.rest.is_none()
        && (delta.instances.is_empty() && delta.gone.is_empty())
        && (delta.services.is_empty() && delta.gone_services.is_empty())
}

/// Takes out what is gone, and puts what is new or changed in its place.
fn replace<T>(all: &mut Vec<T>, new: Vec<T>, gone: &[String], name: fn(&T) -> &String) {
    let gone: HashSet<&str> = gone.iter().map(String::as_str).collect();
    let mut new: HashMap<String, T> = new.into_iter().map(|t| (name(&t).clone(), t)).collect();
    all.retain(|old| !gone.contains(name(old).as_str()));
    for old in all.iter_mut() {
        if let Some(new) = new.remove(name(old)) {
            *old = new;
        }
    }
    all.extend(new.into_values());
}
