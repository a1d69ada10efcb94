//! Query parameters as fields of the request.

use prost_reflect::DynamicMessage;

use super::binding::{Binding, Body, Target, is_text};
use super::body::unknown;
use super::text::{parse, percent_decode};
use crate::model::Violations;

/// So many are refused by name; a refusal should not be much larger than what it
/// refuses.
const MAX_VIOLATIONS: usize = 20;

/// Sets the fields that the query names. A repeated field may come repeatedly.
pub(super) fn read(
    binding: &Binding,
    query: &str,
    message: &mut DynamicMessage,
    bad: &mut Violations,
) {
    let mut seen = Vec::new();
    let mut violations = 0;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (raw, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = percent_decode(raw, true, false);
        let at = name.clone().unwrap_or_else(|_| raw.to_owned());
        let result = name
            .map_err(str::to_owned)
            .and_then(|name| set(binding, &name, value, message, &mut seen));
        if let Err(reason) = result {
            bad.add(at, reason);
            violations += 1;
            if violations == MAX_VIOLATIONS {
                return;
            }
        }
    }
}

/// Sets one field. `value` is still percent-encoded; `seen` are those set before.
fn set(
    binding: &Binding,
    name: &str,
    value: &str,
    message: &mut DynamicMessage,
    seen: &mut Vec<Target>,
) -> Result<(), String> {
    let target = target(binding, name)?;
    let Some(leaf) = target.0.last() else { return Ok(()) };
    if !leaf.is_list() && seen.iter().any(|other| other.overlaps(&target)) {
        return Err("is given more than once".to_owned());
    }
    seen.push(target.clone());
    let value = parse(&leaf.kind(), &percent_decode(value, true, false)?)?;
    target.set(message, value)
}

/// The field that a parameter may set.
fn target(binding: &Binding, name: &str) -> Result<Target, String> {
    let target = Target::find(&binding.input, name).map_err(|missing| match missing {
        Some((desc, field)) => unknown(&desc, &field),
        None => "is too deep, or within a list, a map or a plain value; a parameter cannot \
                 reach it"
            .into(),
    })?;
    if binding.variables.iter().any(|bound| bound.overlaps(&target)) {
        return Err("is taken from the path".into());
    }
    match &binding.body {
        Body::All => return Err("is taken from the body, as all fields are".into()),
        Body::Field(field) if target.0.first() == Some(field) => {
            return Err("is taken from the body".into());
        }
        Body::Field(_) | Body::None => {}
    }
    match target.0.last() {
        Some(leaf) if leaf.is_map() || (leaf.is_list() && !is_text(&leaf.kind())) => {
            Err("is a map or a list of messages, which a parameter cannot hold".into())
        }
        _ => Ok(target),
    }
}
