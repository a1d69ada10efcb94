//! Tells a webhook how a rollout ended, so that files in git can follow: at least once,
//! with what to change as patches. That it is still to be told is part of the rollout's
//! stored state, so a restart or another leader goes on.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use http::{HeaderName, HeaderValue};
use serde_json::{Value, json};
use weir_mesh::model::{VersionName, Weight};
use weir_mesh::rollout::{Rollout, Told, Webhook, WriteBack};

use super::http as client;
use super::live::Live;
use crate::control::{Author, ChangeError, Control, Plan};
use crate::store::{Action, Desired, Edit, Held, Object, ObjectKey, Store};
use crate::text::hex;

/// Tries until it is given up: somewhat over an hour of them.
const TRIES: u32 = 24;
/// Between the first and the second.
const FIRST: Duration = Duration::from_secs(1);
/// Between later ones, at most.
const LONGEST: Duration = Duration::from_secs(300);
/// Bytes of a secret, at least.
const MIN_SECRET: usize = 16;

/// Signs what is sent.
pub struct Secret(hmac::Key);

/// Why a secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Its file.
    #[error("the secret cannot be read: {0}")]
    Read(#[from] std::io::Error),
    /// It could be guessed.
    #[error("the secret has under {MIN_SECRET} bytes; write a longer one into the file")]
    Short,
}

impl Secret {
    /// Reads it from a file; white space around it does not count.
    ///
    /// # Errors
    /// [`SecretError`].
    pub fn read(file: &Path) -> Result<Self, SecretError> {
        let bytes = std::fs::read(file)?;
        let bytes = bytes.trim_ascii();
        if bytes.len() < MIN_SECRET {
            return Err(SecretError::Short);
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, bytes)))
    }

    fn sign(&self, body: &str) -> String {
        format!("sha256={}", hex(hmac::sign(&self.0, body.as_bytes()).as_ref()))
    }
}

/// Tells the end of a rollout until that works, or was tried often enough.
pub async fn run(control: Arc<Control>, held: Held<Rollout>) {
    let Some(told) = held.value.spec.write_back.clone() else { return };
    let Some(body) = body(&control, &held).await else {
        tokio::time::sleep(FIRST).await;
        return;
    };
    let (hook, place) = (signed(&control, &held, &told, &body), told.webhook.url.place());
    let (mut wait, mut why) = (FIRST, String::new());
    for tried in 1..=TRIES {
        why = match client::post(&hook, &body).await {
            Ok(answer) if answer.status.is_success() => {
                return settle(&control, &held, Told::Done, format!("told {place}")).await;
            }
            Ok(answer) => format!("{place} answered {}", answer.status),
            Err(error) => format!("{place}: {error}"),
        };
        control.rollouts.failures.inc();
        tracing::warn!(rollout = %held.value.name, tried, %why, "the end was not written back");
        let live = Live {
            revision: held.revision,
            message: format!("try {tried} of {TRIES}: {why}"),
            elapsed: held.value.state.elapsed,
            step_elapsed: held.value.state.step_elapsed,
            ..Live::default()
        };
        control.rollouts.set(&held.value.name, live);
        if tried == TRIES {
            break;
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LONGEST);
        // It may be gone, or have been started anew.
        if control.desired.borrow().rollouts.get(&held.value.name) != Some(&held) {
            return;
        }
    }
    settle(&control, &held, Told::GivenUp(why.clone()), format!("not written back: {why}")).await;
}

/// The webhook with the headers that a receiver checks.
fn signed(control: &Control, held: &Held<Rollout>, told: &WriteBack, body: &str) -> Webhook {
    let mut hook = told.webhook.clone();
    let key = format!("{}-{}", held.value.name, held.revision);
    let mut put = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            hook.headers.0.push((HeaderName::from_static(name), value));
        }
    };
    put("idempotency-key", &key);
    if let Some(secret) = &control.rollouts.secret {
        put("x-weir-signature-256", &secret.sign(body));
    }
    hook
}

/// Stores that nothing is left to tell.
async fn settle(control: &Arc<Control>, held: &Held<Rollout>, told: Told, reason: String) {
    let mut rollout = (*held.value).clone();
    rollout.state.write_back = Some(told);
    let author = Author { actor: format!("rollout/{}", rollout.name), reason };
    let seen = held.clone();
    let plan = move |desired: &Desired, _: &dyn Store| {
        if desired.rollouts.get(&rollout.name) != Some(&seen) {
            return Err(ChangeError::Aborted("it was changed meanwhile".to_owned()));
        }
        let key = ObjectKey::Rollout(rollout.name.clone());
        let edits = vec![Edit { key, after: Some(Object::Rollout(Arc::new(rollout))) }];
        Ok(Plan { action: Action::Rollout, edits, dry_run: false })
    };
    if let Err(error) = control.change(author, plan).await {
        // It is told once more then, which receivers know by the key.
        tracing::warn!(rollout = %held.value.name, %error, "what was told cannot be stored");
        tokio::time::sleep(FIRST).await;
    }
}

/// What is sent; none: the service cannot be exported now.
async fn body(control: &Arc<Control>, held: &Held<Rollout>) -> Option<String> {
    let desired = control.desired.borrow().clone();
    let (service, known) = (held.value.spec.service.clone(), control.clone());
    let exporting = {
        let desired = desired.clone();
        tokio::task::spawn_blocking(move || known.export(&desired, Some(&service)))
    };
    let mut documents = match exporting.await {
        Ok(Ok(documents)) => documents,
        Ok(Err(error)) => {
            tracing::warn!(rollout = %held.value.name, %error, "its service cannot be exported");
            return None;
        }
        Err(_) => return None,
    };
    documents.retain(|document| document["kind"] == "Mesh" || document["kind"] == "TrafficSplit");
    let (rollout, state) = (&held.value, &held.value.state);
    let service = desired.services.get(&rollout.spec.service);
    let after = service.map(|held| held.value.split.versions()).unwrap_or_default();
    let before = state.before.as_ref().map_or(after, |before| &before.weights);
    let first = documents.first();
    let body = json!({
        "rollout": *rollout.name,
        "service": rollout.spec.service.as_str(),
        "phase": state.phase.as_str(),
        "revision": held.revision,
        "actor": state.actor,
        "reason": state.message,
        "weights": { "before": weights(before), "after": weights(after) },
        "patch": first.map(|document| patch(document, before)),
        "mergePatch": first.map(merge_patch),
        "documents": documents,
    });
    Some(body.to_string())
}

fn weights(split: &[(VersionName, Weight)]) -> Value {
    split.iter().map(|(name, weight)| (name.to_string(), Value::from(weight.get()))).collect()
}

/// Where a document has the versions of its service.
fn versions(document: &Value) -> (&'static str, &Value) {
    match document["kind"].as_str() {
        Some("Mesh") => ("/services/0/versions", &document["services"][0]["versions"]),
        _ => ("/spec/versions", &document["spec"]["versions"]),
    }
}

/// A JSON Patch (RFC 6902) that gives the document as it was before its weights now.
fn patch(document: &Value, before: &[(VersionName, Weight)]) -> Value {
    let (at, versions) = versions(document);
    let versions = versions.as_array().into_iter().flatten().enumerate();
    let changed = versions.filter_map(|(i, version)| {
        let old = before.iter().find(|(name, _)| version["name"] == name.as_str())?.1;
        (version["weight"] != old.get()).then(|| {
            json!({"op": "replace", "path": format!("{at}/{i}/weight"), "value": version["weight"]})
        })
    });
    changed.collect()
}

/// A JSON Merge Patch (RFC 7386) of the same, in which a list is always whole.
fn merge_patch(document: &Value) -> Value {
    match document["kind"].as_str() {
        Some("Mesh") => json!({ "services": document["services"] }),
        _ => json!({ "spec": { "versions": document["spec"]["versions"] } }),
    }
}
