//! JSON over HTTP <-> gRPC by `google.api.http` annotations (AIP-127).
//!
//! One [`Transcoder`] is compiled for each descriptor set. For a request:
//! [`Transcoder::find`] picks the method, [`Call::encode_request`] makes its
//! message, [`Call::decode_response`] turns an answer's message into JSON, and
//! [`Transcoder::error_json`] turns a gRPC status into the JSON error that
//! clients of Google's APIs know. A server stream is answered as one JSON object
//! a line (`application/x-ndjson`), one `decode_response` for each message.
//!
//! Bytes on the gRPC side are framed by [`frame`] and [`Deframer`].

mod binding;
mod body;
mod call;
mod framing;
mod openapi;
mod query;
mod status;
mod table;
mod template;
mod text;

use std::fmt;
use std::sync::Arc;

use http::Method;
use prost_reflect::DescriptorPool;

pub use call::{Call, json_options};
pub use framing::{DEFAULT_MAX_MESSAGE, Deframer, FrameError, frame};
pub use status::{
    GrpcStatus, TranscodeError, code_name, error_json, grpc_code_from_http, http_status,
};
pub use template::TemplateError;

use binding::Binding;
use table::Table;

/// Why a descriptor set cannot be compiled.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Not a `google.protobuf.FileDescriptorSet`, or one that lacks its imports.
    #[error("the descriptor set cannot be read: {0} (it must include its imports)")]
    Descriptors(String),
    /// A path template outside the grammar of `google.api.HttpRule`.
    #[error("{method}: path template {template:?}: {source}")]
    Template {
        /// Full name of the method.
        method: String,
        /// As annotated.
        template: String,
        /// What is wrong with it.
        source: TemplateError,
    },
    /// An annotation that names a field which is not there or cannot be used so.
    #[error("{method}: {part} {field:?} {reason}")]
    Field {
        /// Full name of the method.
        method: String,
        /// `path variable`, `body` or `response_body`.
        part: &'static str,
        /// As annotated.
        field: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An HTTP method that is none (RFC 9110, section 9.1).
    #[error("{method}: {kind:?} is no HTTP method")]
    Method {
        /// Full name of the method.
        method: String,
        /// As annotated.
        kind: String,
    },
    /// Two methods answer the same requests.
    #[error("{second}: {template:?} is taken by {first}")]
    Conflict {
        /// Who has it.
        first: String,
        /// Who wants it.
        second: String,
        /// The second one's template.
        template: String,
    },
}

/// What a request's method and path lead to.
#[derive(Debug)]
pub enum Found {
    /// This gRPC method.
    Call(Call),
    /// The path is known, but not with this method: 405 with these as `Allow`.
    MethodNotAllowed(Vec<Method>),
    /// No binding has this path.
    NotFound,
}

/// The HTTP bindings of all methods of one descriptor set. Immutable; share it by
/// [`Arc`].
pub struct Transcoder {
    pool: DescriptorPool,
    bindings: Vec<Arc<Binding>>,
    table: Table,
}

impl Transcoder {
    /// Compiles a serialized `google.protobuf.FileDescriptorSet` that includes its
    /// imports. A set without annotations has no bindings, which is no error;
    /// methods that stream from the client have none either.
    ///
    /// # Errors
    /// [`BuildError`] names the method whose annotation cannot be used.
    pub fn new(descriptor_set: &[u8]) -> Result<Self, BuildError> {
        let (pool, bindings) = binding::compile(descriptor_set)?;
        let mut table = Table::default();
        for (index, binding) in bindings.iter().enumerate() {
            table.insert(&binding.template, binding.http_method.clone(), index).map_err(
                |taken| BuildError::Conflict {
                    first: bindings[taken].full_name().to_owned(),
                    second: binding.full_name().to_owned(),
                    template: binding.template.source.clone(),
                },
            )?;
        }
        Ok(Self { pool, bindings, table })
    }

    /// True when no request can be transcoded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bindings.is_empty()
    }

    /// Finds the method for a request. `path` is the request target's path as
    /// sent, percent-encoded and without the query.
    ///
    /// Literals win over `*`, and `*` over `**`. HEAD is served by GET's binding.
    #[must_use]
    pub fn find(&self, method: &Method, path: &str) -> Found {
        match self.table.find(method, path) {
            table::Match::Found(index, segments) => {
                Found::Call(Call::new(Arc::clone(&self.bindings[index]), &segments))
            }
            table::Match::MethodNotAllowed(allowed) => Found::MethodNotAllowed(allowed),
            table::Match::NotFound => Found::NotFound,
        }
    }

    /// The JSON form of a gRPC status, as Google's APIs have it:
    /// `{"code":3,"message":"...","status":"INVALID_ARGUMENT","details":[...]}`.
    ///
    /// `details` is the decoded `grpc-status-details-bin`: a serialized
    /// `google.rpc.Status`. Details of a type that neither the set nor
    /// `google.rpc` has are shown as `{"@type", "value": base64}`.
    #[must_use]
    pub fn error_json(&self, code: i32, message: &str, details: Option<&[u8]>) -> Vec<u8> {
        status::render(Some(&self.pool), code, message, details)
    }

    /// An OpenAPI 3.1 document of all bindings, with the comments of the `.proto`
    /// files as descriptions. `servers` are URLs.
    #[must_use]
    pub fn openapi(&self, title: &str, version: &str, servers: &[&str]) -> serde_json::Value {
        openapi::document(&self.pool, &self.bindings, title, version, servers)
    }
}

impl fmt::Debug for Transcoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transcoder").field("bindings", &self.bindings.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
