//! How objects and entries are written to disk: protobuf, so that fields can be
//! added later. A service's descriptor set, which is large and seldom changes, is
//! kept once, by its SHA-256.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use prost::Message;
use weir_mesh::rollout::{Rollout, Spec, State};
use weir_mesh::wire;
use weir_proto::weir::mesh::v1 as pb;

use super::{Action, Change, Commit, Entry, Idempotency, Object, ObjectKey, Revision, StoreError};

/// A SHA-256.
pub(super) type Hash = [u8; 32];

/// SHA-256 of some bytes.
pub(super) fn sha256(bytes: &[u8]) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

/// An object of the newest desired state.
#[derive(Clone, PartialEq, Message)]
pub(super) struct StateRecord {
    #[prost(uint32, tag = "1")]
    pub revision: u32,
    #[prost(bytes = "bytes", tag = "2")]
    pub object: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct ServiceRecord {
    /// Without its descriptor set.
    #[prost(message, optional, tag = "1")]
    service: Option<pb::Service>,
    /// Empty: no descriptor set.
    #[prost(bytes = "bytes", tag = "2")]
    descriptor_sha256: Bytes,
}

/// Both are JSON, as documents and custom resources have them.
#[derive(Clone, PartialEq, Message)]
struct RolloutRecord {
    #[prost(string, tag = "1")]
    spec: String,
    #[prost(string, tag = "2")]
    state: String,
}

impl RolloutRecord {
    fn read(&self, name: &Arc<str>) -> Result<Rollout, String> {
        let json = |text: &str| serde_json::from_str(text).map_err(|error| error.to_string());
        let spec = Spec::read(&json(&self.spec)?, "spec").map_err(|error| error.to_string())?;
        let state = State::from_json(&json(&self.state)?).map_err(|error| error.to_string())?;
        Ok(Rollout { name: name.clone(), spec: Arc::new(spec), state })
    }
}

/// An entry of the history. Its own SHA-256 is over exactly these bytes.
#[derive(Clone, PartialEq, Message)]
pub(super) struct EntryRecord {
    #[prost(uint32, tag = "1")]
    pub revision: u32,
    #[prost(fixed64, tag = "2")]
    pub nanos: u64,
    #[prost(string, tag = "3")]
    pub actor: String,
    #[prost(string, tag = "4")]
    pub reason: String,
    #[prost(string, tag = "5")]
    pub action: String,
    #[prost(message, repeated, tag = "6")]
    pub changes: Vec<ChangeRecord>,
    /// SHA-256 of the entry before this one; all zero for the first.
    #[prost(bytes = "vec", tag = "7")]
    pub previous: Vec<u8>,
    #[prost(string, tag = "8")]
    pub idempotency_key: String,
    /// SHA-256 of the request that brought the key.
    #[prost(bytes = "vec", tag = "9")]
    pub request: Vec<u8>,
}

impl EntryRecord {
    /// The record of a commit.
    pub fn new(
        commit: &Commit,
        revision: Revision,
        changes: Vec<ChangeRecord>,
        previous: &Hash,
    ) -> Self {
        let idempotency = commit.idempotency.as_ref();
        Self {
            revision,
            nanos: commit.nanos,
            actor: commit.actor.clone(),
            reason: commit.reason.clone(),
            action: commit.action.as_str().to_owned(),
            changes,
            previous: previous.to_vec(),
            idempotency_key: idempotency.map(|i| i.key.clone()).unwrap_or_default(),
            request: idempotency.map(|i| i.request.to_vec()).unwrap_or_default(),
        }
    }
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ChangeRecord {
    #[prost(string, tag = "1")]
    pub object: String,
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub before: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "3")]
    pub after: Option<Bytes>,
}

/// An object's bytes, and the descriptor set that must be kept beside them.
pub(super) fn encode(object: &Object) -> (Bytes, Option<(Hash, Bytes)>) {
    match object {
        Object::Service(service) => {
            let mut message = pb::Service::from(&**service);
            let set = std::mem::take(&mut message.descriptor_set);
            let blob = (!set.is_empty()).then(|| (sha256(&set), set));
            let descriptor_sha256 =
                blob.as_ref().map(|(hash, _)| Bytes::copy_from_slice(hash)).unwrap_or_default();
            let record = ServiceRecord { service: Some(message), descriptor_sha256 };
            (record.encode_to_vec().into(), blob)
        }
        Object::Route(route) => (pb::Route::from(&**route).encode_to_vec().into(), None),
        Object::Policy(policy) => (pb::Policy::from(&**policy).encode_to_vec().into(), None),
        Object::TcpRoute(route) => (pb::TcpRoute::from(&**route).encode_to_vec().into(), None),
        Object::Rollout(rollout) => {
            let record = RolloutRecord {
                spec: rollout.spec.document().to_string(),
                state: rollout.state.to_json("").to_string(),
            };
            (record.encode_to_vec().into(), None)
        }
        Object::Options(options) => (pb::Options::from(&**options).encode_to_vec().into(), None),
    }
}

/// Finds a descriptor set by its SHA-256.
pub(super) type Blobs<'a> = &'a dyn Fn(&[u8]) -> Result<Option<Bytes>, StoreError>;

/// Reads an object back. `revision` is only for the error's text.
pub(super) fn decode(
    key: &ObjectKey,
    bytes: &[u8],
    revision: Revision,
    blobs: Blobs<'_>,
) -> Result<Object, StoreError> {
    let damaged =
        |why: String| StoreError::Damaged { revision, why: format!("{key} cannot be read: {why}") };
    Ok(match key {
        ObjectKey::Service(_) => {
            let record = ServiceRecord::decode(bytes).map_err(|e| damaged(e.to_string()))?;
            let mut message = record.service.unwrap_or_default();
            if !record.descriptor_sha256.is_empty() {
                message.descriptor_set = blobs(&record.descriptor_sha256)?
                    .ok_or_else(|| damaged("its descriptor set is missing".to_owned()))?;
            }
            let service = wire::service(&message, "").map_err(|e| damaged(e.to_string()))?;
            Object::Service(Arc::new(service))
        }
        ObjectKey::Route(_) => {
            let message = pb::Route::decode(bytes).map_err(|e| damaged(e.to_string()))?;
            let route = wire::route(&message, "").map_err(|e| damaged(e.to_string()))?;
            Object::Route(Arc::new(route))
        }
        ObjectKey::Policy(..) => {
            let message = pb::Policy::decode(bytes).map_err(|e| damaged(e.to_string()))?;
            let policy = wire::policy(&message, "").map_err(|e| damaged(e.to_string()))?;
            Object::Policy(Arc::new(policy))
        }
        ObjectKey::TcpRoute(_) => {
            let message = pb::TcpRoute::decode(bytes).map_err(|e| damaged(e.to_string()))?;
            let route = wire::tcp_route(&message, "").map_err(|e| damaged(e.to_string()))?;
            Object::TcpRoute(Arc::new(route))
        }
        ObjectKey::Rollout(name) => {
            let record = RolloutRecord::decode(bytes).map_err(|e| damaged(e.to_string()))?;
            Object::Rollout(Arc::new(record.read(name).map_err(damaged)?))
        }
        ObjectKey::Options => {
            let message = pb::Options::decode(bytes).map_err(|e| damaged(e.to_string()))?;
            let options = wire::options(&message, "").map_err(|e| damaged(e.to_string()))?;
            Object::Options(Arc::new(options))
        }
    })
}

/// Reads an entry back. The key under which it was found is its revision.
pub(super) fn entry(
    revision: Revision,
    bytes: &[u8],
    blobs: Blobs<'_>,
) -> Result<Entry, StoreError> {
    let damaged = |why: String| StoreError::Damaged { revision, why };
    let record = EntryRecord::decode(bytes).map_err(|error| damaged(error.to_string()))?;
    if record.revision != revision {
        return Err(damaged(format!("it says that it is revision {}", record.revision)));
    }
    let hash = |bytes: &[u8]| Hash::try_from(bytes).map_err(|_| damaged("a hash is cut".into()));
    let idempotency = match record.idempotency_key.as_str() {
        "" => None,
        key => Some(Idempotency { key: key.to_owned(), request: hash(&record.request)? }),
    };
    let previous = hash(&record.previous)?;
    let mut changes = Vec::with_capacity(record.changes.len());
    for change in record.changes {
        let key: ObjectKey = change.object.parse().map_err(|e| damaged(format!("{e}")))?;
        let read = |bytes: Option<Bytes>| {
            bytes.map(|bytes| decode(&key, &bytes, revision, blobs)).transpose()
        };
        let (before, after) = (read(change.before)?, read(change.after)?);
        changes.push(Change { key, before, after });
    }
    let action = Action::parse(&record.action)
        .ok_or_else(|| damaged(format!("{:?} is no action", record.action)))?;
    Ok(Entry {
        revision,
        nanos: record.nanos,
        actor: record.actor,
        reason: record.reason,
        action,
        changes,
        idempotency,
        previous,
        hash: sha256(bytes),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(bytes: &[u8]) -> Arc<weir_mesh::model::Service> {
        let key = ObjectKey::Service("web".parse().unwrap());
        match decode(&key, bytes, 1, &|_| Ok(None)).unwrap() {
            Object::Service(service) => service,
            other => panic!("{other:?}"),
        }
    }

    /// Of a Weir that knew no addresses: `web`, HTTP/1.1, v1=3 v2=0.
    const OLD: &[u8] = b"\x0a\x15\x0a\x03web\x10\x01\x1a\x06\x0a\x02v1\x10\x03\x1a\x04\x0a\x02v2";

    #[test]
    fn a_service_of_an_older_weir_is_read_and_written_as_it_was() {
        let service = round(OLD);
        assert_eq!(service.split.weight("v1").map(weir_mesh::model::Weight::get), Some(3));
        assert_eq!(service.addresses.count(), 0);
        assert_eq!(encode(&Object::Service(service)).0, OLD);
    }

    #[test]
    fn a_rollout_is_read_as_it_was_written() {
        let spec = serde_json::json!({
            "service": "web",
            "canary": "v2",
            "steps": [{ "setAudience": { "headers": { "x-beta": "1" } } }, { "pause": {} }],
        });
        let service = round(OLD);
        let spec = Arc::new(Spec::read(&spec, "spec").unwrap());
        let mut state = State::new("me", 1_700_000_000_123);
        let (stable, before) = spec.begin(&service).unwrap();
        (state.stable, state.before) = (Some(stable), Some(before));
        state.enter(1);
        let rollout = Arc::new(Rollout { name: "web-v2".into(), spec, state });
        let bytes = encode(&Object::Rollout(rollout.clone())).0;
        let key = ObjectKey::Rollout("web-v2".into());
        assert_eq!(decode(&key, &bytes, 1, &|_| Ok(None)).unwrap(), Object::Rollout(rollout));
    }

    #[test]
    fn addresses_are_kept() {
        let mut service = (*round(OLD)).clone();
        service.addresses.add(&"v2".parse().unwrap(), "10.0.0.7:80").unwrap();
        let service = Arc::new(service);
        assert_eq!(round(&encode(&Object::Service(service.clone())).0), service);
    }
}
