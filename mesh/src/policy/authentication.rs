//! AuthenticationPolicy: whose tokens are believed.

use serde::Deserialize;

use super::{Kind, TargetKind};
use crate::model::Violations;

/// The spec of a AuthenticationPolicy.
#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AuthenticationDocument {}

/// Whose tokens are believed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Authentication {}

impl Kind for Authentication {
    type Document = AuthenticationDocument;

    const TARGETS: &'static [TargetKind] = &[
        TargetKind::Mesh,
        TargetKind::Gateway,
        TargetKind::Service,
        TargetKind::HttpRoute,
        TargetKind::GrpcRoute,
    ];

    const ONE_PER_TARGET: bool = true;

    fn read(_: AuthenticationDocument, _: &str, _: &mut Violations) -> Option<Self> {
        Some(Self::default())
    }
}
