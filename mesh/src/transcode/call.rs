//! One request on its way to a gRPC method, and the answer on its way back.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use prost_reflect::{DynamicMessage, SerializeOptions};

use super::binding::{Binding, Body};
use super::status::TranscodeError;
use super::{body, query, text};
use crate::model::Violations;

/// A method that was found for a request, with what its path said.
#[derive(Clone)]
pub struct Call {
    binding: Arc<Binding>,
    /// For each variable, as sent.
    captures: Vec<String>,
}

impl Call {
    pub(super) fn new(binding: Arc<Binding>, segments: &[&str]) -> Self {
        let capture = |start: usize, end: Option<usize>| {
            let end = end.unwrap_or(segments.len()).min(segments.len());
            segments.get(start..end).unwrap_or_default().join("/")
        };
        let captures = binding.template.variables.iter().map(|v| capture(v.start, v.end)).collect();
        Self { binding, captures }
    }

    /// `/package.Service/Method`, the `:path` of the gRPC request.
    #[must_use]
    pub fn grpc_path(&self) -> &str {
        &self.binding.grpc_path
    }

    /// `package.Service`: OpenTelemetry's `rpc.service`.
    #[must_use]
    pub fn service(&self) -> &str {
        let path = self.grpc_path().trim_start_matches('/');
        path.rsplit_once('/').map_or(path, |(service, _)| service)
    }

    /// `Method`: OpenTelemetry's `rpc.method`.
    #[must_use]
    pub fn method(&self) -> &str {
        self.binding.method.name()
    }

    /// The path template, such as `/v1/services/{service}/shift`: OpenTelemetry's
    /// `http.route`.
    #[must_use]
    pub fn template(&self) -> &str {
        &self.binding.template.source
    }

    /// Whether the answer is a stream of messages: one JSON object a line.
    #[must_use]
    pub fn server_streaming(&self) -> bool {
        self.binding.method.is_server_streaming()
    }

    /// Whether the request takes a body. One that does not is refused with a body.
    #[must_use]
    pub fn takes_body(&self) -> bool {
        !matches!(self.binding.body, Body::None)
    }

    /// Makes the request message from path, query (without `?`) and JSON body.
    ///
    /// JSON names and original names are both understood. An empty body is an
    /// empty message.
    ///
    /// # Errors
    /// [`TranscodeError::Request`] with every field that is unknown, wrong, given
    /// twice or given differently in path and body. Of the JSON body, the first.
    pub fn encode_request(
        &self,
        query: Option<&str>,
        json: &[u8],
    ) -> Result<Bytes, TranscodeError> {
        let mut bad = Violations::new();
        let mut message = match body::read(&self.binding, json) {
            Ok(message) => message,
            Err(invalid) => {
                bad.extend(invalid);
                DynamicMessage::new(self.binding.input.clone())
            }
        };
        self.set_variables(&mut message, &mut bad);
        query::read(&self.binding, query.unwrap_or_default(), &mut message, &mut bad);
        bad.finish(Some(())).map_err(TranscodeError::Request)?;
        Ok(message.encode_to_vec().into())
    }

    fn set_variables(&self, message: &mut DynamicMessage, bad: &mut Violations) {
        for ((variable, target), raw) in self.binding.bound().zip(&self.captures) {
            let name = target.json_name();
            let Some(leaf) = target.0.last() else { continue };
            let value = text::percent_decode(raw, false, variable.is_multi())
                .map_err(str::to_owned)
                .and_then(|text| text::parse(&leaf.kind(), &text));
            let Some(value) = bad.take(&name, value) else { continue };
            if target.get(message).is_some_and(|given| given != value) {
                bad.add(
                    name,
                    "is one thing in the path and another in the body; leave it out of the body",
                );
            } else {
                bad.take(&name, target.set(message, value));
            }
        }
    }

    /// Makes JSON from one message of the answer, as protobuf's JSON mapping has
    /// it: camelCase names, 64-bit integers as strings, enums by name, fields
    /// without presence even when they are at their default.
    ///
    /// # Errors
    /// [`TranscodeError::Response`] when the bytes are not such a message.
    pub fn decode_response(&self, message: &[u8]) -> Result<Vec<u8>, TranscodeError> {
        let wrong = |error: &dyn fmt::Display| TranscodeError::Response {
            method: self.binding.full_name().to_owned(),
            reason: error.to_string(),
        };
        let message = DynamicMessage::decode(self.binding.output.clone(), message)
            .map_err(|error| wrong(&error))?;
        let Some(field) = &self.binding.response_body else {
            let mut out = Vec::with_capacity(256);
            message
                .serialize_with_options(&mut serde_json::Serializer::new(&mut out), &json_options())
                .map_err(|error| wrong(&error))?;
            return Ok(out);
        };
        let mut whole = message
            .serialize_with_options(serde_json::value::Serializer, &json_options())
            .map_err(|error| wrong(&error))?;
        let part = whole.get_mut(field.json_name()).map(serde_json::Value::take);
        Ok(part.unwrap_or_default().to_string().into_bytes())
    }
}

/// How messages are written, here and wherever else one is shown as the API
/// would show it.
#[must_use]
pub fn json_options() -> SerializeOptions {
    SerializeOptions::new().skip_default_fields(false)
}

/// Without what the path says, as that may be personal.
impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("grpc_path", &self.grpc_path())
            .field("template", &self.template())
            .finish_non_exhaustive()
    }
}
