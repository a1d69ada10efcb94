//! ReferenceGrants: who may name what in another namespace.

use std::sync::Arc;

use serde_json::Value;

use super::json::{list, text};
use crate::kubernetes::objects::{Kind, Objects};

/// All of them.
pub(super) struct Grants<'a>(Vec<(&'a str, &'a Arc<Value>)>);

/// Who refers to something: group, kind and namespace.
#[derive(Debug, Clone, Copy)]
pub(super) struct Referrer<'a> {
    pub kind: Kind,
    pub namespace: &'a str,
}

impl<'a> Grants<'a> {
    pub fn read(objects: &'a Objects) -> Self {
        let all = objects.all(Kind::ReferenceGrant);
        Self(all.map(|(namespace, _, grant)| (namespace, grant)).collect())
    }

    /// Whether an object in `namespace` may be referred to.
    pub fn allow(&self, from: Referrer<'_>, to: Kind, namespace: &str, name: &str) -> bool {
        if from.namespace == namespace {
            return true;
        }
        let (group, ..) = from.kind.resource();
        let (to_group, ..) = to.resource();
        self.0.iter().filter(|(of, _)| *of == namespace).any(|(_, grant)| {
            let spec = &grant["spec"];
            let from = list(spec, "from").iter().any(|entry| {
                text(entry, "group") == group
                    && text(entry, "kind") == from.kind.as_str()
                    && text(entry, "namespace") == from.namespace
            });
            from && list(spec, "to").iter().any(|entry| {
                text(entry, "group") == to_group
                    && text(entry, "kind") == to.as_str()
                    && (text(entry, "name").is_empty() || text(entry, "name") == name)
            })
        })
    }
}
