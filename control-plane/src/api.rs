//! The control-plane API: what `weir.control.v1.ControlService` promises.
//!
//! Each method is here in one line; what it does is in [`change`] and [`read`].

mod attest;
mod change;
mod error;
mod export;
mod identity;
mod read;
mod replicas;
mod revisions;
mod rollout;
mod watch;

use std::sync::Arc;

use tonic::{Request, Response, Status};
use weir_proto::weir::control::v1::control_service_server::ControlService;
use weir_proto::weir::control::v1::{
    ApplyRequest, ChangeResponse, ChangeRolloutRequest, DeletePolicyRequest, DeleteRouteRequest,
    DeleteTcpRouteRequest, DesiredState, DiffRevisionsRequest, DiffRevisionsResponse,
    ExportRequest, ExportResponse, GetMeshRequest, GetRevisionRequest, GetRolloutRequest,
    GetServiceRequest, GetSnapshotRequest, GetTraceRequest, Identity as WhoIs, ListEdgesRequest,
    ListEdgesResponse, ListHistoryRequest, ListHistoryResponse, ListInstancesRequest,
    ListInstancesResponse, ListPoliciesRequest, ListPoliciesResponse, ListReplicasRequest,
    ListReplicasResponse, ListRolloutsRequest, ListRolloutsResponse, ListRoutersRequest,
    ListRoutersResponse, ListRoutesRequest, ListRoutesResponse, ListServicesRequest,
    ListServicesResponse, ListTcpRoutesRequest, ListTcpRoutesResponse, ListTracesRequest,
    ListTracesResponse, Mesh, PromoteRolloutRequest, PutRouteRequest, PutTcpRouteRequest,
    RollbackRequest, Rollout, RotateCertificatesRequest, RotateCertificatesResponse, ShiftRequest,
    StartRolloutRequest, Trace, VerifyHistoryRequest, VerifyHistoryResponse, WhoAmIRequest,
};
use weir_proto::weir::mesh::v1::{Service, Snapshot};

pub use attest::Attest;
pub(crate) use change::IDEMPOTENCY_KEY;
pub use identity::Identity;
pub(crate) use revisions::hash;
pub use watch::{Peer, Watch};

use crate::access::{self, Caller, Role};
use crate::control::Control;

/// Bytes of one request: descriptor sets are the largest part.
pub const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// The control-plane API.
pub struct Api(pub Arc<Control>);

/// Who calls, as the front door found out.
fn caller<T>(request: &Request<T>) -> Caller {
    request.extensions().get::<Caller>().cloned().unwrap_or_default()
}

fn actor<T>(request: &Request<T>) -> String {
    caller(request).actor()
}

#[tonic::async_trait]
impl ControlService for Api {
    async fn get_mesh(&self, _: Request<GetMeshRequest>) -> Result<Response<Mesh>, Status> {
        Ok(Response::new(read::mesh(&self.0)))
    }

    async fn apply(
        &self,
        request: Request<ApplyRequest>,
    ) -> Result<Response<ChangeResponse>, Status> {
        let caller = caller(&request);
        if !request.get_ref().dry_run {
            access::check_role(&self.0, &caller, Role::Operator, "Apply").await?;
        }
        let actor = caller.actor();
        change::apply(&self.0, actor, change::taken(request)).await.map(Response::new)
    }

    async fn list_services(
        &self,
        _: Request<ListServicesRequest>,
    ) -> Result<Response<ListServicesResponse>, Status> {
        Ok(Response::new(read::services(&self.0)))
    }

    async fn get_service(
        &self,
        request: Request<GetServiceRequest>,
    ) -> Result<Response<Service>, Status> {
        read::service(&self.0, &request.get_ref().service).map(Response::new)
    }

    async fn shift(
        &self,
        request: Request<ShiftRequest>,
    ) -> Result<Response<ChangeResponse>, Status> {
        let service = &request.get_ref().service;
        access::check_service(&self.0, &caller(&request), "Shift", service).await?;
        let actor = actor(&request);
        change::shift(&self.0, actor, change::taken(request)).await.map(Response::new)
    }

    async fn rollback(
        &self,
        request: Request<RollbackRequest>,
    ) -> Result<Response<ChangeResponse>, Status> {
        let service = &request.get_ref().service;
        access::check_service(&self.0, &caller(&request), "Rollback", service).await?;
        let actor = actor(&request);
        change::rollback(&self.0, actor, change::taken(request)).await.map(Response::new)
    }

    async fn list_history(
        &self,
        request: Request<ListHistoryRequest>,
    ) -> Result<Response<ListHistoryResponse>, Status> {
        read::history(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn list_routes(
        &self,
        _: Request<ListRoutesRequest>,
    ) -> Result<Response<ListRoutesResponse>, Status> {
        Ok(Response::new(read::routes(&self.0)))
    }

    async fn put_route(
        &self,
        request: Request<PutRouteRequest>,
    ) -> Result<Response<ChangeResponse>, Status> {
        let actor = actor(&request);
        change::put_route(&self.0, actor, change::taken(request)).await.map(Response::new)
    }

    async fn delete_route(
        &self,
        request: Request<DeleteRouteRequest>,
    ) -> Result<Response<ChangeResponse>, Status> {
        let actor = actor(&request);
        change::delete_route(&self.0, actor, change::taken(request)).await.map(Response::new)
    }

    async fn list_policies(
        &self,
        _: Request<ListPoliciesRequest>,
    ) -> Result<Response<ListPoliciesResponse>, Status> {
        Ok(Response::new(read::policies(&self.0)))
    }

    async fn delete_policy(
        &self,
        request: Request<DeletePolicyRequest>,
    ) -> Result<Response<ChangeResponse>, Status> {
        let actor = actor(&request);
        change::delete_policy(&self.0, actor, change::taken(request)).await.map(Response::new)
    }

    async fn get_snapshot(
        &self,
        _: Request<GetSnapshotRequest>,
    ) -> Result<Response<Snapshot>, Status> {
        read::snapshot(&self.0).map(Response::new)
    }

    async fn list_tcp_routes(
        &self,
        _: Request<ListTcpRoutesRequest>,
    ) -> Result<Response<ListTcpRoutesResponse>, Status> {
        Ok(Response::new(read::tcp_routes(&self.0)))
    }

    async fn put_tcp_route(
        &self,
        request: Request<PutTcpRouteRequest>,
    ) -> Result<Response<ChangeResponse>, Status> {
        let actor = actor(&request);
        change::put_tcp_route(&self.0, actor, change::taken(request)).await.map(Response::new)
    }

    async fn delete_tcp_route(
        &self,
        request: Request<DeleteTcpRouteRequest>,
    ) -> Result<Response<ChangeResponse>, Status> {
        let actor = actor(&request);
        change::delete_tcp_route(&self.0, actor, change::taken(request)).await.map(Response::new)
    }

    async fn list_instances(
        &self,
        request: Request<ListInstancesRequest>,
    ) -> Result<Response<ListInstancesResponse>, Status> {
        read::instances(&self.0, &request.get_ref().service).map(Response::new)
    }

    async fn list_routers(
        &self,
        _: Request<ListRoutersRequest>,
    ) -> Result<Response<ListRoutersResponse>, Status> {
        Ok(Response::new(read::routers(&self.0)))
    }

    async fn list_edges(
        &self,
        _: Request<ListEdgesRequest>,
    ) -> Result<Response<ListEdgesResponse>, Status> {
        Ok(Response::new(read::edges(&self.0)))
    }

    async fn list_traces(
        &self,
        request: Request<ListTracesRequest>,
    ) -> Result<Response<ListTracesResponse>, Status> {
        read::traces(&self.0, request.get_ref().limit).map(Response::new)
    }

    async fn get_trace(
        &self,
        request: Request<GetTraceRequest>,
    ) -> Result<Response<Trace>, Status> {
        read::trace(&self.0, &request.get_ref().trace_id).map(Response::new)
    }

    async fn rotate_certificates(
        &self,
        request: Request<RotateCertificatesRequest>,
    ) -> Result<Response<RotateCertificatesResponse>, Status> {
        let actor = actor(&request);
        change::rotate(&self.0, &actor, request.into_inner()).await.map(Response::new)
    }

    async fn get_revision(
        &self,
        request: Request<GetRevisionRequest>,
    ) -> Result<Response<DesiredState>, Status> {
        revisions::get(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn diff_revisions(
        &self,
        request: Request<DiffRevisionsRequest>,
    ) -> Result<Response<DiffRevisionsResponse>, Status> {
        revisions::diff(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn verify_history(
        &self,
        request: Request<VerifyHistoryRequest>,
    ) -> Result<Response<VerifyHistoryResponse>, Status> {
        revisions::verify(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn export(
        &self,
        request: Request<ExportRequest>,
    ) -> Result<Response<ExportResponse>, Status> {
        export::export(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn list_rollouts(
        &self,
        request: Request<ListRolloutsRequest>,
    ) -> Result<Response<ListRolloutsResponse>, Status> {
        rollout::list(&self.0, &request.into_inner()).map(Response::new)
    }

    async fn get_rollout(
        &self,
        request: Request<GetRolloutRequest>,
    ) -> Result<Response<Rollout>, Status> {
        rollout::get(&self.0, &request.get_ref().name).map(Response::new)
    }

    async fn start_rollout(
        &self,
        request: Request<StartRolloutRequest>,
    ) -> Result<Response<Rollout>, Status> {
        let caller = caller(&request);
        rollout::start(&self.0, caller, change::taken(request)).await.map(Response::new)
    }

    async fn pause_rollout(
        &self,
        request: Request<ChangeRolloutRequest>,
    ) -> Result<Response<Rollout>, Status> {
        let caller = caller(&request);
        rollout::pause(&self.0, caller, change::taken(request)).await.map(Response::new)
    }

    async fn resume_rollout(
        &self,
        request: Request<ChangeRolloutRequest>,
    ) -> Result<Response<Rollout>, Status> {
        let caller = caller(&request);
        rollout::resume(&self.0, caller, change::taken(request)).await.map(Response::new)
    }

    async fn promote_rollout(
        &self,
        request: Request<PromoteRolloutRequest>,
    ) -> Result<Response<Rollout>, Status> {
        let caller = caller(&request);
        rollout::promote(&self.0, caller, change::taken(request)).await.map(Response::new)
    }

    async fn abort_rollout(
        &self,
        request: Request<ChangeRolloutRequest>,
    ) -> Result<Response<Rollout>, Status> {
        let caller = caller(&request);
        rollout::abort(&self.0, caller, change::taken(request)).await.map(Response::new)
    }

    async fn delete_rollout(
        &self,
        request: Request<ChangeRolloutRequest>,
    ) -> Result<Response<ChangeResponse>, Status> {
        let caller = caller(&request);
        rollout::delete(&self.0, caller, change::taken(request)).await.map(Response::new)
    }

    type WatchRolloutStream = rollout::Watching;

    async fn watch_rollout(
        &self,
        request: Request<GetRolloutRequest>,
    ) -> Result<Response<Self::WatchRolloutStream>, Status> {
        rollout::watch(&self.0, &request.get_ref().name).map(Response::new)
    }

    async fn who_am_i(&self, request: Request<WhoAmIRequest>) -> Result<Response<WhoIs>, Status> {
        Ok(Response::new(caller(&request).into()))
    }

    async fn list_replicas(
        &self,
        _: Request<ListReplicasRequest>,
    ) -> Result<Response<ListReplicasResponse>, Status> {
        Ok(Response::new(replicas::list(&self.0)))
    }
}
