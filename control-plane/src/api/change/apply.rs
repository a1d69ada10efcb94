//! Sets many services and routes as one change.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tonic::Status;
use weir_mesh::model::{Invalid, Options, Route, Service, TcpRoute, Violations};
use weir_mesh::policy::Policy;
use weir_mesh::rollout::Spec;
use weir_mesh::transcode::Transcoder;
use weir_mesh::wire;
use weir_proto::weir::control::v1 as pb;

use super::managed;
use super::warnings::warnings;
use super::{answer, check_backends, check_reason, check_sent, check_wait, guard, replayed};
use crate::api::{error, read};
use crate::control::{Author, ChangeError, Control, Plan};
use crate::guard::Scope;
use crate::rollout::Act;
use crate::snapshot::policies;
use crate::store::{Action, Desired, Edit, Object, ObjectKey, Store};

struct Apply {
    services: Vec<Arc<Service>>,
    routes: Vec<Arc<Route>>,
    policies: Vec<Arc<Policy>>,
    tcp_routes: Vec<Arc<TcpRoute>>,
    options: Option<Arc<Options>>,
    rollouts: Vec<(Arc<str>, Arc<Spec>)>,
    prune: bool,
    force: bool,
}

pub(in crate::api) async fn apply(
    control: &Arc<Control>,
    actor: String,
    mut request: pb::ApplyRequest,
) -> Result<pb::ChangeResponse, Status> {
    let mut bad = Violations::new();
    let guard = guard(&mut request, &actor, &mut bad);
    let wait = check_wait(request.wait, 0, &mut bad);
    check_reason(&request.reason, &mut bad);
    if let Some(made) = replayed(control, &guard).await? {
        return Ok(answer(control, made, wait).await);
    }
    let guard = guard.expecting(Scope::Mesh, request.expected_revision);
    let desired = control.desired.borrow().clone();
    let apply = checked(&request, &desired, bad).map_err(|e| error::invalid(&e))?;
    let act = Act::new(&actor, &request.reason);
    let author = Author { actor, reason: request.reason };
    let managed = managed::Sent::new(&apply.services, &apply.rollouts, apply.force, &author);
    let dry_run = request.dry_run;
    let names: Vec<String> = request.routes.into_iter().map(|route| route.name).collect();
    let asked = author.clone();
    let plan = move |desired: &Desired, _: &dyn Store| {
        let mut edits = apply.edits(desired);
        managed::keep(desired, &mut edits, &asked, apply.force);
        edits.extend(apply.start(&desired.after(&edits), &act)?);
        let places: HashMap<&str, usize> =
            apply.routes.iter().enumerate().map(|(i, route)| (&*route.name, i)).collect();
        // A route that is not in the request can break too: by a service that goes.
        check_backends(desired, &edits, |route| match places.get(route) {
            Some(i) => format!("routes[{i}]"),
            None => format!("routes.{route}"),
        })?;
        apply.check_targets(desired, &edits)?;
        Ok(Plan { action: Action::Apply, edits, dry_run })
    };
    let made = control.change_guarded(author, guard, plan).await.map_err(error::change)?;
    let changes = made.changes.iter().map(read::describe).collect();
    let places = names.iter().enumerate().map(|(i, name)| (name.as_str(), i)).collect();
    let mut warnings = warnings(&control.desired.borrow(), &made.changes, &places);
    warnings.extend(managed.warnings(&desired));
    let wait = wait.filter(|_| !dry_run);
    Ok(pb::ChangeResponse { changes, warnings, ..answer(control, made, wait).await })
}

fn checked(
    request: &pb::ApplyRequest,
    desired: &Desired,
    mut bad: Violations,
) -> Result<Apply, Invalid> {
    let mut services = Vec::with_capacity(request.services.len());
    let mut names = HashSet::new();
    for (i, message) in request.services.iter().enumerate() {
        let at = format!("services[{i}]");
        if !names.insert(message.name.as_str()) {
            bad.add(format!("{at}.name"), format_args!("{:?} is named twice", message.name));
        }
        match wire::service(message, &at) {
            Ok(service) if !service.name.is_label() => {
                let why = "is no DNS label (RFC 1123): namespaces and ports are Kubernetes'";
                bad.add(format!("{at}.name"), format_args!("{:?} {why}", message.name));
            }
            Ok(service) => services.push(Arc::new(service)),
            Err(invalid) => bad.extend(invalid),
        }
        if !message.descriptor_set.is_empty() {
            // Gateways compile it too: what they would refuse is refused here.
            bad.take(&format!("{at}.descriptorSet"), Transcoder::new(&message.descriptor_set));
        }
    }
    // A service that is wrong itself is told once, not again by each route to it.
    let there = (services.len() == request.services.len())
        .then(|| after(desired, &services, request.prune));
    let mut routes = Vec::with_capacity(request.routes.len());
    let mut names = HashSet::new();
    for (i, message) in request.routes.iter().enumerate() {
        let at = format!("routes[{i}]");
        if !names.insert(message.name.as_str()) {
            bad.add(format!("{at}.name"), format_args!("{:?} is named twice", message.name));
        }
        match wire::route(message, &at) {
            Ok(route) => routes.push(Arc::new(route)),
            Err(invalid) => bad.extend(invalid),
        }
        if let Some(there) = &there {
            check_sent(there, message, &at, &mut bad);
        }
    }
    let policies = read_policies(request, &mut bad);
    let rollouts = read_rollouts(request, &mut bad);
    let tcp_routes = super::tcp::read(&request.tcp_routes, there.as_ref(), &mut bad);
    let options = match request.options.as_ref().map(|o| wire::options(o, "options")) {
        None => None,
        Some(Ok(options)) => Some(Arc::new(options)),
        Some(Err(invalid)) => {
            bad.extend(invalid);
            None
        }
    };
    bad.finish(Some(Apply {
        services,
        routes,
        tcp_routes,
        policies,
        options,
        rollouts,
        prune: request.prune,
        force: request.force,
    }))
}

fn read_policies(request: &pb::ApplyRequest, bad: &mut Violations) -> Vec<Arc<Policy>> {
    let mut policies = Vec::with_capacity(request.policies.len());
    let mut names = HashSet::new();
    for (i, message) in request.policies.iter().enumerate() {
        let at = format!("policies[{i}]");
        if !names.insert((message.kind.as_str(), message.name.as_str())) {
            bad.add(format!("{at}.name"), format_args!("{:?} is named twice", message.name));
        }
        match wire::policy(message, &at) {
            Ok(policy) => policies.push(Arc::new(policy)),
            Err(invalid) => bad.extend(invalid),
        }
    }
    policies
}

fn read_rollouts(request: &pb::ApplyRequest, bad: &mut Violations) -> Vec<(Arc<str>, Arc<Spec>)> {
    let mut names = HashSet::new();
    let mut rollouts = Vec::with_capacity(request.rollouts.len());
    for (i, message) in request.rollouts.iter().enumerate() {
        let at = format!("rollouts[{i}]");
        if !names.insert(message.name.as_str()) {
            bad.add(format!("{at}.name"), format_args!("{:?} is named twice", message.name));
        }
        rollouts.extend(crate::api::rollout::read(message, &at, bad));
    }
    rollouts
}

/// The services that there will be.
fn after(desired: &Desired, services: &[Arc<Service>], prune: bool) -> Desired {
    let mut next = if prune { desired.emptied() } else { desired.clone() };
    for service in services {
        let key = ObjectKey::Service(service.name.clone());
        next.set(&Edit { key, after: Some(Object::Service(service.clone())) }, 0);
    }
    next
}

impl Apply {
    /// Whether all that policies are attached to would be there, and only once.
    fn check_targets(&self, desired: &Desired, edits: &[Edit]) -> Result<(), Invalid> {
        let mut bad = Violations::new();
        for fault in policies::introduced(desired, &desired.after(edits)) {
            let sent = self.policies.iter();
            let place =
                sent.enumerate().find(|(_, p)| p.kind == fault.kind && p.name == fault.name);
            let at = match place {
                Some((i, _)) => format!("policies[{i}]"),
                None => format!("policies.{}.{}", fault.kind, fault.name),
            };
            bad.add(format!("{at}.{}", fault.field()), &fault);
        }
        bad.finish(Some(()))
    }

    /// Starts rollouts that are new, or at their end with another plan. One that runs
    /// is left alone.
    fn start(&self, desired: &Desired, act: &Act) -> Result<Vec<Edit>, ChangeError> {
        let mut next = desired.clone();
        let mut edits = Vec::new();
        for (name, spec) in &self.rollouts {
            let held = desired.rollouts.get(name);
            if held.is_some_and(|held| held.value.owns() || held.value.spec == *spec) {
                continue;
            }
            let more = crate::rollout::start(&next, name, spec.clone(), act)?;
            next = next.after(&more);
            edits.extend(more);
        }
        Ok(edits)
    }

    fn edits(&self, desired: &Desired) -> Vec<Edit> {
        let mut edits = Vec::new();
        for service in &self.services {
            let key = ObjectKey::Service(service.name.clone());
            edits.push(Edit { key, after: Some(Object::Service(service.clone())) });
        }
        for route in &self.routes {
            let key = ObjectKey::Route(route.name.clone());
            edits.push(Edit { key, after: Some(Object::Route(route.clone())) });
        }
        for policy in &self.policies {
            let key = ObjectKey::Policy(policy.kind, policy.name.clone());
            edits.push(Edit { key, after: Some(Object::Policy(policy.clone())) });
        }
        for route in &self.tcp_routes {
            let key = ObjectKey::TcpRoute(route.name.clone());
            edits.push(Edit { key, after: Some(Object::TcpRoute(route.clone())) });
        }
        if let Some(options) = &self.options {
            let after = Some(Object::Options(options.clone()));
            edits.push(Edit { key: ObjectKey::Options, after });
        }
        if self.prune {
            let rollouts = self.rollouts.iter().map(|(name, _)| ObjectKey::Rollout(name.clone()));
            let named: HashSet<_> =
                edits.iter().map(|edit| edit.key.clone()).chain(rollouts).collect();
            let services = desired.services.keys().cloned().map(ObjectKey::Service);
            let routes = desired.routes.keys().cloned().map(ObjectKey::Route);
            let policies = desired.policies.keys().cloned();
            let policies = policies.map(|(kind, name)| ObjectKey::Policy(kind, name));
            let tcp = desired.tcp_routes.keys().cloned().map(ObjectKey::TcpRoute);
            let ended = desired.rollouts.iter().filter(|(_, held)| !held.value.owns());
            let ended = ended.map(|(name, _)| ObjectKey::Rollout(name.clone()));
            let gone = services.chain(routes).chain(tcp).chain(policies).chain(ended);
            let gone = gone.filter(|key| !named.contains(key));
            edits.extend(gone.map(|key| Edit { key, after: None }));
        }
        edits
    }
}
