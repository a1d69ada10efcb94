//! Errors with details, as google.rpc.Status carries them (AIP-193).

use std::fmt::Display;
use std::time::Duration;

use prost::Message;
use tonic::{Code, Status};
use weir_proto::google::rpc;

/// Collects what is wrong with a request, so that one answer names every field.
///
/// ```
/// # use weir_mesh::server::BadRequest;
/// let mut bad = BadRequest::new();
/// let limit: Option<u8> = bad.check("pageSize", "300".parse::<u8>());
/// bad.field("filter", "is empty: leave it out or give a term");
/// let status = bad.finish().unwrap_err();
/// assert_eq!(status.code(), tonic::Code::InvalidArgument);
/// # assert!(limit.is_none());
/// ```
#[derive(Debug, Default)]
pub struct BadRequest {
    violations: Vec<rpc::bad_request::FieldViolation>,
}

impl BadRequest {
    /// Nothing is wrong yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Says what is wrong with a field; `field` is its path as JSON names it,
    /// such as `items[2].displayName`.
    pub fn field(&mut self, field: impl Into<String>, description: impl Display) -> &mut Self {
        self.violations.push(rpc::bad_request::FieldViolation {
            field: field.into(),
            description: description.to_string(),
            reason: String::new(),
        });
        self
    }

    /// Keeps a parsed value, or notes why there is none.
    pub fn check<T, E: Display>(&mut self, field: &str, parsed: Result<T, E>) -> Option<T> {
        match parsed {
            Ok(value) => Some(value),
            Err(error) => {
                self.field(field, error);
                None
            }
        }
    }

    /// Whether nothing was found wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.violations.is_empty()
    }

    /// # Errors
    /// INVALID_ARGUMENT when anything was found wrong.
    // A Status is what every tonic method returns; boxing it here saves nothing.
    #[allow(clippy::result_large_err)]
    pub fn finish(self) -> Result<(), Status> {
        if self.is_empty() { Ok(()) } else { Err(self.into()) }
    }
}

impl From<BadRequest> for Status {
    fn from(bad: BadRequest) -> Self {
        let said: Vec<String> =
            bad.violations.iter().map(|v| format!("{}: {}", v.field, v.description)).collect();
        let detail = rpc::BadRequest { field_violations: bad.violations };
        with_detail(Code::InvalidArgument, said.join("; "), "google.rpc.BadRequest", &detail)
    }
}

/// RESOURCE_EXHAUSTED with google.rpc.RetryInfo: when to try again.
#[must_use]
pub fn retry_after(message: impl Into<String>, delay: Duration) -> Status {
    let detail = rpc::RetryInfo { retry_delay: delay.try_into().ok() };
    with_detail(Code::ResourceExhausted, message.into(), "google.rpc.RetryInfo", &detail)
}

/// A status with a google.rpc.ErrorInfo: `reason` is a constant in
/// UPPER_SNAKE_CASE that programs can match, unlike the message.
#[must_use]
pub fn error_info(code: Code, message: impl Into<String>, reason: &str, domain: &str) -> Status {
    let detail = rpc::ErrorInfo {
        reason: reason.to_owned(),
        domain: domain.to_owned(),
        ..Default::default()
    };
    with_detail(code, message.into(), "google.rpc.ErrorInfo", &detail)
}

/// The details of one type that a status carries.
#[must_use]
pub fn details<M: Message + Default>(status: &Status, type_name: &str) -> Vec<M> {
    let Ok(whole) = rpc::Status::decode(status.details()) else { return Vec::new() };
    whole
        .details
        .iter()
        .filter(|any| any.type_url.rsplit('/').next() == Some(type_name))
        .filter_map(|any| M::decode(any.value.as_slice()).ok())
        .collect()
}

fn with_detail<M: Message>(code: Code, message: String, type_name: &str, detail: &M) -> Status {
    let whole = rpc::Status {
        code: code as i32,
        message: message.clone(),
        details: vec![prost_types::Any {
            type_url: format!("type.googleapis.com/{type_name}"),
            value: detail.encode_to_vec(),
        }],
    };
    Status::with_details(code, message, whole.encode_to_vec().into())
}
