//! What all change requests have: a key that makes a retry safe, and the revision
//! that the caller has seen.

use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use tonic::{Request, Status};
use weir_mesh::model::Violations;
use weir_proto::weir::control::v1 as pb;

use crate::api::error;
use crate::control::{Control, Made};
use crate::guard::Guard;
use crate::json;
use crate::store::Idempotency;

/// Characters of a key.
const MAX_KEY: usize = 128;
/// The header, and gRPC metadata, that stands for the field (IETF draft
/// `Idempotency-Key`).
pub(crate) const HEADER: &str = "idempotency-key";

/// A request that changes something.
pub(in crate::api) trait Change: prost::Message + Clone {
    /// Its name as a message.
    const NAME: &'static str;

    /// Its idempotency key.
    fn key(&mut self) -> &mut String;
}

macro_rules! changes {
    ($($name:ident),+ $(,)?) => {$(
        impl Change for pb::$name {
            const NAME: &'static str = concat!("weir.control.v1.", stringify!($name));

            fn key(&mut self) -> &mut String {
                &mut self.idempotency_key
            }
        }
    )+};
}

changes! {
    ApplyRequest, ShiftRequest, RollbackRequest, PutRouteRequest, DeleteRouteRequest,
    DeletePolicyRequest, PutTcpRouteRequest, DeleteTcpRouteRequest, StartRolloutRequest,
    ChangeRolloutRequest, PromoteRolloutRequest,
}

/// The message, with the key of the header when it has none itself.
pub(in crate::api) fn taken<R: Change>(request: Request<R>) -> R {
    let header = request.metadata().get(HEADER).map(|value| {
        let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
        // The draft's values are strings of structured fields (RFC 9651 §3.3.3).
        match text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            Some(inner) => inner.to_owned(),
            None => text,
        }
    });
    let mut message = request.into_inner();
    if let Some(key) = header
        && message.key().is_empty()
    {
        *message.key() = key;
    }
    message
}

/// Takes the key out of a request. What is left, and who asks, is what a retry must
/// be the same in.
pub(in crate::api) fn guard<R: Change>(
    request: &mut R,
    actor: &str,
    bad: &mut Violations,
) -> Guard {
    let key = std::mem::take(request.key());
    if key.is_empty() {
        return Guard::default();
    }
    if key.len() > MAX_KEY || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        let why = "is not 1 to 128 visible ASCII characters; a UUID is a good key";
        bad.add("idempotencyKey", why);
        return Guard::default();
    }
    // By way of JSON: the encoding of a map has no order.
    let Some(value) = json::value(R::NAME, request) else { return Guard::default() };
    let mut digest = Context::new(&SHA256);
    for part in [R::NAME, actor, &json::canonical(&value)] {
        digest.update(&(part.len() as u64).to_be_bytes());
        digest.update(part.as_bytes());
    }
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(digest.finish().as_ref());
    Guard { idempotency: Some(Idempotency { key, request: sha256 }), expected: None }
}

/// What the first of these requests led to, if there was one. Asked before anything
/// else of a request is looked at: what it names may be gone since.
pub(in crate::api) async fn replayed(
    control: &Arc<Control>,
    guard: &Guard,
) -> Result<Option<Made>, Status> {
    control.replayed(guard).await.map_err(error::change)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shift(key: &str, weights: &[(&str, i32)]) -> pb::ShiftRequest {
        pb::ShiftRequest {
            service: "products".into(),
            weights: weights.iter().map(|(name, weight)| ((*name).into(), *weight)).collect(),
            idempotency_key: key.into(),
            ..Default::default()
        }
    }

    fn hash(mut request: pb::ShiftRequest, actor: &str) -> [u8; 32] {
        let mut bad = Violations::new();
        guard(&mut request, actor, &mut bad).idempotency.unwrap().request
    }

    #[test]
    fn a_request_is_the_same_whatever_the_order_of_its_maps() {
        let names: Vec<String> = (0..20).map(|i| format!("v{i}")).collect();
        let weights: Vec<_> = names.iter().map(|name| (name.as_str(), 5)).collect();
        let first = hash(shift("k", &weights), "ann");
        for _ in 0..20 {
            assert_eq!(hash(shift("other", &weights), "ann"), first);
        }
        assert_ne!(hash(shift("k", &weights), "bob"), first);
        assert_ne!(hash(shift("k", &weights[1..]), "ann"), first);
    }

    #[test]
    fn what_is_no_key_is_refused_by_name() {
        for key in ["a b", "\u{e9}", "tab\t", &"x".repeat(129)] {
            let mut bad = Violations::new();
            guard(&mut shift(key, &[]), "ann", &mut bad);
            let error = bad.finish(Some(())).unwrap_err();
            assert_eq!(error.0[0].field, "idempotencyKey");
        }
        let mut bad = Violations::new();
        guard(&mut shift(&"x".repeat(128), &[]), "ann", &mut bad);
        assert!(bad.finish(Some(())).is_ok());
    }
}
