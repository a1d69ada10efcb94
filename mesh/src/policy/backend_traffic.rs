//! BackendTrafficPolicy: how instances of a service are chosen, limited and kept out.

use serde::Deserialize;

use super::{Kind, TargetKind};
use crate::model::Violations;

/// The spec of a BackendTrafficPolicy.
#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BackendTrafficDocument {}

/// How instances of a service are chosen, limited and kept out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BackendTraffic {}

impl Kind for BackendTraffic {
    type Document = BackendTrafficDocument;

    const TARGETS: &'static [TargetKind] = &[TargetKind::Service];

    const ONE_PER_TARGET: bool = true;

    fn read(_: BackendTrafficDocument, _: &str, _: &mut Violations) -> Option<Self> {
        Some(Self::default())
    }
}
