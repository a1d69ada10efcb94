//! Snapshots and deltas put into use, whole or not at all (invariant 2).

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use prost::Message as _;
use weir_mesh::wire;
use weir_mesh::wire::digest::{DeltaError, Digest, digest, patch, renumbered};
use weir_proto::weir::mesh::v1 as pb;
use weir_proto::weir::mesh::v1::watch_request::Message as Out;

use super::Control;
use crate::table::Builder;

/// The snapshot in use: for the disk, and for deltas.
#[derive(Debug, Clone, Default)]
pub(super) struct Kept {
    /// As it came, or as deltas made it; empty: there is none.
    bytes: Bytes,
    /// Worked out when it is asked for.
    digest: Option<Digest>,
    /// Sequence and revision, where they are later than those in `bytes`.
    numbers: Option<(u64, u32)>,
}

impl Kept {
    /// One that is in use from now on.
    pub fn new(bytes: Bytes) -> Self {
        Self { bytes, digest: None, numbers: None }
    }

    /// Serialized, with the numbers that it has now.
    pub fn serialized(&self) -> Bytes {
        match self.numbers {
            None => self.bytes.clone(),
            Some((sequence, revision)) => renumbered(&self.bytes, sequence, revision),
        }
    }
}

/// Puts a snapshot into use.
pub(super) fn snapshot(control: &Control, builder: &mut Builder, bytes: Bytes) -> Out {
    let began = Instant::now();
    match pb::Snapshot::decode(bytes.clone()) {
        Ok(message) => install(control, builder, &message, Kept::new(bytes), began),
        Err(error) => refuse(control, 0, error.to_string()),
    }
}

/// Puts into use what a delta makes of the snapshot in use.
pub(super) fn delta(control: &Control, builder: &mut Builder, bytes: Bytes) -> Out {
    let began = Instant::now();
    let delta = match pb::Delta::decode(bytes) {
        Ok(delta) => delta,
        Err(error) => return refuse(control, 0, error.to_string()),
    };
    let (sequence, revision) = (delta.sequence, delta.revision);
    let base = current_digest(control).filter(|base| delta.base_digest == base);
    let Some(base) = base else { return pass(sequence, DeltaError::Base) };
    if delta.digest == base {
        return renumber(control, sequence, revision, began);
    }
    let kept = control.applied.borrow().bytes.clone();
    let mut message = match pb::Snapshot::decode(kept) {
        Ok(message) => message,
        Err(error) => return refuse(control, sequence, error.to_string()),
    };
    match patch(&mut message, &base, delta) {
        Ok(digest) => {
            let bytes = message.encode_to_vec().into();
            let kept = Kept { digest: Some(digest), ..Kept::new(bytes) };
            install(control, builder, &message, kept, began)
        }
        Err(error) => pass(sequence, error),
    }
}

/// The digest of the snapshot in use; none: there is no snapshot.
pub(super) fn current_digest(control: &Control) -> Option<Digest> {
    let kept = control.applied.borrow().clone();
    if kept.bytes.is_empty() || kept.digest.is_some() {
        return kept.digest;
    }
    let found = digest(&mut pb::Snapshot::decode(kept.bytes).ok()?);
    control.applied.send_if_modified(|kept| {
        kept.digest = Some(found);
        // Nothing that the disk would have to know.
        false
    });
    Some(found)
}

fn install(
    control: &Control,
    builder: &mut Builder,
    message: &pb::Snapshot,
    kept: Kept,
    began: Instant,
) -> Out {
    let (sequence, revision) = (message.sequence, message.revision);
    let snapshot = match wire::snapshot(message) {
        Ok(snapshot) => snapshot,
        Err(error) => return refuse(control, sequence, error.to_string()),
    };
    let table = match builder.build(&snapshot) {
        Ok(table) => table,
        Err(error) => return refuse(control, sequence, error.to_string()),
    };
    control.shared.install(Arc::new(table));
    control.applied.send_replace(kept);
    applied(control, sequence, revision, began)
}

/// The snapshot in use is that of other numbers too: no table is made for them.
fn renumber(control: &Control, sequence: u64, revision: u32, began: Instant) -> Out {
    if let Some(table) = control.shared.table.load().as_ref() {
        table.renumber(sequence, revision);
    }
    control.applied.send_modify(|kept| kept.numbers = Some((sequence, revision)));
    applied(control, sequence, revision, began)
}

fn applied(control: &Control, sequence: u64, revision: u32, began: Instant) -> Out {
    let took = began.elapsed();
    control.shared.metrics.applied.set(i64::try_from(sequence).unwrap_or(i64::MAX));
    tracing::debug!(sequence, revision, ?took, "applied");
    let apply_micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
    Out::Applied(pb::Applied { sequence, apply_micros })
}

/// A delta that is of no use here: not wrong by itself, and a whole snapshot follows.
fn pass(sequence: u64, error: DeltaError) -> Out {
    tracing::info!(sequence, %error, "a whole snapshot is needed");
    Out::Refused(pb::Refused { sequence, reason: error.to_string() })
}

fn refuse(control: &Control, sequence: u64, reason: String) -> Out {
    tracing::error!(sequence, reason, "snapshot refused; the one in use stays");
    control.shared.metrics.refused.inc();
    Out::Refused(pb::Refused { sequence, reason })
}
