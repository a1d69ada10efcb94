//! The control-plane API: what `weir.control.v1.ControlService` promises.
//!
//! Each method is here in one line; what it does is in [`change`] and [`read`].

mod attest;
mod change;
mod error;
mod identity;
mod read;
mod watch;

use std::sync::Arc;

use tonic::{Request, Response, Status};
use weir_proto::weir::control::v1::control_service_server::ControlService;
use weir_proto::weir::control::v1::{
    ApplyRequest, ChangeResponse, DeletePolicyRequest, DeleteRouteRequest, DeleteTcpRouteRequest,
    GetMeshRequest, GetServiceRequest, GetSnapshotRequest, GetTraceRequest, ListEdgesRequest,
    ListEdgesResponse, ListHistoryRequest, ListHistoryResponse, ListInstancesRequest,
    ListInstancesResponse, ListPoliciesRequest, ListPoliciesResponse, ListRoutersRequest,
    ListRoutersResponse, ListRoutesRequest, ListRoutesResponse, ListServicesRequest,
    ListServicesResponse, ListTcpRoutesRequest, ListTcpRoutesResponse, ListTracesRequest,
    ListTracesResponse, Mesh, PutRouteRequest, PutTcpRouteRequest, RollbackRequest,
    RotateCertificatesRequest, RotateCertificatesResponse, ShiftRequest, Trace,
};
use weir_proto::weir::mesh::v1::{Service, Snapshot};

pub use attest::Attest;
pub use identity::Identity;
pub use watch::{Peer, Watch};

use crate::control::Control;

/// Bytes of one request: descriptor sets are the largest part.
pub const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// Who calls, as the front door found out. Goes into the history.
#[derive(Debug, Clone)]
pub struct Actor(pub String);

/// The control-plane API.
pub struct Api(pub Arc<Control>);

fn actor<T>(request: &Request<T>) -> String {
    request.extensions().get::<Actor>().map_or_else(|| "unknown".to_owned(), |a| a.0.clone())
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
        let actor = actor(&request);
        change::apply(&self.0, actor, request.into_inner()).await.map(Response::new)
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
        let actor = actor(&request);
        change::shift(&self.0, actor, request.into_inner()).await.map(Response::new)
    }

    async fn rollback(
        &self,
        request: Request<RollbackRequest>,
    ) -> Result<Response<ChangeResponse>, Status> {
        let actor = actor(&request);
        change::rollback(&self.0, actor, request.into_inner()).await.map(Response::new)
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
        change::put_route(&self.0, actor, request.into_inner()).await.map(Response::new)
    }

    async fn delete_route(
        &self,
        request: Request<DeleteRouteRequest>,
    ) -> Result<Response<ChangeResponse>, Status> {
        let actor = actor(&request);
        change::delete_route(&self.0, actor, request.into_inner()).await.map(Response::new)
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
        change::delete_policy(&self.0, actor, request.into_inner()).await.map(Response::new)
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
        change::put_tcp_route(&self.0, actor, request.into_inner()).await.map(Response::new)
    }

    async fn delete_tcp_route(
        &self,
        request: Request<DeleteTcpRouteRequest>,
    ) -> Result<Response<ChangeResponse>, Status> {
        let actor = actor(&request);
        change::delete_tcp_route(&self.0, actor, request.into_inner()).await.map(Response::new)
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
}
