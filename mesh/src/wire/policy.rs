//! Policies between protobuf and the model.

use serde_json::{Value, json};
use weir_proto::weir::mesh::v1 as pb;

use crate::model::Invalid;
use crate::policy::{Policy, value};

/// Reads a policy. Whether its targets exist is for the caller to ask.
///
/// # Errors
/// All fields that are wrong.
pub fn policy(message: &pb::Policy, at: &str) -> Result<Policy, Invalid> {
    let spec = message.spec.as_ref().map_or_else(|| json!({}), value::from_struct);
    Policy::read(&message.kind, &message.name, &spec, at)
}

impl From<&Policy> for pb::Policy {
    fn from(policy: &Policy) -> Self {
        let spec: &Value = policy.document();
        Self {
            kind: policy.kind.as_str().to_owned(),
            name: policy.name.to_string(),
            spec: Some(value::to_struct(spec)),
        }
    }
}
