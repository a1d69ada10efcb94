//! Which methods change something, so that the leader has to make them.

use prost::Message;
use weir_proto::weir::control::v1 as pb;

/// The path of the control-plane API.
pub(super) const API: &str = "/weir.control.v1.ControlService/";

/// Reads the idempotency key out of a request.
type Key = fn(&[u8]) -> String;

/// A request that cannot be read has none; the leader says what is wrong with it.
fn read<M: Message + Default>(message: &[u8], key: fn(M) -> String) -> String {
    M::decode(message).map(key).unwrap_or_default()
}

/// The API's methods that change something, each with where its key is.
const WRITES: &[(&str, Key)] = &[
    ("Apply", |m| read(m, |r: pb::ApplyRequest| r.idempotency_key)),
    ("Shift", |m| read(m, |r: pb::ShiftRequest| r.idempotency_key)),
    ("Rollback", |m| read(m, |r: pb::RollbackRequest| r.idempotency_key)),
    ("PutRoute", |m| read(m, |r: pb::PutRouteRequest| r.idempotency_key)),
    ("DeleteRoute", |m| read(m, |r: pb::DeleteRouteRequest| r.idempotency_key)),
    ("DeletePolicy", |m| read(m, |r: pb::DeletePolicyRequest| r.idempotency_key)),
    ("PutTcpRoute", |m| read(m, |r: pb::PutTcpRouteRequest| r.idempotency_key)),
    ("DeleteTcpRoute", |m| read(m, |r: pb::DeleteTcpRouteRequest| r.idempotency_key)),
    ("RotateCertificates", |_| String::new()),
    ("StartRollout", |m| read(m, |r: pb::StartRolloutRequest| r.idempotency_key)),
    ("PauseRollout", |m| read(m, |r: pb::ChangeRolloutRequest| r.idempotency_key)),
    ("ResumeRollout", |m| read(m, |r: pb::ChangeRolloutRequest| r.idempotency_key)),
    ("PromoteRollout", |m| read(m, |r: pb::PromoteRolloutRequest| r.idempotency_key)),
    ("AbortRollout", |m| read(m, |r: pb::ChangeRolloutRequest| r.idempotency_key)),
    ("DeleteRollout", |m| read(m, |r: pb::ChangeRolloutRequest| r.idempotency_key)),
];

fn find(path: &str) -> Option<Key> {
    let method = path.strip_prefix(API)?;
    WRITES.iter().find(|(name, _)| *name == method).map(|(_, key)| *key)
}

/// Whether a gRPC path is a method of the control-plane API that changes something.
#[must_use]
pub fn writes(path: &str) -> bool {
    find(path).is_some()
}

/// Whether a gRPC path is a method that reads what only the leader knows all of: how
/// rollouts are doing.
#[must_use]
pub fn is_of_leader(path: &str) -> bool {
    let method = path.strip_prefix(API);
    method.is_some_and(|name| matches!(name, "GetRollout" | "ListRollouts" | "WatchRollout"))
}

/// The idempotency key of a request, without its frame; empty: none.
pub(super) fn idempotency_key(path: &str, message: &[u8]) -> String {
    find(path).map(|key| key(message)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A new method must be put on one side or the other.
    #[test]
    fn every_method_is_a_write_or_known_not_to_be() {
        const READS: &[&str] = &["Get", "List", "Diff", "Verify", "Export", "Watch", "WhoAmI"];
        let set = weir_proto::descriptors::CONTROL;
        let set = prost_types::FileDescriptorSet::decode(set).unwrap();
        let services = set.file.iter().flat_map(|file| &file.service);
        let control = services.filter(|service| service.name() == "ControlService");
        let methods: Vec<_> = control.flat_map(|s| &s.method).map(|m| m.name()).collect();
        assert!(methods.len() > WRITES.len());
        for method in &methods {
            let read = READS.iter().any(|word| method.starts_with(word));
            assert_ne!(writes(&format!("{API}{method}")), read, "{method}");
        }
        for (name, _) in WRITES {
            assert!(methods.contains(name), "{name} is no method any more");
        }
        assert!(!writes("/grpc.health.v1.Health/Check"));
    }

    #[test]
    fn the_key_is_read_out_of_the_message() {
        let message = pb::ShiftRequest { idempotency_key: "k1".into(), ..Default::default() };
        assert_eq!(idempotency_key(&format!("{API}Shift"), &message.encode_to_vec()), "k1");
        assert_eq!(idempotency_key(&format!("{API}Shift"), b"\xff"), "");
    }
}
