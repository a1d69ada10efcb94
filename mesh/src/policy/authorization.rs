//! AuthorizationPolicy: who may.

use serde::Deserialize;

use super::{Kind, TargetKind};
use crate::model::Violations;

/// The spec of a AuthorizationPolicy.
#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AuthorizationDocument {}

/// Who may.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Authorization {}

impl Kind for Authorization {
    type Document = AuthorizationDocument;

    const TARGETS: &'static [TargetKind] = &[
        TargetKind::Mesh,
        TargetKind::Gateway,
        TargetKind::Service,
        TargetKind::HttpRoute,
        TargetKind::GrpcRoute,
    ];

    const ONE_PER_TARGET: bool = false;

    fn read(_: AuthorizationDocument, _: &str, _: &mut Violations) -> Option<Self> {
        Some(Self::default())
    }
}
