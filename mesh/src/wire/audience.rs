//! Audiences and mirrors of a service between protobuf and the model.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use weir_proto::weir::mesh::v1 as pb;

use super::decode::join;
use crate::model::{
    Audience, AudienceBy, MAX_AUDIENCE_HEADERS, MAX_AUDIENCE_VALUES, MAX_AUDIENCES, Split,
    VersionMirror, VersionName, Violations,
};

/// Reads the audiences of a service; each must send to a version of `split`.
pub(crate) fn audiences(
    sent: &[pb::Audience],
    split: Option<&Split>,
    at: &str,
    bad: &mut Violations,
) -> Vec<Audience> {
    let at = join(at, "audiences");
    if sent.len() > MAX_AUDIENCES {
        bad.add(at, format_args!("has {} audiences; at most {MAX_AUDIENCES}", sent.len()));
        return Vec::new();
    }
    let read = |(i, audience): (usize, &pb::Audience)| {
        let at = format!("{at}[{i}]");
        let version = version(&audience.version, split, &at, bad);
        let by = by(audience, &at, bad);
        by.zip(version).map(|(by, version)| Audience { by, version })
    };
    sent.iter().enumerate().filter_map(read).collect()
}

fn version(
    name: &str,
    split: Option<&Split>,
    at: &str,
    bad: &mut Violations,
) -> Option<VersionName> {
    let at = join(at, "version");
    let version = bad.take(&at, name.parse::<VersionName>())?;
    if split.is_some_and(|split| split.weight(version.as_str()).is_none()) {
        bad.add(at, format_args!("no such version {version:?}; name one of the service's"));
        return None;
    }
    Some(version)
}

fn by(audience: &pb::Audience, at: &str, bad: &mut Violations) -> Option<AudienceBy> {
    match &audience.by {
        None => {
            bad.add(at, "says nothing of whom it is; set headers or claim");
            None
        }
        Some(pb::audience::By::Headers(sent)) => {
            let at = join(at, "headers");
            let count = sent.headers.len();
            if !(1..=MAX_AUDIENCE_HEADERS).contains(&count) {
                bad.add(at, format_args!("has {count} headers; 1 to {MAX_AUDIENCE_HEADERS}"));
                return None;
            }
            let sorted: BTreeMap<_, _> = sent.headers.iter().collect();
            let headers: Vec<_> = sorted
                .into_iter()
                .filter_map(|(name, value)| {
                    let at = format!("{at}.{name}");
                    let name = bad.take(&at, name.parse::<HeaderName>());
                    name.zip(bad.take(&at, value.parse::<HeaderValue>()))
                })
                .collect();
            (headers.len() == count).then_some(AudienceBy::Headers(headers))
        }
        Some(pb::audience::By::Claim(claim)) => {
            let at = join(at, "claim");
            let path: Vec<Arc<str>> = claim.name.split('.').map(Into::into).collect();
            if path.iter().any(|part| part.is_empty()) {
                let why = "is missing, or has an empty part; such as `group` or `realm.roles`";
                bad.add(join(&at, "name"), why);
                return None;
            }
            let count = claim.values.len();
            if !(1..=MAX_AUDIENCE_VALUES).contains(&count) {
                let why = format_args!("has {count} values; 1 to {MAX_AUDIENCE_VALUES}");
                bad.add(join(&at, "values"), why);
                return None;
            }
            let values = claim.values.iter().map(|value| value.as_str().into()).collect();
            Some(AudienceBy::Claim { path, values })
        }
    }
}

/// Reads the mirror of a service.
pub(crate) fn mirror(
    sent: Option<&pb::VersionMirror>,
    split: Option<&Split>,
    at: &str,
    bad: &mut Violations,
) -> Option<VersionMirror> {
    let sent = sent?;
    let at = join(at, "mirror");
    let version = version(&sent.version, split, &at, bad);
    let per_million = sent.per_million;
    if !(1..=1_000_000).contains(&per_million) {
        bad.add(join(&at, "perMillion"), format_args!("{per_million} is not 1 to 1000000"));
        return None;
    }
    version.map(|version| VersionMirror { version, per_million })
}

impl From<&Audience> for pb::Audience {
    fn from(audience: &Audience) -> Self {
        let by = match &audience.by {
            AudienceBy::Headers(headers) => {
                let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into();
                let pair =
                    |(name, value): &(HeaderName, HeaderValue)| (name.to_string(), text(value));
                let headers = headers.iter().map(pair).collect();
                pb::audience::By::Headers(pb::HeaderAudience { headers })
            }
            AudienceBy::Claim { path, values } => pb::audience::By::Claim(pb::ClaimAudience {
                name: path.join("."),
                values: values.iter().map(ToString::to_string).collect(),
            }),
        };
        Self { by: Some(by), version: audience.version.to_string() }
    }
}

impl From<&VersionMirror> for pb::VersionMirror {
    fn from(mirror: &VersionMirror) -> Self {
        Self { version: mirror.version.to_string(), per_million: mirror.per_million }
    }
}
