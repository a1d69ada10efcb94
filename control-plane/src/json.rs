//! Messages of the API as JSON, where no request is being answered.

use std::sync::OnceLock;

use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::Value;

/// The protobuf JSON mapping of a message, as the API itself writes it. None: `name`
/// is not that of the message, which is a mistake in this program.
pub fn value<M: prost::Message>(name: &str, message: &M) -> Option<Value> {
    static POOL: OnceLock<Option<DescriptorPool>> = OnceLock::new();
    let pool = POOL.get_or_init(|| DescriptorPool::decode(weir_proto::descriptors::CONTROL).ok());
    let descriptor = pool.as_ref()?.get_message_by_name(name)?;
    let dynamic = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice()).ok()?;
    let options = weir_mesh::transcode::json_options();
    dynamic.serialize_with_options(serde_json::value::Serializer, &options).ok()
}

/// A value as text that is the same however its maps were ordered.
#[must_use]
pub fn canonical(value: &Value) -> String {
    fn write(value: &Value, out: &mut String) {
        match value {
            Value::Object(map) => {
                let mut pairs: Vec<_> = map.iter().collect();
                pairs.sort_unstable_by_key(|(key, _)| *key);
                out.push('{');
                for (key, value) in pairs {
                    out.push_str(&Value::from(key.as_str()).to_string());
                    out.push(':');
                    write(value, out);
                    out.push(',');
                }
                out.push('}');
            }
            Value::Array(items) => {
                out.push('[');
                for item in items {
                    write(item, out);
                    out.push(',');
                }
                out.push(']');
            }
            other => out.push_str(&other.to_string()),
        }
    }
    let mut out = String::new();
    write(value, &mut out);
    out
}
