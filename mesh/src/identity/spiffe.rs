//! SPIFFE ids of the form `spiffe://<trust domain>/ns/<namespace>/sa/<service>`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The scheme and what follows it.
const SCHEME: &str = "spiffe://";
/// SPIFFE-ID section 2.3.
const MAX_LENGTH: usize = 2048;
/// SPIFFE-ID section 2.1, after RFC 3986's `host`.
const MAX_TRUST_DOMAIN: usize = 255;

/// A workload's name in the mesh, as the SPIFFE-ID standard writes it and with
/// the path that Weir, like Istio, gives its workloads:
/// `spiffe://weir.local/ns/default/sa/products`.
///
/// Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    text: Arc<str>,
    // Where each part ends or begins in `text`; all are ASCII.
    trust_domain_end: u16,
    namespace_end: u16,
}

/// Why a text is no SPIFFE id of a workload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeIdError {
    /// Not `spiffe:`.
    #[error("{0:?} does not begin with \"spiffe://\"")]
    Scheme(String),
    /// Longer than 2,048 bytes.
    #[error("a SPIFFE id has at most 2048 bytes; this one has {0}")]
    Long(usize),
    /// SPIFFE-ID section 2.1.
    #[error(
        "trust domain {0:?}: use 1 to 255 lower-case letters, digits, '.', '-' or '_', without port or user"
    )]
    TrustDomain(String),
    /// Not the path of a workload.
    #[error("path {0:?} is not \"/ns/<namespace>/sa/<service>\"")]
    Path(String),
    /// SPIFFE-ID section 2.2.
    #[error(
        "path segment {0:?}: use letters, digits, '.', '-' or '_', and neither \".\" nor \"..\""
    )]
    Segment(String),
}

/// So that an attacker's text stays short in a log.
fn excerpt(text: &str) -> String {
    text.chars().take(120).collect()
}

fn check_trust_domain(text: &str) -> Result<(), SpiffeIdError> {
    let allowed =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
    if text.is_empty() || text.len() > MAX_TRUST_DOMAIN || !text.bytes().all(allowed) {
        return Err(SpiffeIdError::TrustDomain(excerpt(text)));
    }
    Ok(())
}

fn check_segment(text: &str) -> Result<(), SpiffeIdError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    if text.is_empty() || text == "." || text == ".." || !text.bytes().all(allowed) {
        return Err(SpiffeIdError::Segment(excerpt(text)));
    }
    Ok(())
}

impl SpiffeId {
    /// The namespace of a mesh that has no other.
    pub const DEFAULT_NAMESPACE: &str = "default";

    /// An id from its parts.
    ///
    /// # Errors
    /// When a part has characters that the standard does not allow.
    pub fn new(trust_domain: &str, namespace: &str, service: &str) -> Result<Self, SpiffeIdError> {
        check_trust_domain(trust_domain)?;
        check_segment(namespace)?;
        check_segment(service)?;
        let text = format!("{SCHEME}{trust_domain}/ns/{namespace}/sa/{service}");
        if text.len() > MAX_LENGTH {
            return Err(SpiffeIdError::Long(text.len()));
        }
        let trust_domain_end = SCHEME.len() + trust_domain.len();
        let namespace_end = trust_domain_end + "/ns/".len() + namespace.len();
        // Both are below MAX_LENGTH.
        let (trust_domain_end, namespace_end) = (trust_domain_end as u16, namespace_end as u16);
        Ok(Self { text: text.into(), trust_domain_end, namespace_end })
    }

    /// A service's id in the default namespace.
    ///
    /// # Errors
    /// When a part has characters that the standard does not allow.
    pub fn of_service(trust_domain: &str, service: &str) -> Result<Self, SpiffeIdError> {
        Self::new(trust_domain, Self::DEFAULT_NAMESPACE, service)
    }

    /// The control plane's own id.
    ///
    /// # Errors
    /// When the trust domain has characters that the standard does not allow.
    pub fn control_plane(trust_domain: &str) -> Result<Self, SpiffeIdError> {
        Self::new(trust_domain, "weir-system", "control-plane")
    }

    /// The whole id, beginning with `spiffe://`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whose authority vouches for it, such as `weir.local`.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.text[SCHEME.len()..self.trust_domain_end.into()]
    }

    /// Such as `default`.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.text[usize::from(self.trust_domain_end) + "/ns/".len()..self.namespace_end.into()]
    }

    /// The service's name, such as `products`.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.text[usize::from(self.namespace_end) + "/sa/".len()..]
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeIdError;

    fn from_str(text: &str) -> Result<Self, SpiffeIdError> {
        if text.len() > MAX_LENGTH {
            return Err(SpiffeIdError::Long(text.len()));
        }
        let rest = text.strip_prefix(SCHEME).ok_or_else(|| SpiffeIdError::Scheme(excerpt(text)))?;
        let (trust_domain, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        check_trust_domain(trust_domain)?;
        let mut parts = path.split('/');
        let ("", Some("ns"), Some(namespace), Some("sa"), Some(service), None) = (
            parts.next().unwrap_or_default(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
        ) else {
            return Err(SpiffeIdError::Path(excerpt(path)));
        };
        Self::new(trust_domain, namespace, service)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.text, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_its_parts() {
        let id: SpiffeId = "spiffe://weir.local/ns/default/sa/products".parse().unwrap();
        assert_eq!(
            (id.trust_domain(), id.namespace(), id.service()),
            ("weir.local", "default", "products")
        );
        assert_eq!(id, SpiffeId::of_service("weir.local", "products").unwrap());
        assert_eq!(
            SpiffeId::control_plane("a.b").unwrap().as_str(),
            "spiffe://a.b/ns/weir-system/sa/control-plane"
        );
    }

    #[test]
    fn refuses_what_the_standard_does() {
        for wrong in [
            "",
            "https://weir.local/ns/a/sa/b",
            "spiffe://Weir.Local/ns/a/sa/b",
            "spiffe://weir.local:8080/ns/a/sa/b",
            "spiffe://user@weir.local/ns/a/sa/b",
            "spiffe:///ns/a/sa/b",
            "spiffe://weir.local",
            "spiffe://weir.local/",
            "spiffe://weir.local/ns/a/sa/b/",
            "spiffe://weir.local//ns/a/sa/b",
            "spiffe://weir.local/ns/../sa/b",
            "spiffe://weir.local/ns/a/sa/b?x=1",
            "spiffe://weir.local/ns/a/sa/b#x",
            "spiffe://weir.local/ns/a/sa/%41",
            "spiffe://weir.local/ns/a/sa/b\0",
        ] {
            assert!(wrong.parse::<SpiffeId>().is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn text_and_parts_say_the_same(
            domain in "[a-z0-9._-]{1,40}", ns in "[a-zA-Z0-9_-]{1,20}", sa in "[a-zA-Z0-9_-]{1,20}",
        ) {
            let id = SpiffeId::new(&domain, &ns, &sa).unwrap();
            prop_assert_eq!(&id.as_str().parse::<SpiffeId>().unwrap(), &id);
            prop_assert_eq!((id.trust_domain(), id.namespace(), id.service()), (&*domain, &*ns, &*sa));
        }

        #[test]
        fn no_text_makes_it_panic(text in "(spiffe://)?\\PC{0,80}") {
            if let Ok(id) = text.parse::<SpiffeId>() {
                prop_assert_eq!(id.as_str(), text);
            }
        }
    }
}
