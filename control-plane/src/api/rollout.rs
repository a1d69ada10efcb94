//! Rollouts: plans of shifts.

use std::sync::Arc;

use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use weir_proto::weir::control::v1 as pb;

use crate::access::Caller;
use crate::control::Control;

/// A rollout at each change.
pub type Watching = ReceiverStream<Result<pb::Rollout, Status>>;

pub(super) fn list(
    _: &Arc<Control>,
    _: &pb::ListRolloutsRequest,
) -> Result<pb::ListRolloutsResponse, Status> {
    Err(Status::unimplemented("not there yet"))
}

pub(super) fn get(_: &Arc<Control>, _: &str) -> Result<pb::Rollout, Status> {
    Err(Status::unimplemented("not there yet"))
}

pub(super) fn watch(_: &Arc<Control>, _: &str) -> Result<Watching, Status> {
    Err(Status::unimplemented("not there yet"))
}

pub(super) async fn start(
    _: &Arc<Control>,
    _: Caller,
    _: pb::StartRolloutRequest,
) -> Result<pb::Rollout, Status> {
    Err(Status::unimplemented("not there yet"))
}

pub(super) async fn pause(
    _: &Arc<Control>,
    _: Caller,
    _: pb::ChangeRolloutRequest,
) -> Result<pb::Rollout, Status> {
    Err(Status::unimplemented("not there yet"))
}

pub(super) async fn resume(
    _: &Arc<Control>,
    _: Caller,
    _: pb::ChangeRolloutRequest,
) -> Result<pb::Rollout, Status> {
    Err(Status::unimplemented("not there yet"))
}

pub(super) async fn promote(
    _: &Arc<Control>,
    _: Caller,
    _: pb::PromoteRolloutRequest,
) -> Result<pb::Rollout, Status> {
    Err(Status::unimplemented("not there yet"))
}

pub(super) async fn abort(
    _: &Arc<Control>,
    _: Caller,
    _: pb::ChangeRolloutRequest,
) -> Result<pb::Rollout, Status> {
    Err(Status::unimplemented("not there yet"))
}

pub(super) async fn delete(
    _: &Arc<Control>,
    _: Caller,
    _: pb::ChangeRolloutRequest,
) -> Result<pb::ChangeResponse, Status> {
    Err(Status::unimplemented("not there yet"))
}
