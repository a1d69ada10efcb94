//! What targetRefs of policies lead to.

use std::sync::Arc;

use serde_json::{Value, json};
use weir_mesh::model::{Protocol, Route, RouteKind};
use weir_mesh::policy::{PolicyKind, Target, TargetKind};

use super::json::text;
use super::policies::Context;
use super::routes::route_name;
use super::status::Fault;
use crate::kubernetes::objects::Kind;

/// Targets in the mesh's own names, none twice.
#[derive(Debug, Default)]
pub(super) struct Targets(Vec<Target>);

impl Targets {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn retain(&mut self, keep: impl FnMut(&Target) -> bool) {
        self.0.retain(keep);
    }

    pub fn extend(&mut self, others: Self) {
        for target in others.0 {
            if !self.0.contains(&target) {
                self.0.push(target);
            }
        }
    }

    /// As a policy's document in the mesh names them.
    pub fn to_refs(&self) -> Value {
        let reference = |target: &Target| {
            let kind = target.kind();
            let name: &str = match target {
                Target::Mesh => "mesh",
                Target::Gateway => "gateway",
                Target::Service(name) => name.as_str(),
                Target::Route { name, .. } => name,
            };
            let mut out = json!({ "group": kind.group(), "kind": kind.as_str(), "name": name });
            if let Target::Route { rule: Some(rule), .. } = target {
                out["sectionName"] = (**rule).into();
            }
            out
        };
        self.0.iter().map(reference).collect()
    }
}

fn not_found(why: String) -> Fault {
    Fault::new("TargetNotFound", why)
}

/// What one targetRef means. A Service means its ports, a Gateway that shares the
/// routers with others its routes.
pub(super) fn resolve(
    context: &Context<'_>,
    policy: PolicyKind,
    namespace: &str,
    sent: &Value,
) -> Result<Targets, Fault> {
    let invalid = |why: String| Err(Fault::new("Invalid", why));
    let kind = TargetKind::ALL.into_iter().find(|kind| kind.as_str() == text(sent, "kind"));
    let Some(kind) = kind.filter(|kind| policy.targets().contains(kind)) else {
        let names: Vec<_> = policy.targets().iter().map(|kind| kind.as_str()).collect();
        let (kind, names) = (text(sent, "kind"), names.join(", "));
        return invalid(format!("a {policy} is not attached to {kind:?}; use {names}"));
    };
    let group = sent["group"].as_str().unwrap_or(kind.group());
    if group != kind.group() && !(kind == TargetKind::Service && group == "core") {
        let why =
            format!("{group:?} is not the group of a {}; use {:?}", kind.as_str(), kind.group());
        return invalid(why);
    }
    if sent["namespace"].as_str().is_some_and(|of| of != namespace) {
        return invalid("a policy is for what is in its own namespace; leave it out".to_owned());
    }
    let (name, section) = (text(sent, "name"), sent["sectionName"].as_str());
    match kind {
        TargetKind::Mesh => {
            let own = &context.settings.namespace;
            match namespace == own && name == "mesh" {
                true => Ok(Targets(vec![Target::Mesh])),
                false => {
                    invalid(format!("the Mesh is called mesh, and policies for it are in {own}"))
                }
            }
        }
        TargetKind::Gateway => match section {
            None => gateway(context, namespace, name),
            Some(_) => {
                invalid("sectionName of a Gateway is not supported; name a route".to_owned())
            }
        },
        TargetKind::Service => service(context, policy, namespace, name, section),
        TargetKind::HttpRoute | TargetKind::GrpcRoute => {
            route(context, kind, namespace, name, section)
        }
    }
}

fn service(
    context: &Context<'_>,
    policy: PolicyKind,
    namespace: &str,
    name: &str,
    section: Option<&str>,
) -> Result<Targets, Fault> {
    let service = context.services.get(namespace, name).ok_or_else(|| {
        not_found(format!("no Service {name} with TCP ports in namespace {namespace}"))
    })?;
    let named = |port: &&super::services::Port<'_>| {
        section.is_none_or(|section| port.name == section || port.number.to_string() == section)
    };
    let ports: Vec<_> = service.ports.iter().filter(named).collect();
    if ports.is_empty() {
        let section = section.unwrap_or_default();
        return Err(not_found(format!("Service {name} has no TCP port {section:?}")));
    }
    // Only who may is asked of bytes as well.
    let of_bytes = policy == PolicyKind::Authorization;
    let speaks = |port: &&&super::services::Port<'_>| {
        of_bytes || context.services.protocol(port) != Protocol::Tcp
    };
    let targets: Vec<_> =
        ports.iter().filter(speaks).map(|port| Target::Service(port.service.clone())).collect();
    if targets.is_empty() {
        let why = format!(
            "Service {name} speaks opaque TCP, and a {policy} is about requests; see its appProtocol"
        );
        return Err(Fault::new("Invalid", why));
    }
    Ok(Targets(targets))
}

fn route(
    context: &Context<'_>,
    kind: TargetKind,
    namespace: &str,
    name: &str,
    section: Option<&str>,
) -> Result<Targets, Fault> {
    let of = match kind {
        TargetKind::GrpcRoute => Kind::GRPCRoute,
        _ => Kind::HTTPRoute,
    };
    let full = route_name(of, namespace, name);
    let route = context.routes.get(&full).ok_or_else(|| {
        let kind = kind.as_str();
        not_found(format!("no {kind} {name} in namespace {namespace} that a parent has accepted"))
    })?;
    if let Some(section) = section
        && !route.rules.iter().any(|rule| &*rule.name == section)
    {
        return Err(not_found(format!("{name} has no rule {section:?}")));
    }
    let rule = section.map(Arc::from);
    Ok(Targets(vec![Target::Route { kind, name: route.name.clone(), rule }]))
}

fn gateway(context: &Context<'_>, namespace: &str, name: &str) -> Result<Targets, Fault> {
    let attached = context
        .gateways
        .routes(namespace, name)
        .ok_or_else(|| not_found(format!("no Gateway {name} of ours in namespace {namespace}")))?;
    if context.gateways.count() == 1 {
        return Ok(Targets(vec![Target::Gateway]));
    }
    let routes = attached.iter().filter_map(|name| context.routes.get(name));
    let target = |route: &Route| Target::Route {
        kind: match route.kind {
            RouteKind::Http => TargetKind::HttpRoute,
            RouteKind::Grpc => TargetKind::GrpcRoute,
        },
        name: route.name.clone(),
        rule: None,
    };
    Ok(Targets(routes.map(target).collect()))
}
