//! Rollouts: the spec is the plan, the status is how far it has come.
//!
//! The plan that runs is kept in the status, so that a spec that is changed meanwhile
//! changes nothing: the new one begins when the old one is at its end.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use weir_mesh::model::ServiceName;
use weir_mesh::rollout::{Rollout, Spec, State};

use super::StatusUpdate;
use super::json::{age, annotation, generation, text};
use super::status::{Condition, Fault, conditions};
use crate::kubernetes::objects::{Kind, Objects};
use crate::kubernetes::resources::ACTOR;

/// Field of the status: the plan that runs, as it was written.
pub(in crate::kubernetes) const PLAN: &str = "plan";

/// Reads all of them. Of one service only one may run: the one that has begun, else
/// the oldest.
pub(super) fn rollouts(
    objects: &Objects,
    statuses: &mut Vec<StatusUpdate>,
) -> BTreeMap<Arc<str>, Rollout> {
    let mut found: Vec<_> = objects.all(Kind::Rollout).collect();
    let begun = |object: &Value| object["status"]["begun"] == true;
    found.sort_by_key(|(_, _, object)| (!begun(object), age(object)));
    let mut rollouts = BTreeMap::new();
    let mut owners: BTreeMap<ServiceName, Arc<str>> = BTreeMap::new();
    for (namespace, name, object) in found {
        let full: Arc<str> = format!("{name}.{namespace}").into();
        let read = read(&full, namespace, object).and_then(|rollout| {
            let service = &rollout.spec.service;
            match owners.get(service).filter(|_| rollout.owns()) {
                Some(other) => Err(Fault::new(
                    "Conflicted",
                    format!("rollout {other} of {service} is not at its end"),
                )),
                None => Ok(rollout),
            }
        });
        if let Ok(rollout) = &read
            && rollout.owns()
        {
            owners.insert(rollout.spec.service.clone(), full.clone());
        }
        statuses.push(told(namespace, name, object, &read));
        rollouts.extend(read.ok().map(|rollout| (full, rollout)));
    }
    rollouts
}

fn read(full: &Arc<str>, namespace: &str, object: &Value) -> Result<Rollout, Fault> {
    let status = &object["status"];
    let written = qualified(&object["spec"], namespace);
    let make = |spec, state| Rollout { name: full.clone(), spec: Arc::new(spec), state };
    if status["phase"].is_string() {
        let unreadable = |why: String| {
            let why = format!("its status cannot be read, so it is left alone: {why}");
            Fault::new("Invalid", why)
        };
        let state = State::from_json(status).map_err(|error| unreadable(error.to_string()))?;
        let plan = qualified(&status[PLAN], namespace);
        if !state.phase.is_final() || plan == written {
            let spec = Spec::read(&plan, &format!("status.{PLAN}"));
            return Ok(make(spec.map_err(|invalid| unreadable(invalid.to_string()))?, state));
        }
    }
    let spec = Spec::read(&written, "spec")
        .map_err(|invalid| Fault::new("Invalid", invalid.to_string()))?;
    if spec.service.namespace() != Some(namespace) {
        let why = format!("spec.service: is not in namespace {namespace}, as a rollout's must be");
        return Err(Fault::new("Invalid", why));
    }
    let made: Option<Timestamp> = text(&object["metadata"], "creationTimestamp").parse().ok();
    let made = made.and_then(|made| u64::try_from(made.as_millisecond()).ok());
    let actor = annotation(object, ACTOR).filter(|actor| !actor.is_empty());
    Ok(make(spec, State::new(actor.unwrap_or("kubernetes"), made.unwrap_or(0))))
}

/// A plan whose service has its namespace: in an object it may be left out.
pub(in crate::kubernetes) fn qualified(plan: &Value, namespace: &str) -> Value {
    let mut plan = plan.clone();
    let service = plan["service"].as_str().and_then(|name| name.parse::<ServiceName>().ok());
    if let Some(service) = service.filter(|service| service.namespace().is_none()) {
        plan["service"] = format!("{service}.{namespace}").into();
    }
    plan
}

fn told(
    namespace: &str,
    name: &str,
    object: &Value,
    read: &Result<Rollout, Fault>,
) -> StatusUpdate {
    let accepted = match read {
        Err(fault) => Condition::fails("Accepted", fault.reason, &fault.message),
        Ok(rollout) if *rollout.spec.document() != qualified(&object["spec"], namespace) => {
            Condition::holds("Accepted", "Accepted").with_message(
                "the spec was changed while the rollout runs: it goes on as it began, and the \
                 new one begins after its end; delete the object to return to what was before",
            )
        }
        Ok(_) => Condition::holds("Accepted", "Accepted"),
    };
    let mut status = object["status"].clone();
    status["conditions"] = conditions(object, &object["status"]["conditions"], &[accepted]);
    StatusUpdate {
        kind: Kind::Rollout,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        generation: generation(object),
        status,
    }
}
