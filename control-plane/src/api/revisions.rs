//! The past: what was desired at a revision, what lies between two, and whether the
//! history is what was written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use tonic::Status;
use weir_mesh::model::{Invalid, Violations};
use weir_proto::weir::control::v1 as pb;
use weir_proto::weir::mesh::v1 as mesh;

use super::{error, read};
use crate::control::Control;
use crate::json;
use crate::store::{Change, Desired, Entry, Object, ObjectKey, Revision, StoreError};
use crate::text::hex;

/// How far back one call goes: each entry on the way is read.
const MAX_BACK: u32 = 10_000;
/// Hashes that one call may bring.
const MAX_HASHES: usize = 1000;

/// Everything that was asked for at a revision.
type State = BTreeMap<ObjectKey, Object>;

/// Why there is no state of a revision.
enum PastError {
    Invalid(Invalid),
    Store(StoreError),
}

impl From<PastError> for Status {
    fn from(error: PastError) -> Self {
        match error {
            PastError::Invalid(invalid) => error::invalid(&invalid),
            PastError::Store(store) => error::store(&store),
        }
    }
}

/// Runs what blocks on the store.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PastError> + Send + 'static,
) -> Result<T, Status> {
    let done = tokio::task::spawn_blocking(work).await;
    let lost = |lost: tokio::task::JoinError| error::store(&StoreError::Task(lost.to_string()));
    Ok(done.map_err(lost)??)
}

/// The entries after `oldest`, up to what is desired now, newest first.
fn since(
    control: &Control,
    desired: &Desired,
    (field, oldest): (&str, Revision),
) -> Result<Vec<Entry>, PastError> {
    let newest = desired.revision;
    let invalid = |why: String| PastError::Invalid(Invalid::one(field, why));
    if oldest > newest {
        return Err(invalid(format!("there is no revision {oldest} yet; the newest is {newest}")));
    }
    if newest - oldest > MAX_BACK {
        let first = newest - MAX_BACK;
        return Err(invalid(format!(
            "{oldest} is more than {MAX_BACK} revisions ago; the oldest that is told is {first}"
        )));
    }
    // Changes go on meanwhile, and what is asked for is the newest.
    let mut limit = usize::try_from(newest - oldest).unwrap_or(usize::MAX) + 64;
    let mut entries = control.store.history(None, limit).map_err(PastError::Store)?;
    while entries.len() == limit && entries.last().is_some_and(|e| e.revision > oldest + 1) {
        limit *= 2;
        entries = control.store.history(None, limit).map_err(PastError::Store)?;
    }
    entries.retain(|entry| entry.revision <= newest && entry.revision > oldest);
    let first = entries.last().map_or(newest + 1, |entry| entry.revision);
    if first > oldest + 1 {
        return Err(invalid(format!(
            "{oldest} is not kept any more; the oldest that can be told is {}",
            first - 1
        )));
    }
    Ok(entries)
}

/// Undoes these entries.
fn undo(mut state: State, entries: &[Entry]) -> State {
    for change in entries.iter().flat_map(|entry| &entry.changes) {
        let before = match (&change.key, &change.before) {
            // They are always there.
            (ObjectKey::Options, None) => Some(Object::Options(Arc::default())),
            (_, before) => before.clone(),
        };
        match before {
            Some(object) => drop(state.insert(change.key.clone(), object)),
            None => drop(state.remove(&change.key)),
        }
    }
    state
}

pub(super) async fn get(
    control: &Arc<Control>,
    request: pb::GetRevisionRequest,
) -> Result<pb::DesiredState, Status> {
    let control = control.clone();
    blocking(move || {
        let desired = control.desired.borrow().clone();
        let entries = since(&control, &desired, ("revision", request.revision))?;
        let state = undo(desired.objects(), &entries);
        Ok(proto(request.revision, state))
    })
    .await
}

fn proto(revision: Revision, state: State) -> pb::DesiredState {
    let mut answer = pb::DesiredState { revision, ..Default::default() };
    for object in state.into_values() {
        match object {
            Object::Service(service) => answer.services.push(bare((&*service).into())),
            Object::Route(route) => answer.routes.push((&*route).into()),
            Object::Policy(policy) => answer.policies.push((&*policy).into()),
            Object::TcpRoute(route) => answer.tcp_routes.push((&*route).into()),
            Object::Rollout(rollout) => answer.rollouts.push(super::rollout::stored(&rollout)),
            Object::Options(options) => answer.options = Some((&*options).into()),
        }
    }
    answer
}

/// Without its descriptor set, which is no text and large.
fn bare(service: mesh::Service) -> mesh::Service {
    mesh::Service { descriptor_set: Bytes::new(), ..service }
}

pub(super) async fn diff(
    control: &Arc<Control>,
    request: pb::DiffRevisionsRequest,
) -> Result<pb::DiffRevisionsResponse, Status> {
    let mut bad = Violations::new();
    let only = match request.object.as_str() {
        "" => Some(None),
        text => bad.take("object", text.parse::<ObjectKey>()).map(Some),
    };
    let only = bad.finish(only).map_err(|e| error::invalid(&e))?;
    let control = control.clone();
    blocking(move || {
        let desired = control.desired.borrow().clone();
        let (from, to) = (("from", request.from), ("to", request.to));
        let (older, newer) = if from.1 <= to.1 { (from, to) } else { (to, from) };
        // What is too new is told of the one that is.
        since(&control, &desired, newer)?;
        let entries = since(&control, &desired, older)?;
        let split = entries.partition_point(|entry| entry.revision > newer.1);
        let state = undo(desired.objects(), &entries[..split]);
        let past = undo(state.clone(), &entries[split..]);
        let (before, after) = if older == from { (past, state) } else { (state, past) };
        Ok(pb::DiffRevisionsResponse { changes: between(before, after, only.as_ref()) })
    })
    .await
}

fn between(mut before: State, mut after: State, only: Option<&ObjectKey>) -> Vec<pb::ObjectChange> {
    let keys: BTreeSet<_> = before.keys().chain(after.keys()).cloned().collect();
    let keys = keys.into_iter().filter(|key| only.is_none_or(|only| only == key));
    let changes = keys.filter_map(|key| {
        let (before, after) = (before.remove(&key), after.remove(&key));
        (before != after).then_some(Change { key, before, after })
    });
    let change = |change: Change| pb::ObjectChange {
        object: change.key.to_string(),
        change: read::describe(&change),
        before_json: change.before.as_ref().map(text).unwrap_or_default(),
        after_json: change.after.as_ref().map(text).unwrap_or_default(),
    };
    changes.map(change).collect()
}

/// An object as JSON.
fn text(object: &Object) -> String {
    let value = match object {
        Object::Service(service) => json::value("weir.mesh.v1.Service", &bare((&**service).into())),
        Object::Route(route) => json::value("weir.mesh.v1.Route", &mesh::Route::from(&**route)),
        Object::Policy(policy) => {
            json::value("weir.mesh.v1.Policy", &mesh::Policy::from(&**policy))
        }
        Object::TcpRoute(route) => {
            json::value("weir.mesh.v1.TcpRoute", &mesh::TcpRoute::from(&**route))
        }
        Object::Rollout(rollout) => {
            json::value("weir.control.v1.Rollout", &super::rollout::stored(rollout))
        }
        Object::Options(options) => {
            json::value("weir.mesh.v1.Options", &mesh::Options::from(&**options))
        }
    };
    value.map(|value| value.to_string()).unwrap_or_default()
}

pub(super) async fn verify(
    control: &Arc<Control>,
    request: pb::VerifyHistoryRequest,
) -> Result<pb::VerifyHistoryResponse, Status> {
    let mut bad = Violations::new();
    if request.hashes.len() > MAX_HASHES {
        bad.add("hashes", format_args!("has {}; at most {MAX_HASHES}", request.hashes.len()));
    }
    let mut kept = Vec::new();
    for (i, text) in request.hashes.iter().take(MAX_HASHES).enumerate() {
        match hash(text) {
            Some(hash) => kept.push(hash),
            None => bad.add(
                format!("hashes[{i}]"),
                "is not 64 hexadecimal digits, as `weir history -o json` shows them",
            ),
        }
    }
    bad.finish(Some(())).map_err(|e| error::invalid(&e))?;
    let control = control.clone();
    let verified = blocking(move || control.store.verify(&kept).map_err(PastError::Store)).await?;
    Ok(verified.into())
}

/// A SHA-256 in hexadecimal.
pub(crate) fn hash(text: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (i, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * i..2 * i + 2)?, 16).ok()?;
    }
    Some(hash)
}

impl From<crate::store::Verified> for pb::VerifyHistoryResponse {
    fn from(verified: crate::store::Verified) -> Self {
        let fault = |fault: crate::store::Fault| pb::HistoryFault {
            revision: fault.revision,
            description: fault.why,
        };
        Self {
            ok: verified.faults.is_empty(),
            entries: verified.entries,
            first_revision: verified.first,
            revision: verified.newest,
            hash: if verified.entries == 0 { String::new() } else { hex(&verified.hash) },
            faults: verified.faults.into_iter().map(fault).collect(),
        }
    }
}
