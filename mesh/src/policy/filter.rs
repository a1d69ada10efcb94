//! HTTPRouteFilter: what a rule does beside the Gateway API's own filters.

use serde::Deserialize;

use super::{Kind, TargetKind};
use crate::model::Violations;

/// The spec of a HTTPRouteFilter.
#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct FilterDocument {}

/// What a rule does beside the Gateway API's own filters.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter {}

impl Kind for Filter {
    type Document = FilterDocument;

    const TARGETS: &'static [TargetKind] = &[];

    const ONE_PER_TARGET: bool = false;

    fn read(_: FilterDocument, _: &str, _: &mut Violations) -> Option<Self> {
        Some(Self::default())
    }
}
