//! The desired state as documents.

use std::sync::Arc;

use tonic::Status;
use weir_proto::weir::control::v1 as pb;

use crate::control::Control;

pub(super) async fn export(
    _: &Arc<Control>,
    _: pb::ExportRequest,
) -> Result<pb::ExportResponse, Status> {
    Err(Status::unimplemented("not there yet"))
}
