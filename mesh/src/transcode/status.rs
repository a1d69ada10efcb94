//! gRPC status <-> HTTP status, and errors as JSON.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderMap, StatusCode};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::{Value, json};
use weir_proto::google::rpc;

use super::text::{base64_decode, percent_decode};
use crate::model::Invalid;

const INVALID_ARGUMENT: i32 = 3;
const INTERNAL: i32 = 13;

/// Why a request or an answer cannot be transcoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TranscodeError {
    /// The request is wrong: INVALID_ARGUMENT, with each field.
    #[error("{0}")]
    Request(Invalid),
    /// The service answered with something else than its schema says: INTERNAL.
    #[error("the answer of {method} is not as its schema says: {reason}")]
    Response {
        /// Full name of the gRPC method.
        method: String,
        /// Why not.
        reason: String,
    },
}

impl TranscodeError {
    /// The gRPC status code.
    #[must_use]
    pub fn code(&self) -> i32 {
        match self {
            Self::Request(_) => INVALID_ARGUMENT,
            Self::Response { .. } => INTERNAL,
        }
    }

    /// As `google.rpc.Status`; a wrong request has a `google.rpc.BadRequest`.
    #[must_use]
    pub fn to_status(&self) -> rpc::Status {
        let details = match self {
            Self::Request(Invalid(violations)) => {
                let field_violations =
                    violations.iter().map(|v| rpc::bad_request::FieldViolation {
                        field: v.field.clone(),
                        description: v.description.clone(),
                        reason: String::new(),
                    });
                let detail = rpc::BadRequest { field_violations: field_violations.collect() };
                vec![prost_types::Any {
                    type_url: "type.googleapis.com/google.rpc.BadRequest".to_owned(),
                    value: detail.encode_to_vec(),
                }]
            }
            Self::Response { .. } => Vec::new(),
        };
        rpc::Status { code: self.code(), message: self.to_string(), details }
    }

    /// The JSON body of the HTTP answer, whose status is
    /// [`http_status`]`(self.code())`.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let status = self.to_status();
        error_json(status.code, &status.message, Some(&status.encode_to_vec()))
    }
}

/// A status as gRPC sends it: in trailers, or in headers when there is no message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrpcStatus {
    /// `grpc-status`; 2 (UNKNOWN) when it is not a number.
    pub code: i32,
    /// `grpc-message`, percent-decoded.
    pub message: String,
    /// `grpc-status-details-bin`, base64-decoded: a `google.rpc.Status`.
    pub details: Option<Vec<u8>>,
}

impl GrpcStatus {
    /// Reads a status, if `grpc-status` is there.
    #[must_use]
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let code = headers.get("grpc-status")?.to_str().ok().and_then(|code| code.parse().ok());
        let raw = text("grpc-message").unwrap_or_default();
        Some(Self {
            code: code.unwrap_or(2),
            message: percent_decode(raw, false, false).unwrap_or_else(|_| raw.to_owned()),
            details: text("grpc-status-details-bin").and_then(base64_decode),
        })
    }
}

/// Name of a `google.rpc.Code`; UNKNOWN for a number that is none.
#[must_use]
pub fn code_name(code: i32) -> &'static str {
    match code {
        0 => "OK",
        1 => "CANCELLED",
        3 => "INVALID_ARGUMENT",
        4 => "DEADLINE_EXCEEDED",
        5 => "NOT_FOUND",
        6 => "ALREADY_EXISTS",
        7 => "PERMISSION_DENIED",
        8 => "RESOURCE_EXHAUSTED",
        9 => "FAILED_PRECONDITION",
        10 => "ABORTED",
        11 => "OUT_OF_RANGE",
        12 => "UNIMPLEMENTED",
        13 => "INTERNAL",
        14 => "UNAVAILABLE",
        15 => "DATA_LOSS",
        16 => "UNAUTHENTICATED",
        _ => "UNKNOWN",
    }
}

/// The HTTP status for a gRPC status code, as `google/rpc/code.proto` has it.
#[must_use]
pub fn http_status(code: i32) -> StatusCode {
    match code {
        0 => StatusCode::OK,
        // No RFC has it, but proxies know it as "client closed request".
        1 => StatusCode::from_u16(499).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        3 | 9 | 11 => StatusCode::BAD_REQUEST,
        4 => StatusCode::GATEWAY_TIMEOUT,
        5 => StatusCode::NOT_FOUND,
        6 | 10 => StatusCode::CONFLICT,
        7 => StatusCode::FORBIDDEN,
        8 => StatusCode::TOO_MANY_REQUESTS,
        12 => StatusCode::NOT_IMPLEMENTED,
        14 => StatusCode::SERVICE_UNAVAILABLE,
        16 => StatusCode::UNAUTHORIZED,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The gRPC status code for an answer that is not gRPC, as gRPC's "HTTP to gRPC
/// Status Code Mapping" has it.
#[must_use]
pub fn grpc_code_from_http(status: StatusCode) -> i32 {
    match status.as_u16() {
        200 => 0,
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

/// As [`Transcoder::error_json`](super::Transcoder::error_json), where no set is at
/// hand: details of `google.rpc` are shown, others as base64.
#[must_use]
pub fn error_json(code: i32, message: &str, details: Option<&[u8]>) -> Vec<u8> {
    render(None, code, message, details)
}

pub(super) fn render(
    pool: Option<&DescriptorPool>,
    code: i32,
    message: &str,
    details: Option<&[u8]>,
) -> Vec<u8> {
    let status = details.and_then(|bytes| rpc::Status::decode(bytes).ok());
    let details: Vec<Value> =
        status.iter().flat_map(|s| &s.details).map(|d| any(pool, d)).collect();
    let mut out = json!({ "code": code, "message": message, "status": code_name(code) });
    if !details.is_empty() {
        out["details"] = Value::Array(details);
    }
    out.to_string().into_bytes()
}

/// Types that any service may send as details, whatever its own set has.
static STANDARD: LazyLock<Option<DescriptorPool>> =
    LazyLock::new(|| DescriptorPool::decode(weir_proto::descriptors::CONTROL).ok());

fn any(pool: Option<&DescriptorPool>, detail: &prost_types::Any) -> Value {
    let known = pool.into_iter().chain(STANDARD.as_ref()).find_map(|pool| known(pool, detail));
    known.unwrap_or_else(|| {
        let value = BASE64_STANDARD.encode(&detail.value);
        json!({ "@type": detail.type_url, "value": value })
    })
}

fn known(pool: &DescriptorPool, detail: &prost_types::Any) -> Option<Value> {
    let name = detail.type_url.rsplit_once('/')?.1;
    let message =
        DynamicMessage::decode(pool.get_message_by_name(name)?, detail.value.as_slice()).ok()?;
    // Unset parts say nothing in an error.
    let value = message.serialize_with_options(
        serde_json::value::Serializer,
        &super::call::json_options().skip_default_fields(true),
    );
    let fields = match value.ok()? {
        Value::Object(fields) => fields,
        // Well-known types that JSON has a form for.
        other => return Some(json!({ "@type": detail.type_url, "value": other })),
    };
    let mut out = serde_json::Map::new();
    out.insert("@type".to_owned(), detail.type_url.clone().into());
    out.extend(fields);
    Some(Value::Object(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_map_as_google_rpc_says() {
        let expected =
            [200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401];
        for (code, http) in (0..).zip(expected) {
            assert_eq!(http_status(code).as_u16(), http, "{}", code_name(code));
        }
        assert_eq!(http_status(99).as_u16(), 500);
        assert_eq!(grpc_code_from_http(StatusCode::NOT_FOUND), 12);
        assert_eq!(grpc_code_from_http(StatusCode::BAD_GATEWAY), 14);
        assert_eq!(grpc_code_from_http(StatusCode::IM_A_TEAPOT), 2);
    }

    #[test]
    fn an_error_is_shown_with_its_details() {
        let error = TranscodeError::Request(Invalid::one("weights.v1", "is text"));
        let json: Value = serde_json::from_slice(&error.to_json()).unwrap();
        assert_eq!(
            json,
            json!({
                "code": 3,
                "message": "weights.v1: is text",
                "status": "INVALID_ARGUMENT",
                "details": [{
                    "@type": "type.googleapis.com/google.rpc.BadRequest",
                    "fieldViolations": [{"field": "weights.v1", "description": "is text"}],
                }],
            })
        );
    }

    #[test]
    fn details_of_an_unknown_type_are_shown_as_bytes() {
        let any = |type_url: &str, value: &[u8]| prost_types::Any {
            type_url: type_url.into(),
            value: value.into(),
        };
        let status = rpc::Status {
            details: vec![
                any("example.com/a.B", b"\x01\x02"),
                any("no-slash", b""),
                any("type.googleapis.com/google.rpc.BadRequest", b"\xff"),
                any("type.googleapis.com/google.protobuf.Duration", b"\x08\x02"),
            ],
            ..rpc::Status::default()
        };
        let json = error_json(5, "gone", Some(&status.encode_to_vec()));
        let json: Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(json["details"][0], json!({"@type": "example.com/a.B", "value": "AQI="}));
        assert_eq!(json["details"][1]["value"], "");
        assert_eq!(json["details"][2]["value"], "/w==");
        assert_eq!(json["details"][3]["value"], "2s");
        // What is no status at all adds nothing.
        let json: Value = serde_json::from_slice(&error_json(5, "gone", Some(b"\xff"))).unwrap();
        assert_eq!(json, json!({"code": 5, "message": "gone", "status": "NOT_FOUND"}));
    }

    #[test]
    fn a_status_is_read_from_trailers() {
        let mut headers = HeaderMap::new();
        assert_eq!(GrpcStatus::from_headers(&headers), None);
        headers.insert("grpc-status", "5".parse().unwrap());
        headers.insert("grpc-message", "no%20such+thing%C3%A9".parse().unwrap());
        headers.insert("grpc-status-details-bin", "CAU".parse().unwrap());
        let status = GrpcStatus::from_headers(&headers).unwrap();
        assert_eq!((status.code, status.message.as_str()), (5, "no such+thingé"));
        assert_eq!(status.details.as_deref(), Some(&[8, 5][..]));
    }
}
