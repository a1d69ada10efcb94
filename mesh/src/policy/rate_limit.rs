//! RateLimitPolicy: how often something may be asked.

use serde::Deserialize;

use super::{Kind, TargetKind};
use crate::model::Violations;

/// The spec of a RateLimitPolicy.
#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RateLimitDocument {}

/// How often something may be asked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RateLimit {}

impl Kind for RateLimit {
    type Document = RateLimitDocument;

    const TARGETS: &'static [TargetKind] = &[
        TargetKind::Mesh,
        TargetKind::Gateway,
        TargetKind::Service,
        TargetKind::HttpRoute,
        TargetKind::GrpcRoute,
    ];

    const ONE_PER_TARGET: bool = false;

    fn read(_: RateLimitDocument, _: &str, _: &mut Violations) -> Option<Self> {
        Some(Self::default())
    }
}
