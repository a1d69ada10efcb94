//! TrafficSplit (`weir.dev/v1alpha1`): the weights of a Service's versions where
//! desired state is in the Kubernetes API. It has the name and the namespace of its
//! Service, and no `targetRefs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use weir_proto::weir::mesh::v1 as pb;

use crate::model::{
    Audience, Invalid, Split, Sticky, VersionMirror, VersionName, Violations, Weight,
};
use crate::policy::structure;
use crate::wire;

/// The kind.
pub const KIND: &str = "TrafficSplit";

/// Everything that is set of how a Service's requests are divided.
#[derive(Debug, Clone, PartialEq)]
pub struct TrafficSplit {
    /// Weights, and what keeps a user on a version.
    pub split: Split,
    /// Who gets a version whatever the weights: the first that matches.
    pub audiences: Vec<Audience>,
    /// Which version gets copies.
    pub mirror: Option<VersionMirror>,
    /// Who alone changes its weights; none: anyone.
    pub managed_by: Option<Arc<str>>,
}

/// How requests are divided.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SplitDocument {
    /// The versions, in the order in which sticky users are divided between them. One that is
    /// not named gets nothing.
    #[schemars(length(min = 1, max = 64))]
    versions: Vec<VersionDocument>,
    /// What keeps a user on a version. Left out: every request is divided by itself.
    sticky: Option<StickyDocument>,
    /// Requests that go to a version whatever the weights: the first that matches.
    #[serde(default)]
    #[schemars(length(max = 16))]
    audiences: Vec<AudienceDocument>,
    /// A version that gets copies of requests; nobody sees its answers.
    mirror: Option<MirrorDocument>,
    /// Who alone changes the weights by Weir's API, unless the caller forces it. Left
    /// out: anyone who may.
    #[schemars(length(max = 128))]
    managed_by: Option<String>,
}

/// The version, and one of the other fields.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AudienceDocument {
    /// One of `versions`.
    version: String,
    /// Requests that have all of these headers with exactly these values.
    headers: Option<BTreeMap<String, String>>,
    /// Requests whose verified token has this claim.
    claim: Option<ClaimDocument>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ClaimDocument {
    /// The claim; dots go into objects: `realm.roles`.
    name: String,
    /// It is one of these, or a list that has one of them.
    values: Vec<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct MirrorDocument {
    /// One of `versions`.
    version: String,
    /// Percent of requests that are copied: 0.0001 to 100.
    percent: f64,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct VersionDocument {
    /// As the pods' label has it.
    #[schemars(length(min = 1, max = 63))]
    name: String,
    /// Its part of the sum, not percent.
    #[schemars(range(min = 0, max = 1_000_000))]
    weight: i64,
}

/// One of its fields.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StickyDocument {
    /// The value of this request header.
    header: Option<String>,
    /// The value of this cookie, which the first answer sets.
    cookie: Option<String>,
    /// The `sub` claim of the bearer token.
    user: Option<bool>,
}

/// Reads a TrafficSplit's spec. `at` is its path.
///
/// # Errors
/// All fields that are wrong, each by its path.
pub fn read(spec: &Value, at: &str) -> Result<TrafficSplit, Invalid> {
    let mut bad = Violations::new();
    if !structure::check(&spec_schema(), spec, at, &mut bad) {
        return bad.finish(None);
    }
    let document = bad.take(at, SplitDocument::deserialize(spec));
    let read = document.and_then(|document| {
        let SplitDocument { versions, sticky, audiences, mirror, managed_by } = document;
        let split = split(versions, sticky, at, &mut bad)?;
        let sent: Vec<_> = audiences.into_iter().map(AudienceDocument::message).collect();
        let audiences = wire::audience::audiences(&sent, Some(&split), at, &mut bad);
        let mirror = mirror.and_then(|sent| read_mirror(&sent, &split, at, &mut bad));
        let managed_by = managed_by.unwrap_or_default();
        let managed_by = wire::managed_by(&managed_by, &format!("{at}.managedBy"), &mut bad);
        Some(TrafficSplit { split, audiences, mirror, managed_by })
    });
    bad.finish(read)
}

impl AudienceDocument {
    fn message(self) -> pb::Audience {
        use pb::audience::By;
        let by = match (self.headers, self.claim) {
            (Some(headers), None) => {
                let headers = headers.into_iter().collect();
                Some(By::Headers(pb::HeaderAudience { headers }))
            }
            (None, Some(claim)) => {
                let ClaimDocument { name, values } = claim;
                Some(By::Claim(pb::ClaimAudience { name, values }))
            }
            // Neither, or both.
            _ => None,
        };
        pb::Audience { by, version: self.version }
    }
}

/// Parts of a million in a percent.
const PER_PERCENT: f64 = 10_000.0;

fn read_mirror(
    sent: &MirrorDocument,
    split: &Split,
    at: &str,
    bad: &mut Violations,
) -> Option<VersionMirror> {
    if !(0.0001..=100.0).contains(&sent.percent) {
        bad.add(
            format!("{at}.mirror.percent"),
            format_args!("{} is not 0.0001 to 100", sent.percent),
        );
        return None;
    }
    // Within the bounds above it fits.
    let per_million = (sent.percent * PER_PERCENT).round() as u32;
    let message = pb::VersionMirror { version: sent.version.clone(), per_million };
    wire::audience::mirror(Some(&message), Some(split), at, bad)
}

fn split(
    sent: Vec<VersionDocument>,
    sticky: Option<StickyDocument>,
    at: &str,
    bad: &mut Violations,
) -> Option<Split> {
    let mut versions = Vec::with_capacity(sent.len());
    for (i, version) in sent.into_iter().enumerate() {
        let at = format!("{at}.versions[{i}]");
        let name = bad.take(&format!("{at}.name"), version.name.parse::<VersionName>());
        let weight = bad.take(&format!("{at}.weight"), Weight::try_from(version.weight));
        versions.extend(name.zip(weight));
    }
    let sticky = sticky.map(|sticky| read_sticky(sticky, &format!("{at}.sticky"), bad));
    if !bad.is_empty() {
        return None;
    }
    bad.take(&format!("{at}.versions"), Split::new(versions, sticky.flatten()))
}

fn read_sticky(document: StickyDocument, at: &str, bad: &mut Violations) -> Option<Sticky> {
    use weir_proto::weir::mesh::v1::{Sticky as Message, sticky::By};
    let by = match (document.header, document.cookie, document.user.filter(|user| *user)) {
        (Some(name), None, None) => By::Header(name),
        (None, Some(name), None) => By::Cookie(name),
        (None, None, Some(user)) => By::User(user),
        _ => {
            bad.add(at, "needs exactly one of header, cookie and `user: true`");
            return None;
        }
    };
    match wire::sticky(&Message { by: Some(by) }, at) {
        Ok(sticky) => Some(sticky),
        Err(invalid) => {
            bad.extend(invalid);
            None
        }
    }
}

/// Writes a spec as [`read`] reads it.
#[must_use]
pub fn to_spec(wanted: &TrafficSplit) -> Value {
    let TrafficSplit { split, audiences, mirror, managed_by } = wanted;
    let versions = split.versions().iter();
    let versions = versions.map(|(name, w)| json!({"name": name.as_str(), "weight": w.get()}));
    let mut spec = json!({ "versions": versions.collect::<Vec<_>>() });
    match &split.sticky {
        None => {}
        Some(Sticky::Header(name)) => spec["sticky"] = json!({ "header": name.as_str() }),
        Some(Sticky::Cookie(name)) => spec["sticky"] = json!({ "cookie": **name }),
        Some(Sticky::User) => spec["sticky"] = json!({ "user": true }),
    }
    if !audiences.is_empty() {
        spec["audiences"] = audiences.iter().map(audience).collect();
    }
    if let Some(mirror) = mirror {
        let percent = f64::from(mirror.per_million) / PER_PERCENT;
        spec["mirror"] = json!({ "version": mirror.version.as_str(), "percent": percent });
    }
    if let Some(manager) = managed_by {
        spec["managedBy"] = json!(**manager);
    }
    spec
}

fn audience(audience: &Audience) -> Value {
    let pb::Audience { by, version } = audience.into();
    match by {
        Some(pb::audience::By::Headers(by)) => {
            let headers: BTreeMap<_, _> = by.headers.into_iter().collect();
            json!({ "version": version, "headers": headers })
        }
        Some(pb::audience::By::Claim(by)) => {
            json!({ "version": version, "claim": { "name": by.name, "values": by.values } })
        }
        None => json!({ "version": version }),
    }
}

/// The JSON Schema (draft 2020-12) of its spec.
#[must_use]
pub fn spec_schema() -> Value {
    schemars::schema_for!(SplitDocument).to_value()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::AudienceBy;

    proptest! {
        #[test]
        fn what_is_written_is_read(
            weights in proptest::collection::vec(0u32..=1_000_000, 1..8),
            sticky in 0..4,
            audiences in 0usize..3,
            mirror in proptest::option::of(1u32..=1_000_000),
            managed: bool,
        ) {
            let sticky = match sticky {
                0 => None,
                1 => Some(Sticky::Header(http::HeaderName::from_static("x-user"))),
                2 => Some(Sticky::Cookie("session".into())),
                _ => Some(Sticky::User),
            };
            let named = |(i, weight): (usize, &u32)| {
                (format!("v{i}").parse().unwrap(), Weight::try_from(i64::from(*weight)).unwrap())
            };
            let versions = weights.iter().enumerate().map(named).collect();
            prop_assume!(weights.iter().any(|weight| *weight > 0));
            let split = Split::new(versions, sticky).unwrap();
            let first = split.versions()[0].0.clone();
            let claim = AudienceBy::Claim { path: vec!["a".into(), "b".into()], values: vec!["c".into()] };
            let header = (http::HeaderName::from_static("x-beta"), http::HeaderValue::from_static("1"));
            let by = [AudienceBy::Headers(vec![header]), claim];
            let audiences = by.into_iter().take(audiences);
            let audiences = audiences.map(|by| Audience { by, version: first.clone() }).collect();
            let mirror = mirror.map(|per_million| VersionMirror { version: first, per_million });
            let managed_by = managed.then(|| "rollout/web".into());
            let wanted = TrafficSplit { split, audiences, mirror, managed_by };
            prop_assert_eq!(read(&to_spec(&wanted), "spec").unwrap(), wanted);
        }
    }

    #[test]
    fn every_mistake_is_told_by_its_path() {
        for (spec, told) in [
            (json!({}), "spec.versions: is missing"),
            (json!({"versions": []}), "spec.versions: has 0 entries; at least 1 are needed"),
            (
                json!({"versions": [{"name": "v1", "wieght": 1}]}),
                "spec.versions[0].wieght: is not known; did you mean weight?",
            ),
            (json!({"versions": [{"name": "V 1", "weight": 1}]}), "spec.versions[0].name: "),
            (
                json!({"versions": [{"name": "v1", "weight": 1_000_001}]}),
                "spec.versions[0].weight: 1000001 is above 1000000",
            ),
            (
                json!({"versions": [{"name": "v1", "weight": 0}]}),
                "spec.versions: all weights are 0",
            ),
            (
                json!({"versions": [{"name": "v1", "weight": 1}], "sticky": {"header": "a", "cookie": "b"}}),
                "spec.sticky: needs exactly one of",
            ),
            (
                json!({"versions": [{"name": "v1", "weight": 1}], "mirror": {"version": "v2", "percent": 5}}),
                "spec.mirror.version: no such version",
            ),
            (
                json!({"versions": [{"name": "v1", "weight": 1}], "mirror": {"version": "v1", "percent": 0}}),
                "spec.mirror.percent: 0 is not 0.0001 to 100",
            ),
            (
                json!({"versions": [{"name": "v1", "weight": 1}], "audiences": [{"version": "v1"}]}),
                "spec.audiences[0]: says nothing of whom it is",
            ),
        ] {
            let error = read(&spec, "spec").unwrap_err().to_string();
            assert!(error.contains(told), "{spec}: {error}");
        }
    }
}
