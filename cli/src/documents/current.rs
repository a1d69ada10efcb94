//! What a mesh has now, as documents.

use weir_mesh::model::{ServiceName, VersionName};
use weir_mesh::policy::value;
use weir_mesh::rollout::read_rollout;
use weir_mesh::wire;
use weir_proto::weir::control::v1::{
    ListPoliciesRequest, ListRolloutsRequest, ListRoutesRequest, ListServicesRequest,
    ListTcpRoutesRequest,
};
use weir_proto::weir::mesh::v1::Service;

use super::Object;
use crate::Error;
use crate::client::Client;

/// Services, routes and policies of a mesh.
pub struct Current {
    /// Without their descriptor sets.
    pub services: Vec<Service>,
    /// Routes of requests, then of connections, then policies, then rollouts; each in the
    /// API's order.
    pub objects: Vec<Object>,
}

impl Current {
    /// Asks a mesh.
    ///
    /// # Errors
    /// The API's; or it answers with what this program does not know.
    pub async fn fetch(client: &mut Client) -> Result<Self, Error> {
        let services = services(client).await?;
        let routes = client.list_routes(ListRoutesRequest {}).await?.into_inner().routes;
        let policies = client.list_policies(ListPoliciesRequest {}).await?.into_inner().policies;
        let tcp = client.list_tcp_routes(ListTcpRoutesRequest {}).await?.into_inner().routes;
        let mut objects = Vec::with_capacity(routes.len() + tcp.len() + policies.len());
        for route in &routes {
            let read =
                wire::route(route, "").map_err(|invalid| newer("route", &route.name, &invalid));
            objects.push(Object::Route(read?));
        }
        for route in &tcp {
            let read =
                wire::tcp_route(route, "").map_err(|invalid| newer("route", &route.name, &invalid));
            objects.push(Object::TcpRoute(read?));
        }
        for policy in &policies {
            let read = wire::policy(policy, "")
                .map_err(|invalid| newer(&policy.kind, &policy.name, &invalid));
            objects.push(Object::Policy(read?));
        }
        let request = ListRolloutsRequest::default();
        for rollout in client.list_rollouts(request).await?.into_inner().rollouts {
            let spec = rollout.spec.as_ref().map(value::from_struct).unwrap_or_default();
            let read = read_rollout(&rollout.name, &spec, "")
                .map_err(|invalid| newer("rollout", &rollout.name, &invalid));
            let (name, spec) = read?;
            objects.push(Object::Rollout { name, spec: spec.into() });
        }
        Ok(Self { services, objects })
    }

    /// What documents may name.
    pub fn names(&self) -> impl Iterator<Item = (ServiceName, Vec<VersionName>)> + '_ {
        names(&self.services)
    }
}

/// The services of a mesh, without their descriptor sets.
///
/// # Errors
/// The API's.
pub async fn services(client: &mut Client) -> Result<Vec<Service>, Error> {
    let answer = client.list_services(ListServicesRequest {}).await?.into_inner();
    Ok(answer.services.into_iter().filter_map(|status| status.service).collect())
}

/// What documents may name.
pub fn names(services: &[Service]) -> impl Iterator<Item = (ServiceName, Vec<VersionName>)> + '_ {
    services.iter().filter_map(|service| {
        let versions = service.versions.iter().filter_map(|version| version.version.parse().ok());
        Some((service.name.parse().ok()?, versions.collect()))
    })
}

fn newer(kind: &str, name: &str, why: &weir_mesh::model::Invalid) -> Error {
    Error::new(format!(
        "the control plane's {kind} {name:?} says what this program does not know; use the \
         program of the control plane's version ({why})"
    ))
}
