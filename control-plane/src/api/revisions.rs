//! The past: what was desired at a revision, what lies between two, and whether the
//! history is what was written.

use std::sync::Arc;

use tonic::Status;
use weir_proto::weir::control::v1 as pb;

use crate::control::Control;

pub(super) async fn get(
    _: &Arc<Control>,
    _: pb::GetRevisionRequest,
) -> Result<pb::DesiredState, Status> {
    Err(Status::unimplemented("not there yet"))
}

pub(super) async fn diff(
    _: &Arc<Control>,
    _: pb::DiffRevisionsRequest,
) -> Result<pb::DiffRevisionsResponse, Status> {
    Err(Status::unimplemented("not there yet"))
}

pub(super) async fn verify(
    _: &Arc<Control>,
    _: pb::VerifyHistoryRequest,
) -> Result<pb::VerifyHistoryResponse, Status> {
    Err(Status::unimplemented("not there yet"))
}
