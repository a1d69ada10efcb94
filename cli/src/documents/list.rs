//! `kind: List`: what `kubectl get -o yaml` and `weir get -o json` print.

use super::{Mistake, Written};
use crate::mesh_file::tree::Value;

/// The items of a list as documents of their own.
pub fn items(list: &Written) -> Result<Vec<Written>, Mistake> {
    if list.text("apiVersion") != Some("v1") {
        return Err(list.mistake("apiVersion", "of a List is v1"));
    }
    let Some(items) = list.node.get("items") else {
        return Err(list.mistake("items", "is missing"));
    };
    let Value::List(nodes) = &items.value else {
        return Err(list.mistake("items", format!("is {}; a list belongs here", items.kind())));
    };
    let item = |(i, node): (usize, &_)| Written {
        file: list.file.clone(),
        at: format!("items[{i}]"),
        node: Clone::clone(node),
    };
    Ok(nodes.iter().enumerate().map(item).collect())
}
