//! What `metadata.annotations` of a route say to Weir. Those of others are not
//! looked at.

use super::matches::header_name;
use super::reader::{Object, join, near, text};
use super::rule::is_token;
use crate::model::{ForceVersion, Violations};

/// `header:NAME` or `cookie:NAME`: what of a request may name its version.
pub(super) const FORCE_VERSION: &str = "weir.dev/force-version";
/// `true`: versions are carried along as baggage.
pub(super) const PIN_VERSIONS: &str = "weir.dev/pin-versions";

/// Who asked for the last change and why: notes of the control plane's, for people.
const NOTES: [&str; 2] = ["weir.dev/actor", "weir.dev/reason"];

const PREFIX: &str = "weir.dev/";

#[derive(Debug, Default)]
pub(super) struct Annotations {
    pub force_version: Option<ForceVersion>,
    pub pin_versions: bool,
}

/// The path of an annotation of the document at `at`. It is quoted as its name
/// has dots.
pub(super) fn path(at: &str, name: &str) -> String {
    format!("{}[{name:?}]", join(at, "metadata.annotations"))
}

pub(super) fn read(metadata: &Object<'_>, bad: &mut Violations) -> Annotations {
    let mut found = Annotations::default();
    let Some(object) = metadata.object("annotations", bad) else { return found };
    for (name, value) in object.fields() {
        if !name.starts_with(PREFIX) || NOTES.contains(&name) {
            continue;
        }
        let at = format!("{}[{name:?}]", object.at());
        let Some(value) = text(value, &at, bad) else { continue };
        match name {
            FORCE_VERSION => found.force_version = bad.take(&at, force_version(value)),
            PIN_VERSIONS => match value {
                "true" => found.pin_versions = true,
                "false" => {}
                other => bad.add(at, format_args!("{other:?} is neither \"true\" nor \"false\"")),
            },
            other => {
                let known = [FORCE_VERSION, PIN_VERSIONS];
                let why = match near(other, known) {
                    Some(near) => format!("is not known; did you mean {near}?"),
                    None => format!("is not known; there are: {}", known.join(", ")),
                };
                bad.add(at, why);
            }
        }
    }
    found
}

fn force_version(value: &str) -> Result<ForceVersion, String> {
    match value.split_once(':') {
        Some(("header", name)) => header_name(name).map(ForceVersion::Header),
        Some(("cookie", name)) if is_token(name) => Ok(ForceVersion::Cookie(name.into())),
        Some(("cookie", name)) => Err(format!("{name:?} is no cookie name (RFC 6265 §4.1.1)")),
        _ => Err(format!("{value:?} is neither header:NAME nor cookie:NAME")),
    }
}
