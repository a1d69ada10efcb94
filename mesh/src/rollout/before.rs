//! What a service had before, as JSON.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::state::{Before, StateError};
use crate::model::{Audience, AudienceBy, VersionMirror, VersionName, Weight};

#[derive(Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct BeforeDocument {
    /// In the service's order.
    weights: Vec<WeightDocument>,
    /// Who got a version whatever the weights.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    audiences: Vec<AudienceDocument>,
    /// Which version got copies.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    mirror: Option<MirrorDocument>,
}

#[derive(Debug, Serialize, Deserialize, schemars::JsonSchema)]
struct WeightDocument {
    version: String,
    weight: i64,
}

#[derive(Debug, Serialize, Deserialize, schemars::JsonSchema)]
struct AudienceDocument {
    version: String,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    headers: Vec<(String, String)>,
    #[serde(skip_serializing_if = "String::is_empty", default)]
    claim: String,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    values: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
struct MirrorDocument {
    version: String,
    per_million: u32,
}

pub(super) fn write(before: &Before) -> BeforeDocument {
    let weight = |(version, weight): &(VersionName, Weight)| WeightDocument {
        version: version.to_string(),
        weight: weight.get().into(),
    };
    BeforeDocument {
        weights: before.weights.iter().map(weight).collect(),
        audiences: before.audiences.iter().map(write_audience).collect(),
        mirror: before.mirror.as_ref().map(|mirror| MirrorDocument {
            version: mirror.version.to_string(),
            per_million: mirror.per_million,
        }),
    }
}

fn write_audience(audience: &Audience) -> AudienceDocument {
    let version = audience.version.to_string();
    match &audience.by {
        AudienceBy::Headers(headers) => {
            let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into();
            let headers = headers.iter().map(|(name, value)| (name.to_string(), text(value)));
            let headers = headers.collect();
            AudienceDocument { version, headers, claim: String::new(), values: Vec::new() }
        }
        AudienceBy::Claim { path, values } => AudienceDocument {
            version,
            headers: Vec::new(),
            claim: path.join("."),
            values: values.iter().map(ToString::to_string).collect(),
        },
    }
}

pub(super) fn read(document: &BeforeDocument) -> Result<Before, StateError> {
    let weight = |one: &WeightDocument| {
        let weight = Weight::try_from(one.weight).map_err(|e| StateError(e.to_string()))?;
        Ok((version(&one.version)?, weight))
    };
    let mirror = document.mirror.as_ref().map(|mirror| {
        let version = version(&mirror.version)?;
        Ok(VersionMirror { version, per_million: mirror.per_million })
    });
    Ok(Before {
        weights: document.weights.iter().map(weight).collect::<Result<_, StateError>>()?,
        audiences: document.audiences.iter().map(read_audience).collect::<Result<_, _>>()?,
        mirror: mirror.transpose()?,
    })
}

fn version(name: &str) -> Result<VersionName, StateError> {
    name.parse().map_err(|error| StateError(format!("{error}")))
}

fn read_audience(document: &AudienceDocument) -> Result<Audience, StateError> {
    let version = version(&document.version)?;
    if !document.claim.is_empty() {
        let path: Vec<Arc<str>> = document.claim.split('.').map(Into::into).collect();
        let values = document.values.iter().map(|value| value.as_str().into()).collect();
        return Ok(Audience { by: AudienceBy::Claim { path, values }, version });
    }
    let header = |(name, value): &(String, String)| {
        let name = name.parse().map_err(|_| StateError(format!("{name:?} is no header")))?;
        let value = value.parse().map_err(|_| StateError("a header's value".to_owned()))?;
        Ok((name, value))
    };
    let headers = document.headers.iter().map(header).collect::<Result<_, StateError>>()?;
    Ok(Audience { by: AudienceBy::Headers(headers), version })
}
