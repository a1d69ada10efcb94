//! What went wrong, as gRPC says it (AIP-193).

use prost::Message as _;
use tonic::{Code, Status};
use weir_mesh::model::Invalid;
use weir_proto::google::rpc;

use crate::control::{ChangeError, RotateError};
use crate::replica::not_leading;
use crate::store::StoreError;
use crate::traces::FindError;

/// INVALID_ARGUMENT with a `google.rpc.BadRequest` that names each field.
pub(super) fn invalid(invalid: &Invalid) -> Status {
    let message = invalid.to_string();
    let field_violations = invalid
        .0
        .iter()
        .map(|violation| rpc::bad_request::FieldViolation {
            field: violation.field.clone(),
            description: violation.description.clone(),
            reason: String::new(),
        })
        .collect();
    let detail = rpc::BadRequest { field_violations };
    let status = rpc::Status {
        code: Code::InvalidArgument as i32,
        message: message.clone(),
        details: vec![prost_types::Any {
            type_url: "type.googleapis.com/google.rpc.BadRequest".to_owned(),
            value: detail.encode_to_vec(),
        }],
    };
    Status::with_details(Code::InvalidArgument, message, status.encode_to_vec().into())
}

pub(super) fn change(error: ChangeError) -> Status {
    match error {
        ChangeError::Invalid(error) => invalid(&error),
        ChangeError::NotFound(why) => Status::not_found(why),
        ChangeError::Exists(why) => Status::already_exists(why),
        ChangeError::Aborted(why) => Status::aborted(why),
        ChangeError::Precondition(why) => Status::failed_precondition(why),
        ChangeError::Store(error) => store(&error),
    }
}

pub(super) fn store(error: &StoreError) -> Status {
    tracing::error!(%error, "the store failed");
    match error {
        StoreError::NotLeading => not_leading(),
        StoreError::Conflict { .. } => Status::aborted(error.to_string()),
        StoreError::Damaged { .. } => Status::data_loss(error.to_string()),
        _ => Status::unavailable(error.to_string()),
    }
}

pub(super) fn rotate(error: &RotateError) -> Status {
    match error {
        RotateError::NotSpread(_) => Status::failed_precondition(error.to_string()),
        RotateError::Ca(_) | RotateError::Task(_) => {
            tracing::error!(%error, "the authority failed");
            Status::internal(error.to_string())
        }
    }
}

pub(super) fn find(error: &FindError) -> Status {
    match error {
        FindError::None(_) => Status::not_found(error.to_string()),
        FindError::Shape(_) | FindError::Ambiguous { .. } => {
            invalid(&Invalid::one("traceId", error.to_string()))
        }
    }
}
