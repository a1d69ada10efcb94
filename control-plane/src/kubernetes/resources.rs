//! What the control-plane API is asked for, written as Kubernetes resources.

mod rollouts;
mod step;

use std::sync::Arc;

use serde_json::{Value, json};
use weir_mesh::model::{Invalid, Route, Service, ServiceName, Violations};
use weir_mesh::traffic_split::{self, TrafficSplit};

use super::cluster::ClusterError;
use super::engine::{Engine, places};
use super::mirror::Mirror;
use super::objects::Kind;
use crate::control::{Asked, ChangeError, Control, Made, Resources};
use crate::store::{Action, Desired, Edit, Object, ObjectKey, StoreError};
use crate::text::hex;

/// Annotation: who asked for the last change.
pub const ACTOR: &str = "weir.dev/actor";
/// Annotation: why.
pub const REASON: &str = "weir.dev/reason";
/// Annotation: by which a retry of the request is known, and its SHA-256. Who leads next
/// may find the object before the entry was made, and the caller's retry after that.
pub const REQUEST: &str = "weir.dev/request";

/// One write to the API server.
#[derive(Debug, Clone, PartialEq)]
struct Step {
    kind: Kind,
    namespace: String,
    name: String,
    write: Write,
}

/// What is written.
#[derive(Debug, Clone, PartialEq)]
enum Write {
    /// By server-side apply.
    Apply(Value),
    /// All of the status.
    Status(Value),
    /// It is deleted.
    Delete,
}

impl Step {
    fn what(&self) -> String {
        format!("{} {}/{}", self.kind.as_str(), self.namespace, self.name)
    }
}

impl Resources for Engine {
    fn admit(&self, desired: &Desired, edits: Vec<Edit>) -> Result<Vec<Edit>, ChangeError> {
        let mut bad = Violations::new();
        let mut admitted = Vec::with_capacity(edits.len());
        for edit in edits {
            match (&edit.key, &edit.after) {
                (ObjectKey::Service(name), Some(Object::Service(wanted))) => {
                    match desired.services.get(name) {
                        // A shift: all else of a service is not ours to change.
                        Some(held) => {
                            let service = Service {
                                split: wanted.split.clone(),
                                audiences: wanted.audiences.clone(),
                                mirror: wanted.mirror.clone(),
                                managed_by: wanted.managed_by.clone(),
                                ..(*held.value).clone()
                            };
                            let after = Some(Object::Service(Arc::new(service)));
                            admitted.push(Edit { key: edit.key, after });
                        }
                        None => bad.add(format!("services.{name}"), NO_SERVICES),
                    }
                }
                (ObjectKey::Service(name), _) => bad.add(format!("services.{name}"), NO_SERVICES),
                (ObjectKey::Options, after) => {
                    if !matches!(after, Some(Object::Options(new)) if **new == desired.options) {
                        bad.add("options", NO_OPTIONS);
                    }
                }
                (key, _) if places(key).is_empty() => {
                    bad.add(
                        key.to_string(),
                        "has no namespace; on Kubernetes a name is NAME.NAMESPACE",
                    );
                }
                (ObjectKey::Rollout(name), Some(Object::Rollout(rollout)))
                    if rollout.spec.service.namespace()
                        != name.rsplit_once('.').map(|(_, namespace)| namespace) =>
                {
                    bad.add(
                        format!("rollouts.{name}.spec.service"),
                        "is in another namespace than the rollout; name it NAME.NAMESPACE with \
                         its service's namespace",
                    );
                }
                _ => admitted.push(edit),
            }
        }
        bad.finish(Some(admitted)).map_err(ChangeError::Invalid)
    }

    fn documents(&self, edits: &[Edit]) -> Result<Vec<Value>, ChangeError> {
        let document = |step: Step| {
            let Write::Apply(mut document) = step.write else { return None };
            let version = self.mirror.version(step.kind)?;
            let (group, ..) = step.kind.resource();
            document["apiVersion"] = super::cluster::api_version(group, &version).into();
            document["kind"] = step.kind.as_str().into();
            document["metadata"]["name"] = step.name.into();
            document["metadata"]["namespace"] = step.namespace.into();
            Some(document)
        };
        Ok(self.steps(edits)?.into_iter().filter_map(document).collect())
    }

    fn write(&self, control: &Control, asked: Asked, edits: &[Edit]) -> Result<Made, ChangeError> {
        let author = &asked.author;
        let mut steps = self.steps(edits)?;
        if let ([Step { write: Write::Apply(document), .. }], Some(request)) =
            (&mut steps[..], &asked.idempotency)
        {
            let text = format!("{} {}", request.key, hex(&request.request));
            document["metadata"]["annotations"][REQUEST] = text.into();
        }
        // Somebody asked for it, against whoever set it before. A rollout asks for
        // itself, and does not fight.
        let force = asked.action != Action::Rollout || self.may_take(edits);
        let before = control.desired.borrow().clone();
        // A rollout looks at who set the weights itself.
        let mut seen = None;
        if asked.action != Action::Rollout {
            // Before the check: what is heard of after it is not what was worked from.
            seen = Some(self.seen(&steps));
            self.check_unchanged(&before, edits)?;
        }
        // All of it is tried before any of it is done.
        for step in &steps {
            self.step(step, author, (true, force), seen.as_ref())?;
        }
        let mut failed = None;
        for (done, step) in steps.iter().enumerate() {
            if let Err(error) = self.step(step, author, (false, force), seen.as_ref()) {
                failed = Some((done, error));
                break;
            }
            if let Some(seen) = &mut seen {
                seen.extend(self.seen(std::slice::from_ref(step)));
            }
        }
        // A step of a rollout that is half made is made whole before it is recorded: see
        // `mend`, which the next look at the objects begins with.
        let whole = asked.action == Action::Rollout;
        if let Some((_, error)) = failed.take_if(|(done, _)| *done == 0 || whole) {
            return Err(error);
        }
        let (made, recorded) = self.work(Some(asked), &before);
        self.publish(control, made);
        let entry = recorded?;
        if let Some((done, error)) = failed {
            let told: Vec<_> = steps[..done].iter().map(Step::what).collect();
            return Err(ChangeError::Precondition(format!(
                "{error}; written before that, and in use: {}",
                told.join(", ")
            )));
        }
        Ok(match entry {
            Some(entry) => Made::of(entry.revision, false, entry.changes),
            None => Made::of(before.newest_change, true, Vec::new()),
        })
    }
}

const NO_SERVICES: &str = "services are Kubernetes' own; make, change and delete them with \
     kubectl, and set weights with `weir shift`";
const ELSEWHERE: &str = "is not found in Kubernetes by this name (long names are shortened); \
     delete it with kubectl";
const NO_OPTIONS: &str = "are set by the control plane's flags (--egress, --trace-sampling); \
     change the chart's values";

impl Engine {
    fn steps(&self, edits: &[Edit]) -> Result<Vec<Step>, ChangeError> {
        let mut steps = Vec::new();
        let mut bad = Violations::new();
        for edit in edits {
            let step = match &edit.after {
                None => {
                    let step = self.delete(&edit.key);
                    if step.is_none() {
                        bad.add(edit.key.to_string(), ELSEWHERE);
                    }
                    step
                }
                Some(Object::Rollout(rollout)) => {
                    for (_, namespace, name) in places(&edit.key) {
                        // Before the weights that belong to it.
                        let own = self.rollout(rollout, &namespace, &name);
                        steps.splice(0..0, own.into_iter().flatten());
                    }
                    continue;
                }
                Some(object) => self.apply(&edit.key, object, &mut bad),
            };
            // Ports of one Service share a TrafficSplit.
            steps.extend(step.filter(|step| !steps.contains(step)));
        }
        Ok(bad.finish(Some(steps))?)
    }

    fn delete(&self, key: &ObjectKey) -> Option<Step> {
        let there = |(kind, namespace, name): &(Kind, String, String)| {
            self.mirror.read(|objects| objects.get(*kind, namespace, name).is_some())
        };
        let (kind, namespace, name) = places(key).into_iter().find(there)?;
        Some(Step { kind, namespace, name, write: Write::Delete })
    }

    fn apply(&self, key: &ObjectKey, object: &Object, bad: &mut Violations) -> Option<Step> {
        let (kind, namespace, name) = places(key).into_iter().next()?;
        let (kind, mut document) = match object {
            Object::Service(service) => (kind, traffic_split(service)),
            Object::Route(route) => {
                let document = weir_mesh::gateway_api::to_document(route);
                let found = document["kind"].as_str().unwrap_or_default();
                if found != kind.as_str() {
                    bad.add("route.name", misnamed(found, ".grpc", "GRPCRoutes"));
                }
                (kind, self.route(document, route, &namespace, bad))
            }
            Object::TcpRoute(route) => {
                let document = weir_mesh::gateway_api::to_tcp_document(route);
                let found = document["kind"].as_str().unwrap_or_default();
                if found != kind.as_str() {
                    bad.add("route.name", misnamed(found, ".tls", "TLSRoutes"));
                }
                (kind, self.tcp_route(document, &namespace, bad))
            }
            Object::Policy(policy) => {
                (kind, json!({ "spec": local(policy.document(), &namespace) }))
            }
            Object::Rollout(_) | Object::Options(_) => return None,
        };
        document["metadata"]["name"] = name.clone().into();
        document["metadata"]["namespace"] = namespace.clone().into();
        Some(Step { kind, namespace, name, write: Write::Apply(document) })
    }

    /// References to services as Kubernetes has them.
    fn route(
        &self,
        mut document: Value,
        route: &Route,
        namespace: &str,
        bad: &mut Violations,
    ) -> Value {
        for (i, rule) in route.rules.iter().enumerate() {
            for (j, backend) in rule.backends.iter().enumerate() {
                let out = &mut document["spec"]["rules"][i]["backendRefs"][j];
                let at = format!("route.rules[{i}].backendRefs[{j}]");
                if let Some(version) = &backend.version {
                    let why = format!(
                        "version {version} cannot be referred to on Kubernetes; set weights with \
                         `weir shift`, or refer to a Service of that version alone"
                    );
                    bad.add(format!("{at}.version"), why);
                }
                reference(&self.mirror, out, &backend.service, namespace);
            }
            let filters = document["spec"]["rules"][i]["filters"].as_array_mut();
            for filter in filters.into_iter().flatten() {
                let target = &mut filter["requestMirror"]["backendRef"];
                let service = target["name"].as_str().and_then(|name| name.parse().ok());
                if let Some(service) = service {
                    reference(&self.mirror, target, &service, namespace);
                }
            }
        }
        document
    }

    fn tcp_route(&self, mut document: Value, namespace: &str, bad: &mut Violations) -> Value {
        let rules = document["spec"]["rules"].as_array_mut();
        for (i, rule) in rules.into_iter().flatten().enumerate() {
            let backends = rule["backendRefs"].as_array_mut();
            for (j, backend) in backends.into_iter().flatten().enumerate() {
                let name = backend["name"].as_str().unwrap_or_default().to_owned();
                match name.parse::<ServiceName>() {
                    Ok(service) => reference(&self.mirror, backend, &service, namespace),
                    Err(error) => {
                        bad.add(format!("route.rules[{i}].backendRefs[{j}].service"), error);
                    }
                }
            }
        }
        document
    }
}

fn misnamed(kind: &str, suffix: &str, of: &str) -> String {
    format!(
        "names of {of} end in {suffix} (NAME.NAMESPACE{suffix}), others do not; this is a {kind}"
    )
}

/// A TrafficSplit says how requests of one Service are divided, and nothing else.
fn traffic_split(service: &Service) -> Value {
    let Service { split, audiences, mirror, managed_by, .. } = service.clone();
    let wanted = TrafficSplit { split, audiences, mirror, managed_by };
    json!({ "spec": traffic_split::to_spec(&wanted) })
}

/// A policy's spec with its targets as Kubernetes names them: in its own namespace,
/// and without what tells a GRPCRoute from an HTTPRoute here.
fn local(spec: &Value, namespace: &str) -> Value {
    let mut spec = spec.clone();
    let targets = spec["targetRefs"].as_array_mut();
    for target in targets.into_iter().flatten() {
        let Some(name) = target["name"].as_str() else { continue };
        let name = name.strip_suffix(&format!(".{namespace}")).unwrap_or(name);
        let name = match target["kind"].as_str() {
            Some("GRPCRoute") => name.strip_suffix(".grpc").unwrap_or(name),
            _ => name,
        };
        target["name"] = name.to_owned().into();
    }
    spec
}

/// Writes a reference to a Service, which must have a port.
fn reference(mirror: &Mirror, out: &mut Value, service: &ServiceName, namespace: &str) {
    let own = service.namespace().unwrap_or(namespace);
    out["name"] = service.label().into();
    if own != namespace {
        out["namespace"] = own.into();
    }
    let first = || {
        mirror.read(|objects| {
            let object = objects.get(Kind::Service, own, service.label())?;
            u16::try_from(object["spec"]["ports"][0]["port"].as_u64()?).ok()
        })
    };
    if let Some(port) = service.port().or_else(first) {
        out["port"] = port.into();
    }
}

fn refusal(error: ClusterError) -> ChangeError {
    match &error {
        ClusterError::Answer { what, code: 400 | 422, message, .. } => {
            Invalid::one(what.as_str(), message.as_str()).into()
        }
        ClusterError::Answer { code: 409, .. } => ChangeError::Aborted(error.to_string()),
        _ if error.is_refused() || error.is_not_found() => {
            ChangeError::Precondition(error.to_string())
        }
        _ => ChangeError::Store(StoreError::from(error)),
    }
}
