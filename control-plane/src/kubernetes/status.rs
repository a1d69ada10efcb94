//! Tells objects what became of them. Only the leader does, and only what differs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use serde_json::{Map, Value, json};

use super::engine::Engine;
use super::objects::Kind;
use super::translate::{StatusUpdate, Translated, Warning};

/// Who writes status.
const MANAGER: &str = "weir-status";
/// First and longest wait after a write failed.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// When a condition last changed (`metav1.Condition`).
const TIME: &str = "lastTransitionTime";

type Key = (Kind, String, String);

/// What was written, and the object's version that came of it.
type Written = BTreeMap<Key, (Value, Value)>;

/// Follows what objects should be told. Never returns.
pub async fn keep(engine: Arc<Engine>) {
    let mut newest = engine.newest.subscribe();
    let mut written = Written::new();
    let mut warned: Vec<Warning> = Vec::new();
    let mut wait = BACKOFF.0;
    loop {
        let translated: Arc<Translated> = newest.borrow_and_update().clone();
        for warning in translated.warnings.iter().filter(|warning| !warned.contains(warning)) {
            let Warning { kind, namespace, name, why } = warning;
            tracing::warn!(kind = kind.as_str(), namespace, name, why, "an object is left out");
        }
        warned.clone_from(&translated.warnings);
        let mut all = true;
        for update in &translated.statuses {
            all &= write(&engine, update, &mut written).await;
        }
        let there = |key: &Key| {
            translated
                .statuses
                .iter()
                .any(|u| (u.kind, &u.namespace, &u.name) == (key.0, &key.1, &key.2))
        };
        written.retain(|key, _| there(key));
        if all {
            wait = BACKOFF.0;
            if newest.changed().await.is_err() {
                return;
            }
        } else {
            tokio::select! {
                _ = newest.changed() => {}
                () = tokio::time::sleep(wait) => wait = (wait * 2).min(BACKOFF.1),
            }
        }
    }
}

/// False: it failed, and is worth trying again.
async fn write(engine: &Engine, update: &StatusUpdate, written: &mut Written) -> bool {
    let StatusUpdate { kind, namespace, name, .. } = update;
    let held = engine.mirror.read(|objects| objects.get(*kind, namespace, name).cloned());
    let (Some(held), Some(version)) = (held, engine.mirror.version(*kind)) else { return true };
    let old = &held["status"];
    if same(&update.status, old) {
        return true;
    }
    let key = (*kind, namespace.clone(), name.clone());
    let at = &held["metadata"]["resourceVersion"];
    if written.get(&key).is_some_and(|(status, after)| *status == update.status && after == at) {
        // The server keeps something else than what it is told: asking again helps nobody.
        return true;
    }
    let status = timed(&update.status, old, &Timestamp::now().strftime("%FT%TZ").to_string());
    let patch = json!({
        "metadata": { "resourceVersion": at },
        "status": without(status, old),
    });
    let what = format!("status of {} {namespace}/{name}", kind.as_str());
    let api = engine.cluster.objects(*kind, &version, namespace);
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..Default::default() };
    match engine.cluster.call(&what, api.patch_status(name, &params, &Patch::Merge(&patch))).await {
        Ok(object) => {
            let after = object.metadata.resource_version.clone();
            written.insert(key, (update.status.clone(), after.into()));
            engine.mirror.apply(*kind, object);
            true
        }
        // What is newer is worked out anew when it is heard of.
        Err(error) if error.is_conflict() || error.is_not_found() => true,
        Err(error) => {
            tracing::warn!(%error, "a status is not written");
            false
        }
    }
}

/// Whether two statuses say the same, whenever they came to say it.
fn same(new: &Value, old: &Value) -> bool {
    match (new, old) {
        (Value::Object(new), Value::Object(old)) => {
            let fields = |map: &Map<String, Value>| {
                map.iter().filter(|(name, value)| *name != TIME && !value.is_null()).count()
            };
            fields(new) == fields(old)
                && new
                    .iter()
                    .filter(|(name, value)| *name != TIME && !value.is_null())
                    .all(|(name, value)| old.get(name).is_some_and(|old| same(value, old)))
        }
        (Value::Array(new), Value::Array(old)) => {
            new.len() == old.len() && new.iter().zip(old).all(|(new, old)| same(new, old))
        }
        (new, old) => new == old,
    }
}

/// What tells the elements of a list apart: conditions, listeners, parents, ancestors.
const IDENTITIES: &[&[&str]] =
    &[&["type"], &["parentRef", "controllerName"], &["ancestorRef", "controllerName"], &["name"]];

/// Gives conditions the time at which they came to be as they are.
fn timed(new: &Value, old: &Value, now: &str) -> Value {
    match new {
        Value::Array(new) => new
            .iter()
            .map(|element| timed(element, counterpart(element, old).unwrap_or(&Value::Null), now))
            .collect(),
        Value::Object(fields) => {
            let mut out: Map<String, Value> = fields
                .iter()
                .map(|(name, value)| (name.clone(), timed(value, &old[name.as_str()], now)))
                .collect();
            if is_condition(new) && !out.contains_key(TIME) {
                let stays = new["status"] == old["status"] && new["reason"] == old["reason"];
                let since = old.get(TIME).filter(|_| stays);
                out.insert(TIME.to_owned(), since.cloned().unwrap_or_else(|| now.into()));
            }
            Value::Object(out)
        }
        other => other.clone(),
    }
}

fn is_condition(value: &Value) -> bool {
    ["type", "status", "reason"].iter().all(|field| value[*field].is_string())
}

fn counterpart<'a>(element: &Value, old: &'a Value) -> Option<&'a Value> {
    let identity =
        IDENTITIES.iter().find(|fields| fields.iter().all(|f| element.get(f).is_some()))?;
    let same = |old: &&Value| identity.iter().all(|field| same(&element[*field], &old[*field]));
    old.as_array()?.iter().find(same)
}

/// Names what is to go, as a merge patch does (RFC 7396): by null.
pub(super) fn without(mut new: Value, old: &Value) -> Value {
    if let (Some(new), Some(old)) = (new.as_object_mut(), old.as_object()) {
        for (name, value) in new.iter_mut() {
            if let Some(old) = old.get(name) {
                *value = without(value.take(), old);
            }
        }
        for name in old.keys() {
            if !new.contains_key(name) {
                new.insert(name.clone(), Value::Null);
            }
        }
    }
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(kind: &str, status: &str, time: Option<&str>) -> Value {
        let mut out = json!({ "type": kind, "status": status, "reason": "R", "message": "m" });
        if let Some(time) = time {
            out[TIME] = time.into();
        }
        out
    }

    #[test]
    fn a_condition_keeps_its_time_until_it_changes() {
        let old = json!({ "parents": [{
            "parentRef": { "name": "a" }, "controllerName": "weir.dev/controller",
            "conditions": [condition("Accepted", "True", Some("T1")),
                           condition("ResolvedRefs", "True", Some("T1"))],
        }] });
        let new = json!({ "parents": [{
            "parentRef": { "name": "a" }, "controllerName": "weir.dev/controller",
            "conditions": [condition("ResolvedRefs", "False", None),
                           condition("Accepted", "True", None)],
        }] });
        let out = timed(&new, &old, "T2");
        let conditions = &out["parents"][0]["conditions"];
        assert_eq!(conditions[0][TIME], "T2");
        assert_eq!(conditions[1][TIME], "T1");
        assert!(!same(&new, &old));
        assert!(same(&new, &out), "times do not matter");
        assert_eq!(timed(&new, &out, "T3"), out, "what stays is not written again");
    }

    #[test]
    fn what_is_gone_is_named() {
        let old = json!({ "addresses": [{ "value": "1.2.3.4" }], "conditions": [], "other": 1 });
        let patch = without(json!({ "conditions": [] }), &old);
        assert_eq!(patch, json!({ "addresses": null, "conditions": [], "other": null }));
    }
}
