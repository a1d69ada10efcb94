//! `path` and `authorization` of a mesh file.

use weir_mesh::canonical::Slashes;
use weir_mesh::model::{Options, Violations};

use super::read::Fields;
use super::tree::Node;

/// `path: {escapedSlashes: Reject|Keep}`.
pub(super) fn read_path(
    node: Option<&Node>,
    options: &mut Options,
    violations: &mut Violations,
) -> Option<()> {
    let mut fields = Fields::of(node?, "path", violations)?;
    match fields.text("escapedSlashes", violations) {
        None | Some("Reject") => {}
        Some("Keep") => options.escaped_slashes = Slashes::Keep,
        Some(other) => {
            violations.add("path.escapedSlashes", format!("is {other:?}; use Reject or Keep"));
        }
    }
    fields.finish(violations);
    Some(())
}

/// `authorization: {default: Allow|Deny, explain: true|false}`.
pub(super) fn read_authorization(
    node: Option<&Node>,
    options: &mut Options,
    violations: &mut Violations,
) -> Option<()> {
    let mut fields = Fields::of(node?, "authorization", violations)?;
    match fields.text("default", violations) {
        None | Some("Allow") => {}
        Some("Deny") => options.deny_by_default = true,
        Some(other) => {
            violations.add("authorization.default", format!("is {other:?}; use Allow or Deny"));
        }
    }
    options.hide_policies = !fields.boolean("explain", violations).unwrap_or(true);
    fields.finish(violations);
    Some(())
}
