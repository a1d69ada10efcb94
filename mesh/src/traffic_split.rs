//! TrafficSplit (`weir.dev/v1alpha1`): the weights of a Service's versions where
//! desired state is in the Kubernetes API. It has the name and the namespace of its
//! Service, and no `targetRefs`.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::model::{Invalid, Split, Sticky, VersionName, Violations, Weight};
use crate::policy::structure;
use crate::wire;

/// The kind.
pub const KIND: &str = "TrafficSplit";

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
pub fn read(spec: &Value, at: &str) -> Result<Split, Invalid> {
    let mut bad = Violations::new();
    if !structure::check(&spec_schema(), spec, at, &mut bad) {
        return bad.finish(None);
    }
    let document = bad.take(at, SplitDocument::deserialize(spec));
    let split = document.and_then(|document| split(document, at, &mut bad));
    bad.finish(split)
}

fn split(document: SplitDocument, at: &str, bad: &mut Violations) -> Option<Split> {
    let mut versions = Vec::with_capacity(document.versions.len());
    for (i, version) in document.versions.into_iter().enumerate() {
        let at = format!("{at}.versions[{i}]");
        let name = bad.take(&format!("{at}.name"), version.name.parse::<VersionName>());
        let weight = bad.take(&format!("{at}.weight"), Weight::try_from(version.weight));
        versions.extend(name.zip(weight));
    }
    let sticky = document.sticky.map(|sticky| read_sticky(sticky, &format!("{at}.sticky"), bad));
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
pub fn to_spec(split: &Split) -> Value {
    let versions = split.versions().iter();
    let versions = versions.map(|(name, w)| json!({"name": name.as_str(), "weight": w.get()}));
    let mut spec = json!({ "versions": versions.collect::<Vec<_>>() });
    match &split.sticky {
        None => {}
        Some(Sticky::Header(name)) => spec["sticky"] = json!({ "header": name.as_str() }),
        Some(Sticky::Cookie(name)) => spec["sticky"] = json!({ "cookie": **name }),
        Some(Sticky::User) => spec["sticky"] = json!({ "user": true }),
    }
    spec
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

    proptest! {
        #[test]
        fn what_is_written_is_read(
            weights in proptest::collection::vec(0u32..=1_000_000, 1..8),
            sticky in 0..4,
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
            prop_assert_eq!(read(&to_spec(&split), "spec").unwrap(), split);
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
        ] {
            let error = read(&spec, "spec").unwrap_err().to_string();
            assert!(error.contains(told), "{spec}: {error}");
        }
    }
}
