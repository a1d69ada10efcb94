//! Paths that a rule is about.

use std::sync::Arc;

use crate::canonical::{self, Slashes};

/// A canonical path, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathPattern {
    /// This one.
    Exact(Arc<str>),
    /// This one and all below it, by segment; without a trailing slash.
    Prefix(Arc<str>),
    /// All that end so.
    Suffix(Arc<str>),
}

impl PathPattern {
    /// Whether a canonical path fits.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(wanted) => &**wanted == path,
            // The root is every path, `*` of OPTIONS included.
            Self::Prefix(wanted) if wanted.is_empty() => true,
            Self::Prefix(wanted) => path
                .strip_prefix(&**wanted)
                .is_some_and(|rest| matches!(rest.as_bytes(), [] | [b'/', ..])),
            Self::Suffix(wanted) => path.ends_with(&**wanted),
        }
    }

    /// A whole path.
    ///
    /// # Errors
    /// When it is not canonical: then it would fit no request.
    pub fn exact(text: &str) -> Result<Self, String> {
        Ok(Self::Exact(canonical(text)?.into()))
    }

    /// A path and all below it.
    ///
    /// # Errors
    /// As [`PathPattern::exact`].
    pub fn prefix(text: &str) -> Result<Self, String> {
        let text = canonical(text)?;
        Ok(Self::Prefix(text.strip_suffix('/').unwrap_or(text).into()))
    }

    /// The end of a path, within its last segments.
    ///
    /// # Errors
    /// When no canonical path ends so.
    pub fn suffix(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("is empty; every path ends so".to_owned());
        }
        let slash = if text.starts_with('/') { "" } else { "/" };
        // `/.html` would be taken for a dot file; a name before it does no harm.
        canonical(&format!("/x{slash}{text}")).map_err(|_| not_canonical(text))?;
        Ok(Self::Suffix(text.into()))
    }
}

fn not_canonical(text: &str) -> String {
    format!("{text:?} is not in the form that requests are brought to, so it would fit none")
}

fn canonical(text: &str) -> Result<&str, String> {
    match canonical::path(text, Slashes::Keep) {
        Ok(None) => Ok(text),
        Ok(Some(form)) => Err(format!("{}; write {form:?}", not_canonical(text))),
        Err(error) => Err(format!("{text:?} can be no request's path: {error}")),
    }
}
