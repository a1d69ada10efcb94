//! The desired state as documents.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use tonic::Status;
use weir_mesh::gateway_api;
use weir_mesh::mesh_document;
use weir_mesh::model::{Invalid, Route, ServiceName, TcpParent, TcpRoute};
use weir_mesh::policy::{self, Target, value};
use weir_mesh::rollout;
use weir_proto::weir::control::v1 as pb;

use super::error;
use crate::control::Control;
use crate::store::{Desired, Edit, Object, ObjectKey};

pub(super) async fn export(
    control: &Arc<Control>,
    request: pb::ExportRequest,
) -> Result<pb::ExportResponse, Status> {
    let desired = control.desired.borrow().clone();
    let only = match request.service.as_str() {
        "" => None,
        name => {
            let parsed: Result<ServiceName, _> = name.parse();
            let name =
                parsed.map_err(|e| error::invalid(&Invalid::one("service", e.to_string())))?;
            if !desired.services.contains_key(&name) {
                return Err(Status::not_found(format!("no service {name}")));
            }
            Some(name)
        }
    };
    let control = control.clone();
    let revision = desired.revision;
    // On Kubernetes it may ask the cluster's API.
    let made = tokio::task::spawn_blocking(move || control.export(&desired, only.as_ref())).await;
    let made = made.map_err(|lost| Status::internal(lost.to_string()))?;
    let documents = made.map_err(error::change)?;
    let documents = documents.iter().map(value::to_struct).collect();
    Ok(pb::ExportResponse { revision, documents })
}

impl Control {
    /// What is desired, as documents: a Mesh first, then all that is attached.
    ///
    /// # Errors
    /// Only where the cluster's API must be asked.
    pub fn export(
        &self,
        desired: &Desired,
        only: Option<&ServiceName>,
    ) -> Result<Vec<Value>, crate::control::ChangeError> {
        let objects = chosen(desired, only);
        match &self.resources {
            Some(resources) => {
                let edit = |(key, object)| Edit { key, after: Some(object) };
                let edits: Vec<_> = objects
                    .into_iter()
                    .filter(|(key, _)| *key != ObjectKey::Options)
                    .map(edit)
                    .collect();
                resources.documents(&edits)
            }
            None => Ok(documents(&objects)),
        }
    }
}

/// Documents of objects, as a mesh file and what is applied beside it say them.
#[must_use]
pub fn documents(objects: &BTreeMap<ObjectKey, Object>) -> Vec<Value> {
    let (mut services, mut options, mut others) = (Vec::new(), None, Vec::new());
    for object in objects.values() {
        match object {
            Object::Service(service) => services.push(&**service),
            Object::Options(found) => options = Some(&**found),
            Object::Route(route) => others.push(gateway_api::to_document(route)),
            Object::TcpRoute(route) => others.push(gateway_api::to_tcp_document(route)),
            Object::Policy(policy) => others.push(policy::to_document(policy)),
            Object::Rollout(rollout) => {
                others.push(rollout::to_document(&rollout.name, &rollout.spec));
            }
        }
    }
    let mut documents = vec![mesh_document::to_document(services, options)];
    documents.extend(others);
    documents
}

/// Everything, or a service and what is attached to it. Without the switches of the
/// whole mesh then.
fn chosen(desired: &Desired, only: Option<&ServiceName>) -> BTreeMap<ObjectKey, Object> {
    let all = desired.objects();
    let Some(only) = only else { return all };
    let routes: Vec<Arc<str>> = all
        .values()
        .filter_map(|object| match object {
            Object::Route(route) if route_names(route, only) => Some(route.name.clone()),
            Object::TcpRoute(route) if tcp_names(route, only) => Some(route.name.clone()),
            _ => None,
        })
        .collect();
    let kept = all.into_iter().filter(|(_, object)| match object {
        Object::Service(service) => service.name == *only,
        Object::Route(route) => routes.contains(&route.name),
        Object::TcpRoute(route) => routes.contains(&route.name),
        Object::Rollout(rollout) => rollout.spec.service == *only,
        Object::Policy(policy) => policy.targets.iter().any(|target| match target {
            Target::Service(name) => name == only,
            Target::Route { name, .. } => routes.contains(name),
            Target::Mesh | Target::Gateway => false,
        }),
        Object::Options(_) => false,
    });
    kept.collect()
}

fn route_names(route: &Route, service: &ServiceName) -> bool {
    let of = |backend: &weir_mesh::model::BackendRef| backend.service == *service;
    route.parents.iter().any(|parent| parent.service() == Some(service))
        || route.rules.iter().any(|rule| rule.backends.iter().any(of))
}

fn tcp_names(route: &TcpRoute, service: &ServiceName) -> bool {
    let own = |parent: &TcpParent| matches!(parent, TcpParent::Service(name) if name == service);
    route.parents.iter().any(own) || route.backends.iter().any(|b| b.service == *service)
}
