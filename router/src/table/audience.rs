//! What a service says of its versions beside weights.

use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};
use weir_mesh::model::{Audience, AudienceBy, Service, VersionName};
use weir_mesh::policy::authorization::ClaimMatch;

use super::Splitter;
use crate::auth::claim_fits;

/// Of whom a version gets all requests.
#[derive(Debug)]
pub struct AudienceEntry {
    /// Which requests.
    pub by: Who,
    /// An index into the service's versions.
    pub version: usize,
}

/// What tells an audience.
#[derive(Debug)]
pub enum Who {
    /// All of these headers.
    Headers(Vec<(HeaderName, HeaderValue)>),
    /// A claim of a verified token.
    Claim(ClaimMatch),
}

impl AudienceEntry {
    /// Whether a request is of it; `claims` are those of its token, once verified.
    #[must_use]
    pub fn has(&self, headers: &HeaderMap, claims: Option<&Map<String, Value>>) -> bool {
        match &self.by {
            // Of a repeated header the first counts, as in matches of routes.
            Who::Headers(wanted) => {
                wanted.iter().all(|(name, value)| headers.get(name) == Some(value))
            }
            Who::Claim(wanted) => claim_fits(wanted, claims),
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Headers(headers) => {
                for (i, (name, value)) in headers.iter().enumerate() {
                    let and = if i > 0 { ", " } else { "" };
                    let value = String::from_utf8_lossy(value.as_bytes());
                    write!(f, "{and}header {name}: {value}")?;
                }
                Ok(())
            }
            Self::Claim(claim) => {
                write!(f, "claim {} is {}", claim.name, claim.values.join(" or "))
            }
        }
    }
}

/// Which version gets copies of the service's requests.
#[derive(Debug)]
pub struct OwnMirror {
    /// An index into the service's versions.
    pub version: usize,
    /// Divides requests between those that are copied (0) and others; none: all.
    pub part: Option<Splitter>,
}

impl OwnMirror {
    /// Its share of the requests that go to other versions.
    #[must_use]
    pub fn per_million(&self) -> u32 {
        self.part.as_ref().and_then(|part| part.weights().first().copied()).unwrap_or(1_000_000)
    }
}

/// The audiences of a service; those of versions that it has.
pub(super) fn audiences(service: &Service) -> Vec<AudienceEntry> {
    let entry = |audience: &Audience| {
        let version = index(service, &audience.version)?;
        let by = match &audience.by {
            AudienceBy::Headers(headers) => Who::Headers(headers.clone()),
            AudienceBy::Claim { path, values } => {
                let name: Arc<str> = path.join(".").into();
                Who::Claim(ClaimMatch { name, values: values.clone() })
            }
        };
        Some(AudienceEntry { by, version })
    };
    service.audiences.iter().filter_map(entry).collect()
}

/// The mirror of a service; `split` is the number of its splitter.
pub(super) fn mirror(service: &Service, split: impl FnOnce() -> u32) -> Option<OwnMirror> {
    let mirror = service.mirror.as_ref()?;
    let version = index(service, &mirror.version)?;
    let rest = 1_000_000_u32.saturating_sub(mirror.per_million);
    let part = (rest > 0).then(|| Splitter::new(split(), vec![mirror.per_million, rest]));
    Some(OwnMirror { version, part })
}

fn index(service: &Service, version: &VersionName) -> Option<usize> {
    service.split.versions().iter().position(|(name, _)| name == version)
}
