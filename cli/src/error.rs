//! What a command says when it cannot do what was asked.

use std::fmt;

use prost::Message as _;
use tonic::Code;
use weir_proto::google::rpc;

/// A failure that is told to the user as it is: one line that says what is wrong
/// and what to do, then one for each field that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    lines: Vec<String>,
}

impl Error {
    /// One line.
    pub fn new(line: impl Into<String>) -> Self {
        Self { lines: vec![line.into()] }
    }

    /// Lines that are each for themselves.
    pub fn of_lines(lines: impl IntoIterator<Item = String>) -> Self {
        Self { lines: lines.into_iter().collect() }
    }

    /// More lines, indented below the first.
    #[must_use]
    pub fn with(mut self, lines: impl IntoIterator<Item = String>) -> Self {
        self.lines.extend(lines.into_iter().map(|line| format!("  {line}")));
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines.join("\n"))
    }
}

impl std::error::Error for Error {}

impl From<crate::mesh_file::Refused> for Error {
    fn from(refused: crate::mesh_file::Refused) -> Self {
        Self { lines: refused.to_string().lines().map(str::to_owned).collect() }
    }
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Self {
        let line = match status.code() {
            Code::Unauthenticated => {
                format!(
                    "the control API does not know who calls ({}); give a token by --token or \
                     WEIR_TOKEN",
                    status.message()
                )
            }
            Code::Unavailable => format!(
                "the control API does not answer ({}); `weir status` tells when it is back",
                status.message()
            ),
            _ => status.message().to_owned(),
        };
        let line = if line.is_empty() { format!("{:?}", status.code()) } else { line };
        // Some messages are their only violation.
        let mut fields = fields(&status);
        fields.retain(|field| !line.contains(field));
        Self::new(line).with(fields)
    }
}

/// The field violations of a google.rpc.BadRequest, one line each.
fn fields(status: &tonic::Status) -> Vec<String> {
    violations(status).into_iter().map(|(field, why)| format!("{field}: {why}")).collect()
}

/// The field violations of a google.rpc.BadRequest, as (field, description).
#[must_use]
pub fn violations(status: &tonic::Status) -> Vec<(String, String)> {
    let Ok(details) = rpc::Status::decode(status.details()) else { return Vec::new() };
    details
        .details
        .iter()
        .filter(|any| any.type_url.ends_with("/google.rpc.BadRequest"))
        .filter_map(|any| rpc::BadRequest::decode(any.value.as_slice()).ok())
        .flat_map(|bad| bad.field_violations)
        .map(|violation| (violation.field, violation.description))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_field_violation_has_a_line() {
        assert_eq!(
            Error::from(refusal("refused")).to_string(),
            "refused\n  weights.v9: is no version"
        );
        let whole = "weights.v9: is no version";
        assert_eq!(Error::from(refusal(whole)).to_string(), whole);
    }

    fn refusal(message: &str) -> tonic::Status {
        let bad = rpc::BadRequest {
            field_violations: vec![rpc::bad_request::FieldViolation {
                field: "weights.v9".into(),
                description: "is no version".into(),
                ..Default::default()
            }],
        };
        let details = rpc::Status {
            code: 3,
            message: message.into(),
            details: vec![prost_types::Any {
                type_url: "type.googleapis.com/google.rpc.BadRequest".into(),
                value: bad.encode_to_vec(),
            }],
        };
        tonic::Status::with_details(Code::InvalidArgument, message, details.encode_to_vec().into())
    }
}
