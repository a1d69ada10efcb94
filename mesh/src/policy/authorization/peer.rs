//! Identities that a rule is about.

use std::sync::Arc;

use crate::identity::SpiffeId;

/// Whom a SPIFFE id must be of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerPattern {
    /// This id.
    Exact(Arc<str>),
    /// All ids that begin so; ends with a slash.
    Prefix(Arc<str>),
    /// Whoever has proven one.
    Any,
    /// All of a namespace, in the mesh's own trust domain.
    Namespace(Arc<str>),
    /// A service, in the mesh's own trust domain.
    Service {
        /// Its namespace.
        namespace: Arc<str>,
        /// Its name.
        name: Arc<str>,
    },
}

impl PeerPattern {
    /// `spiffe://...`, `spiffe://.../*`, or `*` for whoever has one.
    ///
    /// # Errors
    /// What is wrong.
    pub fn identity(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let Some(prefix) = text.strip_suffix('*') else {
            let id: SpiffeId = text.parse().map_err(|error| format!("{error}"))?;
            return Ok(Self::Exact(id.as_str().into()));
        };
        let wrong = || {
            format!(
                "{text:?} is no identity; use one like spiffe://weir.local/ns/default/sa/web, or \
                 end after a slash with * for all below it: spiffe://weir.local/ns/default/*"
            )
        };
        // What follows the prefix may be any of these: then the rest is well formed.
        let forms = ["ns/a/sa/b", "a/sa/b", "sa/b", "b"];
        let whole = |rest: &&str| format!("{prefix}{rest}").parse::<SpiffeId>().is_ok();
        if !prefix.ends_with('/') || !forms.iter().any(whole) {
            return Err(wrong());
        }
        Ok(Self::Prefix(prefix.into()))
    }

    /// A namespace's name.
    ///
    /// # Errors
    /// When it can be none.
    pub fn namespace(text: &str) -> Result<Self, String> {
        SpiffeId::new("a", text, "a").map_err(|error| format!("{error}"))?;
        Ok(Self::Namespace(text.into()))
    }

    /// `service`, or `namespace/service`.
    ///
    /// # Errors
    /// When it can be none.
    pub fn service(text: &str) -> Result<Self, String> {
        let (namespace, name) = text.split_once('/').unwrap_or((SpiffeId::DEFAULT_NAMESPACE, text));
        SpiffeId::new("a", namespace, name).map_err(|error| format!("{error}"))?;
        Ok(Self::Service { namespace: namespace.into(), name: name.into() })
    }

    /// Whether an id is meant; an empty one never is. `trust_domain` is the
    /// mesh's.
    #[must_use]
    pub fn matches(&self, id: &str, trust_domain: &str) -> bool {
        let path = || {
            let rest = id.strip_prefix("spiffe://")?.strip_prefix(trust_domain)?;
            rest.strip_prefix("/ns/")?.split_once("/sa/")
        };
        match self {
            Self::Exact(wanted) => &**wanted == id,
            Self::Prefix(wanted) => id.starts_with(&**wanted),
            Self::Any => !id.is_empty(),
            Self::Namespace(wanted) => path().is_some_and(|(namespace, _)| namespace == &**wanted),
            Self::Service { namespace, name } => {
                path().is_some_and(|found| found == (&**namespace, &**name))
            }
        }
    }
}

/// Any of some identities.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Peers(pub Vec<PeerPattern>);

impl Peers {
    /// Whether an id is among them.
    #[must_use]
    pub fn has(&self, id: &str, trust_domain: &str) -> bool {
        self.0.iter().any(|pattern| pattern.matches(id, trust_domain))
    }
}
